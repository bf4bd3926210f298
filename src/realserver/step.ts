/** What a mode needs, as steps: each can be inspected, made, written as shell commands, and taken back. */
import type { Restoration } from './restoration.ts';

/**
 * `missing`: not done yet, and applying does it. `wrong`: something stands in the way that is left to the administrator.
 * `warning`: it works, but somebody should know.
 */
export type FindingLevel = 'missing' | 'wrong' | 'warning';

export interface Finding {
  level: FindingLevel;
  /** What is, and what it does. */
  text: string;
  /** What to do about it: commands of a shell, or a sentence. */
  remedy: string;
  /** The steps may change it: it is not in their way. */
  isOutcome?: true;
}

export interface Step {
  /** The same for what is one and the same thing on the host, whoever asks for it. */
  readonly key: string;
  /** What is so when it is made, in a few words. */
  readonly label: string;
  /** The VIPs that need it; undefined: all that were asked for. */
  readonly vips?: readonly string[];
  /** Equivalent commands for a shell. */
  commands(): string[];
  /** What is not as the step makes it; undefined: nothing. */
  inspect(): Finding | undefined;
  /** True if there is nothing to do for `make`. */
  isMade(): boolean;
  /** What will take the step back, from what is there now. Changes nothing. */
  prepare(): Restoration;
  make(): void;
}

/** What a mode needs on this host. */
export interface Plan {
  /** In the order in which they are made. */
  steps: Step[];
  /** What no step makes right; looked up when it is called. */
  examine(): Finding[];
  /** Sentences for the administrator: limits, what to set elsewhere. */
  advice(): string[];
}

/** The remedy for what is missing and too long to type. */
export const RUN_IT = 'run this again without --check (--print shows the commands)';

/** A word as a shell takes it. */
export function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
