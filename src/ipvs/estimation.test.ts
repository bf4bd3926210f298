/** Rates of many servers, sampled a part at a time. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { addService, makeBench } from './director.fixture.ts';
import { COUNTER_STRIDE, Counter, ESTIMATION_PERIOD } from './statistics.ts';

/** What a rate becomes with one sample of so many packets: a quarter of the way. */
const afterOne = (packets: number): number => packets / ESTIMATION_PERIOD / 4;

test('a sample that is taken in parts is whole at the end, or when the next begins', () => {
  const bench = makeBench();
  const { administration, pool } = bench.director;
  const keys = [81, 82, 83, 84].map(port => addService(bench, 'tcp', 4, port, {}));
  const rates = (): number[] =>
    keys.map(key => administration.service(key)?.statistics.inPacketRate ?? -1).toSorted((a, b) => a - b);
  const count = (packets: number): void => {
    for (const [index, owner] of pool.owners.entries()) {
      if (owner) pool.counters[index * COUNTER_STRIDE + Counter.inPackets] = packets;
    }
  };
  count(800);
  administration.estimate(1);
  assert.deepEqual(rates(), [0, 0, 0, afterOne(800)]);
  assert.equal(administration.totals().inPacketRate, 0, 'that of all comes with the last part');
  administration.estimateOn(3);
  assert.deepEqual(rates(), [0, afterOne(800), afterOne(800), afterOne(800)]);
  // One that goes in the meantime is not looked at any more.
  const last = keys.find(key => administration.service(key)?.statistics.inPacketRate === 0);
  assert.ok(last);
  administration.deleteService(last);
  keys.splice(keys.indexOf(last), 1);
  administration.estimateOn(1);
  assert.deepEqual(rates(), [afterOne(800), afterOne(800), afterOne(800)]);
  assert.equal(administration.totals().inPacketRate, afterOne(4 * 800));
  administration.estimateOn(9);
  assert.deepEqual(rates(), [afterOne(800), afterOne(800), afterOne(800)], 'nothing is sampled twice');

  // Nothing more came: rates go down by a quarter with each sample.
  administration.estimate(1);
  administration.estimate(1);
  const [two, one] = [afterOne(800) * 0.5625, afterOne(800) * 0.75].map(Math.round);
  assert.deepEqual(
    rates(),
    [one, one, two].toSorted((a, b) => (a as number) - (b as number)),
  );
});
