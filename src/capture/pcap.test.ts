import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import fc from 'fast-check';
import { sampleFrames } from '../../test/frames.ts';
import { missing } from '../../test/requirements.ts';
import { readCaptureFile } from './capture-file.ts';
import { CaptureFileError, nanoseconds } from './frame.ts';
import { isPcap, type PcapOptions, readPcap, writePcap } from './pcap.ts';

const frames = sampleFrames().map(({ frame }, index) => ({
  time: 1_700_000_000_000_000_000n + BigInt(index) * 1_000_001_000n,
  bytes: frame,
  length: frame.length,
}));

const KINDS: PcapOptions[] = [
  {},
  { bigEndian: true },
  { resolution: 'microseconds' },
  { resolution: 'microseconds', bigEndian: true },
];

test('what is written is read back, in both byte orders and resolutions', () => {
  for (const options of KINDS) {
    const file = writePcap(frames, options);
    assert.ok(isPcap(file));
    assert.deepEqual(readPcap(file), frames, JSON.stringify(options));
    assert.deepEqual(readCaptureFile(file), frames);
  }
});

test('nanoseconds are kept, or cut to microseconds', () => {
  const frame = { time: 1_234_567_891n, bytes: new Uint8Array(20), length: 1500 };
  assert.deepEqual(readPcap(writePcap([frame])), [frame]);
  assert.equal(readPcap(writePcap([frame], { resolution: 'microseconds' }))[0]?.time, 1_234_567_000n);
  assert.equal(nanoseconds(0.263929), 263929n);
  assert.throws(() => writePcap([{ ...frame, time: -1n }]), RangeError);
  assert.throws(() => writePcap([{ ...frame, time: 1n << 63n }]), RangeError);
});

test('a file cut off anywhere but between frames is refused, and says where', () => {
  const file = writePcap(frames.slice(0, 3));
  const between = new Set([24]);
  for (let count = 1; count <= 3; count++) between.add(writePcap(frames.slice(0, count)).length);
  for (let length = 0; length < file.length; length++) {
    const cut = file.subarray(0, length);
    if (between.has(length)) readPcap(cut);
    else assert.throws(() => readPcap(cut), CaptureFileError, `cut to ${length}`);
  }
  assert.throws(() => readPcap(file.subarray(0, 50)), /frame 1 of the pcap file \(byte 24\) is cut off/);
});

test('another link type, version or an absurd length is refused by name', () => {
  const spoil = (at: number, value: number): Uint8Array => {
    const file = writePcap(frames.slice(0, 1));
    new DataView(file.buffer).setUint32(at, value, true);
    return file;
  };
  assert.throws(() => readPcap(spoil(20, 101)), /link type is 101, only 1 \(Ethernet\)/);
  assert.throws(() => readPcap(spoil(4, 1)), /version 1.0 is not supported/);
  assert.throws(() => readPcap(spoil(32, 0xffffffff)), /frame 1 .* claims 4294967295 bytes/);
  assert.throws(() => readPcap(spoil(36, 1)), /holds 42 of 1 bytes/);
  assert.throws(() => readCaptureFile(new Uint8Array(100)), /neither a pcap nor a pcapng file/);
});

test('spoiled files are read or refused, never anything else', () => {
  const file = writePcap(frames.slice(0, 4));
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(file.length - 1), fc.nat(255)), { maxLength: 8 }), changes => {
      const spoiled = file.slice();
      for (const [at, value] of changes) spoiled[at] = value;
      try {
        readPcap(spoiled);
      } catch (error) {
        assert.ok(error instanceof CaptureFileError, String(error));
      }
    }),
    { numRuns: 2000 },
  );
});

test('tcpdump reads every kind of file', {
  skip: missing('tcpdump'),
}, () => {
  for (const options of KINDS) {
    const run = spawnSync('tcpdump', ['-r', '-', '-n', '-w', '-'], { input: writePcap(frames, options) });
    assert.equal(run.status, 0, String(run.stderr));
    assert.deepEqual(
      readPcap(run.stdout).map(({ time, bytes }) => ({ time, bytes: Uint8Array.from(bytes) })),
      frames.map(({ time, bytes }) => ({ time, bytes })),
    );
  }
});
