/** The packet that an ICMP error quotes: a cursor over as much of it as there is, eight bytes of transport at least. */
import { IPV4_HEADER, IPV4_OFFSET_MASK, Ipv4, ipv4HeaderLength, Protocol } from '../wire/ipv4.ts';
import {
  extensionHeaderLength,
  IPV6_FRAGMENT_HEADER,
  IPV6_HEADER,
  Ipv6,
  Ipv6Fragment,
  isExtensionHeader,
} from '../wire/ipv6.ts';

/** More than this many extension headers is nobody's honest packet. */
const MAXIMUM_EXTENSION_HEADERS = 8;
const PORTS = 4;

export class EmbeddedPacket {
  /** Offset of the IP header in the buffer of the error. */
  network = 0;
  protocol = 0;
  /** Offset of the transport header. */
  transport = 0;
  sourceAt = 0;
  destinationAt = 0;
  /** True if it is a fragment other than the first: there is no transport header then. */
  isLaterFragment = false;
  /** True if the four bytes of the ports are there. */
  hasPorts = false;

  /**
   * Reads the IP header at `at`. The lengths it states are not compared with what is there: the quote is cut off.
   * @param end behind the last byte of the error
   * @returns false if there is no whole IP header of this family
   */
  read(view: DataView, family: number, at: number, end: number): boolean {
    this.network = at;
    const found = family === 4 ? this.#read4(view, at, end) : this.#read6(view, at, end);
    this.hasPorts = found && !this.isLaterFragment && this.transport + PORTS <= end;
    return found;
  }

  #read4(view: DataView, at: number, end: number): boolean {
    if (at + IPV4_HEADER > end || view.getUint8(at) >>> 4 !== 4) return false;
    const headerLength = ipv4HeaderLength(view, at);
    if (headerLength < IPV4_HEADER || at + headerLength > end) return false;
    this.protocol = view.getUint8(at + Ipv4.protocol);
    this.transport = at + headerLength;
    this.sourceAt = at + Ipv4.source;
    this.destinationAt = at + Ipv4.destination;
    this.isLaterFragment = (view.getUint16(at + Ipv4.fragment) & IPV4_OFFSET_MASK) !== 0;
    return true;
  }

  #read6(view: DataView, at: number, end: number): boolean {
    if (at + IPV6_HEADER > end || view.getUint8(at) >>> 4 !== 6) return false;
    this.sourceAt = at + Ipv6.source;
    this.destinationAt = at + Ipv6.destination;
    this.isLaterFragment = false;
    let next = view.getUint8(at + Ipv6.nextHeader);
    let offset = at + IPV6_HEADER;
    for (let walked = 0; isExtensionHeader(next) && !this.isLaterFragment; walked++) {
      if (walked === MAXIMUM_EXTENSION_HEADERS || offset + IPV6_FRAGMENT_HEADER > end) return false;
      const length = extensionHeaderLength(view, offset, next);
      if (next === Protocol.fragment) {
        this.isLaterFragment = (view.getUint16(offset + Ipv6Fragment.offset) & 0xfff8) !== 0;
      }
      next = view.getUint8(offset);
      offset += length;
    }
    this.protocol = next;
    this.transport = offset;
    return true;
  }
}
