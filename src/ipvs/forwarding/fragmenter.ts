/**
 * Cuts packets that are too big for the way and may be fragmented, and datagrams that came in fragments: these leave as
 * they came (RFC 791 section 3.2, RFC 8200 section 4.5; ip_do_fragment in net/ipv4/ip_output.c, ip6_fragment in
 * net/ipv6/ip6_output.c).
 */
import type { Family } from '../../wire/address.ts';
import {
  fillIpv4Checksum,
  IPV4_DONT_FRAGMENT,
  IPV4_HEADER,
  IPV4_MORE_FRAGMENTS,
  IPV4_OFFSET_MASK,
  Ipv4,
  ipv4HeaderLength,
  Protocol,
} from '../../wire/ipv4.ts';
import {
  extensionHeaderLength,
  IPV6_FRAGMENT_HEADER,
  IPV6_HEADER,
  IPV6_MINIMUM_MTU,
  Ipv6,
  Ipv6Fragment,
} from '../../wire/ipv6.ts';
import { HEADROOM, type Packet } from '../../wire/packet.ts';
import type { Network, NextHop } from '../network.ts';

/** Options with this bit of the type set go into every fragment, others only into the first. */
const COPIED = 0x80;
const OPTION_END = 0;
const OPTION_NOP = 1;

/** How a datagram came. */
export interface FragmentSizes {
  family: Family;
  /** The largest fragment, bytes of IP packet. */
  largest: number;
  /** The headers in front of the data of a fragment, bytes; the fewest of all fragments but the first. */
  headers: number;
  /** Data bytes of all fragments but the first, in order. */
  rest: readonly number[];
}

export class Fragmenter {
  readonly #network: Network;
  readonly #bytes = new Uint8Array(HEADROOM + 65536);
  readonly #view = new DataView(this.#bytes.buffer);
  #identification: number;

  /** @param identification what IPv6 fragments are numbered from, 32 bits */
  constructor(network: Network, identification: number) {
    this.#network = network;
    this.#identification = identification;
  }

  /**
   * Sends the packet, Ethernet header in place, in fragments, or whole if it fits and need not be cut.
   * @param mtu of the way, bytes
   * @param came how the datagram in it came; undefined if it came whole
   */
  send(packet: Packet, hop: NextHop, mtu: number, came: FragmentSizes | undefined): void {
    const same = came !== undefined && came.family === packet.family;
    const size = packet.networkEnd - packet.network;
    // Without its fragment header an IPv6 datagram may be no longer than its first fragment was.
    if (size <= mtu && !(same && size > came.largest)) {
      this.#network.transmit(packet.bytes, packet.start, packet.networkEnd, hop);
      return;
    }
    if (packet.family === 4) this.#send4(packet, hop, same ? Math.min(mtu, came.largest) : mtu, came);
    else {
      const limit = same ? Math.min(mtu, Math.max(came.largest, IPV6_MINIMUM_MTU)) : mtu;
      this.#send6(packet, hop, limit, came);
    }
  }

  #send4(packet: Packet, hop: NextHop, limit: number, came: FragmentSizes | undefined): void {
    const { bytes, view, start, network, networkEnd } = packet;
    const headerLength = ipv4HeaderLength(view, network);
    const space = (limit - headerLength) & ~7;
    if (space < 8) return;
    const data = network + headerLength;
    const framing = network - start;
    const field = view.getUint16(network + Ipv4.fragment);
    const more = field & IPV4_MORE_FRAGMENTS;
    // A datagram that came in fragments with DF leaves in such.
    const dontFragment = came ? field & IPV4_DONT_FRAGMENT : 0;
    const fits = keepsSizes(networkEnd - data, headerLength, limit - headerLength, came);
    let offset = field & IPV4_OFFSET_MASK;
    const rest = came?.rest ?? [];
    let piece = fits ? networkEnd - data - sum(rest) : space;
    for (let at = data, count = 0; at < networkEnd; count++) {
      const length = Math.min(piece, networkEnd - at);
      const last = at + length === networkEnd;
      this.#bytes.set(bytes.subarray(start, data), HEADROOM);
      const header = HEADROOM + framing;
      if (at > data) blankOptions(this.#bytes, header, headerLength);
      this.#view.setUint16(header + Ipv4.totalLength, headerLength + length);
      this.#view.setUint16(
        header + Ipv4.fragment,
        offset | (last ? more : IPV4_MORE_FRAGMENTS) | dontFragment,
      );
      fillIpv4Checksum(this.#view, header);
      this.#bytes.set(bytes.subarray(at, at + length), header + headerLength);
      this.#network.transmit(this.#bytes, HEADROOM, header + headerLength + length, hop);
      offset += length >>> 3;
      at += length;
      if (fits) piece = rest[count] ?? space;
    }
  }

  #send6(packet: Packet, hop: NextHop, limit: number, came: FragmentSizes | undefined): void {
    const { bytes, view, start, network, networkEnd } = packet;
    const { data, nextAt } = findFragmentable(view, network, networkEnd);
    const room = limit - (data - network) - IPV6_FRAGMENT_HEADER;
    const space = room & ~7;
    if (space < 8) return;
    const header = HEADROOM + (network - start);
    const fragment = HEADROOM + (data - start);
    const next = view.getUint8(nextAt);
    const identification = this.#identification++ >>> 0;
    const headers = data - network + IPV6_FRAGMENT_HEADER;
    const fits = keepsSizes(networkEnd - data, headers, room, came);
    const rest = came?.rest ?? [];
    let piece = fits ? networkEnd - data - sum(rest) : space;
    this.#bytes.set(bytes.subarray(start, data), HEADROOM);
    this.#view.setUint8(HEADROOM + (nextAt - start), Protocol.fragment);
    for (let at = data, count = 0; at < networkEnd; count++) {
      const length = Math.min(piece, networkEnd - at);
      const last = at + length === networkEnd;
      const body = fragment + IPV6_FRAGMENT_HEADER;
      this.#view.setUint16(header + Ipv6.payloadLength, body + length - header - IPV6_HEADER);
      this.#view.setUint8(fragment + Ipv6Fragment.nextHeader, next);
      this.#view.setUint8(fragment + 1, 0);
      this.#view.setUint16(fragment + Ipv6Fragment.offset, (at - data) | (last ? 0 : 1));
      this.#view.setUint32(fragment + Ipv6Fragment.identification, identification);
      this.#bytes.set(bytes.subarray(at, at + length), body);
      this.#network.transmit(this.#bytes, HEADROOM, body + length, hop);
      at += length;
      if (fits) piece = rest[count] ?? space;
    }
  }
}

/**
 * True if the fragments can have the sizes they came with; the first has what the others leave, a tunnel's headers
 * included. Linux does so where the new headers fit into the place of the old ones.
 * @param length bytes to divide
 * @param headers bytes in front of each piece
 * @param room bytes a piece may have
 */
function keepsSizes(
  length: number,
  headers: number,
  room: number,
  came: FragmentSizes | undefined,
): came is FragmentSizes {
  if (!came || headers > came.headers) return false;
  const first = length - sum(came.rest);
  return first > 0 && first <= room && (first & 7) === 0 && came.rest.every(size => size <= room);
}

function sum(sizes: readonly number[]): number {
  return sizes.reduce((total, size) => total + size, 0);
}

/** Where the part begins that fragments divide: behind the headers that every router reads (ip6_find_1stfragopt). */
function findFragmentable(view: DataView, network: number, end: number): { data: number; nextAt: number } {
  let nextAt = network + Ipv6.nextHeader;
  let at = network + IPV6_HEADER;
  for (let routed = false; at + 8 <= end; ) {
    const next = view.getUint8(nextAt);
    if (next === Protocol.routing) routed = true;
    else if (next !== Protocol.hopByHop && (next !== Protocol.destinationOptions || routed)) break;
    nextAt = at;
    at += extensionHeaderLength(view, at, next);
  }
  return { data: at, nextAt };
}

/** Overwrites options that belong only into the first fragment (ip_options_fragment). */
function blankOptions(bytes: Uint8Array, header: number, headerLength: number): void {
  let at = header + IPV4_HEADER;
  const end = header + headerLength;
  while (at < end) {
    const type = bytes[at] as number;
    if (type === OPTION_END) return;
    if (type === OPTION_NOP) {
      at++;
      continue;
    }
    const length = bytes[at + 1] as number;
    if (length < 2 || at + length > end) return;
    if ((type & COPIED) === 0) bytes.fill(OPTION_NOP, at, at + length);
    at += length;
  }
}
