import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  ethernetFrame,
  extensionHeader,
  fragmentHeader,
  ipv4Packet,
  ipv6Packet,
  udpDatagram,
} from '../../test/frames.ts';
import type { Family } from '../wire/address.ts';
import { EtherType } from '../wire/ethernet.ts';
import { Icmp, IcmpType, Icmpv6Type } from '../wire/icmp.ts';
import { fillIpv4Checksum, IPV4_DONT_FRAGMENT, IPV4_MORE_FRAGMENTS, Ipv4, Protocol } from '../wire/ipv4.ts';
import { addService, type Bench, makeBench, packetOf, parsed } from './director.fixture.ts';
import { Verdict } from './director.ts';
import { Drop } from './drops.ts';
import { Fragments, REASSEMBLY_TIME, Reassembly } from './fragments.ts';

const ID = 0x77;

/** One fragment of a datagram: its data from `offset` on. */
function fragment(
  family: Family,
  data: Uint8Array,
  offset: number,
  more: boolean,
  { identification = ID, flags = 0, vlans = [] as number[] } = {},
): Uint8Array {
  if (family === 4) {
    const field = (offset >>> 3) | (more ? IPV4_MORE_FRAGMENTS : 0) | flags;
    return ethernetFrame(
      EtherType.ipv4,
      ipv4Packet(Protocol.udp, data, { fragment: field, identification }),
      vlans,
    );
  }
  const header = fragmentHeader(Protocol.udp, offset, more, identification);
  const payload = Uint8Array.from([...header, ...data]);
  return ethernetFrame(EtherType.ipv6, ipv6Packet(Protocol.fragment, payload), vlans);
}

/** The fragments of a datagram cut at these places (bytes, multiples of 8). */
function cut(family: Family, datagram: Uint8Array, places: readonly number[], options = {}): Uint8Array[] {
  const bounds = [0, ...places, datagram.length];
  return bounds
    .slice(1)
    .map((end, index) =>
      fragment(
        family,
        datagram.slice(bounds[index], end),
        bounds[index] as number,
        end < datagram.length,
        options,
      ),
    );
}

function counting(size: number): Uint8Array {
  return Uint8Array.from({ length: size }, (_, index) => index);
}

/** What adding these frames in order says, the last first seen. */
function addAll(fragments: Fragments, frames: readonly Uint8Array[], now = 0): Reassembly[] {
  return frames.map(frame => fragments.add(parsed(frame), now));
}

/** Places to cut at and an order for the pieces. */
const cuts = fc
  .record({
    size: fc.integer({ min: 16, max: 4000 }),
    seeds: fc.array(fc.nat(), { minLength: 1, maxLength: 8 }),
    order: fc.array(fc.nat(), { minLength: 10, maxLength: 10 }),
  })
  .map(({ size, seeds, order }) => {
    const last = Math.floor((size + 7) / 8);
    const places = [...new Set(seeds.map(seed => (1 + (seed % Math.max(1, last))) * 8))]
      .filter(place => place < size + 8)
      .sort((one, other) => one - other);
    return { size, places, order };
  });

function shuffled<Item>(items: readonly Item[], order: readonly number[]): Item[] {
  return items
    .map((item, index) => ({ item, key: order[index % order.length] as number }))
    .sort((one, other) => one.key - other.key)
    .map(({ item }) => item);
}

for (const family of [4, 6] as const) {
  test(`IPv${family}: any cut in any order, with repetitions, becomes the datagram again`, () => {
    fc.assert(
      fc.property(cuts, ({ size, places, order }) => {
        const datagram = udpDatagram(family, counting(size));
        const frames = cut(
          family,
          datagram,
          places.filter(place => place < datagram.length),
        );
        if (frames.length < 2) return;
        const fragments = new Fragments();
        const given = shuffled(frames, order);
        const answers = addAll(fragments, [given[0] as Uint8Array, ...given]);
        assert.equal(answers.at(-1), Reassembly.complete);
        assert.ok(answers.slice(0, -1).every(answer => answer === Reassembly.waiting));
        const { whole } = fragments;
        assert.equal(whole.isFragment, false);
        assert.deepEqual(whole.bytes.slice(whole.transport, whole.networkEnd), datagram);
        assert.equal(whole.destinationPort, 53);
        assert.equal(fragments.sizes.rest.length, frames.length - 1);
        assert.equal(fragments.size, 0);
        assert.equal(fragments.memory, 0);
      }),
    );
  });

  test(`IPv${family}: overlaps give up the datagram`, () => {
    const datagram = udpDatagram(family, counting(100));
    const fragments = new Fragments();
    const first = fragment(family, datagram.slice(0, 48), 0, true);
    const overlapping = fragment(family, datagram.slice(40, 80), 40, true);
    assert.deepEqual(addAll(fragments, [first, overlapping]), [Reassembly.waiting, Reassembly.refused]);
    assert.deepEqual(addAll(fragments, [overlapping, first]), [Reassembly.waiting, Reassembly.refused]);
    assert.equal(fragments.size, 0);
    assert.equal(fragments.memory, 0);
    const [, rest] = cut(family, datagram, [48]);
    assert.deepEqual(addAll(fragments, [rest as Uint8Array]), [Reassembly.waiting]);
  });

  test(`IPv${family}: a fragment within what came is a repetition, one that reaches beyond is not`, () => {
    const datagram = udpDatagram(family, counting(100));
    const fragments = new Fragments();
    const runs = [
      fragment(family, datagram.slice(0, 16), 0, true),
      fragment(family, datagram.slice(16, 48), 16, true),
    ];
    addAll(fragments, runs);
    assert.deepEqual(addAll(fragments, [fragment(family, datagram.slice(8, 40), 8, true)]), [
      Reassembly.waiting,
    ]);
    assert.deepEqual(addAll(fragments, [fragment(family, datagram.slice(8, 56), 8, true)]), [
      Reassembly.refused,
    ]);
  });

  test(`IPv${family}: two ends, or data behind the end, are refused`, () => {
    const datagram = udpDatagram(family, counting(100));
    const end = fragment(family, datagram.slice(48, 80), 48, false);
    for (const other of [
      fragment(family, datagram.slice(48, 72), 48, false),
      fragment(family, datagram.slice(80, 96), 80, true),
      fragment(family, datagram.slice(80, 100), 80, false),
    ]) {
      assert.deepEqual(addAll(new Fragments(), [end, other]), [Reassembly.waiting, Reassembly.refused]);
    }
    const late = fragment(family, datagram.slice(80, 96), 80, true);
    assert.deepEqual(addAll(new Fragments(), [late, end]), [Reassembly.waiting, Reassembly.refused]);
  });

  test(`IPv${family}: what does not come in time is given up, the first fragment shown`, () => {
    const fragments = new Fragments();
    const datagram = udpDatagram(family, counting(100));
    const [first, rest] = cut(family, datagram, [48]) as [Uint8Array, Uint8Array];
    fragments.add(parsed(first), 1000);
    fragments.add(parsed(cut(family, datagram, [48], { identification: ID + 1 })[1]), 1000);
    const shown: string[] = [];
    const until = 1000 + REASSEMBLY_TIME[family];
    assert.equal(
      fragments.expire(until - 1, () => assert.fail('too early')),
      0,
    );
    assert.equal(
      fragments.expire(until, packet => shown.push(packet.source)),
      2,
    );
    assert.deepEqual(shown, [family === 4 ? '10.0.0.1' : '2001:db8::1']);
    assert.equal(fragments.memory, 0);
    assert.equal(fragments.add(parsed(rest), until), Reassembly.waiting);
  });
}

test('a complete datagram need not be well formed: then it is refused', () => {
  const broken = udpDatagram(4, counting(40));
  broken[5] = 255;
  assert.deepEqual(addAll(new Fragments(), cut(4, broken, [24])), [Reassembly.waiting, Reassembly.refused]);
});

test('memory is bounded: the oldest datagrams make room', () => {
  const fragments = new Fragments(64 * 1024);
  const data = counting(1024);
  for (let identification = 0; identification < 1000; identification++) {
    fragments.add(parsed(fragment(4, data, 1024, true, { identification })), identification);
    assert.ok(fragments.memory <= 64 * 1024);
  }
  assert.equal(fragments.evicted + fragments.size, 1000);
  const before = fragments.size;
  const newest = fragment(4, udpDatagram(4, counting(2040)).slice(0, 1024), 0, true, { identification: 999 });
  assert.equal(fragments.add(parsed(newest), 1000), Reassembly.waiting);
  assert.ok(fragments.size >= before - 1);
});

test('one endless datagram cannot take more than its length', () => {
  const fragments = new Fragments(4096);
  const data = counting(1024);
  for (let offset = 0; offset < 60 * 1024; offset += 1024) {
    fragments.add(parsed(fragment(4, data, offset, true)), 0);
    assert.ok(fragments.memory <= 4096);
  }
});

test('DF and congestion of the fragments are those of the datagram', () => {
  const datagram = udpDatagram(4, counting(100));
  const withClass = (frame: Uint8Array, codepoint: number): Uint8Array => {
    const packet = parsed(frame);
    packet.view.setUint8(packet.network + Ipv4.typeOfService, codepoint);
    fillIpv4Checksum(packet.view, packet.network);
    return packet.copy();
  };
  const reassembled = (one: number, other: number): Fragments | undefined => {
    const [first, rest] = cut(4, datagram, [64]) as [Uint8Array, Uint8Array];
    const fragments = new Fragments();
    const answers = addAll(fragments, [withClass(first, one), withClass(rest, other)]);
    return answers[1] === Reassembly.complete ? fragments : undefined;
  };
  const classOf = (fragments: Fragments | undefined): number | undefined =>
    fragments?.whole.view.getUint8(fragments.whole.network + Ipv4.typeOfService);
  assert.equal(classOf(reassembled(2, 3)), 3);
  assert.equal(classOf(reassembled(0xb8, 0xb8)), 0xb8);
  assert.equal(classOf(reassembled(1, 2)), 1);
  assert.equal(reassembled(0, 3), undefined);
  const fragments = new Fragments();
  addAll(fragments, cut(4, datagram, [64], { flags: IPV4_DONT_FRAGMENT }));
  assert.equal(fragments.whole.view.getUint16(fragments.whole.network + Ipv4.fragment), IPV4_DONT_FRAGMENT);
});

test('IPv6 headers in front of the fragment header stay, those behind it are data', () => {
  const datagram = udpDatagram(6, counting(100));
  const inner = Uint8Array.from([...extensionHeader(Protocol.udp), ...datagram]);
  const piece = (offset: number, end: number): Uint8Array => {
    const header = fragmentHeader(Protocol.destinationOptions, offset, end < inner.length);
    const chain = [...extensionHeader(Protocol.fragment), ...header, ...inner.slice(offset, end)];
    return ethernetFrame(EtherType.ipv6, ipv6Packet(Protocol.hopByHop, Uint8Array.from(chain)));
  };
  const fragments = new Fragments();
  const answers = addAll(fragments, [piece(0, 64), piece(64, inner.length)]);
  assert.deepEqual(answers, [Reassembly.waiting, Reassembly.complete]);
  const { whole } = fragments;
  assert.equal(whole.fragmentHeader, -1);
  assert.equal(whole.protocol, Protocol.udp);
  assert.deepEqual(
    whole.bytes.slice(whole.network + 40, whole.networkEnd),
    Uint8Array.from([...extensionHeader(Protocol.destinationOptions), ...inner]),
  );
});

/** A director with a service for datagrams; fragments of `datagram` are given to it in order. */
function directFragments(bench: Bench, frames: readonly Uint8Array[]): Uint8Array[] {
  const sent = frames.map(frame => bench.receive(frame).sent);
  for (const early of sent.slice(0, -1)) assert.deepEqual(early, []);
  return sent.at(-1) ?? [];
}

/** Where each fragment's data lies, with its length. */
function layout(frames: readonly Uint8Array[]): [offset: number, length: number][] {
  return frames.map(frame => {
    const packet = parsed(frame);
    const data = packet.family === 4 ? packet.transport : packet.fragmentHeader + 8;
    return [packet.fragmentOffset, packet.networkEnd - data];
  });
}

for (const family of [4, 6] as const) {
  for (const method of ['gate', 'masq'] as const) {
    test(`IPv${family} ${method}: a datagram leaves as it came, VLAN tag included`, () => {
      const bench = makeBench();
      addService(bench, 'udp', family, 53, { method, port: method === 'masq' ? 5353 : 53 });
      const datagram = udpDatagram(family, counting(500));
      const frames = cut(family, datagram, [48, 160], { vlans: [100] });
      const sent = directFragments(bench, [...frames].reverse());
      assert.deepEqual(layout(sent), layout(frames));
      assert.ok(sent.every(frame => parsed(frame).tags === 1));
      const fragments = new Fragments();
      const answers = addAll(fragments, sent);
      assert.equal(answers.at(-1), Reassembly.complete);
      const { whole } = fragments;
      assert.equal(whole.destinationPort, method === 'masq' ? 5353 : 53);
      if (family === 4) assert.equal(whole.view.getUint16(whole.network + Ipv4.identification), ID);
      assert.equal(bench.director.administration.services()[0]?.statistics.inPackets, 1);
    });
  }
}

test('pieces larger than the way are cut smaller', () => {
  const bench = makeBench();
  addService(bench, 'udp', 4, 53, {});
  bench.network.mtus.set('10.0.0.7', 300);
  bench.director.resolveNextHops();
  const sent = directFragments(bench, cut(4, udpDatagram(4, counting(900)), [480]));
  assert.deepEqual(layout(sent), [
    [0, 280],
    [280, 280],
    [560, 280],
    [840, 68],
  ]);
});

test('IPv6 fragments larger than the way are answered with its size', () => {
  const bench = makeBench();
  addService(bench, 'udp', 6, 53, {});
  bench.network.mtus.set('2001:db8::7', 1280);
  bench.director.resolveNextHops();
  const [error] = directFragments(bench, cut(6, udpDatagram(6, counting(1500)), [1400]));
  const packet = parsed(error);
  assert.equal(packet.view.getUint8(packet.transport + Icmp.type), Icmpv6Type.packetTooBig);
  assert.equal(packet.view.getUint32(packet.transport + Icmp.rest), 1280);
});

test('in a tunnel of the same family the outer packet is cut to the size of the largest fragment', () => {
  const bench = makeBench();
  addService(bench, 'udp', 4, 53, { method: 'tunnel' });
  const sent = directFragments(bench, cut(4, udpDatagram(4, counting(100)), [64]));
  assert.deepEqual(layout(sent), [
    [0, 64],
    [64, 64],
  ]);
});

test('a datagram that came in fragments goes whole through a tunnel of the other family', () => {
  const bench = makeBench();
  addService(bench, 'udp', 4, 53, { method: 'tunnel', address: '2001:db8::7' });
  const sent = directFragments(bench, cut(4, udpDatagram(4, counting(100)), [64]));
  assert.equal(sent.length, 1);
  assert.equal(packetOf(sent[0] as Uint8Array).length, 40 + 20 + 108);
});

test('fragments for others are not touched, datagrams of no service are given back whole', () => {
  const bench = makeBench();
  addService(bench, 'udp', 4, 5353, {});
  const frames = cut(4, udpDatagram(4, counting(100)), [64]);
  assert.deepEqual(
    frames.map(frame => bench.receive(frame).verdict),
    [Verdict.taken, Verdict.passWhole],
  );
  assert.equal(bench.director.whole.networkEnd - bench.director.whole.network, 128);
  const foreign = makeBench();
  addService(foreign, 'udp', 6, 53, {});
  assert.deepEqual(
    frames.map(frame => foreign.receive(frame).verdict),
    [Verdict.pass, Verdict.pass],
  );
});

test('the sender learns that fragments were missing; what was refused is counted', () => {
  for (const family of [4, 6] as const) {
    const bench = makeBench();
    addService(bench, 'udp', family, 53, {});
    const [first] = cut(family, udpDatagram(family, counting(100)), [64]) as [Uint8Array];
    bench.receive(first, 1000);
    bench.director.expire(1000 + REASSEMBLY_TIME[family]);
    const [error] = bench.network.take();
    const packet = parsed(error);
    const type = family === 4 ? IcmpType.timeExceeded : Icmpv6Type.timeExceeded;
    assert.equal(packet.view.getUint16(packet.transport), (type << 8) | 1);
    assert.equal(bench.director.drops[Drop.fragmentTimeout], 1);
    bench.receive(first, 100_000);
    const overlap = fragment(family, counting(64), 8, true);
    assert.equal(bench.receive(overlap, 100_000).verdict, Verdict.dropped);
    assert.equal(bench.director.drops[Drop.fragment], 1);
  }
});

test('the memory of fragments is an option of the director', () => {
  const bench = makeBench({ fragmentMemory: 4096 });
  addService(bench, 'udp', 4, 53, {});
  for (let identification = 0; identification < 100; identification++) {
    bench.receive(fragment(4, counting(1024), 1024, true, { identification }));
  }
  assert.ok((bench.director.drops[Drop.fragmentMemory] as number) > 90);
});
