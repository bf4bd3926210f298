/** Settings that decide whether the director directs at all: `cache_bypass` and `backup_only`. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ethernetFrame, ipv4Packet, tcpSegment } from '../../test/frames.ts';
import { Protocol } from '../wire/ipv4.ts';
import { TcpFlag } from '../wire/tcp.ts';
import { addService, makeBench, parsed, readdressed } from './director.fixture.ts';
import { Verdict } from './director.ts';
import { MarkRules, parseMarkRule } from './mark-rules.ts';

function syn(destination: string, port = 80): Uint8Array {
  const segment = tcpSegment(4, { sourcePort: 40000, destinationPort: port, flags: TcpFlag.syn });
  return readdressed(ethernetFrame(0x0800, ipv4Packet(Protocol.tcp, segment)), '192.168.77.5', destination);
}

test('cache_bypass: a marked packet without server goes where it was addressed, as a connection without server', () => {
  const bench = makeBench();
  const { director } = bench;
  director.marks = new MarkRules([parseMarkRule('tcp port 80 mark 7')]);
  const key = addService(bench, 'tcp', 4, 80, {});
  const service = director.administration.service(key);
  assert.ok(service);
  director.administration.addService({ ...service, key: { mark: 7, family: 4 } });
  const refused = bench.receive(syn('198.51.100.9'));
  assert.equal(refused.verdict, Verdict.dropped);
  assert.equal(parsed(refused.sent[0]).protocol, Protocol.icmp);
  director.set('cache_bypass', '1');
  assert.equal(director.explain(parsed(syn('198.51.100.9')), 2, 1000).departure?.method, 'bypass');
  const { verdict, sent } = bench.receive(syn('198.51.100.9'));
  assert.equal(verdict, Verdict.taken);
  const packet = parsed(sent[0]);
  assert.deepEqual([packet.destination, packet.bytes[packet.start + 5]], ['198.51.100.9', 9]);
  assert.equal(packet.view.getUint8(packet.network + 8), 63);
  const [connection] = director.administration.connections();
  assert.deepEqual([connection?.destination, connection?.destinationPort], ['0.0.0.0', 0]);
  assert.equal(bench.receive(syn('198.51.100.9')).verdict, Verdict.taken, 'the next one, by its connection');
  assert.equal(
    bench.receive(syn('10.0.0.3')).verdict,
    Verdict.dropped,
    'an own address is refused as before',
  );
});

test('backup_only: while its backup daemon runs, the director leaves clients to the master, but not replies', () => {
  const bench = makeBench();
  const { director } = bench;
  addService(bench, 'tcp', 4, 80, { method: 'masq' });
  const daemon = {
    role: 'backup',
    interfaceName: 'eth0',
    syncId: 0,
    maximumLength: 1472,
    group: '224.0.0.81',
    port: 8848,
    ttl: 1,
  } as const;
  assert.equal(bench.receive(syn('10.0.0.3')).verdict, Verdict.taken);
  director.administration.startSyncDaemon(daemon);
  assert.equal(bench.receive(syn('10.0.0.3')).verdict, Verdict.taken, 'not unless it is asked for');
  director.set('backup_only', '1');
  assert.equal(bench.receive(syn('10.0.0.3')).verdict, Verdict.pass);
  const answer = tcpSegment(4, { sourcePort: 80, destinationPort: 40000, flags: TcpFlag.syn | TcpFlag.ack });
  const reply = readdressed(
    ethernetFrame(0x0800, ipv4Packet(Protocol.tcp, answer)),
    '10.0.0.7',
    '192.168.77.5',
  );
  assert.equal(parsed(bench.receive(reply).sent[0]).source, '10.0.0.3');
  director.administration.stopSyncDaemon('backup');
  assert.equal(bench.receive(syn('10.0.0.3')).verdict, Verdict.taken);
});
