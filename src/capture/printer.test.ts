import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sampleFrames } from '../../test/frames.ts';
import { FilterError } from './filter.ts';
import { CapturePrinter } from './printer.ts';

const samples = sampleFrames();

test('frames that the filter refuses are neither printed nor counted', () => {
  const printer = new CapturePrinter({ filter: 'udp or icmp6' });
  const lines = samples.flatMap(
    ({ frame }, index) => printer.print(BigInt(index) * 1_000_000_000n, frame) ?? [],
  );
  assert.equal(printer.count, lines.length);
  assert.equal(lines[0], '1 0.000000000     10.0.0.1 -> 10.0.0.3     UDP 52 40000 > 53 Len=10');
  assert.match(lines[1] ?? '', /^2 4\.000000000 .* Fragmented IP protocol/);
  assert.match(lines.at(-1) ?? '', /IPv6 fragment|ICMPv6|UDP/);
});

test('without numbers and names', () => {
  const printer = new CapturePrinter({ numbering: false, names: false });
  assert.equal(
    printer.print(5n, samples[0]?.frame ?? new Uint8Array()),
    '0.000000000 00:0c:29:2e:aa:48 -> ff:ff:ff:ff:ff:ff ARP 42 Who has 172.16.1.51? Tell 172.16.1.61',
  );
});

test('as a tree and as JSON, with what is known of the frame besides its bytes', () => {
  const frame = samples[0]?.frame ?? new Uint8Array();
  const tree = new CapturePrinter({ format: 'tree' }).print(0n, frame, { interface: 'eth1' });
  assert.match(
    tree ?? '',
    /^Frame 1: 42 bytes[\s\S]*\n {4}Interface name: eth1\n[\s\S]*\nAddress Resolution Protocol/,
  );
  const json = new CapturePrinter({ format: 'json' }).print(0n, frame.subarray(0, 30), { length: 42 });
  const { frame: fields } = JSON.parse(json ?? '')._source.layers;
  assert.deepEqual([fields['frame.number'], fields['frame.len'], fields['frame.cap_len']], ['1', '42', '30']);
});

test('a wrong filter is refused at once', () => {
  assert.throws(() => new CapturePrinter({ filter: 'port htpp' }), FilterError);
});
