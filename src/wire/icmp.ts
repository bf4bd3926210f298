/** ICMP (RFC 792) and ICMPv6 (RFC 4443): header, echo, and the errors that quote a packet. */
import type { Family } from './address.ts';
import { finish, sumBytes } from './checksum.ts';
import { Protocol } from './ipv4.ts';
import { IPV6_HEADER } from './ipv6.ts';
import { Malformed } from './malformed.ts';
import { transportSum } from './pseudo-header.ts';

export const ICMP_HEADER = 8;

/** `rest` is the second word: identifier and sequence of an echo, MTU of a too-big error. */
export const Icmp = { type: 0, code: 1, checksum: 2, rest: 4, identifier: 4, sequence: 6, mtu: 6 } as const;

export const IcmpType = {
  echoReply: 0,
  unreachable: 3,
  sourceQuench: 4,
  redirect: 5,
  echoRequest: 8,
  timeExceeded: 11,
  parameterProblem: 12,
} as const;

/** Codes of `IcmpType.unreachable`. */
export const UnreachableCode = { net: 0, host: 1, protocol: 2, port: 3, fragmentationNeeded: 4 } as const;

export const Icmpv6Type = {
  unreachable: 1,
  packetTooBig: 2,
  timeExceeded: 3,
  parameterProblem: 4,
  echoRequest: 128,
  echoReply: 129,
  routerSolicitation: 133,
  routerAdvertisement: 134,
  neighborSolicitation: 135,
  neighborAdvertisement: 136,
  redirect: 137,
} as const;

/** Codes of time exceeded, the same in both families. */
export const TimeExceededCode = { transit: 0, reassembly: 1 } as const;

/** Codes of `Icmpv6Type.unreachable`. */
export const Unreachable6Code = { noRoute: 0, prohibited: 1, address: 3, port: 4 } as const;

/** True for the ICMPv4 errors that ip_vs relates to a connection (ip_vs_in_icmp): unreachable, quench, time exceeded. */
export function isRelatedError(type: number): boolean {
  return type === IcmpType.unreachable || type === IcmpType.sourceQuench || type === IcmpType.timeExceeded;
}

/** True for ICMPv6 errors: the high bit of the type is clear (RFC 4443 section 2.1). */
export function isIcmpv6Error(type: number): boolean {
  return type < 128;
}

/**
 * Refuses what is cut off and, with `verify`, a wrong checksum.
 * @param network offset of the IP header, for the ICMPv6 pseudo-header
 */
export function checkIcmp(
  view: DataView,
  family: Family,
  network: number,
  at: number,
  length: number,
  verify: boolean,
): Malformed {
  if (length < ICMP_HEADER) return Malformed.icmpTruncated;
  if (verify && icmpSum(view, family, network, at, length) !== 0xffff) return Malformed.icmpChecksum;
  return Malformed.none;
}

function icmpSum(view: DataView, family: Family, network: number, at: number, length: number): number {
  if (family === 4) return sumBytes(view, at, length);
  return transportSum(view, 6, network, Protocol.icmpv6, at, length);
}

/** Computes and stores the checksum of the message of `length` bytes at `at`; the IP addresses must be in place. */
export function fillIcmpChecksum(
  view: DataView,
  family: Family,
  network: number,
  at: number,
  length: number,
): void {
  view.setUint16(at + Icmp.checksum, 0);
  view.setUint16(at + Icmp.checksum, finish(icmpSum(view, family, network, at, length)), true);
}

export interface IcmpHeader {
  type: number;
  code: number;
  /** As it stands in the header, most significant byte first. */
  checksum: number;
  /** The second word: identifier and sequence of an echo, MTU of a too-big error. */
  rest: number;
}

/** The header at `at`, which `checkIcmp` accepted. */
export function readIcmp(view: DataView, at: number): IcmpHeader {
  return {
    type: view.getUint8(at + Icmp.type),
    code: view.getUint8(at + Icmp.code),
    checksum: view.getUint16(at + Icmp.checksum),
    rest: view.getUint32(at + Icmp.rest),
  };
}

/** Writes type, code and the second word; the checksum is left 0 for `fillIcmpChecksum`. Returns the body's offset. */
export function writeIcmp(view: DataView, at: number, type: number, code: number, rest: number): number {
  view.setUint8(at + Icmp.type, type);
  view.setUint8(at + Icmp.code, code);
  view.setUint16(at + Icmp.checksum, 0);
  view.setUint32(at + Icmp.rest, rest >>> 0);
  return at + ICMP_HEADER;
}

/** The most bytes of the offending packet an IPv6 error may quote, so that the error fits the minimum MTU. */
export const ICMPV6_QUOTE_LIMIT = 1280 - IPV6_HEADER - ICMP_HEADER;
