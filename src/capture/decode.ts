/**
 * A frame as a tree of layers and fields, named as tshark names them: plain data for JSON, and the text of
 * `tshark -V`. Every layer is there that can be read; where reading ends before the frame does, a last layer
 * `_malformed` says why.
 */
import { formatAddress, formatMac } from '../wire/address.ts';
import { ArpOperation, readArp } from '../wire/arp.ts';
import { sumBytes } from '../wire/checksum.ts';
import { ETHERNET_HEADER, Ethernet, EtherType, VLAN_TAG } from '../wire/ethernet.ts';
import { checkIcmp, ICMP_HEADER, IcmpType, Icmpv6Type, isIcmpv6Error, readIcmp } from '../wire/icmp.ts';
import { IPV4_HEADER, ipv4HeaderLength, Protocol, readIpv4 } from '../wire/ipv4.ts';
import {
  extensionHeaderLength,
  IPV6_HEADER,
  Ipv6,
  Ipv6Fragment,
  isExtensionHeader,
  readIpv6,
} from '../wire/ipv6.ts';
import { MALFORMED_NAMES, Malformed } from '../wire/malformed.ts';
import { Packet } from '../wire/packet.ts';
import { readSctp, SCTP_CHUNK_HEADER, SCTP_HEADER, sctpChecksumIsRight } from '../wire/sctp.ts';
import { readTcp, TCP_HEADER, Tcp, TcpFlag, TcpOption, tcpSum } from '../wire/tcp.ts';
import { readUdp, UDP_HEADER, Udp, udpSum } from '../wire/udp.ts';
import { Conversations } from './conversations.ts';
import type { CapturedFrame } from './frame.ts';
import { httpFirstLine } from './http.ts';
import {
  chunkName,
  flagNames,
  icmpCodeName,
  icmpTypeName,
  icmpv6CodeName,
  icmpv6TypeName,
  protocolName,
} from './names.ts';
import { formatSeconds } from './summary.ts';
import { DEEPEST_TUNNEL, greHeaderLength, innerPacket, packetBehind } from './tunnel.ts';
import { macName, type VendorList } from './vendors.ts';

export interface DecodedField {
  /** The name as tshark has it, for example `ip.ttl`. */
  name: string;
  value: number | string | boolean;
  /** The line that `-V` shows. */
  text: string;
}

export interface DecodedLayer {
  /** The name as tshark has it, for example `ip`. */
  name: string;
  /** The line that `-V` shows above the fields. */
  text: string;
  fields: DecodedField[];
}

export interface DecodedFrame {
  /** From 1. */
  number: number;
  layers: DecodedLayer[];
}

export interface DecodeOptions {
  /** MAC addresses with their vendor's name (default), or plain. */
  names?: boolean;
  /** Vendors besides the few that are built in. */
  vendors?: VendorList;
}

/** At most this many bytes of payload are shown. */
const LONGEST_PAYLOAD = 4096;

/** Reads frames in the order they were captured in; it remembers where TCP conversations began. */
export class Decoder {
  readonly #packet = new Packet();
  readonly #conversations = new Conversations();
  readonly #names: boolean;
  readonly #vendors: VendorList | undefined;

  constructor(options: DecodeOptions = {}) {
    this.#names = options.names ?? true;
    this.#vendors = options.vendors;
  }

  /**
   * Never throws.
   * @param number of the frame, from 1
   * @param time nanoseconds since the first frame
   */
  decode(frame: CapturedFrame, number: number, time: bigint): DecodedFrame {
    const layers: DecodedLayer[] = [frameLayer(frame, number, time)];
    const packet = this.#packet;
    let refused = packet.load(frame.bytes);
    if (frame.bytes.length >= ETHERNET_HEADER) {
      layers.push(this.#ethernet(packet), ...vlanLayers(packet));
      refused = this.#network(packet, refused, layers, 0);
    }
    if (refused !== Malformed.none) layers.push(malformedLayer(refused, frame));
    return { number, layers };
  }

  #ethernet({ bytes, view, start }: Packet): DecodedLayer {
    const destination = formatMac(bytes, start + Ethernet.destination);
    const source = formatMac(bytes, start + Ethernet.source);
    const type = view.getUint16(start + Ethernet.etherType);
    const shown = (at: number, plain: string): string => {
      const name = this.#names ? macName(bytes, start + at, this.#vendors) : plain;
      return `${name} (${plain})`;
    };
    const to = shown(Ethernet.destination, destination);
    const from = shown(Ethernet.source, source);
    return {
      name: 'eth',
      text: `Ethernet II, Src: ${from}, Dst: ${to}`,
      fields: [
        { name: 'eth.dst', value: destination, text: `Destination: ${to}` },
        { name: 'eth.src', value: source, text: `Source: ${from}` },
        { name: 'eth.type', value: type, text: `Type: ${etherTypeName(type)} (0x${hex(type, 4)})` },
      ],
    };
  }

  /** The layers from the IP header (or ARP) under the cursor on. Gives the reason where reading had to end. */
  #network(packet: Packet, refused: Malformed, layers: DecodedLayer[], depth: number): Malformed {
    const { network, end } = packet;
    if (refused === Malformed.none && packet.etherType === EtherType.arp) layers.push(arpLayer(packet));
    if (packet.etherType === EtherType.ipv4 && network + IPV4_HEADER <= end) layers.push(ipv4Layer(packet));
    if (packet.etherType === EtherType.ipv6 && network + IPV6_HEADER <= end) {
      layers.push(ipv6Layer(packet));
      if (packet.family === 6) layers.push(...extensionLayers(packet));
    }
    if (refused !== Malformed.none) return refused;
    if (packet.family === 0) return Malformed.none;
    if (packet.isFragment) {
      layers.push(payloadLayer(packet.bytes, packet.transport, packet.networkEnd));
      return Malformed.none;
    }
    const inner = innerPacket(packet);
    if (inner && depth < DEEPEST_TUNNEL) {
      if (packet.protocol === Protocol.gre)
        layers.push(greLayer(packet.view, packet.transport, packet.networkEnd));
      return this.#network(packet, packet.parseNetwork(inner.at, inner.length), layers, depth + 1);
    }
    this.#transport(packet, layers);
    return Malformed.none;
  }

  #transport(packet: Packet, layers: DecodedLayer[]): void {
    const { transport, networkEnd } = packet;
    let payload = transport;
    switch (packet.protocol) {
      case Protocol.tcp:
        payload = this.#tcp(packet, layers);
        break;
      case Protocol.udp:
        layers.push(udpLayer(packet));
        payload += UDP_HEADER;
        break;
      case Protocol.sctp:
        layers.push(sctpLayer(packet));
        return;
      case Protocol.icmp:
      case Protocol.icmpv6:
        if ((packet.protocol === Protocol.icmp) === (packet.family === 4)) {
          icmpLayers(packet, layers);
          return;
        }
    }
    if (payload < networkEnd) layers.push(payloadLayer(packet.bytes, payload, networkEnd));
  }

  /** Gives the offset of what TCP and HTTP leave for the payload. */
  #tcp(packet: Packet, layers: DecodedLayer[]): number {
    const { view, family, network, transport, networkEnd, bytes } = packet;
    const header = readTcp(view, transport);
    const relative = this.#conversations.see(packet);
    const data = transport + header.headerLength;
    const right = family !== 0 && tcpSum(view, family, network, transport, networkEnd - transport) === 0xffff;
    const flagBits = Object.entries(TcpFlag).map(([name, bit]): DecodedField => {
      const isSet = (header.flags & bit) !== 0;
      const field = TCP_FLAG_FIELDS[name as keyof typeof TcpFlag];
      return { name: `tcp.flags.${field}`, value: isSet, text: `${name.toUpperCase()}: ${setOrNot(isSet)}` };
    });
    layers.push({
      name: 'tcp',
      text:
        `Transmission Control Protocol, Src Port: ${header.sourcePort}, Dst Port: ${header.destinationPort}, ` +
        `Seq: ${relative.sequence}, Ack: ${relative.acknowledgement}, Len: ${networkEnd - data}`,
      fields: [
        numberField('tcp.srcport', 'Source Port', header.sourcePort),
        numberField('tcp.dstport', 'Destination Port', header.destinationPort),
        numberField('tcp.len', 'TCP Segment Len', networkEnd - data),
        numberField('tcp.seq', 'Sequence Number', relative.sequence, '    (relative sequence number)'),
        numberField('tcp.seq_raw', 'Sequence Number (raw)', header.sequence),
        numberField(
          'tcp.ack',
          'Acknowledgment Number',
          relative.acknowledgement,
          '    (relative ack number)',
        ),
        numberField('tcp.ack_raw', 'Acknowledgment number (raw)', header.acknowledgement),
        numberField('tcp.hdr_len', 'Header Length', header.headerLength, ' bytes'),
        {
          name: 'tcp.flags',
          value: header.flags,
          text: `Flags: 0x${hex(header.flags, 3)} (${flagNames(header.flags)})`,
        },
        ...flagBits,
        numberField('tcp.window_size_value', 'Window', header.window),
        numberField('tcp.window_size', 'Calculated window size', relative.window),
        checksumField('tcp.checksum', header.checksum, 4),
        checksumStatus('tcp.checksum.status', right),
        numberField('tcp.urgent_pointer', 'Urgent Pointer', header.urgent),
        ...tcpOptionFields(packet, data),
      ],
    });
    const line = httpFirstLine(bytes.subarray(data, networkEnd));
    if (line !== undefined) layers.push(httpLayer(line));
    return data;
  }
}

const TCP_FLAG_FIELDS = {
  fin: 'fin',
  syn: 'syn',
  rst: 'reset',
  psh: 'push',
  ack: 'ack',
  urg: 'urg',
  ece: 'ece',
  cwr: 'cwr',
} as const;

function frameLayer(frame: CapturedFrame, number: number, time: bigint): DecodedLayer {
  const fields: DecodedField[] = [
    { name: 'frame.number', value: number, text: `Frame Number: ${number}` },
    {
      name: 'frame.time_relative',
      value: formatSeconds(time),
      text: `Time since reference or first frame: ${formatSeconds(time)} seconds`,
    },
    numberField('frame.len', 'Frame Length', frame.length, ` bytes (${8 * frame.length} bits)`),
    numberField(
      'frame.cap_len',
      'Capture Length',
      frame.bytes.length,
      ` bytes (${8 * frame.bytes.length} bits)`,
    ),
  ];
  if (frame.interface !== undefined)
    fields.push({
      name: 'frame.interface_name',
      value: frame.interface,
      text: `Interface name: ${frame.interface}`,
    });
  if (frame.comment !== undefined)
    fields.push({ name: 'frame.comment', value: frame.comment, text: `Comment: ${frame.comment}` });
  return {
    name: 'frame',
    text: `Frame ${number}: ${frame.length} bytes on wire, ${frame.bytes.length} bytes captured`,
    fields,
  };
}

function vlanLayers(packet: Packet): DecodedLayer[] {
  const layers: DecodedLayer[] = [];
  for (let tag = 0; tag < packet.tags; tag++) {
    const at = packet.start + ETHERNET_HEADER + tag * VLAN_TAG;
    if (at + VLAN_TAG > packet.end) break;
    const control = packet.view.getUint16(at);
    const type = packet.view.getUint16(at + 2);
    const id = control & 0x0fff;
    // The type in front of a tag says which standard it follows; tshark names its fields by that.
    const service = packet.view.getUint16(at - 2) === EtherType.serviceVlan;
    const name = service ? 'ieee8021ad' : 'vlan';
    layers.push({
      name,
      text: `${service ? 'IEEE 802.1ad' : '802.1Q Virtual LAN'}, PRI: ${control >>> 13}, DEI: ${(control >>> 12) & 1}, ID: ${id}`,
      fields: [
        numberField(`${name}.priority`, 'Priority', control >>> 13),
        { name: `${name}.dei`, value: (control & 0x1000) !== 0, text: `DEI: ${(control >>> 12) & 1}` },
        numberField(`${name}.id`, 'ID', id),
        { name: `${name}.etype`, value: type, text: `Type: ${etherTypeName(type)} (0x${hex(type, 4)})` },
      ],
    });
  }
  return layers;
}

function arpLayer(packet: Packet): DecodedLayer {
  const arp = readArp(packet.bytes, packet.network);
  const operation = arp.operation === ArpOperation.request ? 'request' : 'reply';
  return {
    name: 'arp',
    text: `Address Resolution Protocol (${operation})`,
    fields: [
      { name: 'arp.hw.type', value: 1, text: 'Hardware type: Ethernet (1)' },
      { name: 'arp.proto.type', value: EtherType.ipv4, text: 'Protocol type: IPv4 (0x0800)' },
      numberField('arp.hw.size', 'Hardware size', 6),
      numberField('arp.proto.size', 'Protocol size', 4),
      { name: 'arp.opcode', value: arp.operation, text: `Opcode: ${operation} (${arp.operation})` },
      textField('arp.src.hw_mac', 'Sender MAC address', arp.senderMac),
      textField('arp.src.proto_ipv4', 'Sender IP address', arp.senderAddress),
      textField('arp.dst.hw_mac', 'Target MAC address', arp.targetMac),
      textField('arp.dst.proto_ipv4', 'Target IP address', arp.targetAddress),
    ],
  };
}

function ipv4Layer({ view, bytes, network, end }: Packet): DecodedLayer {
  const header = readIpv4(view, bytes, network);
  const whole = header.headerLength >= IPV4_HEADER && network + header.headerLength <= end;
  const field = header.typeOfService;
  const options = header.headerLength - IPV4_HEADER;
  return {
    name: 'ip',
    text: `Internet Protocol Version 4, Src: ${header.source}, Dst: ${header.destination}`,
    fields: [
      numberField('ip.version', 'Version', view.getUint8(network) >>> 4),
      numberField('ip.hdr_len', 'Header Length', header.headerLength, ' bytes'),
      { name: 'ip.dsfield', value: field, text: `Differentiated Services Field: 0x${hex(field, 2)}` },
      numberField('ip.len', 'Total Length', header.totalLength),
      {
        name: 'ip.id',
        value: header.identification,
        text: `Identification: 0x${hex(header.identification, 4)} (${header.identification})`,
      },
      flagField('ip.flags.df', "Don't fragment", header.dontFragment),
      flagField('ip.flags.mf', 'More fragments', header.moreFragments),
      numberField('ip.frag_offset', 'Fragment Offset', header.fragmentOffset),
      numberField('ip.ttl', 'Time to Live', header.ttl),
      numberField('ip.proto', 'Protocol', header.protocol, ` (${protocolName(header.protocol)})`),
      checksumField('ip.checksum', header.checksum, 4),
      checksumStatus('ip.checksum.status', whole && sumBytes(view, network, header.headerLength) === 0xffff),
      textField('ip.src', 'Source Address', header.source),
      textField('ip.dst', 'Destination Address', header.destination),
      ...(options > 0 && network + header.headerLength <= end
        ? [bytesField('ip.options', 'Options', bytes, network + IPV4_HEADER, options)]
        : []),
    ],
  };
}

function ipv6Layer({ view, bytes, network }: Packet): DecodedLayer {
  const header = readIpv6(view, bytes, network);
  return {
    name: 'ipv6',
    text: `Internet Protocol Version 6, Src: ${header.source}, Dst: ${header.destination}`,
    fields: [
      numberField('ipv6.version', 'Version', view.getUint8(network) >>> 4),
      {
        name: 'ipv6.tclass',
        value: header.trafficClass,
        text: `Traffic Class: 0x${hex(header.trafficClass, 2)}`,
      },
      { name: 'ipv6.flow', value: header.flowLabel, text: `Flow Label: 0x${hex(header.flowLabel, 5)}` },
      numberField('ipv6.plen', 'Payload Length', header.payloadLength),
      numberField('ipv6.nxt', 'Next Header', header.nextHeader, ` (${protocolName(header.nextHeader)})`),
      numberField('ipv6.hlim', 'Hop Limit', header.hopLimit),
      textField('ipv6.src', 'Source Address', header.source),
      textField('ipv6.dst', 'Destination Address', header.destination),
    ],
  };
}

/** Of a packet that was not refused, or whose refusal came behind them; the walk stops where they stop. */
function extensionLayers({ view, network, transport, networkEnd }: Packet): DecodedLayer[] {
  const layers: DecodedLayer[] = [];
  let next = view.getUint8(network + Ipv6.nextHeader);
  let at = network + IPV6_HEADER;
  while (isExtensionHeader(next) && at < transport && at + 8 <= networkEnd) {
    const length = extensionHeaderLength(view, at, next);
    const following = view.getUint8(at);
    const name = protocolName(next);
    const shownNext = numberField('', 'Next Header', following, ` (${protocolName(following)})`);
    if (next === Protocol.fragment) {
      const field = view.getUint16(at + Ipv6Fragment.offset);
      const identification = view.getUint32(at + Ipv6Fragment.identification);
      layers.push({
        name: 'ipv6.fraghdr',
        text: name,
        fields: [
          { ...shownNext, name: 'ipv6.fraghdr.nxt' },
          // tshark counts in units of 8 bytes here.
          numberField('ipv6.fraghdr.offset', 'Offset', field >>> 3, ` (${field & 0xfff8} bytes)`),
          flagField('ipv6.fraghdr.more', 'More Fragments', (field & 1) !== 0),
          {
            name: 'ipv6.fraghdr.ident',
            value: identification,
            text: `Identification: 0x${hex(identification, 8)}`,
          },
        ],
      });
    } else {
      const layer = EXTENSION_LAYERS.get(next) ?? 'ipv6.ext';
      layers.push({
        name: layer,
        text: name,
        fields: [
          { ...shownNext, name: `${layer}.nxt` },
          numberField(`${layer}.len_oct`, 'Length', length, ' bytes'),
        ],
      });
    }
    next = following;
    at += length;
  }
  return layers;
}

const EXTENSION_LAYERS: ReadonlyMap<number, string> = new Map([
  [Protocol.hopByHop, 'ipv6.hopopts'],
  [Protocol.routing, 'ipv6.routing'],
  [Protocol.destinationOptions, 'ipv6.dstopts'],
  [Protocol.authentication, 'ah'],
]);

function greLayer(view: DataView, at: number, end: number): DecodedLayer {
  const flags = view.getUint16(at);
  const protocol = view.getUint16(at + 2);
  return {
    name: 'gre',
    text: `Generic Routing Encapsulation (${etherTypeName(protocol)})`,
    fields: [
      { name: 'gre.flags_and_version', value: flags, text: `Flags and Version: 0x${hex(flags, 4)}` },
      {
        name: 'gre.proto',
        value: protocol,
        text: `Protocol Type: ${etherTypeName(protocol)} (0x${hex(protocol, 4)})`,
      },
      numberField('gre.header_length', 'Header Length', greHeaderLength(view, at, end), ' bytes'),
    ],
  };
}

function udpLayer({ view, family, network, transport }: Packet): DecodedLayer {
  const header = readUdp(view, transport);
  const { checksum } = header;
  const right = family !== 0 && udpSum(view, family, network, transport, header.length) === 0xffff;
  return {
    name: 'udp',
    text: `User Datagram Protocol, Src Port: ${header.sourcePort}, Dst Port: ${header.destinationPort}`,
    fields: [
      numberField('udp.srcport', 'Source Port', header.sourcePort),
      numberField('udp.dstport', 'Destination Port', header.destinationPort),
      numberField('udp.length', 'Length', header.length),
      checksumField('udp.checksum', checksum, 4),
      checksum === 0
        ? { name: 'udp.checksum.status', value: 'Not present', text: '[Checksum Status: Not present]' }
        : checksumStatus('udp.checksum.status', right),
    ],
  };
}

/** The ICMP layer and what it carries: a quoted packet's headers as far as they were quoted, or data. */
function icmpLayers(packet: Packet, layers: DecodedLayer[]): void {
  const { view, bytes, family, network, transport, networkEnd } = packet;
  const six = family === 6;
  const prefix = six ? 'icmpv6' : 'icmp';
  const { type, code, checksum, rest } = readIcmp(view, transport);
  const codeName = six ? icmpv6CodeName(type, code) : icmpCodeName(type, code);
  const right =
    family !== 0 &&
    checkIcmp(view, family, network, transport, networkEnd - transport, true) === Malformed.none;
  const fields: DecodedField[] = [
    numberField(`${prefix}.type`, 'Type', type, ` (${six ? icmpv6TypeName(type) : icmpTypeName(type)})`),
    numberField(`${prefix}.code`, 'Code', code, codeName === undefined ? '' : ` (${codeName})`),
    checksumField(`${prefix}.checksum`, checksum, 4),
    checksumStatus(`${prefix}.checksum.status`, right),
  ];
  const layer: DecodedLayer = {
    name: prefix,
    text: six ? 'Internet Control Message Protocol v6' : 'Internet Control Message Protocol',
    fields,
  };
  layers.push(layer);
  let body = transport + ICMP_HEADER;
  const echo = six
    ? type === Icmpv6Type.echoRequest || type === Icmpv6Type.echoReply
    : type === IcmpType.echoRequest || type === IcmpType.echoReply;
  const error = six ? isIcmpv6Error(type) : [3, 4, 5, 11, 12].includes(type);
  if (echo) {
    const identifier = rest >>> 16;
    fields.push({
      name: six ? 'icmpv6.echo.identifier' : 'icmp.ident',
      value: identifier,
      text: `Identifier: 0x${hex(identifier, 4)}`,
    });
    fields.push(
      numberField(six ? 'icmpv6.echo.sequence_number' : 'icmp.seq', 'Sequence Number', rest & 0xffff),
    );
  } else if (six && type === Icmpv6Type.packetTooBig) {
    fields.push(numberField('icmpv6.mtu', 'MTU', rest));
  } else if (!six && type === IcmpType.unreachable && code === 4) {
    fields.push(numberField('icmp.mtu', 'MTU of next hop', rest & 0xffff));
  } else if (
    six &&
    (type === Icmpv6Type.neighborSolicitation || type === Icmpv6Type.neighborAdvertisement) &&
    body + 16 <= networkEnd
  ) {
    const which = type === Icmpv6Type.neighborSolicitation ? 'ns' : 'na';
    fields.push(
      textField(`icmpv6.nd.${which}.target_address`, 'Target Address', formatAddress(bytes, body, 16)),
    );
    body += 16;
  }
  if (error) quotedLayers(packet, body, networkEnd, layers, 0);
  else if (body < networkEnd) layers.push(payloadLayer(bytes, body, networkEnd));
}

/** The packet an error quotes: its IP headers, and the ports if at least those are there (RFC 792: 8 bytes). */
function quotedLayers(packet: Packet, at: number, end: number, layers: DecodedLayer[], depth: number): void {
  // It is nearly always cut off, so a refusal is the rule here and says nothing.
  packet.parseNetwork(at, end - at);
  const { view, bytes } = packet;
  const four = packet.etherType === EtherType.ipv4;
  if (at + (four ? IPV4_HEADER : IPV6_HEADER) > end) {
    if (at < end) layers.push(payloadLayer(bytes, at, end));
    return;
  }
  layers.push(four ? ipv4Layer(packet) : ipv6Layer(packet));
  const protocol = four ? readIpv4(view, bytes, at).protocol : view.getUint8(at + Ipv6.nextHeader);
  const body = at + (four ? Math.max(IPV4_HEADER, ipv4HeaderLength(view, at)) : IPV6_HEADER);
  const inner = packetBehind(view, protocol, body, end);
  if (inner && inner.length > 0 && depth < DEEPEST_TUNNEL) {
    if (protocol === Protocol.gre) layers.push(greLayer(view, body, end));
    quotedLayers(packet, inner.at, end, layers, depth + 1);
    return;
  }
  const name = QUOTED_PORTS.get(protocol);
  if (name === undefined || body + 4 > end) {
    if (body < end) layers.push(payloadLayer(bytes, body, end));
    return;
  }
  const fields = [
    numberField(`${name}.srcport`, 'Source Port', view.getUint16(body)),
    numberField(`${name}.dstport`, 'Destination Port', view.getUint16(body + 2)),
  ];
  if (body + 8 <= end) {
    if (name === 'udp') fields.push(numberField('udp.length', 'Length', view.getUint16(body + Udp.length)));
    if (name === 'tcp')
      fields.push(numberField('tcp.seq_raw', 'Sequence Number (raw)', view.getUint32(body + Tcp.sequence)));
  }
  layers.push({ name, text: `${protocolName(protocol)}, as far as it is quoted`, fields });
}

const QUOTED_PORTS: ReadonlyMap<number, string> = new Map([
  [Protocol.tcp, 'tcp'],
  [Protocol.udp, 'udp'],
  [Protocol.sctp, 'sctp'],
]);

function sctpLayer({ view, transport, networkEnd }: Packet): DecodedLayer {
  const header = readSctp(view, transport);
  const fields: DecodedField[] = [
    numberField('sctp.srcport', 'Source port', header.sourcePort),
    numberField('sctp.dstport', 'Destination port', header.destinationPort),
    {
      name: 'sctp.verification_tag',
      value: header.verificationTag,
      text: `Verification tag: 0x${hex(header.verificationTag, 8)}`,
    },
    checksumField('sctp.checksum', header.checksum, 8),
    checksumStatus('sctp.checksum.status', sctpChecksumIsRight(view, transport, networkEnd - transport)),
  ];
  for (let at = transport + SCTP_HEADER; at + SCTP_CHUNK_HEADER <= networkEnd; ) {
    const type = view.getUint8(at);
    const length = view.getUint16(at + 2);
    if (length < SCTP_CHUNK_HEADER) break;
    fields.push(
      { name: 'sctp.chunk_type', value: type, text: `Chunk type: ${chunkName(type)} (${type})` },
      numberField('sctp.chunk_length', 'Chunk length', length),
    );
    at += (length + 3) & ~3;
  }
  return {
    name: 'sctp',
    text:
      'Stream Control Transmission Protocol, ' +
      `Src Port: ${header.sourcePort}, Dst Port: ${header.destinationPort}`,
    fields,
  };
}

function tcpOptionFields({ view, transport }: Packet, end: number): DecodedField[] {
  const fields: DecodedField[] = [];
  for (let at = transport + TCP_HEADER; at < end; ) {
    const kind = view.getUint8(at);
    if (kind === TcpOption.end) break;
    if (kind === TcpOption.nop) {
      at++;
      continue;
    }
    const length = at + 1 < end ? view.getUint8(at + 1) : 0;
    if (length < 2 || at + length > end) {
      fields.push({
        name: '_malformed.reason',
        value: MALFORMED_NAMES[Malformed.tcpOptions] ?? '',
        text: '[Malformed options]',
      });
      break;
    }
    if (kind === TcpOption.maximumSegmentSize && length === 4)
      fields.push(numberField('tcp.options.mss_val', 'Option: MSS Value', view.getUint16(at + 2)));
    else if (kind === TcpOption.windowScale && length === 3)
      fields.push(numberField('tcp.options.wscale.shift', 'Option: Shift count', view.getUint8(at + 2)));
    else if (kind === TcpOption.timestamps && length === 10)
      fields.push(
        numberField('tcp.options.timestamp.tsval', 'Option: Timestamp value', view.getUint32(at + 2)),
        numberField('tcp.options.timestamp.tsecr', 'Option: Timestamp echo reply', view.getUint32(at + 6)),
      );
    else fields.push(numberField('tcp.option_kind', 'Option: Kind', kind, `, ${length} bytes`));
    at += length;
  }
  return fields;
}

function httpLayer(line: string): DecodedLayer {
  const fields: DecodedField[] = [{ name: 'http.line', value: line, text: line }];
  const [first = '', second = '', ...rest] = line.split(' ');
  if (first.startsWith('HTTP/')) {
    fields.push(textField('http.response.version', 'Response Version', first));
    fields.push(numberField('http.response.code', 'Status Code', Number(second)));
    fields.push(textField('http.response.phrase', 'Response Phrase', rest.join(' ')));
  } else {
    fields.push(textField('http.request.method', 'Request Method', first));
    fields.push(textField('http.request.uri', 'Request URI', second));
    fields.push(textField('http.request.version', 'Request Version', rest.join(' ')));
  }
  return { name: 'http', text: 'Hypertext Transfer Protocol', fields };
}

function payloadLayer(bytes: Uint8Array, at: number, end: number): DecodedLayer {
  return {
    name: 'data',
    text: `Data (${end - at} bytes)`,
    fields: [
      bytesField('data.data', 'Data', bytes, at, Math.min(end - at, LONGEST_PAYLOAD)),
      numberField('data.len', 'Length', end - at),
    ],
  };
}

function malformedLayer(refused: Malformed, frame: CapturedFrame): DecodedLayer {
  const reason = MALFORMED_NAMES[refused] ?? '';
  const cut = frame.length > frame.bytes.length;
  return {
    name: '_malformed',
    text: cut ? '[Packet size limited during capture]' : `[Malformed Packet: ${reason}]`,
    fields: [{ name: '_malformed.reason', value: reason, text: `Reason: ${reason}` }],
  };
}

function numberField(name: string, label: string, value: number, behind = ''): DecodedField {
  return { name, value, text: `${label}: ${value}${behind}` };
}

function textField(name: string, label: string, value: string): DecodedField {
  return { name, value, text: `${label}: ${value}` };
}

function flagField(name: string, label: string, value: boolean): DecodedField {
  return { name, value, text: `${label}: ${setOrNot(value)}` };
}

function checksumField(name: string, value: number, digits: number): DecodedField {
  return { name, value, text: `Checksum: 0x${hex(value, digits)}` };
}

function checksumStatus(name: string, right: boolean): DecodedField {
  const status = right ? 'Good' : 'Bad';
  return { name, value: status, text: `[Checksum Status: ${status}]` };
}

function bytesField(
  name: string,
  label: string,
  bytes: Uint8Array,
  at: number,
  length: number,
): DecodedField {
  let value = '';
  for (let index = at; index < at + length; index++) value += hex(bytes[index] as number, 2);
  return { name, value, text: `${label}: ${value}` };
}

function setOrNot(value: boolean): string {
  return value ? 'Set' : 'Not set';
}

const ETHER_TYPE_NAMES: ReadonlyMap<number, string> = new Map([
  [EtherType.ipv4, 'IPv4'],
  [EtherType.arp, 'ARP'],
  [EtherType.vlan, '802.1Q Virtual LAN'],
  [EtherType.serviceVlan, '802.1ad Provider Bridge'],
  [EtherType.ipv6, 'IPv6'],
]);

function etherTypeName(type: number): string {
  return ETHER_TYPE_NAMES.get(type) ?? (type < 0x0600 ? 'Length' : 'Unknown');
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0');
}

/** The text of `tshark -V`: a line per layer, its fields below it, indented; an empty line behind the frame. */
export function formatDecoded(decoded: DecodedFrame): string {
  const lines = decoded.layers.flatMap(layer => [
    layer.text,
    ...layer.fields.map(field => `    ${field.text}`),
  ]);
  // Names and remarks come out of files: nothing in them may steer the terminal.
  return `${lines.map(line => line.replace(/\p{Cc}/gu, '\ufffd')).join('\n')}\n`;
}
