/**
 * The session's hosts as network namespaces: real nginx, curl, tshark and arp, and on lb01 a daemon with the XDP fast
 * path attached to its veth. Everything has a name of its own and goes away with `close`, also after a failure.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { readCaptureFile } from '../capture/capture-file.ts';
import type { CapturedFrame } from '../capture/frame.ts';
import { CLUSTER_NAME, CLUSTER_PLAN, type HostPlan } from '../lan/cluster.ts';
import type { CommandOutput, Laboratory, Recording, RunningCapture } from './laboratory.ts';

const PROJECT = fileURLToPath(new URL('../..', import.meta.url));
const GATEWAY = '10.0.0.254';
/** Longest that a started program may take to be ready, ms. */
const PATIENCE = 20_000;

const TOOLS = ['ip', 'ethtool', 'nginx', 'curl', 'tshark', 'arp'] as const;

export class NamespaceLaboratory implements Laboratory {
  readonly description = 'between network namespaces';
  datapath = 'XDP';
  readonly clients = CLUSTER_PLAN.filter(plan => plan.name.startsWith('client')).map(plan => plan.name);
  readonly #prefix = `dirigo${process.pid}`;
  readonly #folder = mkdtempSync(join(tmpdir(), `dirigo-session-${process.pid}-`));
  readonly #children = new Set<ChildProcess>();
  readonly #namespaces: string[] = [];
  #recordings = 0;
  #closing: Promise<void> | undefined;

  private constructor() {}

  /** @throws Error that says in one line what is missing and what to do; nothing is left behind then */
  static async open(): Promise<NamespaceLaboratory> {
    if (process.getuid?.() !== 0) {
      throw new Error(
        'network namespaces and XDP need root: run this as root, or `npm start` for the virtual LAN',
      );
    }
    const missing = TOOLS.filter(tool => !isInstalled(tool));
    if (missing.length > 0) {
      throw new Error(
        `not installed: ${missing.join(', ')}; \`npm run demo\` installs what it needs on Debian`,
      );
    }
    const laboratory = new NamespaceLaboratory();
    try {
      await laboratory.#build();
      return laboratory;
    } catch (error) {
      await laboratory.close();
      throw error;
    }
  }

  async #build(): Promise<void> {
    await this.#addNamespace('lan');
    for (const bridge of ['br0', 'br1']) {
      await this.#ip('lan', `link add ${bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0`);
      await this.#ip('lan', `link set ${bridge} up`);
    }
    await Promise.all(CLUSTER_PLAN.map(plan => this.#addHost(plan)));
    await this.#in('gateway', ['sysctl', '-qw', 'net.ipv4.ip_forward=1']);
    await Promise.all([this.#startNginx('web01', '10.0.0.7'), this.#startNginx('web02', '10.0.0.8')]);
    await this.#startDaemon();
  }

  async #addNamespace(host: string): Promise<void> {
    const name = this.#namespace(host);
    await execute('ip', ['netns', 'add', name]);
    this.#namespaces.push(name);
    // Neighbour discovery and its like would only clutter the captures.
    await this.#in(host, [
      'sysctl',
      '-qw',
      'net.ipv6.conf.all.disable_ipv6=1',
      'net.ipv6.conf.default.disable_ipv6=1',
    ]);
    await this.#ip(host, 'link set lo up');
  }

  async #addHost(plan: HostPlan): Promise<void> {
    await this.#addNamespace(plan.name);
    await this.#addCable(plan, 0, plan.eth0, `10.0.0.${plan.octet}/24`);
    if (plan.eth1) await this.#addCable(plan, 1, plan.eth1, `172.16.1.${plan.octet}/24`);
    if (plan.name !== 'gateway') await this.#ip(plan.name, `route add default via ${GATEWAY}`);
  }

  async #addCable(plan: HostPlan, number: number, mac: string, address: string): Promise<void> {
    const port = `${plan.name}-${number}`;
    const device = `eth${number}`;
    await this.#ip(
      'lan',
      `link add ${port} type veth peer name ${device} address ${mac} netns ${this.#namespace(plan.name)}`,
    );
    await this.#ip('lan', `link set ${port} master br${number} up`);
    await this.#ip(plan.name, `addr add ${address} dev ${device}`);
    await this.#ip(plan.name, `link set ${device} up`);
    // A checksum left to the network card does not survive a redirect by XDP; and a veth takes frames that XDP sends
    // only where its own end polls (NAPI), which receive offload switches on.
    await this.#in(plan.name, ['ethtool', '-K', device, 'tx', 'off']);
    await this.#in('lan', ['ethtool', '-K', port, 'gro', 'on']);
  }

  async #startNginx(host: string, address: string): Promise<void> {
    const folder = join(this.#folder, host);
    mkdirSync(join(folder, 'html'), { recursive: true });
    // nginx answers as its own user.
    await execute('chmod', ['755', this.#folder, folder, join(folder, 'html')]);
    writeFileSync(join(folder, 'html/index.html'), `<h1>Nginx server ${address} ${host}</h1>\n`);
    writeFileSync(
      join(folder, 'nginx.conf'),
      `pid ${folder}/nginx.pid;
error_log ${folder}/error.log;
events {}
http {
  access_log ${folder}/access.log;
  server {
    listen 80;
    server_name ${CLUSTER_NAME};
    root ${folder}/html;
  }
}
`,
    );
    this.#start(host, ['nginx', '-c', join(folder, 'nginx.conf'), '-p', folder, '-g', 'daemon off;']);
    await until(() => existsSync(join(folder, 'nginx.pid')), `nginx on ${host} did not start`);
  }

  async #startDaemon(): Promise<void> {
    const daemon = this.#start('lb01', ['dirigo', 'up', '--datapath', 'xdp', '--interface', 'eth0']);
    let errors = '';
    daemon.stderr?.on('data', chunk => {
      errors += chunk;
    });
    const ready = Promise.withResolvers<void>();
    let output = '';
    daemon.stdout?.on('data', chunk => {
      output += chunk;
      if (/data path up/.test(output)) ready.resolve();
    });
    daemon.on('exit', () => ready.reject(new Error(`the daemon on lb01 did not start: ${errors.trim()}`)));
    await within(ready.promise, 'the daemon on lb01 did not start in time');
    const { stdout } = await this.run('lb01', 'dirigo status');
    const mode = /\b(native|generic)\b/.exec(stdout)?.[1];
    if (mode) this.datapath = `XDP, ${mode} mode`;
  }

  async run(host: string, commandLine: string): Promise<CommandOutput> {
    return execute(
      'ip',
      ['netns', 'exec', this.#namespace(host), 'sh', '-c', commandLine],
      this.#environment(),
      true,
    );
  }

  async capture(host: string, interfaceName: string, filter: string, count: number): Promise<RunningCapture> {
    const words = ['tshark', '-i', interfaceName, '-f', filter, '-c', String(count)];
    const child = this.#start(host, words);
    const output = collect(child);
    await this.#untilCapturing(child);
    return {
      command: words.join(' '),
      output: within(output, `${words.join(' ')} on ${host} saw too few frames`),
    };
  }

  /** The cable is recorded at its other end: what XDP takes and sends, taps on the host itself do not see. */
  async record(host: string, interfaceName: string): Promise<Recording> {
    const file = join(this.#folder, `${host}-${this.#recordings++}.pcapng`);
    const port = `${host}-${interfaceName.replace('eth', '')}`;
    const child = this.#start('lan', ['tshark', '-q', '-i', port, '-w', file]);
    await this.#untilCapturing(child);
    await until(
      () => existsSync(file) && readFileSync(file).length > 0,
      `the recording of ${port} did not start`,
    );
    return {
      stop: async (): Promise<CapturedFrame[]> => {
        // What has just been sent must reach the file.
        await wait(500);
        await this.#end(child, 'SIGINT');
        return readCaptureFile(readFileSync(file));
      },
    };
  }

  mac(host: string, interfaceName: string): string {
    const plan = CLUSTER_PLAN.find(each => each.name === host);
    const mac = interfaceName === 'eth1' ? plan?.eth1 : plan?.eth0;
    if (!mac) throw new Error(`${host} has no interface ${interfaceName}`);
    return mac;
  }

  accessLogPath(host: string): string {
    return join(this.#folder, host, 'access.log');
  }

  async accessLog(host: string): Promise<string[]> {
    return readFileSync(this.accessLogPath(host), 'utf8').trimEnd().split('\n');
  }

  async sleep(seconds: number): Promise<void> {
    await wait(seconds * 1000);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.run('lb01', 'dirigo down').catch(() => undefined);
    await Promise.all([...this.#children].map(child => this.#end(child, 'SIGTERM')));
    for (const name of this.#namespaces.splice(0)) {
      await execute('ip', ['netns', 'del', name]).catch(() => undefined);
    }
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #namespace(host: string): string {
    return `${this.#prefix}-${host}`;
  }

  #environment(): NodeJS.ProcessEnv {
    return {
      ...process.env,
      PATH: [join(PROJECT, 'bin'), process.env.PATH ?? '', '/usr/sbin', '/sbin'].join(delimiter),
      DIRIGO_SOCKET: join(this.#folder, 'dirigo.sock'),
      DIRIGO_BPF: join(this.#folder, 'bpf'),
    };
  }

  /** Runs a command without a shell in a host's namespace. @throws Error with what it said if it fails */
  async #in(host: string, words: readonly string[]): Promise<void> {
    await execute('ip', ['netns', 'exec', this.#namespace(host), ...words]);
  }

  async #ip(host: string, words: string): Promise<void> {
    await execute('ip', ['-n', this.#namespace(host), ...words.split(' ')]);
  }

  #start(host: string, words: readonly string[]): ChildProcess {
    const child = spawn('ip', ['netns', 'exec', this.#namespace(host), ...words], {
      env: this.#environment(),
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#children.add(child);
    child.on('exit', () => this.#children.delete(child));
    return child;
  }

  async #untilCapturing(child: ChildProcess): Promise<void> {
    const started = Promise.withResolvers<void>();
    let errors = '';
    child.stderr?.on('data', chunk => {
      errors += chunk;
      if (errors.includes('Capturing on')) started.resolve();
    });
    child.on('exit', () => started.reject(new Error(`tshark ended: ${errors.trim()}`)));
    await within(started.promise, 'tshark did not start in time');
    // It says so a moment before its first frame counts.
    await wait(700);
  }

  async #end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exited = new Promise(resolve => child.on('exit', resolve));
    child.kill(signal);
    const patience = setTimeout(() => child.kill('SIGKILL'), 5000);
    await exited;
    clearTimeout(patience);
  }
}

function isInstalled(tool: string): boolean {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  return folders.some(folder => existsSync(join(folder, tool)));
}

/** Runs a program to its end. @throws Error with its last words if it fails and `mayFail` is not set */
function execute(
  program: string,
  words: readonly string[],
  environment: NodeJS.ProcessEnv = process.env,
  mayFail = false,
): Promise<CommandOutput> {
  return new Promise((resolve, reject) => {
    execFile(program, words, { env: environment, maxBuffer: 1 << 26 }, (error, stdout, stderr) => {
      const status = error ? (typeof error.code === 'number' ? error.code : 1) : 0;
      if (error && !mayFail)
        reject(new Error(`${program} ${words.join(' ')}: ${stderr.trim() || error.message}`));
      else resolve({ status, stdout, stderr });
    });
  });
}

function collect(child: ChildProcess): Promise<string> {
  return new Promise(resolve => {
    let output = '';
    child.stdout?.on('data', chunk => {
      output += chunk;
    });
    child.on('close', () => resolve(output));
  });
}

async function within<T>(promise: Promise<T>, complaint: string): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(complaint)), PATIENCE);
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

async function until(holds: () => boolean, complaint: string): Promise<void> {
  for (const end = Date.now() + PATIENCE; !holds(); await wait(20)) {
    if (Date.now() > end) throw new Error(complaint);
  }
}
