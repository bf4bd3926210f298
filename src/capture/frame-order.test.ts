import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { FrameOrder } from './frame-order.ts';

const frame = (time: number) => ({ time: BigInt(time), bytes: new Uint8Array(1), length: 1 });

test('frames of sources that come late are put in order, and none is kept longer than that takes', () => {
  const order = new FrameOrder(50n);
  for (const time of [100, 130, 110, 120]) order.push(frame(time));
  assert.deepEqual(order.take(149n), []);
  assert.deepEqual(
    order.take(170n).map(({ time }) => Number(time)),
    [100, 110, 120],
  );
  assert.deepEqual(
    order.takeAll().map(({ time }) => Number(time)),
    [130],
  );
});

test('nothing is lost, and what comes in time leaves in order', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(20)), late => {
      const order = new FrameOrder(20n);
      const out: bigint[] = [];
      for (const [step, back] of late.entries()) {
        order.push(frame(1000 + step - back));
        out.push(...order.take(BigInt(1000 + step)).map(({ time }) => time));
      }
      out.push(...order.takeAll().map(({ time }) => time));
      assert.equal(out.length, late.length);
      assert.deepEqual(
        out,
        out.toSorted((one, other) => Number(one - other)),
      );
    }),
  );
});
