import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StopConditionError, StopConditions } from './stop-conditions.ts';

test("conditions in tshark's words", () => {
  const stop = new StopConditions();
  assert.equal(stop.isReached(1e9, 1e12), false);
  stop.add('duration:2.5');
  stop.add('packets:3');
  stop.add('filesize:2');
  assert.equal(stop.duration, 2500);
  assert.deepEqual(
    [stop.isReached(2, 1999), stop.isReached(3, 0), stop.isReached(0, 2000)],
    [false, true, true],
  );
  stop.add('packets:5');
  assert.equal(stop.packets, 3);
});

test('what is no condition is refused with what one looks like', () => {
  for (const text of [
    '',
    'duration',
    'duration:',
    'duration:0',
    'duration:-1',
    'packets:1.5',
    'files:3',
    'duration:1s',
  ]) {
    assert.throws(() => new StopConditions().add(text), StopConditionError, text);
  }
});
