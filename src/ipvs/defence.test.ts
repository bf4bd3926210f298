import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { ethernetFrame, ipv4Packet, tcpSegment, udpDatagram } from '../../test/frames.ts';
import { TcpFlag } from '../wire/tcp.ts';
import { addService, type Bench, makeBench, readdressed } from './director.fixture.ts';
import type { Director } from './director.ts';
import { Drop } from './drops.ts';

const VIP = '10.0.0.3';

/** Pseudo-random and the same every time (xorshift32). */
function sequence(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

function segment(client: number, port: number, flags: number): Uint8Array {
  const bytes = tcpSegment(4, { sourcePort: 1000 + client, destinationPort: port, flags });
  const source = `192.168.${80 + (client >> 7)}.${1 + (client & 127)}`;
  return readdressed(ethernetFrame(0x0800, ipv4Packet(6, bytes)), source, VIP);
}

function datagram(client: number): Uint8Array {
  const bytes = udpDatagram(4, new Uint8Array(4), 1000 + client);
  const source = `192.168.${80 + (client >> 7)}.${1 + (client & 127)}`;
  return readdressed(ethernetFrame(0x0800, ipv4Packet(17, bytes)), source, VIP);
}

function countByState(director: Director): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { protocol, state, template, virtualPort } of director.administration.connections()) {
    const kind = `${protocol === 17 ? 'UDP' : 'TCP'} ${state}${template ? ' template' : ''} ${virtualPort}`;
    counts[kind] = (counts[kind] ?? 0) + 1;
  }
  return counts;
}

interface Thinning {
  connections: number;
  counts: { t: number; states: Record<string, number> }[];
}

test('drop_entry thins out a table as the kernel was seen to', () => {
  const file = new URL('../../test/recorded/random/drop-entry.json', import.meta.url);
  const recorded = JSON.parse(readFileSync(file, 'utf8')) as Thinning;
  const bench = makeBench({ capacity: 8192, random: sequence(7) });
  const { director } = bench;
  for (const port of [80, 82, 83]) addService(bench, 'tcp', 4, port, {});
  addService(bench, 'udp', 4, 53, {});
  const persistent = addService(bench, 'tcp', 4, 81, {});
  const service = director.administration.service(persistent);
  assert.ok(service);
  director.administration.editService({ ...service, persistenceTimeout: 300 });
  for (let client = 0; client < recorded.connections; client++) {
    for (const port of [80, 81, 82, 83]) bench.receive(segment(client, port, TcpFlag.syn), 0);
    for (let times = 0; times < 12; times++) bench.receive(segment(client, 83, TcpFlag.ack), 0);
    for (let times = 0; times < 3; times++) bench.receive(segment(client, 82, TcpFlag.ack), 0);
    bench.receive(datagram(client), 0);
  }
  director.set('drop_entry', '3');
  let now = 0;
  for (const { t, states } of recorded.counts.slice(1)) {
    for (; now < t * 1000; now += 1000) director.expire(now + 1000);
    const counts = countByState(director);
    const kinds = new Set([...Object.keys(states), ...Object.keys(counts)]);
    for (const kind of kinds) {
      const [mine, theirs] = [counts[kind] ?? 0, states[kind] ?? 0];
      // Four standard deviations of the difference of two draws, at their widest.
      const tolerance = 4 * Math.sqrt(recorded.connections / 2);
      assert.ok(Math.abs(mine - theirs) <= tolerance, `${kind} after ${t} s: ${mine}, recorded ${theirs}`);
    }
  }
  assert.equal(countByState(director)['TCP ESTABLISHED 83'], recorded.connections);
  assert.ok(director.defence.entriesDropped > 600);
});

function openings(bench: Bench, from: number, count: number, now: number): number {
  let opened = 0;
  for (let client = from; client < from + count; client++) {
    opened += bench.receive(segment(client, 80, TcpFlag.syn), now).sent.length;
  }
  return opened;
}

test('the automatic levels come and go with free records', () => {
  const bench = makeBench({ capacity: 100, random: sequence(3) });
  const { director } = bench;
  addService(bench, 'tcp', 4, 80, {});
  for (const name of ['drop_entry', 'drop_packet', 'secure_tcp']) director.set(name, '1');
  assert.equal(openings(bench, 0, 76, 0), 76);
  for (let client = 0; client < 76; client++) bench.receive(segment(client, 80, TcpFlag.ack), 0);
  director.expire(1000);
  assert.equal(director.settings.drop_entry, 2);
  assert.equal(director.settings.drop_packet, 2);
  assert.equal(director.settings.secure_tcp, 2);
  // 24 of 25 that there should be are free: one in 25 is dropped, and not the first.
  assert.equal(director.defence.dropRate, 25);
  assert.equal(openings(bench, 100, 24, 1000), 24);
  director.expire(2000);
  assert.equal(director.defence.dropRate, 1);
  assert.equal(openings(bench, 200, 4, 2000), 0);
  assert.equal(director.drops[Drop.overload], 4);
  for (let now = 3000; now < 200_000; now += 1000) director.expire(now);
  assert.equal(director.settings.drop_packet, 1);
  assert.equal(director.defence.dropRate, 0);
  // What was half open is gone; of the established ones some had been silent for a minute while records were short.
  assert.ok(director.connections.size >= 60 && director.connections.size <= 76);
});

test('settings of the defence are in force at once', () => {
  const bench = makeBench({ random: sequence(3) });
  const { director } = bench;
  addService(bench, 'tcp', 4, 80, {});
  director.set('am_droprate', '1');
  director.set('drop_packet', '3');
  assert.equal(openings(bench, 0, 3, 0), 0);
  director.set('drop_packet', '0');
  assert.equal(openings(bench, 0, 3, 0), 3);
  director.set('secure_tcp', '3');
  assert.equal(openings(bench, 10, 1, 0), 1);
  assert.equal(countByState(director)['TCP SYNACK 80'], 1);
});
