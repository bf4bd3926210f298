import assert from 'node:assert/strict';
import { SocketAddress } from 'node:net';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  addressBytes,
  familyOf,
  formatAddress,
  formatMac,
  parseAddress,
  parseIpv4Address,
  parseIpv6Address,
  parseMac,
} from './address.ts';

test('every address survives its text', () => {
  for (const length of [4, 16]) {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: length, maxLength: length }), bytes => {
        const text = formatAddress(bytes);
        assert.deepEqual(parseAddress(text), bytes);
        assert.equal(addressBytes(familyOf(text)), length);
      }),
    );
  }
});

test('IPv6 addresses with runs of zeros are compressed as the system prints them', () => {
  const word = fc.constantFrom(0, 0, 0, 1, 0xffff, 0xdb8);
  fc.assert(
    fc.property(fc.array(word, { minLength: 8, maxLength: 8 }), words => {
      const bytes = Uint8Array.from(words.flatMap(value => [value >>> 8, value & 0xff]));
      const long = words.map(value => value.toString(16)).join(':');
      const system = new SocketAddress({ address: long, family: 'ipv6' }).address;
      // inet_ntop still writes the long deprecated `::1.2.3.4` (RFC 4291 2.5.5.1); RFC 5952 does not ask for it.
      if (!system.includes('.')) assert.equal(formatAddress(bytes), system);
      assert.deepEqual(parseIpv6Address(system), bytes);
    }),
  );
});

test('canonical texts', () => {
  const canonical = (text: string): string => formatAddress(parseIpv6Address(text) ?? new Uint8Array(16));
  assert.equal(canonical('2001:DB8:0:0:1:0:0:1'), '2001:db8::1:0:0:1');
  assert.equal(canonical('1:0:2:3:4:5:6:7'), '1:0:2:3:4:5:6:7');
  assert.equal(canonical('1:2:3:4:5:6:7::'), '1:2:3:4:5:6:7:0');
  assert.equal(canonical('::FFFF:10.0.0.3'), '::ffff:10.0.0.3');
  assert.equal(canonical('::'), '::');
});

test('what is no address is refused', () => {
  for (const text of [
    '',
    '10.0.0',
    '10.0.0.256',
    '10.0.0.01',
    '10.0.0.3 ',
    '0x0a.0.0.1',
    '1.2.3.4.5',
    '10.0.0.3\n',
  ]) {
    assert.equal(parseIpv4Address(text), undefined, JSON.stringify(text));
  }
  for (const text of [
    ...['', ':', ':::', '1::2::3', '1:2:3:4:5:6:7', '1:2:3:4:5:6:7:8:9', '1::2:3:4:5:6:7:8', '12345::'],
    ...['::1.2.3', '::1.2.3.256', ':1.2.3.4', '1:2:3:4:5:6:7:1.2.3.4', 'fe80::1%eth0', '::g', ' ::1'],
  ]) {
    assert.equal(parseIpv6Address(text), undefined, JSON.stringify(text));
  }
  for (const text of [
    '',
    '00:50:56:c0:00',
    '00:50:56:c0:00:08:01',
    '0:50:56:c0:0:8',
    '00:50-56:c0:00:08',
    'x',
  ]) {
    assert.equal(parseMac(text), undefined, JSON.stringify(text));
  }
});

test('parsing any text never throws, and what it accepts is canonical after one turn', () => {
  const character = fc.constantFrom(...'0123456789abcdefABF:.-% g');
  fc.assert(
    fc.property(fc.string({ unit: character, maxLength: 45 }), text => {
      parseMac(text);
      const bytes = parseAddress(text);
      if (bytes) assert.deepEqual(parseAddress(formatAddress(bytes)), bytes);
    }),
    { numRuns: 2000 },
  );
});

test('MAC addresses survive their text, with colons or dashes', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 6, maxLength: 6 }), bytes => {
      const text = formatMac(bytes);
      assert.deepEqual(parseMac(text), bytes);
      assert.deepEqual(parseMac(text.replaceAll(':', '-').toUpperCase()), bytes);
    }),
  );
});
