/** Who answers ARP for what, and with which source it is asked: whole hosts on a segment. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseAddress } from '../wire/address.ts';
import { type ArpPacket, readArp } from '../wire/arp.ts';
import { readEthernet } from '../wire/ethernet.ts';
import { Host } from './host.ts';
import { Segment } from './segment.ts';
import { Simulation } from './simulation.ts';

const MACS = {
  client: '00:50:56:c0:00:08',
  director: '00:0c:29:00:00:05',
  web: '00:0c:29:00:00:07',
  web1: '00:0c:29:00:01:07',
};

/** A client, a director with the VIP on eth0, and a real server with the VIP on lo and a second network on eth1. */
function lan() {
  const simulation = new Simulation();
  const segment = new Segment(simulation, 'lan');
  const client = new Host(simulation, 'client');
  client.addInterface({
    name: 'eth0',
    mac: MACS.client,
    segment,
    addresses: ['10.0.0.1/24', '2001:db8::1/64'],
  });
  const director = new Host(simulation, 'director');
  director.addInterface({
    name: 'eth0',
    mac: MACS.director,
    segment,
    addresses: ['10.0.0.5/24', '2001:db8::5/64'],
  });
  const web = new Host(simulation, 'web');
  web.addInterface({ name: 'eth0', mac: MACS.web, segment, addresses: ['10.0.0.7/24', '2001:db8::7/64'] });
  web.addInterface({ name: 'eth1', mac: MACS.web1, addresses: ['172.16.1.7/24'] });
  const arps: (ArpPacket & { to: string })[] = [];
  segment.tap((_time, frame) => {
    const { etherType, destination } = readEthernet(frame);
    if (etherType === 0x0806) arps.push({ ...readArp(frame, 14), to: destination });
  });
  return { simulation, segment, client, director, web, arps };
}

type Lan = ReturnType<typeof lan>;

/** MACs from which the client got answers for an address. */
async function answersFor(each: Lan, address: string): Promise<string[]> {
  each.arps.length = 0;
  await each.simulation.settle(each.client.ping(address, { timeout: 100 })).catch(() => undefined);
  return each.arps
    .filter(arp => arp.operation === 2 && arp.senderAddress === address)
    .map(arp => arp.senderMac)
    .toSorted();
}

async function operator(each: Lan, host: Host, ...lines: string[]): Promise<void> {
  for (const line of lines) {
    const result = await each.simulation.settle(host.run(line));
    assert.equal(result.status, 0, `${line}: ${result.stderr}`);
  }
}

const VIP = '10.0.0.3';

for (const [settings, answers, why] of [
  [[], true, 'arp_ignore is 0: every local address is answered for'],
  [['lo/arp_ignore=1'], true, 'lo is not where the request comes in'],
  [['lo/arp_ignore=8'], true, 'nor with 8'],
  [['eth0/arp_ignore=1'], false, 'the receiving interface does not have the VIP'],
  [['all/arp_ignore=1'], false, 'all counts for every interface'],
  [['all/arp_ignore=1', 'eth0/arp_ignore=0'], false, 'the larger of both counts'],
  [['all/arp_ignore=2'], false, 'as 1'],
  [['all/arp_ignore=3'], true, 'the VIP on lo has global scope'],
  [['all/arp_ignore=8'], false, 'never answers'],
] as const) {
  test(`VIP on lo, ${settings.join(', ') || 'no sysctl'}: ${answers ? 'answers' : 'is silent'} (${why})`, async () => {
    const each = lan();
    await operator(each, each.web, `ip addr add ${VIP}/32 dev lo`);
    for (const setting of settings) {
      const [path, value] = setting.split('=');
      await operator(each, each.web, `echo ${value} > /proc/sys/net/ipv4/conf/${path}`);
    }
    assert.deepEqual(await answersFor(each, VIP), answers ? [MACS.web] : []);
  });
}

test('with both on the segment and arp_ignore=1 on the server only the director answers for the VIP', async () => {
  const each = lan();
  await operator(each, each.director, `ip addr add ${VIP}/24 dev eth0 label eth0:0`);
  await operator(each, each.web, `ip addr add ${VIP}/32 dev lo`);
  assert.deepEqual(await answersFor(each, VIP), [MACS.director, MACS.web].toSorted(), 'the ARP problem');
  await operator(each, each.web, 'sysctl -w net.ipv4.conf.all.arp_ignore=1');
  await operator(each, each.client, 'ip neigh flush dev eth0');
  assert.deepEqual(await answersFor(each, VIP), [MACS.director]);
});

test('an address of eth1 is answered for on eth0 (ARP flux) unless arp_ignore is 1', async () => {
  const each = lan();
  await operator(each, each.client, 'ip route add 172.16.1.0/24 dev eth0');
  assert.deepEqual(await answersFor(each, '172.16.1.7'), [MACS.web]);
  await operator(each, each.client, 'ip neigh flush dev eth0');
  await operator(each, each.web, 'sysctl -w net.ipv4.conf.all.arp_ignore=1');
  assert.deepEqual(await answersFor(each, '172.16.1.7'), []);
});

test('a VIP with /24 instead of /32 on lo makes the whole subnet local, and the server mute', async () => {
  const each = lan();
  assert.deepEqual(await answersFor(each, '10.0.0.7'), [MACS.web]);
  await operator(each, each.web, `ip addr add ${VIP}/24 dev lo`);
  await operator(each, each.client, 'ip neigh flush dev eth0');
  assert.deepEqual(await answersFor(each, '10.0.0.7'), [], 'the sender looks like an address of its own');
});

for (const [announce, source] of [
  [0, VIP],
  [1, VIP],
  [2, '10.0.0.7'],
] as const) {
  test(`arp_announce=${announce}: a server answering from the VIP asks as ${source}`, async () => {
    const each = lan();
    await operator(
      each,
      each.web,
      `ip addr add ${VIP}/32 dev lo`,
      `sysctl -w net.ipv4.conf.all.arp_announce=${announce}`,
    );
    // A datagram from the VIP to a client that the server does not know yet.
    const socket = each.web.udp.open(9000, VIP);
    each.arps.length = 0;
    socket.send('10.0.0.1', 9, new Uint8Array(1));
    each.simulation.runUntilIdle();
    const request = each.arps.find(arp => arp.senderMac === MACS.web && arp.targetAddress === '10.0.0.1');
    assert.equal(request?.senderAddress, source);
    assert.equal(request?.to, 'ff:ff:ff:ff:ff:ff');
  });
}

test('arp_announce=1 takes another address when the source is not in a subnet of the interface', async () => {
  const each = lan();
  await operator(
    each,
    each.web,
    'ip addr add 192.0.2.3/32 dev lo',
    'sysctl -w net.ipv4.conf.all.arp_announce=1',
  );
  const socket = each.web.udp.open(9000, '192.0.2.3');
  socket.send('10.0.0.1', 9, new Uint8Array(1));
  each.simulation.runUntilIdle();
  assert.equal(each.arps.find(arp => arp.senderMac === MACS.web)?.senderAddress, '10.0.0.7');
});

test('an unguarded real server steals the VIP in the client by asking with it', async () => {
  const each = lan();
  await operator(each, each.director, `ip addr add ${VIP}/24 dev eth0`);
  await operator(each, each.web, `ip addr add ${VIP}/32 dev lo`, 'sysctl -w net.ipv4.conf.all.arp_ignore=1');
  await answersFor(each, VIP);
  assert.equal(macText(each.client, VIP), MACS.director);
  each.simulation.advance(2000);
  each.web.udp.open(9000, VIP).send('10.0.0.1', 9, new Uint8Array(1));
  each.simulation.runUntilIdle();
  assert.equal(macText(each.client, VIP), MACS.web);
});

test('a gratuitous ARP moves the VIP in hosts that know it, and only in those', async () => {
  const each = lan();
  await operator(each, each.director, `ip addr add ${VIP}/24 dev eth0`);
  await answersFor(each, VIP);
  const address = parseAddress(VIP) as Uint8Array;
  each.web.neighbourhood.announce(each.web.interfaces[1] as (typeof each.web.interfaces)[0], address);
  each.simulation.runUntilIdle();
  assert.equal(macText(each.client, VIP), MACS.web);
  const stranger = new Host(each.simulation, 'stranger');
  stranger.addInterface({
    name: 'eth0',
    mac: '00:0c:29:00:00:99',
    segment: each.segment,
    addresses: ['10.0.0.99/24'],
  });
  each.web.neighbourhood.announce(each.web.interfaces[1] as (typeof each.web.interfaces)[0], address);
  each.simulation.runUntilIdle();
  assert.equal(macText(stranger, VIP), undefined);
});

test('rp_filter=1 refuses packets and ARP from sources that are reached another way', async () => {
  const each = lan();
  await operator(each, each.client, 'ip addr add 172.16.1.1/32 dev lo');
  const asks = async (): Promise<number> => {
    each.arps.length = 0;
    each.client.udp.open(0, '172.16.1.1').send('10.0.0.7', 9, new Uint8Array(1));
    each.simulation.runUntilIdle();
    return each.arps.filter(arp => arp.operation === 2).length;
  };
  await operator(each, each.web, 'sysctl -w net.ipv4.conf.eth0.rp_filter=1');
  assert.equal(await asks(), 0, '172.16.1.0/24 is behind eth1');
  await operator(each, each.web, 'sysctl -w net.ipv4.conf.eth0.rp_filter=2');
  assert.equal(await asks(), 1, 'loose: there is some way back');
});

test('IPv6: neighbours are found by solicitation; a VIP on lo is not answered for', async () => {
  const each = lan();
  const report = await each.simulation.settle(each.client.ping('2001:db8::7'));
  assert.equal(report.answers[0]?.from, '2001:db8::7');
  assert.equal(macText(each.client, '2001:db8::7'), MACS.web);
  await operator(each, each.web, 'ip addr add 2001:db8::3/128 dev lo');
  const silent = await each.simulation.settle(each.client.ping('2001:db8::3', { timeout: 5000 }));
  assert.deepEqual(
    silent.answers.map(answer => answer.error),
    ['host-unreachable'],
  );
  await operator(each, each.director, 'ip addr add 2001:db8::3/128 dev eth0');
  each.simulation.advance(5000);
  await each.simulation.settle(each.client.ping('2001:db8::3'));
  assert.equal(macText(each.client, '2001:db8::3'), MACS.director);
});

test('an IPv6 advertisement with override moves an address', async () => {
  const each = lan();
  await operator(each, each.director, 'ip addr add 2001:db8::3/128 dev eth0');
  await each.simulation.settle(each.client.ping('2001:db8::3'));
  const eth0 = each.web.interfaceNamed('eth0');
  assert.ok(eth0);
  each.web.neighbourhood.announce(eth0, parseAddress('2001:db8::3') as Uint8Array);
  each.simulation.runUntilIdle();
  assert.equal(macText(each.client, '2001:db8::3'), MACS.web);
});

test('a stale neighbour is probed by unicast after five seconds of use', async () => {
  const each = lan();
  await each.simulation.settle(each.client.ping('10.0.0.7'));
  each.simulation.advance(40_000);
  each.arps.length = 0;
  await each.simulation.settle(each.client.ping('10.0.0.7'));
  assert.equal(each.arps.length, 0, 'the entry is used as it is');
  each.simulation.advance(6000);
  const probe = each.arps.find(arp => arp.senderMac === MACS.client && arp.operation === 1);
  assert.equal(probe?.to, MACS.web);
});

function macText(host: Host, address: string): string | undefined {
  const mac = host.macOf(address);
  return mac && [...mac].map(byte => byte.toString(16).padStart(2, '0')).join(':');
}
