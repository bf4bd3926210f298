/** Connections that the program makes: on two CPUs at once, under a flood, and in turn with the director. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { buildBpf } from '../../../bpf/build.ts';
import { ethernetFrame, ipv4Packet, tcpSegment } from '../../../test/frames.ts';
import { missing } from '../../../test/requirements.ts';
import { ConnectionFlag, ConnectionTable } from '../../ipvs/connections.ts';
import { DestinationTable } from '../../ipvs/destinations.ts';
import { DescribedNetwork } from '../../ipvs/director.fixture.ts';
import { Director } from '../../ipvs/director.ts';
import type { DestinationSpecification, ServiceKey } from '../../ipvs/specification.ts';
import { TcpState } from '../../ipvs/tcp-states.ts';
import { EtherType } from '../../wire/ethernet.ts';
import { Protocol } from '../../wire/ipv4.ts';
import { Packet } from '../../wire/packet.ts';
import { TcpFlag } from '../../wire/tcp.ts';
import { XdpVerdict } from '../ffi/libbpf.ts';
import { FastPath } from './fast-path.ts';
import { ProgramConfiguration } from './program-configuration.ts';

const skip = missing('root', 'clang');
const LOOPBACK = 1;
const HZ = 250;
const NOW = 1000;
const CAPACITY = 8192;
const MAC = Uint8Array.of(2, 0, 0, 0, 0, 5);
const SERVICE: ServiceKey = { protocol: 'tcp', address: '10.0.0.3', port: 80 };

/** A segment from 10.0.0.1, a port of its own for each flow. */
function segment(flow: number, flags: number): Uint8Array {
  const tcp = tcpSegment(4, { sourcePort: 1024 + flow, destinationPort: 80, flags });
  const frame = ethernetFrame(EtherType.ipv4, ipv4Packet(Protocol.tcp, tcp));
  frame.set(MAC, 0);
  return frame;
}

describe('new connections', { skip }, () => {
  let fastPath: FastPath;
  let director: Director;
  let configuration: ProgramConfiguration;
  let directories = 0;
  const packet = new Packet();

  /** A director and the program on fresh tables, three servers with weights 1, 2, 3. */
  function open(scheduler: string, method: DestinationSpecification['method'], capacity = CAPACITY): void {
    fastPath = new FastPath({
      capacity,
      destinationCapacity: 64,
      hz: HZ,
      object: buildBpf(),
      directory: `/sys/fs/bpf/dirigo-new-${process.pid}-${directories++}`,
    });
    fastPath.configureInterface(LOOPBACK, MAC, 0, 1);
    fastPath.control.stopClock((NOW * HZ) / 1000);
    const network = new DescribedNetwork();
    const destinations = new DestinationTable(fastPath.destinationCapacity, fastPath.destinationMemory);
    const connections = new ConnectionTable({
      capacity,
      destinations,
      hz: HZ,
      seed: fastPath.control.seed,
      memory: fastPath.connectionMemory,
    });
    director = new Director({ network, host: network, connections, destinations });
    configuration = new ProgramConfiguration(fastPath, director);
    const { administration } = director;
    administration.addService({
      key: SERVICE,
      scheduler,
      schedulerFlags: 0,
      persistenceTimeout: 0,
      persistenceNetmask: '255.255.255.255',
      persistenceEngine: '',
      onePacket: false,
    });
    for (const weight of [1, 2, 3]) {
      administration.addDestination(SERVICE, {
        address: `10.0.0.${6 + weight}`,
        port: 80,
        method,
        weight,
        upperThreshold: 0,
        lowerThreshold: 0,
        tunnelType: 'ipip',
        tunnelPort: 0,
        tunnelChecksum: 'nocsum',
      });
    }
    configuration.write();
    // Nothing is sent; the way out only has to exist.
    fastPath.allowDevice(LOOPBACK);
  }

  /** Lets the program see a segment; true if it dealt with it. */
  function run(flow: number, flags: number): boolean {
    return fastPath.run({ frame: segment(flow, flags) }).verdict !== XdpVerdict.drop;
  }

  /** Client ports of the live connections, in order. */
  function ports(): number[] {
    const { connections } = director;
    const found: number[] = [];
    for (let slot = 0; slot < connections.highWater; slot++) {
      if (!connections.isUsed(slot)) continue;
      const raw = connections.ports(slot) & 0xffff;
      found.push(((raw & 0xff) << 8) | (raw >>> 8));
    }
    return found.sort((one, other) => one - other);
  }

  for (const method of ['gate', 'masq'] as const) {
    test(`two CPUs that meet the same flows make each connection once (${method})`, {
      skip: availableParallelism() < 2 && 'needs two CPUs',
    }, async () => {
      open('wrr', method);
      try {
        const flows = 3000;
        const frames = Array.from({ length: flows }, (_, flow) => segment(flow, TcpFlag.syn));
        const frameBytes = frames[0]?.length ?? 0;
        const all = new Uint8Array(new SharedArrayBuffer(flows * frameBytes));
        frames.forEach((frame, flow) => {
          all.set(frame, flow * frameBytes);
        });
        const arrivals = new Int32Array(new SharedArrayBuffer(4 * flows));
        const workerData = { program: fastPath.program.fd, frames: all, frameBytes, arrivals, workers: 2 };
        const workers = [1, 2].map(
          () => new Worker(join(import.meta.dirname, 'new-connections.worker.ts'), { workerData }),
        );
        await Promise.all(workers.map(worker => once(worker, 'message')));
        await Promise.all(workers.map(worker => worker.terminate()));

        const { connections, destinations } = director;
        assert.equal(connections.size, flows);
        assert.deepEqual(
          ports(),
          frames.map((_, flow) => 1024 + flow),
        );
        // Weights 1, 2, 3: exactly the plan's shares, whoever took each turn.
        const counts = director.pool.owners.map((_, index) => destinations.active(index));
        assert.deepEqual(
          counts.slice(0, 3).sort((one, other) => one - other),
          [flows / 6, flows / 3, flows / 2],
        );
        configuration.takeCounts();
        const total = director.administration.services()[0]?.statistics.connections;
        assert.equal(total, flows);
        // Every connection is found again, and ends where the director looks for it.
        for (let flow = 0; flow < flows; flow += 7) {
          packet.load(segment(flow, TcpFlag.ack));
          director.process(packet, LOOPBACK, NOW);
        }
        assert.equal(connections.size, flows);
        director.expire(NOW + 3_600_000);
        assert.equal(connections.size, 0);
        assert.deepEqual(
          [0, 1, 2].map(index => destinations.active(index) + destinations.inactive(index)),
          [0, 0, 0],
        );
      } finally {
        fastPath.remove();
      }
    });
  }

  test('the director and the program take turns in one sequence', () => {
    open('wrr', 'gate');
    try {
      const { connections } = director;
      const chosen: number[] = [];
      for (let flow = 0; flow < 60; flow++) {
        const before = new Set(ports());
        if (flow % 3 === 1) {
          packet.load(segment(flow, TcpFlag.syn));
          director.process(packet, LOOPBACK, NOW);
        } else assert.ok(run(flow, TcpFlag.syn));
        for (let slot = 0; slot < connections.highWater; slot++) {
          const raw = connections.ports(slot) & 0xffff;
          const port = ((raw & 0xff) << 8) | (raw >>> 8);
          if (connections.isUsed(slot) && !before.has(port)) chosen.push(connections.destination(slot));
        }
      }
      // Weights 3, 2, 1, the newest first. Adding servers kept the pass of weight 1, where the round begins.
      assert.deepEqual(chosen.slice(0, 6), [2, 1, 0, 2, 2, 1]);
      for (let turn = 6; turn < chosen.length; turn++) assert.equal(chosen[turn], chosen[turn - 6]);
    } finally {
      fastPath.remove();
    }
  });

  test('a flood on a full table throws out half-open connections, never established ones', () => {
    const capacity = 512;
    open('rr', 'masq', capacity);
    try {
      const established = 200;
      for (let flow = 0; flow < established; flow++) {
        assert.ok(run(flow, TcpFlag.syn));
        assert.ok(run(flow, TcpFlag.ack));
      }
      let made = 0;
      for (let flow = established; flow < 8000; flow++) if (run(flow, TcpFlag.syn)) made++;
      const { connections, destinations } = director;
      assert.equal(connections.size, capacity);
      const states = new Map<number, number>();
      for (let slot = 0; slot < connections.highWater; slot++) {
        if (!connections.isUsed(slot)) continue;
        const state = connections.state(slot);
        states.set(state, (states.get(state) ?? 0) + 1);
        assert.equal(connections.flags(slot) & ConnectionFlag.inactive, 0);
      }
      assert.equal(states.get(TcpState.established), established);
      assert.equal(states.get(TcpState.synReceived), capacity - established);
      const counted = [0, 1, 2].map(index => destinations.active(index));
      assert.equal(
        counted.reduce((sum, count) => sum + count, 0),
        capacity,
      );
      assert.equal(fastPath.reasons().evicted, made - (capacity - established));
      // Established ones are still found, the last of the flood too.
      for (let flow = 0; flow < established; flow++) assert.ok(run(flow, TcpFlag.ack), `flow ${flow}`);
    } finally {
      fastPath.remove();
    }
  });

  test('a table that is full of established connections takes no new one', () => {
    const capacity = 64;
    open('rr', 'gate', capacity);
    try {
      for (let flow = 0; flow < capacity; flow++) {
        assert.ok(run(flow, TcpFlag.syn));
        assert.ok(run(flow, TcpFlag.ack));
      }
      assert.equal(run(capacity, TcpFlag.syn), false);
      assert.equal(fastPath.reasons().evicted, 0);
      assert.equal(director.connections.size, capacity);
    } finally {
      fastPath.remove();
    }
  });

  /** The states of the connections of a flow; more than one would be a duplicate. */
  function statesOf(flow: number): number[] {
    const { connections } = director;
    const found: number[] = [];
    for (let slot = 0; slot < connections.highWater; slot++) {
      const raw = connections.ports(slot) & 0xffff;
      if (connections.isUsed(slot) && (((raw & 0xff) << 8) | (raw >>> 8)) === 1024 + flow)
        found.push(connections.state(slot));
    }
    return found;
  }

  for (const method of ['gate', 'masq', 'tunnel'] as const) {
    test(`a SYN on a connection that is over begins a new one, without the director (${method})`, () => {
      open('rr', method);
      try {
        const { destinations } = director;
        const bound = (): number[] =>
          [0, 1, 2].map(index => destinations.active(index) + destinations.inactive(index));
        for (const flow of [0, 1, 2]) assert.ok(run(flow, TcpFlag.syn));
        assert.deepEqual(bound(), [1, 1, 1]);
        const first = director.connections.destination(director.connections.highWater - 1);
        assert.ok(run(2, TcpFlag.ack));
        assert.ok(run(2, TcpFlag.rst));
        assert.deepEqual(statesOf(2), [TcpState.close]);
        // Turns go on: the closed flow is given to the next server, and counted there alone.
        assert.ok(run(2, TcpFlag.syn), 'the program itself');
        assert.deepEqual(statesOf(2), [TcpState.synReceived]);
        assert.equal(director.connections.size, 3);
        assert.deepEqual([...bound()].sort(), [0, 1, 2]);
        assert.equal(bound()[first], 0);
        configuration.takeCounts();
        assert.equal(director.administration.services()[0]?.statistics.connections, 4);
        // The director finds what the program made, and everything ends.
        packet.load(segment(2, TcpFlag.ack));
        director.process(packet, LOOPBACK, NOW);
        assert.deepEqual(statesOf(2), [TcpState.established]);
        director.expire(NOW + 3_600_000);
        assert.deepEqual(bound(), [0, 0, 0]);
      } finally {
        fastPath.remove();
      }
    });
  }

  test('a SYN on a connection that goes on is forwarded on it', () => {
    open('rr', 'gate');
    try {
      assert.ok(run(0, TcpFlag.syn));
      assert.ok(run(0, TcpFlag.syn), 'sent again');
      assert.ok(run(0, TcpFlag.ack));
      assert.ok(run(0, TcpFlag.fin | TcpFlag.ack));
      assert.deepEqual(statesOf(0), [TcpState.finWait]);
      // conn_reuse_mode 1 does not take it for over, 3 does.
      assert.ok(run(0, TcpFlag.syn));
      assert.deepEqual(statesOf(0), [TcpState.synReceived]);
      const connections = (): number | undefined => {
        configuration.takeCounts();
        return director.administration.services()[0]?.statistics.connections;
      };
      assert.equal(connections(), 1);
      assert.ok(run(0, TcpFlag.ack));
      assert.ok(run(0, TcpFlag.fin | TcpFlag.ack));
      director.set('conn_reuse_mode', '3');
      configuration.write();
      assert.ok(run(0, TcpFlag.syn));
      assert.equal(connections(), 2);
      assert.equal(director.connections.size, 1);
      // Without reuse every SYN goes with the connection.
      assert.ok(run(0, TcpFlag.rst));
      director.set('conn_reuse_mode', '0');
      configuration.write();
      assert.ok(run(0, TcpFlag.syn));
      assert.equal(connections(), 2);
    } finally {
      fastPath.remove();
    }
  });

  test('with expire_nodest_conn a SYN leaves a server that is quiesced', () => {
    open('rr', 'gate');
    try {
      assert.ok(run(0, TcpFlag.syn));
      assert.ok(run(0, TcpFlag.ack));
      const [slot] = [...Array(director.connections.highWater).keys()].filter(each =>
        director.connections.isUsed(each),
      );
      const quiesced = director.connections.destination(slot as number);
      const server = director.administration
        .services()[0]
        ?.destinations.find(
          ({ address }) => address === director.pool.owners[quiesced]?.specification.address,
        );
      assert.ok(server);
      director.administration.editDestination(SERVICE, { ...server, weight: 0 });
      configuration.write();
      assert.ok(run(0, TcpFlag.syn));
      assert.equal(director.destinations.active(quiesced), 1);
      director.set('expire_nodest_conn', '1');
      configuration.write();
      assert.ok(run(0, TcpFlag.syn));
      assert.equal(director.destinations.active(quiesced) + director.destinations.inactive(quiesced), 0);
      assert.equal(director.connections.size, 1);
    } finally {
      fastPath.remove();
    }
  });
});
