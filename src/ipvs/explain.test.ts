import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  ethernetFrame,
  icmpMessage,
  ipv4Packet,
  sctpPacket,
  tcpSegment,
  udpDatagram,
} from '../../test/frames.ts';
import { Protocol } from '../wire/ipv4.ts';
import { Malformed } from '../wire/malformed.ts';
import { Packet } from '../wire/packet.ts';
import { TcpFlag } from '../wire/tcp.ts';
import { addService, type Bench, fillChecksums, makeBench, parsed, readdressed } from './director.fixture.ts';
import { type Director, Verdict } from './director.ts';
import { DROP_NAMES } from './drops.ts';
import type { PacketExplanation } from './explain.ts';
import { explanationText } from './explanation-text.ts';
import { MarkRules, parseMarkRule } from './mark-rules.ts';
import { sequenceOf } from './segments.fixture.ts';

const VIP = '10.0.0.3';
const SCHEDULERS = ['rr', 'wrr', 'lc', 'wlc', 'sed', 'nq', 'fo', 'ovf', 'sh', 'dh', 'mh', 'lblc', 'lblcr'];
const METHODS = ['masq', 'gate', 'tunnel'] as const;

function tcp(
  client: string,
  sourcePort: number,
  destinationPort: number,
  flags: number,
  data = 0,
): Uint8Array {
  const segment = tcpSegment(4, { sourcePort, destinationPort, flags }, new Uint8Array(data));
  return readdressed(ethernetFrame(0x0800, ipv4Packet(Protocol.tcp, segment)), client, VIP);
}

/** Everything that a packet could change, as text. */
function stateOf(director: Director): string {
  const { connections, destinations, pool, drops, settings, defence, ftp, administration } = director;
  const used = connections.highWater * 16;
  const plans: unknown[] = [];
  for (const service of administration.services()) plans.push(service.destinations, service.statistics);
  return JSON.stringify([
    [...connections.words.subarray(0, used)],
    connections.size,
    connections.highWater,
    [...connections.extension.subarray(0, used)],
    [...destinations.bytes.subarray(0, 64 * 64)],
    [...pool.counters.subarray(0, 64 * 5)],
    [...pool.persistent.subarray(0, 64)],
    pool.hops.length,
    [...drops],
    settings,
    [defence.dropRate, defence.wouldDropPacket, defence.entriesDropped],
    [ftp.waiting, ftp.expected, ftp.rewritten],
    plans,
  ]);
}

interface Step {
  kind:
    | 'syn'
    | 'ack'
    | 'fin'
    | 'rst'
    | 'data'
    | 'reply'
    | 'udp'
    | 'sctp'
    | 'icmp'
    | 'wait'
    | 'weight'
    | 'delete'
    | 'add';
  client: number;
  port: number;
  server: number;
  size: number;
  ttl: number;
  dontFragment: boolean;
  routedOn: boolean;
}

/** By how often they come. */
const KINDS = [
  ...['syn', 'syn', 'syn', 'syn', 'syn', 'ack', 'ack', 'ack', 'data', 'fin', 'rst', 'rst'],
  ...['reply', 'reply', 'udp', 'sctp', 'icmp', 'wait', 'weight', 'delete', 'add'],
] as Step['kind'][];

const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom(...KINDS),
  client: fc.nat(1),
  port: fc.constantFrom(80, 80, 80, 80, 80, 80, 80, 81, 21, 5060, 99, 50000),
  server: fc.nat(2),
  size: fc.constantFrom(0, 0, 10, 1460, 1500),
  ttl: fc.constantFrom(64, 64, 64, 1),
  dontFragment: fc.boolean(),
  routedOn: fc.constantFrom(...Array<boolean>(9).fill(false), true),
});

interface Setting {
  scheduler: string;
  method: (typeof METHODS)[number];
  persistence: number;
  onePacket: boolean;
  marked: boolean;
  synProxy: boolean;
  settings: Record<string, number>;
  upperThreshold: number;
  capacity: number;
}

const setting: fc.Arbitrary<Setting> = fc.record({
  scheduler: fc.constantFrom(...SCHEDULERS),
  method: fc.constantFrom(...METHODS),
  persistence: fc.constantFrom(0, 0, 20),
  onePacket: fc.boolean(),
  marked: fc.boolean(),
  synProxy: fc.boolean(),
  settings: fc.record({
    conn_reuse_mode: fc.nat(3),
    expire_nodest_conn: fc.nat(1),
    expire_quiescent_template: fc.nat(1),
    sloppy_tcp: fc.nat(1),
    sloppy_sctp: fc.nat(1),
    nat_icmp_send: fc.nat(1),
    pmtu_disc: fc.nat(1),
    cache_bypass: fc.nat(1),
    drop_packet: fc.constantFrom(0, 0, 3),
    am_droprate: fc.constantFrom(2, 3),
    secure_tcp: fc.constantFrom(0, 3),
  }),
  upperThreshold: fc.constantFrom(0, 0, 2),
  capacity: fc.constantFrom(6, 512),
});

function prepare(chosen: Setting): Bench {
  const { scheduler, method, persistence, onePacket, marked, settings, upperThreshold, capacity } = chosen;
  const isTranslated = method === 'masq';
  const bench = makeBench({ capacity, settings });
  const { administration } = bench.director;
  const keys = [
    addService(bench, 'tcp', 4, 80, { method, upperThreshold }),
    addService(bench, 'tcp', 4, 21, { method: 'masq' }),
    addService(bench, 'udp', 4, 5060, { method: 'masq' }),
    addService(bench, 'sctp', 4, 80, { method }),
  ];
  for (const key of keys) {
    const service = administration.service(key);
    assert.ok(service);
    const isSip = 'port' in key && key.port === 5060;
    administration.editService({
      ...service,
      scheduler,
      persistenceTimeout: isSip ? 20 : persistence,
      persistenceEngine: isSip ? 'sip' : '',
      onePacket: onePacket && isSip,
      synProxy: chosen.synProxy && isTranslated && 'protocol' in key && key.protocol === 'tcp',
    });
  }
  for (const index of [1, 2])
    administration.addDestination(keys[0] as (typeof keys)[number], serverOf(index, chosen));
  if (marked) {
    const service = administration.service(keys[0] as (typeof keys)[number]);
    assert.ok(service);
    administration.addService({ ...service, key: { mark: 7, family: 4 }, scheduler });
    bench.director.marks = new MarkRules([parseMarkRule('tcp port 81 mark 7')]);
  }
  return bench;
}

function serverOf(index: number, { method, upperThreshold }: Pick<Setting, 'method' | 'upperThreshold'>) {
  return {
    address: `10.0.0.${7 + index}`,
    port: 80,
    method,
    weight: 1 + index,
    upperThreshold,
    lowerThreshold: 0,
    tunnelType: 'ipip',
    tunnelPort: 0,
    tunnelChecksum: 'nocsum',
  } as const;
}

/** Of clients. */
const ISN = 1000;

const FLAGS: Partial<Record<Step['kind'], number>> = {
  syn: TcpFlag.syn,
  ack: TcpFlag.ack,
  fin: TcpFlag.fin | TcpFlag.ack,
  rst: TcpFlag.rst,
  data: TcpFlag.ack | TcpFlag.psh,
};

/** @param cookies of the SYN proxy, by client: they are brought back */
function frameOf(step: Step, cookies: ReadonlyMap<number, number>): Uint8Array {
  const client = `192.168.77.${5 + step.client}`;
  const port = 40000 + step.client;
  const data = new Uint8Array(step.size);
  let bytes: Uint8Array;
  switch (step.kind) {
    case 'reply':
      bytes = tcpSegment(
        4,
        {
          sourcePort: step.port,
          destinationPort: port,
          flags: TcpFlag.syn | TcpFlag.ack,
          acknowledgement: ISN + 1,
        },
        data,
      );
      break;
    case 'udp': {
      const text = `INVITE sip:a@b SIP/2.0\r\nCall-ID: ${step.server}@h\r\n\r\n`;
      bytes = udpDatagram(4, new TextEncoder().encode(step.size ? text : 'none'), port, step.port);
      break;
    }
    case 'sctp':
      bytes = sctpPacket(1, new Uint8Array(16));
      break;
    case 'icmp':
      bytes = icmpMessage(4, 3, 3, 0, new Uint8Array(28));
      break;
    default: {
      const flags = FLAGS[step.kind] ?? TcpFlag.syn;
      const numbers = flags & TcpFlag.syn ? { sequence: ISN } : { sequence: ISN + 1 };
      const acknowledgement = (cookies.get(step.client) ?? -1) + 1;
      const fields = { sourcePort: port, destinationPort: step.port, flags, acknowledgement, ...numbers };
      bytes = tcpSegment(4, fields, data);
    }
  }
  const protocol =
    { udp: Protocol.udp, sctp: Protocol.sctp, icmp: Protocol.icmp }[step.kind as string] ?? Protocol.tcp;
  const fragment = step.dontFragment ? 0x4000 : 0;
  const frame = ethernetFrame(0x0800, ipv4Packet(protocol, bytes, { ttl: step.ttl, fragment }));
  return step.kind === 'reply'
    ? readdressed(frame, `10.0.0.${7 + step.server}`, client)
    : readdressed(frame, client, VIP);
}

/** Says what is wrong with a prediction, '' if nothing. */
function compare(
  foretold: PacketExplanation,
  verdict: Verdict,
  dropped: string | undefined,
  sent: readonly Uint8Array[],
): string {
  if (foretold.verdict === undefined) return '';
  const name = verdict === Verdict.taken ? 'taken' : verdict === Verdict.dropped ? 'dropped' : 'pass';
  if (foretold.verdict !== name) return `foretold ${foretold.verdict}, it was ${name} (${dropped ?? ''})`;
  if (foretold.drop !== dropped) return `foretold the drop ${foretold.drop}, it was ${dropped}`;
  if (name !== 'taken') return '';
  const frame = sent[0];
  if (!frame) return 'nothing was sent';
  const mac = [...frame.subarray(0, 6)].map(byte => byte.toString(16).padStart(2, '0')).join(':');
  const { departure } = foretold;
  if (mac !== departure?.destinationMac) return `foretold to ${departure?.destinationMac}, it went to ${mac}`;
  const packet = parsed(frame);
  if (sent.length > 1 !== (departure.outcome === 'sent in fragments'))
    return `${sent.length} frames: ${departure.outcome}`;
  for (const { field, to } of departure.changes) {
    const found: Record<string, string> = {
      'source address': packet.source,
      'destination address': packet.destination,
      'source port': String(packet.sourcePort),
      'destination port': String(packet.destinationPort),
    };
    if (field in found && sent.length === 1 && found[field] !== to)
      return `foretold ${field} ${to}, it was ${found[field]}`;
  }
  return '';
}

test('what is explained happens, and explaining changes nothing', () => {
  let foretold = 0;
  let left = 0;
  const decisions = new Set<string>();
  fc.assert(
    fc.property(setting, fc.array(step, { minLength: 5, maxLength: 60 }), (chosen, steps) => {
      const bench = prepare(chosen);
      const twin = prepare(chosen);
      let now = 1000;
      const packet = new Packet();
      const cookies = new Map<number, number>();
      for (const each of steps) {
        now += 10;
        if (each.kind === 'wait') now += 15_000 * (1 + each.client);
        for (const { director } of [bench, twin]) {
          director.expire(now);
          change(director, each, chosen);
        }
        if (['wait', 'weight', 'delete', 'add'].includes(each.kind)) continue;
        const frame = frameOf(each, cookies);
        assert.equal(packet.load(frame), Malformed.none);
        const before = stateOf(bench.director);
        const explanation = bench.director.explain(packet, 2, now, each.routedOn);
        explanationText(explanation);
        assert.equal(stateOf(bench.director), before, 'explaining changed something');
        assert.deepEqual(packet.copy(), frame);
        const drops = [...bench.director.drops];
        const verdict = bench.director.process(packet, 2, now, each.routedOn);
        const dropped = DROP_NAMES.find((_, index) => bench.director.drops[index] !== drops[index]);
        const sent = bench.network.take();
        for (const answer of sent.map(parsed)) {
          if (answer.tcpFlags !== (TcpFlag.syn | TcpFlag.ack)) continue;
          cookies.set(answer.destinationPort - 40000, sequenceOf(answer));
        }
        const problem = compare(explanation, verdict, dropped, sent);
        assert.equal(problem, '', `${explanationText(explanation)}${JSON.stringify(each)}`);
        decisions.add(explanation.decision);
        if (explanation.ended && explanation.server) decisions.add(`${explanation.ended}, with a server`);
        if (explanation.verdict === undefined) left++;
        else foretold++;
        packet.load(frame);
        assert.equal(twin.director.process(packet, 2, now, each.routedOn), verdict);
        twin.network.take();
        assert.equal(
          stateOf(twin.director),
          stateOf(bench.director),
          'the twin that was not asked goes another way',
        );
      }
    }),
    { numRuns: 150, seed: 20261123 },
  );
  assert.ok(foretold > 10 * left, `${foretold} foretold, ${left} not`);
  for (const decision of [
    'a new connection',
    'a packet of a connection',
    'a reply of a connection',
    'drop_packet',
    'no server',
    'a new one begins on it, with a server',
    'answered with a SYN cookie',
    'no SYN cookie that holds',
    'no segment of a handshake',
    'a new connection, by its SYN cookie',
    'a handshake that the SYN proxy waits for',
  ]) {
    assert.ok(decisions.has(decision), `never came by: ${decision}`);
  }
});

function change(director: Director, { kind, server }: Step, chosen: Setting): void {
  const { administration } = director;
  const key = { protocol: 'tcp', address: VIP, port: 80 } as const;
  const wanted = serverOf(server, chosen);
  const exists = administration.service(key)?.destinations.some(({ address }) => address === wanted.address);
  if (kind === 'add' && !exists) administration.addDestination(key, wanted);
  if (kind === 'delete' && exists) administration.deleteDestination(key, wanted.address, 80);
  if (kind === 'weight' && exists) administration.editDestination(key, { ...wanted, weight: 0 });
}

test('a new connection by wrr: service, arithmetic, server and what is rewritten', () => {
  const bench = makeBench();
  const { director } = bench;
  const key = addService(bench, 'tcp', 4, 80, { method: 'masq', port: 8080, weight: 2 });
  const service = director.administration.service(key);
  assert.ok(service);
  director.administration.editService({ ...service, scheduler: 'wrr' });
  const packet = parsed(tcp('192.168.77.5', 40000, 80, TcpFlag.syn));
  const explanation = director.explain(packet, 2, 1000);
  assert.equal(explanation.decision, 'a new connection');
  assert.deepEqual(explanation.service, { key, matchedBy: 'port' });
  assert.equal(explanation.selection?.kind, 'sequence');
  assert.deepEqual(explanation.departure?.changes, [
    { field: 'destination address', from: VIP, to: '10.0.0.7' },
    { field: 'destination port', from: '80', to: '8080' },
  ]);
  assert.equal(
    explanationText(explanation, () => 'web01'),
    [
      'TCP 192.168.77.5:40000 -> 10.0.0.3:80 [SYN], 40 bytes',
      '  sent on: a new connection',
      '  service tcp 10.0.0.3:80, by its port',
      '  weighted round robin takes web01',
      '    pass of weight 1: web01 (weight 2, 0 active, 0 inactive), the last taken',
      '  to 10.0.0.7:8080: masq, weight 2, 0 active, 0 inactive',
      '  sent by masq',
      '  out of interface 2 to 02:00:00:00:09:07, from 02:00:00:00:00:05',
      '  the way takes 1500 bytes',
      '  TTL 64 -> 63',
      '  destination address 10.0.0.3 -> 10.0.0.7',
      '  destination port 80 -> 8080',
      '',
    ].join('\n'),
  );
});

test('a connection that gives way no longer counts at its server', () => {
  const bench = makeBench();
  const { administration } = bench.director;
  const key = addService(bench, 'tcp', 4, 80, {});
  administration.addDestination(key, { ...serverOf(1, { method: 'gate', upperThreshold: 0 }), weight: 1 });
  const service = administration.service(key);
  assert.ok(service);
  administration.editService({ ...service, scheduler: 'wlc' });
  for (const flags of [TcpFlag.syn, TcpFlag.ack, TcpFlag.rst]) {
    assert.equal(bench.receive(tcp('192.168.77.5', 40000, 80, flags)).verdict, Verdict.taken);
  }
  // The newer server has the connection that ends; without it both have none, and the newer one is taken again.
  const explanation = bench.director.explain(parsed(tcp('192.168.77.5', 40000, 80, TcpFlag.syn)), 2, 1000);
  assert.equal(explanation.ended, 'a new one begins on it');
  assert.equal(explanation.server?.address, '10.0.0.8');
  assert.equal(explanation.server?.inactive, 0);
});

test('what is no business of the virtual server says so', () => {
  const bench = makeBench();
  const packet = parsed(tcp('192.168.77.5', 40000, 80, TcpFlag.syn));
  assert.equal(bench.director.explain(packet, 2, 0).decision, 'no services');
  addService(bench, 'tcp', 4, 81, {});
  assert.equal(bench.director.explain(packet, 2, 0).decision, 'no service');
  fillChecksums(packet);
  assert.equal(
    bench.director.explain(parsed(tcp('192.168.77.5', 40000, 81, TcpFlag.ack)), 2, 0).decision,
    'begins no connection',
  );
  assert.equal(bench.director.explain(packet, 2, 0, true).decision, 'not for this host');
});
