/** How large packets fit into a tunnel, and what TCP has to announce for it. */
import type { Family } from '../wire/address.ts';
import type { Tunnel } from './request.ts';

const IP_HEADER = { 4: 20, 6: 40 } as const;
const TCP_HEADER = 20;

/** Bytes between the IP headers: nothing; UDP and GUE; GRE with a checksum, which a director may add. */
const BETWEEN: Readonly<Record<Tunnel, number>> = { ipip: 0, gue: 12, gre: 8 };

/** Bytes that a tunnel puts in front of a packet, at most. */
export function tunnelOverhead(tunnel: Tunnel, outer: Family): number {
  return IP_HEADER[outer] + BETWEEN[tunnel];
}

/**
 * The largest TCP segment, in bytes, that fits through all of these tunnels.
 * @param mtu of the way between director and server
 * @param inner of clients and VIP
 */
export function tunnelMss(mtu: number, tunnels: readonly Tunnel[], outer: Family, inner: Family): number {
  const overhead = Math.max(...tunnels.map(tunnel => tunnelOverhead(tunnel, outer)));
  return mtu - overhead - IP_HEADER[inner] - TCP_HEADER;
}
