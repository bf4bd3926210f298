import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  ethernetFrame,
  extensionHeader,
  ipv4Packet,
  ipv6Packet,
  tcpSegment,
  udpDatagram,
} from '../../../test/frames.ts';
import type { Family } from '../../wire/address.ts';
import { finish, sumBytes } from '../../wire/checksum.ts';
import { EtherType } from '../../wire/ethernet.ts';
import { Icmp, IcmpType, Icmpv6Type } from '../../wire/icmp.ts';
import { decrementTtl, IPV4_DONT_FRAGMENT, Ipv4, Protocol } from '../../wire/ipv4.ts';
import { Ipv6, trafficClass } from '../../wire/ipv6.ts';
import { Packet } from '../../wire/packet.ts';
import { Udp, udpSum } from '../../wire/udp.ts';
import { addService, type Bench, makeBench, packetOf, parsed } from '../director.fixture.ts';
import { Verdict } from '../director.ts';
import { Drop } from '../drops.ts';
import type { DestinationSpecification, TunnelChecksum, TunnelType } from '../specification.ts';

interface Kind {
  inner: Family;
  outer: Family;
  type: TunnelType;
  checksum: TunnelChecksum;
}

const KINDS: Kind[] = ([4, 6] as const).flatMap(inner =>
  ([4, 6] as const).flatMap(outer =>
    (
      [
        ['ipip', 'nocsum'],
        ['gue', 'nocsum'],
        ['gue', 'csum'],
        ['gue', 'remcsum'],
        ['gre', 'nocsum'],
        ['gre', 'csum'],
      ] as const
    ).map(([type, checksum]) => ({ inner, outer, type, checksum })),
  ),
);

/** What each adds in front of the inner packet: outer header, UDP and GUE, GRE and its checksum. */
function overheadOf({ outer, type, checksum }: Kind): number {
  const between = { ipip: 0, gue: 12, gre: checksum === 'csum' ? 8 : 4 }[type];
  return (outer === 4 ? 20 : 40) + between;
}

function nameOf({ inner, outer, type, checksum }: Kind): string {
  return `${inner}in${outer} ${type} ${checksum}`;
}

function makeTunnel({ inner, outer, type, checksum }: Kind, options = {}): Bench {
  const bench = makeBench(options);
  const server: Partial<DestinationSpecification> = {
    method: 'tunnel',
    address: outer === 4 ? '10.0.0.7' : '2001:db8::7',
    tunnelType: type,
    tunnelPort: type === 'gue' ? 6080 : 0,
    tunnelChecksum: checksum,
  };
  addService(bench, 'udp', inner, 53, server);
  return bench;
}

function datagram(family: Family, size: number, fragment = IPV4_DONT_FRAGMENT): Uint8Array {
  const udp = udpDatagram(family, new Uint8Array(size).fill(7));
  return family === 4 ? ipv4Packet(Protocol.udp, udp, { fragment }) : ipv6Packet(Protocol.udp, udp);
}

function framed(packet: Uint8Array, vlans: number[] = []): Uint8Array {
  return ethernetFrame((packet[0] as number) >>> 4 === 4 ? EtherType.ipv4 : EtherType.ipv6, packet, vlans);
}

/** The packet a hop further. */
function forwarded(packet: Uint8Array): Uint8Array {
  const copy = packet.slice();
  const view = new DataView(copy.buffer);
  if ((copy[0] as number) >>> 4 === 4) decrementTtl(view, 0);
  else view.setUint8(Ipv6.hopLimit, view.getUint8(Ipv6.hopLimit) - 1);
  return copy;
}

function field16(frame: Uint8Array, at: number): number {
  return ((frame[at] as number) << 8) | (frame[at + 1] as number);
}

for (const kind of KINDS) {
  test(`${nameOf(kind)}: the packet is inside, one hop further, behind right headers`, () => {
    const bench = makeTunnel(kind);
    const overhead = overheadOf(kind);
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 1300 }), size => {
        const inner = datagram(kind.inner, size);
        const { verdict, sent } = bench.receive(framed(inner));
        assert.equal(verdict, Verdict.taken);
        assert.equal(sent.length, 1);
        const packet = parsed(sent[0]);
        const whole = packetOf(sent[0] as Uint8Array);
        assert.deepEqual(whole.slice(overhead), forwarded(inner));
        assert.equal(packet.family, kind.outer);
        assert.equal(packet.source, kind.outer === 4 ? '10.0.0.5' : '2001:db8::5');
        assert.equal(packet.destination, kind.outer === 4 ? '10.0.0.7' : '2001:db8::7');
        checkBetween(kind, packet, whole);
      }),
      { numRuns: 20 },
    );
  });
}

function checkBetween({ inner, outer, type, checksum }: Kind, packet: Packet, whole: Uint8Array): void {
  const { view, network, transport, networkEnd } = packet;
  if (type === 'ipip') {
    assert.equal(packet.protocol, inner === 4 ? Protocol.ipv4 : Protocol.ipv6);
    return;
  }
  const at = outer === 4 ? 20 : 40;
  if (type === 'gre') {
    assert.equal(packet.protocol, Protocol.gre);
    assert.equal(field16(whole, at), checksum === 'csum' ? 0x8000 : 0);
    assert.equal(field16(whole, at + 2), inner === 4 ? EtherType.ipv4 : EtherType.ipv6);
    if (checksum === 'csum') assert.equal(finish(sumBytes(view, transport, networkEnd - transport)), 0);
    return;
  }
  assert.equal(packet.protocol, Protocol.udp);
  assert.equal(packet.destinationPort, 6080);
  assert.ok(packet.sourcePort >= 32768 && packet.sourcePort < 61000);
  assert.deepEqual([...whole.slice(at + 8, at + 12)], [0, inner === 4 ? 4 : 41, 0, 0]);
  if (checksum === 'nocsum') assert.equal(view.getUint16(transport + Udp.checksum), 0);
  else assert.equal(udpSum(view, outer, network, transport, networkEnd - transport), 0xffff);
}

test('a flow keeps its source port, others have others', () => {
  const bench = makeTunnel({ inner: 4, outer: 4, type: 'gue', checksum: 'nocsum' });
  const ports = (sourcePort: number): number => {
    const udp = udpDatagram(4, new Uint8Array(8), sourcePort);
    return parsed(bench.receive(framed(ipv4Packet(Protocol.udp, udp))).sent[0]).sourcePort;
  };
  const seen = new Set<number>();
  for (let port = 1024; port < 1124; port++) {
    assert.equal(ports(port), ports(port));
    seen.add(ports(port));
  }
  assert.ok(seen.size > 90);
});

test('the outer header: class without congestion experienced, TTL, DF and identification', () => {
  const bench = makeTunnel({ inner: 4, outer: 4, type: 'ipip', checksum: 'nocsum' });
  const outer = (typeOfService: number, fragment: number): Packet => {
    const frame = framed(datagram(4, 8, fragment));
    const packet = parsed(frame);
    packet.view.setUint8(packet.network + Ipv4.typeOfService, typeOfService);
    packet.view.setUint8(packet.network + Ipv4.ttl, 33);
    packet.view.setUint16(packet.network + Ipv4.checksum, 0);
    const sum = finish(sumBytes(packet.view, packet.network, 20));
    packet.view.setUint16(packet.network + Ipv4.checksum, sum, true);
    return parsed(bench.receive(packet.copy()).sent[0]);
  };
  for (const [inner, copied] of [
    [0xb8, 0xb8],
    [0xb9, 0xb9],
    [0xba, 0xba],
    [0xbb, 0xba],
  ] as const) {
    const { view, network } = outer(inner, IPV4_DONT_FRAGMENT);
    assert.equal(view.getUint8(network + Ipv4.typeOfService), copied);
    assert.equal(view.getUint8(network + Ipv4.ttl), 32);
    assert.equal(view.getUint16(network + Ipv4.fragment), IPV4_DONT_FRAGMENT);
    assert.equal(view.getUint16(network + Ipv4.identification), 0);
  }
  const first = outer(0, 0);
  const second = outer(0, 0);
  assert.equal(first.view.getUint16(first.network + Ipv4.fragment), 0);
  assert.notEqual(
    first.view.getUint16(first.network + Ipv4.identification),
    second.view.getUint16(second.network + Ipv4.identification),
  );
});

test('IPv6 traffic class in an IPv4 tunnel and the other way round', () => {
  const inFour = makeTunnel({ inner: 6, outer: 4, type: 'ipip', checksum: 'nocsum' });
  const four = parsed(inFour.receive(framed(datagram(6, 8))).sent[0]);
  assert.equal(four.view.getUint8(four.network + Ipv4.typeOfService), 0x10);
  assert.equal(four.view.getUint16(four.network + Ipv4.fragment), 0);
  const inSix = makeTunnel({ inner: 6, outer: 6, type: 'ipip', checksum: 'nocsum' });
  const six = parsed(inSix.receive(framed(datagram(6, 8))).sent[0]);
  assert.equal(trafficClass(six.view, six.network), 0x10);
  assert.equal(six.view.getUint32(six.network) & 0xfffff, 0);
});

for (const kind of KINDS) {
  test(`${nameOf(kind)}: what fits goes, one byte more is answered with the size that would`, () => {
    const bench = makeTunnel(kind);
    const room = 1500 - overheadOf(kind);
    const header = (kind.inner === 4 ? 20 : 40) + 8;
    assert.equal(bench.receive(framed(datagram(kind.inner, room - header))).verdict, Verdict.taken);
    const { verdict, sent } = bench.receive(framed(datagram(kind.inner, room - header + 1)));
    assert.equal(verdict, Verdict.dropped);
    assert.equal(bench.director.drops[Drop.tooBig], 1);
    const error = parsed(sent[0]);
    assert.equal(error.source, kind.inner === 4 ? '10.0.0.3' : '2001:db8::3');
    const { view, transport } = error;
    if (kind.inner === 4) {
      assert.equal(view.getUint16(transport + Icmp.type), (IcmpType.unreachable << 8) | 4);
      assert.equal(view.getUint16(transport + Icmp.mtu), room);
    } else {
      assert.equal(view.getUint8(transport + Icmp.type), Icmpv6Type.packetTooBig);
      assert.equal(view.getUint32(transport + Icmp.rest), room);
    }
  });
}

/** Puts the fragments of one packet together, without the help of what is tested. */
function joined(frames: readonly Uint8Array[]): Uint8Array {
  const pieces = frames.map(frame => {
    const packet = parsed(frame);
    const data = packet.family === 4 ? packet.transport : packet.fragmentHeader + 8;
    return { packet, data: packet.bytes.slice(data, packet.networkEnd) };
  });
  pieces.sort((one, other) => one.packet.fragmentOffset - other.packet.fragmentOffset);
  for (const [index, { packet }] of pieces.entries()) {
    assert.equal(packet.moreFragments, index < pieces.length - 1);
    assert.ok(packet.networkEnd - packet.network <= 1500);
  }
  return Uint8Array.from(pieces.flatMap(({ data }) => [...data]));
}

for (const kind of KINDS) {
  test(`${nameOf(kind)}: without DF the outer packet is fragmented`, () => {
    if (kind.inner === 6) return;
    const bench = makeTunnel(kind);
    const inner = datagram(4, 1472, 0);
    const { verdict, sent } = bench.receive(framed(inner));
    assert.equal(verdict, Verdict.taken);
    assert.equal(sent.length, 2);
    const between = overheadOf(kind) - (kind.outer === 4 ? 20 : 40);
    assert.deepEqual(joined(sent).slice(between), forwarded(inner));
  });
}

test('without path MTU discovery nothing is answered and the outer packet has no DF', () => {
  const bench = makeTunnel(
    { inner: 4, outer: 4, type: 'ipip', checksum: 'nocsum' },
    { settings: { pmtu_disc: 0 } },
  );
  const inner = datagram(4, 1472);
  const { sent } = bench.receive(framed(inner));
  assert.equal(sent.length, 2);
  assert.deepEqual(joined(sent), forwarded(inner));
  const small = parsed(bench.receive(framed(datagram(4, 8))).sent[0]);
  assert.equal(small.view.getUint16(small.network + Ipv4.fragment), 0);
});

test('IPv6 is told even without path MTU discovery', () => {
  const bench = makeTunnel(
    { inner: 6, outer: 4, type: 'ipip', checksum: 'nocsum' },
    { settings: { pmtu_disc: 0 } },
  );
  assert.equal(bench.receive(framed(datagram(6, 1452))).verdict, Verdict.dropped);
});

test('a way too narrow for the outer header is counted', () => {
  for (const [outer, mtu] of [
    [4, 87],
    [6, 1319],
  ] as const) {
    const bench = makeTunnel({ inner: 4, outer, type: 'ipip', checksum: 'nocsum' });
    bench.network.mtus.set(outer === 4 ? '10.0.0.7' : '2001:db8::7', mtu);
    bench.director.resolveNextHops();
    assert.equal(bench.receive(framed(datagram(4, 8))).verdict, Verdict.dropped);
    assert.equal(bench.director.drops[Drop.tunnelMtu], 1);
  }
});

test('a frame without room in front is dropped and counted, not damaged', () => {
  const bench = makeTunnel({ inner: 4, outer: 6, type: 'gue', checksum: 'csum' });
  const frame = framed(datagram(4, 8));
  for (const [room, verdict] of [
    [51, Verdict.dropped],
    [52, Verdict.taken],
  ] as const) {
    const packet = new Packet(room + frame.length);
    packet.bytes.set(frame, room);
    packet.parse(room, frame.length);
    assert.equal(bench.director.process(packet, 2, 1000), verdict);
  }
  assert.equal(bench.director.drops[Drop.noHeadroom], 1);
});

test('VLAN tags stay in front of the outer header, also on fragments', () => {
  for (const outer of [4, 6] as const) {
    const bench = makeTunnel({ inner: 4, outer, type: 'gue', checksum: 'nocsum' });
    const [frame] = bench.receive(framed(datagram(4, 8), [200, 100])).sent;
    const packet = parsed(frame);
    assert.equal(packet.tags, 2);
    assert.deepEqual([...packet.copy().slice(12, 20)], [0x88, 0xa8, 0, 200, 0x81, 0, 0, 100]);
    assert.equal(packet.etherType, outer === 4 ? EtherType.ipv4 : EtherType.ipv6);
    assert.deepEqual([...packet.copy().slice(0, 12)], [2, 0, 0, 0, 9, 7, 2, 0, 0, 0, 0, 5]);
    const { sent } = bench.receive(framed(datagram(4, 1472, 0), [100]));
    assert.deepEqual(
      sent.map(each => parsed(each).tags),
      [1, 1],
    );
  }
});

test('extension headers go along inside', () => {
  const bench = makeBench();
  addService(bench, 'tcp', 6, 80, { method: 'tunnel' });
  const chain = Uint8Array.from([...extensionHeader(Protocol.tcp, 2), ...tcpSegment(6)]);
  const inner = ipv6Packet(Protocol.destinationOptions, chain);
  const { sent } = bench.receive(framed(inner));
  assert.deepEqual(packetOf(sent[0] as Uint8Array).slice(40), forwarded(inner));
});
