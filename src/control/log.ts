/**
 * The daemon's log: one line an event, on standard error. An event is a few words that are always the same, its
 * particulars are fields behind them. Nothing here is written for each packet.
 *
 * | format | a line |
 * |---|---|
 * | `text` | `2026-11-28T06:41:00.123Z info changed by="uid 0 (pid 77)" revision=3` |
 * | `json` | `{"time":"…","level":"info","event":"changed","by":"uid 0 (pid 77)","revision":3}` |
 * | `journal` | `<6>changed by="uid 0 (pid 77)" revision=3`: the priority as journald reads it (sd-daemon(3)) |
 */

import { LogWriter } from './log-writer.ts';

/** From the gravest to the least. */
export const LOG_LEVELS = ['error', 'warning', 'info', 'debug'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export const LOG_FORMATS = ['text', 'json', 'journal'] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

export type LogFields = Readonly<Record<string, string | number | boolean | null | undefined>>;

export interface LogOptions {
  /** Least grave level that is written. Default `info`. */
  level?: LogLevel;
  /** Default: `journal` if standard error goes to the journal, else `text`. */
  format?: LogFormat;
  /** Takes a line with its end. Default: standard error. */
  write?: (line: string) => void;
  /** Milliseconds since 1970. Default: `Date.now`. */
  wallClock?: () => number;
}

/** syslog's numbers. */
const PRIORITIES: Readonly<Record<LogLevel, number>> = { error: 3, warning: 4, info: 6, debug: 7 };

/** Milliseconds in which the same problem is written once; how often it came back is written at their end. */
export const REPETITION = 60_000;
/** Problems that are remembered as written. */
const MOST_PROBLEMS = 256;
/** Letters of a value that are written. */
const LONGEST_VALUE = 1000;

interface Problem {
  level: LogLevel;
  event: string;
  fields: LogFields;
  repeated: number;
  timer: NodeJS.Timeout;
}

export class Log {
  readonly format: LogFormat;
  readonly #worst: number;
  readonly #write: (line: string) => void;
  readonly #writer: LogWriter | undefined;
  readonly #wallClock: () => number;
  readonly #problems = new Map<string, Problem>();

  constructor(options: LogOptions = {}) {
    this.format = options.format ?? (process.env.JOURNAL_STREAM ? 'journal' : 'text');
    this.#worst = LOG_LEVELS.indexOf(options.level ?? 'info');
    this.#writer = options.write ? undefined : new LogWriter();
    this.#write = options.write ?? (line => this.#writer?.write(line));
    this.#wallClock = options.wallClock ?? Date.now;
  }

  /** The daemon failed at something; somebody has to look. */
  error(event: string, fields: LogFields = {}): void {
    this.#problem('error', event, fields);
  }

  /** Something is not as it should be, and is dealt with. */
  warning(event: string, fields: LogFields = {}): void {
    this.#problem('warning', event, fields);
  }

  /** What an operator did, and what the daemon did about itself. */
  info(event: string, fields: LogFields = {}): void {
    this.#line('info', event, fields);
  }

  debug(event: string, fields: LogFields = {}): void {
    this.#line('debug', event, fields);
  }

  /** Writes how often problems came back that have not been written since, and waits for what is still to be written. */
  async close(): Promise<void> {
    for (const key of [...this.#problems.keys()]) this.#settle(key);
    await this.#writer?.drained();
  }

  /** True if somebody holds up the last lines, after `close` too. */
  get isHeldUp(): boolean {
    return this.#writer?.isWriting ?? false;
  }

  /** Writes it, unless the same was written a moment ago: then it is counted. */
  #problem(level: LogLevel, event: string, fields: LogFields): void {
    const key = JSON.stringify([level, event, fields]);
    const known = this.#problems.get(key);
    if (known) {
      known.repeated++;
      return;
    }
    this.#line(level, event, fields);
    const [oldest] = this.#problems.keys();
    if (this.#problems.size >= MOST_PROBLEMS && oldest !== undefined) this.#settle(oldest);
    const timer = setTimeout(() => this.#settle(key), REPETITION);
    timer.unref();
    this.#problems.set(key, { level, event, fields, repeated: 0, timer });
  }

  #settle(key: string): void {
    const problem = this.#problems.get(key);
    if (!problem) return;
    clearTimeout(problem.timer);
    this.#problems.delete(key);
    const { level, event, fields, repeated } = problem;
    if (repeated > 0) this.#line(level, event, { ...fields, repeated });
  }

  #line(level: LogLevel, event: string, fields: LogFields): void {
    if (LOG_LEVELS.indexOf(level) > this.#worst) return;
    const time = new Date(this.#wallClock()).toISOString();
    const given = Object.entries(fields).filter(([, value]) => value !== undefined);
    if (this.format === 'json') {
      this.#write(`${JSON.stringify({ time, level, event, ...Object.fromEntries(given.map(shortened)) })}\n`);
      return;
    }
    const text = [event, ...given.map(([name, value]) => `${name}=${valueText(value)}`)].join(' ');
    this.#write(this.format === 'journal' ? `<${PRIORITIES[level]}>${text}\n` : `${time} ${level} ${text}\n`);
  }
}

type Field = [string, LogFields[string]];

function shortened([name, value]: Field): Field {
  return [name, typeof value === 'string' && value.length > LONGEST_VALUE ? cut(value) : value];
}

function cut(text: string): string {
  return `${text.slice(0, LONGEST_VALUE)}…`;
}

/** A value without blanks stands as it is, others as JSON writes them: a line stays one. */
function valueText(value: LogFields[string]): string {
  if (typeof value !== 'string') return String(value);
  const text = value.length > LONGEST_VALUE ? cut(value) : value;
  return /^[!#-<>-~]+$/.test(text) ? text : JSON.stringify(text);
}
