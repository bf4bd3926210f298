/** `dirigo reload`: the daemon begins anew. */
import type { Command } from 'commander';
import type { DaemonStatus } from '../control/routes/status.ts';
import { ask } from './ask.ts';
import { orFail } from './failure.ts';

/** Milliseconds to wait for the daemon, and between two looks. */
const PATIENCE = 15_000;
const INTERVAL = 20;

export function addReload(program: Command): void {
  program
    .command('reload')
    .summary('have the daemon begin anew, in the version that is installed')
    .description(
      'Have the daemon begin anew in its own place: the same process, with the same options, in the version that is ' +
        'installed by now. It reads its state and the host anew and takes its data path over; established connections ' +
        'go on, and commands that come meanwhile wait. If the new one could not start, nothing happens.\n' +
        'SIGHUP does the same. To change options, use `dirigo up --replace`.',
    )
    .action(() => orFail(reload));
}

async function reload(): Promise<void> {
  const before = (await ask('POST', '/reload')) as { pid: number; startedAt: string };
  for (const end = performance.now() + PATIENCE; ; ) {
    const status = (await ask('GET', '/status').catch(() => undefined)) as DaemonStatus | undefined;
    if (status && (status.startedAt !== before.startedAt || status.pid !== before.pid)) {
      process.stdout.write(`dirigo: reloaded (pid ${status.pid}, version ${status.version})\n`);
      return;
    }
    if (performance.now() > end) {
      throw new Error(`the daemon (pid ${before.pid}) did not come back within ${PATIENCE / 1000} s`);
    }
    await new Promise(resolve => setTimeout(resolve, INTERVAL));
  }
}
