import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  ethernetFrame,
  extensionHeader,
  fragmentHeader,
  ipv4Packet,
  ipv6Packet,
  sampleFrames,
  tcpSegment,
  udpDatagram,
} from '../../test/frames.ts';
import { goldenExists, goldenJson, goldenNames } from '../../test/golden.ts';
import { EtherType } from './ethernet.ts';
import { checkIcmp } from './icmp.ts';
import { checkIpv4, fillIpv4Checksum, Protocol } from './ipv4.ts';
import { MALFORMED_NAMES, Malformed } from './malformed.ts';
import { HEADROOM, Packet } from './packet.ts';
import { sctpChecksumIsRight } from './sctp.ts';
import { tcpSum } from './tcp.ts';
import { Udp, udpSum } from './udp.ts';

const samples = sampleFrames();
const packet = new Packet();
const reasonOf = (reason: Malformed): string => MALFORMED_NAMES[reason] ?? `unnamed ${reason}`;

/** What holds after every parse, accepted or refused: nothing points outside the frame. */
function assertSound(at: Packet, refused: Malformed): void {
  assert.ok(MALFORMED_NAMES[refused], `a reason without a name: ${refused}`);
  assert.ok(0 <= at.start && at.start <= at.end && at.end <= at.bytes.length, 'frame');
  assert.ok(at.start <= at.network && at.network <= at.end + 4, 'network');
  if (refused !== Malformed.none) return;
  if (at.family === 0) {
    assert.equal(at.protocol, 0);
    assert.equal(at.sourcePort + at.destinationPort + at.tcpFlags, 0);
    assert.equal(at.isFragment, false);
    return;
  }
  assert.ok(at.network < at.transport, 'transport');
  assert.ok(at.transport <= at.networkEnd && at.networkEnd <= at.end, 'end of the IP packet');
  assert.equal(at.isFragment, at.moreFragments || at.fragmentOffset > 0);
  assert.ok(at.source.length > 0 && at.destination.length > 0);
}

/** Whether the transport checksum is right; undefined where there is none to check. */
function transportChecksumIsRight(of: Packet): boolean | undefined {
  if (of.family === 0 || of.isFragment) return undefined;
  const { view, family, network, transport } = of;
  const length = of.networkEnd - transport;
  switch (of.protocol) {
    case Protocol.tcp:
      return tcpSum(view, family, network, transport, length) === 0xffff;
    case Protocol.udp: {
      if (view.getUint16(transport + Udp.checksum) === 0) return undefined;
      return udpSum(view, family, network, transport, view.getUint16(transport + Udp.length)) === 0xffff;
    }
    case Protocol.sctp:
      return sctpChecksumIsRight(view, transport, length);
    case Protocol.icmp:
    case Protocol.icmpv6:
      return checkIcmp(view, family, network, transport, length, true) === Malformed.none;
    default:
      return undefined;
  }
}

test('frames of every kind parse, with right checksums', () => {
  for (const { name, frame } of samples) {
    const refused = packet.load(frame);
    assert.equal(reasonOf(refused), 'none', name);
    assertSound(packet, refused);
    assert.notEqual(transportChecksumIsRight(packet), false, name);
    assert.deepEqual(packet.copy(), frame, name);
  }
});

test('the fields of some of them', () => {
  const fieldsOf = (name: string): unknown[] => {
    const sample = samples.find(each => each.name === name);
    assert.ok(sample, name);
    packet.load(sample.frame);
    return [
      ...[packet.etherType, packet.tags, packet.family, packet.protocol],
      ...[packet.sourcePort, packet.destinationPort, packet.tcpFlags],
      ...[packet.isFragment, packet.fragmentOffset, packet.moreFragments],
      ...[packet.network - HEADROOM, packet.transport - HEADROOM, packet.fragmentHeader],
    ];
  };
  const h = HEADROOM;
  assert.deepEqual(fieldsOf('vlan in vlan'), [0x800, 2, 4, 17, 40000, 53, 0, false, 0, false, 22, 42, -1]);
  assert.deepEqual(fieldsOf('tcp6 SYN with options'), [
    ...[0x86dd, 0, 6, 6, 40000, 80, 2],
    ...[false, 0, false, 14, 54, -1],
  ]);
  assert.deepEqual(fieldsOf('udp6 behind three extension headers'), [
    ...[0x86dd, 0, 6, 17, 40000, 53, 0],
    ...[false, 0, false, 14, 86, -1],
  ]);
  assert.deepEqual(fieldsOf('first fragment'), [0x800, 0, 4, 17, 40000, 53, 0, true, 0, true, 14, 34, -1]);
  assert.deepEqual(fieldsOf('last fragment, IPv6, in a vlan'), [
    ...[0x86dd, 1, 6, 17, 0, 0, 0],
    ...[true, 24, false, 18, 66, 58 + h],
  ]);
  assert.deepEqual(fieldsOf('atomic fragment, IPv6'), [
    ...[0x86dd, 0, 6, 6, 40000, 80, 2],
    ...[false, 0, false, 14, 62, 54 + h],
  ]);
  assert.deepEqual(fieldsOf('arp request'), [0x806, 0, 0, 0, 0, 0, 0, false, 0, false, 14, 0, -1]);
});

test('nothing of a frame shows through in the next one', () => {
  const fields = (of: Packet): unknown => {
    const { bytes, view, ...rest } = of;
    return rest;
  };
  for (const before of samples) {
    for (const { name, frame } of samples) {
      const fresh = new Packet();
      fresh.load(frame);
      packet.load(before.frame);
      packet.load(frame);
      assert.deepEqual(fields(packet), fields(fresh), `${name} after ${before.name}`);
    }
    packet.load(before.frame);
    packet.load(new Uint8Array(5));
    assert.equal(packet.family + packet.sourcePort + packet.etherType + packet.tcpFlags, 0);
  }
});

test('every frame cut short is refused by a name, at every length', () => {
  for (const { name, frame } of samples) {
    packet.load(frame);
    const needed = packet.family === 0 ? 42 : packet.networkEnd - packet.start;
    for (let length = 0; length < frame.length; length++) {
      const refused = packet.load(frame.subarray(0, length));
      assertSound(packet, refused);
      if (length < needed) assert.notEqual(refused, Malformed.none, `${name} cut to ${length}`);
      else assert.equal(reasonOf(refused), 'none', `${name}: only padding was cut at ${length}`);
    }
  }
});

test('a packet behind a buffer full of old bytes is not read past its end', () => {
  // The same cut, but the rest of the frame still lies behind it in the buffer.
  for (const { name, frame } of samples) {
    packet.load(frame);
    const needed = packet.family === 0 ? 42 : packet.networkEnd - packet.start;
    for (let length = 0; length < needed; length++) {
      assert.notEqual(packet.parse(HEADROOM, length), Malformed.none, `${name} cut to ${length}`);
    }
  }
});

test('random bytes never throw', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), bytes => {
      assertSound(packet, packet.load(bytes));
      packet.bytes.set(bytes, HEADROOM);
      assertSound(packet, packet.parseNetwork(HEADROOM, bytes.length));
    }),
    { numRuns: 5000 },
  );
});

/** A frame with some bytes changed, some cut out, and its IPv4 header checksum put right so that more gets through. */
const spoiled = fc
  .record({
    sample: fc.constantFrom(...samples),
    changes: fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 6 }),
    cut: fc.option(fc.nat(), { freq: 3 }),
    repair: fc.boolean(),
  })
  .map(({ sample, changes, cut, repair }) => {
    const whole = sample.frame.slice();
    for (const [at, value] of changes) whole[at % whole.length] = value;
    const frame = cut === null ? whole : whole.subarray(0, cut % (whole.length + 1));
    return { name: sample.name, frame, repair };
  });

test('spoiled frames never throw and leave a sound cursor', () => {
  fc.assert(
    fc.property(spoiled, ({ frame, repair }) => {
      packet.load(frame);
      if (repair && packet.etherType === EtherType.ipv4) {
        const at = packet.network;
        const header = (packet.view.getUint8(at) & 0x0f) << 2;
        packet.view.setUint16(at + 10, 0);
        let sum = 0;
        for (let offset = 0; offset < header; offset += 2) sum += packet.view.getUint16(at + offset);
        packet.view.setUint16(at + 10, ~((sum & 0xffff) + (sum >>> 16)) & 0xffff);
      }
      assertSound(packet, packet.parse(HEADROOM, frame.length));
      const inner = Math.min(packet.network, packet.end);
      assertSound(packet, packet.parseNetwork(inner, packet.end - inner));
    }),
    { numRuns: 20_000 },
  );
});

test('the short way for plain TCP finds what the long way finds', () => {
  const segment = tcpSegment(4, { flags: 0x18, options: Uint8Array.of(1, 1, 1, 1) }, Uint8Array.of(1, 2, 3));
  const good = ipv4Packet(Protocol.tcp, segment);
  const short = new Packet();
  const long = new Packet();
  let plain = 0;
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 3 }),
      fc.boolean(),
      fc.integer({ min: 0, max: good.length + 6 }),
      (spoiled, rightChecksum, length) => {
        const packet = new Uint8Array(Math.max(length, 1));
        packet.set(good.subarray(0, packet.length));
        for (const [at, value] of spoiled) if (at < packet.length) packet[at] = value;
        if (rightChecksum && packet.length >= 20) {
          const view = new DataView(packet.buffer);
          if (((packet[0] as number) & 15) * 4 <= packet.length) fillIpv4Checksum(view, 0);
        }
        // A tag sends the same packet the long way.
        const reason = short.load(ethernetFrame(EtherType.ipv4, packet));
        assert.equal(long.load(ethernetFrame(EtherType.ipv4, packet, [7])), reason);
        if (reason !== Malformed.none) return;
        plain++;
        const fields = ({ network, ...rest }: Packet) => [
          rest.networkEnd - network,
          rest.transport - network,
          rest.family,
          rest.protocol,
          rest.fragmentHeader,
          rest.isFragment,
          rest.fragmentOffset,
          rest.moreFragments,
          rest.sourcePort,
          rest.destinationPort,
          rest.tcpFlags,
          rest.etherType,
        ];
        assert.deepEqual(fields(short), fields(long));
      },
    ),
    { numRuns: 5000 },
  );
  assert.ok(plain > 500, `only ${plain} frames parsed`);
});

test('a frame that does not lie inside the buffer is refused, not read', () => {
  const small = new Packet(1024);
  for (const [start, length] of [
    [0, 1025],
    [1000, 100],
    [-1, 60],
    [60, -1],
    [Number.NaN, 60],
  ] as const) {
    assert.equal(small.parse(start, length), Malformed.frameTooLong);
    assert.equal(small.parseNetwork(start, length), Malformed.frameTooLong);
    assert.equal(small.length, 0);
  }
  assert.equal(small.load(new Uint8Array(1024 - 2 * HEADROOM + 1)), Malformed.frameTooLong);
  assert.equal(small.load(new Uint8Array(1024 - 2 * HEADROOM)), Malformed.none);
});

test('what lies about itself is refused by name', () => {
  const { ipv4, ipv6 } = EtherType;
  const data = new Uint8Array(16);
  const udp6 = udpDatagram(6, data);
  const joined = (...parts: Uint8Array[]): Uint8Array => Uint8Array.from(parts.flatMap(part => [...part]));
  const endless = joined(...Array.from({ length: 9 }, () => extensionHeader(Protocol.destinationOptions)));
  const cases: [string, Uint8Array, Malformed][] = [
    ['five VLAN tags', ethernetFrame(ipv4, data, [1, 2, 3, 4, 5]), Malformed.vlanTruncated],
    ['a VLAN tag cut off', ethernetFrame(0x8100, Uint8Array.of(0, 1)), Malformed.vlanTruncated],
    [
      'a fragment of 13 bytes with more to come',
      ethernetFrame(ipv4, ipv4Packet(17, data.subarray(3), { fragment: 0x2000 })),
      Malformed.fragmentLength,
    ],
    [
      'a fragment of nothing',
      ethernetFrame(ipv4, ipv4Packet(17, data.subarray(16), { fragment: 0x2000 })),
      Malformed.fragmentLength,
    ],
    [
      'a fragment that ends behind 65535 bytes',
      ethernetFrame(ipv4, ipv4Packet(17, data, { fragment: 0x1fff })),
      Malformed.fragmentLength,
    ],
    [
      'a first fragment without the TCP flags',
      ethernetFrame(ipv4, ipv4Packet(6, tcpSegment(4).subarray(0, 8), { fragment: 0x2000 })),
      Malformed.tcpTruncated,
    ],
    [
      'a first fragment with a TCP header of no length',
      ethernetFrame(ipv4, ipv4Packet(6, data, { fragment: 0x2000 })),
      Malformed.tcpHeaderLength,
    ],
    [
      'a fragment header behind a fragment header',
      ethernetFrame(
        ipv6,
        ipv6Packet(
          Protocol.fragment,
          joined(fragmentHeader(Protocol.fragment, 0, true), fragmentHeader(17, 0, false), udp6),
        ),
      ),
      Malformed.ipv6ExtensionHeader,
    ],
    [
      'nine extension headers',
      ethernetFrame(ipv6, ipv6Packet(Protocol.destinationOptions, endless)),
      Malformed.ipv6ExtensionHeader,
    ],
    [
      'a jumbogram',
      ethernetFrame(ipv6, ipv6Packet(Protocol.hopByHop, new Uint8Array(0))),
      Malformed.ipv6ExtensionHeader,
    ],
  ];
  for (const [name, frame, reason] of cases) {
    const refused = packet.load(frame);
    assertSound(packet, refused);
    assert.equal(reasonOf(refused), reasonOf(reason), name);
  }
});

test('the data of an IPv6 fragment begins behind the fragment header, extension headers included', () => {
  // 12 bytes of authentication header and 20 of data: a multiple of 8 only together.
  const authentication = new Uint8Array(12);
  authentication[0] = Protocol.udp;
  authentication[1] = 1;
  const parts = [fragmentHeader(Protocol.authentication, 0, true), authentication];
  const carried = Uint8Array.from([...parts, udpDatagram(6, new Uint8Array(12))].flatMap(part => [...part]));
  const frame = ethernetFrame(EtherType.ipv6, ipv6Packet(Protocol.fragment, carried));
  assert.equal(reasonOf(packet.load(frame)), 'none');
  assert.equal(packet.sourcePort, 40000);
});

test('ICMP of the other family is not looked into', () => {
  const frame = ethernetFrame(EtherType.ipv4, ipv4Packet(Protocol.icmpv6, new Uint8Array(3)));
  assert.equal(packet.load(frame), Malformed.none);
});

interface Recording {
  steps: { in?: string; out?: { hex: string }[] }[];
}

// Each of these sends frames that are wrong on purpose; everything else must parse with right checksums.
const WRONG_ON_PURPOSE = new Set(['bad-checksum']);

test('recorded frames of a real director parse, with right checksums', {
  skip: !goldenExists('rewrite') && 'the recordings (shared/oracle/golden/rewrite) are not there',
}, () => {
  let frames = 0;
  for (const name of goldenNames('rewrite')) {
    if (WRONG_ON_PURPOSE.has(name)) continue;
    for (const [index, step] of goldenJson<Recording>(`rewrite/${name}.json`).steps.entries()) {
      for (const hex of [step.in, ...(step.out ?? []).map(out => out.hex)]) {
        if (hex === undefined) continue;
        frames++;
        const refused = packet.load(Uint8Array.from(Buffer.from(hex, 'hex')));
        const where = `${name} step ${index}: ${hex}`;
        assert.equal(reasonOf(refused), 'none', where);
        if (packet.family === 4) {
          const { view, network, networkEnd } = packet;
          assert.equal(checkIpv4(view, network, networkEnd - network), Malformed.none, where);
        }
        assert.notEqual(transportChecksumIsRight(packet), false, where);
      }
    }
  }
  assert.ok(frames > 1000, `only ${frames} frames`);
});
