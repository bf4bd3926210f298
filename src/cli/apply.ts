/** `dirigo apply`: another desired state, in one step or not at all. */
import { basename } from 'node:path';
import type { Command } from 'commander';
import type { Plan } from '../control/plan.ts';
import type { Applied } from '../control/routes/state.ts';
import { orFail } from './failure.ts';
import { askForFile, FILE_FORMATS, type PlanOutput, parseCount, showPlan } from './plan.ts';
import { planText } from './plan-text.ts';

interface ApplyOptions extends PlanOutput {
  dryRun?: boolean;
  revision?: number;
}

export function addApply(program: Command): void {
  program
    .command('apply')
    .summary('make the desired state what a file says')
    .description(
      'Make the desired state what FILE says, in one step: packets meet the old one or the new one. If anything in it is ' +
        'refused, nothing changes. `dirigo rollback` takes it back.',
    )
    .argument('<file>')
    .option('-n, --dry-run', 'only show the plan, as `dirigo plan`')
    .option(
      '--revision <number>',
      'only if this is the last revision still (a plan names its own)',
      parseCount,
    )
    .option('--json', 'print the plan that was carried out and the new revision as JSON')
    .addHelpText(
      'after',
      `${FILE_FORMATS}\n\nStatus: 0: it is so now; 1: an error. With -n that of \`dirigo plan\`.`,
    )
    .action((file: string, options: ApplyOptions) => orFail(() => apply(file, options)));
}

async function apply(file: string, { dryRun, revision, json }: ApplyOptions): Promise<void> {
  if (dryRun) {
    showPlan((await askForFile('/plan', file, {})) as Plan, { json: json === true });
    return;
  }
  const cause = `apply ${file === '-' ? '-' : basename(file)}`;
  const applied = (await askForFile('/apply', file, {
    cause,
    ...(revision !== undefined && { revision }),
  })) as Applied;
  showApplied(applied, json === true);
}

/** Prints what was carried out. */
export function showApplied(applied: Applied, json: boolean): void {
  if (json) {
    process.stdout.write(`${JSON.stringify(applied, null, 2)}\n`);
    return;
  }
  process.stdout.write(planText(applied.plan, process.stdout.isTTY));
  if (applied.plan.changes) process.stdout.write(`Done: revision ${applied.revision}.\n`);
}
