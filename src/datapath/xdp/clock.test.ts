import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildBpf } from '../../../bpf/build.ts';
import { missing } from '../../../test/requirements.ts';
import { type ClockReading, KernelClock } from './clock.ts';
import { FastPath } from './fast-path.ts';

test('the frequency is the one that the ticks have', { skip: missing('root', 'clang') }, () => {
  const fastPath = new FastPath({
    object: buildBpf(),
    directory: `/sys/fs/bpf/dirigo-clock-${process.pid}`,
    capacity: 64,
    destinationCapacity: 64,
  });
  try {
    const first = fastPath.readClock();
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 400);
    const last = fastPath.readClock();
    const ticks = Number(last.ticks - first.ticks);
    const expected = (Number(last.nanoseconds - first.nanoseconds) / 1e9) * fastPath.control.hz;
    // A tick begins somewhere; a virtual machine that is kept waiting makes up for it.
    assert.ok(Math.abs(ticks - expected) <= 3, `${ticks} ticks where ${expected.toFixed(1)} were expected`);
  } finally {
    fastPath.remove();
  }
});

test('now is the kernel’s tick count in milliseconds', () => {
  const ticks = 4_295_412_576n;
  const read = (): ClockReading => ({ ticks, nanoseconds: process.hrtime.bigint() });
  const clock = new KernelClock(250, read);
  const drift = Math.floor((clock.now() * 250) / 1000) - Number(ticks);
  assert.ok(drift >= -1 && drift <= 25, `${drift} ticks off`);
});
