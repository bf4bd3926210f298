/**
 * The kernel's ticks (jiffies) as seen from user space. The XDP program stamps connections with them because reading
 * them costs nothing; here they are derived from the monotonic clock, after one look at both at the same moment.
 */

/** What ticks and the monotonic clock (nanoseconds) were at one moment. */
export interface ClockReading {
  ticks: bigint;
  nanoseconds: bigint;
}

/** Values of CONFIG_HZ. */
const FREQUENCIES = [100, 250, 300, 1000];

/** How far a measurement may lie from the frequency it is taken for; the closest two are a fifth apart. */
const TOLERANCE = 0.08;

/**
 * Measures the kernel's tick frequency (CONFIG_HZ), which it tells nobody: from one edge of the tick count to another,
 * about 50 ms apart.
 * @throws Error if the clock is so disturbed that no attempt comes near a known frequency
 */
export function measureFrequency(read: () => ClockReading): number {
  for (let attempt = 0; attempt < 5; attempt++) {
    const first = nextEdge(read, 1n);
    const last = nextEdge(read, 5n);
    const hz = Number(last.ticks - first.ticks) / (Number(last.nanoseconds - first.nanoseconds) / 1e9);
    const found = FREQUENCIES.find(frequency => Math.abs(hz / frequency - 1) < TOLERANCE);
    if (found) return found;
  }
  throw new Error("the kernel's tick frequency cannot be measured: its clock is too disturbed; try again");
}

/** The first reading at least `ticks` ticks from now. */
function nextEdge(read: () => ClockReading, ticks: bigint): ClockReading {
  const start = read();
  for (;;) {
    const reading = read();
    if (reading.ticks - start.ticks >= ticks) return reading;
  }
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
