/** `dirigo down`: stops the daemon, or removes what one that is gone left. */
import { rmdirSync, rmSync } from 'node:fs';
import type { Command } from 'commander';
import { endHandover, untilEnded } from '../control/handover.ts';
import { RequestError, requestOnce } from '../control/request.ts';
import type { DaemonStatus } from '../control/routes/status.ts';
import { DEFAULT_SOCKET, socketPath } from '../control/socket-path.ts';
import { orFail } from './failure.ts';

interface DownOptions {
  purgeState?: true;
}

export function addDown(program: Command): void {
  program
    .command('down')
    .summary('stop the daemon and its data path')
    .description(
      'Stop the daemon and its data path, and remove every trace of them from the system: programs, tables, pins, socket.\n' +
        'Established connections end. What a daemon that was killed left is removed, too. The desired state on disk stays.\n\n' +
        'To end the daemon only, send it SIGTERM: its data path goes on, and the next daemon takes it over.',
    )
    .option('--purge-state', 'remove the desired state, too')
    .action((options: DownOptions) => orFail(() => down(options)));
}

async function down(options: DownOptions): Promise<void> {
  const socket = socketPath();
  const status = await runningDaemon(socket);
  const lines = status ? [await stop(socket, status)] : await removeRemains(socket);
  if (options.purgeState) {
    const { removeState } = await import('../control/state-folder.ts');
    const folder = status ? folderOf(status.state) : process.env.DIRIGO_STATE || '/var/lib/dirigo';
    if (folder !== undefined && removeState(folder)) lines.push(`removed the state in ${folder}`);
  }
  if (lines.length === 0) {
    throw new Error(`no daemon listens on ${socket}, and none left anything behind`);
  }
  for (const line of lines) process.stdout.write(`dirigo: ${line}\n`);
}

/** The daemon that listens, undefined if there is none. */
async function runningDaemon(socket: string): Promise<DaemonStatus | undefined> {
  try {
    return (await requestOnce(socket, 'GET', '/status')).body as DaemonStatus;
  } catch (error) {
    const code = error instanceof RequestError ? error.code : undefined;
    if (code === 'ENOENT' || code === 'ECONNREFUSED') return undefined;
    if (code === 'EACCES') throw new Error(`${socket} belongs to another user: run this as that user`);
    throw error;
  }
}

async function stop(socket: string, { pid }: DaemonStatus): Promise<string> {
  const { status, body } = await requestOnce(socket, 'POST', '/shutdown', { remove: true });
  if (status !== 200) throw new Error((body as { error: string }).error);
  await untilEnded(pid);
  if (socket === DEFAULT_SOCKET) removeIfThere(() => rmdirSync('/run/dirigo'));
  return `stopped (pid ${pid})`;
}

/** Removes what a daemon left that did not end by itself. */
async function removeRemains(socket: string): Promise<string[]> {
  const lines: string[] = [];
  const pins = process.env.DIRIGO_BPF || undefined;
  // Whoever means another daemon than the default one must say where its tables are.
  if (process.getuid?.() === 0 && (pins !== undefined || socket === DEFAULT_SOCKET)) {
    const { removeLeftovers } = await import('../datapath/xdp/predecessor.ts');
    const removed = await removeLeftovers(pins);
    if (removed !== undefined) lines.push(`no daemon runs; removed ${removed}`);
  }
  endHandover(socket);
  if (removeIfThere(() => rmSync(socket))) lines.push(`removed the socket ${socket}`);
  if (socket === DEFAULT_SOCKET) removeIfThere(() => rmdirSync('/run/dirigo'));
  return lines;
}

function removeIfThere(remove: () => void): boolean {
  try {
    remove();
    return true;
  } catch (error) {
    if (['ENOENT', 'ENOTEMPTY', 'EEXIST'].includes((error as NodeJS.ErrnoException).code ?? '')) return false;
    throw error;
  }
}

/** The folder of a state by the path of its snapshot. */
function folderOf(path: string | null): string | undefined {
  return path === null ? undefined : path.replace(/\/[^/]*$/, '');
}
