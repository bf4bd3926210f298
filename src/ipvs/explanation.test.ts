import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DESTINATION_BYTES, DestinationField, DestinationFlag, DestinationTable } from './destinations.ts';
import { explainSelection } from './explanation.ts';
import type { Plan, SchedulerServer, SelectionRequest } from './plan.ts';
import { SCHEDULERS } from './schedulers/registry.ts';
import { DEFAULT_LOCALITY_EXPIRATION, Selector } from './selection.ts';
import { SchedulerFlag } from './specification.ts';

/** Two servers, 10.0.0.8:80 of weight 1 (index 0) and 10.0.0.7:80 of weight 3 (index 1), newest first. */
function service(
  name: string,
  flags = 0,
): { plan: Plan; table: DestinationTable; request: SelectionRequest } {
  const table = new DestinationTable(2);
  const servers: SchedulerServer[] = [1, 3].map((weight, index) => {
    table.allocate();
    table.view.setInt32(index * DESTINATION_BYTES + DestinationField.weight, weight, true);
    table.setFlag(index, DestinationFlag.available, true);
    return { index, address: Uint8Array.of(10, 0, 0, 8 - index), port: 80, weight, lastWeight: weight };
  });
  const bytes = Uint8Array.of(10, 0, 0, 1, 10, 0, 0, 3);
  const view = new DataView(bytes.buffer);
  const scheduler = SCHEDULERS.get(name);
  assert(scheduler);
  return {
    plan: scheduler.compile(servers, flags, 'service', undefined),
    table,
    request: { now: 0, family: 4, bytes, view, sourceAt: 0, destinationAt: 4, sourcePort: 1234 },
  };
}

test('a sequence tells the passes, whom they look at and the place afterwards', () => {
  const { plan, table, request } = service('wrr');
  const first = explainSelection(plan, request, table);
  assert(first.kind === 'sequence');
  assert.deepEqual(
    first.passes.map(pass => [pass.weight, pass.taken, pass.probed.map(probe => probe.destination)]),
    [[3, true, [0, 1]]],
  );
  assert.deepEqual([first.chosen, first.cursor, first.currentWeight], [1, 1, 3]);
  table.setFlag(1, DestinationFlag.overloaded, true);
  const second = explainSelection(plan, request, table);
  assert(second.kind === 'sequence');
  assert.deepEqual(
    second.passes.map(pass => [pass.weight, pass.taken, pass.probed.map(probe => probe.destination)]),
    [
      [3, false, [0, 1]],
      [1, true, [0]],
    ],
  );
  assert.deepEqual([second.skipped, second.chosen], [1, 0]);
  table.setFlag(0, DestinationFlag.overloaded, true);
  const refused = explainSelection(plan, request, table);
  assert(refused.kind === 'sequence');
  assert.equal(refused.chosen, -1);
  assert(refused.passes.every(pass => !pass.taken));
});

test('a hash tells what is hashed and the places looked at', () => {
  const { plan, table, request } = service('sh', SchedulerFlag.flag1 | SchedulerFlag.flag2);
  const told = explainSelection(plan, request, table);
  assert(told.kind === 'hash');
  assert.deepEqual([told.address, told.port, told.input], ['10.0.0.1', 1234, 0x0a000001 + 1234]);
  assert.equal(told.probed.length, 1);
  assert.equal(told.probed[0]?.destination, told.chosen);
  table.setFlag(told.chosen, DestinationFlag.overloaded, true);
  const fallback = explainSelection(plan, request, table);
  assert(fallback.kind === 'hash');
  assert.equal(fallback.chosen, 1 - told.chosen);
  assert(fallback.probed.length > 1);
  assert.deepEqual(fallback.probed.map(probe => probe.eligible).indexOf(true), fallback.probed.length - 1);
});

test('a scan tells every cost and why a server is out', () => {
  const { plan, table, request } = service('ovf');
  table.addActive(1, 4);
  const told = explainSelection(plan, request, table);
  assert(told.kind === 'least-cost');
  assert.deepEqual(
    told.candidates.map(({ cost, excluded }) => [cost, excluded]),
    [
      [-1, undefined],
      [undefined, 'more active connections than weight'],
    ],
  );
  assert.equal(told.chosen, 0);
});

test('two choices stay open without random numbers, and are followed with them', () => {
  const { plan, table, request } = service('twos');
  const open = explainSelection(plan, request, table);
  assert(open.kind === 'random');
  assert.equal(open.chosen, null);
  assert.deepEqual(
    open.candidates.map(({ from, to }) => [from, to]),
    [
      [0, 1],
      [2, 4],
    ],
  );
  const numbers = [4, 1];
  table.addActive(1, 1);
  const told = explainSelection(plan, request, table, { random: () => numbers.shift() ?? 0 });
  assert(told.kind === 'random');
  assert.deepEqual(told.draws, [
    { number: 4, destination: 1 },
    { number: 1, destination: 0 },
  ]);
  assert.equal(told.chosen, 0);
});

test('locality tells whether memory decided, and why not', () => {
  const { plan, table, request } = service('lblc');
  const selector = new Selector(table, { random: () => 0, localityExpiration: DEFAULT_LOCALITY_EXPIRATION });
  const decision = (): unknown => {
    const told = explainSelection(plan, request, table);
    assert(told.kind === 'locality');
    assert.equal(told.address, '10.0.0.3');
    return [told.decision, told.remembered, told.chosen];
  };
  assert.deepEqual(decision(), ['not remembered', undefined, 0]);
  selector.select(plan, request);
  assert.deepEqual(decision(), ['remembered', [0], 0]);
  table.addActive(0, 2);
  assert.deepEqual(decision(), ['remembered busy', [0], 1]);
  table.view.setInt32(DestinationField.weight, 0, true);
  assert.deepEqual(decision(), ['remembered unavailable', [0], 1]);
});
