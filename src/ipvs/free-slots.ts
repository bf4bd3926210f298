/**
 * Which slots of the connection table are free: taken and given back by the director and by the XDP program on every CPU
 * at the same time (`bpf/insert.h`).
 */
import { SLOT_BITS } from './slot-index.ts';

/** 32-bit words of a record. */
const WORDS = 16;
/** The word of a record that links free ones: `expires` of those in use. */
const LINK = 1;

/** The low byte of a record's first word. */
export const Tag = { free: 0, used: 1, busy: 2, mask: 0xff } as const;

/**
 * Which slots are free, and the locks, in words (`struct table_state` in bpf/layout.h). The slots are in two regions:
 * those that have an extension, then those that have none. In each, slots from `first` on were never used; freed ones
 * stand in stacks, linked by the word of `expires`: a head has the slot + 1 in its low 24 bits and above them a count that
 * every change raises.
 */
export const TableState = {
  size: 0,
  cookieSecret: 1,
  region: 16,
  regionWords: 144,
  first: 0,
  end: 1,
  stack: 16,
  stackWords: 16,
  locks: 304,
} as const;
const STACKS = 8;
export const LOCKS = 1024;
export const TABLE_STATE_BYTES = (TableState.locks + LOCKS) * 4;
const HEAD_COUNT = 0x1000000;

export class FreeSlots {
  readonly #state: Int32Array;
  /** The records. */
  readonly #words: Int32Array;
  readonly #capacity: number;
  /** Slots that have an extension: the first ones. */
  readonly #extended: number;
  #nextStack = 0;

  /**
   * Finds out what a predecessor left in the memory.
   * @param state words of `TableState`
   * @param words the records
   */
  constructor(
    state: Int32Array,
    words: Int32Array,
    { capacity, extended }: { capacity: number; extended: number },
  ) {
    this.#state = state;
    this.#words = words;
    this.#capacity = capacity;
    this.#extended = extended;
    const second = TableState.region + TableState.regionWords;
    if (state[second + TableState.end] === capacity) return;
    let end = extended;
    for (const region of [TableState.region, second]) {
      const begin = region === second ? extended : 0;
      let first = begin;
      for (let slot = begin; slot < end; slot++) {
        if ((words[slot * WORDS] as number) === Tag.free) continue;
        Atomics.add(state, TableState.size, 1);
        for (let hole = first; hole < slot; hole++) this.give(hole);
        first = slot + 1;
      }
      state[region + TableState.first] = first;
      state[region + TableState.end] = end;
      end = capacity;
    }
  }

  /** No record at or behind this slot was ever in use. */
  get highWater(): number {
    const second = TableState.region + TableState.regionWords;
    const last = Math.min(this.#state[second + TableState.first] as number, this.#capacity);
    return last > this.#extended ? last : Math.min(this.#state[TableState.region] as number, this.#extended);
  }

  /** Puts a free slot into a stack. */
  give(slot: number): void {
    const state = this.#state;
    const region = slot < this.#extended ? TableState.region : TableState.region + TableState.regionWords;
    // One stack after the other: every CPU is to find some.
    this.#nextStack = (this.#nextStack + 1) % STACKS;
    const at = region + TableState.stack + this.#nextStack * TableState.stackWords;
    for (;;) {
      const head = Atomics.load(state, at);
      this.#words[slot * WORDS + LINK] = head & SLOT_BITS;
      Atomics.store(this.#words, slot * WORDS, Tag.free);
      const next = ((head & ~SLOT_BITS) + HEAD_COUNT) | (slot + 1) | 0;
      if (Atomics.compareExchange(state, at, head, next) === head) return;
    }
  }

  /**
   * Takes a slot, which is busy then; -1 if there is none.
   * @param extended one that has an extension; others are taken without as long as there are some
   */
  take(extended: boolean): number {
    const slot = extended ? -1 : this.#take(TableState.region + TableState.regionWords);
    return slot < 0 ? this.#take(TableState.region) : slot;
  }

  /** Takes a slot out of a stack, or one that was never used; -1 if the region has none. */
  #take(region: number): number {
    const state = this.#state;
    const words = this.#words;
    for (let stack = 0; stack < STACKS; stack++) {
      const at = region + TableState.stack + stack * TableState.stackWords;
      for (;;) {
        const head = Atomics.load(state, at);
        const slot = (head & SLOT_BITS) - 1;
        if (slot < 0) break;
        const next = (words[slot * WORDS + LINK] as number) & SLOT_BITS;
        const rest = ((head & ~SLOT_BITS) + HEAD_COUNT) | next | 0;
        if (Atomics.compareExchange(state, at, head, rest) !== head) continue;
        if (Atomics.compareExchange(words, slot * WORDS, Tag.free, Tag.busy) === Tag.free) return slot;
      }
    }
    while (Atomics.load(state, region + TableState.first) < (state[region + TableState.end] as number)) {
      const slot = Atomics.add(state, region + TableState.first, 1);
      if (slot >= (state[region + TableState.end] as number)) break;
      if (Atomics.compareExchange(words, slot * WORDS, Tag.free, Tag.busy) === Tag.free) return slot;
    }
    return -1;
  }
}
