/** `dirigo capture` on a director with the XDP program: real traffic, files that the real tshark reads. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { buildBpf, OBJECT_NAMES } from '../../bpf/build.ts';
import { readCaptureFile } from '../../src/capture/capture-file.ts';
import type { CapturedFrame } from '../../src/capture/frame.ts';
import { Summarizer } from '../../src/capture/summary.ts';
import { removePinned } from '../../src/datapath/xdp/fast-path.ts';
import { NamespaceLab } from '../namespaces.ts';
import { missing } from '../requirements.ts';

const skip = missing('root', 'clang', 'ip', 'nginx', 'curl', 'tshark', 'ethtool', 'nsenter');
const root = join(import.meta.dirname, '../..');
const program = join(root, 'bin/dirigo');
const VIP = '10.0.0.3';
const PATIENCE = 15_000;

describe('a capture on a director', { skip }, () => {
  let lab: NamespaceLab;
  let environment: NodeJS.ProcessEnv;
  let pins: string;

  before(async () => {
    for (const name of OBJECT_NAMES) buildBpf(undefined, name);
    lab = new NamespaceLab();
    pins = `/sys/fs/bpf/${lab.prefix}`;
    environment = { DIRIGO_BPF: pins, DIRIGO_SOCKET: join(lab.folder, 'socket') };
    lab.addHost('client', '10.0.0.1/24');
    lab.addHost('lb01', '10.0.0.5/24', `${VIP}/24`);
    lab.addHost('web01', '10.0.0.7/24');
    lab.run('web01', 'sysctl', '-qw', 'net.ipv4.conf.all.arp_ignore=1', 'net.ipv4.conf.all.arp_announce=2');
    lab.run('web01', 'ip', 'addr', 'add', `${VIP}/32`, 'dev', 'lo');
    const folder = join(lab.folder, 'web01');
    mkdirSync(folder);
    writeFileSync(join(folder, 'index.html'), 'from web01\n');
    writeFileSync(
      join(folder, 'nginx.conf'),
      `daemon off; user root; worker_processes 1; pid ${folder}/pid; error_log ${folder}/error; events {}
       http { access_log off; server { listen 80; root ${folder}; } }`,
    );
    lab.start('web01', {}, 'nginx', '-c', join(folder, 'nginx.conf'));
    const daemon = lab.start('lb01', environment, program, 'up', '--datapath', 'xdp', '--interface', 'eth0');
    let errors = '';
    daemon.stderr?.on('data', text => (errors += text));
    const ended = once(daemon, 'exit').then(() => assert.fail(`the daemon ended: ${errors}`));
    ended.catch(() => {});
    await Promise.race([once(daemon.stdout as NodeJS.EventEmitter, 'data'), ended]);
    const ipvsadm = (...words: string[]): void => {
      execFileSync(join(root, 'bin/ipvsadm'), words, { env: { ...process.env, ...environment } });
    };
    // A scheduler that the program leaves to the director, and one that it has itself.
    for (const [port, scheduler] of [
      ['80', 'rr'],
      ['81', 'twos'],
    ] as const) {
      ipvsadm('-A', '-t', `${VIP}:${port}`, '-s', scheduler);
      ipvsadm('-a', '-t', `${VIP}:${port}`, '-r', `10.0.0.7:${port}`, '-g');
    }
    for (const end = performance.now() + PATIENCE; fetchFrom(80) !== 'from web01\n'; await sleep(100))
      assert.ok(performance.now() < end, 'nginx answers through the director');
  });

  after(async () => {
    await lab.remove();
    removePinned(pins);
  });

  const fetchFrom = (port: number): string =>
    lab.try('client', 'curl', '-s', '--max-time', '5', `http://${VIP}:${port}/`).stdout;

  /** Captures on the director while `action` runs. */
  async function captured(
    action: () => unknown,
    ...words: string[]
  ): Promise<{ out: string; errors: string }> {
    const child: ChildProcess = lab.start('lb01', environment, program, 'capture', ...words);
    let out = '';
    let errors = '';
    child.stdout?.on('data', text => (out += text));
    child.stderr?.on('data', text => (errors += text));
    const exit = once(child, 'exit');
    for (const end = performance.now() + PATIENCE; !errors.includes('Capturing on'); await sleep(20))
      assert.ok(performance.now() < end && child.exitCode === null, `it captures: ${errors}`);
    await action();
    await sleep(400);
    child.kill('SIGINT');
    const [status] = await exit;
    assert.equal(status, 0, errors);
    return { out, errors };
  }

  const file = (name: string): string => join(lab.folder, name);
  const summaries = (frames: readonly CapturedFrame[]): string[] => {
    const summarizer = new Summarizer({ names: false });
    return frames.map(frame => summarizer.summarize(frame).info);
  };

  test('shows each packet of a connection as it came and as it left, with who was chosen', async () => {
    const path = file('xdp.pcapng');
    await captured(() => fetchFrom(80), '-i', 'eth0', '-w', path, `tcp and dst host ${VIP}`);
    const frames = readCaptureFile(readFileSync(path));
    const requests = frames.filter(({ comment }) => /^dirigo: in \d+, by/.test(comment ?? ''));
    const sent = frames.filter(({ comment }) => /^dirigo: out \d+, by/.test(comment ?? ''));
    const client = lab.run('lb01', 'ip', '-j', 'neigh', 'show', '10.0.0.1');
    assert.ok(client.length > 0);
    // SYN, ACK, GET, at least two of the end; nothing of it is seen by the taps of the kernel.
    assert.ok(requests.length >= 4, `only ${requests.length} requests`);
    assert.equal(sent.length, requests.length);
    assert.equal(frames.length, requests.length + sent.length);
    assert.match(summaries(requests)[0] ?? '', /\[SYN\]/);
    for (const [index, request] of requests.entries()) {
      const left = sent[index] as CapturedFrame;
      assert.equal(/in (\d+)/.exec(request.comment ?? '')?.[1], /out (\d+)/.exec(left.comment ?? '')?.[1]);
      assert.equal(left.length, request.length);
      assert.ok(left.time >= request.time);
      // Direct routing: only the MACs, the TTL and the sum of the header differ.
      const differ = Array.from(request.bytes, (byte, at) => (byte === left.bytes[at] ? -1 : at)).filter(
        at => at >= 0,
      );
      assert.ok(
        differ.every(at => at < 12 || at === 22 || at === 24 || at === 25),
        `they differ at ${differ}`,
      );
      assert.match(request.comment ?? '', /10\.0\.0\.7/);
    }
    assert.ok(requests.every(({ interface: name }) => name === 'eth0'));
    const read = spawnSync('tshark', ['-r', path, '-T', 'fields', '-e', 'frame.comment'], {
      encoding: 'utf8',
    });
    assert.equal(read.status, 0);
    assert.doesNotMatch(read.stderr, /warning|error|damaged|cut short/i);
    assert.equal(read.stdout.match(/dirigo: in/g)?.length, requests.length);
  });

  test('shows what the director in TypeScript does, and why', async () => {
    const { out } = await captured(
      () => fetchFrom(81),
      '-i',
      'eth0',
      '--comments',
      '-n',
      'tcp',
      'port',
      '81',
    );
    const syn = out.split('\n').findIndex(line => line.includes('[SYN]'));
    const text = out
      .split('\n')
      .slice(syn, syn + 12)
      .join('\n');
    assert.match(text, /dirigo: in 1, by the director: TCP 10\.0\.0\.1:\d+ -> 10\.0\.0\.3:81 \[SYN\]/);
    assert.match(text, /service tcp 10\.0\.0\.3:81/);
    assert.match(text, /10\.0\.0\.7 port 81/);
    assert.match(text, /outcome: taken/);
    assert.match(out, /dirigo: out 1, by the director/);
    // Nobody listens on the server's port: its answer goes straight to the client.
    assert.doesNotMatch(out, /\[RST/);
  });

  test("frames for the host itself are seen by the kernel's tap, once", async () => {
    const { out, errors } = await captured(
      () => lab.run('client', 'ping', '-c', '2', '-i', '0.2', '10.0.0.5'),
      ...['-i', 'eth0', 'icmp'],
    );
    assert.equal(out.trim().split('\n').length, 4, out);
    assert.match(errors, /4 packets captured/);
  });

  test('an unfinished capture takes nothing with it: the plain program is back', async () => {
    const child = lab.start('lb01', environment, program, 'capture', '-i', 'eth0');
    await once(child.stderr as NodeJS.EventEmitter, 'data');
    child.kill('SIGKILL');
    await once(child, 'exit');
    assert.equal(fetchFrom(80), 'from web01\n');
    // Somebody else can capture at once.
    const { out } = await captured(() => fetchFrom(80), '-i', 'eth0', `dst host ${VIP}`);
    assert.match(out, /GET \/ HTTP\/1\.1/);
  });

  test('ends by itself after as many frames, and a second capture is told that there is one', async () => {
    const first = lab.start('lb01', environment, program, 'capture', '-i', 'eth0', '-c', '3', `host ${VIP}`);
    await once(first.stderr as NodeJS.EventEmitter, 'data');
    const { errors } = await captured(() => {}, '-i', 'eth0');
    assert.match(errors, /without what the director sees: .*captures already/);
    const exit = once(first, 'exit');
    fetchFrom(80);
    assert.deepEqual(await exit, [0, null]);
  });
});
