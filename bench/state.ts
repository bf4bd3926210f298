/** The desired state of many services: restoring it, and one change among them, through the daemon's socket. */
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildBpf } from '../bpf/build.ts';
import { Daemon } from '../src/control/daemon.ts';
import { SystemNames } from '../src/control/names.ts';
import { request } from '../src/control/request.ts';
import { VirtualDatapath } from '../src/datapath/virtual.ts';
import { missing } from '../test/requirements.ts';
import { type Daemon as LabDaemon, XdpLab } from '../test/xdp-lab.ts';
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

/** A daemon that is measured, over its socket. */
interface Measured {
  socket: string;
  /** Starts it, with the state that it kept. */
  start(): Promise<void>;
  /** Ends it. */
  stop(): Promise<void>;
  /** Milliseconds of CPU time that it has taken so far, its own and the kernel's for it. */
  cpuTime?(): number;
}

/** Restores everything, makes changes, starts again. @param on how figures end: which data path it is on */
async function measureState({ socket, start, stop, cpuTime }: Measured, on: string): Promise<void> {
  const ipvsadm = async (argv: readonly string[], stdin = ''): Promise<void> => {
    const { body } = await request(socket, 'POST', '/ipvsadm', { argv, stdin });
    const { status, stderr } = body as { status: number; stderr: string };
    if (status !== 0) throw new Error(`${argv.join(' ')}: ${stderr}`);
  };
  await start();
  const restore = await milliseconds(() => ipvsadm(['-R'], savedServices()));
  report({ what: `ipvsadm -R of all, on disk${on}`, value: restore, unit: 'ms', target: 5000 });
  const times: number[] = [];
  for (let index = 0; index < CHANGES; index++) {
    const key = `10.64.${(index * 7) & 31}.${index}:80`;
    const server = `10.0.${index & 127}.1:80`;
    const words = ['-e', '-t', key, '-r', server, '-g', '-w', String(index + 20)];
    times.push(await milliseconds(() => ipvsadm(words)));
  }
  report({ what: `the first change${on}`, value: times[0] as number, unit: 'ms', target: 20 });
  times.sort((one, other) => one - other);
  report({ what: `one change, median${on}`, value: times[CHANGES / 2] as number, unit: 'ms', target: 20 });
  report({
    what: `one change, worst of ${CHANGES}${on}`,
    value: times.at(-1) as number,
    unit: 'ms',
    target: 20,
  });
  await stop();
  const restart = await milliseconds(start);
  report({ what: `start of a daemon that restores all${on}`, value: restart, unit: 'ms', target: 5000 });
  if (cpuTime) report({ what: `CPU time of that start${on}`, value: cpuTime(), unit: 'ms' });
  await stop();
}

async function measureVirtual(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'dirigo-bench-'));
  const socket = join(folder, 'd.sock');
  const stateFolder = join(folder, 'state');
  let daemon: Daemon | undefined;
  const start = async (): Promise<void> => {
    daemon = await Daemon.start({
      socket,
      stateFolder,
      openDatapath: async () => new VirtualDatapath(),
      names: new SystemNames({ dns: false }),
    });
  };
  const stop = async (): Promise<void> => daemon?.stop({ remove: true });
  try {
    await measureState({ socket, start, stop }, '');
    const bytes = statSync(join(stateFolder, 'state.json')).size / 2 ** 20;
    report({ what: 'snapshot', value: bytes, unit: 'MiB' });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The same with the XDP program on an interface of a network namespace: every change goes to the kernel, too. */
async function measureXdp(): Promise<void> {
  buildBpf();
  const xdp = new XdpLab();
  try {
    xdp.addEnds();
    let daemon: LabDaemon | undefined;
    const sizes = ['--services', '32768', '--servers', '131072'];
    await measureState(
      {
        socket: xdp.environment.DIRIGO_SOCKET as string,
        start: async () => {
          daemon = await xdp.startDaemon(['eth0'], ...sizes);
        },
        stop: async () => daemon && xdp.stopDaemon(daemon),
        cpuTime: () => cpuTimeOf(daemon?.child.pid ?? 0),
      },
      ', on XDP',
    );
  } finally {
    await xdp.remove();
  }
}

/** Milliseconds of CPU time of a process (proc(5): fields 14 and 15 of its stat, in hundredths of a second). */
function cpuTimeOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return 10 * (Number(fields[11]) + Number(fields[12]));
}

export async function stateBenchmark(): Promise<void> {
  heading(`State: ${SERVICES} services with ${SERVERS} servers each`);
  await measureVirtual();
  const reason = missing('root', 'clang', 'ip', 'nsenter', 'ethtool');
  if (reason) process.stdout.write(`  the same on XDP is left out: ${reason}\n`);
  else await measureXdp();
}
