/** Classic pcap files (pcap-savefile(5)): microseconds or nanoseconds, either byte order, Ethernet only. */
import {
  type CapturedFrame,
  CaptureFileError,
  type CaptureWriter,
  joinBytes,
  LINKTYPE_ETHERNET,
  LONGEST_FRAME,
} from './frame.ts';

const FILE_HEADER = 24;
const RECORD_HEADER = 16;

const Header = {
  magic: 0,
  major: 4,
  minor: 6,
  zone: 8,
  accuracy: 12,
  snapshotLength: 16,
  linkType: 20,
} as const;
const Record = { seconds: 0, fraction: 4, capturedLength: 8, length: 12 } as const;

const MICROSECONDS_MAGIC = 0xa1b2c3d4;
const NANOSECONDS_MAGIC = 0xa1b23c4d;

/** True if the bytes begin with the magic number of a pcap file, in either byte order and resolution. */
export function isPcap(bytes: Uint8Array): boolean {
  if (bytes.length < 4) return false;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return [true, false].some(little => {
    const magic = view.getUint32(Header.magic, little);
    return magic === MICROSECONDS_MAGIC || magic === NANOSECONDS_MAGIC;
  });
}

/**
 * The frames of a file. They share its memory.
 * @throws CaptureFileError
 */
export function readPcap(bytes: Uint8Array): CapturedFrame[] {
  if (!isPcap(bytes)) throw new CaptureFileError('not a pcap file: it does not begin with a magic number');
  if (bytes.length < FILE_HEADER) throw new CaptureFileError('the pcap file is cut off in its header');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const little = view.getUint8(Header.magic) !== 0xa1;
  const nanosecondsEach = view.getUint32(Header.magic, little) === NANOSECONDS_MAGIC ? 1n : 1000n;
  const version = `${view.getUint16(Header.major, little)}.${view.getUint16(Header.minor, little)}`;
  if (version !== '2.4') throw new CaptureFileError(`pcap version ${version} is not supported, only 2.4`);
  // The upper bits say whether frames end with a check sequence (pcap-savefile(5)).
  const linkType = view.getUint32(Header.linkType, little) & 0x0fffffff;
  if (linkType !== LINKTYPE_ETHERNET)
    throw new CaptureFileError(`the pcap file's link type is ${linkType}, only 1 (Ethernet) is supported`);

  const frames: CapturedFrame[] = [];
  for (let at = FILE_HEADER; at < bytes.length; ) {
    const where = `frame ${frames.length + 1} of the pcap file (byte ${at})`;
    if (at + RECORD_HEADER > bytes.length) throw new CaptureFileError(`${where} is cut off in its header`);
    const captured = view.getUint32(at + Record.capturedLength, little);
    const length = view.getUint32(at + Record.length, little);
    if (captured > LONGEST_FRAME) throw new CaptureFileError(`${where} claims ${captured} bytes`);
    if (length < captured) throw new CaptureFileError(`${where} holds ${captured} of ${length} bytes`);
    const begin = at + RECORD_HEADER;
    if (begin + captured > bytes.length) throw new CaptureFileError(`${where} is cut off`);
    const fraction = BigInt(view.getUint32(at + Record.fraction, little)) * nanosecondsEach;
    const time = BigInt(view.getUint32(at + Record.seconds, little)) * 1_000_000_000n + fraction;
    frames.push({ time, bytes: bytes.subarray(begin, begin + captured), length });
    at = begin + captured;
  }
  return frames;
}

export interface PcapOptions {
  /** Default `nanoseconds`; every tool of the last ten years reads both. */
  resolution?: 'microseconds' | 'nanoseconds';
  /** Default little-endian, as nearly every machine writes. */
  bigEndian?: boolean;
}

/** Writes classic pcap. Times below 0 or beyond the year 2106 do not fit and throw a RangeError. */
export class PcapWriter implements CaptureWriter {
  readonly #little: boolean;
  readonly #nanosecondsEach: bigint;

  constructor(options: PcapOptions = {}) {
    this.#little = options.bigEndian !== true;
    this.#nanosecondsEach = options.resolution === 'microseconds' ? 1000n : 1n;
  }

  start(): Uint8Array {
    const bytes = new Uint8Array(FILE_HEADER);
    const view = new DataView(bytes.buffer);
    const magic = this.#nanosecondsEach === 1n ? NANOSECONDS_MAGIC : MICROSECONDS_MAGIC;
    view.setUint32(Header.magic, magic, this.#little);
    view.setUint16(Header.major, 2, this.#little);
    view.setUint16(Header.minor, 4, this.#little);
    view.setUint32(Header.snapshotLength, LONGEST_FRAME, this.#little);
    view.setUint32(Header.linkType, LINKTYPE_ETHERNET, this.#little);
    return bytes;
  }

  frame(frame: CapturedFrame): Uint8Array {
    const seconds = frame.time / 1_000_000_000n;
    if (frame.time < 0n || seconds > 0xffffffffn)
      throw new RangeError(`pcap cannot hold the time ${frame.time} ns`);
    const bytes = new Uint8Array(RECORD_HEADER + frame.bytes.length);
    const view = new DataView(bytes.buffer);
    const fraction = (frame.time % 1_000_000_000n) / this.#nanosecondsEach;
    view.setUint32(Record.seconds, Number(seconds), this.#little);
    view.setUint32(Record.fraction, Number(fraction), this.#little);
    view.setUint32(Record.capturedLength, frame.bytes.length, this.#little);
    view.setUint32(Record.length, frame.length, this.#little);
    bytes.set(frame.bytes, RECORD_HEADER);
    return bytes;
  }
}

/** A whole file with these frames. */
export function writePcap(frames: readonly CapturedFrame[], options: PcapOptions = {}): Uint8Array {
  const writer = new PcapWriter(options);
  return joinBytes([writer.start(), ...frames.map(frame => writer.frame(frame))]);
}
