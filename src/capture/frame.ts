/** A frame as a capture holds it, and what every capture file has in common. */

export interface CapturedFrame {
  /** Nanoseconds; since 1970 in files. A bigint, because a double holds such times only to about 200 ns. */
  time: bigint;
  /** The frame from its destination MAC on, possibly cut off by the capture. */
  bytes: Uint8Array;
  /** Bytes it had on the wire, at least `bytes.length`. */
  length: number;
  /** Where it was seen, as `eth0`; only pcapng keeps it. */
  interface?: string;
  /** A remark on this frame; only pcapng keeps it. */
  comment?: string;
}

/** Makes a capture file piece by piece: append what the methods return, in order. */
export interface CaptureWriter {
  /** What the file begins with. */
  start(): Uint8Array;
  /** What this frame adds. */
  frame(frame: CapturedFrame): Uint8Array;
}

/** A capture file that is not one, is cut off, or holds what is not Ethernet. The message says what and where. */
export class CaptureFileError extends Error {
  override name = 'CaptureFileError';
}

/** Ethernet, LINKTYPE_ETHERNET of pcap and pcapng. */
export const LINKTYPE_ETHERNET = 1;

/** No capture tool writes longer frames (MAXIMUM_SNAPLEN of libpcap); a longer one means a damaged file. */
export const LONGEST_FRAME = 262144;

/** The time of captured frames for a virtual clock in milliseconds. */
export function nanoseconds(milliseconds: number): bigint {
  return BigInt(Math.round(milliseconds * 1e6));
}

/** Joins the pieces of a file. */
export function joinBytes(pieces: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(pieces.reduce((length, piece) => length + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}
