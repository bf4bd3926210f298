/**
 * Selection plans: what a scheduler compiles to. A scheduler does not run per packet; when a service's real servers
 * change it turns them into one of these few kinds of data, which every data path (TypeScript, XDP) can execute.
 *
 * Destinations are named by their index in the `DestinationTable`, in the kernel's list order: newest first.
 */

/**
 * Round robin and weighted round robin: passes over the list from the greatest weight down in steps, each taking the
 * destinations whose weight reaches the pass's (net/netfilter/ipvs/ip_vs_wrr.c). Plain round robin is the same with
 * `weighted` false. `cursor` and `currentWeight` change with every selection.
 */
export interface SequencePlan {
  kind: 'sequence';
  weighted: boolean;
  destinations: Int32Array;
  /** Greatest common divisor of the weights. */
  step: number;
  /** Weight of the first pass. */
  maximum: number;
  /** Weight of the pass under way. */
  currentWeight: number;
  /** Position in `destinations` last chosen; -1: before the first. */
  cursor: number;
}

/** Source, destination and Maglev hashing: a table of destination indexes (-1: empty) and how it is indexed. */
export interface HashPlan {
  kind: 'hash';
  algorithm: 'sh' | 'dh' | 'mh';
  table: Int32Array;
  /** The source port is part of the key (flags sh-port, mh-port). */
  withPort: boolean;
  /** On an unavailable destination probe on instead of refusing (flags sh-fallback, mh-fallback). */
  fallback: boolean;
}

/**
 * A scan for the least cost. `lc`: active × 256 + inactive; `wlc`: the same over weight; `sed`: (active + 1) over
 * weight; `nq`: the first idle one, else as sed; `fo`: the greatest weight; `ovf`: the greatest weight among those
 * with active ≤ weight. The first in list order wins ties.
 */
export interface LeastCostPlan {
  kind: 'least-cost';
  cost: 'lc' | 'wlc' | 'sed' | 'nq' | 'fo' | 'ovf';
  destinations: Int32Array;
}

/** Two random draws by weight, of which the less loaded is taken (`twos`). */
export interface RandomPlan {
  kind: 'random';
  destinations: Int32Array;
}

/** Locality: the packet's destination address remembers its server (`lblc`) or its set of servers (`lblcr`). */
export interface LocalityPlan {
  kind: 'locality';
  replicated: boolean;
  destinations: Int32Array;
  /** By destination address (hex of its bytes). Survives recompilation. */
  cache: Map<string, LocalityEntry>;
  /** Milliseconds: last full check, and number of checks so far. */
  lastCheck: number;
  checks: number;
}

export interface LocalityEntry {
  /** One destination for lblc, the set for lblcr. Entries of destinations that left the service are -1. */
  destinations: number[];
  lastUse: number;
  lastChange: number;
}

export type Plan = SequencePlan | HashPlan | LeastCostPlan | RandomPlan | LocalityPlan;

/** What a selection may look at. One object a director, filled in for each new connection. */
export interface SelectionRequest {
  /** Milliseconds. */
  now: number;
  family: 4 | 6;
  /** Where the client's address and the packet's destination address lie. */
  bytes: Uint8Array;
  view: DataView;
  sourceAt: number;
  destinationAt: number;
  sourcePort: number;
}

/** A real server as a scheduler compiles it. */
export interface SchedulerServer {
  /** Index in the destination table. */
  index: number;
  /** 4 or 16 bytes. */
  address: Uint8Array;
  port: number;
  weight: number;
  /** The last weight above 0 it had (Maglev keeps the places of a quiesced server). */
  lastWeight: number;
}

/** What made the plan be compiled anew: some schedulers keep their place, others start over. */
export type PlanChange = 'service' | 'add' | 'edit' | 'delete';

export interface Scheduler {
  /** The name `ipvsadm -s` takes. */
  name: string;
  /**
   * Turns servers, newest first, into a plan.
   * @param flags a sum of `SchedulerFlag`
   * @param previous the plan until now, if it was this scheduler's: cursors and caches carry over from it
   */
  compile(
    servers: readonly SchedulerServer[],
    flags: number,
    change: PlanChange,
    previous: Plan | undefined,
  ): Plan;
}
