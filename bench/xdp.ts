/**
 * The XDP program, net nanoseconds a packet by BPF_PROG_TEST_RUN: 60-byte frames of 1, 10,000 and a million flows, in
 * another order than they were entered. Each figure is the least of several runs less the least of the runs of an empty
 * program made between them; the median of the pairs stands beside it.
 */
import { writeFileSync } from 'node:fs';
import { buildBpf } from '../bpf/build.ts';
import { pinThread } from '../src/datapath/ffi/libc.ts';
import { ProgramConfiguration } from '../src/datapath/xdp/program-configuration.ts';
import { Handling, type TestBed, withTestBed } from '../src/datapath/xdp/test-bed.ts';
import type { Route, Routed } from '../src/datapath/xdp/ways.ts';
import { ConnectionTable, EXTENSION_WORDS, Extension } from '../src/ipvs/connections.ts';
import { DestinationTable } from '../src/ipvs/destinations.ts';
import { Director, Verdict } from '../src/ipvs/director.ts';
import type { NextHop } from '../src/ipvs/network.ts';
import type { ForwardingMethod, ServiceSpecification } from '../src/ipvs/specification.ts';
import { formatAddress } from '../src/wire/address.ts';
import { fillIpv4Checksum } from '../src/wire/ipv4.ts';
import { HEADROOM, Packet } from '../src/wire/packet.ts';
import { TcpFlag } from '../src/wire/tcp.ts';
import { FlowGenerator, type FlowList, FRAME, type FrameShape, isInterruption } from './flows.ts';

const HZ = 250;
const NOW = 10_000_000;
const VIP = Uint8Array.of(10, 0, 0, 3);
const ELSEWHERE = Uint8Array.of(10, 0, 0, 99);
const DIRECTOR_MAC = Uint8Array.of(2, 0, 0, 0, 0, 1);
const NEIGHBOUR_MAC = Uint8Array.of(2, 0, 0, 0, 2, 7);
const INTERFACE = 2;
const CLIENT_PORTS = 64;
const SERVERS = 16;
const LOCAL_ADDRESSES = 24;
/** Steps through the flows in another order; a prime that no number of flows here is a multiple of. */
const STEP = 48_271;
const MILLION = 1_000_000;
/** Packets of a run with few flows, and how many such runs take the place of one long one. */
const SHORT_RUN = 100_000;
const SHORT_RUNS = 5;

/** Which measurements are made. */
export interface Selection {
  /** Part of what a measurement is called; empty: all. */
  only: string;
  /** Numbers of flows, of connections and so on; empty: all. */
  flows: readonly number[];
  /** Repeats of each. */
  runs: number;
  /** The program's object. Default: the one that is built from the sources. */
  object?: string;
}

let selection: Selection = { only: '', flows: [], runs: 9 };

function isSelected(what: string, count: number): boolean {
  const { only, flows } = selection;
  return what.includes(only) && (flows.length === 0 || flows.includes(count));
}

/** A network of one neighbour, who is the way to everybody. */
class OneNeighbour implements Routed {
  readonly #hop: NextHop = {
    interfaceIndex: INTERFACE,
    sourceMac: DIRECTOR_MAC,
    destinationMac: NEIGHBOUR_MAC,
    resolved: true,
    mtu: 1500,
    sourceAddress: Uint8Array.of(10, 0, 0, 1),
  };

  isLocal(): boolean {
    return false;
  }

  nextHop(): NextHop {
    return this.#hop;
  }

  transmit(): void {}

  routes(): Route[] {
    return [{ prefix: new Uint8Array(4), length: 0, hop: this.#hop }];
  }
}

export interface Setting {
  method: ForwardingMethod;
  protocol: 'tcp' | 'udp';
  scheduler: string;
  /** Connections the table has room for. */
  capacity: number;
  services: number;
  servers: number;
  persistent: boolean;
}

const DEFAULT: Setting = {
  method: 'gate',
  protocol: 'tcp',
  scheduler: 'wrr',
  capacity: 1024,
  services: 1,
  servers: SERVERS,
  persistent: false,
};

export interface Figure {
  /** Nanoseconds a packet: least and median. */
  net: number;
  median: number;
}

/** A director with its program, and flows through them. */
export class Rig {
  readonly bed: TestBed;
  readonly generator: FlowGenerator;
  readonly setting: Setting;
  director: Director;
  #configuration: ProgramConfiguration;

  constructor(bed: TestBed, generator: FlowGenerator, setting: Setting) {
    this.bed = bed;
    this.generator = generator;
    this.setting = setting;
    [this.director, this.#configuration] = this.#make();
  }

  #make(): [Director, ProgramConfiguration] {
    const { fastPath } = this.bed;
    const network = new OneNeighbour();
    const destinations = new DestinationTable(fastPath.destinationCapacity, fastPath.destinationMemory);
    let state = 1;
    const director = new Director({
      network,
      host: { isLocal: () => false, isBroadcast: () => false, interfaceMtu: () => 1500 },
      destinations,
      connections: new ConnectionTable({
        capacity: fastPath.capacity,
        destinations,
        hz: HZ,
        memory: fastPath.connectionMemory,
        seed: fastPath.control.seed,
      }),
      random: () => {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        return state;
      },
    });
    for (let service = this.setting.services - 1; service >= 0; service--)
      this.#addService(director, service);
    const configuration = new ProgramConfiguration(fastPath, director);
    configuration.write();
    configuration.refresh();
    fastPath.control.stopClock(director.connections.tick(NOW));
    return [director, configuration];
  }

  /** Empties all tables and sets up the same again. */
  renew(): void {
    this.bed.fastPath.clear();
    [this.director, this.#configuration] = this.#make();
  }

  /** The first service has the servers that are asked for, the others one each: they are only there. */
  #addService(director: Director, number: number): void {
    const { method, protocol, scheduler, servers, persistent } = this.setting;
    const address = number === 0 ? VIP : Uint8Array.of(10, 2, number >>> 8, number & 255);
    const key = { protocol, address: formatAddress(address), port: 80 } as const;
    const service: ServiceSpecification = {
      key,
      scheduler,
      schedulerFlags: 0,
      persistenceTimeout: persistent ? 300 : 0,
      persistenceNetmask: '255.255.255.255',
      persistenceEngine: '',
      onePacket: false,
      ...(method === 'fullnat'
        ? {
            localAddresses: Array.from({ length: LOCAL_ADDRESSES }, (_, index) => `10.3.0.${index + 1}`),
            clientAddress: 'none',
          }
        : {}),
    };
    director.administration.addService(service);
    const count = number === 0 ? servers : 1;
    for (let server = 1; server <= count; server++) {
      director.administration.addDestination(key, {
        address: `10.1.${server >>> 8}.${server & 255}`,
        port: method === 'masq' || method === 'fullnat' ? 8080 : 80,
        method,
        weight: 1 + (server % 4),
        upperThreshold: 0,
        lowerThreshold: 0,
        tunnelType: 'ipip',
        tunnelPort: 0,
        tunnelChecksum: 'nocsum',
      });
    }
  }

  /** What clients send. */
  shape(tcpFlags: number): FrameShape {
    return {
      sourceMac: NEIGHBOUR_MAC,
      destinationMac: DIRECTOR_MAC,
      protocol: this.setting.protocol,
      tcpFlags,
      address: VIP,
      varies: 'source',
    };
  }

  /** Enters the connections of flows by packets through the director, in the order of the flows. */
  fill(flows: FlowList): void {
    const packet = new Packet();
    for (const tcpFlags of this.setting.protocol === 'tcp' ? [TcpFlag.syn, TcpFlag.ack] : [0]) {
      const frame = this.generator.shape(this.shape(tcpFlags));
      for (let flow = 0; flow < flows.ports.length; flow++) {
        const { view } = packet;
        packet.bytes.set(frame, HEADROOM);
        view.setUint32(HEADROOM + 26, flows.addresses[flow] as number, true);
        view.setUint32(HEADROOM + 34, flows.ports[flow] as number, true);
        fillIpv4Checksum(view, HEADROOM + 14);
        packet.parse(HEADROOM, FRAME);
        const verdict = this.director.process(packet, INTERFACE, NOW);
        if (verdict !== Verdict.taken) throw new Error(`flow ${flow} was not forwarded (${verdict})`);
      }
    }
    this.#configuration.takeCounts();
  }

  /** The flows of the servers' answers, in the same order. */
  replies(flows: FlowList): { flows: FlowList; address: Uint8Array } {
    const { connections, destinations } = this.director;
    const addresses = new Uint32Array(flows.ports.length);
    const ports = new Uint32Array(flows.ports.length);
    const slots = new Map<number, number>();
    const words = new Uint32Array(connections.words.buffer);
    for (let slot = 0; slot < connections.highWater; slot++) {
      if (connections.isUsed(slot))
        slots.set(flowNumber(words[slot * 16 + 4] ?? 0, words[slot * 16 + 3] ?? 0), slot);
    }
    let server = -1;
    for (let flow = 0; flow < flows.ports.length; flow++) {
      const clientAddress = flows.addresses[flow] as number;
      const clientPorts = flows.ports[flow] as number;
      const slot = slots.get(flowNumber(clientAddress, clientPorts)) ?? -1;
      server = connections.destination(slot);
      const serverPort = connections.destinationPortRaw(slot);
      if (this.setting.method === 'fullnat') {
        addresses[flow] = connections.extension[slot * EXTENSION_WORDS + Extension.localAddress] as number;
        ports[flow] = serverPort | (connections.localPortRaw(slot) << 16);
      } else {
        addresses[flow] = clientAddress;
        ports[flow] = serverPort | ((clientPorts & 0xffff) << 16);
      }
    }
    const at = server * 64 + 32;
    return { flows: { addresses, ports }, address: destinations.bytes.slice(at, at + 4) };
  }

  /** Undefined if the program leaves such packets to the director. */
  measure(
    shape: FrameShape,
    flows: FlowList,
    packets: number,
    program = this.bed.fastPath.program,
  ): Figure | undefined {
    const visited = inOtherOrder(flows);
    if (!this.handles(shape, visited)) return undefined;
    const { generator } = this;
    generator.shape(shape);
    generator.setFlows(visited);
    const floors: number[] = [];
    const grosses: number[] = [];
    const restores = this.setting.method === 'tunnel';
    // Short runs are seldom interrupted.
    const runs = selection.runs * (packets < MILLION ? SHORT_RUNS : 1);
    for (let run = 0; run < runs; run++) {
      floors.push(generator.floor(packets, INTERFACE, restores));
      grosses.push(generator.gross(program, packets, INTERFACE));
    }
    return figureOf(floors, grosses);
  }

  /** Each packet a new connection; the tables are new for each run. `fullBy`: flows that fill the table first. */
  measureNew(flows: FlowList, fullBy?: FlowList): Figure | undefined {
    const visited = inOtherOrder(flows);
    const shape = this.shape(TcpFlag.syn);
    const { generator, bed } = this;
    const packets = flows.ports.length;
    const floors: number[] = [];
    const grosses: number[] = [];
    if (!this.handles(shape, visited)) return undefined;
    for (let attempt = 0; grosses.length < selection.runs && attempt < 3 * selection.runs; attempt++) {
      this.renew();
      generator.shape(shape);
      try {
        if (fullBy) {
          generator.setFlows(fullBy);
          generator.once(bed.fastPath.program, fullBy.ports.length, INTERFACE);
        }
        generator.setFlows(visited);
        const floor = generator.floor(packets, INTERFACE);
        generator.rewind();
        grosses.push(generator.once(bed.fastPath.program, packets, INTERFACE));
        floors.push(floor);
      } catch (error) {
        if (!isInterruption(error)) throw error;
      }
    }
    return figureOf(floors, grosses);
  }

  /** True if the program sends the first packet of the flows by itself, or passes what is no service's. */
  handles(shape: FrameShape, { addresses, ports }: FlowList): boolean {
    const frame = this.generator.shape(shape).slice();
    const view = new DataView(frame.buffer);
    view.setUint32(shape.varies === 'source' ? 26 : 30, addresses[0] as number, true);
    view.setUint32(34, ports[0] as number, true);
    fillIpv4Checksum(view, 14);
    const handling = this.bed.run(frame, INTERFACE, this.director.connections.tick(NOW));
    return handling === (shape.address === ELSEWHERE ? Handling.pass : Handling.sent);
  }
}

/** Distinct for the flows here. */
function flowNumber(address: number, ports: number): number {
  return address * 0x10000 + (ports & 0xffff);
}

function figureOf(floors: number[], grosses: number[]): Figure {
  const pairs = grosses
    .map((gross, run) => gross - (floors[run] as number))
    .sort((one, other) => one - other);
  return { net: Math.min(...grosses) - Math.min(...floors), median: pairs[pairs.length >> 1] as number };
}

/** Flows from clients, 64 ports each, to port 80. `first`: where they begin, for others than those before. */
export function clientFlows(count: number, first = 0): FlowList {
  const addresses = new Uint32Array(count);
  const ports = new Uint32Array(count);
  for (let index = 0; index < count; index++) {
    const flow = first + index;
    addresses[index] = swap32(0xac100000 + Math.floor(flow / CLIENT_PORTS));
    ports[index] = swap16(1024 + (flow % CLIENT_PORTS)) | (swap16(80) << 16);
  }
  return { addresses, ports };
}

function inOtherOrder({ addresses, ports }: FlowList): FlowList {
  const count = ports.length;
  const visited = { addresses: new Uint32Array(count), ports: new Uint32Array(count) };
  for (let index = 0, flow = 0; index < count; index++) {
    visited.addresses[index] = addresses[flow] as number;
    visited.ports[index] = ports[flow] as number;
    flow = (flow + STEP) % count;
  }
  return visited;
}

function swap16(value: number): number {
  return ((value & 0xff) << 8) | (value >>> 8);
}

function swap32(value: number): number {
  return (
    (((value & 0xff) << 24) |
      ((value & 0xff00) << 8) |
      ((value >>> 8) & 0xff00) |
      ((value >>> 24) & 0xff)) >>>
    0
  );
}

/** Sets up tables of the size a setting needs and hands them to `action`. */
export function withRig<Result>(
  part: Partial<Setting>,
  action: (rig: Rig) => Result,
  flows = MILLION,
): Result {
  const setting = { ...DEFAULT, ...part };
  const options = {
    interfaces: [{ name: 'eth0', index: INTERFACE, mac: DIRECTOR_MAC }],
    capacity: setting.capacity,
    destinationCapacity: Math.max(64, setting.servers + setting.services),
    serviceCapacity: Math.max(64, 3 * setting.services),
    hz: HZ,
    object: selection.object ?? buildBpf(),
  };
  return withTestBed(options, bed => {
    const generator = new FlowGenerator(flows);
    try {
      return action(new Rig(bed, generator, setting));
    } finally {
      generator.close();
    }
  });
}

const FLOWS = [1, 10_000, MILLION] as const;

interface Case {
  name: string;
  setting: Partial<Setting>;
  direction: 'client' | 'server';
  /** Nanoseconds at 1, 10,000 and a million flows. */
  targets: readonly [number, number, number];
}

const ESTABLISHED: readonly Case[] = [
  { name: 'DR, established TCP', setting: {}, direction: 'client', targets: [25, 40, 180] },
  {
    name: 'TUN ipip, established TCP',
    setting: { method: 'tunnel' },
    direction: 'client',
    targets: [30, 50, 200],
  },
  { name: 'NAT, client to server', setting: { method: 'masq' }, direction: 'client', targets: [40, 60, 250] },
  {
    name: 'NAT, server to client',
    setting: { method: 'masq', servers: 1 },
    direction: 'server',
    targets: [40, 60, 250],
  },
  {
    name: 'FULLNAT, client to server',
    setting: { method: 'fullnat' },
    direction: 'client',
    targets: [45, 70, 280],
  },
  {
    name: 'FULLNAT, server to client',
    setting: { method: 'fullnat', servers: 1 },
    direction: 'server',
    targets: [45, 70, 280],
  },
  {
    name: 'UDP (DR), established',
    setting: { protocol: 'udp' },
    direction: 'client',
    targets: [25, 40, 180],
  },
];

/** A measurement for tables and plots. */
export interface Measurement extends Partial<Figure> {
  what: string;
  /** What varies: flows, services, servers or connections. */
  by: string;
  count: number;
  target?: number;
}

const measurements: Measurement[] = [];

/** Makes a measurement, if it is selected, and prints it. */
function show(
  what: string,
  by: string,
  count: number,
  measure: () => Figure | undefined,
  target?: number,
): void {
  if (!isSelected(what, count)) return;
  const figure = measure();
  measurements.push({ what, by, count, ...figure, ...(target === undefined ? {} : { target }) });
  const label = `${what}, ${count.toLocaleString('en')} ${count === 1 ? by.replace(/s$/, '') : by}`;
  if (!figure) {
    process.stdout.write(`  ${label.padEnd(56)} not done by the program: left to the director\n`);
    return;
  }
  const verdict = target === undefined ? '' : `target ${target}: ${figure.net <= target ? 'met' : 'MISSED'}`;
  process.stdout.write(
    `  ${label.padEnd(56)} ${figure.net.toFixed(1).padStart(7)} ns  (median ${figure.median.toFixed(1)})  ${verdict}\n`,
  );
}

function heading(text: string): void {
  process.stdout.write(`\n${text}\n`);
}

function measureEstablished({ setting, direction }: Case, flows: number): Figure | undefined {
  // Half of the slots can be of FULLNAT.
  const capacity = Math.max(1024, setting.method === 'fullnat' ? 2 * flows : flows);
  return withRig(
    { ...setting, capacity },
    rig => {
      const list = clientFlows(flows);
      rig.fill(list);
      const packets = Math.max(SHORT_RUN, flows);
      if (direction === 'client') return rig.measure(rig.shape(TcpFlag.ack), list, packets);
      const replies = rig.replies(list);
      const shape: FrameShape = {
        ...rig.shape(TcpFlag.ack),
        address: replies.address,
        varies: 'destination',
      };
      return rig.measure(reversed(shape), replies.flows, packets);
    },
    flows,
  );
}

/** The address that stays is the source of an answer. */
function reversed(shape: FrameShape): FrameShape {
  return { ...shape, varies: 'destination' };
}

function established(): void {
  heading('Established connections');
  for (const each of ESTABLISHED) {
    for (const [index, flows] of FLOWS.entries()) {
      show(each.name, 'flows', flows, () => measureEstablished(each, flows), each.targets[index]);
    }
  }
}

const SMALL = 10_000;

function newConnections(): void {
  heading(`New connections over ${SERVERS} servers (small: into a table of 16,384)`);
  for (const [scheduler, small, large] of [
    ['wrr', 150, 300],
    ['mh', 120, 300],
    ['wlc', 200, 300],
  ] as const) {
    for (const [count, capacity, target] of [
      [SMALL, 16_384, small],
      [MILLION, MILLION + 65_536, large],
    ] as const) {
      const measure = () =>
        withRig({ scheduler, capacity }, rig => rig.measureNew(clientFlows(count)), count);
      show(`new connection, ${scheduler}`, 'flows', count, measure, target);
    }
  }
  const capacity = MILLION;
  const flood = () =>
    withRig(
      { scheduler: 'wrr', capacity },
      rig => rig.measureNew(clientFlows(MILLION, MILLION + 65_536), clientFlows(MILLION + 65_536)),
      MILLION + 65_536,
    );
  show('new connection, the table full (flood)', 'flows', MILLION, flood, 350);
}

function noService(): void {
  heading('Packets that are for no service');
  const measure = () =>
    withRig({}, rig =>
      rig.measure({ ...rig.shape(TcpFlag.ack), address: ELSEWHERE }, clientFlows(1), SHORT_RUN),
    );
  show('not for any service (passed on)', 'flows', 1, measure, 10);
}

function growth(): void {
  heading('DR, established TCP: how cost grows');
  for (const connections of [1, 16, 256, 4096, 16_384, 65_536, 262_144, MILLION, 2 * MILLION, 4 * MILLION]) {
    const measure = () => measureEstablished(ESTABLISHED[0] as Case, connections);
    show('growth: DR, established', 'connections', connections, measure);
  }
  for (const services of [1, 100, 10_000]) {
    const measure = () => measureEstablished({ ...(ESTABLISHED[0] as Case), setting: { services } }, SMALL);
    show('growth: DR, established, 10,000 flows', 'services', services, measure);
  }
  for (const servers of [2, 100, 1000]) {
    const measure = () => measureEstablished({ ...(ESTABLISHED[0] as Case), setting: { servers } }, SMALL);
    show('growth: DR, established, 10,000 flows', 'servers', servers, measure);
  }
  for (const scheduler of ['wrr', 'mh', 'wlc']) {
    for (const servers of [2, 100, 1000]) {
      const measure = () =>
        withRig({ scheduler, servers, capacity: 16_384 }, rig => rig.measureNew(clientFlows(SMALL)), SMALL);
      show(`growth: new connection, ${scheduler}`, 'servers', servers, measure);
    }
  }
}

function memory(): void {
  if (!isSelected('memory', 0)) return;
  heading('Memory of the maps');
  for (const capacity of [MILLION, 4 * MILLION]) {
    const bytes = withRig({ capacity }, rig => rig.bed.fastPath.memory(), 1);
    const each = bytes / capacity;
    process.stdout.write(
      `  ${`${capacity.toLocaleString('en')} connections`.padEnd(56)} ${(bytes / 1e6).toFixed(1).padStart(7)} MB  ` +
        `(${each.toFixed(1)} bytes a connection, target 128: ${each <= 128 ? 'met' : 'MISSED'})\n`,
    );
  }
}

/** `npm run bench -- xdp [FILE]`: with a file, the figures go there as JSON, too (for bench/plot.ts). */
export function xdpBenchmark(selected: Selection, file?: string): void {
  if (process.geteuid?.() !== 0) {
    process.stdout.write('xdp: left out, running the XDP program needs root\n');
    return;
  }
  selection = selected;
  pinThread(1);
  established();
  newConnections();
  noService();
  memory();
  growth();
  if (file) writeFileSync(file, `${JSON.stringify(measurements, null, 1)}\n`);
}
