/** `dirigo replay` as it is typed. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { readCaptureFile } from '../../src/capture/capture-file.ts';
import { goldenExists, goldenPath } from '../golden.ts';

const PROGRAM = fileURLToPath(new URL('../../src/cli/dirigo.ts', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'dirigo-replay-test-'));
after(() => rmSync(folder, { recursive: true }));
const skip = goldenExists('rewrite') ? false : 'the recordings of a real ip_vs are not here';

function replay(...words: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [PROGRAM, 'replay', ...words], { encoding: 'utf8' });
}

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

interface Played {
  steps: { out?: { hex: string }[] }[];
}

test('prints the scenario with what the director did', { skip }, () => {
  const recorded = JSON.parse(readFileSync(goldenPath('rewrite/dr-tcp.json'), 'utf8')) as Played;
  const blank = { ...recorded, steps: recorded.steps.map(step => ({ ...step, out: [] })) };
  const { status, stdout, stderr } = replay(file('blank.json', JSON.stringify(blank)));
  assert.equal(stderr, '');
  assert.equal(status, 0);
  const played = JSON.parse(stdout) as Played;
  assert.equal(played.steps[0]?.out?.[0]?.hex, recorded.steps[0]?.out?.[0]?.hex);
  assert.deepEqual(Object.keys(played), Object.keys(recorded));
});

test('scenarios of scheduling come one a line', { skip }, () => {
  const { status, stdout } = replay(goldenPath('sched/rr.jsonl'));
  assert.equal(status, 0);
  const values = (text: string): unknown[] =>
    text
      .trimEnd()
      .split('\n')
      .map(line => JSON.parse(line) as unknown);
  assert.deepEqual(values(stdout), values(readFileSync(goldenPath('sched/rr.jsonl'), 'utf8')));
});

test('--check: status 0 without differences, 1 with', { skip }, () => {
  const good = goldenPath('rewrite/dr-tcp.json');
  const agreed = replay('--check', good, goldenPath('sched/wrr.jsonl'));
  assert.equal(agreed.status, 0, agreed.stdout);
  assert.match(agreed.stdout, /^\d+ scenarios, none differs\n$/);
  const bad = file('bad.json', readFileSync(good, 'utf8').replace('-r 10.0.0.7:80', '-r 10.0.0.8:80'));
  const differing = replay('--check', good, bad);
  assert.equal(differing.status, 1);
  assert.match(
    differing.stdout,
    /bad\.json dr-tcp: \d+ differences\n {2}step 0: out 0 on eth0\n {4}recorded\n/,
  );
  assert.match(differing.stdout, /2 scenarios, 1 differ\n$/);
});

test('a capture goes through, as pcap and as pcapng', { skip }, () => {
  const setup = file('setup', '-A -t 10.0.0.3:80 -s rr\n-a -t 10.0.0.3:80 -r 10.0.0.7:80 -g\n');
  const expected = readCaptureFile(readFileSync(goldenPath('rewrite/dr-tcp.out.pcap')));
  for (const name of ['out.pcap', 'out.pcapng']) {
    const out = join(folder, name);
    const { status, stdout, stderr } = replay(
      ...['--setup', setup, '--read', goldenPath('rewrite/dr-tcp.in.pcap'), '--write', out],
    );
    assert.equal(stderr, '');
    assert.equal(status, 0);
    assert.match(stdout, /^\d+ frames in, \d+ out\n/);
    const frames = readCaptureFile(readFileSync(out));
    assert.equal(frames.length, expected.length);
    assert.deepEqual(Buffer.from(frames[0]?.bytes ?? []), Buffer.from(expected[0]?.bytes ?? []));
  }
});

test('wrong input is one line and status 2', () => {
  const wrong: [words: string[], message: RegExp][] = [
    [[], /name a scenario/],
    [[join(folder, 'missing.json')], /missing\.json: no such file or directory/],
    [[file('no.json', '{')], /no\.json: no JSON/],
    [[file('step.json', '{"steps":[{"op":"packet","in":"zz"}]}')], /step\.json step 0: "in" must be a frame/],
    [['--setup', 'x'], /go together/],
    [['--setup', 'x', '--read', 'y', '--write', 'z', '--check'], /without --check/],
    [['--setup', file('s', ''), '--read', file('r', 'no capture'), '--write', 'z'], /r: neither a pcap/],
    [['--nosuch'], /unknown option/],
  ];
  for (const [words, message] of wrong) {
    const { status, stdout, stderr } = replay(...words);
    assert.equal(status, 2, stderr);
    assert.equal(stdout, '');
    assert.match(stderr, message);
    assert.doesNotMatch(stderr, /\n\s+at /);
  }
});
