import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { DEFAULT_SETTINGS } from '../src/ipvs/settings.ts';
import { settingsPage } from './settings-page.ts';

test('docs/settings.md describes every setting as it is', () => {
  const page = readFileSync(new URL('../docs/settings.md', import.meta.url), 'utf8');
  assert.equal(page, settingsPage(), 'run node test/settings-page.ts');
  for (const name of Object.keys(DEFAULT_SETTINGS)) {
    assert.match(page, new RegExp(`^\\| \`${name}\` \\| \\d+ \\| \\S+ \\| .{10,} \\|$`, 'm'));
  }
});
