/** The XDP data path: established connections in the kernel, everything else of a service through this process. */
import { randomBytes } from 'node:crypto';
import type { CapturedFrame } from '../../capture/frame.ts';
import { ConnectionFlag, ConnectionTable } from '../../ipvs/connections.ts';
import {
  DESTINATION_BYTES,
  DestinationField,
  DestinationFlag,
  DestinationTable,
} from '../../ipvs/destinations.ts';
import { Director, Verdict } from '../../ipvs/director.ts';
import type { NextHop } from '../../ipvs/network.ts';
import { formatAddress } from '../../wire/address.ts';
import { Protocol } from '../../wire/ipv4.ts';
import { Malformed } from '../../wire/malformed.ts';
import { Packet } from '../../wire/packet.ts';
import type { Datapath, DatapathCounters, DatapathStatus, StopOptions } from '../datapath.ts';
import { requireLibbpf, type XdpMode } from '../ffi/libbpf.ts';
import { driverName, receiveQueues, SystemError } from '../ffi/libc.ts';
import { KernelNetwork } from '../kernel-network.ts';
import type { Observation, ObservationOptions } from '../observation.ts';
import { KernelClock } from './clock.ts';
import { InterfaceFlag } from './control.ts';
import { FastPath, type FastPathOptions } from './fast-path.ts';
import { PacketSockets, type QueueAddress } from './packet-sockets.ts';
import { ProgramConfiguration } from './program-configuration.ts';
import { fastPathStatus, fastPathWarnings, queueStatus } from './status.ts';
import { XdpObserver } from './xdp-observer.ts';

/** Milliseconds between two looks at what time demands; each looks at a quarter of the table. */
const SWEEP_INTERVAL = 250;
const SWEEP_PARTS = 4;
const SWEEP_MINIMUM = 65536;
/** Servers whose counters are read in a millisecond, all of them. */
const MANY_SERVERS = 4096;
/** Milliseconds between two looks at the kernel's clock. */
const CALIBRATION_INTERVAL = 30_000;
/** Frames a second that the host's own stack is given; each costs a system call of some 30 µs. */
const HOST_LIMIT = 5000;
/** Bytes of a frame that can be given to the host: a page less XDP's headroom and its bookkeeping. */
const LONGEST_FRAME = 4096 - 256 - 320;
const CAPACITY = 1 << 18;
const DESTINATION_CAPACITY = 1 << 17;
const SERVICE_CAPACITY = 1 << 14;

export interface XdpDatapathOptions extends FastPathOptions {
  /** Interfaces that clients' packets come in by, one or more. */
  interfaces: readonly string[];
  /** Default `auto`: in the driver where it can, else in the network stack. */
  mode?: XdpMode | 'auto';
  /** Frames that may wait for the director on each receive queue, a power of two. Default `DEFAULT_RING`. */
  ring?: number;
}

export class XdpDatapath implements Datapath {
  readonly kind = 'xdp';
  readonly director: Director;
  readonly network: KernelNetwork;
  readonly fastPath: FastPath;
  readonly #clock: KernelClock;
  readonly #options: XdpDatapathOptions;
  readonly #configuration: ProgramConfiguration;
  #sockets: PacketSockets | undefined;
  #packet = new Packet(0);
  #sweeping: NodeJS.Timeout | undefined;
  #calibrating: NodeJS.Timeout | undefined;
  #syncScheduled = false;
  /** Which part of the servers' counters was taken over last. */
  #part = 0;
  #state: 'new' | 'running' | 'stopped' = 'new';
  /** Frames the host's stack may still be given in this interval. */
  #hostBudget = (HOST_LIMIT * SWEEP_INTERVAL) / 1000;
  #canPass = true;
  #observer: XdpObserver | undefined;
  /** Why the program could not be told the configuration; empty: it was. */
  #syncError = '';
  #malformed = 0;
  #passed = 0;
  #notPassed = 0;

  /**
   * Loads the program and its tables, or takes over those of a predecessor.
   * @throws Error whose message is one line; nothing is left behind then
   */
  constructor(options: XdpDatapathOptions) {
    if (options.interfaces.length === 0)
      throw new Error('the XDP data path needs an interface: --interface eth0');
    this.#options = options;
    requireLibbpf();
    this.network = new KernelNetwork((bytes, start, end, index) => {
      this.#observer?.sent(bytes, start, end, index);
      this.#sockets?.transmit(bytes, start, end, index);
    });
    for (const name of options.interfaces) {
      if (!this.network.interface(name)) {
        throw new Error(`there is no interface ${name}: \`ip link\` lists those there are`);
      }
    }
    this.fastPath = new FastPath({
      capacity: CAPACITY,
      destinationCapacity: DESTINATION_CAPACITY,
      serviceCapacity: SERVICE_CAPACITY,
      ...options,
    });
    const { fastPath } = this;
    const { hz, seed } = fastPath.control;
    this.#clock = new KernelClock(hz, () => fastPath.readClock());
    const destinations = new DestinationTable(fastPath.destinationCapacity, fastPath.destinationMemory);
    this.director = new Director({
      network: this.network,
      host: this.network,
      destinations,
      connections: new ConnectionTable({
        capacity: fastPath.capacity,
        destinations,
        hz,
        seed,
        memory: fastPath.connectionMemory,
      }),
      random: () => randomBytes(4).readUInt32LE(),
    });
    const { administration, pool } = this.director;
    administration.serviceCapacity = fastPath.serviceCapacity;
    administration.advice = roomAdvice('--services');
    pool.advice = roomAdvice('--servers');
    this.#configuration = new ProgramConfiguration(fastPath, this.director, this.network);
    if (fastPath.adopted) this.#adopt();
    this.director.administration.observe(change => {
      this.#configuration.note(change);
      this.#scheduleSync();
    });
    this.network.onChange = hops => this.#follow(hops);
    this.network.onForget = () => {
      this.#configuration.ways.forget();
      this.#configuration.ways.tell();
    };
  }

  /** @param changed next hops that are others now; missing: routes or interfaces changed */
  #follow(changed?: ReadonlySet<NextHop>): void {
    if (changed) {
      this.director.pool.rewrite(changed);
      this.#configuration.ways.refresh(changed);
    } else {
      this.director.resolveNextHops();
      this.#configureInterfaces();
      this.#configuration.ways.forget();
    }
    this.#scheduleSync();
  }

  now(): number {
    return this.#clock.now();
  }

  /** Makes the records that a predecessor left known to the director: connections refer to them. */
  #adopt(): void {
    const { destinations, pool, connections } = this.director;
    const now = this.now();
    for (let index = 0; index < destinations.capacity; index++) {
      if ((destinations.flags(index) & DestinationFlag.used) === 0) continue;
      const at = index * DESTINATION_BYTES;
      const length = destinations.bytes[at + DestinationField.family] === 6 ? 16 : 4;
      const address = formatAddress(destinations.bytes, at + DestinationField.address, length);
      const port = destinations.view.getUint16(at + DestinationField.port);
      pool.adopt(index, this.#configuration.ownerName(index), address, port, now);
    }
    for (let slot = 0; slot < connections.highWater; slot++) {
      if (!connections.isUsed(slot) || (connections.flags(slot) & ConnectionFlag.template) === 0) continue;
      const destination = connections.destination(slot);
      if (destination >= 0) pool.persistent[destination] = (pool.persistent[destination] as number) + 1;
    }
  }

  async start(): Promise<void> {
    try {
      this.network.start();
      const { interfaces, mode = 'auto' } = this.#options;
      const attached = interfaces.map(name => this.fastPath.attach(name, mode));
      for (const { index } of this.fastPath.attached()) {
        if (!attached.some(each => each.index === index)) this.fastPath.detach(index);
      }
      const queues: QueueAddress[] = attached.flatMap(({ name, index }) =>
        Array.from({ length: receiveQueues(name) }, (_, queue) => ({
          interfaceIndex: index,
          interfaceName: name,
          queue,
        })),
      );
      if (queues.length > this.fastPath.sockets.maxEntries) {
        throw new Error(
          `these interfaces have ${queues.length} receive queues, more than ${this.fastPath.sockets.maxEntries}: reduce them (ethtool -L)`,
        );
      }
      // A driver's zero-copy mode works with native XDP only.
      this.#sockets = new PacketSockets(queues, {
        copy: attached.some(each => each.mode === 'generic'),
        ...(this.#options.ring === undefined ? {} : { slots: this.#options.ring }),
      });
      this.#packet = new Packet(this.#sockets.memory);
      this.network.attached(attached);
      this.director.resolveNextHops();
      this.#configureInterfaces();
      this.#sockets.start((start, length, index) => this.#receive(start, length, index));
      this.#retireUnowned();
      this.#sync();
      this.#openQueues(this.#sockets);
    } catch (error) {
      await this.#shutDown(!this.fastPath.adopted);
      throw error;
    }
    this.#state = 'running';
    this.#sweeping = setInterval(() => this.#sweep(), SWEEP_INTERVAL);
    this.#calibrating = setInterval(() => this.#clock.calibrate(), CALIBRATION_INTERVAL);
  }

  /** Lets the program find the sockets: from now on packets come up. */
  #openQueues(sockets: PacketSockets): void {
    for (const [position, { fd }] of sockets.sockets.entries()) {
      this.fastPath.sockets.update(word(position), word(fd));
    }
  }

  #configureInterfaces(): void {
    const sockets = this.#sockets?.sockets ?? [];
    for (const { name, index, mode } of this.fastPath.attached()) {
      const first = sockets.findIndex(({ interfaceIndex }) => interfaceIndex === index);
      const link = this.network.interface(name);
      if (first < 0 || !link) continue;
      const queues = sockets.filter(({ interfaceIndex }) => interfaceIndex === index).length;
      const flags = mode === 'native' && driverName(name) === 'veth' ? InterfaceFlag.redirect : 0;
      this.fastPath.configureInterface(index, link.mac, first, queues, flags);
    }
  }

  /** Servers that a predecessor had and nobody configured again are as good as deleted. */
  #retireUnowned(): void {
    const { destinations, pool } = this.director;
    for (let index = 0; index < destinations.capacity; index++) {
      if (destinations.flags(index) & DestinationFlag.used && !pool.owners[index]) {
        destinations.setFlag(index, DestinationFlag.available, false);
      }
    }
  }

  #scheduleSync(): void {
    if (this.#syncScheduled || this.#state !== 'running') return;
    this.#syncScheduled = true;
    // Before anybody is told that the change is done, and once for all changes of this turn.
    queueMicrotask(() => {
      this.#syncScheduled = false;
      if (this.#state === 'running') this.#sync();
    });
  }

  /** Tells the program what has changed. */
  #sync(): void {
    try {
      this.#configuration.update();
      this.#syncError = '';
    } catch (error) {
      // A full map, for example. The director goes on, and the next change is the next attempt.
      this.#syncError = (error as Error).message;
      console.error(`dirigo: telling the XDP program the configuration failed: ${this.#syncError}`);
    }
  }

  #receive(start: number, length: number, interfaceIndex: number): void {
    const packet = this.#packet;
    if (packet.parse(start, length) !== Malformed.none) {
      this.#malformed++;
      return;
    }
    const isRoutedOn = this.#isRoutedOn(packet);
    this.#observer?.begin(packet, interfaceIndex);
    const verdict = this.director.process(packet, interfaceIndex, this.now(), isRoutedOn);
    if (isRoutedOn) this.#configuration.ways.answer();
    if (packet.protocol === Protocol.icmp) this.#configuration.refresh();
    if (verdict === Verdict.pass) this.#passToHost(packet, interfaceIndex);
    else if (verdict === Verdict.passWhole) this.#passToHost(this.director.whole, interfaceIndex);
    this.#observer?.end(verdict);
  }

  /** True for a packet to none of the host's addresses; to a VIP it is directed whoever holds that, as by the program. */
  #isRoutedOn({ family, bytes, destinationAt }: Packet): boolean {
    return (
      family !== 0 &&
      !this.network.isLocal(bytes, destinationAt, family) &&
      !this.#configuration.isVip(bytes, destinationAt, family)
    );
  }

  observe(options: ObservationOptions, show: (frame: CapturedFrame) => void): Observation {
    if (this.#state !== 'running') throw new Error('the data path is not running');
    this.#observer = new XdpObserver({
      ...options,
      fastPath: this.fastPath,
      director: this.director,
      explain: (packet, interfaceIndex) =>
        this.director.explain(packet, interfaceIndex, this.now(), this.#isRoutedOn(packet)),
      show,
      onClose: () => (this.#observer = undefined),
    });
    return this.#observer;
  }

  /** Gives the packet to the host's own stack, which answers it (with a RST, for example) as if it had come there first. */
  #passToHost(packet: Packet, interfaceIndex: number): void {
    // A datagram put together from fragments may be longer than any frame the host could take.
    if (this.#hostBudget <= 0 || !this.#canPass || packet.length > LONGEST_FRAME) {
      this.#notPassed++;
      return;
    }
    this.#hostBudget--;
    try {
      this.fastPath.passToHost(packet.copy(), interfaceIndex);
      this.#passed++;
    } catch (error) {
      // Linux before 5.18 cannot; whoever waits for the answer runs into a timeout instead.
      if (error instanceof SystemError && error.code === 'EINVAL') this.#canPass = false;
      this.#notPassed++;
    }
  }

  #sweep(): void {
    this.#hostBudget = (HOST_LIMIT * SWEEP_INTERVAL) / 1000;
    const { connections, pool } = this.director;
    // Those of many servers once a second, as often as rates are taken.
    this.#part = (this.#part + 1) % SWEEP_PARTS;
    const isMany = pool.owners.length > MANY_SERVERS;
    this.#configuration.takeCounts(isMany ? { part: this.#part, of: SWEEP_PARTS } : undefined);
    this.director.expire(this.now(), Math.max(SWEEP_MINIMUM, Math.ceil(connections.highWater / SWEEP_PARTS)));
    this.#configuration.refresh();
    this.#configuration.forgetLingering();
  }

  interfaceIndex(name: string): number | undefined {
    return this.network.interface(name)?.index;
  }

  counters(): DatapathCounters {
    const running = this.#state === 'running';
    const { connections, destinations, administration } = this.director;
    const queues = this.#sockets?.statistics();
    return {
      program: running ? this.fastPath.reasons() : {},
      director: { received: queues?.received ?? 0, transmitted: queues?.transmitted ?? 0 },
      drops: {
        ...queues?.drops,
        malformed: this.#malformed,
        unresolved: this.network.dropped,
        'not passed to host': this.#notPassed,
      },
      tables: {
        connections: { used: connections.size, capacity: connections.capacity },
        servers: { used: destinations.size, capacity: destinations.capacity },
        services: { used: administration.serviceCount, capacity: administration.serviceCapacity },
      },
    };
  }

  status(): DatapathStatus {
    const running = this.#state === 'running';
    return {
      ...fastPathStatus(this.fastPath, running),
      ...queueStatus(this.#sockets),
      connections: this.director.connections.size,
      unresolved: this.network.dropped,
      malformed: this.#malformed,
      passedToHost: this.#passed,
      notPassedToHost: this.#notPassed,
      warnings: this.#warnings(running),
    };
  }

  #warnings(running: boolean): string[] {
    const warnings = running ? fastPathWarnings(this.fastPath) : [];
    const { capacity } = this.#options;
    if (capacity !== undefined && capacity !== this.fastPath.capacity) {
      warnings.push(
        `the tables of the daemon before hold ${this.fastPath.capacity} connections, not ${capacity}: \`dirigo down\` removes them`,
      );
    }
    const { withoutRoom } = this.#configuration;
    if (withoutRoom > 0) {
      warnings.push(
        `the program has no room for how ${withoutRoom} services choose servers: their new connections go through the daemon${roomAdvice('--services')}`,
      );
    }
    if (this.#syncError)
      warnings.push(`the program does not have the latest configuration: ${this.#syncError}`);
    if (this.#configuration.hasMarks) {
      warnings.push(
        `services of firewall marks: what belongs to no connection goes through the daemon, and ${HOST_LIMIT} packets a second of it to the host`,
      );
    }
    if (!this.#canPass) warnings.push('this kernel cannot take packets back (Linux 5.18): they are dropped');
    return warnings;
  }

  async stop({ remove }: StopOptions): Promise<void> {
    if (this.#state === 'stopped') return;
    // What never ran leaves nothing behind, and nothing of a predecessor's is taken away for it.
    await this.#shutDown(this.#state === 'running' ? remove : !this.fastPath.adopted);
  }

  async #shutDown(remove: boolean): Promise<void> {
    this.#observer?.close();
    this.#state = 'stopped';
    clearInterval(this.#sweeping);
    clearInterval(this.#calibrating);
    this.#sockets?.close();
    if (remove) this.fastPath.remove();
    else this.fastPath.close();
    await this.network.close();
  }
}

/** How a table becomes larger. */
function roomAdvice(option: string): string {
  return `: end the daemon (\`dirigo down\`, which ends connections) and start it with a larger ${option}`;
}

function word(value: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint32(0, value, true);
  return new Uint8Array(view.buffer);
}
