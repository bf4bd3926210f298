/** What a plan says of connections is what becomes of them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ethernetFrame, ipv4Packet, tcpSegment } from '../../test/frames.ts';
import { type Bench, makeBench, readdressed } from '../ipvs/director.fixture.ts';
import { NO_NAMES } from '../ipvsadm/name-files.ts';
import { runIpvsadm } from '../ipvsadm/run.ts';
import { EtherType } from '../wire/ethernet.ts';
import { Protocol } from '../wire/ipv4.ts';
import { TcpFlag } from '../wire/tcp.ts';
import { Configuration } from './configuration.ts';
import { readTarget, TargetError } from './draft.ts';
import type { Plan } from './plan.ts';

interface Controlled {
  bench: Bench;
  configuration: Configuration;
  plan(text: string, clients?: number): Plan;
}

function controlled(lines: string): Controlled {
  const bench = makeBench();
  const { director } = bench;
  const run = runIpvsadm(['-R'], lines, director.administration, NO_NAMES);
  assert.equal(run.stderr, '');
  const interfaceIndex = (): undefined => undefined;
  const configuration = new Configuration({ datapath: { director, interfaceIndex, now: () => 2000 } });
  return {
    bench,
    configuration,
    plan: (text, clients) =>
      configuration.plan(readTarget(text, { director, names: NO_NAMES, interfaceIndex }), clients),
  };
}

/** So many clients connect. */
function connect({ bench }: Controlled, clients: number): void {
  for (let client = 1; client <= clients; client++) {
    const { sent } = bench.receive(segment(client, 40_000, TcpFlag.syn), 1500);
    assert.equal(sent.length, 1);
  }
}

/** A segment of a client to the service. */
function segment(client: number, sourcePort: number, flags: number): Uint8Array {
  const packet = ipv4Packet(Protocol.tcp, tcpSegment(4, { sourcePort, flags }));
  return readdressed(ethernetFrame(EtherType.ipv4, packet), `198.51.100.${client}`, '10.0.0.3');
}

const TWO = '-A -t 10.0.0.3:80 -s rr\n-a -t 10.0.0.3:80 -r 10.0.0.7 -g\n-a -t 10.0.0.3:80 -r 10.0.0.8 -g\n';

test('connections of a deleted server drop, those of others stay', () => {
  const all = controlled(TWO);
  connect(all, 5);
  const plan = all.plan('-A -t 10.0.0.3:80 -s rr\n-a -t 10.0.0.3:80 -r 10.0.0.7 -g -w 0\n', 10);
  const [first, second] = plan.services[0]?.destinations ?? [];
  assert.deepEqual(
    [first?.address, first?.change, first?.differences, first?.connections.stay],
    ['10.0.0.7', 'edited', { weight: { before: 1, after: 0 } }, 2],
  );
  assert.deepEqual([second?.address, second?.change, second?.connections.drop], ['10.0.0.8', 'deleted', 3]);
  assert.deepEqual(plan.connections, { stay: 2, move: 0, drop: 3 });
  assert.deepEqual(
    plan.clients?.map(({ client, server, becomes }) => `${client} ${server} ${becomes}`),
    ['198.51.100.1', '198.51.100.3', '198.51.100.5'].map(client => `${client} 10.0.0.8:80 drop`),
  );
  assert.equal(all.plan('-A -t 10.0.0.3:80 -s rr', 1).clients?.length, 1);
});

test('persistent clients move where their server goes, stay where it is quiesced, and drop where there is no other', async () => {
  const persistent = TWO.replace('-s rr', '-s rr -p 300');
  const all = controlled(persistent);
  connect(all, 4);
  const effect = (text: string): unknown => all.plan(text).persistentClients;
  assert.deepEqual(effect(persistent), { stay: 4, move: 0, drop: 0 });
  assert.deepEqual(effect(persistent.replace(/-a .* 10.0.0.8 -g\n/, '')), { stay: 2, move: 2, drop: 0 });
  assert.deepEqual(effect(persistent.replace('10.0.0.8 -g', '10.0.0.8 -g -w 0')), {
    stay: 4,
    move: 0,
    drop: 0,
  });
  assert.deepEqual(effect('-A -t 10.0.0.3:80 -p 300\n'), { stay: 0, move: 0, drop: 4 });
  assert.deepEqual(effect(''), { stay: 0, move: 0, drop: 4 });
  assert.deepEqual(effect(persistent.replace('-p 300', '-p 60')), { stay: 4, move: 0, drop: 0 });
  assert.deepEqual(effect(persistent.replace('-p 300', '-p 300 -M 255.255.255.0')), {
    stay: 0,
    move: 4,
    drop: 0,
  });
  assert.deepEqual(effect(TWO), { stay: 0, move: 4, drop: 0 });
  await all.configuration.edit('', () => all.bench.director.set('expire_quiescent_template', '1'));
  assert.deepEqual(effect(persistent.replace('10.0.0.8 -g', '10.0.0.8 -g -w 0')), {
    stay: 2,
    move: 2,
    drop: 0,
  });
});

test('what it says of a server comes true', async () => {
  const all = controlled(TWO.replace('-s rr', '-s rr -p 300'));
  connect(all, 2);
  const text = '-A -t 10.0.0.3:80 -s rr -p 300\n-a -t 10.0.0.3:80 -r 10.0.0.7 -g\n';
  const { director } = all.bench;
  const target = readTarget(text, { director, names: NO_NAMES, interfaceIndex: () => undefined });
  const plan = await all.configuration.apply('', target);
  assert.deepEqual(plan.persistentClients, { stay: 1, move: 1, drop: 0 });
  // The first went to 10.0.0.8, which was added last. Its connection is dropped, its next one moves.
  assert.equal(all.bench.receive(segment(1, 40_000, TcpFlag.ack), 2000).sent.length, 0);
  const macOf = (frame: Uint8Array | undefined): number | undefined => frame?.[5];
  assert.equal(macOf(all.bench.receive(segment(1, 40_001, TcpFlag.syn), 2000).sent[0]), 7);
});

test('what ipvsadm -S prints changes nothing, whatever the order', () => {
  const lines = `${TWO}-A -u 10.0.0.3:53 -s rr -o\n-a -u 10.0.0.3:53 -r 10.0.0.9 -m -w 3\n-A -f 7 -6 -s sh -b sh-port\n`;
  const all = controlled(lines);
  const saved = runIpvsadm(['-S', '-n'], '', all.bench.director.administration, NO_NAMES).stdout;
  assert.notEqual(saved.indexOf('10.0.0.7'), -1);
  assert.equal(all.plan(saved).changes, false);
  assert.equal(all.plan(lines.split('\n').toReversed().toSorted().join('\n')).changes, false);
  assert.equal(all.plan(JSON.stringify(all.configuration.state())).changes, false);
  // In JSON the order counts.
  const state = all.configuration.state();
  const turned = { ...state, services: state.services.toReversed() };
  assert.equal(all.plan(JSON.stringify(turned)).rearranged, true);
});

test('JSON may leave out what has a default, and says where it makes no sense', () => {
  const all = controlled('');
  const services = [
    {
      key: 'tcp 10.0.0.3:80',
      destinations: [{ address: '10.0.0.7' }, { address: '10.0.0.8', method: 'masq', port: 81 }],
    },
    { key: { mark: 7 }, scheduler: 'sh', schedulerFlags: 'sh-port', destinations: [] },
    { key: 'tcp [2001:DB8::3]:80', persistenceTimeout: 60, destinations: [] },
  ];
  const lines =
    '-A -t 10.0.0.3:80\n-a -t 10.0.0.3:80 -r 10.0.0.7 -g\n-a -t 10.0.0.3:80 -r 10.0.0.8:81 -m\n' +
    '-A -f 7 -s sh -b sh-port\n-A -t [2001:db8::3]:80 -p 60\n';
  const { director } = all.bench;
  const options = { director, names: NO_NAMES, interfaceIndex: () => undefined };
  const read = (text: string): unknown => readTarget(text, options).services;
  assert.deepEqual(read(JSON.stringify({ version: 1, services })), read(lines));
  const wrong: [unknown, RegExp][] = [
    [{}, /^version has to be 1$/],
    [{ version: 2 }, /^version 2 is not known/],
    [{ version: 1, sevices: [] }, /^sevices is not known; there are version, /],
    [{ version: 1, services: {} }, /^services is \{\}: it has to be a list$/],
    [
      { version: 1, services: [{ destinations: [] }] },
      /^services\[0\]\.key is missing: it has to be an object$/,
    ],
    [
      { version: 1, services: [{ key: 'tcp 10.0.0.3', destinations: [] }] },
      /^services\[0\]\.key is "tcp 10\.0\.0\.3": /,
    ],
    [
      { version: 1, services: [{ key: 'fwm 1', destinations: [{ address: 'web01' }] }] },
      /^services\[0\]\.destinations\[0\]\.address is "web01": it has to be an IP address$/,
    ],
    [
      {
        version: 1,
        services: [{ key: 'tcp 10.0.0.3:80', destinations: [{ address: '10.0.0.7', port: 81 }] }],
      },
      /destinations\[0\]\.port is 81: it has to be 80, the service's/,
    ],
    [
      { version: 1, services: [{ key: 'tcp 10.0.0.3:80', scheduler: 'best', destinations: [] }] },
      /^services\[0\] \(tcp 10\.0\.0\.3:80\): no scheduler best$/,
    ],
    [
      { version: 1, services: [services[0], services[0]] },
      /^services\[1\] \(tcp 10\.0\.0\.3:80\): service tcp 10\.0\.0\.3:80 already exists$/,
    ],
    [{ version: 1, settings: { sloppy_tcp: 2 } }, /^settings: sloppy_tcp cannot be "2": /],
    [{ version: 1, settings: { sloppy: 1 } }, /^settings: there is no setting "sloppy"/],
    [{ version: 1, marks: ['tcp mark'] }, /^marks: /],
    [{ version: 1, marks: ['on eth9 mark 1'] }, /^marks: .*eth9/],
  ];
  for (const [value, message] of wrong) {
    assert.throws(
      () => readTarget(JSON.stringify(value), options),
      (error: unknown) => error instanceof TargetError && message.test(error.message),
      JSON.stringify(value),
    );
  }
});

test('lines of ipvsadm are refused with their number', () => {
  const all = controlled('');
  const wrong: [string, RegExp][] = [
    [
      '# saved\n\n-A -t 10.0.0.3:80 -s best',
      /^line 3 \(-A -t 10\.0\.0\.3:80 -s best\): Scheduler or persistence engine not found$/,
    ],
    ['-a -t 10.0.0.3:80 -r 10.0.0.7', /^line 1 \(.*\): Service not defined$/],
    ['-L -n', /^line 1 \(-L -n\): it prints something and configures nothing$/],
    ['-A -t 10.0.0.3:80 --nosuch', /^line 1 \(.*\): --nosuch: unknown option$/],
    ['virtual_server 10.0.0.3 80 {', /^line 1 \(virtual_server/],
  ];
  for (const [text, message] of wrong) {
    assert.throws(
      () => all.plan(text),
      (error: unknown) => error instanceof TargetError && message.test(error.message),
      text,
    );
  }
});
