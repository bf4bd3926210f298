/**
 * This machine as a test may change it: an overlay over the root file system, with a network and a BPF file system of its
 * own, and a real systemd as its first process where a test asks for one. Everything that is done there is gone
 * afterwards, and what was changed can be listed.
 */
import { type ChildProcess, execFileSync, type SpawnSyncReturns, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { setTimeout } from 'node:timers/promises';

const MOUNT = `
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
`;

/** Waits for the end of its input, which comes with the end of the test's process at the latest. */
const WAIT = `
echo ready
read -r _ || true
`;

/**
 * Units of this machine that a boot would start and that reach beyond the sandbox (settings of the kernel, devices), or
 * wait for what is not there.
 */
const MASKED = [
  'systemd-sysctl.service',
  'systemd-modules-load.service',
  'systemd-udevd.service',
  'systemd-udev-trigger.service',
  'systemd-random-seed.service',
  'systemd-binfmt.service',
  'proc-sys-fs-binfmt_misc.automount',
  'systemd-remount-fs.service',
  'systemd-networkd-wait-online.service',
];

const BOOT = `
root="$1/root"
mount -t tmpfs tmpfs "$root/run"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
: > "$root/etc/fstab"
for unit in ${MASKED.join(' ')}; do ln -sf /dev/null "$root/etc/systemd/system/$unit"; done
echo ready
exec chroot "$root" env -i container=sandbox PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
  /lib/systemd/systemd --unit=basic.target --log-target=null --show-status=no
`;

export class Sandbox {
  readonly #folder = mkdtempSync(join(tmpdir(), 'dirigo-sandbox-'));
  readonly #holder: ChildProcess;
  readonly #systemd: boolean;

  private constructor(systemd: boolean) {
    this.#systemd = systemd;
    const namespaces = systemd
      ? ['--mount', '--net', '--pid', '--ipc', '--uts', '--cgroup', '--fork', '--kill-child']
      : ['--mount', '--net'];
    const script = MOUNT + (systemd ? BOOT : WAIT);
    // A first process does not read; it ends with the one that holds it, and that with the test.
    this.#holder = spawn(
      'setpriv',
      ['--pdeathsig', 'KILL', 'unshare', ...namespaces, 'sh', '-c', script, 'sh', this.#folder],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    );
  }

  /**
   * @param options.systemd whether a systemd is its first process (its journal and basic.target are there when this
   *   resolves), for tests of units
   * @throws Error if it could not be made, or systemd is not through within 60 s
   */
  static async open({ systemd = false } = {}): Promise<Sandbox> {
    const sandbox = new Sandbox(systemd);
    const ended = once(sandbox.#holder, 'exit').then(() => {
      throw new Error('the sandbox could not be made');
    });
    await Promise.race([once(sandbox.#holder.stdout as NodeJS.EventEmitter, 'data'), ended]);
    ended.catch(() => {});
    if (systemd) await sandbox.#booted();
    return sandbox;
  }

  async #booted(): Promise<void> {
    const deadline = Date.now() + 60_000;
    while (this.try('systemctl', 'is-active', 'basic.target').stdout !== 'active\n') {
      if (Date.now() > deadline) throw new Error('systemd did not start in the sandbox');
      await setTimeout(100);
    }
  }

  /** The process whose namespaces are the sandbox's. */
  get #first(): number {
    const { pid } = this.#holder;
    if (!this.#systemd) return pid as number;
    return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim());
  }

  #words(command: string, parameters: readonly string[]): string[] {
    const target = `--target=${this.#first}`;
    if (this.#systemd) return [target, '--all', '--root', '--wdns=/', command, ...parameters];
    return [target, '--mount', '--net', 'chroot', join(this.#folder, 'root'), command, ...parameters];
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
      `--target=${this.#first}`,
      '--mount',
      'cp',
      from,
      join(this.#folder, 'root', to),
    ]);
  }

  /** Files, links and removals that differ from the machine's own. */
  changes(): string[] {
    // The upper layer is seen from outside through the holder's root.
    const upper = `/proc/${this.#first}/root${join(this.#folder, 'upper')}`;
    return readdirSync(upper, { recursive: true, withFileTypes: true })
      .filter(entry => !entry.isDirectory())
      .map(entry => `/${relative(upper, join(entry.parentPath, entry.name))}`)
      .sort();
  }

  /** Directories that are new or changed. */
  directories(): string[] {
    const upper = `/proc/${this.#first}/root${join(this.#folder, 'upper')}`;
    return readdirSync(upper, { recursive: true, withFileTypes: true })
      .filter(entry => entry.isDirectory())
      .map(entry => `/${relative(upper, join(entry.parentPath, entry.name))}`)
      .sort();
  }

  async close(): Promise<void> {
    const ended = once(this.#holder, 'exit');
    if (this.#systemd) this.#holder.kill('SIGKILL');
    else this.#holder.stdin?.end();
    if (this.#holder.exitCode === null) await ended;
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
