/**
 * The kernel's ticks (jiffies) as seen from user space. The XDP program stamps connections with them because reading
 * them costs nothing; here they are derived from the monotonic clock, after one look at both at the same moment.
 */

/** What ticks and the monotonic clock (nanoseconds) were at one moment. */
export interface ClockReading {
  ticks: bigint;
  nanoseconds: bigint;
}

export class KernelClock {
  readonly hz: number;
  readonly #read: () => ClockReading;
  /** Milliseconds of the tick clock less `performance.now()`, which counts the monotonic clock from the process's start. */
  #offset = 0;

  constructor(hz: number, read: () => ClockReading) {
    this.hz = hz;
    this.#read = read;
    this.calibrate();
  }

  /** Looks at both clocks again: the kernel may have lost ticks while a virtual machine stood still. */
  calibrate(): void {
    const { ticks, nanoseconds } = this.#read();
    const start = Number(process.hrtime.bigint()) / 1e6 - performance.now();
    this.#offset = (Number(ticks) * 1000) / this.hz - Number(nanoseconds) / 1e6 + start;
  }

  /** Milliseconds in which `floor(now × hz / 1000)` is the kernel's tick count, give or take one. */
  now(): number {
    return performance.now() + this.#offset;
  }
}
