/** The checksum that TCP and UDP share: over the addresses of the IP header as well (RFC 9293 3.1, RFC 768, RFC 8200 8.1). */
import type { Family } from './address.ts';
import { sumBytes, sumPseudoHeader } from './checksum.ts';
import { Ipv4 } from './ipv4.ts';
import { Ipv6 } from './ipv6.ts';

/**
 * Sum over pseudo-header and the `length` bytes at `at`: 0xffff if the checksum in them is right.
 * @param network offset of the IP header
 */
export function transportSum(
  view: DataView,
  family: Family,
  network: number,
  protocol: number,
  at: number,
  length: number,
): number {
  const pseudo =
    family === 4
      ? sumPseudoHeader(view, network + Ipv4.source, 4, protocol, length)
      : sumPseudoHeader(view, network + Ipv6.source, 16, protocol, length);
  return sumBytes(view, at, length, pseudo);
}
