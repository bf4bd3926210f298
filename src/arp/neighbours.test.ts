import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseIpv4Address, parseMac } from '../wire/address.ts';
import { isValid, type Neighbour, NeighbourCache, type NeighbourEvents } from './neighbours.ts';

const MAC = parseMac('00:0c:29:00:00:01') as Uint8Array;
const OTHER_MAC = parseMac('00:0c:29:00:00:02') as Uint8Array;
const ADDRESS = parseIpv4Address('10.0.0.7') as Uint8Array;

/** A cache whose events are written down, and a clock that runs its timers. */
function recorded() {
  const log: string[] = [];
  const events: NeighbourEvents = {
    solicit: (_neighbour, unicast, waiting) =>
      log.push(`solicit ${unicast ? 'one' : 'all'} ${waiting?.[0] ?? '-'}`),
    deliver: (_neighbour, frame) => log.push(`deliver ${frame[0]}`),
    fail: (_neighbour, frames) => log.push(`fail ${frames.map(frame => frame[0]).join(' ')}`),
    change: () => {},
    arm: () => {},
  };
  const cache = new NeighbourCache(events);
  const neighbour = cache.obtain(2, ADDRESS, 0) as Neighbour;
  let now = 0;
  const advance = (until: number): void => {
    while (neighbour.timer <= until) {
      now = neighbour.timer;
      cache.expire(neighbour, now);
    }
    now = until;
  };
  const take = (): string[] => log.splice(0);
  return { cache, neighbour, advance, take, now: () => now };
}

const frame = (mark: number): Uint8Array => Uint8Array.of(mark);

test('an unknown neighbour is asked for three times, a second apart, and then fails with its queue', () => {
  const { cache, neighbour, advance, take } = recorded();
  cache.send(neighbour, frame(1), 0);
  assert.equal(neighbour.state, 'INCOMPLETE');
  advance(999);
  assert.deepEqual(take(), ['solicit all 1']);
  advance(2999);
  assert.deepEqual(take(), ['solicit all 1', 'solicit all 1']);
  advance(3000);
  assert.deepEqual(take(), ['fail 1']);
  assert.equal(neighbour.state, 'FAILED');
  assert.equal(isValid(neighbour), false);
  cache.send(neighbour, frame(2), 4000);
  assert.deepEqual(take(), ['solicit all 2'], 'the next packet asks again');
});

test('three frames wait, the oldest gives way, and all go out in order when the answer comes', () => {
  const { cache, neighbour, take } = recorded();
  for (const mark of [1, 2, 3, 4]) cache.send(neighbour, frame(mark), 0);
  assert.equal(cache.discarded, 1);
  cache.update(neighbour, MAC, 'REACHABLE', true, 1);
  assert.deepEqual(take(), ['solicit all 1', 'deliver 2', 'deliver 3', 'deliver 4']);
  assert.equal(neighbour.state, 'REACHABLE');
});

test('reachable ages to stale, use delays a probe, and an unanswered probe fails', () => {
  const { cache, neighbour, advance, take } = recorded();
  cache.use(neighbour, 0);
  cache.update(neighbour, MAC, 'REACHABLE', true, 0);
  take();
  advance(29_999);
  assert.equal(neighbour.state, 'REACHABLE');
  advance(30_000);
  assert.equal(neighbour.state, 'STALE');
  cache.send(neighbour, frame(1), 40_000);
  assert.equal(neighbour.state, 'DELAY');
  assert.deepEqual(take(), ['deliver 1'], 'a stale entry is used meanwhile');
  advance(45_000);
  assert.equal(neighbour.state, 'PROBE');
  advance(47_999);
  assert.deepEqual(take(), ['solicit one -', 'solicit one -', 'solicit one -']);
  assert.equal(neighbour.state, 'PROBE');
  advance(48_000);
  assert.equal(neighbour.state, 'FAILED');
});

test('a confirmation from above keeps an entry without any probe', () => {
  const { cache, neighbour, advance, take } = recorded();
  cache.use(neighbour, 0);
  cache.update(neighbour, MAC, 'REACHABLE', true, 0);
  take();
  cache.confirm(neighbour, 20_000);
  advance(49_999);
  assert.equal(neighbour.state, 'REACHABLE');
  advance(50_000);
  cache.send(neighbour, frame(1), 51_000);
  cache.confirm(neighbour, 52_000);
  advance(56_000);
  assert.equal(neighbour.state, 'REACHABLE', 'confirmed during the delay');
  assert.deepEqual(take(), ['deliver 1']);
});

test('another MAC is only taken with override', () => {
  const { cache, neighbour } = recorded();
  cache.use(neighbour, 0);
  cache.update(neighbour, MAC, 'REACHABLE', true, 0);
  cache.update(neighbour, OTHER_MAC, 'REACHABLE', false, 500);
  assert.deepEqual(neighbour.mac, MAC);
  cache.update(neighbour, OTHER_MAC, 'STALE', true, 2000);
  assert.deepEqual(neighbour.mac, OTHER_MAC);
  assert.equal(neighbour.state, 'STALE');
});

test('a hint with the same MAC leaves a reachable entry reachable', () => {
  const { cache, neighbour } = recorded();
  cache.use(neighbour, 0);
  cache.update(neighbour, MAC, 'REACHABLE', true, 0);
  cache.update(neighbour, MAC, 'STALE', true, 10);
  assert.equal(neighbour.state, 'REACHABLE');
});

test('a pinned entry believes nobody', () => {
  const { cache, neighbour, take } = recorded();
  cache.set(neighbour, MAC, 'PERMANENT', 0);
  cache.update(neighbour, OTHER_MAC, 'REACHABLE', true, 5000);
  assert.deepEqual(neighbour.mac, MAC);
  assert.equal(neighbour.state, 'PERMANENT');
  cache.send(neighbour, frame(9), 99_000);
  assert.deepEqual(take(), ['deliver 9']);
  assert.equal(neighbour.timer, Number.POSITIVE_INFINITY);
});

test('a full cache gives up what is stale, but nothing in use', () => {
  const quiet: NeighbourEvents = {
    solicit: () => {},
    deliver: () => {},
    fail: () => {},
    change: () => {},
    arm: () => {},
  };
  const cache = new NeighbourCache(quiet, {
    baseReachable: 1,
    delayFirstProbe: 1,
    retransmit: 1,
    multicastProbes: 1,
    unicastProbes: 1,
    queueLength: 1,
    lockTime: 1,
    capacity: 2,
  });
  const pinned = cache.obtain(1, Uint8Array.of(10, 0, 0, 1), 0) as Neighbour;
  cache.set(pinned, MAC, 'PERMANENT', 0);
  const asked = cache.obtain(1, Uint8Array.of(10, 0, 0, 2), 0) as Neighbour;
  cache.use(asked, 0);
  assert.equal(cache.obtain(1, Uint8Array.of(10, 0, 0, 3), 0), undefined);
  assert.equal(cache.overflows, 1);
  cache.update(asked, MAC, 'STALE', true, 0);
  assert.ok(cache.obtain(1, Uint8Array.of(10, 0, 0, 3), 0));
  assert.deepEqual([...cache.entries()].length, 2);
});
