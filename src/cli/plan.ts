/** `dirigo plan`: what another desired state would change. */

import { type Command, InvalidArgumentError } from 'commander';
import { readNamedText } from '../control/named-file.ts';
import type { Plan } from '../control/plan.ts';
import { ask } from './ask.ts';
import { orFail } from './failure.ts';
import { planText } from './plan-text.ts';

/** Status of a plan that changes something, so that scripts can tell. */
const CHANGES = 2;
/** Affected clients that `--clients` lists if it names no number. */
const CLIENTS = 100;

/** What a file may hold, for the help of every command that reads one. */
export const FILE_FORMATS =
  '\nFILE (- for standard input) is what `ipvsadm -S` prints, or the JSON that `dirigo state` prints, in which anything\n' +
  'with a default may be left out (docs/state.md). What a file does not speak of stays as it is: settings, for example,\n' +
  'when it holds the lines of `ipvsadm -S`.';

export interface PlanOutput {
  json?: boolean;
}

export function addPlan(program: Command): void {
  program
    .command('plan')
    .summary('show what another desired state would change')
    .description(
      'Show what `dirigo apply FILE` would change, and whom it affects: connections that stay or drop, persistent clients ' +
        'that move to another server. Nothing is changed.',
    )
    .argument('<file>')
    .option('--clients [number]', `list the clients that are affected, ${CLIENTS} at most`, parseCount)
    .option('--json', 'print the plan as JSON')
    .addHelpText(
      'after',
      `${FILE_FORMATS}\n\nStatus: 0: nothing would change; 2: something would; 1: an error.`,
    )
    .action((file: string, options: PlanOutput & { clients?: number | true }) =>
      orFail(async () => {
        const clients = options.clients === true ? CLIENTS : (options.clients ?? 0);
        showPlan((await askForFile('/plan', file, { clients })) as Plan, options);
      }),
    );
}

/** Sends a file's text to the daemon. @throws Error that names the file */
export async function askForFile(path: string, file: string, more: object): Promise<unknown> {
  const text = readNamedText(file);
  return ask('POST', path, { text, ...more }).catch((error: Error) => {
    throw new Error(`${file === '-' ? 'standard input' : file}: ${error.message}`);
  });
}

/** Prints a plan that was only made; the status says whether it changes anything. */
export function showPlan(plan: Plan, { json }: PlanOutput): void {
  process.stdout.write(json ? `${JSON.stringify(plan, null, 2)}\n` : planText(plan, process.stdout.isTTY));
  if (plan.changes) process.exitCode = CHANGES;
}

export function parseCount(text: string): number {
  if (!/^[0-9]{1,9}$/.test(text)) throw new InvalidArgumentError('It has to be a whole number.');
  return Number(text);
}
