/** NAT's real server: replies pass the director, or --check says which do not. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { assertSame, eventually, RealserverLaboratory, service, skip, VIP, VIP6 } from './laboratory.ts';

/** A client on a network of its own, which reaches the director there. */
const FAR = '172.16.1.1';
const FAR6 = '2001:db8:1::1';
const FAR_VIP = '172.16.1.3';
const FAR_VIP6 = '2001:db8:1::3';

describe('dirigo realserver --mode nat', { skip }, () => {
  const words = ['--mode', 'nat', '--director', '10.0.0.5', '--director', '2001:db8::5'];
  let lab: RealserverLaboratory;
  let untouched: string[];

  before(async () => {
    lab = await RealserverLaboratory.open();
    for (const [host, ...addresses] of [
      ['client', `${FAR}/24`, `${FAR6}/64`],
      ['lb01', '172.16.1.5/24', `${FAR_VIP}/24`, '2001:db8:1::5/64', `${FAR_VIP6}/64`],
    ] as const) {
      for (const address of addresses) {
        const nodad = address.includes(':') ? ['nodad'] : [];
        lab.run(host, 'ip', 'address', 'add', address, 'dev', 'eth0', ...nodad);
      }
    }
    lab.run('lb01', 'sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1');
    // The gateway that the server has for everything else.
    lab.run('web01', 'ip', 'route', 'add', 'default', 'via', '10.0.0.254');
    lab.run('web01', 'ip', 'route', 'add', 'default', 'via', '2001:db8::fe');
    await lab.startNginx('web01');
    const to = (address: string, server: string): object => ({
      ...service(address, 'masq'),
      destinations: [{ address: server, port: 80, method: 'masq', weight: 1 }],
    });
    await lab.startDirector([
      to(FAR_VIP, '10.0.0.7'),
      to(FAR_VIP6, '2001:db8::7'),
      to(VIP, '10.0.0.7'),
      to(VIP6, '2001:db8::7'),
    ]);
    untouched = lab.dump('web01');
  });

  after(() => lab.remove());

  function findings(...more: string[]): string[] {
    const { stdout } = lab.realserver('web01', ...words, ...more, '--check', '--json');
    const { findings } = JSON.parse(stdout) as { findings: { level: string; text: string }[] };
    return findings.map(({ level, text }) => `${level}: ${text}`);
  }

  test('without it replies go elsewhere and no page comes', () => {
    const { status, stdout } = lab.realserver('web01', ...words, '--check');
    assert.equal(status, 1);
    assert.match(
      stdout,
      /there is no route "default via 10\.0\.0\.5 dev eth0": replies do not pass the director/,
    );
    assert.match(stdout, /an ICMP redirect may lead replies around the director/);
    assert.match(lab.fetch('client', '-m', '1', `http://${FAR_VIP}/who`), /^curl: /);
    assertSame(lab.dump('web01'), untouched);
  });

  test('with it pages come, and nginx sees the clients', async () => {
    lab.mustRealserver('web01', ...words);
    for (const [host, client] of [
      [FAR_VIP, FAR],
      [`[${FAR_VIP6}]`, FAR6],
    ] as const) {
      const url = `http://${host}/who`;
      await eventually(() => lab.fetch('client', '-m', '2', url).startsWith(`${client} `), url);
      await eventually(() => lab.accessLog('web01').at(-1)?.startsWith(`${client} `) === true, 'the log');
    }
    assert.equal(lab.realserver('web01', ...words, '--check').status, 0);
  });

  test('clients on the same network bypass the director: said, and mended on request', async () => {
    const near = findings('--client', '10.0.0.1');
    assert.ok(
      near.some(text => text.startsWith("warning: clients on this host's own network (as 10.0.0.6)")),
    );
    assert.ok(
      near.includes(
        'wrong: replies from 10.0.0.7 to 10.0.0.1 go straight by eth0, not by the director 10.0.0.5',
      ),
      near.join('\n'),
    );
    assert.match(lab.fetch('client', '-m', '1', '--interface', '10.0.0.1', `http://${VIP}/who`), /^curl: /);
    const more = ['--clients-on-lan', '--client', '10.0.0.1', '--client', '2001:db8::1'];
    lab.mustRealserver('web01', ...words, ...more);
    for (const [from, url] of [
      ['10.0.0.1', `http://${VIP}/who`],
      ['2001:db8::1', `http://[${VIP6}]/who`],
    ] as const) {
      const fetch = (): string => lab.fetch('client', '-m', '2', '--interface', from, url);
      await eventually(() => fetch().startsWith(`${from} `), url);
    }
    assert.deepEqual(
      findings(...more).filter(text => !text.includes('another default route')),
      [],
    );
  });

  test('rules, several next hops, and routes to somewhere else are found', () => {
    const having = (command: string, back: string, look: () => void): void => {
      lab.run('web01', 'sh', '-c', command);
      try {
        look();
      } finally {
        lab.run('web01', 'sh', '-c', back);
      }
    };
    having(
      'ip rule add from 10.0.0.7 lookup 77; ip route add default via 10.0.0.254 table 77',
      'ip rule del from 10.0.0.7; ip route flush table 77',
      () => {
        assert.ok(
          findings().includes(
            'wrong: replies from 10.0.0.7 to 198.51.100.1 go by 10.0.0.254 on eth0, not by the director 10.0.0.5',
          ),
        );
        assert.ok(
          findings().some(text => text.includes('the rule "') && text.includes('from 10.0.0.7 lookup 77')),
        );
      },
    );
    having('ip route add 192.0.2.0/24 via 10.0.0.254', 'ip route del 192.0.2.0/24', () => {
      assert.ok(
        findings().some(text => text.includes('clients behind the route "192.0.2.0/24 via 10.0.0.254')),
      );
    });
    having(
      'ip route replace default nexthop via 10.0.0.5 nexthop via 10.0.0.254',
      'ip route replace default via 10.0.0.5 dev eth0',
      () =>
        assert.ok(findings().some(text => text.includes('wrong: the default route has several next hops'))),
    );
    having(`ip address add ${VIP}/32 dev lo`, `ip address delete ${VIP}/32 dev lo`, () => {
      assert.ok(
        findings('--vip', VIP).includes(`wrong: ${VIP} is on lo: in this mode only the director has the VIP`),
      );
    });
  });

  test('--undo brings the old gateway back; the printed commands make the same', () => {
    lab.mustRealserver('web01', '--undo');
    assertSame(lab.dump('web01'), untouched);
    lab.mustRealserver('web01', ...words, '--clients-on-lan');
    const made = lab.dump('web01');
    const script = lab.mustRealserver('web01', ...words, '--clients-on-lan', '--print');
    lab.mustRealserver('web01', '--undo');
    lab.run('web01', 'sh', '-c', script);
    assertSame(lab.dump('web01'), made);
  });
});
