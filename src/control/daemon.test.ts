/** The daemon as processes see it: one a socket, private, gone without a trace, back after a crash. */
import assert from 'node:assert/strict';
import { chmodSync, existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { goldenExists, goldenLines } from '../../test/golden.ts';
import { missing } from '../../test/requirements.ts';
import { ended, runBin, startDaemon, temporaryFolder } from './daemon.fixture.ts';
import { request } from './request.ts';

const NOBODY = 65534;

function place(context: TestContext): {
  folder: string;
  socket: string;
  environment: Record<string, string>;
} {
  const folder = temporaryFolder(context);
  const socket = join(folder, 'd.sock');
  return { folder, socket, environment: { DIRIGO_SOCKET: socket } };
}

const noRecordings = goldenExists('cli') ? false : 'the recordings are not there';

for (const session of ['seed-session', 'save-restore']) {
  test(`recorded session ${session} through the commands`, { skip: noRecordings }, async context => {
    const { environment } = place(context);
    await startDaemon(context, environment);
    for (const step of goldenLines<{ argv: string[]; stdin?: string } & Record<string, unknown>>(
      `cli/${session}.jsonl`,
    )) {
      const [name = '', ...words] = step.argv;
      const result = runBin(name, words, environment, { input: step.stdin ?? '' });
      assert.deepEqual(
        result,
        { status: step.status, stdout: step.stdout, stderr: step.stderr },
        step.argv.join(' '),
      );
    }
  });
}

test('ipvsadm without a daemon', context => {
  const { socket, environment } = place(context);
  for (const words of [['-Ln'], ['-h'], ['--bogus'], []]) {
    assert.deepEqual(runBin('ipvsadm', words, environment), {
      status: 2,
      stdout: '',
      stderr: `Can't initialize ipvs: Protocol not available\nNo daemon listens on ${socket}: start it with \`dirigo up'\n`,
    });
  }
  const status = runBin('dirigo', ['status'], environment);
  assert.equal(status.status, 1);
  assert.match(status.stderr, /^dirigo: no daemon listens on .*: start it with `dirigo up`\n$/);
});

test('the socket is the owner’s alone', { skip: missing('root') }, async context => {
  const { folder, socket, environment } = place(context);
  chmodSync(folder, 0o755);
  await startDaemon(context, environment);
  assert.equal(statSync(socket).mode & 0o777, 0o600);
  const denied = runBin('ipvsadm', ['-Ln'], environment, { uid: NOBODY });
  assert.deepEqual(denied, {
    status: 2,
    stdout: '',
    stderr:
      "Can't initialize ipvs: Permission denied (you must be root)\n" +
      'Are you sure that IP Virtual Server is built in the kernel or as module?\n',
  });
});

test('two daemons on one socket', async context => {
  const { socket, environment } = place(context);
  const first = await startDaemon(context, environment);
  const second = runBin('dirigo', ['up', '--datapath', 'virtual'], environment);
  assert.equal(second.status, 1);
  assert.equal(
    second.stderr,
    `dirigo: already running (pid ${first.pid}) on ${socket}: take its place with --replace, stop it with \`dirigo down\`, or set DIRIGO_SOCKET to run another\n`,
  );
  assert.equal(runBin('ipvsadm', ['-Ln'], environment).status, 0);
});

test('two daemons on one state', async context => {
  const { folder, environment } = place(context);
  const state = join(folder, 'state');
  const first = await startDaemon(context, { ...environment, DIRIGO_STATE: state });
  const others = {
    DIRIGO_SOCKET: join(folder, 'other.sock'),
    DIRIGO_STATE: join(folder, '.', 'state', '..', 'state'),
  };
  const second = runBin('dirigo', ['up', '--datapath', 'virtual'], others);
  assert.equal(second.status, 1);
  assert.match(
    second.stderr,
    /^dirigo: the state in \S+ is another daemon's: give this one a folder of its own/,
  );
  assert.equal(existsSync(others.DIRIGO_SOCKET), false);
  first.kill('SIGKILL');
  await ended(first);
  await startDaemon(context, others);
});

test('of many daemons started at once, one runs', async context => {
  const { socket, environment } = place(context);
  const started = await Promise.allSettled(
    Array.from({ length: 4 }, () => startDaemon(context, environment)),
  );
  assert.equal(started.filter(({ status }) => status === 'fulfilled').length, 1);
  const winner = started.find(each => each.status === 'fulfilled');
  const { body } = await request(socket, 'GET', '/status');
  assert.equal((body as { pid: number }).pid, winner?.value.pid);
});

test('a killed daemon’s socket is replaced, and its state comes back', async context => {
  const { folder, socket, environment } = place(context);
  const withState = { ...environment, DIRIGO_STATE: join(folder, 'state') };
  const first = await startDaemon(context, withState);
  const input = [
    '--set 30 5 60',
    '--start-daemon backup --syncid 7',
    '-A -t 10.0.0.3:80 -s wrr -p 20 -M 255.255.0.0',
    '-a -t 10.0.0.3:80 -r 10.0.0.7:8080 -m -w 3 -x 10 -y 5',
    '-a -t 10.0.0.3:80 -r 10.0.0.8 -i --tun-type gue --tun-port 6080 --tun-csum',
    '-A -f 7 -6 -s sh -b sh-port',
    '-A -u [2001:db8::3]:53 -s rr -o',
    '-a -u [2001:db8::3]:53 -r [2001:db8::7] -w 0',
  ].join('\n');
  // The last server's address lacks its port, which is refused; its service stays.
  assert.equal(runBin('ipvsadm', ['-R'], withState, { input: `${input}\n` }).status, 2);
  const listings = [
    ['-Ln', '--thresholds'],
    ['-Sn'],
    ['-L', '--timeout'],
    ['-L', '--daemon'],
    ['-Ln', '--nosort'],
  ];
  const before = listings.map(words => runBin('ipvsadm', words, withState).stdout);
  assert.match(before[1] ?? '', /--tun-type gue --tun-port 6080 --tun-csum\n/);
  first.kill('SIGKILL');
  await ended(first);
  assert.ok(existsSync(socket), 'a killed daemon leaves its socket');
  await startDaemon(context, withState);
  const after = listings.map(words => runBin('ipvsadm', words, withState).stdout);
  assert.deepEqual(after, before);
});

test('a damaged state stops the start, and stays as it is', context => {
  const { folder, environment } = place(context);
  const path = join(folder, 'state.json');
  const rest = '"timeouts":{"tcp":900,"tcpFin":120,"udp":300},"syncDaemons":[]';
  const wrongPort = '{"key":{"protocol":"tcp","address":"10.0.0.3","port":-1},"destinations":[]}';
  const texts = [
    '{"version":1',
    '{"version":9}',
    'null',
    '{"version":1,"services":7}',
    `{"version":1,${rest},"services":[{}]}`,
    `{"version":1,${rest},"services":[${wrongPort}]}`,
  ];
  for (const text of texts) {
    writeFileSync(path, text);
    const result = runBin('dirigo', ['up', '--datapath', 'virtual', '--state', folder], environment);
    assert.equal(result.status, 1, text);
    assert.ok(result.stderr.startsWith(`dirigo: ${path} cannot be restored (`), result.stderr);
    assert.equal(readFileSync(path, 'utf8'), text);
  }
});

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  test(`${signal} stops it cleanly`, async context => {
    const { folder, environment } = place(context);
    const daemon = await startDaemon(context, environment);
    daemon.kill(signal);
    assert.equal(await ended(daemon), 0);
    assert.deepEqual(readdirSync(folder), []);
  });
}

test('dirigo down stops it; status tells what runs', async context => {
  const { folder, socket, environment } = place(context);
  const daemon = await startDaemon(context, environment, ['--interface', 'wan0=192.0.2.1/24']);
  const status = JSON.parse(runBin('dirigo', ['status', '--json'], environment).stdout);
  assert.equal(status.pid, daemon.pid);
  assert.deepEqual(status.datapath.interfaces, ['lo 127.0.0.1/8 ::1/128', 'wan0 192.0.2.1/24']);
  assert.match(runBin('dirigo', ['status'], environment).stdout, /^Data path +virtual$/m);
  assert.equal(runBin('dirigo', ['ipvsadm', '-Ln'], environment).status, 0);
  const down = runBin('dirigo', ['down'], environment);
  assert.deepEqual(down, { status: 0, stdout: `dirigo: stopped (pid ${daemon.pid})\n`, stderr: '' });
  assert.equal(await ended(daemon), 0);
  assert.deepEqual(readdirSync(folder), []);
  assert.equal(existsSync(socket), false);
  assert.equal(runBin('dirigo', ['down'], environment).status, 1);
});

test('what cannot start says why in one line and leaves nothing', context => {
  const { folder, socket, environment } = place(context);
  const up = (...words: string[]) => runBin('dirigo', ['up', ...words], environment);
  const refused: [string[], RegExp][] = [
    [
      ['--datapath', 'virtual', '--interface', 'eth0=10.0.0.1'],
      /^dirigo: "10\.0\.0\.1" is no address with a prefix/,
    ],
    [['--datapath', 'virtual', '--interface', '='], /^dirigo: "=" is no interface/],
    [['--datapath', 'carrier-pigeon'], /carrier-pigeon/],
    [['--bogus'], /unknown option '--bogus'/],
  ];
  for (const [words, message] of refused) {
    const result = up(...words);
    assert.equal(result.status, 1);
    assert.match(result.stderr, message);
    assert.deepEqual(readdirSync(folder), []);
  }
  writeFileSync(socket, 'precious');
  const result = up('--datapath', 'virtual');
  assert.equal(result.status, 1);
  assert.equal(result.stderr, `dirigo: ${socket} is not a socket: remove it or set DIRIGO_SOCKET\n`);
  assert.equal(readFileSync(socket, 'utf8'), 'precious');
  const long = { DIRIGO_SOCKET: `/tmp/${'x'.repeat(120)}` };
  assert.match(
    runBin('dirigo', ['up', '--datapath', 'virtual'], long).stderr,
    /^dirigo: the socket's path is longer/,
  );
});

test('the XDP data path needs root', context => {
  const { folder, environment } = place(context);
  const isRoot = process.getuid?.() === 0;
  chmodSync(folder, 0o777);
  const words = ['up', '--datapath', 'xdp', '--interface', 'lo'];
  const result = runBin('dirigo', words, environment, isRoot ? { uid: NOBODY } : {});
  assert.equal(result.status, 1);
  assert.equal(
    result.stderr,
    'dirigo: the XDP data path needs root: run this as root, or use --datapath virtual\n',
  );
  assert.deepEqual(readdirSync(folder), []);
});

test('settings and mark rules: shown, changed at once, refused with a reason, kept over a restart', async context => {
  const { folder, environment } = place(context);
  const kept = { ...environment, DIRIGO_STATE: join(folder, 'state') };
  const dirigo = (...words: string[]) => runBin('dirigo', words, kept);
  const first = await startDaemon(context, kept, []);
  assert.equal(dirigo('setting', 'conn_reuse_mode').stdout, 'conn_reuse_mode = 1\n');
  assert.equal(dirigo('setting', 'conn_reuse_mode', '2').stdout, 'conn_reuse_mode = 2\n');
  assert.match(dirigo('setting').stdout, /^expire_nodest_conn = 0$/m);
  assert.match(dirigo('setting', 'conn_reuse_mode', '9').stderr, /conn_reuse_mode cannot be "9".*0\.\.3/);
  assert.match(dirigo('setting', 'no_such').stderr, /there is no setting "no_such"; there are /);
  const rules = join(folder, 'rules');
  writeFileSync(rules, '# the web\ntcp to 10.0.0.3 port 80-443 mark 1\n\nudp on eth0 mark 2\n');
  assert.equal(dirigo('marks', '--load', rules).status, 0);
  const listed = dirigo('marks').stdout;
  assert.equal(listed.split('\n').length, 3);
  writeFileSync(rules, 'tcp mark 3\ntcp on eth9 mark 1\n');
  const refused = dirigo('marks', '--load', rules);
  assert.match(refused.stderr, /there is no interface eth9/);
  assert.equal(refused.status, 1);
  assert.equal(dirigo('marks').stdout, listed, 'nothing is half-applied');
  first.kill('SIGKILL');
  await ended(first);
  await startDaemon(context, kept, []);
  assert.equal(dirigo('setting', 'conn_reuse_mode').stdout, 'conn_reuse_mode = 2\n');
  assert.equal(dirigo('marks').stdout, listed);
  assert.equal(dirigo('marks', '--clear').stdout, '');
});
