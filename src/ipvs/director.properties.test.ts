/** What holds of the director whatever the configuration and the frames are. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  ethernetFrame,
  extensionHeader,
  ipv4Packet,
  ipv6Packet,
  sampleFrames,
  tcpSegment,
  udpDatagram,
} from '../../test/frames.ts';
import { sumBytes } from '../wire/checksum.ts';
import { EtherType } from '../wire/ethernet.ts';
import { fillIpv4Checksum, Ipv4, Protocol } from '../wire/ipv4.ts';
import { Malformed } from '../wire/malformed.ts';
import { Packet } from '../wire/packet.ts';
import { sctpChecksumIsRight } from '../wire/sctp.ts';
import { TcpFlag, tcpSum } from '../wire/tcp.ts';
import { Udp, udpSum } from '../wire/udp.ts';
import { ConnectionFlag } from './connections.ts';
import { addService, type Bench, makeBench, parsed, readdressed } from './director.fixture.ts';
import { SCHEDULERS } from './schedulers/registry.ts';
import type { DestinationSpecification, ForwardingMethod, ProtocolName } from './specification.ts';

const METHODS: readonly ForwardingMethod[] = ['gate', 'masq', 'tunnel', 'fullnat'];
const PROTOCOLS: readonly ProtocolName[] = ['tcp', 'udp', 'sctp'];

/** A service on the VIP, as it may be drawn. */
interface DrawnService {
  protocol: ProtocolName;
  family: 4 | 6;
  scheduler: string;
  method: ForwardingMethod;
  weights: number[];
  upperThreshold: number;
  persistent: boolean;
  onePacket: boolean;
}

const drawnService: fc.Arbitrary<DrawnService> = fc.record({
  protocol: fc.constantFrom(...PROTOCOLS),
  family: fc.constantFrom(4 as const, 6 as const),
  scheduler: fc.constantFrom(...SCHEDULERS.keys()),
  method: fc.constantFrom(...METHODS),
  weights: fc.array(fc.nat(3), { minLength: 1, maxLength: 4 }),
  upperThreshold: fc.constantFrom(0, 0, 2),
  persistent: fc.boolean(),
  onePacket: fc.boolean(),
});

const vipOf = (family: 4 | 6): string => (family === 4 ? '10.0.0.3' : '2001:db8::3');
const serverOf = (family: 4 | 6, number: number): string =>
  family === 4 ? `10.0.0.${number}` : `2001:db8::${number}`;

function server(drawn: DrawnService, number: number, port: number): DestinationSpecification {
  return {
    address: serverOf(drawn.family, number),
    port: drawn.method === 'masq' || drawn.method === 'fullnat' ? 8080 : port,
    method: drawn.method,
    weight: drawn.weights[number - 11] as number,
    upperThreshold: drawn.upperThreshold,
    lowerThreshold: 0,
    tunnelType: 'ipip',
    tunnelPort: 0,
    tunnelChecksum: 'nocsum',
  };
}

/** Adds a drawn service to the bench, port 80. */
function configure({ director }: Bench, drawn: DrawnService): void {
  const { administration } = director;
  const key = { protocol: drawn.protocol, address: vipOf(drawn.family), port: 80 };
  if (administration.service(key)) return;
  administration.addService({
    key,
    scheduler: drawn.scheduler,
    schedulerFlags: 0,
    persistenceTimeout: drawn.persistent ? 50 : 0,
    persistenceNetmask: drawn.family === 4 ? '255.255.255.255' : '128',
    persistenceEngine: '',
    // FULLNAT refuses it: the answer could not be translated.
    onePacket: drawn.onePacket && drawn.method !== 'fullnat',
  });
  if (drawn.method === 'fullnat') {
    administration.addLocalAddress(key, drawn.family === 4 ? '10.0.0.5' : '2001:db8::5');
  }
  drawn.weights.forEach((_, index) => {
    administration.addDestination(key, server(drawn, 11 + index, 80));
  });
}

/** A client's packet, as it may be drawn. */
const drawnPacket = fc.record({
  family: fc.constantFrom(4 as const, 6 as const),
  protocol: fc.constantFrom('tcp' as const, 'udp' as const),
  client: fc.integer({ min: 1, max: 6 }),
  port: fc.integer({ min: 1, max: 3 }),
  flags: fc.constantFrom(
    TcpFlag.syn,
    TcpFlag.ack,
    TcpFlag.ack | TcpFlag.fin,
    TcpFlag.rst,
    TcpFlag.ack | TcpFlag.psh,
  ),
  data: fc.uint8Array({ maxLength: 40 }),
});

type DrawnPacket = typeof drawnPacket extends fc.Arbitrary<infer Value> ? Value : never;

function clientOf({ family, client }: DrawnPacket): string {
  return family === 4 ? `192.0.2.${client}` : `2001:db8:9::${client}`;
}

function frameOf(drawn: DrawnPacket): Uint8Array {
  const { family, protocol, port, flags, data } = drawn;
  const payload =
    protocol === 'tcp'
      ? tcpSegment(family, { sourcePort: 4000 + port, destinationPort: 80, flags }, data)
      : udpDatagram(family, data, 4000 + port, 80);
  const number = protocol === 'tcp' ? Protocol.tcp : Protocol.udp;
  const packet = family === 4 ? ipv4Packet(number, payload) : ipv6Packet(number, payload);
  const frame = ethernetFrame(family === 4 ? EtherType.ipv4 : EtherType.ipv6, packet);
  return readdressed(frame, clientOf(drawn), vipOf(family));
}

/** Counts of active, inactive and persistent connections a server has, from the table itself. */
function recount({ director }: Bench, destination: number): [number, number, number] {
  const { connections } = director;
  const counts: [number, number, number] = [0, 0, 0];
  for (let slot = 0; slot < connections.highWater; slot++) {
    if (!connections.isUsed(slot) || connections.destination(slot) !== destination) continue;
    const flags = connections.flags(slot);
    if (flags & ConnectionFlag.template) counts[2]++;
    else if (flags & ConnectionFlag.inactive) counts[1]++;
    else counts[0]++;
  }
  return counts;
}

function assertCounts(bench: Bench): void {
  const { destinations, pool } = bench.director;
  for (let index = 0; index < pool.owners.length; index++) {
    if (!pool.owners[index]) continue;
    const kept = [destinations.active(index), destinations.inactive(index), pool.persistent[index]];
    assert.deepEqual(kept, recount(bench, index), `counts of destination ${index}`);
  }
}

type Step =
  | { kind: 'packet'; packet: DrawnPacket }
  | { kind: 'sleep'; seconds: number }
  | { kind: 'weight'; service: number; server: number; weight: number }
  | { kind: 'remove' | 'restore'; service: number; server: number };

const drawnStep: fc.Arbitrary<Step> = fc.oneof(
  { weight: 12, arbitrary: drawnPacket.map(packet => ({ kind: 'packet' as const, packet })) },
  fc.constantFrom(1, 5, 60, 400).map(seconds => ({ kind: 'sleep' as const, seconds })),
  fc.record({
    kind: fc.constant('weight' as const),
    service: fc.nat(2),
    server: fc.nat(3),
    weight: fc.nat(3),
  }),
  fc.record({
    kind: fc.constantFrom('remove' as const, 'restore' as const),
    service: fc.nat(2),
    server: fc.nat(3),
  }),
);

/** Changes one server of one service, if both are there. */
function change({ director }: Bench, services: readonly DrawnService[], step: Step): void {
  if (step.kind === 'packet' || step.kind === 'sleep') return;
  const drawn = services[step.service];
  if (!drawn || step.server >= drawn.weights.length) return;
  const { administration } = director;
  const key = { protocol: drawn.protocol, address: vipOf(drawn.family), port: 80 };
  const wanted = server(drawn, 11 + step.server, 80);
  const there = administration.service(key)?.destinations.find(({ address }) => address === wanted.address);
  if (step.kind === 'restore' && !there) administration.addDestination(key, wanted);
  // Of two services drawn for one key the first was taken: its servers are of its method.
  if (!there || there.method !== drawn.method) return;
  if (step.kind === 'weight') administration.editDestination(key, { ...wanted, weight: step.weight });
  if (step.kind === 'remove') administration.deleteDestination(key, wanted.address, wanted.port);
}

test('counts of active, inactive and persistent connections equal a recount of the table', () => {
  let entered = 0;
  fc.assert(
    fc.property(
      fc.uniqueArray(drawnService, {
        minLength: 1,
        maxLength: 3,
        selector: ({ protocol, family }) => `${protocol}${family}`,
      }),
      fc.array(drawnStep, { maxLength: 120, size: 'max' }),
      (services, steps) => {
        const bench = makeBench({ capacity: 24, random: () => 7 });
        for (const drawn of services) configure(bench, drawn);
        let now = 1000;
        for (const step of steps) {
          if (step.kind === 'packet') bench.receive(frameOf(step.packet), now);
          else if (step.kind === 'sleep') now += step.seconds * 1000;
          else change(bench, services, step);
          bench.director.expire(now);
          assertCounts(bench);
          entered = Math.max(entered, bench.director.connections.size);
        }
        // A day later nothing is left, and nothing is counted.
        bench.director.expire(now + 86_400_000);
        bench.director.expire(now + 2 * 86_400_000);
        assert.equal(bench.director.connections.size, 0);
        assertCounts(bench);
      },
    ),
    { numRuns: 400 },
  );
  assert.ok(entered > 5, `never more than ${entered} connections at a time`);
});

test('what goes through NAT and back is what was sent, but for the TTL', () => {
  fc.assert(
    fc.property(drawnPacket, drawn => {
      const bench = makeBench();
      addService(bench, drawn.protocol, drawn.family, 80, { method: 'masq', port: 8080 });
      const syn = frameOf({ ...drawn, flags: TcpFlag.syn });
      const { sent } = bench.receive(syn);
      assert.equal(sent.length, 1);
      const there = parsed(sent[0]);
      assert.equal(there.destination, serverOf(drawn.family, 7));
      assert.equal(there.destinationPort, 8080);
      assert.equal(there.source, clientOf(drawn));
      // The server answers with the mirror image of what it got: the client must get the mirror image of its own.
      const back = bench.receive(mirrored(sent[0] as Uint8Array));
      assert.equal(back.sent.length, 1);
      assert.deepEqual(withoutTtl(back.sent[0] as Uint8Array), withoutTtl(mirrored(syn)));
    }),
    { numRuns: 500 },
  );
});

/** The frame with source and destination exchanged, addresses and ports; checksums stay right by that. */
function mirrored(frame: Uint8Array): Uint8Array {
  const packet = parsed(frame);
  const { bytes, sourceAt, destinationAt, transport } = packet;
  const length = packet.family === 4 ? 4 : 16;
  const source = bytes.slice(sourceAt, sourceAt + length);
  bytes.copyWithin(sourceAt, destinationAt, destinationAt + length);
  bytes.set(source, destinationAt);
  const port = bytes.slice(transport, transport + 2);
  bytes.copyWithin(transport, transport + 2, transport + 4);
  bytes.set(port, transport + 2);
  return packet.copy();
}

/** The IP packet of a frame without TTL and what depends on it. */
function withoutTtl(frame: Uint8Array): Uint8Array {
  const packet = parsed(frame);
  const bytes = packet.bytes.slice(packet.network, packet.networkEnd);
  if (packet.family === 4) bytes.fill(0, Ipv4.ttl, Ipv4.ttl + 1).fill(0, Ipv4.checksum, Ipv4.checksum + 2);
  else bytes[7] = 0;
  return bytes;
}

test('checksums that were right stay right, by every method', () => {
  let forwarded = 0;
  fc.assert(
    fc.property(
      drawnService,
      fc.array(drawnPacket, { minLength: 1, maxLength: 12, size: 'max' }),
      (drawn, packets) => {
        const bench = makeBench();
        configure(bench, { ...drawn, weights: [1, 2] });
        for (const packet of packets) {
          const { sent } = bench.receive(frameOf({ ...packet, family: drawn.family }));
          for (const frame of sent) {
            forwarded++;
            assertChecksums(frame);
          }
        }
      },
    ),
    { numRuns: 400 },
  );
  assert.ok(forwarded > 150, `only ${forwarded} frames came out`);
});

function assertChecksums(frame: Uint8Array): void {
  const packet = parsed(frame);
  const { view, network, transport, networkEnd } = packet;
  const family = packet.family === 6 ? 6 : 4;
  if (family === 4) assert.equal(sumBytes(view, network, transport - network), 0xffff, 'IP header');
  const length = networkEnd - transport;
  if (packet.protocol === Protocol.tcp)
    assert.equal(tcpSum(view, family, network, transport, length), 0xffff);
  if (packet.protocol === Protocol.udp && view.getUint16(transport + Udp.checksum) !== 0) {
    assert.equal(udpSum(view, family, network, transport, length), 0xffff);
  }
  if (packet.protocol === Protocol.sctp) assert.ok(sctpChecksumIsRight(view, transport, length));
  // A tunnel carries the packet whole.
  if (packet.protocol === Protocol.ipv4 || packet.protocol === Protocol.ipv6) {
    const inner = new Packet();
    inner.bytes.set(packet.bytes.subarray(transport, networkEnd), 256 + 14);
    inner.view.setUint16(256 + 12, packet.protocol === Protocol.ipv4 ? EtherType.ipv4 : EtherType.ipv6);
    assert.equal(inner.parse(256, 14 + length), Malformed.none);
    assertChecksums(inner.copy());
  }
}

test('sequences are proportional to weights', () => {
  fc.assert(
    fc.property(
      fc.constantFrom('rr', 'wrr'),
      fc
        .array(fc.integer({ min: 0, max: 9 }), { minLength: 1, maxLength: 5 })
        .filter(weights => weights.some(Boolean)),
      (scheduler, weights) => {
        const bench = makeBench();
        configure(bench, {
          protocol: 'udp',
          family: 4,
          scheduler,
          method: 'gate',
          weights,
          upperThreshold: 0,
          persistent: false,
          onePacket: false,
        });
        const expected = weights.map(weight => (scheduler === 'rr' ? Math.min(weight, 1) : weight));
        const round = expected.reduce((sum, share) => sum + share, 0);
        const got = weights.map(() => 0);
        for (let count = 0; count < 3 * round; count++) {
          const drawn = {
            family: 4,
            protocol: 'udp',
            client: 1 + (count % 200),
            port: count,
            flags: 0,
            data: new Uint8Array(1),
          } as const;
          const { sent } = bench.receive(frameOf(drawn));
          // The neighbour's MAC ends in the last byte of its address: .11 is the first server.
          const chosen = ((sent[0] as Uint8Array)[5] as number) - 11;
          got[chosen] = (got[chosen] as number) + 1;
        }
        assert.deepEqual(
          got,
          expected.map(share => 3 * share),
        );
      },
    ),
    { numRuns: 300 },
  );
});

test('no frame makes the director throw, whatever is configured', () => {
  const samples = sampleFrames().map(({ frame }) => frame);
  const toVip = samples.flatMap(frame => {
    const packet = new Packet();
    if (packet.load(frame) !== Malformed.none || packet.family === 0) return [frame];
    return [frame, readdressed(frame, packet.source, vipOf(packet.family))];
  });
  const headers = ipv6Packet(60, new Uint8Array([...extensionHeader(Protocol.tcp, 8), ...tcpSegment(6)]));
  toVip.push(readdressed(ethernetFrame(EtherType.ipv6, headers), '2001:db8:9::1', vipOf(6)));
  const spoiled = fc.record({
    frame: fc.nat(toVip.length - 1),
    changes: fc.array(fc.tuple(fc.nat(120), fc.nat(255)), { maxLength: 3 }),
    length: fc.oneof({ weight: 4, arbitrary: fc.constant(undefined) }, fc.nat(120)),
    rightChecksum: fc.boolean(),
  });
  let processed = 0;
  fc.assert(
    fc.property(
      fc.uniqueArray(drawnService, {
        minLength: 1,
        maxLength: 6,
        selector: ({ protocol, family }) => `${protocol}${family}`,
      }),
      fc.array(spoiled, { maxLength: 60, size: 'max' }),
      (services, frames) => {
        const bench = makeBench({
          settings: { schedule_icmp: 1, nat_icmp_send: 1, sloppy_tcp: 1, sloppy_sctp: 1 },
        });
        for (const drawn of services) configure(bench, drawn);
        const packet = new Packet();
        let now = 1000;
        for (const { frame, changes, length, rightChecksum } of frames) {
          const bytes = (toVip[frame] as Uint8Array).slice(0, length);
          for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
          // What the IP checksum gives away at once never reaches the director.
          if (rightChecksum && bytes[14] === 0x45 && bytes.length >= 34) {
            fillIpv4Checksum(new DataView(bytes.buffer), 14);
          }
          now += 10;
          if (packet.load(bytes) !== Malformed.none) continue;
          processed++;
          bench.director.process(packet, 2, now);
          bench.network.take();
        }
        bench.director.expire(now + 1000);
        assertCounts(bench);
        assert.ok(bench.director.connections.size <= bench.director.connections.capacity);
      },
    ),
    { numRuns: 400 },
  );
  assert.ok(processed > 1000, `only ${processed} frames reached the director`);
});

test('a flood of first packets fills the table and no further', () => {
  const bench = makeBench({ capacity: 64 });
  addService(bench, 'tcp', 4, 80, { method: 'gate' });
  const established = { family: 4, protocol: 'tcp', client: 1, port: 1, data: new Uint8Array() } as const;
  for (const flags of [TcpFlag.syn, TcpFlag.ack]) bench.receive(frameOf({ ...established, flags }));
  for (let port = 2; port < 2000; port++) {
    const { sent } = bench.receive(
      frameOf({ ...established, client: 2 + (port % 200), port, flags: TcpFlag.syn }),
    );
    assert.equal(sent.length, 1, 'half-open connections make room for new ones');
  }
  assert.equal(bench.director.connections.size, 64);
  const { sent } = bench.receive(frameOf({ ...established, flags: TcpFlag.ack | TcpFlag.psh }));
  assert.equal(sent.length, 1, 'the established connection was not evicted');
  assertCounts(bench);
});
