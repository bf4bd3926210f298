/**
 * The one parser of whole frames: a cursor over a buffer that is set to a frame and tells where its headers are.
 * It is made once and reused, and allocates nothing while parsing.
 */
import { type Family, formatAddress } from './address.ts';
import { checkArp } from './arp.ts';
import { fold, swap16 } from './checksum.ts';
import { ETHERNET_HEADER, Ethernet, EtherType, VLAN_TAG } from './ethernet.ts';
import { ICMP_HEADER } from './icmp.ts';
import {
  checkIpv4,
  IPV4_HEADER,
  IPV4_MORE_FRAGMENTS,
  IPV4_OFFSET_MASK,
  Ipv4,
  ipv4HeaderLength,
  Protocol,
} from './ipv4.ts';
import {
  checkIpv6,
  extensionHeaderLength,
  IPV6_FRAGMENT_HEADER,
  IPV6_HEADER,
  Ipv6,
  Ipv6Fragment,
  isExtensionHeader,
} from './ipv6.ts';
import { Malformed } from './malformed.ts';
import { checkSctp, SCTP_HEADER } from './sctp.ts';
import { checkFirstTcpFragment, checkTcp, TCP_HEADER, Tcp } from './tcp.ts';
import { checkFirstUdpFragment, checkUdp } from './udp.ts';

/** Room in front of a frame that encapsulation may grow into: the largest outer header plus alignment. */
export const HEADROOM = 256;

/** EtherType, then version 4 and a header of five words. */
const PLAIN_IPV4 = 0x080045;
/** More-fragments bit and fragment offset in the second word, read little-endian. */
const RAW_FRAGMENT_BITS = 0xff3f0000 | 0;
/** More than this many VLAN tags or extension headers is nobody's honest frame. */
const MAXIMUM_TAGS = 4;
const MAXIMUM_EXTENSION_HEADERS = 8;

export class Packet {
  bytes: Uint8Array;
  view: DataView;
  /** First byte of the frame in the buffer. */
  start = 0;
  /** Behind the last byte of the frame, padding included. */
  end = 0;

  /** EtherType behind the VLAN tags. */
  etherType = 0;
  /** Number of VLAN tags. */
  tags = 0;
  /** Offset of the network header (ARP, IPv4, IPv6). */
  network = 0;
  /** 4, 6, or 0 when the frame is not IP. */
  family: Family | 0 = 0;
  /** Behind the last byte of the IP packet: padding is not part of it. */
  networkEnd = 0;
  /** Transport protocol, behind any extension headers. */
  protocol = 0;
  /** Offset of the transport header. */
  transport = 0;
  /** Offset of the IPv6 fragment header, or -1. */
  fragmentHeader = -1;
  /** True if this is a fragment, the first one included. */
  isFragment = false;
  /** Offset of this fragment's data in the datagram, bytes. */
  fragmentOffset = 0;
  moreFragments = false;
  /** Ports of TCP, UDP and SCTP; 0 for everything else and for later fragments. */
  sourcePort = 0;
  destinationPort = 0;
  /** The TCP flags byte, else 0. */
  tcpFlags = 0;

  /**
   * @param capacity bytes of buffer to make, or a buffer to work on (a ring of frames, for example)
   */
  constructor(buffer: ArrayBufferLike | number = HEADROOM + 65536 + HEADROOM) {
    const memory = typeof buffer === 'number' ? new ArrayBuffer(buffer) : buffer;
    this.bytes = new Uint8Array(memory);
    this.view = new DataView(memory);
  }

  get length(): number {
    return this.end - this.start;
  }

  /** Copies a frame into the buffer behind the headroom and parses it. */
  load(frame: Uint8Array): Malformed {
    if (frame.length > this.bytes.length - 2 * HEADROOM) return this.#reset(-1, 0);
    this.bytes.set(frame, HEADROOM);
    return this.parse(HEADROOM, frame.length);
  }

  /** The frame's bytes in a copy of their own. */
  copy(): Uint8Array {
    return this.bytes.slice(this.start, this.end);
  }

  /**
   * Sets the cursor to the frame at `start` and finds its headers. Anything but `Malformed.none` means that what
   * belongs behind the header at fault is not set: offsets are `start`, numbers 0, flags false. A frame that does
   * not lie inside the buffer is refused as too long, and leaves an empty cursor.
   */
  parse(start: number, length: number): Malformed {
    if (this.#parsePlainTcp(start, length)) return Malformed.none;
    const refused = this.#reset(start, length);
    if (refused !== Malformed.none) return refused;
    if (length < ETHERNET_HEADER) return Malformed.frameTooShort;
    let etherType = this.view.getUint16(start + Ethernet.etherType);
    let network = start + ETHERNET_HEADER;
    while (etherType === EtherType.vlan || etherType === EtherType.serviceVlan) {
      if (++this.tags > MAXIMUM_TAGS || network + VLAN_TAG > this.end) return Malformed.vlanTruncated;
      etherType = this.view.getUint16(network + 2);
      network += VLAN_TAG;
    }
    this.etherType = etherType;
    this.network = network;
    if (etherType === EtherType.ipv4) return this.#parseIpv4(network);
    if (etherType === EtherType.ipv6) return this.#parseIpv6(network);
    if (etherType === EtherType.arp) return checkArp(this.view, network, this.end - network);
    return Malformed.none;
  }

  /**
   * The short way for what nearly every frame is: whole TCP over IPv4, neither tags nor IP options. The words of its
   * header are read once each, for checksum and fields together. Whatever is not plain or not right is left to the
   * long way, which knows the reason.
   */
  #parsePlainTcp(start: number, length: number): boolean {
    const { view } = this;
    const end = start + length;
    const network = start + ETHERNET_HEADER;
    const transport = network + IPV4_HEADER;
    if (start < 0 || end > this.bytes.length || transport + TCP_HEADER > end) return false;
    if (view.getUint32(network - 2) >>> 8 !== PLAIN_IPV4) return false;
    const word0 = view.getUint32(network, true);
    const word1 = view.getUint32(network + 4, true);
    const word2 = view.getUint32(network + 8, true);
    const word3 = view.getUint32(network + 12, true);
    const word4 = view.getUint32(network + 16, true);
    const networkEnd = network + swap16(word0 >>> 16);
    const isFragment = (word1 & RAW_FRAGMENT_BITS) !== 0;
    const offsetAndFlags = view.getUint16(transport + Tcp.dataOffset);
    const data = transport + ((offsetAndFlags >>> 12) << 2);
    if (isFragment || ((word2 >>> 8) & 0xff) !== Protocol.tcp) return false;
    if (networkEnd > end || data > networkEnd || data < transport + TCP_HEADER) return false;
    const low = (word0 & 0xffff) + (word1 & 0xffff) + (word2 & 0xffff) + (word3 & 0xffff) + (word4 & 0xffff);
    const high = (word0 >>> 16) + (word1 >>> 16) + (word2 >>> 16) + (word3 >>> 16) + (word4 >>> 16);
    if (fold(low + high) !== 0xffff) return false;
    const ports = view.getUint32(transport);
    this.start = start;
    this.end = end;
    this.etherType = EtherType.ipv4;
    this.tags = 0;
    this.network = network;
    this.family = 4;
    this.networkEnd = networkEnd;
    this.protocol = Protocol.tcp;
    this.transport = transport;
    this.fragmentHeader = -1;
    this.isFragment = false;
    this.fragmentOffset = 0;
    this.moreFragments = false;
    this.sourcePort = ports >>> 16;
    this.destinationPort = ports & 0xffff;
    this.tcpFlags = offsetAndFlags & 0xff;
    return true;
  }

  /** Parses an IP packet without a frame around it, at `at` (what a tunnel or an ICMP error carries). */
  parseNetwork(at: number, length: number): Malformed {
    const refused = this.#reset(at, length);
    if (refused !== Malformed.none) return refused;
    this.network = at;
    if (length < 1) return Malformed.ipv4Truncated;
    const version = this.view.getUint8(at) >>> 4;
    this.etherType = version === 6 ? EtherType.ipv6 : EtherType.ipv4;
    return version === 6 ? this.#parseIpv6(at) : this.#parseIpv4(at);
  }

  /** Forgets the frame before this one: nothing of it may show through where this one has no such header. */
  #reset(start: number, length: number): Malformed {
    const inside = start >= 0 && length >= 0 && start + length <= this.bytes.length;
    const first = inside ? start : 0;
    this.start = first;
    this.end = inside ? start + length : 0;
    this.etherType = 0;
    this.tags = 0;
    this.network = first;
    this.family = 0;
    this.networkEnd = first;
    this.protocol = 0;
    this.transport = first;
    this.fragmentHeader = -1;
    this.isFragment = false;
    this.fragmentOffset = 0;
    this.moreFragments = false;
    this.sourcePort = 0;
    this.destinationPort = 0;
    this.tcpFlags = 0;
    return inside ? Malformed.none : Malformed.frameTooLong;
  }

  #parseIpv4(network: number): Malformed {
    const refused = checkIpv4(this.view, network, this.end - network);
    if (refused !== Malformed.none) return refused;
    this.family = 4;
    this.networkEnd = network + this.view.getUint16(network + Ipv4.totalLength);
    this.protocol = this.view.getUint8(network + Ipv4.protocol);
    this.transport = network + ipv4HeaderLength(this.view, network);
    const fragment = this.view.getUint16(network + Ipv4.fragment);
    this.fragmentOffset = (fragment & IPV4_OFFSET_MASK) << 3;
    this.moreFragments = (fragment & IPV4_MORE_FRAGMENTS) !== 0;
    return this.#parseTransport(this.transport);
  }

  #parseIpv6(network: number): Malformed {
    const refused = checkIpv6(this.view, network, this.end - network);
    if (refused !== Malformed.none) return refused;
    this.family = 6;
    this.networkEnd = network + IPV6_HEADER + this.view.getUint16(network + Ipv6.payloadLength);
    let next = this.view.getUint8(network + Ipv6.nextHeader);
    let at = network + IPV6_HEADER;
    for (let walked = 0; isExtensionHeader(next); walked++) {
      if (walked === MAXIMUM_EXTENSION_HEADERS || at + 8 > this.networkEnd)
        return Malformed.ipv6ExtensionHeader;
      const length = extensionHeaderLength(this.view, at, next);
      if (at + length > this.networkEnd) return Malformed.ipv6ExtensionHeader;
      if (next === Protocol.fragment) {
        // A fragment of a fragment: the second header would hide what the first one says.
        if (this.fragmentHeader >= 0) return Malformed.ipv6ExtensionHeader;
        this.fragmentHeader = at;
        const field = this.view.getUint16(at + Ipv6Fragment.offset);
        this.fragmentOffset = field & 0xfff8;
        this.moreFragments = (field & 1) !== 0;
      }
      next = this.view.getUint8(at);
      at += length;
      // Behind a later fragment's header there is data, whatever the next-header field says.
      if (this.fragmentOffset > 0) break;
    }
    this.protocol = next;
    this.transport = at;
    // What a fragment carries starts behind the fragment header, extension headers included.
    return this.#parseTransport(this.fragmentHeader < 0 ? at : this.fragmentHeader + IPV6_FRAGMENT_HEADER);
  }

  /** @param fragmentData where the bytes begin that reassembly would put at `fragmentOffset` */
  #parseTransport(fragmentData: number): Malformed {
    this.isFragment = this.moreFragments || this.fragmentOffset > 0;
    const length = this.networkEnd - this.transport;
    if (this.isFragment) {
      const carried = this.networkEnd - fragmentData;
      if (carried === 0 || this.fragmentOffset + carried > 65535) return Malformed.fragmentLength;
      if (this.moreFragments && (carried & 7) !== 0) return Malformed.fragmentLength;
      if (this.fragmentOffset > 0) return Malformed.none;
    }
    switch (this.protocol) {
      case Protocol.tcp: {
        const refused = this.isFragment
          ? checkFirstTcpFragment(this.view, this.transport, length)
          : checkTcp(this.view, this.transport, length);
        if (refused !== Malformed.none) return refused;
        this.tcpFlags = this.view.getUint8(this.transport + Tcp.flags);
        break;
      }
      case Protocol.udp: {
        const refused = this.isFragment
          ? checkFirstUdpFragment(this.view, this.transport, length)
          : checkUdp(this.view, this.transport, length);
        if (refused !== Malformed.none) return refused;
        break;
      }
      case Protocol.sctp: {
        // The first chunk may go on in the next fragment; the ports must be here.
        const refused = this.isFragment
          ? length < SCTP_HEADER
            ? Malformed.sctpTruncated
            : Malformed.none
          : checkSctp(this.view, this.transport, length);
        if (refused !== Malformed.none) return refused;
        break;
      }
      case Protocol.icmp:
        return this.family === 4 && length < ICMP_HEADER ? Malformed.icmpTruncated : Malformed.none;
      case Protocol.icmpv6:
        return this.family === 6 && length < ICMP_HEADER ? Malformed.icmpTruncated : Malformed.none;
      default:
        return Malformed.none;
    }
    this.sourcePort = this.view.getUint16(this.transport);
    this.destinationPort = this.view.getUint16(this.transport + 2);
    return Malformed.none;
  }

  /** Offset of the source address (4 or 16 bytes); only for IP packets. */
  get sourceAt(): number {
    return this.network + (this.family === 4 ? Ipv4.source : Ipv6.source);
  }

  /** Offset of the destination address. */
  get destinationAt(): number {
    return this.network + (this.family === 4 ? Ipv4.destination : Ipv6.destination);
  }

  /** The source address as text; not for the packet path. */
  get source(): string {
    return formatAddress(this.bytes, this.sourceAt, this.family === 4 ? 4 : 16);
  }

  /** The destination address as text; not for the packet path. */
  get destination(): string {
    return formatAddress(this.bytes, this.destinationAt, this.family === 4 ? 4 : 16);
  }
}
