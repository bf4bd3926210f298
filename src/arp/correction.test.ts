import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Corrections } from './correction.ts';

test('at once, not again within the gap, once more at the end', () => {
  const corrections = new Corrections();
  assert.equal(corrections.claimed('10.0.0.3', 0), true);
  assert.equal(corrections.claimed('10.0.0.3', 100), false);
  assert.equal(corrections.claimed('10.0.0.4', 100), true, 'another address');
  assert.equal(corrections.claimed('10.0.0.3', 200), true);
  assert.deepEqual(corrections.due(1000), []);
  assert.deepEqual(corrections.due(1300), ['10.0.0.4', '10.0.0.3']);
  assert.deepEqual(corrections.due(5000), [], 'only once');
});

test('never more than so many a second', () => {
  const corrections = new Corrections({ gap: 200, repeat: 1100, rate: 50 });
  let sent = 0;
  for (let now = 0; now < 10_000; now++) {
    for (let host = 0; host < 10; host++) if (corrections.claimed(`10.0.0.${host + (now % 20)}`, now)) sent++;
    sent += corrections.due(now).length;
  }
  assert.ok(sent <= 500 && sent > 400, `${sent} in ten seconds`);
  assert.equal(corrections.sent, sent);
});
