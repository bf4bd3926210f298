/**
 * The ICMP errors a director sends in its own name (net/ipv4/icmp.c icmp_send, net/ipv6/icmp.c icmp6_send): to a client
 * whose packet cannot be delivered, or to a real server.
 */
import { ETHERNET_HEADER, VLAN_TAG, writeEthernet } from '../wire/ethernet.ts';
import {
  fillIcmpChecksum,
  ICMP_HEADER,
  ICMPV6_QUOTE_LIMIT,
  Icmp,
  IcmpType,
  isIcmpv6Error,
  writeIcmp,
} from '../wire/icmp.ts';
import { IPV4_HEADER, Ipv4, ipv4HeaderLength, Protocol, writeIpv4 } from '../wire/ipv4.ts';
import { Ipv6, writeIpv6 } from '../wire/ipv6.ts';
import { HEADROOM, type Packet } from '../wire/packet.ts';
import type { Network, NextHop } from './network.ts';

/** An IPv4 error is at most this long (RFC 1812 4.3.2.3). */
const ICMP_ERROR_LIMIT = 576;
const ERROR_TTL = 64;
/** Precedence "internetwork control", which RFC 1812 4.3.2.5 asks for. */
const INTERNETWORK_CONTROL = 0xc0;

export class IcmpErrors {
  readonly #network: Network;
  readonly #bytes = new Uint8Array(HEADROOM + 2048);
  readonly #view = new DataView(this.#bytes.buffer);
  #identification = 0;
  /** Bytes of the IP packet that the last call sent, 0 if it stayed silent. */
  lastLength = 0;

  constructor(network: Network) {
    this.#network = network;
  }

  /**
   * Answers an IPv4 packet with an error that quotes it as it is now. Silent where RFC 1122 3.2.2 forbids an answer: to
   * ICMP errors, later fragments, and senders that are no single host.
   * @param rest the second word of the message (the MTU in its low half, for fragmentation needed)
   */
  send(packet: Packet, type: number, code: number, rest = 0): void {
    this.lastLength = 0;
    if (packet.family === 6) {
      this.#send6(packet, type, code, rest);
      return;
    }
    const { view, network } = packet;
    if (packet.fragmentOffset > 0 || !mayAnswer4(packet)) return;
    const hop = this.#network.nextHop(packet.bytes, packet.sourceAt, 4);
    if (!hop) return;
    const room = Math.min(hop.mtu, ICMP_ERROR_LIMIT) - IPV4_HEADER - ICMP_HEADER;
    const quoted = Math.min(packet.networkEnd - network, room);
    const at = this.#writeFrame(packet, hop);
    const local = this.#network.isLocal(packet.bytes, packet.destinationAt, 4);
    const body = writeIpv4(this.#view, this.#bytes, at, {
      source: local
        ? packet.bytes.subarray(packet.destinationAt, packet.destinationAt + 4)
        : hop.sourceAddress,
      destination: packet.bytes.subarray(packet.sourceAt, packet.sourceAt + 4),
      protocol: Protocol.icmp,
      totalLength: IPV4_HEADER + ICMP_HEADER + quoted,
      ttl: ERROR_TTL,
      typeOfService: (view.getUint8(network + Ipv4.typeOfService) & 0x1e) | INTERNETWORK_CONTROL,
      identification: this.#identification++ & 0xffff,
    });
    const quote = writeIcmp(this.#view, body, type, code, rest);
    this.#bytes.set(packet.bytes.subarray(network, network + quoted), quote);
    fillIcmpChecksum(this.#view, 4, at, body, ICMP_HEADER + quoted);
    this.lastLength = quote + quoted - at;
    this.#network.transmit(this.#bytes, HEADROOM, quote + quoted, hop);
  }

  #send6(packet: Packet, type: number, code: number, rest: number): void {
    const { network } = packet;
    if (packet.fragmentOffset > 0 || !mayAnswer6(packet)) return;
    const hop = this.#network.nextHop(packet.bytes, packet.sourceAt, 6);
    if (!hop) return;
    const quoted = Math.min(packet.networkEnd - network, ICMPV6_QUOTE_LIMIT);
    const at = this.#writeFrame(packet, hop);
    const local = this.#network.isLocal(packet.bytes, packet.destinationAt, 6);
    const body = writeIpv6(this.#view, this.#bytes, at, {
      source: local
        ? packet.bytes.subarray(packet.destinationAt, packet.destinationAt + 16)
        : hop.sourceAddress,
      destination: packet.bytes.subarray(packet.sourceAt, packet.sourceAt + 16),
      nextHeader: Protocol.icmpv6,
      payloadLength: ICMP_HEADER + quoted,
      hopLimit: ERROR_TTL,
    });
    const quote = writeIcmp(this.#view, body, type, code, rest);
    this.#bytes.set(packet.bytes.subarray(network, network + quoted), quote);
    fillIcmpChecksum(this.#view, 6, at, body, ICMP_HEADER + quoted);
    this.lastLength = quote + quoted - at;
    this.#network.transmit(this.#bytes, HEADROOM, quote + quoted, hop);
  }

  /** Writes the Ethernet header, with the VLAN tags of the packet at fault; returns the offset behind it. */
  #writeFrame(packet: Packet, hop: NextHop): number {
    const at = writeEthernet(this.#bytes, HEADROOM, hop.destinationMac, hop.sourceMac, packet.etherType);
    if (packet.tags === 0) return at;
    const tags = packet.tags * VLAN_TAG;
    const typeAt = packet.start + ETHERNET_HEADER - 2;
    this.#bytes.set(packet.bytes.subarray(typeAt, typeAt + tags + 2), HEADROOM + ETHERNET_HEADER - 2);
    return at + tags;
  }
}

function mayAnswer4(packet: Packet): boolean {
  const { view, network } = packet;
  const source = view.getUint32(network + Ipv4.source);
  const destination = view.getUint32(network + Ipv4.destination);
  // 0/8, loopback, multicast and everything above cannot be answered; nor can what was sent to many.
  if (source >>> 24 === 0 || source >>> 24 === 127 || source >>> 28 >= 14 || destination >>> 28 >= 14)
    return false;
  if (packet.protocol !== Protocol.icmp) return true;
  const at = network + ipv4HeaderLength(view, network);
  const type = view.getUint8(at + Icmp.type);
  return type === IcmpType.echoReply || type === IcmpType.echoRequest || type > IcmpType.parameterProblem;
}

function mayAnswer6(packet: Packet): boolean {
  const { view, bytes, network } = packet;
  if (bytes[network + Ipv6.source] === 0xff || bytes[network + Ipv6.destination] === 0xff) return false;
  let unspecified = true;
  for (let at = network + Ipv6.source; at < network + Ipv6.destination; at++)
    if (bytes[at] !== 0) unspecified = false;
  if (unspecified) return false;
  return packet.protocol !== Protocol.icmpv6 || !isIcmpv6Error(view.getUint8(packet.transport + Icmp.type));
}
