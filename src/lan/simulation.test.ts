import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Simulation } from './simulation.ts';

test('events run in the order of time, then of scheduling', () => {
  const simulation = new Simulation();
  const log: string[] = [];
  const note = (text: string) => () => log.push(`${simulation.now} ${text}`);
  simulation.at(5, note('c'));
  simulation.at(1, note('a'));
  simulation.at(5, note('d'));
  simulation.after(2, note('b'));
  simulation.at(3, note('never')).cancel();
  simulation.run(4);
  assert.deepEqual(log, ['1 a', '2 b']);
  assert.equal(simulation.now, 4);
  simulation.runUntilIdle();
  assert.deepEqual(log.slice(2), ['5 c', '5 d']);
});

test('many events come out sorted', () => {
  const simulation = new Simulation({ seed: 3 });
  const times: number[] = [];
  for (let index = 0; index < 2000; index++) {
    const timer = simulation.after(simulation.random.below(500), () => times.push(simulation.now));
    if (index % 3 === 0) timer.cancel();
  }
  simulation.runUntilIdle();
  assert.equal(times.length, 1333);
  assert.deepEqual(
    times,
    times.toSorted((left, right) => left - right),
  );
});

test('a time that has passed means now', () => {
  const simulation = new Simulation();
  simulation.run(10);
  let at = -1;
  simulation.at(3, () => {
    at = simulation.now;
  });
  simulation.runUntilIdle();
  assert.equal(at, 10);
});

test('background events do not keep it busy, but happen as time passes', () => {
  const simulation = new Simulation();
  let ticks = 0;
  const stop = simulation.every(1000, () => ticks++);
  simulation.runUntilIdle();
  assert.equal(simulation.now, 0);
  simulation.advance(20_000);
  assert.equal(ticks, 20);
  stop();
  simulation.advance(20_000);
  assert.equal(ticks, 20);
});

test('settle runs a script; time stands still while it continues', async () => {
  const simulation = new Simulation();
  const log: string[] = [];
  simulation.at(10, () => log.push('event'));
  simulation.at(10.5, () => log.push('later'));
  const answer = await simulation.settle(
    (async () => {
      await simulation.sleep(10);
      // A long chain of reactions still comes before the next event.
      for (let index = 0; index < 200; index++) await null;
      log.push(`script ${simulation.now}`);
      await simulation.settle(simulation.sleep(20_000));
      return simulation.now;
    })(),
  );
  assert.equal(answer, 20_010);
  assert.deepEqual(log, ['event', 'script 10', 'later']);
});

test('settle passes a rejection on', async () => {
  const simulation = new Simulation();
  const failing = simulation.sleep(1).then(() => {
    throw new Error('no');
  });
  await assert.rejects(simulation.settle(failing), /^Error: no$/);
  await simulation.settle(simulation.sleep(1));
});

test('settle says so when nothing can settle the promise any more', async () => {
  const simulation = new Simulation();
  simulation.every(1000, () => {});
  await assert.rejects(simulation.settle(new Promise(() => {})), /nothing is left to happen at 0 ms/);
});

test('an action that throws ends the run with its error', async () => {
  const simulation = new Simulation();
  simulation.after(1, () => {
    throw new Error('broken');
  });
  await assert.rejects(simulation.settle(simulation.sleep(5)), /broken/);
});
