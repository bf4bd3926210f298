/**
 * The neighbour cache with Linux's states and timers (net/core/neighbour.c), for ARP and neighbour discovery alike.
 * It sends nothing and has no clock: it tells its owner, through `NeighbourEvents`, what to send and when to come back.
 */
import { formatAddress } from '../wire/address.ts';
import { macEquals } from '../wire/ethernet.ts';

/** States as `ip neigh` prints them; NONE is an entry that nobody has asked for yet. */
export type NeighbourState =
  | 'NONE'
  | 'INCOMPLETE'
  | 'REACHABLE'
  | 'STALE'
  | 'DELAY'
  | 'PROBE'
  | 'FAILED'
  | 'PERMANENT'
  | 'NOARP';

export interface Neighbour {
  readonly interfaceIndex: number;
  /** 4 or 16 bytes. */
  readonly address: Uint8Array;
  /** The MAC, meaningful while `isValid`. */
  readonly mac: Uint8Array;
  state: NeighbourState;
  /** When it was last known to be reachable, ms. */
  confirmed: number;
  /** When state or MAC last changed, ms. */
  updated: number;
  /** When a packet last asked for it, ms. */
  used: number;
  /** Requests sent in the present INCOMPLETE or PROBE. */
  probes: number;
  /** When the cache wants `expire`, ms; Infinity if never. */
  timer: number;
  /** Frames that wait for the MAC, oldest first. */
  readonly queue: Uint8Array[];
}

/** The sysctls of net/ipv4/neigh, in milliseconds. */
export interface NeighbourParameters {
  /** base_reachable_time: how long a confirmation lasts. */
  baseReachable: number;
  /** delay_first_probe_time: how long a stale entry is used before it is probed. */
  delayFirstProbe: number;
  /** retrans_time: between requests. */
  retransmit: number;
  /** mcast_solicit: broadcast requests for an unknown neighbour. */
  multicastProbes: number;
  /** ucast_solicit: probes of a known one. */
  unicastProbes: number;
  /** unres_qlen: frames that wait for an answer; the oldest goes first. */
  queueLength: number;
  /** locktime: how long a fresh entry resists another MAC. */
  lockTime: number;
  /** gc_thresh3: most entries. */
  capacity: number;
}

export const LINUX_NEIGHBOUR_PARAMETERS: NeighbourParameters = {
  baseReachable: 30_000,
  delayFirstProbe: 5_000,
  retransmit: 1_000,
  multicastProbes: 3,
  unicastProbes: 3,
  queueLength: 3,
  lockTime: 1_000,
  capacity: 1024,
};

export interface NeighbourEvents {
  /** Ask for the neighbour: all stations, or with `unicast` the MAC it had. `waiting` is the newest frame in its queue. */
  solicit(neighbour: Neighbour, unicast: boolean, waiting: Uint8Array | undefined): void;
  /** Send this frame, whose Ethernet destination the owner fills in from `neighbour.mac`. */
  deliver(neighbour: Neighbour, frame: Uint8Array): void;
  /** Nobody answered: these frames are given up. */
  fail(neighbour: Neighbour, frames: readonly Uint8Array[]): void;
  /** State or MAC changed. */
  change(neighbour: Neighbour): void;
  /** `neighbour.timer` changed: call `expire(neighbour)` then. */
  arm(neighbour: Neighbour): void;
}

const VALID: ReadonlySet<NeighbourState> = new Set([
  'PERMANENT',
  'NOARP',
  'REACHABLE',
  'STALE',
  'DELAY',
  'PROBE',
]);
const CONNECTED: ReadonlySet<NeighbourState> = new Set(['PERMANENT', 'NOARP', 'REACHABLE']);
const TIMED: ReadonlySet<NeighbourState> = new Set(['INCOMPLETE', 'REACHABLE', 'DELAY', 'PROBE']);

/** True if the entry's MAC may be used. */
export function isValid(neighbour: Neighbour): boolean {
  return VALID.has(neighbour.state);
}

export class NeighbourCache {
  readonly parameters: NeighbourParameters;
  /** Frames thrown out of a full queue (unres_discards). */
  discarded = 0;
  /** Neighbours refused because the cache was full (table_fulls). */
  overflows = 0;
  #events: NeighbourEvents;
  #entries = new Map<string, Neighbour>();
  #reachable: () => number;

  /**
   * @param reachableTime how long one confirmation lasts, ms. The kernel draws it from 0.5..1.5 times the base; the
   *   default is the base itself.
   */
  constructor(
    events: NeighbourEvents,
    parameters: NeighbourParameters = LINUX_NEIGHBOUR_PARAMETERS,
    reachableTime: () => number = () => parameters.baseReachable,
  ) {
    this.#events = events;
    this.parameters = parameters;
    this.#reachable = reachableTime;
  }

  /** All entries, in the order in which they were made (the kernel's order is that of a hash seeded at boot). */
  entries(): IterableIterator<Neighbour> {
    return this.#entries.values();
  }

  find(interfaceIndex: number, address: Uint8Array): Neighbour | undefined {
    return this.#entries.get(keyOf(interfaceIndex, address));
  }

  /** The entry, made in state NONE if there is none; undefined if the cache is full of entries in use. */
  obtain(interfaceIndex: number, address: Uint8Array, now: number): Neighbour | undefined {
    const key = keyOf(interfaceIndex, address);
    const found = this.#entries.get(key);
    if (found) return found;
    if (this.#entries.size >= this.parameters.capacity && !this.#evict()) {
      this.overflows++;
      return undefined;
    }
    const neighbour: Neighbour = {
      interfaceIndex,
      address: address.slice(),
      mac: new Uint8Array(6),
      state: 'NONE',
      confirmed: now,
      updated: now,
      used: now,
      probes: 0,
      timer: Number.POSITIVE_INFINITY,
      queue: [],
    };
    this.#entries.set(key, neighbour);
    return neighbour;
  }

  /** Forgets the oldest entry that is neither in use nor pinned (neigh_forced_gc). */
  #evict(): boolean {
    for (const [key, neighbour] of this.#entries) {
      if (neighbour.state === 'STALE' || neighbour.state === 'FAILED' || neighbour.state === 'NONE') {
        this.#entries.delete(key);
        return true;
      }
    }
    return false;
  }

  /** Sends a frame to the neighbour, or keeps it until the neighbour has answered (neigh_resolve_output). */
  send(neighbour: Neighbour, frame: Uint8Array, now: number): void {
    this.use(neighbour, now, frame);
    if (isValid(neighbour)) this.#events.deliver(neighbour, frame);
  }

  /** Starts what the use of an entry starts: a request if nothing is known, the delay before a probe if it is stale. */
  use(neighbour: Neighbour, now: number, frame?: Uint8Array): void {
    neighbour.used = now;
    if (neighbour.state === 'STALE') {
      this.#enter(neighbour, 'DELAY', now + this.parameters.delayFirstProbe, now);
      return;
    }
    if (isValid(neighbour)) return;
    if (frame) {
      if (neighbour.queue.length >= this.parameters.queueLength) {
        neighbour.queue.shift();
        this.discarded++;
      }
      neighbour.queue.push(frame);
    }
    if (neighbour.state === 'INCOMPLETE') return;
    neighbour.probes = 0;
    this.#enter(neighbour, 'INCOMPLETE', now + this.parameters.retransmit, now);
    this.#solicit(neighbour);
  }

  /**
   * Takes in what a packet said about a neighbour (neigh_update).
   * @param state REACHABLE for a confirmation, STALE for a mere hint
   * @param override whether another MAC may replace the one of a valid entry
   */
  update(
    neighbour: Neighbour,
    mac: Uint8Array,
    state: 'REACHABLE' | 'STALE',
    override: boolean,
    now: number,
  ): void {
    if (neighbour.state === 'PERMANENT' || neighbour.state === 'NOARP') return;
    if (state === 'REACHABLE') neighbour.confirmed = now;
    const wasValid = isValid(neighbour);
    const sameMac = wasValid && macEquals(mac, 0, neighbour.mac);
    let next: NeighbourState = state;
    if (wasValid) {
      if (!sameMac && !override) return;
      if (sameMac && state === 'STALE') next = neighbour.state;
    }
    this.#replace(neighbour, mac, next, sameMac, now);
    if (!wasValid) this.#flush(neighbour);
  }

  /** Sets an entry by hand: pinned, or as `nud STATE` of `ip neigh` asks. */
  set(
    neighbour: Neighbour,
    mac: Uint8Array,
    state: 'PERMANENT' | 'REACHABLE' | 'STALE' | 'NOARP',
    now: number,
  ): void {
    const sameMac = isValid(neighbour) && macEquals(mac, 0, neighbour.mac);
    if (state === 'REACHABLE') neighbour.confirmed = now;
    this.#replace(neighbour, mac, state, sameMac, now);
    this.#flush(neighbour);
  }

  /** A higher layer saw the neighbour answer (dst_confirm). */
  confirm(neighbour: Neighbour, now: number): void {
    if (isValid(neighbour)) neighbour.confirmed = now;
  }

  /** Forgets an entry; what waited in its queue is given up. */
  delete(neighbour: Neighbour): void {
    if (!this.#entries.delete(keyOf(neighbour.interfaceIndex, neighbour.address))) return;
    neighbour.state = 'FAILED';
    this.#arm(neighbour, Number.POSITIVE_INFINITY);
    this.#events.change(neighbour);
    this.#giveUp(neighbour);
  }

  /** Runs the timer of an entry if it is due (neigh_timer_handler). */
  expire(neighbour: Neighbour, now: number): void {
    if (now < neighbour.timer) return;
    switch (neighbour.state) {
      case 'REACHABLE': {
        const until = neighbour.confirmed + this.#reachable();
        if (now < until) this.#arm(neighbour, until);
        else if (now <= neighbour.used + this.parameters.delayFirstProbe)
          this.#enter(neighbour, 'DELAY', now + this.parameters.delayFirstProbe, now);
        else this.#enter(neighbour, 'STALE', Number.POSITIVE_INFINITY, now);
        return;
      }
      case 'DELAY':
        if (now <= neighbour.confirmed + this.parameters.delayFirstProbe) {
          this.#enter(neighbour, 'REACHABLE', neighbour.confirmed + this.#reachable(), now);
        } else {
          neighbour.probes = 0;
          this.#enter(neighbour, 'PROBE', now + this.parameters.retransmit, now);
          this.#solicit(neighbour);
        }
        return;
      case 'INCOMPLETE':
      case 'PROBE': {
        const most =
          neighbour.state === 'PROBE' ? this.parameters.unicastProbes : this.parameters.multicastProbes;
        if (neighbour.probes >= most) {
          this.#enter(neighbour, 'FAILED', Number.POSITIVE_INFINITY, now);
          this.#giveUp(neighbour);
          return;
        }
        this.#arm(neighbour, now + this.parameters.retransmit);
        this.#solicit(neighbour);
        return;
      }
      default:
        this.#arm(neighbour, Number.POSITIVE_INFINITY);
    }
  }

  #replace(
    neighbour: Neighbour,
    mac: Uint8Array,
    state: NeighbourState,
    sameMac: boolean,
    now: number,
  ): void {
    const changed = state !== neighbour.state || !sameMac;
    if (!sameMac) {
      neighbour.mac.set(mac);
      if (!CONNECTED.has(state)) neighbour.confirmed = now - 2 * this.parameters.baseReachable;
    }
    if (!changed) return;
    neighbour.updated = now;
    if (state !== neighbour.state) {
      neighbour.state = state;
      // A DELAY or PROBE entry that only gets another MAC keeps its timer; entering one from here does not happen.
      const timer =
        state === 'REACHABLE' ? neighbour.confirmed + this.#reachable() : Number.POSITIVE_INFINITY;
      this.#arm(neighbour, TIMED.has(state) ? timer : Number.POSITIVE_INFINITY);
    }
    this.#events.change(neighbour);
  }

  #enter(neighbour: Neighbour, state: NeighbourState, timer: number, now: number): void {
    neighbour.state = state;
    neighbour.updated = now;
    this.#arm(neighbour, timer);
    this.#events.change(neighbour);
  }

  #arm(neighbour: Neighbour, timer: number): void {
    neighbour.timer = timer;
    this.#events.arm(neighbour);
  }

  #solicit(neighbour: Neighbour): void {
    neighbour.probes++;
    this.#events.solicit(neighbour, neighbour.state === 'PROBE', neighbour.queue.at(-1));
  }

  #flush(neighbour: Neighbour): void {
    for (const frame of neighbour.queue.splice(0)) this.#events.deliver(neighbour, frame);
  }

  #giveUp(neighbour: Neighbour): void {
    const frames = neighbour.queue.splice(0);
    if (frames.length > 0) this.#events.fail(neighbour, frames);
  }
}

function keyOf(interfaceIndex: number, address: Uint8Array): string {
  return `${interfaceIndex} ${formatAddress(address)}`;
}
