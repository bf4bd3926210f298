/** Daemons that begin anew or take each other's place: nothing configured is lost, and no command fails meanwhile. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { VirtualDatapath } from '../datapath/virtual.ts';
import { ended, runBin, startDaemon, temporaryFolder } from './daemon.fixture.ts';
import { Daemon } from './daemon.ts';
import { endHandover } from './handover.ts';
import { SystemNames } from './names.ts';
import { request, requestOnce } from './request.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

async function place(
  context: TestContext,
): Promise<{ daemon: ChildProcess; socket: string; folder: string; environment: Record<string, string> }> {
  const folder = temporaryFolder(context);
  const socket = join(folder, 'run/d.sock');
  const environment = { DIRIGO_SOCKET: socket, DIRIGO_STATE: join(folder, 'state') };
  const daemon = await startDaemon(context, environment);
  assert.equal(runBin('ipvsadm', ['-A', '-t', '10.0.0.3:80', '-s', 'wrr'], environment).status, 0);
  return { daemon, socket, folder, environment };
}

async function startedAt(socket: string): Promise<string> {
  return ((await request(socket, 'GET', '/status')).body as { startedAt: string }).startedAt;
}

/** Lists services again and again until told to stop; returns how often, and what went wrong. */
function askWithoutPause(socket: string): { stop(): Promise<{ answers: number; failures: string[] }> } {
  let isOver = false;
  let answers = 0;
  const failures: string[] = [];
  const done = (async () => {
    while (!isOver) {
      try {
        const { status, body } = await request(socket, 'POST', '/ipvsadm', { argv: ['-Sn'], stdin: '' });
        const { stdout } = body as { stdout: string };
        if (status === 200 && stdout.startsWith('-A -t 10.0.0.3:80 -s wrr\n')) answers++;
        else failures.push(JSON.stringify(body));
      } catch (error) {
        failures.push((error as Error).message);
      }
    }
  })();
  return {
    stop: async () => {
      isOver = true;
      await done;
      return { answers, failures };
    },
  };
}

test('reload: the same process begins anew, its state is there, and no command fails', async context => {
  const { daemon, socket, environment } = await place(context);
  const before = await startedAt(socket);
  const asking = askWithoutPause(socket);
  const reloaded = spawn(join(ROOT, 'bin/dirigo'), ['reload'], { env: { ...process.env, ...environment } });
  assert.equal(await ended(reloaded), 0);
  const { answers, failures } = await asking.stop();
  assert.deepEqual(failures, []);
  assert.ok(answers > 10, `${answers} answers`);
  const { body } = await request(socket, 'GET', '/status');
  const after = body as { pid: number; startedAt: string };
  assert.equal(after.pid, daemon.pid);
  assert.notEqual(after.startedAt, before);
  assert.equal(daemon.exitCode, null);
});

test('SIGHUP does the same', async context => {
  const { daemon, socket, environment } = await place(context);
  const before = await startedAt(socket);
  const ready = once(daemon.stdout as NodeJS.EventEmitter, 'data');
  daemon.kill('SIGHUP');
  await ready;
  assert.notEqual(await startedAt(socket), before);
  assert.match(runBin('ipvsadm', ['-Sn'], environment).stdout, /^-A -t 10\.0\.0\.3:80 -s wrr\n$/);
});

test('an edit that takes its time is answered before the daemon ends: nobody has to ask for it twice', async context => {
  const folder = temporaryFolder(context);
  const socket = join(folder, 'd.sock');
  /** A resolver that thinks for longer than clients without an edit are waited for. */
  class SlowNames extends SystemNames {
    override async lookUp(host: string): Promise<void> {
      await sleep(2500);
      await super.lookUp(host);
    }
  }
  const daemon = await Daemon.start({
    socket,
    openDatapath: async () => new VirtualDatapath(),
    names: new SlowNames({ dns: false }),
  });
  const lines = '-A -t 10.0.0.3:80 -s wrr\n-a -t 10.0.0.3:80 -r nowhere.example -g\n';
  const edit = requestOnce(socket, 'POST', '/ipvsadm', { argv: ['-R'], stdin: lines });
  // One that never finishes asking does not hold it up for longer.
  const silent = connect(socket, () => silent.write('GET /status HTTP/1.1\r\n'));
  await sleep(200);
  const stopped = daemon.stop({ remove: false, successor: true });
  const { stderr } = (await edit).body as { stderr: string };
  assert.match(stderr, /^illegal real server address/);
  await stopped;
  endHandover(socket);
});

test('a reload that could not succeed is refused, and the daemon goes on', async context => {
  const folder = temporaryFolder(context);
  const environment = { DIRIGO_SOCKET: join(folder, 'd.sock') };
  const options = join(folder, 'options.mjs');
  writeFileSync(options, '');
  // What is installed by then does not even load.
  const daemon = await startDaemon(context, { ...environment, NODE_OPTIONS: `--import ${options}` });
  writeFileSync(options, "throw new Error('this version is broken');");
  const refused = runBin('dirigo', ['reload'], environment);
  assert.equal(refused.status, 1);
  assert.match(refused.stderr, /^dirigo: not reloaded, the daemon goes on as it is: /);
  assert.match(refused.stderr, /this version is broken/);
  assert.equal(runBin('ipvsadm', ['-Ln'], environment).status, 0);
  assert.equal(daemon.exitCode, null);
});

test('up --replace: the new daemon takes the place of the old one, and no command fails', async context => {
  const { daemon, socket, environment } = await place(context);
  const asking = askWithoutPause(socket);
  const next = await startDaemon(context, environment, ['--replace']);
  assert.equal(await ended(daemon), 0);
  const { answers, failures } = await asking.stop();
  assert.deepEqual(failures, []);
  assert.ok(answers > 10, `${answers} answers`);
  const { body } = await request(socket, 'GET', '/status');
  assert.equal((body as { pid: number }).pid, next.pid);
});

test('up --replace where none runs just starts; where it could not start, the old one stays', async context => {
  const { daemon, environment } = await place(context);
  const refused = runBin(
    'dirigo',
    ['up', '--datapath', 'virtual', '--replace', '--interface', 'eth0=10.0.0.1/99'],
    environment,
  );
  assert.equal(refused.status, 1);
  assert.match(refused.stderr, /^dirigo: .*10\.0\.0\.1\/99/);
  assert.equal(daemon.exitCode, null);
  assert.equal(runBin('dirigo', ['down'], environment).status, 0);
  await startDaemon(context, environment, ['--replace']);
  assert.equal(runBin('ipvsadm', ['-Ln'], environment).status, 0);
});

test('down leaves the state, or takes it along', async context => {
  const { folder, environment } = await place(context);
  assert.equal(runBin('dirigo', ['down'], environment).status, 0);
  assert.deepEqual(readdirSync(folder), ['state']);
  await startDaemon(context, environment);
  assert.match(runBin('ipvsadm', ['-Sn'], environment).stdout, /-s wrr/);
  const purged = runBin('dirigo', ['down', '--purge-state'], environment);
  assert.match(purged.stdout, /^dirigo: stopped \(pid \d+\)\ndirigo: removed the state in .*\n$/);
  assert.deepEqual(readdirSync(folder), []);
});

test('down after a kill removes the socket that stayed', async context => {
  const { daemon, socket, environment } = await place(context);
  daemon.kill('SIGKILL');
  await ended(daemon);
  assert.ok(existsSync(socket));
  const removed = runBin('dirigo', ['down'], environment);
  assert.equal(removed.stdout, `dirigo: removed the socket ${socket}\n`);
  const again = runBin('dirigo', ['down'], environment);
  assert.equal(again.status, 1);
  assert.match(again.stderr, /^dirigo: no daemon listens on .*, and none left anything behind\n$/);
});
