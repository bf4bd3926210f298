/** Who gets to the daemon, by which way, and what the log says of it. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, statSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { missing } from '../../test/requirements.ts';
import { groupNumber, parseEndpoint, readAccess } from './access.ts';
import { ask } from './api.fixture.ts';
import { runBin, startDaemon, temporaryFolder } from './daemon.fixture.ts';
import { RateLimit } from './rate-limit.ts';

const TOKEN = '0123456789abcdef0123456789abcdef';
const NOBODY = 65534;

function place(context: TestContext): {
  folder: string;
  socket: string;
  environment: Record<string, string>;
} {
  const folder = temporaryFolder(context);
  chmodSync(folder, 0o755);
  const socket = join(folder, 'd.sock');
  return { folder, socket, environment: { DIRIGO_SOCKET: socket } };
}

function tokenFile(folder: string, token = TOKEN): string {
  const path = join(folder, 'token');
  writeFileSync(path, `${token}\n`, { mode: 0o600 });
  return path;
}

/** Waits for what a process writes: the commands above kept this one from reading it. */
async function until(holds: () => boolean, what: string): Promise<void> {
  for (const end = performance.now() + 5000; !holds(); ) {
    assert.ok(performance.now() < end, what);
    await new Promise(resolve => setTimeout(resolve, 10));
  }
}

/** Status and body of a request by the real curl, as another user if asked for. */
function curl(words: readonly string[], as: readonly string[] = []): { status: number; body: string } {
  const [program = 'curl', ...before] = [...as, 'curl'];
  const { stdout, stderr } = spawnSync(
    program,
    [...before, '-sS', '-g', '--max-time', '5', '-w', '\n%{http_code}', ...words],
    { encoding: 'utf8' },
  );
  const at = stdout.lastIndexOf('\n');
  const status = Number(stdout.slice(at + 1));
  return { status, body: status === 0 ? stderr : stdout.slice(0, at) };
}

async function listening(
  context: TestContext,
  environment: Record<string, string>,
  words: readonly string[],
): Promise<{ port: string; log: () => string }> {
  const daemon = await startDaemon(context, environment, ['--listen', '127.0.0.1:0', ...words]);
  let log = '';
  daemon.stderr?.on('data', chunk => {
    log += chunk;
  });
  const { body } = curl(['--unix-socket', environment.DIRIGO_SOCKET ?? '', 'http://x/status']);
  const { listen } = JSON.parse(body) as { listen: string };
  return { port: listen.split(':').at(-1) ?? '', log: () => log };
}

test('what `dirigo up` is told about TCP is checked before anything starts', context => {
  const { folder } = place(context);
  const file = tokenFile(folder);
  const refused = (options: Parameters<typeof readAccess>[0], message: RegExp): void => {
    assert.throws(() => readAccess(options), message);
  };
  refused({ listen: '127.0.0.1:0' }, /^Error: --listen needs a token.*--token-file FILE$/);
  refused({ tokenFile: file }, /^Error: --token-file is for --listen$/);
  refused({ plainTcp: true }, /^Error: --plain-tcp is for --listen$/);
  refused(
    { listen: '10.0.0.1:80', tokenFile: file },
    /without TLS the token can be read on the way to 10\.0\.0\.1/,
  );
  refused({ listen: '[::]:80', tokenFile: file }, /without TLS/);
  refused(
    { listen: '127.0.0.1:0', tokenFile: file, tlsCert: file },
    /--tls-cert and --tls-key belong together/,
  );
  refused(
    { listen: '127.0.0.1:0', tokenFile: file, tlsCert: file, tlsKey: file },
    /the certificate .* cannot be used: /,
  );
  refused({ listen: '127.0.0.1:0', tokenFile: tokenFile(folder, 'short') }, /holds no token: at least 16/);
  chmodSync(tokenFile(folder), 0o644);
  refused({ listen: '127.0.0.1:0', tokenFile: file }, /can be read by others: chmod 600/);
  chmodSync(file, 0o600);
  refused({ group: 'no such group' }, /there is no group no such group/);
  const { tcp } = readAccess({ listen: '192.0.2.1:8080', tokenFile: file, plainTcp: true });
  assert.deepEqual(tcp, { host: '192.0.2.1', port: 8080, token: TOKEN });
  for (const wrong of ['8080', 'localhost:1', '1.2.3.4:70000', '[1.2.3.4]:1', '::1:80', '', '1.2.3.4:']) {
    assert.throws(() => parseEndpoint(wrong), /it has to be an address and a port/, wrong);
  }
  assert.deepEqual(parseEndpoint('[::1]:80'), { host: '::1', port: 80 });
  assert.equal(groupNumber('adm', 'root:x:0:\nadm:x:4:a,b\n'), 4);
});

test('TCP: only with the token', { skip: missing('curl') }, async context => {
  const { folder, environment } = place(context);
  const { port, log } = await listening(context, environment, ['--token-file', tokenFile(folder)]);
  const url = `http://127.0.0.1:${port}/services`;
  assert.deepEqual(curl(['-H', `Authorization: Bearer ${TOKEN}`, url]), {
    status: 200,
    body: '{"services":[]}\n',
  });
  assert.equal(curl([url]).status, 401);
  assert.match(curl([url]).body, /the token is missing: send the header/);
  const wrong = Array.from({ length: 12 }, () => curl(['-H', 'Authorization: Bearer wrong', url]).status);
  assert.equal(wrong[0], 401);
  assert.equal(wrong.at(-1), 429, 'guessing is slowed down');
  assert.equal(curl(['-H', `Authorization: Bearer ${TOKEN}`, url]).status, 200, 'who has it is not held up');
  await until(() => log().includes('too many attempts'), 'the refusals are logged');
  assert.match(log(), /warning refused by=127\.0\.0\.1 reason="the token is missing/);
  assert.equal(log().split('the token is not the right one').length, 2, 'one line however often');
});

test('TCP with TLS', { skip: missing('curl', 'openssl') }, async context => {
  const { folder, environment } = place(context);
  const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')];
  spawnSync('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'],
    ...['-subj', '/CN=lb01', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', cert],
  ]);
  const words = ['--token-file', tokenFile(folder), '--tls-cert', cert, '--tls-key', key];
  const { port } = await listening(context, environment, words);
  const header = ['-H', `Authorization: Bearer ${TOKEN}`];
  const answer = curl(['--cacert', cert, ...header, `https://127.0.0.1:${port}/timeouts`]);
  assert.equal(answer.status, 200, answer.body);
  assert.equal(curl(['--cacert', cert, `https://127.0.0.1:${port}/timeouts`]).status, 401);
  assert.equal(curl([...header, `https://127.0.0.1:${port}/timeouts`]).status, 0, 'an unknown authority');
  assert.equal(
    curl([...header, `http://127.0.0.1:${port}/timeouts`]).status,
    0,
    'plain HTTP on the TLS port',
  );
  assert.equal(curl(['--cacert', cert, ...header, `https://127.0.0.1:${port}/timeouts`]).status, 200);
});

test('the socket: others are refused even if its mode lets them in', {
  skip: missing('root', 'curl', 'setpriv'),
}, async context => {
  const { socket, environment } = place(context);
  const daemon = await startDaemon(context, environment);
  let log = '';
  daemon.stderr?.on('data', chunk => {
    log += chunk;
  });
  const ask = ['--unix-socket', socket, 'http://x/services'];
  const nobody = ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups'];
  assert.equal(curl(ask).status, 200);
  assert.equal(curl(ask, nobody).status, 0, 'the mode');
  chmodSync(socket, 0o666);
  assert.deepEqual(curl(ask, nobody), {
    status: 403,
    body: `{"error":"uid ${NOBODY} may not control this daemon: it is uid 0's"}\n`,
  });
  await until(() => log.includes('refused'), 'the refusal is logged');
  assert.match(log, /refused by="the control socket" reason="uid 65534 may not/);
});

test('the socket: members of the group may, by their own or a supplementary one', {
  skip: missing('root', 'curl', 'setpriv'),
}, async context => {
  const { socket, environment } = place(context);
  await startDaemon(context, environment, ['--group', '4242']);
  const { mode, gid } = statSync(socket);
  assert.deepEqual([mode & 0o777, gid], [0o660, 4242]);
  const ask = ['--unix-socket', socket, 'http://x/services'];
  const as = (gid: number, groups: string): string[] => [
    ...['setpriv', `--reuid=${NOBODY}`, `--regid=${gid}`, groups],
  ];
  assert.equal(curl(ask, as(4242, '--clear-groups')).status, 200);
  assert.equal(curl(ask, as(NOBODY, '--groups=1,2,4242')).status, 200);
  assert.equal(curl(ask, as(NOBODY, '--clear-groups')).status, 0);
});

test('who changed what stands in the log, one line a change', { skip: missing('root') }, async context => {
  const { environment } = place(context);
  const daemon = await startDaemon(context, environment, ['--log-format', 'journal']);
  let log = '';
  daemon.stderr?.on('data', chunk => {
    log += chunk;
  });
  runBin('ipvsadm', ['-A', '-t', '10.0.0.3:80', '-s', 'rr'], environment);
  runBin('ipvsadm', ['-Ln'], environment);
  runBin('dirigo', ['setting', 'sloppy_tcp', '1'], environment);
  await until(() => log.includes('sloppy_tcp'), 'the change is logged');
  const lines = log.split('\n').filter(line => line.includes('changed'));
  assert.equal(lines.length, 2, log);
  assert.match(
    lines[0] ?? '',
    /^<6>changed by="uid 0 \(pid [0-9]+\)" revision=1 cause="ipvsadm -A -t 10\.0\.0\.3:80 -s rr" changes=1$/,
  );
  assert.match(lines[1] ?? '', /cause="setting sloppy_tcp 1"/);
});

test('a log that nobody reads does not hold up the daemon', async context => {
  const { socket, environment } = place(context);
  const daemon = await startDaemon(context, environment);
  daemon.stderr?.pause();
  const name = 'x'.repeat(900);
  // Ten times what waits at most; with a blocking write, the first few dozen would be the last.
  for (let request = 0; request < 10_000; request += 100) {
    const asked = Array.from({ length: 100 }, (_, at) =>
      ask(socket, 'POST', '/ipvsadm', { argv: ['-Z', '-t', `10.0.0.3:${request + at}`, name] }),
    );
    await Promise.all(asked);
  }
  assert.equal((await ask(socket, 'GET', '/status')).status, 200);
  let log = '';
  daemon.stderr?.on('data', chunk => {
    log += chunk;
  });
  daemon.stderr?.resume();
  await new Promise(resolve => setTimeout(resolve, 500));
  await ask(socket, 'POST', '/ipvsadm', { argv: ['-Z', '-t', '10.0.0.3:80'] });
  await until(() => log.includes('log lines left out, nobody reads them lines='), 'the loss is told');
});

test('a log that nobody reads does not keep the daemon from ending', async context => {
  const { socket, environment } = place(context);
  const daemon = await startDaemon(context, environment);
  daemon.stderr?.pause();
  const name = 'x'.repeat(900);
  for (let request = 0; request < 1000; request += 100) {
    const asked = Array.from({ length: 100 }, (_, at) =>
      ask(socket, 'POST', '/ipvsadm', { argv: ['-Z', '-t', `10.0.0.3:${request + at}`, name] }),
    );
    await Promise.all(asked);
  }
  const ended = new Promise(resolve => daemon.once('exit', (...how) => resolve(how)));
  await ask(socket, 'POST', '/shutdown', { remove: true });
  assert.deepEqual(await ended, [0, null]);
});

test('slow and silent clients are cut off, and do not keep others out', async context => {
  const { socket, environment } = place(context);
  await startDaemon(context, environment);
  const slow = Array.from({ length: 300 }, () => {
    const connection = connect(socket);
    connection.on('error', () => {});
    return connection;
  });
  context.after(() => {
    for (const each of slow) each.destroy();
  });
  await Promise.race(slow.map(each => new Promise(resolve => each.on('close', resolve))));
  const [first] = slow;
  first?.write('GET /services HTTP/1.1\r\nHost: x\r\nX: ');
  const began = performance.now();
  let answer = '';
  first?.on('data', chunk => {
    answer += chunk;
  });
  const drip = setInterval(() => first?.write('x'), 500);
  await new Promise(resolve => first?.on('close', resolve));
  clearInterval(drip);
  assert.match(answer, /^HTTP\/1\.1 408 /);
  assert.ok(performance.now() - began < 20_000);
  for (const each of slow) each.destroy();
  assert.equal(runBin('ipvsadm', ['-Ln'], environment).status, 0);
});

test('a bucket of tokens', () => {
  const limit = new RateLimit({ rate: 2, burst: 3 });
  assert.deepEqual(
    [limit.take('a', 0), limit.take('a', 0), limit.take('a', 0), limit.take('a', 0)],
    [0, 0, 0, 1],
  );
  assert.equal(limit.take('b', 0), 0);
  assert.equal(limit.take('a', 500), 0);
  assert.equal(limit.take('a', 500), 1);
  for (let name = 0; name < 100_000; name++) limit.take(String(name), 1000);
});
