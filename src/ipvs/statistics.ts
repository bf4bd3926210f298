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

/** Counters, rates, and what was there at the last zeroing or sample. */
export class Tally {
  /** Since the last zeroing. */
  readonly totals = new Float64Array(COUNTERS);
  /** A second. */
  readonly rates = new Float64Array(COUNTERS);
  readonly #sampled = new Float64Array(COUNTERS);

  /** Adds a row of counters. */
  add(counters: Float64Array, at = 0): void {
    for (let index = 0; index < COUNTERS; index++) {
      this.totals[index] = (this.totals[index] as number) + (counters[at + index] as number);
    }
  }

  /**
   * Takes a sample: the rate moves a quarter of the way to what the last `seconds` saw.
   * @param current the totals now
   */
  estimate(current: Float64Array, at: number, seconds: number): void {
    for (let index = 0; index < COUNTERS; index++) {
      const total = current[at + index] as number;
      const seen = (total - (this.#sampled[index] as number)) / seconds;
      const rate = this.rates[index] as number;
      this.rates[index] = rate + (seen - rate) / 4;
      this.#sampled[index] = total;
    }
  }

  /** Forgets everything, the rates included. */
  zero(): void {
    this.totals.fill(0);
    this.rates.fill(0);
    this.#sampled.fill(0);
  }

  /** As listings show it. Rates are rounded to whole numbers as the kernel does. */
  statistics(current: Float64Array = this.totals, at = 0): Statistics {
    const total = (counter: number): number => current[at + counter] as number;
    const rate = (counter: number): number => Math.round(this.rates[counter] as number);
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
