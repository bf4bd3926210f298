import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ClockReading, KernelClock, measureFrequency } from './clock.ts';

/** A kernel whose readings lie 7 µs apart; `stall` lets its ticks be noticed late by so many nanoseconds. */
function kernel(hz: number, stall: (reading: number) => bigint = () => 0n): () => ClockReading {
  let nanoseconds = 123_456_789n;
  let reading = 0;
  return () => {
    nanoseconds += 7000n + stall(reading++);
    return { ticks: 0xffff_fff0n + (nanoseconds * BigInt(hz)) / 1_000_000_000n, nanoseconds };
  };
}

test('every frequency a kernel can have is recognised', () => {
  for (const hz of [100, 250, 300, 1000]) assert.equal(measureFrequency(kernel(hz)), hz);
});

test('a measurement that was disturbed is repeated', () => {
  // The first attempt sees a stretch of 13 ms in the middle of a tick.
  const disturbed = kernel(250, reading => (reading === 1500 ? 13_000_000n : 0n));
  assert.equal(measureFrequency(disturbed), 250);
});

test('a clock that fits nothing is refused', () => {
  assert.throws(() => measureFrequency(kernel(480)), /tick frequency cannot be measured/);
});

test('now is the kernel’s tick count in milliseconds', () => {
  const ticks = 4_295_412_576n;
  const read = (): ClockReading => ({ ticks, nanoseconds: process.hrtime.bigint() });
  const clock = new KernelClock(250, read);
  const drift = Math.floor((clock.now() * 250) / 1000) - Number(ticks);
  assert.ok(drift >= -1 && drift <= 25, `${drift} ticks off`);
});
