/** The API over HTTP: what it refuses, and how. */
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { goldenExists, goldenLines, goldenNames } from '../../test/golden.ts';
import { VirtualDatapath } from '../datapath/virtual.ts';
import type { ServiceStatus } from '../ipvs/specification.ts';
import { temporaryFolder } from './daemon.fixture.ts';
import { Daemon } from './daemon.ts';
import { HTTP_LIMITS } from './http-server.ts';
import { SystemNames } from './names.ts';
import { request } from './request.ts';

async function start(context: TestContext): Promise<string> {
  const socket = join(temporaryFolder(context), 'd.sock');
  const daemon = await Daemon.start({
    socket,
    openDatapath: async () => new VirtualDatapath(),
    names: new SystemNames({ dns: false }),
  });
  context.after(() => daemon.stop({ remove: true }));
  return socket;
}

/** Sends bytes as they are and returns all that comes back. */
function sendRaw(path: string, bytes: string | Buffer): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    let text = '';
    socket.on('connect', () => socket.write(bytes));
    socket.on('data', chunk => {
      text += chunk;
    });
    socket.on('error', reject);
    socket.on('close', () => resolve(text));
  });
}

test('what is no HTTP is refused with the reason', async context => {
  const path = await start(context);
  const cases: [string, RegExp][] = [
    ['hello\r\n\r\n', /^HTTP\/1\.1 400 .*\r\n\r\n\{"error":"malformed HTTP: .+"\}\n$/s],
    ['GET /status HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n', /^HTTP\/1\.1 400 .*malformed HTTP: /s],
    ['GET / HTTP/1.1\r\nHost: x\r\nA: b\u0000c\r\n\r\n', /^HTTP\/1\.1 400 /],
    [
      `GET / HTTP/1.1\r\nHost: x\r\nA: ${'b'.repeat(20_000)}\r\n\r\n`,
      /^HTTP\/1\.1 431 .*headers are larger/s,
    ],
    ['POST /ipvsadm HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n', /^HTTP\/1\.1 400 /],
  ];
  for (const [bytes, expected] of cases) assert.match(await sendRaw(path, bytes), expected);
  assert.equal((await request(path, 'GET', '/status')).status, 200);
});

test('bodies that are too large', async context => {
  const path = await start(context);
  const head = 'POST /ipvsadm HTTP/1.1\r\nHost: x\r\n';
  const announced = await sendRaw(path, `${head}Content-Length: ${HTTP_LIMITS.body + 1}\r\n\r\n`);
  assert.match(announced, /^HTTP\/1\.1 413 .*\{"error":"the body is larger than 33554432 bytes"\}\n$/s);
  const sent = await request(path, 'POST', '/ipvsadm', { argv: ['-R'], stdin: 'x'.repeat(HTTP_LIMITS.body) });
  assert.equal(sent.status, 413);
  // Without a length beforehand, the bytes are counted as they come.
  const chunk = `1000000\r\n${'x'.repeat(0x1000000)}\r\n`;
  const chunked = await sendRaw(path, `${head}Transfer-Encoding: chunked\r\n\r\n${chunk}${chunk}1\r\nx\r\n`);
  assert.match(chunked, /^HTTP\/1\.1 413 /);
});

test('bodies that make no sense', async context => {
  const path = await start(context);
  const post = async (body: unknown) => {
    const answer = await request(path, 'POST', '/ipvsadm', body);
    return `${answer.status} ${(answer.body as { error?: string }).error}`;
  };
  assert.equal(await post(undefined), '400 the body is missing: it has to be an object with argv, stdin');
  assert.equal(await post([]), '400 the body is []: it has to be an object with argv, stdin');
  assert.equal(await post({}), '400 argv is missing: it has to be a list');
  assert.equal(await post({ argv: ['-L', 1] }), '400 argv[1] is 1: it has to be text');
  assert.equal(await post({ argv: [], stdin: 1 }), '400 stdin is 1: it has to be text');
  assert.equal(await post({ argv: [], args: [] }), '400 args is not known: there are argv, stdin');
  const head = 'POST /ipvsadm HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n';
  assert.match(await sendRaw(path, `${head}{]`), /^HTTP\/1\.1 400 .*the body is not JSON in UTF-8: /s);
  const invalid = Buffer.concat([Buffer.from(head), Buffer.of(0xff, 0xfe)]);
  assert.match(await sendRaw(path, invalid), /^HTTP\/1\.1 400 .*the body is not JSON in UTF-8: /s);
});

test('paths and methods that are not there', async context => {
  const path = await start(context);
  const wrongPath = await request(path, 'GET', '/nothing');
  assert.equal(wrongPath.status, 404);
  assert.deepEqual(wrongPath.body, {
    error: 'no such path: /nothing (GET /openapi.json describes those there are)',
  });
  const wrongMethod = await request(path, 'GET', '/ipvsadm');
  assert.deepEqual(wrongMethod, { status: 405, body: { error: '/ipvsadm takes POST, not GET' } });
  assert.equal((await request(path, 'POST', '/shutdown', { remove: 'yes' })).status, 400);
});

test('services and connections as data', async context => {
  const path = await start(context);
  await request(path, 'POST', '/ipvsadm', { argv: ['-A', '-t', '10.0.0.3:80', '-s', 'wrr'] });
  await request(path, 'POST', '/ipvsadm', { argv: ['-a', '-t', '10.0.0.3:80', '-r', '10.0.0.7', '-w', '3'] });
  const { services } = (await request(path, 'GET', '/services?')).body as { services: ServiceStatus[] };
  assert.deepEqual(services[0]?.key, { protocol: 'tcp', address: '10.0.0.3', port: 80 });
  assert.equal(services[0]?.destinations[0]?.weight, 3);
  assert.deepEqual((await request(path, 'GET', '/connections')).body, { connections: [] });
});

test('a client that says nothing does not keep the daemon from stopping', async context => {
  const socket = join(temporaryFolder(context), 'd.sock');
  const daemon = await Daemon.start({ socket, openDatapath: async () => new VirtualDatapath() });
  const idle = connect(socket);
  await new Promise(resolve => idle.on('connect', resolve));
  idle.write('POST /ipvsadm HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{');
  await daemon.stop({ remove: true });
  idle.destroy();
});

interface Step {
  argv: string[];
  stdin?: string;
  status: number;
  stdout: string;
  stderr: string;
  varies?: string[];
}

test('recorded sessions on the real director', {
  skip: !goldenExists('cli') && 'no recordings',
}, async context => {
  for (const session of goldenNames('cli')) {
    if (['no-module', 'not-root'].includes(session)) continue;
    await context.test(session, async inner => {
      const path = await start(inner);
      const run = async (argv: string[], stdin = '') =>
        (await request(path, 'POST', '/ipvsadm', { argv, stdin })).body as Omit<Step, 'argv'>;
      for (const { argv, stdin, status, stdout, stderr, varies } of goldenLines<Step>(
        `cli/${session}.jsonl`,
      )) {
        const [program, ...words] = argv;
        if (program === 'ipvsadm-restore') await run(['-C']);
        const command = { ipvsadm: [], 'ipvsadm-save': ['-S'], 'ipvsadm-restore': ['-R'] }[program ?? ''];
        const result = await run([...(command ?? []), ...words], stdin);
        const shown = (text: string) => (varies?.includes('stdout') ? text.split('\n').sort() : text);
        assert.deepEqual(
          { ...result, stdout: shown(result.stdout) },
          { status, stdout: shown(stdout), stderr },
          argv.join(' '),
        );
      }
    });
  }
});
