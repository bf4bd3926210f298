/**
 * What the host's own TCP/IP stack answers to packets that the director leaves to it. Nothing listens on it: TCP is
 * reset (net/ipv4/tcp_ipv4.c tcp_v4_send_reset), UDP ports and other protocols are unreachable, echo is answered, ICMP
 * errors are swallowed.
 */
import type { Family } from '../wire/address.ts';
import {
  checkIcmp,
  fillIcmpChecksum,
  ICMP_HEADER,
  ICMPV6_QUOTE_LIMIT,
  Icmp,
  IcmpType,
  Icmpv6Type,
  Unreachable6Code,
  UnreachableCode,
  writeIcmp,
} from '../wire/icmp.ts';
import { IPV4_DONT_FRAGMENT, IPV4_HEADER, Ipv4, Protocol, writeIpv4 } from '../wire/ipv4.ts';
import { IPV6_HEADER, Ipv6, trafficClass, writeIpv6 } from '../wire/ipv6.ts';
import { Packet } from '../wire/packet.ts';
import { fillTcpChecksum, readTcp, TCP_HEADER, TcpFlag, tcpSum, writeTcp } from '../wire/tcp.ts';
import { Udp, udpSum } from '../wire/udp.ts';
import { LOCAL_NETWORK_AT, type ReplayHost } from './host.ts';

const TTL = 64;
/** An IPv4 error is at most this long (RFC 1812 4.3.2.3). */
const ICMP_ERROR_LIMIT = 576;
/** Precedence "internetwork control", which RFC 1812 4.3.2.5 asks for. */
const INTERNETWORK_CONTROL = 0xc0;
const ECN_MASK = 3;

export class LocalStack {
  readonly #host: ReplayHost;
  readonly #answer = new Packet();
  #identification = 0;

  constructor(host: ReplayHost) {
    this.#host = host;
  }

  /** Takes a packet for the host. */
  receive(packet: Packet): void {
    if (packet.isFragment) return;
    switch (packet.protocol) {
      case Protocol.tcp:
        this.#reset(packet);
        break;
      case Protocol.udp:
        this.#refuseDatagram(packet);
        break;
      case Protocol.icmp:
      case Protocol.icmpv6:
        this.#echo(packet);
        break;
      default:
        this.#refuseProtocol(packet);
    }
  }

  /** RFC 9293 section 3.10.7.1: a segment to a closed port. */
  #reset(packet: Packet): void {
    const { view, transport } = packet;
    const family = familyOf(packet);
    const length = packet.networkEnd - transport;
    if (tcpSum(view, family, packet.network, transport, length) !== 0xffff) return;
    const segment = readTcp(view, transport);
    if (segment.flags & TcpFlag.rst) return;
    const acknowledged = (segment.flags & TcpFlag.ack) !== 0;
    const occupied =
      (segment.flags & TcpFlag.syn ? 1 : 0) +
      (segment.flags & TcpFlag.fin ? 1 : 0) +
      length -
      segment.headerLength;
    const at = this.#begin(packet, Protocol.tcp, TCP_HEADER, serviceOf(packet) & ~ECN_MASK, true);
    const answer = this.#answer;
    writeTcp(answer.view, answer.bytes, at, {
      sourcePort: segment.destinationPort,
      destinationPort: segment.sourcePort,
      sequence: acknowledged ? segment.acknowledgement : 0,
      acknowledgement: acknowledged ? 0 : segment.sequence + occupied,
      flags: acknowledged ? TcpFlag.rst : TcpFlag.rst | TcpFlag.ack,
      window: 0,
    });
    fillTcpChecksum(answer.view, family, LOCAL_NETWORK_AT, at, TCP_HEADER);
    this.#finish(at + TCP_HEADER);
  }

  #refuseDatagram(packet: Packet): void {
    const { view, network, transport, networkEnd } = packet;
    const family = familyOf(packet);
    const hasChecksum = view.getUint16(transport + Udp.checksum) !== 0;
    // Without a checksum a datagram is fine over IPv4, and refused over IPv6 (RFC 8200 section 8.1).
    if (
      hasChecksum ? udpSum(view, family, network, transport, networkEnd - transport) !== 0xffff : family === 6
    )
      return;
    if (family === 4) this.#error(packet, IcmpType.unreachable, UnreachableCode.port, 0);
    else this.#error(packet, Icmpv6Type.unreachable, Unreachable6Code.port, 0);
  }

  #refuseProtocol(packet: Packet): void {
    if (packet.family === 4) this.#error(packet, IcmpType.unreachable, UnreachableCode.protocol, 0);
    // RFC 8200 section 4: the pointer says where the number stands that is not known.
    else this.#error(packet, Icmpv6Type.parameterProblem, 1, nextHeaderAt(packet) - packet.network);
  }

  #echo(packet: Packet): void {
    const { bytes, view, network, transport, networkEnd } = packet;
    const family = familyOf(packet);
    const length = networkEnd - transport;
    if ((family === 4) !== (packet.protocol === Protocol.icmp)) {
      this.#refuseProtocol(packet);
      return;
    }
    if (checkIcmp(view, family, network, transport, length, true) !== 0) return;
    const request = family === 4 ? IcmpType.echoRequest : Icmpv6Type.echoRequest;
    if (view.getUint8(transport + Icmp.type) !== request) return;
    const service = family === 4 ? serviceOf(packet) : 0;
    const at = this.#begin(packet, packet.protocol, length, service, false);
    const answer = this.#answer;
    answer.bytes.set(bytes.subarray(transport, networkEnd), at);
    answer.view.setUint8(at + Icmp.type, family === 4 ? IcmpType.echoReply : Icmpv6Type.echoReply);
    fillIcmpChecksum(answer.view, family, LOCAL_NETWORK_AT, at, length);
    this.#finish(at + length);
  }

  #error(packet: Packet, type: number, code: number, rest: number): void {
    const family = familyOf(packet);
    const limit = family === 4 ? ICMP_ERROR_LIMIT - IPV4_HEADER - ICMP_HEADER : ICMPV6_QUOTE_LIMIT;
    const quoted = Math.min(packet.networkEnd - packet.network, limit);
    const length = ICMP_HEADER + quoted;
    const protocol = family === 4 ? Protocol.icmp : Protocol.icmpv6;
    const service = family === 4 ? (serviceOf(packet) & 0x1e) | INTERNETWORK_CONTROL : 0;
    const at = this.#begin(packet, protocol, length, service, false);
    const answer = this.#answer;
    const quote = writeIcmp(answer.view, at, type, code, rest);
    answer.bytes.set(packet.bytes.subarray(packet.network, packet.network + quoted), quote);
    fillIcmpChecksum(answer.view, family, LOCAL_NETWORK_AT, at, length);
    this.#finish(at + length);
  }

  /** Writes the IP header of an answer to a packet; returns where its payload of `length` bytes goes. */
  #begin(packet: Packet, protocol: number, length: number, service: number, dontFragment: boolean): number {
    const { bytes, view } = this.#answer;
    const size = packet.family === 4 ? 4 : 16;
    const source = packet.bytes.subarray(packet.destinationAt, packet.destinationAt + size);
    const destination = packet.bytes.subarray(packet.sourceAt, packet.sourceAt + size);
    if (packet.family === 6) {
      return writeIpv6(view, bytes, LOCAL_NETWORK_AT, {
        source,
        destination,
        nextHeader: protocol,
        payloadLength: length,
        hopLimit: TTL,
        trafficClass: service,
      });
    }
    return writeIpv4(view, bytes, LOCAL_NETWORK_AT, {
      source,
      destination,
      protocol,
      totalLength: IPV4_HEADER + length,
      ttl: TTL,
      typeOfService: service,
      identification: dontFragment ? 0 : this.#identification++ & 0xffff,
      fragment: dontFragment ? IPV4_DONT_FRAGMENT : 0,
    });
  }

  #finish(end: number): void {
    this.#answer.parseNetwork(LOCAL_NETWORK_AT, end - LOCAL_NETWORK_AT);
    this.#host.send(this.#answer);
  }
}

function familyOf(packet: Packet): Family {
  return packet.family === 6 ? 6 : 4;
}

/** Type of service, or traffic class. */
function serviceOf(packet: Packet): number {
  const { view, network } = packet;
  return packet.family === 4 ? view.getUint8(network + Ipv4.typeOfService) : trafficClass(view, network);
}

/** Where the number of the transport protocol stands: in the IPv6 header or the last extension header. */
function nextHeaderAt(packet: Packet): number {
  const { view, network, transport } = packet;
  let at = network + Ipv6.nextHeader;
  for (let header = network + IPV6_HEADER; header < transport; ) {
    const length = view.getUint8(at) === Protocol.fragment ? 8 : (view.getUint8(header + 1) + 1) << 3;
    at = header;
    header += length;
  }
  return at;
}
