/** What TypeScript and the real server's programs share: the order of counters, the size of settings. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { readBtf } from '../../bpf/btf.ts';
import { buildBpf } from '../../bpf/build.ts';
import { missing } from '../../test/requirements.ts';
import { TOA_COUNTS } from './fullnat.ts';
import { DECAPSULATION_COUNTS } from './tunnel.ts';

const skip = missing('clang');

/** `COUNT_NOT_A_DIRECTOR` as `notADirector`. */
function inTypeScript(name: string): string {
  const words = name.replace(/^COUNT_/, '').toLowerCase();
  return words.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());
}

// The type information of an object has no enums that only constants come from: the source has.
for (const [file, counts] of [
  ['toa.bpf.c', TOA_COUNTS],
  ['decapsulate.bpf.c', DECAPSULATION_COUNTS],
] as const) {
  test(`counters of ${file}`, () => {
    const source = readFileSync(join(import.meta.dirname, '../../bpf/realserver', file), 'utf8');
    const [, list = ''] = /^enum count \{([^}]*)\};/m.exec(source) ?? [];
    const names = list.split(',').map(name => name.trim());
    assert.deepEqual(names.filter(Boolean).map(inTypeScript), [...counts, 'counts']);
  });
}

test('settings of the tunnel program', { skip }, () => {
  const { structs } = readBtf(readFileSync(buildBpf(undefined, 'decapsulate.bpf.o')));
  const settings = structs.get('settings') ?? assert.fail('there is no struct settings');
  assert.equal(settings.size, 8);
  assert.deepEqual(
    [...settings.members],
    [
      ['flags', 0],
      ['port', 4],
      ['reserved', 6],
    ],
  );
});
