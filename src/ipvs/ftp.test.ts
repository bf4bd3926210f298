import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ethernetFrame, ipv4Packet, tcpSegment } from '../../test/frames.ts';
import { Protocol } from '../wire/ipv4.ts';
import { readTcp, TcpFlag, tcpHeaderLength, tcpSum } from '../wire/tcp.ts';
import { addService, type Bench, makeBench, parsed, readdressed } from './director.fixture.ts';
import { FtpEndpoint, findPassiveCommand, readExtended, readHostPort } from './ftp.ts';

const CLIENT = '192.168.77.5';
const VIP = '10.0.0.3';
const RIP = '10.0.0.123';
const { syn, ack, psh } = TcpFlag;

interface Ends {
  sequence: number;
  acknowledgement: number;
}

function segment(
  fromServer: boolean,
  flags: number,
  { sequence, acknowledgement }: Ends,
  text = '',
): Uint8Array {
  const [sourcePort, destinationPort] = fromServer ? [21, 40000] : [40000, 21];
  const data = Uint8Array.from(text, letter => letter.charCodeAt(0));
  const fields = { sourcePort, destinationPort, flags, sequence, acknowledgement };
  const frame = ethernetFrame(0x0800, ipv4Packet(Protocol.tcp, tcpSegment(4, fields, data)));
  return fromServer ? readdressed(frame, RIP, CLIENT) : readdressed(frame, CLIENT, VIP);
}

/** A control connection whose ends number as TCP does, and check what they get. */
class Control {
  readonly bench: Bench = makeBench();
  client = 1000;
  server = 0xffffffc0;
  clientExpects = 0;

  constructor() {
    addService(this.bench, 'tcp', 4, 21, { method: 'masq', address: RIP });
    this.up('', syn);
    this.down('', syn | ack);
    this.up('');
  }

  /** @returns what the server gets */
  up(text: string, flags: number = ack | psh): string {
    const ends = { sequence: this.client, acknowledgement: this.clientExpects };
    const { sent } = this.bench.receive(segment(false, flags, ends, text));
    this.client = (this.client + text.length + (flags & syn ? 1 : 0)) >>> 0;
    const packet = parsed(sent[0]);
    const header = readTcp(packet.view, packet.transport);
    assert.equal(
      tcpSum(packet.view, 4, packet.network, packet.transport, packet.networkEnd - packet.transport),
      0xffff,
    );
    if (flags & ack)
      assert.equal(header.acknowledgement, this.server, 'the server is acknowledged what it sent');
    return textOf(sent[0]);
  }

  /** @returns what the client gets */
  down(text: string, flags: number = ack | psh): string {
    const ends = { sequence: this.server, acknowledgement: this.client };
    const received = this.#toClient(segment(true, flags, ends, text));
    this.server = (this.server + text.length + (flags & syn ? 1 : 0)) >>> 0;
    this.clientExpects = (this.clientExpects + received.length + (flags & syn ? 1 : 0)) >>> 0;
    return received;
  }

  /** The last segment again. */
  again(text: string): string {
    const ends = { sequence: (this.server - text.length) >>> 0, acknowledgement: this.client };
    const expected = this.clientExpects;
    const { sent } = this.bench.receive(segment(true, ack | psh, ends, text));
    const received = textOf(sent[0]);
    const packet = parsed(sent[0]);
    assert.equal(
      (readTcp(packet.view, packet.transport).sequence + received.length) >>> 0,
      expected,
      'it ends where the client knows it to end',
    );
    return received;
  }

  #toClient(frame: Uint8Array): string {
    const { sent } = this.bench.receive(frame);
    const packet = parsed(sent[0]);
    const header = readTcp(packet.view, packet.transport);
    if (this.clientExpects === 0) this.clientExpects = header.sequence;
    assert.equal(header.sequence, this.clientExpects, 'what the client gets joins what it has');
    assert.equal(
      tcpSum(packet.view, 4, packet.network, packet.transport, packet.networkEnd - packet.transport),
      0xffff,
    );
    return textOf(sent[0]);
  }
}

function textOf(frame: Uint8Array | undefined): string {
  const packet = parsed(frame);
  const data = packet.transport + tcpHeaderLength(packet.view, packet.transport);
  return String.fromCharCode(...packet.bytes.subarray(data, packet.networkEnd));
}

test('both ends see an unbroken stream, whatever is answered', () => {
  const talk = fc.record({
    ask: fc.constantFrom('PASV\r\n', 'EPSV\r\n', 'epsv 1\r\n', 'NOOP\r\n', 'LIST\r\n'),
    port: fc.integer({ min: 1, max: 65535 }),
    again: fc.boolean(),
    more: fc.string({ unit: 'grapheme-ascii', maxLength: 20 }),
  });
  fc.assert(
    fc.property(fc.array(talk, { maxLength: 12 }), talks => {
      const control = new Control();
      for (const { ask, port, again, more } of talks) {
        assert.equal(control.up(ask), ask);
        const isPassive = ask.startsWith('PASV');
        const isExtended = /^epsv/i.test(ask);
        const numbers = (address: string) => `${address.replaceAll('.', ',')},${port >>> 8},${port & 0xff}`;
        const answer = isPassive
          ? `227 x (${numbers(RIP)})\r\n`
          : isExtended
            ? `229 x (|1|${RIP}|${port}|)\r\n`
            : `200 ${more}\r\n`;
        const expected = isPassive
          ? `227 x (${numbers(VIP)})\r\n`
          : isExtended
            ? `229 x (|||${port}|)\r\n`
            : answer;
        assert.equal(control.down(answer), expected);
        if (again) assert.equal(control.again(answer), expected);
        control.up('');
        control.down(more);
        control.up('');
      }
    }),
  );
});

test('the data connection of a passive answer takes the first client port that comes, and ends before its control', () => {
  const control = new Control();
  control.up('PASV\r\n');
  control.down('227 x (10,0,0,123,195,80)\r\n');
  const { bench } = control;
  const { director } = bench;
  assert.equal(director.ftp.waiting, 1);
  const open = (port: number) =>
    readdressed(
      ethernetFrame(
        0x0800,
        ipv4Packet(Protocol.tcp, tcpSegment(4, { sourcePort: port, destinationPort: 50000, flags: syn })),
      ),
      CLIENT,
      VIP,
    );
  assert.equal(parsed(bench.receive(open(41000)).sent[0]).destination, RIP);
  assert.equal(director.ftp.waiting, 0);
  assert.equal(bench.receive(open(41001)).sent.length, 0, 'only one');
  const ports = director.administration
    .connections()
    .map(({ clientPort, virtualPort }) => [clientPort, virtualPort]);
  assert.deepEqual(ports.sort(), [
    [40000, 21],
    [41000, 50000],
  ]);
  for (let now = 1000; now < 1_200_000; now += 10_000) director.expire(now);
  assert.equal(director.connections.size, 0);
});

test('a passive answer that nobody follows is forgotten', () => {
  const control = new Control();
  control.up('EPSV\r\n');
  control.down('229 x (|||50000|)\r\n');
  const { director } = control.bench;
  director.expire(130_000);
  assert.equal(director.ftp.waiting, 0);
  assert.equal(director.connections.size, 1);
});

test('no text throws, and none that is not understood is changed', () => {
  const noise = fc.oneof(
    fc.string({ maxLength: 60 }),
    fc
      .tuple(
        fc.constantFrom(
          '227 ',
          '229 ',
          'PORT',
          'EPRT ',
          'PASV\r\n',
          'EPSV ',
          'EPSV\r',
          '227 (',
          '229 (|||',
          'EPRT |1|',
          'EPRT |2|::',
        ),
        fc.string({
          unit: fc.constantFrom('0', '9', ',', '|', '(', ' ', '1', '.', '\r', '\n', ':'),
          maxLength: 40,
        }),
      )
      .map(([first, rest]) => first + rest),
  );
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.boolean(), noise), { maxLength: 20 }), lines => {
      const control = new Control();
      for (const [fromServer, line] of lines) {
        const text = line.replace(/[^\x20-\x7e\r\n]/g, '?');
        if (!fromServer) assert.equal(control.up(text), text);
        else if (!/^22[79]/.test(text)) assert.equal(control.down(text), text);
        else control.down(text);
      }
    }),
  );
});

function bytesOf(text: string): Uint8Array {
  return Uint8Array.from(text, letter => letter.charCodeAt(0));
}

test('host and port: what is read, and what is refused', () => {
  const found = new FtpEndpoint();
  const read = (text: string) => readHostPort(bytesOf(text), 0, text.length, '227 ', '(', found);
  assert.ok(read('227 at (10,0,0,7,195,80)'));
  assert.deepEqual([[...found.address], found.port, found.from, found.to], [[10, 0, 0, 7], 50000, 8, 23]);
  assert.ok(read('227 10,0,0,7,0,21\r'));
  for (const text of [
    '227 (10,0,0,7,195,80',
    '227 (10,0,0,7,195)',
    '227 (10,0,0,256,1,2)',
    '22',
    '228 (1,2,3,4,5,6)',
    '227 (a)',
    '227 (',
  ]) {
    assert.ok(!read(text), text);
  }
});

test('extended: any delimiter, either family, a port that is one', () => {
  const found = new FtpEndpoint();
  const read = (text: string, family: 4 | 6, mayOmit = false) =>
    readExtended(bytesOf(text), 0, text.length, 'eprt', ' ', family, mayOmit, found);
  assert.ok(read('EPRT |1|192.0.2.1|50000|', 4));
  assert.deepEqual([[...found.address], found.port], [[192, 0, 2, 1], 50000]);
  assert.ok(read('eprt !2!2001:db8::1!21!', 6));
  assert.equal(found.address.length, 16);
  assert.ok(read('EPRT |||7|', 4, true));
  for (const text of [
    'EPRT |||7|',
    'EPRT |2|::1|7|',
    'EPRT |1|1.2.3|7|',
    'EPRT |1|1.2.3.4|0|',
    'EPRT |1|1.2.3.4|65536|',
    'EPRT |1|1.2.3.4|7',
    'EPRT ',
    'EPRT |',
  ]) {
    assert.ok(!read(text, 4), text);
  }
});

test('passive commands', () => {
  const find = (text: string, family: 4 | 6 = 4) => findPassiveCommand(bytesOf(text), 0, text.length, family);
  assert.equal(find('NOOP\r\npasv\r\n'), 'PASV');
  assert.equal(find('PASV\r\n', 6), undefined);
  assert.equal(find('EPSV\r\n', 6), 'EPSV');
  assert.equal(find('EPSV 2\r\n', 6), 'EPSV');
  assert.equal(find('EPSV 2\r\n'), 'stop');
  assert.equal(find('EPSV ALL\r\n'), 'stop');
  assert.equal(find('PASV\n'), undefined);
});
