import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatEthers, parseEthers } from './ethers.ts';

test('reads and writes /etc/ethers', () => {
  const text = `# the cluster
00:0c:29:3b:07:73 10.0.0.7
0:c:29:3b:8:84	web02   # bytes of one digit, and a name
00:0C:29:1a:05:51 2001:db8:0::5

10.0.0.9 00:0c:29:00:00:09
`;
  const entries = parseEthers(text, name => (name === 'web02' ? '10.0.0.8' : undefined));
  assert.deepEqual(entries, [
    { address: '10.0.0.7', mac: '00:0c:29:3b:07:73' },
    { address: '10.0.0.8', mac: '00:0c:29:3b:08:84' },
    { address: '2001:db8::5', mac: '00:0c:29:1a:05:51' },
    { address: '10.0.0.9', mac: '00:0c:29:00:00:09' },
  ]);
  assert.deepEqual(parseEthers(formatEthers(entries)), entries);
});

test('says which line is wrong', () => {
  const cases: [string, RegExp][] = [
    ['00:0c:29:3b:07:73\n', /^line 1: nothing is no known host: /],
    ['00:0c:29:3b:07:73 web09\n', /^line 1: web09 is no known host: /],
    ['\n10.0.0.7 web01\n', /^line 2: it is not a MAC and a host: "10\.0\.0\.7 web01"/],
    ['00:0c:29:3b:07:73 10.0.0.7 more\n', /^line 1: it is not a MAC and a host/],
    [
      '00:0c:29:3b:07:73 10.0.0.7\n00:0c:29:3b:07:74 10.0.0.7\n',
      /^line 2: 10\.0\.0\.7 is at 00:0c:29:3b:07:73 and at/,
    ],
  ];
  for (const [text, message] of cases) assert.throws(() => parseEthers(text), { message });
});
