import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ethernetFrame, extensionHeader, ipv4Packet, ipv6Packet } from '../../../test/frames.ts';
import { EtherType } from '../../wire/ethernet.ts';
import { checkIpv4, fillIpv4Checksum, IPV4_MORE_FRAGMENTS, Ipv4, Protocol } from '../../wire/ipv4.ts';
import { Malformed } from '../../wire/malformed.ts';
import { DescribedNetwork, parsed } from '../director.fixture.ts';
import { Fragmenter, type FragmentSizes } from './fragmenter.ts';

function cut(frame: Uint8Array, mtu: number, came?: FragmentSizes): Uint8Array[] {
  const network = new DescribedNetwork();
  const packet = parsed(frame);
  const hop = network.nextHop(packet.bytes, packet.destinationAt, packet.family === 6 ? 6 : 4);
  new Fragmenter(network, 1).send(packet, hop, mtu, came);
  return network.take();
}

function pattern(size: number): Uint8Array {
  return Uint8Array.from({ length: size }, (_, index) => (index * 7) & 255);
}

test('IPv4: the pieces fit, follow each other and hold all of the packet', () => {
  fc.assert(
    fc.property(fc.integer({ min: 28, max: 1500 }), fc.integer({ min: 1, max: 3000 }), (mtu, size) => {
      const data = pattern(size);
      const frames = cut(ethernetFrame(EtherType.ipv4, ipv4Packet(Protocol.gre, data)), mtu);
      const joined: number[] = [];
      for (const [index, frame] of frames.entries()) {
        const packet = parsed(frame);
        assert.ok(packet.networkEnd - packet.network <= mtu);
        assert.equal(packet.fragmentOffset, joined.length);
        assert.equal(packet.moreFragments, index < frames.length - 1);
        joined.push(...packet.bytes.slice(packet.transport, packet.networkEnd));
      }
      assert.deepEqual(Uint8Array.from(joined), data);
    }),
  );
});

test('IPv4: a middle fragment cut again keeps its place and its more-fragments bit', () => {
  const fragment = IPV4_MORE_FRAGMENTS | 50;
  const packet = ipv4Packet(Protocol.udp, pattern(160), { fragment });
  const frames = cut(ethernetFrame(EtherType.ipv4, packet), 100).map(parsed);
  assert.deepEqual(
    frames.map(({ fragmentOffset, moreFragments }) => [fragmentOffset, moreFragments]),
    [
      [400, true],
      [480, true],
    ],
  );
});

test('IPv4: only options with the copied bit go into later fragments', () => {
  const copied = [0x94, 4, 0, 0];
  const first = [7, 4, 4, 0];
  const plain = ipv4Packet(Protocol.gre, Uint8Array.from([...copied, ...first, ...pattern(100)]));
  plain[0] = 0x47;
  fillIpv4Checksum(new DataView(plain.buffer), 0);
  const frames = cut(ethernetFrame(EtherType.ipv4, plain), 100).map(parsed);
  assert.equal(frames.length, 2);
  const optionsOf = (index: number): number[] => {
    const { bytes, network } = frames[index] as ReturnType<typeof parsed>;
    return [...bytes.slice(network + 20, network + 28)];
  };
  assert.deepEqual(optionsOf(0), [...copied, ...first]);
  assert.deepEqual(optionsOf(1), [...copied, 1, 1, 1, 1]);
  for (const { view, network } of frames) {
    assert.equal(checkIpv4(view, network, view.getUint16(network + Ipv4.totalLength)), Malformed.none);
  }
});

test('IPv6: headers for routers are repeated, one identification for all, the next one for the next packet', () => {
  const chain = [
    ...extensionHeader(Protocol.routing),
    ...[Protocol.destinationOptions, 0, 0, 0, 0, 0, 0, 0],
    ...extensionHeader(Protocol.gre),
    ...pattern(2000),
  ];
  const frame = ethernetFrame(EtherType.ipv6, ipv6Packet(Protocol.hopByHop, Uint8Array.from(chain)));
  const frames = cut(frame, 1280).map(parsed);
  assert.equal(frames.length, 2);
  const joined = frames.flatMap(packet => [
    ...packet.bytes.slice(packet.fragmentHeader + 8, packet.networkEnd),
  ]);
  assert.deepEqual(joined, chain.slice(16));
  for (const packet of frames) {
    assert.equal(packet.fragmentHeader - packet.network, 56);
    assert.equal(packet.bytes[packet.fragmentHeader], Protocol.destinationOptions);
    assert.equal(packet.view.getUint32(packet.fragmentHeader + 4), 1);
  }
});

test('a way without room for eight bytes of data sends nothing', () => {
  assert.deepEqual(cut(ethernetFrame(EtherType.ipv4, ipv4Packet(Protocol.gre, pattern(100))), 27), []);
});
