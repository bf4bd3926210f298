/** What the program counted for each destination: the map `traffic`, a value for each CPU. */
import type { BpfMap } from '../ffi/libbpf.ts';

/** What the program forwarded to a destination, and its replies; connections it made. */
export interface Traffic {
  packets: number;
  bytes: number;
  outPackets: number;
  outBytes: number;
  connections: number;
}

/** Words in `struct traffic`. */
const WORDS = 5;
/** Destinations whose counters are read in one call. */
const BATCH = 1024;

const ALL = { part: 0, of: 1 };

export class TrafficCounters {
  readonly #map: BpfMap;
  readonly #cpus: number;
  /** 32-bit words of a destination's counters, on all CPUs. */
  readonly #words: number;
  /** Counters as they were when they were last looked at, by batches, and where they are read to. */
  readonly #known: Int32Array[] = [];
  readonly #found: Int32Array<ArrayBuffer>;
  readonly #keys = new Uint32Array(BATCH);

  constructor(map: BpfMap, cpus: number) {
    this.#map = map;
    this.#cpus = cpus;
    this.#words = (WORDS * 8 * cpus) / 4;
    this.#found = new Int32Array(BATCH * this.#words);
  }

  /** What the program did for a destination since `clear`. */
  of(destination: number): Traffic {
    const value = new Uint8Array(new ArrayBuffer(8 * WORDS * this.#cpus));
    this.#map.lookup(keyOf(destination), value);
    return trafficOf(sums(value.buffer, 0, WORDS, this.#cpus));
  }

  /**
   * Calls back for the destinations below `destinations` for which the program did something since the last call, or
   * whose counters were cleared, with all that it did for them since `clear`.
   * @param part of how many parts is looked at: each costs the kernel to copy its counters
   */
  changed(
    destinations: number,
    changed: (destination: number, traffic: Traffic) => void,
    { part, of }: { part: number; of: number } = ALL,
  ): void {
    const words = this.#words;
    const found = this.#found;
    for (let batch = part; batch * BATCH < destinations; batch += of) {
      const first = batch * BATCH;
      const known = this.#known[batch] ?? new Int32Array(BATCH * words);
      this.#known[batch] = known;
      const end = Math.min(BATCH, destinations - first);
      this.#map.lookupFrom(
        first,
        this.#keys.subarray(0, end),
        new Uint8Array(found.buffer, 0, end * words * 4),
      );
      for (let index = 0; index < end; index++) {
        let isChanged = false;
        for (let word = index * words; word < (index + 1) * words; word++) {
          if (known[word] === found[word]) continue;
          known[word] = found[word] as number;
          isChanged = true;
        }
        if (isChanged) changed(first + index, trafficOf(sums(found.buffer, index, WORDS, this.#cpus)));
      }
    }
  }

  /** The map was emptied: all counters are zero. */
  forget(): void {
    this.#known.length = 0;
  }

  clear(destination: number): void {
    // What is counted from here on may reach the same numbers again.
    const at = (destination % BATCH) * this.#words;
    this.#known[Math.floor(destination / BATCH)]?.fill(-1, at, at + this.#words);
    this.#map.update(keyOf(destination), new Uint8Array(new ArrayBuffer(8 * WORDS * this.#cpus)));
  }
}

/** The words of a per-CPU value, the `index`th of a buffer, added up over the CPUs. */
export function sums(buffer: ArrayBufferLike, index: number, words: number, cpus: number): number[] {
  const values = new BigUint64Array(buffer, 8 * index * words * cpus, words * cpus);
  const totals = new Array<number>(words).fill(0);
  values.forEach((word, at) => {
    totals[at % words] = (totals[at % words] as number) + Number(word);
  });
  return totals;
}

function trafficOf(words: readonly number[]): Traffic {
  const [packets = 0, bytes = 0, outPackets = 0, outBytes = 0, connections = 0] = words;
  return { packets, bytes, outPackets, outBytes, connections };
}

function keyOf(index: number): Uint8Array {
  const key = new Uint8Array(new ArrayBuffer(4));
  new DataView(key.buffer).setUint32(0, index, true);
  return key;
}
