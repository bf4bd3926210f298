/** Nothing of a service that is left alone is lost or misdirected, whatever happens to the others and to the daemon. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { buildBpf } from '../../bpf/build.ts';
import type { ReceivedFlow, SentFlows } from '../datagrams.ts';
import { missing } from '../requirements.ts';
import { type Daemon, eventually, problemsOf, type Receiver, VIP, XdpLab } from '../xdp-lab.ts';

const skip = missing('root', 'clang', 'ip', 'nsenter', 'ethtool');
const SERVERS = { web01: '10.0.0.7', web02: '10.0.0.8', web03: '10.0.0.9' } as const;
const PORT = 5000;

describe('hitless', { skip }, () => {
  let xdp: XdpLab;
  let daemon: Daemon;
  let receivers: Receiver[];

  before(() => {
    buildBpf();
    xdp = new XdpLab();
    xdp.addEnds();
    for (const [name, address] of Object.entries(SERVERS)) xdp.addServer(name, address);
    countProgramsStarted();
  });

  /** From here on every `ip` that a daemon starts leaves a line. */
  function countProgramsStarted(): void {
    const folder = join(xdp.lab.folder, 'bin');
    mkdirSync(folder);
    const ip = execFileSync('sh', ['-c', 'command -v ip'], { encoding: 'utf8' }).trim();
    writeFileSync(join(folder, 'ip'), `#!/bin/sh\necho "$*" >>${startsFile()}\nexec ${ip} "$@"\n`, {
      mode: 0o755,
    });
    xdp.environment.PATH = `${folder}:${process.env.PATH}`;
  }

  function startsFile(): string {
    return join(xdp.lab.folder, 'starts');
  }

  function programsStarted(): number {
    return existsSync(startsFile()) ? readFileSync(startsFile(), 'utf8').split('\n').length - 1 : 0;
  }

  after(() => xdp.remove());

  beforeEach(async context => {
    // Keeping the state on disk would set the pace of edits; those who take over need it.
    const options = /thousand/.test(context.name) ? ['--no-state'] : [];
    daemon = await xdp.startDaemon(['eth0'], ...options);
    xdp.ipvsadm('-C');
    xdp.ipvsadm(`-A -u ${VIP}:${PORT} -s rr`);
    for (const address of Object.values(SERVERS))
      xdp.ipvsadm(`-a -u ${VIP}:${PORT} -r ${address}:${PORT} -g`);
    await eventually(
      () => (xdp.lab.run('director', 'ip', 'neigh').match(/lladdr.*managed/g) ?? []).length === 3,
      'neighbours',
    );
    receivers = await Promise.all(Object.keys(SERVERS).map(name => xdp.startReceiver(name, PORT)));
  });

  afterEach(async () => {
    await Promise.all(receivers.map(each => each.finish()));
    await xdp.stopDaemon(daemon);
  });

  async function received(): Promise<Record<string, Record<string, ReceivedFlow>>> {
    const flows = await Promise.all(receivers.map(each => each.finish()));
    return Object.fromEntries(Object.keys(SERVERS).map((name, index) => [name, flows[index] ?? {}]));
  }

  /** Flows one batch after the other until `isOver`: some that live long, others that are new. */
  async function traffic(isOver: () => boolean): Promise<SentFlows[]> {
    const sent: SentFlows[] = [];
    for (let first = 0; !isOver() || first === 0; first += 48) {
      sent.push(await xdp.send(VIP, PORT, 48, 1500, 1.5, { first }));
    }
    return sent;
  }

  /** Every datagram came once, all of a flow to one server, and the flows are shared out in turns. */
  async function assertNothingLost(sent: readonly SentFlows[]): Promise<void> {
    const byServer = await received();
    assert.deepEqual(
      sent.flatMap(flows => problemsOf(flows, byServer)),
      [],
    );
    const all = sent.reduce((sum, { flows }) => sum + flows, 0);
    const shares = Object.values(byServer).map(flows => Object.keys(flows).length);
    for (const share of shares) assert.equal(share, all / 3, `shares ${shares}`);
  }

  test('other services change a thousand times a second for ten seconds', async context => {
    const before = xdp.status();
    const startedBefore = programsStarted();
    let isOver = false;
    const sending = traffic(() => isOver);
    const { edits, seconds } = await editForTenSeconds();
    isOver = true;
    await assertNothingLost(await sending);
    // Starting a program takes a daemon longer than an edit: time may ask for one, edits may not.
    const started = programsStarted() - startedBefore;
    assert.ok(started < edits / 100, `${edits} edits, in which the daemon started ${started} programs`);
    context.diagnostic(`${edits} edits in ${seconds.toFixed(1)} s`);
    const { queueDrops, fastPath, received: up } = xdp.status();
    assert.equal(fastPath['no director'], before.fastPath['no director']);
    assert.equal(
      Object.values(queueDrops).reduce((sum, count) => sum + count, 0),
      0,
    );
    // New connections were made in the kernel, all of them.
    assert.equal(up, before.received);
    assert.doesNotMatch(xdp.ipvsadm('-Ln'), /:6\d\d\d/);
  });

  /** Ten thousand edits of other services, by the daemon's API, paced to a thousand a second. */
  async function editForTenSeconds(): Promise<{ edits: number; seconds: number }> {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const begin = performance.now();
    let edits = 0;
    // The same VIP and the same servers as the service that is left alone.
    const cycle = (port: number): string[] => [
      `-A -u ${VIP}:${port} -s wrr`,
      `-a -u ${VIP}:${port} -r ${SERVERS.web01} -g -w 3`,
      `-a -u ${VIP}:${port} -r ${SERVERS.web02} -m -w 1`,
      `-e -u ${VIP}:${port} -r ${SERVERS.web01} -g -w 0`,
      `-E -u ${VIP}:${port} -s mh`,
      `-A -t 10.0.0.77:${port} -s wlc -p 60`,
      `-a -t 10.0.0.77:${port} -r ${SERVERS.web03} -i -w 7`,
      `-d -u ${VIP}:${port} -r ${SERVERS.web01}`,
      `-D -u ${VIP}:${port}`,
      `-D -t 10.0.0.77:${port}`,
    ];
    while (edits < 10_000) {
      for (const command of cycle(6000 + ((edits / 10) % 100))) {
        await post(agent, { argv: command.split(' ') });
        edits++;
      }
      const ahead = edits - (performance.now() - begin);
      if (ahead > 0) await sleep(ahead);
    }
    agent.destroy();
    return { edits, seconds: (performance.now() - begin) / 1000 };
  }

  async function post(agent: Agent, body: object): Promise<void> {
    const answer = await new Promise<string>((resolve, reject) => {
      const asked = request(
        { socketPath: xdp.environment.DIRIGO_SOCKET as string, path: '/ipvsadm', method: 'POST', agent },
        response => {
          let text = '';
          response.setEncoding('utf8');
          response.on('data', part => (text += part));
          response.on('end', () => resolve(text));
        },
      );
      asked.on('error', reject);
      asked.setHeader('content-type', 'application/json');
      asked.end(JSON.stringify(body));
    });
    assert.match(answer, /"status":0/, answer);
  }

  test('another daemon takes over, and its program the place of the old one', async () => {
    const { program } = xdp.status();
    let isOver = false;
    const sending = traffic(() => isOver);
    await sleep(700);
    const next = await xdp.startDaemon(['eth0'], '--replace');
    const after = xdp.status();
    await sleep(700);
    const third = await xdp.startDaemon(['eth0'], '--replace');
    daemon = third;
    isOver = true;
    await assertNothingLost(await sending);
    assert.notEqual(after.program, program);
    assert.notEqual(xdp.status().program, after.program);
    assert.equal(after.adopted, true);
    await eventually(() => next.child.exitCode !== null, 'the second daemon ends');
  });

  test('the daemon is killed: connections go on, new ones are made, and the next daemon has them all', async () => {
    let isOver = false;
    const sending = traffic(() => isOver);
    await sleep(700);
    await xdp.kill(daemon);
    await sleep(2500);
    daemon = await xdp.startDaemon();
    await sleep(700);
    isOver = true;
    const sent = await sending;
    const listed = xdp.ipvsadm('-Lnc').match(/UDP .*10\.0\.0\.3:5000/g) ?? [];
    const flows = sent.reduce((sum, each) => sum + each.flows, 0);
    assert.equal(listed.length, flows);
    await eventually(
      () => Number(/5000 +(\d+)/.exec(xdp.ipvsadm('-Ln --stats'))?.[1]) >= flows,
      'connections in the statistics',
    );
    await assertNothingLost(sent);
  });
});
