/** Pins and the guard as part of the daemon. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { announcement, answer } from '../../src/arp/guard.fixture.ts';
import { runBin, startDaemon, temporaryFolder } from '../../src/control/daemon.fixture.ts';
import { missing } from '../requirements.ts';
import { addressOf, GuardedCluster, sleep, until, VIP } from './cluster.ts';
import { dirigo } from './programs.ts';

const NEEDS = missing('root', 'ip', 'ethtool', 'clang', 'curl');

test('pins of a virtual data path: pinned, listed, imported, exported, kept', async context => {
  const folder = temporaryFolder(context);
  const environment = { DIRIGO_SOCKET: `${folder}/socket` };
  const arp = (...words: string[]) => runBin('dirigo', ['arp', ...words], environment);
  const first = await startDaemon(context, environment, ['--state', `${folder}/state`]);
  assert.equal(arp('pin', '10.0.0.7', '00:0C:29:3b:07:73').stderr, '');
  assert.equal(arp('pin').stdout, '00:0c:29:3b:07:73 10.0.0.7\n');
  assert.match(arp('--daemon').stdout, /^10\.0\.0\.7 {17}ether {3}00:0c:29:3b:07:73 {3}CM {20}eth0$/m);
  writeFileSync(`${folder}/ethers`, '# more\n00:0c:29:3b:08:84 10.0.0.8\n0:c:29:1a:5:51 2001:db8::5\n');
  assert.equal(arp('pin', '--import', `${folder}/ethers`).status, 0);
  writeFileSync(`${folder}/wrong`, '00:0c:29:3b:08:99 10.0.0.9\n00:0c:29:3b:08:84\n');
  const wrong = arp('pin', '--import', `${folder}/wrong`);
  assert.equal(wrong.status, 1);
  assert.match(wrong.stderr, /^dirigo: .*wrong: line 2: nothing is no known host/);
  const all = '00:0c:29:3b:07:73 10.0.0.7\n00:0c:29:3b:08:84 10.0.0.8\n00:0c:29:1a:05:51 2001:db8::5\n';
  assert.equal(arp('pin').stdout, all, 'nothing of a wrong file is pinned');
  for (const [words, message] of [
    [['pin', '10.0.0.300', '00:0c:29:3b:07:73'], /"10\.0\.0\.300" is no IP address/],
    [['pin', '10.0.0.7', 'x'], /"x" is no MAC address/],
    [['pin', '10.0.0.7', 'ff:ff:ff:ff:ff:ff'], /is no MAC of one station/],
    [['pin', '224.0.0.1', '00:0c:29:3b:07:73'], /no address that a station has/],
    [['pin', '10.0.0.7'], /at which MAC is 10\.0\.0\.7\?/],
    [['unpin', '10.0.0.99'], /10\.0\.0\.99: not pinned/],
    [['unpin'], /name the addresses, or give --all/],
  ] as const) {
    const refused = arp(...words);
    assert.equal(refused.status, 1, words.join(' '));
    assert.match(refused.stderr, message);
  }
  const stopped = new Promise(resolve => first.once('exit', resolve));
  first.kill('SIGTERM');
  await stopped;
  await startDaemon(context, environment, ['--state', `${folder}/state`]);
  assert.equal(arp('pin').stdout, all, 'kept over a restart');
  assert.equal(runBin('dirigo', ['rollback'], environment).status, 0);
  assert.equal(arp('pin').stdout, '00:0c:29:3b:07:73 10.0.0.7\n', 'the import is gone back');
  assert.equal(arp('unpin', '--all').status, 0);
  assert.equal(arp('pin', '--export', `${folder}/out`).status, 0);
  assert.equal(arp('pin').stdout, '');
});

test('the daemon pins in the kernel and in the fast path, guards, and tells', { skip: NEEDS }, async () => {
  const cluster = new GuardedCluster();
  const { lab, macs, environment } = cluster;
  const settings = Object.entries(environment).map(pair => pair.join('='));
  const ask = (...words: string[]) => lab.try('director', 'env', ...settings, ...dirigo(...words));
  try {
    const server = addressOf('server');
    const backup = addressOf('backup');
    lab.run('director', 'ip', 'neigh', 'add', addressOf('client'), 'lladdr', macs.client, 'dev', 'eth0');
    const words = ['--guard', 'eth0:protect', '--guard-director', macs.backup, '--guard-vrid', '51'];
    const up = ['up', '--datapath', 'xdp', '--interface', 'eth0', '--state', `${lab.folder}/state`, ...words];
    const start = async () => {
      const daemon = lab.start('director', environment, ...dirigo(...up));
      let said = '';
      let complaints = '';
      daemon.stdout?.on('data', text => {
        said += text;
      });
      daemon.stderr?.on('data', text => {
        complaints += text;
      });
      await until(() => said.includes('data path up') || daemon.exitCode !== null, 20_000);
      assert.equal(daemon.exitCode, null, complaints);
      return { daemon, complaints: () => complaints };
    };
    const first = await start();
    const entry = (address: string) =>
      JSON.parse(lab.run('director', 'ip', '-json', 'neigh', 'show', address) || '[]')[0] ?? {};

    // A real server of the configuration is protected at the MAC that answers; a pin goes before that.
    ask('ipvsadm', '-A', '-t', `${VIP}:80`, '-s', 'rr');
    ask('ipvsadm', '-a', '-t', `${VIP}:80`, '-r', `${server}:80`);
    await until(() => entry(server).state?.includes('PERMANENT'));
    assert.equal(entry(server).lladdr, macs.server);
    assert.equal(ask('arp', 'pin', backup, macs.backup).stderr, '');
    assert.deepEqual(entry(backup).state, ['PERMANENT']);
    const table = ask('arp', '--daemon').stdout;
    assert.equal(table, lab.run('director', 'arp', '-n'));

    // What an administrator pinned by hand stays.
    const refused = ask('arp', 'pin', addressOf('client'), '02:00:00:00:00:01');
    assert.equal(refused.status, 1);
    assert.match(refused.stderr, /by somebody else's hand: `ip neigh del 10\.3\.0\.1 dev eth0` first/);
    assert.equal(ask('arp', 'pin').stdout, `${macs.backup} ${backup}\n`, 'and nothing is kept of it');

    // The attacker says that the server is here; the fast path's record keeps the MAC.
    for (let round = 0; round < 5; round++) {
      const poison = answer(server, macs.attacker, { to: macs.director, target: addressOf('director') });
      cluster.segment('attacker').send(poison);
      cluster.segment('attacker').send(announcement(server, macs.attacker));
      await sleep(50);
    }
    assert.equal(entry(server).lladdr, macs.server);
    await until(() => /guard kind="?binding-contradicted"? interface="?eth0/.test(first.complaints()));
    const guard = (): { events: Record<string, number>; staticEntries: number } | null =>
      JSON.parse(ask('arp', 'guard', '--status', '--json').stdout);
    assert.ok((guard()?.events['binding-contradicted'] ?? 0) >= 1);
    assert.equal(guard()?.staticEntries, 2);
    const metrics = lab.run(
      'director',
      'curl',
      ...['-s', '--unix-socket', environment.DIRIGO_SOCKET as string, 'http://dirigo/metrics'],
    );
    assert.match(metrics, /^dirigo_guard_events_total\{kind="binding-contradicted"\} [1-9]/m);
    assert.match(metrics, /^dirigo_guard_static_entries 2$/m);

    // A daemon that ends leaves the pins to the next one; `down` takes all away.
    const stopped = new Promise(resolve => first.daemon.once('exit', resolve));
    first.daemon.kill('SIGTERM');
    await stopped;
    assert.deepEqual(entry(backup).state, ['PERMANENT']);
    assert.notDeepEqual(entry(server).state, ['PERMANENT'], 'what the guard found out goes with it');
    await start();
    assert.equal(ask('arp', 'pin').stdout, `${macs.backup} ${backup}\n`);
    assert.equal(ask('arp', 'unpin', backup).status, 0);
    assert.notDeepEqual(entry(backup).state, ['PERMANENT']);
    assert.equal(entry(backup).lladdr, macs.backup, 'the kernel goes on with the MAC it has');
    await until(() => entry(server).state?.includes('PERMANENT'));
    assert.equal(ask('down').status, 0);
    assert.notDeepEqual(entry(server).state, ['PERMANENT']);
    assert.deepEqual(entry(addressOf('client')).state, ['PERMANENT'], "the administrator's own");
  } finally {
    lab.try('director', 'env', ...settings, ...dirigo('down'));
    await cluster.remove();
  }
});
