/** How a command line ends the program, and what of it is not legal. */
import type { Legality, OptionName } from './options.ts';

/** The command line ends the program here: a usage error, help or version. */
export class Exit extends Error {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;

  constructor(status: number, stdout: string, stderr: string) {
    super(stderr.trimEnd());
    this.name = 'Exit';
    this.status = status;
    this.stdout = stdout;
    this.stderr = stderr;
  }
}

/** The options library refuses an option: `-R` prints it and goes on with its next line, unlike after an `Exit`. */
export class OptionError extends Error {}

/** Ends with a usage error. */
export function fail(message: string): never {
  throw new Exit(2, '', `${message}\n`);
}

/** Ends with the message of the first option, in the order of `order`, that is missing, illegal or one too many. */
export function checkLegality(
  legality: Legality,
  order: readonly OptionName[],
  given: ReadonlySet<OptionName>,
  subject: string,
): void {
  let chosen: OptionName | undefined;
  for (const option of order) {
    if (!given.has(option)) {
      if (legality.required?.includes(option)) {
        fail(`You need to supply the '${option}' option for the ${subject}`);
      }
    } else if (legality.exclusive?.includes(option)) {
      if (chosen) fail(`The option '${option}' conflicts with the '${chosen}' option in the ${subject}`);
      chosen = option;
    } else if (!legality.required?.includes(option) && !legality.allowed?.includes(option)) {
      fail(`Illegal '${option}' option with the ${subject}`);
    }
  }
}
