import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  ethernetFrame,
  extensionHeader,
  ipv4Packet,
  ipv6Packet,
  tcpSegment,
  udpDatagram,
} from '../../test/frames.ts';
import { Protocol } from '../wire/ipv4.ts';
import { Packet } from '../wire/packet.ts';
import { formatMarkRule, MarkRuleError, MarkRules, parseMarkRule } from './mark-rules.ts';

// The frames go from 10.0.0.1 port 40000 to 10.0.0.3 (2001:db8::1, ::3), TCP to port 80, UDP to 53.
const tcp4 = ethernetFrame(0x0800, ipv4Packet(Protocol.tcp, tcpSegment(4)));
const udp4 = ethernetFrame(0x0800, ipv4Packet(Protocol.udp, udpDatagram(4, new Uint8Array(3))));
const tcp6 = ethernetFrame(0x86dd, ipv6Packet(Protocol.tcp, tcpSegment(6)));
const INTERFACES: Record<string, number> = { eth0: 2, eth1: 3 };

function markOf(frame: Uint8Array, on: number, ...texts: string[]): number {
  const packet = new Packet();
  assert.equal(packet.load(frame), 0);
  return new MarkRules(texts.map(parseMarkRule), name => INTERFACES[name]).markOf(packet, on);
}

test('every condition of a rule is asked', () => {
  assert.equal(markOf(tcp4, 2, 'tcp to 10.0.0.3 port 80-443 mark 1'), 1);
  assert.equal(markOf(udp4, 2, 'tcp to 10.0.0.3 port 1-443 mark 1'), 0);
  assert.equal(markOf(udp4, 2, 'tcp,udp to 10.0.0.3 port 53 mark 3'), 3);
  assert.equal(markOf(tcp4, 2, 'to 10.0.0.2 mark 1'), 0);
  assert.equal(markOf(tcp4, 2, 'to 10.0.0.2/31 mark 1'), 1);
  assert.equal(markOf(tcp4, 2, 'from 10.0.0.0/24 mark 1'), 1);
  assert.equal(markOf(tcp4, 2, 'from 10.1.0.0/16 mark 1'), 0);
  assert.equal(markOf(tcp4, 2, 'sport 40000 mark 0xffffffff'), 0xffffffff);
  assert.equal(markOf(tcp4, 2, 'sport 1-39999 mark 1'), 0);
  assert.equal(markOf(tcp4, 2, 'on eth0 mark 1'), 1);
  assert.equal(markOf(tcp4, 3, 'on eth0 mark 1'), 0);
});

test('a prefix is of one family, a rule without one of both', () => {
  assert.equal(markOf(tcp6, 2, 'to 2001:db8::/32 port 80 mark 6'), 6);
  assert.equal(markOf(tcp6, 2, 'to 0.0.0.0/0 mark 4'), 0);
  assert.equal(markOf(tcp4, 2, 'to ::/0 mark 6'), 0);
  assert.equal(markOf(tcp6, 2, 'tcp port 80 mark 1'), 1);
  assert.equal(markOf(tcp6, 2, 'to 2001:db8::2 mark 1'), 0);
});

test('behind extension headers too', () => {
  const chain = new Uint8Array([...extensionHeader(Protocol.tcp), ...tcpSegment(6)]);
  assert.equal(
    markOf(ethernetFrame(0x86dd, ipv6Packet(Protocol.destinationOptions, chain)), 2, 'tcp port 80 mark 1'),
    1,
  );
});

test('the first rule that matches decides, also for no mark', () => {
  assert.equal(markOf(tcp4, 2, 'udp mark 1', 'tcp mark 2', 'tcp mark 3'), 2);
  assert.equal(markOf(tcp4, 2, 'from 10.0.0.1 mark 0', 'tcp mark 3'), 0);
});

test('rules are written as they are read', () => {
  for (const text of [
    'mark 1',
    'tcp to 10.0.0.3 port 80-443 mark 1',
    'tcp,udp from 192.0.2.0/24 to 10.0.0.0/8 sport 1-1023 port 53 on eth0 mark 4294967295',
    'sctp to 2001:db8::/32 mark 0',
  ]) {
    assert.equal(formatMarkRule(parseMarkRule(text)), text);
  }
});

test('what is wrong with a rule is named', () => {
  const refused: [text: string, reason: RegExp][] = [
    ['tcp to 10.0.0.3', /no mark/],
    ['', /"" stands at the end/],
    ['icmp mark 1', /"icmp" is not part/],
    ['tcp to 10.0.0 mark 1', /"10.0.0" is no address/],
    ['tcp to 10.0.0.0/33 mark 1', /no prefix/],
    ['tcp to 10.0.0.0/8/8 mark 1', /no prefix/],
    ['port 443-80 mark 1', /443-80/],
    ['port 65536 mark 1', /65536/],
    ['mark 4294967296', /no mark/],
    ['mark -1', /no mark/],
    ['tcp mark 1 mark 2', /twice/],
    ['from 10.0.0.0/8 to ::1 mark 1', /different families/],
  ];
  for (const [text, reason] of refused) {
    assert.throws(
      () => parseMarkRule(text),
      (error: Error) => error instanceof MarkRuleError && reason.test(error.message),
      text,
    );
  }
  assert.throws(() => new MarkRules([parseMarkRule('on eth7 mark 1')]), /no interface eth7/);
});
