/**
 * What a real ip_vs did with fragments, ICMP errors, IPv6 extension headers and IP options beyond the recordings that
 * came with the project; `test/recorded/ask/fragments.py` asked it.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { brotliDecompressSync } from 'node:zlib';
import { checkScenario } from '../../src/replay/check.ts';
import { formatDifference } from '../../src/replay/comparison.ts';
import { parseScenarios } from '../../src/replay/scenario.ts';

const RECORDED = new URL('../recorded/fragments.json.br', import.meta.url);

const RECORD_ROUTE = 'Linux writes its address into the record route option of packets that it receives';

/** The only ones that may differ, and why. */
const EXCEPTIONS: Readonly<Record<string, string>> = {
  'opts4-dr': RECORD_ROUTE,
  'opts4-nat': RECORD_ROUTE,
  'opts4-tun': RECORD_ROUTE,
};

const files = JSON.parse(brotliDecompressSync(readFileSync(RECORDED)).toString()) as Record<string, string>;

for (const [file, text] of Object.entries(files)) {
  const name = file.replace('.json', '');
  test(`recorded ${name}`, () => {
    const [scenario] = parseScenarios(text, file);
    assert.ok(scenario);
    const differences = checkScenario(scenario, file);
    const shown = `\n${differences.map(formatDifference).join('')}`;
    if (EXCEPTIONS[name] === undefined) assert.equal(differences.length, 0, shown);
    else assert.notEqual(differences.length, 0, `${name} is as recorded now: take it off the list`);
  });
}

test('every exception is a recording', () => {
  for (const name of Object.keys(EXCEPTIONS)) assert.ok(files[`${name}.json`], name);
});
