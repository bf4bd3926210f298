import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Malformed } from './malformed.ts';
import { checkFirstUdpFragment, checkUdp, fillUdpChecksum, readUdp, Udp, udpSum, writeUdp } from './udp.ts';

test('a written header is accepted and read back', () => {
  const view = new DataView(new ArrayBuffer(20));
  assert.equal(writeUdp(view, 0, 40000, 53, 20), 8);
  assert.equal(checkUdp(view, 0, 20), Malformed.none);
  assert.deepEqual(readUdp(view, 0), { sourcePort: 40000, destinationPort: 53, length: 20, checksum: 0 });
});

test('a header that is cut off or whose length does not fit has its name', () => {
  const view = new DataView(new ArrayBuffer(20));
  writeUdp(view, 0, 40000, 53, 20);
  for (let length = 0; length < 8; length++) assert.equal(checkUdp(view, 0, length), Malformed.udpTruncated);
  for (let length = 8; length < 20; length++) assert.equal(checkUdp(view, 0, length), Malformed.udpLength);
  for (let length = 8; length < 20; length++)
    assert.equal(checkFirstUdpFragment(view, 0, length), Malformed.none);
  view.setUint16(Udp.length, 7);
  assert.equal(checkUdp(view, 0, 20), Malformed.udpLength);
  assert.equal(checkFirstUdpFragment(view, 0, 20), Malformed.udpLength);
  assert.equal(checkFirstUdpFragment(view, 0, 7), Malformed.udpTruncated);
});

test('a filled checksum is right in both families and never 0', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(4 as const, 6 as const),
      fc.uint8Array({ minLength: 48, maxLength: 150 }),
      (family, bytes) => {
        const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
        fillUdpChecksum(view, family, 0, 40, bytes.length - 40);
        assert.notEqual(view.getUint16(40 + Udp.checksum), 0);
        assert.equal(udpSum(view, family, 0, 40, bytes.length - 40), 0xffff);
      },
    ),
  );
});

test('a checksum that comes out as 0 is sent as all ones', () => {
  const bytes = new Uint8Array(30);
  const view = new DataView(bytes.buffer);
  writeUdp(view, 20, 0, 0, 10);
  // Pseudo-header and header sum to 17 + 10 + 10: this word fills it up to 0xffff.
  view.setUint16(28, 0xffff - 37);
  fillUdpChecksum(view, 4, 0, 20, 10);
  assert.equal(view.getUint16(20 + Udp.checksum), 0xffff);
});
