/**
 * Splits a command line into options the way the popt library does (poptGetNextOpt of popt 1.19), quirks included:
 * short options cluster, `-s=rr` means `-srr`, an optional argument is not taken if it starts with a dash, words that
 * are no options are collected for later, and long names are never abbreviated.
 */

export interface PoptOption<Tag extends string> {
  tag: Tag;
  /** Names without dashes; empty if it has none. */
  long: string;
  short: string;
  argument: 'none' | 'required' | 'optional';
}

export type PoptResult<Tag extends string> =
  | { kind: 'option'; tag: Tag; argument: string | undefined }
  | { kind: 'end' }
  /** `message` is poptStrerror's. */
  | { kind: 'error'; message: string };

const UNKNOWN_OPTION = 'unknown option';
const MISSING_ARGUMENT = 'missing argument';
const UNWANTED_ARGUMENT = 'option does not take an argument';

export class PoptReader<Tag extends string> {
  #options: readonly PoptOption<Tag>[];
  readonly #words: readonly string[];
  #next = 0;
  /** What is left of a cluster of short options, undefined outside of one. */
  #cluster: string | undefined;
  /** After `--`: everything else is no option. */
  #rest = false;
  /** Words that are no options, in their order. */
  readonly leftovers: string[] = [];

  constructor(options: readonly PoptOption<Tag>[], words: readonly string[]) {
    this.#options = options;
    this.#words = words;
  }

  /** Reads what follows by other options. */
  use(options: readonly PoptOption<Tag>[]): void {
    this.#options = options;
  }

  /** The word that was read last, which is what popt's error messages name. */
  get lastWord(): string {
    return this.#words[this.#next - 1] ?? '';
  }

  next(): PoptResult<Tag> {
    let option: PoptOption<Tag> | undefined;
    let attached: string | undefined;
    if (this.#cluster === undefined) {
      const word = this.#nextOptionWord();
      if (word === undefined) return { kind: 'end' };
      if (word.startsWith('--')) {
        const equals = word.indexOf('=');
        const name = word.slice(2, equals < 0 ? undefined : equals);
        if (equals >= 0) attached = word.slice(equals + 1);
        option = this.#options.find(candidate => candidate.long !== '' && candidate.long === name);
        if (!option) return { kind: 'error', message: UNKNOWN_OPTION };
      } else {
        this.#cluster = word.slice(1);
      }
    }
    if (this.#cluster !== undefined) {
      const cluster: string = this.#cluster;
      option = this.#options.find(candidate => candidate.short !== '' && candidate.short === cluster[0]);
      this.#cluster = undefined;
      if (!option) return { kind: 'error', message: UNKNOWN_OPTION };
      if (cluster.length > 1) this.#cluster = cluster.slice(1);
    }
    if (!option) return { kind: 'end' };
    if (option.argument === 'none') {
      const unwanted = attached !== undefined || this.#cluster?.startsWith('=') === true;
      if (unwanted) return { kind: 'error', message: UNWANTED_ARGUMENT };
      return { kind: 'option', tag: option.tag, argument: undefined };
    }
    return this.#withArgument(option, attached);
  }

  #withArgument(option: PoptOption<Tag>, attached: string | undefined): PoptResult<Tag> {
    let argument = attached;
    if (argument === undefined && this.#cluster !== undefined) {
      argument = this.#cluster.startsWith('=') ? this.#cluster.slice(1) : this.#cluster;
      this.#cluster = undefined;
    }
    if (argument === undefined) {
      const word = this.#words[this.#next];
      if (word === undefined) {
        if (option.argument === 'required') return { kind: 'error', message: MISSING_ARGUMENT };
      } else if (option.argument === 'required' || !word.startsWith('-')) {
        this.#next++;
        argument = word;
      }
    }
    return { kind: 'option', tag: option.tag, argument };
  }

  /** The next word that is one or more options; collects the others. */
  #nextOptionWord(): string | undefined {
    while (this.#next < this.#words.length) {
      const word = this.#words[this.#next++] as string;
      if (!this.#rest && word === '--') this.#rest = true;
      else if (this.#rest || !word.startsWith('-') || word === '-') this.leftovers.push(word);
      else return word;
    }
    return undefined;
  }
}
