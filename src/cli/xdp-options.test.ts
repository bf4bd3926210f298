import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Command } from 'commander';
import { addXdpOptions, type XdpOptions, xdpRequest } from './xdp-options.ts';

/** Parses the words; what is written to stderr instead if they are refused. */
function parse(...words: string[]): XdpOptions | string {
  let refusal = '';
  const command = addXdpOptions(new Command())
    .exitOverride()
    .configureOutput({ writeErr: text => (refusal += text) });
  try {
    return command.parse(words, { from: 'user' }).opts();
  } catch {
    return refusal;
  }
}

test('sizes are taken as numbers, and asked of the data path by its names', () => {
  const options = parse('--mode', 'native', '--capacity', '4000000', '--servers', '100', '--ring', '256');
  assert.deepEqual(options, { mode: 'native', capacity: 4_000_000, servers: 100, ring: 256 });
  assert.deepEqual(xdpRequest('xdp', options as XdpOptions), {
    mode: 'native',
    capacity: 4_000_000,
    destinations: 100,
    ring: 256,
  });
  assert.deepEqual(xdpRequest('virtual', {}), {});
});

test('what makes no sense is refused, and why', () => {
  for (const [words, reason] of [
    [
      ['--capacity', '0'],
      /--capacity <number>' argument '0' is invalid. It is not a whole number from 64 to 16777214/,
    ],
    [['--capacity', '1e6'], /not a whole number/],
    [['--capacity', '16777215'], /not a whole number from 64 to 16777214/],
    [['--capacity', '-5'], /not a whole number/],
    [['--ring', '1000'], /'1000' is invalid. It is not a power of two/],
    [['--ring', '65536'], /not a whole number from 64 to 32768/],
    [['--services', 'many'], /not a whole number from 1 to 65536/],
    [['--mode', 'offload'], /Allowed choices are auto, native, generic/],
  ] as const) {
    assert.match(String(parse(...words)), reason);
  }
  assert.throws(
    () => xdpRequest('virtual', { ring: 64 }),
    /--ring is for --datapath xdp; this is --datapath virtual/,
  );
});
