/**
 * Counters and the rates estimated from them (net/netfilter/ipvs/ip_vs_est.c).
 *
 * Packets are counted once, at the destination; what a service or the whole director has counted is the sum over its
 * destinations plus what destinations that are gone left behind.
 */
import type { Statistics } from './specification.ts';

/** Offsets of a counter in a destination's row. */
export const Counter = { connections: 0, inPackets: 1, outPackets: 2, inBytes: 3, outBytes: 4 } as const;
const COUNTERS = 5;
/** Counters of a destination stand eight apart. */
export const COUNTER_STRIDE = 8;

/** Seconds between two samples of the estimator. */
export const ESTIMATION_PERIOD = 2;

/** Rates are kept in the kernel's fixed point: packets and connections with 10 binary digits, bytes with 5. */
const PACKET_SCALE = 2 ** 10;
const BYTE_SCALE = 2 ** 5;

/** Counters, rates, and what was there at the last zeroing or sample. */
export class Tally {
  /** Since the last zeroing. */
  readonly totals = new Float64Array(COUNTERS);
  /** A second, scaled. */
  readonly #rates = new Float64Array(COUNTERS);
  readonly #sampled = new Float64Array(COUNTERS);

  /** Adds a row of counters. */
  add(counters: Float64Array, at = 0): void {
    for (let index = 0; index < COUNTERS; index++) {
      this.totals[index] = (this.totals[index] as number) + (counters[at + index] as number);
    }
  }

  /** Takes away a row of counters that was added before. */
  subtract(counters: Float64Array, at = 0): void {
    for (let index = 0; index < COUNTERS; index++) {
      this.totals[index] = (this.totals[index] as number) - (counters[at + index] as number);
    }
  }

  /** Changes the totals so that a sum they are part of, now `present`, becomes `wanted`. */
  adjust(present: Float64Array, wanted: Float64Array): void {
    this.add(wanted);
    this.subtract(present);
  }

  /**
   * Takes a sample: the rate moves a quarter of the way to what the last `seconds` saw.
   * @param current the totals now
   */
  estimate(current: Float64Array, at: number, seconds: number): void {
    for (let index = 0; index < COUNTERS; index++) {
      const total = current[at + index] as number;
      const seen = ((total - (this.#sampled[index] as number)) * scaleOf(index)) / seconds;
      const rate = this.#rates[index] as number;
      this.#rates[index] = rate + Math.floor((seen - rate) / 4);
      this.#sampled[index] = total;
    }
  }

  /**
   * Forgets the rates and what was counted up to the last sample; what came since stays, as in the kernel.
   * @param counters the totals, changed in place
   */
  zero(counters: Float64Array = this.totals, at = 0): void {
    for (let index = 0; index < COUNTERS; index++) {
      counters[at + index] = (counters[at + index] as number) - (this.#sampled[index] as number);
    }
    this.#rates.fill(0);
    this.#sampled.fill(0);
  }

  /** What a `Counter` gains a second. */
  rate(counter: number): number {
    const scale = scaleOf(counter);
    return Math.floor(((this.#rates[counter] as number) + scale / 2 - 1) / scale);
  }

  /** As listings show it. Rates are rounded to whole numbers as the kernel does, a half downwards. */
  statistics(current: Float64Array = this.totals, at = 0): Statistics {
    const total = (counter: number): number => current[at + counter] as number;
    const rate = (counter: number): number => this.rate(counter);
    return {
      connections: total(Counter.connections),
      inPackets: total(Counter.inPackets),
      outPackets: total(Counter.outPackets),
      inBytes: total(Counter.inBytes),
      outBytes: total(Counter.outBytes),
      connectionRate: rate(Counter.connections),
      inPacketRate: rate(Counter.inPackets),
      outPacketRate: rate(Counter.outPackets),
      inByteRate: rate(Counter.inBytes),
      outByteRate: rate(Counter.outBytes),
    };
  }
}

/** True if a row of counters is not all zero. */
export function hasCounted(counters: Float64Array, at: number): boolean {
  for (let index = 0; index < COUNTERS; index++) if (counters[at + index] !== 0) return true;
  return false;
}

function scaleOf(counter: number): number {
  return counter === Counter.inBytes || counter === Counter.outBytes ? BYTE_SCALE : PACKET_SCALE;
}
