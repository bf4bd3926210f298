import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VirtualDatapath } from '../datapath/virtual.ts';
import { DestinationFlag } from '../ipvs/destinations.ts';
import { NO_NAMES } from '../ipvsadm/name-files.ts';
import { runIpvsadm } from '../ipvsadm/run.ts';
import { type DaemonEvent, Events } from './events.ts';
import { HealthWatch } from './health-watch.ts';
import { Log } from './log.ts';

function watched(servers: number) {
  const { director } = new VirtualDatapath();
  const lines = ['-A -t 10.0.0.3:80 -s rr'];
  for (let server = 0; server < servers; server++) {
    lines.push(`-a -t 10.0.0.3:80 -r 10.0.${1 + (server >> 8)}.${server & 255}`);
  }
  assert.equal(runIpvsadm(['-R'], lines.join('\n'), director.administration, NO_NAMES).status, 0);
  const events = new Events();
  const heard: DaemonEvent[] = [];
  events.subscribe({ heard: event => heard.push(event), ended: () => {} });
  const log: string[] = [];
  const watch = new HealthWatch(
    director,
    events,
    new Log({ format: 'journal', write: line => log.push(line) }),
  );
  return { director, watch, heard, log };
}

test('what changed since the last look is told once', () => {
  const { director, watch, heard, log } = watched(2);
  const [first] =
    director.administration.serviceObject({ protocol: 'tcp', address: '10.0.0.3', port: 80 })?.destinations ??
    [];
  const index = first?.index ?? -1;
  director.destinations.setFlag(index, DestinationFlag.resolved, true);
  watch.look();
  watch.look();
  const server = { service: 'tcp 10.0.0.3:80', address: '10.0.1.1', port: 80 };
  assert.deepEqual(
    heard.splice(0).map(({ type, data }) => [type, data]),
    [['health', { ...server, resolved: true, overloaded: false }]],
  );
  director.destinations.setFlag(index, DestinationFlag.resolved, false);
  director.destinations.setFlag(index, DestinationFlag.overloaded, true);
  watch.look();
  assert.deepEqual(
    heard.splice(0).map(({ data }) => data),
    [{ ...server, resolved: false, overloaded: true }],
  );
  assert.deepEqual(log, [
    '<6>next hop known service="tcp 10.0.0.3:80" server=10.0.1.1 port=80\n',
    '<4>next hop lost service="tcp 10.0.0.3:80" server=10.0.1.1 port=80\n',
    '<6>server overloaded service="tcp 10.0.0.3:80" server=10.0.1.1 port=80\n',
  ]);
  // A server that goes is no matter of health.
  runIpvsadm(['-C'], '', director.administration, NO_NAMES);
  watch.look();
  assert.deepEqual(heard, []);
});

test('a switch that fails makes no flood of events', () => {
  const { director, watch, heard, log } = watched(1000);
  for (const { index } of [...director.administration.serviceObjects()].flatMap(each => each.destinations)) {
    director.destinations.setFlag(index, DestinationFlag.resolved, true);
  }
  watch.look();
  assert.equal(heard.length, 101);
  assert.deepEqual(heard.at(-1)?.data, { servers: 1000, told: 100 });
  assert.equal(log.length, 101);
});
