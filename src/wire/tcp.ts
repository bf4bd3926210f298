/** TCP segments (RFC 9293) and the options a director looks at. */
import type { Family } from './address.ts';
import { finish } from './checksum.ts';
import { Protocol } from './ipv4.ts';
import { Malformed } from './malformed.ts';
import { transportSum } from './pseudo-header.ts';

export const TCP_HEADER = 20;

export const Tcp = {
  sourcePort: 0,
  destinationPort: 2,
  sequence: 4,
  acknowledgement: 8,
  dataOffset: 12,
  flags: 13,
  window: 14,
  checksum: 16,
  urgent: 18,
} as const;

export const TcpFlag = {
  fin: 0x01,
  syn: 0x02,
  rst: 0x04,
  psh: 0x08,
  ack: 0x10,
  urg: 0x20,
  ece: 0x40,
  cwr: 0x80,
} as const;

export const TcpOption = {
  end: 0,
  nop: 1,
  maximumSegmentSize: 2,
  windowScale: 3,
  sackPermitted: 4,
  sack: 5,
  timestamps: 8,
} as const;

/** Header length in bytes as the field states it, 0..60. */
export function tcpHeaderLength(view: DataView, at: number): number {
  return (view.getUint8(at + Tcp.dataOffset) >>> 4) << 2;
}

/** Refuses a segment that is cut off or whose data offset does not fit. Options are checked by `checkTcpOptions`. */
export function checkTcp(view: DataView, at: number, length: number): Malformed {
  if (length < TCP_HEADER) return Malformed.tcpTruncated;
  const headerLength = tcpHeaderLength(view, at);
  if (headerLength < TCP_HEADER || headerLength > length) return Malformed.tcpHeaderLength;
  return Malformed.none;
}

/**
 * Refuses what cannot be the first fragment of a segment. It need not hold the whole header, but ports, data offset
 * and flags must be there, as ip_vs needs them (`length` is at least 14), and the offset must be a possible one.
 */
export function checkFirstTcpFragment(view: DataView, at: number, length: number): Malformed {
  if (length < Tcp.flags + 1) return Malformed.tcpTruncated;
  return tcpHeaderLength(view, at) < TCP_HEADER ? Malformed.tcpHeaderLength : Malformed.none;
}

/** Refuses options whose lengths run out of the header (RFC 9293 3.1, MUST-7). */
export function checkTcpOptions(view: DataView, at: number): Malformed {
  const end = at + tcpHeaderLength(view, at);
  let option = at + TCP_HEADER;
  while (option < end) {
    const kind = view.getUint8(option);
    if (kind === TcpOption.end) return Malformed.none;
    if (kind === TcpOption.nop) {
      option++;
      continue;
    }
    if (option + 1 >= end) return Malformed.tcpOptions;
    const length = view.getUint8(option + 1);
    if (length < 2 || option + length > end) return Malformed.tcpOptions;
    option += length;
  }
  return Malformed.none;
}

/**
 * Offset of the option of this kind, or -1. What it finds lies wholly inside the header, but its length byte may
 * still be wrong for its kind. Stops quietly at the end and at the first inconsistent length.
 */
export function findTcpOption(view: DataView, at: number, kind: number): number {
  const end = at + tcpHeaderLength(view, at);
  let option = at + TCP_HEADER;
  while (option < end) {
    const found = view.getUint8(option);
    if (found === TcpOption.end || found === TcpOption.nop) {
      if (found === kind) return option;
      if (found === TcpOption.end) return -1;
      option++;
      continue;
    }
    if (option + 1 >= end) return -1;
    const length = view.getUint8(option + 1);
    if (length < 2 || option + length > end) return -1;
    if (found === kind) return option;
    option += length;
  }
  return -1;
}

export interface TcpHeader {
  sourcePort: number;
  destinationPort: number;
  sequence: number;
  acknowledgement: number;
  /** Bytes, 20..60. */
  headerLength: number;
  /** A sum of `TcpFlag`. */
  flags: number;
  /** As sent, not scaled. */
  window: number;
  /** As it stands in the header, most significant byte first. */
  checksum: number;
  urgent: number;
}

/** The header at `at`, which `checkTcp` accepted. */
export function readTcp(view: DataView, at: number): TcpHeader {
  return {
    sourcePort: view.getUint16(at + Tcp.sourcePort),
    destinationPort: view.getUint16(at + Tcp.destinationPort),
    sequence: view.getUint32(at + Tcp.sequence),
    acknowledgement: view.getUint32(at + Tcp.acknowledgement),
    headerLength: tcpHeaderLength(view, at),
    flags: view.getUint8(at + Tcp.flags),
    window: view.getUint16(at + Tcp.window),
    checksum: view.getUint16(at + Tcp.checksum),
    urgent: view.getUint16(at + Tcp.urgent),
  };
}

/** Sum over pseudo-header and segment: 0xffff if the checksum in it is right. */
export function tcpSum(view: DataView, family: Family, network: number, at: number, length: number): number {
  return transportSum(view, family, network, Protocol.tcp, at, length);
}

/** Computes and stores the checksum of the segment of `length` bytes at `at`; the IP addresses must be in place. */
export function fillTcpChecksum(
  view: DataView,
  family: Family,
  network: number,
  at: number,
  length: number,
): void {
  view.setUint16(at + Tcp.checksum, 0);
  view.setUint16(at + Tcp.checksum, finish(tcpSum(view, family, network, at, length)), true);
}

export interface TcpFields {
  sourcePort: number;
  destinationPort: number;
  sequence: number;
  acknowledgement: number;
  /** A sum of `TcpFlag`. */
  flags: number;
  window: number;
  /** Options, already padded to a multiple of four bytes, at most 40. */
  options?: Uint8Array;
}

/** Writes the header with its options, checksum 0; returns the offset of the data. */
export function writeTcp(view: DataView, bytes: Uint8Array, at: number, fields: TcpFields): number {
  const headerLength = TCP_HEADER + (fields.options?.length ?? 0);
  view.setUint16(at + Tcp.sourcePort, fields.sourcePort);
  view.setUint16(at + Tcp.destinationPort, fields.destinationPort);
  view.setUint32(at + Tcp.sequence, fields.sequence >>> 0);
  view.setUint32(at + Tcp.acknowledgement, fields.acknowledgement >>> 0);
  view.setUint8(at + Tcp.dataOffset, (headerLength >>> 2) << 4);
  view.setUint8(at + Tcp.flags, fields.flags);
  view.setUint16(at + Tcp.window, fields.window);
  view.setUint32(at + Tcp.checksum, 0);
  if (fields.options) bytes.set(fields.options, at + TCP_HEADER);
  return at + headerLength;
}
