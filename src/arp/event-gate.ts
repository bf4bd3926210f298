/** Lets events through: each sort once in a while, and never more than a few a second, whatever an attacker does. */
import { Recent } from './recent.ts';

export interface EventGateLimits {
  /** Milliseconds for which the same event is held back. */
  quietTime: number;
  /** Most events a second of each of three sorts: privileged, ordinary, and news. */
  eventRate: number;
  capacity: number;
}

interface Quiet {
  until: number;
  heldBack: number;
}

export class EventGate {
  /** Events that were not let through. */
  heldBack = 0;
  readonly #limits: EventGateLimits;
  readonly #quiet: Recent<string, Quiet>;
  readonly #budgets = { privileged: new Budget(), ordinary: new Budget(), news: new Budget() };

  constructor(limits: EventGateLimits) {
    this.#limits = limits;
    this.#quiet = new Recent(limits.capacity);
  }

  get size(): number {
    return this.#quiet.size;
  }

  /**
   * @param identity the same for events that say the same
   * @param isNews a statement of fact that is as new the second time: not held back as a repeat
   * @returns 0: held back; else how many events of this identity it stands for
   */
  admit(identity: string, isPrivileged: boolean, isNews: boolean, now: number): number {
    const quiet = this.#quiet.get(identity);
    if (quiet && !isNews && now < quiet.until) {
      quiet.heldBack++;
      this.heldBack++;
      return 0;
    }
    const budget = this.#budgets[isNews ? 'news' : isPrivileged ? 'privileged' : 'ordinary'];
    if (!budget.take(this.#limits.eventRate, now)) {
      this.heldBack++;
      return 0;
    }
    this.#quiet.set(identity, { until: now + this.#limits.quietTime, heldBack: 0 });
    return 1 + (quiet?.heldBack ?? 0);
  }
}

/** Events in a window of one second. */
class Budget {
  #window = Number.NEGATIVE_INFINITY;
  #used = 0;

  take(rate: number, now: number): boolean {
    if (now - this.#window >= 1000 || now < this.#window) {
      this.#window = now;
      this.#used = 0;
    }
    return this.#used++ < rate;
  }
}
