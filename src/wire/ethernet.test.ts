import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseMac } from './address.ts';
import {
  BROADCAST_MAC,
  ETHERNET_HEADER,
  EtherType,
  isGroupMac,
  macEquals,
  readEthernet,
  writeEthernet,
} from './ethernet.ts';

test('what is written is read back', () => {
  const source = parseMac('00:0c:29:2e:aa:48') ?? BROADCAST_MAC;
  const bytes = new Uint8Array(20);
  assert.equal(writeEthernet(bytes, 3, BROADCAST_MAC, source, EtherType.ipv6), 3 + ETHERNET_HEADER);
  assert.deepEqual(readEthernet(bytes, 3), {
    destination: 'ff:ff:ff:ff:ff:ff',
    source: '00:0c:29:2e:aa:48',
    etherType: 0x86dd,
  });
  assert.ok(macEquals(bytes, 9, source));
  assert.ok(!macEquals(bytes, 8, source));
});

test('the group bit tells broadcast and multicast from unicast', () => {
  const view = new DataView(Uint8Array.of(0xff, 0x01, 0x00, 0x02, 0x33).buffer);
  assert.deepEqual(
    [0, 1, 2, 3, 4].map(at => isGroupMac(view, at)),
    [true, true, false, false, true],
  );
});
