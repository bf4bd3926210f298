/** FULLNAT's real server: unmodified nginx behind a real director logs the clients, and nobody can forge them. */
import assert from 'node:assert/strict';
import { dirname } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Forger, toa } from './forger.ts';
import {
  assertSame,
  CLIENT,
  CLIENT6,
  eventually,
  LIP,
  LIP6,
  RealserverLaboratory,
  service,
  skip,
  VIP,
  VIP6,
} from './laboratory.ts';

function join(...parts: Uint8Array[]): Uint8Array {
  return Uint8Array.from(parts.flatMap(part => [...part]));
}

/** Without the numbers of programs, and without the pins of links: shells attach programs by their pins. */
function normalised(dump: readonly string[]): string[] {
  return dump.filter(line => !/link_|rodata/.test(line)).map(line => line.replace(/^\d+(?= +cgroup_)/, 'ID'));
}

describe('dirigo realserver --mode fullnat', { skip }, () => {
  let lab: RealserverLaboratory;
  let words: string[];
  let untouched: string[];

  before(async () => {
    lab = await RealserverLaboratory.open();
    words = ['--mode', 'fullnat', '--lip', LIP, '--lip', LIP6, '--cgroup', lab.cgroup];
    await lab.startNginx(
      'web01',
      'listen 80; listen [::]:80 ipv6only=on; listen [::]:81 ipv6only=off; listen 84 deferred;',
    );
    const toa = { clientAddress: 'toa' };
    const at = (port: number, address: string, server: string): object => ({
      key: { protocol: 'tcp', address, port },
      scheduler: 'rr',
      localAddresses: [address.includes(':') ? LIP6 : LIP],
      ...toa,
      destinations: [{ address: server, port, method: 'fullnat', weight: 1 }],
    });
    await lab.startDirector([
      service(VIP, 'fullnat', { localAddresses: [LIP], ...toa }),
      service(VIP6, 'fullnat', { localAddresses: [LIP6], ...toa }),
      at(81, VIP, '10.0.0.7'),
      at(81, VIP6, '2001:db8::7'),
      at(82, VIP, '10.0.0.7'),
      at(83, VIP, '10.0.0.7'),
      at(84, VIP, '10.0.0.7'),
    ]);
    await eventually(() => lab.fetch('client', `http://${VIP}/`).includes('web01'), 'a page by FULLNAT');
    await eventually(() => lab.fetch('client', `http://[${VIP6}]/`).includes('web01'), 'a page by IPv6');
    untouched = lab.dump('web01');
  });

  after(() => lab.remove());

  function macOf(host: string): string {
    const [link] = JSON.parse(lab.run(host, 'ip', '-j', 'link', 'show', 'eth0')) as { address: string }[];
    return link?.address ?? '';
  }

  test('without it the server sees the director, and --check says what is missing', () => {
    assert.match(lab.fetch('client', `http://${VIP}/who`), new RegExp(`^${LIP} `));
    const { status, stdout } = lab.realserver('web01', ...words, '--check');
    assert.equal(status, 1);
    assert.match(stdout, /programs of toa\.bpf\.o are not loaded/);
    assert.match(stdout, /nothing is attached to sock_ops, getpeername4, getpeername6/);
    assertSame(lab.dump('web01'), untouched, 'checking changes nothing');
  });

  test('with it nginx shows the client in its log and in $remote_addr, without being touched', () => {
    lab.mustRealserver('web01', ...words);
    for (const [vip, client, port] of [
      [VIP, CLIENT, '23456'],
      [`[${VIP6}]`, CLIENT6, '23457'],
    ] as const) {
      assert.equal(lab.fetch('client', '--local-port', port, `http://${vip}/who`), `${client} ${port}`);
      assert.equal(lab.accessLog('web01').at(-1), `${client} ${port}`);
    }
    const report = JSON.parse(lab.mustRealserver('web01', ...words, '--check', '--json')) as {
      ready: boolean;
    };
    assert.equal(report.ready, true);
  });

  test('a listener for both families shows IPv4 clients in the mapped form', () => {
    assert.match(lab.fetch('client', `http://${VIP}:81/who`), new RegExp(`^::ffff:${CLIENT} \\d+$`));
    assert.match(lab.fetch('client', `http://[${VIP6}]:81/who`), new RegExp(`^${CLIENT6} \\d+$`));
  });

  test('getpeername() tells the same, and only to programs of the cgroup', async () => {
    const program = (port: number): string =>
      `require('node:net').createServer(peer => peer.end(peer.remoteAddress)).listen(${port}, '10.0.0.7')`;
    lab.startInCgroup('web01', process.execPath, '-e', program(82));
    lab.start('web01', {}, process.execPath, '-e', program(83));
    const ask = (port: number): string => lab.fetch('client', '--http0.9', `http://${VIP}:${port}/`);
    await eventually(() => ask(83) === LIP, 'a program outside of the cgroup sees the director');
    await eventually(() => ask(82) === CLIENT, 'a program in the cgroup sees the client');
  });

  test('handshakes that end otherwise: with data, or by a SYN cookie', () => {
    assert.match(lab.fetch('client', `http://${VIP}:84/who`), new RegExp(`^${CLIENT} `), 'deferred accept');
    const cookies = (): number => {
      const counters = lab.run('web01', 'nstat', '-asz', 'TcpExtSyncookiesRecv');
      return Number(/SyncookiesRecv +(\d+)/.exec(counters)?.[1]);
    };
    const before = lab.run('web01', 'sysctl', '-n', 'net.ipv4.tcp_syncookies').trim();
    const earlier = cookies();
    lab.run('web01', 'sysctl', '-qw', 'net.ipv4.tcp_syncookies=2');
    try {
      for (const [host, client] of [
        [VIP, CLIENT],
        [`[${VIP6}]`, CLIENT6],
      ] as const) {
        assert.match(lab.fetch('client', `http://${host}/who`), new RegExp(`^${client} `), 'SYN cookies');
      }
      assert.equal(cookies() - earlier, 2);
    } finally {
      lab.run('web01', 'sysctl', '-qw', `net.ipv4.tcp_syncookies=${before}`);
    }
  });

  test('who connects directly is shown as who it is', () => {
    assert.match(lab.fetch('client', 'http://10.0.0.7/who'), new RegExp(`^${CLIENT} `));
    assert.match(lab.fetch('client', 'http://[2001:db8::7]/who'), new RegExp(`^${CLIENT6} `));
  });

  test('the option is read in every form, and only from the director', async () => {
    const forger = new Forger(lab, 'client', 'web01');
    const mac = macOf('client');
    const strangers = ['10.0.0.66', '2001:db8::66'];
    for (const address of [...strangers, LIP, LIP6]) {
      lab.run('web01', 'ip', 'neigh', 'replace', address, 'lladdr', mac, 'dev', 'eth0');
    }
    try {
      const nops = Uint8Array.of(1, 1, 1, 1);
      const timestamps = Uint8Array.of(1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0);
      const four = toa(254, '192.0.2.7', 4711);
      const six = toa(254, '2001:db8:7::9', 4712);
      const told4 = '192.0.2.7 4711';
      const told6 = '2001:db8:7::9 4712';
      const cases: [what: string, source: string, options: Uint8Array, expected: string | undefined][] = [
        ['kind 254', LIP, four, told4],
        ['kind 253', LIP, toa(253, '192.0.2.7', 4711), told4],
        ['behind NOPs', LIP, join(nops, four), told4],
        ['behind timestamps', LIP, join(timestamps, four), told4],
        ['in front of timestamps', LIP, join(four, timestamps), told4],
        ['the first of two', LIP, join(four, toa(254, '192.0.2.8', 1)), told4],
        ['behind the end of options', LIP, join(Uint8Array.of(0, 0, 0, 0), four), undefined],
        ['of a wrong length', LIP, Uint8Array.of(254, 12, 1, 2, 192, 0, 2, 7, 0, 0, 0, 0), undefined],
        ['cut off', LIP, join(nops, four.subarray(0, 4)), undefined],
        ['IPv6 at a socket of IPv4', LIP, six, undefined],
        ['none', LIP, new Uint8Array(0), undefined],
        ['IPv6, kind 254', LIP6, six, told6],
        ['IPv6, kind 253', LIP6, toa(253, '2001:db8:7::9', 4712), told6],
        ['IPv4 at a socket of IPv6', LIP6, four, `::ffff:${told4}`],
        ['IPv6, behind everything that fits', LIP6, join(timestamps, nops, nops, six), told6],
        ['from a stranger', '10.0.0.66', four, undefined],
        ['from a stranger, IPv6', '2001:db8::66', six, undefined],
      ];
      for (const [what, source, options, expected] of cases) {
        const server = source.includes(':') ? '2001:db8::7' : '10.0.0.7';
        const shown = await forger.ask(source, server, options, '/who');
        if (expected !== undefined) assert.equal(shown, expected, what);
        else assert.match(shown, new RegExp(`^${source} 4\\d{4}$`), what);
      }
      const check = lab.mustRealserver('web01', ...words, '--check');
      assert.match(check, /2 connections brought a client's address from somewhere that --lip does not name/);
    } finally {
      forger.close();
      for (const address of [...strangers, LIP, LIP6]) {
        lab.try('web01', 'ip', 'neigh', 'delete', address, 'dev', 'eth0');
      }
    }
  });

  test('the printed commands make the same', () => {
    const made = normalised(lab.dump('web01'));
    lab.mustRealserver('web01', '--undo');
    assertSame(lab.dump('web01'), untouched);
    const script = lab.mustRealserver('web01', ...words, '--print');
    lab.run('web01', 'sh', '-c', script);
    try {
      assertSame(normalised(lab.dump('web01')), made);
      assert.equal(lab.realserver('web01', ...words, '--check').status, 0);
      assert.match(lab.fetch('client', `http://${VIP}/who`), new RegExp(`^${CLIENT} `));
    } finally {
      const detach = script
        .split('\n')
        .filter(line => line.startsWith('bpftool cgroup attach'))
        .map(line => line.replace('attach', 'detach').replace(/ multi$/, ''));
      lab.run('web01', 'sh', '-c', detach.join('\n'));
      const [, directory] = /pinmaps (\S+)/.exec(script) ?? [];
      const above = dirname(directory as string);
      lab.run('web01', 'sh', '-c', `rm -r ${directory} && rmdir ${above} ${dirname(above)}`);
    }
  });

  test('--undo leaves the host as it was', () => {
    lab.mustRealserver('web01', ...words);
    const output = lab.mustRealserver('web01', '--undo');
    assert.match(output, /undone {3}programs attached to/);
    assertSame(lab.dump('web01'), untouched);
    assert.match(lab.fetch('client', `http://${VIP}/who`), new RegExp(`^${LIP} `));
    assert.match(lab.mustRealserver('web01', '--undo'), /nothing to undo/);
  });
});
