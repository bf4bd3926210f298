/** What the real libpopt 1.19 answered to these command lines. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type PoptOption, PoptReader } from './popt.ts';

const OPTIONS: readonly PoptOption<string>[] = [
  { tag: 'list', long: 'list', short: 'L', argument: 'none' },
  { tag: 'numeric', long: 'numeric', short: 'n', argument: 'none' },
  { tag: 'persistent', long: 'persistent', short: 'p', argument: 'optional' },
  { tag: 'tcp', long: 'tcp', short: 't', argument: 'required' },
];

/** Options as `tag` or `tag=argument`, an error as `word: message`, at the end what is left over. */
function read(words: string[]): string[] {
  const reader = new PoptReader(OPTIONS, words);
  const seen: string[] = [];
  for (;;) {
    const result = reader.next();
    if (result.kind === 'end') return [...seen, ...reader.leftovers.map(word => `+${word}`)];
    if (result.kind === 'error') return [...seen, `${reader.lastWord}: ${result.message}`];
    seen.push(result.argument === undefined ? result.tag : `${result.tag}=${result.argument}`);
  }
}

const CASES: [string[], string[]][] = [
  [['-Ln'], ['list', 'numeric']],
  [
    ['-Lnt', 'x'],
    ['list', 'numeric', 'tcp=x'],
  ],
  [['-Ltx'], ['list', 'tcp=x']],
  [['-t=5'], ['tcp=5']],
  [['-t=='], ['tcp==']],
  [['--tcp=a=b'], ['tcp=a=b']],
  [['--tcp='], ['tcp=']],
  [['-t', '-n'], ['tcp=-n']],
  [['-p', '20'], ['persistent=20']],
  [
    ['-p', '-n'],
    ['persistent', 'numeric'],
  ],
  [
    ['-p', '-5'],
    ['persistent', '-5: unknown option'],
  ],
  [['-p', ''], ['persistent=']],
  [['-pn'], ['persistent=n']],
  [['-p'], ['persistent']],
  [['-t'], ['-t: missing argument']],
  [['-Lt'], ['list', '-Lt: missing argument']],
  [['--tcp'], ['--tcp: missing argument']],
  [['-Lq'], ['list', '-Lq: unknown option']],
  [['--lis'], ['--lis: unknown option']],
  [['---'], ['---: unknown option']],
  [['--list=3'], ['--list=3: option does not take an argument']],
  [['-n='], ['-n=: option does not take an argument']],
  [['-L=n'], ['-L=n: option does not take an argument']],
  [
    ['-', 'a', '-n', '', '--', '-L'],
    ['numeric', '+-', '+a', '+', '+-L'],
  ],
];

test('splits as libpopt does', () => {
  for (const [words, expected] of CASES) assert.deepEqual(read(words), expected, words.join(' '));
});
