/** One interface of this host as a place to ask, announce and listen at. */

import type { Observation } from '../arp/observation.ts';
import { observe } from '../arp/observation.ts';
import { PacketTap, PacketType, type TappedFrame } from '../datapath/ffi/packet-tap.ts';
import { type HostRoute, type HostState, readHostStateSync } from '../datapath/host-state.ts';
import { type Family, formatAddress } from '../wire/address.ts';
import { HEADROOM, Packet } from '../wire/packet.ts';
import { DISCOVERY_FILTER } from './discovery-filter.ts';

/** What a frame said, and how it was seen. */
export interface SegmentFrame {
  observation: Observation;
  isOutgoing: boolean;
  /** Addressed to this host, also as one of a group. */
  isToThisHost: boolean;
  /** Milliseconds since 1970, when the kernel saw it. */
  time: number;
}

export interface SegmentInterface {
  index: number;
  name: string;
  mac: Uint8Array;
  /** 4 or 16 bytes each. */
  addresses: Uint8Array[];
}

/**
 * An interface by its name, in the present network namespace.
 * @throws Error that says what is wrong with it
 */
export function segmentInterface(name: string, state: HostState = readHostStateSync()): SegmentInterface {
  const link = state.interfaces.find(each => each.name === name);
  if (!link) {
    const names = state.interfaces.map(each => each.name).join(', ');
    throw new Error(`there is no interface ${name}; there are ${names}`);
  }
  if (link.mac.every(byte => byte === 0)) {
    throw new Error(`${name} has no MAC address: there is neither ARP nor neighbour discovery on it`);
  }
  return {
    index: link.index,
    name,
    mac: link.mac,
    addresses: state.addresses.filter(each => each.interfaceIndex === link.index).map(each => each.bytes),
  };
}

/**
 * The interface by which this host would reach an address on a segment of its own.
 * @throws Error if there is none, with what to do
 */
export function interfaceTowards(address: Uint8Array, state: HostState = readHostStateSync()): string {
  const route = directRoute(address, state);
  // A VIP with a prefix of its own has no route but through itself: the segment is that of the interface that has it.
  const holder = state.addresses.find(each => formatAddress(each.bytes) === formatAddress(address));
  const index = route?.interfaceIndex ?? holder?.interfaceIndex;
  const link = state.interfaces.find(each => each.index === index && !each.isLoopback);
  if (link) return link.name;
  throw new Error(
    `${formatAddress(address)} is on no segment of this host: name the interface with --interface`,
  );
}

/** The route to an address that needs no gateway. */
export function directRoute(address: Uint8Array, state: HostState): HostRoute | undefined {
  return state.routes.find(
    ({ bytes, prefixLength, interfaceIndex, gateway }) =>
      interfaceIndex !== 0 && gateway === undefined && covers(bytes, prefixLength, address),
  );
}

function covers(prefix: Uint8Array, length: number, address: Uint8Array): boolean {
  if (prefix.length !== address.length) return false;
  for (let bit = 0; bit < length; bit += 8) {
    const mask = length - bit >= 8 ? 0xff : (0xff00 >> (length - bit)) & 0xff;
    if (((prefix[bit / 8] as number) ^ (address[bit / 8] as number)) & mask) return false;
  }
  return true;
}

/**
 * The address that this host asks with on an interface: in the target's network if there is one, for IPv6 the
 * link-local one first; undefined if it has none of the family.
 */
export function sourceFor(
  own: SegmentInterface,
  target: Uint8Array,
  state: HostState,
): Uint8Array | undefined {
  const candidates = state.addresses.filter(
    each => each.interfaceIndex === own.index && each.bytes.length === target.length,
  );
  const linkLocal = candidates.find(
    ({ bytes }) => bytes.length === 16 && bytes[0] === 0xfe && (bytes[1] ?? 0) >> 6 === 2,
  );
  const near = candidates.find(({ bytes, prefixLength }) => covers(bytes, prefixLength, target));
  return (linkLocal ?? near ?? candidates[0])?.bytes;
}

/** Listens to ARP and neighbour discovery on an interface and sends frames out of it. */
export class Segment {
  readonly interface: SegmentInterface;
  readonly #tap: PacketTap;
  readonly #packet = new Packet(HEADROOM + 2048 + HEADROOM);

  /**
   * Opens it in the present network namespace.
   * @param promiscuous also what is for other stations
   * @throws Error without root (CAP_NET_RAW)
   */
  constructor(own: SegmentInterface, { promiscuous = false, slots = 512 } = {}) {
    if (process.geteuid?.() !== 0) {
      throw new Error('frames of one own need root (CAP_NET_RAW): run this as root');
    }
    this.interface = own;
    this.#tap = new PacketTap({
      interfaceIndex: own.index,
      interfaceName: own.name,
      filter: DISCOVERY_FILTER,
      promiscuous,
      slots,
    });
  }

  /** Calls back for every ARP and neighbour discovery frame from now on. */
  watch(callback: (frame: SegmentFrame) => void): void {
    this.#tap.watch(frame => {
      const seen = this.#read(frame);
      if (seen) callback(seen);
    });
  }

  #read({ bytes, type, vlan, time }: TappedFrame): SegmentFrame | undefined {
    const malformed = this.#packet.load(bytes);
    const observation = observe(this.#packet, malformed, vlan);
    if (!observation) return undefined;
    const isOutgoing = type === PacketType.outgoing;
    return {
      observation,
      isOutgoing,
      isToThisHost: !isOutgoing && type !== PacketType.otherHost,
      time,
    };
  }

  send(frame: Uint8Array): void {
    this.#tap.send(frame);
  }

  /** Frames that were lost because they came faster than they were read. */
  lost(): number {
    return this.#tap.lost();
  }

  close(): void {
    this.#tap.close();
  }
}

/** The family of an address of 4 or 16 bytes. */
export function familyOfBytes(address: Uint8Array): Family {
  return address.length === 4 ? 4 : 6;
}
