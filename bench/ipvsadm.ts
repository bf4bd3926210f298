/** What a call of `ipvsadm` costs beyond starting Node: the bin of this tree, and the compiled one where it was built. */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Daemon } from '../src/control/daemon.ts';
import { VirtualDatapath } from '../src/datapath/virtual.ts';
import { heading, report } from './measure.ts';

const ROOT = fileURLToPath(new URL('../', import.meta.url));
const RUNS = 30;
/** Milliseconds that a call may cost. */
const TARGET = 40;

/** The least milliseconds that a program takes; interleaved, so that all meet the same machine. */
async function least(
  commands: readonly (readonly string[])[],
  environment: NodeJS.ProcessEnv,
): Promise<number[]> {
  const times = commands.map(() => Number.POSITIVE_INFINITY);
  for (let run = 0; run < RUNS; run++) {
    for (const [index, [program = '', ...words]] of commands.entries()) {
      const begin = performance.now();
      await finished(program, words, environment);
      times[index] = Math.min(times[index] as number, performance.now() - begin);
    }
  }
  return times;
}

/** The daemon is in this process: it must be able to answer meanwhile. */
async function finished(program: string, words: string[], environment: NodeJS.ProcessEnv): Promise<void> {
  const child = spawn(program, words, { env: environment, stdio: 'ignore' });
  const status = await new Promise(resolve => child.once('exit', resolve));
  if (status !== 0) throw new Error(`${program} ${words.join(' ')} ended with status ${status}`);
}

export async function ipvsadmBenchmark(): Promise<void> {
  heading('ipvsadm: a call, beyond starting an empty Node program');
  const folder = mkdtempSync(join(tmpdir(), 'dirigo-bench-'));
  const socket = join(folder, 'd.sock');
  const empty = join(folder, 'empty.mjs');
  const compiled = join(ROOT, 'dist/cli/ipvsadm.js');
  writeFileSync(empty, '');
  const daemon = await Daemon.start({ socket, openDatapath: async () => new VirtualDatapath() });
  try {
    const words = ['-L', '-n'];
    const commands = [
      [process.execPath, empty],
      [join(ROOT, 'bin/ipvsadm'), ...words],
      ...(existsSync(compiled) ? [[process.execPath, compiled, ...words]] : []),
    ];
    const environment = { ...process.env, DIRIGO_SOCKET: socket };
    const [start = 0, bin = 0, dist] = await least(commands, environment);
    report({ what: 'an empty Node program', value: start, unit: 'ms' });
    report({ what: 'bin/ipvsadm -L -n of this tree: more', value: bin - start, unit: 'ms', target: TARGET });
    if (dist === undefined) heading('  (npm run build, and the compiled one is measured, too)');
    else report({ what: 'compiled: more', value: dist - start, unit: 'ms', target: TARGET });
  } finally {
    await daemon.stop({ remove: true });
    rmSync(folder, { recursive: true, force: true });
  }
}
