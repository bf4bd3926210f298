/** How much each of many may do: a bucket of tokens a name, in bounded memory. */

export interface Rate {
  /** A second. */
  rate: number;
  /** At once. */
  burst: number;
}

/** Names that are remembered. */
const MOST_NAMES = 4096;

export class RateLimit {
  readonly #rate: number;
  readonly #burst: number;
  /** What was left when it was last asked for, the longest ago first. */
  readonly #buckets = new Map<string, { left: number; at: number }>();

  constructor({ rate, burst }: Rate) {
    this.#rate = rate;
    this.#burst = burst;
  }

  /**
   * Takes one from a name's bucket.
   * @param now milliseconds
   * @returns 0, or the whole seconds until there is one again
   */
  take(name: string, now: number): number {
    const bucket = this.#buckets.get(name);
    const left = bucket
      ? Math.min(this.#burst, bucket.left + ((now - bucket.at) / 1000) * this.#rate)
      : this.#burst;
    this.#buckets.delete(name);
    this.#buckets.set(name, { left: left < 1 ? left : left - 1, at: now });
    if (this.#buckets.size > MOST_NAMES) {
      const [oldest] = this.#buckets.keys();
      if (oldest !== undefined) this.#buckets.delete(oldest);
    }
    return left < 1 ? Math.max(1, Math.ceil((1 - left) / this.#rate)) : 0;
  }
}
