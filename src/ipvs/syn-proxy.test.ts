/**
 * The SYN proxy by hand-made segments. The client is 10.0.0.1:40000, the VIP 10.0.0.3:80, the server 10.0.0.7:8080 (and
 * 2001:db8:: with the same ends).
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
} from '../../test/frames.ts';
import type { Family } from '../wire/address.ts';
import { EtherType } from '../wire/ethernet.ts';
import { Ipv4, Protocol } from '../wire/ipv4.ts';
import { Ipv6 } from '../wire/ipv6.ts';
import type { Packet } from '../wire/packet.ts';
import { Tcp, type TcpFields, TcpFlag } from '../wire/tcp.ts';
import { addService, type Bench, makeBench, parsed, readdressed } from './director.fixture.ts';
import { Director, type DirectorOptions, Verdict } from './director.ts';
import { Drop } from './drops.ts';
import { MarkRules, parseMarkRule } from './mark-rules.ts';
import { acknowledgementOf, checked, dataOf, only, optionsOf, sequenceOf } from './segments.fixture.ts';
import type { ServiceKey, ServiceSpecification } from './specification.ts';
import { SynProxyCount } from './syn-proxy.ts';

const { syn: SYN, ack: ACK, rst: RST, fin: FIN, psh: PSH } = TcpFlag;
const NAMES = {
  4: { client: '10.0.0.1', vip: '10.0.0.3', server: '10.0.0.7' },
  6: { client: '2001:db8::1', vip: '2001:db8::3', server: '2001:db8::7' },
} as const;
/** Both sides' numbers wrap a few bytes into their data. */
const CLIENT_ISN = 0xfffffffb;
const SERVER_ISN = 0xfffffffd;
const REQUEST = new TextEncoder().encode('GET / HTTP/1.0\r\n\r\n');

interface Options extends Partial<DirectorOptions> {
  family?: Family;
  method?: 'masq' | 'fullnat';
  service?: Partial<ServiceSpecification>;
  port?: number;
}

class Lab {
  readonly bench: Bench;
  readonly family: Family;
  readonly key: ServiceKey;
  readonly port: number;
  /** The segment that the director sent last to the server. */
  toServer: Packet | undefined;
  now = 1000;

  constructor({ family = 4, method = 'masq', service = {}, port = 80, ...options }: Options = {}) {
    let drawn = 7;
    this.bench = makeBench({ random: () => (drawn = (Math.imul(drawn, 0x5bd1e995) + 1) >>> 0), ...options });
    this.family = family;
    this.port = port;
    this.key = addService(this.bench, 'tcp', family, port, { method, port: port === 80 ? 8080 : port });
    this.edit({ synProxy: true, ...service });
    const local = family === 4 ? '10.0.0.50' : '2001:db8::50';
    if (method === 'fullnat') this.director.administration.addLocalAddress(this.key, local);
  }

  get director(): Director {
    return this.bench.director;
  }

  get counts(): Float64Array {
    return this.director.synProxy.counts;
  }

  edit(change: Partial<ServiceSpecification>): void {
    const { administration } = this.director;
    const service = administration.service(this.key);
    assert.ok(service);
    const { statistics: _, destinations: __, localAddressUse: ___, ...specification } = service;
    administration.editService({ ...specification, ...change });
  }

  frame(fields: Partial<TcpFields>, data: Uint8Array = new Uint8Array()): Uint8Array {
    const segment = tcpSegment(this.family, { destinationPort: this.port, flags: ACK, ...fields }, data);
    return this.family === 4
      ? ethernetFrame(EtherType.ipv4, ipv4Packet(Protocol.tcp, segment, { fragment: 0x4000 }))
      : ethernetFrame(EtherType.ipv6, ipv6Packet(Protocol.tcp, segment));
  }

  receive(frame: Uint8Array): { verdict: Verdict; sent: Packet[] } {
    const { verdict, sent } = this.bench.receive(frame, this.now);
    const packets = sent.map(checked);
    const server = packets.findLast(packet => packet.destination === NAMES[this.family].server);
    if (server) this.toServer = server;
    return { verdict, sent: packets };
  }

  fromClient(fields: Partial<TcpFields>, data: Uint8Array = new Uint8Array()) {
    return this.receive(this.frame(fields, data));
  }

  fromServer(fields: Partial<TcpFields>, data: Uint8Array = new Uint8Array()) {
    const to = this.toServer;
    assert.ok(to, 'nothing was sent to the server yet');
    const plain = this.frame(
      { sourcePort: to.destinationPort, ...fields, destinationPort: to.sourcePort },
      data,
    );
    return this.receive(readdressed(plain, to.destination, to.source));
  }

  /** Sends a SYN; returns the director's answer. */
  syn(fields: Partial<TcpFields> = {}): Packet {
    const { sent } = this.fromClient({ flags: SYN, sequence: CLIENT_ISN, options: SYN_OPTIONS, ...fields });
    return only(sent);
  }

  /** Brings the cookie back; returns the SYN to the server. */
  acknowledge(cookie: number, fields: Partial<TcpFields> = {}, data: Uint8Array = new Uint8Array()): Packet {
    const { sent } = this.fromClient(
      { sequence: CLIENT_ISN + 1, acknowledgement: cookie + 1, ...fields },
      data,
    );
    return only(sent);
  }

  /** The server's answer to the SYN; returns what it is sent then. */
  accept(syn: Packet, fields: Partial<TcpFields> = {}): Packet[] {
    const { sent } = this.fromServer({
      flags: SYN | ACK,
      sequence: SERVER_ISN,
      acknowledgement: sequenceOf(syn) + 1,
      options: SYN_OPTIONS,
      ...fields,
    });
    return sent;
  }

  /** A whole handshake; returns the cookie. */
  establish(): number {
    const cookie = sequenceOf(this.syn());
    this.accept(this.acknowledge(cookie));
    return cookie;
  }

  expire(seconds: number): Packet[] {
    const sent: Packet[] = [];
    for (let second = 0; second < seconds; second++) {
      this.now += 1000;
      this.director.expire(this.now);
      sent.push(...this.bench.network.take().map(checked));
    }
    return sent;
  }

  states(): string[] {
    this.director.administration.now = this.now;
    return this.director.administration.connections().map(({ state }) => state);
  }

  dropped(reason: Drop): number {
    return this.director.drops[reason] as number;
  }
}

const windowOf = ({ view, transport }: Packet): number => view.getUint16(transport + Tcp.window);
const ttlOf = ({ view, network, family }: Packet): number =>
  view.getUint8(network + (family === 4 ? Ipv4.ttl : Ipv6.hopLimit));

test('a SYN is answered from the VIP, and nothing is kept', () => {
  for (const family of [4, 6] as const) {
    const lab = new Lab({ family });
    const answer = lab.syn();
    const { vip, client } = NAMES[family];
    assert.deepEqual([answer.source, answer.sourcePort], [vip, 80]);
    assert.deepEqual([answer.destination, answer.destinationPort], [client, 40000]);
    assert.equal(answer.tcpFlags, SYN | ACK);
    assert.equal(acknowledgementOf(answer), CLIENT_ISN + 1);
    assert.equal(ttlOf(answer), 63);
    // MSS, then NOP NOP SACK permitted: neither timestamps nor scaling, which the client asked for.
    const size = family === 4 ? 1452 : 1440;
    assert.deepEqual(optionsOf(answer), [2, 4, size >>> 8, size & 0xff, 1, 1, 4, 2]);
    assert.equal(windowOf(answer), 3 * size);
    assert.equal(lab.director.connections.size, 0);
    assert.equal(lab.counts[SynProxyCount.answered], 1);
  }
});

test('settings change the answer; what a client does not ask for it does not get', () => {
  const settings = {
    synproxy_init_mss: 1200,
    synproxy_wscale: 5,
    synproxy_timestamp: 1,
    synproxy_synack_ttl: 200,
    synproxy_ack_skb_store_thresh: 2,
  };
  const lab = new Lab({ settings });
  const answer = lab.syn();
  const options = optionsOf(answer);
  assert.equal(ttlOf(answer), 200);
  assert.equal(windowOf(answer), 2400);
  assert.deepEqual(options.slice(0, 12), [2, 4, 0x04, 0xb0, 1, 1, 4, 2, 1, 1, 8, 10]);
  assert.deepEqual(options.slice(20), [1, 3, 3, 5]);
  assert.deepEqual(optionsOf(lab.syn({ options: new Uint8Array(0) })), [2, 4, 0x04, 0xb0]);
  lab.director.set('synproxy_sack', '0');
  lab.director.set('synproxy_timestamp', '0');
  lab.director.set('synproxy_wscale', '0');
  assert.deepEqual(optionsOf(lab.syn()), [2, 4, 0x04, 0xb0]);
});

test('the size of segments: what the way takes, with FULLNAT less the room for TOA', () => {
  const sizeOf = (lab: Lab): number => {
    const [, , high = 0, low = 0] = optionsOf(lab.syn());
    return high * 256 + low;
  };
  assert.equal(sizeOf(new Lab({ method: 'fullnat' })), 1452);
  assert.equal(sizeOf(new Lab({ family: 6, method: 'fullnat' })), 1420);
  assert.equal(sizeOf(new Lab({ family: 6, method: 'fullnat', service: { clientAddress: 'none' } })), 1440);
  const narrow = new Lab();
  narrow.bench.network.mtus.set('10.0.0.1', 1000);
  assert.equal(sizeOf(narrow), 960);
});

test('the acknowledgement begins the connection: the server gets the SYN that the client sent, without what it was not granted', () => {
  for (const family of [4, 6] as const) {
    const lab = new Lab({ family });
    const cookie = sequenceOf(lab.syn());
    const syn = lab.acknowledge(cookie, { window: 501 });
    assert.deepEqual([syn.source, syn.sourcePort], [NAMES[family].client, 40000]);
    assert.deepEqual([syn.destination, syn.destinationPort], [NAMES[family].server, 8080]);
    assert.deepEqual([syn.tcpFlags, sequenceOf(syn), windowOf(syn)], [SYN, CLIENT_ISN, 501]);
    // The largest of the cookie's sizes that is no larger than the client's 1460, and SACK.
    assert.deepEqual(optionsOf(syn), [2, 4, 0x05, 0xb4, 1, 1, 4, 2]);
    assert.equal(ttlOf(syn), 63);
    assert.deepEqual(lab.states(), ['SYN_SENT']);
    const acknowledgement = only(lab.accept(syn));
    assert.deepEqual(
      [acknowledgement.tcpFlags, sequenceOf(acknowledgement), acknowledgementOf(acknowledgement)],
      [ACK, (CLIENT_ISN + 1) >>> 0, (SERVER_ISN + 1) >>> 0],
    );
    assert.deepEqual(lab.states(), ['ESTABLISHED']);
    const [destination] = lab.director.administration.service(lab.key)?.destinations ?? [];
    assert.deepEqual(
      [destination?.activeConnections, destination?.inactiveConnections, destination?.statistics.inPackets],
      [1, 0, 2],
    );
  }
});

test('data is held until the server is there, and then goes in order; more than that is dropped and counted', () => {
  const lab = new Lab();
  const cookie = sequenceOf(lab.syn());
  const syn = lab.acknowledge(cookie, { flags: ACK | PSH }, REQUEST);
  const at = (part: number) => ({
    sequence: (CLIENT_ISN + 1 + part * REQUEST.length) >>> 0,
    acknowledgement: cookie + 1,
  });
  assert.deepEqual(lab.fromClient(at(1), REQUEST).sent, []);
  assert.equal(lab.fromClient(at(1), REQUEST).verdict, Verdict.taken, 'sent again: kept once');
  lab.fromClient(at(2), REQUEST);
  assert.equal(lab.fromClient(at(3), REQUEST).verdict, Verdict.dropped);
  assert.equal(lab.dropped(Drop.synProxyFull), 1);
  const [acknowledgement, ...held] = lab.accept(syn);
  assert.ok(acknowledgement);
  assert.deepEqual(dataOf(acknowledgement), []);
  assert.deepEqual(
    held.map(each => [sequenceOf(each), acknowledgementOf(each)]),
    [0, 1, 2].map(part => [at(part).sequence, (SERVER_ISN + 1) >>> 0]),
  );
  assert.ok(held.every(each => Buffer.from(dataOf(each)).equals(REQUEST)));
  assert.equal(lab.counts[SynProxyCount.held], 3);
});

test('afterwards the numbers are moved, across their ends, with SACK blocks, in both families', () => {
  for (const family of [4, 6] as const) {
    const lab = new Lab({ family });
    const cookie = lab.establish();
    const answer = only(
      lab.fromServer({ sequence: SERVER_ISN + 1, acknowledgement: CLIENT_ISN + 1 }, REQUEST).sent,
    );
    assert.deepEqual([answer.source, answer.sourcePort], [NAMES[family].vip, 80]);
    assert.equal(sequenceOf(answer), (cookie + 1) >>> 0);
    assert.equal(acknowledgementOf(answer), (CLIENT_ISN + 1) >>> 0);
    const blocks = new Uint8Array(20);
    blocks.set([1, 1, 5, 18]);
    const view = new DataView(blocks.buffer);
    for (const [index, number] of [20, 30, 50, 60].entries()) view.setUint32(4 + 4 * index, cookie + number);
    const segment = only(
      lab.fromClient({ sequence: CLIENT_ISN + 1, acknowledgement: cookie + 11, options: blocks }, REQUEST)
        .sent,
    );
    assert.equal(acknowledgementOf(segment), (SERVER_ISN + 11) >>> 0);
    const edges = [0, 1, 2, 3].map(index => segment.view.getUint32(segment.transport + 24 + 4 * index));
    assert.deepEqual(
      edges,
      [20, 30, 50, 60].map(number => (SERVER_ISN + number) >>> 0),
    );
    const reset = only(lab.fromServer({ flags: RST, sequence: SERVER_ISN + 11 }).sent);
    assert.equal(sequenceOf(reset), (cookie + 11) >>> 0);
  }
});

test('for any numbers and settings, what one side says is what the other hears', () => {
  const word = fc.nat(0xffffffff);
  fc.assert(
    fc.property(
      word,
      word,
      word,
      word,
      fc.constantFrom(0, 3, 14),
      fc.constantFrom(undefined, 0, 7, 14),
      fc.nat(65535),
      (clientIsn, serverIsn, from, offset, promised, scale, window) => {
        const lab = new Lab({ settings: { synproxy_wscale: promised, synproxy_timestamp: 1 } });
        const answer = lab.syn({ sequence: clientIsn });
        const cookie = sequenceOf(answer);
        const ownStamp = answer.view.getUint32(answer.transport + 20 + 12);
        const stamp = (value: number, echo: number): Uint8Array => {
          const bytes = Uint8Array.of(1, 1, 8, 10, ...new Array<number>(8).fill(0));
          const view = new DataView(bytes.buffer);
          view.setUint32(4, value);
          view.setUint32(8, echo);
          return bytes;
        };
        const syn = lab.acknowledge(cookie, { sequence: clientIsn + 1, options: stamp(500, ownStamp) });
        assert.equal(sequenceOf(syn), clientIsn);
        assert.equal(syn.view.getUint32(syn.transport + 20 + 12), 500);
        const serverStamp = 77_000_000;
        const scaling = scale === undefined ? [] : [1, 3, 3, scale];
        const options = Uint8Array.of(2, 4, 5, 0xb4, ...scaling, ...stamp(serverStamp, 500));
        const [acknowledgement] = lab.accept(syn, { sequence: serverIsn, options });
        assert.ok(acknowledgement);
        assert.equal(acknowledgementOf(acknowledgement), (serverIsn + 1) >>> 0);
        assert.equal(acknowledgement.view.getUint32(acknowledgement.transport + 28), serverStamp);

        const heard = only(
          lab.fromServer({ sequence: from, window, options: stamp(serverStamp + 9, 501) }, REQUEST).sent,
        );
        assert.equal(sequenceOf(heard), (from - serverIsn + cookie) >>> 0);
        assert.equal(heard.view.getUint32(heard.transport + 24), (ownStamp + 9) >>> 0);
        const isScaled = promised > 0;
        const shown = windowOf(heard) * (isScaled ? 2 ** promised : 1);
        const meant = window * (isScaled && scale !== undefined ? 2 ** scale : 1);
        // Never more than the server takes, and no less than can be said.
        assert.ok(shown <= meant);
        assert.ok(windowOf(heard) === 65535 || meant - shown < (isScaled ? 2 ** promised : 1));

        const said = only(
          lab.fromClient({
            sequence: clientIsn + 1,
            acknowledgement: cookie + offset,
            window,
            options: stamp(510, ownStamp + 9),
          }).sent,
        );
        assert.equal(acknowledgementOf(said), (serverIsn + offset) >>> 0);
        assert.equal(said.view.getUint32(said.transport + 28), serverStamp + 9);
        // The client scales by 7 (SYN_OPTIONS) where it was granted; a server that does not gets the size itself.
        const unscaled = isScaled && scale === undefined ? Math.min(window * 2 ** 7, 65535) : window;
        assert.equal(windowOf(said), unscaled);
      },
    ),
    { numRuns: 200 },
  );
});

test('an acknowledgement without a right cookie is dropped and counted, as is everything that begins nothing', () => {
  const lab = new Lab();
  const cookie = sequenceOf(lab.syn());
  const dropped = (fields: Partial<TcpFields>, reason: Drop): void => {
    const before = lab.dropped(reason);
    const { verdict, sent } = lab.fromClient(fields);
    assert.deepEqual([verdict, sent], [Verdict.dropped, []]);
    assert.equal(lab.dropped(reason), before + 1);
  };
  const right = { sequence: CLIENT_ISN + 1, acknowledgement: cookie + 1 };
  dropped({ ...right, acknowledgement: cookie + 2 }, Drop.synCookie);
  dropped({ ...right, sequence: CLIENT_ISN + 2 }, Drop.synCookie);
  dropped({ ...right, sourcePort: 40001 }, Drop.synCookie);
  dropped({ ...right, flags: RST }, Drop.synProxyStray);
  dropped({ ...right, flags: SYN | ACK }, Drop.synProxyStray);
  dropped({ ...right, flags: SYN | FIN }, Drop.synProxyStray);
  dropped({ ...right, flags: FIN }, Drop.synProxyStray);
  lab.now += 4 * 60_000;
  dropped(right, Drop.synCookie);
  lab.now -= 60_001;
  lab.acknowledge(cookie);
  const spoiled = lab.frame({ flags: SYN, sourcePort: 40009 });
  spoiled[spoiled.length - 3] = 0x55;
  assert.equal(lab.receive(spoiled).verdict, Verdict.dropped);
  assert.equal(lab.dropped(Drop.malformed), 1);
  // Other services keep to their own.
  addService(lab.bench, 'tcp', 4, 81, { method: 'masq' });
  assert.equal(lab.fromClient({ destinationPort: 81 }).verdict, Verdict.pass);
});

test('acknowledgements without data while the server is silent: from the tenth on they are a storm', () => {
  const lab = new Lab();
  const cookie = sequenceOf(lab.syn());
  lab.acknowledge(cookie);
  const verdicts = Array.from({ length: 12 }, () => {
    return lab.fromClient({ sequence: CLIENT_ISN + 1, acknowledgement: cookie + 1 }).verdict;
  });
  assert.equal(verdicts.filter(verdict => verdict === Verdict.dropped).length, 3);
  assert.equal(lab.dropped(Drop.synProxyStorm), 3);
  assert.equal(lab.fromClient({ sequence: CLIENT_ISN + 1, acknowledgement: 5 }).verdict, Verdict.dropped);
  assert.equal(lab.dropped(Drop.synProxyStray), 1);
});

test('defer: the acknowledgement makes nothing yet, the data behind it does', () => {
  const lab = new Lab({ settings: { synproxy_defer: 1 } });
  const cookie = sequenceOf(lab.syn());
  const right = { sequence: CLIENT_ISN + 1, acknowledgement: cookie + 1 };
  assert.deepEqual(lab.fromClient(right), { verdict: Verdict.taken, sent: [] });
  assert.equal(lab.director.connections.size, 0);
  assert.equal(lab.fromClient({ ...right, acknowledgement: cookie }).verdict, Verdict.dropped);
  const [, data] = lab.accept(lab.acknowledge(cookie, {}, REQUEST));
  assert.ok(data);
  assert.deepEqual(dataOf(data), [...REQUEST]);
});

test('a server that says no: the client gets a reset it believes', () => {
  for (const family of [4, 6] as const) {
    const lab = new Lab({ family });
    const cookie = sequenceOf(lab.syn());
    const syn = lab.acknowledge(cookie, {}, REQUEST);
    const refusal = { flags: RST | ACK, sequence: 0, acknowledgement: sequenceOf(syn) + 1 };
    assert.deepEqual(lab.fromServer({ ...refusal, acknowledgement: 5 }).sent, [], 'not about this SYN');
    const reset = only(lab.fromServer(refusal).sent);
    assert.deepEqual([reset.source, reset.destination], [NAMES[family].vip, NAMES[family].client]);
    assert.equal(reset.tcpFlags & RST, RST);
    assert.equal(sequenceOf(reset), (cookie + 1) >>> 0);
    assert.deepEqual(lab.states(), ['CLOSE']);
    // Sent again, because the reset was lost.
    const again = only(
      lab.fromClient({ sequence: CLIENT_ISN + 1, acknowledgement: cookie + 1 }, REQUEST).sent,
    );
    assert.deepEqual([again.tcpFlags, sequenceOf(again)], [RST, (cookie + 1) >>> 0]);
  }
});

test('a silent server is asked again after 1, 3 and 7 seconds; after 15 the client gets a reset', () => {
  const lab = new Lab();
  const cookie = sequenceOf(lab.syn());
  const syn = lab.acknowledge(cookie);
  const times: number[] = [];
  for (let second = 1; second <= 14; second++) {
    for (const packet of lab.expire(1)) {
      assert.deepEqual([packet.tcpFlags, sequenceOf(packet)], [SYN, sequenceOf(syn)]);
      assert.deepEqual(optionsOf(packet), optionsOf(syn));
      times.push(second);
    }
  }
  assert.deepEqual(times, [1, 3, 7]);
  const reset = only(lab.expire(1));
  assert.deepEqual([reset.destination, sequenceOf(reset)], ['10.0.0.1', (cookie + 1) >>> 0]);
  assert.equal(lab.counts[SynProxyCount.unanswered], 1);
  assert.equal(lab.director.synProxy.pending, 0);
  // Too late: the server is told.
  const late = only(
    lab.fromServer({ flags: SYN | ACK, sequence: SERVER_ISN, acknowledgement: CLIENT_ISN + 1 }).sent,
  );
  assert.deepEqual([late.destination, late.tcpFlags], ['10.0.0.7', RST]);
  lab.expire(12);
  assert.equal(lab.director.connections.size, 0);
});

test('a server that is deleted meanwhile will not answer: the client learns it at once', () => {
  const lab = new Lab();
  lab.acknowledge(sequenceOf(lab.syn()));
  lab.director.administration.deleteDestination(lab.key, '10.0.0.7', 8080);
  assert.equal(only(lab.expire(1)).tcpFlags & RST, RST);
});

test('no server for a client that is there: a reset, not silence', () => {
  const lab = new Lab();
  const cookie = sequenceOf(lab.syn());
  const service = lab.director.administration.service(lab.key);
  const [destination] = service?.destinations ?? [];
  assert.ok(destination);
  lab.director.administration.editDestination(lab.key, { ...destination, weight: 0 });
  const reset = lab.acknowledge(cookie);
  assert.deepEqual([reset.tcpFlags, sequenceOf(reset)], [RST, (cookie + 1) >>> 0]);
  assert.equal(lab.dropped(Drop.noServer), 1);
  lab.director.administration.deleteDestination(lab.key, '10.0.0.7', 8080);
  const error = lab.fromClient({ flags: SYN, sequence: CLIENT_ISN });
  assert.equal(error.verdict, Verdict.dropped);
  assert.equal(only(error.sent).protocol, Protocol.icmp);
});

test('a client that gives up while the server is silent: the server learns it', () => {
  const lab = new Lab();
  const cookie = sequenceOf(lab.syn());
  lab.acknowledge(cookie);
  assert.deepEqual(lab.fromClient({ flags: RST, sequence: CLIENT_ISN - 9 }).sent, [], 'not of this window');
  const reset = only(lab.fromClient({ flags: RST, sequence: CLIENT_ISN + 1 }).sent);
  assert.deepEqual(
    [reset.destination, reset.tcpFlags, sequenceOf(reset)],
    ['10.0.0.7', RST, (CLIENT_ISN + 1) >>> 0],
  );
  assert.deepEqual(lab.states(), ['CLOSE']);
});

test('a server that remembers another connection is reset, so that the SYN counts when it comes again', () => {
  const lab = new Lab();
  const cookie = sequenceOf(lab.syn());
  lab.acknowledge(cookie);
  const reset = only(lab.fromServer({ sequence: 5000, acknowledgement: 6000 }).sent);
  assert.deepEqual([reset.destination, reset.tcpFlags, sequenceOf(reset)], ['10.0.0.7', RST, 6000]);
  const [syn] = lab.expire(1);
  assert.ok(syn);
  lab.accept(syn);
  assert.deepEqual(lab.states(), ['ESTABLISHED']);
});

test('a lost acknowledgement to the server is repeated when its SYN comes again', () => {
  const lab = new Lab();
  lab.establish();
  const again = { flags: SYN | ACK, sequence: SERVER_ISN, acknowledgement: CLIENT_ISN + 1 };
  const repeated = only(lab.fromServer(again).sent);
  assert.deepEqual(
    [repeated.destination, sequenceOf(repeated), acknowledgementOf(repeated)],
    ['10.0.0.7', (CLIENT_ISN + 1) >>> 0, (SERVER_ISN + 1) >>> 0],
  );
  assert.equal(only(lab.fromServer({ ...again, sequence: 12345 }).sent).tcpFlags, RST);
});

test('a connection that is over stays until the cookie of a new SYN comes back; others take no SYN', () => {
  const lab = new Lab();
  const first = lab.establish();
  lab.fromServer({ flags: RST, sequence: SERVER_ISN + 1 });
  assert.deepEqual(lab.states(), ['CLOSE']);
  // Late segments of it do not begin it again, not even those whose numbers stand apart as the handshake's.
  const late = (sent: number): void => {
    const numbers = { sequence: CLIENT_ISN + 1 + sent, acknowledgement: first + 1 + sent };
    assert.equal(only(lab.fromClient(numbers).sent).tcpFlags, ACK);
    assert.deepEqual(lab.states(), ['CLOSE']);
  };
  late(0);
  late(1);
  const answer = lab.syn({ sequence: CLIENT_ISN + 50_000 });
  assert.equal(answer.destination, '10.0.0.1');
  assert.deepEqual(lab.states(), ['CLOSE'], 'a SYN alone changes nothing');
  late(0);
  late(1);
  const syn = lab.acknowledge(sequenceOf(answer), { sequence: CLIENT_ISN + 50_001 });
  assert.deepEqual([syn.destination, syn.tcpFlags], ['10.0.0.7', SYN]);
  lab.accept(syn);
  assert.deepEqual(lab.states(), ['ESTABLISHED']);
  // On a connection that goes on, a SYN is the server's business (RFC 5961 section 4).
  const passed = only(lab.fromClient({ flags: SYN, sequence: 77 }).sent);
  assert.deepEqual([passed.destination, passed.tcpFlags, sequenceOf(passed)], ['10.0.0.7', SYN, 77]);
});

test('which states may be begun anew is a matter of the settings', () => {
  const begin = (settings: DirectorOptions['settings'], ...ends: ('client' | 'server')[]): boolean => {
    const lab = new Lab(settings ? { settings } : {});
    const cookie = lab.establish();
    for (const end of ends) {
      if (end === 'client') {
        lab.fromClient({ flags: FIN | ACK, sequence: CLIENT_ISN + 1, acknowledgement: cookie + 1 });
      } else lab.fromServer({ flags: FIN | ACK, sequence: SERVER_ISN + 1, acknowledgement: CLIENT_ISN + 2 });
    }
    return lab.syn().destination === '10.0.0.1';
  };
  // CLOSE_WAIT after the client's FIN, FIN_WAIT after the server's, then LAST_ACK and TIME_WAIT.
  assert.equal(begin({}, 'client'), false);
  assert.equal(begin({ synproxy_conn_reuse_close_wait: 1 }, 'client'), true);
  assert.equal(begin({}, 'server'), false);
  assert.equal(begin({ synproxy_conn_reuse_fin_wait: 1 }, 'server'), true);
  assert.equal(begin({}, 'server', 'client'), true);
  assert.equal(begin({ synproxy_conn_reuse_time_wait: 0 }, 'server', 'client'), false);
  assert.equal(begin({ synproxy_conn_reuse: 0 }, 'server', 'client'), false);
});

test('persistence, schedulers and marks work as without it', () => {
  const lab = new Lab({ service: { persistenceTimeout: 60 } });
  const [known] = lab.director.administration.service(lab.key)?.destinations ?? [];
  assert.ok(known);
  lab.director.administration.addDestination(lab.key, { ...known, address: '10.0.0.8' });
  const servers = [40000, 40001, 40002].map(sourcePort => {
    const cookie = sequenceOf(lab.syn({ sourcePort }));
    return lab.acknowledge(cookie, { sourcePort }).destination;
  });
  assert.equal(new Set(servers).size, 1, 'one client, one server');
  lab.edit({ persistenceTimeout: 0 });
  const spread = [40003, 40004].map(sourcePort => {
    return lab.acknowledge(sequenceOf(lab.syn({ sourcePort })), { sourcePort }).destination;
  });
  assert.equal(new Set(spread).size, 2, 'round robin');

  const marked = new Lab();
  const { administration } = marked.director;
  const service = administration.service(marked.key);
  assert.ok(service);
  administration.deleteService(marked.key);
  const key = { mark: 3, family: 4 } as const;
  administration.addService({ ...service, key });
  administration.addDestination(key, { ...known, port: 0 });
  marked.director.marks = new MarkRules([parseMarkRule('tcp to 10.0.0.3 port 80 mark 3')]);
  const syn = marked.acknowledge(sequenceOf(marked.syn()));
  assert.deepEqual([syn.destination, syn.destinationPort, syn.tcpFlags], ['10.0.0.7', 80, SYN]);
});

test('FULLNAT: the server sees the local address, and TOA on the director’s acknowledgement and on held data', () => {
  for (const family of [4, 6] as const) {
    const lab = new Lab({ family, method: 'fullnat' });
    const cookie = sequenceOf(lab.syn());
    const syn = lab.acknowledge(cookie, {}, REQUEST);
    assert.equal(syn.source, family === 4 ? '10.0.0.50' : '2001:db8::50');
    assert.notEqual(sequenceOf(syn), CLIENT_ISN, 'a number that grows for these ends');
    const sent = lab.accept(syn);
    const length = family === 4 ? 8 : 20;
    const client = family === 4 ? [10, 0, 0, 1] : [0x20, 1, 0x0d, 0xb8, ...new Array<number>(11).fill(0), 1];
    assert.equal(sent.length, 2);
    for (const packet of sent) {
      assert.deepEqual(optionsOf(packet), [254, length, 40000 >>> 8, 40000 & 0xff, ...client]);
      assert.equal(acknowledgementOf(packet), (SERVER_ISN + 1) >>> 0);
      assert.equal(sequenceOf(packet), (sequenceOf(syn) + 1) >>> 0);
    }
    const answer = only(
      lab.fromServer(
        { sequence: SERVER_ISN + 1, acknowledgement: sequenceOf(syn) + 1 + REQUEST.length },
        REQUEST,
      ).sent,
    );
    assert.equal(sequenceOf(answer), (cookie + 1) >>> 0);
    assert.equal(acknowledgementOf(answer), (CLIENT_ISN + 1 + REQUEST.length) >>> 0);
    const later = only(
      lab.fromClient({
        sequence: CLIENT_ISN + 1 + REQUEST.length,
        acknowledgement: cookie + 1 + REQUEST.length,
      }).sent,
    );
    assert.deepEqual(optionsOf(later), []);
    assert.equal(acknowledgementOf(later), (SERVER_ISN + 1 + REQUEST.length) >>> 0);
  }
});

test('FTP: the helper goes on from the difference, and its texts move the numbers further', () => {
  const lab = new Lab({ port: 21 });
  const cookie = lab.establish();
  const text = (words: string): Uint8Array => new TextEncoder().encode(`${words}\r\n`);
  const greeting = only(
    lab.fromServer({ sequence: SERVER_ISN + 1, acknowledgement: CLIENT_ISN + 1 }, text('220 ok')).sent,
  );
  assert.equal(sequenceOf(greeting), (cookie + 1) >>> 0);
  const command = only(
    lab.fromClient({ sequence: CLIENT_ISN + 1, acknowledgement: cookie + 9 }, text('PASV')).sent,
  );
  assert.equal(acknowledgementOf(command), (SERVER_ISN + 9) >>> 0);
  const passive = text('227 Entering Passive Mode (10,0,0,7,200,10)');
  const answer = only(
    lab.fromServer({ sequence: SERVER_ISN + 9, acknowledgement: CLIENT_ISN + 7 }, passive).sent,
  );
  assert.match(new TextDecoder().decode(Uint8Array.from(dataOf(answer))), /\(10,0,0,3,200,10\)/);
  assert.equal(sequenceOf(answer), (cookie + 9) >>> 0);
  const next = only(
    lab.fromClient({
      sequence: CLIENT_ISN + 7,
      acknowledgement: cookie + 9 + dataOf(answer).length,
    }).sent,
  );
  assert.equal(acknowledgementOf(next), (SERVER_ISN + 9 + passive.length) >>> 0);
  // The data connection was agreed on: it needs no cookie.
  const data = only(lab.fromClient({ flags: SYN, destinationPort: 51210, sourcePort: 41000 }).sent);
  assert.deepEqual([data.destination, data.destinationPort, data.tcpFlags], ['10.0.0.7', 51210, SYN]);
});

test('an ICMP error about an answer quotes it to the server with the server’s own number', () => {
  const lab = new Lab();
  const cookie = lab.establish();
  const quoted = ipv4Packet(
    Protocol.tcp,
    tcpSegment(4, { sourcePort: 80, destinationPort: 40000, sequence: cookie + 1, flags: ACK }),
  );
  const packet = parsed(readdressed(ethernetFrame(EtherType.ipv4, quoted), '10.0.0.3', '10.0.0.1'));
  const inner = packet.bytes.slice(packet.network, packet.networkEnd);
  const error = ethernetFrame(EtherType.ipv4, ipv4Packet(Protocol.icmp, icmpMessage(4, 3, 4, 1000, inner)));
  const passed = only(lab.receive(error).sent);
  assert.equal(passed.destination, '10.0.0.7');
  assert.equal(passed.view.getUint32(passed.transport + 8 + 20 + Tcp.sequence), (SERVER_ISN + 1) >>> 0);
});

test('a successor takes over cookies that are out, handshakes, and what it has to add to numbers', () => {
  const lab = new Lab();
  const out = sequenceOf(lab.syn({ sourcePort: 40001 }));
  const waiting = sequenceOf(lab.syn({ sourcePort: 40002 }));
  lab.acknowledge(waiting, { sourcePort: 40002 });
  const cookie = lab.establish();
  const before = lab.director;
  const director = new Director({
    network: lab.bench.network,
    host: lab.bench.network,
    connections: before.connections,
    destinations: before.destinations,
    random: () => 1,
  });
  const service = before.administration.service(lab.key);
  assert.ok(service);
  director.pool.adopt(0, 'tcp 10.0.0.3:80', '10.0.0.7', 8080, lab.now);
  director.administration.addService(service);
  director.administration.addDestination(
    lab.key,
    service.destinations[0] as (typeof service.destinations)[0],
  );
  lab.bench.director = director;
  const receive = (frame: Uint8Array): Packet[] => {
    director.process(parsed(frame), 2, lab.now);
    return lab.bench.network.take().map(checked);
  };
  lab.bench.receive = frame => ({
    verdict: director.process(parsed(frame), 2, lab.now),
    sent: lab.bench.network.take(),
  });
  const data = only(receive(lab.frame({ sequence: CLIENT_ISN + 1, acknowledgement: cookie + 1 }, REQUEST)));
  assert.equal(acknowledgementOf(data), (SERVER_ISN + 1) >>> 0);
  assert.equal(lab.acknowledge(out, { sourcePort: 40001 }).tcpFlags, SYN);
  assert.equal(director.synProxy.pending, 2);
  const again = lab.expire(1).filter(packet => packet.sourcePort === 40002);
  assert.deepEqual(
    again.map(packet => [packet.tcpFlags, sequenceOf(packet)]),
    [[SYN, CLIENT_ISN]],
  );
});

test('explained as it happens', () => {
  const lab = new Lab();
  const explain = (fields: Partial<TcpFields>, data?: Uint8Array) =>
    lab.director.explain(parsed(lab.frame(fields, data)), 2, lab.now);
  const syn = explain({ flags: SYN, sequence: CLIENT_ISN, options: SYN_OPTIONS });
  assert.deepEqual(
    [syn.decision, syn.verdict, syn.departure?.outcome],
    ['answered with a SYN cookie', 'taken', 'sent'],
  );
  assert.deepEqual(syn.departure?.ttl, { before: 64, after: 63 });
  const cookie = sequenceOf(lab.syn());
  const right = { sequence: CLIENT_ISN + 1, acknowledgement: cookie + 1 };
  const begun = explain(right);
  assert.deepEqual(
    [begun.decision, begun.server?.address],
    ['a new connection, by its SYN cookie', '10.0.0.7'],
  );
  const wrong = explain({ ...right, acknowledgement: 1 });
  assert.deepEqual(
    [wrong.decision, wrong.verdict, wrong.drop],
    ['no SYN cookie that holds', 'dropped', 'syn-cookie'],
  );
  assert.equal(explain({ ...right, flags: RST }).drop, 'syn-proxy-stray');
  lab.director.set('synproxy_defer', '1');
  assert.equal(explain(right).decision, 'a SYN cookie, waits for data');
  assert.equal(explain(right, REQUEST).decision, 'a new connection, by its SYN cookie');
  lab.director.set('synproxy_defer', '0');
  lab.accept(lab.acknowledge(cookie));
  assert.equal(explain(right).decision, 'a packet of a connection');
});
