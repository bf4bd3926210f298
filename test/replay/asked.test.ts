/** What a real ip_vs did where the recordings that came with the project are silent, played; see `test/recorded`. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { brotliDecompressSync } from 'node:zlib';
import { checkScenario } from '../../src/replay/check.ts';
import { formatDifference } from '../../src/replay/comparison.ts';
import { parseScenarios } from '../../src/replay/scenario.ts';

/** The only ones that may differ, and why. */
const EXCEPTIONS: Readonly<Record<string, string>> = {
  'ftp-227-other-address':
    'the kernel connects a client to whatever address a server names; we connect it to the server that answered',
  'ftp-passive-again':
    "the kernel passes an answer that is sent again with the server's address in it, at a length the client's TCP does not expect; we translate it again",
};

const seen = new Set<string>();

for (const pack of ['ftp', 'sip', 'defence', 'sequences', 'packets', 'drawn']) {
  const packed = readFileSync(new URL(`../recorded/${pack}.json.br`, import.meta.url));
  const files = JSON.parse(brotliDecompressSync(packed).toString()) as Record<string, string>;
  for (const [file, text] of Object.entries(files)) {
    const name = file.replace('.json', '');
    seen.add(name);
    test(`recorded ${name}`, () => {
      const [scenario] = parseScenarios(text, file);
      assert.ok(scenario);
      const differences = checkScenario(scenario, file);
      const shown = `\n${differences.map(formatDifference).join('')}`;
      if (EXCEPTIONS[name] === undefined) assert.equal(differences.length, 0, shown);
      else assert.notEqual(differences.length, 0, `${name} is as recorded now: take it off the list`);
    });
  }
}

test('every exception is a recording', () => {
  assert.ok(seen.size > 60);
  for (const name of Object.keys(EXCEPTIONS)) assert.ok(seen.has(name), name);
});
