/** `dirigo top` in a real terminal, and as text. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { missing } from '../../../test/requirements.ts';
import { Terminal } from '../../../test/terminal.ts';
import { runBin, startDaemon, temporaryFolder } from '../../control/daemon.fixture.ts';
import type { DaemonStatus } from '../../control/routes/status.ts';
import type { ServiceStatus, Statistics } from '../../ipvs/specification.ts';
import { NO_STATISTICS } from '../../ipvsadm/table-server.fixture.ts';
import { type Look, sampleOf } from './sample.ts';
import { keysOf } from './screen.ts';
import { FIRST_VIEW, screenLines, viewAfter } from './view.ts';

/** What a shell without a configuration shows when it waits. */
const PROMPT = /^bash-[\d.]+[#$]$/m;

const ROOT = join(import.meta.dirname, '../../..');

function service(port: number, statistics: Partial<Statistics>): ServiceStatus {
  return {
    key: { protocol: 'tcp', address: '10.0.0.3', port },
    scheduler: 'wlc',
    schedulerFlags: 0,
    persistenceTimeout: 0,
    persistenceNetmask: '255.255.255.255',
    persistenceEngine: '',
    onePacket: false,
    statistics: { ...NO_STATISTICS, ...statistics },
    destinations: [
      {
        address: '10.0.0.7',
        port,
        method: 'gate',
        weight: 2,
        upperThreshold: 0,
        lowerThreshold: 0,
        tunnelType: 'ipip',
        tunnelPort: 0,
        tunnelChecksum: 'nocsum',
        activeConnections: 1234,
        inactiveConnections: 5,
        persistentConnections: 0,
        statistics: { ...NO_STATISTICS, ...statistics },
      },
    ],
  } as unknown as ServiceStatus;
}

function look(at: number, services: ServiceStatus[], more: Partial<DaemonStatus> = {}): Look {
  const status: DaemonStatus = {
    pid: 1,
    version: '0.1.0',
    startedAt: '2026-11-28T00:00:00.000Z',
    uptime: 3725,
    services: services.length,
    destinations: services.length,
    quiesced: 0,
    connections: 1239,
    state: null,
    listen: null,
    drops: {},
    datapath: { kind: 'xdp', interfaces: ['eth0 native'], capacity: 10000 },
    ...more,
  };
  const total = { ...NO_STATISTICS };
  for (const { statistics } of services)
    for (const name of Object.keys(NO_STATISTICS) as (keyof Statistics)[]) total[name] += statistics[name];
  return { at, status, services, total };
}

const text = (...words: Parameters<typeof screenLines>): string[] =>
  screenLines(...words).map(line => line.text);

describe('the view', () => {
  test('rates are what happened between two looks, per second', () => {
    const before = look(0, [service(80, { connections: 100, inPackets: 1000, inBytes: 8000 })], {
      drops: { 'no-server': 4 },
    });
    const after = look(2000, [service(80, { connections: 120, inPackets: 5000, inBytes: 2_008_000 })], {
      drops: { 'no-server': 10 },
    });
    const sample = sampleOf(after, before);
    assert.deepEqual(sample.total, {
      connections: 10,
      inPackets: 2000,
      outPackets: 0,
      inBytes: 1_000_000,
      outBytes: 0,
    });
    assert.deepEqual(sample.drops, { 'no-server': 3 });
    const lines = text(sample, FIRST_VIEW, '07:00:00', { columns: 200 });
    assert.deepEqual(lines, [
      'dirigo 0.1.0  07:00:00  up 1 h 2 min  xdp: eth0 native',
      'Services 1, servers 1 (0 quiesced)  Connections 1,239 of 10,000 (12.4 %)',
      'New 10/s  In 2.0k packets/s 8.0Mbit/s  Out 0 packets/s 0bit/s',
      'Drops 3/s, 10 so far: no-server 3/s',
      '',
      `SERVICE / SERVER HOW       WEIGHT ACTIVE  INACT CONN/s IN PKT/s  IN B/s OUT PKT/s OUT B/s${' '.repeat(112)}`.trimEnd(),
      'tcp 10.0.0.3:80  wlc            2   1.2k      5     10     2.0k    1.0M         0       0',
      '  10.0.0.7:80    gate           2   1.2k      5     10     2.0k    1.0M         0       0',
    ]);
  });

  test('counters that began anew are no negative rates', () => {
    const before = look(0, [service(80, { inPackets: 1000 })]);
    assert.equal(sampleOf(look(1000, [service(80, { inPackets: 10 })]), before).total.inPackets, 0);
    const anew = look(1000, [service(80, { inPackets: 10, inPacketRate: 7 })], { startedAt: 'later' });
    assert.equal(sampleOf(anew, before).total.inPackets, 7);
  });

  test('fits any screen, down to one cell', () => {
    const many = Array.from({ length: 50 }, (_, port) => service(port + 1, { inPacketRate: port }));
    const sample = sampleOf(look(0, many), undefined);
    for (const [columns, rows] of [
      [1, 1],
      [20, 5],
      [80, 24],
      [300, 200],
    ] as const) {
      const lines = text(sample, FIRST_VIEW, '07:00:00', { columns, rows });
      assert.ok(lines.length <= rows, `${lines.length} lines in ${rows}`);
      for (const line of lines) assert.ok(line.length <= columns, line);
    }
  });

  test('orders, scrolls, hides', () => {
    const many = Array.from({ length: 50 }, (_, at) => service(at + 1, { inPacketRate: at }));
    const sample = sampleOf(look(0, many), undefined);
    const first = (view: typeof FIRST_VIEW): string =>
      (text(sample, view, '', { columns: 80, rows: 24 })[6] ?? '').split(' ')[1] ?? '';
    assert.equal(first(FIRST_VIEW), '10.0.0.3:50');
    const after = (...keys: string[]): typeof FIRST_VIEW =>
      keys.reduce((view, key) => viewAfter(view, key, 17, 100) ?? view, FIRST_VIEW);
    assert.equal(first(after('n')), '10.0.0.3:1');
    assert.equal(first(after('n', 'r')), '10.0.0.3:50');
    assert.equal(first(after('n', 's', 'down', 'j')), '10.0.0.3:3');
    assert.equal(after('up').scroll, 0);
    assert.equal(after('end').scroll, 83);
    assert.equal(after('end', 'pageup', 'home').scroll, 0);
    assert.equal(viewAfter(FIRST_VIEW, 'x', 17, 100), undefined);
    assert.match(text(sample, after('h'), '', { columns: 80, rows: 24 }).join('\n'), /quit \(also Escape/);
  });

  test('knows the keys in what a terminal sends at once', () => {
    assert.deepEqual(keysOf('q\x1b[A\x1bOB\x1b[6~\x1b'), ['q', 'up', 'down', 'pagedown', 'escape']);
  });
});

async function place(context: TestContext): Promise<Record<string, string>> {
  const environment = { DIRIGO_SOCKET: join(temporaryFolder(context), 'd.sock') };
  await startDaemon(context, environment);
  const rules = Array.from({ length: 30 }, (_, at) => [
    `-A -t 10.0.0.3:${at + 1} -s rr`,
    `-a -t 10.0.0.3:${at + 1} -r 10.0.0.7:${at + 1} -w ${at}`,
  ]).flat();
  assert.equal(runBin('ipvsadm', ['-R'], environment, { input: `${rules.join('\n')}\n` }).status, 0);
  return environment;
}

test('as text: once, or so many times, wherever output goes', async context => {
  const environment = await place(context);
  const once = runBin('dirigo', ['top', '--once', '--sort', 'name'], environment);
  assert.equal(once.stderr, '');
  assert.ok(!once.stdout.includes('\x1b'));
  assert.match(once.stdout, /^Services 30, servers 30 \(1 quiesced\) /m);
  assert.match(once.stdout, /^tcp 10\.0\.0\.3:1 +rr +0 .*\n {2}10\.0\.0\.7:1 +gate +0 /m);
  const twice = runBin('dirigo', ['top', '-n', '2', '-d', '0.1', '--no-servers'], environment);
  assert.equal(twice.stdout.match(/^dirigo \d/gm)?.length, 2);
  assert.doesNotMatch(twice.stdout, /10\.0\.0\.7/);
  for (const [words, message] of [
    [['--sort', 'colour'], /Allowed choices are name, connections, active, packets, bytes/],
    [['--delay', '0'], /0\.1 to 86400/],
    [['-n', '1.5'], /whole number/],
  ] as const) {
    const refused = runBin('dirigo', ['top', ...words], environment);
    assert.equal(refused.status, 1);
    assert.match(refused.stderr, message);
  }
  const absent = runBin('dirigo', ['top'], { DIRIGO_SOCKET: join(temporaryFolder(context), 'none') });
  assert.equal(absent.status, 1);
  assert.match(absent.stderr, /^dirigo: no daemon listens on /);
});

test('on a terminal', { skip: missing('tmux', 'bash') }, async context => {
  const environment = await place(context);
  const shell = 'bash --norc --noprofile';
  const terminal = new Terminal(shell, {
    columns: 110,
    rows: 24,
    environment,
  });
  context.after(() => terminal.close());
  await terminal.until(PROMPT);
  const top = `${ROOT}/bin/dirigo top -d 0.2`;
  terminal.type(top);
  terminal.press('Enter');
  await terminal.until(/^SERVICE \/ SERVER/m);
  assert.ok(terminal.isOnAlternateScreen());
  assert.ok(!terminal.hasCursor());
  terminal.press('n');
  await terminal.until(/by name/);
  assert.match(terminal.screen()[6] ?? '', /^tcp 10\.0\.0\.3:1 /);
  terminal.press('s', 'Down');
  await terminal.until(/^tcp 10\.0\.0\.3:2 .*\ntcp 10\.0\.0\.3:3 /m);
  // What changes is there at the next look.
  runBin('ipvsadm', ['-D', '-t', '10.0.0.3:2'], environment);
  await terminal.until(/^Services 29, /m);
  for (const [columns, rows] of [
    [60, 10],
    [130, 40],
  ] as const) {
    terminal.resize(columns, rows);
    await terminal.until(new RegExp(`^(.*\\n){${rows - 1}}q quit {2}h help`));
  }
  terminal.press('h');
  await terminal.until(/the other way round/);
  terminal.press('Escape');
  await terminal.until(/^tcp 10\.0\.0\.3:/m);
  // To the shell and back.
  terminal.press('C-z');
  await terminal.until(/Stopped .*dirigo top/);
  assert.ok(!terminal.isOnAlternateScreen());
  terminal.type('fg');
  terminal.press('Enter');
  await terminal.until(/^SERVICE \/ SERVER/m);
  assert.ok(terminal.isOnAlternateScreen());
  // Without a daemon what was known stays, and it says so.
  runBin('dirigo', ['down'], environment);
  const screen = await terminal.until(/^dirigo.*\n[\s\S]*no daemon listens on/);
  assert.match(screen, /^Services 29, /m);
  terminal.press('q');
  await terminal.until(PROMPT);
  assert.ok(!terminal.isOnAlternateScreen());
  assert.ok(terminal.hasCursor());
  terminal.type('echo "status $?"; stty -a | tr " ;" "\\n" | grep -x -e echo -e icanon | tr "\\n" "+"');
  terminal.press('Enter');
  await terminal.until(/status 0\n(icanon\+echo|echo\+icanon)\+/);
});

test('a signal gives the terminal back, and a terminal that cannot gets text', {
  skip: missing('tmux', 'bash'),
}, async context => {
  const environment = await place(context);
  const terminal = new Terminal('bash --norc --noprofile', {
    environment,
  });
  context.after(() => terminal.close());
  await terminal.until(PROMPT);
  terminal.type(`${ROOT}/bin/dirigo top & sleep 2; fg`);
  terminal.press('Enter');
  await terminal.until(/^SERVICE \/ SERVER/m);
  terminal.press('C-c');
  await terminal.until(PROMPT);
  assert.ok(!terminal.isOnAlternateScreen());
  terminal.type(`clear; TERM=dumb ${ROOT}/bin/dirigo top -n 1 --no-servers | head -n 2; echo over`);
  terminal.press('Enter');
  await terminal.until(/^Services 30, [\s\S]*\nover/m);
  assert.ok(!terminal.isOnAlternateScreen());
});
