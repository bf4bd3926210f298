/** A director and the program on fresh tables, without interfaces or traffic: for tests of connections that are made. */
import { once } from 'node:events';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { buildBpf } from '../../../bpf/build.ts';
import { ethernetFrame, ipv4Packet, tcpSegment } from '../../../test/frames.ts';
import { ConnectionKey } from '../../ipvs/connection-key.ts';
import { CONNECTION_BYTES, ConnectionFlag, ConnectionTable } from '../../ipvs/connections.ts';
import { DestinationTable } from '../../ipvs/destinations.ts';
import { DescribedNetwork } from '../../ipvs/director.fixture.ts';
import { Director } from '../../ipvs/director.ts';
import type { DestinationSpecification, ServiceKey } from '../../ipvs/specification.ts';
import { EtherType } from '../../wire/ethernet.ts';
import { Protocol } from '../../wire/ipv4.ts';
import { XdpVerdict } from '../ffi/libbpf.ts';
import { FastPath } from './fast-path.ts';
import type { Work } from './new-connections.worker.ts';
import { ProgramConfiguration } from './program-configuration.ts';

export const LOOPBACK = 1;
export const HZ = 250;
/** The time, milliseconds; it stands still. */
export const NOW = 1000;
export const CAPACITY = 8192;
const MAC = Uint8Array.of(2, 0, 0, 0, 0, 5);
export const SERVICE: ServiceKey = { protocol: 'tcp', address: '10.0.0.3', port: 80 };

/** A segment from 10.0.0.1 to the service, a port of its own for each flow. */
export function segment(flow: number, flags: number): Uint8Array {
  const tcp = tcpSegment(4, { sourcePort: 1024 + flow, destinationPort: 80, flags });
  const frame = ethernetFrame(EtherType.ipv4, ipv4Packet(Protocol.tcp, tcp));
  frame.set(MAC, 0);
  return frame;
}

export interface FixtureOptions {
  scheduler: string;
  method: DestinationSpecification['method'];
  /** Default `CAPACITY`. */
  capacity?: number;
  /** Seconds; default 0: none. */
  persistence?: number;
}

let directories = 0;

/** One service with three servers, 10.0.0.7 to 10.0.0.9 with weights 1, 2, 3. */
export class NewConnections {
  readonly fastPath: FastPath;
  readonly director: Director;
  readonly configuration: ProgramConfiguration;

  constructor({ scheduler, method, capacity = CAPACITY, persistence = 0 }: FixtureOptions) {
    this.fastPath = new FastPath({
      capacity,
      destinationCapacity: 64,
      hz: HZ,
      object: buildBpf(),
      directory: `/sys/fs/bpf/dirigo-new-${process.pid}-${directories++}`,
    });
    const { fastPath } = this;
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
    this.director = new Director({ network, host: network, connections, destinations });
    this.configuration = new ProgramConfiguration(fastPath, this.director);
    const { administration } = this.director;
    administration.addService({
      key: SERVICE,
      scheduler,
      schedulerFlags: 0,
      persistenceTimeout: persistence,
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
    this.configuration.write();
    // Nothing is sent; the way out only has to exist.
    fastPath.allowDevice(LOOPBACK);
  }

  /** Lets the program see a segment; true if it dealt with it. */
  run(flow: number, flags: number): boolean {
    return this.fastPath.run({ frame: segment(flow, flags) }).verdict !== XdpVerdict.drop;
  }

  /**
   * Lets two CPUs run the program on the same frames, each at the same moment as the other.
   * @param meanwhile called again and again until they are done
   */
  async race(frames: readonly Uint8Array[], rounds = 1, meanwhile?: () => void): Promise<void> {
    const frameBytes = frames[0]?.length ?? 0;
    const all = new Uint8Array(new SharedArrayBuffer(frames.length * frameBytes));
    frames.forEach((frame, position) => {
      all.set(frame, position * frameBytes);
    });
    const arrivals = new Int32Array(new SharedArrayBuffer(4 * frames.length * rounds));
    const work: Work = {
      program: this.fastPath.program.fd,
      frames: all,
      frameBytes,
      rounds,
      arrivals,
      workers: 2,
    };
    const workers = [1, 2].map(
      () => new Worker(join(import.meta.dirname, 'new-connections.worker.ts'), { workerData: work }),
    );
    let running = true;
    const done = Promise.all(workers.map(worker => once(worker, 'message'))).then(() => {
      running = false;
    });
    while (running && meanwhile) {
      meanwhile();
      await new Promise(resolve => setImmediate(resolve));
    }
    await done;
    await Promise.all(workers.map(worker => worker.terminate()));
  }

  /** Client ports of the connections, templates left out, in order. */
  ports(): number[] {
    const { connections } = this.director;
    const found: number[] = [];
    for (let slot = 0; slot < connections.highWater; slot++) {
      if (!connections.isUsed(slot) || connections.flags(slot) & ConnectionFlag.template) continue;
      const raw = connections.ports(slot) & 0xffff;
      found.push(((raw & 0xff) << 8) | (raw >>> 8));
    }
    return found.sort((one, other) => one - other);
  }

  /**
   * What must hold of the tables whatever happened at once: no key is there twice, servers and templates count what there
   * is, the table knows its size. Returns what does not.
   */
  faults(): string[] {
    const { connections, destinations, pool } = this.director;
    const faults: string[] = [];
    const keys = new Set<string>();
    const active = new Map<number, number>();
    const inactive = new Map<number, number>();
    const controlled = new Map<number, number>();
    const add = (counts: Map<number, number>, of: number): void => {
      counts.set(of, (counts.get(of) ?? 0) + 1);
    };
    let size = 0;
    for (let slot = 0; slot < connections.highWater; slot++) {
      if (!connections.isUsed(slot)) continue;
      size++;
      const flags = connections.flags(slot);
      const at = slot * CONNECTION_BYTES;
      const key = `${flags & ConnectionFlag.template} ${Buffer.from(connections.bytes.slice(at + 12, at + 48)).toString('hex')}`;
      if (keys.has(key)) faults.push(`${key} is there twice`);
      keys.add(key);
      if (flags & ConnectionFlag.template) continue;
      add(flags & ConnectionFlag.inactive ? inactive : active, connections.destination(slot));
      if (connections.control(slot) > 0) add(controlled, connections.control(slot) - 1);
    }
    const compare = (what: string, counted: number, there: number): void => {
      if (counted !== there) faults.push(`${what}: ${counted} counted, ${there} there`);
    };
    compare('connections', connections.size, size);
    for (const index of pool.owners.keys()) {
      compare(`active of ${index}`, destinations.active(index), active.get(index) ?? 0);
      compare(`inactive of ${index}`, destinations.inactive(index), inactive.get(index) ?? 0);
    }
    for (let slot = 0; slot < connections.highWater; slot++) {
      if (connections.isUsed(slot) && connections.flags(slot) & ConnectionFlag.template)
        compare(`connections of template ${slot}`, connections.control(slot), controlled.get(slot) ?? 0);
    }
    return faults;
  }

  /** The key that replies of a connection have. */
  replyKeyOf(slot: number): ConnectionKey {
    return this.director.connections.readReplyKey(slot, new ConnectionKey());
  }

  close(): void {
    this.fastPath.remove();
  }
}
