/** What captures see of an XDP program: a real one, and filters as libpcap compiles them. */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import fc from 'fast-check';
import { compileBpf } from '../../../bpf/build.ts';
import { sampleFrames } from '../../../test/frames.ts';
import { missing } from '../../../test/requirements.ts';
import { Filter } from '../../capture/filter.ts';
import { FrameRunner, XdpVerdict } from '../ffi/libbpf.ts';
import { compileFilter, type FilterInstruction } from '../ffi/libpcap.ts';
import { reasonNames } from './control.ts';
import { type ProgramSighting, ProgramTap } from './program-tap.ts';

const skip = missing('root', 'clang');
const HZ = 250;
/** First bytes that `bpf/test/tapped.bpf.c` knows. */
const First = { transmit: 0xf8, pass: 0xfa, up: 0xfc } as const;

interface Bed {
  /** What the tap saw of these frames. */
  see(frames: readonly Uint8Array[]): ProgramSighting[];
  tap: ProgramTap;
}

const OBJECT = join(tmpdir(), `dirigo-tapped-${process.pid}.bpf.o`);

after(() => rmSync(OBJECT, { force: true }));

function withTap(
  options: { filter?: readonly FilterInstruction[]; limit?: number; looks?: number; snapshotLength?: number },
  action: (bed: Bed) => void,
): void {
  const source = join(import.meta.dirname, '../../../bpf/test/tapped.bpf.c');
  const headers = ['tap.h', 'counters.h', 'layout.h'].map(name =>
    join(import.meta.dirname, '../../../bpf', name),
  );
  const tap = new ProgramTap({
    object: compileBpf(source, [source, ...headers], OBJECT),
    shared: {},
    leaveOut: [],
    filter: options.filter ?? [],
    limit: options.limit ?? 1_000_000,
    looks: options.looks ?? 1_000_000,
    snapshotLength: options.snapshotLength ?? 2048,
    hz: HZ,
  });
  const runner = new FrameRunner(tap.program, 4096);
  const see = (frames: readonly Uint8Array[]): ProgramSighting[] => {
    for (const frame of frames) {
      runner.input.set(frame);
      runner.run(frame.length, 0);
    }
    const seen: ProgramSighting[] = [];
    while (tap.drain(sighting => seen.push(sighting)) > 0);
    return seen;
  };
  try {
    action({ see, tap });
  } finally {
    tap.close();
  }
}

const beginning = (first: number, length = 60): Uint8Array => {
  const frame = new Uint8Array(length).fill(7);
  frame[0] = first;
  return frame;
};

describe('the tap of the program', { skip }, () => {
  test('shows what was dropped, and what was sent as it came and as it left', () => {
    withTap({}, ({ see, tap }) => {
      const [dropped, before, after, ...more] = see([beginning(1), beginning(First.transmit, 90)]);
      assert.ok(dropped && before && after);
      assert.equal(more.length, 0);
      assert.deepEqual(
        [dropped.verdict, dropped.reason, dropped.isAfter, dropped.length],
        [XdpVerdict.drop, reasonNames.indexOf('no director'), false, 60],
      );
      assert.deepEqual(dropped.bytes, beginning(1));
      assert.deepEqual([before.verdict, before.isAfter], [XdpVerdict.transmit, false]);
      assert.deepEqual(before.bytes, beginning(First.transmit, 90));
      assert.deepEqual(
        [after.verdict, after.isAfter, after.number],
        [XdpVerdict.transmit, true, before.number],
      );
      assert.deepEqual(after.bytes, beginning(0xf6, 90));
      assert.ok(after.time >= before.time && before.time > dropped.time);
      assert.deepEqual(tap.losses(), { ring: 0, limit: 0 });
    });
  });

  test('leaves out what others show: what passed to the host and what went up to the director', () => {
    withTap({}, ({ see }) => {
      assert.deepEqual(see([beginning(First.pass), beginning(First.up)]), []);
    });
  });

  test('keeps the head of long frames, and says how long they were', () => {
    withTap({ snapshotLength: 64 }, ({ see }) => {
      const [seen] = see([beginning(1, 1500)]);
      assert.deepEqual([seen?.length, seen?.bytes.length], [1500, 64]);
    });
    withTap({}, ({ see }) => {
      const [seen] = see([beginning(1, 3500)]);
      assert.deepEqual([seen?.length, seen?.bytes.length], [3500, 2048]);
    });
  });

  test('a frame that is over the limit is counted and not copied', () => {
    withTap({ limit: 100 }, ({ see, tap }) => {
      const frames = Array.from({ length: 1000 }, () => beginning(1));
      const seen = see(frames).length;
      // Ten a tenth of a second; the thousand runs may take more than one.
      assert.ok(seen >= 10 && seen <= 500, `${seen} seen`);
      assert.equal(tap.losses().limit, 1000 - seen);
    });
  });

  test('a filter that nothing passes is tried on so many frames only', () => {
    withTap({ filter: compileFilter('tcp port 9'), looks: 100 }, ({ see, tap }) => {
      assert.deepEqual(see(Array.from({ length: 1000 }, () => beginning(1))), []);
      const { limit } = tap.losses();
      assert.ok(limit >= 500 && limit <= 990, `${limit} not looked at`);
    });
  });

  const FILTERS = [
    'tcp',
    'udp port 53',
    'arp',
    'ip6',
    'host 10.0.0.3',
    'net 10.0.0.0/24 and not port 80',
    'tcp[tcpflags] & (tcp-syn|tcp-fin) != 0',
    'ip[8] < 65 or ip6[7] > 63',
    'len > 80',
    'greater 100',
    'icmp or icmp6',
    'ether host 02:00:00:00:00:01',
    'vlan and tcp',
    'portrange 20-100',
    'tcp[13] = 18 or udp[4:2] > 30',
    'ip[2:2] - ((ip[0] & 0xf) << 2) > 20',
    'ip[6:2] & 0x1fff != 0',
    'ether[100] = 0',
    'ip6 and ip6[40] > 2',
    'sctp',
    'ip proto 4',
    '(ip[0] & 15) * 4 / 5 = 4',
  ];

  test('filters as libpcap does: whole frames and spoiled ones, as the filter language of captures', () => {
    const samples = sampleFrames().map(({ frame }) => frame);
    const spoiled = fc
      .tuple(fc.constantFrom(...samples), fc.nat(), fc.nat(255), fc.nat())
      .map(([frame, at, value, cut]) => {
        const bytes = frame.slice(0, Math.max(14, frame.length - (cut % frame.length)));
        const place = 12 + (at % Math.max(1, bytes.length - 12));
        if (place < bytes.length) bytes[place] = value;
        return bytes;
      });
    let passed = 0;
    let refused = 0;
    for (const text of FILTERS) {
      const filter = new Filter(text);
      withTap({ filter: compileFilter(text, 2048) }, ({ see }) => {
        const judge = (bytes: Uint8Array): void => {
          const seen = see([bytes]).length > 0;
          assert.equal(seen, filter.matches(bytes), `${text}: ${Buffer.from(bytes).toString('hex')}`);
          if (seen) passed++;
          else refused++;
        };
        for (const sample of samples) judge(sample);
        fc.assert(fc.property(spoiled, judge), { numRuns: 200 });
      });
    }
    assert.ok(passed > 500 && refused > 500, `${passed} passed, ${refused} refused`);
  });
});
