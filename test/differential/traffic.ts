/**
 * Random frames: what clients send to services, what servers answer to the frames they were sent, ICMP errors about
 * either, fragments, and all of that spoiled.
 */
import type { Family } from '../../src/wire/address.ts';
import { EtherType, writeEthernet } from '../../src/wire/ethernet.ts';
import { fillIcmpChecksum, IcmpType, Icmpv6Type, UnreachableCode, writeIcmp } from '../../src/wire/icmp.ts';
import {
  fillIpv4Checksum,
  IPV4_DONT_FRAGMENT,
  IPV4_HEADER,
  IPV4_MORE_FRAGMENTS,
  Ipv4,
  Protocol,
  writeIpv4,
} from '../../src/wire/ipv4.ts';
import { IPV6_HEADER, writeIpv6 } from '../../src/wire/ipv6.ts';
import { Packet } from '../../src/wire/packet.ts';
import { fillSctpChecksum } from '../../src/wire/sctp.ts';
import {
  fillTcpChecksum,
  Tcp,
  type TcpFields,
  TcpFlag,
  tcpHeaderLength,
  writeTcp,
} from '../../src/wire/tcp.ts';
import { fillUdpChecksum, writeUdp } from '../../src/wire/udp.ts';
import type { Target } from './configuration.ts';
import type { Random } from './random.ts';
import { spoiled, tagged, withOptions } from './spoiled.ts';
import {
  CLIENTS,
  INTERFACES,
  type Interface,
  ip,
  OWN,
  ROUTERS,
  SERVERS,
  type SentFrame,
  VIPS,
} from './world.ts';

export interface ArrivingFrame {
  bytes: Uint8Array;
  on: Interface;
}

interface Flow {
  family: Family;
  client: Uint8Array;
  clientPort: number;
  virtual: Uint8Array;
  port: number;
  protocol: number;
}

interface Datagram {
  family: Family;
  source: Uint8Array;
  destination: Uint8Array;
  protocol: number;
  /** The transport header and what follows, without its checksum. */
  payload: Uint8Array;
  checksum?: 'right' | 'wrong' | 'none';
}

const FLOWS = 48;
const REMEMBERED = 32;
const STRANGER = Uint8Array.of(2, 0, 0, 0, 0, 0xfe);
const PROTOCOLS = { tcp: Protocol.tcp, udp: Protocol.udp, sctp: Protocol.sctp } as const;

const TCP_FLAGS = [
  ...[TcpFlag.syn, TcpFlag.syn, TcpFlag.syn, TcpFlag.ack, TcpFlag.ack, TcpFlag.ack, TcpFlag.ack, TcpFlag.ack],
  ...[TcpFlag.ack | TcpFlag.psh, TcpFlag.fin | TcpFlag.ack, TcpFlag.fin | TcpFlag.ack, TcpFlag.rst],
  ...[TcpFlag.rst | TcpFlag.ack, TcpFlag.syn | TcpFlag.ack, TcpFlag.syn | TcpFlag.fin, TcpFlag.fin, 0, 0xff],
  ...[TcpFlag.syn | TcpFlag.rst, TcpFlag.psh],
];
const SYN_OPTIONS = Uint8Array.of(2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 16, 0, 0, 0, 0, 1, 3, 3, 7);
const TIMESTAMPS = Uint8Array.of(1, 1, 8, 10, 0, 0, 0, 16, 0, 0, 0, 9);
const SACK = Uint8Array.of(1, 1, 5, 10, 0, 0, 0x13, 0x88, 0, 0, 0x17, 0x70);
const NO_OPTIONS = new Uint8Array(0);

/** Type and code; the last of each family are none that connections are looked up for. */
const ERRORS: Readonly<Record<Family, readonly (readonly [number, number])[]>> = {
  4: [
    [IcmpType.unreachable, UnreachableCode.port],
    [IcmpType.unreachable, UnreachableCode.host],
    [IcmpType.unreachable, UnreachableCode.fragmentationNeeded],
    [IcmpType.timeExceeded, 0],
    [IcmpType.sourceQuench, 0],
    [12, 0],
    [5, 1],
  ],
  6: [
    [Icmpv6Type.unreachable, 4],
    [Icmpv6Type.unreachable, 3],
    [Icmpv6Type.packetTooBig, 0],
    [Icmpv6Type.timeExceeded, 0],
    [4, 1],
    [128, 0],
  ],
};

/** The numbers that follow from a segment, so that handshakes come about: of servers, and of clients with a SYN proxy. */
function answerTo(
  { view, transport, networkEnd, tcpFlags }: Packet,
  random: Random,
): Pick<TcpFields, 'flags' | 'sequence' | 'acknowledgement'> {
  const data = networkEnd - transport - tcpHeaderLength(view, transport);
  const counted = data + (tcpFlags & TcpFlag.syn ? 1 : 0) + (tcpFlags & TcpFlag.fin ? 1 : 0);
  const isAnswered = (tcpFlags & TcpFlag.ack) !== 0;
  const numbers = {
    sequence: isAnswered ? view.getUint32(transport + Tcp.acknowledgement) : 5000 + random.below(3000),
    acknowledgement: (view.getUint32(transport + Tcp.sequence) + counted) >>> 0,
  };
  const opens = (tcpFlags & TcpFlag.syn) !== 0 && !isAnswered;
  if (opens)
    return { ...numbers, flags: random.chance(90) ? TcpFlag.syn | TcpFlag.ack : TcpFlag.rst | TcpFlag.ack };
  return { ...numbers, flags: random.pick(ANSWERS) };
}

const ANSWERS = [
  ...[TcpFlag.ack, TcpFlag.ack, TcpFlag.ack, TcpFlag.ack | TcpFlag.psh, TcpFlag.ack | TcpFlag.psh],
  ...[TcpFlag.fin | TcpFlag.ack, TcpFlag.rst, TcpFlag.rst | TcpFlag.ack],
];

export class Traffic {
  readonly #random: Random;
  readonly #targets: readonly Target[];
  readonly #flows: Flow[] = [];
  /** What went to servers and clients lately. */
  readonly #observed: SentFrame[] = [];
  /** Pieces of datagrams that are still to come. */
  readonly #pending: ArrivingFrame[] = [];
  readonly #packet = new Packet();

  constructor(random: Random, targets: readonly Target[]) {
    this.#random = random;
    this.#targets = targets;
  }

  /** Lets the traffic answer to what was sent. */
  observe(frames: readonly SentFrame[]): void {
    for (const frame of frames) {
      if (this.#observed.length < REMEMBERED) this.#observed.push(frame);
      else this.#observed[this.#random.below(REMEMBERED)] = frame;
    }
  }

  next(): ArrivingFrame {
    const random = this.#random;
    const pending = this.#pending.length > 0 && random.chance(60) ? this.#pending.shift() : undefined;
    if (pending) return pending;
    const frame = this.#whole();
    if (random.chance(4)) {
      const pieces = this.#fragments(frame);
      if (pieces.length > 1) {
        if (random.chance(20)) pieces.reverse();
        this.#pending.push(...pieces.slice(1));
        return pieces[0] as ArrivingFrame;
      }
    }
    const whole = random.chance(3) ? tagged(frame, random) : frame;
    return random.chance(10) ? spoiled(whole, random) : whole;
  }

  #whole(): ArrivingFrame {
    const random = this.#random;
    const choice = random.below(100);
    if (choice < 22 && this.#observed.length > 0) return this.#reply() ?? this.#fromClient();
    if (choice < 30 && this.#observed.length > 0) return this.#error() ?? this.#fromClient();
    if (choice < 33) return this.#stranger();
    return this.#fromClient();
  }

  #flow(): Flow {
    const random = this.#random;
    if (this.#flows.length > 0 && (this.#flows.length >= FLOWS || random.chance(85))) {
      // Most packets belong to few flows.
      const few = random.chance(60) ? Math.min(6, this.#flows.length) : this.#flows.length;
      return this.#flows[this.#flows.length - 1 - random.below(few)] as Flow;
    }
    const target = this.#targets.length > 0 ? random.pick(this.#targets) : undefined;
    const family = target?.family ?? 4;
    const flow: Flow = {
      family,
      client: ip(random.pick(CLIENTS[family])),
      clientPort: random.chance(97) ? 1024 + random.below(4) : random.pick([20, 80, 0, 65535]),
      virtual: ip(target && random.chance(95) ? target.key.address : random.pick(VIPS[family])),
      port: target && random.chance(92) ? target.key.port || 1000 : random.pick([80, 1, 20, 3000, 0]),
      protocol:
        target && random.chance(95)
          ? PROTOCOLS[target.key.protocol]
          : random.pick([Protocol.tcp, Protocol.udp]),
    };
    if (this.#flows.length >= FLOWS) this.#flows.shift();
    this.#flows.push(flow);
    return flow;
  }

  #fromClient(): ArrivingFrame {
    const flow = this.#flow();
    if (this.#flows.length >= FLOWS && this.#random.chance(1)) this.#flows.splice(0, FLOWS / 2);
    const { family, client: source, virtual: destination, protocol } = flow;
    const payload = this.#transport(protocol, flow.clientPort, flow.port);
    return this.#frame({ family, source, destination, protocol, payload }, INTERFACES[0]);
  }

  /**
   * A segment, datagram or SCTP packet.
   * @param to that it answers
   */
  #transport(protocol: number, sourcePort: number, destinationPort: number, to?: Packet): Uint8Array {
    const random = this.#random;
    const data = random.chance(90)
      ? random.below(40)
      : random.pick([536, 1200, 1240, 1360, 1440, 1460, 1480]);
    if (protocol === Protocol.tcp) {
      const answer = to && random.chance(70) ? answerTo(to, random) : undefined;
      const flags = answer?.flags ?? random.pick(TCP_FLAGS);
      const options = flags & TcpFlag.syn ? SYN_OPTIONS : random.pick([NO_OPTIONS, TIMESTAMPS, SACK]);
      const bytes = new Uint8Array(20 + options.length + data);
      writeTcp(new DataView(bytes.buffer), bytes, 0, {
        sourcePort,
        destinationPort,
        sequence: answer?.sequence ?? 1000 + random.below(3000),
        acknowledgement: answer?.acknowledgement ?? 5000 + random.below(3000),
        flags,
        window: 8192,
        options,
      });
      return bytes;
    }
    if (protocol === Protocol.udp) {
      const bytes = new Uint8Array(8 + data);
      writeUdp(new DataView(bytes.buffer), 0, sourcePort, destinationPort, bytes.length);
      return bytes;
    }
    const bytes = new Uint8Array(12 + 16);
    const view = new DataView(bytes.buffer);
    view.setUint16(0, sourcePort);
    view.setUint16(2, destinationPort);
    view.setUint8(12, random.pick([1, 1, 2, 0, 10, 11, 7, 8, 14, 6, 3]));
    view.setUint16(14, 16);
    return bytes;
  }

  /** What the receiver of an observed frame would answer: a server's reply if it was sent on. */
  #reply(): ArrivingFrame | undefined {
    const random = this.#random;
    const packet = this.#load(random.pick(this.#observed).bytes);
    if (!packet || !hasPorts(packet.protocol)) return undefined;
    const on = this.#observedOn(packet);
    const { family, bytes } = packet;
    const size = family === 4 ? 4 : 16;
    const source = bytes.slice(packet.destinationAt, packet.destinationAt + size);
    const destination = bytes.slice(packet.sourceAt, packet.sourceAt + size);
    const payload = this.#transport(packet.protocol, packet.destinationPort, packet.sourcePort, packet);
    return this.#frame(
      { family: family === 6 ? 6 : 4, source, destination, protocol: packet.protocol, payload },
      on,
    );
  }

  #observedOn(packet: Packet): Interface {
    return packet.bytes[packet.start + 10] === 1 ? INTERFACES[1] : INTERFACES[0];
  }

  /** An ICMP error about an observed frame, from its receiver or a router on either side. */
  #error(): ArrivingFrame | undefined {
    const random = this.#random;
    const packet = this.#load(random.pick(this.#observed).bytes);
    if (!packet) return undefined;
    const on = this.#observedOn(packet);
    const family = packet.family === 6 ? 6 : 4;
    const size = family === 4 ? 4 : 16;
    const quoted = this.#quote(packet);
    // Who is told is who sent the packet, or seldom somebody else.
    const destination = random.chance(97)
      ? packet.bytes.slice(packet.sourceAt, packet.sourceAt + size)
      : ip(random.pick([...VIPS[family], ...CLIENTS[family], ...SERVERS[family]]));
    const source = random.chance(50)
      ? packet.bytes.slice(packet.destinationAt, packet.destinationAt + size)
      : ip(random.pick([...ROUTERS[family], ...ROUTERS[family], ...CLIENTS[family], ...SERVERS[family]]));
    const [type, code] = random.pick(ERRORS[family]);
    const payload = new Uint8Array(8 + quoted.length);
    const mtu = random.pick([0, 68, 576, 1280, 1300, 1400, 1500, 65535]);
    payload.set(quoted, writeIcmp(new DataView(payload.buffer), 0, type, code, mtu));
    const protocol = family === 4 ? Protocol.icmp : Protocol.icmpv6;
    const frame = this.#frame({ family, source, destination, protocol, payload }, on);
    if (random.chance(4)) spoilChecksum(frame, family);
    return random.chance(3) ? { bytes: withOptions(frame.bytes, random), on } : frame;
  }

  /** As much of a packet as routers quote: all that fits, or its header and eight bytes, or anything. */
  #quote(packet: Packet): Uint8Array {
    const random = this.#random;
    const most = packet.family === 6 ? 1232 : 548;
    const header = packet.family === 6 ? IPV6_HEADER : IPV4_HEADER;
    const choice = random.below(100);
    const length = choice < 55 ? most : choice < 85 ? header + 8 : random.below(header + 40);
    const from = packet.bytes.slice(packet.network, Math.min(packet.networkEnd, packet.network + length));
    // One that came on by options or in pieces, or that a router on the way has changed.
    if (random.chance(4) && from.length > 0)
      from[random.below(Math.min(from.length, 44))] = random.below(256);
    return from;
  }

  /** What is no business of a service, or looks as if. */
  #stranger(): ArrivingFrame {
    const random = this.#random;
    const family: Family = random.chance(60) ? 4 : 6;
    const destination = ip(
      random.pick([...VIPS[family], ...OWN[family], ...SERVERS[family], ...CLIENTS[family]]),
    );
    const source = ip(random.pick([...CLIENTS[family], ...SERVERS[family]]));
    const on = random.pick(INTERFACES);
    const choice = random.below(4);
    if (choice === 0) {
      const payload = new Uint8Array(16);
      writeIcmp(new DataView(payload.buffer), 0, family === 4 ? 8 : 128, 0, 0x10001);
      const protocol = family === 4 ? Protocol.icmp : Protocol.icmpv6;
      return this.#frame({ family, source, destination, protocol, payload }, on);
    }
    if (choice === 1) {
      const protocol = random.pick([Protocol.ipv4, Protocol.gre, 50, 89, 255, 0, 1, 58]);
      return this.#frame({ family, source, destination, protocol, payload: new Uint8Array(24) }, on);
    }
    const protocol = random.pick([Protocol.tcp, Protocol.udp]);
    const payload = this.#transport(protocol, 1024 + random.below(4), random.pick([80, 443, 22, 53]));
    return this.#frame({ family, source, destination, protocol, payload }, on);
  }

  #frame(datagram: Datagram, on: Interface): ArrivingFrame {
    const random = this.#random;
    const { family, source, destination, protocol, payload } = datagram;
    const header = family === 4 ? IPV4_HEADER : IPV6_HEADER;
    const padding = random.chance(5) ? random.below(12) : 0;
    const bytes = new Uint8Array(14 + header + payload.length + padding);
    const view = new DataView(bytes.buffer);
    writeEthernet(bytes, 0, on.mac, STRANGER, family === 4 ? EtherType.ipv4 : EtherType.ipv6);
    const hops = random.chance(92) ? 64 : random.pick([255, 2, 1, 0]);
    const trafficClass = random.chance(80) ? 0 : random.below(256);
    const at = 14 + header;
    bytes.set(payload, at);
    if (family === 4) {
      writeIpv4(view, bytes, 14, {
        source,
        destination,
        protocol,
        totalLength: header + payload.length,
        ttl: hops,
        typeOfService: trafficClass,
        identification: random.below(65536),
        fragment: random.chance(60) ? IPV4_DONT_FRAGMENT : 0,
      });
    } else {
      writeIpv6(view, bytes, 14, {
        source,
        destination,
        nextHeader: protocol,
        payloadLength: payload.length,
        hopLimit: hops,
        trafficClass,
        flowLabel: random.chance(50) ? 0 : random.below(0x100000),
      });
    }
    this.#fillChecksum(view, family, protocol, at, payload.length);
    return { bytes, on };
  }

  #fillChecksum(view: DataView, family: Family, protocol: number, at: number, length: number): void {
    const random = this.#random;
    if (protocol === Protocol.tcp && length >= 20) fillTcpChecksum(view, family, 14, at, length);
    else if (protocol === Protocol.udp && length >= 8) {
      if (random.chance(90)) fillUdpChecksum(view, family, 14, at, length);
    } else if (protocol === Protocol.sctp) fillSctpChecksum(view, at, length);
    else if (protocol === Protocol.icmp || protocol === Protocol.icmpv6) {
      fillIcmpChecksum(view, family, 14, at, length);
    }
  }

  #load(frame: Uint8Array): Packet | undefined {
    const packet = this.#packet;
    return packet.load(frame) === 0 && packet.family !== 0 && !packet.isFragment ? packet : undefined;
  }

  /** The datagram in two or three pieces (IPv4). */
  #fragments({ bytes, on }: ArrivingFrame): ArrivingFrame[] {
    if (bytes[12] !== 8 || bytes[13] !== 0 || bytes[14] !== 0x45 || bytes.length < 60) return [];
    const total = (((bytes[16] as number) << 8) | (bytes[17] as number)) - IPV4_HEADER;
    if (total > bytes.length - 34 || total < 17) return [];
    const cut = 8 * (1 + this.#random.below(Math.floor((total - 1) / 8)));
    return [[0, cut] as const, [cut, total] as const].map(([from, to]) => {
      const piece = new Uint8Array(34 + to - from);
      piece.set(bytes.subarray(0, 34));
      piece.set(bytes.subarray(34 + from, 34 + to), 34);
      const view = new DataView(piece.buffer);
      view.setUint16(14 + Ipv4.totalLength, IPV4_HEADER + to - from);
      view.setUint16(14 + Ipv4.fragment, (from >>> 3) | (to < total ? IPV4_MORE_FRAGMENTS : 0));
      fillIpv4Checksum(view, 14);
      return { bytes: piece, on };
    });
  }
}

function spoilChecksum({ bytes }: ArrivingFrame, family: Family): void {
  const at = 14 + (family === 4 ? IPV4_HEADER : IPV6_HEADER) + 2;
  bytes[at] = (bytes[at] as number) ^ 0x55;
}

function hasPorts(protocol: number): boolean {
  return protocol === Protocol.tcp || protocol === Protocol.udp || protocol === Protocol.sctp;
}
