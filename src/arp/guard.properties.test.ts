/** Whatever comes in: the guard does not throw, and its memory and its output stay bounded. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { AdvertisementFlag } from '../wire/neighbor-discovery.ts';
import { Packet } from '../wire/packet.ts';
import { ClusterKnowledge } from './cluster-knowledge.ts';
import { advertisement, announcement, answer, CLUSTER, question, tagged } from './guard.fixture.ts';
import { DEFAULT_GUARD_LIMITS, Guard } from './guard.ts';
import { observe } from './observation.ts';

const CAPACITY = 32;
const limits = { ...DEFAULT_GUARD_LIMITS, capacity: CAPACITY };

const station = fc.integer({ min: 0, max: 0xffff }).map(number => {
  const text = number.toString(16).padStart(4, '0');
  return `02:00:00:00:${text.slice(0, 2)}:${text.slice(2)}`;
});
const host4 = fc.integer({ min: 0, max: 0xffff }).map(number => `10.0.${number >> 8}.${number & 255}`);
const host6 = fc.integer({ min: 0, max: 0xffff }).map(number => `2001:db8::${number.toString(16)}`);
const host = fc.oneof(host4, host6);
const honest = fc.oneof(
  fc.tuple(host, station).map(([address, at]) => answer(address, at)),
  fc.tuple(host4, host4, station).map(([asks, source, at]) => question(asks, source, at)),
  fc.tuple(host6, host6, station).map(([asks, source, at]) => question(asks, source, at)),
  fc.tuple(host, station, fc.boolean()).map(([address, at, reply]) => announcement(address, at, reply)),
  fc.tuple(host6, station).map(([address, at]) => advertisement(address, at, AdvertisementFlag.override)),
);
const spoiled = fc
  .tuple(honest, fc.array(fc.tuple(fc.nat(90), fc.nat(255)), { maxLength: 4 }), fc.nat(100), fc.nat(4095))
  .map(([frame, changes, cut, vlan]) => {
    const longer = vlan % 3 === 0 ? tagged(frame, vlan) : frame.slice();
    for (const [at, value] of changes) if (at < longer.length) longer[at] = value;
    return longer.subarray(0, longer.length - (cut < 40 ? cut : 0));
  });
const frames = fc.array(
  fc.tuple(fc.oneof(honest, spoiled, fc.uint8Array({ maxLength: 120 })), fc.nat(3000), fc.nat(7)),
  { minLength: 1, maxLength: 300, size: 'max' },
);

test('never throws, never grows, never shouts', () => {
  let observed = 0;
  let raised = 0;
  fc.assert(
    fc.property(frames, list => {
      const times: number[] = [];
      const guard = new Guard(
        { event: event => times.push(event.time) },
        new ClusterKnowledge(CLUSTER),
        limits,
      );
      const packet = new Packet();
      let now = 0;
      for (const [frame, pause, flags] of list) {
        now += pause;
        const observation = observe(packet, packet.load(frame), flags * 100);
        if (!observation) continue;
        observed++;
        guard.observe(
          observation,
          { interface: `eth${flags & 1}`, isOutgoing: (flags & 2) !== 0, isToThisHost: (flags & 4) !== 0 },
          now,
        );
        assert.ok(guard.remembered <= 5 * CAPACITY + 256 + 1024, `${guard.remembered} things`);
      }
      raised += times.length;
      for (const start of times) {
        const inSecond = times.filter(time => time >= start && time < start + 1000).length;
        assert.ok(inSecond <= 6 * limits.eventRate, `${inSecond} events in a second`);
      }
    }),
    { numRuns: 300 },
  );
  assert.ok(
    observed > 1000 && raised > 100,
    `${observed} frames, ${raised} events: too little to mean anything`,
  );
});
