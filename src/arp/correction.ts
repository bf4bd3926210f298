/** When to say again where an address is, after somebody else claimed it: at once and once more, but never too often. */
import { Recent } from './recent.ts';

export interface CorrectionLimits {
  /** Milliseconds between two corrections of one address. */
  gap: number;
  /** Milliseconds after a claim at which the correction is repeated: an entry that has just changed may be locked. */
  repeat: number;
  /** Most corrections a second, all addresses together. */
  rate: number;
}

export const DEFAULT_CORRECTION_LIMITS: CorrectionLimits = { gap: 200, repeat: 1100, rate: 50 };

interface Contested {
  corrected: number;
  /** When the repetition is due; Infinity: none is. */
  repeat: number;
}

export class Corrections {
  /** Corrections that were let out. */
  sent = 0;
  readonly #limits: CorrectionLimits;
  readonly #contested = new Recent<string, Contested>(1024);
  #second = Number.NEGATIVE_INFINITY;
  #inSecond = 0;

  constructor(limits: CorrectionLimits = DEFAULT_CORRECTION_LIMITS) {
    this.#limits = limits;
  }

  /** Somebody else claimed the address: true if it is to be corrected right now. */
  claimed(address: string, now: number): boolean {
    const known = this.#contested.get(address) ?? { corrected: Number.NEGATIVE_INFINITY, repeat: 0 };
    known.repeat = now + this.#limits.repeat;
    this.#contested.set(address, known);
    if (now - known.corrected < this.#limits.gap || !this.#mayGo(now)) return false;
    known.corrected = now;
    return true;
  }

  /** The addresses whose repetition is due. */
  due(now: number): string[] {
    const addresses: string[] = [];
    for (const [address, contested] of this.#contested.entries()) {
      if (contested.repeat > now || !this.#mayGo(now)) continue;
      contested.repeat = Number.POSITIVE_INFINITY;
      contested.corrected = now;
      addresses.push(address);
    }
    return addresses;
  }

  #mayGo(now: number): boolean {
    if (now - this.#second >= 1000 || now < this.#second) {
      this.#second = now;
      this.#inSecond = 0;
    }
    if (this.#inSecond >= this.#limits.rate) return false;
    this.#inSecond++;
    this.sent++;
    return true;
  }
}
