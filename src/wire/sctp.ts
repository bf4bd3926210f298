/** SCTP common header and chunk walk (RFC 9260); its checksum is CRC32c over the whole packet, without pseudo-header. */
import { Malformed } from './malformed.ts';

export const SCTP_HEADER = 12;
export const SCTP_CHUNK_HEADER = 4;

export const Sctp = { sourcePort: 0, destinationPort: 2, verificationTag: 4, checksum: 8 } as const;

export const SctpChunk = {
  data: 0,
  init: 1,
  initAck: 2,
  sack: 3,
  heartbeat: 4,
  heartbeatAck: 5,
  abort: 6,
  shutdown: 7,
  shutdownAck: 8,
  error: 9,
  cookieEcho: 10,
  cookieAck: 11,
  ecnEcho: 12,
  congestionWindowReduced: 13,
  shutdownComplete: 14,
} as const;

/** Refuses a packet without common header and first chunk, or whose first chunk runs out of it. */
export function checkSctp(view: DataView, at: number, length: number): Malformed {
  if (length < SCTP_HEADER + SCTP_CHUNK_HEADER) return Malformed.sctpTruncated;
  const chunkLength = view.getUint16(at + SCTP_HEADER + 2);
  if (chunkLength < SCTP_CHUNK_HEADER || SCTP_HEADER + chunkLength > length) return Malformed.sctpChunk;
  return Malformed.none;
}

export interface SctpHeader {
  sourcePort: number;
  destinationPort: number;
  verificationTag: number;
  /** As `tshark` shows it: the four bytes, first one most significant. */
  checksum: number;
}

/** The common header at `at`, which `checkSctp` accepted. */
export function readSctp(view: DataView, at: number): SctpHeader {
  return {
    sourcePort: view.getUint16(at + Sctp.sourcePort),
    destinationPort: view.getUint16(at + Sctp.destinationPort),
    verificationTag: view.getUint32(at + Sctp.verificationTag),
    checksum: view.getUint32(at + Sctp.checksum),
  };
}

const CRC32C_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let remainder = byte;
  for (let bit = 0; bit < 8; bit++)
    remainder = remainder & 1 ? (remainder >>> 1) ^ 0x82f63b78 : remainder >>> 1;
  return remainder;
});

/** CRC32c (RFC 9260 appendix A) of `[at, at + length)`, with the four bytes at `skip` taken as zero. */
export function crc32c(view: DataView, at: number, length: number, skip: number): number {
  let crc = 0xffffffff;
  for (let offset = at; offset < at + length; offset++) {
    const byte = offset >= skip && offset < skip + 4 ? 0 : view.getUint8(offset);
    crc = (CRC32C_TABLE[(crc ^ byte) & 0xff] as number) ^ (crc >>> 8);
  }
  return (crc ^ 0xffffffff) >>> 0;
}

/** True if the checksum of the packet is right. */
export function sctpChecksumIsRight(view: DataView, at: number, length: number): boolean {
  return view.getUint32(at + Sctp.checksum, true) === crc32c(view, at, length, at + Sctp.checksum);
}

/** Computes and stores the checksum (least significant byte first). */
export function fillSctpChecksum(view: DataView, at: number, length: number): void {
  view.setUint32(at + Sctp.checksum, crc32c(view, at, length, at + Sctp.checksum), true);
}
