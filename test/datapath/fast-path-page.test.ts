import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { reasonNames } from '../../src/datapath/xdp/control.ts';

test('docs/fast-path.md names every counter of the program', () => {
  const page = readFileSync(new URL('../../docs/fast-path.md', import.meta.url), 'utf8');
  for (const name of reasonNames) assert.ok(page.includes(`\`${name}\``), `${name} is missing`);
  const rows = [...page.matchAll(/^\| `([a-z ]+)` \|/gm)].map(([, name]) => name);
  for (const name of rows)
    assert.ok((reasonNames as readonly string[]).includes(name ?? ''), `no counter ${name}`);
});
