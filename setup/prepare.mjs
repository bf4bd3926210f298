// Makes a fresh clone ready, whatever Node runs it: the project's packages (its own Node among
// them) and, with --system and as root, the system packages that the demo and the tests use.
// Plain JavaScript without dependencies, because it runs before anything is installed.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const run = (command, args, environment = {}) =>
  spawnSync(command, args, {
    cwd: root,
    encoding: 'utf8',
    env: { ...process.env, ...environment },
    maxBuffer: 1 << 26,
  });

function fail(what, result) {
  console.error(`dirigo: ${what} failed (${result.error?.message ?? `status ${result.status}`})`);
  console.error(`${result.stdout ?? ''}${result.stderr ?? ''}`.trim().split('\n').slice(-15).join('\n'));
  process.exit(1);
}

/** True if every package that package-lock.json names for this platform is there in that version. */
function packagesAreCurrent() {
  if (!existsSync(join(root, 'node_modules/.bin/node'))) return false;
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'));
  return Object.entries(packages).every(([path, { version, optional }]) => {
    if (path === '') return true;
    const manifest = join(root, path, 'package.json');
    if (!existsSync(manifest)) return optional === true;
    return JSON.parse(readFileSync(manifest, 'utf8')).version === version;
  });
}

if (!packagesAreCurrent()) {
  console.error('dirigo: installing packages (once)');
  // Not `npm ci`: that refuses a lock file without the packages of platforms that a registry does not carry.
  const installed = run('npm', [
    'install',
    '--no-save',
    '--no-audit',
    '--no-fund',
    '--include=dev',
    '--include=optional',
  ]);
  if (installed.status !== 0) fail('npm install', installed);
}

/** What the demo and the tests call, and the Debian package it comes in. */
const systemPackages = {
  bpftool: '/usr/sbin/bpftool',
  clang: '/usr/bin/clang',
  curl: '/usr/bin/curl',
  dsniff: '/usr/sbin/arpspoof',
  ethtool: '/usr/sbin/ethtool',
  iproute2: '/usr/bin/ip',
  'iputils-arping': '/usr/bin/arping',
  'iputils-ping': '/usr/bin/ping',
  'libbpf-dev': '/usr/include/bpf/bpf_helpers.h',
  fish: '/usr/bin/fish',
  'libpcap0.8': '/usr/lib/x86_64-linux-gnu/libpcap.so.0.8',
  'man-db': '/usr/bin/man',
  mandoc: '/usr/bin/mandoc',
  'net-tools': '/usr/sbin/arp',
  netbase: '/etc/services',
  'nginx-light': '/usr/sbin/nginx',
  prometheus: '/usr/bin/promtool',
  procps: '/usr/sbin/sysctl',
  systemd: '/usr/bin/systemd-analyze',
  tcpdump: '/usr/bin/tcpdump',
  tmux: '/usr/bin/tmux',
  tshark: '/usr/bin/tshark',
  zsh: '/usr/bin/zsh',
};

function installSystemPackages() {
  const missing = Object.entries(systemPackages).flatMap(([name, path]) =>
    existsSync(path) || existsSync(path.replace('/usr/', '/')) ? [] : [name],
  );
  if (missing.length > 0) {
    if (run('which', ['apt-get']).status !== 0) {
      console.error(`dirigo: please install the equivalents of these Debian packages: ${missing.join(' ')}`);
      process.exit(1);
    }
    console.error(`dirigo: installing system packages (once): ${missing.join(' ')}`);
    // policy-rc.d would be the system's way to keep nginx from starting; RUNLEVEL is the package's.
    const environment = { DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' };
    const updated = run('apt-get', ['update'], environment);
    if (updated.status !== 0) fail('apt-get update', updated);
    const installed = run('apt-get', ['install', '-y', '--no-install-recommends', ...missing], environment);
    if (installed.status !== 0) fail('apt-get install', installed);
  }
}

if (process.argv.includes('--system')) {
  if (process.getuid() === 0) installSystemPackages();
  // Where the compiler is missing, whoever needs the program says so.
  if (existsSync('/usr/bin/clang') && existsSync('/usr/include/bpf/bpf_helpers.h')) {
    const built = run(join(root, 'node_modules/.bin/node'), ['bpf/build.ts']);
    if (built.status !== 0) fail('building the XDP program', built);
  }
}
