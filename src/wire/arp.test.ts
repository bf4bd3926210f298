import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ARP_LENGTH, ArpOperation, checkArp, readArp, writeArp } from './arp.ts';
import { Malformed } from './malformed.ts';

const request = {
  operation: ArpOperation.request,
  senderMac: '00:0c:29:2e:aa:48',
  senderAddress: '172.16.1.61',
  targetMac: '00:00:00:00:00:00',
  targetAddress: '172.16.1.51',
};

function written(): { bytes: Uint8Array; view: DataView } {
  const bytes = new Uint8Array(2 + ARP_LENGTH);
  assert.equal(writeArp(bytes, 2, request), 2 + ARP_LENGTH);
  return { bytes, view: new DataView(bytes.buffer) };
}

test('what is written is read back', () => {
  const { bytes, view } = written();
  assert.equal(checkArp(view, 2, ARP_LENGTH), Malformed.none);
  assert.deepEqual(readArp(bytes, 2), request);
});

test('every shorter packet is truncated', () => {
  const { view } = written();
  for (let length = 0; length < ARP_LENGTH; length++) {
    assert.equal(checkArp(view, 2, length), Malformed.arpTruncated);
  }
});

test('other hardware, protocols, address lengths and operations are unsupported', () => {
  for (const [offset, value] of [
    [1, 6],
    [2, 0x86],
    [4, 8],
    [5, 16],
    [7, 0],
    [7, 3],
  ] as const) {
    const { view } = written();
    view.setUint8(2 + offset, value);
    assert.equal(checkArp(view, 2, ARP_LENGTH), Malformed.arpUnsupported, `byte ${offset}`);
  }
});

test('an address that is none is named', () => {
  const bytes = new Uint8Array(ARP_LENGTH);
  assert.throws(() => writeArp(bytes, 0, { ...request, targetAddress: 'web01' }), /"web01" is not an IPv4/);
  assert.throws(() => writeArp(bytes, 0, { ...request, senderMac: '00:0c' }), /"00:0c" is not a MAC/);
});
