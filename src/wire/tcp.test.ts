import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Malformed } from './malformed.ts';
import {
  checkFirstTcpFragment,
  checkTcp,
  checkTcpOptions,
  fillTcpChecksum,
  findTcpOption,
  readTcp,
  TCP_HEADER,
  Tcp,
  TcpOption,
  tcpSum,
  writeTcp,
} from './tcp.ts';

const anyFields = fc.record({
  sourcePort: fc.nat(65535),
  destinationPort: fc.nat(65535),
  sequence: fc.nat(0xffffffff),
  acknowledgement: fc.nat(0xffffffff),
  flags: fc.nat(255),
  window: fc.nat(65535),
  options: fc.nat(10).chain(words => fc.uint8Array({ minLength: 4 * words, maxLength: 4 * words })),
});

/** A header that holds these bytes as its options; their number is a multiple of four. */
function withOptions(options: readonly number[]): DataView {
  const bytes = new Uint8Array(TCP_HEADER + options.length);
  const view = new DataView(bytes.buffer);
  writeTcp(view, bytes, 0, {
    sourcePort: 1,
    destinationPort: 2,
    sequence: 0,
    acknowledgement: 0,
    flags: 0,
    window: 0,
    options: Uint8Array.from(options),
  });
  return view;
}

test('a written header is accepted and read back, field by field', () => {
  fc.assert(
    fc.property(anyFields, fields => {
      const bytes = new Uint8Array(80);
      const view = new DataView(bytes.buffer);
      const headerLength = TCP_HEADER + fields.options.length;
      assert.equal(writeTcp(view, bytes, 0, fields), headerLength);
      assert.equal(checkTcp(view, 0, headerLength), Malformed.none);
      const { options, ...rest } = fields;
      assert.deepEqual(readTcp(view, 0), { ...rest, headerLength, checksum: 0, urgent: 0 });
      assert.deepEqual(bytes.slice(TCP_HEADER, headerLength), options);
    }),
  );
});

test('a filled checksum is right in both families, and any changed bit makes it wrong', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(4 as const, 6 as const),
      fc.uint8Array({ minLength: 40 + TCP_HEADER, maxLength: 200 }),
      fc.nat(),
      (family, bytes, bit) => {
        const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
        const at = 40;
        const length = bytes.length - at;
        fillTcpChecksum(view, family, 0, at, length);
        assert.equal(tcpSum(view, family, 0, at, length), 0xffff);
        const spoiled = at + (bit % length);
        bytes[spoiled] = (bytes[spoiled] as number) ^ (1 << (bit & 7));
        assert.notEqual(tcpSum(view, family, 0, at, length), 0xffff);
      },
    ),
  );
});

test('a header that is cut off or does not fit has its name', () => {
  const view = withOptions([1, 1, 1, 1]);
  for (let length = 0; length < TCP_HEADER; length++)
    assert.equal(checkTcp(view, 0, length), Malformed.tcpTruncated);
  for (let length = TCP_HEADER; length < 24; length++)
    assert.equal(checkTcp(view, 0, length), Malformed.tcpHeaderLength);
  assert.equal(checkTcp(view, 0, 24), Malformed.none);
  view.setUint8(Tcp.dataOffset, 0x40);
  assert.equal(checkTcp(view, 0, 24), Malformed.tcpHeaderLength);
});

test('a first fragment needs its flags and a possible data offset, not the whole header', () => {
  const view = withOptions([1, 1, 1, 1]);
  assert.equal(checkFirstTcpFragment(view, 0, 13), Malformed.tcpTruncated);
  assert.equal(checkFirstTcpFragment(view, 0, 16), Malformed.none);
  view.setUint8(Tcp.dataOffset, 0x40);
  assert.equal(checkFirstTcpFragment(view, 0, 16), Malformed.tcpHeaderLength);
});

test('options are found by kind', () => {
  const view = withOptions([2, 4, 5, 180, 1, 3, 3, 7, 4, 2, 0, 8]);
  assert.equal(checkTcpOptions(view, 0), Malformed.none);
  assert.equal(findTcpOption(view, 0, TcpOption.maximumSegmentSize), 20);
  assert.equal(findTcpOption(view, 0, TcpOption.nop), 24);
  assert.equal(findTcpOption(view, 0, TcpOption.windowScale), 25);
  assert.equal(findTcpOption(view, 0, TcpOption.sackPermitted), 28);
  assert.equal(findTcpOption(view, 0, TcpOption.end), 30);
  // Behind the end of options there is padding, whatever it looks like.
  assert.equal(findTcpOption(view, 0, TcpOption.timestamps), -1);
});

test('options that run out of the header are refused and not found', () => {
  for (const options of [
    [1, 1, 1, 8],
    [1, 8, 10, 0],
    [8, 0, 0, 0],
    [8, 1, 0, 0],
    [1, 1, 8, 3],
  ]) {
    const view = withOptions(options);
    assert.equal(checkTcpOptions(view, 0), Malformed.tcpOptions, options.join(' '));
    assert.equal(findTcpOption(view, 0, TcpOption.timestamps), -1, options.join(' '));
  }
});

test('whatever the options hold, a found one lies inside the header', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 40, maxLength: 40 }), fc.nat(20), (options, kind) => {
      const view = withOptions([...options]);
      const found = findTcpOption(view, 0, kind);
      if (found < 0 || kind === TcpOption.end || kind === TcpOption.nop) return;
      assert.ok(found + view.getUint8(found + 1) <= view.byteLength);
    }),
    { numRuns: 1000 },
  );
});
