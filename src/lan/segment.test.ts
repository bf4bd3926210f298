import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseMac } from '../wire/address.ts';
import { BROADCAST_MAC, writeEthernet } from '../wire/ethernet.ts';
import { type Port, Segment } from './segment.ts';
import { Simulation } from './simulation.ts';

const MAC = [1, 2, 3, 4].map(last => parseMac(`02:00:00:00:00:0${last}`) as Uint8Array);

function frame(to: Uint8Array, from: Uint8Array, mark = 0, length = 42): Uint8Array {
  const bytes = new Uint8Array(length);
  writeEthernet(bytes, 0, to, from, 0x0800);
  bytes[14] = mark;
  return bytes;
}

interface Station {
  port: Port;
  received: Uint8Array[];
}

function stations(segment: Segment, count: number): Station[] {
  return Array.from({ length: count }, (_, index) => {
    const received: Uint8Array[] = [];
    return { received, port: segment.attach(`station ${index}`, bytes => received.push(bytes)) };
  });
}

const mac = (index: number): Uint8Array => MAC[index] as Uint8Array;

test('unknown destinations are flooded, learned ones are not, and the wire pads to 60 bytes', () => {
  const simulation = new Simulation();
  const segment = new Segment(simulation, 'lan');
  const [first, second, third] = stations(segment, 3) as [Station, Station, Station];
  const request = frame(BROADCAST_MAC, mac(0));
  first.port.send(request);
  simulation.runUntilIdle();
  assert.equal(request.length, 42);
  assert.deepEqual(
    [first, second, third].map(each => each.received.length),
    [0, 1, 1],
  );
  assert.equal(second.received[0]?.length, 60);
  second.port.send(frame(mac(0), mac(1)));
  simulation.runUntilIdle();
  assert.deepEqual(
    [first, second, third].map(each => each.received.length),
    [1, 1, 1],
  );
  assert.equal(segment.portOf(mac(1)), second.port);
  first.port.send(frame(mac(2), mac(0)));
  simulation.runUntilIdle();
  assert.deepEqual(
    [first, second, third].map(each => each.received.length),
    [1, 2, 2],
    'flooded',
  );
});

test('what was learned is forgotten after the ageing time, and moves with the station', () => {
  const simulation = new Simulation();
  const segment = new Segment(simulation, 'lan', { ageing: 1000 });
  const [first, second, third] = stations(segment, 3) as [Station, Station, Station];
  first.port.send(frame(BROADCAST_MAC, mac(0)));
  simulation.runUntilIdle();
  third.port.send(frame(BROADCAST_MAC, mac(0)));
  simulation.runUntilIdle();
  assert.equal(segment.portOf(mac(0)), third.port);
  simulation.advance(1000);
  assert.equal(segment.portOf(mac(0)), undefined);
  second.port.send(frame(mac(0), mac(1), 9));
  simulation.runUntilIdle();
  assert.equal(first.received.at(-1)?.[14], 9, 'flooded again');
});

test('frames to one station never overtake one another, whatever the jitter', () => {
  const simulation = new Simulation({ seed: 11 });
  const segment = new Segment(simulation, 'lan', { jitter: 5 });
  const [first, second] = stations(segment, 2) as [Station, Station];
  for (let mark = 0; mark < 50; mark++) {
    simulation.at(mark * 0.01, () => first.port.send(frame(mac(1), mac(0), mark)));
  }
  simulation.runUntilIdle();
  assert.deepEqual(
    second.received.map(bytes => bytes[14]),
    Array.from({ length: 50 }, (_, mark) => mark),
  );
});

test('bad frames are dropped under a name', () => {
  const simulation = new Simulation();
  const segment = new Segment(simulation, 'lan', { maximumFrame: 1518 });
  const [first, second] = stations(segment, 2) as [Station, Station];
  first.port.send(new Uint8Array(13));
  first.port.send(frame(mac(1), mac(0), 0, 1519));
  first.port.send(frame(mac(1), BROADCAST_MAC));
  first.port.send(frame(BROADCAST_MAC, mac(0)));
  first.port.send(frame(mac(0), mac(2)));
  simulation.runUntilIdle();
  assert.deepEqual(Object.fromEntries(segment.dropped), {
    'too-short': 1,
    'too-long': 1,
    'group-source': 1,
    'same-port': 1,
  });
  assert.equal(second.received.length, 1);
});

test('switches cabled in a ring deliver a broadcast once and drop what comes round', () => {
  const simulation = new Simulation();
  const ring = ['a', 'b', 'c'].map(name => new Segment(simulation, name)) as [Segment, Segment, Segment];
  ring[0].link(ring[1]);
  ring[1].link(ring[2]);
  ring[2].link(ring[0]);
  ring[0].link(ring[1]);
  const ends = ring.map(segment => stations(segment, 1)[0] as Station);
  (ends[0] as Station).port.send(frame(BROADCAST_MAC, mac(0)));
  simulation.runUntilIdle();
  assert.deepEqual(
    ends.map(each => each.received.length),
    [0, 1, 1],
  );
  const looped = ring.reduce((sum, segment) => sum + (segment.dropped.get('loop') ?? 0), 0);
  assert.ok(looped > 0);
  (ends[2] as Station).port.send(frame(mac(0), mac(2), 5));
  simulation.runUntilIdle();
  assert.equal((ends[0] as Station).received.length, 1, 'unicast crosses the ring');
});

test('two stations that throw a frame back at each other are stopped', () => {
  const simulation = new Simulation();
  const segment = new Segment(simulation, 'lan');
  let bounces = 0;
  const reflector = (own: Uint8Array, other: Uint8Array): Port => {
    const port = segment.attach('reflector', bytes => {
      bounces++;
      const back = bytes.slice();
      writeEthernet(back, 0, other, own, 0x0800);
      port.send(back);
    });
    return port;
  };
  const first = reflector(mac(0), mac(1));
  reflector(mac(1), mac(0));
  first.send(frame(mac(1), mac(0)));
  simulation.runUntilIdle();
  assert.equal(segment.dropped.get('loop'), 1);
  assert.ok(bounces < 20, `${bounces} bounces`);
});

test('a station that bridges two segments in a circle is stopped', () => {
  const simulation = new Simulation();
  const left = new Segment(simulation, 'left');
  const right = new Segment(simulation, 'right');
  left.link(right);
  const onLeft: Port = left.attach('bridge', bytes => onRight.send(bytes));
  const onRight: Port = right.attach('bridge', bytes => onLeft.send(bytes));
  const [source] = stations(left, 1) as [Station];
  source.port.send(frame(BROADCAST_MAC, mac(0)));
  simulation.runUntilIdle();
  assert.ok((left.dropped.get('loop') ?? 0) + (right.dropped.get('loop') ?? 0) > 0);
});

test('an impairment loses, doubles and delays', () => {
  const simulation = new Simulation();
  const segment = new Segment(simulation, 'lan');
  const [first, second] = stations(segment, 2) as [Station, Station];
  const fates = [[], [0, 0], [3], [0]];
  segment.impairment = bytes => fates[bytes[14] as number] ?? [0];
  for (const mark of [0, 1, 2, 3]) first.port.send(frame(mac(1), mac(0), mark));
  simulation.runUntilIdle();
  assert.deepEqual(
    second.received.map(bytes => bytes[14]),
    [1, 1, 3, 2],
  );
});
