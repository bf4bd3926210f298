/** Puts frames of several sources, each in order, into the order of their times. */
import type { CapturedFrame } from './frame.ts';

export class FrameOrder {
  readonly #patience: bigint;
  readonly #waiting: CapturedFrame[] = [];

  /** @param patience nanoseconds by which a frame may come late */
  constructor(patience: bigint) {
    this.#patience = patience;
  }

  push(frame: CapturedFrame): void {
    // Nearly always it is the newest.
    let at = this.#waiting.length;
    while (at > 0 && (this.#waiting[at - 1] as CapturedFrame).time > frame.time) at--;
    this.#waiting.splice(at, 0, frame);
  }

  /** The frames, oldest first, that nothing older can come before any more. @param now as the frames' times */
  take(now: bigint): CapturedFrame[] {
    const limit = now - this.#patience;
    const end = this.#waiting.findIndex(({ time }) => time > limit);
    return this.#waiting.splice(0, end < 0 ? this.#waiting.length : end);
  }

  /** All that is left. */
  takeAll(): CapturedFrame[] {
    return this.#waiting.splice(0);
  }
}
