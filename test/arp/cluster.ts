/** A cluster of namespaces for the guard: a client, two directors, a real server, an attacker, on one bridge. */
import type { ChildProcess } from 'node:child_process';
import { inNetworkNamespace } from '../../src/datapath/ffi/libc.ts';
import { Segment, segmentInterface } from '../../src/guard/segment.ts';
import { formatMac } from '../../src/wire/address.ts';
import { NamespaceLab } from '../namespaces.ts';
import { dirigo } from './programs.ts';

export const VIP = '10.3.0.3';
export const VIP6 = '2001:db8:3::3';
export const HOSTS = ['client', 'director', 'backup', 'server', 'attacker'] as const;
export type HostName = (typeof HOSTS)[number];

const OCTET: Record<HostName, number> = { client: 1, director: 5, backup: 6, server: 7, attacker: 66 };

export function addressOf(host: HostName): string {
  return `10.3.0.${OCTET[host]}`;
}

export interface GuardEventLine {
  kind: string;
  severity: string;
  time: string;
  address?: string;
  mac?: string;
  dropped: boolean;
  text: string;
}

/** `dirigo arp guard --json` on a host. */
export class RunningGuard {
  readonly events: GuardEventLine[] = [];
  /** When each event was printed, milliseconds since 1970. */
  readonly heard: number[] = [];
  stderr = '';
  readonly process: ChildProcess;

  constructor(process: ChildProcess) {
    this.process = process;
    let rest = '';
    process.stdout?.on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        this.events.push(JSON.parse(line));
        this.heard.push(Date.now());
      }
    });
    process.stderr?.on('data', (text: string) => {
      this.stderr += text;
    });
  }

  /** Waits until it guards. */
  async ready(): Promise<this> {
    await until(() => /guarding/.test(this.stderr) || this.process.exitCode !== null, 20_000);
    if (this.process.exitCode !== null) throw new Error(`the guard ended: ${this.stderr}`);
    return this;
  }

  /** Waits for an event of this kind; `undefined` if none comes in five seconds. */
  async event(kind: string, matches: (event: GuardEventLine) => boolean = () => true) {
    await until(() => this.events.some(each => each.kind === kind && matches(each)), 5_000).catch(() => {});
    return this.events.find(each => each.kind === kind && matches(each));
  }

  /** Warnings and alarms so far. */
  alarms(): GuardEventLine[] {
    return this.events.filter(({ severity }) => severity !== 'info');
  }

  async stop(): Promise<void> {
    if (this.process.exitCode !== null) return;
    const ended = new Promise(resolve => this.process.once('exit', resolve));
    this.process.kill('SIGTERM');
    await ended;
  }
}

export class GuardedCluster {
  readonly lab = new NamespaceLab();
  readonly macs: Record<HostName, string>;
  readonly #segments = new Map<string, Segment>();

  constructor() {
    for (const host of HOSTS)
      this.lab.addHost(host, `${addressOf(host)}/24`, `2001:db8:3::${OCTET[host]}/64`);
    this.lab.run('director', 'ip', 'addr', 'add', `${VIP}/32`, 'dev', 'eth0');
    this.lab.run('director', 'ip', 'addr', 'add', `${VIP6}/128`, 'dev', 'eth0', 'nodad');
    const macs = HOSTS.map(host => [host, formatMac(this.segment(host).interface.mac)] as const);
    this.macs = Object.fromEntries(macs) as Record<HostName, string>;
  }

  /** A host's interface, to send frames from. */
  segment(host: HostName): Segment {
    let segment = this.#segments.get(host);
    if (!segment) {
      segment = inNetworkNamespace(this.lab.namespace(host), () => new Segment(segmentInterface('eth0')));
      this.#segments.set(host, segment);
    }
    return segment;
  }

  /** Starts the guard on a host or, as `lan`, on the bridge, with what this cluster is. */
  guard(host: HostName | 'lan', mode: string, ...words: string[]): Promise<RunningGuard> {
    const cluster = ['--vip', VIP, '--vip', VIP6, '--server', `${addressOf('server')}=${this.macs.server}`];
    const directors = ['director', 'backup'] as const;
    for (const each of directors) if (each !== host) cluster.push('--director', this.macs[each]);
    const command = dirigo('arp', 'guard', '--json', '--vrid', '51', '--mode', mode, ...cluster, ...words);
    if (!words.includes('-i')) command.push('-i', host === 'lan' ? 'br0' : 'eth0');
    return new RunningGuard(this.lab.start(host, this.environment, ...command)).ready();
  }

  /** For daemons of this cluster. */
  get environment(): Record<string, string> {
    return {
      DIRIGO_SOCKET: `${this.lab.folder}/dirigo.sock`,
      DIRIGO_BPF: `/sys/fs/bpf/${this.lab.prefix}`,
    };
  }

  /** The MAC that a host has for an address. */
  known(host: HostName, address: string): string | undefined {
    const entries = JSON.parse(this.lab.run(host, 'ip', '-json', 'neigh', 'show', address) || '[]');
    return entries[0]?.lladdr;
  }

  /** Makes a host know an address by talking to it. */
  visit(host: HostName, address: string): void {
    this.lab.try(host, 'ping', '-c', '1', '-W', '1', address);
  }

  async remove(): Promise<void> {
    for (const segment of this.#segments.values()) segment.close();
    await this.lab.remove();
  }
}

export async function until(condition: () => boolean, patience = 5_000): Promise<void> {
  const end = performance.now() + patience;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`after ${patience} ms still not: ${condition}`);
    await new Promise(resolve => setTimeout(resolve, 5));
  }
}

export function sleep(milliseconds: number): Promise<void> {
  return new Promise(resolve => setTimeout(resolve, milliseconds));
}
