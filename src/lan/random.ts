/** Chance that repeats: a seeded generator (mulberry32). Good for jitter and sequence numbers, not for secrets. */
export class Random {
  #state: number;

  /** @param seed any integer; the same seed gives the same numbers */
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** 0..2^32-1. */
  uint32(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  }

  /** A fraction in [0, 1). */
  fraction(): number {
    return this.uint32() / 0x1_0000_0000;
  }

  /** An integer in [0, bound). */
  below(bound: number): number {
    return Math.floor(this.fraction() * bound);
  }
}
