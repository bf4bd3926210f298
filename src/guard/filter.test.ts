/** The filter's program, run on frames: what it drops is what the guard in TypeScript calls a contradiction. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { readBtf } from '../../bpf/btf.ts';
import { buildBpf } from '../../bpf/build.ts';
import { missing } from '../../test/requirements.ts';
import { ClusterKnowledge } from '../arp/cluster-knowledge.ts';
import {
  ATTACKER,
  advertisement,
  announcement,
  answer,
  BACKUP,
  CLIENT,
  CLUSTER,
  DIRECTOR,
  question,
  SERVER,
  tagged,
  VIP,
  VIP6,
  VIRTUAL_MAC,
  VIRTUAL_MAC6,
} from '../arp/guard.fixture.ts';
import { observe } from '../arp/observation.ts';
import { XdpVerdict } from '../datapath/ffi/libbpf.ts';
import { Malformed } from '../wire/malformed.ts';
import { AdvertisementFlag } from '../wire/neighbor-discovery.ts';
import { Packet } from '../wire/packet.ts';
import { GuardFilter } from './filter.ts';
import { BINDING_BYTES, BindingField, DROPPED_BYTES, DroppedField, VERDICTS } from './filter-layout.ts';

const cluster = new ClusterKnowledge({ ...CLUSTER, gateways: [{ address: '10.0.0.254', macs: [CLIENT] }] });

test('the records are those of the object', { skip: missing('clang') }, () => {
  const { structs, enums } = readBtf(readFileSync(buildBpf(undefined, 'guard.bpf.o')));
  for (const [name, bytes, fields] of [
    ['binding', BINDING_BYTES, BindingField],
    ['dropped', DROPPED_BYTES, DroppedField],
  ] as const) {
    const layout = structs.get(name);
    assert.equal(layout?.size, bytes, name);
    for (const [field, offset] of Object.entries(fields)) {
      const member = field.replace(/[A-Z]/g, letter => `_${letter.toLowerCase()}`);
      assert.equal(layout?.members.get(member), offset, `${name}.${member}`);
    }
  }
  const names = enums.get('verdict')?.map(name => name.replace('VERDICT_', '').toLowerCase());
  assert.deepEqual(names?.slice(0, VERDICTS.length), [...VERDICTS]);
});

describe('verdicts', { skip: missing('root', 'clang') }, () => {
  let filter: GuardFilter;
  const packet = new Packet();

  before(() => {
    filter = new GuardFilter({ directory: '/sys/fs/bpf/none', object: buildBpf(undefined, 'guard.bpf.o') });
    const { directors } = CLUSTER;
    filter.setBindings(cluster.bindings(), [...directors, DIRECTOR, VIRTUAL_MAC, VIRTUAL_MAC6]);
  });
  after(() => filter?.close());

  const passes = (frame: Uint8Array): boolean => filter.program.run({ frame }).verdict === XdpVerdict.pass;

  test('what is right passes, what contradicts is dropped, counted and shown', () => {
    const right: [string, Uint8Array][] = [
      ['a director', announcement(VIP, BACKUP)],
      ['a virtual MAC', announcement(VIP, VIRTUAL_MAC, true)],
      ['IPv6', advertisement(VIP6, VIRTUAL_MAC6, AdvertisementFlag.override)],
      ['a server', announcement('10.0.0.7', SERVER)],
      ['nobody said', announcement('10.0.0.99', ATTACKER)],
      ['a question for the VIP', question(VIP, '10.0.0.99', ATTACKER)],
      ['a probe', question(VIP, '0.0.0.0', ATTACKER)],
    ];
    for (const [name, frame] of right) assert.ok(passes(frame), name);
    filter.takeDropped(() => {});
    const wrong: [string, Uint8Array][] = [
      ['gratuitous request', announcement(VIP, ATTACKER)],
      ['gratuitous reply', announcement(VIP, ATTACKER, true)],
      ['reply', answer(VIP, ATTACKER)],
      ['request in its name', question('10.0.0.1', VIP, ATTACKER)],
      ['a server for the VIP', announcement(VIP, SERVER)],
      ['a server address', announcement('10.0.0.7', ATTACKER)],
      ['the gateway', answer('10.0.0.254', ATTACKER)],
      ['a pinned address', answer('10.0.0.61', ATTACKER)],
      ['an own address', answer('10.0.0.5', ATTACKER)],
      ['in a VLAN', tagged(announcement(VIP, ATTACKER), 100)],
      ['in VLAN 0 twice', tagged(tagged(announcement(VIP, ATTACKER), 0), 0)],
      ['advertisement', answer(VIP6, ATTACKER)],
      ['without override', advertisement(VIP6, ATTACKER, 0)],
      ['with override', advertisement(VIP6, ATTACKER, AdvertisementFlag.override)],
      ['solicitation', question('2001:db8::1', VIP6, ATTACKER)],
    ];
    const before = filter.counts();
    for (const [name, frame] of wrong) assert.ok(!passes(frame), name);
    const counted = filter.counts();
    assert.equal(counted.arp + counted.discovery - before.arp - before.discovery, wrong.length);
    assert.equal(counted.discovery - before.discovery, 4);
    const shown: Uint8Array[] = [];
    filter.takeDropped(({ bytes, verdict }) => {
      assert.ok(verdict === 'arp' || verdict === 'discovery');
      shown.push(bytes);
    });
    assert.deepEqual(
      shown,
      wrong.map(([, frame]) => frame),
    );
    const lengths = announcement(VIP, ATTACKER);
    lengths[18] = 5;
    assert.ok(!passes(lengths), 'ARP with wrong lengths');
    assert.equal(filter.counts().malformed, before.malformed + 1);
  });

  test('what is dropped does not fill the memory: the newest frames stay', () => {
    filter.takeDropped(() => {});
    for (let round = 0; round < 1500; round++)
      passes(announcement(VIP, `02:00:00:00:${hex(round >> 8)}:${hex(round)}`));
    const senders: number[] = [];
    for (let round = 0; round < 8; round++) {
      filter.takeDropped(({ bytes }) => senders.push(((bytes[10] as number) << 8) | (bytes[11] as number)));
    }
    assert.equal(senders.length, 1024);
    assert.equal(senders.at(-1), 1499);
  });

  test('bindings may change at any time', () => {
    const frame = announcement('10.0.0.200', ATTACKER);
    assert.ok(passes(frame));
    const pins = [...CLUSTER.pins, { address: '10.0.0.200', macs: [CLIENT] }];
    const more = new ClusterKnowledge({ ...CLUSTER, pins });
    const directors = [...CLUSTER.directors, DIRECTOR, VIRTUAL_MAC, VIRTUAL_MAC6];
    filter.setBindings(more.bindings(), directors);
    assert.ok(!passes(frame));
    filter.setBindings(cluster.bindings(), directors);
    assert.ok(passes(frame));
    assert.ok(!passes(announcement(VIP, ATTACKER)), 'the others stay');
  });

  test('the program and the guard agree on every frame', () => {
    let dropped = 0;
    const station = fc.constantFrom(ATTACKER, DIRECTOR, BACKUP, SERVER, CLIENT, VIRTUAL_MAC, VIRTUAL_MAC6);
    const host4 = fc.constantFrom(VIP, '10.0.0.5', '10.0.0.7', '10.0.0.61', '10.0.0.254', '10.0.0.99');
    const host6 = fc.constantFrom(VIP6, '2001:db8::99');
    const host = fc.oneof(host4, host6);
    const frames = fc.oneof(
      fc.tuple(host, station).map(([address, at]) => answer(address, at)),
      fc.tuple(host4, host4, station).map(([asks, source, at]) => question(asks, source, at)),
      fc.tuple(host6, host6, station).map(([asks, source, at]) => question(asks, source, at)),
      fc.tuple(host, station, fc.boolean()).map(([address, at, reply]) => announcement(address, at, reply)),
    );
    const changed = fc
      .tuple(frames, fc.array(fc.tuple(fc.nat(85), fc.nat(255)), { maxLength: 2 }), fc.nat(5))
      .map(([frame, changes, tag]) => {
        const longer = tag === 0 ? tagged(frame, 7) : frame.slice();
        for (const [at, value] of changes) if (at < longer.length) longer[at] = value;
        return longer;
      });
    fc.assert(
      fc.property(changed, frame => {
        const malformed = packet.load(frame);
        const observation = observe(packet, malformed);
        // Where hosts would not take a frame, the program may do what it likes.
        if (observation?.fault !== undefined || (!observation && malformed !== Malformed.none)) return;
        const contradicts =
          observation?.claim !== undefined &&
          observation.mac !== undefined &&
          cluster.mayHold(observation.claim, observation.mac) === false;
        if (contradicts) dropped++;
        assert.equal(passes(frame), !contradicts);
      }),
      { numRuns: 3000 },
    );
    assert.ok(dropped > 300, `only ${dropped} frames contradicted`);
  });
});

function hex(number: number): string {
  return (number & 255).toString(16).padStart(2, '0');
}
