/** `dirigo status`: what the daemon is and holds. */
import type { Command } from 'commander';
import type { DaemonStatus } from '../control/routes/status.ts';
import { ask } from './ask.ts';
import { orFail } from './failure.ts';
import { statusText } from './status-text.ts';

export function addStatus(program: Command): void {
  program
    .command('status')
    .summary('show the daemon and its data path')
    .description(
      'Show the daemon and its data path: what it holds, which way packets go, what is dropped and why. Status 1 if none runs.',
    )
    .option('--json', 'print it as JSON')
    .action((options: { json?: boolean }) =>
      orFail(async () => {
        const status = (await ask('GET', '/status')) as DaemonStatus;
        process.stdout.write(options.json ? `${JSON.stringify(status, null, 2)}\n` : statusText(status));
      }),
    );
}
