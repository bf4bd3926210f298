/** What an operator types and what comes back; expected texts are those of iproute2 6.1, procps 4, curl 7.88, iputils. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { expand } from './commands/curl.ts';
import { Host } from './host.ts';
import { HttpServer } from './http-server.ts';
import { Segment } from './segment.ts';
import { Simulation } from './simulation.ts';

function shell() {
  const simulation = new Simulation();
  const segment = new Segment(simulation, 'lan');
  const host = new Host(simulation, 'm01');
  host.addInterface({ name: 'eth0', mac: '00:0c:29:2e:aa:3e', segment, addresses: ['10.0.0.61/24'] });
  host.addInterface({ name: 'eth1', mac: '00:0c:29:2e:aa:48', addresses: ['172.16.1.61/24'] });
  const other = new Host(simulation, 'other');
  other.addInterface({ name: 'eth0', mac: '00:0c:29:00:00:77', segment, addresses: ['10.0.0.77/24'] });
  const run = async (line: string): Promise<string> => {
    const result = await simulation.settle(host.run(line));
    return `${result.stdout}${result.stderr}=> ${result.status}`;
  };
  return { simulation, host, other, run };
}

const REFUSALS: [string, string][] = [
  ['frob', 'bash: frob: command not found\n=> 127'],
  ['ip addr add "10.0.0.3/24', 'bash: unexpected EOF while looking for matching `"\'\n=> 2'],
  ['echo a | cat', "bash: syntax error near unexpected token `|'\n=> 2"],
  ['echo 1 >', "bash: syntax error near unexpected token `newline'\n=> 2"],
  ['ip frob', 'Object "frob" is unknown, try "ip help".\n=> 1'],
  ['ip addr frob', 'Command "frob" is unknown, try "ip address help".\n=> 255'],
  ['ip -br addr', 'Option "-br" is unknown, try "ip -help".\n=> 255'],
  ['ip addr add', 'Not enough information: "dev" argument is required.\n=> 1'],
  ['ip addr add 10.0.0.3/24', 'Not enough information: "dev" argument is required.\n=> 1'],
  ['ip addr add 10.0.0.3/24 dev', 'Command line is not complete. Try option "help"\n=> 255'],
  ['ip addr add 10.0.0.3/24 dev eth9', 'Cannot find device "eth9"\n=> 1'],
  [
    'ip addr add 10.0.0.300/24 dev eth0',
    'Error: any valid prefix is expected rather than "10.0.0.300/24".\n=> 1',
  ],
  [
    'ip addr add 10.0.0.3/33 dev eth0',
    'Error: any valid prefix is expected rather than "10.0.0.3/33".\n=> 1',
  ],
  ['ip addr add 10.0.0.61/24 dev eth0', 'Error: ipv4: Address already assigned.\n=> 2'],
  ['ip addr add ::1/128 dev lo', 'Error: ipv6: address already assigned.\n=> 2'],
  [
    'ip addr add 10.0.0.4/24 dev eth0 bogus',
    'Error: either "local" is duplicate, or "bogus" is a garbage.\n=> 255',
  ],
  [
    'ip addr add 10.0.0.5/24 dev eth0 label eth0:toolongname12345',
    'Error: Attribute failed policy validation.\n=> 2',
  ],
  ['ip addr del 10.0.0.9/24 dev eth0', 'Error: ipv4: Address not found.\n=> 2'],
  ['ip addr show eth9', 'Device "eth9" does not exist.\n=> 1'],
  ['ip addr show eth0 eth1', 'Error: either "dev" is duplicate, or "eth1" is a garbage.\n=> 255'],
  ['ip route add 1.2.3.0/24 via 9.9.9.9', 'Error: Nexthop has invalid gateway.\n=> 2'],
  ['ip route add 5.5.5.1/24 dev eth0', 'Error: Invalid prefix for given prefix length.\n=> 2'],
  ['ip route add 7.7.7.0/24', 'RTNETLINK answers: No such device\n=> 2'],
  ['ip route del 5.5.5.0/24', 'RTNETLINK answers: No such process\n=> 2'],
  ['ip route get 8.8.8.8', 'RTNETLINK answers: Network is unreachable\n=> 2'],
  ['ip neigh add 10.0.0.8 dev eth0', 'Error: No link layer address given.\n=> 2'],
  ['ip neigh add 10.0.0.8 lladdr zz dev eth0', '"zz" is invalid lladdr.\n=> 1'],
  [
    'ip neigh add 10.0.0.8 lladdr 00:0c:29:00:00:01',
    'Device and destination are required arguments.\n=> 255',
  ],
  ['ip neigh del 10.0.0.98 dev eth0', 'RTNETLINK answers: No such file or directory\n=> 2'],
  ['ip link set', 'Not enough information: "dev" argument is required.\n=> 255'],
  ['ip link set eth0 frob', 'Error: either "dev" is duplicate, or "frob" is a garbage.\n=> 255'],
  [
    'sysctl -w net.ipv4.conf.eth9.arp_ignore=1',
    'sysctl: cannot stat /proc/sys/net/ipv4/conf/eth9/arp_ignore: No such file or directory\n=> 1',
  ],
  ['sysctl net.ipv4.foo', 'sysctl: cannot stat /proc/sys/net/ipv4/foo: No such file or directory\n=> 1'],
  ['sysctl -w net.ipv4.conf.eth0.arp_ignore', 'sysctl: command line(0): invalid syntax, continuing...\n=> 1'],
  [
    'sysctl -w net.ipv4.conf.eth0.arp_ignore=x',
    'sysctl: setting key "net.ipv4.conf.eth0.arp_ignore": Invalid argument\n=> 1',
  ],
  [
    'sysctl -w net.ipv4.conf.eth0.arp_ignore=99999999999',
    'sysctl: setting key "net.ipv4.conf.eth0.arp_ignore": Invalid argument\n=> 1',
  ],
  [
    'echo 1 > /proc/sys/net/ipv4/conf/eth9/arp_ignore',
    'bash: /proc/sys/net/ipv4/conf/eth9/arp_ignore: No such file or directory\n=> 1',
  ],
  ['echo x > /proc/sys/net/ipv4/conf/eth0/arp_ignore', 'bash: echo: write error: Invalid argument\n=> 1'],
  ['cat /nope', 'cat: /nope: No such file or directory\n=> 1'],
  ['arp -n 10.0.0.98', '10.0.0.98 (10.0.0.98) -- no entry\n=> 0'],
  ['arp -d 10.0.0.98', 'No ARP entry for 10.0.0.98\n=> 255'],
  ['arp -s 10.0.0.45 zz', 'arp: invalid hardware address\n=> 255'],
  ['arp -n foo', 'foo: Host name lookup failure\n=> 255'],
  ['arp -i eth9 -n', 'arp: in 0 entries no match found.\n=> 0'],
  ['ping', 'ping: usage error: Destination address required\n=> 1'],
  ['ping -c x 10.0.0.1', "ping: invalid argument: 'x'\n=> 1"],
  ['ping -c 1 foo', 'ping: foo: Temporary failure in name resolution\n=> 2'],
  ['ping -c 1 10.0.0.300', 'ping: 10.0.0.300: Temporary failure in name resolution\n=> 2'],
  ['ping -c 1 8.8.8.8', 'ping: connect: Network is unreachable\n=> 2'],
  ['curl', "curl: try 'curl --help' or 'curl --manual' for more information\n=> 2"],
  [
    'curl --frob',
    "curl: option --frob: is unknown\ncurl: try 'curl --help' or 'curl --manual' for more information\n=> 2",
  ],
  ['curl http://nosuch.invalid/', 'curl: (6) Could not resolve host: nosuch.invalid\n=> 6'],
  ['curl ftpx://a', 'curl: (1) Protocol "ftpx" not supported or disabled in libcurl\n=> 1'],
  ['curl 127.0.0.[1-x]', 'curl: (3) bad range in URL position 12:\n127.0.0.[1-x]\n           ^\n=> 3'],
  ['curl -s 127.0.0.1:1', '=> 7'],
  [
    'curl -sS 127.0.0.1:1',
    "curl: (7) Failed to connect to 127.0.0.1 port 1 after 0 ms: Couldn't connect to server\n=> 7",
  ],
  [
    'curl 10.0.0.98',
    "curl: (7) Failed to connect to 10.0.0.98 port 80 after 3000 ms: Couldn't connect to server\n=> 7",
  ],
];

for (const [line, expected] of REFUSALS) {
  test(`refused: ${line}`, async () => {
    assert.equal(await shell().run(line), expected);
  });
}

test('ip addr: primary and secondary addresses, labels, and what goes with a primary one', async () => {
  const { run } = shell();
  assert.equal(await run('ip addr add 10.0.0.3/24 dev eth0 label eth0:0'), '=> 0');
  assert.equal(await run('ip a add 10.0.0.3/32 dev lo'), '=> 0');
  assert.equal(
    await run('ip addr'),
    `\
1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN group default qlen 1000
    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00
    inet 127.0.0.1/8 scope host lo
       valid_lft forever preferred_lft forever
    inet 10.0.0.3/32 scope global lo
       valid_lft forever preferred_lft forever
    inet6 ::1/128 scope host 
       valid_lft forever preferred_lft forever
2: eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc fq_codel state UP group default qlen 1000
    link/ether 00:0c:29:2e:aa:3e brd ff:ff:ff:ff:ff:ff
    inet 10.0.0.61/24 scope global eth0
       valid_lft forever preferred_lft forever
    inet 10.0.0.3/24 scope global secondary eth0:0
       valid_lft forever preferred_lft forever
    inet6 fe80::20c:29ff:fe2e:aa3e/64 scope link 
       valid_lft forever preferred_lft forever
3: eth1: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc fq_codel state UP group default qlen 1000
    link/ether 00:0c:29:2e:aa:48 brd ff:ff:ff:ff:ff:ff
    inet 172.16.1.61/24 scope global eth1
       valid_lft forever preferred_lft forever
    inet6 fe80::20c:29ff:fe2e:aa48/64 scope link 
       valid_lft forever preferred_lft forever
=> 0`,
  );
  assert.equal(await run('ip addr del 10.0.0.61/24 dev eth0'), '=> 0');
  assert.doesNotMatch(await run('ip -4 addr show dev eth0'), /inet/, 'the secondary went with the primary');
  assert.equal(
    await run('ip route'),
    '172.16.1.0/24 dev eth1 proto kernel scope link src 172.16.1.61 \n=> 0',
  );
});

test('ip route: connected, default, get, and deletion', async () => {
  const { run } = shell();
  assert.equal(await run('ip route add default via 10.0.0.254'), '=> 0');
  assert.equal(await run('ip route add default via 10.0.0.254'), 'RTNETLINK answers: File exists\n=> 2');
  assert.equal(
    await run('ip route'),
    `\
default via 10.0.0.254 dev eth0 
10.0.0.0/24 dev eth0 proto kernel scope link src 10.0.0.61 
172.16.1.0/24 dev eth1 proto kernel scope link src 172.16.1.61 
=> 0`,
  );
  assert.equal(
    await run('ip route get 10.0.0.5'),
    '10.0.0.5 dev eth0 src 10.0.0.61 uid 0 \n    cache \n=> 0',
  );
  assert.equal(
    await run('ip route get 8.8.8.8'),
    '8.8.8.8 via 10.0.0.254 dev eth0 src 10.0.0.61 uid 0 \n    cache \n=> 0',
  );
  assert.equal(
    await run('ip route get 10.0.0.61'),
    'local 10.0.0.61 dev lo src 10.0.0.61 uid 0 \n    cache <local> \n=> 0',
  );
  assert.equal(await run('ip r del default'), '=> 0');
  assert.doesNotMatch(await run('ip r s'), /default/);
  assert.match(await run('ip -6 route'), /^fe80::\/64 dev eth0 proto kernel metric 256 pref medium\n/);
});

test('ip neigh and arp show the same table', async () => {
  const { run } = shell();
  assert.equal(await run('arp -n'), '=> 0');
  await run('ping -c 1 10.0.0.77');
  await run('ping -c 1 -W 1 10.0.0.99');
  await run('ip neigh add 10.0.0.254 lladdr 00:50:56:e1:eb:34 dev eth0');
  await run('arp -s 172.16.1.51 00:0c:29:c7:5d:dd');
  assert.equal(
    await run('arp -n'),
    `\
Address                  HWtype  HWaddress           Flags Mask            Iface
10.0.0.77                ether   00:0c:29:00:00:77   C                     eth0
10.0.0.99                        (incomplete)                              eth0
10.0.0.254               ether   00:50:56:e1:eb:34   CM                    eth0
172.16.1.51              ether   00:0c:29:c7:5d:dd   CM                    eth1
=> 0`,
  );
  assert.equal(
    await run('ip neigh'),
    `\
10.0.0.77 dev eth0 lladdr 00:0c:29:00:00:77 REACHABLE 
10.0.0.99 dev eth0 INCOMPLETE 
10.0.0.254 dev eth0 lladdr 00:50:56:e1:eb:34 PERMANENT 
172.16.1.51 dev eth1 lladdr 00:0c:29:c7:5d:dd PERMANENT 
=> 0`,
  );
  assert.equal(await run('ip neigh show dev eth1'), '172.16.1.51 lladdr 00:0c:29:c7:5d:dd PERMANENT \n=> 0');
  await run('ip neigh flush dev eth0');
  assert.match(await run('arp -an'), /^\? \(10\.0\.0\.254\) at 00:50:56:e1:eb:34 \[ether\] PERM on eth0\n/);
});

test('sysctl and /proc/sys are two doors to one value', async () => {
  const { run } = shell();
  assert.equal(await run('sysctl -w net.ipv4.conf.lo.arp_ignore=1'), 'net.ipv4.conf.lo.arp_ignore = 1\n=> 0');
  assert.equal(await run('cat /proc/sys/net/ipv4/conf/lo/arp_ignore'), '1\n=> 0');
  assert.equal(await run('echo 2 >/proc/sys/net/ipv4/conf/all/arp_announce'), '=> 0');
  assert.equal(await run('sysctl -n net.ipv4.conf.all.arp_announce'), '2\n=> 0');
  assert.equal(await run('sysctl -q -w net.ipv4.ip_forward=1'), '=> 0');
  assert.match(
    await run('sysctl -a'),
    /^net\.ipv4\.conf\.all\.arp_announce = 2\n(.*\n)*net\.ipv4\.ip_forward = 1\n/,
  );
});

test('ping prints what iputils prints', async () => {
  const { run } = shell();
  const text = await run('ping -c 2 10.0.0.77');
  assert.match(
    text,
    new RegExp(
      [
        '^PING 10\\.0\\.0\\.77 \\(10\\.0\\.0\\.77\\) 56\\(84\\) bytes of data\\.',
        '64 bytes from 10\\.0\\.0\\.77: icmp_seq=1 ttl=64 time=0\\.\\d{3} ms',
        '64 bytes from 10\\.0\\.0\\.77: icmp_seq=2 ttl=64 time=0\\.\\d{3} ms',
        '',
        '--- 10\\.0\\.0\\.77 ping statistics ---',
        '2 packets transmitted, 2 received, 0% packet loss, time 1000ms',
        'rtt min/avg/max/mdev = (0\\.\\d{3}/){3}0\\.\\d{3} ms',
        '=> 0$',
      ].join('\n'),
    ),
  );
  assert.equal(
    await run('ping -c 3 10.0.0.98'),
    `\
PING 10.0.0.98 (10.0.0.98) 56(84) bytes of data.
From 10.0.0.61 icmp_seq=1 Destination Host Unreachable
From 10.0.0.61 icmp_seq=2 Destination Host Unreachable
From 10.0.0.61 icmp_seq=3 Destination Host Unreachable

--- 10.0.0.98 ping statistics ---
3 packets transmitted, 0 received, +3 errors, 100% packet loss, time 3000ms
pipe 3
=> 1`,
  );
});

test('curl globs, headers, and several pages', async () => {
  const { run, other } = shell();
  new HttpServer(other, { virtualHosts: [{ serverName: 'a', pages: { '/': 'one\n', '/2': 'two\n' } }] });
  assert.equal(await run("curl '10.0.0.[77-77]/{,2}'"), 'one\ntwo\n=> 0');
  assert.match(
    await run('curl -i 10.0.0.77'),
    /^HTTP\/1\.1 200 OK\r\nServer: nginx\r\nDate: .*\r\n\r\none\n=> 0$/s,
  );
  assert.match(await run('curl -I -H "Host: b" 10.0.0.77'), /Content-Length: 4\r\n.*\r\n\r\n=> 0$/s);
  assert.equal(await run('curl -o /dev/null 10.0.0.77'), '=> 0');
  assert.deepEqual(expand('10.0.0.[7-8]'), ['10.0.0.7', '10.0.0.8']);
  assert.deepEqual(expand('http://[2001:db8::3]/'), ['http://[2001:db8::3]/']);
  assert.deepEqual(expand('a[08-10]'), ['a08', 'a09', 'a10']);
});

test('commands can be added to a host, and may take their time', async () => {
  const { run, host, simulation } = shell();
  host.commands.set('ipvsadm', async (on, argv, stdin) => {
    await simulation.sleep(100);
    return { status: 3, stdout: `${on.name} ${argv.join('|')} ${stdin}\n`, stderr: '' };
  });
  assert.equal(await run("ipvsadm -A -t '10.0.0.3:80' # a comment"), 'm01 -A|-t|10.0.0.3:80 \n=> 3');
  assert.equal(simulation.now, 100);
  const piped = await simulation.settle(host.run('cat', 'from a file\n'));
  assert.equal(piped.stdout, 'from a file\n');
});
