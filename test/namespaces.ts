/**
 * A small LAN of network namespaces on one bridge, for tests with real programs. Names are unique to the process;
 * `remove` takes everything away, whatever state it is in.
 */
import { type ChildProcess, execFileSync, type SpawnSyncReturns, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

let labs = 0;

export class NamespaceLab {
  /** Starts the names of all namespaces. */
  readonly prefix = `dg${process.pid}x${labs++}`;
  /** For files of this lab. */
  readonly folder = mkdtempSync(join(tmpdir(), `${this.prefix}-`));
  readonly #namespaces: string[] = [];
  readonly #children: ChildProcess[] = [];

  constructor() {
    this.#addNamespace('lan');
    this.#ip('lan', 'link add br0 type bridge mcast_snooping 0');
    this.#ip('lan', 'link set br0 up');
  }

  /**
   * Adds a host with an interface eth0 on the bridge.
   * @param addresses with prefix lengths
   */
  addHost(name: string, ...addresses: string[]): void {
    this.#addNamespace(name);
    const port = `to-${name}`;
    this.#ip('lan', `link add ${port} type veth peer name eth0 netns ${this.prefix}${name}`);
    this.#ip('lan', `link set ${port} master br0 up`);
    for (const address of addresses) {
      this.#ip(name, `addr add ${address} dev eth0${address.includes(':') ? ' nodad' : ''}`);
    }
    // Without duplicate address detection an address may be used at once.
    this.run(name, 'sysctl', '-qw', 'net.ipv6.conf.all.accept_dad=0', 'net.ipv6.conf.eth0.accept_dad=0');
    this.#ip(name, 'link set eth0 up');
    // Frames that leave by XDP need a receiver with NAPI, and checksums that are complete, as on a wire: also of what
    // the bridge had put together from several segments.
    this.run('lan', 'ethtool', '-K', port, 'gro', 'on', 'tx', 'off');
    this.run(name, 'ethtool', '-K', 'eth0', 'gro', 'on', 'tx', 'off');
  }

  /** Path of a host's namespace. */
  namespace(name: string): string {
    return `/run/netns/${this.prefix}${name}`;
  }

  /** Runs a command on a host and returns what it printed. @throws Error if it fails */
  run(host: string, command: string, ...parameters: string[]): string {
    return execFileSync('nsenter', [`--net=${this.namespace(host)}`, command, ...parameters], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: 60_000,
    });
  }

  /** The same, for commands that may fail. */
  try(host: string, command: string, ...parameters: string[]): SpawnSyncReturns<string> {
    return spawnSync('nsenter', [`--net=${this.namespace(host)}`, command, ...parameters], {
      encoding: 'utf8',
      timeout: 60_000,
    });
  }

  /** Starts a program on a host; it is ended by `remove` at the latest. `nsenter` becomes the program: the pid is its own. */
  start(
    host: string,
    environment: NodeJS.ProcessEnv,
    command: string,
    ...parameters: string[]
  ): ChildProcess {
    const child = spawn('nsenter', [`--net=${this.namespace(host)}`, command, ...parameters], {
      env: { ...process.env, ...environment },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    child.stdout?.setEncoding('utf8');
    child.stderr?.setEncoding('utf8');
    this.#children.push(child);
    return child;
  }

  #addNamespace(name: string): void {
    execFileSync('ip', ['netns', 'add', `${this.prefix}${name}`]);
    this.#namespaces.push(name);
    this.#ip(name, 'link set lo up');
  }

  #ip(name: string, command: string): void {
    execFileSync('ip', ['-n', `${this.prefix}${name}`, ...command.split(' ')], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
  }

  async remove(): Promise<void> {
    for (const child of this.#children) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const ended = new Promise(resolve => child.once('exit', resolve));
      child.kill('SIGTERM');
      const patience = setTimeout(() => child.kill('SIGKILL'), 5000);
      await ended;
      clearTimeout(patience);
    }
    for (const name of this.#namespaces) spawnSync('ip', ['netns', 'del', `${this.prefix}${name}`]);
    rmSync(this.folder, { recursive: true, force: true });
  }
}
