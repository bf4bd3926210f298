/**
 * TCP segments without data that the director sends in the name of a client or of a virtual service, complete frames but
 * for their MAC addresses. One is written at a time, into a buffer that is reused.
 */
import { ETHERNET_HEADER, EtherType, VLAN_TAG } from '../wire/ethernet.ts';
import { fillIpv4Checksum, IPV4_DONT_FRAGMENT, IPV4_HEADER, Ipv4, Protocol } from '../wire/ipv4.ts';
import { IPV6_HEADER, Ipv6 } from '../wire/ipv6.ts';
import { HEADROOM, Packet } from '../wire/packet.ts';
import { fillTcpChecksum, TCP_HEADER, Tcp, TcpOption } from '../wire/tcp.ts';
import { CONNECTION_BYTES, ConnectionField, ConnectionFlag, type ConnectionTable } from './connections.ts';
import { TCP_OPTIONS_LIMIT } from './forwarding/tcp-options.ts';
import { NO_SCALE } from './syn-cookie.ts';

const DEFAULT_TTL = 64;
/** Version 4, a header of five words; the length is added. */
const IPV4_FIRST_WORD = 0x45000000;
const IPV6_FIRST_WORD = 0x60000000;
/** Nobody has any. */
const NO_TAGS = new Uint8Array(0);

export class OwnSegments {
  /** The segment that was written last; valid until the next one. */
  readonly packet = new Packet(HEADROOM + 256 + HEADROOM);
  /** Of the segment to be written. */
  ttl = DEFAULT_TTL;
  /** Options of the segment to be written, in a multiple of four bytes; used up by it. */
  readonly #options = new Uint8Array(TCP_OPTIONS_LIMIT);
  readonly #optionView = new DataView(this.#options.buffer);
  #optionLength = 0;

  addSegmentSize(bytes: number): void {
    this.#add(TcpOption.maximumSegmentSize, 4);
    this.#optionView.setUint16(this.#optionLength - 2, bytes);
  }

  addSackPermitted(): void {
    this.#pad(2);
    this.#add(TcpOption.sackPermitted, 2);
  }

  addTimestamps(value: number, echoReply: number): void {
    this.#pad(2);
    this.#add(TcpOption.timestamps, 10);
    this.#optionView.setInt32(this.#optionLength - 8, value);
    this.#optionView.setInt32(this.#optionLength - 4, echoReply);
  }

  /** @param scale 0..14; `NO_SCALE`: no option */
  addWindowScale(scale: number): void {
    if (scale === NO_SCALE) return;
    this.#pad(1);
    this.#add(TcpOption.windowScale, 3);
    this.#optionView.setUint8(this.#optionLength - 1, scale);
  }

  #pad(nops: number): void {
    for (let nop = 0; nop < nops; nop++) this.#options[this.#optionLength++] = TcpOption.nop;
  }

  #add(kind: number, length: number): void {
    this.#options[this.#optionLength] = kind;
    this.#options[this.#optionLength + 1] = length;
    this.#optionLength += length;
  }

  /**
   * Writes a segment with the ends of a packet, and the VLAN tags that it came with.
   * @param turned an answer to its sender; false: what its sender could have sent in its place
   */
  like(
    packet: Packet,
    turned: boolean,
    flags: number,
    sequence: number,
    acknowledgement: number,
    window: number,
  ): Packet {
    const { bytes, sourceAt, destinationAt, sourcePort, destinationPort } = packet;
    const family = packet.family === 6 ? 6 : 4;
    const [source, destination] = [turned ? destinationAt : sourceAt, turned ? sourceAt : destinationAt];
    const transport = this.#begin(family, bytes, source, destination, tagsOf(packet));
    const { view } = this.packet;
    view.setUint16(transport + Tcp.sourcePort, turned ? destinationPort : sourcePort);
    view.setUint16(transport + Tcp.destinationPort, turned ? sourcePort : destinationPort);
    return this.#finish(family, transport, flags, sequence, acknowledgement, window);
  }

  /**
   * Writes a segment between the client and the virtual service of a connection.
   * @param toClient false: from the client
   * @param tags VLAN tags, without the EtherType in front of them and with that behind
   */
  between(
    connections: ConnectionTable,
    slot: number,
    toClient: boolean,
    tags: Uint8Array,
    flags: number,
    sequence: number,
    acknowledgement: number,
    window: number,
  ): Packet {
    const family = connections.flags(slot) & ConnectionFlag.ipv6 ? 6 : 4;
    const record = slot * CONNECTION_BYTES;
    const [client, virtual] = [record + ConnectionField.client, record + ConnectionField.virtual];
    const { bytes } = connections;
    const [source, destination] = toClient ? [virtual, client] : [client, virtual];
    const transport = this.#begin(family, bytes, source, destination, tags);
    const { view } = this.packet;
    const ports = connections.ports(slot);
    view.setUint16(transport + Tcp.sourcePort, toClient ? ports >>> 16 : ports & 0xffff, true);
    view.setUint16(transport + Tcp.destinationPort, toClient ? ports & 0xffff : ports >>> 16, true);
    return this.#finish(family, transport, flags, sequence, acknowledgement, window);
  }

  /** Writes the headers in front of TCP, with addresses from `from`; returns where TCP begins. */
  #begin(family: 4 | 6, from: Uint8Array, source: number, destination: number, tags: Uint8Array): number {
    const { bytes, view } = this.packet;
    bytes.fill(0, HEADROOM, HEADROOM + ETHERNET_HEADER + IPV6_HEADER);
    const type = HEADROOM + ETHERNET_HEADER - 2;
    if (tags.length > 0) bytes.set(tags, type);
    else view.setUint16(type, family === 4 ? EtherType.ipv4 : EtherType.ipv6);
    const network = type + Math.max(tags.length, 2);
    const segment = TCP_HEADER + this.#optionLength;
    const ttl = this.ttl;
    this.ttl = DEFAULT_TTL;
    if (family === 6) {
      view.setUint32(network, IPV6_FIRST_WORD);
      view.setUint16(network + Ipv6.payloadLength, segment);
      bytes[network + Ipv6.nextHeader] = Protocol.tcp;
      bytes[network + Ipv6.hopLimit] = ttl;
      copy(bytes, network + Ipv6.source, from, source, 16);
      copy(bytes, network + Ipv6.destination, from, destination, 16);
      return network + IPV6_HEADER;
    }
    view.setUint32(network, IPV4_FIRST_WORD + IPV4_HEADER + segment);
    view.setUint32(network + Ipv4.identification, IPV4_DONT_FRAGMENT);
    view.setUint16(network + Ipv4.ttl, (ttl << 8) | Protocol.tcp);
    view.setUint16(network + Ipv4.checksum, 0);
    copy(bytes, network + Ipv4.source, from, source, 4);
    copy(bytes, network + Ipv4.destination, from, destination, 4);
    fillIpv4Checksum(view, network);
    return network + IPV4_HEADER;
  }

  #finish(
    family: 4 | 6,
    transport: number,
    flags: number,
    sequence: number,
    acknowledgement: number,
    window: number,
  ): Packet {
    const { packet } = this;
    const { bytes, view } = packet;
    const header = TCP_HEADER + this.#optionLength;
    view.setInt32(transport + Tcp.sequence, sequence);
    view.setInt32(transport + Tcp.acknowledgement, acknowledgement);
    view.setUint8(transport + Tcp.dataOffset, (header >>> 2) << 4);
    view.setUint8(transport + Tcp.flags, flags);
    view.setUint16(transport + Tcp.window, window);
    view.setUint32(transport + Tcp.checksum, 0);
    for (let byte = 0; byte < this.#optionLength; byte++) {
      bytes[transport + TCP_HEADER + byte] = this.#options[byte] as number;
    }
    this.#optionLength = 0;
    const network = transport - (family === 4 ? IPV4_HEADER : IPV6_HEADER);
    fillTcpChecksum(view, family, network, transport, header);
    packet.parse(HEADROOM, transport + header - HEADROOM);
    return packet;
  }
}

/** The VLAN tags of a packet as they stand in its frame, from the first one's EtherType to the packet's own; empty without any. */
export function tagsOf(packet: Packet): Uint8Array {
  if (packet.tags === 0) return NO_TAGS;
  const type = packet.start + ETHERNET_HEADER - 2;
  return packet.bytes.slice(type, type + packet.tags * VLAN_TAG + 2);
}

function copy(to: Uint8Array, at: number, from: Uint8Array, fromAt: number, length: number): void {
  for (let byte = 0; byte < length; byte++) to[at + byte] = from[fromAt + byte] as number;
}
