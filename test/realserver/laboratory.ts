/**
 * A client, a director and a real server between namespaces, for what `dirigo realserver` does: the daemon on XDP, nginx
 * on the server in a cgroup of its own.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { buildBpf, OBJECT_NAMES } from '../../bpf/build.ts';
import { removePinned } from '../../src/datapath/xdp/fast-path.ts';
import { cgroupRoot } from '../../src/realserver/host.ts';
import { NamespaceLab } from '../namespaces.ts';
import { missing } from '../requirements.ts';

export const VIP = '10.0.0.3';
export const VIP6 = '2001:db8::3';
export const LIP = '10.0.0.50';
export const LIP6 = '2001:db8::50';
export const CLIENT = '10.0.0.1';
export const CLIENT6 = '2001:db8::1';
/** Milliseconds that things which happen by themselves may take. */
const PATIENCE = 10_000;

const root = join(import.meta.dirname, '../..');

/** The reason to skip tests in this laboratory, or false. */
export const skip =
  missing(
    'root',
    'clang',
    'ip',
    'arping',
    'tcpdump',
    'tc',
    'nsenter',
    'ethtool',
    'nginx',
    'curl',
    'sysctl',
    'bpftool',
  ) ||
  (!cgroupRoot() && 'needs cgroups of version 2');

export interface Ran {
  status: number | null;
  stdout: string;
  stderr: string;
}

export class RealserverLaboratory extends NamespaceLab {
  /** The cgroup that servers run in. */
  readonly cgroup = join(cgroupRoot() ?? '/sys/fs/cgroup', this.prefix);
  readonly environment: NodeJS.ProcessEnv = {
    DIRIGO_BPF: `/sys/fs/bpf/${this.prefix}`,
    DIRIGO_SOCKET: join(this.folder, 'socket'),
    DIRIGO_STATE: join(this.folder, 'state'),
    DIRIGO_REALSERVER_STATE: join(this.folder, 'realserver'),
  };

  static async open(): Promise<RealserverLaboratory> {
    for (const name of OBJECT_NAMES) buildBpf(undefined, name);
    const lab = new RealserverLaboratory();
    try {
      mkdirSync(lab.cgroup);
      lab.addHost('client', `${CLIENT}/24`, `${CLIENT6}/64`);
      const lips = [`${LIP}/24`, `${LIP6}/64`];
      lab.addHost('lb01', '10.0.0.5/24', `${VIP}/24`, '2001:db8::5/64', `${VIP6}/64`, ...lips);
      lab.addServer('web01', 7);
      return lab;
    } catch (error) {
      await lab.remove();
      throw error;
    }
  }

  addServer(name: string, last: number): void {
    this.addHost(name, `10.0.0.${last}/24`, `2001:db8::${last}/64`);
  }

  /** Starts nginx in the cgroup; its log has the client's address, port and what `$remote_addr` is. */
  async startNginx(host: string, listen = 'listen 80; listen [::]:80;'): Promise<void> {
    const folder = join(this.folder, host);
    mkdirSync(folder);
    writeFileSync(join(folder, 'index.html'), `<h1>Nginx server ${host}</h1>\n`);
    writeFileSync(join(folder, 'big'), new Uint8Array(3_000_000));
    writeFileSync(
      join(folder, 'nginx.conf'),
      `daemon off; user root; worker_processes 1; pid ${folder}/pid; error_log ${folder}/error;
       events {}
       http { client_max_body_size 0; log_format peer '$remote_addr $remote_port'; access_log ${folder}/access peer;
         server { ${listen} root ${folder};
           location /who { return 200 "$remote_addr $remote_port"; } } }`,
    );
    this.startInCgroup(host, 'nginx', '-c', join(folder, 'nginx.conf'));
    await eventually(
      () => this.try(host, 'sh', '-c', 'ss -ltn | grep -q ":80 "').status === 0,
      `nginx on ${host}`,
    );
  }

  startInCgroup(host: string, ...words: string[]): ReturnType<NamespaceLab['start']> {
    return this.start(
      host,
      {},
      'sh',
      '-c',
      `echo $$ > ${this.cgroup}/cgroup.procs; exec "$@"`,
      'sh',
      ...words,
    );
  }

  /** Lines of nginx's log. */
  accessLog(host: string): string[] {
    return readFileSync(join(this.folder, host, 'access'), 'utf8')
      .trimEnd()
      .split('\n');
  }

  /** Starts the director with a desired state. */
  async startDirector(services: unknown[]): Promise<void> {
    const folder = this.environment.DIRIGO_STATE as string;
    mkdirSync(folder);
    const timeouts = { tcp: 900, tcpFin: 120, udp: 300 };
    const state = { version: 1, timeouts, syncDaemons: [], services };
    writeFileSync(join(folder, 'state.json'), JSON.stringify(state));
    const words = ['up', '--datapath', 'xdp', '--interface', 'eth0'];
    const daemon = this.start('lb01', this.environment, join(root, 'bin/dirigo'), ...words);
    let errors = '';
    daemon.stderr?.on('data', text => {
      errors += text;
    });
    const ended = once(daemon, 'exit').then(() => assert.fail(`the daemon ended: ${errors}`));
    ended.catch(() => {});
    await Promise.race([once(daemon.stdout as NodeJS.EventEmitter, 'data'), ended]);
  }

  /** `dirigo realserver` on a host. */
  realserver(host: string, ...words: string[]): Ran {
    const program = [join(root, 'bin/dirigo'), 'realserver', ...words];
    const { status, stdout, stderr } = spawnSync('nsenter', [`--net=${this.namespace(host)}`, ...program], {
      encoding: 'utf8',
      env: { ...process.env, ...this.environment },
      timeout: 60_000,
    });
    return { status, stdout, stderr };
  }

  /** The same, that must end with status 0. */
  mustRealserver(host: string, ...words: string[]): string {
    const { status, stdout, stderr } = this.realserver(host, ...words);
    assert.equal(status, 0, `${words.join(' ')}: ${stdout}${stderr}`);
    return stdout;
  }

  /** What the client gets, with the options of curl. */
  fetch(host: string, ...words: string[]): string {
    const { status, stdout, stderr } = this.try(host, 'curl', '-sS', '-m', '5', ...words);
    return status === 0 ? stdout : `curl: ${stderr.trim()}`;
  }

  /** Everything of a host that `dirigo realserver` may change, as lines to compare. */
  dump(host: string): string[] {
    const settings = this.try(host, 'sysctl', '-a').stdout.split('\n');
    const volatile = /nf_conntrack_count|stable_secret|tcp_fastopen_key/;
    const commands = [
      'ip -d address show',
      'ip -4 route show table all',
      'ip -6 route show table all',
      'ip -4 rule show; ip -6 rule show',
      'ip -6 neigh show proxy',
      'tc qdisc show',
      'tc filter show dev eth0 ingress',
      `bpftool cgroup tree ${this.cgroup}`,
    ];
    return [
      settings.filter(line => line.startsWith('net.') && !volatile.test(line)).join('\n'),
      ...commands.map(line => `$ ${line}\n${this.try(host, 'sh', '-c', line).stdout}`),
      existsSync(this.#pins) ? readdirSync(this.#pins, { recursive: true }).sort().join('\n') : 'no pins',
    ].flatMap(text => text.split('\n'));
  }

  get #pins(): string {
    return `${this.environment.DIRIGO_BPF}-realserver`;
  }

  override async remove(): Promise<void> {
    for (const host of ['web01', 'web02']) {
      if (existsSync(this.namespace(host))) this.realserver(host, '--undo');
    }
    await super.remove();
    removePinned(this.environment.DIRIGO_BPF as string);
    if (existsSync(this.#pins)) execFileSync('rm', ['-r', this.#pins]);
    await eventually(() => removeCgroup(this.cgroup), `the cgroup ${this.cgroup} is empty`);
  }
}

/** Fails with the lines that one dump has and the other has not. */
export function assertSame(
  now: readonly string[],
  before: readonly string[],
  message = 'what a dump shows',
): void {
  const differences = [
    ...before.filter(line => !now.includes(line)).map(line => `- ${line}`),
    ...now.filter(line => !before.includes(line)).map(line => `+ ${line}`),
  ];
  assert.equal(differences.join('\n'), '', message);
  assert.equal(now.length, before.length, message);
}

function removeCgroup(path: string): boolean {
  try {
    if (existsSync(path)) rmdirSync(path);
    return true;
  } catch {
    return false;
  }
}

export async function eventually(holds: () => boolean, what: string): Promise<void> {
  for (const end = Date.now() + PATIENCE; !holds(); await sleep(50)) {
    if (Date.now() > end) assert.fail(`did not come about in ${PATIENCE} ms: ${what}`);
  }
}

/** A service as the desired state has it. */
export function service(
  address: string,
  method: string,
  more: object = {},
  destination: object = {},
): object {
  const server = address.includes(':') ? '2001:db8::7' : '10.0.0.7';
  return {
    key: { protocol: 'tcp', address, port: 80 },
    scheduler: 'rr',
    ...more,
    destinations: [{ address: server, port: 80, method, weight: 1, ...destination }],
  };
}
