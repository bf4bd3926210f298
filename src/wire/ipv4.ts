/** IPv4 headers (RFC 791). */
import { finish, sumBytes, updateWord } from './checksum.ts';
import { Malformed } from './malformed.ts';

export const IPV4_HEADER = 20;

export const Ipv4 = {
  versionAndLength: 0,
  typeOfService: 1,
  totalLength: 2,
  identification: 4,
  fragment: 6,
  ttl: 8,
  protocol: 9,
  checksum: 10,
  source: 12,
  destination: 16,
} as const;

export const Protocol = {
  hopByHop: 0,
  icmp: 1,
  ipv4: 4,
  tcp: 6,
  udp: 17,
  ipv6: 41,
  routing: 43,
  fragment: 44,
  gre: 47,
  encapsulatingSecurity: 50,
  authentication: 51,
  icmpv6: 58,
  noNext: 59,
  destinationOptions: 60,
  vrrp: 112,
  sctp: 132,
} as const;

/** Bits of the 16-bit flags-and-offset field. */
export const IPV4_DONT_FRAGMENT = 0x4000;
export const IPV4_MORE_FRAGMENTS = 0x2000;
export const IPV4_OFFSET_MASK = 0x1fff;

/** Header length in bytes as the field states it, 0..60. */
export function ipv4HeaderLength(view: DataView, at: number): number {
  return (view.getUint8(at) & 0x0f) << 2;
}

/**
 * Refuses a header that is cut off, claims an impossible length or more bytes than there are, or whose checksum is
 * wrong (RFC 1122 3.2.1.2 demands silent discard of the last).
 * @param length bytes available from `at`, which may include Ethernet padding
 */
export function checkIpv4(view: DataView, at: number, length: number): Malformed {
  if (length < IPV4_HEADER) return Malformed.ipv4Truncated;
  const first = view.getUint8(at);
  if (first >>> 4 !== 4) return Malformed.ipv4Version;
  const headerLength = (first & 0x0f) << 2;
  if (headerLength < IPV4_HEADER || headerLength > length) return Malformed.ipv4HeaderLength;
  const totalLength = view.getUint16(at + Ipv4.totalLength);
  if (totalLength < headerLength || totalLength > length) return Malformed.ipv4TotalLength;
  if (sumBytes(view, at, headerLength) !== 0xffff) return Malformed.ipv4Checksum;
  return Malformed.none;
}

/** Decrements the TTL (which must be above 0) and updates the checksum. */
export function decrementTtl(view: DataView, at: number): void {
  const before = view.getUint16(at + Ipv4.ttl, true);
  const after = before - 1;
  view.setUint16(at + Ipv4.ttl, after, true);
  view.setUint16(
    at + Ipv4.checksum,
    updateWord(view.getUint16(at + Ipv4.checksum, true), before, after),
    true,
  );
}

/** Computes and stores the header checksum. */
export function fillIpv4Checksum(view: DataView, at: number): void {
  view.setUint16(at + Ipv4.checksum, 0);
  view.setUint16(at + Ipv4.checksum, finish(sumBytes(view, at, ipv4HeaderLength(view, at))), true);
}

export interface Ipv4Fields {
  /** 4 bytes. */
  source: Uint8Array;
  destination: Uint8Array;
  protocol: number;
  /** Header and payload, 20..65535. */
  totalLength: number;
  ttl: number;
  typeOfService?: number;
  identification?: number;
  /** The whole 16-bit field: flags and offset in units of 8 bytes. */
  fragment?: number;
}

/** Writes a 20-byte header with its checksum; returns the offset of the payload. */
export function writeIpv4(view: DataView, bytes: Uint8Array, at: number, fields: Ipv4Fields): number {
  view.setUint8(at, 0x45);
  view.setUint8(at + Ipv4.typeOfService, fields.typeOfService ?? 0);
  view.setUint16(at + Ipv4.totalLength, fields.totalLength);
  view.setUint16(at + Ipv4.identification, fields.identification ?? 0);
  view.setUint16(at + Ipv4.fragment, fields.fragment ?? 0);
  view.setUint8(at + Ipv4.ttl, fields.ttl);
  view.setUint8(at + Ipv4.protocol, fields.protocol);
  bytes.set(fields.source, at + Ipv4.source);
  bytes.set(fields.destination, at + Ipv4.destination);
  fillIpv4Checksum(view, at);
  return at + IPV4_HEADER;
}
