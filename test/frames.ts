/** Valid frames of every kind that `src/wire` knows, built by it, for tests to read, cut and spoil. */
import { parseAddress, parseMac } from '../src/wire/address.ts';
import { ArpOperation, writeArp } from '../src/wire/arp.ts';
import { BROADCAST_MAC, EtherType, writeEthernet } from '../src/wire/ethernet.ts';
import { fillIcmpChecksum, ICMP_HEADER, IcmpType, Icmpv6Type, writeIcmp } from '../src/wire/icmp.ts';
import { IPV4_MORE_FRAGMENTS, Protocol, writeIpv4 } from '../src/wire/ipv4.ts';
import { writeIpv6 } from '../src/wire/ipv6.ts';
import { fillSctpChecksum } from '../src/wire/sctp.ts';
import { fillTcpChecksum, type TcpFields, TcpFlag, writeTcp } from '../src/wire/tcp.ts';
import { fillUdpChecksum, writeUdp } from '../src/wire/udp.ts';

export interface SampleFrame {
  name: string;
  frame: Uint8Array;
}

const CLIENT_MAC = mac('00:50:56:c0:00:08');
const DIRECTOR_MAC = mac('02:00:00:00:00:05');
const CLIENT = ip('10.0.0.1');
const VIP = ip('10.0.0.3');
const CLIENT6 = ip('2001:db8::1');
const VIP6 = ip('2001:db8::3');

function mac(text: string): Uint8Array {
  const bytes = parseMac(text);
  if (!bytes) throw new RangeError(text);
  return bytes;
}

function ip(text: string): Uint8Array {
  const bytes = parseAddress(text);
  if (!bytes) throw new RangeError(text);
  return bytes;
}

function text(content: string): Uint8Array {
  return new TextEncoder().encode(content);
}

function bytesOf(...parts: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** An Ethernet frame around `payload`, with 802.1Q tags of these VLAN numbers, the outermost first. */
export function ethernetFrame(
  etherType: number,
  payload: Uint8Array,
  vlans: readonly number[] = [],
): Uint8Array {
  const header = new Uint8Array(14);
  writeEthernet(header, 0, DIRECTOR_MAC, CLIENT_MAC, etherType);
  const tags = vlans.map((vlan, index) => {
    const outermostOfTwo = vlans.length > 1 && index === 0;
    const type = outermostOfTwo ? EtherType.serviceVlan : EtherType.vlan;
    return Uint8Array.of(type >>> 8, type & 0xff, vlan >>> 8, vlan & 0xff);
  });
  return bytesOf(header.subarray(0, 12), ...tags, header.subarray(12), payload);
}

/** An IPv4 packet; `fragment` is the whole flags-and-offset field, `options` whole words of header options. */
export function ipv4Packet(
  protocol: number,
  payload: Uint8Array,
  { fragment = 0, ttl = 64, identification = 0x1234 } = {},
): Uint8Array {
  const bytes = new Uint8Array(20 + payload.length);
  const at = writeIpv4(new DataView(bytes.buffer), bytes, 0, {
    source: CLIENT,
    destination: VIP,
    protocol,
    totalLength: bytes.length,
    ttl,
    identification,
    fragment,
  });
  bytes.set(payload, at);
  return bytes;
}

/** An IPv6 packet; `payload` may begin with extension headers. */
export function ipv6Packet(nextHeader: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(40 + payload.length);
  const at = writeIpv6(new DataView(bytes.buffer), bytes, 0, {
    source: CLIENT6,
    destination: VIP6,
    nextHeader,
    payloadLength: payload.length,
    hopLimit: 64,
    trafficClass: 0x10,
    flowLabel: 0xabcde,
  });
  bytes.set(payload, at);
  return bytes;
}

/** Fills a transport checksum over the addresses that the packets above carry. */
function withPseudoHeader(
  family: 4 | 6,
  segment: Uint8Array,
  fill: (view: DataView, family: 4 | 6, network: number, at: number, length: number) => void,
): Uint8Array {
  const packet = family === 4 ? ipv4Packet(0, segment) : ipv6Packet(0, segment);
  const at = packet.length - segment.length;
  fill(new DataView(packet.buffer), family, 0, at, segment.length);
  return packet.slice(at);
}

export function tcpSegment(
  family: 4 | 6,
  fields: Partial<TcpFields> = {},
  data: Uint8Array = new Uint8Array(),
): Uint8Array {
  const bytes = new Uint8Array(20 + (fields.options?.length ?? 0) + data.length);
  const at = writeTcp(new DataView(bytes.buffer), bytes, 0, {
    sourcePort: 40000,
    destinationPort: 80,
    sequence: 1000,
    acknowledgement: 0,
    flags: TcpFlag.syn,
    window: 64240,
    ...fields,
  });
  bytes.set(data, at);
  return withPseudoHeader(family, bytes, fillTcpChecksum);
}

export function udpDatagram(
  family: 4 | 6,
  data: Uint8Array,
  sourcePort = 40000,
  destinationPort = 53,
): Uint8Array {
  const bytes = new Uint8Array(8 + data.length);
  bytes.set(data, writeUdp(new DataView(bytes.buffer), 0, sourcePort, destinationPort, bytes.length));
  return withPseudoHeader(family, bytes, fillUdpChecksum);
}

export function icmpMessage(
  family: 4 | 6,
  type: number,
  code: number,
  rest: number,
  body: Uint8Array,
): Uint8Array {
  const bytes = new Uint8Array(ICMP_HEADER + body.length);
  bytes.set(body, writeIcmp(new DataView(bytes.buffer), 0, type, code, rest));
  return withPseudoHeader(family, bytes, fillIcmpChecksum);
}

/** An SCTP packet with one chunk of this type. */
export function sctpPacket(chunkType: number, value: Uint8Array): Uint8Array {
  const length = 4 + value.length;
  const bytes = new Uint8Array(12 + length + (-length & 3));
  const view = new DataView(bytes.buffer);
  view.setUint16(0, 40000);
  view.setUint16(2, 3868);
  view.setUint32(4, 0xcafe0001);
  view.setUint8(12, chunkType);
  view.setUint16(14, length);
  bytes.set(value, 16);
  fillSctpChecksum(view, 0, bytes.length);
  return bytes;
}

/** The options a Linux SYN carries: MSS 1460, SACK permitted, timestamps, window scale 7. */
export const SYN_OPTIONS = Uint8Array.of(
  ...[2, 4, 0x05, 0xb4],
  ...[4, 2],
  ...[8, 10, 0, 0, 0, 16, 0, 0, 0, 0],
  ...[1],
  ...[3, 3, 7],
);

/** ARP as it goes over the wire: 42 bytes, or padded to the shortest frame. */
export function arpFrame(
  operation: number,
  sender: { mac: string; address: string },
  target: { mac: string; address: string },
  padded = false,
): Uint8Array {
  const bytes = new Uint8Array(padded ? 60 : 42);
  const destination = operation === ArpOperation.request ? BROADCAST_MAC : mac(target.mac);
  const at = writeEthernet(bytes, 0, destination, mac(sender.mac), EtherType.arp);
  writeArp(bytes, at, {
    operation,
    senderMac: sender.mac,
    senderAddress: sender.address,
    targetMac: target.mac,
    targetAddress: target.address,
  });
  return bytes;
}

/** IPv6 extension headers: hop-by-hop, routing, destination options and fragment headers, chained by the caller. */
export function extensionHeader(next: number, words = 1): Uint8Array {
  const bytes = new Uint8Array(8 * words);
  bytes[0] = next;
  bytes[1] = words - 1;
  // PadN over the rest keeps it valid as options.
  bytes[2] = 1;
  bytes[3] = bytes.length - 4;
  return bytes;
}

export function fragmentHeader(
  next: number,
  offset: number,
  more: boolean,
  identification = 0x01020304,
): Uint8Array {
  const bytes = new Uint8Array(8);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, next);
  view.setUint16(2, offset | (more ? 1 : 0));
  view.setUint32(4, identification);
  return bytes;
}

/** One or more frames of every kind; each parses and each checksum in them is right. */
export function sampleFrames(): SampleFrame[] {
  const { ipv4, ipv6 } = EtherType;
  const request = text('GET / HTTP/1.1\r\nHost: blog.example.com\r\n\r\n');
  const syn4 = ipv4Packet(Protocol.tcp, tcpSegment(4, { options: SYN_OPTIONS }));
  const syn6 = ipv6Packet(Protocol.tcp, tcpSegment(6, { options: SYN_OPTIONS }));
  const query = udpDatagram(4, text('who is it?'));
  const big = udpDatagram(4, new Uint8Array(40).fill(7));
  const big6 = udpDatagram(6, new Uint8Array(40).fill(7));
  const padded = new Uint8Array(60);
  padded.set(ethernetFrame(ipv4, ipv4Packet(Protocol.tcp, tcpSegment(4, { flags: TcpFlag.ack }))));
  const chained = bytesOf(
    extensionHeader(Protocol.routing, 2),
    extensionHeader(Protocol.destinationOptions),
    extensionHeader(Protocol.udp),
    udpDatagram(6, text('far')),
  );
  const m01 = { mac: '00:0c:29:2e:aa:48', address: '172.16.1.61' };
  const db01 = { mac: '00:0c:29:c7:5d:dd', address: '172.16.1.51' };
  const unknown = { ...db01, mac: '00:00:00:00:00:00' };
  const frames: [string, Uint8Array][] = [
    ['arp request', arpFrame(ArpOperation.request, m01, unknown)],
    ['arp reply, padded', arpFrame(ArpOperation.reply, db01, m01, true)],
    ['tcp SYN with options', ethernetFrame(ipv4, syn4)],
    ['tcp ACK, padded', padded],
    [
      'tcp data',
      ethernetFrame(
        ipv4,
        ipv4Packet(Protocol.tcp, tcpSegment(4, { flags: TcpFlag.ack | TcpFlag.psh }, request)),
      ),
    ],
    ['udp', ethernetFrame(ipv4, ipv4Packet(Protocol.udp, query))],
    [
      'icmp echo',
      ethernetFrame(
        ipv4,
        ipv4Packet(Protocol.icmp, icmpMessage(4, IcmpType.echoRequest, 0, 0x00010002, text('abcdefgh'))),
      ),
    ],
    [
      'icmp port unreachable',
      ethernetFrame(ipv4, ipv4Packet(Protocol.icmp, icmpMessage(4, IcmpType.unreachable, 3, 0, syn4))),
    ],
    ['sctp INIT', ethernetFrame(ipv4, ipv4Packet(Protocol.sctp, sctpPacket(1, new Uint8Array(16).fill(1))))],
    [
      'first fragment',
      ethernetFrame(ipv4, ipv4Packet(Protocol.udp, big.subarray(0, 24), { fragment: IPV4_MORE_FRAGMENTS })),
    ],
    ['last fragment', ethernetFrame(ipv4, ipv4Packet(Protocol.udp, big.subarray(24), { fragment: 3 }))],
    ['ip in ip', ethernetFrame(ipv4, ipv4Packet(Protocol.ipv4, syn4))],
    ['vlan', ethernetFrame(ipv4, syn4, [100])],
    ['vlan in vlan', ethernetFrame(ipv4, ipv4Packet(Protocol.udp, query), [200, 100])],
    ['tcp6 SYN with options', ethernetFrame(ipv6, syn6)],
    ['udp6', ethernetFrame(ipv6, ipv6Packet(Protocol.udp, udpDatagram(6, text('who is it?'))))],
    ['udp6 behind three extension headers', ethernetFrame(ipv6, ipv6Packet(Protocol.hopByHop, chained))],
    [
      'icmp6 echo',
      ethernetFrame(
        ipv6,
        ipv6Packet(Protocol.icmpv6, icmpMessage(6, Icmpv6Type.echoRequest, 0, 0x00010002, text('abcdefgh'))),
      ),
    ],
    [
      'icmp6 neighbor solicitation',
      ethernetFrame(
        ipv6,
        ipv6Packet(
          Protocol.icmpv6,
          icmpMessage(
            6,
            Icmpv6Type.neighborSolicitation,
            0,
            0,
            bytesOf(VIP6, Uint8Array.of(1, 1), CLIENT_MAC),
          ),
        ),
      ),
    ],
    [
      'icmp6 packet too big',
      ethernetFrame(
        ipv6,
        ipv6Packet(Protocol.icmpv6, icmpMessage(6, Icmpv6Type.packetTooBig, 0, 1400, syn6)),
      ),
    ],
    [
      'first fragment, IPv6',
      ethernetFrame(
        ipv6,
        ipv6Packet(Protocol.fragment, bytesOf(fragmentHeader(Protocol.udp, 0, true), big6.subarray(0, 24))),
      ),
    ],
    [
      'last fragment, IPv6, in a vlan',
      ethernetFrame(
        ipv6,
        ipv6Packet(Protocol.fragment, bytesOf(fragmentHeader(Protocol.udp, 24, false), big6.subarray(24))),
        [100],
      ),
    ],
    [
      'atomic fragment, IPv6',
      ethernetFrame(
        ipv6,
        ipv6Packet(Protocol.fragment, bytesOf(fragmentHeader(Protocol.tcp, 0, false), tcpSegment(6))),
      ),
    ],
    ['sctp6 DATA', ethernetFrame(ipv6, ipv6Packet(Protocol.sctp, sctpPacket(0, new Uint8Array(13).fill(2))))],
  ];
  return frames.map(([name, frame]) => ({ name, frame }));
}
