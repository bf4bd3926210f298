/** What the guard is told about the cluster it guards, and the question it asks: may this address be at this MAC? */
import { formatAddress, formatMac, parseAddress, parseMac } from '../wire/address.ts';

/** An address and the MACs it may be at. */
export interface Binding {
  address: string;
  /** Empty: not known, the first that is seen counts. */
  macs: readonly string[];
}

export interface ClusterDescription {
  /** Virtual addresses of the services. */
  vips: readonly string[];
  /** MACs of all directors, this host's included: a VIP may be at any of them. */
  directors: readonly string[];
  /** Numbers of virtual routers, 1..255: a VIP may be at their virtual MACs (RFC 9568 section 7.3). */
  virtualRouters: readonly number[];
  gateways: readonly Binding[];
  /** Real servers. */
  servers: readonly Binding[];
  /** Bindings an administrator pinned; they go before everything else. */
  pins: readonly Binding[];
  /** This host's own addresses, and all its MACs. */
  own: { addresses: readonly string[]; macs: readonly string[] };
}

export const EMPTY_CLUSTER: ClusterDescription = {
  vips: [],
  directors: [],
  virtualRouters: [],
  gateways: [],
  servers: [],
  pins: [],
  own: { addresses: [], macs: [] },
};

/** What an address is to the cluster; the first of these that fits. */
export type AddressRole = 'vip' | 'own' | 'gateway' | 'server' | 'pinned';

interface Known {
  role: AddressRole;
  macs: ReadonlySet<string> | undefined;
}

/** The virtual MACs of a virtual router: IPv4's and IPv6's. */
export function virtualRouterMacs(number: number): [string, string] {
  const last = number.toString(16).padStart(2, '0');
  return [`00:00:5e:00:01:${last}`, `00:00:5e:00:02:${last}`];
}

export class ClusterKnowledge {
  readonly description: ClusterDescription;
  readonly #known = new Map<string, Known>();
  readonly #directors = new Set<string>();
  readonly #ownMacs = new Set<string>();
  readonly #servers = new Map<string, string>();

  /** @throws Error that names what is no address, MAC or router number */
  constructor(description: ClusterDescription = EMPTY_CLUSTER) {
    this.description = description;
    for (const mac of description.directors) this.#directors.add(canonicalMac(mac));
    for (const mac of description.own.macs) this.#ownMacs.add(canonicalMac(mac));
    for (const mac of this.#ownMacs) this.#directors.add(mac);
    for (const number of description.virtualRouters) {
      if (!Number.isInteger(number) || number < 1 || number > 255) {
        throw new Error(`${number} is no number of a virtual router: 1 to 255`);
      }
      for (const mac of virtualRouterMacs(number)) this.#directors.add(mac);
    }
    // The later lines go before the earlier ones.
    for (const binding of description.servers) this.#learn('server', binding);
    for (const binding of description.gateways) this.#learn('gateway', binding);
    // An address of this host that another director claims went there by a failover.
    for (const [role, addresses] of [
      ['own', description.own.addresses],
      ['vip', description.vips],
    ] as const) {
      for (const address of addresses) {
        this.#known.set(canonicalAddress(address), { role, macs: this.#directors });
      }
    }
    for (const { address, macs } of description.pins) {
      const key = canonicalAddress(address);
      const role = this.#known.get(key)?.role ?? 'pinned';
      this.#known.set(key, { role, macs: new Set(macs.map(canonicalMac)) });
    }
    for (const [address, { role, macs }] of this.#known) {
      if (role === 'server') for (const mac of macs ?? []) this.#servers.set(mac, address);
    }
  }

  #learn(role: AddressRole, { address, macs }: Binding): void {
    this.#known.set(canonicalAddress(address), {
      role,
      macs: macs.length > 0 ? new Set(macs.map(canonicalMac)) : undefined,
    });
  }

  roleOf(address: string): AddressRole | undefined {
    return this.#known.get(address)?.role;
  }

  /** Whether the address may be at the MAC; undefined if nobody said where it may be. */
  mayHold(address: string, mac: string): boolean | undefined {
    return this.#known.get(address)?.macs?.has(mac);
  }

  /** Where the address may be, for messages. */
  expectedMacs(address: string): string[] {
    return [...(this.#known.get(address)?.macs ?? [])];
  }

  /** True for this host, the other directors, and their virtual MACs. */
  isDirector(mac: string): boolean {
    return this.#directors.has(mac);
  }

  /** MACs of this host, the other directors, and their virtual MACs. */
  directorMacs(): string[] {
    return [...this.#directors];
  }

  isOwn(mac: string): boolean {
    return this.#ownMacs.has(mac);
  }

  /** The real server that is configured at this MAC. */
  serverAt(mac: string): string | undefined {
    return this.#servers.get(mac);
  }

  /** Every address whose MACs are known, with them: what static entries and the filter are made of. */
  bindings(): { address: string; role: AddressRole; macs: string[] }[] {
    return [...this.#known].flatMap(([address, { role, macs }]) =>
      macs && macs.size > 0 ? [{ address, role, macs: [...macs] }] : [],
    );
  }

  /** Every address that has a role. */
  addresses(): { address: string; role: AddressRole }[] {
    return [...this.#known].map(([address, { role }]) => ({ address, role }));
  }
}

function canonicalMac(text: string): string {
  const bytes = parseMac(text);
  if (!bytes) throw new Error(`"${text}" is no MAC address such as 00:0c:29:3b:07:73`);
  return formatMac(bytes);
}

function canonicalAddress(text: string): string {
  const bytes = parseAddress(text);
  if (!bytes) throw new Error(`"${text}" is no IP address`);
  return formatAddress(bytes);
}
