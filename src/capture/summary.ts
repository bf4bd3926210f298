/**
 * One line a frame, in the look of tshark 1.10: number, seconds since the first frame, source, destination,
 * protocol, length, and what the frame says.
 */
import { formatAddress, formatMac } from '../wire/address.ts';
import { Arp, ArpOperation, readArp } from '../wire/arp.ts';
import { Ethernet, EtherType } from '../wire/ethernet.ts';
import { ICMP_HEADER, IcmpType, Icmpv6Type, readIcmp } from '../wire/icmp.ts';
import { IPV4_HEADER, Ipv4, Protocol } from '../wire/ipv4.ts';
import { IPV6_HEADER, Ipv6, Ipv6Fragment } from '../wire/ipv6.ts';
import { MALFORMED_NAMES, Malformed } from '../wire/malformed.ts';
import { Packet } from '../wire/packet.ts';
import { SCTP_CHUNK_HEADER, SCTP_HEADER, SctpChunk } from '../wire/sctp.ts';
import { readTcp, TCP_HEADER, TcpFlag, TcpOption } from '../wire/tcp.ts';
import { readUdp, UDP_HEADER } from '../wire/udp.ts';
import { Conversations, type RelativeSegment } from './conversations.ts';
import type { CapturedFrame } from './frame.ts';
import { httpFirstLine } from './http.ts';
import {
  chunkName,
  flagNames,
  icmpCodeName,
  icmpTypeName,
  icmpv6CodeName,
  icmpv6TypeName,
  malformedProtocol,
  protocolName,
  shortProtocolName,
} from './names.ts';
import { DEEPEST_TUNNEL, innerPacket } from './tunnel.ts';
import { macName, type VendorList } from './vendors.ts';

/** The columns that come from the frame itself. */
export interface Summary {
  /** IP address of the innermost packet, else the MAC address. */
  source: string;
  destination: string;
  /** `TCP`, `HTTP`, `ARP`, … */
  protocol: string;
  /** Bytes on the wire. */
  length: number;
  info: string;
}

export interface SummaryOptions {
  /** MAC addresses with their vendor's name (default), or plain. */
  names?: boolean;
  /** Vendors besides the few that are built in. */
  vendors?: VendorList;
}

/** Reads frames in the order they were captured in; it remembers where TCP conversations began. */
export class Summarizer {
  readonly #packet = new Packet();
  readonly #conversations = new Conversations();
  readonly #names: boolean;
  readonly #vendors: VendorList | undefined;

  constructor(options: SummaryOptions = {}) {
    this.#names = options.names ?? true;
    this.#vendors = options.vendors;
  }

  /** Never throws: what cannot be read is named in the info column. */
  summarize(frame: Pick<CapturedFrame, 'bytes' | 'length'>): Summary {
    const packet = this.#packet;
    let refused = packet.load(frame.bytes);
    const mac = (offset: number): string => this.#mac(frame.bytes, offset);
    const summary: Summary = {
      source: mac(Ethernet.source),
      destination: mac(Ethernet.destination),
      protocol: '',
      length: frame.length,
      info: '',
    };
    for (let depth = 0; refused === Malformed.none && depth < DEEPEST_TUNNEL; depth++) {
      const inner = innerPacket(packet);
      if (!inner) break;
      refused = packet.parseNetwork(inner.at, inner.length);
    }
    const addresses = ipAddresses(packet);
    if (addresses) {
      summary.source = addresses.source;
      summary.destination = addresses.destination;
    }
    if (refused !== Malformed.none) {
      summary.protocol = malformedProtocol(refused, packet.family);
      summary.info =
        frame.length > frame.bytes.length
          ? '[Packet size limited during capture]'
          : `[Malformed Packet: ${MALFORMED_NAMES[refused]}]`;
      return summary;
    }
    const [protocol, info] = this.#describe(packet);
    summary.protocol = protocol;
    summary.info = info;
    return summary;
  }

  #mac(bytes: Uint8Array, at: number): string {
    if (bytes.length < at + 6) return '';
    return this.#names ? macName(bytes, at, this.#vendors) : formatMac(bytes, at);
  }

  #describe(packet: Packet): [protocol: string, info: string] {
    if (packet.etherType === EtherType.arp) return ['ARP', describeArp(packet)];
    if (packet.family === 0) return describeOther(packet);
    if (packet.isFragment) return describeFragment(packet);
    switch (packet.protocol) {
      case Protocol.tcp:
        return describeTcp(packet, this.#conversations.see(packet));
      case Protocol.udp: {
        const { sourcePort, destinationPort, length } = readUdp(packet.view, packet.transport);
        return ['UDP', `${sourcePort} > ${destinationPort} Len=${length - UDP_HEADER}`];
      }
      case Protocol.sctp:
        return ['SCTP', describeSctp(packet)];
      case Protocol.icmp:
        if (packet.family === 4) return ['ICMP', describeIcmp(packet)];
        break;
      case Protocol.icmpv6:
        if (packet.family === 6) return ['ICMPv6', describeIcmpv6(packet)];
        break;
      case Protocol.vrrp:
        if (packet.networkEnd > packet.transport)
          return ['VRRP', `Announcement (v${packet.view.getUint8(packet.transport) >>> 4})`];
        break;
    }
    const column = shortProtocolName(packet.protocol) ?? (packet.family === 4 ? 'IPv4' : 'IPv6');
    return [column, `${protocolName(packet.protocol)} (${packet.protocol})`];
  }
}

/** The addresses of the innermost packet; also of one whose header is all there but was refused for what it says. */
function ipAddresses({
  bytes,
  etherType,
  network,
  end,
}: Packet): { source: string; destination: string } | undefined {
  if (etherType === EtherType.ipv4 && network + IPV4_HEADER <= end) {
    return {
      source: formatAddress(bytes, network + Ipv4.source, 4),
      destination: formatAddress(bytes, network + Ipv4.destination, 4),
    };
  }
  if (etherType === EtherType.ipv6 && network + IPV6_HEADER <= end) {
    return {
      source: formatAddress(bytes, network + Ipv6.source, 16),
      destination: formatAddress(bytes, network + Ipv6.destination, 16),
    };
  }
  return undefined;
}

function describeArp(packet: Packet): string {
  const arp = readArp(packet.bytes, packet.network);
  const request = arp.operation === ArpOperation.request;
  if (arp.senderAddress === arp.targetAddress)
    return `Gratuitous ARP for ${arp.targetAddress} (${request ? 'Request' : 'Reply'})`;
  return request
    ? `Who has ${arp.targetAddress}? Tell ${arp.senderAddress}`
    : `${arp.senderAddress} is at ${formatMac(packet.bytes, packet.network + Arp.senderMac)}`;
}

/** Frames that are neither ARP nor IP; below 1536 the type is the length of an IEEE 802.3 frame. */
function describeOther(packet: Packet): [string, string] {
  if (packet.etherType < 0x0600) return ['LLC', `IEEE 802.3 frame, ${packet.etherType} bytes`];
  return [`0x${packet.etherType.toString(16).padStart(4, '0')}`, 'Ethernet II'];
}

function describeFragment(packet: Packet): [string, string] {
  const { view } = packet;
  if (packet.family === 4) {
    const identification = view.getUint16(packet.network + Ipv4.identification);
    const protocol = `${protocolName(packet.protocol)} ${packet.protocol}`;
    return [
      'IPv4',
      `Fragmented IP protocol (proto=${protocol}, off=${packet.fragmentOffset}, ID=${hex(identification, 4)})`,
    ];
  }
  const identification = hex(view.getUint32(packet.fragmentHeader + Ipv6Fragment.identification), 8);
  const next = view.getUint8(packet.fragmentHeader + Ipv6Fragment.nextHeader);
  const more = packet.moreFragments ? 'y' : 'n';
  return [
    'IPv6',
    `IPv6 fragment (off=${packet.fragmentOffset} more=${more} ident=0x${identification} nxt=${next})`,
  ];
}

function describeTcp(packet: Packet, relative: RelativeSegment): [string, string] {
  const header = readTcp(packet.view, packet.transport);
  const data = packet.transport + header.headerLength;
  const firstLine = httpFirstLine(packet.bytes.subarray(data, packet.networkEnd));
  if (firstLine !== undefined) return ['HTTP', firstLine];
  const words = [
    `${header.sourcePort} > ${header.destinationPort}`,
    `[${flagNames(header.flags)}]`,
    `Seq=${relative.sequence}`,
  ];
  if (header.flags & TcpFlag.ack) words.push(`Ack=${relative.acknowledgement}`);
  words.push(`Win=${relative.window}`);
  if (header.flags & TcpFlag.urg) words.push(`Urg=${header.urgent}`);
  words.push(`Len=${packet.networkEnd - data}`);
  words.push(...describeTcpOptions(packet, data, relative));
  return ['TCP', words.join(' ')];
}

/** The options tshark mentions, in the order they stand in. */
function describeTcpOptions(packet: Packet, end: number, relative: RelativeSegment): string[] {
  const { view } = packet;
  const words: string[] = [];
  for (let at = packet.transport + TCP_HEADER; at < end; ) {
    const kind = view.getUint8(at);
    if (kind === TcpOption.end) break;
    if (kind === TcpOption.nop) {
      at++;
      continue;
    }
    const length = at + 1 < end ? view.getUint8(at + 1) : 0;
    if (length < 2 || at + length > end) {
      words.push(`[Malformed Packet: ${MALFORMED_NAMES[Malformed.tcpOptions]}]`);
      break;
    }
    if (kind === TcpOption.maximumSegmentSize && length === 4) words.push(`MSS=${view.getUint16(at + 2)}`);
    else if (kind === TcpOption.sackPermitted && length === 2) words.push('SACK_PERM=1');
    else if (kind === TcpOption.windowScale && length === 3)
      words.push(`WS=${2 ** Math.min(view.getUint8(at + 2), 14)}`);
    else if (kind === TcpOption.timestamps && length === 10)
      words.push(`TSval=${view.getUint32(at + 2)}`, `TSecr=${view.getUint32(at + 6)}`);
    else if (kind === TcpOption.sack) {
      for (let edge = at + 2; edge + 8 <= at + length; edge += 8) {
        const left = (view.getUint32(edge) - relative.acknowledgementBase) >>> 0;
        const right = (view.getUint32(edge + 4) - relative.acknowledgementBase) >>> 0;
        words.push(`SLE=${left}`, `SRE=${right}`);
      }
    }
    at += length;
  }
  return words;
}

/** The names of all chunks; of DATA also the transmission sequence number. */
function describeSctp(packet: Packet): string {
  const { view, networkEnd } = packet;
  const words: string[] = [];
  let at = packet.transport + SCTP_HEADER;
  while (at + SCTP_CHUNK_HEADER <= networkEnd) {
    const type = view.getUint8(at);
    const length = view.getUint16(at + 2);
    if (length < SCTP_CHUNK_HEADER || at + length > networkEnd) {
      words.push(`[Malformed Packet: ${MALFORMED_NAMES[Malformed.sctpChunk]}]`);
      break;
    }
    words.push(chunkName(type));
    if (type === SctpChunk.data && length >= 16) words.push(`(TSN=${view.getUint32(at + 4)})`);
    at += (length + 3) & ~3;
  }
  return words.join(' ');
}

function describeIcmp(packet: Packet): string {
  const { type, code, rest } = readIcmp(packet.view, packet.transport);
  const name = icmpTypeName(type);
  if (type === IcmpType.echoRequest || type === IcmpType.echoReply) {
    const sequence = rest & 0xffff;
    const swapped = ((sequence & 0xff) << 8) | (sequence >>> 8);
    const ttl = packet.view.getUint8(packet.network + Ipv4.ttl);
    const padding = type === IcmpType.echoRequest ? ' ' : '   ';
    return `${name}${padding} id=0x${hex(rest >>> 16, 4)}, seq=${sequence}/${swapped}, ttl=${ttl}`;
  }
  const codeName = icmpCodeName(type, code);
  return codeName === undefined ? name : `${name} (${codeName})`;
}

function describeIcmpv6(packet: Packet): string {
  const { bytes, view, transport } = packet;
  const { type, code, rest } = readIcmp(view, transport);
  const name = icmpv6TypeName(type);
  if (type === Icmpv6Type.echoRequest || type === Icmpv6Type.echoReply) {
    const hopLimit = view.getUint8(packet.network + Ipv6.hopLimit);
    return `${name} id=0x${hex(rest >>> 16, 4)}, seq=${rest & 0xffff}, hop limit=${hopLimit}`;
  }
  const target = transport + ICMP_HEADER;
  const solicitation = type === Icmpv6Type.neighborSolicitation;
  if ((solicitation || type === Icmpv6Type.neighborAdvertisement) && target + 16 <= packet.networkEnd) {
    const address = formatAddress(bytes, target, 16);
    const mac = linkLayerOption(packet, target + 16, solicitation ? 1 : 2);
    if (solicitation) return `${name} for ${address}${mac === undefined ? '' : ` from ${mac}`}`;
    const flags = [
      [0x80000000, 'rtr'],
      [0x40000000, 'sol'],
      [0x20000000, 'ovr'],
    ] as const;
    const set = flags.filter(([bit]) => (rest & bit) !== 0).map(([, flag]) => flag);
    const shown = set.length === 0 ? '' : ` (${set.join(', ')})`;
    return `${name} ${address}${shown}${mac === undefined ? '' : ` is at ${mac}`}`;
  }
  const codeName = icmpv6CodeName(type, code);
  return codeName === undefined ? name : `${name} (${codeName})`;
}

/** The source (1) or target (2) link-layer address option of neighbour discovery (RFC 4861 section 4.6.1). */
function linkLayerOption(packet: Packet, at: number, kind: number): string | undefined {
  for (let option = at; option + 8 <= packet.networkEnd; ) {
    const length = packet.view.getUint8(option + 1) << 3;
    if (length === 0) return undefined;
    if (packet.view.getUint8(option) === kind) return formatMac(packet.bytes, option + 2);
    option += length;
  }
  return undefined;
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0');
}

/** Seconds with nine decimals. */
export function formatSeconds(nanoseconds: bigint): string {
  const sign = nanoseconds < 0n ? '-' : '';
  const absolute = nanoseconds < 0n ? -nanoseconds : nanoseconds;
  return `${sign}${absolute / 1_000_000_000n}.${(absolute % 1_000_000_000n).toString().padStart(9, '0')}`;
}

/**
 * The line as tshark 1.10 lays it out: the source at the right and the destination at the left of twelve columns,
 * the rest with one space in between.
 * @param number of the frame, from 1; undefined leaves the column away
 * @param time nanoseconds since the first frame
 */
export function formatSummary(summary: Summary, number: number | undefined, time: bigint): string {
  const columns = [
    ...(number === undefined ? [] : [String(number)]),
    formatSeconds(time),
    summary.source.padStart(12),
    '->',
    summary.destination.padEnd(12),
    summary.protocol,
    String(summary.length),
    summary.info,
  ];
  return columns.join(' ').trimEnd();
}
