import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ethernetFrame, ipv4Packet, udpDatagram } from '../../test/frames.ts';
import { Protocol } from '../wire/ipv4.ts';
import { addService, makeBench, parsed, readdressed } from './director.fixture.ts';
import { findCallId, readCallId } from './sip.ts';

function frameOf(text: string, sourcePort = 40000): Uint8Array {
  const data = Uint8Array.from(text, letter => letter.charCodeAt(0) & 0xff);
  const frame = ethernetFrame(0x0800, ipv4Packet(Protocol.udp, udpDatagram(4, data, sourcePort, 5060)));
  return readdressed(frame, '192.168.77.5', '10.0.0.3');
}

const HEAD = 'INVITE sip:a@b SIP/2.0\r\n';

test('a Call-ID is found in any case, in the short form, and after continued lines', () => {
  const callId = (text: string) => readCallId(parsed(frameOf(text)));
  assert.equal(callId(`${HEAD}Call-ID: a1@h\r\n`), 'a1@h');
  assert.equal(callId(`${HEAD}cAlL-iD :\t a1@h\n`), 'a1@h');
  assert.equal(callId(`${HEAD}i:b\r\n`), 'b');
  assert.equal(callId(`${HEAD}Via: x\r\n Call-ID: no\r\nCall-ID: yes\r\n`), 'yes');
  assert.equal(callId(`${HEAD}Call-ID: ${'x'.repeat(255)}\r\n`)?.length, 255);
  for (const text of [
    '',
    'Call-ID: first line\r\n',
    `${HEAD}Call-ID: a`,
    `${HEAD}Call-ID: a b\r\n`,
    `${HEAD}Call-ID: a@\r\n`,
    `${HEAD}Call-ID: ${'x'.repeat(256)}\r\n`,
    `${HEAD}Invite: a\r\n`,
  ]) {
    assert.equal(callId(text), undefined, JSON.stringify(text));
  }
});

test('no message throws, and what is found lies in it', () => {
  const word = fc.constantFrom(
    '\r',
    '\n',
    '\r\n',
    'Call-ID',
    'i',
    ':',
    ' ',
    '\t',
    'abc@h',
    '@',
    HEAD,
    '\u00ff',
  );
  fc.assert(
    fc.property(fc.array(word, { maxLength: 30 }), words => {
      const bytes = Uint8Array.from(words.join(''), letter => letter.charCodeAt(0));
      const at = findCallId(bytes, 0, bytes.length);
      assert.ok(at === -1 || (at > 0 && at < bytes.length));
    }),
  );
});

test('many calls of one client from one port: a template each, found again', () => {
  const bench = makeBench({ capacity: 4096 });
  const { administration } = bench.director;
  const key = addService(bench, 'udp', 4, 5060, { address: '10.0.0.7' });
  const service = administration.service(key);
  assert.ok(service?.destinations[0]);
  administration.addDestination(key, { ...service.destinations[0], address: '10.0.0.8' });
  administration.editService({ ...service, persistenceTimeout: 30, persistenceEngine: 'sip' });
  const calls = 600;
  const servers: number[] = [];
  for (let round = 0; round < 2; round++) {
    for (let call = 0; call < calls; call++) {
      const { sent } = bench.receive(frameOf(`${HEAD}Call-ID: ${call}@h\r\n`, 1000 + 2 * call + round));
      const server = sent[0]?.[5];
      assert.ok(server !== undefined);
      if (round === 0) servers[call] = server;
      else assert.equal(server, servers[call]);
    }
  }
  assert.equal(new Set(servers).size, 2);
  const templates = administration.connections().filter(({ template }) => template);
  assert.equal(templates.length, calls);
  assert.ok(
    templates.every(
      ({ engine, engineData, clientPort }) =>
        engine === 'sip' && /^\d+@h$/.test(engineData) && clientPort === 0,
    ),
  );
  for (let now = 1000; now < 800_000; now += 10_000) bench.director.expire(now);
  assert.equal(bench.director.connections.size, 0);
});
