/** Frames as they pass: those that the kernel's taps see, and those of a director on this host, in the order of time. */

import { setTimeout } from 'node:timers/promises';
import type { CapturedFrame } from '../capture/frame.ts';
import { FrameOrder } from '../capture/frame-order.ts';
import { type DirectorFrames, openDirectorFrames } from '../control/director-frames.ts';
import { socketPath } from '../control/socket-path.ts';
import { LiveCapture } from '../datapath/ffi/libpcap.ts';

export interface LiveFramesOptions {
  interfaces: readonly string[];
  filter: string;
  snapshotLength: number;
  promiscuous: boolean;
  /** Ask the director, too, if one runs here. */
  director: boolean;
  /** Most frames a second of the director and of each CPU's XDP program: shown, and looked at. */
  sample: number;
  looks: number;
}

/** Nanoseconds that a frame of one source may come later than one of another. */
const PATIENCE = 100_000_000n;
/** Milliseconds between two looks at what has waited long enough. */
const INTERVAL = 50;

export class LiveFrames {
  readonly #captures: LiveCapture[];
  readonly #director: DirectorFrames | undefined;
  readonly #order: FrameOrder | undefined;
  #arrived: CapturedFrame[] = [];
  #wake: (() => void) | undefined;
  #stopped = false;
  #problem: string | undefined;

  private constructor(captures: LiveCapture[], director: DirectorFrames | undefined, early: CapturedFrame[]) {
    this.#captures = captures;
    this.#director = director;
    this.#arrived = early;
    this.#order = captures.length > 1 || director ? new FrameOrder(PATIENCE) : undefined;
  }

  /** @throws Error in plain words: an interface or the filter is wrong, or this is not root */
  static async open(options: LiveFramesOptions): Promise<LiveFrames> {
    const { filter, snapshotLength, promiscuous } = options;
    const captures: LiveCapture[] = [];
    try {
      for (const name of options.interfaces)
        captures.push(new LiveCapture({ name, filter, snapshotLength, promiscuous }));
      let live: LiveFrames | undefined;
      const early: CapturedFrame[] = [];
      const show = (frame: CapturedFrame): void => {
        if (live) live.#take(frame);
        else early.push(frame);
      };
      const director = options.director ? await askDirector(options, show) : undefined;
      live = new LiveFrames(captures, director, early);
      return live;
    } catch (error) {
      for (const capture of captures) capture.close();
      throw error;
    }
  }

  #take(frame: CapturedFrame): void {
    if (this.#order) this.#order.push(frame);
    else this.#arrived.push(frame);
    this.#wake?.();
  }

  /**
   * Hands over frames until `stop`, until the handler answers false, or until there are no more.
   * @returns why there are no more, undefined if that was wanted
   */
  async run(handler: (frames: readonly CapturedFrame[]) => boolean): Promise<string | undefined> {
    for (const capture of this.#captures) {
      capture.start(
        (time, bytes, length) => this.#take({ time, bytes, length, interface: capture.name }),
        problem => {
          if (problem !== undefined) this.#end(`${capture.name}: ${problem}`);
          this.#wake?.();
        },
      );
    }
    void this.#director?.ended.then(reason => {
      if (reason !== undefined) this.#end(reason);
    });
    for (const frame of this.#arrived.splice(0)) this.#take(frame);
    while (!this.#stopped) {
      if (!this.#hand(handler, this.#ready())) break;
      await this.#waitForMore();
    }
    if (this.#stopped) {
      // What came before the end, and has not been read yet.
      for (const capture of this.#captures)
        capture.drain((time, bytes, length) => this.#take({ time, bytes, length, interface: capture.name }));
      this.#hand(handler, [...this.#arrived.splice(0), ...(this.#order?.takeAll() ?? [])]);
    }
    return this.#problem;
  }

  #ready(): CapturedFrame[] {
    if (!this.#order) return this.#arrived.splice(0);
    return this.#order.take(BigInt(Date.now()) * 1_000_000n);
  }

  #hand(handler: (frames: readonly CapturedFrame[]) => boolean, frames: CapturedFrame[]): boolean {
    return frames.length === 0 || handler(frames);
  }

  #waitForMore(): Promise<void> {
    // With several sources, time has to pass before it is known which frame is the next.
    if (this.#order) return setTimeout(INTERVAL);
    if (this.#arrived.length > 0 || this.#stopped) return Promise.resolve();
    return new Promise(resolve => {
      this.#wake = resolve;
    });
  }

  #end(problem: string): void {
    this.#problem ??= problem;
    this.stop();
  }

  stop(): void {
    this.#stopped = true;
    this.#wake?.();
  }

  /** What was lost, in words. */
  lossTexts(): string[] {
    const texts = this.#captures.flatMap(capture =>
      capture.dropped > 0 ? [`${capture.dropped} packets dropped from ${capture.name}`] : [],
    );
    const unseen = this.#director?.dropped ?? 0;
    if (unseen > 0)
      texts.push(
        `${unseen} packets of the director and its XDP program were not shown: see --sample and --looks`,
      );
    return texts;
  }

  close(): void {
    this.#director?.close();
    for (const capture of this.#captures) capture.close();
  }
}

/** Frames of the daemon that listens where `dirigo` looks for one; undefined if there is none. */
async function askDirector(
  { interfaces, filter, sample, looks, snapshotLength }: LiveFramesOptions,
  show: (frame: CapturedFrame) => void,
): Promise<DirectorFrames | undefined> {
  try {
    return await openDirectorFrames(
      { socket: socketPath(), filter, interfaces, limit: sample, looks, snapshotLength },
      show,
    );
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ECONNREFUSED') return undefined;
    process.stderr.write(`dirigo: without what the director sees: ${message}\n`);
    return undefined;
  }
}
