/** The program that takes packets out of tunnels, run on single packets: what it takes, leaves, drops and counts. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { buildBpf } from '../../bpf/build.ts';
import { missing } from '../../test/requirements.ts';
import { type BpfMap, BpfObject, type BpfProgram, possibleCpus } from '../datapath/ffi/libbpf.ts';
import { familyOf, parseAddress } from '../wire/address.ts';
import { IPV4_HEADER, Protocol, writeIpv4 } from '../wire/ipv4.ts';
import { IPV6_HEADER, writeIpv6 } from '../wire/ipv6.ts';
import { writeUdp } from '../wire/udp.ts';
import { mapAddress, mapPrefix } from './program-steps.ts';
import { DECAPSULATION_COUNTS } from './tunnel.ts';

const NEXT_FILTER = 0xffffffff;
const DROP = 2;
const GUE_PORT = 6080;

const bytesOf = (address: string): Uint8Array => parseAddress(address) ?? assert.fail(address);

interface Header {
  protocol: number;
  trafficClass?: number;
  fragment?: number;
}

/** An IP packet around `payload`. */
function ip(source: string, destination: string, header: Header, payload: Uint8Array): Uint8Array {
  const addresses = { source: bytesOf(source), destination: bytesOf(destination) };
  const { protocol, trafficClass = 0, fragment = 0 } = header;
  const start = familyOf(source) === 4 ? IPV4_HEADER : IPV6_HEADER;
  const packet = new Uint8Array(start + payload.length);
  const view = new DataView(packet.buffer);
  if (start === IPV4_HEADER) {
    const fields = { ...addresses, protocol, typeOfService: trafficClass, fragment, ttl: 63 };
    writeIpv4(view, packet, 0, { ...fields, totalLength: packet.length });
  } else {
    const fields = { ...addresses, nextHeader: protocol, trafficClass, hopLimit: 63 };
    writeIpv6(view, packet, 0, { ...fields, payloadLength: payload.length });
  }
  packet.set(payload, start);
  return packet;
}

/** A frame around an IP packet. */
function frame(packet: Uint8Array): Uint8Array {
  const isIpv6 = (packet[0] as number) >> 4 === 6;
  return Uint8Array.of(2, 0, 0, 0, 0, 7, 2, 0, 0, 0, 0, 5, ...(isIpv6 ? [0x86, 0xdd] : [8, 0]), ...packet);
}

function gue(protocol: number, payload: Uint8Array, port = GUE_PORT, head = 0): Uint8Array {
  const options = new Uint8Array((head & 0x1f) * 4);
  const packet = new Uint8Array(12 + options.length + payload.length);
  writeUdp(new DataView(packet.buffer), 0, 40_000, port, packet.length);
  packet.set([head, protocol, 0, 0], 8);
  packet.set(payload, 12 + options.length);
  return packet;
}

const DATA = Uint8Array.from({ length: 40 }, (_, at) => at);
const inner4 = (trafficClass = 0, to = '10.0.0.3'): Uint8Array =>
  ip('192.0.2.1', to, { protocol: Protocol.tcp, trafficClass }, DATA);
const inner6 = (trafficClass = 0): Uint8Array =>
  ip('2001:db8:9::1', '2001:db8::3', { protocol: Protocol.tcp, trafficClass }, DATA);
const outer4 = (header: Header, payload: Uint8Array, from = '10.0.0.5'): Uint8Array =>
  frame(ip(from, '10.0.0.7', header, payload));
const outer6 = (header: Header, payload: Uint8Array): Uint8Array =>
  frame(ip('2001:db8::5', '2001:db8::7', header, payload));

describe('decapsulate.bpf.c', { skip: missing('root', 'clang') }, () => {
  let object: BpfObject;
  let program: BpfProgram;

  before(() => {
    const name = 'decapsulate.bpf.o';
    object = new BpfObject(readFileSync(buildBpf(undefined, name)), name);
    object.load();
    program = object.program('decapsulate');
    const one = Uint8Array.of(1);
    const put = (map: string, key: Uint8Array, value: Uint8Array): void => object.map(map).update(key, value);
    // All tunnels, of directors only.
    put('settings', new Uint8Array(4), Uint8Array.of(7, 1, 0, 0, GUE_PORT >> 8, GUE_PORT & 0xff, 0, 0));
    for (const end of ['10.0.0.7', '2001:db8::7']) put('tunnel_ends', mapAddress(end), one);
    for (const vip of ['10.0.0.3', '2001:db8::3']) put('virtual_addresses', mapAddress(vip), one);
    put('directors', mapPrefix({ address: '10.0.0.4', length: 31 }), one);
    put('directors', mapPrefix({ address: '2001:db8::5', length: 128 }), one);
  });

  after(() => object?.close());

  function counts(): number[] {
    const map: BpfMap = object.map('counts');
    return DECAPSULATION_COUNTS.map((_, index) => {
      const values = new BigUint64Array(new ArrayBuffer(8 * possibleCpus()));
      map.lookup(new Uint8Array(new Uint32Array([index]).buffer), new Uint8Array(values.buffer));
      return Number(values.reduce((sum, value) => sum + value, 0n));
    });
  }

  /** Runs it; the name of what was counted, if anything was. */
  function run(packet: Uint8Array): { verdict: number; frame: Uint8Array; counted: string | undefined } {
    const earlier = counts();
    const result = program.runOnPacket(packet);
    const index = counts().findIndex((count, at) => count !== earlier[at]);
    return { ...result, counted: DECAPSULATION_COUNTS[index] };
  }

  test('what is inside comes out, byte for byte', () => {
    const gre = (type: number[], flags: number[], more: number[], payload: Uint8Array): Uint8Array =>
      Uint8Array.of(...flags, ...type, ...more, ...payload);
    const ipv6Options = (next: number, payload: Uint8Array): Uint8Array =>
      Uint8Array.of(next, 0, 4, 1, 4, 1, 1, 0, ...payload);
    for (const [what, packet, inside] of [
      ['IPIP', outer4({ protocol: 4 }, inner4()), inner4()],
      ['IPv6 in IPv4', outer4({ protocol: 41 }, inner6()), inner6()],
      ['IPv4 in IPv6', outer6({ protocol: 4 }, inner4()), inner4()],
      ['IPv6 in IPv6', outer6({ protocol: 41 }, inner6()), inner6()],
      ['an encapsulation limit', outer6({ protocol: 60 }, ipv6Options(4, inner4())), inner4()],
      ['GUE', outer4({ protocol: 17 }, gue(4, inner4())), inner4()],
      ['GUE with options', outer6({ protocol: 17 }, gue(41, inner6(), GUE_PORT, 2)), inner6()],
      ['GRE', outer4({ protocol: 47 }, gre([8, 0], [0, 0], [], inner4())), inner4()],
      [
        'GRE with checksum',
        outer6({ protocol: 47 }, gre([0x86, 0xdd], [0x80, 0], [1, 2, 0, 0], inner6())),
        inner6(),
      ],
    ] as const) {
      const { verdict, frame: left, counted } = run(packet);
      assert.equal(verdict, NEXT_FILTER, what);
      assert.deepEqual(left, frame(inside), what);
      assert.equal(counted, 'decapsulated', what);
    }
  });

  test('what is not a tunnel to a VIP goes on as it came', () => {
    for (const [what, packet, counted] of [
      ['no tunnel', frame(inner4()), undefined],
      ['to another host', frame(ip('10.0.0.5', '10.0.0.8', { protocol: 4 }, inner4())), undefined],
      ['to no VIP', outer4({ protocol: 4 }, inner4(0, '10.0.0.9')), undefined],
      ['another port', outer4({ protocol: 17 }, gue(4, inner4(), 6081)), undefined],
      ['GUE control', outer4({ protocol: 17 }, gue(4, inner4(), GUE_PORT, 0x20)), undefined],
      ['GUE of another version', outer4({ protocol: 17 }, gue(4, inner4(), GUE_PORT, 0x40)), undefined],
      [
        'GRE with a key',
        outer4({ protocol: 47 }, Uint8Array.of(0x20, 0, 8, 0, 0, 0, 0, 1, ...inner4())),
        undefined,
      ],
      ['GRE of Ethernet', outer4({ protocol: 47 }, Uint8Array.of(0, 0, 0x65, 0x58, ...inner4())), undefined],
      ['a later fragment', outer4({ protocol: 4, fragment: 185 }, inner4()), undefined],
      ['a first fragment', outer4({ protocol: 4, fragment: 0x2000 }, inner4()), 'fragment'],
      ['cut off', outer4({ protocol: 4 }, inner4().subarray(0, 12)), 'damaged'],
      ['of the wrong version', outer4({ protocol: 4 }, inner6()), 'damaged'],
    ] as const) {
      const result = run(packet);
      assert.deepEqual(result, { verdict: NEXT_FILTER, frame: packet, counted }, what);
    }
  });

  test('who is no director is dropped; prefixes of directors count', () => {
    assert.equal(run(outer4({ protocol: 4 }, inner4(), '10.0.0.4')).counted, 'decapsulated');
    const refused = run(outer4({ protocol: 4 }, inner4(), '10.0.0.6'));
    assert.deepEqual([refused.verdict, refused.counted], [DROP, 'notADirector']);
  });

  test('congestion on the way reaches the inside, or drops what does not know it (RFC 6040, figure 4)', () => {
    const [notCapable, capable1, capable0, congestion] = [0, 1, 2, 3] as const;
    for (const inner of [inner4, inner6]) {
      const protocol = inner === inner4 ? 4 : 41;
      const outside = (mark: number, inside: Uint8Array): Uint8Array =>
        outer4({ protocol, trafficClass: 0xb8 | mark }, inside);
      for (const mark of [notCapable, capable1, capable0]) {
        for (const own of [notCapable, capable1, capable0, congestion]) {
          assert.deepEqual(
            run(outside(mark, inner(0x28 | own))).frame,
            frame(inner(0x28 | own)),
            `${mark} ${own}`,
          );
        }
      }
      for (const own of [capable1, capable0, congestion]) {
        const { frame: left } = run(outside(congestion, inner(0x28 | own)));
        assert.deepEqual(left, frame(inner(0x28 | congestion)), `marked, ${own}`);
      }
      const { verdict, counted } = run(outside(congestion, inner(0x28)));
      assert.deepEqual([verdict, counted], [DROP, 'congestion']);
    }
  });
});
