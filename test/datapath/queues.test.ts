/** Interfaces with several receive queues, and the bounded queues between the program and the director. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { buildBpf } from '../../bpf/build.ts';
import { missing } from '../requirements.ts';
import { DIP, eventually, problemsOf, VIP, XdpLab } from '../xdp-lab.ts';

const skip = missing('root', 'clang', 'ip', 'nsenter', 'ethtool');
const QUEUES = 4;

describe('receive queues', { skip }, () => {
  let xdp: XdpLab;

  before(async () => {
    buildBpf();
    xdp = new XdpLab();
    const { lab } = xdp;
    lab.addHost('client');
    lab.addHost('director', `${DIP}/24`);
    // The director's outer interface has four queues, and so has the client's end, which spreads flows over them.
    const many = ['numrxqueues', String(QUEUES), 'numtxqueues', String(QUEUES)];
    const peer = ['peer', 'name', 'wide0', 'netns', `${lab.prefix}director`, ...many];
    lab.run('client', 'ip', 'link', 'add', 'wide0', ...many, 'type', 'veth', ...peer);
    for (const [host, address] of [
      ['client', '10.1.0.1/24'],
      ['director', '10.1.0.5/24'],
    ] as const) {
      lab.run(host, 'ip', 'addr', 'add', address, 'dev', 'wide0');
      lab.run(host, 'ethtool', '-K', 'wide0', 'gro', 'on', 'tx', 'off');
      lab.run(host, 'ip', 'link', 'set', 'wide0', 'up');
    }
    lab.run('client', 'ip', 'route', 'add', `${VIP}/32`, 'via', '10.1.0.5');
    for (const [name, address] of [
      ['web01', '10.0.0.7'],
      ['web02', '10.0.0.8'],
    ] as const) {
      xdp.addServer(name, address);
    }
  });

  after(() => xdp.remove());

  for (const scheduler of ['rr', 'lblc'] as const) {
    const who = scheduler === 'rr' ? 'the program' : 'the director';
    test(`every flow goes to one server, whichever queue it comes by (${who} schedules)`, async () => {
      const daemon = await xdp.startDaemon(['wide0', 'eth0']);
      try {
        xdp.ipvsadm('-C');
        xdp.ipvsadm(`-A -u ${VIP}:5000 -s ${scheduler}`);
        for (const server of ['10.0.0.7', '10.0.0.8']) xdp.ipvsadm(`-a -u ${VIP}:5000 -r ${server}:5000 -g`);
        await eventually(() => !/0x0|incomplete/i.test(xdp.lab.run('director', 'ip', 'neigh')), 'neighbours');
        const receivers = [await xdp.startReceiver('web01', 5000), await xdp.startReceiver('web02', 5000)];
        const flows = 64;
        const sent = await xdp.send(VIP, 5000, flows, 3200, 2);
        const [web01 = {}, web02 = {}] = await Promise.all(receivers.map(each => each.finish()));
        assert.deepEqual(problemsOf(sent, { web01, web02 }), []);
        const { queues, connections, queueDrops, fastPath } = xdp.status();
        assert.equal(connections, flows);
        assert.equal(
          Object.values(queueDrops).reduce((sum, count) => sum + count, 0),
          0,
        );
        assert.equal(fastPath['no director'], 0);
        const wide = queues.filter(each => each.interface === 'wide0');
        assert.deepEqual(
          wide.map(({ queue }) => queue),
          [0, 1, 2, 3],
        );
        if (scheduler === 'rr') {
          assert.equal(Object.keys(web01).length, flows / 2);
        } else {
          // Flows were spread: the director heard from several queues.
          assert.ok(wide.filter(({ received }) => received > 0).length >= 2, JSON.stringify(wide));
        }
      } finally {
        await xdp.stopDaemon(daemon);
      }
    });
  }

  test('what finds no place in a queue is dropped and counted by reason, and then all goes on', async () => {
    const ring = 64;
    const daemon = await xdp.startDaemon(['wide0', 'eth0'], '--ring', String(ring));
    try {
      // Each datagram is scheduled by itself, by the director: all come up.
      xdp.ipvsadm('-C');
      xdp.ipvsadm(`-A -u ${VIP}:5000 -s lblc -o`);
      xdp.ipvsadm(`-a -u ${VIP}:5000 -r 10.0.0.7:5000 -g`);
      await eventually(() => !/incomplete/i.test(xdp.lab.run('director', 'ip', 'neigh')), 'neighbours');
      const receiver = await xdp.startReceiver('web01', 5000);
      daemon.child.kill('SIGSTOP');
      const first = await xdp.send(VIP, 5000, 8, 4000, 0.5);
      daemon.child.kill('SIGCONT');
      const all = first.flows * first.each;
      const accounted = (): boolean => {
        const { received, queueDrops } = xdp.status();
        return (
          received + (queueDrops['fill ring empty'] ?? 0) + (queueDrops['receive ring full'] ?? 0) === all
        );
      };
      await eventually(accounted, `${all} datagrams are received or counted as dropped`);
      const { received, queueDrops, queues } = xdp.status();
      assert.ok(received >= ring && received <= QUEUES * ring, `${received} received`);
      assert.equal(
        (queueDrops['fill ring empty'] ?? 0) + (queueDrops['receive ring full'] ?? 0),
        all - received,
      );
      assert.equal(
        queues.reduce((sum, { dropped }) => sum + dropped, 0),
        all - received,
      );
      assert.ok(queues.every(({ of }) => of === ring));
      // Nothing is stuck.
      const second = await xdp.send(VIP, 5000, 8, 400, 1);
      const came = Object.values(await receiver.finish()).reduce(
        (sum, flow) => sum + flow.received + flow.repeated,
        0,
      );
      assert.equal(came, received + second.flows * second.each);
      assert.match(xdp.tool('dirigo', 'status'), /queueDrops +(fill ring empty|receive ring full) \d+/);
    } finally {
      daemon.child.kill('SIGCONT');
      await xdp.stopDaemon(daemon);
    }
  });

  test('what no socket takes is counted as such', async () => {
    const daemon = await xdp.startDaemon(['wide0', 'eth0']);
    xdp.ipvsadm('-C');
    xdp.ipvsadm(`-A -u ${VIP}:5000 -s lblc -o`);
    xdp.ipvsadm(`-a -u ${VIP}:5000 -r 10.0.0.7:5000 -g`);
    await xdp.kill(daemon);
    const { flows, each } = await xdp.send(VIP, 5000, 4, 400, 0.5);
    const next = await xdp.startDaemon(['wide0', 'eth0']);
    assert.equal(xdp.status().fastPath['no director'], flows * each);
    await xdp.stopDaemon(next);
  });

  test('frames longer than a page reach the director, and leave it, whole', async () => {
    const { lab } = xdp;
    for (const [host, name] of [
      ['client', 'wide0'],
      ['director', 'wide0'],
      ['director', 'eth0'],
      ['web01', 'eth0'],
      ['lan', 'to-director'],
      ['lan', 'to-web01'],
      ['lan', 'to-client'],
      ['lan', 'br0'],
    ] as const) {
      lab.run(host, 'ip', 'link', 'set', name, 'mtu', '9000');
    }
    const daemon = await xdp.startDaemon(['wide0', 'eth0']);
    try {
      xdp.ipvsadm('-C');
      xdp.ipvsadm(`-A -u ${VIP}:5000 -s lblc -o`);
      xdp.ipvsadm(`-a -u ${VIP}:5000 -r 10.0.0.7:5000 -g`);
      lab.run('client', 'ping', '-c', '1', '-W', '5', '-M', 'do', '-s', '8900', '10.1.0.5');
      const receiver = await xdp.startReceiver('web01', 5000);
      const sent = await xdp.send(VIP, 5000, 4, 40, 1, { bytes: 8900 });
      const web01 = await receiver.finish();
      assert.deepEqual(problemsOf(sent, { web01 }), []);
      assert.equal(xdp.status().received, sent.flows * sent.each);
    } finally {
      await xdp.stopDaemon(daemon);
    }
  });
});
