import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Log, type LogOptions, REPETITION } from './log.ts';

function collecting(options: LogOptions = {}): { log: Log; lines: string[] } {
  const lines: string[] = [];
  const log = new Log({ wallClock: () => 0, write: line => lines.push(line), format: 'text', ...options });
  return { log, lines };
}

test('an event is a line, whatever its fields say', () => {
  const fields = {
    plain: 'tcp:10.0.0.3',
    blank: 'a b',
    evil: 'x\n<0>forged\u001b[2J',
    none: undefined,
    three: 3,
  };
  const text = collecting();
  text.log.info('changed', fields);
  assert.deepEqual(text.lines, [
    '1970-01-01T00:00:00.000Z info changed plain=tcp:10.0.0.3 blank="a b" evil="x\\n<0>forged\\u001b[2J" three=3\n',
  ]);
  const journal = collecting({ format: 'journal', level: 'debug' });
  journal.log.error('failed', { evil: fields.evil });
  journal.log.warning('odd');
  journal.log.info('done');
  journal.log.debug('seen');
  assert.deepEqual(journal.lines, [
    '<3>failed evil="x\\n<0>forged\\u001b[2J"\n',
    '<4>odd\n',
    '<6>done\n',
    '<7>seen\n',
  ]);
  const json = collecting({ format: 'json' });
  json.log.info('changed', fields);
  assert.deepEqual(JSON.parse(json.lines.join('')), {
    time: '1970-01-01T00:00:00.000Z',
    level: 'info',
    event: 'changed',
    plain: fields.plain,
    blank: fields.blank,
    evil: fields.evil,
    three: 3,
  });
});

test('levels', () => {
  const { log, lines } = collecting({ level: 'warning' });
  log.debug('a');
  log.info('b');
  log.warning('c');
  log.error('d');
  assert.deepEqual(
    lines.map(line => line.split(' ').slice(1).join(' ')),
    ['warning c\n', 'error d\n'],
  );
});

test('a problem that comes back is counted, others are not held up', context => {
  context.mock.timers.enable({ apis: ['setTimeout'] });
  const { log, lines } = collecting({ format: 'journal' });
  for (let time = 0; time < 1000; time++) log.warning('refused', { by: 'uid 1' });
  log.warning('refused', { by: 'uid 2' });
  assert.deepEqual(lines, ['<4>refused by="uid 1"\n', '<4>refused by="uid 2"\n']);
  context.mock.timers.tick(REPETITION);
  assert.deepEqual(lines.slice(2), ['<4>refused by="uid 1" repeated=999\n']);
  log.warning('refused', { by: 'uid 1' });
  assert.equal(lines.length, 4);
});

test('many different problems take bounded memory, and none is lost', async () => {
  const { log, lines } = collecting();
  for (let number = 0; number < 1000; number++) {
    log.error('failed', { number });
    log.error('failed', { number });
  }
  await log.close();
  assert.equal(lines.length, 2000);
});

test('long values are cut', () => {
  const { log, lines } = collecting();
  log.info('changed', { cause: 'x'.repeat(100_000) });
  assert.ok((lines[0]?.length ?? 0) < 1100);
});
