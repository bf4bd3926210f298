/**
 * Selection plans as the program executes them: words in memory that both share. A plan that is in use is never changed:
 * a new one is written beside it, the service is pointed to that, and the old place is used again later. Only the place
 * of a sequence moves, and that director and program move together.
 */
import type { DestinationTable } from '../../ipvs/destinations.ts';
import type { Plan, SequencePlan, SharedCursor } from '../../ipvs/plan.ts';
import { PLAN_BLOCK_BYTES, PlanKind } from './control.ts';

/** Places of a sequence at most; a service whose weights make it longer is scheduled by the director. */
const LONGEST_SEQUENCE = 4096;
/** Servers of a least-cost plan at most. */
const LONGEST_SCAN = 64;
/** Greatest weight that the program multiplies loads with. */
const GREATEST_WEIGHT = 1 << 22;
/** Milliseconds after which no CPU reads a plan any more that was replaced; a packet takes a millionth of it. */
const GRACE = 100;

const BLOCK_WORDS = PLAN_BLOCK_BYTES / 4;

const COST_KINDS = {
  lc: PlanKind.lc,
  wlc: PlanKind.wlc,
  sed: PlanKind.sed,
  nq: PlanKind.nq,
  fo: PlanKind.fo,
  ovf: PlanKind.ovf,
} as const;

/** A plan in the shared memory. */
export interface WrittenPlan {
  /** `PlanKind`. */
  kind: number;
  /** In words, and how many. */
  at: number;
  length: number;
  cursor: number;
  /** The client's port is hashed too. */
  withPort: boolean;
}

interface Place {
  plan: Plan;
  /** The weights, where the words follow from them. */
  weights: string;
  written: WrittenPlan;
  blocks: number;
}

interface Run {
  at: number;
  blocks: number;
}

export class Plans {
  readonly #words: Int32Array;
  readonly #cursors: BigUint64Array;
  readonly #destinations: DestinationTable;
  readonly #places = new Map<string, Place>();
  /** Free blocks, in order. */
  #free: Run[];
  #retired: (Run & { until: number })[] = [];
  readonly #freeCursors: number[] = [];
  #nextCursor = 0;
  /** Services whose plans found no room. */
  readonly #withoutRoom = new Set<string>();
  #nextMerge = 0;

  /**
   * @param memory the map `plans`
   * @param cursors the map `cursors`
   */
  constructor(memory: ArrayBuffer, cursors: ArrayBuffer, destinations: DestinationTable) {
    this.#words = new Int32Array(memory);
    this.#cursors = new BigUint64Array(cursors);
    this.#destinations = destinations;
    this.#free = [{ at: 0, blocks: this.#words.length / BLOCK_WORDS }];
  }

  /**
   * Brings a service's plan into the memory.
   * @param name of the service
   * @returns undefined if it is none that the program executes, or there is no room
   */
  write(name: string, plan: Plan | undefined): WrittenPlan | undefined {
    const known = this.#places.get(name);
    const weights = plan ? this.#weightsOf(plan) : '';
    if (known && known.plan === plan && known.weights === weights) return known.written;
    const kind = plan ? kindOf(plan) : 0;
    const words = plan && kind ? this.#wordsOf(plan) : undefined;
    if (!plan || !words) {
      this.forget(name);
      return undefined;
    }
    const blocks = Math.ceil(words.length / BLOCK_WORDS);
    const at = this.#allocate(blocks);
    const cursor = known?.written.cursor ?? this.#takeCursor();
    if (at < 0 || cursor < 0) {
      if (at >= 0) this.#retire({ at, blocks });
      this.forget(name);
      this.#withoutRoom.add(name);
      return undefined;
    }
    this.#withoutRoom.delete(name);
    this.#words.set(words, at * BLOCK_WORDS);
    const withPort = plan.kind === 'hash' && plan.withPort;
    const written = { kind, at: at * BLOCK_WORDS, length: words.length, cursor, withPort };
    if (plan.kind === 'sequence') {
      if (known?.plan.kind === 'sequence') delete known.plan.shared;
      plan.shared = new SequenceCursor(plan, this.#cursors, cursor, words, this.#passesOf(plan));
    }
    if (known) this.#retire({ at: known.written.at / BLOCK_WORDS, blocks: known.blocks });
    this.#places.set(name, { plan, weights, written, blocks });
    return written;
  }

  /** Gives up the plan of a service that is gone, or that the director alone schedules. */
  forget(name: string): void {
    this.#withoutRoom.delete(name);
    const known = this.#places.get(name);
    if (!known) return;
    this.#places.delete(name);
    if (known.plan.kind === 'sequence') {
      known.plan.shared?.load();
      delete known.plan.shared;
    }
    this.#freeCursors.push(known.written.cursor);
    this.#retire({ at: known.written.at / BLOCK_WORDS, blocks: known.blocks });
  }

  /** How many services have no plan here only because there is no room. */
  get withoutRoom(): number {
    return this.#withoutRoom.size;
  }

  #weightsOf(plan: Plan): string {
    if (plan.kind !== 'sequence' && plan.kind !== 'least-cost') return '';
    return Array.from(plan.destinations, index => this.#destinations.weight(index)).join(' ');
  }

  /** The words of a plan; undefined if it is too long, or weights are too great. */
  #wordsOf(plan: Plan): Int32Array | undefined {
    if (plan.kind === 'hash') return plan.table;
    if (plan.kind === 'least-cost') {
      const { destinations } = plan;
      if (destinations.length === 0 || destinations.length > LONGEST_SCAN) return undefined;
      return destinations.every(index => this.#destinations.weight(index) < GREATEST_WEIGHT)
        ? destinations
        : undefined;
    }
    if (plan.kind !== 'sequence') return undefined;
    const ring: number[] = [];
    for (let pass = plan.maximum; pass > 0; pass -= plan.step) {
      for (const index of plan.destinations) {
        if (this.#destinations.weight(index) >= pass) ring.push(index);
        if (ring.length > LONGEST_SEQUENCE) return undefined;
      }
    }
    return ring.length > 0 ? Int32Array.from(ring) : undefined;
  }

  /** For each place of a sequence: its pass and its position among the destinations. */
  #passesOf(plan: SequencePlan): Int32Array {
    const passes: number[] = [];
    for (let pass = plan.maximum; pass > 0; pass -= plan.step) {
      plan.destinations.forEach((index, position) => {
        if (this.#destinations.weight(index) >= pass) passes.push(pass, position);
      });
    }
    return Int32Array.from(passes);
  }

  #takeCursor(): number {
    return this.#freeCursors.pop() ?? (this.#nextCursor < this.#cursors.length ? this.#nextCursor++ : -1);
  }

  /** First block of so many in a row, -1 if there are none. */
  #allocate(blocks: number): number {
    if (performance.now() >= this.#nextMerge) this.#reclaim();
    const fits = (each: Run): boolean => each.blocks >= blocks;
    let run = this.#free.find(fits);
    if (!run) {
      this.#reclaim();
      run = this.#free.find(fits);
    }
    if (!run) return -1;
    const { at } = run;
    run.at += blocks;
    run.blocks -= blocks;
    if (run.blocks === 0) this.#free.splice(this.#free.indexOf(run), 1);
    return at;
  }

  /** Frees the places that no CPU reads any more; not at each edit, of which there may be thousands in a second. */
  #reclaim(): void {
    const now = performance.now();
    this.#nextMerge = now + GRACE;
    const isRipe = ({ until }: { until: number }): boolean => until <= now;
    if (!this.#retired.some(isRipe)) return;
    this.#free = merge([...this.#free, ...this.#retired.filter(isRipe)]);
    this.#retired = this.#retired.filter(each => !isRipe(each));
  }

  #retire(run: Run): void {
    this.#retired.push({ ...run, until: performance.now() + GRACE });
  }
}

/** Joins neighbouring runs. */
function merge(runs: readonly Run[]): Run[] {
  const sorted = runs.map(({ at, blocks }) => ({ at, blocks })).sort((one, other) => one.at - other.at);
  const merged: Run[] = [];
  for (const run of sorted) {
    const last = merged.at(-1);
    if (last && last.at + last.blocks === run.at) last.blocks += run.blocks;
    else merged.push(run);
  }
  return merged;
}

function kindOf(plan: Plan): number {
  if (plan.kind === 'sequence') return PlanKind.sequence;
  if (plan.kind === 'hash') return PlanKind[plan.algorithm];
  if (plan.kind === 'least-cost') return COST_KINDS[plan.cost];
  return 0;
}

/**
 * The place of a sequence: a word that says which place was given last, plus 1; 0 before the first. A place is a pass and
 * a position in the plan, in the order in which passes take them.
 */
class SequenceCursor implements SharedCursor {
  readonly #plan: SequencePlan;
  readonly #cursors: BigUint64Array;
  readonly #number: number;
  readonly #length: number;
  readonly #passes: Int32Array;
  #last: bigint;

  constructor(
    plan: SequencePlan,
    cursors: BigUint64Array,
    number: number,
    words: Int32Array,
    passes: Int32Array,
  ) {
    this.#plan = plan;
    this.#cursors = cursors;
    this.#number = number;
    this.#length = words.length;
    this.#passes = passes;
    this.#last = Atomics.load(cursors, number);
    this.#last = this.#wordOfPlan();
    Atomics.store(cursors, number, this.#last);
  }

  load(): void {
    const word = Atomics.load(this.#cursors, this.#number);
    if (word === this.#last) return;
    this.#last = word;
    const place = Number(BigInt.asUintN(32, word)) - 1;
    if (place < 0 || place >= this.#length) return;
    this.#plan.currentWeight = this.#passes[2 * place] as number;
    this.#plan.cursor = this.#passes[2 * place + 1] as number;
  }

  store(): boolean {
    const word = this.#wordOfPlan();
    if (Atomics.compareExchange(this.#cursors, this.#number, this.#last, word) !== this.#last) return false;
    this.#last = word;
    return true;
  }

  /** How many places come before the next one of the plan; another word than the last one, whatever that says. */
  #wordOfPlan(): bigint {
    const { currentWeight, cursor } = this.#plan;
    let place = 0;
    while (place < this.#length) {
      const pass = this.#passes[2 * place] as number;
      const position = this.#passes[2 * place + 1] as number;
      if (pass < currentWeight || (pass === currentWeight && position > cursor)) break;
      place++;
    }
    return BigInt.asUintN(64, ((this.#last >> 32n) + 1n) << 32n) | BigInt(place);
  }
}
