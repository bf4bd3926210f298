/**
 * One daemon taking the place of another without anybody being told that none runs. While that goes on a file beside the
 * socket says so: those who want to talk to the daemon wait for the next one instead of failing.
 *
 * Imported by the `ipvsadm` client: keep it free of imports that cost time.
 */
import { readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';

/** Milliseconds after which a successor that has not come is not waited for any more. */
const PATIENCE = 15_000;

/** Milliseconds to wait for a daemon's end, and between two looks. */
const END_PATIENCE = 10_000;
const INTERVAL = 20;

const markPath = (socket: string): string => `${socket}.next`;

/** Says that another daemon follows. */
export function announceSuccessor(socket: string): void {
  writeFileSync(markPath(socket), '', { mode: 0o600 });
}

/** Says that nobody is to wait: the successor listens, or there is none. */
export function endHandover(socket: string): void {
  rmSync(markPath(socket), { force: true });
}

/** True while a daemon that was announced is still to be expected. */
export function isSuccessorDue(socket: string): boolean {
  const mark = statSync(markPath(socket), { throwIfNoEntry: false });
  return mark !== undefined && Date.now() - mark.mtimeMs < PATIENCE;
}

/**
 * Has the daemon that runs give its place up to this process, and waits until it is gone.
 * @returns its process id, undefined if none runs
 * @throws Error that says why it does not go
 */
export async function takeOver(socket: string): Promise<number | undefined> {
  const { requestOnce } = await import('./request.ts');
  const answer = await requestOnce(socket, 'POST', '/shutdown', { remove: false, successor: true }).catch(
    () => undefined,
  );
  if (!answer) return undefined;
  const { pid, error } = answer.body as { pid?: number; error?: string };
  if (pid === undefined) throw new Error(`the daemon that runs does not give its place up: ${error}`);
  await untilEnded(pid);
  return pid;
}

/**
 * Waits for the end of a process. The lock of the socket would not do: the daemon may run in another network namespace,
 * where it is not seen.
 * @throws Error if it is still there after ten seconds
 */
export async function untilEnded(pid: number): Promise<void> {
  for (const end = performance.now() + END_PATIENCE; isRunning(pid); ) {
    if (performance.now() > end) {
      throw new Error(`the daemon (pid ${pid}) is still there after ${END_PATIENCE / 1000} s`);
    }
    await new Promise(resolve => setTimeout(resolve, INTERVAL));
  }
}

/** One that has ended but was not waited for by its parent yet (a zombie) is gone. */
export function isRunning(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return !/^[ZX]/.test(stat.slice(stat.lastIndexOf(')') + 2));
  } catch {
    return false;
  }
}
