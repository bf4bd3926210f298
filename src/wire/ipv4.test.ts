import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  checkIpv4,
  decrementTtl,
  fillIpv4Checksum,
  IPV4_DONT_FRAGMENT,
  IPV4_HEADER,
  Ipv4,
  readIpv4,
  writeIpv4,
} from './ipv4.ts';
import { Malformed } from './malformed.ts';

const anyFields = fc.record({
  source: fc.uint8Array({ minLength: 4, maxLength: 4 }),
  destination: fc.uint8Array({ minLength: 4, maxLength: 4 }),
  protocol: fc.nat(255),
  totalLength: fc.integer({ min: 20, max: 100 }),
  ttl: fc.integer({ min: 1, max: 255 }),
  typeOfService: fc.nat(255),
  identification: fc.nat(65535),
  fragment: fc.nat(65535),
});

/** A header with these options (padded with end-of-options), its checksum right, and no payload. */
function withOptions(options: readonly number[]): DataView {
  const length = IPV4_HEADER + Math.ceil(options.length / 4) * 4;
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  const address = Uint8Array.of(10, 0, 0, 3);
  writeIpv4(view, bytes, 0, {
    source: address,
    destination: address,
    protocol: 6,
    totalLength: length,
    ttl: 64,
  });
  view.setUint8(0, 0x40 | (length / 4));
  bytes.set(options, IPV4_HEADER);
  fillIpv4Checksum(view, 0);
  return view;
}

test('a written header is accepted and read back, field by field', () => {
  fc.assert(
    fc.property(anyFields, fields => {
      const bytes = new Uint8Array(100);
      const view = new DataView(bytes.buffer);
      assert.equal(writeIpv4(view, bytes, 0, fields), IPV4_HEADER);
      assert.equal(checkIpv4(view, 0, 100), Malformed.none);
      assert.deepEqual(readIpv4(view, bytes, 0), {
        headerLength: 20,
        typeOfService: fields.typeOfService,
        totalLength: fields.totalLength,
        identification: fields.identification,
        dontFragment: (fields.fragment & IPV4_DONT_FRAGMENT) !== 0,
        moreFragments: (fields.fragment & 0x2000) !== 0,
        fragmentOffset: (fields.fragment & 0x1fff) * 8,
        ttl: fields.ttl,
        protocol: fields.protocol,
        checksum: view.getUint16(Ipv4.checksum),
        source: fields.source.join('.'),
        destination: fields.destination.join('.'),
      });
    }),
  );
});

test('decrementing the TTL keeps the checksum right, down to zero', () => {
  fc.assert(
    fc.property(anyFields, fields => {
      const bytes = new Uint8Array(100);
      const view = new DataView(bytes.buffer);
      writeIpv4(view, bytes, 0, fields);
      for (let ttl = fields.ttl - 1; ttl >= 0; ttl--) {
        decrementTtl(view, 0);
        assert.equal(view.getUint8(Ipv4.ttl), ttl);
        assert.equal(checkIpv4(view, 0, 100), Malformed.none);
        const updated = view.getUint16(Ipv4.checksum);
        fillIpv4Checksum(view, 0);
        assert.equal(updated, view.getUint16(Ipv4.checksum));
      }
    }),
    { numRuns: 30 },
  );
});

test('each way a header can be wrong has its name', () => {
  const cases: [string, number, number, Malformed][] = [
    ['version 5', Ipv4.versionAndLength, 0x55, Malformed.ipv4Version],
    ['header of 16 bytes', Ipv4.versionAndLength, 0x44, Malformed.ipv4HeaderLength],
    ['header longer than the packet', Ipv4.versionAndLength, 0x4f, Malformed.ipv4HeaderLength],
    ['total length beyond the frame', Ipv4.totalLength + 1, 29, Malformed.ipv4TotalLength],
    ['total length below the header', Ipv4.totalLength + 1, 19, Malformed.ipv4TotalLength],
    ['checksum', Ipv4.ttl, 63, Malformed.ipv4Checksum],
  ];
  for (const [name, offset, value, reason] of cases) {
    const view = withOptions([1, 1, 1, 0, 0, 0, 0, 0]);
    assert.equal(checkIpv4(view, 0, 28), Malformed.none);
    view.setUint8(offset, value);
    assert.equal(checkIpv4(view, 0, 28), reason, name);
  }
  for (let length = 0; length < IPV4_HEADER; length++) {
    assert.equal(checkIpv4(withOptions([]), 0, length), Malformed.ipv4Truncated);
  }
});

test('options must stay inside the header', () => {
  const right = [
    [1, 1, 1, 1],
    [0, 9, 0, 0],
    [7, 7, 4, 1, 2, 3, 4, 0],
    [148, 4, 0, 0],
  ];
  const wrong = [
    [1, 1, 1, 7],
    [7, 0, 0, 0],
    [7, 1, 0, 0],
    [7, 5, 0, 0],
    [1, 7, 8, 4, 1, 2, 3, 9],
  ];
  for (const [sort, reason] of [
    [right, Malformed.none],
    [wrong, Malformed.ipv4Options],
  ] as const) {
    for (const options of sort) {
      const view = withOptions(options);
      assert.equal(checkIpv4(view, 0, view.byteLength), reason, options.join(' '));
    }
  }
});
