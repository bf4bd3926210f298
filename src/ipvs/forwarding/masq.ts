/** NAT: the client's packets get the server's address and port, the server's replies the VIP's (ip_vs_nat_xmit). */
import { IcmpType, Icmpv6Type, Unreachable6Code, UnreachableCode } from '../../wire/icmp.ts';
import type { Packet } from '../../wire/packet.ts';
import { CONNECTION_BYTES, ConnectionField, ConnectionFlag, type ConnectionTable } from '../connections.ts';
import { DESTINATION_BYTES, DestinationField } from '../destinations.ts';
import { Drop } from '../drops.ts';
import { offsetReply, offsetRequest } from './proxied.ts';
import { End, translate } from './translation.ts';
import { DELIVER_LOCALLY, type Outcome, type Way } from './way.ts';

/** Client to server. */
export function forwardMasq(
  way: Way,
  packet: Packet,
  connections: ConnectionTable,
  slot: number,
  destination: number,
): Outcome {
  const hop = way.hopTo(destination, packet);
  const { words } = way.pool.table;
  const address = (destination * DESTINATION_BYTES + DestinationField.address) >>> 2;
  const port = connections.destinationPortRaw(slot);
  if (!hop) {
    if (way.failure !== DELIVER_LOCALLY) return way.failure;
    if (isLoopback(packet.family, words, address)) return Drop.loopbackServer;
    translate(packet, End.destination, words, address, port);
    return DELIVER_LOCALLY;
  }
  if (!way.passTtl(packet)) return Drop.ttlExpired;
  if (!way.passSize(packet, way.mtu)) return Drop.tooBig;
  if (connections.flags(slot) & ConnectionFlag.outSequence) offsetRequest(packet, connections, slot);
  translate(packet, End.destination, words, address, port);
  way.sendTo(packet, destination, hop);
  return Drop.none;
}

/** 127.0.0.0/8 or ::1, as raw words. */
function isLoopback(family: number, words: Int32Array, at: number): boolean {
  if (family === 4) return ((words[at] as number) & 0xff) === 127;
  const isZero = words[at] === 0 && words[at + 1] === 0 && words[at + 2] === 0;
  return isZero && words[at + 3] === 0x01000000;
}

/** Puts the VIP in the place of the server that a reply of this connection comes from. */
export function translateReply(packet: Packet, connections: ConnectionTable, slot: number): void {
  if (connections.flags(slot) & ConnectionFlag.outSequence) offsetReply(packet, connections, slot);
  const virtual = (slot * CONNECTION_BYTES + ConnectionField.virtual) >>> 2;
  translate(packet, End.source, connections.words, virtual, connections.ports(slot) >>> 16);
}

/** Server to client. The packet has been routed: its TTL and size are those of any forwarded packet. */
export function returnMasq(way: Way, packet: Packet, connections: ConnectionTable, slot: number): Outcome {
  const family = packet.family === 6 ? 6 : 4;
  if (way.network.isLocal(packet.bytes, packet.destinationAt, family)) {
    translateReply(packet, connections, slot);
    return DELIVER_LOCALLY;
  }
  const hop = way.network.nextHop(packet.bytes, packet.destinationAt, family);
  if (!hop) {
    if (family === 4) way.errors.send(packet, IcmpType.unreachable, UnreachableCode.net);
    else way.errors.send(packet, Icmpv6Type.unreachable, Unreachable6Code.noRoute);
    return Drop.noRouteToClient;
  }
  if (!way.passTtl(packet)) return Drop.ttlExpired;
  if (!way.passSize(packet, hop.mtu)) return Drop.tooBig;
  translateReply(packet, connections, slot);
  way.send(packet, hop);
  return Drop.none;
}
