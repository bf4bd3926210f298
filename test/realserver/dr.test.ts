/** Direct routing's real server: nginx behind a real director, silent about the VIP; what is wrong is found. */
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import {
  assertSame,
  CLIENT,
  CLIENT6,
  eventually,
  RealserverLaboratory,
  service,
  skip,
  VIP,
  VIP6,
} from './laboratory.ts';

interface Report {
  ready: boolean;
  findings: { level: string; text: string; remedy: string }[];
}

describe('dirigo realserver --mode dr', { skip }, () => {
  const words = ['--mode', 'dr', '--vip', VIP, '--vip', VIP6, '--interface', 'eth0'];
  let lab: RealserverLaboratory;
  let untouched: string[];

  before(async () => {
    lab = await RealserverLaboratory.open();
    await lab.startNginx('web01');
    await lab.startDirector([service(VIP, 'gate'), service(VIP6, 'gate')]);
    untouched = lab.dump('web01');
  });

  after(() => lab.remove());

  /** What `--check` says, of level and text. */
  function findings(...more: string[]): string[] {
    const { stdout } = lab.realserver('web01', ...words, ...more, '--check', '--json');
    return (JSON.parse(stdout) as Report).findings.map(({ level, text }) => `${level}: ${text}`);
  }

  /** Runs commands on the server, looks, and takes them back. */
  function having(commands: string[], back: string[], look: () => void): void {
    for (const line of commands) lab.run('web01', 'sh', '-c', line);
    try {
      look();
    } finally {
      for (const line of back) lab.run('web01', 'sh', '-c', line);
    }
    assertSame(lab.dump('web01'), untouched, 'the test itself tidies up');
  }

  test('--check says what is missing and changes nothing', () => {
    const { status, stdout } = lab.realserver('web01', ...words, '--check');
    assert.equal(status, 1);
    for (const text of [
      'net.ipv4.conf.all.arp_ignore is 0',
      'net.ipv4.conf.eth0.arp_announce is 0',
      `${VIP} is not on lo`,
      `${VIP6} is not on lo`,
      'not ready for dr',
    ]) {
      assert.ok(stdout.includes(text), text);
    }
    assertSame(lab.dump('web01'), untouched);
  });

  test('made ready, it serves both families, its log shows the clients, and only the director answers ARP', async () => {
    assert.match(lab.mustRealserver('web01', ...words), /ready for dr/);
    for (const [host, client] of [
      [VIP, CLIENT],
      [`[${VIP6}]`, CLIENT6],
    ] as const) {
      await eventually(() => lab.fetch('client', `http://${host}/`).includes('web01'), `a page from ${host}`);
      await eventually(() => lab.accessLog('web01').at(-1)?.startsWith(`${client} `) === true, 'the log');
    }
    const answers = lab.try('client', 'arping', '-c', '3', '-I', 'eth0', VIP).stdout;
    const macs = new Set(answers.match(/\[[0-9A-F:]{17}\]/gi));
    assert.equal(macs.size, 1, answers);
    assert.equal(lab.realserver('web01', ...words, '--check').status, 0);
  });

  test('docs/realserver.md shows what is printed', () => {
    const page = readFileSync(join(import.meta.dirname, '../../docs/realserver.md'), 'utf8');
    const printed = lab
      .mustRealserver('web01', ...words, '--print')
      .split('\n')
      .slice(3)
      .join('\n');
    assert.ok(page.includes(`--interface eth0 --print\n${printed}\`\`\``), printed);
  });

  test('again changes nothing; --undo leaves everything as it was', () => {
    assert.doesNotMatch(lab.mustRealserver('web01', ...words), /^done/m);
    const made = lab.dump('web01');
    lab.mustRealserver('web01', '--undo');
    assertSame(lab.dump('web01'), untouched);
    lab.run('web01', 'sh', '-c', lab.mustRealserver('web01', ...words, '--print'));
    assertSame(lab.dump('web01'), made, 'the printed commands make the same');
    assert.equal(lab.realserver('web01', ...words, '--check').status, 0);
    assert.match(lab.mustRealserver('web01', '--undo'), /nothing to undo/, 'what others made is not undone');
    const back = ['all', 'eth0'].flatMap(device => [
      `net.ipv4.conf.${device}.arp_ignore=0`,
      `net.ipv4.conf.${device}.arp_announce=0`,
    ]);
    lab.run('web01', 'sysctl', '-qw', ...back);
    lab.run('web01', 'ip', 'address', 'delete', `${VIP}/32`, 'dev', 'lo');
    lab.run('web01', 'ip', 'address', 'delete', `${VIP6}/128`, 'dev', 'lo');
    assertSame(lab.dump('web01'), untouched);
  });

  test('--undo of one VIP keeps what another needs; what somebody else changed since is left, and said', () => {
    lab.mustRealserver('web01', ...words);
    lab.mustRealserver('web01', '--mode', 'dr', '--vip', '10.0.0.4', '--interface', 'eth0');
    assert.match(
      lab.mustRealserver('web01', '--undo', '--vip', VIP),
      /undone {3}address 10\.0\.0\.3\/32 on lo/,
    );
    assert.equal(
      lab.realserver('web01', '--mode', 'dr', '--vip', '10.0.0.4', '--interface', 'eth0', '--check').status,
      0,
    );
    lab.run('web01', 'sysctl', '-qw', 'net.ipv4.conf.eth0.arp_announce=1');
    lab.run('web01', 'ip', 'address', 'delete', '10.0.0.4/32', 'dev', 'lo');
    const output = lab.mustRealserver('web01', '--undo');
    assert.match(output, /left {5}net\.ipv4\.conf\.eth0\.arp_announce is 1 now: it was 0, dirigo made it 2/);
    assert.match(output, /gone {5}address 10\.0\.0\.4\/32 on lo/);
    lab.run('web01', 'sysctl', '-qw', 'net.ipv4.conf.eth0.arp_announce=0');
    assertSame(lab.dump('web01'), untouched);
  });

  test('a VIP that answers ARP, a network on lo, a proxy: found, and nothing is made on top of it', () => {
    for (const [command, back, text] of [
      [
        `ip address add ${VIP}/24 dev eth0`,
        `ip address delete ${VIP}/24 dev eth0`,
        `${VIP} is on eth0, which answers`,
      ],
      [`ip address add ${VIP}/24 dev lo`, `ip address delete ${VIP}/24 dev lo`, `${VIP} is on lo with /24`],
      [
        `ip -6 neigh add proxy ${VIP6} dev eth0`,
        `ip -6 neigh delete proxy ${VIP6} dev eth0`,
        `eth0 answers neighbour solicitations for ${VIP6}`,
      ],
    ] as const) {
      having([command], [back], () => {
        assert.ok(
          findings().some(finding => finding.startsWith(`wrong: ${text}`)),
          `${text}: ${findings().join('\n')}`,
        );
        const before = lab.dump('web01');
        const { status, stderr } = lab.realserver('web01', ...words);
        assert.equal(status, 1);
        assert.ok(stderr.includes('nothing was changed') && stderr.includes(text), stderr);
        assertSame(lab.dump('web01'), before);
      });
    }
  });

  test('arp_ignore on lo alone, and an interface that answers beside the right one, are told apart', () => {
    having(['sysctl -qw net.ipv4.conf.lo.arp_ignore=1'], ['sysctl -qw net.ipv4.conf.lo.arp_ignore=0'], () =>
      assert.ok(
        findings().some(text => text.includes('arp_ignore is set on lo, where no ARP request arrives')),
      ),
    );
    const more = ['ip link add eth1 type veth peer name eth2', 'ip link set eth1 up', 'ip link set eth2 up'];
    const silent = [
      'sysctl -qw net.ipv4.conf.eth0.arp_ignore=1',
      'sysctl -qw net.ipv4.conf.eth2.arp_ignore=1',
    ];
    having(
      [...more, ...silent],
      ['ip link delete eth1', 'sysctl -qw net.ipv4.conf.eth0.arp_ignore=0'],
      () => {
        const flux = findings().filter(text => text.includes('ARP flux'));
        assert.equal(flux.length, 1);
        assert.match(flux[0] as string, /missing: eth1 answers ARP requests for the VIP too/);
      },
    );
  });

  test('strict reverse path filtering is loosened only where replies leave by another interface', () => {
    const setting = 'net.ipv4.conf.eth0.rp_filter';
    const strict = `sysctl -qw ${setting}=1`;
    having([strict], [`sysctl -qw ${setting}=0`], () => {
      assert.ok(findings().every(text => !text.includes('rp_filter')));
    });
    const other = [
      'ip link add eth1 type veth peer name eth2',
      'ip address add 10.1.0.7/24 dev eth1',
      'ip link set eth1 up',
      'ip link set eth2 up',
      'ip route add default via 10.1.0.1',
    ];
    having([strict, ...other], ['ip link delete eth1', `sysctl -qw ${setting}=0`], () => {
      assert.ok(findings().some(text => text.includes(`${setting} is 1: packets of clients are dropped`)));
      lab.mustRealserver('web01', ...words);
      assert.equal(lab.run('web01', 'sysctl', '-n', setting).trim(), '2');
      lab.mustRealserver('web01', '--undo');
      assert.equal(lab.run('web01', 'sysctl', '-n', setting).trim(), '1');
    });
  });

  test('after a boot nothing is left to undo', () => {
    lab.mustRealserver('web01', '--mode', 'dr', '--vip', '10.0.0.4', '--interface', 'eth0');
    const folder = lab.environment.DIRIGO_REALSERVER_STATE as string;
    const [name = ''] = readdirSync(folder).filter(each => each.endsWith('.json'));
    const file = join(folder, name);
    const record = readFileSync(file, 'utf8');
    writeFileSync(file, record.replace(/"boot": "[^"]+"/, '"boot": "another"'));
    assert.match(lab.mustRealserver('web01', '--undo'), /nothing to undo/);
    writeFileSync(file, record);
    lab.mustRealserver('web01', '--undo');
    assertSame(lab.dump('web01'), untouched);
  });

  test('a step that fails takes back those before it', () => {
    const tools = join(lab.folder, 'tools');
    mkdirSync(tools);
    // An ip that adds no address of IPv6.
    writeFileSync(
      join(tools, 'ip'),
      `#!/bin/sh\ncase "$*" in *${VIP6}*) echo refused >&2; exit 2; esac\nexec /usr/sbin/ip "$@"\n`,
      {
        mode: 0o755,
      },
    );
    symlinkSync(process.execPath, join(tools, 'node'));
    const path = lab.environment.PATH;
    lab.environment.PATH = `${tools}:${process.env.PATH}`;
    try {
      const { status, stderr } = lab.realserver('web01', ...words);
      assert.equal(status, 1);
      assert.match(stderr, /refused; what was changed before it has been taken back/);
    } finally {
      if (path === undefined) delete lab.environment.PATH;
      else lab.environment.PATH = path;
    }
    assertSame(lab.dump('web01'), untouched);
    assert.match(lab.mustRealserver('web01', '--undo'), /nothing to undo/);
  });

  test('--persist writes a unit and settings that --undo removes', () => {
    const etc = join(lab.folder, 'etc');
    for (const folder of ['systemd/system', 'sysctl.d']) mkdirSync(join(etc, folder), { recursive: true });
    const files = (): string[] => readdirSync(etc, { recursive: true, encoding: 'utf8' }).sort();
    const empty = files();
    lab.environment.DIRIGO_ETC = etc;
    try {
      lab.mustRealserver('web01', ...words, '--persist');
      const written = files().filter(name => !empty.includes(name));
      const unit = written.find(name => /^systemd\/system\/dirigo-realserver-dr-\w+\.service$/.test(name));
      const settings = written.find(name => /^sysctl\.d\/90-dirigo-realserver-dr-\w+\.conf$/.test(name));
      assert.ok(unit && settings, written.join(' '));
      assert.match(readFileSync(join(etc, settings), 'utf8'), /^net\.ipv4\.conf\.all\.arp_ignore = 1$/m);
      const command = /^ExecStart=(.*)$/m.exec(readFileSync(join(etc, unit), 'utf8'))?.[1] ?? '';
      // After a reboot addresses and settings are gone, the unit brings them back, and undo still knows what was before.
      lab.run('web01', 'ip', 'address', 'delete', `${VIP}/32`, 'dev', 'lo');
      lab.run('web01', 'sysctl', '-qw', 'net.ipv4.conf.all.arp_ignore=0');
      const [, ...again] = command.split(' ').slice(1);
      lab.mustRealserver('web01', ...again);
      assert.equal(lab.realserver('web01', ...words, '--check', '--persist').status, 0);
      lab.mustRealserver('web01', '--undo');
      assert.deepEqual(files(), empty);
      assertSame(lab.dump('web01'), untouched);
    } finally {
      delete lab.environment.DIRIGO_ETC;
    }
    const refused = lab.realserver('web01', ...words, '--persist');
    assert.equal(refused.status, 1);
    assert.match(refused.stderr, /this network namespace does not outlive a reboot/);
  });

  test('wrong words are named', () => {
    for (const [line, text] of [
      ['--mode dr', /needs the address of the service: --vip/],
      ['--vip 10.0.0.3', /name the mode/],
      ['--mode dr --vip 10.0.0.300', /--vip 10\.0\.0\.300: not an IP address/],
      ['--mode dr --vip 10.0.0.3:80', /--vip 10\.0\.0\.3:80: not an IP address/],
      ['--mode dr --vip 127.0.0.1', /not an address that a service/],
      ['--mode dr --vip 10.0.0.3 --interface eth7', /there is no interface eth7; there are lo, eth0/],
      ['--mode dr --vip 10.0.0.3 --lip 10.0.0.50', /--lip means nothing with --mode dr/],
      ['--mode nat', /needs the director: --director/],
      ['--mode nat --director 10.9.9.9', /the director 10\.9\.9\.9 cannot be reached/],
      ['--mode fullnat --cgroup x', /Only what comes from them is believed/],
      ['--mode fullnat --lip 0.0.0.0/0 --cgroup x', /would trust everybody/],
      ['--mode fullnat --lip 10.0.0.50/24 --cgroup x', /bits behind the prefix are set/],
      ['--mode fullnat --lip 10.0.0.50', /needs the programs that shall see clients/],
      ['--mode fullnat --lip 10.0.0.50 --cgroup no/such', /--cgroup no\/such: there is no such cgroup/],
      ['--mode tun --vip 10.0.0.3 --tunnel vxlan', /--tunnel vxlan: there are ipip, gue, gre/],
      ['--mode tun --vip 10.0.0.3 --gue-port 0', /--gue-port 0: a port is a number/],
      ['--undo --check', /exclude each other/],
    ] as const) {
      const { status, stderr } = lab.realserver('web01', ...line.split(' '));
      assert.equal(status, 1, line);
      assert.match(stderr, text, line);
    }
    const failed = lab.realserver('web01', '--mode', 'dr', '--vip', 'x', '--check');
    assert.equal(failed.status, 2, 'a check that could not be made');
    assertSame(lab.dump('web01'), untouched);
  });
});
