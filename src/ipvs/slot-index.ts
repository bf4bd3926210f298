/**
 * The index of the connection table: an array of buckets of eight 32-bit entries (32 bytes), each the slot + 1 in the low
 * 24 bits, eight bits of the hash above, 0 for none. Every connection may stand in either of two buckets, in each of them
 * at a place of its own or behind it (around the end), so that lookups mostly find it at once.
 *
 * Entries are written by exchanging 0, by the director and by the XDP program (`bpf/insert.h`). The lookup itself stands in
 * `connections.ts`, because it compares records on its way.
 */
export const BUCKET_ENTRIES = 8;
export const BUCKET_BYTES = BUCKET_ENTRIES * 4;
export const PLACE_MASK = BUCKET_ENTRIES - 1;
/** The slot + 1 in an entry. */
export const SLOT_BITS = 0xffffff;
/** Entries in a bucket from which on the other one is preferred, if it has fewer than these. */
const BUCKET_FULLISH = 6;
/** Times that a place in a bucket is looked for while others take them. */
const INSERT_ATTEMPTS = 8;

/** Buckets for a capacity: half full at most, a power of two. */
export function bucketCount(capacity: number): number {
  return Math.max(2, 2 ** Math.ceil(Math.log2((capacity * 2) / BUCKET_ENTRIES)));
}

/**
 * What an index takes the second bucket (from bit 3 on), the tag (the top eight bits) and the place in either bucket that
 * is looked at first (the low three) from: an entry stands there, or soon behind it where that was taken. The upper half is folded
 * in first: keys that share their first bucket have the low bits of the hash in common and must differ in this.
 */
export function secondHash(hash: number): number {
  return Math.imul(hash ^ (hash >>> 16), 0x9e3779b1);
}

/** A hash index of slots: two possible buckets of eight entries each. */
export class SlotIndex {
  readonly entries: Int32Array;
  readonly mask: number;
  readonly #hashOf: (slot: number) => number;

  constructor(buffer: ArrayBufferLike, hashOf: (slot: number) => number) {
    this.entries = new Int32Array(buffer);
    this.mask = this.entries.length / BUCKET_ENTRIES - 1;
    this.#hashOf = hashOf;
    if (this.mask & (this.mask + 1))
      throw new RangeError('connection index: the buckets are not a power of two');
  }

  #firstBucket(hash: number): number {
    return (hash & this.mask) << 3;
  }

  #secondBucket(hash: number): number {
    return ((secondHash(hash) >>> 3) & this.mask) << 3;
  }

  /** What stands in the two buckets of a hash. */
  entriesOf(hash: number): number[] {
    const [first, second] = [this.#firstBucket(hash), this.#secondBucket(hash)];
    return [first, second].flatMap(bucket => [...this.entries.subarray(bucket, bucket + BUCKET_ENTRIES)]);
  }

  /** The first free place of the bucket from the hash's own on, or -1. */
  #hole(bucket: number, second: number): number {
    for (let step = 0; step < BUCKET_ENTRIES; step++) {
      const at = bucket + ((second + step) & PLACE_MASK);
      if (this.entries[at] === 0) return at;
    }
    return -1;
  }

  /** How many entries the bucket has. */
  #fill(bucket: number): number {
    let fill = 0;
    for (let at = bucket; at < bucket + BUCKET_ENTRIES; at++) if (this.entries[at] !== 0) fill++;
    return fill;
  }

  insert(hash: number, slot: number): boolean {
    const place = secondHash(hash);
    const entry = (place & 0xff000000) | (slot + 1);
    const first = this.#firstBucket(hash);
    const second = this.#secondBucket(hash);
    for (let attempt = 0; attempt < INSERT_ATTEMPTS; attempt++) {
      // The first bucket is the one a lookup reads first; the second takes over only when it gets full.
      const isSpared = this.#fill(first) >= BUCKET_FULLISH && this.#fill(second) < BUCKET_FULLISH;
      let at = this.#hole(isSpared ? second : first, place);
      if (at < 0) at = this.#hole(isSpared ? first : second, place);
      if (at >= 0) {
        if (Atomics.compareExchange(this.entries, at, 0, entry) === 0) return true;
        continue;
      }
      if (this.#displace(first, entry) || this.#displace(second, entry)) return true;
    }
    return false;
  }

  /** Moves one entry of a full bucket to its other bucket and puts this one in the place it left. */
  #displace(bucket: number, entry: number): boolean {
    for (let at = bucket; at < bucket + BUCKET_ENTRIES; at++) {
      const moved = this.entries[at] as number;
      if (moved === 0) continue;
      const hash = this.#hashOf((moved & SLOT_BITS) - 1);
      const first = this.#firstBucket(hash);
      const other = first === bucket ? this.#secondBucket(hash) : first;
      const hole = this.#hole(other, secondHash(hash));
      if (hole < 0 || Atomics.compareExchange(this.entries, hole, 0, moved) !== 0) continue;
      if (Atomics.compareExchange(this.entries, at, moved, entry) === moved) return true;
      // It was ended meanwhile.
      Atomics.compareExchange(this.entries, hole, moved, 0);
    }
    return false;
  }

  remove(hash: number, slot: number): void {
    if (!this.#removeFrom(this.#firstBucket(hash), slot)) this.#removeFrom(this.#secondBucket(hash), slot);
  }

  #removeFrom(bucket: number, slot: number): boolean {
    for (let at = bucket; at < bucket + BUCKET_ENTRIES; at++) {
      const entry = this.entries[at] as number;
      if ((entry & SLOT_BITS) === slot + 1 && Atomics.compareExchange(this.entries, at, entry, 0) === entry) {
        return true;
      }
    }
    return false;
  }
}
