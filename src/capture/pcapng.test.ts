import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { sampleFrames } from '../../test/frames.ts';
import { missing } from '../../test/requirements.ts';
import { tsharkLines } from '../../test/tshark.ts';
import { readCaptureFile } from './capture-file.ts';
import { type CapturedFrame, CaptureFileError, joinBytes } from './frame.ts';
import { isPcapng, PcapngWriter, readPcapng, writePcapng } from './pcapng.ts';

const frames = sampleFrames().map(({ name, frame }, index): CapturedFrame => {
  const captured = { time: 1_700_000_000_000_000_000n + BigInt(index), bytes: frame, length: frame.length };
  return index % 2
    ? { ...captured, interface: 'lb01/eth0', comment: name }
    : { ...captured, interface: 'eth1' };
});

test('what is written is read back: times, interfaces, comments', () => {
  const file = writePcapng(frames);
  assert.ok(isPcapng(file));
  assert.deepEqual(readPcapng(file), frames);
  assert.deepEqual(readCaptureFile(file), frames);
  const nameless = { time: 5n, bytes: new Uint8Array(61), length: 1514 };
  assert.deepEqual(readPcapng(writePcapng([nameless])), [nameless]);
});

test('a file grows piece by piece, an interface is described in front of its first frame', () => {
  const writer = new PcapngWriter();
  let file = writer.start();
  for (const [index, frame] of frames.entries()) {
    file = joinBytes([file, writer.frame(frame)]);
    assert.equal(readPcapng(file).length, index + 1);
  }
  assert.throws(() => writer.frame({ time: -1n, bytes: new Uint8Array(14), length: 14 }), RangeError);
});

/** The same file in the other byte order: every number that the writer wrote, turned around. */
function bigEndian(): Uint8Array {
  const u16 = (value: number): number[] => [value >>> 8, value & 0xff];
  const u32 = (value: number): number[] => [...u16(value >>> 16), ...u16(value & 0xffff)];
  const block = (type: number, body: number[]): number[] => [
    ...u32(type),
    ...u32(body.length + 12),
    ...body,
    ...u32(body.length + 12),
  ];
  return Uint8Array.from([
    ...block(0x0a0d0d0a, [...u32(0x1a2b3c4d), ...u16(1), ...u16(0), ...u32(0xffffffff), ...u32(0xffffffff)]),
    // No resolution stated: microseconds. Then one in units of 2^-10 s.
    ...block(1, [...u16(1), ...u16(0), ...u32(96)]),
    ...block(1, [...u16(1), ...u16(0), ...u32(0), ...u16(9), ...u16(1), 0x8a, 0, 0, 0, ...u32(0)]),
    // A block of a kind that is passed over (name resolution).
    ...block(4, u32(0)),
    ...block(6, [...u32(0), ...u32(1), ...u32(2), ...u32(3), ...u32(60), 1, 2, 3, 0]),
    ...block(6, [...u32(1), ...u32(0), ...u32(512), ...u32(0), ...u32(0)]),
    ...block(3, [...u32(100), ...new Array<number>(96).fill(7)]),
  ]);
}

test('other byte orders, resolutions and blocks are read', () => {
  const [first, second, third] = readPcapng(bigEndian());
  assert.deepEqual(first, { time: 4294967298000n, bytes: Uint8Array.of(1, 2, 3), length: 60 });
  assert.deepEqual(second, { time: 500_000_000n, bytes: new Uint8Array(0), length: 0 });
  assert.deepEqual(third, { time: 0n, bytes: new Uint8Array(96).fill(7), length: 100 });
});

test('two sections in one file count their interfaces apart', () => {
  const twice = joinBytes([writePcapng(frames), bigEndian(), writePcapng(frames)]);
  assert.equal(readPcapng(twice).length, 2 * frames.length + 3);
});

test('a file cut off inside a block is refused, and says where', () => {
  const file = writePcapng(frames.slice(0, 2));
  let accepted = 0;
  for (let length = 1; length < file.length; length++) {
    try {
      readPcapng(file.subarray(0, length));
      accepted++;
    } catch (error) {
      assert.ok(error instanceof CaptureFileError, `cut to ${length}: ${error}`);
    }
  }
  // Behind the section header, the two interfaces and the first frame.
  assert.equal(accepted, 4);
  assert.throws(
    () => readPcapng(file.subarray(0, file.length - 1)),
    /the pcapng block at byte \d+ is cut off/,
  );
});

test('spoiled files are read or refused, never anything else', () => {
  const file = writePcapng(frames.slice(0, 4));
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(file.length - 1), fc.nat(255)), { maxLength: 8 }), changes => {
      const spoiled = file.slice();
      for (const [at, value] of changes) spoiled[at] = value;
      try {
        readPcapng(spoiled);
      } catch (error) {
        assert.ok(error instanceof CaptureFileError, String(error));
      }
    }),
    { numRuns: 2000 },
  );
});

test('tshark reads the file: times, interface names, comments', { skip: missing('tshark') }, () => {
  const fields = ['frame.time_epoch', 'frame.interface_name', 'frame.comment', 'frame.len'];
  assert.deepEqual(
    tsharkLines(frames, ['-T', 'fields', ...fields.flatMap(field => ['-e', field])]),
    frames.map(frame => {
      const seconds = `${frame.time / 1_000_000_000n}.${String(frame.time % 1_000_000_000n).padStart(9, '0')}`;
      return [seconds, frame.interface, frame.comment ?? '', frame.length].join('\t');
    }),
  );
});
