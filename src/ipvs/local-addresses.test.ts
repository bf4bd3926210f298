import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ethernetFrame, ipv4Packet, tcpSegment } from '../../test/frames.ts';
import { EtherType } from '../wire/ethernet.ts';
import { Protocol } from '../wire/ipv4.ts';
import { TcpFlag } from '../wire/tcp.ts';
import { addService, type Bench, makeBench, parsed, readdressed } from './director.fixture.ts';
import { Drop } from './drops.ts';
import { type LocalAddress, parseLocalAddress, SERVER_TIME_WAIT } from './local-addresses.ts';
import type { Settings } from './settings.ts';
import { IpvsError, type LocalAddressStatus, type ServiceKey } from './specification.ts';

const LOCALS = ['10.0.0.50', '10.0.0.51'];
const SERVERS = ['10.0.0.7', '10.0.0.8'];
/** Seconds that a connection stays after a reset, and after a SYN only. */
const AFTER_RESET = 10;
const AFTER_SYN = 60;

interface Lab extends Bench {
  key: ServiceKey;
  settings: Settings;
}

function lab(settings: Partial<Settings> = {}, locals: readonly string[] = LOCALS, servers = SERVERS): Lab {
  const bench = makeBench({ settings, capacity: 70_000 });
  const key = addService(bench, 'tcp', 4, 80, { method: 'fullnat', address: servers[0] as string });
  const { administration } = bench.director;
  for (const address of servers.slice(1)) addServer(bench, key, address);
  for (const local of locals) administration.addLocalAddress(key, local);
  return { ...bench, key, settings: bench.director.settings };
}

function addServer({ director }: Bench, key: ServiceKey, address: string, port = 80): void {
  director.administration.addDestination(key, {
    address,
    port,
    method: 'fullnat',
    weight: 1,
    upperThreshold: 0,
    lowerThreshold: 0,
    tunnelType: 'ipip',
    tunnelPort: 0,
    tunnelChecksum: 'nocsum',
  });
}

/** A segment of a client, by number; each has an address and port of its own. */
function segment(client: number, flags: number, vip = '10.0.0.3', port = 80): Uint8Array {
  const fields = { sourcePort: 1024 + (client % 60_000), destinationPort: port, flags, sequence: client };
  const frame = ethernetFrame(EtherType.ipv4, ipv4Packet(Protocol.tcp, tcpSegment(4, fields)));
  return readdressed(frame, `10.1.0.${1 + Math.floor(client / 60_000)}`, vip);
}

interface Ends {
  local: string;
  port: number;
  server: string;
  serverPort: number;
}

/** Opens a client's connection, and says between which ends it goes on. */
function open(each: Bench, client: number, seconds = 1, vip?: string, port?: number): Ends | undefined {
  const { sent } = each.receive(segment(client, TcpFlag.syn, vip, port), seconds * 1000);
  if (sent.length === 0) return undefined;
  const packet = parsed(sent[0]);
  const { source, sourcePort, destination, destinationPort } = packet;
  return { local: source, port: sourcePort, server: destination, serverPort: destinationPort };
}

function textOf({ local, port, server, serverPort }: Ends): string {
  return `${local} ${port} ${server} ${serverPort}`;
}

function use({ director, key }: Lab): LocalAddressStatus[] {
  return director.administration.service(key)?.localAddressUse ?? [];
}

test('addresses are given in turn, ports one after another, to each server anew', () => {
  const each = lab({ fullnat_lport_min: 5000, fullnat_lport_max: 5999 });
  const ends = Array.from({ length: 800 }, (_, client) => open(each, client) as Ends);
  assert.equal(new Set(ends.map(textOf)).size, 800);
  for (const local of LOCALS) {
    const of = ends.filter(end => end.local === local);
    assert.equal(of.length, 400);
    // With two servers and two addresses in step, each address always meets the same server.
    const ports = of.map(end => end.port);
    for (const [index, port] of ports.entries()) {
      assert.equal(port, 5000 + (((ports[0] as number) - 5000 + index) % 1000));
    }
  }
});

test('all ports of all addresses, then a named refusal; another server still has them', () => {
  const each = lab({ fullnat_lport_min: 60_000, fullnat_lport_max: 60_099 }, LOCALS, ['10.0.0.7']);
  const ends = Array.from({ length: 200 }, (_, client) => open(each, client) as Ends);
  assert.equal(new Set(ends.map(textOf)).size, 200);
  assert.ok(ends.every(({ port }) => port >= 60_000 && port <= 60_099));
  assert.equal(open(each, 200), undefined);
  assert.equal(open(each, 201), undefined);
  assert.equal(each.director.drops[Drop.noLocalPort], 2);
  assert.deepEqual(
    use(each).map(({ connections, refused }) => [connections, refused]),
    [
      [100, 2],
      [100, 2],
    ],
  );
  addServer(each, each.key, '10.0.0.8');
  assert.ok([202, 203].some(client => open(each, client)?.server === '10.0.0.8'));
  // A wider range helps at once.
  each.settings.fullnat_lport_max = 60_100;
  const more = [204, 205, 206, 207].map(client => open(each, client));
  assert.ok(more.some(end => end?.server === '10.0.0.7' && end.port === 60_100));
});

test('60,536 ports an address in the default range, every one of them, and quickly to the last', () => {
  const each = lab({}, ['10.0.0.50'], ['10.0.0.7']);
  const seen = new Set<number>();
  for (let client = 0; client < 60_536; client++) seen.add((open(each, client) as Ends).port);
  assert.equal(seen.size, 60_536);
  assert.equal(Math.min(...seen), 5000);
  assert.equal(Math.max(...seen), 65_535);
  assert.equal(open(each, 70_000), undefined);
});

test('a port whose connection ended early rests while the server may remember it', () => {
  const each = lab({ fullnat_lport_min: 5000, fullnat_lport_max: 5000 }, ['10.0.0.50'], ['10.0.0.7']);
  const first = open(each, 1, 1);
  assert.equal(first?.port, 5000);
  each.receive(segment(1, TcpFlag.ack), 1000);
  each.receive(segment(1, TcpFlag.rst), 2000);
  // The same client again: its connection in CLOSE is replaced, but its port is not free.
  assert.equal(open(each, 1, 3), undefined);
  assert.equal(each.director.connections.size, 0);
  const tried: number[] = [];
  for (let second = 4; second < 200 && tried.length === 0; second++) {
    each.director.expire(second * 1000);
    if (open(each, 1, second)) tried.push(second);
  }
  const free = tried[0] as number;
  assert.ok(free >= 2 + SERVER_TIME_WAIT && free <= 3 + 2 * SERVER_TIME_WAIT, `free at ${free} s`);
});

test('what rests wakes by the next connection if nobody sweeps', () => {
  const each = lab({ fullnat_lport_min: 5000, fullnat_lport_max: 5000 }, ['10.0.0.50'], ['10.0.0.7']);
  assert.ok(open(each, 1, 1));
  each.receive(segment(1, TcpFlag.ack), 1000);
  each.receive(segment(1, TcpFlag.rst), 2000);
  assert.equal(open(each, 1, 3), undefined);
  assert.equal(open(each, 1, 100), undefined);
  assert.ok(open(each, 1, 125));
  each.receive(segment(1, TcpFlag.ack), 125_000);
  each.receive(segment(1, TcpFlag.rst), 125_000);
  assert.equal(open(each, 1, 126), undefined);
  assert.ok(open(each, 1, 300));
});

test('a port whose connection timed out after long silence is free at once', () => {
  const each = lab({ fullnat_lport_min: 5000, fullnat_lport_max: 5000 }, ['10.0.0.50'], ['10.0.0.7']);
  assert.ok(open(each, 1, 1));
  each.director.expire((1 + AFTER_SYN) * 1000);
  assert.ok(open(each, 2, 1 + AFTER_SYN));
});

test('services share the ports of an address; one without a port of its own does not take them twice', () => {
  const settings = { fullnat_lport_min: 5000, fullnat_lport_max: 5009 };
  const each = lab(settings, ['10.0.0.50'], ['10.0.0.7']);
  const any: ServiceKey = { protocol: 'tcp', address: '10.0.0.5', port: 0 };
  const { administration } = each.director;
  const other = administration.service(each.key);
  assert.ok(other);
  administration.addService({
    key: any,
    scheduler: 'rr',
    schedulerFlags: 0,
    persistenceTimeout: 60,
    persistenceNetmask: '255.255.255.255',
    persistenceEngine: '',
    onePacket: false,
    localAddresses: ['10.0.0.50'],
  });
  addServer(each, any, '10.0.0.7', 0);
  const seen = new Set<string>();
  for (let client = 0; client < 10; client++) {
    const end = client % 2 ? open(each, client) : open(each, client, 1, '10.0.0.5', 80);
    assert.ok(end, `client ${client}`);
    assert.equal(end.serverPort, 80);
    assert.ok(!seen.has(textOf(end)), textOf(end));
    seen.add(textOf(end));
  }
  assert.equal(open(each, 10), undefined);
  assert.equal(open(each, 12, 1, '10.0.0.5', 80), undefined);
  // To other ports of the server the any-port service has ports left that the other one took.
  assert.ok(open(each, 14, 1, '10.0.0.5', 81));
});

test('a successor goes on with the connections that it finds, and does not give their ports again', () => {
  const settings = { fullnat_lport_min: 5000, fullnat_lport_max: 5009 };
  const before = lab(settings, ['10.0.0.50'], ['10.0.0.7']);
  const ends = [0, 1, 2].map(client => open(before, client) as Ends);
  const { connections, destinations } = before.director;
  const after = makeBench({ connections, destinations, settings });
  after.director.pool.adopt(0, 'tcp 10.0.0.3:80', '10.0.0.7', 80, 1000);
  const key = addService(after, 'tcp', 4, 80, { method: 'fullnat' });
  after.director.administration.addLocalAddress(key, '10.0.0.50');
  for (const [client, end] of ends.entries()) {
    const sent = parsed(after.receive(segment(client, TcpFlag.ack), 2000).sent[0]);
    assert.equal(sent.sourcePort, end.port);
  }
  const others = [3, 4, 5, 6, 7, 8, 9].map(client => (open(after, client, 2) as Ends).port);
  assert.equal(new Set([...others, ...ends.map(end => end.port)]).size, 10);
  assert.equal(open(after, 10, 2), undefined);
  for (let second = 3; second < 1000; second++) after.director.expire(second * 1000);
  assert.equal(connections.size, 0);
  const use = after.director.administration.service(key)?.localAddressUse;
  assert.equal(use?.[0]?.connections, 0);
  assert.ok(open(after, 11, 1000));
});

test('a table that is full takes no port with it', () => {
  const bench = makeBench({ capacity: 2, settings: { fullnat_lport_min: 5000, fullnat_lport_max: 5004 } });
  const key = addService(bench, 'tcp', 4, 80, { method: 'fullnat' });
  bench.director.administration.addLocalAddress(key, '10.0.0.50');
  for (let client = 0; client < 2; client++) {
    assert.ok(open(bench, client));
    bench.receive(segment(client, TcpFlag.ack), 1000);
  }
  for (let client = 2; client < 20; client++) assert.equal(open(bench, client), undefined);
  assert.equal(bench.director.drops[Drop.tableFull], 18);
  assert.equal(bench.director.drops[Drop.noLocalPort], 0);
});

test('deleting a local address leaves its connections alone', () => {
  const each = lab({}, LOCALS, ['10.0.0.7']);
  const ends = [0, 1].map(client => open(each, client) as Ends);
  each.director.administration.deleteLocalAddress(each.key, '10.0.0.50');
  for (const [client, end] of ends.entries()) {
    const sent = parsed(each.receive(segment(client, TcpFlag.ack), 2000).sent[0]);
    assert.deepEqual([sent.source, sent.sourcePort], [end.local, end.port]);
  }
  for (let client = 2; client < 6; client++) assert.equal(open(each, client)?.local, '10.0.0.51');
  each.director.administration.deleteLocalAddress(each.key, '10.0.0.51');
  assert.equal(open(each, 6), undefined);
  assert.equal(each.director.drops[Drop.noLocalAddress], 1);
  assert.equal(each.director.administration.service(each.key)?.localAddresses, undefined);
});

/** What a set of clients, servers and times does to ports, against a model that knows every connection. */
test('whatever opens, ends and expires: no two living connections share their ends, and none is refused without need', () => {
  const step = fc.oneof(
    { weight: 6, arbitrary: fc.record({ do: fc.constant('open' as const), client: fc.nat(40) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('reset' as const), client: fc.nat(40) }) },
    {
      weight: 1,
      arbitrary: fc.record({ do: fc.constant('wait' as const), seconds: fc.integer({ min: 1, max: 90 }) }),
    },
  );
  let refusals = 0;
  fc.assert(
    fc.property(
      fc.array(step, { maxLength: 120, size: 'max' }),
      fc.integer({ min: 1, max: 12 }),
      (steps, ports) => {
        const settings = { fullnat_lport_min: 5000, fullnat_lport_max: 4999 + ports };
        const each = lab(settings, LOCALS, ['10.0.0.7']);
        const living = new Map<number, string>();
        /** When each pair of ends was last used. */
        const lastUsed = new Map<string, number>();
        const timeouts = new Map<number, number>();
        let now = 1;
        for (const action of steps) {
          if (action.do === 'wait') {
            for (let second = 0; second < action.seconds; second++) each.director.expire(++now * 1000);
            for (const [client, until] of timeouts) {
              if (until > now) continue;
              timeouts.delete(client);
              living.delete(client);
            }
            continue;
          }
          const { client } = action;
          if (action.do === 'reset') {
            if (!living.has(client)) continue;
            each.receive(segment(client, TcpFlag.ack), now * 1000);
            each.receive(segment(client, TcpFlag.rst), now * 1000);
            timeouts.set(client, now + AFTER_RESET);
            lastUsed.set(living.get(client) as string, now);
            continue;
          }
          const before = living.get(client);
          // A SYN on a connection in CLOSE replaces it.
          const ended =
            before !== undefined && timeouts.get(client) === (lastUsed.get(before) as number) + AFTER_RESET;
          if (ended) living.delete(client);
          const end = open(each, client, now);
          if (!end) {
            refusals++;
            const held = new Set(living.values());
            for (const [ends, at] of lastUsed) if (now - at < 2 * SERVER_TIME_WAIT + 61) held.add(ends);
            assert.equal(held.size, 2 * ports, 'refused while a port was free');
            continue;
          }
          const ends = textOf(end);
          if (before !== undefined && !ended) assert.equal(ends, before);
          else {
            assert.ok(![...living.values()].includes(ends), `${ends} is in use`);
            const at = lastUsed.get(ends);
            assert.ok(
              at === undefined || now - at >= SERVER_TIME_WAIT,
              `${ends} given after ${now - (at ?? 0)} s`,
            );
          }
          living.set(client, ends);
          lastUsed.set(ends, now);
          timeouts.set(client, now + AFTER_SYN);
        }
        const used = use(each).reduce((sum, { connections }) => sum + connections, 0);
        assert.equal(used, each.director.connections.size);
      },
    ),
    { numRuns: 200 },
  );
  assert.ok(refusals > 20, `${refusals} refusals`);
});

test('names of local addresses', () => {
  const local = parseLocalAddress('2001:0db8::0050%eth1') as LocalAddress;
  assert.deepEqual([local.address, local.interfaceName, local.family], ['2001:db8::50', 'eth1', 6]);
  assert.equal(local.text, '2001:db8::50%eth1');
  assert.equal(parseLocalAddress('10.0.0.50')?.text, '10.0.0.50');
  for (const text of ['', '10.0.0', '10.0.0.50%', '10.0.0.50%a%b', 'eth0'])
    assert.equal(parseLocalAddress(text), undefined);
});

function refusal(run: () => void): string {
  try {
    run();
  } catch (error) {
    assert.ok(error instanceof IpvsError);
    return error.code;
  }
  return 'none';
}

test('what a service accepts', () => {
  const bench = makeBench();
  const { administration } = bench.director;
  const key = addService(bench, 'tcp', 4, 80, { method: 'fullnat' });
  const add = (address: string, name?: string): string =>
    refusal(() => administration.addLocalAddress(key, address, name));
  assert.equal(add('10.0.0.50', 'eth0'), 'none');
  assert.equal(add('10.0.0.50'), 'EEXIST');
  assert.equal(add('10.0.0.50.1'), 'EINVAL');
  assert.equal(add('2001:db8::50'), 'EINVAL');
  assert.equal(add('224.0.0.1'), 'EINVAL');
  assert.equal(add('0.0.0.0'), 'EINVAL');
  assert.equal(
    refusal(() => administration.deleteLocalAddress(key, '10.0.0.51')),
    'ENOENT',
  );
  const other: ServiceKey = { protocol: 'tcp', address: '10.0.0.3', port: 81 };
  assert.equal(
    refusal(() => administration.addLocalAddress(other, '10.0.0.50')),
    'ESRCH',
  );
  const status = administration.service(key);
  assert.ok(status);
  assert.deepEqual(status.localAddresses, ['10.0.0.50%eth0']);
  const { statistics: _, destinations: __, localAddressUse: ___, ...specification } = status;
  const { localAddresses: ____, ...without } = specification;
  administration.editService({ ...without, scheduler: 'wrr' });
  assert.deepEqual(
    administration.service(key)?.localAddresses,
    ['10.0.0.50%eth0'],
    'an edit without them keeps them',
  );
  administration.editService({ ...without, localAddresses: [] });
  assert.equal(administration.service(key)?.localAddresses, undefined);
  const edit = (changes: object): string =>
    refusal(() => administration.editService({ ...without, ...changes }));
  assert.equal(edit({ localAddresses: ['10.0.0.50', '10.0.0.50%eth0'] }), 'EEXIST');
  assert.equal(edit({ clientAddress: 'proxy-v2' }), 'none');
  assert.equal(edit({ clientAddress: 'proxy-v3' }), 'EINVAL');
  assert.equal(edit({ onePacket: true }), 'EINVAL');
  assert.equal(
    refusal(() => addServer(bench, key, '10.0.0.5')),
    'EINVAL',
    "the director's own address",
  );
  assert.equal(
    refusal(() => addServer(bench, key, '2001:db8::7')),
    'EINVAL',
    'another family',
  );

  const udp = addService(bench, 'udp', 4, 53, { method: 'masq' });
  const datagrams = administration.service(udp);
  assert.ok(datagrams);
  const { statistics: _____, destinations: ______, ...plain } = datagrams;
  for (const clientAddress of ['toa', 'proxy-v1', 'proxy-v2'] as const) {
    assert.equal(
      refusal(() => administration.editService({ ...plain, clientAddress })),
      'EINVAL',
    );
  }
  administration.editService({ ...plain, onePacket: true, clientAddress: 'none' });
  assert.equal(
    refusal(() => addServer(bench, udp, '10.0.0.8', 53)),
    'EINVAL',
    'one-packet scheduling',
  );
});
