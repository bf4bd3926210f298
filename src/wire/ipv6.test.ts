import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatAddress } from './address.ts';
import { Protocol } from './ipv4.ts';
import {
  checkIpv6,
  extensionHeaderLength,
  IPV6_HEADER,
  Ipv6,
  isExtensionHeader,
  readIpv6,
  writeIpv6,
} from './ipv6.ts';
import { Malformed } from './malformed.ts';

const anyFields = fc.record({
  source: fc.uint8Array({ minLength: 16, maxLength: 16 }),
  destination: fc.uint8Array({ minLength: 16, maxLength: 16 }),
  nextHeader: fc.nat(255),
  payloadLength: fc.nat(60),
  hopLimit: fc.nat(255),
  trafficClass: fc.nat(255),
  flowLabel: fc.nat(0xfffff),
});

test('a written header is accepted and read back, field by field', () => {
  fc.assert(
    fc.property(anyFields, fields => {
      const bytes = new Uint8Array(100);
      const view = new DataView(bytes.buffer);
      assert.equal(writeIpv6(view, bytes, 0, fields), IPV6_HEADER);
      assert.equal(checkIpv6(view, 0, 100), Malformed.none);
      assert.deepEqual(readIpv6(view, bytes, 0), {
        ...fields,
        source: formatAddress(fields.source),
        destination: formatAddress(fields.destination),
      });
    }),
  );
});

test('each way a header can be wrong has its name', () => {
  const bytes = new Uint8Array(48);
  const view = new DataView(bytes.buffer);
  const address = new Uint8Array(16);
  writeIpv6(view, bytes, 0, {
    source: address,
    destination: address,
    nextHeader: 17,
    payloadLength: 8,
    hopLimit: 1,
  });
  for (let length = 0; length < IPV6_HEADER; length++) {
    assert.equal(checkIpv6(view, 0, length), Malformed.ipv6Truncated);
  }
  for (let length = IPV6_HEADER; length < 48; length++) {
    assert.equal(checkIpv6(view, 0, length), Malformed.ipv6PayloadLength);
  }
  assert.equal(checkIpv6(view, 0, 48), Malformed.none);
  view.setUint8(Ipv6.versionClassFlow, 0x45);
  assert.equal(checkIpv6(view, 0, 48), Malformed.ipv6Version);
});

test('extension headers count in 8 bytes, the authentication header in 4, the fragment header not at all', () => {
  const view = new DataView(Uint8Array.of(6, 3, 0, 0).buffer);
  assert.equal(extensionHeaderLength(view, 0, Protocol.hopByHop), 32);
  assert.equal(extensionHeaderLength(view, 0, Protocol.authentication), 20);
  assert.equal(extensionHeaderLength(view, 0, Protocol.fragment), 8);
  assert.deepEqual([0, 6, 17, 43, 44, 50, 51, 58, 59, 60].map(isExtensionHeader), [
    true,
    false,
    false,
    true,
    true,
    false,
    true,
    false,
    false,
    true,
  ]);
});
