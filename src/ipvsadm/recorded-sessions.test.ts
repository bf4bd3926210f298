/** Every recorded session of the real ipvsadm 1.31, replayed. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { goldenExists, goldenLines, goldenNames } from '../../test/golden.ts';
import { namesFromFiles } from './name-files.ts';
import { runIpvsadm } from './run.ts';
import { TableServer } from './table-server.fixture.ts';

interface Step {
  step: number;
  argv: string[];
  stdin?: string;
  status: number;
  stdout: string;
  stderr: string;
  table_after?: { Ln: string; Sn: string };
  varies?: string[];
}

/** Sessions without a virtual server to talk to; the daemon's tests cover what the client says then. */
const WITHOUT_SERVER = ['no-module', 'not-root'];

/** Lines in any order, for what the recording says differs from boot to boot. */
const asSet = (text: string): string[] => text.split('\n').sort();

const missing = !goldenExists('cli')
  ? 'the recordings ../shared/oracle/golden are not there'
  : !existsSync('/etc/services')
    ? '/etc/services is missing (Debian package netbase)'
    : false;

test('recorded sessions', { skip: missing }, async context => {
  const names = namesFromFiles(readFileSync('/etc/services', 'utf8'), '127.0.0.1 localhost\n');
  const sessions = goldenNames('cli').filter(name => !WITHOUT_SERVER.includes(name));
  assert.ok(sessions.length >= 25);
  for (const session of sessions) {
    await context.test(session, () => {
      const server = new TableServer();
      for (const step of goldenLines<Step>(`cli/${session}.jsonl`)) {
        const where = `${session} step ${step.step}: ${step.argv.join(' ')}`;
        const [program, ...words] = step.argv;
        const run = (...command: string[]) => runIpvsadm(command, step.stdin ?? '', server, names);
        // ipvsadm-save and ipvsadm-restore are shell scripts around the command.
        if (program === 'ipvsadm-restore') run('-C');
        const result =
          program === 'ipvsadm' ? run(...words) : run(program === 'ipvsadm-save' ? '-S' : '-R', ...words);
        assert.equal(result.stderr, step.stderr, where);
        assert.equal(result.status, step.status, where);
        if (step.varies?.includes('stdout'))
          assert.deepEqual(asSet(result.stdout), asSet(step.stdout), where);
        else assert.equal(result.stdout, step.stdout, where);
        if (!step.table_after) continue;
        const table = { Ln: run('-Ln').stdout, Sn: run('-S', '-n').stdout };
        if (step.varies?.includes('table_after')) {
          assert.deepEqual(asSet(table.Ln), asSet(step.table_after.Ln), where);
          assert.deepEqual(asSet(table.Sn), asSet(step.table_after.Sn), where);
        } else assert.deepEqual(table, step.table_after, where);
      }
    });
  }
});
