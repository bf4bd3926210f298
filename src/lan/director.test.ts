/** A director in front of a host's stack: direct routing with a test double that knows one service. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Director } from '../ipvs/director.ts';
import type { Network, NextHop } from '../ipvs/network.ts';
import { formatMac, parseAddress } from '../wire/address.ts';
import { Ethernet, readEthernet } from '../wire/ethernet.ts';
import { decrementTtl, Ipv4 } from '../wire/ipv4.ts';
import { Packet } from '../wire/packet.ts';
import type { FrameDirector } from './director.ts';
import { Host } from './host.ts';
import { bodyText } from './http-message.ts';
import { HttpServer } from './http-server.ts';
import { Segment } from './segment.ts';
import { Simulation } from './simulation.ts';

const VIP = '10.0.0.3';

/** Sends TCP for the VIP to the real servers in turn by connection, as LVS-DR does. */
class DirectRouting implements FrameDirector {
  expired: number[] = [];
  #network: Network;
  #servers: Uint8Array[];
  #hops = new Map<number, NextHop>();

  constructor(network: Network, servers: readonly string[]) {
    this.#network = network;
    this.#servers = servers.map(each => parseAddress(each) as Uint8Array);
  }

  process(packet: Packet): number {
    if (packet.family !== 4 || packet.protocol !== 6 || packet.destination !== VIP) return 0;
    const index = packet.sourcePort % this.#servers.length;
    const hop = this.#hops.get(index) ?? this.#network.nextHop(this.#servers[index] as Uint8Array, 0, 4);
    if (!hop) return 1;
    this.#hops.set(index, hop);
    decrementTtl(packet.view, packet.network);
    packet.bytes.set(hop.sourceMac, packet.start + Ethernet.source);
    packet.bytes.set(hop.destinationMac, packet.start + Ethernet.destination);
    this.#network.transmit(packet.bytes, packet.start, packet.networkEnd, hop);
    return 1;
  }

  expire(now: number): void {
    this.expired.push(now);
  }
}

async function cluster() {
  const simulation = new Simulation();
  const segment = new Segment(simulation, 'lan');
  const host = (name: string, octet: number): Host => {
    const made = new Host(simulation, name);
    const mac = `00:0c:29:00:00:${octet.toString(16).padStart(2, '0')}`;
    made.addInterface({ name: 'eth0', mac, segment, addresses: [`10.0.0.${octet}/24`] });
    return made;
  };
  const client = host('client', 1);
  const lb = host('lb', 5);
  const webs = [host('web7', 7), host('web8', 8)];
  const servers = webs.map(
    each => new HttpServer(each, { virtualHosts: [{ serverName: 'x', pages: { '/': each.name } }] }),
  );
  const run = async (on: Host, line: string): Promise<void> => {
    const result = await simulation.settle(on.run(line));
    assert.equal(result.status, 0, result.stderr);
  };
  await run(lb, `ip addr add ${VIP}/24 dev eth0 label eth0:0`);
  for (const web of webs) {
    await run(web, `ip addr add ${VIP}/32 dev lo`);
    await run(web, 'sysctl -w net.ipv4.conf.all.arp_ignore=1');
    await run(web, 'sysctl -w net.ipv4.conf.all.arp_announce=2');
  }
  const director = new DirectRouting(lb.network(), ['10.0.0.7', '10.0.0.8']);
  const detach = lb.attachDirector(director);
  return { simulation, segment, client, lb, webs, servers, director, detach };
}

test('direct routing: the servers answer from the VIP, straight to the client', async () => {
  const each = await cluster();
  const frames: { from: string; to: string; packet: Packet }[] = [];
  each.segment.tap((_time, frame) => {
    const packet = new Packet(4096);
    const { source, destination } = readEthernet(frame);
    if (packet.load(frame) === 0 && packet.family === 4)
      frames.push({ from: source, to: destination, packet });
  });
  const bodies: string[] = [];
  for (let round = 0; round < 6; round++)
    bodies.push(bodyText(await each.simulation.settle(each.client.fetch(`http://${VIP}/`))));
  each.simulation.runUntilIdle();
  assert.deepEqual(bodies.toSorted(), ['web7', 'web7', 'web7', 'web8', 'web8', 'web8']);
  const mac = (host: Host): string => formatMac(host.interfaces[1]?.mac as Uint8Array);
  const toDirector = frames.filter(frame => frame.to === mac(each.lb));
  const fromDirector = frames.filter(frame => frame.from === mac(each.lb));
  assert.equal(toDirector.length, fromDirector.length);
  for (const [index, { packet }] of toDirector.entries()) {
    const out = fromDirector[index]?.packet;
    assert.deepEqual([out?.source, out?.destination], [packet.source, packet.destination]);
    assert.equal(out?.view.getUint8(out.network + Ipv4.ttl), 63);
  }
  const replies = frames.filter(frame => frame.packet.source === VIP);
  assert.ok(replies.length > 0);
  assert.ok(replies.every(frame => frame.to === mac(each.client) && frame.from !== mac(each.lb)));
  assert.equal(each.lb.directed, toDirector.length);
  assert.ok(each.servers.every(server => server.accessLog.every(line => line.startsWith('10.0.0.1 - - ['))));
});

test('what the director passes meets the host itself', async () => {
  const each = await cluster();
  const report = await each.simulation.settle(each.client.ping(VIP));
  assert.equal(report.answers[0]?.from, VIP);
  each.detach();
  await assert.rejects(each.simulation.settle(each.client.fetch(VIP)), /Connection refused/);
});

test('a director is told the time each virtual second, until it is detached', async () => {
  const each = await cluster();
  each.simulation.advance(20_000);
  assert.equal(each.director.expired.length, 20);
  assert.throws(() => each.lb.attachDirector(each.director), /lb has a director already/);
  each.detach();
  each.simulation.advance(5000);
  assert.equal(each.director.expired.length, 20);
});

test('next hops follow neighbours, addresses and routes in place', async () => {
  const { simulation, lb, webs } = await cluster();
  const network = lb.network();
  const target = parseAddress('10.0.0.7') as Uint8Array;
  const hop = network.nextHop(target, 0, 4);
  assert.ok(hop);
  assert.equal(hop.resolved, false);
  assert.equal(hop.mtu, 1500);
  assert.deepEqual([...hop.sourceAddress], [10, 0, 0, 5]);
  assert.equal(network.nextHop(target, 0, 4), hop, 'the same object');
  await simulation.settle(lb.ping('10.0.0.7'));
  assert.equal(hop.resolved, true);
  assert.equal(formatMac(hop.destinationMac), '00:0c:29:00:00:07');
  await simulation.settle(lb.run('ip neigh replace 10.0.0.7 lladdr 00:0c:29:00:00:99 dev eth0'));
  assert.equal(formatMac(hop.destinationMac), '00:0c:29:00:00:99');
  await simulation.settle(lb.run('ip neigh del 10.0.0.7 dev eth0'));
  assert.equal(hop.resolved, false);
  await simulation.settle(lb.run('ip link set eth0 mtu 1400'));
  assert.equal(hop.mtu, 1400);
  await simulation.settle(lb.run('ip route add 10.0.0.7/32 via 10.0.0.8'));
  await simulation.settle(lb.ping('10.0.0.8'));
  assert.equal(formatMac(hop.destinationMac), formatMac(webs[1]?.interfaces[1]?.mac as Uint8Array));
  await simulation.settle(lb.run('ip link set eth0 down'));
  assert.equal(hop.resolved, false);
  assert.equal(network.nextHop(target, 0, 4), undefined);
});

test('frames for an unresolved next hop wait, three at most, and are told to their source when nobody answers', async () => {
  const { simulation, client, segment } = await cluster();
  const gone = new Set<string>();
  segment.tap((_time, frame) => {
    const packet = new Packet(4096);
    if (packet.load(frame) === 0 && packet.family === 4 && packet.protocol === 1)
      gone.add(packet.destination);
  });
  const other = new Host(simulation, 'lb2');
  other.addInterface({
    name: 'eth0',
    mac: '00:0c:29:00:00:06',
    segment,
    addresses: ['10.0.0.6/24', '10.0.0.4/24'],
  });
  const network = other.network();
  const broken: FrameDirector = {
    process: packet => {
      if (packet.destination !== '10.0.0.4') return 0;
      const hop = network.nextHop(parseAddress('10.0.0.99') as Uint8Array, 0, 4);
      if (hop) network.transmit(packet.bytes, packet.start, packet.networkEnd, hop);
      return 1;
    },
    expire: () => {},
  };
  other.attachDirector(broken);
  await assert.rejects(simulation.settle(client.fetch('10.0.0.4')), /No route to host/);
  assert.deepEqual([...gone], ['10.0.0.1']);
  assert.equal(other.neighbourhood.arp.discarded, 0);
  const before = other.dropped.get('neighbour-failed') ?? 0;
  for (let count = 0; count < 5; count++) client.udp.open().send('10.0.0.4', 9, new Uint8Array(1));
  simulation.runUntilIdle();
  assert.equal(other.neighbourhood.arp.discarded, 2);
  assert.equal(other.dropped.get('neighbour-failed'), before + 3);
});

/** The virtual server itself in lb. */
async function virtualServer(method: 'gate' | 'masq') {
  const each = await cluster();
  each.detach();
  const { lb } = each;
  const director = new Director({
    network: lb.network(),
    host: {
      isLocal: address => lb.isLocal(address),
      isBroadcast: () => false,
      interfaceMtu: name => lb.interfaceNamed(name)?.mtu,
    },
  });
  lb.attachDirector(director);
  const key = { protocol: 'tcp', address: VIP, port: 80 } as const;
  director.administration.addService({
    key,
    scheduler: 'rr',
    schedulerFlags: 0,
    persistenceTimeout: 0,
    persistenceNetmask: '255.255.255.255',
    persistenceEngine: '',
    onePacket: false,
  });
  for (const address of ['10.0.0.7', '10.0.0.8']) {
    director.administration.addDestination(key, {
      address,
      port: 80,
      method,
      weight: 1,
      upperThreshold: 0,
      lowerThreshold: 0,
      tunnelType: 'ipip',
      tunnelPort: 0,
      tunnelChecksum: 'nocsum',
    });
  }
  return each;
}

test('the virtual server: NAT, with replies that come back through the director', async () => {
  const each = await virtualServer('masq');
  const fetches = async (): Promise<string[]> => {
    const bodies: string[] = [];
    for (let round = 0; round < 4; round++)
      bodies.push(bodyText(await each.client.fetch(VIP, { timeout: 9000 })));
    return bodies;
  };
  for (const web of each.webs) web.addRoute('10.0.0.1/32', '10.0.0.5');
  await assert.rejects(each.simulation.settle(fetches()), /time is up|timed out/, 'replies need ip_forward');
  each.lb.sysctls.write('net/ipv4/ip_forward', '1');
  const bodies = await each.simulation.settle(fetches());
  assert.deepEqual(bodies.toSorted(), ['web7', 'web7', 'web8', 'web8']);
});

test('the virtual server leaves fragments of other datagrams to the host', async () => {
  const each = await virtualServer('gate');
  const report = await each.simulation.settle(each.client.ping(VIP, { size: 4000 }));
  assert.equal(report.answers[0]?.length, 4008);
  const received: number[] = [];
  each.lb.udp.open(53).onMessage = message => received.push(message.data.length);
  each.client.udp.open().send(VIP, 53, new Uint8Array(5000));
  each.simulation.runUntilIdle();
  assert.deepEqual(received, [5000]);
  const bodies = [each.client.fetch(VIP), each.client.fetch(VIP)].map(page => page.then(bodyText));
  assert.deepEqual((await each.simulation.settle(Promise.all(bodies))).toSorted(), ['web7', 'web8']);
});
