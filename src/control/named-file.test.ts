import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readNamedText } from './named-file.ts';

test('an error names the file and says in words what is wrong', () => {
  assert.match(readNamedText(import.meta.filename), /^import assert/);
  assert.throws(() => readNamedText('/nowhere/x'), {
    message: 'cannot read /nowhere/x: no such file or directory',
  });
  assert.throws(() => readNamedText('/'), { message: 'cannot read /: it is a folder' });
});
