import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatMarkRule } from '../ipvs/mark-rules.ts';
import { parseNftMarks } from './nft-marks.ts';

const rules = (text: string): string[] => parseNftMarks(text).map(formatMarkRule);

test('the tables of the recordings', () => {
  assert.deepEqual(
    rules(`table ip m {
 chain p {
 type filter hook prerouting priority -150;
 ip daddr 10.0.0.3 tcp dport 80-443 meta mark set 1
 }
}
`),
    ['tcp to 10.0.0.3 port 80-443 mark 1'],
  );
  assert.deepEqual(rules('ip daddr 10.0.0.3 meta l4proto { tcp, udp } th dport 70-9000 meta mark set 3'), [
    'tcp,udp to 10.0.0.3 port 70-9000 mark 3',
  ]);
});

test('sets become a rule for each value', () => {
  assert.deepEqual(rules('ip saddr 192.0.2.0/24 tcp dport { 80, 443 } counter meta mark set 0x10'), [
    'tcp from 192.0.2.0/24 port 443 mark 16',
    'tcp from 192.0.2.0/24 port 80 mark 16',
  ]);
});

test('the last rule that matches wins in nft, the first one here', () => {
  assert.deepEqual(rules('tcp dport 80 meta mark set 1\niifname "eth1" udp sport 53 meta mark set 2'), [
    'udp sport 53 on eth1 mark 2',
    'tcp port 80 mark 1',
  ]);
});

test('what gives no mark is refused by name', () => {
  assert.throws(() => rules('tcp dport 80 accept'), /"accept"/);
  assert.throws(() => rules('ct state new meta mark set 1'), /"ct"/);
  assert.throws(() => rules('tcp dport 80'), /sets no mark/);
  assert.throws(() => rules('ip daddr nonsense meta mark set 1'), /"nonsense" is no address/);
});
