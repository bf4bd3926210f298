/** The state on disk: whatever a crash leaves, what was acknowledged is there, and nothing else. */
import assert from 'node:assert/strict';
import { appendFileSync, cpSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { configure, perform } from './configuration.fixture.ts';
import { temporaryFolder } from './daemon.fixture.ts';
import { captureState } from './desired-state.ts';
import { StateFolder } from './state-folder.ts';

const JOURNAL = 'journal-000000000001.jsonl';

const EDITS = [
  ['-A -t 10.0.0.3:80 -s wrr'],
  ['-a -t 10.0.0.3:80 -r 10.0.0.7 -g -w 3 -x 9 -y 4'],
  ['-A -f 7 -6 -s sh -b sh-port', '-a -f 7 -6 -r [2001:db8::7]:80 -m'],
  ['--set 30 5 60', 'setting sloppy_tcp 1'],
  ['-D -t 10.0.0.3:80'],
];

/** A folder with these edits; the state after each, and the journal's length then. */
async function written(context: TestContext): Promise<{ path: string; states: string[]; lengths: number[] }> {
  const path = temporaryFolder(context);
  const { director, configuration } = configure({ folder: new StateFolder(path) });
  const states = [JSON.stringify(captureState(director))];
  const lengths = [0];
  for (const lines of EDITS) {
    await configuration.edit(lines.join('; '), () => perform(director, lines));
    states.push(JSON.stringify(captureState(director)));
    lengths.push(readFileSync(join(path, JOURNAL)).length);
  }
  await configuration.close();
  return { path, states, lengths };
}

async function restored(path: string): Promise<{ state: string; revision: number }> {
  const { director, configuration } = configure({ folder: new StateFolder(path) });
  const result = { state: JSON.stringify(captureState(director)), revision: configuration.revision };
  await configuration.close();
  return result;
}

test('a journal cut off at any byte gives the last whole revision', async context => {
  const { path, states, lengths } = await written(context);
  const whole = lengths.at(-1) as number;
  assert.ok(whole > 1000);
  for (let length = 0; length <= whole; length++) {
    const copy = join(temporaryFolder(context), 'state');
    cpSync(path, copy, { recursive: true });
    truncateSync(join(copy, JOURNAL), length);
    const revision = lengths.findLastIndex(each => each <= length);
    assert.deepEqual(await restored(copy), { state: states[revision], revision }, `at ${length} bytes`);
    // The remainder is gone: what is written next follows the last whole line.
    assert.equal(readFileSync(join(copy, JOURNAL)).length, lengths[revision]);
  }
});

test('a last line that holds anything else was never acknowledged', async context => {
  const { path, states, lengths } = await written(context);
  const file = join(path, JOURNAL);
  for (const rubbish of ['\0'.repeat(4096), 'half a li\nne\n', '00000000 {}\n', '\n\n']) {
    appendFileSync(file, rubbish);
    assert.deepEqual(await restored(path), { state: states.at(-1), revision: EDITS.length });
    assert.equal(readFileSync(file).length, lengths.at(-1));
  }
});

test('a damaged line among others stops the start and is left as it is', async context => {
  const { path, lengths } = await written(context);
  const file = join(path, JOURNAL);
  const bytes = readFileSync(file);
  const at = (lengths[1] as number) + 40;
  bytes[at] = (bytes[at] as number) ^ 1;
  writeFileSync(file, bytes);
  await assert.rejects(restored(path), (error: Error) => {
    return (
      error.message ===
      `${file} cannot be restored (line 2 is damaged: its checksum does not fit): mend it or move it away`
    );
  });
  assert.deepEqual(readFileSync(file), bytes);
});

test('revisions that are missing are missed', async context => {
  const { path, lengths } = await written(context);
  const file = join(path, JOURNAL);
  const bytes = readFileSync(file);
  writeFileSync(file, Buffer.concat([bytes.subarray(0, lengths[1]), bytes.subarray(lengths[2])]));
  await assert.rejects(restored(path), /\(revision 3 follows 1\)/);
  writeFileSync(file, bytes.subarray(lengths[1]));
  await assert.rejects(restored(path), /\(revision 1 is missing\)/);
});

test('a long journal becomes a snapshot; every file a crash may leave in between gives the same state', async context => {
  const path = temporaryFolder(context);
  const folder = new StateFolder(path);
  const { director, configuration } = configure({ folder });
  await configuration.edit('', () =>
    perform(director, ['-A -t 10.0.0.3:80', '-a -t 10.0.0.3:80 -r 10.0.0.7 -g']),
  );
  const before = temporaryFolder(context);
  for (let weight = 2; readdirSync(path).length < 2; weight++) {
    await configuration.edit('weight', () =>
      perform(director, [`-e -t 10.0.0.3:80 -r 10.0.0.7 -g -w ${weight}`]),
    );
    if (weight === 999) cpSync(path, before, { recursive: true });
    assert.ok(weight < 3000, 'it never becomes one');
  }
  await configuration.edit('afterwards', () => perform(director, ['-A -u 10.0.0.3:53 -s rr']));
  await configuration.close();
  const names = readdirSync(path).sort();
  assert.deepEqual(names.slice(0, 1), [JOURNAL]);
  assert.equal(names.at(-1), 'state.json');
  const state = JSON.stringify(captureState(director));
  const { revision } = configuration;
  assert.deepEqual(await restored(path), { state, revision });
  // The snapshot is JSON that one can read, and says where it stands.
  assert.equal(JSON.parse(readFileSync(join(path, 'state.json'), 'utf8')).version, 1);
  // A crash before the snapshot was in place: journals alone.
  const journals = temporaryFolder(context);
  for (const name of names.filter(each => each !== 'state.json'))
    cpSync(join(path, name), join(journals, name));
  writeFileSync(join(journals, 'state.json.new'), '{"version":1,"revi');
  assert.deepEqual(await restored(journals), { state, revision });
});
