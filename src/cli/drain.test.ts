/** `dirigo drain` against a daemon whose director has connections. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ethernetFrame, ipv4Packet, tcpSegment } from '../../test/frames.ts';
import { temporaryFolder } from '../control/daemon.fixture.ts';
import { Daemon } from '../control/daemon.ts';
import { SystemNames } from '../control/names.ts';
import { VirtualDatapath } from '../datapath/virtual.ts';
import { parsed, readdressed } from '../ipvs/director.fixture.ts';
import { Verdict } from '../ipvs/director.ts';
import { NO_NAMES } from '../ipvsadm/name-files.ts';
import { runIpvsadm } from '../ipvsadm/run.ts';
import { EtherType } from '../wire/ethernet.ts';
import { Protocol } from '../wire/ipv4.ts';
import { TcpFlag } from '../wire/tcp.ts';

const DIRIGO = fileURLToPath(new URL('../../bin/dirigo', import.meta.url));

const LINES =
  '-A -t 10.0.0.3:80 -s rr\n-a -t 10.0.0.3:80 -r 10.0.0.7 -g -w 3\n-a -t 10.0.0.3:80 -r 10.0.0.8 -g\n' +
  '-A -t 10.0.0.3:443 -s rr -p 300\n-a -t 10.0.0.3:443 -r 10.0.0.7 -g -w 5\n';

interface Finished {
  status: number | null;
  stdout: string;
  stderr: string;
}

async function start(context: TestContext) {
  const socket = join(temporaryFolder(context), 'd.sock');
  const datapath = new VirtualDatapath();
  const { director } = datapath;
  const names = new SystemNames({ dns: false });
  const daemon = await Daemon.start({ socket, names, openDatapath: async () => datapath });
  context.after(() => daemon.stop({ remove: true }));
  assert.equal(runIpvsadm(['-R'], LINES, director.administration, NO_NAMES).status, 0);
  const begin = (words: readonly string[]) => {
    const child = spawn(DIRIGO, words, { env: { ...process.env, DIRIGO_SOCKET: socket } });
    const result: Finished = { status: null, stdout: '', stderr: '' };
    child.stdout.on('data', chunk => {
      result.stdout += chunk;
    });
    child.stderr.on('data', chunk => {
      result.stderr += chunk;
    });
    const finished = new Promise<Finished>(resolve =>
      child.once('close', status => resolve({ ...result, status })),
    );
    return { child, result, finished };
  };
  return {
    director,
    begin,
    drain: (...words: string[]) => begin(['drain', ...words]).finished,
    /** A client begins a connection. */
    connect(client: number, destinationPort: number): void {
      const packet = ipv4Packet(Protocol.tcp, tcpSegment(4, { destinationPort, flags: TcpFlag.syn }));
      const frame = readdressed(ethernetFrame(EtherType.ipv4, packet), `198.51.100.${client}`, '10.0.0.3');
      assert.notEqual(director.process(parsed(frame), 2, datapath.now()), Verdict.pass);
    },
    saved: () => runIpvsadm(['-S', '-n'], '', director.administration, NO_NAMES).stdout,
  };
}

test('a server without connections is removed at once', async context => {
  const { drain, saved } = await start(context);
  const result = await drain('-t', '10.0.0.3:80', '-r', '10.0.0.7', '--within', '10m');
  assert.deepEqual(result, {
    status: 0,
    stdout:
      'Draining 10.0.0.7:80 of tcp 10.0.0.3:80 (weight 3 → 0).\nRemoved 10.0.0.7:80 of tcp 10.0.0.3:80.\n',
    stderr: '',
  });
  assert.equal(saved().includes('-t 10.0.0.3:80 -r 10.0.0.7'), false);
  assert.equal(saved().includes('-t 10.0.0.3:443 -r 10.0.0.7'), true);
});

test('what is left is shown, and dropped when the time is over', async context => {
  const { drain, connect, saved } = await start(context);
  // The one that was added last comes first.
  for (const client of [1, 2, 3, 4]) connect(client, 80);
  const kept = await drain('-t', '10.0.0.3:80', '-r', '10.0.0.7:80', '--within', '1s', '--keep');
  assert.equal(kept.status, 3);
  assert.match(
    kept.stdout,
    /^Draining .*\nLeft: 2 connections; the last ends in (1:00|0:5\d) if nothing comes any more; removed in 0:01 at the latest\n/,
  );
  assert.match(saved(), /-t 10\.0\.0\.3:80 -r 10\.0\.0\.7:80 -g -w 0/);
  const removed = await drain('-t', '10.0.0.3:80', '-r', '10.0.0.7', '--within', '1');
  assert.equal(removed.status, 0);
  assert.match(removed.stdout, /\nRemoved 10\.0\.0\.7:80 of tcp 10\.0\.0\.3:80; dropped: 2 connections\.\n$/);
  assert.equal(saved().includes('-t 10.0.0.3:80 -r 10.0.0.7'), false);
});

test('a whole host; persistent clients count; --force waits for nobody', async context => {
  const { drain, connect, saved } = await start(context);
  connect(1, 443);
  const kept = await drain('--host', '10.0.0.7', '--within', '0s', '--keep');
  assert.equal(kept.status, 3);
  assert.match(kept.stdout, /Left: 1 connection, 1 persistent client; the last ends in (5:00|4:5\d)/);
  assert.equal(saved().match(/10\.0\.0\.7:\d+ -g -w 0/g)?.length, 2);
  assert.equal((await drain('--host', '10.0.0.7', '--force')).status, 0);
  assert.equal(saved().includes('10.0.0.7'), false);
});

test('--cancel gives back the weights that were', async context => {
  const { drain, connect, saved } = await start(context);
  connect(1, 443);
  const before = saved();
  await drain('--host', '10.0.0.7', '--within', '0', '--keep');
  assert.notEqual(saved(), before);
  const cancelled = await drain('--host', '10.0.0.7', '--cancel');
  assert.equal(cancelled.status, 0);
  assert.match(cancelled.stdout, /^10\.0\.0\.7:\d+ of tcp 10\.0\.0\.3:\d+ has weight [35] again\.\n/);
  assert.equal(saved(), before);
});

test('Ctrl-C leaves the server quiesced; weight that comes back ends the drain', async context => {
  const { begin, connect, director, saved } = await start(context);
  for (const client of [1, 2]) connect(client, 80);
  const words = ['drain', '-t', '10.0.0.3:80', '-r', '10.0.0.7'];
  const until = async (running: { result: Finished }): Promise<void> => {
    while (!running.result.stdout.includes('Left')) await new Promise(resolve => setTimeout(resolve, 20));
  };
  const interrupted = begin(words);
  await until(interrupted);
  interrupted.child.kill('SIGINT');
  const { status, stdout } = await interrupted.finished;
  assert.equal(status, 130);
  assert.match(stdout, /The servers stay quiesced; `dirigo drain --cancel`/);
  assert.match(saved(), /10\.0\.0\.7:80 -g -w 0/);
  const again = begin(words);
  await until(again);
  const key = { protocol: 'tcp', address: '10.0.0.3', port: 80 } as const;
  const server = director.administration.service(key)?.destinations.find(each => each.address === '10.0.0.7');
  assert.ok(server);
  director.administration.editDestination(key, { ...server, weight: 2 });
  const ended = await again.finished;
  assert.equal(ended.status, 1);
  assert.match(ended.stderr, /10\.0\.0\.7:80 of tcp 10\.0\.0\.3:80 has weight 2 again/);
  assert.match(saved(), /10\.0\.0\.7:80 -g -w 2/);
});

test('what is not there, and what makes no sense', async context => {
  const { drain, saved } = await start(context);
  const before = saved();
  const wrong: [string[], RegExp][] = [
    [['-t', '10.0.0.3:81', '-r', '10.0.0.7'], /there is no service tcp 10\.0\.0\.3:81/],
    [['-t', '10.0.0.3:80', '-r', '10.0.0.9'], /there is no server 10\.0\.0\.9 in service tcp 10\.0\.0\.3:80/],
    [['--host', '10.0.0.9'], /there is no server 10\.0\.0\.9 in any service/],
    [['--host', 'web01'], /address is "web01": it has to be an IP address/],
    [['-t', 'web', '-r', '10.0.0.7'], /service is "tcp web"/],
    [['-t', '10.0.0.3:80'], /name one service and a server/],
    [['--host', '10.0.0.7', '-r', '10.0.0.7'], /--host is for all services/],
    [['--host', '10.0.0.7', '--within', 'soon'], /It has to be a time such as 90s, 10m or 1h/],
  ];
  for (const [words, message] of wrong) {
    const { status, stderr } = await drain(...words);
    assert.equal(status, 1, words.join(' '));
    assert.match(stderr, message);
  }
  assert.equal(saved(), before);
});
