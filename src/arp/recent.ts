/** A map of bounded size that forgets what was not touched for longest. */
export class Recent<Key, Value> {
  readonly capacity: number;
  /** Entries that had to go for newer ones. */
  forgotten = 0;
  readonly #entries = new Map<Key, Value>();

  /** @param capacity most entries, at least 1 */
  constructor(capacity: number) {
    this.capacity = capacity;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** The value, which counts as touched. */
  get(key: Key): Value | undefined {
    const value = this.#entries.get(key);
    if (value === undefined) return undefined;
    this.#entries.delete(key);
    this.#entries.set(key, value);
    return value;
  }

  /** The value, which does not count as touched. */
  peek(key: Key): Value | undefined {
    return this.#entries.get(key);
  }

  set(key: Key, value: Value): void {
    this.#entries.delete(key);
    if (this.#entries.size >= this.capacity) {
      for (const oldest of this.#entries.keys()) {
        this.#entries.delete(oldest);
        this.forgotten++;
        break;
      }
    }
    this.#entries.set(key, value);
  }

  delete(key: Key): boolean {
    return this.#entries.delete(key);
  }

  /** Least recently touched first. */
  entries(): IterableIterator<[Key, Value]> {
    return this.#entries.entries();
  }
}
