/** VLAN tags and IPv6 extension headers stay on packets on every way through the director. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  ethernetFrame,
  extensionHeader,
  ipv4Packet,
  ipv6Packet,
  tcpSegment,
  udpDatagram,
} from '../../test/frames.ts';
import type { Family } from '../wire/address.ts';
import { EtherType } from '../wire/ethernet.ts';
import { Protocol } from '../wire/ipv4.ts';
import { Tcp, tcpSum } from '../wire/tcp.ts';
import { addService, makeBench, packetOf, parsed, readdressed } from './director.fixture.ts';
import { Verdict } from './director.ts';

const TAGS = [0x88, 0xa8, 0, 200, 0x81, 0, 0, 100];

/** A SYN to the VIP in two VLAN tags. */
function tagged(family: Family): Uint8Array {
  return family === 4
    ? ethernetFrame(EtherType.ipv4, ipv4Packet(Protocol.tcp, tcpSegment(4)), [200, 100])
    : ethernetFrame(EtherType.ipv6, ipv6Packet(Protocol.tcp, tcpSegment(6)), [200, 100]);
}

function tagsOf(frame: Uint8Array | undefined): number[] {
  return [...(frame ?? new Uint8Array()).slice(12, 20)];
}

for (const family of [4, 6] as const) {
  const [client, server] = family === 4 ? ['10.0.0.1', '10.0.0.7'] : ['2001:db8::1', '2001:db8::7'];

  test(`IPv${family}: tags on DR, NAT, its replies and tunnels`, () => {
    for (const method of ['gate', 'masq', 'tunnel'] as const) {
      const bench = makeBench();
      addService(bench, 'tcp', family, 80, { method });
      const { sent } = bench.receive(tagged(family));
      assert.deepEqual(tagsOf(sent[0]), TAGS);
      assert.deepEqual([...(sent[0] as Uint8Array).slice(0, 12)], [2, 0, 0, 0, 9, 7, 2, 0, 0, 0, 0, 5]);
      if (method !== 'masq') continue;
      const segment = parsed(tagged(family));
      segment.view.setUint16(segment.transport, 80);
      segment.view.setUint16(segment.transport + 2, 40000);
      const back = bench.receive(readdressed(segment.copy(), server as string, client as string));
      assert.equal(back.verdict, Verdict.taken);
      assert.deepEqual(tagsOf(back.sent[0]), TAGS);
    }
  });

  test(`IPv${family}: tags on the errors that the director answers with`, () => {
    const bench = makeBench();
    const key = addService(bench, 'tcp', family, 80, {});
    bench.director.administration.deleteDestination(key, server as string, 80);
    const { sent } = bench.receive(tagged(family));
    assert.deepEqual(tagsOf(sent[0]), TAGS);
    assert.equal(parsed(sent[0]).destination, client);
  });
}

test('tags on the pieces of a packet that is too big', () => {
  const bench = makeBench();
  addService(bench, 'udp', 4, 53, {});
  bench.network.mtus.set('10.0.0.7', 600);
  bench.director.resolveNextHops();
  const packet = ipv4Packet(Protocol.udp, udpDatagram(4, new Uint8Array(1000)));
  const { sent } = bench.receive(ethernetFrame(EtherType.ipv4, packet, [200, 100]));
  assert.equal(sent.length, 2);
  for (const frame of sent) assert.deepEqual(tagsOf(frame), TAGS);
});

/** Hop-by-hop, destination and routing headers in front of a SYN. */
function chained(): Uint8Array {
  const chain = [
    ...extensionHeader(Protocol.destinationOptions),
    ...extensionHeader(Protocol.routing, 2),
    ...[Protocol.tcp, 0, 0, 0, 0, 0, 0, 0],
    ...tcpSegment(6),
  ];
  return ethernetFrame(EtherType.ipv6, ipv6Packet(Protocol.hopByHop, Uint8Array.from(chain)));
}

test('extension headers through DR and NAT, with a right checksum', () => {
  for (const method of ['gate', 'masq'] as const) {
    const bench = makeBench();
    addService(bench, 'tcp', 6, 80, { method, port: method === 'masq' ? 8080 : 80 });
    const frame = chained();
    const { sent } = bench.receive(frame);
    const packet = parsed(sent[0]);
    assert.equal(packet.transport - packet.network, 72);
    assert.deepEqual(packetOf(sent[0] as Uint8Array).slice(40, 72), packetOf(frame).slice(40, 72));
    assert.equal(packet.destinationPort, method === 'masq' ? 8080 : 80);
    const { view, network, transport, networkEnd } = packet;
    assert.equal(tcpSum(view, 6, network, transport, networkEnd - transport), 0xffff);
    assert.notEqual(view.getUint16(transport + Tcp.checksum), 0);
  }
});

test('a fragment header without a fragment is taken off, as Linux does before it looks at the packet', () => {
  const bench = makeBench();
  addService(bench, 'tcp', 6, 80, {});
  const alone = Uint8Array.from([Protocol.tcp, 0, 0, 0, 0, 0, 0, 9, ...tcpSegment(6)]);
  const { sent } = bench.receive(ethernetFrame(EtherType.ipv6, ipv6Packet(Protocol.fragment, alone)));
  const packet = parsed(sent[0]);
  assert.equal(packet.fragmentHeader, -1);
  assert.equal(packet.networkEnd - packet.network, 60);
  assert.equal(bench.director.administration.connections().length, 1);
});
