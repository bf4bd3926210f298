/** `dirigo arp` against net-tools, byte for byte. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { readNeighbourTable } from '../../src/guard/neighbour-table.ts';
import { NamespaceLab } from '../namespaces.ts';
import { missing } from '../requirements.ts';
import { dirigo } from './programs.ts';

test('dirigo arp prints what arp -n prints', { skip: missing('root', 'ip', 'arp') }, async () => {
  const lab = new NamespaceLab();
  try {
    lab.addHost('a', '10.1.0.1/24', '2001:db8::1/64');
    lab.run('a', 'ip', 'link', 'add', 'a-longish-name1', 'type', 'veth', 'peer', 'name', 'p1');
    lab.run('a', 'ip', 'link', 'set', 'a-longish-name1', 'up');
    lab.run('a', 'ip', 'addr', 'add', '172.16.100.200/24', 'dev', 'a-longish-name1');
    const entries = [
      'neigh add 10.1.0.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent',
      'neigh add 10.1.0.10 lladdr 02:00:00:00:00:0a dev eth0 nud stale',
      'neigh add 172.16.100.201 lladdr 02:00:00:00:00:0b dev a-longish-name1 nud reachable',
      'neigh add 172.16.100.202 dev a-longish-name1 nud failed',
      'neigh add 10.1.0.12 lladdr 02:00:00:00:00:0c dev eth0 nud noarp',
      'neigh add proxy 10.1.0.77 dev eth0',
      'neigh add 2001:db8::9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent',
    ];
    for (const entry of entries) lab.run('a', 'ip', ...entry.split(' '));
    // Somebody who is not there: incomplete while the kernel asks, and failed then.
    lab.try('a', 'ping', '-c', '1', '-W', '1', '10.1.0.50');

    const real = lab.run('a', 'arp', '-n');
    assert.match(real, /\(incomplete\)/);
    assert.match(real, /CM/);
    assert.match(real, /MP/);
    assert.equal(lab.run('a', ...dirigo('arp')), real);
    assert.equal(lab.run('a', ...dirigo('arp', '-i', 'eth0')), lab.run('a', 'arp', '-n', '-i', 'eth0'));
    assert.equal(lab.run('a', ...dirigo('arp', '10.1.0.9')), lab.run('a', 'arp', '-n', '10.1.0.9'));
    assert.equal(
      lab.try('a', ...dirigo('arp', '10.1.0.8')).stdout,
      lab.try('a', 'arp', '-n', '10.1.0.8').stdout,
    );

    const [command, ...words] = dirigo('arp', '--namespace', `${lab.prefix}a`);
    const outside = spawnSync(command, words, { encoding: 'utf8' });
    assert.equal(outside.stdout, real, 'of a namespace, from outside');

    const json = JSON.parse(lab.run('a', ...dirigo('arp', '--json')));
    assert.deepEqual(
      json.find((each: { address: string }) => each.address === '10.1.0.10'),
      { address: '10.1.0.10', mac: '02:00:00:00:00:0a', state: 'STALE', interface: 'eth0' },
    );
    assert.match(
      lab.run('a', ...dirigo('arp', '-6')),
      /^Address {18}HWtype {2}HWaddress {11}Flags Mask {12}Iface\n(.*\n)*2001:db8::9 {14}ether {3}02:00:00:00:00:09 {3}CM {20}eth0\n/,
    );
  } finally {
    await lab.remove();
  }
});

test('no such namespace', { skip: missing('root', 'ip') }, () => {
  const [command, ...words] = dirigo('arp', '--namespace', 'dg-none');
  const { status, stderr } = spawnSync(command, words, { encoding: 'utf8' });
  assert.equal(status, 1);
  assert.equal(stderr, 'dirigo: there is no network namespace dg-none: `ip netns` lists those there are\n');
});

test('an empty namespace has an empty table', { skip: missing('root', 'ip') }, async () => {
  const lab = new NamespaceLab();
  try {
    assert.equal(lab.run('lan', ...dirigo('arp')), lab.run('lan', 'arp', '-n'));
  } finally {
    await lab.remove();
  }
});

test('the table of this process', { skip: missing('ip') }, () => {
  assert.ok(Array.isArray(readNeighbourTable(4)));
});

test('a host of the virtual LAN', () => {
  const [command, ...words] = dirigo('arp', '--host', 'm01');
  const { stdout } = spawnSync(command, words, { encoding: 'utf8' });
  assert.match(stdout, /^172\.16\.1\.51 {14}ether {3}00:0c:29:c7:5d:dd {3}C {21}eth1$/m);
  const [, ...unknown] = dirigo('arp', '--host', 'm99');
  assert.match(
    spawnSync(command, unknown, { encoding: 'utf8' }).stderr,
    /^dirigo: there is no host m99 .* m01, /,
  );
});
