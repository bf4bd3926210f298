import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ethernetFrame, ipv4Packet, ipv6Packet, tcpSegment } from '../../test/frames.ts';
import { EtherType } from '../wire/ethernet.ts';
import { Protocol } from '../wire/ipv4.ts';
import { Packet } from '../wire/packet.ts';
import {
  NO_SCALE,
  packSynOptions,
  SEGMENT_SIZES,
  SynCookies,
  SynOptions,
  segmentSizeOf,
  windowScaleOf,
} from './syn-cookie.ts';

const SECRET = [1, 2, 3, 4, 5, 6, 7, 8];
const MINUTE = 60_000;

function segment(family: 4 | 6, sourcePort = 40000): Packet {
  const bytes = tcpSegment(family, { sourcePort });
  const packet = new Packet();
  packet.load(
    family === 4
      ? ethernetFrame(EtherType.ipv4, ipv4Packet(Protocol.tcp, bytes))
      : ethernetFrame(EtherType.ipv6, ipv6Packet(Protocol.tcp, bytes)),
  );
  return packet;
}

const word = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
const options = fc
  .tuple(fc.nat(70_000), fc.constantFrom(0, 1, 7, 14, NO_SCALE), fc.boolean(), fc.boolean())
  .map(([size, scale, timestamps, sack]) => packSynOptions(size, scale, timestamps, sack));

test('a cookie brings the options back for the rest of its four minutes, and then no more', () => {
  const cookies = new SynCookies(SECRET);
  fc.assert(
    fc.property(
      fc.constantFrom<4 | 6>(4, 6),
      word,
      options,
      fc.nat(400 * MINUTE),
      fc.nat(8 * MINUTE),
      (family, sequence, given, now, age) => {
        const packet = segment(family);
        const cookie = cookies.make(packet, sequence, given, now);
        const count = (time: number): number => Math.floor(time / MINUTE);
        const holds = count(now + age) - count(now) < 4;
        assert.equal(cookies.read(packet, cookie, sequence, now + age), holds ? given : -1);
      },
    ),
  );
});

test('it holds for these ends, this sequence number and this secret only', () => {
  const cookies = new SynCookies(SECRET);
  const packet = segment(4);
  const given = packSynOptions(1460, 7, true, true);
  const cookie = cookies.make(packet, 1000, given, 0);
  assert.equal(cookies.read(packet, cookie, 1000, 0), given);
  assert.equal(cookies.read(packet, cookie, 1001, 0), -1);
  assert.equal(cookies.read(segment(4, 40001), cookie, 1000, 0), -1);
  assert.equal(cookies.read(segment(6), cookie, 1000, 0), -1);
  assert.equal(new SynCookies([...SECRET.slice(0, 7), 9]).read(packet, cookie, 1000, 0), -1);
  assert.equal(new SynCookies([9, ...SECRET.slice(1)]).read(packet, cookie, 1000, 0), -1);
});

test('whoever guesses needs a million attempts', () => {
  const cookies = new SynCookies(SECRET);
  const packet = segment(4);
  let right = 0;
  // Steps through all numbers evenly.
  for (let guess = 0; guess < 4_000_000; guess++) {
    if (cookies.read(packet, Math.imul(guess, 0x9e3779b1), 0, 500 * MINUTE) >= 0) right++;
  }
  // One in 2^14 × 16/10 × 256/4: 1.68 million.
  assert.ok(right <= 12, `${right} of 4 million`);
});

test('options are packed as facts of the protocol: the largest size that is no larger than the client’s', () => {
  for (const size of SEGMENT_SIZES) {
    assert.equal(segmentSizeOf(packSynOptions(size, 0, false, false)), size);
    if (size > 64) assert.ok(segmentSizeOf(packSynOptions(size - 1, 0, false, false)) < size);
  }
  assert.equal(segmentSizeOf(packSynOptions(0, 0, false, false)), 64);
  assert.equal(segmentSizeOf(packSynOptions(65535, 0, false, false)), 4312);
  assert.equal(packSynOptions(1460, 9, true, true), (1 << 21) | (1 << 20) | (9 << 16) | (8 << 12));
  assert.equal(windowScaleOf(packSynOptions(1460, NO_SCALE, false, false)), NO_SCALE);
  assert.equal(packSynOptions(1460, NO_SCALE, true, true) & SynOptions.unused, 0);
});
