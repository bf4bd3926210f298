import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Malformed } from './malformed.ts';
import { checkSctp, crc32c, fillSctpChecksum, sctpChecksumIsRight } from './sctp.ts';

const NOTHING_SKIPPED = -4;

test('CRC32c of the check value and of the examples of RFC 3720 appendix B.4', () => {
  const crc = (bytes: Uint8Array): number =>
    crc32c(new DataView(bytes.buffer), 0, bytes.length, NOTHING_SKIPPED);
  assert.equal(crc(Uint8Array.from('123456789', digit => digit.charCodeAt(0))), 0xe3069283);
  assert.equal(crc(new Uint8Array(32)), 0x8a9136aa);
  assert.equal(crc(new Uint8Array(32).fill(0xff)), 0x62a8ab43);
  assert.equal(crc(Uint8Array.from({ length: 32 }, (_, index) => index)), 0x46dd794e);
});

test('a filled checksum is right, and any changed bit makes it wrong', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 16, maxLength: 100 }), fc.nat(), (bytes, bit) => {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
      fillSctpChecksum(view, 0, bytes.length);
      assert.ok(sctpChecksumIsRight(view, 0, bytes.length));
      const at = bit % bytes.length;
      bytes[at] = (bytes[at] as number) ^ (1 << (bit & 7));
      assert.ok(!sctpChecksumIsRight(view, 0, bytes.length));
    }),
  );
});

test('the first chunk must be there and fit', () => {
  const view = new DataView(new ArrayBuffer(32));
  view.setUint16(14, 20);
  for (let length = 0; length < 16; length++)
    assert.equal(checkSctp(view, 0, length), Malformed.sctpTruncated);
  for (let length = 16; length < 32; length++) assert.equal(checkSctp(view, 0, length), Malformed.sctpChunk);
  assert.equal(checkSctp(view, 0, 32), Malformed.none);
  view.setUint16(14, 3);
  assert.equal(checkSctp(view, 0, 32), Malformed.sctpChunk);
});
