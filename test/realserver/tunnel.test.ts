/** The real server's end of tunnels: nginx behind a real director, every kind of tunnel, both families in both. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Forger } from './forger.ts';
import {
  assertSame,
  CLIENT,
  CLIENT6,
  eventually,
  RealserverLaboratory,
  skip,
  VIP,
  VIP6,
} from './laboratory.ts';

const RIP = '10.0.0.7';
const RIP6 = '2001:db8::7';
const GUE_PORT = 6080;

const KINDS = [
  { tunnelType: 'ipip', tunnelChecksum: 'nocsum', port: 8001 },
  { tunnelType: 'gue', tunnelChecksum: 'nocsum', port: 8002 },
  { tunnelType: 'gue', tunnelChecksum: 'csum', port: 8003 },
  { tunnelType: 'gre', tunnelChecksum: 'nocsum', port: 8004 },
  { tunnelType: 'gre', tunnelChecksum: 'csum', port: 8005 },
] as const;
/** Services whose server is reached over IPv6 are at ports this much higher. */
const OVER_IPV6 = 100;

const services = KINDS.flatMap(({ tunnelType, tunnelChecksum, port }) =>
  [RIP, RIP6].flatMap((server, index) =>
    [VIP, VIP6].map(address => {
      const at = port + index * OVER_IPV6;
      return {
        key: { protocol: 'tcp', address, port: at },
        scheduler: 'rr',
        destinations: [
          {
            address: server,
            port: at,
            method: 'tunnel',
            weight: 1,
            tunnelType,
            tunnelChecksum,
            tunnelPort: tunnelType === 'gue' ? GUE_PORT : 0,
          },
        ],
      };
    }),
  ),
);

const ports = [...new Set(services.map(({ key }) => key.port))];

describe('dirigo realserver --mode tun', { skip }, () => {
  const words = [
    '--mode',
    'tun',
    '--vip',
    VIP,
    '--vip',
    VIP6,
    '--interface',
    'eth0',
    '--decapsulation',
    'bpf',
  ];
  // Which of its addresses of IPv6 the director speaks with is its own choice.
  const directors = ['--director', '10.0.0.5', '--director', '2001:db8::/64'];
  let lab: RealserverLaboratory;
  let untouched: string[];

  before(async () => {
    lab = await RealserverLaboratory.open();
    lab.run('web01', 'ip', 'route', 'add', 'default', 'via', '10.0.0.254');
    lab.run('web01', 'ip', 'route', 'add', 'default', 'via', '2001:db8::fe');
    await lab.startNginx(
      'web01',
      ['80', ...ports].map(port => `listen ${port}; listen [::]:${port};`).join(' '),
    );
    await lab.startDirector(services);
    untouched = lab.dump('web01');
  });

  after(() => lab.remove());

  /** Somebody else's filter, of classic BPF, which only classifies. */
  function addFilter(preference: number): void {
    const program = ['bpf', 'bytecode', '1,6 0 0 0', 'classid', '1:1'];
    const place = ['dev', 'eth0', 'ingress', 'pref', String(preference)];
    lab.run('web01', 'tc', 'filter', 'add', ...place, ...program);
  }

  const urls = (path: string): { url: string; client: string; what: string }[] =>
    services.map(({ key: { address, port }, destinations: [destination] }) => ({
      url: `http://${address.includes(':') ? `[${address}]` : address}:${port}${path}`,
      client: address.includes(':') ? CLIENT6 : CLIENT,
      what: `${JSON.stringify(destination)} for ${address}`,
    }));

  test('without it nothing comes out of tunnels', () => {
    const { status, stdout } = lab.realserver('web01', ...words, '--check');
    assert.equal(status, 1);
    assert.match(stdout, /programs of decapsulate\.bpf\.o are not loaded/);
    assert.match(stdout, /nothing takes packets out of tunnels on eth0/);
    assert.match(lab.fetch('client', '-m', '1', urls('/who')[0]?.url as string), /^curl: /);
    assertSame(lab.dump('web01'), untouched);
  });

  test('IPIP, GUE and GRE, both families in both: nginx answers and sees the clients', async () => {
    lab.mustRealserver('web01', ...words, ...directors);
    for (const { url, client, what } of urls('/who')) {
      await eventually(() => lab.fetch('client', '-m', '2', url).startsWith(`${client} `), what);
      await eventually(() => lab.accessLog('web01').at(-1)?.startsWith(`${client} `) === true, 'the log');
    }
    assert.equal(lab.realserver('web01', ...words, ...directors, '--check').status, 0);
  });

  test('large uploads fit, by what the director answers or by the announced segment size', async () => {
    const file = join(lab.folder, 'web01/big');
    const upload = (url: string, ...more: string[]): string =>
      lab.fetch('client', '-m', '10', '--data-binary', `@${file}`, ...more, url);
    for (const { url, client, what } of urls('/who')) {
      assert.ok(upload(url).startsWith(`${client} `), what);
    }
    lab.mustRealserver('web01', ...words, ...directors, '--advmss');
    assert.equal(lab.realserver('web01', ...words, ...directors, '--advmss', '--check').status, 0);
    // A client of another network, itself the gateway, so that replies to it take the default route.
    for (const address of ['172.16.1.1/24', '10.0.0.254/24']) {
      lab.run('client', 'ip', 'address', 'add', address, 'dev', 'eth0');
    }
    const filter = 'src port 8001 and tcp[tcpflags] & tcp-syn != 0';
    const capture = lab.start('client', {}, 'tcpdump', '-c', '1', '-n', '-v', '-i', 'eth0', filter);
    let seen = '';
    capture.stdout?.on('data', text => {
      seen += text;
    });
    await once(capture.stderr as NodeJS.EventEmitter, 'data');
    const answer = upload(`http://${VIP}:8001/who`, '--interface', '172.16.1.1');
    assert.match(answer, /^172\.16\.1\.1 /);
    await eventually(() => /mss 1408\b/.test(seen), `the announced segment size: ${seen}`);
  });

  test('tunnels from others are dropped and counted; without --director they are taken', async () => {
    const forger = new Forger(lab, 'client', 'web01');
    const counted = (): string => lab.mustRealserver('web01', ...words, ...directors, '--check');
    try {
      assert.doesNotMatch(counted(), /no director/);
      forger.sendTunnelled('10.0.0.66', RIP, '10.0.0.99', VIP);
      await eventually(
        () => /1 packets came in tunnels of somebody who is no director/.test(counted()),
        'counted',
      );
      lab.mustRealserver('web01', ...words);
      assert.match(lab.mustRealserver('web01', ...words, '--check'), /whoever can send to this server/);
      forger.sendTunnelled('10.0.0.66', RIP, '10.0.0.99', VIP);
      const asked = (): boolean => lab.run('web01', 'ip', 'neigh', 'show', '10.0.0.99').trim() !== '';
      await eventually(asked, 'the server answers the forged client');
    } finally {
      forger.close();
    }
  });

  test('the printed commands make the same', () => {
    lab.mustRealserver('web01', '--undo');
    assertSame(lab.dump('web01'), untouched);
    lab.mustRealserver('web01', ...words, ...directors);
    const made = normalised(lab.dump('web01'));
    lab.mustRealserver('web01', '--undo');
    const script = lab.mustRealserver('web01', ...words, ...directors, '--print');
    lab.run('web01', 'sh', '-c', script);
    try {
      assertSame(normalised(lab.dump('web01')), made);
      assert.equal(lab.realserver('web01', ...words, ...directors, '--check').status, 0);
      const [first] = urls('/who');
      assert.match(lab.fetch('client', first?.url as string), new RegExp(`^${CLIENT} `));
    } finally {
      const [, directory] = /pinmaps (\S+)/.exec(script) ?? [];
      const back = [
        'tc qdisc delete dev eth0 clsact',
        `rm -r ${directory}; rmdir ${dirname(directory as string)} ${dirname(dirname(directory as string))}`,
        `ip address delete ${VIP}/32 dev lo; ip address delete ${VIP6}/128 dev lo`,
        ...['all', 'eth0'].map(
          device => `sysctl -qw net.ipv4.conf.${device}.arp_ignore=0 net.ipv4.conf.${device}.arp_announce=0`,
        ),
      ];
      lab.run('web01', 'sh', '-c', `${back.join('; ')}; true`);
    }
  });

  test('--undo leaves the host as it was, filters of others included', () => {
    assertSame(lab.dump('web01'), untouched);
    lab.run('web01', 'tc', 'qdisc', 'add', 'dev', 'eth0', 'clsact');
    addFilter(7);
    const withOthers = lab.dump('web01');
    lab.mustRealserver('web01', ...words);
    lab.mustRealserver('web01', '--undo');
    assertSame(lab.dump('web01'), withOthers);
    lab.run('web01', 'tc', 'qdisc', 'delete', 'dev', 'eth0', 'clsact');
    assertSame(lab.dump('web01'), untouched);
  });

  test("another's filter in the same place is not replaced", () => {
    lab.run('web01', 'tc', 'qdisc', 'add', 'dev', 'eth0', 'clsact');
    addFilter(100);
    const before = lab.dump('web01');
    const { status, stderr } = lab.realserver('web01', ...words);
    assert.equal(status, 1);
    assert.match(stderr, /eth0 has a filter of preference 100 already: .*bytecode.*has been taken back/);
    assertSame(lab.dump('web01'), before);
    lab.run('web01', 'tc', 'qdisc', 'delete', 'dev', 'eth0', 'clsact');
    assertSame(lab.dump('web01'), untouched);
  });

  test('the kernel has no tunnel devices here, and that is said', () => {
    const { status, stderr } = lab.realserver('web01', ...words.slice(0, -1), 'device');
    assert.equal(status, 1);
    assert.match(stderr, /this kernel has no devices for ipip, gue, gre: use --decapsulation bpf/);
  });
});

/** Without the numbers and names that differ from load to load. */
function normalised(dump: readonly string[]): string[] {
  return dump
    .filter(line => !/rodata/.test(line))
    .map(line => line.replace(/ id \d+ /, ' ID ').replace(/\bjited\b.*/, ''));
}
