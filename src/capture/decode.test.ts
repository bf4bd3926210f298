import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  ethernetFrame,
  extensionHeader,
  fragmentHeader,
  ipv6Packet,
  sampleFrames,
} from '../../test/frames.ts';
import { goldenExists, goldenJson, goldenNames } from '../../test/golden.ts';
import { missing } from '../../test/requirements.ts';
import { tsharkLines } from '../../test/tshark.ts';
import { type DecodedFrame, Decoder, formatDecoded } from './decode.ts';
import { tsharkJson } from './tshark-json.ts';

const samples = sampleFrames();
const decode = (bytes: Uint8Array, length = bytes.length): DecodedFrame =>
  new Decoder().decode({ time: 0n, bytes, length }, 1, 0n);
const layersOf = (bytes: Uint8Array): string =>
  decode(bytes)
    .layers.map(({ name }) => name)
    .join(' ');

test('the layers of every kind of frame', () => {
  assert.deepEqual(
    samples.map(({ name, frame }) => `${name}: ${layersOf(frame)}`),
    [
      'arp request: frame eth arp',
      'arp reply, padded: frame eth arp',
      'tcp SYN with options: frame eth ip tcp',
      'tcp ACK, padded: frame eth ip tcp',
      'tcp data: frame eth ip tcp http data',
      'udp: frame eth ip udp data',
      'icmp echo: frame eth ip icmp data',
      'icmp port unreachable: frame eth ip icmp ip tcp',
      'sctp INIT: frame eth ip sctp',
      'first fragment: frame eth ip data',
      'last fragment: frame eth ip data',
      'ip in ip: frame eth ip ip tcp',
      'vlan: frame eth vlan ip tcp',
      'vlan in vlan: frame eth ieee8021ad vlan ip udp data',
      'tcp6 SYN with options: frame eth ipv6 tcp',
      'udp6: frame eth ipv6 udp data',
      'udp6 behind three extension headers: frame eth ipv6 ipv6.hopopts ipv6.routing ipv6.dstopts udp data',
      'icmp6 echo: frame eth ipv6 icmpv6 data',
      'icmp6 neighbor solicitation: frame eth ipv6 icmpv6 data',
      'icmp6 packet too big: frame eth ipv6 icmpv6 ipv6 tcp',
      'first fragment, IPv6: frame eth ipv6 ipv6.fraghdr data',
      'last fragment, IPv6, in a vlan: frame eth vlan ipv6 ipv6.fraghdr data',
      'atomic fragment, IPv6: frame eth ipv6 ipv6.fraghdr tcp',
      'sctp6 DATA: frame eth ipv6 sctp',
    ],
  );
});

test('an IPv6 fragment counts in units of 8 bytes, as tshark shows it', () => {
  const frame = samples.find(({ name }) => name === 'last fragment, IPv6, in a vlan')?.frame;
  assert.ok(frame);
  const header = decode(frame).layers.find(({ name }) => name === 'ipv6.fraghdr');
  assert.deepEqual(
    header?.fields.map(({ name, value }) => `${name} ${value}`),
    [
      'ipv6.fraghdr.nxt 17',
      'ipv6.fraghdr.offset 3',
      'ipv6.fraghdr.more false',
      'ipv6.fraghdr.ident 16909060',
    ],
  );
});

test('every checksum of the samples is found good, and a spoiled one bad', () => {
  const statuses = (bytes: Uint8Array): unknown[] =>
    decode(bytes).layers.flatMap(({ fields }) =>
      fields.filter(({ name }) => name.endsWith('checksum.status')).map(({ value }) => value),
    );
  for (const { name, frame } of samples) {
    assert.ok(
      statuses(frame).every(status => status === 'Good'),
      name,
    );
  }
  for (const name of ['tcp data', 'udp6', 'icmp echo', 'sctp INIT']) {
    const frame = samples.find(sample => sample.name === name)?.frame.slice();
    assert.ok(frame);
    frame[frame.length - 1] = (frame[frame.length - 1] as number) ^ 1;
    assert.equal(statuses(frame).at(-1), 'Bad', name);
  }
});

test('the tree of an ARP request', () => {
  const frame = samples[0]?.frame;
  assert.ok(frame);
  assert.equal(
    formatDecoded(decode(frame)),
    `Frame 1: 42 bytes on wire, 42 bytes captured
    Frame Number: 1
    Time since reference or first frame: 0.000000000 seconds
    Frame Length: 42 bytes (336 bits)
    Capture Length: 42 bytes (336 bits)
Ethernet II, Src: Vmware_2e:aa:48 (00:0c:29:2e:aa:48), Dst: Broadcast (ff:ff:ff:ff:ff:ff)
    Destination: Broadcast (ff:ff:ff:ff:ff:ff)
    Source: Vmware_2e:aa:48 (00:0c:29:2e:aa:48)
    Type: ARP (0x0806)
Address Resolution Protocol (request)
    Hardware type: Ethernet (1)
    Protocol type: IPv4 (0x0800)
    Hardware size: 6
    Protocol size: 4
    Opcode: request (1)
    Sender MAC address: 00:0c:29:2e:aa:48
    Sender IP address: 172.16.1.61
    Target MAC address: 00:00:00:00:00:00
    Target IP address: 172.16.1.51
`,
  );
});

test('a frame that cannot be read ends with the reason', () => {
  const frame = samples[2]?.frame;
  assert.ok(frame);
  assert.equal(layersOf(frame.subarray(0, 10)), 'frame _malformed');
  assert.equal(layersOf(frame.subarray(0, 20)), 'frame eth _malformed');
  const last = decode(frame.subarray(0, 50)).layers.at(-1);
  assert.equal(last?.text, '[Malformed Packet: ipv4-total-length]');
  assert.equal(decode(frame.subarray(0, 50), 74).layers.at(-1)?.text, '[Packet size limited during capture]');
  const nested = Uint8Array.from([...fragmentHeader(44, 0, true), ...fragmentHeader(17, 0, true), 0, 0]);
  assert.equal(layersOf(ethernetFrame(0x86dd, ipv6Packet(44, nested))), 'frame eth ipv6 _malformed');
  assert.equal(
    layersOf(ethernetFrame(0x86dd, ipv6Packet(0, extensionHeader(59)))),
    'frame eth ipv6 ipv6.hopopts',
  );
});

test('nothing from a file steers the terminal', () => {
  const frame = {
    time: 0n,
    bytes: samples[0]?.frame ?? new Uint8Array(),
    length: 42,
    comment: 'a\x1b[2Jb\nc',
  };
  const tree = formatDecoded(new Decoder().decode(frame, 1, 0n));
  assert.ok(tree.includes('Comment: a\ufffd[2Jb\ufffdc\n'));
});

test('any bytes have a tree and JSON', () => {
  const decoder = new Decoder();
  fc.assert(
    fc.property(
      fc.constantFrom(...samples),
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 5 }),
      fc.nat(),
      ({ frame }, changes, cut) => {
        const spoiled = frame.slice(0, cut % 3 ? frame.length : cut % frame.length);
        for (const [at, value] of changes) if (spoiled.length > 0) spoiled[at % spoiled.length] = value;
        const decoded = decoder.decode({ time: 0n, bytes: spoiled, length: spoiled.length }, 1, 0n);
        formatDecoded(decoded);
        assert.ok('_source' in tsharkJson(decoded, '2026-11-28'));
      },
    ),
    { numRuns: 5000 },
  );
});

interface Recording {
  steps: { in?: string; out?: { hex: string }[] }[];
}

const leftOut = !goldenExists('rewrite')
  ? 'the recordings (shared/oracle/golden/rewrite) are not there'
  : missing('tshark');

const FIELDS = [
  ...['eth.src', 'eth.dst', 'vlan.id', 'ieee8021ad.id', 'arp.opcode', 'arp.src.proto_ipv4', 'arp.dst.hw_mac'],
  ...[
    'ip.src',
    'ip.dst',
    'ip.ttl',
    'ip.len',
    'ip.proto',
    'ip.hdr_len',
    'ip.frag_offset',
    'ipv6.src',
    'ipv6.dst',
  ],
  ...['ipv6.hlim', 'ipv6.plen', 'ipv6.nxt', 'ipv6.fraghdr.offset', 'tcp.srcport', 'tcp.dstport'],
  ...['udp.srcport', 'udp.dstport', 'udp.length', 'icmp.type', 'icmp.code', 'icmp.seq', 'icmp.mtu'],
  ...[
    'icmpv6.type',
    'icmpv6.code',
    'icmpv6.mtu',
    'icmpv6.echo.sequence_number',
    'icmpv6.nd.ns.target_address',
  ],
  ...['sctp.srcport', 'sctp.dstport'],
];
/** Compared where they are not only quoted by an ICMP error: here no more than ports is read of a quoted segment. */
const UNQUOTED_FIELDS = [
  ...['sctp.chunk_type', 'sctp.chunk_length'],
  ...['tcp.len', 'tcp.seq', 'tcp.seq_raw', 'tcp.ack_raw', 'tcp.hdr_len', 'tcp.window_size_value'],
  ...['tcp.options.mss_val', 'tcp.options.wscale.shift', 'tcp.options.timestamp.tsval', 'tcp.urgent_pointer'],
];

test('recorded frames have the fields that tshark finds in them', { skip: leftOut }, () => {
  const recorded = goldenNames('rewrite')
    .flatMap(name => goldenJson<Recording>(`rewrite/${name}.json`).steps)
    .flatMap(step => [step.in ?? [], (step.out ?? []).map(out => out.hex)].flat(2))
    .map(hex => Uint8Array.from(Buffer.from(hex, 'hex')));
  // The samples' UDP is sent to port 53, where tshark expects DNS; what it makes of it does not matter here.
  const frames = [...samples.map(({ frame }) => frame), ...recorded].map((bytes, index) => ({
    time: BigInt(index) * 1000n,
    bytes,
    length: bytes.length,
  }));
  const fields = [...FIELDS, ...UNQUOTED_FIELDS];
  const shown = fields.flatMap(field => ['-e', field]);
  const theirs = tsharkLines(frames, ['-n', '-T', 'fields', '-E', 'occurrence=a', ...shown]);
  const decoder = new Decoder({ names: false });
  let compared = 0;
  for (const [index, frame] of frames.entries()) {
    const { layers } = decoder.decode(frame, index + 1, 0n);
    const names = layers.map(({ name }) => name);
    // tshark reassembles, and reads on in frames whose lengths lie.
    const values = (field: string): string =>
      layers
        .flatMap(layer => layer.fields)
        .filter(({ name }) => name === field)
        .map(({ value }) => String(value))
        .join(',');
    const fragment = values('ip.flags.mf').includes('true') || /[1-9]/.test(values('ip.frag_offset'));
    if (names.includes('_malformed') || names.includes('ipv6.fraghdr') || fragment) continue;
    const quoted = names.includes('icmp') || names.includes('icmpv6');
    const columns = (theirs[index] ?? '').split('\t');
    for (const [column, field] of fields.entries()) {
      if (quoted && UNQUOTED_FIELDS.includes(field)) continue;
      compared++;
      const where = `${field} of frame ${index + 1} (${names.join(' ')}): ${Buffer.from(frame.bytes).toString('hex')}`;
      assert.equal(values(field), columns[column], where);
    }
  }
  assert.ok(compared > 30_000, `only ${compared} fields`);
});
