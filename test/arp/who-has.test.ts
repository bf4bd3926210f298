/** `dirigo arp who-has` and `announce` between namespaces. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NamespaceLab } from '../namespaces.ts';
import { missing } from '../requirements.ts';
import { dirigo } from './programs.ts';

const NEEDS = missing('root', 'ip', 'ethtool');

/** A host of NamespaceLab sees /sys of the first namespace: its MAC by iproute2. */
function linkMac(lab: NamespaceLab, host: string): string {
  const [link] = JSON.parse(lab.run(host, 'ip', '-json', 'link', 'show', 'eth0')) as { address: string }[];
  return (link as { address: string }).address;
}

test('two stations that answer for a VIP are both listed, in words and in the status', {
  skip: NEEDS,
}, async () => {
  const lab = new NamespaceLab();
  try {
    lab.addHost('client', '10.2.0.1/24', '2001:db8:2::1/64');
    lab.addHost('director', '10.2.0.5/24', '10.2.0.3/32', '2001:db8:2::5/64', '2001:db8:2::3/128');
    lab.addHost('server', '10.2.0.7/24', '2001:db8:2::7/64');
    const [director, server] = [linkMac(lab, 'director'), linkMac(lab, 'server')];
    const ask = (...words: string[]) =>
      lab.try('client', ...dirigo('arp', 'who-has', ...words, '--timeout', '0.3'));

    const one = ask('10.2.0.3');
    assert.equal(one.status, 0, one.stdout + one.stderr);
    const lines = one.stdout.split('\n');
    assert.equal(lines[0], 'Who has 10.2.0.3? Tell 10.2.0.1 (eth0)');
    assert.match(
      lines[1] as string,
      new RegExp(`^10\\.2\\.0\\.3 is at ${director}  [0-9.]+ ms  2 answers  `),
    );
    assert.equal(lines.length, 3);

    // The fault: the real server has the VIP on lo and answers for it.
    lab.run('server', 'ip', 'addr', 'add', '10.2.0.3/32', 'dev', 'lo');
    const two = ask('10.2.0.3', '--json');
    assert.equal(two.status, 3);
    const report = JSON.parse(two.stdout);
    assert.deepEqual(
      report.stations.map((each: { mac: string }) => each.mac).sort(),
      [director, server].sort(),
    );
    assert.match(report.conclusion, /^2 stations answer for 10\.2\.0\.3\. If it is a VIP, a real server/);
    for (const { time } of report.stations) assert.ok(time > 0 && time < 300, `${time} ms`);

    // Seen from the director, which has the VIP itself.
    const own = lab.try('director', ...dirigo('arp', 'who-has', '10.2.0.3', '--timeout', '0.3'));
    assert.equal(own.status, 3);
    assert.match(own.stdout, /This host has 10\.2\.0\.3 itself, and another station answers for it, too\./);

    // The remedy.
    lab.run('server', 'sysctl', '-qw', 'net.ipv4.conf.all.arp_ignore=1');
    assert.equal(ask('10.2.0.3').status, 0);

    const nobody = ask('10.2.0.99');
    assert.equal(nobody.status, 2);
    assert.match(nobody.stdout, /Nobody has 10\.2\.0\.99: no answer\./);
    assert.equal(ask('10.2.0.99', '--duplicate').status, 0);
    assert.match(
      ask('10.2.0.7', '--duplicate').stdout,
      /Asked without an address.*\n.*\n10\.2\.0\.7 is in use\./,
    );
    assert.equal(ask('10.2.0.7', '--duplicate').status, 3);
  } finally {
    await lab.remove();
  }
});

test('neighbour solicitations, answered by two', { skip: NEEDS }, async () => {
  const lab = new NamespaceLab();
  try {
    lab.addHost('client', '2001:db8:2::1/64');
    lab.addHost('director', '2001:db8:2::5/64', '2001:db8:2::3/128');
    lab.addHost('server', '2001:db8:2::7/64');
    const ask = (...words: string[]) =>
      lab.try('client', ...dirigo('arp', 'who-has', ...words, '--timeout', '0.3'));
    const one = ask('2001:db8:2::3');
    assert.equal(one.status, 0, one.stdout + one.stderr);
    assert.match(one.stdout, /Tell fe80::/);
    lab.run('server', 'ip', 'addr', 'add', '2001:db8:2::3/128', 'dev', 'eth0', 'nodad');
    assert.equal(ask('2001:db8:2::3').status, 3);
    assert.equal(ask('2001:db8:2::3', '--duplicate').status, 3);
    assert.equal(ask('2001:db8:2::99', '--duplicate').status, 0);
  } finally {
    await lab.remove();
  }
});

test('announcements move what others know', { skip: NEEDS }, async () => {
  const lab = new NamespaceLab();
  try {
    lab.addHost('client', '10.2.0.1/24', '2001:db8:2::1/64');
    lab.addHost('one', '10.2.0.5/24', '10.2.0.3/32', '2001:db8:2::5/64', '2001:db8:2::3/64');
    lab.addHost('two', '10.2.0.6/24', '2001:db8:2::6/64');
    const macs = { one: linkMac(lab, 'one'), two: linkMac(lab, 'two') };
    const known = (address: string): string => {
      const entries = JSON.parse(lab.run('client', 'ip', '-json', 'neigh', 'show', address));
      return entries[0]?.lladdr;
    };
    for (const address of ['10.2.0.3', '2001:db8:2::3']) lab.try('client', 'ping', '-c1', '-W1', address);
    assert.equal(known('10.2.0.3'), macs.one);

    const refused = lab.try('two', ...dirigo('arp', 'announce', '10.2.0.3'));
    assert.equal(refused.status, 1);
    assert.match(refused.stderr, /^dirigo: this host does not have 10\.2\.0\.3: who believes it/);

    lab.run('one', 'ip', 'addr', 'del', '10.2.0.3/32', 'dev', 'eth0');
    lab.run('two', 'ip', 'addr', 'add', '10.2.0.3/32', 'dev', 'eth0');
    const done = lab.run('two', ...dirigo('arp', 'announce', '10.2.0.3'));
    assert.equal(done, `Announced 5 times on eth0: 10.2.0.3 is at ${macs.two}\n`);
    assert.equal(known('10.2.0.3'), macs.two);
    // Back again, in the form of a reply.
    lab.run('one', ...dirigo('arp', 'announce', '10.2.0.3', '--force', '--reply', '--count', '1'));
    assert.equal(known('10.2.0.3'), macs.one);

    assert.equal(known('2001:db8:2::3'), macs.one);
    lab.run('two', 'ip', 'addr', 'add', '2001:db8:2::3/64', 'dev', 'eth0', 'nodad');
    lab.run('two', ...dirigo('arp', 'announce', '2001:db8:2::3', '--count', '1'));
    assert.equal(known('2001:db8:2::3'), macs.two);

    // A real server has the VIP on lo.
    lab.run('two', 'ip', 'addr', 'add', '10.2.0.4/32', 'dev', 'lo');
    const silent = lab.try('two', ...dirigo('arp', 'announce', '10.2.0.4', '-i', 'eth0'));
    assert.match(silent.stderr, /on lo only, as a real server of direct routing has the VIP/);
  } finally {
    await lab.remove();
  }
});

test('questions that make no sense', { skip: missing('root') }, async () => {
  const lab = new NamespaceLab();
  try {
    lab.addHost('client', '10.2.0.1/24');
    const said = (...words: string[]) => lab.try('client', ...dirigo('arp', 'who-has', ...words)).stderr;
    assert.equal(said('10.2.0.300'), 'dirigo: "10.2.0.300" is no IP address\n');
    assert.equal(said('224.0.0.18'), 'dirigo: 224.0.0.18 is no address that a station has\n');
    assert.match(
      said('192.0.2.9'),
      /^dirigo: 192\.0\.2\.9 is on no segment of this host: name the interface/,
    );
    assert.match(said('10.2.0.5', '-i', 'eth9'), /^dirigo: there is no interface eth9; there are lo, eth0/);
    assert.match(said('10.2.0.5', '-i', 'lo'), /^dirigo: lo has no MAC address/);
  } finally {
    await lab.remove();
  }
});
