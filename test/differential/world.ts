/** The host of the two data paths and who is around it: two interfaces, servers of every kind of way, clients. */
import type { Network, NextHop } from '../../src/ipvs/network.ts';
import type { HostAddresses } from '../../src/ipvs/service-table.ts';
import { type Family, formatAddress, parseAddress, parseMac } from '../../src/wire/address.ts';

export function ip(text: string): Uint8Array {
  const bytes = parseAddress(text);
  if (!bytes) throw new RangeError(text);
  return bytes;
}

function mac(text: string): Uint8Array {
  const bytes = parseMac(text);
  if (!bytes) throw new RangeError(text);
  return bytes;
}

export const INTERFACES = [
  { name: 'eth0', index: 2, mac: mac('02:00:00:00:00:01'), mtu: 1500 },
  { name: 'eth1', index: 3, mac: mac('02:00:00:00:01:01'), mtu: 1400 },
] as const;

export type Interface = (typeof INTERFACES)[number];

export const VIPS: Readonly<Record<Family, readonly string[]>> = {
  4: ['10.0.0.3', '10.0.0.4', '172.16.9.9'],
  6: ['2001:db8::3', '2001:db8::4'],
};
export const OWN: Readonly<Record<Family, readonly string[]>> = {
  4: ['10.0.0.1', '10.0.1.1'],
  6: ['2001:db8::1', '2001:db8:1::1'],
};
/** Local addresses of FULLNAT. */
export const LOCALS: Readonly<Record<Family, readonly string[]>> = {
  4: ['10.0.0.50', '10.0.0.51'],
  6: ['2001:db8::50'],
};
/** On both interfaces; of .15 the MAC address is not known, .16 is far, .17 has a small MTU on the way. */
export const SERVERS: Readonly<Record<Family, readonly string[]>> = {
  4: [
    '10.0.0.11',
    '10.0.0.12',
    '10.0.0.13',
    '10.0.1.11',
    '10.0.1.12',
    '10.0.0.15',
    '198.51.100.16',
    '10.0.0.17',
  ],
  6: ['2001:db8::11', '2001:db8::12', '2001:db8:1::11', '2001:db8::15', '2001:db8:99::16', '2001:db8::17'],
};
export const CLIENTS: Readonly<Record<Family, readonly string[]>> = {
  4: ['192.0.2.7', '192.0.2.8', '192.0.3.9', '203.0.113.200', '10.0.0.77'],
  6: ['2001:db8:77::5', '2001:db8:77::6', '2001:db8:78::7'],
};

/** On the ways to clients and servers. */
export const ROUTERS: Readonly<Record<Family, readonly string[]>> = {
  4: ['192.0.2.1', '198.51.100.1', '10.0.0.254'],
  6: ['2001:db8:77::1', '2001:db8:99::1', '2001:db8::fe'],
};

const GATEWAY_MAC = mac('02:00:00:00:00:fe');
const SMALL_MTU = 1300;

const local = new Set([...VIPS[4], ...VIPS[6], ...OWN[4], ...OWN[6], ...LOCALS[4], ...LOCALS[6]]);

export interface SentFrame {
  bytes: Uint8Array;
  interfaceIndex: number;
}

/** One for each data path. What it is asked does not depend on time. */
export class World implements Network, HostAddresses {
  /** What left since it was last emptied. */
  readonly sent: SentFrame[] = [];
  readonly #hops = new Map<string, NextHop>();

  isLocal(bytes: Uint8Array, at = 0, family: Family = bytes.length === 4 ? 4 : 6): boolean {
    return local.has(formatAddress(bytes, at, family === 4 ? 4 : 16)) || (family === 4 && bytes[at] === 127);
  }

  isBroadcast(address: Uint8Array): boolean {
    return ['10.0.0.255', '10.0.1.255'].includes(formatAddress(address));
  }

  interfaceMtu(name: string): number | undefined {
    return INTERFACES.find(each => each.name === name)?.mtu;
  }

  nextHop(bytes: Uint8Array, at: number, family: Family): NextHop | undefined {
    const text = formatAddress(bytes, at, family === 4 ? 4 : 16);
    let hop = this.#hops.get(text);
    if (!hop && !text.startsWith('198.18.')) {
      hop = this.#makeHop(text, family);
      this.#hops.set(text, hop);
    }
    return hop;
  }

  #makeHop(text: string, family: Family): NextHop {
    const out = /^(10\.0\.1\.|2001:db8:1:)/.test(text) ? INTERFACES[1] : INTERFACES[0];
    const number = /^(10\.0\.[01]\.|2001:db8:(?:1:)?:)([0-9a-f]+)$/.exec(text)?.[2];
    return {
      interfaceIndex: out.index,
      sourceMac: out.mac,
      destinationMac: number ? mac(`02:00:00:00:02:${number.padStart(2, '0').slice(-2)}`) : GATEWAY_MAC,
      resolved: number !== '15',
      mtu: number === '17' ? SMALL_MTU : out.mtu,
      sourceAddress: ip(OWN[family][out.index - 2] ?? ''),
    };
  }

  transmit(bytes: Uint8Array, start: number, end: number, hop: NextHop): void {
    if (hop.resolved) this.sent.push({ bytes: bytes.slice(start, end), interfaceIndex: hop.interfaceIndex });
  }
}
