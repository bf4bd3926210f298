/**
 * The life of a daemon under load, between namespaces on native XDP: stopped and started, reloaded, replaced, killed, while
 * established TCP connections and UDP flows by direct routing and NAT carry numbered messages. None may be missing.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import koffi from 'koffi';
import { buildBpf } from '../bpf/build.ts';
import { removePinned } from '../src/datapath/xdp/fast-path.ts';
import { NamespaceLab } from './namespaces.ts';
import type { TrafficResult } from './numbered-traffic.ts';
import { missing } from './requirements.ts';

const skip = missing('root', 'clang', 'ip', 'nsenter', 'ethtool', 'ping', 'sysctl');
const root = join(import.meta.dirname, '..');
const TRAFFIC = join(import.meta.dirname, 'numbered-traffic.ts');
/** Direct routing to web01, NAT to web02. */
const ROUTED = '10.0.0.3';
const TRANSLATED = '10.0.0.4';
const PORT = '7000';
const programById = koffi.load('libbpf.so.1').func('int bpf_prog_get_fd_by_id(uint id)');
/** Milliseconds without a daemon, and between two events of its life. */
const ABSENCE = 1000;

/** Whether the kernel has a BPF program of this number. */
function isLoaded(program: number): boolean {
  const fd = programById(program) as number;
  if (fd >= 0) closeSync(fd);
  return fd >= 0;
}

describe('the life of a daemon under load', { skip }, () => {
  let lab: NamespaceLab;
  let environment: NodeJS.ProcessEnv;
  let pins: string;
  let daemon: ChildProcess;
  /** What the director's host was like before any daemon. */
  let untouched: Record<string, string>;

  before(async () => {
    buildBpf();
    lab = new NamespaceLab();
    pins = `/sys/fs/bpf/${lab.prefix}`;
    environment = {
      DIRIGO_BPF: pins,
      DIRIGO_SOCKET: join(lab.folder, 'run/socket'),
      DIRIGO_STATE: join(lab.folder, 'state'),
    };
    mkdirSync(join(lab.folder, 'run'));
    lab.addHost('client', '10.0.0.1/24');
    lab.addHost('lb01', '10.0.0.5/24', `${ROUTED}/32`, `${TRANSLATED}/32`);
    lab.addHost('web01', '10.0.0.7/24');
    lab.addHost('web02', '10.0.0.8/24');
    lab.run('web01', 'sysctl', '-qw', 'net.ipv4.conf.all.arp_ignore=1', 'net.ipv4.conf.all.arp_announce=2');
    lab.run('web01', 'ip', 'addr', 'add', `${ROUTED}/32`, 'dev', 'lo');
    // Replies of NAT pass the director.
    lab.run('web02', 'ip', 'route', 'add', '10.0.0.1/32', 'via', '10.0.0.5');
    for (const [host, address] of [
      ['web01', ROUTED],
      ['web02', '10.0.0.8'],
    ] as const) {
      await ready(lab.start(host, {}, process.execPath, TRAFFIC, 'echo', address, PORT));
    }
    for (const address of ['10.0.0.1', '10.0.0.7', '10.0.0.8']) lab.run('lb01', 'ping', '-qc1', address);
    untouched = hostState();
    daemon = await startDaemon();
    for (const [letter, vip, server, method] of [
      ['-t', ROUTED, '10.0.0.7', '-g'],
      ['-u', ROUTED, '10.0.0.7', '-g'],
      ['-t', TRANSLATED, '10.0.0.8', '-m'],
      ['-u', TRANSLATED, '10.0.0.8', '-m'],
    ] as const) {
      tool('ipvsadm', '-A', letter, `${vip}:${PORT}`, '-s', 'rr');
      tool('ipvsadm', '-a', letter, `${vip}:${PORT}`, '-r', `${server}:${PORT}`, method);
    }
  });

  after(async () => {
    await lab?.remove();
    if (pins) removePinned(pins);
  });

  async function ready(child: ChildProcess): Promise<ChildProcess> {
    let errors = '';
    child.stderr?.on('data', text => (errors += text));
    const ended = once(child, 'exit').then(() => assert.fail(`it ended: ${errors}`));
    ended.catch(() => {});
    await Promise.race([once(child.stdout as NodeJS.EventEmitter, 'data'), ended]);
    return child;
  }

  function startDaemon(...words: string[]): Promise<ChildProcess> {
    return ready(
      lab.start('lb01', environment, join(root, 'bin/dirigo'), 'up', '--interface', 'eth0', ...words),
    );
  }

  function tool(name: string, ...words: string[]): string {
    return execFileSync(join(root, 'bin', name), words, {
      env: { ...process.env, ...environment },
      encoding: 'utf8',
    });
  }

  /** Like a tool, without keeping this process from hearing the others. */
  async function run(name: string, ...words: string[]): Promise<void> {
    const child = spawn(join(root, 'bin', name), words, {
      env: { ...process.env, ...environment },
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    assert.deepEqual(await once(child, 'exit'), [0, null]);
  }

  /** What TCP sent again on all hosts, and how much of that the other side had had already (RFC 2883). */
  function sentAgain(): { segments: number; needlessly: number } {
    const read = (host: string, file: string, group: string, name: string): number => {
      const lines = lab
        .run(host, 'cat', `/proc/net/${file}`)
        .split('\n')
        .filter(line => line.startsWith(`${group}:`));
      const [names, values] = lines.map(line => line.split(' '));
      return Number(values?.[names?.indexOf(name) ?? -1]);
    };
    const sum = (file: string, group: string, name: string): number =>
      ['client', 'web01', 'web02'].reduce((total, host) => total + read(host, file, group, name), 0);
    return {
      segments: sum('snmp', 'Tcp', 'RetransSegs'),
      needlessly: sum('netstat', 'TcpExt', 'TCPDSACKRecv'),
    };
  }

  /** Traffic while something happens. */
  async function trafficDuring(events: () => Promise<void>): Promise<TrafficResult> {
    const client = spawn(
      'nsenter',
      [
        `--net=${lab.namespace('client')}`,
        process.execPath,
        TRAFFIC,
        'client',
        `${ROUTED}:${PORT}`,
        `${TRANSLATED}:${PORT}`,
      ],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    );
    try {
      client.stdout.setEncoding('utf8');
      let output = '';
      client.stdout.on('data', text => (output += text));
      await once(client.stdout, 'data');
      await sleep(500);
      await events();
      await sleep(500);
      const ended = once(client, 'exit');
      client.stdin.end();
      await ended;
      return JSON.parse(output.replace('ready\n', '')) as TrafficResult;
    } finally {
      client.kill('SIGKILL');
    }
  }

  /** All that a daemon might change on its host. */
  function hostState(): Record<string, string> {
    const show = (...words: string[]): string => lab.run('lb01', 'ip', ...words);
    return {
      // Without what counts up, and the number that an XDP link may leave in no field.
      links: show('-d', 'link').replace(/ qlen \d+/g, ''),
      addresses: show('address'),
      routes: show('route', 'show', 'table', 'all') + show('-6', 'route', 'show', 'table', 'all'),
      rules: show('rule'),
      neighbours: show('neigh')
        .split('\n')
        .filter(line => / lladdr /.test(line))
        .map(line => line.replace(/ (REACHABLE|STALE|DELAY|PROBE) *$/, ''))
        .sort()
        .join('\n'),
      queueing: lab.run('lb01', 'tc', 'qdisc'),
      offloads: lab.run('lb01', 'ethtool', '-k', 'eth0'),
      settings: lab
        .run('lb01', 'sysctl', '-a', '--pattern', '^net\\.(core|ipv4|ipv6)\\.')
        .split('\n')
        .filter(line => !/^net\.(core\.(netdev_rss_key|rps_)|ipv4\.tcp_fastopen_key)/.test(line))
        .join('\n'),
      pins: readdirSync('/sys/fs/bpf')
        .filter(name => name.startsWith(lab.prefix))
        .join(' '),
      sockets: lab.run('lb01', 'cat', '/proc/net/packet').split('\n').slice(1).join('\n'),
      processes: execFileSync('ip', ['netns', 'pids', `${lab.prefix}lb01`], { encoding: 'utf8' }),
      files: readdirSync(lab.folder)
        .filter(name => name !== 'state')
        .sort()
        .join(' '),
    };
  }

  test('no message of an established flow is lost through stop, start, reload, upgrade and kill -9', async () => {
    const table = tool('ipvsadm', '-Sn');
    let again = sentAgain();
    const result = await trafficDuring(async () => {
      daemon.kill('SIGTERM');
      await once(daemon, 'exit');
      await sleep(ABSENCE);
      daemon = await startDaemon();
      await run('dirigo', 'reload');
      const old = daemon;
      daemon = await startDaemon('--replace');
      if (old.exitCode === null) await once(old, 'exit');
      daemon.kill('SIGKILL');
      await once(daemon, 'exit');
      await sleep(ABSENCE);
      daemon = await startDaemon();
      await sleep(500);
      // While the connections are there: their ends may be sent again without anybody to say that they had come.
      const after = sentAgain();
      again = {
        segments: after.segments - again.segments,
        needlessly: after.needlessly - again.needlessly,
      };
    });
    for (const { name, sent, missing, broken } of result.flows) {
      assert.deepEqual(missing, [], `${name}: lost of ${sent}`);
      assert.equal(broken, '', name);
      assert.ok(sent > 100, `${name}: ${sent} messages`);
    }
    assert.equal(result.flows.length, 16);
    // A busy machine makes TCP impatient; what it sent again had arrived, though.
    assert.ok(again.segments <= again.needlessly, `TCP lost segments: ${JSON.stringify(again)}`);
    assert.equal(tool('ipvsadm', '-Sn'), table);
    const { datapath } = JSON.parse(tool('dirigo', 'status', '--json')) as {
      datapath: { adopted: boolean; mode: string };
    };
    assert.deepEqual([datapath.adopted, datapath.mode], [true, 'native']);
  });

  test('the measure sees what is lost: without a data path messages are missing', async () => {
    const result = await trafficDuring(async () => {
      lab.run('lb01', 'ip', 'link', 'set', 'eth0', 'down');
      await sleep(200);
      lab.run('lb01', 'ip', 'link', 'set', 'eth0', 'up');
    });
    const lost = result.flows.filter(({ name }) => name.startsWith('udp')).flatMap(({ missing }) => missing);
    assert.ok(lost.length > 0, 'UDP messages are missing');
  });

  test('down removes every trace', async () => {
    for (const address of ['10.0.0.1', '10.0.0.7', '10.0.0.8']) lab.run('lb01', 'ping', '-qc1', address);
    const { datapath } = JSON.parse(tool('dirigo', 'status', '--json')) as { datapath: { program: number } };
    assert.ok(isLoaded(datapath.program));
    assert.notDeepEqual(hostState(), untouched);
    tool('dirigo', 'down');
    assert.deepEqual(hostState(), untouched);
    // The kernel frees it when nobody can be running it any more.
    for (let tries = 0; tries < 50 && isLoaded(datapath.program); tries++) await sleep(100);
    assert.ok(!isLoaded(datapath.program), 'the program is gone from the kernel');
    assert.ok(existsSync(join(lab.folder, 'state')), 'the state stays');
  });

  test('down removes what a killed daemon left, and with --purge-state its state', async () => {
    const killed = await startDaemon();
    killed.kill('SIGKILL');
    await once(killed, 'exit');
    assert.match(lab.run('lb01', 'ip', 'link', 'show', 'eth0'), / xdp /);
    // In the namespace of the daemon, where its interfaces and neighbours are.
    const down = execFileSync(
      'nsenter',
      [`--net=${lab.namespace('lb01')}`, join(root, 'bin/dirigo'), 'down', '--purge-state'],
      { env: { ...process.env, ...environment }, encoding: 'utf8' },
    );
    assert.match(down, /removed the program on eth0 and the tables in /);
    assert.match(down, /removed the socket /);
    assert.match(down, /removed the state in /);
    assert.deepEqual({ ...hostState(), files: '' }, { ...untouched, files: '' });
    assert.ok(!existsSync(join(lab.folder, 'state')));
  });
});
