/**
 * A client, a director with the daemon on XDP, and servers, between network namespaces; and numbered datagrams through
 * it, of which each is accounted for.
 */
import { type ChildProcess, execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { removePinned } from '../src/datapath/xdp/fast-path.ts';
import type { Transfer } from './bulk.ts';
import type { ReceivedFlow, SentFlows } from './datagrams.ts';
import { NamespaceLab } from './namespaces.ts';

const root = join(import.meta.dirname, '..');
const node = join(root, 'node_modules/.bin/node');

export const VIP = '10.0.0.3';
/** Of the director. */
export const DIP = '10.0.0.5';
export const CLIENT = '10.0.0.1';

export interface Daemon {
  child: ChildProcess;
  /** What it wrote to stderr so far. */
  errors(): string;
}

/** A program that counts datagrams on a server. */
export interface Receiver {
  /** Ends it. What came, by flow. */
  finish(): Promise<Record<string, ReceivedFlow>>;
}

export class XdpLab {
  readonly lab = new NamespaceLab();
  readonly pins = `/sys/fs/bpf/${this.lab.prefix}`;
  readonly environment: NodeJS.ProcessEnv = {
    DIRIGO_BPF: this.pins,
    DIRIGO_SOCKET: join(this.lab.folder, 'socket'),
    DIRIGO_STATE: join(this.lab.folder, 'state'),
  };

  /** Adds the client and the director, each with one interface on the LAN. */
  addEnds(): void {
    this.lab.addHost('client', `${CLIENT}/24`);
    this.lab.addHost('director', `${DIP}/24`, `${VIP}/24`);
  }

  /** Adds a server that takes packets to the VIP and keeps silent about it. */
  addServer(name: string, address: string): void {
    const { lab } = this;
    lab.addHost(name, `${address}/24`);
    lab.run(name, 'sysctl', '-qw', 'net.ipv4.conf.all.arp_ignore=1', 'net.ipv4.conf.all.arp_announce=2');
    lab.run(name, 'ip', 'addr', 'add', `${VIP}/32`, 'dev', 'lo');
  }

  /** Starts the daemon on the director. @throws Error with its words if it ends at once */
  async startDaemon(interfaces: readonly string[] = ['eth0'], ...options: string[]): Promise<Daemon> {
    const attach = interfaces.flatMap(name => ['--interface', name]);
    const parameters = ['up', '--datapath', 'xdp', ...attach, ...options];
    const child = this.lab.start('director', this.environment, join(root, 'bin/dirigo'), ...parameters);
    return { child, errors: await started(child) };
  }

  /** Runs a command of bin/ that speaks with the daemon, and returns what it printed. */
  tool(name: 'dirigo' | 'ipvsadm', ...parameters: string[]): string {
    return execFileSync(join(root, 'bin', name), parameters, {
      env: { ...process.env, ...this.environment },
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  }

  ipvsadm(command: string): string {
    return this.tool('ipvsadm', ...command.split(' '));
  }

  /** `dirigo down`, and waits for the daemon's end. */
  async stopDaemon({ child }: Daemon): Promise<void> {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    this.tool('dirigo', 'down');
    await ended;
  }

  /** Ends the daemon as a crash would. */
  async kill({ child }: Daemon): Promise<void> {
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  }

  /** The data path's part of `dirigo status`. */
  status(): DatapathReport {
    return (JSON.parse(this.tool('dirigo', 'status', '--json')) as { datapath: DatapathReport }).datapath;
  }

  async startReceiver(host: string, port: number): Promise<Receiver> {
    const child = this.lab.start(host, {}, node, join(root, 'test/datagrams.ts'), 'receive', String(port));
    let output = '';
    child.stdout?.on('data', text => {
      output += text;
    });
    await started(child);
    const closed = once(child, 'close');
    return {
      finish: async () => {
        child.stdin?.end();
        await closed;
        return JSON.parse(output.replace('ready\n', '')) as Record<string, ReceivedFlow>;
      },
    };
  }

  /** Sends numbered datagrams from the client: `rate` a second of all flows together, `bytes` each; flows are numbered from `first`. */
  async send(
    address: string,
    port: number,
    flows: number,
    rate: number,
    seconds: number,
    { bytes = 18, first = 0 } = {},
  ): Promise<SentFlows> {
    const words = ['send', address, ...[port, flows, rate, seconds, bytes, first].map(String)];
    const child = this.lab.start('client', {}, node, join(root, 'test/datagrams.ts'), ...words);
    let output = '';
    child.stdout?.on('data', text => {
      output += text;
    });
    await once(child, 'close');
    return JSON.parse(output) as SentFlows;
  }

  /** Starts the other end of `transfer`. */
  async startBulkServer(host: string, port: number): Promise<{ end(): Promise<void> }> {
    const child = this.lab.start(host, {}, node, join(root, 'test/bulk.ts'), 'serve', String(port));
    await started(child);
    return {
      end: async () => {
        const closed = once(child, 'close');
        child.stdin?.end();
        await closed;
      },
    };
  }

  /** Sends or fetches bytes over one TCP connection from the client; at most a minute. */
  async transfer(direction: 'up' | 'down', address: string, port: number, bytes: number): Promise<Transfer> {
    const words = [direction, address, String(port), String(bytes)];
    const child = this.lab.start('client', {}, 'timeout', '60', node, join(root, 'test/bulk.ts'), ...words);
    let output = '';
    child.stdout?.on('data', text => {
      output += text;
    });
    await once(child, 'close');
    return JSON.parse(output || '{"bytes":0,"seconds":60}') as Transfer;
  }

  async remove(): Promise<void> {
    await this.lab.remove();
    removePinned(this.pins);
  }
}

/** Waits for a program's first words. @returns what it wrote to stderr so far; @throws Error with that if it ends at once */
async function started(child: ChildProcess): Promise<() => string> {
  let errors = '';
  child.stderr?.on('data', text => {
    errors += text;
  });
  const ended = once(child, 'exit').then(() => {
    throw new Error(`a program ended: ${errors}`);
  });
  ended.catch(() => {});
  await Promise.race([once(child.stdout as NodeJS.EventEmitter, 'data'), ended]);
  return () => errors;
}

/** What tests read of `dirigo status --json`. */
export interface DatapathReport {
  mode: string | string[];
  program: number;
  adopted: boolean;
  connections: number;
  capacity: number;
  received: number;
  transmitted: number;
  fastPath: Record<string, number>;
  queues: {
    interface: string;
    queue: number;
    received: number;
    waiting: number;
    of: number;
    dropped: number;
  }[];
  queueDrops: Record<string, number>;
  warnings: string[];
}

/** Waits until something holds. @throws Error that says what did not come about in ten seconds */
export async function eventually(holds: () => boolean, what: string): Promise<void> {
  for (const end = performance.now() + 10_000; !holds(); await sleep(50)) {
    if (performance.now() > end) throw new Error(`${what}: not within 10 s`);
  }
}

/**
 * Says what is wrong with what came of flows, of which each went to one of the servers as a whole: datagrams that were
 * lost, came twice, or came to another server than the others of their flow.
 */
export function problemsOf(
  sent: SentFlows,
  byServer: Readonly<Record<string, Record<string, ReceivedFlow>>>,
): string[] {
  const problems: string[] = [];
  for (let flow = sent.first; flow < sent.first + sent.flows; flow++) {
    const places = Object.entries(byServer).filter(([, flows]) => flows[flow]);
    if (places.length !== 1) {
      problems.push(`flow ${flow} came to ${places.map(([name]) => name).join(' and ') || 'nobody'}`);
    }
    for (const [name, flows] of places) {
      const { received, repeated } = flows[flow] as ReceivedFlow;
      if (received !== sent.each) problems.push(`flow ${flow} at ${name}: ${received} of ${sent.each} came`);
      if (repeated > 0) problems.push(`flow ${flow} at ${name}: ${repeated} came twice`);
    }
  }
  return problems;
}
