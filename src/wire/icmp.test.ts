import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  checkIcmp,
  fillIcmpChecksum,
  ICMP_HEADER,
  IcmpType,
  Icmpv6Type,
  isIcmpv6Error,
  isRelatedError,
  readIcmp,
  writeIcmp,
} from './icmp.ts';
import { Malformed } from './malformed.ts';

test('a written message is accepted and read back', () => {
  const view = new DataView(new ArrayBuffer(60));
  assert.equal(writeIcmp(view, 40, IcmpType.unreachable, 4, 1480), 40 + ICMP_HEADER);
  fillIcmpChecksum(view, 4, 0, 40, 20);
  assert.equal(checkIcmp(view, 4, 0, 40, 20, true), Malformed.none);
  assert.deepEqual(readIcmp(view, 40), { type: 3, code: 4, checksum: view.getUint16(42), rest: 1480 });
});

test('a checksum covers the message, in IPv6 also the addresses', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 48, maxLength: 120 }),
      fc.nat(31),
      fc.nat(7),
      (bytes, addressByte, bit) => {
        const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
        const length = bytes.length - 40;
        fillIcmpChecksum(view, 6, 0, 40, length);
        assert.equal(checkIcmp(view, 6, 0, 40, length, true), Malformed.none);
        const at = 8 + addressByte;
        bytes[at] = (bytes[at] as number) ^ (1 << bit);
        assert.equal(checkIcmp(view, 6, 0, 40, length, true), Malformed.icmpChecksum);
        assert.equal(checkIcmp(view, 6, 0, 40, length, false), Malformed.none);
        fillIcmpChecksum(view, 4, 0, 40, length);
        bytes[at] = (bytes[at] as number) ^ (1 << bit);
        assert.equal(checkIcmp(view, 4, 0, 40, length, true), Malformed.none);
      },
    ),
  );
});

test('every shorter message is truncated', () => {
  const view = new DataView(new ArrayBuffer(60));
  for (let length = 0; length < ICMP_HEADER; length++) {
    assert.equal(checkIcmp(view, 4, 0, 40, length, false), Malformed.icmpTruncated);
  }
});

test('errors are told from questions and answers', () => {
  assert.deepEqual(
    Object.entries(IcmpType)
      .filter(([, type]) => isRelatedError(type))
      .map(([name]) => name),
    ['unreachable', 'sourceQuench', 'timeExceeded'],
  );
  assert.deepEqual(
    Object.entries(Icmpv6Type)
      .filter(([, type]) => isIcmpv6Error(type))
      .map(([name]) => name),
    ['unreachable', 'packetTooBig', 'timeExceeded', 'parameterProblem'],
  );
});
