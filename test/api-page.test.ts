/** docs/api.md: its commands run, and it names every metric that there is. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { startDaemon, temporaryFolder } from '../src/control/daemon.fixture.ts';
import { missing } from './requirements.ts';

const page = readFileSync(new URL('../docs/api.md', import.meta.url), 'utf8');

test('the commands of the page run as they stand there', { skip: missing('curl', 'bash') }, async context => {
  const folder = temporaryFolder(context);
  const socket = join(folder, 'd.sock');
  writeFileSync(join(folder, 'token'), 'the-token-of-the-page\n', { mode: 0o600 });
  await startDaemon(context, { DIRIGO_SOCKET: socket }, [
    '--listen',
    '127.0.0.1:0',
    '--token-file',
    join(folder, 'token'),
  ]);
  const run = (script: string) =>
    spawnSync('bash', ['-c', script], { cwd: folder, encoding: 'utf8', timeout: 30_000 });
  const status = run(`curl -sS --unix-socket ${socket} http://lb/status`);
  const { listen } = JSON.parse(status.stdout) as { listen: string };
  const lines = [...page.matchAll(/```sh\n(.*?)```/gs)].flatMap(([, block = '']) => block.trim().split('\n'));
  const [alias = '', ...commands] = lines;
  assert.match(alias, /^alias lb=/);
  assert.ok(commands.length >= 10);
  for (const command of commands) {
    const script = `shopt -s expand_aliases\n${alias}\n${command}`
      .replaceAll('/run/dirigo/dirigo.sock', socket)
      .replaceAll('127.0.0.1:8080', listen);
    const { status, stdout, stderr } = run(script);
    assert.equal(status, 0, `${command}\n${stdout}${stderr}`);
    assert.notEqual(stdout, '', command);
  }
  const wrong = run(
    `curl -sS --unix-socket ${socket} http://lb/services -d '{"key": "tcp 10.0.0.4:80", "destinations": [{"address": "10.0.0.7"}, {"address": "10.0.0.8", "weight": -1}]}'`,
  );
  assert.ok(page.includes(wrong.stdout), 'the refusal is the one of the page');
  const { stdout } = run(`curl -sS --unix-socket ${socket} http://lb/metrics`);
  const metrics = [...stdout.matchAll(/^# TYPE (\S+)/gm)].map(([, name = '']) => name);
  assert.deepEqual(
    metrics.filter(name => !page.includes(`\`${name}`)),
    [],
  );
  const named = [...page.matchAll(/`((?:dirigo|process)_[a-z_]+)/g)].map(([, name = '']) => name);
  assert.deepEqual(
    named.filter(name => !metrics.includes(name)),
    [],
  );
});
