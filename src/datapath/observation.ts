/**
 * What a capture is shown of a director: frames as they came to it and as they left, which the kernel's own taps do not
 * see where XDP takes them, each with what was decided about it.
 */
import { Filter } from '../capture/filter.ts';
import type { CapturedFrame } from '../capture/frame.ts';

export interface ObservationOptions {
  /** In the language of pcap-filter(7); a frame is shown if it passes as it came or as it left. Empty: every frame. */
  filter: string;
  /** Interfaces by which the frames come in; undefined: all. */
  interfaces?: readonly string[];
  /** Most frames a second that are shown, of each CPU and of the director; those over it are counted only. */
  limit: number;
  /** Most frames a second that are looked at on each CPU. */
  looks: number;
  /** Most bytes of a frame, 1..262144. */
  snapshotLength: number;
}

export interface ObservationLosses {
  /** Frames that passed the filter and could not be kept. */
  overflow: number;
  /** Frames that nobody looked at, because the limit was reached. */
  overLimit: number;
}

/** One that looks on. What it is shown says which interface each frame was seen on, and carries a remark. */
export interface Observation {
  losses(): ObservationLosses;
  close(): void;
}

/** Nanoseconds between CLOCK_MONOTONIC and the time since 1970, to a few microseconds. */
export function realTimeOffset(): bigint {
  const before = Date.now();
  while (Date.now() === before);
  return BigInt(Date.now()) * 1_000_000n - process.hrtime.bigint();
}

/** Parts of a second that a limit is counted in. */
const WINDOWS = 10;

/** How many frames a second may still be looked at. */
export class Pace {
  /** Frames that were over the limit. */
  refused = 0;
  readonly #each: number;
  #window = -1;
  #taken = 0;

  /** @param limit frames a second */
  constructor(limit: number) {
    this.#each = Math.max(1, Math.ceil(limit / WINDOWS));
  }

  /** True if there is room for one more. @param now nanoseconds */
  allows(now: bigint): boolean {
    const window = Number(now / (1_000_000_000n / BigInt(WINDOWS)));
    if (window !== this.#window) {
      this.#window = window;
      this.#taken = 0;
    }
    if (this.#taken < this.#each) return true;
    this.refused++;
    return false;
  }

  take(): void {
    this.#taken++;
  }
}

/** Gathers the frames that belong to one arrival: it, and what left because of it. */
export class Arrivals {
  readonly #filter: Filter;
  readonly #pace: Pace;
  readonly #snapshotLength: number;
  readonly #show: (frame: CapturedFrame) => void;
  readonly #offset: bigint;
  #frames: CapturedFrame[] = [];
  #number = 0;
  #isOpen = false;

  /** @param show gets the frames that pass */
  constructor(options: ObservationOptions, offset: bigint, show: (frame: CapturedFrame) => void) {
    this.#filter = new Filter(options.filter);
    this.#pace = new Pace(options.limit);
    this.#snapshotLength = options.snapshotLength;
    this.#offset = offset;
    this.#show = show;
  }

  get refused(): number {
    return this.#pace.refused;
  }

  /**
   * A frame came; true if it is looked at.
   * @param decision what will become of it; only asked for if the frame is looked at
   */
  begin(bytes: Uint8Array, from: string, decision: () => string): boolean {
    const now = process.hrtime.bigint();
    this.#isOpen = this.#pace.allows(now);
    if (!this.#isOpen) return false;
    this.#number++;
    this.#frames = [this.#frame(now, bytes, from, `in ${this.#number}, by the director: ${decision()}`)];
    return true;
  }

  /** A frame left, because of the one that came or for reasons of its own. */
  sent(bytes: Uint8Array, to: string): void {
    const now = process.hrtime.bigint();
    if (this.#isOpen) {
      this.#frames.push(this.#frame(now, bytes, to, `out ${this.#number}, by the director`));
    } else if (this.#filter.matches(bytes) && this.#pace.allows(now)) {
      this.#pace.take();
      this.#show(this.#frame(now, bytes, to, 'by the director'));
    }
  }

  /** All that the frame led to has happened. @param outcome what became of it */
  end(outcome: () => string): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    const came = this.#frames[0] as CapturedFrame;
    came.comment = `${came.comment}\n  outcome: ${outcome()}`;
    if (this.#frames.some(frame => this.#filter.matches(frame.bytes, frame.length))) {
      this.#pace.take();
      for (const frame of this.#frames) this.#show(frame);
    }
    this.#frames = [];
  }

  #frame(now: bigint, bytes: Uint8Array, interfaceName: string, remark: string): CapturedFrame {
    return {
      time: now + this.#offset,
      bytes: bytes.slice(0, this.#snapshotLength),
      length: bytes.length,
      interface: interfaceName,
      comment: `dirigo: ${remark}`,
    };
  }
}
