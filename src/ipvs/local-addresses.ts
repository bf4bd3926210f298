/**
 * The local addresses (LIPs) of FULLNAT and their ports. To a real server every connection of FULLNAT comes from a local
 * address of its service and a port between `fullnat_lport_min` and `fullnat_lport_max`.
 *
 * A port is taken once for each server and port behind it, so that one local address carries some 60,000 connections to
 * every server. Services that share a local address share its ports. Addresses and ports are given in turn: a port that
 * was just released is the last to come again. In addition it rests until `SERVER_TIME_WAIT` has passed since the
 * connection's last packet, because the server may still remember the connection. With the kernel's timeouts (120 s in
 * TIME_WAIT) that makes about 500 new connections a second for each pair of local address and server; more need more
 * local addresses.
 *
 * Finding a port is a look at a bitmap; whether the port is free indeed is asked of the connection table, so that the
 * same pair of ends never belongs to two connections whatever happened before.
 */
import { type Family, formatAddress, parseAddress } from '../wire/address.ts';
import { swap16 } from '../wire/checksum.ts';
import { Protocol } from '../wire/ipv4.ts';
import { ConnectionKey } from './connection-key.ts';
import { ConnectionFlag, type ConnectionTable, EXTENSION_WORDS, Extension } from './connections.ts';
import { DESTINATION_BYTES, DestinationField, type DestinationTable, Forwarding } from './destinations.ts';
import type { Destination, Service } from './service-table.ts';
import type { Settings } from './settings.ts';
import type { LocalAddressStatus } from './specification.ts';
import type { TimeoutTable } from './timeouts.ts';

/** Seconds a server remembers a connection that it closed (TCP_TIMEWAIT_LEN of Linux; RFC 9293 asks for 2 MSL). */
export const SERVER_TIME_WAIT = 60;

const BITMAP_WORDS = 65536 / 32;

/** A local address of a service, as `localAddresses` of its specification names it: `10.0.0.50` or `10.0.0.50%eth1`. */
export class LocalAddress {
  /** Canonical, without the interface. */
  readonly address: string;
  /** 4 or 16. */
  readonly bytes: Uint8Array;
  readonly family: Family;
  /** The interface that it is meant for, empty if none was named. */
  readonly interfaceName: string;
  /** The director's: its ports. */
  ports: LocalPorts | undefined = undefined;

  constructor(bytes: Uint8Array, interfaceName: string) {
    this.bytes = bytes;
    this.address = formatAddress(bytes);
    this.family = bytes.length === 4 ? 4 : 6;
    this.interfaceName = interfaceName;
  }

  /** As in a specification. */
  get text(): string {
    return this.interfaceName === '' ? this.address : `${this.address}%${this.interfaceName}`;
  }
}

/** Parses `10.0.0.50` or `10.0.0.50%eth1`; undefined if it is neither. */
export function parseLocalAddress(text: string): LocalAddress | undefined {
  const [address, interfaceName, ...rest] = text.split('%');
  const bytes = parseAddress(address ?? '');
  if (!bytes || rest.length > 0 || interfaceName === '') return undefined;
  return new LocalAddress(bytes, interfaceName ?? '');
}

/** All ports of one local address, for whichever services and servers. */
class LocalPorts {
  readonly address: string;
  /** Four raw words, as in a connection's key. */
  readonly words = new Int32Array(4);
  connections = 0;
  /** Connections refused because no port was left for their server. */
  refused = 0;
  readonly pools = new Map<string, PortPool>();
  /** The same by destination, which is quicker to find. */
  readonly byDestination = new WeakMap<Destination, PortPool>();

  constructor(address: string, bytes: Uint8Array) {
    this.address = address;
    new Uint8Array(this.words.buffer).set(bytes);
  }
}

/** The ports of a local address towards one server and port. */
class PortPool {
  readonly ports: LocalPorts;
  readonly key: string;
  /** Where `LocalAddresses` keeps it; -1 once it was given up. */
  index: number;
  /** Ports in use. */
  used = 0;
  /** A bit for each port that is used or rests. */
  readonly #occupied = new Int32Array(BITMAP_WORDS);
  /** Ports released in this period, and in the one before; undefined as long as there are none. */
  #resting: Int32Array | undefined = undefined;
  #restingBefore: Int32Array | undefined = undefined;
  /** Tick at which this period began; undefined until there was one. */
  #period: number | undefined = undefined;
  #next: number;
  /** Nothing was free, and nothing has changed since. */
  #full = false;

  constructor(ports: LocalPorts, key: string, index: number, first: number) {
    this.ports = ports;
    this.key = key;
    this.index = index;
    this.#next = first;
  }

  /** True if no port is used or rests. */
  get isIdle(): boolean {
    return this.used === 0 && !this.#resting && !this.#restingBefore;
  }

  /** The next free port of the range after the one it gave last, or -1. It is not taken yet. */
  find(least: number, greatest: number): number {
    if (this.#full) return -1;
    const from = this.#next < least || this.#next > greatest ? least : this.#next;
    let port = this.#scan(from, greatest);
    if (port < 0) port = this.#scan(least, from - 1);
    if (port < 0) this.#full = true;
    else this.#next = port + 1;
    return port;
  }

  #scan(from: number, to: number): number {
    const last = to >>> 5;
    for (let word = from >>> 5; word <= last && from <= to; word++) {
      let free = ~(this.#occupied[word] as number);
      if (word === from >>> 5) free &= -1 << (from & 31);
      if (word === last && (to & 31) !== 31) free &= (1 << ((to & 31) + 1)) - 1;
      if (free !== 0) return (word << 5) + 31 - Math.clz32(free & -free);
    }
    return -1;
  }

  take(port: number): void {
    this.#occupied[port >>> 5] = (this.#occupied[port >>> 5] as number) | (1 << (port & 31));
    this.used++;
  }

  /** @param rests true if it must not be given again for the length of a period */
  release(port: number, rests: boolean): void {
    this.used--;
    const word = port >>> 5;
    const bit = 1 << (port & 31);
    if (rests) {
      this.#resting ??= new Int32Array(BITMAP_WORDS);
      this.#resting[word] = (this.#resting[word] as number) | bit;
      return;
    }
    this.#occupied[word] = (this.#occupied[word] as number) & ~bit;
    this.#full = false;
  }

  /** Frees what has rested for one to two periods. */
  advance(tick: number, period: number): void {
    this.#period ??= tick;
    const elapsed = (tick - this.#period) | 0;
    if (elapsed < period) return;
    this.#wake();
    if (elapsed >= 2 * period) this.#wake();
    this.#period = (tick - (elapsed % period)) | 0;
    this.#full = false;
  }

  #wake(): void {
    const rested = this.#restingBefore;
    this.#restingBefore = this.#resting;
    this.#resting = undefined;
    if (!rested) return;
    for (let word = 0; word < BITMAP_WORDS; word++) {
      this.#occupied[word] = (this.#occupied[word] as number) & ~(rested[word] as number);
    }
  }

  /** The range changed: what was outside of it may be free. */
  reconsider(): void {
    this.#full = false;
  }
}

export class LocalAddresses {
  readonly #connections: ConnectionTable;
  readonly #destinations: DestinationTable;
  readonly #timeouts: TimeoutTable;
  readonly #settings: Settings;
  readonly #random: () => number;
  readonly #byAddress = new Map<string, LocalPorts>();
  /** By the number that connections keep (`Extension.portPool`). */
  readonly #pools: (PortPool | undefined)[] = [];
  readonly #freeIndexes: number[] = [];
  readonly #key = new ConnectionKey();
  readonly #period: number;
  #least = 0;
  #greatest = 0;
  #pool: PortPool | undefined = undefined;
  #port = 0;
  #sweptAt: number | undefined = undefined;

  constructor(
    connections: ConnectionTable,
    destinations: DestinationTable,
    timeouts: TimeoutTable,
    settings: Settings,
    random: () => number,
  ) {
    this.#connections = connections;
    this.#destinations = destinations;
    this.#timeouts = timeouts;
    this.#settings = settings;
    this.#random = random;
    this.#period = SERVER_TIME_WAIT * timeouts.hz;
  }

  /**
   * Takes a local address and port for a new connection; `commit` or `cancel` must follow.
   * @param service has at least one local address
   * @param key the connection's, for family and protocol
   * @param portRaw the server's port for this connection
   * @returns the port, or -1 if none is left for this server
   */
  reserve(
    service: Service,
    destination: Destination,
    key: ConnectionKey,
    portRaw: number,
    tick: number,
  ): number {
    this.#readRange();
    const { localAddresses } = service;
    const count = localAddresses.length;
    service.localTurn = (service.localTurn + 1) % count;
    let tries = this.#settings.fullnat_lport_tries;
    for (let index = 0; index < count; index++) {
      const local = localAddresses[(service.localTurn + index) % count] as LocalAddress;
      local.ports ??= this.#portsOf(local.address, local.bytes);
      const pool = this.#poolOf(local.ports, destination);
      pool.advance(tick, this.#period);
      this.#setReplyKey(pool.ports, destination, key);
      for (; tries > 0; tries--) {
        const port = pool.find(this.#least, this.#greatest);
        if (port < 0) break;
        // Another pool may have given it: services with and without a port of their own can meet at a server.
        this.#key.ports = swap16(port) | (portRaw << 16);
        if (this.#connections.findReply(this.#key, tick) >= 0) continue;
        pool.take(port);
        this.#pool = pool;
        this.#port = port;
        return port;
      }
      local.ports.refused++;
    }
    return -1;
  }

  #readRange(): void {
    const least = Math.max(1, this.#settings.fullnat_lport_min);
    const greatest = Math.min(65535, this.#settings.fullnat_lport_max);
    if (least === this.#least && greatest === this.#greatest) return;
    this.#least = least;
    this.#greatest = greatest;
    for (const pool of this.#pools) pool?.reconsider();
  }

  #portsOf(address: string, bytes: Uint8Array): LocalPorts {
    let ports = this.#byAddress.get(address);
    if (!ports) {
      ports = new LocalPorts(address, bytes);
      this.#byAddress.set(address, ports);
    }
    return ports;
  }

  #poolOf(ports: LocalPorts, destination: Destination): PortPool {
    const known = ports.byDestination.get(destination);
    if (known && known.index >= 0) return known;
    const { address, port } = destination.specification;
    const pool = this.#poolAt(ports, address, port);
    ports.byDestination.set(destination, pool);
    return pool;
  }

  /** A server without a port of its own gets one pool for all: nobody can make the director keep one for every port. */
  #poolAt(ports: LocalPorts, address: string, port: number): PortPool {
    const key = `${address} ${port}`;
    let pool = ports.pools.get(key);
    if (!pool) {
      const span = Math.max(1, this.#greatest - this.#least + 1);
      const index = this.#freeIndexes.pop() ?? this.#pools.length;
      pool = new PortPool(ports, key, index, this.#least + (this.#random() % span));
      this.#pools[index] = pool;
      ports.pools.set(key, pool);
    }
    return pool;
  }

  /** Takes the ports of the connections that a predecessor left in the table. */
  adopt(): void {
    this.#readRange();
    const connections = this.#connections;
    const { bytes, view } = this.#destinations;
    for (let slot = 0; slot < connections.highWater; slot++) {
      if (!connections.isUsed(slot) || !this.#hasPort(slot)) continue;
      const { extension } = connections;
      const at = slot * EXTENSION_WORDS;
      const length = connections.flags(slot) & ConnectionFlag.ipv6 ? 16 : 4;
      const words = extension.slice(at + Extension.localAddress, at + Extension.localAddress + 4);
      const local = new Uint8Array(words.buffer, 0, length);
      const server = connections.destination(slot) * DESTINATION_BYTES;
      const address = formatAddress(bytes, server + DestinationField.address, length);
      const port = view.getUint16(server + DestinationField.port);
      const pool = this.#poolAt(this.#portsOf(formatAddress(local), local), address, port);
      pool.take(swap16(connections.localPortRaw(slot)));
      pool.ports.connections++;
      extension[at + Extension.portPool] = pool.index;
    }
  }

  #hasPort(slot: number): boolean {
    const connections = this.#connections;
    const flags = connections.flags(slot);
    if ((flags & ConnectionFlag.forwarding) !== Forwarding.fullnat || flags & ConnectionFlag.template)
      return false;
    return connections.localPortRaw(slot) !== 0 && connections.destination(slot) >= 0;
  }

  #setReplyKey(ports: LocalPorts, destination: Destination, of: ConnectionKey): void {
    const key = this.#key;
    const server = (destination.index * DESTINATION_BYTES + DestinationField.address) >>> 2;
    const { words } = this.#destinations;
    key.client0 = ports.words[0] as number;
    key.client1 = ports.words[1] as number;
    key.client2 = ports.words[2] as number;
    key.client3 = ports.words[3] as number;
    key.virtual0 = words[server] as number;
    key.virtual1 = words[server + 1] as number;
    key.virtual2 = words[server + 2] as number;
    key.virtual3 = words[server + 3] as number;
    key.protocol = of.protocol;
    key.flags = of.flags & ConnectionFlag.ipv6;
  }

  /** Gives what was reserved to a connection that lookups do not find yet. */
  commit(slot: number): void {
    const pool = this.#pool;
    if (!pool) return;
    const { extension } = this.#connections;
    const at = slot * EXTENSION_WORDS;
    for (let word = 0; word < 4; word++) {
      extension[at + Extension.localAddress + word] = pool.ports.words[word] as number;
    }
    extension[at + Extension.portPool] = pool.index;
    this.#connections.setLocalPortRaw(slot, swap16(this.#port));
    pool.ports.connections++;
  }

  /** Gives back what was reserved: the connection did not come about. */
  cancel(committed: boolean): void {
    if (!this.#pool) return;
    this.#pool.release(this.#port, false);
    if (committed) this.#pool.ports.connections--;
  }

  /** Takes back the port of a connection that is about to be forgotten; others are none of its business. */
  release(slot: number, tick: number): void {
    const connections = this.#connections;
    if (!this.#hasPort(slot)) return;
    const portRaw = connections.localPortRaw(slot);
    const pool = this.#pools[connections.extension[slot * EXTENSION_WORDS + Extension.portPool] as number];
    if (!pool) return;
    pool.advance(tick, this.#period);
    const quiet = (tick - this.#lastPacket(slot)) | 0;
    pool.release(swap16(portRaw), quiet < this.#period);
    pool.ports.connections--;
  }

  /** When a connection's timer was last started. */
  #lastPacket(slot: number): number {
    const connections = this.#connections;
    const protocol = connections.protocol(slot);
    let timeout = this.#timeouts.udp;
    if (protocol === Protocol.tcp) timeout = this.#timeouts.tcp[connections.state(slot)] as number;
    else if (protocol === Protocol.sctp) timeout = this.#timeouts.sctp[connections.state(slot)] as number;
    return connections.expires(slot) - timeout;
  }

  /** Frees ports that have rested, and forgets about servers that no port is kept for. */
  sweep(tick: number): void {
    this.#sweptAt ??= tick;
    if (((tick - this.#sweptAt) | 0) < this.#period) return;
    this.#sweptAt = tick;
    for (const [index, pool] of this.#pools.entries()) {
      if (!pool) continue;
      pool.advance(tick, this.#period);
      if (!pool.isIdle) continue;
      pool.index = -1;
      pool.ports.pools.delete(pool.key);
      this.#pools[index] = undefined;
      this.#freeIndexes.push(index);
    }
  }

  /** What became of a service's addresses. Counts are those of the address, which services may share. */
  status(addresses: readonly LocalAddress[]): LocalAddressStatus[] {
    return addresses.map(local => {
      const ports = this.#byAddress.get(local.address);
      return {
        address: local.address,
        interfaceName: local.interfaceName,
        connections: ports?.connections ?? 0,
        refused: ports?.refused ?? 0,
      };
    });
  }
}
