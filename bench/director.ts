/**
 * The director in memory, one core, 60-byte TCP packets through all of it: parse, look up, state, rewrite. The network
 * below it only counts. Flows are visited in another order than they were entered.
 */
import { Director, Verdict } from '../src/ipvs/director.ts';
import type { Network, NextHop } from '../src/ipvs/network.ts';
import type {
  DestinationSpecification,
  ForwardingMethod,
  ServiceSpecification,
} from '../src/ipvs/specification.ts';
import { writeEthernet } from '../src/wire/ethernet.ts';
import { Ipv4, Protocol, writeIpv4 } from '../src/wire/ipv4.ts';
import { HEADROOM, Packet } from '../src/wire/packet.ts';
import { fillTcpChecksum, TcpFlag, writeTcp } from '../src/wire/tcp.ts';
import { heading, nanoseconds, report } from './measure.ts';

const FRAME = 74;
/** Many short runs: the least of them is one that nothing else on the machine disturbed. */
const RUNS = 40;
const PACKETS = 250_000;
const VIP = Uint8Array.of(10, 0, 0, 3);
const MAC = Uint8Array.of(2, 0, 0, 0, 0, 1);

class CountingNetwork implements Network {
  sent = 0;
  readonly #hop: NextHop = {
    interfaceIndex: 1,
    sourceMac: MAC,
    destinationMac: MAC,
    resolved: true,
    mtu: 1500,
    sourceAddress: VIP,
  };

  isLocal(): boolean {
    return false;
  }

  nextHop(): NextHop {
    return this.#hop;
  }

  transmit(): void {
    this.sent++;
  }
}

const service: ServiceSpecification = {
  key: { protocol: 'tcp', address: '10.0.0.3', port: 80 },
  scheduler: 'wrr',
  schedulerFlags: 0,
  persistenceTimeout: 0,
  persistenceNetmask: '255.255.255.255',
  persistenceEngine: '',
  onePacket: false,
};

function server(number: number, method: ForwardingMethod): DestinationSpecification {
  return {
    address: `10.1.${number >>> 8}.${number & 255}`,
    port: method === 'masq' ? 8080 : 80,
    method,
    weight: 1 + (number % 4),
    upperThreshold: 0,
    lowerThreshold: 0,
    tunnelType: 'ipip',
    tunnelPort: 0,
    tunnelChecksum: 'nocsum',
  };
}

function makeDirector(
  scheduler: string,
  servers: number,
  method: ForwardingMethod,
  capacity: number,
): Director {
  const network = new CountingNetwork();
  const host = { isLocal: () => false, isBroadcast: () => false, interfaceMtu: () => 1500 };
  const director = new Director({ network, host, capacity, random: () => 0x2545f491 });
  director.administration.addService({ ...service, scheduler });
  for (let number = 1; number <= servers; number++) {
    director.administration.addDestination(service.key, server(number, method));
  }
  return director;
}

/** The client of a flow: an address in 172.16.0.0/12 and a port. */
const clientAddress = (flow: number): number => 0xac100000 + (flow >>> 6);
const clientPort = (flow: number): number => 1024 + (flow & 63);

/** A frame from client to VIP, 60 bytes of IP. */
function makeFrame(packet: Packet): void {
  const { bytes, view } = packet;
  const network = writeEthernet(bytes, HEADROOM, MAC, MAC, 0x0800);
  const transport = writeIpv4(view, bytes, network, {
    source: Uint8Array.of(172, 16, 0, 0),
    destination: VIP,
    protocol: Protocol.tcp,
    totalLength: 60,
    ttl: 64,
  });
  writeTcp(view, bytes, transport, {
    sourcePort: 1024,
    destinationPort: 80,
    sequence: 1,
    acknowledgement: 1,
    flags: TcpFlag.ack,
    window: 1000,
    options: new Uint8Array(20).fill(1),
  });
  fillTcpChecksum(view, 4, network, transport, 40);
}

const NETWORK = HEADROOM + 14;
const TRANSPORT = NETWORK + 20;

/**
 * Turns the frame into one of a flow, with stores as wide as the director's loads: narrower ones would stall them, which
 * no frame from a network card does. The IP checksum is right again afterwards, as the director checks it.
 */
function setFlow(packet: Packet, flow: number, flags: number): void {
  const { view } = packet;
  const address = clientAddress(flow);
  view.setUint32(NETWORK + Ipv4.source, address);
  view.setUint32(NETWORK + Ipv4.destination, 0x0a000003);
  view.setUint32(TRANSPORT, (clientPort(flow) << 16) | 80);
  view.setUint8(TRANSPORT + 13, flags);
  let sum = 0x4500 + 60 + (64 << 8) + Protocol.tcp + 0x0a00 + 0x0003 + (address >>> 16) + (address & 0xffff);
  sum = (sum & 0xffff) + (sum >>> 16);
  const checksum = ~((sum & 0xffff) + (sum >>> 16)) & 0xffff;
  view.setUint32(NETWORK + Ipv4.ttl, (64 << 24) | (Protocol.tcp << 16) | checksum);
}

/** The floor: what making the packets costs without parsing and without a director. */
function floor(packet: Packet, flows: number, packets: number): number {
  return nanoseconds(packets, RUNS, () => {
    for (let count = 0, flow = 0; count < packets; count++) {
      setFlow(packet, flow, TcpFlag.ack);
      flow = nextFlow(flow, flows);
    }
  });
}

/** A step that visits all flows in another order than they were entered: a prime, no divisor of their number. */
const STEP = 48271;

function nextFlow(flow: number, flows: number): number {
  const next = flow + (flows > STEP ? STEP : STEP % flows);
  return next >= flows ? next - flows : next;
}

function established(
  method: ForwardingMethod,
  flows: number,
  packets: number,
): { net: number; floor: number } {
  const director = makeDirector('wrr', 16, method, Math.max(1024, flows));
  const packet = new Packet();
  makeFrame(packet);
  let now = 1000;
  for (const flags of [TcpFlag.syn, TcpFlag.ack]) {
    for (let flow = 0; flow < flows; flow++) {
      setFlow(packet, flow, flags);
      packet.parse(HEADROOM, FRAME);
      if (director.process(packet, 1, now) !== Verdict.taken)
        throw new Error(`flow ${flow} was not forwarded`);
    }
  }
  const base = floor(packet, flows, packets);
  const gross = nanoseconds(packets, RUNS, () => {
    for (let count = 0, flow = 0; count < packets; count++) {
      setFlow(packet, flow, TcpFlag.ack);
      packet.parse(HEADROOM, FRAME);
      director.process(packet, 1, now);
      flow = nextFlow(flow, flows);
    }
    now += 10;
  });
  return { net: gross - base, floor: base };
}

function establishedTable(): void {
  heading('Established TCP, nanoseconds a packet net of the floor (the floor: making the packet)');
  for (const [flows, target] of [
    [1, 120],
    [10_000, 250],
    [1_000_000, 500],
  ] as const) {
    const direct = established('gate', flows, PACKETS);
    const translated = established('masq', flows, PACKETS);
    const label = flows === 1 ? '1 flow' : `${flows.toLocaleString('en')} flows`;
    report({ what: `floor, ${label}`, value: direct.floor, unit: 'ns' });
    report({ what: `DR, ${label}`, value: direct.net, unit: 'ns', target });
    report({
      what: `NAT client → server, ${label}`,
      value: translated.net,
      unit: 'ns',
      target: 1.4 * target,
    });
    report({ what: `NAT over DR, ${label}`, value: translated.net / direct.net, unit: 'times', target: 1.4 });
  }
}

/** New connections: every packet a SYN of another client. */
function newConnections(): void {
  heading('New connections, nanoseconds each');
  for (const [scheduler, servers, target] of [
    ['wrr', 16, 1500],
    ['wlc', 100, 3000],
  ] as const) {
    const connections = 400_000;
    const packet = new Packet();
    makeFrame(packet);
    let least = Number.POSITIVE_INFINITY;
    for (let round = 0; round < 5; round++) {
      const director = makeDirector(scheduler, servers, 'gate', connections);
      const value = nanoseconds(connections, 1, () => {
        for (let count = 0, flow = 0; count < connections; count++) {
          setFlow(packet, flow, TcpFlag.syn);
          packet.parse(HEADROOM, FRAME);
          director.process(packet, 1, 1000);
          flow = nextFlow(flow, connections);
        }
      });
      if (director.connections.size !== connections)
        throw new Error(`only ${director.connections.size} connections`);
      least = Math.min(least, value);
    }
    report({ what: `${scheduler} over ${servers} servers`, value: least, unit: 'ns', target });
  }
}

/** What a SYN proxy does for a flood: SYNs of as many clients, and acknowledgements of cookies that were guessed. */
function synProxy(): void {
  heading('SYN proxy, nanoseconds a packet net of making it');
  const director = makeDirector('wrr', 16, 'masq', 1024);
  director.administration.editService({ ...service, synProxy: true });
  const packet = new Packet();
  makeFrame(packet);
  const make = (flow: number, flags: number): void => {
    setFlow(packet, flow, flags);
    fillTcpChecksum(packet.view, 4, NETWORK, TRANSPORT, 40);
  };
  const floorOf = (flags: number): number =>
    nanoseconds(PACKETS, RUNS, () => {
      for (let flow = 0; flow < PACKETS; flow++) make(flow, flags);
    });
  for (const [what, flags, expected] of [
    ['a SYN, answered with a cookie', TcpFlag.syn, Verdict.taken],
    ['an acknowledgement without a cookie, dropped', TcpFlag.ack, Verdict.dropped],
  ] as const) {
    const gross = nanoseconds(PACKETS, RUNS, () => {
      for (let flow = 0; flow < PACKETS; flow++) {
        make(flow, flags);
        packet.parse(HEADROOM, FRAME);
        if (director.process(packet, 1, 1000) !== expected) throw new Error(`${what}: not so`);
      }
    });
    report({ what, value: gross - floorOf(flags), unit: 'ns' });
  }
  if (director.connections.size > 0) throw new Error('a SYN left a connection');
}

/** Heap that a million packets of established connections leave behind, and what a million connections take. */
function memory(): void {
  heading('Memory');
  const collect = globalThis.gc;
  const packet = new Packet();
  makeFrame(packet);
  const before = usage();
  const director = makeDirector('wrr', 16, 'gate', 1_000_000);
  for (const flags of [TcpFlag.syn, TcpFlag.ack]) {
    for (let flow = 0; flow < 1_000_000; flow++) {
      setFlow(packet, flow, flags);
      packet.parse(HEADROOM, FRAME);
      director.process(packet, 1, 1000);
    }
  }
  report({ what: 'a million connections', value: (usage() - before) / 1e6, unit: 'MB', target: 160 });
  if (!collect) return;
  const send = (): void => {
    for (let count = 0, flow = 0; count < 1_000_000; count++) {
      setFlow(packet, flow, TcpFlag.ack);
      packet.parse(HEADROOM, FRAME);
      director.process(packet, 1, 1000);
      flow = nextFlow(flow, 1_000_000);
    }
  };
  send();
  collect();
  const heap = process.memoryUsage().heapUsed;
  send();
  const grown = process.memoryUsage().heapUsed - heap;
  report({
    what: 'heap allocated by a packet of an established connection',
    value: grown / 1_000_000,
    unit: 'bytes',
    target: 1,
  });
}

/** Bytes in use after a collection. The second one frees what finalizers of the first let go. */
function usage(): number {
  globalThis.gc?.();
  globalThis.gc?.();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

export function directorBenchmark(): void {
  memory();
  establishedTable();
  newConnections();
  synProxy();
}
