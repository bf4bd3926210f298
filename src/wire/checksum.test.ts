import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  applyDifference,
  difference16,
  difference32,
  finish,
  fold,
  sumBytes,
  sumPseudoHeader,
  swap16,
  updateWord,
} from './checksum.ts';

const viewOf = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** The checksum as RFC 1071 section 1 defines it, in network order and without any trick. */
function plainChecksum(bytes: Uint8Array): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) {
    sum += ((bytes[at] as number) << 8) | (bytes[at + 1] ?? 0);
    if (sum > 0xffff) sum -= 0xffff;
  }
  return ~sum & 0xffff;
}

const evenBytes = fc
  .uint8Array({ minLength: 4, maxLength: 200 })
  .map(bytes => bytes.slice(0, bytes.length & ~1));

test('the example of RFC 1071 section 3', () => {
  const bytes = Uint8Array.of(0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7);
  assert.equal(swap16(sumBytes(viewOf(bytes), 0, 8)), 0xddf2);
});

test('sums agree with the plain definition, odd lengths included', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), bytes => {
      assert.equal(swap16(finish(sumBytes(viewOf(bytes), 0, bytes.length))), plainChecksum(bytes));
    }),
  );
});

test('a sum may be taken in parts, and the largest packet of all ones does not overflow', () => {
  fc.assert(
    fc.property(evenBytes, fc.nat(), (bytes, cut) => {
      const view = viewOf(bytes);
      const at = (cut % bytes.length) & ~1;
      const whole = sumBytes(view, 0, bytes.length);
      assert.equal(sumBytes(view, at, bytes.length - at, sumBytes(view, 0, at)), whole);
    }),
  );
  const ones = new Uint8Array(65535).fill(0xff);
  assert.equal(swap16(finish(sumBytes(viewOf(ones), 0, 65535))), plainChecksum(ones));
});

test('the pseudo-header counts addresses, protocol and length', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(4, 16),
      fc.uint8Array({ minLength: 32, maxLength: 32 }),
      fc.nat(255),
      fc.nat(0x1ffff),
      (size, addresses, protocol, length) => {
        const plain = new Uint8Array(2 * size + 8);
        plain.set(addresses.subarray(0, 2 * size));
        viewOf(plain).setUint32(2 * size, length);
        plain[2 * size + 7] = protocol;
        const sum = sumPseudoHeader(viewOf(addresses), 0, size, protocol, length);
        assert.equal(swap16(finish(sum)), plainChecksum(plain));
      },
    ),
  );
});

/** 0 and 0xffff are the same number in one's complement; which one a sum ends at depends on how it was reached. */
const canonical = (checksum: number): number => (checksum === 0xffff ? 0 : checksum);

test('updating one word gives what summing everything again gives', () => {
  fc.assert(
    fc.property(evenBytes, fc.nat(), fc.nat(0xffff), (bytes, index, after) => {
      const view = viewOf(bytes);
      const at = (index % bytes.length) & ~1;
      const checksum = finish(sumBytes(view, 0, bytes.length));
      const before = view.getUint16(at, true);
      view.setUint16(at, after, true);
      const updated = updateWord(checksum, before, after);
      const again = finish(sumBytes(view, 0, bytes.length));
      assert.equal(canonical(updated), canonical(again));
      // RFC 1624 exists because RFC 1141 got this one wrong: only data of nothing but zeros sums to 0xffff.
      if (bytes.some(byte => byte !== 0)) assert.equal(updated, again);
    }),
  );
});

test('the case that RFC 1141 gets wrong (RFC 1624 section 4)', () => {
  assert.equal(updateWord(0xdd2f, 0x5555, 0x3285), 0x0000);
});

test('many changed words can be gathered and applied once', () => {
  const change = fc.record({ at: fc.nat(), wide: fc.boolean(), value: fc.nat(0xffffffff) });
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 40, maxLength: 40 }),
      fc.array(change, { maxLength: 12 }),
      (bytes, changes) => {
        const view = viewOf(bytes);
        const checksum = finish(sumBytes(view, 0, bytes.length));
        let difference = 0;
        for (const { at, wide, value } of changes) {
          const offset = (at % 37) & ~1;
          if (wide) {
            difference += difference32(view.getUint32(offset, true), value);
            view.setUint32(offset, value, true);
          } else {
            difference += difference16(view.getUint16(offset, true), value & 0xffff);
            view.setUint16(offset, value & 0xffff, true);
          }
        }
        const again = finish(sumBytes(view, 0, bytes.length));
        assert.equal(canonical(applyDifference(checksum, difference)), canonical(again));
      },
    ),
  );
});

test('a difference takes signed 32-bit words, as bitwise arithmetic makes them', () => {
  assert.equal(difference32(0x0a000003 | 0, 0xc0a84d05 | 0), difference32(0x0a000003, 0xc0a84d05));
});

test('8000 of the largest differences still fold right', () => {
  let difference = 0;
  for (let count = 0; count < 8000; count++) difference += difference32(0, 0xffffffff);
  assert.equal(canonical(applyDifference(0x1234, difference)), 0x1234);
  assert.equal(fold(0xffffffff), 0xffff);
});
