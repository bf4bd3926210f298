/** `dirigo rollback`: back to a desired state that was. */
import type { Command } from 'commander';
import type { Applied, RevisionSummary } from '../control/routes/state.ts';
import { showApplied } from './apply.ts';
import { ask } from './ask.ts';
import { orFail } from './failure.ts';
import { type PlanOutput, parseCount, showPlan } from './plan.ts';

interface RollbackOptions extends PlanOutput {
  list?: boolean;
  to?: number;
  dryRun?: boolean;
}

export function addRollback(program: Command): void {
  program
    .command('rollback')
    .summary('go back to a desired state that was')
    .description(
      'Go back to the state before the last revision, or after an earlier one, in one step. Every acknowledged change is a ' +
        'revision: an `ipvsadm` command, an apply, a setting. Going back is one too, so a second rollback undoes the first.',
    )
    .option('--list', 'list the revisions that can be gone back, newest first')
    .option('--to <number>', 'the revision to go to; 0 is the state before the first', parseCount)
    .option('-n, --dry-run', 'only show what would change; status as that of `dirigo plan`')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nStatus: 0; 1: an error, or there is nothing to go back to.')
    .action((options: RollbackOptions) => orFail(() => rollback(options)));
}

async function rollback({ list, to, dryRun, json }: RollbackOptions): Promise<void> {
  if (list) {
    const listed = (await ask('GET', '/revisions')) as { revision: number; revisions: RevisionSummary[] };
    process.stdout.write(json ? `${JSON.stringify(listed, null, 2)}\n` : listText(listed.revisions));
    return;
  }
  const body = { ...(to !== undefined && { to }), ...(dryRun && { plan: true }) };
  const applied = (await ask('POST', '/rollback', body)) as Applied & { to: number };
  if (dryRun) {
    showPlan(applied.plan, { json: json === true });
    return;
  }
  showApplied(applied, json === true);
  if (!json) process.stdout.write(`The state is that of revision ${applied.to}.\n`);
}

function listText(revisions: readonly RevisionSummary[]): string {
  if (revisions.length === 0) return 'Nothing has changed yet.\n';
  const rows = revisions.map(
    ({ number, at, cause }) =>
      `${String(number).padStart(8)}  ${at.slice(0, 19).replace('T', ' ')}  ${cause}\n`,
  );
  return `Revision  Time (UTC)           Change\n${rows.join('')}`;
}
