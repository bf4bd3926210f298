/** Which services come first, for who shows only some. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeBench } from '../ipvs/director.fixture.ts';
import { COUNTER_STRIDE, Counter } from '../ipvs/statistics.ts';
import { NO_NAMES } from '../ipvsadm/name-files.ts';
import { runIpvsadm } from '../ipvsadm/run.ts';
import { firstServices, type ServiceOrder } from './service-order.ts';

const { director } = makeBench();
const { administration, pool } = director;
const lines = [
  '-A -t 10.0.0.10:80',
  '-A -t 10.0.0.9:443',
  '-A -t 10.0.0.9:80',
  '-A -u 10.0.0.9:80',
  '-A -f 7',
  '-a -t 10.0.0.9:80 -r 10.0.0.7:80',
  '-a -u 10.0.0.9:80 -r 10.0.0.8:80',
];
assert.equal(runIpvsadm(['-R'], lines.join('\n'), administration, NO_NAMES).status, 0);

function first(order: ServiceOrder, limit = 9, isReversed = false): string[] {
  return firstServices(administration, pool.table, { order, isReversed, limit }).map(({ name }) => name);
}

test('by name, numbers as numbers', () => {
  const names = ['fwm 7', 'tcp 10.0.0.9:80', 'tcp 10.0.0.9:443', 'tcp 10.0.0.10:80', 'udp 10.0.0.9:80'];
  assert.deepEqual(first('name'), names);
  assert.deepEqual(first('name', 2), names.slice(0, 2));
  assert.deepEqual(first('name', 2, true), names.toReversed().slice(0, 2));
});

test('the busiest of each kind', () => {
  const count = (address: string, counter: number, by: number): void => {
    const index = pool.owners.findIndex(owner => owner?.specification.address === address);
    pool.counters[index * COUNTER_STRIDE + counter] = by;
  };
  count('10.0.0.7', Counter.inPackets, 1000);
  count('10.0.0.8', Counter.outBytes, 100_000);
  count('10.0.0.8', Counter.connections, 100);
  administration.estimate();
  assert.equal(first('packets')[0], 'tcp 10.0.0.9:80');
  assert.equal(first('bytes')[0], 'udp 10.0.0.9:80');
  assert.equal(first('connections')[0], 'udp 10.0.0.9:80');
  assert.equal(first('packets', 1, true)[0], 'udp 10.0.0.9:80');
  const busy = pool.owners.findIndex(owner => owner?.specification.address === '10.0.0.8');
  pool.table.addActive(busy, 3);
  assert.equal(first('active')[0], 'udp 10.0.0.9:80');
});
