/** The data path on interfaces as hosts have them: neighbours that move, VLANs, two interfaces, packets of any size. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { buildBpf } from '../../bpf/build.ts';
import { missing } from '../requirements.ts';
import { type Daemon, DIP, eventually, problemsOf, VIP, XdpLab } from '../xdp-lab.ts';

const skip = missing('root', 'clang', 'ip', 'nsenter', 'ethtool');
const PORT = 5000;
const WEB01 = '10.0.0.7';

describe('real interfaces', { skip }, () => {
  let xdp: XdpLab;

  before(() => {
    buildBpf();
    xdp = new XdpLab();
    xdp.addEnds();
    xdp.addServer('web01', WEB01);
    const { lab } = xdp;
    // A network of its own for the client, behind the director.
    lab.run(
      'client',
      'ip',
      'link',
      'add',
      'wide0',
      'type',
      'veth',
      'peer',
      'name',
      'wide0',
      'netns',
      `${lab.prefix}director`,
    );
    for (const [host, address] of [
      ['client', '10.1.0.1'],
      ['director', '10.1.0.5'],
    ] as const) {
      lab.run(host, 'ip', 'addr', 'add', `${address}/24`, 'dev', 'wide0');
      lab.run(host, 'ip', 'link', 'set', 'wide0', 'up');
    }
    for (const host of ['client', 'director'])
      lab.run(host, 'ethtool', '-K', 'wide0', 'gro', 'on', 'tx', 'off');
    lab.run('web01', 'ip', 'route', 'add', '10.1.0.0/24', 'via', DIP);
  });

  after(() => xdp.remove());

  async function withDaemon(
    interfaces: readonly string[],
    action: (daemon: Daemon) => Promise<void>,
  ): Promise<void> {
    const daemon = await xdp.startDaemon(interfaces);
    try {
      xdp.ipvsadm('-C');
      await action(daemon);
    } finally {
      await xdp.stopDaemon(daemon);
    }
  }

  function serve(address: string, method: string, vip = VIP, protocol = 'u'): void {
    xdp.ipvsadm(`-A -${protocol} ${vip}:${PORT} -s rr`);
    xdp.ipvsadm(`-a -${protocol} ${vip}:${PORT} -r ${address}:${PORT} ${method}`);
  }

  async function resolved(address: string): Promise<void> {
    const known = (): boolean =>
      new RegExp(`^${address} .*lladdr`, 'm').test(xdp.lab.run('director', 'ip', 'neigh'));
    await eventually(known, `the neighbour ${address}`);
  }

  /** Sends datagrams to a VIP and expects every one at the server; the director takes part in at most `up` of them. */
  async function allArrive(vip: string): Promise<{ up: number; sent: number }> {
    const before = xdp.status().received;
    const receiver = await xdp.startReceiver('web01', PORT);
    const sent = await xdp.send(vip, PORT, 8, 400, 1);
    assert.deepEqual(problemsOf(sent, { web01: await receiver.finish() }), []);
    return { up: xdp.status().received - before, sent: sent.flows * sent.each };
  }

  test('a server that changes its MAC address without a word is found again', async () => {
    await withDaemon(['eth0'], async () => {
      const { lab } = xdp;
      serve(WEB01, '-g');
      await resolved(WEB01);
      await allArrive(VIP);
      const before = /lladdr (\S+)/.exec(lab.run('director', 'ip', 'neigh', 'show', WEB01))?.[1];
      // Nobody on the LAN speaks with the director, and the server tells nobody.
      lab.run('web01', 'ip', 'link', 'set', 'eth0', 'address', '02:00:00:00:77:07');
      const found = (): boolean =>
        /02:00:00:00:77:07/.test(lab.run('director', 'ip', 'neigh', 'show', WEB01));
      const begin = performance.now();
      assert.notEqual(before, '02:00:00:00:77:07');
      while (!found()) {
        assert.ok(performance.now() - begin < 30_000, 'not within 30 s');
        await sleep(100);
      }
      await sleep(200);
      const { up } = await allArrive(VIP);
      assert.equal(up, 0, 'by the program, with the new address');
    });
  });

  test('a server behind a bridge of the host is reached, by the director', async () => {
    const { lab } = xdp;
    // The director's eth0 becomes a port of a bridge, which has its addresses then.
    lab.run('director', 'ip', 'link', 'add', 'inner', 'type', 'bridge', 'mcast_snooping', '0');
    lab.run('director', 'ip', 'addr', 'flush', 'dev', 'eth0');
    lab.run('director', 'ip', 'link', 'set', 'eth0', 'master', 'inner');
    lab.run('director', 'ip', 'addr', 'add', `${DIP}/24`, 'dev', 'inner');
    lab.run('director', 'ip', 'link', 'set', 'inner', 'up');
    try {
      await withDaemon(['wide0'], async () => {
        lab.run('client', 'ip', 'route', 'replace', `${VIP}/32`, 'via', '10.1.0.5');
        serve(WEB01, '-g');
        await resolved(WEB01);
        // Native XDP cannot send by a bridge: redirected frames would vanish.
        const { up, sent } = await allArrive(VIP);
        assert.equal(up, sent);
      });
    } finally {
      lab.run('director', 'ip', 'link', 'del', 'inner');
      lab.run('director', 'ip', 'addr', 'add', `${DIP}/24`, 'dev', 'eth0');
      lab.run('director', 'ip', 'addr', 'add', `${VIP}/24`, 'dev', 'eth0');
      lab.run('client', 'ip', 'route', 'del', `${VIP}/32`);
    }
  });

  for (const mtu of [1500, 9000] as const) {
    for (const method of ['-g', '-m'] as const) {
      test(`bulk TCP at an MTU of ${mtu} arrives whole (${method === '-g' ? 'direct routing' : 'NAT'})`, async context => {
        const { lab } = xdp;
        for (const port of ['to-client', 'to-director', 'to-web01', 'br0'])
          lab.run('lan', 'ip', 'link', 'set', port, 'mtu', String(mtu));
        for (const host of ['client', 'director', 'web01'])
          lab.run(host, 'ip', 'link', 'set', 'eth0', 'mtu', String(mtu));
        for (const host of ['client', 'director'])
          lab.run(host, 'ip', 'link', 'set', 'wide0', 'mtu', String(mtu));
        // With direct routing answers go past the director; with NAT the client's network is behind it.
        if (method === '-g') lab.run('client', 'ip', 'route', 'replace', `${VIP}/32`, 'dev', 'eth0');
        else lab.run('client', 'ip', 'route', 'replace', `${VIP}/32`, 'via', '10.1.0.5');
        const server = await xdp.startBulkServer('web01', PORT);
        try {
          await withDaemon(['eth0', 'wide0'], async () => {
            serve(WEB01, method, VIP, 't');
            await resolved(WEB01);
            const bytes = 20_000_000;
            for (const direction of ['up', 'down'] as const) {
              const transfer = await xdp.transfer(direction, VIP, PORT, bytes);
              context.diagnostic(
                `${direction}: ${(transfer.bytes / transfer.seconds / 1e6).toFixed(0)} MB/s`,
              );
              assert.equal(transfer.bytes, bytes);
            }
            const { fastPath, received } = xdp.status();
            // The packets kept their size, and the program forwarded them: about one for each MTU's worth.
            const packets = (method === '-g' ? 1 : 2) * (bytes / mtu);
            assert.ok((fastPath.forwarded as number) > packets, `${fastPath.forwarded} forwarded`);
            assert.equal(fastPath['too big'], 0);
            assert.ok(received < 100, `${received} went to the director`);
          });
        } finally {
          await server.end();
        }
      });
    }
  }
});
