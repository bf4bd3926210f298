/** `dirigo down`: stops the daemon. */
import type { Command } from 'commander';
import { isLocked } from '../control/socket.ts';
import { socketPath } from '../control/socket-path.ts';
import { ask } from './ask.ts';
import { orFail } from './failure.ts';

/** Milliseconds to wait for the daemon's end, and between two looks. */
const PATIENCE = 10_000;
const INTERVAL = 20;

export function addDown(program: Command): void {
  program
    .command('down')
    .summary('stop the daemon')
    .description('Stop the daemon and its data path, and remove every trace of them from the system.')
    .action(() => orFail(down));
}

async function down(): Promise<void> {
  const { pid } = (await ask('POST', '/shutdown', { remove: true })) as { pid: number };
  for (const end = performance.now() + PATIENCE; await isLocked(socketPath()); ) {
    if (performance.now() > end)
      throw new Error(`the daemon (pid ${pid}) is still there after ${PATIENCE / 1000} s`);
    await new Promise(resolve => setTimeout(resolve, INTERVAL));
  }
  process.stdout.write(`dirigo: stopped (pid ${pid})\n`);
}
