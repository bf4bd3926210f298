import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseIpv4Address, parseMac } from '../wire/address.ts';
import { ArpOperation, checkArp, readArp } from '../wire/arp.ts';
import { type AddressedInterface, Scope } from './local-addresses.ts';
import { requestFrame, requestSource } from './resolver.ts';
import { ignoresRequest, replyFrame } from './responder.ts';

const ip = (text: string): Uint8Array => parseIpv4Address(text) as Uint8Array;

function card(...texts: string[]): AddressedInterface {
  const addresses = texts.map((text, index) => {
    const [address = '', prefix] = text.split('/');
    const scope = address.startsWith('127.') ? Scope.host : Scope.global;
    return { address: ip(address), prefix: Number(prefix), scope, secondary: index > 0 };
  });
  return { addresses };
}

/** A real server: the VIP on lo, its own address on eth0, another network on eth1. */
const lo = card('127.0.0.1/8', '10.0.0.3/32');
(lo.addresses[1] as { secondary: boolean }).secondary = false;
const eth0 = card('10.0.0.7/24');
const eth1 = card('172.16.1.7/24');
const all = [lo, eth0, eth1];

test('arp_ignore: who keeps silent about which address', () => {
  const cases: [number, string, string, boolean][] = [
    // mode, sender, target, silent on eth0?
    [0, '10.0.0.1', '10.0.0.3', false],
    [0, '10.0.0.1', '172.16.1.7', false],
    [1, '10.0.0.1', '10.0.0.3', true],
    [1, '10.0.0.1', '172.16.1.7', true],
    [1, '10.0.0.1', '10.0.0.7', false],
    [1, '192.168.9.9', '10.0.0.7', false],
    [2, '10.0.0.1', '10.0.0.7', false],
    [2, '192.168.9.9', '10.0.0.7', true],
    [2, '10.0.0.1', '10.0.0.3', true],
    [3, '10.0.0.1', '10.0.0.3', false],
    [3, '10.0.0.1', '127.0.0.1', true],
    [3, '10.0.0.1', '172.16.1.7', false],
    [4, '10.0.0.1', '10.0.0.3', false],
    [8, '10.0.0.1', '10.0.0.7', true],
    [9, '10.0.0.1', '10.0.0.3', false],
  ];
  for (const [mode, sender, target, silent] of cases) {
    const answer = ignoresRequest(mode, eth0, all, ip(sender), ip(target));
    assert.equal(answer, silent, `arp_ignore=${mode}: ${sender} asks for ${target}`);
  }
});

test('arp_announce: the source of a request', () => {
  const local = new Set(['10.0.0.3', '10.0.0.7', '172.16.1.7']);
  const isLocal = (address: Uint8Array): boolean => local.has([...address].join('.'));
  const cases: [number, string | undefined, string, string][] = [
    // mode, source of the waiting packet, target, announced
    [0, '10.0.0.3', '10.0.0.1', '10.0.0.3'],
    [1, '10.0.0.3', '10.0.0.1', '10.0.0.3'],
    [1, '172.16.1.7', '10.0.0.1', '10.0.0.7'],
    [2, '10.0.0.3', '10.0.0.1', '10.0.0.7'],
    [0, '198.51.100.9', '10.0.0.1', '10.0.0.7'],
    [0, undefined, '10.0.0.1', '10.0.0.7'],
    [2, undefined, '192.168.5.5', '10.0.0.7'],
  ];
  for (const [mode, source, target, announced] of cases) {
    const chosen = requestSource(mode, eth0, all, ip(target), source ? ip(source) : undefined, isLocal);
    assert.equal([...chosen].join('.'), announced, `arp_announce=${mode} ${source} -> ${target}`);
  }
});

test('an interface without an address borrows one, but never 127.0.0.1', () => {
  const bare: AddressedInterface = { addresses: [] };
  const chosen = requestSource(2, bare, [lo, bare, eth1], ip('10.0.0.1'), undefined, () => true);
  assert.equal([...chosen].join('.'), '10.0.0.3');
  const none = requestSource(2, bare, [card('127.0.0.1/8'), bare], ip('10.0.0.1'), undefined, () => true);
  assert.equal([...none].join('.'), '0.0.0.0');
});

test('request and reply are 42 bytes and mirror one another', () => {
  const asking = parseMac('00:0c:29:2e:aa:48') as Uint8Array;
  const asked = parseMac('00:0c:29:c7:5d:dd') as Uint8Array;
  const request = requestFrame(asking, ip('172.16.1.61'), ip('172.16.1.51'));
  assert.equal(request.length, 42);
  assert.equal(checkArp(new DataView(request.buffer), 14, 28), 0);
  assert.deepEqual(readArp(replyFrame(request, 14, asked), 14), {
    operation: ArpOperation.reply,
    senderMac: '00:0c:29:c7:5d:dd',
    senderAddress: '172.16.1.51',
    targetMac: '00:0c:29:2e:aa:48',
    targetAddress: '172.16.1.61',
  });
});
