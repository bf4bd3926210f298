/** A server that was drained before a restart gets back the weight that it had. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ServiceKey } from '../ipvs/specification.ts';
import { configure, perform } from './configuration.fixture.ts';
import { temporaryFolder } from './daemon.fixture.ts';
import { bringBack, quiesce, removeDrained, whatIsLeft } from './drain.ts';
import { StateFolder } from './state-folder.ts';

const service: ServiceKey = { protocol: 'tcp', address: '10.0.0.3', port: 80 };

test('the weight comes back after a restart', async context => {
  const path = temporaryFolder(context);
  const first = configure({ folder: new StateFolder(path) });
  await first.configuration.edit('', () =>
    perform(first.director, ['-A -t 10.0.0.3:80 -s wrr', '-a -t 10.0.0.3:80 -r 10.0.0.7 -g -w 7']),
  );
  const selection = { service, address: '10.0.0.7' };
  await quiesce(first.configuration, first.director, selection);
  await first.configuration.edit('', () => perform(first.director, ['-E -t 10.0.0.3:80 -s wlc']));
  await first.configuration.close();
  const second = configure({ folder: new StateFolder(path) });
  const weight = (): number | undefined => whatIsLeft(second.director, selection, 0)[0]?.weight;
  assert.equal(weight(), 0);
  await bringBack(second.configuration, second.director, selection);
  assert.equal(weight(), 7);
  // One that has weight is neither removed nor changed.
  await assert.rejects(removeDrained(second.configuration, second.director, selection), /has weight 7 again/);
  await bringBack(second.configuration, second.director, selection);
  assert.equal(weight(), 7);
  await second.configuration.close();
});
