/** FULLNAT on the virtual LAN: TCP stacks on both sides, a wire that loses, doubles and reorders. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Director } from '../src/ipvs/director.ts';
import { FullnatCount } from '../src/ipvs/forwarding/fullnat.ts';
import type { Settings } from '../src/ipvs/settings.ts';
import type { ClientAddress } from '../src/ipvs/specification.ts';
import { Host } from '../src/lan/host.ts';
import { bodyText } from '../src/lan/http-message.ts';
import { HttpServer } from '../src/lan/http-server.ts';
import { Segment } from '../src/lan/segment.ts';
import { Simulation } from '../src/lan/simulation.ts';
import { type Family, formatAddress } from '../src/wire/address.ts';
import { ipv4HeaderLength, Protocol } from '../src/wire/ipv4.ts';
import { Packet } from '../src/wire/packet.ts';
import { findTcpOption, Tcp, TcpFlag, tcpHeaderLength, tcpSum } from '../src/wire/tcp.ts';
import { fates, impair, pattern, transfer } from './rough-wire.ts';

const PREFIX = { 4: '10.0.0.', 6: '2001:db8::' } as const;
const LENGTH = { 4: 24, 6: 64 } as const;

interface LabOptions {
  family?: Family;
  clientAddress?: ClientAddress;
  seed?: number;
  serverMtu?: number;
  settings?: Partial<Settings>;
  localAddresses?: number;
}

/** client .1, director .5 with VIP .3 and local addresses from .50 on, servers .7 and .8, which know nothing of it. */
function laboratory(options: LabOptions = {}) {
  const { family = 4, clientAddress, seed = 1, settings, localAddresses = 1 } = options;
  const simulation = new Simulation({ seed });
  const segment = new Segment(simulation, 'lan');
  const address = (last: number): string => `${PREFIX[family]}${last}`;
  const host = (name: string, last: number, mtu = 1500): Host => {
    const made = new Host(simulation, name);
    const mac = `02:00:00:00:00:0${last}`;
    made.addInterface({ name: 'eth0', mac, segment, mtu, addresses: [`${address(last)}/${LENGTH[family]}`] });
    return made;
  };
  const client = host('client', 1);
  const lb = host('lb', 5);
  const servers = [host('web7', 7, options.serverMtu), host('web8', 8, options.serverMtu)];
  const locals = Array.from({ length: localAddresses }, (_, index) => address(50 + index));
  for (const own of [address(3), ...locals]) {
    const parsed = Uint8Array.from(own.split(family === 4 ? '.' : ':'), Number);
    const bytes = family === 4 ? parsed : Uint8Array.of(0x20, 1, 0x0d, 0xb8, ...new Array(12).fill(0));
    if (family === 6) bytes[15] = Number.parseInt(own.split('::')[1] as string, 16);
    const eth0 = lb.interfaceNamed('eth0');
    assert.ok(eth0);
    lb.addAddress(eth0, bytes, LENGTH[family]);
  }
  const director = new Director({
    network: lb.network(),
    host: {
      isLocal: bytes => lb.isLocal(bytes),
      isBroadcast: () => false,
      interfaceMtu: name => lb.interfaceNamed(name)?.mtu,
    },
    random: () => simulation.random.uint32(),
    ...(settings && { settings }),
  });
  lb.attachDirector(director);
  const key = { protocol: 'tcp', address: address(3), port: 80 } as const;
  director.administration.addService({
    key,
    scheduler: 'rr',
    schedulerFlags: 0,
    persistenceTimeout: 0,
    persistenceNetmask: family === 4 ? '255.255.255.255' : '128',
    persistenceEngine: '',
    onePacket: false,
    localAddresses: locals,
    ...(clientAddress && { clientAddress }),
  });
  for (const last of [7, 8]) {
    director.administration.addDestination(key, {
      address: address(last),
      port: 8080,
      method: 'fullnat',
      weight: 1,
      upperThreshold: 0,
      lowerThreshold: 0,
      tunnelType: 'ipip',
      tunnelPort: 0,
      tunnelChecksum: 'nocsum',
    });
  }
  return { simulation, segment, client, lb, servers, director, key, vip: address(3), locals, address };
}

type Laboratory = ReturnType<typeof laboratory>;

/** Every TCP segment on the wire, its checksum verified. */
function watchSegments({ segment }: Laboratory): Packet[] {
  const seen: Packet[] = [];
  segment.tap((_time, frame) => {
    const packet = new Packet(8192);
    if (packet.load(frame) !== 0 || packet.protocol !== Protocol.tcp) return;
    const { view, network, transport, networkEnd } = packet;
    const family = packet.family === 6 ? 6 : 4;
    assert.equal(tcpSum(view, family, network, transport, networkEnd - transport), 0xffff, 'TCP checksum');
    if (family === 4) assert.equal(ipv4HeaderLength(view, network), 20);
    seen.push(packet);
  });
  return seen;
}

interface Seen {
  port: number;
  address: string;
}

/** The client's address as a server with toa.ko sees it in a segment. */
function readToa(packet: Packet): Seen | undefined {
  const { view, bytes, transport } = packet;
  const at = findTcpOption(view, transport, 254);
  if (at < 0) return undefined;
  const length = view.getUint8(at + 1);
  assert.equal(length, packet.family === 4 ? 8 : 20);
  assert.equal(at, transport + 20, 'directly behind the fixed header');
  return { port: view.getUint16(at + 2), address: formatAddress(bytes, at + 4, length - 4) };
}

/** What the PROXY header of a connection from this port has to be, written out by hand. */
function proxyHeader(each: Laboratory, family: Family, mode: ClientAddress, port: number): Uint8Array {
  const [source, destination] = [each.address(1), each.address(3)];
  if (mode === 'proxy-v1') {
    return new TextEncoder().encode(`PROXY TCP${family} ${source} ${destination} ${port} 80\r\n`);
  }
  if (mode !== 'proxy-v2') return new Uint8Array(0);
  const bytesOf = (last: number): number[] =>
    family === 4 ? [10, 0, 0, last] : [0x20, 1, 0x0d, 0xb8, ...new Array<number>(11).fill(0), last];
  return Uint8Array.from([
    ...[0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a],
    ...[0x21, family === 4 ? 0x11 : 0x21, 0, family === 4 ? 12 : 36],
    ...bytesOf(1),
    ...bytesOf(3),
    ...[port >>> 8, port & 0xff, 0, 80],
  ]);
}

const MODES: readonly ClientAddress[] = ['none', 'toa', 'proxy-v1', 'proxy-v2'];

test('pages come through FULLNAT, and servers that know nothing of it learn the client', async () => {
  for (const family of [4, 6] as const) {
    const each = laboratory({ family });
    const segments = watchSegments(each);
    for (const host of each.servers) {
      new HttpServer(host, { port: 8080, virtualHosts: [{ serverName: 'x', pages: { '/': host.name } }] });
    }
    const url = family === 4 ? `http://${each.vip}/` : `http://[${each.vip}]/`;
    const pages = async (): Promise<string[]> => {
      const bodies: string[] = [];
      for (let round = 0; round < 4; round++) bodies.push(bodyText(await each.client.fetch(url)));
      return bodies;
    };
    const bodies = await each.simulation.settle(pages());
    assert.deepEqual(bodies.toSorted(), ['web7', 'web7', 'web8', 'web8']);
    // The server's segments go to the local address, the client's come from it: nothing of the client's but in TOA.
    const atServer = segments.filter(segment =>
      [each.address(7), each.address(8)].includes(segment.destination),
    );
    assert.ok(atServer.length > 8);
    assert.ok(atServer.every(segment => segment.source === each.locals[0]));
    const ports = new Set<number>();
    for (const segment of segments) if (segment.source === each.address(1)) ports.add(segment.sourcePort);
    const told = atServer.flatMap(segment => readToa(segment) ?? []);
    assert.deepEqual(new Set(told.map(seen => seen.port)), ports);
    assert.ok(told.every(seen => seen.address === each.address(1)));
    assert.equal(told.length, each.director.fullnat.counts[FullnatCount.toaInserted]);
  }
});

test('whatever is lost, doubled or overtaken: the bytes arrive as they were sent, behind the header if there is one', () => {
  let transfers = 0;
  let told = 0;
  fc.assert(
    fc.property(
      fates,
      fc.constantFrom<Family>(4, 6),
      fc.constantFrom(...MODES),
      fc.constantFrom<'client' | 'server'>('client', 'server'),
      fc.oneof(fc.constantFrom(0, 1, 1452, 1460), fc.nat(30_000)),
      fc.oneof(fc.constant(0), fc.nat(30_000)),
      fc.nat(100_000),
      (list, family, clientAddress, first, up, down, seed) => {
        const each = laboratory({ family, clientAddress, seed });
        const segments = watchSegments(each);
        each.segment.impairment = impair(list);
        const [request, answer] = [pattern(up, 1), pattern(down, 2)];
        const { client, server, port } = transfer(each, request, answer, first);
        const expected = Uint8Array.from([...proxyHeader(each, family, clientAddress, port), ...request]);
        const arrived = Uint8Array.from(server.received);
        assert.deepEqual(arrived, expected.subarray(0, arrived.length));
        assert.deepEqual(Uint8Array.from(client.received), answer.subarray(0, client.received.length));
        if (client.closed === 'orderly' && server.closed === 'orderly') {
          transfers++;
          assert.equal(arrived.length, expected.length);
          assert.equal(client.received.length, down);
        }
        checkToa(each, segments, clientAddress, port);
        if (segments.some(readToa)) told++;
      },
    ),
    { numRuns: 300 },
  );
  assert.ok(transfers > 250, `${transfers} transfers completed`);
  assert.ok(told > 30, `${told} servers were told`);
});

/**
 * Every segment that acknowledges only the server's SYN has the option, no other has. A client's SYN that comes once more
 * when the server is through begins a second connection there, with a SYN of its own: a late segment that acknowledges
 * the SYN before it may have the option (it is the first segment to a server that still knows that one).
 */
function checkToa(each: Laboratory, segments: readonly Packet[], mode: ClientAddress, port: number): void {
  const servers = [each.address(7), each.address(8)];
  const firsts = new Map<number, number[]>();
  for (const segment of segments) {
    const { view, transport, tcpFlags } = segment;
    if (servers.includes(segment.source) && tcpFlags & TcpFlag.syn) {
      const acknowledged = (view.getUint32(transport + Tcp.sequence) + 1) >>> 0;
      const known = firsts.get(segment.destinationPort) ?? [];
      firsts.set(segment.destinationPort, [...known.filter(first => first !== acknowledged), acknowledged]);
    }
    if (!servers.includes(segment.destination)) continue;
    const seen = readToa(segment);
    const known = firsts.get(segment.sourcePort) ?? [];
    const place = known.indexOf(view.getUint32(transport + Tcp.acknowledgement));
    const isFirst = place >= 0 && (tcpFlags & (TcpFlag.syn | TcpFlag.rst | TcpFlag.ack)) === TcpFlag.ack;
    if (isFirst && place < known.length - 1 && seen === undefined) continue;
    assert.deepEqual(seen, mode === 'toa' && isFirst ? { port, address: each.address(1) } : undefined);
  }
}

test('a server that speaks first gets the PROXY header without waiting for the client', () => {
  const each = laboratory({ clientAddress: 'proxy-v1' });
  let greeting = '';
  for (const host of each.servers) {
    host.tcp.listen({ port: 8080 }, connection => {
      connection.onData = data => {
        connection.write(new TextEncoder().encode(`220 ${new TextDecoder().decode(data)}`));
        connection.end();
      };
    });
  }
  const connection = each.client.tcp.open({ address: each.vip, port: 80 });
  connection.onData = data => {
    greeting += new TextDecoder().decode(data);
  };
  each.simulation.advance(5000);
  assert.equal(greeting, `220 PROXY TCP4 10.0.0.1 10.0.0.3 ${connection.localPort} 80\r\n`);
});

test('a first segment that fills the way: TOA by a lower segment size, the PROXY header in a segment of its own', () => {
  for (const clientAddress of MODES) {
    const each = laboratory({ clientAddress });
    const segments = watchSegments(each);
    const { server, port } = transfer(each, pattern(4000, 1), new Uint8Array(0), 'client');
    const expected = [...proxyHeader(each, 4, clientAddress, port), ...pattern(4000, 1)];
    assert.deepEqual(server.received, expected);
    const sizes = segments
      .filter(segment => segment.destination === each.vip)
      .map(
        segment => segment.networkEnd - segment.transport - tcpHeaderLength(segment.view, segment.transport),
      );
    assert.equal(Math.max(...sizes), clientAddress === 'toa' ? 1452 : 1460);
    const { counts } = each.director.fullnat;
    assert.equal(counts[FullnatCount.toaTooBig], 0);
    assert.equal(counts[FullnatCount.proxySeparate], clientAddress.startsWith('proxy') ? 1 : 0);
    assert.ok(segments.every(segment => segment.networkEnd - segment.network <= 1500));
  }
});

test('a smaller MTU at the servers: their segment size keeps clients within it', () => {
  for (const clientAddress of MODES) {
    const each = laboratory({ clientAddress, serverMtu: 1000 });
    const { server, client, port } = transfer(each, pattern(5000, 1), pattern(5000, 2));
    assert.deepEqual(server.received, [...proxyHeader(each, 4, clientAddress, port), ...pattern(5000, 1)]);
    assert.deepEqual(Uint8Array.from(client.received), pattern(5000, 2));
  }
});

test('a thousand connections one after another: every one from a port of its own, fairly over the local addresses', () => {
  const each = laboratory({ localAddresses: 4 });
  const remotes = new Map<string, number>();
  for (const host of each.servers) {
    host.tcp.listen({ port: 8080 }, connection => {
      const key = `${connection.remoteAddress} ${connection.remotePort} ${host.name}`;
      assert.ok(!remotes.has(key), key);
      remotes.set(key, 1);
      connection.end();
      connection.onData = () => {};
      connection.onEnd = () => {};
    });
  }
  let closed = 0;
  for (let round = 0; round < 1000; round++) {
    const connection = each.client.tcp.open({ address: each.vip, port: 80 });
    connection.onEnd = () => connection.end();
    connection.onClose = () => closed++;
    each.simulation.advance(5);
  }
  each.simulation.advance(1000);
  assert.equal(closed, 1000);
  for (const local of each.locals) {
    const used = [...remotes.keys()].filter(key => key.startsWith(`${local} `)).length;
    assert.equal(used, 250);
  }
  const use = each.director.administration.service(each.key)?.localAddressUse;
  assert.deepEqual(
    use?.map(({ address, connections }) => [address, connections]),
    each.locals.map(local => [local, 250]),
  );
  each.simulation.advance(200_000);
  const after = each.director.administration.service(each.key)?.localAddressUse;
  assert.ok(after?.every(({ connections }) => connections === 0));
});
