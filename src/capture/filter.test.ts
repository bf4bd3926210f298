import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import fc from 'fast-check';
import { arpFrame, ethernetFrame, extensionHeader, ipv4Packet, sampleFrames } from '../../test/frames.ts';
import { goldenExists, goldenJson, goldenNames } from '../../test/golden.ts';
import { missing } from '../../test/requirements.ts';
import { Packet } from '../wire/packet.ts';
import { Filter, FilterError } from './filter.ts';
import { readPcap, writePcap } from './pcap.ts';

const samples = sampleFrames();
const namesMatching = (text: string): string[] => {
  const filter = new Filter(text);
  return samples.filter(({ frame }) => filter.matches(frame)).map(({ name }) => name);
};

test('some filters and the frames they let through', () => {
  assert.deepEqual(namesMatching('arp'), ['arp request', 'arp reply, padded']);
  assert.deepEqual(namesMatching('vlan 200 and vlan 100 and udp port 53'), ['vlan in vlan']);
  assert.deepEqual(namesMatching('tcp[tcpflags] & tcp-syn != 0'), ['tcp SYN with options']);
  assert.deepEqual(namesMatching('ether src 00:0c:29:c7:5d:dd'), ['arp reply, padded']);
  assert.deepEqual(namesMatching('ip proto 4'), ['ip in ip']);
  assert.equal(namesMatching('').length, samples.length);
});

test('"and" and "or" bind equally, from left to right; "not" binds tighter', () => {
  assert.deepEqual(namesMatching('udp or arp and arp'), namesMatching('(udp or arp) and arp'));
  assert.notDeepEqual(namesMatching('udp or arp and arp'), namesMatching('udp or (arp and arp)'));
  assert.deepEqual(namesMatching('not arp and udp'), namesMatching('(not arp) and udp'));
});

test('a cursor and the plain bytes of its frame match alike', () => {
  const packet = new Packet();
  const filter = new Filter('udp port 53 or arp or icmp6');
  for (const { frame } of samples) {
    packet.load(frame);
    assert.equal(filter.matchesPacket(packet), filter.matches(frame));
  }
});

test('a wrong filter is refused with the word and its position', () => {
  const cases: [string, RegExp, number][] = [
    ['tpc', /unknown word "tpc" at position 1/, 1],
    ['tcp and foo', /unknown word "foo"|"foo" has no qualifier/, 9],
    ['host', /unexpected end of the filter \(expected an address/, 5],
    ['host web01', /"web01" is not an address \(host names are not looked up here\)/, 6],
    ['host 10.0.0.256', /"10.0.0.256" is not an address/, 6],
    ['port 65536', /port 65536 is above 65535/, 6],
    ['port nosuch', /unknown port "nosuch"/, 6],
    ['icmp port 80', /"icmp" has no ports/, 11],
    ['tcp port', /unexpected end/, 9],
    ['(tcp', /unexpected end of the filter \(expected "\)"\)/, 5],
    ['tcp)', /unexpected "\)"/, 4],
    ['tcp udp', /unexpected "udp" \(expected "and", "or" or the end\)/, 5],
    ['tcp[13', /unexpected end of the filter \(expected "\]"\)/, 7],
    ['tcp[13:3] = 1', /a size of 3 bytes/, 8],
    ['tcp[13]', /expected a relation/, 8],
    ['len / 0 = 1', /division by zero/, 7],
    ['net 10.0.0.1/24', /has bits set behind the mask/, 5],
    ['net 10.0.0.0/33', /prefix length 33 is above 32/, 14],
    ['vlan 4096', /VLAN 4096 is above 4095/, 6],
    ['gateway 10.0.0.1', /"gateway" is not supported/, 1],
    ['ip broadcast', /needs a netmask/, 1],
    ['host 00:0c:29:2e:aa:48', /needs "ether" in front/, 6],
    ['ether host 10.0.0.1', /is not an Ethernet address/, 12],
    ['ip host 2001:db8::1', /"ip" does not go with the IPv6 address/, 9],
    ['tcp host 10.0.0.1', /"tcp" does not go with "host"/, 10],
    ['ip proto tcp', /written \\tcp/, 10],
    ['udp ?', /unexpected character "\?"/, 5],
    [`${'('.repeat(500)}tcp${')'.repeat(500)}`, /levels of nesting/, 201],
  ];
  for (const [text, message, position] of cases) {
    assert.throws(
      () => new Filter(text),
      error => {
        assert.ok(error instanceof FilterError, text);
        assert.match(error.message, message, text);
        assert.equal(error.position, position, `position in "${text}"`);
        return true;
      },
      text,
    );
  }
});

test('any text compiles or is refused by a FilterError, and what compiles never throws', () => {
  const word = fc.constantFrom(
    ...['tcp', 'udp', 'ip', 'ip6', 'arp', 'ether', 'host', 'net', 'port', 'src', 'dst', 'and', 'or', 'not'],
    ...['(', ')', '[', ']', '=', '!=', '&', '/', '%', '-', '<<', ':', '10.0.0.3', '2001:db8::3', '80', '0'],
    ...['proto', '\\tcp', 'vlan', 'less', 'len', '00:0c:29:2e:aa:48', '0xffffffff', 'tcpflags', 'multicast'],
  );
  fc.assert(
    fc.property(fc.array(word, { maxLength: 10 }), fc.uint8Array({ maxLength: 70 }), (words, bytes) => {
      let filter: Filter;
      try {
        filter = new Filter(words.join(' '));
      } catch (error) {
        assert.ok(error instanceof FilterError, String(error));
        return;
      }
      filter.matches(bytes);
      for (const { frame } of samples) filter.matches(frame);
    }),
    { numRuns: 5000 },
  );
});

/** Frames that a filter may stumble over: cut short, tagged, not IP, with a header longer than the usual. */
function frames(): Uint8Array[] {
  const rarp = ethernetFrame(0x8035, new Uint8Array(28).fill(10));
  const llc = ethernetFrame(38, new Uint8Array(38).fill(0x42));
  const multicast = samples.map(({ frame }) => {
    const copy = frame.slice();
    copy.set([0x01, 0x00, 0x5e, 0, 0, 0x12]);
    return copy;
  });
  const vrrp = ethernetFrame(0x800, ipv4Packet(112, new Uint8Array(20)));
  const other = { mac: '02:00:00:00:00:fe', address: '192.168.77.5' };
  const gratuitous = arpFrame(1, other, other);
  const hopByHop = ethernetFrame(0x86dd, extensionHeader(58));
  const recorded = goldenExists('rewrite')
    ? goldenNames('rewrite').flatMap(name =>
        goldenJson<{ steps: { in?: string; out?: { hex: string }[] }[] }>(
          `rewrite/${name}.json`,
        ).steps.flatMap(step => [step.in ?? [], (step.out ?? []).map(out => out.hex)].flat(2)),
      )
    : [];
  return [
    ...samples.map(({ frame }) => frame),
    ...samples.flatMap(({ frame }) =>
      [13, 14, 24, 30, 34, 40, 47, 54].map(length => frame.subarray(0, length)),
    ),
    ...[rarp, llc, vrrp, gratuitous, hopByHop, ...multicast],
    ...recorded.map(hex => Uint8Array.from(Buffer.from(hex, 'hex'))),
  ];
}

const FILTERS = [
  ...['arp', 'rarp', 'ip', 'ip6', 'tcp', 'udp', 'icmp', 'icmp6', 'sctp', 'igmp', 'pim', 'vrrp', 'ah', 'esp'],
  ...['vlan', 'vlan 100', 'vlan 200', 'vlan 7', 'vlan and vlan', 'vlan 200 and vlan 100', 'not vlan'],
  ...['vlan and ip', 'ip or vlan and ip', 'vlan and host 10.0.0.3', 'vlan and tcp port 80', 'vlan and ip6'],
  ...['vlan 100 and tcp[tcpflags] & tcp-syn != 0', 'vlan and ether[12:2] = 0x8100', 'vlan and ip[8] = 64'],
  ...['ether host 02:00:00:00:00:01', 'ether src 02:00:00:00:00:fe', 'ether dst 02:00:00:00:02:07'],
  ...[
    'ether src or dst 02:00:00:00:00:01',
    'ether src and dst 02:00:00:00:00:01',
    'ether host 0200.0000.0001',
  ],
  ...['ether broadcast', 'broadcast', 'ether multicast', 'multicast', 'ip multicast', 'ip6 multicast'],
  ...[
    'ether proto 0x0806',
    'ether proto \\ip',
    'ether proto \\arp',
    'ether proto 0x86dd',
    'ether proto 0x42',
  ],
  ...['host 10.0.0.3', 'src host 10.0.0.3', 'dst host 10.0.0.3', 'src 10.0.0.3', 'dst 10.0.0.3'],
  ...['src or dst host 10.0.0.3', 'src and dst host 192.168.77.5', 'dst or src 10.0.0.3', 'host 172.16.1.51'],
  ...['ip host 10.0.0.3', 'arp host 172.16.1.51', 'rarp host 10.10.10.10', 'arp src host 192.168.77.5'],
  ...['host 2001:db8::3', 'src host 2001:db8::3', 'ip6 host 2001:db8::1', 'ip6 dst 2001:db8::3'],
  ...['net 10.0.0.0/24', 'net 10.0.0', 'net 10.0', 'net 10', 'src net 192.168.77.0/24', 'net 10.0.0.0/9'],
  ...['net 10.0.0.0 mask 255.255.255.0', 'dst net 10.0.1', 'net 0.0.0.0/0', 'host 10.0', 'arp net 172.16'],
  ...['net 2001:db8::/32', 'src net 2001:db8:77::/48', 'net 2001:db8::/33', 'ip6 net ::/0'],
  ...[
    'port 80',
    'tcp port 80',
    'udp port 80',
    'sctp port 80',
    'src port 40000',
    'dst port 80',
    'port http',
    'port domain',
    'port https',
  ],
  ...['tcp src port 80', 'udp dst port 80', 'src and dst port 80', 'src or dst port 8080', 'port 53'],
  ...[
    'portrange 80-90',
    'portrange 90-80',
    'tcp portrange 8000-9000',
    'src portrange 1-1000',
    'portrange 80',
  ],
  ...['dst portrange 80-8080', 'port 80 or 443', 'port 80 or 8080', 'tcp dst port 80 or 8080 or 53'],
  ...['port (80 or 8080)', 'not port 80', 'not port 80 and not arp', 'port 80 and not host 10.0.0.3'],
  ...['host 10.0.0.3 or 10.0.0.7', 'host 10.0.0.3 and 10.0.0.7', 'host 10.0.0.3 and not 192.168.77.5'],
  ...['host (10.0.0.3 or 10.0.0.7) and port 80', 'src host 10.0.0.7 or 10.0.0.8 and tcp'],
  ...[
    'ip proto 6',
    'ip proto \\tcp',
    'ip proto \\udp',
    'ip6 proto 17',
    'ip6 proto \\tcp',
    'proto 132',
    'ip proto 47',
  ],
  ...[
    'proto \\sctp',
    'ip proto 4 or 41 or 47',
    'ip6 proto 44',
    'ip6 proto 4',
    'ip6 proto 41',
    'ip proto 112',
  ],
  ...['less 60', 'greater 100', 'len > 100', 'len <= 60', 'len = 60 or len = 42', 'length != 74'],
  ...[
    'tcp[tcpflags] & tcp-syn != 0',
    'tcp[tcpflags] & (tcp-syn|tcp-fin) != 0',
    'tcp[13] = 2',
    'tcp[13] == 0x10',
  ],
  ...['tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn', 'tcp[2:2] = 80', 'tcp[0:2] > 1023', 'tcp[4:4] = 1000'],
  ...[
    'not tcp[13] = 2',
    'tcp[13] & 2 != 0 or udp',
    'udp[4:2] > 20',
    'udp[6:2] = 0',
    'icmp[icmptype] = icmp-echo',
  ],
  ...['icmp[icmptype] = icmp-unreach and icmp[icmpcode] = 4', 'icmp[0] != 8 and icmp[0] != 0'],
  ...[
    'icmp6[icmp6type] = icmp6-echo',
    'icmp6[0] = 1',
    'icmp6[icmp6type] = icmp6-packettoobig',
    'sctp[12] = 1',
  ],
  ...['ip[8] = 64', 'ip[8] < 64', 'ip[0] & 0xf > 5', '(ip[0] & 0xf) << 2 > 20', 'ip[6:2] & 0x1fff != 0'],
  ...['ip[6] & 0x40 != 0', 'ip[2:2] - ((ip[0] & 0xf) << 2) = 20', 'ip[9] = 17 and ip[6:2] & 0x3fff != 0'],
  ...['ip[16:4] = 0x0a000003', 'ip[12] = 10', 'ip6[6] = 44', 'ip6[7] < 64', 'ip6[4:2] > 60', 'arp[6:2] = 2'],
  ...[
    'ether[0] & 1 != 0',
    'ether[12:2] = 0x0800',
    'ether[6:4] = 0x02000000',
    'ether[60] = 0',
    'ether[59] = 0',
  ],
  ...[
    'not ether[60] = 0',
    'arp or ether[60] = 0',
    'ether[60] = 0 or arp',
    'ip or ip6[40] = 6',
    'not ip6[60] = 1',
  ],
  ...['tcp[((tcp[12] & 0xf0) >> 2):4] = 0x47455420', 'tcp[(tcp[12] >> 4) * 4:1] = 0x68', 'ip[ip[8]] = 0'],
  ...['ip[2:2] / 10 = 4', 'ip[2:2] % 10 = 0', 'ip[4:2] * 2 = 0x2468', 'ip[8] + 1 = 65', 'ip[8] - 65 > 0'],
  ...['ip[8] ^ 0xff = 191', 'ip[8] | 1 = 65', '-ip[8] = 0xffffffc0', 'len / ip[1] > 2', '1 = 1', '2 > 3'],
  ...['0x40 = ip[8]', 'ip[8] = 0100', 'ip[0:4] >> 24 = 0x45', 'ip[0:4] & 0xff000000 = 0x45000000'],
  ...[
    'tcp or udp and port 80',
    'port 80 and tcp or udp',
    'not tcp and not udp',
    '! ( tcp or udp )',
    'tcp && ! udp',
  ],
  ...['ip and not tcp or arp', 'not (ip or ip6)', 'not not tcp', '((tcp))', '(tcp or arp) and (len > 42)'],
  ...['ip6 and tcp', 'ip6 and port 80', 'ip6 and udp portrange 50-60', 'tcp and (port 80 or port 8080)'],
];

test('every frame is judged as libpcap judges it', {
  skip: missing('tcpdump'),
}, () => {
  const all = frames();
  // The time says which frame it is.
  const file = writePcap(
    all.map((bytes, time) => ({ time: 1000n * BigInt(time), bytes, length: bytes.length })),
  );
  for (const text of FILTERS) {
    const run = spawnSync('tcpdump', ['-O', '-r', '-', '-n', '-w', '-', '--', text], {
      input: file,
      maxBuffer: 1 << 28,
    });
    assert.equal(run.status, 0, `tcpdump refuses "${text}": ${run.stderr}`);
    const theirs = readPcap(run.stdout).map(({ time }) => Number(time / 1000n));
    const filter = new Filter(text);
    const ours = all.flatMap((bytes, index) => (filter.matches(bytes) ? [index] : []));
    const differing =
      ours.find(index => !theirs.includes(index)) ?? theirs.find(index => !ours.includes(index));
    const frame = differing === undefined ? '' : Buffer.from(all[differing] ?? []).toString('hex');
    assert.deepEqual(ours, theirs, `"${text}" differs in frame ${differing}: ${frame}`);
  }
});

const REFUSED = [
  ...[
    'tpc',
    'tcp and foo',
    'host',
    'host 10.0.0.256',
    'port 65536',
    'icmp port 80',
    'tcp port',
    '(tcp',
    'tcp)',
  ],
  ...['tcp udp', 'tcp[13', 'tcp[13:3] = 1', 'tcp[13]', 'len / 0 = 1', 'net 10.0.0.1/24', 'net 10.0.0.0/33'],
  ...['vlan 4096', 'host 00:0c:29:2e:aa:48', 'ip host 2001:db8::1', 'tcp host 10.0.0.1'],
  ...['ip proto tcp', 'udp ?', 'tcp or 443', 'and', 'not', '10.0.0.3', '80', 'port 80 or', 'tcp proto 6'],
  ...[
    'arp proto 6',
    'arp port 80',
    'src',
    'tcp src',
    'ether',
    'ip6 host 10.0.0.3',
    'port 80 or (443 or tcp)',
  ],
  ...[
    'tcp multicast',
    'less',
    'portrange a-b',
    'host 10.0.0.0/24',
    '1 +',
    'src or port 80',
    'ether host 10.0.0.3',
  ],
];

test('what libpcap refuses is refused', {
  skip: missing('tcpdump'),
}, () => {
  const empty = writePcap([]);
  for (const text of REFUSED) {
    const run = spawnSync('tcpdump', ['-O', '-r', '-', '-n', '-w', '-', '--', text], { input: empty });
    assert.notEqual(run.status, 0, `tcpdump takes "${text}"`);
    assert.throws(() => new Filter(text), FilterError, text);
  }
});
