import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DESTINATION_BYTES, DestinationField, DestinationFlag, DestinationTable } from './destinations.ts';
import { MAGLEV_TABLE_SIZE } from './hashing.ts';
import type { LocalityPlan, Plan, SchedulerServer, SelectionRequest } from './plan.ts';
import { SCHEDULERS } from './schedulers/registry.ts';
import { DEFAULT_LOCALITY_EXPIRATION, draw, productIsGreater, Selector } from './selection.ts';
import { SchedulerFlag } from './specification.ts';

const MINUTE = 60_000;

/** A table with the given servers as its first records, the first one listed first. */
function tableOf(
  servers: readonly { weight: number; active?: number; inactive?: number; overloaded?: boolean }[],
): DestinationTable {
  const table = new DestinationTable(Math.max(1, servers.length));
  for (const { weight, active = 0, inactive = 0, overloaded = false } of servers) {
    const index = table.allocate();
    table.view.setInt32(index * DESTINATION_BYTES + DestinationField.weight, weight, true);
    table.addActive(index, active);
    table.addInactive(index, inactive);
    table.setFlag(index, DestinationFlag.available, true);
    table.setFlag(index, DestinationFlag.overloaded, overloaded);
  }
  return table;
}

function compile(name: string, table: DestinationTable, flags = 0): Plan {
  const servers: SchedulerServer[] = Array.from({ length: table.capacity }, (_, index) => ({
    index,
    address: Uint8Array.of(10, 0, 0, 10 + index),
    port: 80,
    weight: table.weight(index),
    lastWeight: table.weight(index),
  }));
  const scheduler = SCHEDULERS.get(name);
  assert(scheduler);
  return scheduler.compile(servers, flags, 'service', undefined);
}

function request(destination = 1, now = 0): SelectionRequest {
  const view = new DataView(new ArrayBuffer(8));
  view.setUint32(0, 0x0a000001);
  view.setUint32(4, destination);
  return {
    now,
    family: 4,
    bytes: new Uint8Array(view.buffer),
    view,
    sourceAt: 0,
    destinationAt: 4,
    sourcePort: 1000,
  };
}

function selectorOf(table: DestinationTable, ...numbers: number[]): Selector {
  return new Selector(table, {
    random: () => numbers.shift() ?? 0,
    localityExpiration: DEFAULT_LOCALITY_EXPIRATION,
  });
}

const weight = fc.oneof(fc.nat({ max: 12 }), fc.nat({ max: 0x7fffffff }));

test('products are compared exactly up to 2^72', () => {
  const load = fc.oneof(fc.nat({ max: 1000 }), fc.nat({ max: 2 ** 41 }));
  // (n - k)(n + k) is n² - k²: equal as doubles, and different where only exact arithmetic sees it.
  const near = fc
    .tuple(fc.integer({ min: 2 ** 30, max: 2 ** 31 - 1 }), fc.nat({ max: 20 }), fc.boolean())
    .map(([n, k, greater]) => {
      const m = n - k;
      return greater ? [m * 1024, m, (m - k) * 1024, m + k] : [(m - k) * 1024, m + k, m * 1024, m];
    });
  const pairs = fc.oneof(fc.tuple(load, weight, load, weight), near);
  fc.assert(
    fc.property(pairs, ([a = 0, b = 0, c = 0, d = 0]) => {
      assert.equal(productIsGreater(a, b, c, d), BigInt(a) * BigInt(b) > BigInt(c) * BigInt(d));
    }),
    { numRuns: 2000 },
  );
});

test('an active connection counts as 256 inactive ones', () => {
  for (const [inactive, chosen] of [
    [255, 1],
    [256, 0],
    [257, 0],
  ] as const) {
    const table = tableOf([
      { weight: 1, active: 1 },
      { weight: 1, inactive },
    ]);
    for (const name of ['lc', 'wlc']) {
      assert.equal(selectorOf(table).select(compile(name, table), request()), chosen);
    }
  }
});

/** Weighted round robin as the kernel's comments tell it, pass by pass, one destination at a time. */
class PassByPass {
  cursor = -1;
  current: number;
  readonly maximum: number;
  readonly step: number;
  readonly weights: readonly number[];

  constructor(weights: readonly number[], step: number) {
    this.weights = weights;
    this.step = step;
    this.maximum = Math.max(0, ...weights) - (step - 1);
    this.current = this.maximum;
  }

  select(overloaded: readonly boolean[]): number {
    if (this.maximum === 0) return -1;
    const last = this.cursor;
    let stop = -1;
    let lastPass = false;
    let restarted = false;
    for (;;) {
      while (++this.cursor < this.weights.length) {
        if (!overloaded[this.cursor] && (this.weights[this.cursor] as number) >= this.current)
          return this.cursor;
        if (this.cursor === stop) return -1;
      }
      this.cursor = -1;
      this.current -= this.step;
      if (this.current <= 0) {
        this.current = this.maximum;
        if (lastPass || last < 0) return -1;
        restarted = true;
      }
      lastPass = this.current <= this.step;
      if (lastPass && restarted && last >= 0) stop = last;
    }
  }
}

test('wrr chooses, refuses and leaves its place as pass by pass, whoever is overloaded meanwhile', () => {
  const weights = fc
    .tuple(fc.array(fc.nat({ max: 9 }), { minLength: 1, maxLength: 6 }), fc.integer({ min: 1, max: 4 }))
    .map(([list, factor]) => list.map(each => each * factor));
  fc.assert(
    fc.property(
      weights,
      fc.array(fc.array(fc.boolean(), { minLength: 6, maxLength: 6 }), { maxLength: 40 }),
      (list, rounds) => {
        const table = tableOf(list.map(each => ({ weight: each })));
        const plan = compile('wrr', table);
        assert(plan.kind === 'sequence');
        const reference = new PassByPass(list, plan.step);
        const selector = selectorOf(table);
        for (const overloaded of rounds) {
          for (const index of list.keys()) {
            table.setFlag(index, DestinationFlag.overloaded, overloaded[index] ?? false);
          }
          assert.equal(
            selector.select(plan, request()),
            reference.select(overloaded) < 0 ? -1 : reference.cursor,
          );
          assert.deepEqual([plan.cursor, plan.currentWeight], [reference.cursor, reference.current]);
        }
      },
    ),
    { numRuns: 1000 },
  );
});

test('wrr passes over two thousand million empty passes at once', () => {
  const table = tableOf([{ weight: 0x7fffffff, overloaded: true }, { weight: 1 }, { weight: 2 }]);
  const plan = compile('wrr', table);
  const selector = selectorOf(table);
  const chosen = Array.from({ length: 6 }, () => selector.select(plan, request()));
  assert.deepEqual(chosen, [2, 1, 2, 2, 1, 2]);
});

test('rr goes around, past quiesced servers, and refuses when none is left', () => {
  const table = tableOf([{ weight: 1 }, { weight: 0 }, { weight: 7 }]);
  const plan = compile('rr', table);
  const selector = selectorOf(table);
  assert.deepEqual(
    Array.from({ length: 4 }, () => selector.select(plan, request())),
    [0, 2, 0, 2],
  );
  table.setFlag(0, DestinationFlag.overloaded, true);
  assert.equal(selector.select(plan, request()), 2);
  table.setFlag(2, DestinationFlag.overloaded, true);
  assert.equal(selector.select(plan, request()), -1);
  table.setFlag(0, DestinationFlag.overloaded, false);
  assert.equal(selector.select(plan, request()), 0);
});

test('least-cost plans choose what an exact search in the formula chooses, the first of equals', () => {
  const server = fc.record({
    weight,
    active: fc.nat({ max: 2 ** 30 }),
    inactive: fc.nat({ max: 2 ** 30 }),
    overloaded: fc.boolean(),
  });
  const few = fc.record({
    weight: fc.nat({ max: 3 }),
    active: fc.nat({ max: 3 }),
    inactive: fc.nat({ max: 3 }),
  });
  const costs: Record<string, (active: number, inactive: number, weight: number) => [bigint, bigint]> = {
    lc: (active, inactive) => [BigInt(active) * 256n + BigInt(inactive), 1n],
    wlc: (active, inactive, of) => [BigInt(active) * 256n + BigInt(inactive), BigInt(of)],
    sed: (active, _, of) => [BigInt(active) + 1n, BigInt(of)],
    nq: (active, _, of) => (active === 0 ? [-1n, 1n] : [BigInt(active) + 1n, BigInt(of)]),
    fo: (_, __, of) => [-BigInt(of), 1n],
    ovf: (active, _, of) => [active > of ? 1n : -BigInt(of), 1n],
  };
  fc.assert(
    fc.property(
      fc.oneof(fc.array(server, { maxLength: 8 }), fc.array(few, { maxLength: 8 })),
      fc.constantFrom(...Object.keys(costs)),
      (servers: { weight: number; active: number; inactive: number; overloaded?: boolean }[], name) => {
        let best = -1;
        let bestCost: [bigint, bigint] = [0n, 1n];
        for (const [index, each] of servers.entries()) {
          const cost = costs[name]?.(each.active, each.inactive, each.weight) ?? [0n, 1n];
          if (each.overloaded || each.weight === 0 || (name === 'ovf' && cost[0] > 0n)) continue;
          if (best < 0 || cost[0] * bestCost[1] < bestCost[0] * cost[1]) [best, bestCost] = [index, cost];
        }
        const table = tableOf(servers);
        const plan = servers.length
          ? compile(name, table)
          : SCHEDULERS.get(name)?.compile([], 0, 'service', undefined);
        assert(plan);
        assert.equal(selectorOf(table).select(plan, request()), best);
      },
    ),
    { numRuns: 2000 },
  );
});

test('mh gives every server places by its weight, down to one part in 64', () => {
  const table = tableOf([{ weight: 1 }, { weight: 3 }, { weight: 1000 }]);
  const plan = compile('mh', table);
  assert(plan.kind === 'hash');
  const places = [0, 0, 0];
  for (const index of plan.table) places[index] = (places[index] ?? 0) + 1;
  assert.equal(plan.table.length, MAGLEV_TABLE_SIZE);
  // 1000 is shifted to 62; 1 and 3 become 0 and count as 1.
  assert.deepEqual(
    places.map(count => Math.round(count / (MAGLEV_TABLE_SIZE / 64))),
    [1, 1, 62],
  );
});

test('hash plans without a server refuse, those of quiesced servers too, with and without fallback', () => {
  for (const name of ['sh', 'dh', 'mh']) {
    for (const flags of [0, SchedulerFlag.flag1 | SchedulerFlag.flag2]) {
      const none = SCHEDULERS.get(name)?.compile([], flags, 'service', undefined);
      assert(none);
      assert.equal(selectorOf(tableOf([])).select(none, request()), -1);
      const quiesced = tableOf([{ weight: 0 }, { weight: 0 }]);
      assert.equal(selectorOf(quiesced).select(compile(name, quiesced, flags), request()), -1);
    }
  }
});

test('twos: draws fall on servers by weight, and the less loaded of two is taken', () => {
  const table = tableOf([{ weight: 2, active: 1 }, { weight: 0 }, { weight: 3 }]);
  const plan = compile('twos', table);
  // Numbers 0..5: 0, 1, 2 fall on the first, 3, 4, 5 on the last.
  assert.equal(selectorOf(table, 0, 2).select(plan, request()), 0);
  assert.equal(selectorOf(table, 2, 3).select(plan, request()), 2);
  assert.equal(selectorOf(table, 5, 0).select(plan, request()), 2);
  assert.equal(selectorOf(table, 6, 2).select(plan, request()), 0);
  const busy = tableOf([{ weight: 0 }, { weight: 4, overloaded: true }]);
  assert.equal(selectorOf(busy).select(compile('twos', busy), request()), -1);
});

test('twos: a draw reaches all of 0..total also where 32 bits do not', () => {
  const total = 3 * 0x7fffffff;
  assert.equal(
    draw(() => 5, 9),
    5,
  );
  assert.equal(
    draw(() => 10, 9),
    0,
  );
  const numbers = [1, 0x7ffffffc];
  assert.equal(
    draw(() => numbers.shift() ?? 0, total),
    0x17ffffffc,
  );
});

test('locality remembers by destination address and follows a server that leaves and comes back', () => {
  const table = tableOf([{ weight: 5 }, { weight: 5 }]);
  const selector = selectorOf(table);
  const scheduler = SCHEDULERS.get('lblc');
  const servers: SchedulerServer[] = [0, 1].map(index => ({
    index,
    address: Uint8Array.of(10, 0, 0, 10 + index),
    port: 80,
    weight: 5,
    lastWeight: 5,
  }));
  assert(scheduler);
  let plan = scheduler.compile(servers, 0, 'add', undefined);
  assert.equal(selector.select(plan, request(7)), 0);
  table.addActive(0, 3);
  assert.equal(selector.select(plan, request(7)), 0, 'remembered, though the other is idle');
  assert.equal(selector.select(plan, request(8)), 1, 'another address');
  plan = scheduler.compile(servers.slice(1), 0, 'delete', plan);
  assert(plan.kind === 'locality');
  assert.deepEqual(
    plan.departed.map(server => server.identity),
    ['0a00000a:80'],
  );
  plan = scheduler.compile(servers, 0, 'add', plan);
  assert(plan.kind === 'locality');
  assert.deepEqual(plan.departed, []);
  assert.equal(selector.select(plan, request(7)), 0, 'it came back before anyone asked');
  plan = scheduler.compile(servers.slice(1), 0, 'delete', plan);
  assert.equal(selector.select(plan, request(7)), 1, 'gone: chosen anew');
  plan = scheduler.compile(servers, 0, 'add', plan);
  assert.equal(selector.select(plan, request(7)), 1, 'and that is remembered');
});

test('lblcr: a set that did not change for the expiration time loses its most loaded server', () => {
  const table = tableOf([{ weight: 1 }, { weight: 1 }, { weight: 1 }]);
  const selector = selectorOf(table);
  selector.replicatedExpiration = 10 * MINUTE;
  const plan = compile('lblcr', table) as LocalityPlan;
  const set = (): number[] | undefined => plan.cache.get('00000007')?.servers.map(server => server.index);
  selector.select(plan, request(7, 0));
  table.addActive(0, 2);
  selector.select(plan, request(7, MINUTE));
  assert.deepEqual(set(), [1, 0], 'busy: a second server, newest first');
  table.addActive(1, 1);
  selector.select(plan, request(7, 11 * MINUTE));
  assert.deepEqual(set(), [1, 0], 'not yet longer than ten minutes');
  selector.select(plan, request(7, 11 * MINUTE + 1));
  assert.deepEqual(set(), [1]);
});

test('locality forgets addresses unused for the expiration time, looked for every half hour', () => {
  const table = tableOf([{ weight: 1 }]);
  const selector = selectorOf(table);
  selector.localityExpiration = 25 * MINUTE;
  const plan = compile('lblc', table) as LocalityPlan;
  selector.select(plan, request(1, 0));
  selector.select(plan, request(2, 6 * MINUTE));
  selector.select(plan, request(3, 29 * MINUTE));
  assert.equal(plan.cache.size, 3);
  selector.select(plan, request(3, 30 * MINUTE));
  assert.deepEqual([...plan.cache.keys()], ['00000002', '00000003']);
  selector.select(plan, request(3, 59 * MINUTE));
  assert.equal(plan.cache.size, 2);
  selector.select(plan, request(3, 60 * MINUTE));
  assert.deepEqual([...plan.cache.keys()], ['00000003']);
});

test('locality: beyond 16384 addresses those idle for six minutes go, a third more than necessary', () => {
  const table = tableOf([{ weight: 1 }]);
  const selector = selectorOf(table);
  const plan = compile('lblc', table) as LocalityPlan;
  for (let address = 0; address < 16_384 + 300; address++) selector.select(plan, request(address, 0));
  selector.select(plan, request(0, 5 * MINUTE));
  assert.equal(plan.cache.size, 16_684, 'all too young');
  selector.select(plan, request(0, 6 * MINUTE));
  assert.equal(plan.cache.size, 16_284);
  assert(plan.cache.has('00000000'), 'used five minutes ago');
});
