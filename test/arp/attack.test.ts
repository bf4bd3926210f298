/** The guard against attackers: arpspoof, and frames made by hand, between namespaces. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { advertisement, announcement, answer, question, tagged } from '../../src/arp/guard.fixture.ts';
import { AdvertisementFlag } from '../../src/wire/neighbor-discovery.ts';
import { missing } from '../requirements.ts';
import { addressOf, GuardedCluster, sleep, until, VIP, VIP6 } from './cluster.ts';
import { failOver } from './failover.ts';
import { dirigo } from './programs.ts';

const NEEDS = missing('root', 'ip', 'ethtool', 'ping');

/** Claims of the VIP by the attacker, and frames nobody takes. */
function handMade({ macs }: GuardedCluster): [string, Uint8Array, string, string][] {
  const { attacker, director } = macs;
  const lengths = announcement(VIP, attacker);
  lengths[18] = 5;
  const hardware = announcement(VIP, attacker);
  hardware[15] = 6;
  const target = addressOf('director');
  return [
    ['request form', question(addressOf('director'), VIP, attacker), 'vip-claimed', 'asks in the name of'],
    ['reply form', answer(VIP, attacker, { to: director, target }), 'vip-claimed', 'answers for'],
    ['gratuitous request', announcement(VIP, attacker), 'vip-claimed', 'announces'],
    ['gratuitous reply', announcement(VIP, attacker, true), 'vip-claimed', 'announces'],
    ['VLAN 0', tagged(announcement(VIP, attacker), 0), 'vip-claimed', 'announces'],
    ['VLAN 7', tagged(announcement(VIP, attacker), 7), 'vip-claimed', 'in VLAN 7'],
    ['hardware type 6', hardware, 'vip-claimed', 'announces'],
    ['wrong length', lengths, 'malformed', 'arp-lengths'],
    ['with override', advertisement(VIP6, attacker, AdvertisementFlag.override), 'vip-claimed', 'announces'],
    ['without override', advertisement(VIP6, attacker, 0), 'vip-claimed', 'without override'],
    ['solicitation', question('2001:db8:3::5', VIP6, attacker), 'vip-claimed', 'asks in the name of'],
    [
      'source differs',
      answer('10.3.0.99', director, { to: director, from: attacker }),
      'sender-mismatch',
      attacker,
    ],
  ];
}

test('frames made by hand are seen for what they are', { skip: NEEDS }, async () => {
  const cluster = new GuardedCluster();
  try {
    const guard = await cluster.guard('director', 'watch', '--quiet', '0');
    for (const [name, frame, kind, words] of handMade(cluster)) {
      guard.events.length = 0;
      cluster.segment('attacker').send(frame);
      const event = await guard.event(kind, ({ text }) => text.includes(words));
      assert.ok(event, `${name}: ${JSON.stringify(guard.events)} ${guard.stderr}`);
    }
    // The real server's fault, with the kernel's own answers.
    cluster.lab.run('server', 'ip', 'addr', 'add', `${VIP}/32`, 'dev', 'lo');
    guard.events.length = 0;
    cluster.segment('server').send(announcement(VIP, cluster.macs.server));
    assert.ok(await guard.event('server-answers-for-vip'));
  } finally {
    await cluster.remove();
  }
});

test('arpspoof is noticed; protected entries stand, and leave as they came', {
  skip: NEEDS || missing('arpspoof'),
}, async () => {
  const cluster = new GuardedCluster();
  try {
    const { lab, macs } = cluster;
    const server = addressOf('server');
    cluster.visit('director', server);
    cluster.visit('client', VIP);
    const guard = await cluster.guard('director', 'protect');
    const [entry] = JSON.parse(lab.run('director', 'ip', '-json', 'neigh', 'show', server));
    assert.deepEqual(entry.state, ['PERMANENT']);
    // Tells the director that the server is here, and everybody that the VIP is.
    lab.start('attacker', {}, 'arpspoof', '-i', 'eth0', '-t', addressOf('director'), server);
    lab.start('attacker', {}, 'arpspoof', '-i', 'eth0', VIP);
    assert.ok(await guard.event('binding-contradicted', ({ address }) => address === server), guard.stderr);
    assert.ok(await guard.event('vip-claimed', ({ mac }) => mac === macs.attacker));
    await sleep(100);
    assert.equal(cluster.known('director', server), macs.server);
    assert.equal(cluster.known('client', VIP), macs.director, 'corrected');
    await guard.stop();
    assert.match(guard.stderr, /corrections$/m);
    const [after] = JSON.parse(lab.run('director', 'ip', '-json', 'neigh', 'show', server));
    assert.notDeepEqual(after.state, ['PERMANENT'], 'an ordinary entry again');
    assert.equal(after.protocol, undefined);
  } finally {
    await cluster.remove();
  }
});

test('what a client believed is corrected', { skip: NEEDS }, async () => {
  const cluster = new GuardedCluster();
  try {
    const { macs } = cluster;
    const attacker = cluster.segment('attacker');
    const frames: [string, Uint8Array][] = [
      [VIP, announcement(VIP, macs.attacker)],
      [VIP6, advertisement(VIP6, macs.attacker, AdvertisementFlag.override)],
    ];
    for (const address of [VIP, VIP6]) cluster.visit('client', address);
    for (const [address, frame] of frames) {
      assert.equal(cluster.known('client', address), macs.director);
      attacker.send(frame);
      await until(() => cluster.known('client', address) === macs.attacker);
      // Nobody guards: it stays so.
      await sleep(300);
      assert.equal(cluster.known('client', address), macs.attacker);
    }
    const guard = await cluster.guard('director', 'protect');
    for (const [address, frame] of frames) {
      attacker.send(frame);
      await until(() => cluster.known('client', address) === macs.director);
      assert.ok(await guard.event('vip-claimed', event => event.address === address));
    }
  } finally {
    await cluster.remove();
  }
});

test('on a bridge the filter drops what contradicts, and nothing else', { skip: NEEDS }, async () => {
  const cluster = new GuardedCluster();
  try {
    const { macs } = cluster;
    const guard = await cluster.guard('lan', 'enforce', '--quiet', '0');
    assert.match(guard.stderr, /to-attacker: filter in place \(tc ingress\)/);
    for (const address of [VIP, VIP6]) {
      cluster.visit('client', address);
      assert.equal(cluster.known('client', address), macs.director);
    }
    for (const [name, frame, kind] of handMade(cluster)) {
      if (kind === 'sender-mismatch') continue;
      guard.events.length = 0;
      cluster.segment('attacker').send(frame);
      assert.ok(
        await guard.event(kind, ({ dropped }) => dropped),
        `${name}: ${JSON.stringify(guard.events)}`,
      );
      for (const address of [VIP, VIP6]) assert.equal(cluster.known('client', address), macs.director, name);
    }
    // A failover passes.
    guard.events.length = 0;
    cluster.segment('backup').send(announcement(VIP, macs.backup));
    await until(() => cluster.known('client', VIP) === macs.backup);
    await guard.event('address-moved');
    assert.deepEqual(guard.alarms(), []);
    cluster.visit('client', addressOf('server'));
    assert.equal(cluster.known('client', addressOf('server')), macs.server);
    await guard.stop();
    assert.match(guard.stderr, / 11 messages dropped;/);
    // Gone with the guard.
    cluster.segment('attacker').send(announcement(VIP, macs.attacker));
    await until(() => cluster.known('client', VIP) === macs.attacker);
  } finally {
    await cluster.remove();
  }
});

test('on a director the filter works behind its program, elsewhere alone', {
  skip: NEEDS || missing('clang'),
}, async () => {
  const cluster = new GuardedCluster();
  const { lab, macs, environment } = cluster;
  const settings = Object.entries(environment).map(pair => pair.join('='));
  const ask = (...words: string[]): string => lab.run('director', 'env', ...settings, ...dirigo(...words));
  try {
    const words = ['up', '--datapath', 'xdp', '--interface', 'eth0'];
    const daemon = lab.start('director', environment, ...dirigo(...words));
    let said = '';
    daemon.stdout?.on('data', text => {
      said += text;
    });
    await until(() => said.includes('data path up'), 20_000);
    ask('ipvsadm', '-A', '-t', `${VIP}:80`, '-s', 'rr');
    ask('ipvsadm', '-a', '-t', `${VIP}:80`, '-r', `${addressOf('server')}:80`);
    const program = (): unknown => JSON.parse(ask('status', '--json')).datapath.program;
    const before = program();

    for (const [host, place, target] of [
      ['director', 'behind the director', addressOf('server')],
      ['client', 'native XDP', VIP],
    ] as const) {
      const guard = await cluster.guard(host, 'enforce');
      assert.ok(guard.stderr.includes(`eth0: filter in place (${place})`), guard.stderr);
      const { attacker } = macs;
      const kind = host === 'client' ? 'vip-claimed' : 'binding-contradicted';
      const poison = answer(target, attacker, { to: macs[host], target: addressOf(host) });
      cluster.segment('attacker').send(poison);
      assert.ok(await guard.event(kind, each => each.dropped && each.address === target), host);
      cluster.segment('attacker').send(announcement(VIP, attacker));
      cluster.segment('attacker').send(advertisement(VIP6, attacker, AdvertisementFlag.override));
      assert.ok(await guard.event('vip-claimed', each => each.dropped && each.address === VIP6), host);
      // What is right still comes through: the neighbour answers.
      assert.equal(lab.try(host, 'ping', '-c', '1', '-W', '1', addressOf('backup')).status, 0);
      await guard.stop();
      assert.match(guard.stderr, / 3 messages dropped;/);
      const open = await cluster.guard(host, 'watch');
      cluster.segment('attacker').send(announcement(VIP, attacker));
      assert.ok(await open.event('vip-claimed', each => !each.dropped), 'the filter went with the guard');
      await open.stop();
    }
    assert.equal(program(), before, "the director's program is the one it was");
  } finally {
    lab.try('director', 'env', ...settings, ...dirigo('down'));
    await cluster.remove();
  }
});

test('failovers and restarts raise no alarm', { skip: NEEDS }, async () => {
  const cluster = new GuardedCluster();
  try {
    const { alarms, moves, missed } = await failOver(cluster, 6);
    assert.deepEqual(missed, [], 'the guards see an attack after all that');
    assert.deepEqual(alarms, []);
    assert.ok(moves >= 6, `${moves} moves were seen`);
  } finally {
    await cluster.remove();
  }
});
