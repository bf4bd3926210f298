/** Captures against a director that a few lines set up. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { readCaptureFile } from '../../src/capture/capture-file.ts';
import type { CapturedFrame } from '../../src/capture/frame.ts';
import { playCapture, SetupError } from '../../src/replay/capture-play.ts';
import { fromHex, toHex } from '../../src/replay/frames.ts';
import { playPackets } from '../../src/replay/packet-play.ts';
import { parseScenarios } from '../../src/replay/scenario.ts';
import { ethernetFrame, ipv4Packet, tcpSegment } from '../frames.ts';
import { goldenExists, goldenNames, goldenPath } from '../golden.ts';

const skip = goldenExists('rewrite') ? false : 'the recordings of a real ip_vs are not here';

test('a recorded capture goes the way of its scenario', { skip }, () => {
  let compared = 0;
  for (const name of goldenNames('rewrite').filter(each => !each.endsWith('.pcap'))) {
    const [each] = parseScenarios(readFileSync(goldenPath(`rewrite/${name}.json`), 'utf8'), name);
    assert.ok(each?.kind === 'packets');
    const { scenario } = each;
    if (scenario.interfaces === 2 || scenario.net.fwd === 0) continue;
    const frames: CapturedFrame[] = scenario.steps.flatMap((step, index) => {
      if (step.op !== 'packet') return [];
      const bytes = fromHex(step.in);
      return [{ time: BigInt(index) * 10_000_000n, bytes, length: bytes.length }];
    });
    const setup = scenario.setup.map(line => line.replaceAll('\n', ' ; ')).join('\n');
    const outcome = playCapture(setup, 'setup', frames);
    const expected = playPackets(scenario, name, { listings: 'asked' }).steps.flatMap(step => step.out ?? []);
    assert.deepEqual(
      outcome.sent.map(({ bytes }) => toHex(bytes)),
      expected.map(({ hex }) => hex),
      name,
    );
    compared++;
  }
  assert.ok(compared > 60);
});

test('frames of a recorded pcap come out at their times', { skip }, () => {
  const frames = readCaptureFile(readFileSync(goldenPath('rewrite/dr-tcp.in.pcap')));
  const setup = '# a comment\n\n-A -t 10.0.0.3:80 -s rr\nipvsadm -a -t 10.0.0.3:80 -r 10.0.0.7:80 -g\n';
  const outcome = playCapture(setup, 'setup', frames);
  assert.equal(outcome.received, frames.length);
  assert.equal(outcome.sent[0]?.time, frames[0]?.time);
  assert.equal(outcome.sent[0]?.interface, 'eth0');
  assert.deepEqual(outcome.notes, []);
});

// From 10.0.0.1 (00:50:56:c0:00:08) to 10.0.0.3 port 80 (02:00:00:00:00:05).
const SYN = ethernetFrame(0x0800, ipv4Packet(6, tcpSegment(4)));
const captured = (bytes: Uint8Array): CapturedFrame => ({ time: 0n, bytes, length: bytes.length });

test('a host of its own: addresses from the set-up, MAC addresses from the capture', () => {
  const setup = [
    'ip addr add 10.0.0.5/24 dev eth0',
    'ip neigh add 10.0.0.7 lladdr 02:00:00:00:02:07 dev eth0',
    'ipvsadm -A -t 10.0.0.3:80 -s rr',
    'ipvsadm -a -t 10.0.0.3:80 -r 10.0.0.7 -g',
  ].join('\n');
  const outcome = playCapture(setup, 'setup', [captured(SYN)]);
  assert.deepEqual(outcome.notes, []);
  const [frame] = outcome.sent;
  assert.equal(toHex(frame?.bytes.subarray(0, 12) ?? new Uint8Array()), '020000000207020000000005');
});

test('a neighbour that nothing tells of is named', () => {
  const setup =
    'ip addr add 10.0.0.5/24 dev eth0\n-A -t 10.0.0.3:80 -s rr\n-a -t 10.0.0.3:80 -r 10.0.0.77 -g';
  const outcome = playCapture(setup, 'setup', [captured(SYN)]);
  assert.deepEqual(outcome.sent, []);
  assert.match(outcome.notes.join(), /frames to 10\.0\.0\.77 were lost: say "ip neigh add 10\.0\.0\.77/);
});

test('mark rules of the set-up', () => {
  const setup =
    'ip addr add 10.0.0.5/24 dev eth0\nip neigh add 10.0.0.7 lladdr 02:00:00:00:02:07 dev eth0\nip addr add 10.0.0.3/32 dev eth0\n' +
    'tcp to 10.0.0.3 port 80-443 mark 1\n-A -f 1 -s rr\n-a -f 1 -r 10.0.0.7 -g\n';
  assert.equal(playCapture(setup, 'setup', [captured(SYN)]).sent.length, 1);
  assert.equal(playCapture(setup.replace('80-443', '81-443'), 'setup', [captured(SYN)]).sent.length, 1);
  assert.match(playCapture(setup, 'setup', [captured(SYN)]).listings, /FWM {2}1 +1 +1 /);
  assert.doesNotMatch(
    playCapture(setup.replace('80-443', '81-443'), 'setup', [captured(SYN)]).listings,
    /FWM {2}1 +1 /,
  );
});

test('a wrong line is named with its number', () => {
  assert.throws(
    () => playCapture('ipvsadm -A -t 10.0.0.3:80\nnonsense', 'my.setup', []),
    (error: Error) =>
      error instanceof SetupError && /^my\.setup line 2: nonsense: not known here/.test(error.message),
  );
});
