/**
 * Timers that fire when the kernel's do. Linux keeps timers in a wheel whose slots get coarser the farther away they
 * are (kernel/time/timer.c): a timer fires at the end of the slot it falls into, up to an eighth of its length late,
 * and its connection is there until then, shown with no time left.
 */
import { ConnectionTable, type ConnectionTableOptions } from '../ipvs/connections.ts';

/** CONFIG_HZ of the kernel that was recorded: jiffies a second. */
export const KERNEL_HZ = 250;

const LEVELS = 9;
/** Slots of a level, and how many times coarser each level is than the one before, as powers of two. */
const SLOTS = 64;
const LEVEL_SHIFT = 3;

/**
 * The jiffy at which a timer for `expires` fires, if it is set at `now` (calc_wheel_index).
 * @param now and expires: jiffies, `expires` not before `now`
 */
export function firesAt(expires: number, now: number): number {
  const distance = expires - now;
  let level = 0;
  // LVL_START: from this distance on, a level is too short.
  while (level < LEVELS - 1 && distance >= (SLOTS - 1) * 2 ** (LEVEL_SHIFT * level)) level++;
  const granularity = 2 ** (LEVEL_SHIFT * level);
  return (Math.floor(expires / granularity) + 1) * granularity;
}

/** A connection table whose connections end when those of the kernel end. Its ticks are jiffies. */
export class KernelTimedTable extends ConnectionTable {
  /** What `setExpires` was given, by slot: the time that listings count down to. */
  readonly #nominal: Int32Array;
  readonly #phase: number;
  /** What stands in the records, by slot: another time there was written by somebody else. */
  readonly #written: Int32Array;
  #now = 0;

  /** @param phase jiffies on the kernel's clock when ours began */
  constructor(options: Omit<ConnectionTableOptions, 'hz'>, phase: number) {
    super({ ...options, hz: KERNEL_HZ });
    this.#nominal = new Int32Array(options.capacity);
    this.#written = new Int32Array(options.capacity);
    this.#phase = phase;
  }

  /** Treats the timers that an accelerator restarted on the same records as if they had been restarted here. */
  followAccelerator(): void {
    for (let slot = 0; slot < this.highWater; slot++) {
      if (!this.isUsed(slot)) continue;
      const tick = super.expires(slot);
      if (tick !== this.#written[slot]) this.setExpires(slot, tick);
    }
  }

  override tick(now: number): number {
    this.#now = super.tick(now);
    return this.#now;
  }

  override setExpires(slot: number, tick: number): void {
    this.#nominal[slot] = tick;
    const end = firesAt(tick + this.#phase, this.#now + this.#phase) - this.#phase;
    this.#written[slot] = end;
    super.setExpires(slot, end);
  }

  override expires(slot: number): number {
    return this.#nominal[slot] as number;
  }
}
