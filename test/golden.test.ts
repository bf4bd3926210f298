import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { test } from 'node:test';
import { encodingOf, PACKED, sharedRecordings, unpackFolder } from './golden.ts';

const shared = sharedRecordings();

test('the packed recordings are those of the surroundings', {
  skip: shared ? false : 'no ../shared here',
}, () => {
  const packs = readdirSync(PACKED).filter(name => name.endsWith('.json.br'));
  assert.ok(packs.length > 0);
  for (const pack of packs) {
    for (const [name, text] of Object.entries(unpackFolder(pack))) {
      const original = readFileSync(
        join(shared as string, basename(pack, '.json.br'), name),
        encodingOf(name),
      );
      assert.equal(text, original, `${pack} ${name}: run node test/golden-pack.ts`);
    }
  }
});
