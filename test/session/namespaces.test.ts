import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { missing } from '../requirements.ts';

const BIN = fileURLToPath(new URL('../../bin/dirigo', import.meta.url));
const skip = missing('root', 'ip', 'ethtool', 'nginx', 'curl', 'tshark', 'arp', 'clang');

/** What a session of this process id must not leave behind. */
function remains(pid: number): string[] {
  const namespaces = spawnSync('ip', ['netns', 'list'], { encoding: 'utf8' }).stdout.split('\n');
  const pins = readdirSync('/sys/fs/bpf');
  return [
    ...namespaces.filter(name => name.startsWith(`dirigo${pid}-`)),
    ...pins.filter(name => name.includes(String(pid))),
    ...readdirSync(tmpdir()).filter(name => name.startsWith(`dirigo-session-${pid}-`)),
  ];
}

function start(): { child: ChildProcess; output: () => string } {
  const child = spawn(BIN, ['session', '--namespaces'], { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', chunk => (output += chunk));
  return { child, output: () => output };
}

const ended = (child: ChildProcess): Promise<number | null> =>
  new Promise(resolve => child.on('exit', resolve));

test('the session between namespaces: nginx, curl, tshark and native XDP', { skip }, async () => {
  const { child, output } = start();
  assert.equal(await ended(child), 0, output());
  assert.match(output(), /XDP, native mode/);
  assert.match(output(), /All checks hold\./);
  assert.deepEqual(remains(child.pid as number), []);
});

test('an interrupted session leaves nothing behind', { skip }, async () => {
  const { child, output } = start();
  const exited = ended(child);
  await new Promise<void>(resolve => {
    const look = setInterval(() => {
      if (!output().includes('5. Clients visit') && child.exitCode === null) return;
      clearInterval(look);
      resolve();
    }, 50);
  });
  child.kill('SIGINT');
  child.kill('SIGTERM');
  assert.equal(await exited, 130, output());
  assert.deepEqual(remains(child.pid as number), []);
});
