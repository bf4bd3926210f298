/**
 * Where a director stands: what brings it packets and takes them away. The daemon holds one of these and knows nothing
 * else of it; `virtual.ts` and `xdp/` implement it.
 */
import type { CapturedFrame } from '../capture/frame.ts';
import type { Director } from '../ipvs/director.ts';
import type { Observation, ObservationOptions } from './observation.ts';

export type DatapathKind = 'virtual' | 'xdp';

/** Counters by what they count, or one row of a table. */
export type StatusRow = Readonly<Record<string, string | number>>;

/** Plain data for people and JSON, each key a word that says what the value is ("mode": "native"). */
export type DatapathStatus = Readonly<
  Record<string, string | number | boolean | readonly string[] | StatusRow | readonly StatusRow[]>
>;

export interface StopOptions {
  /**
   * False: the daemon only goes away; what forwards by itself (programs, tables) stays for the next one. True: every
   * trace is removed.
   */
  remove: boolean;
}

/** What a data path counts beside its director, since it was made. */
export interface DatapathCounters {
  /** Packets that a program in the kernel saw, by what became of them: `forwarded`, or why not. Empty without one. */
  program: Readonly<Record<string, number>>;
  /** Packets that came to the director and that it sent. */
  director: { received: number; transmitted: number };
  /** Packets that were lost on the way to or from the director, by reason. */
  drops: Readonly<Record<string, number>>;
  /** Room in tables by their names. */
  tables: Readonly<Record<string, { used: number; capacity: number }>>;
}

export interface Datapath {
  readonly kind: DatapathKind;
  /** Valid from construction on; takes changes before `start`, too. */
  readonly director: Director;
  /** Milliseconds of the clock that the director goes by. */
  now(): number;
  /**
   * Begins to forward.
   * @throws Error whose message is one line: what is missing and what to do. Nothing is left behind then.
   */
  start(): Promise<void>;
  /** Ends it; safe to call twice, and before `start`. */
  stop(options: StopOptions): Promise<void>;
  status(): DatapathStatus;
  counters(): DatapathCounters;
  /**
   * Shows frames as they come to the director and as they leave, with what was decided, from now until it is closed.
   * Missing: this data path has no frames.
   * @throws Error whose message is one line: the filter is wrong, or it cannot be done now
   */
  observe?(options: ObservationOptions, show: (frame: CapturedFrame) => void): Observation;
  /** The number of an interface of the director's host; undefined if it has none of this name. */
  interfaceIndex(name: string): number | undefined;
}
