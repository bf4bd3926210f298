/**
 * This machine as a test may change it: an overlay over the root file system, with a network and a BPF file system of its
 * own. Everything that is done there is gone afterwards, and what was changed can be listed.
 */
import { type ChildProcess, execFileSync, type SpawnSyncReturns, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';

/** Mounts it all, then waits for the end of its input, which comes with the end of the test's process at the latest. */
const SCRIPT = `
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 sandbox "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o lowerdir=/,upperdir="$1/upper",workdir="$1/work" overlay "$1/root"
mount -t proc proc "$1/root/proc"
mount -t sysfs sysfs "$1/root/sys"
mount -t bpf bpf "$1/root/sys/fs/bpf"
mount --rbind /dev "$1/root/dev"
mount -t tmpfs tmpfs "$1/root/tmp"
ip link set lo up
echo ready
read -r _ || true
`;

export class Sandbox {
  readonly #folder = mkdtempSync(join(tmpdir(), 'dirigo-sandbox-'));
  readonly #holder: ChildProcess;

  private constructor() {
    this.#holder = spawn('unshare', ['--mount', '--net', 'sh', '-c', SCRIPT, 'sh', this.#folder], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
  }

  static async open(): Promise<Sandbox> {
    const sandbox = new Sandbox();
    const ended = once(sandbox.#holder, 'exit').then(() => {
      throw new Error('the sandbox could not be made');
    });
    await Promise.race([once(sandbox.#holder.stdout as NodeJS.EventEmitter, 'data'), ended]);
    ended.catch(() => {});
    return sandbox;
  }

  #words(command: string, parameters: readonly string[]): string[] {
    return [
      `--target=${this.#holder.pid}`,
      '--mount',
      '--net',
      'chroot',
      join(this.#folder, 'root'),
      command,
      ...parameters,
    ];
  }

  /** Runs a command in it and returns what it printed. @throws Error if it fails */
  run(command: string, ...parameters: string[]): string {
    const { status, stdout, stderr } = this.try(command, ...parameters);
    if (status !== 0) {
      throw new Error(`${[command, ...parameters].join(' ')}: status ${status}\n${stdout}${stderr}`);
    }
    return stdout;
  }

  /** The same, for commands that may fail. */
  try(command: string, ...parameters: string[]): SpawnSyncReturns<string> {
    return spawnSync('nsenter', this.#words(command, parameters), {
      encoding: 'utf8',
      timeout: 120_000,
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C.UTF-8', DEBIAN_FRONTEND: 'noninteractive' },
    });
  }

  /** Starts a program in it; `close` ends it. */
  start(command: string, ...parameters: string[]): ChildProcess {
    const child = spawn('nsenter', this.#words(command, parameters), {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C.UTF-8' },
    });
    child.stdout?.setEncoding('utf8');
    child.stderr?.setEncoding('utf8');
    return child;
  }

  /** Copies a file of this machine into it. */
  copyIn(from: string, to: string): void {
    execFileSync('nsenter', [
      `--target=${this.#holder.pid}`,
      '--mount',
      'cp',
      from,
      join(this.#folder, 'root', to),
    ]);
  }

  /** Files, links and removals that differ from the machine's own. */
  changes(): string[] {
    // The upper layer is seen from outside through the holder's root.
    const upper = `/proc/${this.#holder.pid}/root${join(this.#folder, 'upper')}`;
    return readdirSync(upper, { recursive: true, withFileTypes: true })
      .filter(entry => !entry.isDirectory())
      .map(entry => `/${relative(upper, join(entry.parentPath, entry.name))}`)
      .sort();
  }

  /** Directories that are new or changed. */
  directories(): string[] {
    const upper = `/proc/${this.#holder.pid}/root${join(this.#folder, 'upper')}`;
    return readdirSync(upper, { recursive: true, withFileTypes: true })
      .filter(entry => entry.isDirectory())
      .map(entry => `/${relative(upper, join(entry.parentPath, entry.name))}`)
      .sort();
  }

  async close(): Promise<void> {
    const ended = once(this.#holder, 'exit');
    this.#holder.stdin?.end();
    if (this.#holder.exitCode === null) await ended;
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
