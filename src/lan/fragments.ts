/** Fragmentation and reassembly (RFC 791 section 3.2, RFC 8200 section 4.5). */
import { ETHERNET_HEADER } from '../wire/ethernet.ts';
import {
  fillIpv4Checksum,
  IPV4_MORE_FRAGMENTS,
  IPV4_OFFSET_MASK,
  Ipv4,
  ipv4HeaderLength,
  Protocol,
} from '../wire/ipv4.ts';
import { IPV6_FRAGMENT_HEADER, IPV6_HEADER, Ipv6, Ipv6Fragment } from '../wire/ipv6.ts';
import type { Packet } from '../wire/packet.ts';

/** Cuts the IPv4 packet of an Ethernet frame into frames whose packets fit the MTU; options are copied into each. */
export function fragmentIpv4(frame: Uint8Array, mtu: number): Uint8Array[] {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  const header = ipv4HeaderLength(view, ETHERNET_HEADER);
  const data = ETHERNET_HEADER + header;
  const total = view.getUint16(ETHERNET_HEADER + Ipv4.totalLength) - header;
  const field = view.getUint16(ETHERNET_HEADER + Ipv4.fragment);
  const step = (mtu - header) & ~7;
  const frames: Uint8Array[] = [];
  for (let offset = 0; offset < total; offset += step) {
    const length = Math.min(step, total - offset);
    const piece = new Uint8Array(data + length);
    piece.set(frame.subarray(0, data));
    piece.set(frame.subarray(data + offset, data + offset + length), data);
    const pieceView = new DataView(piece.buffer);
    const more = offset + length < total ? IPV4_MORE_FRAGMENTS : field & IPV4_MORE_FRAGMENTS;
    pieceView.setUint16(ETHERNET_HEADER + Ipv4.totalLength, header + length);
    pieceView.setUint16(
      ETHERNET_HEADER + Ipv4.fragment,
      more | ((field & IPV4_OFFSET_MASK) + (offset >>> 3)),
    );
    fillIpv4Checksum(pieceView, ETHERNET_HEADER);
    frames.push(piece);
  }
  return frames;
}

/** Cuts the IPv6 packet of an Ethernet frame (no extension headers) at its source. */
export function fragmentIpv6(frame: Uint8Array, mtu: number, identification: number): Uint8Array[] {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  const header = ETHERNET_HEADER + IPV6_HEADER;
  const total = view.getUint16(ETHERNET_HEADER + Ipv6.payloadLength);
  const step = (mtu - IPV6_HEADER - IPV6_FRAGMENT_HEADER) & ~7;
  const frames: Uint8Array[] = [];
  for (let offset = 0; offset < total; offset += step) {
    const length = Math.min(step, total - offset);
    const piece = new Uint8Array(header + IPV6_FRAGMENT_HEADER + length);
    piece.set(frame.subarray(0, header));
    piece.set(frame.subarray(header + offset, header + offset + length), header + IPV6_FRAGMENT_HEADER);
    const pieceView = new DataView(piece.buffer);
    pieceView.setUint16(ETHERNET_HEADER + Ipv6.payloadLength, IPV6_FRAGMENT_HEADER + length);
    pieceView.setUint8(ETHERNET_HEADER + Ipv6.nextHeader, Protocol.fragment);
    pieceView.setUint8(header, view.getUint8(ETHERNET_HEADER + Ipv6.nextHeader));
    pieceView.setUint16(header + Ipv6Fragment.offset, offset | (offset + length < total ? 1 : 0));
    pieceView.setUint32(header + Ipv6Fragment.identification, identification);
    frames.push(piece);
  }
  return frames;
}

interface Assembly {
  started: number;
  /** Ethernet and IP header of the first fragment, then what has come. */
  head: Uint8Array | undefined;
  pieces: { offset: number; data: Uint8Array }[];
  /** Length of the whole, known from the last fragment. */
  total: number;
}

/** Linux's ipfrag_time, ms. */
const REASSEMBLY_TIME = 30_000;
/** Datagrams in progress; the oldest goes first. */
const MAXIMUM_ASSEMBLIES = 64;

/** Puts fragments together again. Overlapping ones discard the datagram (RFC 5722, and Linux for IPv4 as well). */
export class Reassembler {
  #assemblies = new Map<string, Assembly>();

  /**
   * Takes a fragment in.
   * @returns 'wait' for more, 'overlap' when the datagram was discarded, or the frame with the whole datagram
   */
  add(packet: Packet, now: number): Uint8Array | 'wait' | 'overlap' {
    for (const [key, old] of this.#assemblies)
      if (now - old.started > REASSEMBLY_TIME) this.#assemblies.delete(key);
    const key = this.#key(packet);
    let assembly = this.#assemblies.get(key);
    if (!assembly) {
      const oldest = this.#assemblies.keys().next();
      if (this.#assemblies.size >= MAXIMUM_ASSEMBLIES && !oldest.done) this.#assemblies.delete(oldest.value);
      assembly = { started: now, head: undefined, pieces: [], total: -1 };
      this.#assemblies.set(key, assembly);
    }
    const data = packet.bytes.slice(packet.transport, packet.networkEnd);
    const offset = packet.fragmentOffset;
    const end = offset + data.length;
    const twin = assembly.pieces.some(piece => piece.offset === offset && piece.data.length === data.length);
    if (twin) return 'wait';
    const overlaps =
      assembly.pieces.some(piece => offset < piece.offset + piece.data.length && piece.offset < end) ||
      (assembly.total >= 0 && (end > assembly.total || !packet.moreFragments));
    if (overlaps) {
      this.#assemblies.delete(key);
      return 'overlap';
    }
    assembly.pieces.push({ offset, data });
    if (!packet.moreFragments) assembly.total = end;
    if (offset === 0) assembly.head = this.#head(packet);
    const got = assembly.pieces.reduce((sum, piece) => sum + piece.data.length, 0);
    if (!assembly.head || got !== assembly.total) return 'wait';
    this.#assemblies.delete(key);
    return finish(assembly.head, assembly.pieces, packet.family === 6, got);
  }

  #key(packet: Packet): string {
    const { view, network } = packet;
    const identification =
      packet.family === 4
        ? view.getUint16(network + Ipv4.identification)
        : view.getUint32(packet.fragmentHeader + Ipv6Fragment.identification);
    // In IPv4 the protocol is part of the key; in IPv6 only the first fragment's next header counts.
    const protocol = packet.family === 4 ? packet.protocol : 0;
    return `${packet.source} ${packet.destination} ${protocol} ${identification}`;
  }

  /** Everything in front of the data; the IPv6 fragment header (and what lies before it) is left out. */
  #head(packet: Packet): Uint8Array {
    const { bytes, start, network } = packet;
    if (packet.family === 4) return bytes.slice(start, packet.transport);
    const head = bytes.slice(start, network + IPV6_HEADER);
    head[network - start + Ipv6.nextHeader] = bytes[packet.fragmentHeader] as number;
    return head;
  }
}

function finish(
  head: Uint8Array,
  pieces: readonly { offset: number; data: Uint8Array }[],
  isIpv6: boolean,
  total: number,
): Uint8Array {
  const frame = new Uint8Array(head.length + total);
  frame.set(head);
  for (const piece of pieces) frame.set(piece.data, head.length + piece.offset);
  const view = new DataView(frame.buffer);
  if (isIpv6) {
    view.setUint16(ETHERNET_HEADER + Ipv6.payloadLength, total);
  } else {
    view.setUint16(ETHERNET_HEADER + Ipv4.totalLength, head.length - ETHERNET_HEADER + total);
    view.setUint16(ETHERNET_HEADER + Ipv4.fragment, 0);
    fillIpv4Checksum(view, ETHERNET_HEADER);
  }
  return frame;
}
