/** IPv4 headers (RFC 791). */
import { formatAddress } from './address.ts';
import { finish, sumBytes } from './checksum.ts';
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

/** Option types without a length byte (RFC 791 section 3.1); all others have one. */
export const Ipv4Option = { end: 0, nop: 1 } as const;

/** Header length in bytes as the field states it, 0..60. */
export function ipv4HeaderLength(view: DataView, at: number): number {
  return (view.getUint8(at) & 0x0f) << 2;
}

/**
 * Refuses a header that is cut off, claims an impossible length or more bytes than there are, whose checksum is
 * wrong (RFC 1122 3.2.1.2 demands silent discard of that), or whose options run out of it.
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
  return headerLength === IPV4_HEADER ? Malformed.none : checkIpv4Options(view, at, headerLength);
}

/** Refuses options whose lengths run out of the header, as Linux does (net/ipv4/ip_options.c, ip_options_compile). */
function checkIpv4Options(view: DataView, at: number, headerLength: number): Malformed {
  const end = at + headerLength;
  let option = at + IPV4_HEADER;
  while (option < end) {
    const type = view.getUint8(option);
    if (type === Ipv4Option.end) return Malformed.none;
    if (type === Ipv4Option.nop) {
      option++;
      continue;
    }
    if (option + 1 >= end) return Malformed.ipv4Options;
    const length = view.getUint8(option + 1);
    if (length < 2 || option + length > end) return Malformed.ipv4Options;
    option += length;
  }
  return Malformed.none;
}

/**
 * Decrements the TTL (which must be above 0) and updates the checksum: one less in the word is one more in its
 * complement's sum (include/net/ip.h, ip_decrease_ttl).
 */
export function decrementTtl(view: DataView, at: number): void {
  view.setUint8(at + Ipv4.ttl, view.getUint8(at + Ipv4.ttl) - 1);
  const checksum = view.getUint16(at + Ipv4.checksum, true) + 1;
  view.setUint16(at + Ipv4.checksum, checksum >= 0xffff ? checksum + 1 : checksum, true);
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

export interface Ipv4Header {
  /** Bytes, 20..60. */
  headerLength: number;
  typeOfService: number;
  /** Header and payload, bytes. */
  totalLength: number;
  identification: number;
  dontFragment: boolean;
  moreFragments: boolean;
  /** Bytes, a multiple of 8. */
  fragmentOffset: number;
  ttl: number;
  protocol: number;
  /** As it stands in the header, most significant byte first. */
  checksum: number;
  source: string;
  destination: string;
}

/** The header at `at`, which `checkIpv4` accepted. */
export function readIpv4(view: DataView, bytes: Uint8Array, at: number): Ipv4Header {
  const fragment = view.getUint16(at + Ipv4.fragment);
  return {
    headerLength: ipv4HeaderLength(view, at),
    typeOfService: view.getUint8(at + Ipv4.typeOfService),
    totalLength: view.getUint16(at + Ipv4.totalLength),
    identification: view.getUint16(at + Ipv4.identification),
    dontFragment: (fragment & IPV4_DONT_FRAGMENT) !== 0,
    moreFragments: (fragment & IPV4_MORE_FRAGMENTS) !== 0,
    fragmentOffset: (fragment & IPV4_OFFSET_MASK) << 3,
    ttl: view.getUint8(at + Ipv4.ttl),
    protocol: view.getUint8(at + Ipv4.protocol),
    checksum: view.getUint16(at + Ipv4.checksum),
    source: formatAddress(bytes, at + Ipv4.source, 4),
    destination: formatAddress(bytes, at + Ipv4.destination, 4),
  };
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
