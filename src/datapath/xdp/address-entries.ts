/**
 * What the program knows of addresses: whether one is a VIP, a server's whose replies are translated, or the director's
 * own. Several may claim the same address; an entry changes when the first claim comes or the last one goes.
 */
import type { Family } from '../../wire/address.ts';
import { formatAddress } from '../../wire/address.ts';
import { AddressFilter, SERVER_PORT, serviceKey } from './control.ts';
import { EMPTY_RECORD, FTP_RECORD, type ServiceMap } from './service-map.ts';

/**
 * What an address is claimed as: the VIP of a service; that of one of FTP, besides; a server whose replies are translated;
 * one of the director's that replies and errors come to.
 */
export type Claim = 'vip' | 'ftp' | 'server' | 'own';

interface Entry {
  readonly bytes: Uint8Array;
  readonly family: Family;
  /** Its keys in `services`: of the address, and as a server's. */
  readonly key: Uint8Array;
  readonly serverKey: Uint8Array;
  /** How many claim it. */
  readonly claims: Record<Claim, number>;
  /** It was a VIP when it was last written. */
  wasVip: boolean;
  /** A VIP without a service whose connections live on, or wait for a service of their family. */
  lingers: boolean;
  /** In which filters it is. */
  isLetIn: boolean;
  isRequested: boolean;
  isAwaited: boolean;
}

export class AddressEntries {
  readonly #services: ServiceMap;
  /** By canonical text. */
  readonly #entries = new Map<string, Entry>();
  readonly #changed = new Set<Entry>();
  #onDuty: ReadonlySet<Family> = new Set();
  #lingering = 0;
  /** Addresses that packets come to, those of them that are VIPs, and servers that packets come from. */
  readonly vips = new AddressFilter();
  readonly requested = new AddressFilter();
  readonly servers = new AddressFilter();

  constructor(services: ServiceMap) {
    this.#services = services;
  }

  claim(claim: Claim, bytes: Uint8Array): void {
    const entry = this.#entryOf(bytes);
    entry.claims[claim]++;
    this.#changed.add(entry);
  }

  release(claim: Claim, bytes: Uint8Array): void {
    const entry = this.#entryOf(bytes);
    entry.claims[claim]--;
    this.#changed.add(entry);
  }

  /** Has an address live on although nobody claims it. */
  linger(bytes: Uint8Array): void {
    this.#setLingering(this.#entryOf(bytes), true);
  }

  /** How many VIPs without a service there are. */
  get lingering(): number {
    return this.#lingering;
  }

  /** VIPs without a service, with their canonical text. */
  lingeringAddresses(): { name: string; bytes: Uint8Array }[] {
    return [...this.#entries].flatMap(([name, { lingers, bytes }]) => (lingers ? [{ name, bytes }] : []));
  }

  /** Gives one of them up. */
  stopLingering(name: string): void {
    const entry = this.#entries.get(name);
    if (entry) this.#setLingering(entry, false);
  }

  /** Gives up VIPs without a service. */
  forgetLingering(): void {
    for (const entry of this.#entries.values()) this.#setLingering(entry, false);
  }

  /** True for a VIP, and for one without a service whose connections live on. */
  isVip(bytes: Uint8Array, at: number, family: Family): boolean {
    const entry = this.#entries.get(formatAddress(bytes, at, family === 4 ? 4 : 16));
    return entry !== undefined && (entry.claims.vip > 0 || entry.lingers);
  }

  /**
   * Writes what changed into the map `services` and the filters.
   * @param onDuty families that have services: without, the virtual server stands aside, and nothing is looked at
   */
  write(onDuty: ReadonlySet<Family>): void {
    for (const family of [4, 6] as const) {
      if (onDuty.has(family) === this.#onDuty.has(family)) continue;
      for (const entry of this.#entries.values()) if (entry.family === family) this.#changed.add(entry);
    }
    this.#onDuty = new Set(onDuty);
    for (const entry of this.#changed) this.#write(entry);
    this.#changed.clear();
  }

  #write(entry: Entry): void {
    const { vip, ftp, server, own } = entry.claims;
    // A VIP that lost its last service keeps its connections.
    if (vip > 0) this.#setLingering(entry, false);
    else if (entry.wasVip) this.#setLingering(entry, true);
    entry.wasVip = vip > 0;
    // What is no TCP or UDP goes by these entries alone, also to a VIP whose last service is gone.
    const isKnown = vip > 0 || own > 0 || entry.lingers;
    this.#services.set(entry.key, ftp > 0 ? FTP_RECORD : isKnown ? EMPTY_RECORD : undefined);
    this.#services.set(entry.serverKey, server > 0 ? EMPTY_RECORD : undefined);
    const isOnDuty = this.#onDuty.has(entry.family);
    const isLetIn = isKnown && isOnDuty;
    if (isLetIn !== entry.isLetIn) this.vips.count(entry.bytes, isLetIn ? 1 : -1);
    entry.isLetIn = isLetIn;
    const isRequested = (vip > 0 || entry.lingers) && isOnDuty;
    if (isRequested !== entry.isRequested) this.requested.count(entry.bytes, isRequested ? 1 : -1);
    entry.isRequested = isRequested;
    const isAwaited = server > 0 && isOnDuty;
    if (isAwaited !== entry.isAwaited) this.servers.count(entry.bytes, isAwaited ? 1 : -1);
    entry.isAwaited = isAwaited;
    if (!isKnown && server === 0) this.#entries.delete(formatAddress(entry.bytes));
  }

  #setLingering(entry: Entry, lingers: boolean): void {
    if (entry.lingers === lingers) return;
    entry.lingers = lingers;
    this.#lingering += lingers ? 1 : -1;
    this.#changed.add(entry);
  }

  #entryOf(address: Uint8Array): Entry {
    const name = formatAddress(address);
    let entry = this.#entries.get(name);
    if (entry) return entry;
    const bytes = address.slice();
    entry = {
      bytes,
      family: bytes.length === 4 ? 4 : 6,
      key: serviceKey(0, bytes, 0),
      serverKey: serviceKey(0, bytes, SERVER_PORT),
      claims: { vip: 0, ftp: 0, server: 0, own: 0 },
      wasVip: false,
      lingers: false,
      isLetIn: false,
      isRequested: false,
      isAwaited: false,
    };
    this.#entries.set(name, entry);
    return entry;
  }
}
