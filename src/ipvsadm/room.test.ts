/** A table that is full: the line that found no room is refused with what to do, and changes nothing. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DestinationTable } from '../ipvs/destinations.ts';
import { makeBench } from '../ipvs/director.fixture.ts';
import { NO_NAMES } from './name-files.ts';
import { runIpvsadm } from './run.ts';

const LINES = ['-A -t 10.0.0.3:80', '-a -t 10.0.0.3:80 -r 10.0.0.7:80', '-a -t 10.0.0.3:80 -r 10.0.0.8:80'];

test('without advice of a data path the kernel’s words are all', () => {
  const { director } = makeBench({ destinations: new DestinationTable(1) });
  const { stderr, status } = runIpvsadm(['-R'], LINES.join('\n'), director.administration, NO_NAMES);
  assert.deepEqual([status, stderr], [255, 'Memory allocation problem\n']);
});

test('servers and services are refused one by one, with what makes room', () => {
  const { director } = makeBench({ destinations: new DestinationTable(1) });
  const { administration, pool } = director;
  administration.serviceCapacity = 1;
  administration.advice = ': more --services';
  pool.advice = ': more --servers';
  const lines = [...LINES, '-A -t 10.0.0.3:81'];
  const { stderr, status } = runIpvsadm(['-R'], lines.join('\n'), administration, NO_NAMES);
  assert.equal(status, 255);
  assert.equal(
    stderr,
    'no room for more than 1 real servers: more --servers\nno room for more than 1 services: more --services\n',
  );
  const [service, ...others] = administration.services();
  assert.deepEqual(others, []);
  assert.deepEqual(
    service?.destinations.map(({ address }) => address),
    ['10.0.0.7'],
  );
});
