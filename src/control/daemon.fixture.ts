/** Daemons for tests: in this process, or as a process of their own that is gone when the test is. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

export interface Finished {
  status: number | null;
  stdout: string;
  stderr: string;
}

/** Runs a program of bin/ to its end. */
export function runBin(
  name: string,
  words: readonly string[],
  environment: Record<string, string>,
  options: { input?: string; uid?: number } = {},
): Finished {
  const { status, stdout, stderr } = spawnSync(join(ROOT, 'bin', name), words, {
    encoding: 'utf8',
    env: { ...process.env, ...environment },
    input: options.input ?? '',
    // A daemon that starts where it should have refused would never end.
    timeout: 20_000,
    ...(options.uid === undefined ? {} : { uid: options.uid, gid: options.uid }),
  });
  return { status, stdout, stderr };
}

/** A folder of its own for a test. */
export function temporaryFolder(context: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'dirigo-test-'));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Starts `dirigo up --datapath virtual` and waits until it is ready. */
export async function startDaemon(
  context: TestContext,
  environment: Record<string, string>,
  words: readonly string[] = [],
): Promise<ChildProcess> {
  const daemon = spawn(
    process.execPath,
    [join(ROOT, 'src/cli/dirigo.ts'), 'up', '--datapath', 'virtual', ...words],
    {
      env: { ...process.env, ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  );
  context.after(() => {
    daemon.kill('SIGKILL');
  });
  let stderr = '';
  daemon.stderr.on('data', chunk => {
    stderr += chunk;
  });
  await new Promise<void>((resolve, reject) => {
    daemon.stdout.once('data', () => resolve());
    daemon.once('exit', status => reject(new Error(`the daemon ended with status ${status}: ${stderr}`)));
  });
  return daemon;
}

/** Waits for the end of a process: its status, or the signal that ended it. */
export function ended(process: ChildProcess): Promise<number | string | null> {
  if (process.exitCode !== null || process.signalCode !== null) {
    return Promise.resolve(process.exitCode ?? process.signalCode);
  }
  return new Promise(resolve => {
    process.once('exit', (status, signal) => resolve(status ?? signal));
  });
}
