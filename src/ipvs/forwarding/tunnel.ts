/**
 * Tunnelling: the packet goes to the server inside of another one, IPIP, GUE or GRE, over IPv4 or IPv6
 * (ip_vs_tunnel_xmit, ip_vs_tunnel_xmit_v6 in net/netfilter/ipvs/ip_vs_xmit.c of Linux 6.1). The outer header is
 * written into the room in front of the frame.
 */
import { finish, sumBytes } from '../../wire/checksum.ts';
import { EtherType } from '../../wire/ethernet.ts';
import { fillIpv4Checksum, IPV4_DONT_FRAGMENT, IPV4_HEADER, Ipv4, Protocol } from '../../wire/ipv4.ts';
import { IPV6_HEADER, IPV6_MINIMUM_MTU, Ipv6, trafficClass } from '../../wire/ipv6.ts';
import type { Packet } from '../../wire/packet.ts';
import { fillUdpChecksum, UDP_HEADER, writeUdp } from '../../wire/udp.ts';
import { DESTINATION_BYTES, DestinationField, TunnelFlag, TunnelType } from '../destinations.ts';
import { Drop } from '../drops.ts';
import type { NextHop } from '../network.ts';
import type { Outcome, Way } from './way.ts';

/** GUE without options (draft-ietf-intarea-gue): version, control bit and length, inner protocol, flags. */
export const GUE_HEADER = 4;
/** GRE without options (RFC 2784): flags and version, EtherType of the payload. */
export const GRE_HEADER = 4;
/** Checksum and a reserved word behind the GRE header. */
const GRE_CHECKSUM_WORDS = 4;
/** The C bit in the first 16 bits of a GRE header. */
export const GRE_CHECKSUM_PRESENT = 0x8000;

/** The smallest MTU IPv4 knows (RFC 791 section 3.2). */
export const IPV4_MINIMUM_MTU = 68;
const LARGEST_PACKET = 65535;

/** Linux chooses the source ports of UDP tunnels in its range of local ports (net.ipv4.ip_local_port_range). */
const FIRST_SOURCE_PORT = 32768;
const SOURCE_PORTS = 60999 - FIRST_SOURCE_PORT;

const ECN_MASK = 3;
const ECN_CONGESTION = 3;
const ECN_CAPABLE = 2;

/** Bytes that a tunnel puts between the outer IP header and the packet. */
export function tunnelHeaderLength(type: number, flags: number): number {
  if (type === TunnelType.gue) return UDP_HEADER + GUE_HEADER;
  if (type !== TunnelType.gre) return 0;
  return flags & TunnelFlag.checksum ? GRE_HEADER + GRE_CHECKSUM_WORDS : GRE_HEADER;
}

/**
 * @param discovery `pmtu_disc`: the outer header has the inner one's DF, and what then does not fit is answered;
 *   without it the outer packet is fragmented
 */
export function forwardTunnel(way: Way, packet: Packet, destination: number, discovery: boolean): Outcome {
  const hop = way.hopTo(destination, packet);
  if (!hop) return way.failure;
  if (!way.passTtl(packet)) return Drop.ttlExpired;
  const { pool } = way;
  const records = pool.table.bytes;
  const record = destination * DESTINATION_BYTES;
  const outerFamily = records[record + DestinationField.family] === 6 ? 6 : 4;
  const type = records[record + DestinationField.tunnelType] as number;
  const flags = records[record + DestinationField.tunnelFlags] as number;
  const overhead = (outerFamily === 4 ? IPV4_HEADER : IPV6_HEADER) + tunnelHeaderLength(type, flags);
  const room = way.mtu - overhead;
  if (room < (outerFamily === 4 ? IPV4_MINIMUM_MTU : IPV6_MINIMUM_MTU)) return Drop.tunnelMtu;
  if ((packet.family === 6 || discovery) && !way.passSize(packet, room)) return Drop.tooBig;
  if (packet.networkEnd - packet.network + overhead > LARGEST_PACKET) return Drop.tunnelMtu;
  if (packet.start < overhead) return Drop.noHeadroom;
  // A packet of IPv6 has no DF that could be copied.
  const dontFragment = packet.family === 4 && discovery && (fragmentField(packet) & IPV4_DONT_FRAGMENT) !== 0;
  // The headers are written over the old Ethernet header, so its VLAN tags have to go first.
  if (packet.tags > 0) packet.bytes.copyWithin(packet.start - overhead, packet.start, packet.network);
  writeTunnelHeader(packet, type, flags, pool.tunnelPorts[destination] as number);
  const inner = packet.network;
  moveFront(packet, overhead, outerFamily);
  if (outerFamily === 4) writeOuter4(way, packet, inner, type, dontFragment, hop, records, record);
  else writeOuter6(packet, inner, type, hop, records, record);
  packet.family = outerFamily;
  if (type === TunnelType.gue && flags !== 0) {
    const at = inner - UDP_HEADER - GUE_HEADER;
    fillUdpChecksum(packet.view, outerFamily, packet.network, at, packet.networkEnd - at);
  }
  way.sendTo(packet, destination, hop);
  return Drop.none;
}

function fragmentField(packet: Packet): number {
  return packet.view.getUint16(packet.network + Ipv4.fragment);
}

/** Writes what stands between the two IP headers, in front of the packet. */
function writeTunnelHeader(packet: Packet, type: number, flags: number, port: number): void {
  const { view, network } = packet;
  const length = packet.networkEnd - network;
  if (type === TunnelType.gue) {
    const at = network - GUE_HEADER;
    view.setUint8(at, 0);
    view.setUint8(at + 1, packet.family === 4 ? Protocol.ipv4 : Protocol.ipv6);
    view.setUint16(at + 2, 0);
    writeUdp(view, at - UDP_HEADER, flowPort(packet), port, UDP_HEADER + GUE_HEADER + length);
    return;
  }
  if (type !== TunnelType.gre) return;
  const etherType = packet.family === 4 ? EtherType.ipv4 : EtherType.ipv6;
  if ((flags & TunnelFlag.checksum) === 0) {
    view.setUint16(network - GRE_HEADER, 0);
    view.setUint16(network - GRE_HEADER + 2, etherType);
    return;
  }
  const at = network - GRE_HEADER - GRE_CHECKSUM_WORDS;
  view.setUint16(at, GRE_CHECKSUM_PRESENT);
  view.setUint16(at + 2, etherType);
  view.setUint32(at + 4, 0);
  view.setUint16(at + 4, finish(sumBytes(view, at, GRE_HEADER + GRE_CHECKSUM_WORDS + length)), true);
}

/** Moves the start of the frame to make room for the headers; the MACs are written when it is sent. */
function moveFront(packet: Packet, overhead: number, outerFamily: number): void {
  const etherType = outerFamily === 4 ? EtherType.ipv4 : EtherType.ipv6;
  packet.start -= overhead;
  packet.network -= overhead;
  packet.etherType = etherType;
  packet.view.setUint16(packet.network - 2, etherType);
}

/** The inner traffic class; congestion experienced starts anew on the outer way (RFC 3168 section 9.1.1). */
function outerTrafficClass(packet: Packet, inner: number): number {
  const value =
    packet.family === 4 ? packet.view.getUint8(inner + Ipv4.typeOfService) : trafficClass(packet.view, inner);
  return (value & ECN_MASK) === ECN_CONGESTION ? (value & ~ECN_MASK) | ECN_CAPABLE : value;
}

function outerTtl(packet: Packet, inner: number): number {
  return packet.view.getUint8(inner + (packet.family === 4 ? Ipv4.ttl : Ipv6.hopLimit));
}

function outerProtocol(packet: Packet, type: number): number {
  if (type === TunnelType.gue) return Protocol.udp;
  if (type === TunnelType.gre) return Protocol.gre;
  return packet.family === 4 ? Protocol.ipv4 : Protocol.ipv6;
}

function writeOuter4(
  way: Way,
  packet: Packet,
  inner: number,
  type: number,
  dontFragment: boolean,
  hop: NextHop,
  records: Uint8Array,
  record: number,
): void {
  const { view, bytes, network: at } = packet;
  view.setUint8(at, 0x45);
  view.setUint8(at + Ipv4.typeOfService, outerTrafficClass(packet, inner));
  view.setUint16(at + Ipv4.totalLength, packet.networkEnd - at);
  view.setUint16(at + Ipv4.identification, dontFragment ? 0 : way.nextIdentification());
  view.setUint16(at + Ipv4.fragment, dontFragment ? IPV4_DONT_FRAGMENT : 0);
  view.setUint8(at + Ipv4.ttl, outerTtl(packet, inner));
  view.setUint8(at + Ipv4.protocol, outerProtocol(packet, type));
  copyAddress(bytes, at + Ipv4.source, hop.sourceAddress, 0, 4);
  copyAddress(bytes, at + Ipv4.destination, records, record + DestinationField.address, 4);
  fillIpv4Checksum(view, at);
}

function writeOuter6(
  packet: Packet,
  inner: number,
  type: number,
  hop: NextHop,
  records: Uint8Array,
  record: number,
): void {
  const { view, bytes, network: at } = packet;
  view.setUint32(at, ((6 << 28) | (outerTrafficClass(packet, inner) << 20)) >>> 0);
  view.setUint16(at + Ipv6.payloadLength, packet.networkEnd - at - IPV6_HEADER);
  view.setUint8(at + Ipv6.nextHeader, outerProtocol(packet, type));
  view.setUint8(at + Ipv6.hopLimit, outerTtl(packet, inner));
  copyAddress(bytes, at + Ipv6.source, hop.sourceAddress, 0, 16);
  copyAddress(bytes, at + Ipv6.destination, records, record + DestinationField.address, 16);
}

function copyAddress(bytes: Uint8Array, at: number, from: Uint8Array, fromAt: number, length: number): void {
  for (let index = 0; index < length; index++) bytes[at + index] = from[fromAt + index] as number;
}

/** The same source port for every packet of a flow, so that routers on the way keep them in order (RFC 6335 range). */
function flowPort(packet: Packet): number {
  const { view } = packet;
  const length = packet.family === 4 ? 4 : 16;
  let hash = (packet.sourcePort << 16) | packet.destinationPort;
  for (let at = packet.sourceAt; at < packet.sourceAt + 2 * length; at += 4) {
    hash = Math.imul(hash ^ view.getInt32(at, true), 0x9e3779b1);
    hash ^= hash >>> 15;
  }
  return FIRST_SOURCE_PORT + Math.floor(((hash >>> 0) * SOURCE_PORTS) / 0x1_0000_0000);
}
