/** Names of protocols and messages, in tshark's words. Numbers without a name print as numbers. */
import { IcmpType, Icmpv6Type } from '../wire/icmp.ts';
import { Protocol } from '../wire/ipv4.ts';
import { Malformed } from '../wire/malformed.ts';
import { TcpFlag } from '../wire/tcp.ts';

const PROTOCOLS: ReadonlyMap<number, string> = new Map([
  [Protocol.hopByHop, 'IPv6 Hop-by-Hop Option'],
  [Protocol.icmp, 'ICMP'],
  [2, 'IGMP'],
  [Protocol.ipv4, 'IPIP'],
  [Protocol.tcp, 'TCP'],
  [Protocol.udp, 'UDP'],
  [Protocol.ipv6, 'IPv6'],
  [Protocol.routing, 'Routing Header for IPv6'],
  [Protocol.fragment, 'Fragment Header for IPv6'],
  [Protocol.gre, 'Generic Routing Encapsulation'],
  [Protocol.encapsulatingSecurity, 'Encap Security Payload'],
  [Protocol.authentication, 'Authentication Header'],
  [Protocol.icmpv6, 'ICMPv6'],
  [Protocol.noNext, 'No Next Header for IPv6'],
  [Protocol.destinationOptions, 'Destination Options for IPv6'],
  [89, 'OSPF IGP'],
  [Protocol.vrrp, 'VRRP'],
  [Protocol.sctp, 'SCTP'],
]);

/** The name of an IP protocol number, `Unknown` where there is none. */
export function protocolName(protocol: number): string {
  return PROTOCOLS.get(protocol) ?? 'Unknown';
}

/** What the protocol column shows for a protocol that is not looked into. */
const SHORT_NAMES: ReadonlyMap<number, string> = new Map([
  [2, 'IGMP'],
  [Protocol.gre, 'GRE'],
  [Protocol.encapsulatingSecurity, 'ESP'],
  [Protocol.authentication, 'AH'],
  [89, 'OSPF'],
  [Protocol.vrrp, 'VRRP'],
]);

export function shortProtocolName(protocol: number): string | undefined {
  return SHORT_NAMES.get(protocol);
}

const ICMP_TYPES: ReadonlyMap<number, string> = new Map([
  [IcmpType.echoReply, 'Echo (ping) reply'],
  [IcmpType.unreachable, 'Destination unreachable'],
  [IcmpType.sourceQuench, 'Source quench (flow control)'],
  [IcmpType.redirect, 'Redirect'],
  [IcmpType.echoRequest, 'Echo (ping) request'],
  [9, 'Router advertisement'],
  [10, 'Router solicitation'],
  [IcmpType.timeExceeded, 'Time-to-live exceeded'],
  [IcmpType.parameterProblem, 'Parameter problem'],
  [13, 'Timestamp request'],
  [14, 'Timestamp reply'],
]);

const ICMP_CODES: ReadonlyMap<number, readonly string[]> = new Map([
  [
    IcmpType.unreachable,
    [
      'Network unreachable',
      'Host unreachable',
      'Protocol unreachable',
      'Port unreachable',
      'Fragmentation needed',
      'Source route failed',
      'Destination network unknown',
      'Destination host unknown',
      'Source host isolated',
      'Network administratively prohibited',
      'Host administratively prohibited',
      'Network unreachable for TOS',
      'Host unreachable for TOS',
      'Communication administratively filtered',
    ],
  ],
  [
    IcmpType.redirect,
    [
      'Redirect for network',
      'Redirect for host',
      'Redirect for TOS and network',
      'Redirect for TOS and host',
    ],
  ],
  [IcmpType.timeExceeded, ['Time to live exceeded in transit', 'Fragment reassembly time exceeded']],
  [IcmpType.parameterProblem, ['Pointer indicates the error', 'Required option missing', 'Bad length']],
]);

const ICMPV6_TYPES: ReadonlyMap<number, string> = new Map([
  [Icmpv6Type.unreachable, 'Destination Unreachable'],
  [Icmpv6Type.packetTooBig, 'Packet Too Big'],
  [Icmpv6Type.timeExceeded, 'Time Exceeded'],
  [Icmpv6Type.parameterProblem, 'Parameter Problem'],
  [Icmpv6Type.echoRequest, 'Echo (ping) request'],
  [Icmpv6Type.echoReply, 'Echo (ping) reply'],
  [130, 'Multicast Listener Query'],
  [131, 'Multicast Listener Report'],
  [132, 'Multicast Listener Done'],
  [133, 'Router Solicitation'],
  [134, 'Router Advertisement'],
  [Icmpv6Type.neighborSolicitation, 'Neighbor Solicitation'],
  [Icmpv6Type.neighborAdvertisement, 'Neighbor Advertisement'],
  [137, 'Redirect'],
  [143, 'Multicast Listener Report Message v2'],
]);

const ICMPV6_CODES: ReadonlyMap<number, readonly string[]> = new Map([
  [
    Icmpv6Type.unreachable,
    [
      'no route to destination',
      'Administratively prohibited',
      'Beyond scope of source address',
      'Address unreachable',
      'Port unreachable',
      'Source address failed ingress/egress policy',
      'Reject route to destination',
    ],
  ],
  [Icmpv6Type.timeExceeded, ['hop limit exceeded in transit', 'fragment reassembly time exceeded']],
  [
    Icmpv6Type.parameterProblem,
    [
      'erroneous header field encountered',
      'unrecognized Next Header type encountered',
      'unrecognized IPv6 option encountered',
    ],
  ],
]);

export function icmpTypeName(type: number): string {
  return ICMP_TYPES.get(type) ?? `Unknown ICMP type ${type}`;
}

/** The name of a code, for the types whose codes have names. */
export function icmpCodeName(type: number, code: number): string | undefined {
  const codes = ICMP_CODES.get(type);
  return codes && (codes[code] ?? `Unknown code: ${code}`);
}

export function icmpv6TypeName(type: number): string {
  return ICMPV6_TYPES.get(type) ?? `Unknown ICMPv6 type ${type}`;
}

export function icmpv6CodeName(type: number, code: number): string | undefined {
  const codes = ICMPV6_CODES.get(type);
  return codes && (codes[code] ?? `Unknown code: ${code}`);
}

const CHUNKS: readonly string[] = [
  'DATA',
  'INIT',
  'INIT_ACK',
  'SACK',
  'HEARTBEAT',
  'HEARTBEAT_ACK',
  'ABORT',
  'SHUTDOWN',
  'SHUTDOWN_ACK',
  'ERROR',
  'COOKIE_ECHO',
  'COOKIE_ACK',
  'ECNE',
  'CWR',
  'SHUTDOWN_COMPLETE',
];

/** The name of an SCTP chunk type (RFC 9260 section 3.2). */
export function chunkName(type: number): string {
  return CHUNKS[type] ?? `UNKNOWN_${type}`;
}

const FLAGS: readonly [number, string][] = [
  [TcpFlag.fin, 'FIN'],
  [TcpFlag.syn, 'SYN'],
  [TcpFlag.rst, 'RST'],
  [TcpFlag.psh, 'PSH'],
  [TcpFlag.ack, 'ACK'],
  [TcpFlag.urg, 'URG'],
  [TcpFlag.ece, 'ECN'],
  [TcpFlag.cwr, 'CWR'],
];

/** `SYN, ACK`; `<None>` without any. */
export function flagNames(flags: number): string {
  const names = FLAGS.filter(([bit]) => (flags & bit) !== 0).map(([, name]) => name);
  return names.length === 0 ? '<None>' : names.join(', ');
}

/** The protocol in which a refused frame went wrong, as the protocol column shows it. */
export function malformedProtocol(reason: Malformed, family: 0 | 4 | 6): string {
  switch (reason) {
    case Malformed.arpTruncated:
    case Malformed.arpUnsupported:
      return 'ARP';
    case Malformed.vlanTruncated:
      return 'VLAN';
    case Malformed.ipv4Truncated:
    case Malformed.ipv4Version:
    case Malformed.ipv4HeaderLength:
    case Malformed.ipv4TotalLength:
    case Malformed.ipv4Checksum:
    case Malformed.ipv4Options:
      return 'IPv4';
    case Malformed.ipv6Truncated:
    case Malformed.ipv6Version:
    case Malformed.ipv6PayloadLength:
    case Malformed.ipv6ExtensionHeader:
      return 'IPv6';
    case Malformed.icmpTruncated:
    case Malformed.icmpChecksum:
      return family === 6 ? 'ICMPv6' : 'ICMP';
    case Malformed.tcpTruncated:
    case Malformed.tcpHeaderLength:
    case Malformed.tcpOptions:
      return 'TCP';
    case Malformed.udpTruncated:
    case Malformed.udpLength:
      return 'UDP';
    case Malformed.sctpTruncated:
    case Malformed.sctpChunk:
      return 'SCTP';
    default:
      return family === 0 ? 'Ethernet' : family === 6 ? 'IPv6' : 'IPv4';
  }
}
