import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ethernetFrame, ipv4Packet, ipv6Packet, sctpPacket } from '../../test/frames.ts';
import { EtherType } from '../wire/ethernet.ts';
import { Protocol } from '../wire/ipv4.ts';
import { fillSctpChecksum, SctpChunk, sctpChecksumIsRight } from '../wire/sctp.ts';
import { addService, type Bench, makeBench, parsed, readdressed } from './director.fixture.ts';
import { Verdict } from './director.ts';
import {
  nextSctpState,
  SCTP_STATE_NAMES,
  SCTP_TIMEOUTS,
  SctpEvent,
  SctpState,
  sctpEvent,
} from './sctp-states.ts';
import { TcpDirection } from './tcp-states.ts';

const SHORT = 'NO I1 IN CS CR CW CO CE ES SS SR SA RJ CL'.split(' ');

/** All changes of state, by direction and event, as "from,from>to"; whatever is not here stays. */
const CHANGES: Record<keyof typeof TcpDirection, Record<keyof typeof SctpEvent, string>> = {
  in: {
    data: 'NO>ES',
    init: 'NO>I1 I1,RJ,CL>IN',
    initAck: 'NO,I1,IN>CW CW>CO',
    cookieEcho: 'NO,CS>CR I1>IN',
    cookieAck: 'NO,CE>ES',
    shutdown: 'NO,ES>SR',
    shutdownAck: 'NO,SS,SA>CL I1>IN',
    shutdownComplete: 'NO,I1,IN,SA>CL',
    error: 'NO,CE>CL',
    abort: 'NO,I1,IN,CS,CR,CO,CE,ES,SS,SR,SA,RJ>CL CW>RJ',
  },
  out: {
    data: 'NO>ES',
    init: 'NO,I1,IN,CS,CR,CO,CE,SS,SR,SA,RJ,CL>CW',
    initAck: 'NO,I1,IN>CS',
    cookieEcho: 'NO,I1,IN,CS,CR,CW,CO>CE',
    cookieAck: 'NO,I1,IN,CS,CR,CW,CO,CE>ES',
    shutdown: 'NO,I1,IN,CS,CR,CW,CO,CE,ES>SS',
    shutdownAck: 'NO,I1,IN,CS,CR,SS,SR>SA',
    shutdownComplete: 'NO>CL',
    error: 'NO,I1,IN,CS,CR>CL',
    abort: 'NO,IN,CS,CR,CW,CO,CE,ES,SS,SR,SA,RJ>CL I1>RJ',
  },
  inOnly: {
    data: 'NO,CW>ES',
    init: 'NO>I1 I1,CS,CR,CW,RJ,CL>IN',
    initAck: 'NO,I1,IN,CS,CR,CW>CE',
    cookieEcho: 'NO,I1,IN,CS,CR,CW>ES',
    cookieAck: 'NO,CS,CR,CO,CE>ES',
    shutdown: 'NO,ES>SR',
    shutdownAck: 'NO,ES,SS,SA>CL I1>IN',
    shutdownComplete: 'NO,I1,IN,CS,CR,SR,SA>CL',
    error: 'NO>CL',
    abort: 'NO,I1,IN,CS,CR,CO,CE,ES,SS,SR,SA,RJ>CL CW>RJ',
  },
};

test('the table has these changes and no others', () => {
  for (const [direction, events] of Object.entries(CHANGES)) {
    for (const [event, changes] of Object.entries(events)) {
      const expected = new Map<string, string>();
      for (const change of changes.split(' ')) {
        const [from = '', to = ''] = change.split('>');
        for (const state of from.split(',')) expected.set(state, to);
      }
      for (const [state, name] of SHORT.entries()) {
        const next = nextSctpState(
          TcpDirection[direction as keyof typeof TcpDirection],
          SctpEvent[event as keyof typeof SctpEvent],
          state,
        );
        assert.equal(SHORT[next], expected.get(name) ?? name, `${direction} ${event} ${name}`);
      }
    }
  }
});

test('every state has a name and a timeout', () => {
  assert.equal(SCTP_STATE_NAMES.length, SHORT.length);
  assert.equal(SCTP_TIMEOUTS.length, SHORT.length);
  assert.equal(Object.keys(SctpState).length, SHORT.length);
});

/** A packet of several chunks, each of 4 bytes and `size` of value. */
function bundle(...chunks: { type: number; size: number }[]): DataView {
  const bytes = [0, 1, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0];
  for (const { type, size } of chunks) {
    bytes.push(type, 0, 0, 4 + size, ...new Array<number>((size + 3) & ~3).fill(0));
  }
  return new DataView(Uint8Array.from(bytes).buffer);
}

test('the first chunk is the event, but an ABORT behind a cookie counts', () => {
  const eventOf = (view: DataView): number => sctpEvent(view, 0, view.byteLength);
  const data = { type: SctpChunk.data, size: 13 };
  const abort = { type: SctpChunk.abort, size: 0 };
  assert.equal(eventOf(bundle({ type: SctpChunk.init, size: 16 })), SctpEvent.init);
  for (const type of [SctpChunk.data, SctpChunk.sack, SctpChunk.heartbeat, SctpChunk.ecnEcho, 99, 255]) {
    assert.equal(eventOf(bundle({ type, size: 4 }, abort)), SctpEvent.data);
  }
  for (const size of [0, 1, 4, 13]) {
    assert.equal(eventOf(bundle({ type: SctpChunk.cookieEcho, size }, abort)), SctpEvent.abort);
    assert.equal(eventOf(bundle({ type: SctpChunk.cookieEcho, size }, data)), SctpEvent.cookieEcho);
  }
  assert.equal(eventOf(bundle({ type: SctpChunk.cookieAck, size: 0 }, abort)), SctpEvent.abort);
  assert.equal(eventOf(bundle({ type: SctpChunk.cookieAck, size: 0 })), SctpEvent.cookieAck);
});

const PORT = 3868;

/** A packet of one chunk from client to VIP. */
function request(chunk: number, family: 4 | 6 = 4): Uint8Array {
  const sctp = sctpPacket(chunk, new Uint8Array(16).fill(3));
  return family === 4
    ? ethernetFrame(EtherType.ipv4, ipv4Packet(Protocol.sctp, sctp))
    : ethernetFrame(EtherType.ipv6, ipv6Packet(Protocol.sctp, sctp));
}

/** A server's packet of one chunk to the client. */
function reply(chunk: number, sourcePort: number): Uint8Array {
  const sctp = sctpPacket(chunk, new Uint8Array(16).fill(3));
  const view = new DataView(sctp.buffer);
  view.setUint16(0, sourcePort);
  view.setUint16(2, 40000);
  fillSctpChecksum(view, 0, sctp.length);
  const frame = ethernetFrame(EtherType.ipv4, ipv4Packet(Protocol.sctp, sctp));
  return readdressed(frame, '10.0.0.7', '10.0.0.1');
}

function stateOf(bench: Bench): string | undefined {
  return bench.director.administration.connections()[0]?.state;
}

for (const family of [4, 6] as const) {
  test(`IPv${family} NAT changes port and address, and CRC32c is right again`, () => {
    const bench = makeBench();
    addService(bench, 'sctp', family, PORT, { method: 'masq', port: 9000 });
    const { sent } = bench.receive(request(SctpChunk.init, family));
    const packet = parsed(sent[0]);
    assert.equal(packet.destinationPort, 9000);
    const { view, transport, networkEnd } = packet;
    assert.ok(sctpChecksumIsRight(view, transport, networkEnd - transport));
  });
}

test('replies get the VIP and its port', () => {
  const bench = makeBench();
  addService(bench, 'sctp', 4, PORT, { method: 'masq', port: 9000 });
  bench.receive(request(SctpChunk.init));
  const packet = parsed(bench.receive(reply(SctpChunk.initAck, 9000)).sent[0]);
  assert.equal(packet.source, '10.0.0.3');
  assert.equal(packet.sourcePort, PORT);
  const { view, transport, networkEnd } = packet;
  assert.ok(sctpChecksumIsRight(view, transport, networkEnd - transport));
  assert.equal(stateOf(bench), 'C-SENT');
});

test('an association through NAT, state by state', () => {
  const bench = makeBench();
  addService(bench, 'sctp', 4, PORT, { method: 'masq' });
  const steps: [Uint8Array, string][] = [
    [request(SctpChunk.init), 'INIT1'],
    [request(SctpChunk.init), 'INIT'],
    [reply(SctpChunk.initAck, PORT), 'C-SENT'],
    [request(SctpChunk.cookieEcho), 'C-REPLIED'],
    [reply(SctpChunk.cookieAck, PORT), 'ESTABLISHED'],
    [request(SctpChunk.data), 'ESTABLISHED'],
    [request(SctpChunk.shutdown), 'S-RECEIVED'],
    [reply(SctpChunk.shutdownAck, PORT), 'S-ACK-SENT'],
    [request(SctpChunk.shutdownComplete), 'CLOSED'],
  ];
  for (const [frame, state] of steps) {
    assert.equal(bench.receive(frame).verdict, Verdict.taken);
    assert.equal(stateOf(bench), state);
    const [service] = bench.director.administration.services();
    assert.equal(service?.destinations[0]?.activeConnections, state === 'ESTABLISHED' ? 1 : 0);
  }
});

test('only INIT begins, any chunk but ABORT with sloppy_sctp; a closed association may begin again', () => {
  for (const sloppy_sctp of [0, 1]) {
    const bench = makeBench({ settings: { sloppy_sctp } });
    addService(bench, 'sctp', 4, PORT, {});
    assert.equal(bench.receive(request(SctpChunk.abort)).verdict, Verdict.pass);
    assert.equal(
      bench.receive(request(SctpChunk.data)).verdict,
      sloppy_sctp === 1 ? Verdict.taken : Verdict.pass,
    );
  }
  for (const [conn_reuse_mode, connections] of [
    [0, 1],
    [1, 2],
  ]) {
    const bench = makeBench({ settings: { conn_reuse_mode: conn_reuse_mode as number } });
    addService(bench, 'sctp', 4, PORT, {});
    for (const chunk of [SctpChunk.init, SctpChunk.abort, SctpChunk.init]) bench.receive(request(chunk));
    const [service] = bench.director.administration.services();
    assert.equal(service?.statistics.connections, connections);
    assert.equal(stateOf(bench), conn_reuse_mode === 0 ? 'INIT' : 'INIT1');
  }
});

test('the first INIT lives four seconds, an established association fifteen minutes', () => {
  const bench = makeBench();
  addService(bench, 'sctp', 4, PORT, {});
  const expiresIn = (): number | undefined => bench.director.administration.connections()[0]?.expiresIn;
  bench.receive(request(SctpChunk.init));
  assert.equal(expiresIn(), 4);
  bench.receive(request(SctpChunk.cookieEcho));
  assert.equal(expiresIn(), 900);
  bench.receive(request(SctpChunk.abort));
  assert.equal(expiresIn(), 61);
});
