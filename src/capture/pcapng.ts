/**
 * pcapng files (draft-ietf-opsawg-pcapng): several interfaces with their names, nanoseconds, remarks on frames.
 * Written: section header, interface description, enhanced packet and interface statistics blocks, little-endian.
 * Read: those and simple packet blocks, in any byte order, resolution and number of sections; other blocks are passed over.
 */
import {
  type CapturedFrame,
  CaptureFileError,
  type CaptureWriter,
  joinBytes,
  LINKTYPE_ETHERNET,
  LONGEST_FRAME,
} from './frame.ts';

const BlockType = {
  section: 0x0a0d0d0a,
  interface: 1,
  simplePacket: 3,
  statistics: 5,
  enhancedPacket: 6,
} as const;
const BYTE_ORDER_MAGIC = 0x1a2b3c4d;

/** Type and length in front of a block's body, length again behind it. */
const BLOCK_FRAME = 12;
const BLOCK_BODY = 8;

const Option = {
  end: 0,
  comment: 1,
  userApplication: 4,
  interfaceName: 2,
  dropped: 5,
  timeResolution: 9,
} as const;

/** True if the bytes begin with a section header block. */
export function isPcapng(bytes: Uint8Array): boolean {
  return bytes[0] === 0x0a && bytes[1] === 0x0d && bytes[2] === 0x0d && bytes[3] === 0x0a;
}

interface ReadInterface {
  name: string | undefined;
  /** Nanoseconds of one unit as a fraction, because resolutions may be finer or powers of two. */
  numerator: bigint;
  denominator: bigint;
  snapshotLength: number;
}

/**
 * The frames of a file, in its order. They share its memory. An interface without a name stays unnamed.
 * @throws CaptureFileError
 */
export function readPcapng(bytes: Uint8Array): CapturedFrame[] {
  const reader = new PcapngReader();
  const frames = reader.read(bytes);
  reader.end();
  return frames;
}

/** Reads pcapng that comes piece by piece. */
export class PcapngReader {
  #rest = new Uint8Array();
  /** Where `#rest` begins in the file. */
  #position = 0;
  #interfaces: ReadInterface[] = [];
  /** By interface, the last count that was stated. */
  readonly #dropped = new Map<number, number>();
  #little = true;
  #begun = false;

  /**
   * The frames that are whole with this piece; they share its memory.
   * @throws CaptureFileError
   */
  read(piece: Uint8Array): CapturedFrame[] {
    const bytes = this.#rest.length === 0 ? piece : joinBytes([this.#rest, piece]);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const frames: CapturedFrame[] = [];
    let at = 0;
    while (at + BLOCK_FRAME <= bytes.length) {
      const length = this.#blockLength(bytes, view, at);
      if (at + length > bytes.length) break;
      const frame = this.#block(bytes, view, at, length);
      if (frame) frames.push(frame);
      at += length;
    }
    this.#rest = bytes.slice(at);
    this.#position += at;
    return frames;
  }

  /** @throws CaptureFileError if the file ended within a block, or before it began */
  end(): void {
    if (!this.#begun && !isPcapng(this.#rest))
      throw new CaptureFileError('not a pcapng file: it does not begin with a section header');
    if (this.#rest.length > 0) throw new CaptureFileError(`${this.#where(0)} is cut off`);
  }

  #where(at: number): string {
    return `the pcapng block at byte ${this.#position + at}`;
  }

  #blockLength(bytes: Uint8Array, view: DataView, at: number): number {
    const where = this.#where(at);
    // The section header's type reads the same in both orders; the magic behind it tells which one follows.
    if (isPcapng(bytes.subarray(at))) {
      const magic = view.getUint32(at + BLOCK_BODY, true);
      if (magic !== BYTE_ORDER_MAGIC && magic !== 0x4d3c2b1a)
        throw new CaptureFileError(`${where} has no byte-order magic`);
      this.#little = magic === BYTE_ORDER_MAGIC;
      this.#begun = true;
    } else if (!this.#begun) {
      throw new CaptureFileError('not a pcapng file: it does not begin with a section header');
    }
    const length = view.getUint32(at + 4, this.#little);
    if (length < BLOCK_FRAME || length % 4 !== 0)
      throw new CaptureFileError(`${where} claims the impossible length ${length}`);
    return length;
  }

  #block(bytes: Uint8Array, view: DataView, at: number, length: number): CapturedFrame | undefined {
    const where = this.#where(at);
    if (view.getUint32(at + length - 4, this.#little) !== length)
      throw new CaptureFileError(`${where} states two different lengths`);
    const type = view.getUint32(at, this.#little);
    const body = new BlockBody(bytes, view, this.#little, at + BLOCK_BODY, at + length - 4, where);
    if (type === BlockType.section) {
      body.need(16);
      const major = view.getUint16(body.at + 4, this.#little);
      if (major !== 1) throw new CaptureFileError(`pcapng version ${major} is not supported, only 1`);
      this.#interfaces = [];
    } else if (type === BlockType.interface) {
      this.#interfaces.push(readInterface(body));
    } else if (type === BlockType.enhancedPacket) {
      return readEnhancedPacket(body, this.#interfaces);
    } else if (type === BlockType.simplePacket) {
      return readSimplePacket(body, this.#interfaces);
    } else if (type === BlockType.statistics) {
      const dropped = body.options(12).get(Option.dropped);
      if (dropped?.length === 8) this.#dropped.set(body.word(0), unsigned64(dropped, this.#little));
    }
    return undefined;
  }

  /** Frames that the one who captured had no room for, as statistics in the file say. */
  get dropped(): number {
    return this.#dropped.values().reduce((sum, each) => sum + each, 0);
  }
}

function unsigned64(bytes: Uint8Array, little: boolean): number {
  return Number(new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, little));
}

/** The inside of one block, and what has to be said when it is too short. */
class BlockBody {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly little: boolean;
  readonly at: number;
  readonly end: number;
  readonly where: string;

  constructor(bytes: Uint8Array, view: DataView, little: boolean, at: number, end: number, where: string) {
    this.bytes = bytes;
    this.view = view;
    this.little = little;
    this.at = at;
    this.end = end;
    this.where = where;
  }

  need(length: number): void {
    if (this.end - this.at < length) throw new CaptureFileError(`${this.where} is too short`);
  }

  word(offset: number): number {
    return this.view.getUint32(this.at + offset, this.little);
  }

  packetBytes(offset: number, captured: number, length: number): Uint8Array {
    if (captured > LONGEST_FRAME)
      throw new CaptureFileError(`${this.where} claims a frame of ${captured} bytes`);
    if (captured > length)
      throw new CaptureFileError(`${this.where} holds ${captured} bytes of a frame of ${length}`);
    this.need(offset + captured);
    return this.bytes.subarray(this.at + offset, this.at + offset + captured);
  }

  /** The options from `offset` on; of several with one code the last. */
  options(offset: number): Map<number, Uint8Array> {
    const found = new Map<number, Uint8Array>();
    for (let at = this.at + offset; at + 4 <= this.end; ) {
      const code = this.view.getUint16(at, this.little);
      const length = this.view.getUint16(at + 2, this.little);
      if (code === Option.end) break;
      if (at + 4 + length > this.end)
        throw new CaptureFileError(`${this.where} has an option that is cut off`);
      found.set(code, this.bytes.subarray(at + 4, at + 4 + length));
      at += 4 + padded(length);
    }
    return found;
  }
}

function readInterface(body: BlockBody): ReadInterface {
  body.need(8);
  const linkType = body.view.getUint16(body.at, body.little);
  if (linkType !== LINKTYPE_ETHERNET)
    throw new CaptureFileError(`${body.where} has link type ${linkType}, only 1 (Ethernet) is supported`);
  const options = body.options(8);
  const name = options.get(Option.interfaceName);
  // Microseconds unless stated; the high bit says that the rest is a power of two, not of ten.
  const resolution = options.get(Option.timeResolution)?.[0] ?? 6;
  const unitsPerSecond = resolution & 0x80 ? 2n ** BigInt(resolution & 0x7f) : 10n ** BigInt(resolution);
  return {
    name: name && new TextDecoder().decode(name),
    numerator: 1_000_000_000n,
    denominator: unitsPerSecond,
    snapshotLength: body.word(4),
  };
}

function readEnhancedPacket(body: BlockBody, interfaces: readonly ReadInterface[]): CapturedFrame {
  body.need(20);
  const from = interfaces[body.word(0)];
  if (!from)
    throw new CaptureFileError(`${body.where} names interface ${body.word(0)}, which is not described`);
  const units = (BigInt(body.word(4)) << 32n) | BigInt(body.word(8));
  const captured = body.word(12);
  const length = body.word(16);
  const bytes = body.packetBytes(20, captured, length);
  const frame: CapturedFrame = { time: (units * from.numerator) / from.denominator, bytes, length };
  if (from.name !== undefined) frame.interface = from.name;
  const comment = body.options(20 + padded(captured)).get(Option.comment);
  if (comment) frame.comment = new TextDecoder().decode(comment);
  return frame;
}

/** A simple packet has neither time nor interface: it is the first one's, at time 0. */
function readSimplePacket(body: BlockBody, interfaces: readonly ReadInterface[]): CapturedFrame {
  body.need(4);
  const from = interfaces[0];
  if (!from) throw new CaptureFileError(`${body.where} is a packet before any interface is described`);
  const length = body.word(0);
  const captured = Math.min(length, from.snapshotLength || LONGEST_FRAME);
  const frame: CapturedFrame = { time: 0n, bytes: body.packetBytes(4, captured, length), length };
  if (from.name !== undefined) frame.interface = from.name;
  return frame;
}

/** Lengths in pcapng are padded to multiples of four bytes. */
function padded(length: number): number {
  return (length + 3) & ~3;
}

/** Writes pcapng. Describes each interface in front of its first frame; frames without one share an unnamed one. */
export class PcapngWriter implements CaptureWriter {
  readonly #application: string;
  readonly #interfaces = new Map<string, number>();

  /** @param application what made the file, as the section header states it */
  constructor(application = 'dirigo') {
    this.#application = application;
  }

  start(): Uint8Array {
    const options = optionBytes([[Option.userApplication, text(this.#application)]]);
    const fixed = new Uint8Array(16);
    const view = new DataView(fixed.buffer);
    view.setUint32(0, BYTE_ORDER_MAGIC, true);
    view.setUint16(4, 1, true);
    // The section's length is not known while it is being written.
    view.setBigInt64(8, -1n, true);
    return block(BlockType.section, [fixed, options]);
  }

  frame(frame: CapturedFrame): Uint8Array {
    if (frame.time < 0n || frame.time >= 1n << 64n)
      throw new RangeError(`pcapng cannot hold the time ${frame.time} ns`);
    const name = frame.interface ?? '';
    const known = this.#interfaces.get(name);
    const index = known ?? this.#interfaces.size;
    this.#interfaces.set(name, index);

    const fixed = new Uint8Array(20);
    const view = new DataView(fixed.buffer);
    view.setUint32(0, index, true);
    view.setUint32(4, Number(frame.time >> 32n), true);
    view.setUint32(8, Number(frame.time & 0xffffffffn), true);
    view.setUint32(12, frame.bytes.length, true);
    view.setUint32(16, frame.length, true);
    const options = frame.comment === undefined ? [] : [optionBytes([[Option.comment, text(frame.comment)]])];
    const packet = block(BlockType.enhancedPacket, [fixed, aligned(frame.bytes), ...options]);
    return known === undefined ? joinBytes([describeInterface(name), packet]) : packet;
  }

  /** How many frames of an interface were not kept so far; each statement takes the place of the one before. */
  dropped(name: string, count: number, time: bigint): Uint8Array {
    const known = this.#interfaces.get(name);
    const index = known ?? this.#interfaces.size;
    this.#interfaces.set(name, index);
    const fixed = new Uint8Array(12);
    const view = new DataView(fixed.buffer);
    view.setUint32(0, index, true);
    view.setUint32(4, Number(time >> 32n), true);
    view.setUint32(8, Number(time & 0xffffffffn), true);
    const value = new Uint8Array(8);
    new DataView(value.buffer).setBigUint64(0, BigInt(count), true);
    const statistics = block(BlockType.statistics, [fixed, optionBytes([[Option.dropped, value]])]);
    return known === undefined ? joinBytes([describeInterface(name), statistics]) : statistics;
  }
}

/** A whole file with these frames. */
export function writePcapng(frames: readonly CapturedFrame[], application?: string): Uint8Array {
  const writer = new PcapngWriter(application);
  return joinBytes([writer.start(), ...frames.map(frame => writer.frame(frame))]);
}

function describeInterface(name: string): Uint8Array {
  const fixed = new Uint8Array(8);
  const view = new DataView(fixed.buffer);
  view.setUint16(0, LINKTYPE_ETHERNET, true);
  view.setUint32(4, LONGEST_FRAME, true);
  const options: [number, Uint8Array][] = [[Option.timeResolution, Uint8Array.of(9)]];
  if (name !== '') options.unshift([Option.interfaceName, text(name)]);
  return block(BlockType.interface, [fixed, optionBytes(options)]);
}

function block(type: number, parts: readonly Uint8Array[]): Uint8Array {
  const body = joinBytes(parts);
  const bytes = new Uint8Array(BLOCK_FRAME + body.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, type, true);
  view.setUint32(4, bytes.length, true);
  bytes.set(body, BLOCK_BODY);
  view.setUint32(bytes.length - 4, bytes.length, true);
  return bytes;
}

function optionBytes(options: readonly [code: number, value: Uint8Array][]): Uint8Array {
  const parts = options.map(([code, value]) =>
    joinBytes([
      Uint8Array.of(code & 0xff, code >>> 8, value.length & 0xff, value.length >>> 8),
      aligned(value),
    ]),
  );
  return joinBytes([...parts, new Uint8Array(4)]);
}

function aligned(bytes: Uint8Array): Uint8Array {
  return joinBytes([bytes, new Uint8Array(padded(bytes.length) - bytes.length)]);
}

/** An option holds at most 65535 bytes. */
function text(content: string): Uint8Array {
  return new TextEncoder().encode(content).subarray(0, 65535);
}
