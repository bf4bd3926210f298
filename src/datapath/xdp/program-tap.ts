/**
 * Frames of the XDP program as they came and as they left, for captures: the same program with bpf/tap.h around it,
 * which takes the other one's place on the interfaces while somebody captures.
 */
import { readObject } from '../bpf-files.ts';
import { type BpfMap, BpfObject, type BpfProgram, possibleCpus } from '../ffi/libbpf.ts';
import type { FilterInstruction } from '../ffi/libpcap.ts';
import { RingBuffer } from '../ffi/ring-buffer.ts';
import { FilterCodeError, fillRoom, translateFilter } from './filter-code.ts';
import { useTables } from './tables.ts';

/** `bpf/tap.h` has these, too. */
const KEPT = 2048;
const FILTER_ROOM = 4096;
const LOST_RING = 0;
const LOST_LIMIT = 1;
/** Byte offsets in `struct tap_limits`. */
const Limits = { frames: 0, looks: 4, window: 8, bytes: 12 } as const;
/** Byte offsets in `struct sighting`. */
const Sighting = {
  time: 0,
  number: 8,
  interface: 16,
  queue: 20,
  length: 24,
  kept: 28,
  verdict: 32,
  reason: 36,
  isAfter: 40,
  bytes: 48,
} as const;

/** Parts of a second that the limit is counted in. */
const WINDOWS = 10;

export interface ProgramTapOptions {
  /** The compiled object. */
  object: string;
  /** Maps that it shares with the program whose place it takes, by name. */
  shared: Readonly<Record<string, BpfMap>>;
  /** Those of them that are sized when the program is loaded: `makeTables`. */
  tables?: ReadonlyMap<string, BpfMap>;
  /** Programs of the object that are not needed. */
  leaveOut: readonly string[];
  /** As libpcap compiles it; empty: every frame. */
  filter: readonly FilterInstruction[];
  /** Most frames a second that are kept, on each CPU; when it is reached no more are looked at. */
  limit: number;
  /** Most frames a second that the filter is tried on, on each CPU; what is over it is counted only. */
  looks: number;
  /** Most bytes of a frame, 1..2048. */
  snapshotLength: number;
  /** Ticks of the kernel a second. */
  hz: number;
}

/** A frame as it came to the program, or as the program left it. */
export interface ProgramSighting {
  /** CLOCK_MONOTONIC, nanoseconds. */
  time: bigint;
  /** The same for both sightings of a frame on a CPU. */
  number: bigint;
  /** Where it came in. */
  interfaceIndex: number;
  queue: number;
  /** Bytes of the whole frame. */
  length: number;
  /** The head of it, the handler's to keep. */
  bytes: Uint8Array;
  /** What the program returned: `XdpVerdict`. */
  verdict: number;
  /** What it was counted as: an index of `reasonNames`, or their number if nothing was counted. */
  reason: number;
  isAfter: boolean;
}

export interface TapLosses {
  /** Frames that matched and found the ring full. */
  ring: number;
  /** Frames that were not looked at because the limit was reached. */
  limit: number;
}

export class ProgramTap {
  /** What is to be attached. */
  readonly program: BpfProgram;
  readonly #object: BpfObject;
  readonly #ring: RingBuffer;
  readonly #losses: BpfMap;
  #closed = false;

  /** @throws Error: what the kernel lacks, or that the filter is too long for it */
  constructor(options: ProgramTapOptions) {
    const { filter, hz } = options;
    const bytes = new Uint8Array(readObject(options.object));
    if (filter.length > 0) {
      const code = translateFilter(filter, { room: KEPT, words: KEPT }, FILTER_ROOM);
      if (fillRoom(bytes, code, FILTER_ROOM) !== 2)
        throw new FilterCodeError(`${options.object} has no room for a filter: npm run build:bpf`);
    }
    this.#object = new BpfObject(bytes, options.object);
    try {
      const limits = this.#object.data('.rodata.tap');
      const inWindow = (rate: number): number => Math.max(1, Math.ceil(rate / WINDOWS));
      limits.setUint32(Limits.frames, inWindow(options.limit), true);
      limits.setUint32(Limits.looks, inWindow(options.looks), true);
      limits.setUint32(Limits.window, Math.max(1, Math.round(hz / WINDOWS)), true);
      limits.setUint32(Limits.bytes, Math.min(options.snapshotLength, KEPT), true);
      if (options.tables) useTables(this.#object, options.tables);
      for (const [name, map] of Object.entries(options.shared))
        if (!options.tables?.has(name)) this.#object.reuse(name, map);
      for (const name of options.leaveOut) this.#object.leaveOut(name);
      this.#object.load();
      this.program = this.#object.program('dirigo');
      this.#ring = new RingBuffer(this.#object.map('tap_ring'));
      this.#losses = this.#object.map('tap_losses');
    } catch (error) {
      this.#object.close();
      throw error;
    }
  }

  /** Begins to hand over sightings, both of a frame in a row. */
  start(handler: (sighting: ProgramSighting) => void, afterBatch: () => void = () => {}): void {
    this.#ring.start(record => handler(read(record)), afterBatch);
  }

  /** Hands over what is there, a batch at most. @returns how many records there were */
  drain(handler: (sighting: ProgramSighting) => void): number {
    return this.#ring.drain(record => handler(read(record)));
  }

  losses(): TapLosses {
    return { ring: this.#loss(LOST_RING), limit: this.#loss(LOST_LIMIT) };
  }

  #loss(which: number): number {
    const value = new BigUint64Array(new ArrayBuffer(8 * possibleCpus()));
    const key = new Uint8Array(new ArrayBuffer(4));
    key[0] = which;
    this.#losses.lookup(key, new Uint8Array(value.buffer));
    return Number(value.reduce((sum, each) => sum + each, 0n));
  }

  /** The program must not be attached any more. Safe to call twice. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#ring.stop();
    this.#object.close();
  }
}

function read(record: DataView): ProgramSighting {
  const kept = record.getUint32(Sighting.kept, true);
  const from = record.byteOffset + Sighting.bytes;
  return {
    time: record.getBigUint64(Sighting.time, true),
    number: record.getBigUint64(Sighting.number, true),
    interfaceIndex: record.getUint32(Sighting.interface, true),
    queue: record.getUint32(Sighting.queue, true),
    length: record.getUint32(Sighting.length, true),
    bytes: new Uint8Array(record.buffer as ArrayBuffer, from, kept).slice(),
    verdict: record.getUint32(Sighting.verdict, true),
    reason: record.getUint32(Sighting.reason, true),
    isAfter: record.getUint32(Sighting.isAfter, true) !== 0,
  };
}
