/** Bypass: a packet of a firewall-mark service without server goes where it was addressed (ip_vs_bypass_xmit). */
import { IcmpType, Icmpv6Type, Unreachable6Code, UnreachableCode } from '../../wire/icmp.ts';
import type { Packet } from '../../wire/packet.ts';
import { Drop } from '../drops.ts';
import type { Outcome, Way } from './way.ts';

export function forwardBypass(way: Way, packet: Packet): Outcome {
  const family = packet.family === 6 ? 6 : 4;
  const hop = way.network.nextHop(packet.bytes, packet.destinationAt, family);
  if (!hop) {
    if (family === 4) way.errors.send(packet, IcmpType.unreachable, UnreachableCode.host);
    else way.errors.send(packet, Icmpv6Type.unreachable, Unreachable6Code.address);
    return Drop.noRoute;
  }
  if (!way.passTtl(packet)) return Drop.ttlExpired;
  if (!way.passSize(packet, hop.mtu)) return Drop.tooBig;
  way.send(packet, hop);
  return Drop.none;
}
