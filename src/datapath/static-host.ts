/** A host that is only described: interfaces with their addresses, a default route, and nobody on the wire. */
import type { Network, NextHop } from '../ipvs/network.ts';
import type { HostAddresses } from '../ipvs/service-table.ts';
import { addressBytes, type Family, formatAddress, parseAddress } from '../wire/address.ts';

export interface StaticInterface {
  name: string;
  /** `10.0.0.1/24`; the first of each family is the one the host speaks with. */
  addresses: readonly string[];
  /** Bytes. */
  mtu: number;
}

/** The loopback interface that every host has. */
export const LOOPBACK: StaticInterface = { name: 'lo', addresses: ['127.0.0.1/8', '::1/128'], mtu: 65536 };

/**
 * Parses `eth0=10.0.0.1/24,2001:db8::1/64`: a name and addresses with prefix lengths, none needed.
 * @throws Error that names what was wrong
 */
export function parseStaticInterface(text: string): StaticInterface {
  const [name = '', list = '', ...others] = text.split('=');
  if (!/^[^\s/:=,]{1,15}$/.test(name) || others.length > 0) {
    throw new Error(`"${text}" is no interface: write eth0=10.0.0.1/24,2001:db8::1/64`);
  }
  const addresses = list === '' ? [] : list.split(',');
  for (const address of addresses) parseNetwork(address);
  return { name, addresses, mtu: 1500 };
}

interface HostAddress {
  interfaceIndex: number;
  bytes: Uint8Array;
  prefixLength: number;
}

function parseNetwork(text: string): { bytes: Uint8Array; prefixLength: number } {
  const [address = '', prefix = '', ...others] = text.split('/');
  const bytes = parseAddress(address);
  const prefixLength = Number(prefix);
  if (!bytes || others.length > 0 || !/^[0-9]{1,3}$/.test(prefix) || prefixLength > 8 * bytes.length) {
    throw new Error(`"${text}" is no address with a prefix length, such as 10.0.0.1/24`);
  }
  return { bytes, prefixLength };
}

export class StaticHost implements Network, HostAddresses {
  readonly interfaces: readonly StaticInterface[];
  readonly #addresses: HostAddress[] = [];
  readonly #local = new Set<string>();
  readonly #broadcasts = new Set<string>();
  readonly #hops = new Map<Family, NextHop>();

  /** @throws Error if an address is none */
  constructor(interfaces: readonly StaticInterface[]) {
    this.interfaces = [LOOPBACK, ...interfaces];
    for (const [index, { addresses }] of this.interfaces.entries()) {
      for (const text of addresses) this.#addAddress({ interfaceIndex: index + 1, ...parseNetwork(text) });
    }
    for (const family of [4, 6] as const) this.#addHop(family);
  }

  isLocal(bytes: Uint8Array, at = 0, family: Family = bytes.length === 4 ? 4 : 6): boolean {
    // The whole of 127/8 is the host's own.
    if (family === 4 && bytes[at] === 127) return !this.isBroadcast(bytes.subarray(at, at + 4));
    return this.#local.has(formatAddress(bytes, at, addressBytes(family)));
  }

  isBroadcast(address: Uint8Array): boolean {
    return this.#broadcasts.has(formatAddress(address));
  }

  interfaceMtu(name: string): number | undefined {
    return this.interfaces.find(each => each.name === name)?.mtu;
  }

  /** The default route, whose gateway never answers; undefined if no interface has an address of the family. */
  nextHop(_bytes: Uint8Array, _at: number, family: Family): NextHop | undefined {
    return this.#hops.get(family);
  }

  /** Nobody is there to hear it. */
  transmit(): void {}

  #addAddress(address: HostAddress): void {
    const { bytes, prefixLength } = address;
    this.#addresses.push(address);
    this.#local.add(formatAddress(bytes));
    if (bytes.length !== 4 || prefixLength > 30) return;
    const broadcast = bytes.map((byte, index) => {
      const networkBits = Math.min(Math.max(prefixLength - 8 * index, 0), 8);
      return byte | (0xff >> networkBits);
    });
    this.#broadcasts.add(formatAddress(broadcast));
  }

  #addHop(family: Family): void {
    const source = this.#addresses.find(
      ({ bytes, interfaceIndex }) => interfaceIndex > 1 && bytes.length === addressBytes(family),
    );
    if (!source) return;
    const { interfaceIndex, bytes } = source;
    this.#hops.set(family, {
      interfaceIndex,
      sourceMac: Uint8Array.of(2, 0, 0, 0, 0, interfaceIndex - 1),
      destinationMac: new Uint8Array(6),
      resolved: false,
      mtu: this.interfaces[interfaceIndex - 1]?.mtu ?? 1500,
      sourceAddress: bytes,
    });
  }
}
