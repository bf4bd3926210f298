/** A host's ICMP and ICMPv6: echo, the errors it sends, and the errors it is told. */
import { formatAddress } from '../wire/address.ts';
import {
  checkIcmp,
  ICMP_HEADER,
  ICMPV6_QUOTE_LIMIT,
  Icmp,
  IcmpType,
  Icmpv6Type,
  isIcmpv6Error,
  Unreachable6Code,
  UnreachableCode,
  writeIcmp,
} from '../wire/icmp.ts';
import { IPV4_HEADER, IPV4_OFFSET_MASK, Ipv4, Protocol } from '../wire/ipv4.ts';
import { IPV6_HEADER, Ipv6 } from '../wire/ipv6.ts';
import { MALFORMED_NAMES } from '../wire/malformed.ts';
import { Packet } from '../wire/packet.ts';
import type { Host } from './host.ts';
import type { Interface } from './interface.ts';
import { isMulticast } from './ip.ts';

/** An ICMP error about something this host sent. */
export interface IcmpError {
  kind: 'net-unreachable' | 'host-unreachable' | 'port-unreachable' | 'too-big' | 'time-exceeded' | 'other';
  /** Who sent the error, text. */
  from: string;
  /** Next-hop MTU of `too-big`, bytes. */
  mtu: number;
  /** The quoted packet: what this host sent. */
  protocol: number;
  source: string;
  destination: string;
  /** Ports, or 0 and the identifier of an echo. */
  sourcePort: number;
  destinationPort: number;
  /** Sequence number of an echo. */
  sequence: number;
}

export interface EchoReply {
  from: string;
  sequence: number;
  ttl: number;
  /** Bytes of ICMP, header included. */
  length: number;
}

export interface EchoListener {
  reply(reply: EchoReply): void;
  error(error: IcmpError): void;
}

/** What an IPv4 error quotes at most, so that it is no longer than 576 bytes (net/ipv4/icmp.c icmp_send). */
const IPV4_QUOTE_LIMIT = 576 - IPV4_HEADER - ICMP_HEADER;

export class IcmpLayer {
  readonly #host: Host;
  #echoListeners = new Map<number, EchoListener>();
  #nextIdentifier: number;
  #failed = new Packet();

  constructor(host: Host) {
    this.#host = host;
    this.#nextIdentifier = host.simulation.random.below(0x10000);
    host.ip.protocols.set(Protocol.icmp, (packet, on) => this.#receive(packet, on));
    host.ip.protocols.set(Protocol.icmpv6, (packet, on) => this.#receive(packet, on));
  }

  /** Listens for the answers to echo requests with the identifier that is returned. */
  listen(listener: EchoListener): number {
    do this.#nextIdentifier = (this.#nextIdentifier + 1) & 0xffff;
    while (this.#echoListeners.has(this.#nextIdentifier));
    this.#echoListeners.set(this.#nextIdentifier, listener);
    return this.#nextIdentifier;
  }

  unlisten(identifier: number): void {
    this.#echoListeners.delete(identifier);
  }

  /** The payload of an echo request of either family. */
  echoRequest(isIpv4: boolean, identifier: number, sequence: number, data: Uint8Array): Uint8Array {
    const payload = new Uint8Array(ICMP_HEADER + data.length);
    const type = isIpv4 ? IcmpType.echoRequest : Icmpv6Type.echoRequest;
    writeIcmp(new DataView(payload.buffer), 0, type, 0, ((identifier << 16) | sequence) >>> 0);
    payload.set(data, ICMP_HEADER);
    return payload;
  }

  /**
   * Sends an error about a packet, quoting it, unless one must not be sent (RFC 1122 section 3.2.2, RFC 4443 section 2.4): about
   * errors, later fragments, groups and sources that are no single host.
   * @param rest the second word of the message: the MTU, a pointer, or 0
   */
  error(packet: Packet, type: number, code: number, rest: number): void {
    const host = this.#host;
    if (packet.family === 0 || packet.fragmentOffset > 0) return;
    const isIpv4 = packet.family === 4;
    const size = isIpv4 ? 4 : 16;
    const source = packet.bytes.slice(packet.sourceAt, packet.sourceAt + size);
    const destination = packet.bytes.slice(packet.destinationAt, packet.destinationAt + size);
    if (isMulticast(source) || source.every(byte => byte === 0)) return;
    if (isMulticast(destination) && type !== Icmpv6Type.packetTooBig) return;
    if (packet.protocol === (isIpv4 ? Protocol.icmp : Protocol.icmpv6)) {
      const offending = packet.view.getUint8(packet.transport);
      const isQuery = offending === IcmpType.echoRequest || offending === IcmpType.echoReply;
      if (isIpv4 ? !isQuery : isIcmpv6Error(offending)) return;
    }
    const limit = isIpv4 ? IPV4_QUOTE_LIMIT : ICMPV6_QUOTE_LIMIT;
    const quoted = packet.bytes.subarray(packet.network, Math.min(packet.networkEnd, packet.network + limit));
    const payload = new Uint8Array(ICMP_HEADER + quoted.length);
    writeIcmp(new DataView(payload.buffer), 0, type, code, rest);
    payload.set(quoted, ICMP_HEADER);
    host.ip.send({
      source: host.isLocal(destination) ? destination : undefined,
      destination: source,
      protocol: isIpv4 ? Protocol.icmp : Protocol.icmpv6,
      payload,
    });
  }

  /** Nobody answered for the next hop of this frame, which was sent or forwarded by this host. */
  hostUnreachable(frame: Uint8Array): void {
    this.#host.drop('neighbour-failed');
    if (this.#failed.load(frame) !== 0) return;
    if (this.#failed.family === 4) this.error(this.#failed, IcmpType.unreachable, UnreachableCode.host, 0);
    else this.error(this.#failed, Icmpv6Type.unreachable, Unreachable6Code.address, 0);
  }

  #receive(packet: Packet, on: Interface): void {
    const { view, network, transport, networkEnd } = packet;
    const family = packet.family === 4 ? 4 : 6;
    if ((family === 4) !== (packet.protocol === Protocol.icmp)) {
      this.#host.drop('protocol-unknown');
      return;
    }
    const refused = checkIcmp(view, family, network, transport, networkEnd - transport, true);
    if (refused !== 0) {
      this.#host.drop(MALFORMED_NAMES[refused] as string);
      return;
    }
    const type = view.getUint8(transport + Icmp.type);
    if (family === 4) this.#receive4(packet, type);
    else this.#receive6(packet, type, on);
  }

  #receive4(packet: Packet, type: number): void {
    switch (type) {
      case IcmpType.echoRequest:
        this.#answerEcho(packet, IcmpType.echoReply);
        return;
      case IcmpType.echoReply:
        this.#echoReplied(packet);
        return;
      case IcmpType.unreachable:
      case IcmpType.timeExceeded:
      case IcmpType.parameterProblem:
      case IcmpType.sourceQuench:
        this.#errorReceived(packet);
        return;
      default:
        this.#host.drop('icmp-type');
        return;
    }
  }

  #receive6(packet: Packet, type: number, on: Interface): void {
    if (isIcmpv6Error(type)) {
      this.#errorReceived(packet);
      return;
    }
    switch (type) {
      case Icmpv6Type.echoRequest:
        this.#answerEcho(packet, Icmpv6Type.echoReply);
        return;
      case Icmpv6Type.echoReply:
        this.#echoReplied(packet);
        return;
      case Icmpv6Type.neighborSolicitation:
        this.#host.neighbourhood.receiveSolicitation(packet, on);
        return;
      case Icmpv6Type.neighborAdvertisement:
        this.#host.neighbourhood.receiveAdvertisement(packet, on);
        return;
      default:
        this.#host.drop('icmp-type');
        return;
    }
  }

  #answerEcho(packet: Packet, replyType: number): void {
    const size = packet.family === 4 ? 4 : 16;
    const asked = packet.bytes.slice(packet.destinationAt, packet.destinationAt + size);
    const payload = packet.bytes.slice(packet.transport, packet.networkEnd);
    payload[Icmp.type] = replyType;
    payload[Icmp.code] = 0;
    this.#host.ip.send({
      source: this.#host.isLocal(asked) ? asked : undefined,
      destination: packet.bytes.slice(packet.sourceAt, packet.sourceAt + size),
      protocol: packet.protocol,
      payload,
    });
  }

  #echoReplied(packet: Packet): void {
    const { view, network, transport } = packet;
    this.#echoListeners.get(view.getUint16(transport + Icmp.identifier))?.reply({
      from: packet.source,
      sequence: view.getUint16(transport + Icmp.sequence),
      ttl: view.getUint8(network + (packet.family === 4 ? Ipv4.ttl : Ipv6.hopLimit)),
      length: packet.networkEnd - transport,
    });
  }

  /** Finds whom an error concerns by the packet it quotes, of which only 8 bytes of transport need be there. */
  #errorReceived(packet: Packet): void {
    const { bytes, view, transport } = packet;
    const at = transport + ICMP_HEADER;
    const isIpv4 = packet.family === 4;
    const header = isIpv4 ? (view.getUint8(Math.min(at, packet.end - 1)) & 0x0f) << 2 : IPV6_HEADER;
    const isWhole =
      at + header + 8 <= packet.networkEnd &&
      header >= IPV4_HEADER &&
      view.getUint8(at) >>> 4 === packet.family;
    if (!isWhole) {
      this.#host.drop('icmp-quote');
      return;
    }
    if (isIpv4 && (view.getUint16(at + Ipv4.fragment) & IPV4_OFFSET_MASK) !== 0) return;
    const size = isIpv4 ? 4 : 16;
    const sourceAt = at + (isIpv4 ? Ipv4.source : Ipv6.source);
    const source = bytes.slice(sourceAt, sourceAt + size);
    const destination = bytes.slice(sourceAt + size, sourceAt + 2 * size);
    if (!this.#host.isLocal(source)) {
      this.#host.drop('icmp-quote');
      return;
    }
    const inner = at + header;
    const error: IcmpError = {
      kind: kindOf(isIpv4, view.getUint8(transport), view.getUint8(transport + 1)),
      from: packet.source,
      mtu: view.getUint16(transport + Icmp.mtu),
      protocol: view.getUint8(at + (isIpv4 ? Ipv4.protocol : Ipv6.nextHeader)),
      source: formatAddress(source),
      destination: formatAddress(destination),
      sourcePort: view.getUint16(inner),
      destinationPort: view.getUint16(inner + 2),
      sequence: view.getUint16(inner + Icmp.sequence),
    };
    if (error.kind === 'too-big') this.#host.ip.learnPathMtu(destination, error.mtu);
    if (error.protocol === Protocol.tcp) this.#host.tcp.receiveError(error);
    else if (error.protocol === Protocol.udp) this.#host.udp.receiveError(error);
    else if (error.protocol === Protocol.icmp || error.protocol === Protocol.icmpv6)
      this.#echoListeners.get(view.getUint16(inner + Icmp.identifier))?.error(error);
  }
}

function kindOf(isIpv4: boolean, type: number, code: number): IcmpError['kind'] {
  if (type === (isIpv4 ? IcmpType.timeExceeded : Icmpv6Type.timeExceeded)) return 'time-exceeded';
  if (!isIpv4 && type === Icmpv6Type.packetTooBig) return 'too-big';
  if (type !== (isIpv4 ? IcmpType.unreachable : Icmpv6Type.unreachable)) return 'other';
  if (isIpv4) {
    if (code === UnreachableCode.net) return 'net-unreachable';
    if (code === UnreachableCode.host) return 'host-unreachable';
    if (code === UnreachableCode.port) return 'port-unreachable';
    return code === UnreachableCode.fragmentationNeeded ? 'too-big' : 'other';
  }
  if (code === Unreachable6Code.noRoute) return 'net-unreachable';
  if (code === Unreachable6Code.address) return 'host-unreachable';
  return code === Unreachable6Code.port ? 'port-unreachable' : 'other';
}
