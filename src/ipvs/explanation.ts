/**
 * Why a selection ends as it does, in plain data: for teaching and for `director.explain`. Nothing here changes a
 * plan; the choice itself is made by `selection.ts` on a copy.
 */
import { formatAddress } from '../wire/address.ts';
import type { DestinationTable } from './destinations.ts';
import { hashInput, placeOf } from './hashing.ts';
import type {
  HashPlan,
  LeastCostPlan,
  LocalityPlan,
  Plan,
  RandomPlan,
  SelectionRequest,
  SequencePlan,
} from './plan.ts';
import {
  connectionOverhead,
  DEFAULT_LOCALITY_EXPIRATION,
  draw,
  drawn,
  forgetStaleEntries,
  isBusy,
  localityKey,
  recall,
  selectHashed,
  selectLeastCost,
  selectLocal,
  selectNext,
  selectOfTwo,
  totalWeight,
} from './selection.ts';

/** A destination as a selection sees it. */
export interface Candidate {
  /** Index in the destination table. */
  destination: number;
  /** Part of the service, weight above 0, not overloaded. */
  eligible: boolean;
  weight: number;
  active: number;
  inactive: number;
}

export interface SequenceExplanation {
  kind: 'sequence';
  weighted: boolean;
  step: number;
  /** The rest of the pass under way and, if nobody in it was reached, the pass that decided. */
  passes: {
    /** Weight a destination needs in this pass. */
    weight: number;
    /** The destinations looked at, in order; the last one was taken if `taken`. */
    probed: Candidate[];
    taken: boolean;
  }[];
  /** Passes between the two that nobody's weight reaches. */
  skipped: number;
  /** Position in the plan's list and weight of the pass after the selection. */
  cursor: number;
  currentWeight: number;
  chosen: number;
}

export interface HashExplanation {
  kind: 'hash';
  algorithm: HashPlan['algorithm'];
  /** What is hashed: the address (source; for dh destination) and the source port, undefined without the port flag. */
  address: string;
  port: number | undefined;
  /** Both as one 32-bit number. */
  input: number;
  /** Places of the table in the order looked at, with the offset that led there; -1 is an empty place. */
  probed: { offset: number; place: number; destination: number; eligible: boolean }[];
  chosen: number;
}

/** A candidate with its cost; undefined where the formula does not apply to it. */
export interface CostCandidate extends Candidate {
  /** lc, wlc: active × 256 + inactive; sed, nq: active + 1; fo, ovf: the weight. */
  load: number;
  /** lc: the load; wlc, sed, nq: load over weight (rounded; the choice compares exactly); fo, ovf: minus the weight. */
  cost: number | undefined;
  /** Why it cannot be chosen. */
  excluded: 'not eligible' | 'more active connections than weight' | undefined;
}

export interface LeastCostExplanation {
  kind: 'least-cost';
  cost: LeastCostPlan['cost'];
  candidates: CostCandidate[];
  /** nq took it because it has no active connection. */
  idle: boolean;
  chosen: number;
}

export interface RandomExplanation {
  kind: 'random';
  totalWeight: number;
  /** Every eligible destination with the numbers drawn that fall on it. */
  candidates: (Candidate & { from: number; to: number; overhead: number })[];
  /** The two numbers drawn and whom they fall on; undefined when no random numbers were given. */
  draws: { number: number; destination: number }[] | undefined;
  /** null: left to chance, as no random numbers were given. */
  chosen: number | null;
}

export interface LocalityExplanation {
  kind: 'locality';
  replicated: boolean;
  /** The packet's destination address. */
  address: string;
  /** The servers it remembers, -1 for one that left the service; undefined if it remembers nothing. */
  remembered: number[] | undefined;
  /** Where the choice came from, and if not from memory, why not. */
  decision: 'remembered' | 'not remembered' | 'remembered unavailable' | 'remembered busy';
  /** The scan (as wlc) that decided, if memory did not. */
  candidates: CostCandidate[] | undefined;
  chosen: number;
}

export type SelectionExplanation =
  | SequenceExplanation
  | HashExplanation
  | LeastCostExplanation
  | RandomExplanation
  | LocalityExplanation;

export interface ExplanationOptions {
  /** The numbers twos would draw, 0..2^32-1; without them its choice stays open. */
  random?: () => number;
  /** Milliseconds, as in `SelectorOptions`. Default: 24 h. */
  localityExpiration?: number;
}

/** Explains what `Selector.select` would do now with the same arguments. */
export function explainSelection(
  plan: Plan,
  request: SelectionRequest,
  destinations: DestinationTable,
  options: ExplanationOptions = {},
): SelectionExplanation {
  switch (plan.kind) {
    case 'sequence':
      return explainNext(plan, destinations);
    case 'hash':
      return explainHashed(plan, request, destinations);
    case 'least-cost':
      return explainLeastCost(plan, destinations);
    case 'random':
      return explainOfTwo(plan, destinations, options.random);
    case 'locality':
      return explainLocal(
        plan,
        request,
        destinations,
        options.localityExpiration ?? DEFAULT_LOCALITY_EXPIRATION,
      );
  }
}

function candidate(destination: number, table: DestinationTable): Candidate {
  return {
    destination,
    eligible: table.isEligible(destination),
    weight: table.weight(destination),
    active: table.active(destination),
    inactive: table.inactive(destination),
  };
}

function explainNext(plan: SequencePlan, table: DestinationTable): SequenceExplanation {
  const after = { ...plan };
  const chosen = selectNext(after, table);
  const pass = (weight: number, from: number, taken: boolean): SequenceExplanation['passes'][number] => ({
    weight,
    probed: Array.from(plan.destinations.subarray(from, taken ? after.cursor + 1 : undefined), index =>
      candidate(index, table),
    ),
    taken,
  });
  const inPass = chosen >= 0 && after.cursor > plan.cursor && after.currentWeight === plan.currentWeight;
  const passes = [pass(plan.currentWeight, plan.cursor + 1, inPass)];
  let skipped = 0;
  if (!inPass) {
    const next = plan.currentWeight > plan.step ? plan.currentWeight - plan.step : plan.maximum;
    const deciding = chosen < 0 ? Math.min(1, plan.maximum) : after.currentWeight;
    skipped = Math.ceil(Math.max(0, next - deciding) / plan.step);
    passes.push(pass(deciding, 0, chosen >= 0));
  }
  return {
    kind: 'sequence',
    weighted: plan.weighted,
    step: plan.step,
    passes,
    skipped,
    cursor: after.cursor,
    currentWeight: after.currentWeight,
    chosen,
  };
}

function explainHashed(plan: HashPlan, request: SelectionRequest, table: DestinationTable): HashExplanation {
  const at = plan.algorithm === 'dh' ? request.destinationAt : request.sourceAt;
  const input = hashInput(plan, request);
  const chosen = selectHashed(plan, request, table);
  const probed: HashExplanation['probed'] = [];
  const probe = (offset: number): boolean => {
    const place = placeOf(plan, input, offset);
    const destination = plan.table[place] as number;
    const eligible = destination >= 0 && table.isEligible(destination);
    probed.push({ offset, place, destination, eligible });
    return destination < 0 || eligible;
  };
  const size = plan.table.length;
  if (!probe(0) && plan.fallback) {
    const first = placeOf(plan, input, 0);
    for (let step = 0; step < size && !probe((step + first) % size); step++);
  }
  return {
    kind: 'hash',
    algorithm: plan.algorithm,
    address: formatAddress(request.bytes, at, request.family === 4 ? 4 : 16),
    port: plan.withPort ? request.sourcePort : undefined,
    input,
    probed,
    chosen,
  };
}

function costCandidates(
  list: Int32Array,
  cost: LeastCostPlan['cost'],
  table: DestinationTable,
): CostCandidate[] {
  return Array.from(list, index => {
    const seen = candidate(index, table);
    const full = cost === 'ovf' && seen.active > seen.weight;
    const excluded = !seen.eligible
      ? 'not eligible'
      : full
        ? 'more active connections than weight'
        : undefined;
    let load = connectionOverhead(table, index);
    if (cost === 'sed' || cost === 'nq') load = seen.active + 1;
    if (cost === 'fo' || cost === 'ovf') load = seen.weight;
    let value = load / seen.weight;
    if (cost === 'lc') value = load;
    if (cost === 'fo' || cost === 'ovf') value = -load;
    return { ...seen, load, cost: excluded ? undefined : value, excluded };
  });
}

function explainLeastCost(plan: LeastCostPlan, table: DestinationTable): LeastCostExplanation {
  const chosen = selectLeastCost(plan, table);
  return {
    kind: 'least-cost',
    cost: plan.cost,
    candidates: costCandidates(plan.destinations, plan.cost, table),
    idle: plan.cost === 'nq' && chosen >= 0 && table.active(chosen) === 0,
    chosen,
  };
}

function explainOfTwo(
  plan: RandomPlan,
  table: DestinationTable,
  random: (() => number) | undefined,
): RandomExplanation {
  const total = totalWeight(plan.destinations, table);
  const candidates: RandomExplanation['candidates'] = [];
  let from = 0;
  for (const index of plan.destinations) {
    if (!table.isEligible(index)) continue;
    const to = (candidates.at(-1)?.to ?? 0) + table.weight(index);
    candidates.push({ ...candidate(index, table), from, to, overhead: connectionOverhead(table, index) });
    from = to + 1;
  }
  const explanation: RandomExplanation = {
    kind: 'random',
    totalWeight: total,
    candidates,
    draws: undefined,
    chosen: total === 0 ? -1 : null,
  };
  if (!random || total === 0) return explanation;
  const numbers: number[] = [];
  const noting = (): number => {
    const number = random();
    numbers.push(number);
    return number;
  };
  explanation.chosen = selectOfTwo(plan.destinations, table, noting);
  const again = numbers.values();
  const repeated = (): number => again.next().value ?? 0;
  explanation.draws = [draw(repeated, total), draw(repeated, total)].map(number => ({
    number,
    destination: drawn(plan.destinations, table, number),
  }));
  return explanation;
}

function explainLocal(
  plan: LocalityPlan,
  request: SelectionRequest,
  table: DestinationTable,
  expiration: number,
): LocalityExplanation {
  const key = localityKey(request);
  const copy: LocalityPlan = { ...plan, cache: new Map(plan.cache) };
  forgetStaleEntries(copy, request.now, expiration);
  const kept = copy.cache.get(key);
  let decision: LocalityExplanation['decision'] = 'not remembered';
  if (kept) {
    copy.cache.set(key, { ...kept, servers: [...kept.servers] });
    const recalled = recall(plan, kept, table);
    if (recalled < 0) decision = 'remembered unavailable';
    else decision = isBusy(plan.destinations, recalled, table) ? 'remembered busy' : 'remembered';
  }
  return {
    kind: 'locality',
    replicated: plan.replicated,
    address: formatAddress(request.bytes, request.destinationAt, request.family === 4 ? 4 : 16),
    remembered: kept?.servers.map(server => server.index),
    decision,
    candidates: decision === 'remembered' ? undefined : costCandidates(plan.destinations, 'wlc', table),
    chosen: selectLocal(copy, request, table, expiration),
  };
}
