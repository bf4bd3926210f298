/** FULLNAT as DPVS users know it, beside the grammar of ipvsadm 1.31. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NO_NAMES } from './name-files.ts';
import { runIpvsadm } from './run.ts';
import { TableServer } from './table-server.fixture.ts';

function bench() {
  const server = new TableServer();
  return {
    server,
    run: (line: string, input = '') => runIpvsadm(line.split(' '), input, server, NO_NAMES),
  };
}

function succeeds(result: { status: number; stderr: string }): void {
  assert.deepEqual([result.status, result.stderr], [0, '']);
}

test('a FULLNAT service, listed and saved', () => {
  const { server, run } = bench();
  for (const line of [
    '-A -t 10.0.0.3:80 -s rr',
    '-P -t 10.0.0.3:80 -z 10.0.0.50',
    '--add-laddr -t 10.0.0.3:80 --laddr 10.0.0.51 -F eth0',
    '-a -t 10.0.0.3:80 -r 192.168.1.2:8080 -b -w 1',
    '-a -t 10.0.0.3:80 -r 192.168.1.3:8080 --fullnat -x 10 -y 5',
    '-A -u 10.0.0.3:53 -s wlc',
  ]) {
    succeeds(run(line));
  }
  assert.equal(
    run('-L -n').stdout,
    'IP Virtual Server version 1.2.1 (size=4096)\n' +
      'Prot LocalAddress:Port Scheduler Flags\n' +
      '  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n' +
      'TCP  10.0.0.3:80 rr\n' +
      '  -> 192.168.1.2:8080             FullNat 1      0          0         \n' +
      '  -> 192.168.1.3:8080             FullNat 1      0          0         \n' +
      'UDP  10.0.0.3:53 wlc\n',
  );
  const saved =
    '-A -t 10.0.0.3:80 -s rr\n' +
    '-P -t 10.0.0.3:80 -z 10.0.0.50\n' +
    '-P -t 10.0.0.3:80 -z 10.0.0.51 -F eth0\n' +
    '-a -t 10.0.0.3:80 -r 192.168.1.2:8080 -b -w 1\n' +
    '-a -t 10.0.0.3:80 -r 192.168.1.3:8080 -b -w 1 -x 10 -y 5\n' +
    '-A -u 10.0.0.3:53 -s wlc\n';
  assert.equal(run('-S -n').stdout, saved);
  const again = bench();
  succeeds(again.run('-R', saved));
  assert.equal(again.run('-S -n').stdout, saved);
  server.counters = {
    ...server.counters,
    ofLocalAddresses: ({ localAddresses }) =>
      localAddresses.map(({ address, interfaceName }, index) => ({
        address,
        interfaceName,
        connections: index + 3,
        refused: index,
      })),
  };
  const one =
    'VIP:VPORT            TOTAL    SNAT_IP              CONFLICTS  CONNS     \n' +
    '10.0.0.3:80          2        \n' +
    '                              10.0.0.50            0          3         \n' +
    '                              10.0.0.51            1          4         \n';
  assert.equal(run('-G -t 10.0.0.3:80').stdout, one);
  assert.equal(run('--get-laddr').stdout, `${one}10.0.0.3:53          0        \n`);
  assert.equal(bench().run('-G').stdout, '');
});

test('local addresses go, and what is wrong with them is said', () => {
  const { run } = bench();
  const refused = (line: string, status: number, message: string): void => {
    assert.deepEqual(run(line), { status, stdout: '', stderr: `${message}\n` }, line);
  };
  refused('-P -t 10.0.0.3:80 -z 10.0.0.50', 255, 'Service not defined');
  refused('-G -t 10.0.0.3:80', 255, 'No such service');
  succeeds(run('-A -t 10.0.0.3:80'));
  refused('-Q -t 10.0.0.3:80 -z 10.0.0.50', 255, 'No such local address');
  succeeds(run('-P -t 10.0.0.3:80 -z 10.0.0.50'));
  refused('-P -t 10.0.0.3:80 -z 10.0.0.50', 255, 'Local address already exists');
  refused(
    '-P -t 10.0.0.3:80 -z 2001:db8::50',
    255,
    'local address 2001:db8::50 is not of IPv4, as its service is',
  );
  refused('-P -t 10.0.0.3:80 -z 10.0.0.51 -F eth9', 255, 'no interface eth9 for local address 10.0.0.51');
  refused(
    '-P -t 10.0.0.3:80',
    2,
    "You need to supply the 'local-address' option for the 'add-laddr' command",
  );
  refused(
    '-P -z 10.0.0.50',
    2,
    "You need to supply the 'service-address' option for the 'add-laddr' command",
  );
  refused('-P -t 10.0.0.3:80 -z 10.0.0.51 -w 1', 2, "Illegal 'weight' option with the 'add-laddr' command");
  refused('-P -t 10.0.0.3:80 -z 1.2.3.4.5', 2, 'illegal local address');
  succeeds(run('-Q -t 10.0.0.3:80 -z 10.0.0.50'));
  assert.match(run('-G').stdout, /10\.0\.0\.3:80 +0/);
});

test('letters that clash are told apart by the command', () => {
  const { run } = bench();
  succeeds(run('-A -t 10.0.0.3:80 -s sh -b sh-port'));
  assert.match(run('-L -n').stdout, /sh \(sh-port\)/);
  succeeds(run('-at 10.0.0.3:80 -r 10.0.0.7:81 -b'));
  assert.match(run('-S -n').stdout, /-r 10\.0\.0\.7:81 -b -w 1/);
  // As upstream, where an option of this kind needs a value.
  assert.deepEqual(
    [run('-a -t 10.0.0.3:80 -r 10.0.0.8 -b sh-port').status, run('-A -t 10.0.0.4:80 -b').stderr],
    [2, '-b: missing argument\n'],
  );
  assert.equal(
    run('-a -t 10.0.0.3:80 -r 10.0.0.8 -b -g').stderr,
    "multiple 'forwarding-method' options specified\n",
  );
  // With other commands they are as unknown as upstream.
  for (const line of [
    '-L -z 10.0.0.50',
    '-d -t 10.0.0.3:80 -r 10.0.0.7 -j enable',
    '-A -t 10.0.0.4:80 -F eth0',
    '-Z --complete',
  ]) {
    const { status, stderr } = run(line);
    assert.equal(status, 255, line);
    assert.match(stderr, /: unknown option\n$/);
  }
});

test('the SYN proxy is listed as DPVS lists it, saved, kept by an edit, and switched off', () => {
  const { run } = bench();
  assert.equal(run('-A -t 10.0.0.3:80 -j maybe').stderr, 'synproxy switch must be enable or disable\n\n');
  succeeds(run('-A -t 10.0.0.3:80 -s rr -p 60 -j enable'));
  assert.match(run('-L -n').stdout, /^TCP {2}10\.0\.0\.3:80 rr persistent 60 synproxy$/m);
  assert.equal(run('-S -n').stdout, '-A -t 10.0.0.3:80 -s rr -p 60 -j enable\n');
  succeeds(run('-E -t 10.0.0.3:80 -s wrr'));
  assert.equal(run('-S -n').stdout, '-A -t 10.0.0.3:80 -s wrr -j enable\n');
  succeeds(run('-E -t 10.0.0.3:80 -s wrr --synproxy disable'));
  assert.equal(run('-S -n').stdout, '-A -t 10.0.0.3:80 -s wrr\n');
  succeeds(run('-A -f 1 -s rr -j enable'));
  assert.match(run('-L -n').stdout, /^FWM {2}1 rr synproxy$/m);
});

test('the SYN proxy is refused where it cannot work, with a reason', () => {
  const { run } = bench();
  const refused = (line: string, reason: RegExp): void => {
    const { status, stderr } = run(line);
    assert.equal(status, 255, line);
    assert.match(stderr, reason);
  };
  refused('-A -u 10.0.0.3:53 -j enable', /^there are no SYNs in udp: the SYN proxy is for TCP\n$/);
  succeeds(run('-A -t 10.0.0.3:80 -s rr -j enable'));
  refused(
    '-a -t 10.0.0.3:80 -r 10.0.0.7 -g',
    /10\.0\.0\.7:80 cannot stand behind a SYN proxy: with direct routing/,
  );
  refused('-a -t 10.0.0.3:80 -r 10.0.0.7 -i', /with a tunnel its answers do not pass the director/);
  refused('-a -t 10.0.0.3:80 -r 10.0.0.1 -m', /it is the director's own address/);
  succeeds(run('-a -t 10.0.0.3:80 -r 10.0.0.7:8080 -m'));
  succeeds(run('-a -t 10.0.0.3:80 -r 10.0.0.8:8080 -b'));
  refused('-e -t 10.0.0.3:80 -r 10.0.0.7:80 -g', /cannot stand behind a SYN proxy/);
  succeeds(run('-A -t 10.0.0.4:80 -s rr'));
  succeeds(run('-a -t 10.0.0.4:80 -r 10.0.0.7 -g'));
  refused(
    '-E -t 10.0.0.4:80 -s rr -j enable',
    /Use NAT \(-m\) or FULLNAT \(-b\), or switch the SYN proxy off/,
  );
  assert.match(run('-L -n').stdout, /^TCP {2}10\.0\.0\.4:80 rr$/m);
});

test('how servers learn the client', () => {
  const { run } = bench();
  succeeds(run('-A -t 10.0.0.3:80 --client-address proxy-v2'));
  succeeds(run('-E -t 10.0.0.3:80 -s rr'));
  assert.equal(run('-S -n').stdout, '-A -t 10.0.0.3:80 -s rr --client-address proxy-v2\n');
  assert.equal(
    run('-A -t 10.0.0.4:80 --client-address x').stderr,
    'client address must be one of none, toa, proxy-v1, proxy-v2\n',
  );
});

test('a complete save keeps thresholds, a plain one loses them as upstream', () => {
  const { run } = bench();
  succeeds(run('-A -t 10.0.0.3:80 -s rr'));
  succeeds(run('-a -t 10.0.0.3:80 -r 10.0.0.7 -g -x 10 -y 5'));
  assert.match(run('-S -n').stdout, /-g -w 1\n$/);
  assert.match(run('-S -n --complete').stdout, /-g -w 1 -x 10 -y 5\n$/);
});
