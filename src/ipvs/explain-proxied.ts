/** What a SYN proxy would do with a segment that belongs to no connection, for `explain.ts`. */
import type { Packet } from '../wire/packet.ts';
import { tcpSum } from '../wire/tcp.ts';
import { Drop } from './drops.ts';
import type { Decision, Departure, PacketExplanation } from './explain.ts';
import type { Network } from './network.ts';
import type { SynProxy } from './syn-proxy.ts';
import { isAcknowledgement, isPlainSyn } from './syn-segments.ts';

export interface ProxiedExplanation {
  decision: Decision;
  verdict: PacketExplanation['verdict'];
  drop: Drop;
  departure?: Departure;
}

/**
 * @param describe the departure of an answer to the packet's sender, undefined if no way leads there
 * @returns undefined for the acknowledgement of a cookie that holds: a server is chosen now
 */
export function explainProxied(
  synProxy: SynProxy,
  packet: Packet,
  now: number,
  describe: () => Departure | undefined,
): ProxiedExplanation | undefined {
  if (isPlainSyn(packet)) return explainSyn(packet, describe);
  if (!isAcknowledgement(packet)) {
    return { decision: 'no segment of a handshake', verdict: 'dropped', drop: Drop.synProxyStray };
  }
  if (synProxy.readCookie(packet, now) < 0) {
    return { decision: 'no SYN cookie that holds', verdict: 'dropped', drop: Drop.synCookie };
  }
  if (!synProxy.defers(packet)) return undefined;
  return { decision: 'a SYN cookie, waits for data', verdict: 'taken', drop: Drop.none };
}

function explainSyn(packet: Packet, describe: () => Departure | undefined): ProxiedExplanation {
  const { view, network, transport, networkEnd } = packet;
  const decision = 'answered with a SYN cookie';
  const sum = tcpSum(view, packet.family === 6 ? 6 : 4, network, transport, networkEnd - transport);
  if (sum !== 0xffff) return { decision, verdict: 'dropped', drop: Drop.malformed };
  const departure = describe();
  if (!departure) return { decision, verdict: 'dropped', drop: Drop.noRouteToClient };
  return { decision, verdict: 'taken', drop: Drop.none, departure };
}

/** The way to a packet's sender. */
export function wayBack(network: Network, packet: Packet) {
  return network.nextHop(packet.bytes, packet.sourceAt, packet.family === 6 ? 6 : 4);
}
