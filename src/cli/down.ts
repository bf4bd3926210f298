/** `dirigo down`: stops the daemon. */
import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
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
  for (const end = performance.now() + PATIENCE; isRunning(pid); ) {
    if (performance.now() > end)
      throw new Error(`the daemon (pid ${pid}) is still there after ${PATIENCE / 1000} s`);
    await new Promise(resolve => setTimeout(resolve, INTERVAL));
  }
  process.stdout.write(`dirigo: stopped (pid ${pid})\n`);
}

/**
 * The lock of the socket would not do: the daemon may run in another network namespace, where it is not seen. One that
 * has ended but was not waited for by its parent yet (a zombie) is gone.
 */
function isRunning(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return !/^[ZX]/.test(stat.slice(stat.lastIndexOf(')') + 2));
  } catch {
    return false;
  }
}
