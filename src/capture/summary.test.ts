import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  arpFrame,
  ethernetFrame,
  icmpMessage,
  ipv4Packet,
  ipv6Packet,
  SYN_OPTIONS,
  sampleFrames,
  tcpSegment,
} from '../../test/frames.ts';
import { goldenExists, goldenJson, goldenNames } from '../../test/golden.ts';
import { missing } from '../../test/requirements.ts';
import { tsharkLines } from '../../test/tshark.ts';
import { TcpFlag } from '../wire/tcp.ts';
import { nanoseconds } from './frame.ts';
import { formatSeconds, formatSummary, Summarizer } from './summary.ts';
import { macName } from './vendors.ts';

const samples = sampleFrames();

/** The lines of frames seen one after the other, without number and time. */
function linesOf(...frames: Uint8Array[]): string[] {
  const summarizer = new Summarizer();
  return frames.map(bytes => {
    const { protocol, info } = summarizer.summarize({ bytes, length: bytes.length });
    return `${protocol} ${info}`;
  });
}

const text = (content: string): Uint8Array => new TextEncoder().encode(content);
const tcp = (fields: Parameters<typeof tcpSegment>[1], data?: Uint8Array): Uint8Array =>
  ethernetFrame(0x800, ipv4Packet(6, tcpSegment(4, fields, data)));

test('an ARP resolution as m01 sees it, letter by letter', () => {
  const m01 = { mac: '00:0c:29:2e:aa:48', address: '172.16.1.61' };
  const db01 = { mac: '00:0c:29:c7:5d:dd', address: '172.16.1.51' };
  const summarizer = new Summarizer();
  const frames = [arpFrame(1, m01, { ...db01, mac: '00:00:00:00:00:00' }), arpFrame(2, db01, m01, true)];
  const lines = frames.map((bytes, index) => {
    const summary = summarizer.summarize({ bytes, length: bytes.length });
    return formatSummary(summary, index + 1, nanoseconds(index * 0.263929));
  });
  assert.deepEqual(lines, [
    '1 0.000000000 Vmware_2e:aa:48 -> Broadcast    ARP 42 Who has 172.16.1.51? Tell 172.16.1.61',
    '2 0.000263929 Vmware_c7:5d:dd -> Vmware_2e:aa:48 ARP 60 172.16.1.51 is at 00:0c:29:c7:5d:dd',
  ]);
});

test('columns: short addresses are padded, the number and vendor names can be left away', () => {
  const [, , syn] = samples;
  assert.ok(syn);
  const summary = new Summarizer().summarize({ bytes: syn.frame, length: 74 });
  assert.equal(
    formatSummary(summary, undefined, 1_500_000_000n),
    '1.500000000     10.0.0.1 -> 10.0.0.3     TCP 74 40000 > 80 [SYN] Seq=0 Win=64240 Len=0 ' +
      'MSS=1460 SACK_PERM=1 TSval=16 TSecr=0 WS=128',
  );
  const plain = new Summarizer({ names: false }).summarize({
    bytes: samples[0]?.frame ?? syn.frame,
    length: 42,
  });
  assert.equal(plain.source, '00:0c:29:2e:aa:48');
  assert.equal(plain.destination, 'ff:ff:ff:ff:ff:ff');
  assert.equal(formatSeconds(-1n), '-0.000000001');
});

test('one line for every kind of frame', () => {
  const lines = samples.map(({ name, frame }) => `${name}: ${linesOf(frame)[0]}`);
  assert.deepEqual(lines, [
    'arp request: ARP Who has 172.16.1.51? Tell 172.16.1.61',
    'arp reply, padded: ARP 172.16.1.51 is at 00:0c:29:c7:5d:dd',
    'tcp SYN with options: TCP 40000 > 80 [SYN] Seq=0 Win=64240 Len=0 MSS=1460 SACK_PERM=1 TSval=16 TSecr=0 WS=128',
    'tcp ACK, padded: TCP 40000 > 80 [ACK] Seq=1 Ack=1 Win=64240 Len=0',
    'tcp data: HTTP GET / HTTP/1.1',
    'udp: UDP 40000 > 53 Len=10',
    'icmp echo: ICMP Echo (ping) request  id=0x0001, seq=2/512, ttl=64',
    'icmp port unreachable: ICMP Destination unreachable (Port unreachable)',
    'sctp INIT: SCTP INIT',
    'first fragment: IPv4 Fragmented IP protocol (proto=UDP 17, off=0, ID=1234)',
    'last fragment: IPv4 Fragmented IP protocol (proto=UDP 17, off=24, ID=1234)',
    'ip in ip: TCP 40000 > 80 [SYN] Seq=0 Win=64240 Len=0 MSS=1460 SACK_PERM=1 TSval=16 TSecr=0 WS=128',
    'vlan: TCP 40000 > 80 [SYN] Seq=0 Win=64240 Len=0 MSS=1460 SACK_PERM=1 TSval=16 TSecr=0 WS=128',
    'vlan in vlan: UDP 40000 > 53 Len=10',
    'tcp6 SYN with options: TCP 40000 > 80 [SYN] Seq=0 Win=64240 Len=0 MSS=1460 SACK_PERM=1 TSval=16 TSecr=0 WS=128',
    'udp6: UDP 40000 > 53 Len=10',
    'udp6 behind three extension headers: UDP 40000 > 53 Len=3',
    'icmp6 echo: ICMPv6 Echo (ping) request id=0x0001, seq=2, hop limit=64',
    'icmp6 neighbor solicitation: ICMPv6 Neighbor Solicitation for 2001:db8::3 from 00:50:56:c0:00:08',
    'icmp6 packet too big: ICMPv6 Packet Too Big',
    'first fragment, IPv6: IPv6 IPv6 fragment (off=0 more=y ident=0x01020304 nxt=17)',
    'last fragment, IPv6, in a vlan: IPv6 IPv6 fragment (off=24 more=n ident=0x01020304 nxt=17)',
    'atomic fragment, IPv6: TCP 40000 > 80 [SYN] Seq=0 Win=64240 Len=0',
    'sctp6 DATA: SCTP DATA (TSN=33686018)',
  ]);
  const vrrp = new Uint8Array(8);
  vrrp[0] = 0x31;
  const host = { mac: '02:00:00:00:00:05', address: '10.0.0.3' };
  assert.deepEqual(
    linesOf(
      ...[ethernetFrame(0x800, ipv4Packet(112, vrrp)), ethernetFrame(0x800, ipv4Packet(253, vrrp))],
      ...[ethernetFrame(0x88cc, vrrp), ethernetFrame(8, vrrp), arpFrame(1, host, host)],
      ethernetFrame(0x86dd, ipv6Packet(58, icmpMessage(6, 136, 0, 0x60000000, new Uint8Array(16)))),
    ),
    [
      'VRRP Announcement (v3)',
      'IPv4 Unknown (253)',
      '0x88cc Ethernet II',
      'LLC IEEE 802.3 frame, 8 bytes',
      'ARP Gratuitous ARP for 10.0.0.3 (Request)',
      'ICMPv6 Neighbor Advertisement :: (sol, ovr)',
    ],
  );
});

test('a conversation is counted from its SYNs, and its windows are scaled by them', () => {
  const back = { sourcePort: 80, destinationPort: 40000 };
  const { syn, ack, fin } = TcpFlag;
  // Both directions carry the same addresses here, so the ports alone tell them apart: swap them in the packet.
  const swap = (frame: Uint8Array): Uint8Array => {
    const copy = frame.slice();
    copy.set(frame.subarray(30, 34), 26);
    copy.set(frame.subarray(26, 30), 30);
    return copy;
  };
  const request = text('POST /x HTTP/1.1\r\n\r\n');
  assert.deepEqual(
    linesOf(
      tcp({ options: SYN_OPTIONS, sequence: 0xffffffff }),
      swap(tcp({ ...back, flags: syn | ack, sequence: 7, acknowledgement: 0, options: SYN_OPTIONS })),
      tcp({ flags: ack, sequence: 0, acknowledgement: 8, window: 2 }),
      tcp({ flags: ack, sequence: 0, acknowledgement: 8, window: 2 }, request),
      swap(tcp({ ...back, flags: ack, sequence: 8, acknowledgement: 20, window: 1 })),
      tcp({ flags: fin | ack, sequence: 20, acknowledgement: 8, window: 2 }),
      // The same ports again.
      tcp({ sequence: 5000 }),
      swap(tcp({ ...back, flags: syn | ack, sequence: 9, acknowledgement: 5001, window: 3 })),
      tcp({ flags: ack, sequence: 5001, acknowledgement: 10, window: 3 }),
    ).map(line => line.replace(/ MSS.*/, '')),
    [
      'TCP 40000 > 80 [SYN] Seq=0 Win=64240 Len=0',
      'TCP 80 > 40000 [SYN, ACK] Seq=0 Ack=1 Win=64240 Len=0',
      'TCP 40000 > 80 [ACK] Seq=1 Ack=1 Win=256 Len=0',
      'HTTP POST /x HTTP/1.1',
      'TCP 80 > 40000 [ACK] Seq=1 Ack=21 Win=128 Len=0',
      'TCP 40000 > 80 [FIN, ACK] Seq=21 Ack=1 Win=256 Len=0',
      'TCP 40000 > 80 [SYN] Seq=0 Win=64240 Len=0',
      'TCP 80 > 40000 [SYN, ACK] Seq=0 Ack=1 Win=3 Len=0',
      'TCP 40000 > 80 [ACK] Seq=1 Ack=1 Win=3 Len=0',
    ],
  );
});

test('only what can be printed of HTTP is printed', () => {
  const lines = linesOf(
    tcp({ flags: TcpFlag.ack }, text('HTTP/1.1 200 OK\r\nServer: nginx\r\n')),
    tcp({ flags: TcpFlag.ack }, text('GET /\x1b[2J HTTP/1.1\r\n')),
    tcp({ flags: TcpFlag.ack }, text('GET / HTTP/1.1')),
    tcp({ flags: TcpFlag.ack }, text('hello world')),
  );
  assert.equal(lines[0], 'HTTP HTTP/1.1 200 OK');
  assert.equal(lines[1], 'HTTP GET /\\x1b[2J HTTP/1.1');
  assert.match(lines[2] ?? '', /^TCP .* Len=14$/);
  assert.match(lines[3] ?? '', /^TCP .* Len=11$/);
});

test('what cannot be read is named, with the addresses as far as they are there', () => {
  const [, , syn] = samples;
  assert.ok(syn);
  const summarizer = new Summarizer();
  const cut = (length: number): string => {
    const { source, protocol, info } = summarizer.summarize({ bytes: syn.frame.subarray(0, length), length });
    return `${source} ${protocol} ${info}`;
  };
  assert.equal(cut(5), ' Ethernet [Malformed Packet: frame-too-short]');
  assert.equal(cut(20), 'Vmware_c0:00:08 IPv4 [Malformed Packet: ipv4-truncated]');
  assert.equal(cut(50), '10.0.0.1 IPv4 [Malformed Packet: ipv4-total-length]');
  const limited = summarizer.summarize({ bytes: syn.frame.subarray(0, 50), length: 74 });
  assert.equal(limited.info, '[Packet size limited during capture]');
  assert.equal(
    linesOf(tcp({ options: Uint8Array.of(1, 1, 1, 2) }))[0],
    'TCP 40000 > 80 [SYN] Seq=0 Win=64240 Len=0 [Malformed Packet: tcp-options]',
  );
});

test('any bytes have a line of printable text', () => {
  const summarizer = new Summarizer();
  fc.assert(
    fc.property(
      fc.constantFrom(...samples),
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 5 }),
      fc.nat(),
      ({ frame }, changes, cut) => {
        const spoiled = frame.slice(0, cut % 3 ? frame.length : cut % frame.length);
        for (const [at, value] of changes) if (at < spoiled.length * 4) spoiled[at % spoiled.length] = value;
        const summary = summarizer.summarize({ bytes: spoiled, length: spoiled.length });
        assert.match(formatSummary(summary, 1, 0n), /^[\x20-\x7e]+$/);
      },
    ),
    { numRuns: 5000 },
  );
});

test('vendors', () => {
  const name = (...bytes: number[]): string => macName(Uint8Array.from(bytes));
  assert.equal(name(0x00, 0x0c, 0x29, 0x2e, 0xaa, 0x48), 'Vmware_2e:aa:48');
  assert.equal(name(0x00, 0x50, 0x56, 0xc0, 0x00, 0x08), 'Vmware_c0:00:08');
  assert.equal(name(0x00, 0x00, 0x5e, 0x00, 0x01, 0x33), 'IETF-VRRP-VRID_33');
  assert.equal(name(0x02, 0x00, 0x00, 0x00, 0x00, 0x05), '02:00:00:00:00:05');
  assert.equal(name(0x01, 0x00, 0x5e, 0x00, 0x00, 0x12), 'IPv4mcast_00:00:12');
  assert.equal(name(0x33, 0x33, 0xff, 0x00, 0x00, 0x03), 'IPv6mcast_ff:00:00:03');
  assert.equal(name(0xff, 0xff, 0xff, 0xff, 0xff, 0xff), 'Broadcast');
});

interface Recording {
  steps: { in?: string; out?: { hex: string }[] }[];
}

const leftOut = !goldenExists('rewrite')
  ? 'the recordings (shared/oracle/golden/rewrite) are not there'
  : missing('tshark');

/** What real tshark says in another style, or about more than one frame: remarks, ports in arrows, window sizes. */
function inOurStyle(line: string): string {
  return (
    line
      .trim()
      .replace('→', '->')
      .replace('→', '>')
      .replace('SACK_PERM', 'SACK_PERM=1')
      .replace(/\[TCP [^\]]*\] /g, '')
      .replace(/ \[TCP segment of a reassembled PDU\]| \[ILLEGAL CHECKSUM \(0\)\]/, '')
      .replace(/ \((request in|reply in|no response|retransmission)[^)]*\)/g, '')
      .replace(/ \(TSN=\d+\)/, '')
      // Recordings are joined into one file, so tshark takes window scales from other recordings' handshakes.
      .replace(/ Win=\d+/, '')
      .trim()
  );
}

test('recorded frames are summarised as tshark summarises them', { skip: leftOut }, () => {
  const frames = goldenNames('rewrite')
    .flatMap(name => goldenJson<Recording>(`rewrite/${name}.json`).steps)
    .flatMap(step => [step.in ?? [], (step.out ?? []).map(out => out.hex)].flat(2))
    .map((hex, index) => {
      const bytes = Uint8Array.from(Buffer.from(hex, 'hex'));
      return { time: BigInt(index) * 1_000_001n, bytes, length: bytes.length };
    });
  const options = ['-n', '-o', 'ip.defragment:FALSE', '-o', 'ipv6.defragment:FALSE'];
  const theirs = tsharkLines(frames, options).map(inOurStyle);
  assert.equal(theirs.length, frames.length);
  const summarizer = new Summarizer({ names: false });
  let compared = 0;
  for (const [index, frame] of frames.entries()) {
    const summary = summarizer.summarize(frame);
    // tshark reads on in first fragments and in frames whose lengths lie; here these are named and left.
    if (/ragment \(|Fragmented|Malformed/.test(summary.info)) continue;
    compared++;
    const ours = formatSummary(summary, index + 1, frame.time)
      .replace(/ Win=\d+/, '')
      .replace(/ \(TSN=\d+\)/, '');
    assert.equal(ours, theirs[index]);
  }
  assert.ok(compared > 1000, `only ${compared} frames`);
});
