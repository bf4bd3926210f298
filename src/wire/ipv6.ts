/** IPv6 headers and the extension headers a router has to walk (RFC 8200). */
import { formatAddress } from './address.ts';
import { Protocol } from './ipv4.ts';
import { Malformed } from './malformed.ts';

export const IPV6_HEADER = 40;
export const IPV6_FRAGMENT_HEADER = 8;
/** The smallest MTU an IPv6 link may have (RFC 8200 section 5). */
export const IPV6_MINIMUM_MTU = 1280;

export const Ipv6 = {
  versionClassFlow: 0,
  payloadLength: 4,
  nextHeader: 6,
  hopLimit: 7,
  source: 8,
  destination: 24,
} as const;

/** Offsets in the fragment header. `offset` holds 13 bits of offset, 2 reserved bits and the more-fragments bit. */
export const Ipv6Fragment = { nextHeader: 0, offset: 2, identification: 4 } as const;

/**
 * Refuses a header that is cut off or claims more payload than there is. A jumbogram (RFC 2675: payload length 0
 * in front of a hop-by-hop header) has no header where it says one is, and falls to the walk over these.
 */
export function checkIpv6(view: DataView, at: number, length: number): Malformed {
  if (length < IPV6_HEADER) return Malformed.ipv6Truncated;
  if (view.getUint8(at) >>> 4 !== 6) return Malformed.ipv6Version;
  const payloadLength = view.getUint16(at + Ipv6.payloadLength);
  if (payloadLength > length - IPV6_HEADER) return Malformed.ipv6PayloadLength;
  return Malformed.none;
}

/** True for the headers between the fixed header and the transport that are walked over. */
export function isExtensionHeader(nextHeader: number): boolean {
  return (
    nextHeader === Protocol.hopByHop ||
    nextHeader === Protocol.routing ||
    nextHeader === Protocol.fragment ||
    nextHeader === Protocol.destinationOptions ||
    nextHeader === Protocol.authentication
  );
}

/** Length in bytes of the extension header of this type at `at`; AH counts in 4-byte units (RFC 4302 section 2.2). */
export function extensionHeaderLength(view: DataView, at: number, type: number): number {
  if (type === Protocol.fragment) return IPV6_FRAGMENT_HEADER;
  const units = view.getUint8(at + 1);
  return type === Protocol.authentication ? (units + 2) << 2 : (units + 1) << 3;
}

/** The 8-bit traffic class. */
export function trafficClass(view: DataView, at: number): number {
  return (view.getUint16(at) >>> 4) & 0xff;
}

export interface Ipv6Fields {
  /** 16 bytes. */
  source: Uint8Array;
  destination: Uint8Array;
  nextHeader: number;
  /** Bytes behind the fixed header. */
  payloadLength: number;
  hopLimit: number;
  trafficClass?: number;
  /** 20 bits. */
  flowLabel?: number;
}

export interface Ipv6Header {
  trafficClass: number;
  flowLabel: number;
  /** Bytes behind the fixed header. */
  payloadLength: number;
  nextHeader: number;
  hopLimit: number;
  source: string;
  destination: string;
}

/** The fixed header at `at`, which `checkIpv6` accepted. */
export function readIpv6(view: DataView, bytes: Uint8Array, at: number): Ipv6Header {
  return {
    trafficClass: trafficClass(view, at),
    flowLabel: view.getUint32(at) & 0xfffff,
    payloadLength: view.getUint16(at + Ipv6.payloadLength),
    nextHeader: view.getUint8(at + Ipv6.nextHeader),
    hopLimit: view.getUint8(at + Ipv6.hopLimit),
    source: formatAddress(bytes, at + Ipv6.source, 16),
    destination: formatAddress(bytes, at + Ipv6.destination, 16),
  };
}

/** Writes a fixed header; returns the offset of the payload. */
export function writeIpv6(view: DataView, bytes: Uint8Array, at: number, fields: Ipv6Fields): number {
  view.setUint32(
    at,
    ((6 << 28) | ((fields.trafficClass ?? 0) << 20) | ((fields.flowLabel ?? 0) & 0xfffff)) >>> 0,
  );
  view.setUint16(at + Ipv6.payloadLength, fields.payloadLength);
  view.setUint8(at + Ipv6.nextHeader, fields.nextHeader);
  view.setUint8(at + Ipv6.hopLimit, fields.hopLimit);
  bytes.set(fields.source, at + Ipv6.source);
  bytes.set(fields.destination, at + Ipv6.destination);
  return at + IPV6_HEADER;
}
