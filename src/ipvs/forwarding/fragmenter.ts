/** Cuts IPv4 packets that are too big for the way and may be fragmented (RFC 791 section 3.2; ip_do_fragment). */
import {
  fillIpv4Checksum,
  IPV4_HEADER,
  IPV4_MORE_FRAGMENTS,
  Ipv4,
  ipv4HeaderLength,
} from '../../wire/ipv4.ts';
import { HEADROOM, type Packet } from '../../wire/packet.ts';
import type { Network, NextHop } from '../network.ts';

/** Options with this bit of the type set go into every fragment, others only into the first. */
const COPIED = 0x80;
const OPTION_END = 0;
const OPTION_NOP = 1;

export class Fragmenter {
  readonly #network: Network;
  readonly #bytes = new Uint8Array(HEADROOM + 65536);
  readonly #view = new DataView(this.#bytes.buffer);

  constructor(network: Network) {
    this.#network = network;
  }

  /** Sends the packet, Ethernet header in place, in fragments of the hop's MTU. */
  send(packet: Packet, hop: NextHop): void {
    const { bytes, view, start, network, networkEnd } = packet;
    const headerLength = ipv4HeaderLength(view, network);
    const framing = network - start;
    const piece = (hop.mtu - headerLength) & ~7;
    if (piece < 8) return;
    const field = view.getUint16(network + Ipv4.fragment);
    const more = field & IPV4_MORE_FRAGMENTS;
    let offset = field & 0x1fff;
    for (let at = network + headerLength; at < networkEnd; at += piece) {
      const length = Math.min(piece, networkEnd - at);
      const last = at + length === networkEnd;
      this.#bytes.set(bytes.subarray(start, network + headerLength), HEADROOM);
      const header = HEADROOM + framing;
      if (at > network + headerLength) blankOptions(this.#bytes, header, headerLength);
      this.#view.setUint16(header + Ipv4.totalLength, headerLength + length);
      this.#view.setUint16(header + Ipv4.fragment, offset | (last ? more : IPV4_MORE_FRAGMENTS));
      fillIpv4Checksum(this.#view, header);
      this.#bytes.set(bytes.subarray(at, at + length), header + headerLength);
      this.#network.transmit(this.#bytes, HEADROOM, header + headerLength + length, hop);
      offset += length >>> 3;
    }
  }
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
