/**
 * The XDP program in the kernel: loaded, its maps and links pinned under a directory of a BPF file system, so that it
 * works on when its daemon ends. A later daemon finds maps and links there, takes the tables over as they are and puts
 * its own program in the place of the old one without a gap.
 *
 * Layout of the directory: a pin for each map by its name, `program`, and a link for each interface, named
 * `link_INDEX_MODE`.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, existsSync, readdirSync, readlinkSync, rmdirSync, unlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { ConnectionMemory } from '../../ipvs/connections.ts';
import { TCP_TABLE } from '../../ipvs/tcp-states.ts';
import type { Family } from '../../wire/address.ts';
import {
  installedObject,
  isBpfFileSystem,
  isMountPoint,
  prepareBpfDirectory,
  readObject,
} from '../bpf-files.ts';
import {
  BpfLink,
  BpfMap,
  BpfObject,
  type BpfProgram,
  FrameRunner,
  possibleCpus,
  type TestRun,
  type TestRunResult,
  type XdpMode,
} from '../ffi/libbpf.ts';
import {
  interfaceIndex,
  interfaceName,
  lockFile,
  SystemError,
  tickFrequency,
  unmountFileSystem,
} from '../ffi/libc.ts';
import type { ClockReading } from './clock.ts';
import {
  ControlRecord,
  INTERFACE_BYTES,
  INTERFACE_PROBES,
  INTERFACE_SLOTS,
  InterfaceField,
  LAYOUT_VERSION,
  type Reason,
  reasonNames,
} from './control.ts';
import { ProgramTap, type ProgramTapOptions } from './program-tap.ts';
import { elementsOf, makeTables, type TableName, useTables } from './tables.ts';
import { sums, TrafficCounters } from './traffic-counters.ts';

export const DEFAULT_DIRECTORY = '/sys/fs/bpf/dirigo';

/** The host's addresses that are told to the program, at most. */
const OWN_ADDRESSES = 1024;

/** Maps that outlive the daemon. */
const PINNED = [
  'connections',
  'buckets',
  'reply_buckets',
  'extensions',
  'destinations',
  'tunnels',
  'hops',
  'routes4',
  'routes6',
  'unknown_ways',
  'table_state',
  'plans',
  'cursors',
  'programs',
  'owners',
  'control',
  'services',
  'interfaces',
  'sockets',
  'devices',
  'traffic',
  'reasons',
] as const;

type MapName = (typeof PINNED)[number];

export interface FastPathOptions {
  /** Where maps and links are pinned. Default `/sys/fs/bpf/dirigo`. */
  directory?: string;
  /** Most connections; a table that is pinned already keeps its own. Default 65536. */
  capacity?: number;
  /** Most destinations, likewise. Default 1024. */
  destinationCapacity?: number;
  /** Most services, likewise. Default 1024. */
  serviceCapacity?: number;
  /** Ticks a second, for tests that stop the clock; the kernel's if missing. */
  hz?: number;
  /** The compiled object. Default: the one that belongs to this installation. */
  object?: string;
}

/** Places in the map `programs`, by the program's name. */
const PROGRAM_PLACES = { begin: 0, relate: 2, receive_other: 3, begin_other: 4 } as const;

export interface AttachedInterface {
  name: string;
  index: number;
  mode: XdpMode;
}

export function defaultObject(): string {
  return installedObject('dirigo.bpf.o');
}

const linkPattern = /^link_(\d+)_(native|generic)$/;

interface Attachment extends AttachedInterface {
  link: BpfLink;
}

/** Removes links, maps and the directory that a daemon left behind, whether or not one of this kind can run here. */
export function removePinned(directory: string): void {
  if (!isBpfFileSystem(directory)) return;
  for (const entry of readdirSync(directory)) {
    const path = join(directory, entry);
    if (linkPattern.test(entry)) {
      const link = BpfLink.openPinned(path);
      link?.detach();
      link?.close();
    }
    unlinkSync(path);
  }
  if (isMountPoint(directory)) unmountFileSystem(directory);
  rmdirSync(directory);
}

export class FastPath {
  readonly directory: string;
  readonly capacity: number;
  readonly destinationCapacity: number;
  readonly serviceCapacity: number;
  /** True if the tables were there already. */
  readonly adopted: boolean;
  readonly control: ControlRecord;
  readonly connectionMemory: ConnectionMemory;
  readonly destinationMemory: ArrayBuffer;
  /** Which service each destination's record belongs to: `OwnerField` in control.ts. */
  readonly ownerMemory: ArrayBuffer;
  /** What tunnels need beyond the destination's record, by destination: `TunnelField`. */
  readonly tunnelMemory: ArrayBuffer;
  /** Ways to clients: `HopField`. */
  readonly hopMemory: ArrayBuffer;
  /** Selection plans, and the places of sequences: `plans.ts`. */
  readonly planMemory: ArrayBuffer;
  readonly cursorMemory: ArrayBuffer;
  /** Which of them an address has, by family. Key: u32 prefix length, address; value: u32 number, 0: ask. */
  readonly routes: Readonly<Record<Family, BpfMap>>;
  /** Clients that the program found no way to: u32 family, 16 bytes address. */
  readonly unknownWays: BpfMap;
  /** What the program counted for each destination. */
  readonly traffic: TrafficCounters;
  /** The director's AF_XDP sockets, by interface and queue. */
  readonly sockets: BpfMap;
  readonly program: BpfProgram;
  readonly #object: BpfObject;
  readonly #maps: Record<MapName, BpfMap>;
  /** Those whose descriptors are held here and not by the object. */
  #tables: ReadonlyMap<string, BpfMap> = new Map();
  readonly #passToHost: BpfProgram;
  readonly #readClock: BpfProgram;
  readonly #interfaces: DataView;
  readonly #attached = new Map<number, Attachment>();
  readonly #devices = new Set<number>();
  readonly #cpus: number;
  readonly #objectPath: string;
  #tap: ProgramTap | undefined;
  #lock = -1;

  /**
   * Loads the program and makes or takes over its maps. Nothing is attached yet; what a predecessor attached works on
   * with its program until `attach`.
   * @throws Error, with nothing left behind that was not there before
   */
  constructor(options: FastPathOptions = {}) {
    if (process.geteuid?.() !== 0) {
      throw new Error(
        'the XDP data path needs root (CAP_BPF, CAP_NET_ADMIN): run as root, or use --datapath virtual',
      );
    }
    this.#objectPath = options.object ?? defaultObject();
    const bytes = readObject(this.#objectPath);
    this.directory = options.directory ?? DEFAULT_DIRECTORY;
    this.#cpus = possibleCpus();
    const before = isBpfFileSystem(this.directory) ? readdirSync(this.directory) : undefined;
    this.adopted = before?.includes('connections') ?? false;
    prepareBpfDirectory(this.directory);
    if (!lockFile(this.directory, fd => (this.#lock = fd))) {
      throw new Error(
        `another daemon is using ${this.directory}: stop it, or give this one a directory of its own`,
      );
    }
    this.#object = new BpfObject(bytes, 'dirigo.bpf.o');
    try {
      const existing = this.#openPinned();
      const elements = (name: TableName): number | undefined => {
        const map = existing.get(name);
        return map && elementsOf(name, map);
      };
      this.capacity = elements('connections') ?? options.capacity ?? 65536;
      this.destinationCapacity = elements('destinations') ?? options.destinationCapacity ?? 1024;
      this.serviceCapacity = existing.get('cursors')?.maxEntries ?? options.serviceCapacity ?? 1024;
      const sizes = {
        connections: this.capacity,
        destinations: this.destinationCapacity,
        services: this.serviceCapacity,
      };
      this.#tables = makeTables(sizes, existing);
      this.#load(existing);
      this.#maps = Object.fromEntries(
        PINNED.map(name => [name, this.#tables.get(name) ?? this.#object.map(name)]),
      ) as Record<MapName, BpfMap>;
      this.sockets = this.#maps.sockets;
      this.traffic = new TrafficCounters(this.#maps.traffic, this.#cpus);
      this.program = this.#object.program('dirigo');
      this.#passToHost = this.#object.program('pass_to_host');
      this.#readClock = this.#object.program('read_clock');
      this.connectionMemory = {
        records: this.#maps.connections.memory(),
        buckets: this.#maps.buckets.memory(),
        replyBuckets: this.#maps.reply_buckets.memory(),
        extensions: this.#maps.extensions.memory(),
        state: this.#maps.table_state.memory(),
      };
      this.destinationMemory = this.#maps.destinations.memory();
      this.ownerMemory = this.#maps.owners.memory();
      this.tunnelMemory = this.#maps.tunnels.memory();
      this.hopMemory = this.#maps.hops.memory();
      this.routes = { 4: this.#maps.routes4, 6: this.#maps.routes6 };
      this.planMemory = this.#maps.plans.memory();
      this.cursorMemory = this.#maps.cursors.memory();
      this.unknownWays = this.#maps.unknown_ways;
      this.#interfaces = new DataView(this.#maps.interfaces.memory());
      this.control = new ControlRecord(this.#maps.control.memory());
      this.#fillControl(options.hz);
      this.#linkPrograms();
      this.#pin(existing);
      if (this.adopted) this.#adoptLinks();
    } catch (error) {
      this.#closeMaps();
      if (before === undefined || before.length === 0) this.#removeDirectory();
      this.#unlock();
      throw error;
    }
  }

  #openPinned(): Map<MapName, BpfMap> {
    const existing = new Map<MapName, BpfMap>();
    for (const name of PINNED) {
      const map = BpfMap.openPinned(name, join(this.directory, name));
      if (map) existing.set(name, map);
    }
    const control = existing.get('control');
    if (control) {
      const value = new Uint8Array(new ArrayBuffer(control.valueSize));
      control.lookup(new Uint8Array(new ArrayBuffer(4)), value);
      const version = new DataView(value.buffer).getUint32(0, true);
      if (version !== LAYOUT_VERSION) {
        throw new Error(
          `${this.directory} holds tables of layout ${version}, this program has layout ${LAYOUT_VERSION}: ` +
            '`dirigo down` removes them, which ends their connections',
        );
      }
    }
    return existing;
  }

  #load(existing: Map<MapName, BpfMap>): void {
    const { serviceCapacity, destinationCapacity } = this;
    const sizes: Partial<Record<MapName, number>> = {
      cursors: serviceCapacity,
      owners: this.destinationCapacity,
      traffic: this.destinationCapacity,
      // A service and its VIP; servers whose replies are translated; local addresses of FULLNAT and of tunnels.
      services: 2 * serviceCapacity + destinationCapacity + OWN_ADDRESSES,
    };
    useTables(this.#object, this.#tables);
    for (const name of PINNED) {
      if (this.#tables.has(name)) continue;
      const map = existing.get(name);
      const size = sizes[name];
      if (map) this.#object.reuse(name, map);
      else if (size !== undefined) this.#object.setMaxEntries(name, size);
    }
    this.#object.load();
    // The object has descriptors of its own.
    for (const [name, map] of existing) if (!this.#tables.has(name)) map.close();
  }

  #fillControl(hz: number | undefined): void {
    const control = this.control;
    if (control.version === 0) {
      control.seed = randomBytes(4).readUInt32LE();
      control.hz = hz ?? tickFrequency();
      control.setTcpTable(TCP_TABLE);
      control.version = LAYOUT_VERSION;
    }
  }

  /** The programs that the first one goes on to. Those of a predecessor's go on to the new ones from here on. */
  #linkPrograms(): void {
    for (const [name, place] of Object.entries(PROGRAM_PLACES)) {
      this.#maps.programs.update(this.#key(place), this.#key(this.#object.program(name).fd));
    }
  }

  #pin(existing: Map<MapName, BpfMap>): void {
    // The connections last: a directory without them is not taken for a predecessor's.
    for (const name of [...PINNED].reverse()) {
      if (!existing.has(name)) this.#maps[name].pin(join(this.directory, name));
    }
    const path = join(this.directory, 'program');
    if (existsSync(path)) unlinkSync(path);
    this.program.pin(path);
  }

  #adoptLinks(): void {
    for (const entry of readdirSync(this.directory)) {
      const match = linkPattern.exec(entry);
      const link = match ? BpfLink.openPinned(join(this.directory, entry)) : undefined;
      if (!match || !link) continue;
      const name = link.interfaceIndex ? interfaceName(link.interfaceIndex) : undefined;
      if (name === undefined) {
        // The interface is gone, and with it the attachment.
        unlinkSync(join(this.directory, entry));
        link.close();
        continue;
      }
      const mode = match[2] as XdpMode;
      this.#attached.set(link.interfaceIndex, { name, index: link.interfaceIndex, mode, link });
    }
  }

  /**
   * Puts the program with a tap in the place of the one that is attached, on all interfaces; without a gap. There can be
   * one tap at a time.
   * @throws Error if there is one already, or the program cannot be loaded
   */
  tap(options: Pick<ProgramTapOptions, 'filter' | 'limit' | 'looks' | 'snapshotLength'>): ProgramTap {
    if (this.#tap) throw new Error('somebody captures already: there can be one capture of the XDP program');
    const tap = new ProgramTap({
      ...options,
      object: join(dirname(this.#objectPath), 'dirigo-tap.bpf.o'),
      shared: this.#maps,
      tables: this.#tables,
      leaveOut: this.#object.programs.filter(name => name !== 'dirigo'),
      hz: this.control.hz,
    });
    this.#tap = tap;
    this.#updateLinks(tap.program);
    return tap;
  }

  /** Takes the tap away. */
  untap(tap: ProgramTap): void {
    if (this.#tap !== tap) return;
    this.#tap = undefined;
    this.#updateLinks(this.program);
    tap.close();
  }

  #updateLinks(program: BpfProgram): void {
    for (const { link } of this.#attached.values()) link.update(program);
  }

  /** Interfaces with the program, those of a predecessor included. */
  attached(): AttachedInterface[] {
    return [...this.#attached.values()].map(({ name, index, mode }) => ({ name, index, mode }));
  }

  /**
   * Attaches the program to an interface, or replaces the program that a predecessor attached there.
   * @param mode `auto`: in the driver if it can, else in the network stack
   */
  attach(name: string, mode: XdpMode | 'auto' = 'auto'): AttachedInterface {
    const index = interfaceIndex(name);
    if (index === 0) throw new Error(`there is no interface ${name}: \`ip link\` lists those there are`);
    const existing = this.#attached.get(index);
    if (existing && (mode === 'auto' || mode === existing.mode)) {
      existing.link.update(this.program);
      return existing;
    }
    if (existing) this.detach(index);
    const attachment = this.#attachNew(name, index, mode);
    this.#attached.set(index, attachment);
    attachment.link.pin(join(this.directory, `link_${index}_${attachment.mode}`));
    return attachment;
  }

  #attachNew(name: string, index: number, mode: XdpMode | 'auto'): Attachment {
    const modes: XdpMode[] = mode === 'auto' ? ['native', 'generic'] : [mode];
    // An attachment that has just ended may still hold the place for a moment.
    for (let attempt = 0; ; attempt++) {
      try {
        const mode = modes[0] as XdpMode;
        return { name, index, mode, link: BpfLink.attachXdp(this.program, index, name, mode) };
      } catch (error) {
        if (!(error instanceof SystemError)) throw error;
        if (error.code === 'EBUSY' || error.code === 'EEXIST') {
          if (attempt >= 20) {
            throw new Error(
              `${error.message}; ${name} has another XDP program: remove it (ip link set ${name} xdp off)`,
            );
          }
          Atomics.wait(pause, 0, 0, 25);
        } else if (modes.length > 1) modes.shift();
        else throw error;
      }
    }
  }

  /** Takes the program off an interface. */
  detach(index: number): void {
    const attachment = this.#attached.get(index);
    if (!attachment) return;
    this.#attached.delete(index);
    const path = join(this.directory, `link_${index}_${attachment.mode}`);
    if (existsSync(path)) unlinkSync(path);
    attachment.link.detach();
    attachment.link.close();
    this.#clearInterface(index);
  }

  #slotOf(index: number): number {
    for (let probe = 0; probe < INTERFACE_PROBES; probe++) {
      const slot = (index + probe) % INTERFACE_SLOTS;
      if (this.#interfaces.getUint32(slot * INTERFACE_BYTES + InterfaceField.index, true) === index)
        return slot;
    }
    return -1;
  }

  #clearInterface(index: number): void {
    const slot = this.#slotOf(index);
    if (slot >= 0) this.#interfaces.setUint32(slot * INTERFACE_BYTES + InterfaceField.index, 0, true);
  }

  /**
   * Tells the program about an interface it is attached to: frames for this MAC are looked at, those of queue `n` that
   * are the director's go to the socket at `firstSocket + n`.
   * @param flags a sum of `InterfaceFlag`
   */
  configureInterface(index: number, mac: Uint8Array, firstSocket: number, queues: number, flags = 0): void {
    const known = this.#slotOf(index);
    const slot = known >= 0 ? known : this.#freeSlot(index);
    const at = slot * INTERFACE_BYTES;
    const bytes = new Uint8Array(this.#interfaces.buffer, at + InterfaceField.mac, 6);
    bytes.set(mac);
    this.#interfaces.setUint32(at + InterfaceField.firstSocket, firstSocket, true);
    this.#interfaces.setUint32(at + InterfaceField.queues, queues, true);
    this.#interfaces.setUint16(at + InterfaceField.flags, flags, true);
    this.#interfaces.setUint32(at + InterfaceField.index, index, true);
  }

  #freeSlot(index: number): number {
    for (let probe = 0; probe < INTERFACE_PROBES; probe++) {
      const slot = (index + probe) % INTERFACE_SLOTS;
      if (this.#interfaces.getUint32(slot * INTERFACE_BYTES + InterfaceField.index, true) === 0) return slot;
    }
    throw new Error(
      `interface ${interfaceName(index) ?? index}: too many interfaces whose indexes are equal modulo ${INTERFACE_SLOTS}`,
    );
  }

  /** Allows packets to be redirected to an interface. */
  allowDevice(index: number): void {
    if (this.#devices.has(index)) return;
    const word = new Uint8Array(new ArrayBuffer(4));
    new DataView(word.buffer).setUint32(0, index, true);
    this.#maps.devices.update(word, word);
    this.#devices.add(index);
  }

  /** Keys of the map `services`; see `serviceKey` in control.ts. */
  serviceKeys(): Uint8Array[] {
    return this.#maps.services.keys();
  }

  /** Sets what the program knows by a key of `services`; with nothing, removes it. The next packet sees it. */
  setService(key: Uint8Array, value?: Uint8Array): void {
    if (value) this.#maps.services.update(key, value);
    else this.#maps.services.delete(key);
    // CPUs remember what they looked up last.
    this.control.forgetServices();
    this.traffic.forget();
  }

  /** The kernel's ticks and its monotonic clock now. */
  readClock(): ClockReading {
    this.#readClock.run({ frame: clockFrame });
    return this.control.clock;
  }

  /** Gives a frame to the host's own network stack, as if the interface had received it without the program. */
  passToHost(frame: Uint8Array, index: number): void {
    this.#passToHost.run({ frame, interfaceIndex: index, live: true });
  }

  /** For many runs. */
  runner(longest: number): FrameRunner {
    return new FrameRunner(this.program, longest);
  }

  /** Runs the program on a frame without attaching it; for tests and measurements. */
  run(options: TestRun): TestRunResult {
    return this.program.run(options);
  }

  /** Packets by what became of them. */
  reasons(): Record<Reason, number> {
    const totals = {} as Record<Reason, number>;
    reasonNames.forEach((name, index) => {
      totals[name] = this.#sum(this.#maps.reasons, index, 1)[0] as number;
    });
    return totals;
  }

  #key(index: number): Uint8Array {
    const key = new Uint8Array(new ArrayBuffer(4));
    new DataView(key.buffer).setUint32(0, index, true);
    return key;
  }

  /** The words of a per-CPU value, added up over the CPUs. */
  #sum(map: BpfMap, index: number, words: number): number[] {
    const value = new BigUint64Array(new ArrayBuffer(8 * words * this.#cpus));
    map.lookup(this.#key(index), new Uint8Array(value.buffer));
    return sums(value.buffer, 0, words, this.#cpus);
  }

  /** Empties all tables but what is known of interfaces: for tests. No director may go on working on them. */
  clear(): void {
    for (const name of PINNED) {
      if (!['control', 'interfaces', 'sockets', 'devices', 'programs'].includes(name))
        this.#maps[name].clear(this.#cpus);
    }
    this.control.forgetServices();
  }

  /** Bytes of the kernel's memory that the tables take. */
  memory(): number {
    const { connections, buckets, reply_buckets, extensions, destinations } = this.#maps;
    return [connections, buckets, reply_buckets, extensions, destinations].reduce(
      (sum, map) => sum + map.valueSize,
      0,
    );
  }

  /** Closes what this process holds. The program works on where it is attached. */
  close(): void {
    if (this.#tap && this.#attached.size > 0) this.untap(this.#tap);
    for (const { link } of this.#attached.values()) link.close();
    this.#attached.clear();
    this.#closeMaps();
    this.#unlock();
  }

  #closeMaps(): void {
    this.#object.close();
    for (const map of this.#tables.values()) map.close();
  }

  /** Takes the program off all interfaces, then removes maps, pins and the directory: nothing stays. */
  remove(): void {
    for (const index of [...this.#attached.keys()]) this.detach(index);
    this.close();
    removePinned(this.directory);
  }

  #removeDirectory(): void {
    this.#unlock();
    for (const entry of readdirSync(this.directory)) unlinkSync(join(this.directory, entry));
    if (isMountPoint(this.directory)) unmountFileSystem(this.directory);
    rmdirSync(this.directory);
  }

  #unlock(): void {
    if (this.#lock >= 0) closeSync(this.#lock);
    this.#lock = -1;
  }
}

const clockFrame = new Uint8Array(new ArrayBuffer(14));
const pause = new Int32Array(new SharedArrayBuffer(4));

/** True if mounts made by this process are its own affair (as under `ip netns exec`): its pins end with it. */
export function hasPrivateMounts(): boolean {
  try {
    return readlinkSync('/proc/self/ns/mnt') !== readlinkSync('/proc/1/ns/mnt');
  } catch {
    return false;
  }
}
