/** Direct routing: the packet goes to the server as it is, but for TTL and MAC addresses (ip_vs_dr_xmit). */
import type { Packet } from '../../wire/packet.ts';
import { Drop } from '../drops.ts';
import type { Outcome, Way } from './way.ts';

export function forwardGate(way: Way, packet: Packet, destination: number): Outcome {
  const hop = way.hopTo(destination, packet);
  if (!hop) return way.failure;
  if (!way.passTtl(packet)) return Drop.ttlExpired;
  if (!way.passSize(packet, way.mtu)) return Drop.tooBig;
  way.sendTo(packet, destination, hop);
  return Drop.none;
}
