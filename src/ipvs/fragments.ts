/**
 * Fragments put together (RFC 791 section 3.2, RFC 8200 section 4.5 and RFC 5722; net/ipv4/ip_fragment.c,
 * net/ipv4/inet_fragment.c, net/ipv6/netfilter/nf_conntrack_reasm.c): a director can only direct whole datagrams,
 * because later fragments have no ports. What is kept meanwhile is bounded in bytes and in time.
 */
import { type Family, formatAddress } from '../wire/address.ts';
import { fillIpv4Checksum, IPV4_DONT_FRAGMENT, Ipv4 } from '../wire/ipv4.ts';
import {
  extensionHeaderLength,
  IPV6_FRAGMENT_HEADER,
  IPV6_HEADER,
  Ipv6,
  Ipv6Fragment,
  trafficClass,
} from '../wire/ipv6.ts';
import { Malformed } from '../wire/malformed.ts';
import { HEADROOM, Packet } from '../wire/packet.ts';
import type { FragmentSizes } from './forwarding/fragmenter.ts';

/** Milliseconds in which all fragments must come (net.ipv4.ipfrag_time, net.netfilter.nf_conntrack_frag6_timeout). */
export const REASSEMBLY_TIME: Readonly<Record<Family, number>> = { 4: 30_000, 6: 60_000 };
/** Bytes kept of unfinished datagrams at most, by default (net.ipv4.ipfrag_high_thresh). */
export const REASSEMBLY_MEMORY = 4 * 1024 * 1024;
/** What an unfinished datagram and each of its fragments are counted as, besides their bytes. */
const BOOKKEEPING = 256;

const LARGEST_PAYLOAD = 65535;

/** What `Fragments.add` says of a fragment. */
export const Reassembly = {
  /** More is to come. */
  waiting: 0,
  /** The datagram is whole: it is in `Fragments.whole`. */
  complete: 1,
  /** It overlaps or contradicts another one, or the datagram is impossible: all of it is given up. */
  refused: 2,
} as const;

export type Reassembly = (typeof Reassembly)[keyof typeof Reassembly];

interface Piece {
  /** Bytes from the start of the datagram's data. */
  offset: number;
  data: Uint8Array;
}

interface Assembly {
  key: string;
  family: Family;
  startedAt: number;
  /** In order, without overlaps. */
  pieces: Piece[];
  /** Data bytes that came. */
  received: number;
  /** Data bytes of the datagram, -1 until the last fragment came. */
  total: number;
  /** The frame that carried the first fragment, from the Ethernet header to the end of the packet. */
  first: Uint8Array | undefined;
  /** The headers in front of the data, the fewest of all fragments but the first. */
  headers: number;
  /** The largest fragment, and the largest with DF, bytes of IP packet. */
  largest: number;
  largestWithDontFragment: number;
  /** A bit for each ECN codepoint that was seen. */
  codepoints: number;
  memory: number;
}

export class Fragments {
  /** The datagram that `add` completed last. */
  readonly whole = new Packet();
  /** How it came. */
  sizes: FragmentSizes = { family: 4, largest: 0, headers: 0, rest: [] };
  /** Datagrams given up because others needed the memory. */
  evicted = 0;
  readonly #limit: number;
  /** Oldest first. */
  readonly #assemblies = new Map<string, Assembly>();
  #memory = 0;

  readonly #room: (frame: number) => number;

  /**
   * @param memory bytes that unfinished datagrams may take
   * @param room bytes left behind a frame of that many bytes in the buffer it came in: IPv4 fragments that fit there
   * are glued to the first one and leave as one with it (skb_try_coalesce in net/core/skbuff.c). Default: none.
   */
  constructor(memory = REASSEMBLY_MEMORY, room: (frame: number) => number = () => 0) {
    this.#limit = memory;
    this.#room = room;
  }

  /** Datagrams of which fragments are kept. */
  get size(): number {
    return this.#assemblies.size;
  }

  /** Bytes they take. */
  get memory(): number {
    return this.#memory;
  }

  /**
   * Takes a fragment in; keeps a copy of what it needs. A datagram that is no fragment but has the header of one is
   * complete by itself, whatever else has its identification (RFC 6946).
   */
  add(packet: Packet, now: number): Reassembly {
    if (!packet.isFragment) return this.#addAlone(packet, now);
    const key = keyOf(packet);
    let assembly = this.#assemblies.get(key);
    if (!assembly) {
      assembly = start(packet, key, now);
      this.#assemblies.set(key, assembly);
      this.#grow(assembly, BOOKKEEPING);
    }
    if (!this.#insert(assembly, packet)) {
      this.#remove(assembly);
      return Reassembly.refused;
    }
    if (assembly.first && assembly.received === assembly.total) {
      this.#remove(assembly);
      return this.#finish(assembly, assembly.first) ? Reassembly.complete : Reassembly.refused;
    }
    this.#makeRoom(assembly);
    return Reassembly.waiting;
  }

  #addAlone(packet: Packet, now: number): Reassembly {
    const alone = start(packet, '', now);
    const inserted = this.#insert(alone, packet);
    this.#memory -= alone.memory;
    if (!inserted || !alone.first) return Reassembly.refused;
    return this.#finish(alone, alone.first) ? Reassembly.complete : Reassembly.refused;
  }

  /** False if the datagram cannot become whole with this fragment. A repeated fragment is ignored. */
  #insert(assembly: Assembly, packet: Packet): boolean {
    const data = dataOf(packet);
    const offset = packet.fragmentOffset;
    const end = offset + (packet.networkEnd - data);
    const { pieces } = assembly;
    if (assembly.total >= 0 && end > assembly.total) return false;
    if (!packet.moreFragments) {
      const last = pieces.at(-1);
      if (last && last.offset + last.data.length > end) return false;
      if (assembly.total >= 0 && assembly.total !== end) return false;
    }
    let place = pieces.length;
    while (place > 0 && (pieces[place - 1] as Piece).offset > offset) place--;
    if (isRepetition(pieces, offset, end)) return true;
    const before = pieces[place - 1];
    const after = pieces[place];
    if (before && before.offset + before.data.length > offset) return false;
    if (after && after.offset < end) return false;
    pieces.splice(place, 0, { offset, data: packet.bytes.slice(data, packet.networkEnd) });
    if (!packet.moreFragments) assembly.total = end;
    assembly.received += end - offset;
    if (offset === 0) assembly.first = packet.bytes.slice(packet.start, packet.networkEnd);
    else assembly.headers = Math.min(assembly.headers, data - packet.network);
    const size = packet.networkEnd - packet.network;
    assembly.largest = Math.max(assembly.largest, size);
    assembly.codepoints |= 1 << (classOf(packet) & 3);
    if (packet.family === 4 && packet.view.getUint16(packet.network + Ipv4.fragment) & IPV4_DONT_FRAGMENT) {
      assembly.largestWithDontFragment = Math.max(assembly.largestWithDontFragment, size);
    }
    this.#grow(assembly, end - offset + BOOKKEEPING);
    return true;
  }

  #grow(assembly: Assembly, bytes: number): void {
    assembly.memory += bytes;
    this.#memory += bytes;
  }

  #remove(assembly: Assembly): void {
    this.#assemblies.delete(assembly.key);
    this.#memory -= assembly.memory;
  }

  /** Gives up the oldest datagrams until the others are within bounds; the newest may go on as long as it fits alone. */
  #makeRoom(newest: Assembly): void {
    for (const assembly of this.#assemblies.values()) {
      if (this.#memory <= this.#limit) return;
      if (assembly === newest && this.#assemblies.size > 1) continue;
      this.#remove(assembly);
      this.evicted++;
    }
  }

  /** Writes the datagram into `whole`; false if there can be no such datagram. */
  #finish(assembly: Assembly, first: Uint8Array): boolean {
    const { whole } = this;
    // Not-ECT mixed with any other codepoint cannot have been sent (RFC 3168 section 5.3, ip_frag_ecn_table).
    if (assembly.codepoints & 1 && assembly.codepoints !== 1) return false;
    whole.parse(HEADROOM, 0);
    whole.bytes.set(first, HEADROOM);
    whole.parse(HEADROOM, first.length);
    const { view, network } = whole;
    const congested = (assembly.codepoints & 8) !== 0;
    const data = assembly.family === 4 ? whole.transport : removeFragmentHeader(whole);
    const end = data + assembly.total;
    if (assembly.family === 4) {
      if (end - network > LARGEST_PAYLOAD) return false;
      const dontFragment = assembly.largestWithDontFragment === assembly.largest ? IPV4_DONT_FRAGMENT : 0;
      view.setUint16(network + Ipv4.totalLength, end - network);
      view.setUint16(network + Ipv4.fragment, dontFragment);
      if (congested)
        view.setUint8(network + Ipv4.typeOfService, view.getUint8(network + Ipv4.typeOfService) | 3);
      fillIpv4Checksum(view, network);
    } else {
      if (end - network - IPV6_HEADER > LARGEST_PAYLOAD) return false;
      view.setUint16(network + Ipv6.payloadLength, end - network - IPV6_HEADER);
      if (congested) view.setUint8(network + 1, view.getUint8(network + 1) | 0x30);
    }
    for (const piece of assembly.pieces) whole.bytes.set(piece.data, data + piece.offset);
    this.sizes = {
      family: assembly.family,
      largest: assembly.largest,
      headers: assembly.headers,
      rest: this.#unglued(assembly, first),
    };
    return whole.parse(HEADROOM, end - HEADROOM) === Malformed.none;
  }

  /** Bytes of the pieces after the first that are not glued to it; after one that does not fit, none is. */
  #unglued({ family, pieces }: Assembly, first: Uint8Array): number[] {
    const rest = pieces.slice(1).map(piece => piece.data.length);
    if (family === 6) return rest;
    let room = this.#room(first.length);
    while (rest.length > 0 && (rest[0] as number) <= room) room -= rest.shift() as number;
    return rest;
  }

  /**
   * Gives up what did not become whole in time. Returns how many datagrams that were.
   * @param tell called with the first fragment of each, if that came: its sender may be told (RFC 792, RFC 4443 3.3)
   */
  expire(now: number, tell: (first: Packet) => void): number {
    let expired = 0;
    for (const assembly of this.#assemblies.values()) {
      if (now - assembly.startedAt < REASSEMBLY_TIME[assembly.family]) continue;
      this.#remove(assembly);
      expired++;
      if (assembly.first && this.whole.load(assembly.first) === Malformed.none) tell(this.whole);
    }
    return expired;
  }
}

function keyOf(packet: Packet): string {
  const { bytes, view, network } = packet;
  const length = packet.family === 4 ? 4 : 16;
  const source = formatAddress(bytes, packet.sourceAt, length);
  const destination = formatAddress(bytes, packet.destinationAt, length);
  // Of IPv6 fragments only the first one's next header counts, so it is no part of the key.
  return packet.family === 4
    ? `${source} ${destination} ${view.getUint16(network + Ipv4.identification)} ${packet.protocol}`
    : `${source} ${destination} ${view.getUint32(packet.fragmentHeader + Ipv6Fragment.identification)}`;
}

function start(packet: Packet, key: string, now: number): Assembly {
  return {
    key,
    family: packet.family === 6 ? 6 : 4,
    startedAt: now,
    pieces: [],
    received: 0,
    total: -1,
    first: undefined,
    headers: LARGEST_PAYLOAD,
    largest: 0,
    largestWithDontFragment: 0,
    codepoints: 0,
    memory: 0,
  };
}

/** Where the data of a fragment begin. */
function dataOf(packet: Packet): number {
  return packet.family === 4 ? packet.transport : packet.fragmentHeader + IPV6_FRAGMENT_HEADER;
}

function classOf(packet: Packet): number {
  return packet.family === 4
    ? packet.view.getUint8(packet.network + Ipv4.typeOfService)
    : trafficClass(packet.view, packet.network);
}

/** True if all of `[offset, end)` is there already, in one run. */
function isRepetition(pieces: readonly Piece[], offset: number, end: number): boolean {
  let from = -1;
  let to = -1;
  for (const piece of pieces) {
    if (piece.offset !== to) from = piece.offset;
    to = piece.offset + piece.data.length;
    if (from <= offset && end <= to) return true;
  }
  return false;
}

/** Takes the fragment header out of the chain of headers; returns where the data begin then. */
function removeFragmentHeader(packet: Packet): number {
  const { view, network, fragmentHeader } = packet;
  let nextAt = network + Ipv6.nextHeader;
  let at = network + IPV6_HEADER;
  while (at < fragmentHeader) {
    const next = view.getUint8(nextAt);
    nextAt = at;
    at += extensionHeaderLength(view, at, next);
  }
  view.setUint8(nextAt, view.getUint8(fragmentHeader + Ipv6Fragment.nextHeader));
  return fragmentHeader;
}
