/** Random numbers that a seed determines. */

export class Random {
  #state: number;

  constructor(seed: number) {
    // Seeds next to each other must not give sequences that are alike (splitmix32's finish).
    let mixed = (seed + 0x9e3779b9) | 0;
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    this.#state = (mixed ^ (mixed >>> 15)) | 1;
  }

  /** 0..2^32-1 (xorshift32). */
  next(): number {
    let state = this.#state;
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    this.#state = state;
    return state >>> 0;
  }

  /** A whole number 0..limit-1. */
  below(limit: number): number {
    return this.next() % limit;
  }

  /** True with a chance of `percent`. */
  chance(percent: number): boolean {
    return this.below(100) < percent;
  }

  pick<Item>(items: readonly Item[]): Item {
    const item = items[this.below(items.length)];
    if (item === undefined) throw new RangeError('nothing to pick from');
    return item;
  }
}
