import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DESTINATION_BYTES, DestinationField, DestinationFlag, DestinationTable } from './destinations.ts';

/** Whether a server is overloaded after its connections went from `before` to `now`. */
function overloadedAfter(upper: number, lower: number, before: number, now: number): boolean {
  const table = new DestinationTable(1);
  const index = table.allocate();
  table.view.setUint32(index * DESTINATION_BYTES + DestinationField.upperThreshold, upper, true);
  table.view.setUint32(index * DESTINATION_BYTES + DestinationField.lowerThreshold, lower, true);
  table.addActive(index, before);
  table.updateOverload(index);
  table.addActive(index, -before);
  table.addInactive(index, now);
  table.updateOverload(index);
  return (table.flags(index) & DestinationFlag.overloaded) !== 0;
}

test('overloaded from the upper threshold on, until below the lower', () => {
  assert.equal(overloadedAfter(4, 2, 0, 3), false);
  assert.equal(overloadedAfter(4, 2, 0, 4), true);
  assert.equal(overloadedAfter(4, 2, 4, 2), true);
  assert.equal(overloadedAfter(4, 2, 4, 1), false);
});

test('without a lower threshold until below three quarters of the upper', () => {
  assert.equal(overloadedAfter(5, 0, 5, 4), true);
  assert.equal(overloadedAfter(5, 0, 5, 3), false);
  assert.equal(overloadedAfter(1, 0, 1, 0), false);
});

test('never without an upper threshold; a lower one above it does not keep it from being reached', () => {
  assert.equal(overloadedAfter(0, 3, 9, 9), false);
  assert.equal(overloadedAfter(2, 6, 0, 2), true);
  assert.equal(overloadedAfter(2, 6, 2, 1), false);
});
