/**
 * The real host as a director sees it: addresses, routes, neighbours and interfaces of the current network namespace.
 *
 * The kernel stays the one that resolves neighbours (ARP, neighbour discovery). It does not see the traffic that goes
 * through XDP, so it is asked to keep the entries of real servers for good (`managed`, Linux 5.16). Whether they still
 * hold is asked from here, every few seconds: first the station that had the address, then all; the answers go to the
 * kernel, which takes them for its own. What `ip monitor` reports makes everything be read again, and the `NextHop`
 * objects that others hold are changed in place.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import type { Network, NextHop } from '../ipvs/network.ts';
import type { HostAddresses } from '../ipvs/service-table.ts';
import { addressBytes, type Family, formatAddress, parseAddress } from '../wire/address.ts';
import {
  type HostAddress,
  type HostInterface,
  type HostNeighbour,
  type HostRoute,
  type HostState,
  neighbourKey,
  readConfirmations,
  readHostState,
  readHostStateSync,
  runIp,
} from './host-state.ts';
import { probeFrame } from './neighbour-probe.ts';

/** Sends a complete frame out of an interface. */
export type FrameSender = (bytes: Uint8Array, start: number, end: number, interfaceIndex: number) => void;

/** Milliseconds to wait for more news before reading everything again. */
const SETTLE = 20;
/** Milliseconds between two looks at neighbours that need a probe. */
const PROBE_INTERVAL = 3000;
/** Seconds without an answer after which all stations are asked, not only the one that had the address. */
const SILENCE = 5;
/** Devices that cannot send what the XDP program redirects to them: their frames are made by the one below. */
const STACKED = new Set(['vlan', 'bridge', 'macvlan', 'ipvlan', 'team', 'vrf']);
/** Types of the two VLAN tags (IEEE 802.1Q, 802.1ad). */
const TAGS = [0x8100, 0x88a8];
/** Has a program end with this process, even if that is killed, where util-linux is there to say so. */
const WITH_ITS_PARENT = existsSync('/usr/bin/setpriv') ? ['/usr/bin/setpriv', '--pdeathsig', 'TERM'] : [];
/** Milliseconds before a monitor that ended is started again. */
const MONITOR_RESTART = 1000;
/** Frames kept for a neighbour that is not resolved yet. */
const QUEUE_LIMIT = 3;
/** Addresses whose way is remembered, and neighbours known beside those of servers, before the memory is cleared. */
const ROUTE_CACHE_LIMIT = 65536;
const NEIGHBOUR_LIMIT = 4096;

/** A neighbour that packets went to, with the object that others hold. */
class Neighbour implements NextHop {
  readonly interfaceIndex: number;
  readonly sourceMac = new Uint8Array(6);
  readonly destinationMac = new Uint8Array(6);
  readonly sourceAddress: Uint8Array;
  readonly address: string;
  readonly #routeMtu: number;
  resolved = false;
  mtu = 0;
  isManaged = false;
  isPermanent = false;
  isReachable = false;
  /** True if a frame was sent to it since the last look. */
  wasUsed = false;
  /** Real servers that are reached by it. */
  servers = 0;
  directorOnly = false;
  readonly queue: Uint8Array[] = [];

  /** True for the ways to real servers. */
  get isKept(): boolean {
    return this.servers > 0;
  }

  constructor(interfaceIndex: number, address: string, sourceAddress: Uint8Array, routeMtu: number) {
    this.interfaceIndex = interfaceIndex;
    this.address = address;
    this.sourceAddress = sourceAddress;
    this.#routeMtu = routeMtu;
  }

  /** Takes over what is known now. True if anything changed that a frame or a record depends on. */
  update(link: HostInterface | undefined, known: HostNeighbour | undefined): boolean {
    const mac = known?.mac;
    const resolved = link?.isUp === true && mac !== undefined;
    const mtu = Math.min(link?.mtu ?? 0, this.#routeMtu || Number.POSITIVE_INFINITY);
    const changed =
      resolved !== this.resolved ||
      mtu !== this.mtu ||
      (mac !== undefined && !sameBytes(mac, this.destinationMac)) ||
      (link !== undefined && !sameBytes(link.mac, this.sourceMac));
    if (mac) this.destinationMac.set(mac);
    if (link) this.sourceMac.set(link.mac);
    this.resolved = resolved;
    this.mtu = mtu;
    this.isManaged = known?.isManaged ?? false;
    this.isPermanent = known?.isPermanent ?? false;
    this.isReachable = known?.isReachable ?? false;
    return changed;
  }
}

interface CachedRoute {
  w0: number;
  w1: number;
  w2: number;
  w3: number;
  hop: Neighbour | undefined;
}

export class KernelNetwork implements Network, HostAddresses {
  /** Called when next hops changed: with those whose neighbours did, without any if routes or interfaces did. */
  onChange: (hops?: ReadonlySet<NextHop>) => void = () => {};
  /** Called when next hops were forgotten that nobody holds: who has one asks for the way again. */
  onForget: () => void = () => {};
  readonly #send: FrameSender;
  #state: HostState;
  #interfaces = new Map<number, HostInterface>();
  readonly #local4 = new Set<number>();
  #local6: Int32Array[] = [];
  readonly #broadcasts = new Set<string>();
  /** By a hash of the address; an entry that is in the way is replaced. */
  readonly #routes = new Map<number, CachedRoute>();
  readonly #neighbours = new Map<string, Neighbour>();
  #monitor: ChildProcess | undefined;
  #settling: NodeJS.Timeout | undefined;
  /** Ways that are kept from now on, and when the kernel is told: each call of iproute2 takes milliseconds. */
  readonly #fresh = new Set<Neighbour>();
  #asking: NodeJS.Timeout | undefined;
  /** Neighbours that servers are reached by. */
  #kept = 0;
  #forgetting: NodeJS.Immediate | undefined;
  #probing: NodeJS.Timeout | undefined;
  #restarting: NodeJS.Timeout | undefined;
  #refreshing: Promise<void> | undefined;
  #closed = false;
  readonly #untagged = new Uint8Array(65_600);
  /** Stacked devices that take what the program sends. */
  #takers: ReadonlySet<number> = new Set();
  /** Undefined until the kernel has shown that it can. */
  #canManage: boolean | undefined;
  /** Frames that found no place in a neighbour's queue, or whose neighbour did not answer. */
  dropped = 0;

  /** @throws Error if iproute2 is missing */
  constructor(send: FrameSender) {
    this.#send = send;
    this.#state = readHostStateSync();
    this.#index();
  }

  /** Follows changes from now on, until `close`. */
  start(): void {
    this.#watch();
    this.#probing = setInterval(() => this.#probe(), PROBE_INTERVAL);
    this.#scheduleRefresh();
  }

  #watch(): void {
    const [command, ...words] = [...WITH_ITS_PARENT, 'ip', 'monitor', 'link', 'address', 'route', 'neigh'];
    const monitor = spawn(command as string, words, {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    this.#monitor = monitor;
    monitor.stdout.on('data', () => this.#scheduleRefresh());
    monitor.on('error', () => {});
    monitor.on('close', () => {
      if (this.#closed) return;
      this.#restarting = setTimeout(() => {
        this.#watch();
        this.#scheduleRefresh();
      }, MONITOR_RESTART);
    });
  }

  #scheduleRefresh(): void {
    if (this.#closed) return;
    this.#settling ??= setTimeout(() => {
      this.#settling = undefined;
      if (this.#refreshing) this.#scheduleRefresh();
      else {
        this.#refreshing = this.refresh()
          .catch(() => {})
          .finally(() => {
            this.#refreshing = undefined;
          });
      }
    }, SETTLE);
  }

  /** Reads everything again and changes what depends on it. */
  async refresh(): Promise<void> {
    const state = await readHostState();
    if (this.#closed) return;
    const sameRoutes =
      JSON.stringify([state.routes, state.addresses, state.interfaces]) ===
      JSON.stringify([this.#state.routes, this.#state.addresses, this.#state.interfaces]);
    this.#state = state;
    if (!sameRoutes) this.#index();
    const changed = this.#updateNeighbours();
    if (!sameRoutes) this.onChange();
    else if (changed.size > 0) this.onChange(changed);
  }

  #index(): void {
    const { interfaces, addresses } = this.#state;
    this.#interfaces = new Map(interfaces.map(link => [link.index, link]));
    this.#local4.clear();
    this.#local6 = [];
    this.#broadcasts.clear();
    for (const { bytes, prefixLength } of addresses) {
      if (bytes.length === 4) this.#local4.add(wordAt(bytes, 0));
      else this.#local6.push(Int32Array.from([0, 4, 8, 12], at => wordAt(bytes, at)));
      if (bytes.length === 4 && prefixLength <= 30) {
        this.#broadcasts.add(formatAddress(bytes.map((byte, at) => byte | hostMask(prefixLength, at))));
      }
    }
    this.#routes.clear();
  }

  /** Returns the next hops that changed. Sends what waited for one that is resolved now. */
  #updateNeighbours(): ReadonlySet<NextHop> {
    const known = new Map<string, HostNeighbour>();
    for (const each of this.#state.neighbours)
      known.set(neighbourKey(each.interfaceIndex, each.address), each);
    const changed = new Set<NextHop>();
    for (const neighbour of this.#neighbours.values()) {
      const entry = known.get(neighbourKey(neighbour.interfaceIndex, neighbour.address));
      if (neighbour.update(this.#interfaces.get(neighbour.interfaceIndex), entry)) changed.add(neighbour);
      if (neighbour.resolved && neighbour.queue.length > 0) this.#sendQueue(neighbour);
    }
    return changed;
  }

  #sendQueue(neighbour: Neighbour): void {
    for (const frame of neighbour.queue.splice(0)) {
      frame.set(neighbour.destinationMac, 0);
      frame.set(neighbour.sourceMac, 6);
      this.#sendFrame(frame, 0, frame.length, neighbour.interfaceIndex);
    }
  }

  /** A VLAN device puts its own tag on; one that the frame came with would be a second. */
  #sendFrame(bytes: Uint8Array, start: number, end: number, interfaceIndex: number): void {
    const type = ((bytes[start + 12] as number) << 8) | (bytes[start + 13] as number);
    if (!TAGS.includes(type) || this.#interfaces.get(interfaceIndex)?.kind !== 'vlan') {
      this.#send(bytes, start, end, interfaceIndex);
      return;
    }
    // The caller's bytes stay as they are.
    const untagged = this.#untagged;
    untagged.set(bytes.subarray(start, start + 12), 0);
    untagged.set(bytes.subarray(start + 16, end), 12);
    this.#send(untagged, 0, end - start - 4, interfaceIndex);
  }

  isLocal(bytes: Uint8Array, at = 0, family: Family = bytes.length === 4 ? 4 : 6): boolean {
    const first = wordAt(bytes, at);
    // The whole of 127/8 is the host's own.
    if (family === 4) return this.#local4.has(first) || bytes[at] === 127;
    for (const words of this.#local6) {
      if (
        words[0] === first &&
        words[1] === wordAt(bytes, at + 4) &&
        words[2] === wordAt(bytes, at + 8) &&
        words[3] === wordAt(bytes, at + 12)
      ) {
        return true;
      }
    }
    return false;
  }

  isBroadcast(address: Uint8Array): boolean {
    return this.#broadcasts.has(formatAddress(address));
  }

  interfaceMtu(name: string): number | undefined {
    return this.interface(name)?.mtu;
  }

  interface(name: string): HostInterface | undefined {
    return this.#state.interfaces.find(link => link.name === name);
  }

  interfaces(): readonly HostInterface[] {
    return this.#state.interfaces;
  }

  nextHop(bytes: Uint8Array, at: number, family: Family): NextHop | undefined {
    const w0 = wordAt(bytes, at);
    const w1 = family === 6 ? wordAt(bytes, at + 4) : 0;
    const w2 = family === 6 ? wordAt(bytes, at + 8) : 0;
    const w3 = family === 6 ? wordAt(bytes, at + 12) : 0;
    const hash = (w0 ^ Math.imul(w1, 0x9e3779b1) ^ Math.imul(w2, 0x85ebca6b) ^ Math.imul(w3, 0xc2b2ae35)) | 0;
    const cached = this.#routes.get(hash);
    if (cached && cached.w0 === w0 && cached.w1 === w1 && cached.w2 === w2 && cached.w3 === w3)
      return cached.hop;
    const hop = this.#route(bytes.slice(at, at + addressBytes(family)));
    if (this.#routes.size >= ROUTE_CACHE_LIMIT) this.#routes.clear();
    this.#routes.set(hash, { w0, w1, w2, w3, hop });
    return hop;
  }

  #route(address: Uint8Array): Neighbour | undefined {
    const route = this.#state.routes.find(
      ({ bytes, prefixLength }) => bytes.length === address.length && inPrefix(address, bytes, prefixLength),
    );
    if (!route || route.interfaceIndex === 0) return undefined;
    const target = route.gateway ?? address;
    const source = this.#sourceFor(route, target);
    const key = `${route.interfaceIndex} ${formatAddress(target)} ${formatAddress(source)} ${route.mtu}`;
    let neighbour = this.#neighbours.get(key);
    if (neighbour) return neighbour;
    if (this.#neighbours.size - this.#kept >= NEIGHBOUR_LIMIT) this.#forgetLater();
    neighbour = new Neighbour(route.interfaceIndex, formatAddress(target), source, route.mtu);
    this.#neighbours.set(key, neighbour);
    const entry = this.#state.neighbours.find(
      ({ interfaceIndex, address }) =>
        interfaceIndex === route.interfaceIndex && address === neighbour?.address,
    );
    neighbour.update(this.#interfaces.get(route.interfaceIndex), entry);
    neighbour.directorOnly = this.#isDirectorOnly(route.interfaceIndex);
    return neighbour;
  }

  /**
   * Says where the program is attached. A VLAN device that it is attached to itself, in the network stack like all
   * others, takes what the program sends.
   */
  attached(interfaces: readonly { index: number; mode: string }[]): void {
    const generic = interfaces.every(({ mode }) => mode === 'generic');
    this.#takers = new Set(generic ? interfaces.map(({ index }) => index) : []);
    for (const neighbour of this.#neighbours.values()) {
      neighbour.directorOnly = this.#isDirectorOnly(neighbour.interfaceIndex);
    }
  }

  #isDirectorOnly(index: number): boolean {
    return STACKED.has(this.#interfaces.get(index)?.kind ?? '') && !this.#takers.has(index);
  }

  /** Drops neighbours that no server is reached by, once servers that are being added now hold theirs. */
  #forgetLater(): void {
    this.#forgetting ??= setImmediate(() => {
      this.#forgetting = undefined;
      for (const [key, { isKept }] of this.#neighbours) if (!isKept) this.#neighbours.delete(key);
      this.#routes.clear();
      this.onForget();
    });
  }

  /** The address this host speaks with on the way: the route's, else one of the interface, in the target's network if possible. */
  #sourceFor({ preferredSource, interfaceIndex }: HostRoute, target: Uint8Array): Uint8Array {
    if (preferredSource) return preferredSource;
    const rank = (each: HostAddress): number =>
      (each.isGlobal ? 4 : 0) +
      (each.interfaceIndex === interfaceIndex ? 2 : 0) +
      (inPrefix(target, each.bytes, each.prefixLength) ? 1 : 0);
    const candidates = this.#state.addresses.filter(({ bytes }) => bytes.length === target.length);
    const best = candidates.reduce<HostAddress | undefined>(
      (found, each) => (found && rank(found) >= rank(each) ? found : each),
      undefined,
    );
    return best?.bytes ?? new Uint8Array(target.length);
  }

  transmit(bytes: Uint8Array, start: number, end: number, hop: NextHop): void {
    const neighbour = hop instanceof Neighbour ? hop : undefined;
    if (neighbour) neighbour.wasUsed = true;
    if (hop.resolved) {
      this.#sendFrame(bytes, start, end, hop.interfaceIndex);
      return;
    }
    if (!neighbour || neighbour.queue.length >= QUEUE_LIMIT) {
      this.dropped++;
      return;
    }
    neighbour.queue.push(bytes.slice(start, end));
    if (neighbour.queue.length === 1) this.#ask([neighbour]);
  }

  /** A real server is reached by this next hop from now on: its entry must never go stale. */
  hold(hop: NextHop): void {
    if (!(hop instanceof Neighbour)) return;
    if (hop.servers++ > 0) return;
    this.#kept++;
    if (!needsHelp(hop)) return;
    this.#fresh.add(hop);
    this.#asking ??= setTimeout(() => {
      this.#asking = undefined;
      const asked = [...this.#fresh].filter(({ isKept }) => isKept);
      this.#fresh.clear();
      this.#ask(asked);
    }, SETTLE);
  }

  /** A real server is not reached by it any more. */
  release(hop: NextHop): void {
    if (hop instanceof Neighbour && --hop.servers === 0) this.#kept--;
  }

  #probe(): void {
    const stale: Neighbour[] = [];
    // Those that nobody keeps any more are left to the kernel's own rules again; a server may come back within seconds.
    const released: Neighbour[] = [];
    for (const neighbour of this.#neighbours.values()) {
      if (!neighbour.isKept && neighbour.isManaged) released.push(neighbour);
      if (neighbour.isKept ? needsHelp(neighbour) : neighbour.wasUsed && !neighbour.isReachable) {
        if (!neighbour.isPermanent) stale.push(neighbour);
      }
      neighbour.wasUsed = false;
      // Whoever has not answered by now will be asked again by the next packet.
      if (!neighbour.resolved) this.dropped += neighbour.queue.splice(0).length;
    }
    if (released.length > 0) void this.#runNeigh(released, 'use');
    this.#ask(stale);
    this.#probeKept().catch(() => {});
  }

  /** Asks real servers whether they are still where they were. */
  async #probeKept(): Promise<void> {
    const kept = [...this.#neighbours.values()].filter(
      ({ isKept, isPermanent, interfaceIndex }) =>
        isKept && !isPermanent && this.#interfaces.get(interfaceIndex)?.isUp,
    );
    if (kept.length === 0) return;
    const ages = await readConfirmations(this.#state.interfaces);
    if (this.#closed) return;
    for (const { interfaceIndex, address, sourceMac, sourceAddress, destinationMac, resolved } of kept) {
      const target = parseAddress(address);
      if (!target || sourceMac.every(byte => byte === 0)) continue;
      const isSilent = !resolved || (ages.get(neighbourKey(interfaceIndex, address)) ?? SILENCE) >= SILENCE;
      const frame = probeFrame(sourceMac, sourceAddress, target, isSilent ? undefined : destinationMac);
      this.#send(frame, 0, frame.length, interfaceIndex);
    }
  }

  /** Makes the kernel resolve neighbours, those that are kept for good. */
  #ask(neighbours: readonly Neighbour[]): void {
    if (neighbours.length === 0 || this.#closed) return;
    const managed = this.#canManage === false ? [] : neighbours.filter(({ isKept }) => isKept);
    const used = neighbours.filter(each => !managed.includes(each));
    if (used.length > 0) void this.#runNeigh(used, 'use');
    if (managed.length > 0) {
      void this.#runNeigh(managed, 'managed').then(understood => {
        if (this.#canManage === undefined) {
          this.#canManage = understood;
          if (!understood) this.#ask(neighbours);
        }
      });
    }
  }

  /** Returns whether iproute2 and the kernel understood it. */
  async #runNeigh(neighbours: readonly Neighbour[], how: 'use' | 'managed'): Promise<boolean> {
    const lines = neighbours.flatMap(({ address, interfaceIndex }) => {
      const link = this.#interfaces.get(interfaceIndex);
      return link ? [`neigh replace ${address} dev ${link.name} ${how}\n`] : [];
    });
    try {
      await runIp(['-force', '-batch', '-'], lines.join(''));
      return true;
    } catch {
      return false;
    }
  }

  /** Stops following changes. Entries that were kept are left to the kernel's own rules. */
  async close(): Promise<void> {
    if (this.#closed) return;
    const managed = [...this.#neighbours.values()].filter(({ isManaged }) => isManaged);
    this.#closed = true;
    clearTimeout(this.#settling);
    clearTimeout(this.#asking);
    clearImmediate(this.#forgetting);
    clearTimeout(this.#restarting);
    clearInterval(this.#probing);
    this.#monitor?.kill();
    await this.#refreshing;
    if (managed.length > 0) await this.#runNeigh(managed, 'use');
  }
}

/** True if the kernel does not keep the entry of a real server fresh by itself. */
function needsHelp(neighbour: Neighbour): boolean {
  return !neighbour.isPermanent && !neighbour.isManaged;
}

function sameBytes(one: Uint8Array, other: Uint8Array): boolean {
  return one.every((byte, at) => byte === other[at]);
}

function wordAt(bytes: Uint8Array, at: number): number {
  return (
    ((bytes[at] as number) << 24) |
    ((bytes[at + 1] as number) << 16) |
    ((bytes[at + 2] as number) << 8) |
    (bytes[at + 3] as number)
  );
}

/** The bits of byte `at` of an address that are not part of a prefix of this length. */
function hostMask(prefixLength: number, at: number): number {
  return 0xff >> Math.min(Math.max(prefixLength - 8 * at, 0), 8);
}

function inPrefix(address: Uint8Array, prefix: Uint8Array, prefixLength: number): boolean {
  if (address.length !== prefix.length) return false;
  for (let at = 0; 8 * at < prefixLength; at++) {
    if (((address[at] as number) ^ (prefix[at] as number)) & ~hostMask(prefixLength, at)) return false;
  }
  return true;
}
