/**
 * Two long sessions of command lines drawn at random (odd addresses, ports, masks, flags, options in any order,
 * restores of whole tables) and what the real ipvsadm 1.31 on Linux 6.1 answered to each, in `drawn-sessions.json.br`.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { brotliDecompressSync } from 'node:zlib';
import { namesFromFiles } from './name-files.ts';
import { runIpvsadm } from './run.ts';
import { TableServer } from './table-server.fixture.ts';

interface Step {
  argv: string[];
  stdin: string;
  status: number;
  stdout: string;
  stderr: string;
  /** `ipvsadm -Sn` and `ipvsadm -Ln --thresholds` afterwards. */
  saved: string;
  thresholds: string;
  /** Lines come in an order that depends on the boot. */
  varies?: boolean;
}

const noServices = !existsSync('/etc/services') && '/etc/services is missing (Debian package netbase)';

test('sessions drawn at random', { skip: noServices }, () => {
  const packed = readFileSync(new URL('drawn-sessions.json.br', import.meta.url));
  const sessions: Step[][] = JSON.parse(brotliDecompressSync(packed).toString());
  const names = namesFromFiles(readFileSync('/etc/services', 'utf8'), '127.0.0.1 localhost\n');
  for (const session of sessions) {
    const server = new TableServer();
    for (const [index, { argv, stdin, varies, saved, thresholds, ...expected }] of session.entries()) {
      const run = (...words: string[]) => runIpvsadm(words, stdin, server, names);
      const shown = (text: string) => (varies ? text.split('\n').sort() : text);
      assert.deepEqual(run(...argv), expected, `${index}: ${argv.join(' ')}`);
      assert.deepEqual(shown(run('-Sn').stdout), shown(saved), `${index}: ${argv.join(' ')}`);
      assert.deepEqual(
        shown(run('-Ln', '--thresholds').stdout),
        shown(thresholds),
        `${index}: ${argv.join(' ')}`,
      );
    }
  }
});
