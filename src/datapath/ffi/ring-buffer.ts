/**
 * The reading side of a BPF ring buffer (BPF_MAP_TYPE_RINGBUF; kernel/bpf/ringbuf.c): a page with how far has been read,
 * a page with how far has been written, and the data, mapped twice in a row so that no record is ever split.
 */
import type { BpfMap } from './libbpf.ts';
import { mapReadOnly, mapShared, watchReadable } from './libc.ts';

const PAGE = 4096;
const RECORD_HEADER = 8;
const BUSY = 0x8000_0000;
const DISCARDED = 0x4000_0000;
/** Records in a row before others get their turn. */
const BATCH = 512;

export class RingBuffer {
  readonly #consumer: BigUint64Array;
  readonly #producer: BigUint64Array;
  readonly #words: Uint32Array;
  readonly #memory: ArrayBuffer;
  readonly #mask: bigint;
  readonly #fd: number;
  #unwatch: (() => void) | undefined;

  constructor(map: BpfMap) {
    const size = map.maxEntries;
    this.#fd = map.fd;
    this.#mask = BigInt(size - 1);
    this.#consumer = new BigUint64Array(mapShared(map.fd, PAGE, 0, `ring ${map.name}`), 0, 1);
    const rest = mapReadOnly(map.fd, PAGE + 2 * size, PAGE, `ring ${map.name}`);
    this.#producer = new BigUint64Array(rest, 0, 1);
    this.#words = new Uint32Array(rest, PAGE);
    this.#memory = rest;
  }

  /**
   * Hands over the records that are there, a batch at most; a record's bytes are the kernel's again afterwards.
   * @returns how many
   */
  drain(handler: (record: DataView) => void): number {
    let count = 0;
    let at = Atomics.load(this.#consumer, 0);
    while (count < BATCH && at < Atomics.load(this.#producer, 0)) {
      const offset = Number(at & this.#mask);
      const header = Atomics.load(this.#words, offset / 4);
      if (header & BUSY) break;
      const length = header & ~(BUSY | DISCARDED);
      if ((header & DISCARDED) === 0)
        handler(new DataView(this.#memory, PAGE + offset + RECORD_HEADER, length));
      at += BigInt((RECORD_HEADER + length + 7) & ~7);
      Atomics.store(this.#consumer, 0, at);
      count++;
    }
    return count;
  }

  /** Hands over records as they come; `afterBatch` is called when those at hand are through. */
  start(handler: (record: DataView) => void, afterBatch: () => void): void {
    this.#unwatch = watchReadable(this.#fd, () => {
      this.drain(handler);
      afterBatch();
    });
  }

  stop(): void {
    this.#unwatch?.();
    this.#unwatch = undefined;
  }
}
