/**
 * The execution of selection plans: which destination a new connection gets. Each function below is one kind of
 * plan; none but locality allocates, none throws. What the plans mean is written in `plan.ts`.
 */
import { DestinationFlag, type DestinationTable } from './destinations.ts';
import { hashInput, placeOf } from './hashing.ts';
import type {
  HashPlan,
  LeastCostPlan,
  LocalityEntry,
  LocalityPlan,
  LocalityServer,
  Plan,
  SelectionRequest,
  SequencePlan,
} from './plan.ts';

export interface SelectorOptions {
  /** Gives a random number, 0..2^32-1. */
  random: () => number;
  /** How long locality remembers an unused address, milliseconds (`lblc_expiration`, the kernel's default 24 h). */
  localityExpiration: number;
  /** The same for sets of servers (`lblcr_expiration`). Default: `localityExpiration`. */
  replicatedExpiration?: number;
}

export const DEFAULT_LOCALITY_EXPIRATION = 24 * 60 * 60 * 1000;

export class Selector {
  /** Milliseconds; may be changed at any time. */
  localityExpiration: number;
  /** The same for sets of servers. */
  replicatedExpiration: number;
  readonly #destinations: DestinationTable;
  readonly #random: () => number;

  constructor(destinations: DestinationTable, options: SelectorOptions) {
    this.#destinations = destinations;
    this.#random = options.random;
    this.localityExpiration = options.localityExpiration;
    this.replicatedExpiration = options.replicatedExpiration ?? options.localityExpiration;
  }

  /**
   * Chooses the destination of a new connection and moves the plan's state on (cursor, locality cache).
   * @returns an index in the destination table, or -1: the connection is refused
   */
  select(plan: Plan, request: SelectionRequest): number {
    switch (plan.kind) {
      case 'sequence':
        return selectShared(plan, this.#destinations);
      case 'hash':
        return selectHashed(plan, request, this.#destinations);
      case 'least-cost':
        return selectLeastCost(plan, this.#destinations);
      case 'random':
        return selectOfTwo(plan.destinations, this.#destinations, this.#random);
      case 'locality':
        return selectLocal(plan, request, this.#destinations, this.expirationOf(plan));
    }
  }

  /** How long this plan remembers, milliseconds. */
  expirationOf(plan: Plan): number {
    const isReplicated = plan.kind === 'locality' && plan.replicated;
    return isReplicated ? this.replicatedExpiration : this.localityExpiration;
  }
}

/** The next destination of a round that others may be taking from, too. */
function selectShared(plan: SequencePlan, table: DestinationTable): number {
  const { shared } = plan;
  if (!shared) return selectNext(plan, table);
  for (;;) {
    shared.load();
    const chosen = selectNext(plan, table);
    if (shared.store()) return chosen;
  }
}

/** The next destination of a round. */
export function selectNext(plan: SequencePlan, table: DestinationTable): number {
  const list = plan.destinations;
  for (let position = plan.cursor + 1; position < list.length; position++) {
    const index = list[position] as number;
    if (reaches(table, index, plan.currentWeight)) {
      plan.cursor = position;
      return index;
    }
  }
  // The next pass begins at the head. The greatest weight at hand says how many passes nobody would reach: with
  // weights up to 2^31 they cannot be tried one by one.
  let pass = plan.currentWeight - plan.step;
  if (pass <= 0) pass = plan.maximum;
  let greatest = 0;
  for (let position = 0; position < list.length; position++) {
    const index = list[position] as number;
    if (!reaches(table, index, 1)) continue;
    const weight = table.weight(index);
    if (weight >= pass) return take(plan, position, pass);
    if (weight > greatest) greatest = weight;
  }
  if (greatest === 0) {
    // Refused. As in the kernel the round starts over, unless it was in its last pass already.
    if (plan.cursor < 0 || plan.currentWeight > plan.step) {
      plan.cursor = -1;
      plan.currentWeight = plan.maximum;
    }
    return -1;
  }
  pass = Math.max(1, pass - Math.ceil((pass - greatest) / plan.step) * plan.step);
  for (let position = 0; position < list.length; position++) {
    if (reaches(table, list[position] as number, pass)) return take(plan, position, pass);
  }
  return -1;
}

function take(plan: SequencePlan, position: number, pass: number): number {
  plan.cursor = position;
  plan.currentWeight = pass;
  return plan.destinations[position] as number;
}

function reaches(table: DestinationTable, index: number, weight: number): boolean {
  return table.isEligible(index) && table.weight(index) >= weight;
}

/** The destination in the client's place of the table, or with fallback in the next place that has an eligible one. */
export function selectHashed(plan: HashPlan, request: SelectionRequest, table: DestinationTable): number {
  const input = hashInput(plan, request);
  const first = placeOf(plan, input, 0);
  const index = plan.table[first] as number;
  if (index < 0) return -1;
  if (table.isEligible(index)) return index;
  if (!plan.fallback) return -1;
  const size = plan.table.length;
  for (let step = 0; step < size; step++) {
    const probed = plan.table[placeOf(plan, input, (step + first) % size)] as number;
    if (probed < 0) return -1;
    if (table.isEligible(probed)) return probed;
  }
  return -1;
}

export function selectLeastCost(plan: LeastCostPlan, table: DestinationTable): number {
  const greatest = plan.cost === 'fo' || plan.cost === 'ovf';
  const position = greatest
    ? positionOfGreatest(plan.destinations, plan.cost === 'ovf', table)
    : positionOfLeast(plan.destinations, plan.cost, table);
  return position < 0 ? -1 : (plan.destinations[position] as number);
}

/** Position in `list` of the eligible destination with the least load over weight, -1 if none is eligible. */
function positionOfLeast(list: Int32Array, cost: LeastCostPlan['cost'], table: DestinationTable): number {
  const activeOnly = cost === 'sed' || cost === 'nq';
  const idleFirst = cost === 'nq';
  const weighted = cost !== 'lc';
  let least = -1;
  let leastLoad = 0;
  let leastWeight = 1;
  for (let position = 0; position < list.length; position++) {
    const index = list[position] as number;
    if (!table.isEligible(index)) continue;
    const active = table.active(index);
    if (idleFirst && active === 0) return position;
    const load = activeOnly ? active + 1 : connectionOverhead(table, index);
    const weight = weighted ? table.weight(index) : 1;
    if (least < 0 || productIsGreater(leastLoad, weight, load, leastWeight)) {
      least = position;
      leastLoad = load;
      leastWeight = weight;
    }
  }
  return least;
}

/** Position in `list` of the eligible destination with the greatest weight; `fitting`: of those with active ≤ weight. */
function positionOfGreatest(list: Int32Array, fitting: boolean, table: DestinationTable): number {
  let greatest = -1;
  let greatestWeight = 0;
  for (let position = 0; position < list.length; position++) {
    const index = list[position] as number;
    if (!table.isEligible(index)) continue;
    const weight = table.weight(index);
    if (weight > greatestWeight && !(fitting && table.active(index) > weight)) {
      greatest = position;
      greatestWeight = weight;
    }
  }
  return greatest;
}

/** Active connections count 256 times an inactive one (include/net/ip_vs.h, ip_vs_dest_conn_overhead). */
export function connectionOverhead(table: DestinationTable, index: number): number {
  return table.active(index) * 256 + table.inactive(index);
}

/**
 * Whether a × b > c × d, exactly: h1/w1 > h2/w2 is asked as h1 × w2 > h2 × w1.
 * @param a and c: 0..2^41 (loads), b and d: 0..2^31 (weights)
 */
export function productIsGreater(a: number, b: number, c: number, d: number): boolean {
  const left = a * b;
  const right = c * d;
  // Rounding keeps order, so products that differ as doubles differ the same way in truth.
  if (left !== right) return left > right;
  if (left <= Number.MAX_SAFE_INTEGER) return false;
  // Each in two digits to base 2^20: every intermediate stays below 2^53.
  const aLow = (a % 0x100000) * b;
  const cLow = (c % 0x100000) * d;
  const leftHigh = Math.floor(a / 0x100000) * b + Math.floor(aLow / 0x100000);
  const rightHigh = Math.floor(c / 0x100000) * d + Math.floor(cLow / 0x100000);
  if (leftHigh !== rightHigh) return leftHigh > rightHigh;
  return aLow % 0x100000 > cLow % 0x100000;
}

/** Two draws by weight, the less loaded of which is taken (ip_vs_twos.c). The random numbers are asked for in order. */
export function selectOfTwo(list: Int32Array, table: DestinationTable, random: () => number): number {
  const total = totalWeight(list, table);
  if (total === 0) return -1;
  const first = drawn(list, table, draw(random, total));
  const second = drawn(list, table, draw(random, total));
  const secondIsLighter = productIsGreater(
    connectionOverhead(table, first),
    table.weight(second),
    connectionOverhead(table, second),
    table.weight(first),
  );
  return secondIsLighter ? second : first;
}

/** Sum of the weights of the eligible destinations. */
export function totalWeight(list: Int32Array, table: DestinationTable): number {
  let total = 0;
  for (let position = 0; position < list.length; position++) {
    const index = list[position] as number;
    if (table.isEligible(index)) total += table.weight(index);
  }
  return total;
}

/** A random number 0..total: both ends are possible, as in the kernel. */
export function draw(random: () => number, total: number): number {
  if (total < 0xffffffff) return random() % (total + 1);
  return ((random() % 0x100000) * 0x100000000 + random()) % (total + 1);
}

/** The destination a draw falls on: the first whose weight, added to those before it, reaches the number drawn. */
export function drawn(list: Int32Array, table: DestinationTable, number: number): number {
  let left = number;
  for (let position = 0; position < list.length; position++) {
    const index = list[position] as number;
    if (!table.isEligible(index)) continue;
    left -= table.weight(index);
    if (left <= 0) return index;
  }
  return -1;
}

/** The server the packet's destination address remembers, else the one wlc chooses, which it then remembers. */
export function selectLocal(
  plan: LocalityPlan,
  request: SelectionRequest,
  table: DestinationTable,
  expiration: number,
): number {
  forgetStaleEntries(plan, request.now, expiration);
  const key = localityKey(request);
  const entry = plan.cache.get(key);
  if (entry) {
    entry.lastUse = request.now;
    const remembered = recall(plan, entry, table);
    if (plan.replicated && entry.servers.length > 1 && request.now > entry.lastChange + expiration) {
      dropMostLoaded(entry, table, request.now);
    }
    if (remembered >= 0 && !isBusy(plan.destinations, remembered, table)) return remembered;
  }
  const position = positionOfLeast(plan.destinations, 'wlc', table);
  if (position < 0) return -1;
  const server = plan.servers[position] as LocalityServer;
  if (!entry) {
    plan.cache.set(key, { servers: [server], lastUse: request.now, lastChange: request.now });
  } else if (!entry.servers.includes(server)) {
    if (plan.replicated) entry.servers.unshift(server);
    else entry.servers[0] = server;
    entry.lastChange = request.now;
  }
  return server.index;
}

/** The packet's destination address as the cache's key. */
export function localityKey(request: SelectionRequest): string {
  let key = '';
  const end = request.destinationAt + (request.family === 4 ? 4 : 16);
  for (let at = request.destinationAt; at < end; at += 4) {
    key += request.view.getUint32(at).toString(16).padStart(8, '0');
  }
  return key;
}

/** The destination an entry offers, -1 if it has none that may be used. */
export function recall(plan: LocalityPlan, entry: LocalityEntry, table: DestinationTable): number {
  return plan.replicated ? leastLoadedOf(entry, table) : stillUsable(entry, table);
}

/** The server lblc remembers if it is in the service and not quiesced, else -1. A threshold does not stop it. */
function stillUsable(entry: LocalityEntry, table: DestinationTable): number {
  const index = (entry.servers[0] as LocalityServer).index;
  return index >= 0 && (table.flags(index) & DestinationFlag.available) !== 0 && table.weight(index) > 0
    ? index
    : -1;
}

/** Of the set lblcr remembers, the eligible server with the least overhead over weight, else -1. */
function leastLoadedOf(entry: LocalityEntry, table: DestinationTable): number {
  let least = -1;
  for (const { index } of entry.servers) {
    if (index < 0 || !table.isEligible(index)) continue;
    if (
      least < 0 ||
      productIsGreater(
        connectionOverhead(table, least),
        table.weight(index),
        connectionOverhead(table, index),
        table.weight(least),
      )
    ) {
      least = index;
    }
  }
  return least;
}

/** A set that did not change for long loses its most loaded server. One that left the service counts as idle. */
function dropMostLoaded(entry: LocalityEntry, table: DestinationTable, now: number): void {
  let most: LocalityServer | undefined;
  let mostLoad = 0;
  let mostWeight = 1;
  for (const server of entry.servers) {
    const weight = server.index < 0 ? server.weight : table.weight(server.index);
    if (weight === 0) continue;
    const load = server.index < 0 ? 0 : connectionOverhead(table, server.index);
    if (!most || productIsGreater(load, mostWeight, mostLoad, weight)) {
      most = server;
      mostLoad = load;
      mostWeight = weight;
    }
  }
  if (!most) return;
  entry.servers.splice(entry.servers.indexOf(most), 1);
  entry.lastChange = now;
}

/** More active connections than weight, while some server has less than half its weight: time to choose anew. */
export function isBusy(list: Int32Array, index: number, table: DestinationTable): boolean {
  if (table.active(index) <= table.weight(index)) return false;
  for (let position = 0; position < list.length; position++) {
    const other = list[position] as number;
    if (table.active(other) * 2 < table.weight(other)) return true;
  }
  return false;
}

const CHECK_INTERVAL = 60_000;
const CHECKS_UNTIL_FULL = 30;
const MOST_ENTRIES = 16_384;
/** Entries younger than this stay also when the cache is too full, milliseconds. */
const SHORTEST_STAY = 6 * 60_000;

/**
 * The kernel's timer (ip_vs_lblc.c), caught up with: every minute, if there are too many entries, those idle for six
 * minutes go until there is room; every thirtieth quiet minute all idle for the expiration time go. Where the kernel
 * walks its hash buckets, the oldest entries go first here.
 */
export function forgetStaleEntries(plan: LocalityPlan, now: number, expiration: number): void {
  if (plan.lastCheck < 0) plan.lastCheck = now;
  while (now - plan.lastCheck >= CHECK_INTERVAL) {
    if (plan.cache.size === 0) {
      const missed = Math.floor((now - plan.lastCheck) / CHECK_INTERVAL);
      plan.checks = (plan.checks + missed) % CHECKS_UNTIL_FULL;
      plan.lastCheck += missed * CHECK_INTERVAL;
      return;
    }
    plan.lastCheck += CHECK_INTERVAL;
    const excess = plan.cache.size - MOST_ENTRIES;
    if (plan.checks === CHECKS_UNTIL_FULL - 1) {
      forgetIdle(plan, expiration, plan.cache.size);
      plan.checks = 0;
    } else if (excess > 0) {
      forgetIdle(plan, SHORTEST_STAY, Math.min(Math.floor((excess * 4) / 3), MOST_ENTRIES / 2));
    } else {
      plan.checks++;
    }
  }
}

function forgetIdle(plan: LocalityPlan, idle: number, most: number): void {
  let goal = most;
  for (const [key, entry] of plan.cache) {
    if (goal <= 0) return;
    if (plan.lastCheck - entry.lastUse < idle) continue;
    plan.cache.delete(key);
    goal--;
  }
}
