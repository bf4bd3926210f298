/**
 * What a real Linux answered, recorded between two network namespaces: 10.0.0.7/24 on eth0, 172.16.1.7/24 on eth1, the
 * VIP 10.0.0.3/32 on lo, sysctls on eth0, requests coming in on eth0.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { requestFrame } from '../arp/resolver.ts';
import { parseIpv4Address, parseMac } from '../wire/address.ts';
import { readArp } from '../wire/arp.ts';
import { Host } from './host.ts';
import { Segment } from './segment.ts';
import { Simulation } from './simulation.ts';

const TARGETS = ['10.0.0.7', '10.0.0.3', '172.16.1.7', '127.0.0.1', '10.0.0.99'];

/** arp_ignore, rp_filter, sender, then for each target: answered (y), not (n), not asked (.). */
const ANSWERS: [number, number, string, string][] = [
  [0, 0, '10.0.0.1', 'yyynn'],
  [0, 0, '172.16.1.9', 'yyynn'],
  [0, 0, '192.168.9.9', 'yyynn'],
  [0, 0, '0.0.0.0', 'yyynn'],
  [0, 0, '10.0.0.7', 'nnnnn'],
  [0, 0, '10.0.0.3', 'nnnnn'],
  [1, 0, '10.0.0.1', 'ynnnn'],
  [1, 0, '172.16.1.9', 'ynnnn'],
  [1, 0, '192.168.9.9', 'ynnnn'],
  [1, 0, '0.0.0.0', 'ynnnn'],
  [1, 0, '10.0.0.7', 'nnnnn'],
  [1, 0, '10.0.0.3', 'nnnnn'],
  [2, 0, '10.0.0.1', 'ynnnn'],
  [2, 0, '172.16.1.9', 'nnnnn'],
  [2, 0, '192.168.9.9', 'nnnnn'],
  [2, 0, '0.0.0.0', 'ynnnn'],
  [2, 0, '10.0.0.7', 'nnnnn'],
  [2, 0, '10.0.0.3', 'nnnnn'],
  [3, 0, '10.0.0.1', 'yyynn'],
  [3, 0, '172.16.1.9', 'yyynn'],
  [3, 0, '192.168.9.9', 'yyynn'],
  [3, 0, '0.0.0.0', 'yyynn'],
  [3, 0, '10.0.0.7', 'nnnnn'],
  [3, 0, '10.0.0.3', 'nnnnn'],
  [4, 0, '10.0.0.1', 'yyynn'],
  [4, 0, '172.16.1.9', 'yyynn'],
  [4, 0, '192.168.9.9', 'yyynn'],
  [4, 0, '0.0.0.0', 'yyynn'],
  [4, 0, '10.0.0.7', 'nnnnn'],
  [4, 0, '10.0.0.3', 'nnnnn'],
  [8, 0, '10.0.0.1', 'nnnnn'],
  [8, 0, '172.16.1.9', 'nnnnn'],
  [8, 0, '192.168.9.9', 'nnnnn'],
  [8, 0, '0.0.0.0', 'nnnnn'],
  [8, 0, '10.0.0.7', 'nnnnn'],
  [8, 0, '10.0.0.3', 'nnnnn'],
  [9, 0, '10.0.0.1', 'yyynn'],
  [9, 0, '172.16.1.9', 'yyynn'],
  [9, 0, '192.168.9.9', 'yyynn'],
  [9, 0, '0.0.0.0', 'yyynn'],
  [9, 0, '10.0.0.7', 'nnnnn'],
  [9, 0, '10.0.0.3', 'nnnnn'],
  [0, 1, '10.0.0.1', '.y...'],
  [0, 1, '172.16.1.9', '.n...'],
  [0, 1, '192.168.9.9', '.n...'],
  [0, 2, '10.0.0.1', '.y...'],
  [0, 2, '172.16.1.9', '.y...'],
  [0, 2, '192.168.9.9', '.n...'],
];

/** arp_announce, source of the datagram that waits, sender of the request for 10.0.0.55. */
const ANNOUNCED: [number, string, string][] = [
  [0, '10.0.0.3', '10.0.0.3'],
  [0, '172.16.1.7', '172.16.1.7'],
  [0, '10.0.0.7', '10.0.0.7'],
  [1, '10.0.0.3', '10.0.0.3'],
  [1, '172.16.1.7', '10.0.0.7'],
  [1, '10.0.0.7', '10.0.0.7'],
  [2, '10.0.0.3', '10.0.0.7'],
  [2, '172.16.1.7', '10.0.0.7'],
  [2, '10.0.0.7', '10.0.0.7'],
];

const ip = (text: string): Uint8Array => parseIpv4Address(text) as Uint8Array;

function server() {
  const simulation = new Simulation();
  const segment = new Segment(simulation, 'lan');
  const host = new Host(simulation, 'server');
  host.addInterface({ name: 'eth0', mac: '02:00:00:00:00:07', segment, addresses: ['10.0.0.7/24'] });
  host.addInterface({ name: 'eth1', mac: '02:00:00:00:01:07', addresses: ['172.16.1.7/24'] });
  host.addAddress(host.loopback, ip('10.0.0.3'), 32);
  return { simulation, segment, host };
}

test('the answers to ARP requests are those of the kernel', () => {
  for (const [ignore, filter, sender, answers] of ANSWERS) {
    for (const [index, target] of TARGETS.entries()) {
      if (answers[index] === '.') continue;
      const { simulation, segment, host } = server();
      host.sysctls.write('net/ipv4/conf/eth0/arp_ignore', String(ignore));
      host.sysctls.write('net/ipv4/conf/eth0/rp_filter', String(filter));
      let answer = 'n';
      const port = segment.attach('asker', frame => {
        const arp = readArp(frame, 14);
        if (arp.operation === 2 && arp.senderAddress === target) answer = 'y';
      });
      port.send(requestFrame(parseMac('02:00:00:00:00:01') as Uint8Array, ip(sender), ip(target)));
      simulation.runUntilIdle();
      assert.equal(
        answer,
        answers[index],
        `arp_ignore ${ignore}, rp_filter ${filter}: ${sender} asks for ${target}`,
      );
    }
  }
});

test('the sources of ARP requests are those of the kernel', () => {
  for (const [announce, source, announced] of ANNOUNCED) {
    const { simulation, segment, host } = server();
    host.sysctls.write('net/ipv4/conf/eth0/arp_announce', String(announce));
    const senders: string[] = [];
    segment.attach('listener', frame => {
      if (frame[12] === 8 && frame[13] === 6) senders.push(readArp(frame, 14).senderAddress);
    });
    host.udp.open(0, source).send('10.0.0.55', 9, new Uint8Array(1));
    simulation.runUntilIdle();
    assert.equal(senders[0], announced, `arp_announce ${announce} from ${source}`);
  }
});
