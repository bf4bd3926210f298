/** Notices who does something more often than so many times a second. */
import { Recent } from './recent.ts';

interface Window {
  start: number;
  count: number;
}

export class RateWatch {
  readonly #rate: number;
  readonly #windows: Recent<string, Window>;

  /**
   * @param rate times a second that are still in order
   * @param capacity most names remembered
   */
  constructor(rate: number, capacity: number) {
    this.#rate = rate;
    this.#windows = new Recent(capacity);
  }

  get size(): number {
    return this.#windows.size;
  }

  /** Counts one for `name`; true for each that is over the limit in its second. */
  count(name: string, now: number): boolean {
    const window = this.#windows.get(name);
    if (!window || now - window.start >= 1000 || now < window.start) {
      this.#windows.set(name, { start: now, count: 1 });
      return this.#rate < 1;
    }
    return ++window.count > this.#rate;
  }
}
