/** Forwarding, ICMP, fragments and bad frames: hosts and routers on segments. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseAddress, parseMac } from '../wire/address.ts';
import { writeEthernet } from '../wire/ethernet.ts';
import { Packet } from '../wire/packet.ts';
import { Host } from './host.ts';
import type { IcmpError } from './icmp.ts';
import { Segment } from './segment.ts';
import { Simulation } from './simulation.ts';
import type { UdpMessage } from './udp.ts';

/** left (10.0.0.1) — router (.254) — right (10.0.1.1), both families; the right segment's MTU may be smaller. */
function routed(mtu = 1500) {
  const simulation = new Simulation();
  const [near, far] = [new Segment(simulation, 'near'), new Segment(simulation, 'far')];
  const host = (name: string, segment: Segment, octet: number, net: number, size = 1500): Host => {
    const made = new Host(simulation, name);
    made.addInterface({
      name: 'eth0',
      mac: `02:00:00:00:0${net}:${octet.toString(16).padStart(2, '0')}`,
      segment,
      mtu: size,
      addresses: [`10.0.${net}.${octet}/24`, `2001:db8:${net}::${octet}/64`],
    });
    return made;
  };
  const left = host('left', near, 1, 0);
  const right = host('right', far, 1, 1, mtu);
  const router = host('router', near, 254, 0);
  router.addInterface({
    name: 'eth1',
    mac: '02:00:00:00:01:fe',
    segment: far,
    mtu,
    addresses: ['10.0.1.254/24', '2001:db8:1::254/64'],
  });
  router.sysctls.write('net/ipv4/ip_forward', '1');
  router.sysctls.write('net/ipv6/conf/all/forwarding', '1');
  left.addRoute('default', '10.0.0.254');
  left.addRoute('default', '2001:db8::254');
  right.addRoute('default', '10.0.1.254');
  right.addRoute('default', '2001:db8:1::254');
  const frames: Packet[] = [];
  far.tap((_time, bytes) => {
    const packet = new Packet(4096);
    if (packet.load(bytes) === 0 && packet.family !== 0) frames.push(packet);
  });
  return { simulation, near, far, left, right, router, frames };
}

for (const [family, target, ttlAt] of [
  [4, '10.0.1.1', 8],
  [6, '2001:db8:1::1', 7],
] as const) {
  test(`IPv${family}: a router takes one from the TTL, and expired packets are told`, async () => {
    const each = routed();
    const report = await each.simulation.settle(each.left.ping(target));
    assert.equal(report.answers[0]?.ttl, 63);
    const request = each.frames.find(frame => frame.destination === target);
    assert.equal(request?.view.getUint8(request.network + ttlAt), 63);
    const expired = await each.simulation.settle(each.left.ping(target, { ttl: 1 }));
    assert.equal(expired.answers[0]?.error, 'time-exceeded');
    assert.match(expired.answers[0]?.from ?? '', /254$/);
    assert.equal(each.router.dropped.get('ttl'), 1);
  });

  test(`IPv${family}: no route, no neighbour, no forwarding`, async () => {
    const each = routed();
    const elsewhere = family === 4 ? '192.0.2.1' : '2001:db8:99::1';
    const nowhere = await each.simulation.settle(each.left.ping(elsewhere));
    assert.equal(nowhere.answers[0]?.error, 'net-unreachable');
    const absent = await each.simulation.settle(each.left.ping(target.replace(/1$/, '9')));
    assert.equal(absent.answers[0]?.error, 'host-unreachable');
    assert.match(absent.answers[0]?.from ?? '', /254$/);
    each.router.sysctls.write(family === 4 ? 'net/ipv4/ip_forward' : 'net/ipv6/conf/all/forwarding', '0');
    const silent = await each.simulation.settle(each.left.ping(target));
    assert.deepEqual(silent.answers, []);
    assert.equal(each.router.dropped.get('not-for-this-host'), 1);
  });

  test(`IPv${family}: UDP is delivered; a closed port is told`, () => {
    const each = routed();
    const messages: UdpMessage[] = [];
    const errors: IcmpError[] = [];
    each.right.udp.open(53).onMessage = message => messages.push(message);
    const socket = each.left.udp.open();
    socket.onError = error => errors.push(error);
    socket.send(target, 53, Uint8Array.of(1, 2, 3));
    socket.send(target, 54, Uint8Array.of(4));
    each.simulation.runUntilIdle();
    assert.deepEqual([...(messages[0]?.data ?? [])], [1, 2, 3]);
    assert.equal(messages[0]?.port, socket.port);
    assert.equal(messages[0]?.localAddress, target);
    assert.deepEqual(
      errors.map(error => [error.kind, error.from, error.destinationPort]),
      [['port-unreachable', target, 54]],
    );
  });

  test(`IPv${family}: large datagrams are cut and put together again, in any order`, () => {
    const each = routed();
    const data = Uint8Array.from({ length: 20_000 }, (_, index) => index & 0xff);
    const messages: UdpMessage[] = [];
    each.right.udp.open(53).onMessage = message => messages.push(message);
    const socket = each.left.udp.open();
    socket.send(target, 53, data);
    each.simulation.runUntilIdle();
    each.far.impairment = () => [each.simulation.random.fraction() * 3];
    socket.send(target, 53, data);
    each.simulation.runUntilIdle();
    // The neighbour cache keeps three frames of the first burst while it asks; Linux of old loses the rest likewise.
    assert.equal(messages.length, 1);
    assert.deepEqual(messages[0]?.data, data);
    assert.ok(each.frames.some(frame => frame.isFragment));
  });

  test(`IPv${family}: TCP finds a smaller path MTU behind a router`, () => {
    const each = routed(1300);
    // The far host announces its own MTU in its segment size, so let it claim more.
    each.right.setMtu(each.right.interfaces[1] as (typeof each.right.interfaces)[0], 1500);
    const received: number[] = [];
    each.right.tcp.listen({ port: 80 }, connection => {
      connection.onData = bytes => received.push(...bytes);
    });
    const connection = each.left.tcp.open({ address: target, port: 80 });
    connection.write(new Uint8Array(50_000).fill(7));
    each.simulation.runUntilIdle();
    assert.equal(received.length, 50_000);
    assert.ok((each.router.dropped.get('too-big') ?? 0) > 0);
    assert.ok(each.frames.every(frame => frame.networkEnd - frame.network <= 1300));
  });
}

test('IPv4 without DF is fragmented by the router on the way', async () => {
  const each = routed(600);
  const report = await each.simulation.settle(each.left.ping('10.0.1.1', { size: 1400 }));
  assert.equal(report.answers[0]?.length, 1408);
  assert.ok(each.frames.filter(frame => frame.isFragment).length >= 3);
});

test('overlapping fragments discard the datagram', () => {
  const each = routed();
  const sent: Uint8Array[] = [];
  each.left.interfaceNamed('eth0')?.tap((_time, direction, frame) => {
    if (direction === 'out') sent.push(frame.slice());
  });
  const socket = each.left.udp.open();
  socket.send('10.0.0.254', 9, new Uint8Array(3000));
  each.simulation.runUntilIdle();
  const fragments = sent.filter(frame => frame[12] === 8 && frame[13] === 0);
  assert.equal(fragments.length, 3);
  each.router.udp.open(9).onMessage = () => assert.fail('an overlapped datagram was delivered');
  const shifted = (fragments[1] as Uint8Array).slice();
  const view = new DataView(shifted.buffer);
  view.setUint16(20, view.getUint16(20) - 1);
  view.setUint16(24, view.getUint16(24) + 1);
  const eth0 = each.router.interfaceNamed('eth0');
  for (const frame of [fragments[0], shifted, fragments[1], fragments[2]]) eth0?.deliver(frame as Uint8Array);
  assert.equal(each.router.dropped.get('fragment-overlap'), 1);
});

test('a packet from an own address, to loopback or from a group is a martian', () => {
  const each = routed();
  const inject = (source: string, destination: string): void => {
    const socket = new Host(new Simulation(), 'forger');
    const eth0 = socket.addInterface({ name: 'eth0', mac: '02:00:00:00:00:66', addresses: [`${source}/8`] });
    const frames: Uint8Array[] = [];
    eth0.tap((_time, _direction, frame) => frames.push(frame));
    const neighbour = socket.neighbourhood.arp.obtain(2, parseAddress(destination) as Uint8Array, 0);
    assert.ok(neighbour);
    const mac = each.router.interfaces[1]?.mac as Uint8Array;
    socket.neighbourhood.arp.set(neighbour, mac, 'PERMANENT', 0);
    socket.addRoute(`${destination}/32`, undefined, eth0);
    const target = parseAddress(destination) as Uint8Array;
    socket.ip.sendOnLink(eth0, parseAddress(source) as Uint8Array, target, 199, new Uint8Array(8), mac);
    for (const frame of frames) each.router.interfaces[1]?.deliver(frame);
  };
  inject('10.0.0.254', '10.0.0.254');
  inject('224.0.0.5', '10.0.0.254');
  assert.equal(each.router.dropped.get('martian-source'), 2);
  inject('10.0.0.1', '127.0.0.1');
  assert.equal(each.router.dropped.get('martian-destination'), 1);
});

test('an unknown protocol is told', () => {
  const each = routed();
  const before = each.frames.length;
  each.left.ip.send({
    destination: parseAddress('10.0.1.1') as Uint8Array,
    protocol: 199,
    payload: new Uint8Array(8),
  });
  each.simulation.runUntilIdle();
  const answers = each.frames.slice(before).filter(frame => frame.protocol === 1);
  assert.deepEqual(
    answers.map(frame => [frame.view.getUint8(frame.transport), frame.view.getUint8(frame.transport + 1)]),
    [[3, 2]],
  );
});

test('taking an interface down takes its routes and addresses out of use, and up again brings them back', async () => {
  const each = routed();
  const eth1 = each.router.interfaceNamed('eth1');
  assert.ok(eth1);
  each.router.setLink(eth1, false);
  assert.equal(each.router.isLocal(parseAddress('10.0.1.254') as Uint8Array), false);
  const gone = await each.simulation.settle(each.left.ping('10.0.1.1'));
  assert.equal(gone.answers[0]?.error, 'net-unreachable');
  each.router.setLink(eth1, true);
  const back = await each.simulation.settle(each.left.ping('10.0.1.1'));
  assert.equal(back.answers[0]?.error, undefined);
});

test('malformed and random frames are dropped under a name and never throw', () => {
  const names = /^[a-z0-9]+(-[a-z0-9]+)*$/;
  const each = routed();
  const eth0 = each.router.interfaceNamed('eth0');
  assert.ok(eth0);
  const samples: Uint8Array[] = [];
  each.near.tap((_time, frame) => samples.push(frame.slice()));
  each.right.tcp.listen({ port: 80 }, connection => connection.end());
  each.left.tcp.open({ address: '10.0.1.1', port: 80 }).write(new Uint8Array(10));
  each.left.udp.open().send('2001:db8::254', 9, new Uint8Array(2000));
  each.simulation.runUntilIdle();
  const mac = eth0.mac;
  const total = (): number => [...each.router.dropped.values()].reduce((sum, count) => sum + count, 0);
  // Header bytes are drawn so that many frames get past the first checks.
  const random = fc
    .tuple(fc.constantFrom(0x0800, 0x86dd, 0x0806, 0x8100), fc.uint8Array({ maxLength: 120 }))
    .map(([type, payload]) => {
      const frame = new Uint8Array(14 + payload.length);
      writeEthernet(frame, 0, mac, parseMac('02:00:00:00:00:01') as Uint8Array, type);
      frame.set(payload, 14);
      return frame;
    });
  const mutated = fc
    .tuple(
      fc.nat(samples.length - 1),
      fc.array(fc.tuple(fc.nat(120), fc.nat(255)), { maxLength: 4 }),
      fc.option(fc.nat(100)),
    )
    .map(([index, changes, length]) => {
      const frame = (samples[index] as Uint8Array).slice();
      frame.set(mac);
      for (const [at, value] of changes) if (at < frame.length) frame[at] = value;
      return length === null ? frame : frame.slice(0, length);
    });
  fc.assert(
    fc.property(fc.oneof(random, mutated, fc.uint8Array({ maxLength: 80 })), frame => {
      eth0.deliver(frame);
      each.simulation.runUntilIdle();
    }),
    { numRuns: 3000 },
  );
  assert.ok(total() > 500, `${total()} dropped`);
  for (const name of each.router.dropped.keys()) assert.match(name, names);
});
