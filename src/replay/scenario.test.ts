import assert from 'node:assert/strict';
import { test } from 'node:test';
import { playPackets } from './packet-play.ts';
import { parseScenarios, ScenarioError } from './scenario.ts';

const SERVICE = ['ipvsadm -A -t 10.0.0.3:80 -s rr', 'ipvsadm -a -t 10.0.0.3:80 -r 10.0.0.7:80 -g'];

function refusal(value: unknown): string {
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  try {
    for (const each of parseScenarios(text, 'x.json')) {
      if (each.kind === 'packets') playPackets(each.scenario, 'x.json');
    }
  } catch (error) {
    if (error instanceof ScenarioError) return error.message;
    throw error;
  }
  return '';
}

const steps = (...list: unknown[]): unknown => ({ name: 's', setup: SERVICE, steps: list });

test('errors name the file, the step and what is wrong', () => {
  const refused: [value: unknown, message: RegExp][] = [
    ['', /^x\.json: empty$/],
    ['{', /^x\.json: no JSON: /],
    ['{"steps":[]}\n{', /^x\.json line 2: no JSON: /],
    ['[1]', /^x\.json: a scenario must be an object, it is 1$/],
    [{ name: 's' }, /"steps" must be a list, it is missing/],
    [{ interfaces: 3, steps: [] }, /"interfaces" must be 1 or 2, it is 3/],
    [{ net: { mtu: 1400 }, steps: [] }, /"net" knows mtu1 and fwd, not mtu/],
    [{ net: { mtu1: 10 }, steps: [] }, /"net\.mtu1" must be a whole number 68\.\.65535, it is 10/],
    [{ setup: [1], steps: [] }, /"setup" line 0 must be a text, it is 1/],
    [steps({ op: 'packet', in: '00', dev: 'eth0' }, 5), /step 1 must be an object, it is 5/],
    [steps({ op: 'jump' }), /step 0: "op" must be one of packet, .*, it is "jump"/],
    [steps({ op: 'packet' }), /step 0: "in" must be a text, it is missing/],
    [steps({ op: 'packet', in: '0g' }), /step 0: "in" must be a frame in hexadecimal, it is "0g"/],
    [steps({ op: 'packet', in: '00', dev: 'eth1' }), /step 0: "dev" must be eth0, it is "eth1"/],
    [steps({ op: 'packet', in: '00', t: -1 }), /step 0: "t" must be seconds since the start, it is -1/],
    [steps({ op: 'flood', in: '00', times: 1.5 }), /step 0: "times" must be a whole number/],
    [steps({ op: 'sleep' }), /step 0: "seconds" must be a number/],
    [steps({ op: 'ipvsadm', argv: [] }), /step 0: "argv" must be words/],
    [steps({ op: 'sh', cmd: 'reboot' }), /^x\.json \(s\) step 0: reboot: not known here/],
    [{ setup: ['ipvsadm -A -t 10.0.0.3:80 -s nosuch'], steps: [] }, /setup line 0: .*not found/],
    [{ setup: ['sysctl ipv4/vs/nosuch 1'], steps: [] }, /there is no setting ipv4\/vs\/nosuch/],
    [
      { setup: ['sysctl ipv4/vs/conntrack 2'], steps: [] },
      /there is no setting ipv4\/vs\/conntrack to make 2/,
    ],
    [{ setup: ['sh ip route add 198.51.100.0/24'], steps: [] }, /say via which address or on which dev/],
    [{ setup: ['nft table ip m { }', 'tcp mark'], steps: [] }, /nft rule|mark rule/],
    [
      { scheduler: 'rr', service: '-t 10.0.0.3:80', setup: [], steps: [{ op: 'new', client: ['a'] }] },
      /port must be/,
    ],
  ];
  for (const [value, message] of refused) assert.match(refusal(value), message);
});

test('the least a scenario needs', () => {
  assert.equal(refusal(steps({ op: 'packet', in: '00' }, { op: 'sleep', seconds: 1 }, { op: 'show' })), '');
});

test('time passes without being told, and listings come without being asked for', () => {
  const [each] = parseScenarios(JSON.stringify(steps({ op: 'sleep', seconds: 5 }, { op: 'show' })), 'x.json');
  assert.ok(each?.kind === 'packets');
  const outcome = playPackets(each.scenario, 'x.json');
  assert.match(outcome.steps[1]?.show?.['-Ln'] ?? '', /10\.0\.0\.7:80 +Route/);
  assert.deepEqual(Object.keys(outcome.end), ['-Ln', '-Lnc', '-Ln --stats --exact']);
});
