/**
 * Selection plans: what a scheduler compiles to. A scheduler does not run per packet; when a service's real servers
 * change it turns them into one of these few kinds of data, which every data path (TypeScript, XDP) can execute.
 *
 * Destinations are named by their index in the `DestinationTable`, in the kernel's list order: newest first.
 */

/**
 * Round robin and weighted round robin: passes over the list from the greatest weight down in steps, each taking the
 * destinations whose weight reaches the pass's (net/netfilter/ipvs/ip_vs_wrr.c). Plain round robin (`weighted` false)
 * is the same with passes of weight 1 only. `cursor` and `currentWeight` change with every selection.
 */
export interface SequencePlan {
  kind: 'sequence';
  weighted: boolean;
  destinations: Int32Array;
  /** Greatest common divisor of the weights. */
  step: number;
  /** Weight of the first pass: the greatest weight less `step` - 1, so that the last pass is one of weight 1; 0 without any. */
  maximum: number;
  /** Weight of the pass under way. */
  currentWeight: number;
  /** Position in `destinations` last chosen; -1: before the first. */
  cursor: number;
  /** Present while another data path chooses by the same plan. */
  shared?: SharedCursor;
}

/** The place of a sequence that several data paths move on. */
export interface SharedCursor {
  /** Brings the plan's `cursor` and `currentWeight` up to date. */
  load(): void;
  /** Makes known where the plan stands now; false if it was moved since `load`: then that choice is void. */
  store(): boolean;
}

/**
 * Source, destination and Maglev hashing: a table of destination indexes (-1: empty) and how it is indexed
 * (`hashing.ts`). `sh` and `dh` tables have 256 places, `mh` 4093.
 */
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
 * weight; `nq`: the first with no active connection, else as sed; `fo`: the greatest weight; `ovf`: the greatest
 * weight among those with active ≤ weight. The first in list order wins ties.
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
  /** The same servers in the same order. */
  servers: LocalityServer[];
  /** Servers that left the service but are remembered: one that comes back finds its clients again. */
  departed: LocalityServer[];
  /** By destination address (hex of its bytes), in order of creation. Survives recompilation. */
  cache: Map<string, LocalityEntry>;
  /** When stale entries were last looked for, milliseconds; -1: not yet. */
  lastCheck: number;
  /** Looks since all entries were checked for expiry, 0..29. */
  checks: number;
}

/** A server as the locality cache knows it; the one object lives as long as a plan or an entry names it. */
export interface LocalityServer {
  /** Address (hex of its bytes) and port, which it is known again by. */
  identity: string;
  /** Index in the destination table; -1 while it is not part of the service. */
  index: number;
  /** The weight it has, or had when it left. */
  weight: number;
}

export interface LocalityEntry {
  /** One server for lblc; the set for lblcr, newest first. */
  servers: LocalityServer[];
  /** Milliseconds. */
  lastUse: number;
  /** When the set last changed, milliseconds. */
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
