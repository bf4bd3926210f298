/**
 * FULLNAT by hand-made segments. The client is 10.0.0.1:40000, the VIP 10.0.0.3:80, the server 10.0.0.7:8080 and the local
 * address 10.0.0.50 (and 2001:db8:: with the same ends). Expected bytes are written out, each with where they come from.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  ethernetFrame,
  icmpMessage,
  ipv4Packet,
  ipv6Packet,
  SYN_OPTIONS,
  tcpSegment,
  udpDatagram,
} from '../../../test/frames.ts';
import type { Family } from '../../wire/address.ts';
import { sumBytes } from '../../wire/checksum.ts';
import { EtherType } from '../../wire/ethernet.ts';
import { Icmp, IcmpType, Icmpv6Type } from '../../wire/icmp.ts';
import { IPV4_DONT_FRAGMENT, Ipv4, Protocol } from '../../wire/ipv4.ts';
import { Packet } from '../../wire/packet.ts';
import { Tcp, type TcpFields, TcpFlag, tcpSum } from '../../wire/tcp.ts';
import { udpSum } from '../../wire/udp.ts';
import { addressOf, addService, type Bench, makeBench, parsed, readdressed } from '../director.fixture.ts';
import { type DirectorOptions, Verdict } from '../director.ts';
import { Drop } from '../drops.ts';
import { acknowledgementOf, checked, dataOf, only, optionsOf, sequenceOf } from '../segments.fixture.ts';
import type { ClientAddress, ServiceKey } from '../specification.ts';
import { FullnatCount } from './fullnat.ts';

const ACK = TcpFlag.ack;
const SYN = TcpFlag.syn;
const BOTH = [4, 6] as const;

const NAMES = {
  4: { client: '10.0.0.1', vip: '10.0.0.3', local: '10.0.0.50', server: '10.0.0.7' },
  6: { client: '2001:db8::1', vip: '2001:db8::3', local: '2001:db8::50', server: '2001:db8::7' },
} as const;

/** The client's sequence numbers wrap a few bytes into its data. */
const CLIENT_ISN = 0xfffffffb;
const SERVER_ISN = 0xfffffffd;

interface Options extends Partial<DirectorOptions> {
  family?: Family;
  clientAddress?: ClientAddress;
  /** Default: one. */
  locals?: readonly string[];
}

interface Lab extends Bench {
  family: Family;
  key: ServiceKey;
}

function lab({ family = 4, clientAddress, locals, ...options }: Options = {}): Lab {
  const bench = makeBench(options);
  const key = addService(bench, 'tcp', family, 80, { method: 'fullnat', port: 8080 });
  const { administration } = bench.director;
  const service = administration.service(key);
  assert.ok(service);
  const { statistics: _, destinations: __, ...specification } = service;
  administration.editService({ ...specification, ...(clientAddress && { clientAddress }) });
  for (const local of locals ?? [NAMES[family].local]) administration.addLocalAddress(key, local);
  return { ...bench, family, key };
}

function framed(family: Family, segment: Uint8Array, fragment = IPV4_DONT_FRAGMENT): Uint8Array {
  return family === 4
    ? ethernetFrame(EtherType.ipv4, ipv4Packet(Protocol.tcp, segment, { fragment }))
    : ethernetFrame(EtherType.ipv6, ipv6Packet(Protocol.tcp, segment));
}

/** Lets a segment of the client arrive. */
function fromClient(each: Lab, fields: Partial<TcpFields>, data = new Uint8Array(), now = 1000): Packet[] {
  const frame = framed(each.family, tcpSegment(each.family, { flags: ACK, ...fields }, data));
  return each.receive(frame, now).sent.map(checked);
}

/** Lets a segment of the server arrive, to where the director's segment came from. */
function fromServer(each: Lab, to: Packet, fields: Partial<TcpFields>, data = new Uint8Array()): Packet[] {
  const ports = { sourcePort: to.destinationPort, destinationPort: to.sourcePort };
  const plain = framed(each.family, tcpSegment(each.family, { ...ports, flags: ACK, ...fields }, data));
  return each.receive(readdressed(plain, to.destination, to.source)).sent.map(checked);
}

function ends(packet: Packet): string[] {
  return [`${packet.source} ${packet.sourcePort}`, `${packet.destination} ${packet.destinationPort}`];
}

const add = (number: number, more: number): number => (number + more) >>> 0;

interface Handshake {
  syn: Packet;
  synAck: Packet;
  /** The client's ACK as it left; with the PROXY protocol it has data. */
  ack: Packet;
  /** What the director adds to the client's sequence numbers. */
  delta: number;
}

function handshake(each: Lab, options: { syn?: Uint8Array; synAck?: Uint8Array } = {}): Handshake {
  const { syn: synOptions = SYN_OPTIONS, synAck: synAckOptions = Uint8Array.of(2, 4, 0x05, 0xb4) } = options;
  const syn = only(fromClient(each, { flags: SYN, sequence: CLIENT_ISN, options: synOptions }));
  const delta = add(sequenceOf(syn), -CLIENT_ISN);
  const synAck = only(
    fromServer(each, syn, {
      flags: SYN | ACK,
      sequence: SERVER_ISN,
      acknowledgement: add(sequenceOf(syn), 1),
      options: synAckOptions,
    }),
  );
  const ack = only(fromClient(each, { sequence: add(CLIENT_ISN, 1), acknowledgement: add(SERVER_ISN, 1) }));
  return { syn, synAck, ack, delta };
}

/** kind, length, client port 40000, client address: 1.1 of the facts. */
const TOA = {
  4: [254, 8, 0x9c, 0x40, 10, 0, 0, 1],
  6: [254, 20, 0x9c, 0x40, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
} as const;

test('both directions: both ends are replaced, TTL and checksums as of any forwarded packet', () => {
  for (const family of BOTH) {
    const each = lab({ family, clientAddress: 'none' });
    const names = NAMES[family];
    const { syn, synAck, ack, delta } = handshake(each);
    const port = syn.sourcePort;
    assert.ok(port >= 5000);
    const there = [`${names.local} ${port}`, `${names.server} 8080`];
    assert.deepEqual(ends(syn), there);
    assert.deepEqual(ends(ack), there);
    assert.deepEqual(ends(synAck), [`${names.vip} 80`, `${names.client} 40000`]);
    const ttl = (packet: Packet): number =>
      packet.view.getUint8(packet.network + (family === 4 ? Ipv4.ttl : 7));
    assert.deepEqual([ttl(syn), ttl(synAck)], [63, 63]);
    assert.notEqual(delta, 0);
    assert.equal(acknowledgementOf(synAck), add(CLIENT_ISN, 1));
    assert.equal(sequenceOf(synAck), SERVER_ISN);
    assert.equal(sequenceOf(ack), add(sequenceOf(syn), 1));
    assert.equal(acknowledgementOf(ack), add(SERVER_ISN, 1));
    assert.deepEqual(optionsOf(ack), []);
    const list = each.director.administration.connections();
    assert.deepEqual(
      list.map(({ client, virtual, destination, state }) => [client, virtual, destination, state]),
      [[names.client, names.vip, names.server, 'ESTABLISHED']],
    );
  }
});

test("a SYN's timestamps and Fast Open become NOPs, its data is cut off, the rest stays", () => {
  const fastOpen = [34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1];
  const options = Uint8Array.from([...SYN_OPTIONS, ...fastOpen]);
  const each = lab();
  const fields = { flags: SYN, sequence: CLIENT_ISN, options };
  const syn = only(fromClient(each, fields, Uint8Array.of(1, 2, 3)));
  // MSS, SACK permitted, ten NOPs for the timestamps, NOP, window scale, ten for Fast Open, two NOPs.
  const nops = new Array<number>(10).fill(1);
  assert.deepEqual(optionsOf(syn), [2, 4, 5, 0xb4, 4, 2, ...nops, 1, 3, 3, 7, ...nops, 1, 1]);
  assert.deepEqual(dataOf(syn), []);
  assert.equal(each.director.fullnat.counts[FullnatCount.synDataCut], 1);
  const again = only(fromClient(each, fields, Uint8Array.of(1, 2, 3)));
  assert.equal(sequenceOf(again), sequenceOf(syn), 'a retransmission is the same SYN');

  const kept = lab({ settings: { fullnat_timestamp_remove_entry: 0 }, clientAddress: 'none' });
  const plain = only(fromClient(kept, fields, Uint8Array.of(1, 2, 3)));
  assert.deepEqual(optionsOf(plain), [...options]);
  assert.deepEqual(dataOf(plain), [1, 2, 3]);
});

test('TOA rides on what acknowledges only the SYN of the server, whatever else it carries', () => {
  for (const family of BOTH) {
    const each = lab({ family });
    const { ack, delta } = handshake(each);
    assert.deepEqual(optionsOf(ack), TOA[family]);
    const data = Uint8Array.of(1, 2, 3, 4, 5, 6, 7);
    const sequence = add(CLIENT_ISN, 1);
    const acknowledgement = add(SERVER_ISN, 1);
    const first = only(fromClient(each, { sequence, acknowledgement }, data));
    assert.deepEqual(optionsOf(first), TOA[family]);
    assert.deepEqual(dataOf(first), [...data]);
    assert.equal(sequenceOf(first), add(sequence, delta));
    const again = only(fromClient(each, { sequence, acknowledgement }, data));
    assert.deepEqual(optionsOf(again), TOA[family], 'retransmitted');
    const fin = { sequence: add(sequence, 7), acknowledgement, flags: TcpFlag.fin | ACK };
    assert.deepEqual(optionsOf(only(fromClient(each, fin))), TOA[family]);
    const reset = { sequence: add(sequence, 7), acknowledgement, flags: TcpFlag.rst | ACK };
    assert.deepEqual(optionsOf(only(fromClient(each, reset))), []);
    const later = { sequence: add(sequence, 7), acknowledgement: add(SERVER_ISN, 2) };
    assert.deepEqual(optionsOf(only(fromClient(each, later, data))), []);
    assert.equal(each.director.fullnat.counts[FullnatCount.toaInserted], 4);
  }
});

test('the kind of TOA is configurable by family, and TOA may be off as a whole', () => {
  const kinds = { toa_kind: 252, toa_kind_v6: 253 };
  for (const family of BOTH) {
    const { ack } = handshake(lab({ family, settings: kinds }));
    assert.deepEqual(optionsOf(ack), [family === 4 ? 252 : 253, ...TOA[family].slice(1)]);
    const off = handshake(lab({ family, settings: { fullnat_toa_entry: 0 } }));
    assert.deepEqual(optionsOf(off.ack), []);
    assert.deepEqual(optionsOf(off.synAck), [2, 4, 0x05, 0xb4], 'nor is the segment size lowered');
  }
});

test('the segment size of the SYN of the server is lowered by what TOA takes', () => {
  const lowered = (
    family: Family,
    clientAddress: ClientAddress,
    synAck: readonly number[],
    settings = {},
  ): number[] =>
    optionsOf(
      handshake(lab({ family, clientAddress, settings }), { synAck: Uint8Array.from(synAck) }).synAck,
    );
  // 1460 - 8 = 1452, 1460 - 20 = 1440.
  assert.deepEqual(lowered(4, 'toa', [2, 4, 0x05, 0xb4]), [2, 4, 0x05, 0xac]);
  assert.deepEqual(lowered(6, 'toa', [2, 4, 0x05, 0xb4]), [2, 4, 0x05, 0xa0]);
  assert.deepEqual(
    lowered(4, 'toa', [1, 2, 4, 0x05, 0xb4, 4, 2, 0]),
    [1, 2, 4, 0x05, 0xac, 4, 2, 0],
    'odd offset',
  );
  for (const other of ['none', 'proxy-v1', 'proxy-v2'] as const) {
    assert.deepEqual(lowered(4, other, [2, 4, 0x05, 0xb4]), [2, 4, 0x05, 0xb4]);
  }
  assert.deepEqual(
    lowered(4, 'toa', [2, 4, 0x05, 0xb4], { fullnat_mss_adjust_entry: 0 }),
    [2, 4, 0x05, 0xb4],
  );
  assert.deepEqual(lowered(4, 'toa', [2, 4, 0, 8]), [2, 4, 0, 8], 'nothing would be left');
  assert.deepEqual(lowered(4, 'toa', [4, 2, 1, 1]), [4, 2, 1, 1]);
});

/** Options of a client's segment with data behind the handshake, and what became of them. */
function optionsAfter(
  options: readonly number[],
  { family = 4, clientAddress = 'toa', size = 4, mtu = 1500 }: Options & { size?: number; mtu?: number } = {},
): { options: number[]; counts: Record<string, number>; data: number[]; each: Lab } {
  const each = lab({ family, clientAddress });
  handshake(each);
  each.network.mtu = mtu;
  each.director.resolveNextHops();
  each.director.fullnat.counts.fill(0);
  const data = Uint8Array.from({ length: size }, (_, index) => index & 0xff);
  const sent = fromClient(
    each,
    { sequence: add(CLIENT_ISN, 1), acknowledgement: add(SERVER_ISN, 1), options: Uint8Array.from(options) },
    data,
  );
  const { counts } = each.director.fullnat;
  const packet = only(sent);
  assert.deepEqual(dataOf(packet), [...data]);
  return {
    options: optionsOf(packet),
    counts: Object.fromEntries(
      Object.entries(FullnatCount).flatMap(([name, index]) => (counts[index] ? [[name, counts[index]]] : [])),
    ),
    data: dataOf(packet),
    each,
  };
}

const TIMESTAMPS = [8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
/** Three blocks of 1..24, which with NOPs and timestamps fill all 40 bytes. */
const SACK3 = [5, 26, ...Array.from({ length: 24 }, (_, index) => index + 1)];

test('a TOA that a client sends itself is overwritten wherever it stands', () => {
  const forged = [254, 8, 0, 80, 192, 168, 0, 1];
  assert.deepEqual(optionsAfter(forged).options, [...TOA[4], ...new Array(8).fill(1)]);
  assert.deepEqual(optionsAfter(forged).counts, { toaInserted: 1, toaForged: 1 });
  const none = optionsAfter([1, ...forged, 1, 1, 1], { clientAddress: 'none' });
  assert.deepEqual([none.options, none.counts], [new Array(12).fill(1), { toaForged: 1 }]);
  const v6 = [253, 20, ...new Array<number>(18).fill(9)];
  assert.deepEqual(optionsAfter(v6, { family: 6, clientAddress: 'none' }).options, new Array(20).fill(1));
  // Behind the option list's end, or one that runs out of the header, no receiver looks.
  assert.deepEqual(optionsAfter([0, 0, 0, 0, ...forged], { clientAddress: 'none' }).counts, {});
  assert.deepEqual(optionsAfter([5, 30, 0, 0, ...forged], { clientAddress: 'none' }).counts, {});
  const syn = lab({ clientAddress: 'none' });
  const sent = only(fromClient(syn, { flags: SYN, sequence: 1, options: Uint8Array.from(forged) }));
  assert.deepEqual(optionsOf(sent), new Array(8).fill(1));
});

test('where options leave no room: NOPs go, then all but timestamps, else it leaves without TOA', () => {
  // Beside 38 bytes of options and two NOPs: SACK is expendable, timestamps stay. 12 = 10 padded.
  const full = optionsAfter([1, 1, ...TIMESTAMPS, 1, 1, ...SACK3]);
  assert.deepEqual(full.options, [...TOA[4], ...TIMESTAMPS, 0, 0]);
  assert.deepEqual(full.counts, { toaInserted: 1 });
  // 18 bytes of SACK behind 22 NOPs: 8 + 18, padded to 28.
  const sack2 = [5, 18, ...Array.from({ length: 16 }, (_, index) => index + 1)];
  const nops = optionsAfter([...new Array<number>(22).fill(1), ...sack2]);
  assert.deepEqual(nops.options, [...TOA[4], ...sack2, 0, 0]);
  // 35 bytes of timestamps, one option after another, do not go with 8 of TOA.
  const many = [...TIMESTAMPS, ...TIMESTAMPS, ...TIMESTAMPS, ...TIMESTAMPS];
  const refused = optionsAfter(many);
  assert.deepEqual([refused.options, refused.counts], [many, { toaNoOptionSpace: 1 }]);
});

test('where the way leaves no room the segment goes without TOA, or without what it can spare', () => {
  for (const family of BOTH) {
    const headers = family === 4 ? 40 : 60;
    const toa = TOA[family].length;
    const fits = optionsAfter([], { family, size: 1500 - headers - toa });
    assert.deepEqual([fits.options, fits.counts], [[...TOA[family]], { toaInserted: 1 }]);
    const tight = optionsAfter([], { family, size: 1500 - headers - toa + 1 });
    assert.deepEqual([tight.options, tight.counts], [[], { toaTooBig: 1 }]);
  }
  // Eight bytes short by options that can go: twelve with their padding.
  const spared = optionsAfter([1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2], { size: 1500 - 40 - 12 });
  assert.deepEqual([spared.options, spared.counts], [[...TOA[4]], { toaInserted: 1 }]);
  assert.deepEqual(optionsAfter(TIMESTAMPS.concat(1, 1), { size: 1500 - 40 - 12 }).counts, { toaTooBig: 1 });
});

test('a frame without room in front of it goes without TOA', () => {
  const each = lab();
  handshake(each);
  const frame = framed(
    4,
    tcpSegment(4, { flags: ACK, sequence: add(CLIENT_ISN, 1), acknowledgement: add(SERVER_ISN, 1) }),
  );
  const packet = new Packet(frame.length);
  packet.bytes.set(frame);
  assert.equal(packet.parse(0, frame.length), 0);
  assert.equal(each.director.process(packet, 2, 1000), Verdict.taken);
  assert.deepEqual(optionsOf(checked(each.network.take()[0] as Uint8Array)), []);
  assert.equal(each.director.fullnat.counts[FullnatCount.toaNoHeadroom], 1);
});

test('acknowledgements and SACK blocks of the server are translated, also across the wrap and at odd offsets', () => {
  for (const lead of [[1, 1], [1], [1, 1, 1], []]) {
    const each = lab({ clientAddress: 'none' });
    const { syn, delta } = handshake(each);
    const edges = [20, 30, 40, 2 ** 31, 0xfffffff0, 5].map(offset => add(CLIENT_ISN, offset));
    const option = (values: readonly number[]): number[] => {
      const bytes = new Uint8Array(2 + 4 * values.length);
      bytes.set([5, bytes.length]);
      for (const [index, value] of values.entries())
        new DataView(bytes.buffer).setUint32(2 + 4 * index, value);
      const all = [...lead, ...bytes];
      while (all.length % 4) all.push(0);
      return all;
    };
    const reply = only(
      fromServer(each, syn, {
        sequence: add(SERVER_ISN, 1),
        acknowledgement: add(CLIENT_ISN, 11 + delta),
        options: Uint8Array.from(option(edges.map(edge => add(edge, delta)))),
      }),
    );
    assert.equal(acknowledgementOf(reply), add(CLIENT_ISN, 11));
    assert.deepEqual(optionsOf(reply), option(edges));
  }
});

test('a wrong checksum stays wrong, in both directions', () => {
  const each = lab({ clientAddress: 'proxy-v1' });
  const { syn } = handshake(each);
  const spoil = (frame: Uint8Array): Uint8Array => {
    const packet = parsed(frame);
    const at = packet.transport + Tcp.checksum;
    packet.view.setUint16(at, packet.view.getUint16(at) ^ 0x0101);
    return packet.copy();
  };
  const isRight = (frame: Uint8Array | undefined): boolean => {
    const { view, network, transport, networkEnd } = parsed(frame);
    return tcpSum(view, 4, network, transport, networkEnd - transport) === 0xffff;
  };
  const fields = { flags: ACK, sequence: add(CLIENT_ISN, 1), acknowledgement: add(SERVER_ISN, 1) };
  const segment = framed(4, tcpSegment(4, fields, Uint8Array.of(1, 2, 3)));
  assert.equal(isRight(each.receive(segment).sent[0]), true);
  assert.equal(isRight(each.receive(spoil(segment)).sent[0]), false);
  const ports = { sourcePort: 8080, destinationPort: syn.sourcePort };
  const plain = framed(4, tcpSegment(4, { ...ports, flags: ACK }, Uint8Array.of(1)));
  const reply = readdressed(plain, NAMES[4].server, NAMES[4].local);
  assert.equal(isRight(each.receive(reply).sent[0]), true);
  assert.equal(isRight(each.receive(spoil(reply)).sent[0]), false);
});

/** What the header must be, written out from sections 2.1 and 2.2 of its specification. */
const HEADERS = {
  4: {
    'proxy-v1': [...new TextEncoder().encode('PROXY TCP4 10.0.0.1 10.0.0.3 40000 80\r\n')],
    'proxy-v2': [
      ...[0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x21, 0x11, 0, 12],
      ...[10, 0, 0, 1, 10, 0, 0, 3, 0x9c, 0x40, 0, 80],
    ],
  },
  6: {
    'proxy-v1': [...new TextEncoder().encode('PROXY TCP6 2001:db8::1 2001:db8::3 40000 80\r\n')],
    'proxy-v2': [
      ...[0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x21, 0x21, 0, 36],
      ...[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
      ...[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3],
      ...[0x9c, 0x40, 0, 80],
    ],
  },
} as const;

test('the PROXY header stands in front of the first byte until the server has acknowledged it', () => {
  for (const family of BOTH) {
    for (const clientAddress of ['proxy-v1', 'proxy-v2'] as const) {
      const header = HEADERS[family][clientAddress];
      const each = lab({ family, clientAddress });
      const { syn, ack, delta } = handshake(each);
      const first = add(CLIENT_ISN, 1);
      const acknowledgement = add(SERVER_ISN, 1);
      assert.deepEqual(dataOf(ack), header, 'with the ACK of the handshake');
      assert.equal(sequenceOf(ack), add(first, delta));
      const data = Uint8Array.of(1, 2, 3, 4, 5, 6, 7);
      for (let round = 0; round < 2; round++) {
        const sent = only(fromClient(each, { sequence: first, acknowledgement }, data));
        assert.deepEqual(dataOf(sent), [...header, ...data]);
        assert.equal(sequenceOf(sent), add(first, delta));
        assert.equal(optionsOf(sent).length, 0);
      }
      const next = only(fromClient(each, { sequence: add(first, 7), acknowledgement }, data));
      assert.deepEqual(dataOf(next), [...data]);
      assert.equal(sequenceOf(next), add(first, 7 + delta + header.length));
      // A probe one below what was sent (RFC 9293 3.8.4) stays old.
      const probe = only(fromClient(each, { sequence: CLIENT_ISN, acknowledgement }, Uint8Array.of(0)));
      assert.deepEqual([sequenceOf(probe), dataOf(probe)], [add(CLIENT_ISN, delta), [0]]);

      const acknowledged = (number: number): number =>
        acknowledgementOf(
          only(fromServer(each, syn, { sequence: acknowledgement, acknowledgement: number })),
        );
      const base = add(first, delta);
      assert.equal(acknowledged(base), first);
      assert.equal(acknowledged(add(base, 5)), first, 'a part of the header is nothing of the client');
      assert.deepEqual(dataOf(only(fromClient(each, { sequence: first, acknowledgement }))), header);
      assert.equal(acknowledged(add(base, header.length)), first);
      assert.equal(acknowledged(add(base, header.length + 7)), add(first, 7));
      const late = only(fromClient(each, { sequence: first, acknowledgement }, data));
      assert.deepEqual([dataOf(late), sequenceOf(late)], [[...data], add(base, header.length)]);
      const keepAlive = only(fromClient(each, { sequence: add(first, 6), acknowledgement }));
      assert.equal(sequenceOf(keepAlive), add(base, header.length + 6));
    }
  }
});

test('SACK blocks that reach into the PROXY header show the client only its own bytes', () => {
  const each = lab({ clientAddress: 'proxy-v2' });
  const { syn, delta } = handshake(each);
  const first = add(CLIENT_ISN, 1);
  const base = add(first, delta);
  const sack = (left: number, right: number): Uint8Array => {
    const bytes = Uint8Array.of(1, 1, 5, 10, 0, 0, 0, 0, 0, 0, 0, 0);
    new DataView(bytes.buffer).setUint32(4, left);
    new DataView(bytes.buffer).setUint32(8, right);
    return bytes;
  };
  const blocks = (acknowledgement: number, left: number, right: number): number[] => {
    const options = sack(add(base, left), add(base, right));
    const fields = { acknowledgement: add(base, acknowledgement), options };
    return optionsOf(only(fromServer(each, syn, fields)));
  };
  // The header takes 28 bytes.
  assert.deepEqual(blocks(0, 38, 48), [...sack(add(first, 10), add(first, 20))]);
  assert.deepEqual(blocks(0, 4, 38), [...sack(first, add(first, 10))]);
  assert.deepEqual(blocks(28, 38, 48), [...sack(add(first, 10), add(first, 20))]);
});

test('the PROXY header follows the SYN that the server has accepted', () => {
  const each = lab({ clientAddress: 'proxy-v1' });
  const syn = only(fromClient(each, { flags: SYN, sequence: 1000 }));
  const delta = add(sequenceOf(syn), -1000);
  // The client starts anew before the server has answered.
  const restarted = only(fromClient(each, { flags: SYN, sequence: 70_000 }));
  assert.equal(sequenceOf(restarted), add(70_000, delta));
  const accepted = { flags: SYN | ACK, sequence: SERVER_ISN, acknowledgement: add(70_001, delta) };
  assert.equal(acknowledgementOf(only(fromServer(each, syn, accepted))), 70_001);
  const first = only(fromClient(each, { sequence: 70_001, acknowledgement: 1 }, Uint8Array.of(9)));
  assert.deepEqual(dataOf(first), [...HEADERS[4]['proxy-v1'], 9]);
  const reset = only(fromClient(each, { sequence: 70_001, flags: TcpFlag.rst }));
  assert.deepEqual([dataOf(reset), sequenceOf(reset)], [[], add(70_001, delta)], 'a reset carries no header');
});

test('more than 2^31 bytes behind the PROXY header, numbers still add up', () => {
  const each = lab({ clientAddress: 'proxy-v1' });
  const { syn, delta } = handshake(each);
  const length = HEADERS[4]['proxy-v1'].length;
  const first = add(CLIENT_ISN, 1);
  fromServer(each, syn, { acknowledgement: add(first, delta + length) });
  for (const offset of [1, 2 ** 31 - 1, 2 ** 31, 2 ** 31 + 5, 2 ** 32 - 1]) {
    const sequence = add(first, offset);
    const sent = only(fromClient(each, { sequence, acknowledgement: 1 }, Uint8Array.of(1)));
    assert.deepEqual([sequenceOf(sent), dataOf(sent)], [add(sequence, delta + length), [1]]);
    const reply = only(fromServer(each, syn, { acknowledgement: add(sequence, delta + length) }));
    assert.equal(acknowledgementOf(reply), sequence);
  }
});

test('where header and data do not fit one packet, the header goes first in its own', () => {
  for (const family of BOTH) {
    const header = HEADERS[family]['proxy-v1'];
    const each = lab({ family, clientAddress: 'proxy-v1' });
    const { delta } = handshake(each);
    const sequence = add(CLIENT_ISN, 1);
    const data = new Uint8Array(family === 4 ? 1448 : 1428).fill(7);
    const options = Uint8Array.of(1, 1, ...TIMESTAMPS);
    const flags = ACK | TcpFlag.psh | TcpFlag.fin;
    const fields = { sequence, acknowledgement: add(SERVER_ISN, 1), options, flags };
    const sent = fromClient(each, fields, data);
    assert.equal(sent.length, 2);
    const [before, behind] = sent as [Packet, Packet];
    assert.deepEqual(dataOf(before), header);
    assert.deepEqual(dataOf(behind), [...data]);
    assert.equal(sequenceOf(before), add(sequence, delta));
    assert.equal(sequenceOf(behind), add(sequence, delta + header.length));
    assert.deepEqual(ends(before), ends(behind));
    assert.deepEqual(optionsOf(before), [...options]);
    assert.deepEqual([before.tcpFlags, behind.tcpFlags], [ACK | TcpFlag.psh, flags]);
    assert.equal(acknowledgementOf(before), acknowledgementOf(behind));
    assert.deepEqual(
      before.bytes.subarray(before.start, before.start + 12),
      behind.bytes.subarray(behind.start, behind.start + 12),
      'the same way',
    );
    assert.equal(each.director.fullnat.counts[FullnatCount.proxySeparate], 1);
  }
});

test('the urgent pointer keeps its place behind the PROXY header', () => {
  const urgentOf = (packet: Packet): number => packet.view.getUint16(packet.transport + Tcp.urgent);
  const sentFor = (size: number): Packet[] => {
    const each = lab({ clientAddress: 'proxy-v1' });
    handshake(each);
    const fields = { flags: ACK | TcpFlag.urg, sequence: add(CLIENT_ISN, 1) };
    const packet = parsed(framed(4, tcpSegment(4, fields, new Uint8Array(size))));
    packet.view.setUint16(packet.transport + Tcp.urgent, 1);
    return each.receive(readdressed(packet.copy(), NAMES[4].client, NAMES[4].vip)).sent.map(checked);
  };
  assert.deepEqual(sentFor(2).map(urgentOf), [1 + HEADERS[4]['proxy-v1'].length]);
  assert.deepEqual(sentFor(1460).map(urgentOf), [0, 1], 'in segments of their own');
});

test("a server's reset without ACK, and its refusal of a SYN, reach the client", () => {
  const each = lab();
  const syn = only(fromClient(each, { flags: SYN, sequence: CLIENT_ISN }));
  const refusal = { flags: TcpFlag.rst | ACK, sequence: 0, acknowledgement: add(sequenceOf(syn), 1) };
  const refused = only(fromServer(each, syn, refusal));
  assert.deepEqual([acknowledgementOf(refused), refused.tcpFlags], [add(CLIENT_ISN, 1), TcpFlag.rst | ACK]);
  const bare = only(fromServer(each, syn, { flags: TcpFlag.rst, sequence: 77, acknowledgement: 0 }));
  assert.deepEqual([sequenceOf(bare), acknowledgementOf(bare)], [77, 0]);
});

test('the initial sequence number grows with time, differs by port, and may wrap within the connection', () => {
  const isn = (now: number, round = 0): number => {
    const each = lab({ random: () => 0x12345678 });
    for (let index = 0; index < round; index++)
      fromClient(each, { flags: SYN, sourcePort: 1000 + index }, undefined, now);
    return sequenceOf(only(fromClient(each, { flags: SYN, sequence: CLIENT_ISN }, undefined, now)));
  };
  // One in 64 ns: 15,625 a millisecond.
  assert.equal(add(isn(1001), -isn(1000)), 15_625);
  assert.equal(add(isn(1_000_000_000_000), -isn(999_999_999_999)), 15_625);
  assert.notEqual(isn(1000, 1), isn(1000));
  const untilWrap = add(0, -isn(1000)) - 3;
  const each = lab({ random: () => 0x12345678 });
  const now = 1000 + untilWrap / 15_625;
  const syn = only(fromClient(each, { flags: SYN, sequence: 5 }, undefined, now));
  assert.ok(sequenceOf(syn) >= 0xfffffff8, `${sequenceOf(syn)}`);
  const data = only(fromClient(each, { sequence: 25, acknowledgement: 1 }, Uint8Array.of(1), now));
  assert.equal(sequenceOf(data), add(sequenceOf(syn), 20));
  const reply = only(fromServer(each, syn, { acknowledgement: add(sequenceOf(syn), 21) }));
  assert.equal(acknowledgementOf(reply), 26);
});

test('without a local address, and without a port, connections are refused under a name', () => {
  const none = lab({ locals: [] });
  assert.deepEqual(fromClient(none, { flags: SYN }), []);
  assert.equal(none.director.drops[Drop.noLocalAddress], 1);
  assert.equal(none.director.connections.size, 0);

  const few = lab({ settings: { fullnat_lport_min: 65533, fullnat_lport_max: 65535 } });
  const ports = new Set<number>();
  for (let client = 1; client <= 5; client++) {
    for (const sent of fromClient(few, { flags: SYN, sourcePort: 1000 + client })) ports.add(sent.sourcePort);
  }
  assert.deepEqual([...ports].toSorted(), [65533, 65534, 65535]);
  assert.equal(few.director.drops[Drop.noLocalPort], 2);
  assert.equal(few.director.connections.size, 3);
  const use = few.director.administration.service(few.key)?.localAddressUse;
  assert.deepEqual(use, [{ address: NAMES[4].local, interfaceName: '', connections: 3, refused: 2 }]);
});

test('UDP: both ends are replaced both ways, nothing is told', () => {
  for (const family of BOTH) {
    const bench = makeBench();
    const key = addService(bench, 'udp', family, 53, { method: 'fullnat', port: 5353 });
    const names = NAMES[family];
    bench.director.administration.addLocalAddress(key, names.local);
    const data = Uint8Array.of(1, 2, 3);
    const datagram = udpDatagram(family, data);
    const frame =
      family === 4
        ? ethernetFrame(EtherType.ipv4, ipv4Packet(Protocol.udp, datagram))
        : ethernetFrame(EtherType.ipv6, ipv6Packet(Protocol.udp, datagram));
    const isRight = ({ view, network, transport, networkEnd }: Packet): boolean =>
      udpSum(view, family, network, transport, networkEnd - transport) === 0xffff;
    const there = parsed(bench.receive(frame).sent[0]);
    assert.deepEqual(ends(there), [`${names.local} ${there.sourcePort}`, `${names.server} 5353`]);
    assert.ok(isRight(there));
    const answer = parsed(frame);
    answer.view.setUint16(answer.transport, 5353);
    answer.view.setUint16(answer.transport + 2, there.sourcePort);
    const back = parsed(bench.receive(readdressed(answer.copy(), names.server, names.local)).sent[0]);
    assert.deepEqual(ends(back), [`${names.vip} 53`, `${names.client} 40000`]);
    assert.ok(isRight(back));
    assert.deepEqual([...back.bytes.subarray(back.transport + 8, back.networkEnd)], [...data]);
  }
});

/** An ICMP error about a packet, to its sender or another. */
function errorAbout(
  family: Family,
  about: Packet,
  from: string,
  to: string,
  type: number,
  code: number,
  rest = 0,
) {
  const quote = about.bytes.slice(about.network, Math.min(about.networkEnd, about.transport + 20));
  const message = icmpMessage(family, type, code, rest, quote);
  const frame =
    family === 4
      ? ethernetFrame(EtherType.ipv4, ipv4Packet(Protocol.icmp, message))
      : ethernetFrame(EtherType.ipv6, ipv6Packet(Protocol.icmpv6, message));
  return readdressed(frame, from, to);
}

/** The quoted segment of an error. */
function quoteOf(packet: Packet): { ends: string[]; sequence: number; rest: number } {
  const inner = new Packet(packet.bytes.buffer);
  const at = packet.transport + 8;
  // The quote is cut off: only its addresses, ports and sequence number are looked at.
  inner.parseNetwork(at, packet.networkEnd - at);
  const family = packet.family === 6 ? 6 : 4;
  inner.network = at;
  inner.family = family;
  inner.transport = at + (family === 4 ? 20 : 40);
  const port = (offset: number): number => packet.view.getUint16(inner.transport + offset);
  if (family === 4) {
    assert.equal(sumBytes(packet.view, at, 20), 0xffff, 'checksum of the quoted header');
  }
  return {
    ends: [`${inner.source} ${port(0)}`, `${inner.destination} ${port(2)}`],
    sequence: packet.view.getUint32(inner.transport + Tcp.sequence),
    rest: packet.view.getUint32(packet.transport + Icmp.rest),
  };
}

test('ICMP errors about requests: the client gets its own packet back, from the VIP, with a size that leaves room', () => {
  for (const family of BOTH) {
    const names = NAMES[family];
    const each = lab({ family });
    const { ack } = handshake(each);
    const router = family === 4 ? '10.0.0.9' : '2001:db8::9';
    const type = family === 4 ? IcmpType.unreachable : Icmpv6Type.packetTooBig;
    const frame = errorAbout(family, ack, router, names.local, type, family === 4 ? 4 : 0, 1400);
    const { sent, verdict } = each.receive(frame);
    assert.equal(verdict, Verdict.taken);
    const packet = parsed(sent[0]);
    assert.deepEqual([packet.source, packet.destination], [names.vip, names.client]);
    const quote = quoteOf(packet);
    assert.deepEqual(quote.ends, [`${names.client} 40000`, `${names.vip} 80`]);
    assert.equal(quote.sequence, add(CLIENT_ISN, 1));
    assert.equal(quote.rest, 1400 - TOA[family].length);
    assert.deepEqual(
      packet.copy(),
      readdressed(packet.copy(), packet.source, packet.destination),
      'checksums are right',
    );
  }
});

test('ICMP errors about replies: the server gets its own packet back, from the local address', () => {
  for (const family of BOTH) {
    const names = NAMES[family];
    const each = lab({ family });
    const { syn, synAck } = handshake(each);
    const type = family === 4 ? IcmpType.unreachable : Icmpv6Type.unreachable;
    const code = family === 4 ? 3 : 4;
    const router = family === 4 ? '10.0.0.9' : '2001:db8::9';
    const frame = errorAbout(family, synAck, router, names.vip, type, code);
    const { sent, verdict } = each.receive(frame);
    assert.equal(verdict, Verdict.taken);
    const packet = parsed(sent[0]);
    assert.deepEqual([packet.source, packet.destination], [names.local, names.server]);
    assert.deepEqual(quoteOf(packet).ends, [`${names.server} 8080`, `${names.local} ${syn.sourcePort}`]);
    assert.equal(quoteOf(packet).sequence, SERVER_ISN);
    assert.deepEqual(packet.copy(), readdressed(packet.copy(), packet.source, packet.destination));
  }
});

test('TTL and size: the errors quote what the sender sent', () => {
  const each = lab();
  const { syn } = handshake(each);
  const fields = { flags: ACK, sequence: add(CLIENT_ISN, 1), acknowledgement: add(SERVER_ISN, 1) };
  const big = framed(4, tcpSegment(4, fields, new Uint8Array(1600)));
  const { sent, verdict } = each.receive(big);
  assert.equal(verdict, Verdict.dropped);
  assert.equal(each.director.drops[Drop.tooBig], 1);
  assert.deepEqual(quoteOf(parsed(sent[0])).ends, ['10.0.0.1 40000', '10.0.0.3 80']);
  const ports = { sourcePort: 8080, destinationPort: syn.sourcePort, flags: ACK };
  const dying = parsed(
    ethernetFrame(EtherType.ipv4, ipv4Packet(Protocol.tcp, tcpSegment(4, ports), { ttl: 1 })),
  );
  const expired = each.receive(readdressed(dying.copy(), NAMES[4].server, NAMES[4].local));
  assert.equal(expired.verdict, Verdict.dropped);
  const error = parsed(expired.sent[0]);
  assert.equal(error.destination, NAMES[4].server);
  assert.equal(error.view.getUint8(error.transport), IcmpType.timeExceeded);
  assert.deepEqual(quoteOf(error).ends, ['10.0.0.7 8080', `10.0.0.50 ${syn.sourcePort}`]);
});

test('whatever the segments: checksums are right, data and numbers come out as they went in', () => {
  const options = fc.array(
    fc.oneof(
      fc.constant([1]),
      fc.constant(TIMESTAMPS),
      fc.constant([254, 8, 0, 1, 2, 3, 4, 5]),
      fc.constant([5, 10, 0, 0, 0, 9, 255, 0, 0, 7]),
      fc.constant([30, 3, 9]),
      fc.constant([253, 20, ...new Array<number>(18).fill(8)]),
      fc.constant([2, 1]),
    ),
    { maxLength: 6 },
  );
  fc.assert(
    fc.property(
      fc.constantFrom<Family>(4, 6),
      fc.constantFrom<ClientAddress>('none', 'toa', 'proxy-v1', 'proxy-v2'),
      fc.array(
        fc.record({
          fromServer: fc.boolean(),
          offset: fc.integer({ min: -2, max: 40 }),
          acknowledged: fc.integer({ min: 0, max: 80 }),
          flags: fc.constantFrom(
            ACK,
            ACK | TcpFlag.psh,
            ACK | TcpFlag.fin,
            TcpFlag.rst,
            ACK | SYN,
            SYN,
            ACK | TcpFlag.urg,
          ),
          options,
          data: fc.uint8Array({ maxLength: 20 }),
        }),
        { maxLength: 20 },
      ),
      (family, clientAddress, segments) => {
        const each = lab({ family, clientAddress });
        const { syn, delta } = handshake(each);
        for (const { fromServer: back, offset, acknowledged, flags, options: parts, data } of segments) {
          const list = parts.flat().slice(0, 40);
          while (list.length % 4) list.push(0);
          const raw = { flags, options: Uint8Array.from(list) };
          if (back) {
            const fields = {
              ...raw,
              sequence: add(SERVER_ISN, offset),
              acknowledgement: add(CLIENT_ISN, delta + acknowledged),
            };
            for (const sent of fromServer(each, syn, fields, data)) {
              assert.deepEqual(dataOf(sent), [...data]);
              assert.equal(sequenceOf(sent), add(SERVER_ISN, offset));
            }
          } else {
            const fields = { ...raw, sequence: add(CLIENT_ISN, offset), acknowledgement: add(SERVER_ISN, 1) };
            const sent = fromClient(each, fields, data).at(-1);
            if (!sent) continue;
            if ((flags & SYN) === 0)
              assert.deepEqual(dataOf(sent).slice(dataOf(sent).length - data.length), [...data]);
          }
        }
      },
    ),
    { numRuns: 400 },
  );
});

test('established connections are translated without allocating', () => {
  const hop = {
    interfaceIndex: 2,
    sourceMac: new Uint8Array(6),
    destinationMac: new Uint8Array(6),
    resolved: true,
    mtu: 1500,
    sourceAddress: addressOf('10.0.0.5'),
  };
  const network = { isLocal: () => false, nextHop: () => hop, transmit: () => {} };
  for (const clientAddress of ['toa', 'proxy-v1'] as const) {
    const each = lab({ clientAddress });
    const { syn, delta } = handshake(each);
    const first = add(CLIENT_ISN, 1);
    fromServer(each, syn, { acknowledgement: add(first, delta + HEADERS[4]['proxy-v1'].length) });
    Object.assign(each.network, network);
    each.director.resolveNextHops();
    const request = framed(
      4,
      tcpSegment(4, { flags: ACK, sequence: add(first, 9), acknowledgement: 9 }, new Uint8Array(9)),
    );
    const ports = { sourcePort: 8080, destinationPort: syn.sourcePort };
    const answer = readdressed(
      framed(
        4,
        tcpSegment(4, {
          ...ports,
          flags: ACK,
          acknowledgement: add(first, delta + 60),
          options: Uint8Array.of(1, 1, 5, 10, 0, 0, 0, 9, 0, 0, 0, 10),
        }),
      ),
      NAMES[4].server,
      NAMES[4].local,
    );
    const packet = new Packet(4096);
    const run = (rounds: number): void => {
      for (let round = 0; round < rounds; round++) {
        packet.load(request);
        assert.equal(each.director.process(packet, 2, 1000), Verdict.taken);
        packet.load(answer);
        assert.equal(each.director.process(packet, 2, 1000), Verdict.taken);
      }
    };
    run(20_000);
    const before = process.memoryUsage().heapUsed;
    run(20_000);
    const grown = process.memoryUsage().heapUsed - before;
    // A single object of 16 bytes a packet would be 640 kB.
    assert.ok(grown < 320_000, `${clientAddress}: ${grown} bytes for 40,000 packets`);
  }
});
