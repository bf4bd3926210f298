import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  ethernetFrame,
  extensionHeader,
  icmpMessage,
  ipv4Packet,
  ipv6Packet,
  sampleFrames,
  tcpSegment,
  udpDatagram,
} from '../../test/frames.ts';
import type { Family } from '../wire/address.ts';
import { sumBytes } from '../wire/checksum.ts';
import { EtherType } from '../wire/ethernet.ts';
import { checkIcmp, Icmp, IcmpType, Icmpv6Type, readIcmp, UnreachableCode } from '../wire/icmp.ts';
import { Ipv4, Protocol } from '../wire/ipv4.ts';
import { Malformed } from '../wire/malformed.ts';
import { Packet } from '../wire/packet.ts';
import { Udp } from '../wire/udp.ts';
import {
  addService,
  type Bench,
  fillChecksums,
  makeBench,
  packetOf,
  parsed,
  readdressed,
} from './director.fixture.ts';
import { Verdict } from './director.ts';
import { Drop } from './drops.ts';
import { EmbeddedPacket } from './embedded-packet.ts';
import type { DestinationSpecification } from './specification.ts';

interface Names {
  client: string;
  vip: string;
  server: string;
  router: string;
  director: string;
}

const NAMES: Record<Family, Names> = {
  4: { client: '10.0.0.1', vip: '10.0.0.3', server: '10.0.0.7', router: '10.0.0.9', director: '10.0.0.5' },
  6: {
    client: '2001:db8::1',
    vip: '2001:db8::3',
    server: '2001:db8::7',
    router: '2001:db8::9',
    director: '2001:db8::5',
  },
};

/** UDP from client port 40000 to VIP port 53. */
function request(family: Family): Uint8Array {
  const udp = udpDatagram(family, new Uint8Array(24).fill(7));
  return family === 4
    ? ethernetFrame(EtherType.ipv4, ipv4Packet(Protocol.udp, udp))
    : ethernetFrame(EtherType.ipv6, ipv6Packet(Protocol.udp, udp));
}

/** UDP from the server's port to the client's. */
function reply(family: Family, source: string, sourcePort: number): Uint8Array {
  const packet = parsed(request(family));
  packet.view.setUint16(packet.transport + Udp.sourcePort, sourcePort);
  packet.view.setUint16(packet.transport + Udp.destinationPort, 40000);
  return readdressed(packet.copy(), source, NAMES[family].client);
}

const UNREACHABLE: Record<Family, number> = { 4: IcmpType.unreachable, 6: Icmpv6Type.unreachable };

/** An ICMP error that quotes a packet. */
function error(
  family: Family,
  source: string,
  destination: string,
  quote: Uint8Array,
  { type = UNREACHABLE[family], code = 1, rest = 0, vlans = [] as number[] } = {},
): Uint8Array {
  const message = icmpMessage(family, type, code, rest, quote);
  const frame =
    family === 4
      ? ethernetFrame(EtherType.ipv4, ipv4Packet(Protocol.icmp, message), vlans)
      : ethernetFrame(EtherType.ipv6, ipv6Packet(Protocol.icmpv6, message), vlans);
  return readdressed(frame, source, destination);
}

/** The first eight bytes of transport are all that must be quoted. */
function shortQuote(family: Family, packet: Uint8Array): Uint8Array {
  return packet.slice(0, (family === 4 ? 20 : 40) + 8);
}

function natBench(family: Family): Bench {
  const bench = makeBench();
  addService(bench, 'udp', family, 53, { method: 'masq', port: 5353 });
  bench.receive(request(family));
  return bench;
}

/** The quoted packet of an error, which may be cut off: addresses and ports. */
function quoted(packet: Packet): { source: string; destination: string; ports: [number, number] } {
  const embedded = new EmbeddedPacket();
  const { view, networkEnd, transport } = packet;
  assert.ok(embedded.read(view, packet.family === 6 ? 6 : 4, transport + 8, networkEnd));
  const inner = new Packet(packet.bytes.buffer);
  inner.family = packet.family;
  inner.network = embedded.network;
  return {
    source: inner.source,
    destination: inner.destination,
    ports: [view.getUint16(embedded.transport), view.getUint16(embedded.transport + 2)],
  };
}

function assertChecksumsRight(packet: Packet): void {
  const { view, network, transport, networkEnd } = packet;
  const family = packet.family === 6 ? 6 : 4;
  assert.equal(checkIcmp(view, family, network, transport, networkEnd - transport, true), Malformed.none);
  if (family === 4) assert.equal(sumBytes(view, transport + 8, 20), 0xffff);
}

for (const family of [4, 6] as const) {
  const { client, vip, server, router } = NAMES[family];

  for (const cutOff of [false, true]) {
    const name = cutOff ? 'eight bytes of transport' : 'a whole packet';
    test(`IPv${family}: an error about a reply goes to the server, translated inside, with ${name}`, () => {
      const bench = natBench(family);
      const whole = packetOf(reply(family, vip, 53));
      const frame = error(family, router, vip, cutOff ? shortQuote(family, whole) : whole, { vlans: [100] });
      const { verdict, sent } = bench.receive(frame);
      assert.equal(verdict, Verdict.taken);
      const packet = parsed(sent[0]);
      assert.equal(packet.tags, 1);
      assert.equal(packet.source, router);
      assert.equal(packet.destination, server);
      assert.deepEqual(quoted(packet), { source: server, destination: client, ports: [5353, 40000] });
      assertChecksumsRight(packet);
    });

    test(`IPv${family}: an error about a request goes to the client as the VIP's, with ${name}`, () => {
      const bench = natBench(family);
      const forwarded = packetOf(readdressed(request(family), client, server));
      new DataView(forwarded.buffer).setUint16((family === 4 ? 20 : 40) + Udp.destinationPort, 5353);
      const frame = error(family, router, client, cutOff ? shortQuote(family, forwarded) : forwarded);
      const { verdict, sent } = bench.receive(frame);
      assert.equal(verdict, Verdict.taken);
      const packet = parsed(sent[0]);
      assert.equal(packet.source, vip);
      assert.equal(packet.destination, client);
      assert.deepEqual(quoted(packet), { source: client, destination: vip, ports: [40000, 53] });
      assertChecksumsRight(packet);
      const [service] = bench.director.administration.services();
      assert.equal(service?.statistics.outPackets, 1);
      assert.equal(service?.statistics.outBytes, packet.networkEnd - packet.network);
    });
  }

  test(`IPv${family}: the quoted transport checksum is left as it was`, () => {
    const bench = natBench(family);
    const whole = packetOf(reply(family, vip, 53));
    const at = (family === 4 ? 20 : 40) + Udp.checksum;
    const packet = parsed(bench.receive(error(family, router, vip, whole)).sent[0]);
    const quote = packet.bytes.slice(packet.transport + 8, packet.networkEnd);
    assert.deepEqual([...quote.slice(at, at + 2)], [...whole.slice(at, at + 2)]);
  });

  for (const method of ['gate', 'tunnel'] as const) {
    test(`IPv${family} ${method}: an error about a reply goes to the server as it is`, () => {
      const bench = makeBench();
      addService(bench, 'udp', family, 53, { method });
      bench.receive(request(family));
      const frame = error(family, router, vip, packetOf(reply(family, vip, 53)));
      const { sent } = bench.receive(frame);
      const inside = packetOf(sent[0] as Uint8Array).slice(method === 'gate' ? 0 : family === 4 ? 20 : 40);
      const before = packetOf(frame);
      const ttl = family === 4 ? Ipv4.ttl : 7;
      assert.equal(inside[ttl], (before[ttl] as number) - 1);
      assert.deepEqual(inside.slice(family === 4 ? 20 : 40), before.slice(family === 4 ? 20 : 40));
      assert.equal(bench.director.administration.services()[0]?.statistics.inPackets, 2);
    });
  }

  test(`IPv${family}: errors about nothing known, echoes and cut-off quotes are the host's`, () => {
    const bench = natBench(family);
    const whole = packetOf(reply(family, vip, 54));
    const frames = [
      error(family, router, vip, whole),
      error(family, router, vip, shortQuote(family, packetOf(reply(family, vip, 53))).slice(0, -6)),
      error(family, router, vip, whole.slice(0, 12)),
      error(family, router, vip, new Uint8Array(0)),
      error(family, router, vip, whole, {
        type: family === 4 ? IcmpType.echoRequest : Icmpv6Type.echoRequest,
      }),
    ];
    for (const frame of frames) {
      const { verdict, sent } = bench.receive(frame);
      assert.equal(verdict, Verdict.pass);
      assert.deepEqual(sent, []);
    }
  });

  test(`IPv${family}: schedule_icmp lets an error begin a connection`, () => {
    const bench = makeBench({ settings: { schedule_icmp: 1 } });
    addService(bench, 'udp', family, 53, { method: 'masq', port: 5353 });
    const about = (port: number): Uint8Array =>
      error(family, router, vip, packetOf(reply(family, vip, port)));
    const packet = parsed(bench.receive(about(53)).sent[0]);
    assert.equal(packet.destination, server);
    assert.deepEqual(quoted(packet).ports, [5353, 40000]);
    const [connection] = bench.director.administration.connections();
    assert.equal(connection?.client, client);
    assert.equal(connection?.clientPort, 40000);
    assert.equal(connection?.virtualPort, 53);
    assert.equal(bench.receive(about(54)).verdict, Verdict.pass);
    const key = { protocol: 'udp', address: vip, port: 53 } as const;
    bench.director.administration.deleteDestination(key, server, 5353);
    const other = packetOf(reply(family, vip, 53));
    new DataView(other.buffer).setUint16((family === 4 ? 20 : 40) + Udp.destinationPort, 40001);
    const { verdict, sent } = bench.receive(error(family, router, vip, other));
    assert.equal(verdict, Verdict.dropped);
    assert.deepEqual(sent, []);
    assert.equal(bench.director.drops[Drop.noServer], 1);
  });
}

test('IPv6: extension headers, outside and in the quote, are walked over and kept', () => {
  const { client, vip, server, router } = NAMES[6];
  const bench = natBench(6);
  const original = packetOf(reply(6, vip, 53));
  const quote = Uint8Array.from([
    ...original.slice(0, 40),
    ...extensionHeader(Protocol.udp, 2),
    ...original.slice(40),
  ]);
  quote[6] = Protocol.destinationOptions;
  const plain = parsed(error(6, router, vip, quote));
  const message = plain.bytes.slice(plain.transport, plain.networkEnd);
  const chain = Uint8Array.from([...extensionHeader(Protocol.icmpv6), ...message]);
  const frame = ethernetFrame(EtherType.ipv6, ipv6Packet(Protocol.hopByHop, chain));
  const packet = parsed(bench.receive(readdressed(frame, router, vip)).sent[0]);
  assert.equal(packet.destination, server);
  assert.equal(packet.transport - packet.network, 48);
  assert.deepEqual(quoted(packet), { source: server, destination: client, ports: [5353, 40000] });
  assertChecksumsRight(packet);
});

test('an error with a wrong checksum is dropped, in both directions', () => {
  const { client, vip, server, router } = NAMES[4];
  const bench = natBench(4);
  const forwarded = packetOf(readdressed(request(4), client, server));
  new DataView(forwarded.buffer).setUint16(20 + Udp.destinationPort, 5353);
  for (const frame of [
    error(4, router, vip, packetOf(reply(4, vip, 53))),
    error(4, router, client, forwarded),
  ]) {
    frame[36] = (frame[36] as number) ^ 0x55;
    assert.equal(bench.receive(frame).verdict, Verdict.dropped);
  }
  assert.equal(bench.director.drops[Drop.malformed], 2);
});

test('an error with TTL 1 dies silently: no error about an error', () => {
  const { vip, router } = NAMES[4];
  const bench = natBench(4);
  const packet = parsed(error(4, router, vip, packetOf(reply(4, vip, 53))));
  packet.view.setUint8(packet.network + Ipv4.ttl, 1);
  fillChecksums(packet);
  const { verdict, sent } = bench.receive(packet.copy());
  assert.equal(verdict, Verdict.dropped);
  assert.deepEqual(sent, []);
});

/** A bench with a tunnel through which one datagram went; returns the outer packet too. */
function tunnelled(server: Partial<DestinationSpecification>): { bench: Bench; outer: Uint8Array } {
  const bench = makeBench();
  addService(bench, 'udp', 4, 53, { method: 'tunnel', ...server });
  const frame = parsed(request(4));
  frame.view.setUint16(frame.network + Ipv4.fragment, 0x4000);
  fillChecksums(frame);
  const { sent } = bench.receive(frame.copy());
  return { bench, outer: packetOf(sent[0] as Uint8Array) };
}

const TUNNELS: Record<string, [Partial<DestinationSpecification>, number]> = {
  ipip: [{ tunnelType: 'ipip' }, 20],
  gue: [{ tunnelType: 'gue', tunnelPort: 6080 }, 32],
  gre: [{ tunnelType: 'gre' }, 24],
  'gre with checksum': [{ tunnelType: 'gre', tunnelChecksum: 'csum' }, 28],
};

for (const [name, [server, overhead]] of Object.entries(TUNNELS)) {
  test(`${name}: the client is told of errors about the tunnel packet, as about its own`, () => {
    const { client, vip, router, director } = NAMES[4];
    const { bench, outer } = tunnelled(server);
    const frame = error(4, router, director, outer, { type: IcmpType.timeExceeded, code: 0 });
    const { verdict, sent } = bench.receive(frame);
    assert.equal(verdict, Verdict.taken);
    const packet = parsed(sent[0]);
    assert.equal(packet.source, vip);
    assert.equal(packet.destination, client);
    assert.deepEqual(quoted(packet), { source: client, destination: vip, ports: [40000, 53] });
    assert.equal(readIcmp(packet.view, packet.transport).type, IcmpType.timeExceeded);
    assertChecksumsRight(packet);
    const counted = bench.director.administration.services()[0]?.statistics;
    assert.equal(counted?.outPackets, 2);
    assert.equal(counted?.outBytes, packet.networkEnd - packet.network + outer.length - overhead);
  });

  test(`${name}: the path MTU is learned, and the client told what is left of it`, () => {
    const { router, director } = NAMES[4];
    const { bench, outer } = tunnelled(server);
    const tooBig = (rest: number): number => {
      const frame = error(4, router, director, outer, { code: UnreachableCode.fragmentationNeeded, rest });
      const packet = parsed(bench.receive(frame).sent[0]);
      return packet.view.getUint16(packet.transport + Icmp.mtu);
    };
    assert.equal(tooBig(1400), 1500 - overhead);
    bench.receive(request(4));
    assert.equal(tooBig(1300), 1300 - overhead);
    const large = udpDatagram(4, new Uint8Array(1300));
    const frame = ethernetFrame(EtherType.ipv4, ipv4Packet(Protocol.udp, large, { fragment: 0x4000 }));
    const packet = parsed(bench.receive(frame).sent[0]);
    assert.equal(packet.view.getUint16(packet.transport + Icmp.mtu), 1300 - overhead);
    bench.director.expire(10_000_000);
    bench.receive(request(4), 10_000_000);
    assert.equal(bench.receive(frame, 10_000_000).sent.length, 1);
  });
}

test("errors about tunnels that are not the connection's are the host's", () => {
  const { router, director } = NAMES[4];
  const { bench, outer } = tunnelled({ tunnelType: 'gue', tunnelPort: 6080 });
  const changed = (at: number, value: number): Uint8Array => {
    const copy = outer.slice();
    copy[at] = value;
    return copy;
  };
  const frames = [
    error(4, router, NAMES[4].client, outer),
    ...[changed(19, 8), changed(23, 1), changed(28, 0x20), changed(29, 41), outer.slice(0, 55)].map(quote =>
      error(4, router, director, quote),
    ),
  ];
  for (const frame of frames) {
    const { verdict, sent } = bench.receive(frame);
    assert.equal(verdict, Verdict.pass);
    assert.deepEqual(sent, []);
  }
});

test('a client that does not ask for the path MTU is not told it', () => {
  const { router, director } = NAMES[4];
  const bench = makeBench();
  addService(bench, 'udp', 4, 53, { method: 'tunnel' });
  const outer = packetOf(bench.receive(request(4)).sent[0] as Uint8Array);
  const frame = error(4, router, director, outer, { code: UnreachableCode.fragmentationNeeded, rest: 1400 });
  const { verdict, sent } = bench.receive(frame);
  assert.equal(verdict, Verdict.taken);
  assert.deepEqual(sent, []);
});

test('an error that the host itself sends about a request is counted, and translated for a local server', () => {
  const { client, vip } = NAMES[4];
  for (const method of ['gate', 'masq'] as const) {
    const bench = makeBench();
    addService(bench, 'udp', 4, 53, { method, address: '10.0.0.5', port: method === 'masq' ? 5353 : 53 });
    const packet = parsed(request(4));
    assert.equal(bench.director.process(packet, 2, 1000), Verdict.pass);
    const local = method === 'masq' ? '10.0.0.5' : vip;
    assert.equal(packet.destination, local);
    const quote = packet.bytes.slice(packet.network, packet.networkEnd);
    const sent = parsed(error(4, local, client, quote, { code: UnreachableCode.port }));
    bench.director.processLocal(sent, 1000);
    assert.equal(sent.source, vip);
    assert.deepEqual(quoted(sent), { source: client, destination: vip, ports: [40000, 53] });
    assertChecksumsRight(sent);
    assert.equal(bench.director.administration.services()[0]?.statistics.outPackets, 1);
  }
});

/** A director with every kind of service, so that damaged frames have somewhere to go. */
function busyBench(): Bench {
  const bench = makeBench({
    settings: { schedule_icmp: 1, nat_icmp_send: 1, sloppy_tcp: 1, sloppy_sctp: 1 },
  });
  addService(bench, 'tcp', 4, 80, { method: 'masq', port: 8080 });
  addService(bench, 'udp', 4, 53, { method: 'tunnel', tunnelType: 'gue', tunnelPort: 6080 });
  addService(bench, 'sctp', 4, 3868, { method: 'masq' });
  addService(bench, 'tcp', 6, 80, { method: 'tunnel', tunnelType: 'gre', tunnelChecksum: 'csum' });
  addService(bench, 'udp', 6, 53, { method: 'masq', port: 5353 });
  addService(bench, 'sctp', 6, 3868, {});
  return bench;
}

test('damaged frames never make the director throw', () => {
  const frames = sampleFrames().map(({ frame }) => frame);
  for (const family of [4, 6] as const) {
    const { vip, router, server, client, director } = NAMES[family];
    frames.push(request(family), reply(family, server, 53));
    frames.push(error(family, router, vip, packetOf(reply(family, vip, 53))));
    frames.push(error(family, router, client, packetOf(readdressed(request(family), client, server))));
    const inner = packetOf(request(family));
    const outer = ipv4Packet(family === 4 ? Protocol.ipv4 : Protocol.ipv6, inner);
    if (family === 4) frames.push(error(4, router, director, outer));
  }
  frames.push(
    ethernetFrame(EtherType.ipv4, ipv4Packet(Protocol.tcp, tcpSegment(4, {}, new Uint8Array(1600)))),
  );
  const bench = busyBench();
  const packet = new Packet();
  fc.assert(
    fc.property(
      fc.nat(frames.length - 1),
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 }),
      fc.option(fc.nat()),
      fc.boolean(),
      (which, changes, length, routedOn) => {
        const frame = (frames[which] as Uint8Array).slice();
        for (const [at, value] of changes) frame[at % frame.length] = value;
        const cut = length === null ? frame.length : length % (frame.length + 1);
        if (packet.load(frame.subarray(0, cut)) !== Malformed.none) return;
        // What headers say stays plausible, so that damage reaches what lies behind them.
        if (!packet.isFragment && packet.family !== 0) fillChecksums(packet);
        bench.director.process(packet, 2, 1000, routedOn);
        bench.network.take();
      },
    ),
    { numRuns: 5000 },
  );
});
