/** The desired state of many services: restoring it, and one change among them, through the daemon's socket. */
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Daemon } from '../src/control/daemon.ts';
import { SystemNames } from '../src/control/names.ts';
import { request } from '../src/control/request.ts';
import { VirtualDatapath } from '../src/datapath/virtual.ts';
import { heading, report } from './measure.ts';

const SERVICES = 10_000;
const SERVERS = 10;
const CHANGES = 200;

/** What `ipvsadm -S -n` prints for that many services. */
function savedServices(): string {
  const lines: string[] = [];
  for (let index = 0; index < SERVICES; index++) {
    const key = `-t 10.${64 + (index >> 16)}.${(index >> 8) & 255}.${index & 255}:80`;
    lines.push(`-A ${key} -s wrr`);
    for (let server = 1; server <= SERVERS; server++) {
      lines.push(`-a ${key} -r 10.0.${index & 127}.${server}:80 -g -w ${server}`);
    }
  }
  return `${lines.join('\n')}\n`;
}

/** The milliseconds that something took. */
async function milliseconds(work: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  await work();
  return performance.now() - begin;
}

export async function stateBenchmark(): Promise<void> {
  heading(`State: ${SERVICES} services with ${SERVERS} servers each`);
  const folder = mkdtempSync(join(tmpdir(), 'dirigo-bench-'));
  const socket = join(folder, 'd.sock');
  const stateFolder = join(folder, 'state');
  const start = (): Promise<Daemon> =>
    Daemon.start({
      socket,
      stateFolder,
      openDatapath: async () => new VirtualDatapath(),
      names: new SystemNames({ dns: false }),
    });
  const ipvsadm = async (argv: readonly string[], stdin = ''): Promise<void> => {
    const { body } = await request(socket, 'POST', '/ipvsadm', { argv, stdin });
    const { status, stderr } = body as { status: number; stderr: string };
    if (status !== 0) throw new Error(`${argv.join(' ')}: ${stderr}`);
  };
  try {
    let daemon = await start();
    const restore = await milliseconds(() => ipvsadm(['-R'], savedServices()));
    report({ what: 'ipvsadm -R of all, on disk', value: restore, unit: 'ms', target: 5000 });
    const times: number[] = [];
    for (let index = 0; index < CHANGES; index++) {
      const key = `10.64.${(index * 7) & 31}.${index}:80`;
      const server = `10.0.${index & 127}.1:80`;
      const words = ['-e', '-t', key, '-r', server, '-g', '-w', String(index + 20)];
      times.push(await milliseconds(() => ipvsadm(words)));
    }
    times.sort((one, other) => one - other);
    report({ what: 'one change, median', value: times[CHANGES / 2] as number, unit: 'ms', target: 20 });
    report({
      what: `one change, worst of ${CHANGES}`,
      value: times.at(-1) as number,
      unit: 'ms',
      target: 20,
    });
    await daemon.stop({ remove: true });
    const restart = await milliseconds(async () => {
      daemon = await start();
    });
    report({ what: 'start of a daemon that restores all', value: restart, unit: 'ms', target: 5000 });
    const bytes = statSync(join(stateFolder, 'state.json')).size / 2 ** 20;
    report({ what: 'snapshot', value: bytes, unit: 'MiB' });
    await daemon.stop({ remove: true });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
