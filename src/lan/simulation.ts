/**
 * Virtual time: a queue of events, run in the order of their times, and in the order in which they were scheduled when
 * the times are the same. Nothing here waits for a real clock.
 */
import { Random } from './random.ts';

/** An event that has been scheduled; `cancel` takes it back. */
export interface Timer {
  /** When it is due, ms. */
  readonly time: number;
  cancel(): void;
}

export interface TimerOptions {
  /** True for housekeeping that goes on forever and must not keep `runUntilIdle` and `settle` going. */
  background?: boolean;
}

export interface SimulationOptions {
  /** Seed of everything that is left to chance; default 1. */
  seed?: number;
  /** The date and time at which virtual time 0 lies, ms since 1970 (for log files); default 2026-01-01 UTC. */
  epoch?: number;
}

class Event implements Timer {
  readonly time: number;
  readonly order: number;
  readonly background: boolean;
  action: (() => void) | undefined;
  #simulation: Simulation;

  constructor(simulation: Simulation, time: number, order: number, background: boolean, action: () => void) {
    this.#simulation = simulation;
    this.time = time;
    this.order = order;
    this.background = background;
    this.action = action;
  }

  cancel(): void {
    if (!this.action) return;
    this.action = undefined;
    if (!this.background) this.#simulation.forget();
  }

  isBefore(other: Event): boolean {
    return this.time < other.time || (this.time === other.time && this.order < other.order);
  }
}

/** Longest that `settle` and `runUntilIdle` let virtual time run, ms. */
const PATIENCE = 24 * 3_600_000;

export class Simulation {
  readonly random: Random;
  readonly epoch: number;
  /** What the running event carries, for code further down that has to know (a segment's frame in delivery). */
  cause: object | undefined;
  #now = 0;
  #order = 0;
  #heap: Event[] = [];
  #foreground = 0;
  #settling = false;

  constructor(options: SimulationOptions = {}) {
    this.random = new Random(options.seed ?? 1);
    this.epoch = options.epoch ?? Date.UTC(2026, 0, 1);
  }

  /** Virtual time, ms, with fractions. */
  get now(): number {
    return this.#now;
  }

  /** The virtual date. */
  get date(): Date {
    return new Date(this.epoch + this.#now);
  }

  /** Schedules an action at a time; a time that has passed means now. */
  at(time: number, action: () => void, options: TimerOptions = {}): Timer {
    const background = options.background ?? false;
    const event = new Event(this, Math.max(time, this.#now), this.#order++, background, action);
    if (!background) this.#foreground++;
    this.#push(event);
    return event;
  }

  /** Schedules an action in `delay` ms. */
  after(delay: number, action: () => void, options: TimerOptions = {}): Timer {
    return this.at(this.#now + delay, action, options);
  }

  /** Repeats an action each `interval` ms from now, in the background. Returns what ends it. */
  every(interval: number, action: () => void): () => void {
    let timer: Timer;
    const arm = (): void => {
      timer = this.after(
        interval,
        () => {
          arm();
          action();
        },
        { background: true },
      );
    };
    arm();
    return () => timer.cancel();
  }

  /** A promise that resolves in `duration` ms of virtual time. */
  sleep(duration: number): Promise<void> {
    return new Promise(resolve => {
      this.after(duration, resolve);
    });
  }

  /** Runs everything that is due up to `until`, ms, and leaves the time there. */
  run(until: number): void {
    for (;;) {
      const next = this.#peek();
      if (!next || next.time > until) break;
      this.#step();
    }
    this.#now = Math.max(this.#now, until);
  }

  /** Runs for `duration` ms. */
  advance(duration: number): void {
    this.run(this.#now + duration);
  }

  /**
   * Runs until nothing but background events is left.
   * @throws Error if that does not happen within 24 hours of virtual time
   */
  runUntilIdle(): void {
    const deadline = this.#now + PATIENCE;
    while (this.#foreground > 0) {
      this.#step();
      if (this.#now > deadline) throw new Error(`the LAN is still busy after ${PATIENCE / 3_600_000} h`);
    }
  }

  /**
   * Runs until the promise is settled, and gives its value. Whoever awaits something inside the LAN continues before
   * the next event happens, so a script sees the LAN as it was when its answer came:
   *
   *     const page = await simulation.settle(client.fetch('http://10.0.0.3/'));
   *
   * A whole script may be settled at once; inside it, plain `await` is enough. The promise must depend on the LAN only:
   * time does not wait for files or sockets of the real world.
   *
   * @throws Error if nothing is left to happen that could settle it; whatever the promise is rejected with
   */
  async settle<T>(promise: Promise<T>): Promise<T> {
    // The outer settle already moves the time.
    if (this.#settling) return promise;
    this.#settling = true;
    const turn = new Turn();
    const deadline = this.#now + PATIENCE;
    let done = false;
    const finished = (): void => {
      done = true;
    };
    promise.then(finished, finished);
    try {
      for (;;) {
        await turn.pass();
        if (done) return await promise;
        if (this.#foreground === 0)
          throw new Error(`nothing is left to happen at ${this.#now} ms, but the promise is still pending`);
        if (this.#now > deadline)
          throw new Error(`the promise is still pending after ${PATIENCE / 3_600_000} h of virtual time`);
        this.#step();
      }
    } finally {
      turn.end();
      this.#settling = false;
    }
  }

  /** An event that kept the simulation busy was cancelled. */
  forget(): void {
    this.#foreground--;
  }

  #step(): void {
    const event = this.#pop();
    if (!event?.action) return;
    const action = event.action;
    event.action = undefined;
    if (!event.background) this.#foreground--;
    this.#now = event.time;
    this.cause = undefined;
    action();
    this.cause = undefined;
  }

  /** The next event that was not cancelled. */
  #peek(): Event | undefined {
    while (this.#heap[0] && !this.#heap[0].action) this.#pop();
    return this.#heap[0];
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let index = heap.length;
    heap.push(event);
    while (index > 0) {
      const above = (index - 1) >>> 1;
      const parent = heap[above] as Event;
      if (!event.isBefore(parent)) break;
      heap[index] = parent;
      index = above;
    }
    heap[index] = event;
  }

  #pop(): Event | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (!first || !last || heap.length === 0) return first;
    let index = 0;
    for (;;) {
      let below = 2 * index + 1;
      const left = heap[below];
      if (!left) break;
      const right = heap[below + 1];
      if (right?.isBefore(left)) below++;
      const child = heap[below] as Event;
      if (!child.isBefore(last)) break;
      heap[index] = child;
      index = below;
    }
    heap[index] = last;
    return first;
  }
}

/**
 * Lets every promise reaction that is ready run, however long the chain: a turn of the event loop through a message
 * channel, which browsers and Node both have.
 */
class Turn {
  #channel = new MessageChannel();
  #next: (() => void) | undefined;

  constructor() {
    this.#channel.port1.onmessage = () => this.#next?.();
  }

  pass(): Promise<void> {
    return new Promise(resolve => {
      this.#next = resolve;
      this.#channel.port2.postMessage(0);
    });
  }

  end(): void {
    this.#channel.port1.close();
  }
}
