/** Failovers and restarts as they normally happen, with guards that watch: for a test, and for the measurement. */
import { announcementFrame } from '../../src/arp/announcement.ts';
import { virtualRouterMacs } from '../../src/arp/cluster-knowledge.ts';
import { announcement } from '../../src/arp/guard.fixture.ts';
import { parseAddress, parseMac } from '../../src/wire/address.ts';
import {
  addressOf,
  type GuardEventLine,
  type GuardedCluster,
  type HostName,
  sleep,
  VIP,
  VIP6,
} from './cluster.ts';

const REPEATS = 5;

/**
 * Moves the VIPs to and fro between the directors: by their own MACs, by the virtual router's, each time with five
 * announcements as keepalived sends them; in between servers restart, clients ask, and guards restart. One guard runs
 * on each director, one on a client.
 */
export async function failOver(
  cluster: GuardedCluster,
  rounds: number,
): Promise<{ alarms: GuardEventLine[]; moves: number; missed: HostName[] }> {
  const { lab } = cluster;
  const watchers: HostName[] = ['director', 'backup', 'client'];
  const directors = ['--director', cluster.macs.director, '--director', cluster.macs.backup];
  const start = () => Promise.all(watchers.map(host => cluster.guard(host, 'watch', ...directors)));
  let guards = await start();
  const alarms: GuardEventLine[] = [];
  let moves = 0;
  const collect = (): void => {
    for (const guard of guards) {
      alarms.push(...guard.alarms());
      moves += guard.events.filter(({ kind }) => kind === 'address-moved').length;
    }
  };
  let active: HostName = 'director';
  for (let round = 0; round < rounds; round++) {
    const next: HostName = active === 'director' ? 'backup' : 'director';
    lab.run(active, 'ip', 'addr', 'del', `${VIP}/32`, 'dev', 'eth0');
    lab.run(active, 'ip', 'addr', 'del', `${VIP6}/128`, 'dev', 'eth0');
    lab.run(next, 'ip', 'addr', 'add', `${VIP}/32`, 'dev', 'eth0');
    lab.run(next, 'ip', 'addr', 'add', `${VIP6}/128`, 'dev', 'eth0', 'nodad');
    announceAll(cluster, next, round % 3 === 2);
    active = next;
    for (const address of [VIP, VIP6, addressOf('server')]) cluster.visit('client', address);
    if (round % 4 === 1) restart(cluster, 'server');
    if (round % 4 === 3) restart(cluster, next === 'director' ? 'backup' : 'director');
    if (round % 20 === 10) {
      collect();
      await Promise.all(guards.map(guard => guard.stop()));
      guards = await start();
    }
  }
  await sleep(300);
  collect();
  // They were not just asleep.
  cluster.segment('attacker').send(announcement(VIP, cluster.macs.attacker));
  const seen = await Promise.all(guards.map(guard => guard.event('vip-claimed')));
  await Promise.all(guards.map(guard => guard.stop()));
  const missed = watchers.filter((_, index) => !seen[index]);
  return { alarms, moves, missed };
}

/** The new director tells everybody, from its own MAC or from the virtual router's. */
function announceAll(cluster: GuardedCluster, host: HostName, isVirtual: boolean): void {
  const segment = cluster.segment(host);
  const [mac4, mac6] = virtualRouterMacs(51).map(text => parseMac(text) as Uint8Array);
  for (const address of [VIP, VIP6]) {
    const bytes = parseAddress(address) as Uint8Array;
    const virtual = (bytes.length === 4 ? mac4 : mac6) as Uint8Array;
    for (let repeat = 0; repeat < REPEATS; repeat++) {
      if (isVirtual) segment.send(announcementFrame(virtual, bytes, { reply: repeat % 2 === 1 }));
      segment.send(announcementFrame(segment.interface.mac, bytes, { reply: repeat % 2 === 1 }));
    }
  }
}

/** A host's card goes down and comes up again, with everything its kernel says about that. */
function restart(cluster: GuardedCluster, host: HostName): void {
  const { lab } = cluster;
  lab.run(host, 'sysctl', '-qw', 'net.ipv4.conf.all.arp_notify=1', 'net.ipv6.conf.eth0.ndisc_notify=1');
  lab.run(host, 'ip', 'link', 'set', 'eth0', 'down');
  lab.run(host, 'ip', 'link', 'set', 'eth0', 'up');
  const octet = addressOf(host).split('.').at(-1);
  lab.try(host, 'ip', 'addr', 'add', `2001:db8:3::${octet}/64`, 'dev', 'eth0', 'nodad');
}
