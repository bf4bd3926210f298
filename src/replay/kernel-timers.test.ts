import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DestinationTable } from '../ipvs/destinations.ts';
import { firesAt, KERNEL_HZ, KernelTimedTable } from './kernel-timers.ts';

test('near timers fire at the next jiffy, far ones at the end of coarser slots', () => {
  assert.equal(firesAt(1000, 1000), 1001);
  assert.equal(firesAt(1062, 1000), 1063);
  // From 63 jiffies on the slots are 8 wide, from 504 on 64, from 4032 on 512, from 32256 on 4096.
  assert.equal(firesAt(63, 0), 64);
  assert.equal(firesAt(504, 0), 512);
  assert.equal(firesAt(4031, 0), 4032);
  assert.equal(firesAt(4032, 0), 4096);
  assert.equal(firesAt(60 * KERNEL_HZ, 0), 15360);
  assert.equal(firesAt(900 * KERNEL_HZ, 0), 225280);
});

test('a timer is never early, and late by an eighth of its time at most', () => {
  fc.assert(
    fc.property(fc.nat(2 ** 30), fc.nat(300_000_000), (now, distance) => {
      const late = firesAt(now + distance, now) - (now + distance);
      assert.ok(late > 0);
      assert.ok(late <= Math.max(1, (distance * 8) / 63));
    }),
  );
});

test('a connection lives until its timer fires, with no time left', () => {
  const table = new KernelTimedTable({ capacity: 4, destinations: new DestinationTable(4) }, 0);
  const now = table.tick(0);
  table.setExpires(0, now + 60 * KERNEL_HZ);
  const [before, at, after] = [59_000, 61_000, 61_440].map(time => table.tick(time));
  assert.equal(table.remaining(0, before as number), KERNEL_HZ);
  assert.equal(table.remaining(0, at as number), 0);
  assert.equal(table.hasExpired(0, at as number), false);
  assert.equal(table.hasExpired(0, after as number), true);
});
