/**
 * The host a director stands on when scenarios are played: interfaces, addresses, routes and neighbours that are
 * written down instead of asked for, and a list of what was sent. Its way with packets is that of a Linux router: what
 * is for it goes through the director to its own stack, the rest is routed on.
 */
import { DestinationTable } from '../ipvs/destinations.ts';
import { Director, Verdict } from '../ipvs/director.ts';
import { Way } from '../ipvs/forwarding/way.ts';
import { IcmpErrors } from '../ipvs/icmp-errors.ts';
import type { Network, NextHop } from '../ipvs/network.ts';
import type { HostAddresses } from '../ipvs/service-table.ts';
import type { Settings } from '../ipvs/settings.ts';
import { type Family, formatAddress, formatMac } from '../wire/address.ts';
import { ETHERNET_HEADER, Ethernet, EtherType, writeEthernet } from '../wire/ethernet.ts';
import { IcmpType, Icmpv6Type, Unreachable6Code, UnreachableCode } from '../wire/icmp.ts';
import { IPV4_HEADER, Ipv4, Protocol } from '../wire/ipv4.ts';
import { Malformed } from '../wire/malformed.ts';
import { HEADROOM, Packet } from '../wire/packet.ts';
import type { Accelerator } from './accelerator.ts';
import { KernelTimedTable } from './kernel-timers.ts';
import { LocalStack } from './local-stack.ts';
import { networkOf, type Route, Routes } from './routing.ts';

export interface HostInterface {
  name: string;
  /** 1 or more; 1 is `lo`. */
  index: number;
  /** 6 bytes. */
  mac: Uint8Array;
  /** Bytes. */
  mtu: number;
}

/** A frame that left the host. */
export interface SentFrame {
  dev: string;
  bytes: Uint8Array;
}

/** Of what cannot be sent for want of a neighbour: where to and on which interface. */
export interface MissingNeighbour {
  address: string;
  dev: string;
}

interface OwnAddress {
  bytes: Uint8Array;
  length: number;
  interfaceIndex: number;
}

/** A next hop that knows which neighbour it stands for. */
interface HostHop extends NextHop {
  neighbour: Uint8Array;
}

export interface HostOptions {
  settings?: Partial<Settings>;
  /** Random numbers 0..2^32-1 of the director. */
  random?: () => number;
  /** Most connections at a time. Default 65536. */
  capacity?: number;
  /** Jiffies on the kernel's clock when the host's began: where the slots of its timer wheel end. */
  timerPhase?: number;
  /** Works in front of the director; its tables are the director's. */
  accelerator?: Accelerator;
}

const CONNECTIONS = 65536;
const DESTINATIONS = 4096;
/** Of all phases, the one at which most recordings agree with what is played. */
const TIMER_PHASE = 96;
const LOOPBACK_MTU = 65536;
const LOOPBACK_INDEX = 1;
const NO_MAC = new Uint8Array(6);

export class ReplayHost implements Network, HostAddresses {
  readonly director: Director;
  /** `lo` first. */
  readonly interfaces: HostInterface[] = [
    { name: 'lo', index: LOOPBACK_INDEX, mac: NO_MAC, mtu: LOOPBACK_MTU },
  ];
  /** Whether packets for others are routed on (net.ipv4.ip_forward, net.ipv6.conf.all.forwarding). */
  readonly forwarding: Record<Family, boolean> = { 4: true, 6: true };
  /** What left since the last `takeSent`. */
  #sent: SentFrame[] = [];
  /** Neighbours that were looked for in vain, by address. */
  readonly missingNeighbours = new Map<string, MissingNeighbour>();
  /** Milliseconds. */
  now = 0;
  /** When an IPv4 host was last sent an ICMP error, by address. */
  readonly #toldAt = new Map<string, number>();
  readonly #addresses: OwnAddress[] = [];
  /** Delivered to the host by policy routing although they are no addresses of its own. */
  readonly #delivered = new Routes();
  readonly #routes = new Routes();
  readonly #neighbours = new Map<string, Uint8Array>();
  #hops = new Map<string, HostHop | undefined>();
  readonly #packet = new Packet();
  readonly #connections: KernelTimedTable;
  readonly #accelerator: Accelerator | undefined;
  readonly #way: Way;
  readonly #stack: LocalStack;

  constructor(options: HostOptions = {}) {
    const { settings, random, accelerator } = options;
    const destinations = accelerator
      ? new DestinationTable(accelerator.destinationCapacity, accelerator.destinationMemory)
      : new DestinationTable(DESTINATIONS);
    this.#connections = new KernelTimedTable(
      {
        capacity: accelerator?.capacity ?? options.capacity ?? CONNECTIONS,
        destinations,
        ...(accelerator ? { memory: accelerator.connectionMemory, seed: accelerator.seed } : {}),
      },
      options.timerPhase ?? TIMER_PHASE,
    );
    this.director = new Director({
      network: this,
      host: this,
      destinations,
      connections: this.#connections,
      fragmentRoom: roomBehind,
      ...(settings ? { settings } : {}),
      ...(random ? { random } : {}),
    });
    this.#accelerator = accelerator;
    accelerator?.serve(this.director);
    this.#way = new Way(this, new IcmpErrors(this), this.director.pool);
    this.#stack = new LocalStack(this);
    this.addAddress(LOOPBACK_INDEX, Uint8Array.of(127, 0, 0, 1), 8);
    this.addAddress(LOOPBACK_INDEX, Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1), 128);
  }

  addInterface(name: string, mac: Uint8Array, mtu: number): HostInterface {
    const added = { name, index: this.interfaces.length + 1, mac, mtu };
    this.interfaces.push(added);
    return added;
  }

  interfaceNamed(name: string): HostInterface | undefined {
    return this.interfaces.find(each => each.name === name);
  }

  /** Gives an interface an address; the network it lies in is reached there. */
  addAddress(interfaceIndex: number, bytes: Uint8Array, length: number): void {
    this.#addresses.push({ bytes, length, interfaceIndex });
    if (interfaceIndex !== LOOPBACK_INDEX && length < 8 * bytes.length) {
      this.#routes.add({ prefix: networkOf(bytes, length), length, interfaceIndex, gateway: undefined });
    }
    this.changed();
  }

  /** False if there is no such address. */
  removeAddress(bytes: Uint8Array): boolean {
    const text = formatAddress(bytes);
    const at = this.#addresses.findIndex(each => formatAddress(each.bytes) === text);
    if (at < 0) return false;
    this.#addresses.splice(at, 1);
    this.changed();
    return true;
  }

  addRoute(route: Route): void {
    this.#routes.add(route);
    this.changed();
  }

  /** False if there is none to this prefix. */
  removeRoute(prefix: Uint8Array, length: number): boolean {
    const removed = this.#routes.remove(prefix, length) > 0;
    this.changed();
    return removed;
  }

  /** Has packets to this prefix delivered as if they were for the host (`ip rule` and a local route). */
  deliver(prefix: Uint8Array, length: number): void {
    this.#delivered.add({ prefix, length, interfaceIndex: LOOPBACK_INDEX, gateway: undefined });
    this.changed();
  }

  addNeighbour(interfaceIndex: number, address: Uint8Array, mac: Uint8Array): void {
    this.#neighbours.set(neighbourKey(interfaceIndex, address), mac);
    this.changed();
  }

  hasNeighbour(interfaceIndex: number, address: Uint8Array): boolean {
    return this.#neighbours.has(neighbourKey(interfaceIndex, address));
  }

  /** Index of the interface on whose own network an address lies, 0 if on none. */
  interfaceToward(address: Uint8Array): number {
    const route = this.#routes.find(address, 0, address.length === 4 ? 4 : 6);
    return route && !route.gateway ? route.interfaceIndex : 0;
  }

  /** Who is next on the way to an address: the address itself on its own networks, or the router. */
  neighbourToward(address: Uint8Array): { interfaceIndex: number; address: Uint8Array } | undefined {
    const route = this.#routes.find(address, 0, address.length === 4 ? 4 : 6);
    if (!route || route.interfaceIndex === 0) return undefined;
    return { interfaceIndex: route.interfaceIndex, address: route.gateway ?? address };
  }

  /** Forgets the ways it found; to be called when something about them changed. */
  changed(): void {
    this.#hops = new Map();
    this.director.resolveNextHops();
    this.#accelerator?.changed();
  }

  /** The frames sent since the last call. */
  takeSent(): SentFrame[] {
    const sent = this.#sent;
    this.#sent = [];
    return sent;
  }

  isLocal(bytes: Uint8Array, at = 0, family: Family = bytes.length === 4 ? 4 : 6): boolean {
    if (family === 4 && bytes[at] === 127) return true;
    return this.isOwn(bytes, at, family) || this.#delivered.find(bytes, at, family) !== undefined;
  }

  /** True for the addresses of its interfaces. */
  isOwn(bytes: Uint8Array, at: number, family: Family): boolean {
    const size = family === 4 ? 4 : 16;
    return this.#addresses.some(
      address =>
        address.bytes.length === size && address.bytes.every((byte, index) => byte === bytes[at + index]),
    );
  }

  isBroadcast(address: Uint8Array): boolean {
    const text = formatAddress(address);
    return this.#addresses.some(
      ({ bytes, length }) =>
        bytes.length === 4 && length < 31 && formatAddress(networkOf(bytes, length, true)) === text,
    );
  }

  interfaceMtu(name: string): number | undefined {
    return this.interfaceNamed(name)?.mtu;
  }

  nextHop(bytes: Uint8Array, at: number, family: Family): NextHop | undefined {
    const target = bytes.slice(at, at + (family === 4 ? 4 : 16));
    const key = formatAddress(target);
    if (!this.#hops.has(key)) this.#hops.set(key, this.#findHop(target, family));
    return this.#hops.get(key);
  }

  #findHop(target: Uint8Array, family: Family): HostHop | undefined {
    const route = this.#routes.find(target, 0, family);
    if (!route || route.interfaceIndex === 0) return undefined;
    const out = this.interfaces[route.interfaceIndex - 1] as HostInterface;
    const neighbour = route.gateway ?? target;
    const mac = this.#neighbours.get(neighbourKey(out.index, neighbour));
    return {
      interfaceIndex: out.index,
      sourceMac: out.mac,
      destinationMac: mac ?? NO_MAC,
      resolved: mac !== undefined,
      mtu: out.mtu,
      sourceAddress: this.#sourceAddress(out.index, family),
      neighbour,
    };
  }

  /** The address the host speaks with on an interface: the first it has there, else the first it has anywhere. */
  #sourceAddress(interfaceIndex: number, family: Family): Uint8Array {
    const size = family === 4 ? 4 : 16;
    const ours = this.#addresses.filter(({ bytes }) => bytes.length === size);
    const found =
      ours.find(address => address.interfaceIndex === interfaceIndex) ??
      ours.find(address => address.interfaceIndex !== LOOPBACK_INDEX);
    return found?.bytes ?? new Uint8Array(size);
  }

  transmit(bytes: Uint8Array, start: number, end: number, hop: NextHop): void {
    if (this.#isForeignError(bytes, start)) return;
    this.#noteError(bytes, start + ETHERNET_HEADER);
    const { interfaceIndex, neighbour } = hop as HostHop;
    const dev = (this.interfaces[interfaceIndex - 1] as HostInterface).name;
    if (!hop.resolved) {
      const address = formatAddress(neighbour);
      this.missingNeighbours.set(address, { address, dev });
      return;
    }
    this.#sent.push({ dev, bytes: bytes.slice(start, end) });
  }

  /** True for an ICMP error from an address that is delivered here but is not the host's own: Linux cannot send it. */
  #isForeignError(bytes: Uint8Array, start: number): boolean {
    const network = start + ETHERNET_HEADER;
    if (bytes[network] !== 0x45 || bytes[network + Ipv4.protocol] !== Protocol.icmp) return false;
    const source = network + Ipv4.source;
    return this.#delivered.find(bytes, source, 4) !== undefined && !this.isOwn(bytes, source, 4);
  }

  /** Takes a frame in from the wire. Frames for other stations and what is no IP are ignored. */
  receive(frame: Uint8Array, on: HostInterface): void {
    const packet = this.#packet;
    const handled = this.#accelerate(frame, on);
    if (handled === Handled.entirely) return;
    if (packet.load(frame) !== Malformed.none) return;
    if (packet.family === 0 || !isFor(frame, on.mac) || !this.#isSaneSource(packet)) return;
    const { director, now } = this;
    if (this.isLocal(packet.bytes, packet.destinationAt, packet.family)) {
      if (packet.family === 4 && packet.bytes[packet.destinationAt] === 127) return;
      const verdict = handled === Handled.passed ? Verdict.pass : director.process(packet, on.index, now);
      if (verdict === Verdict.pass) this.#stack.receive(packet);
      else if (verdict === Verdict.passWhole) this.#stack.receive(director.whole);
      return;
    }
    if (!this.forwarding[packet.family] || !isUnicast(packet)) return;
    const verdict = handled === Handled.passed ? Verdict.pass : director.process(packet, on.index, now, true);
    if (verdict === Verdict.pass) this.#route(packet);
    else if (verdict === Verdict.passWhole) {
      this.#way.came = director.wholeCame;
      this.#route(director.whole);
      this.#way.came = undefined;
    }
  }

  /** Gives a frame to the accelerator first, if there is one. */
  #accelerate(frame: Uint8Array, on: HostInterface): Handled {
    const accelerator = this.#accelerator;
    if (!accelerator) return Handled.not;
    const outcome = accelerator.receive(frame, on.index, this.#connections.tick(this.now));
    this.#connections.followAccelerator();
    if (outcome === 'up') return Handled.not;
    if (outcome === 'pass') return Handled.passed;
    if (outcome === 'dropped') return Handled.entirely;
    const dev = (this.interfaces[outcome.interfaceIndex - 1] as HostInterface).name;
    this.#sent.push({ dev, bytes: outcome.bytes.slice() });
    return Handled.entirely;
  }

  /** A source that is the host's own, a group, or nobody never comes from a wire (ip_route_input_slow). */
  #isSaneSource(packet: Packet): boolean {
    const { bytes, sourceAt } = packet;
    const first = bytes[sourceAt] as number;
    if (packet.family === 6) return first !== 0xff;
    return first !== 0 && first !== 127 && first < 224 && !this.isOwn(bytes, sourceAt, 4);
  }

  /** Routes a packet on as ip_forward and ip6_forward do. */
  #route(packet: Packet): void {
    const way = this.#way;
    const hop = this.nextHop(packet.bytes, packet.destinationAt, packet.family === 6 ? 6 : 4);
    if (!hop) {
      this.#refuseRoute(packet);
      return;
    }
    if (way.passTtl(packet) && way.passSize(packet, hop.mtu)) way.send(packet, hop);
  }

  #refuseRoute(packet: Packet): void {
    const { errors } = this.#way;
    if (packet.family === 6) {
      errors.send(packet, Icmpv6Type.unreachable, Unreachable6Code.noRoute);
      return;
    }
    // One a second, counted with all errors to the same host (ip_error, inet_peer_xrlim_allow).
    const told = this.#toldAt.get(packet.source);
    if (told !== undefined && this.now - told < 1000) return;
    const code = this.#hasRoute(packet) ? UnreachableCode.host : UnreachableCode.net;
    errors.send(packet, IcmpType.unreachable, code);
  }

  /** Remembers when a host was last told of an error. News about the path MTU do not count. */
  #noteError(bytes: Uint8Array, network: number): void {
    if (bytes[network] !== 0x45 || bytes[network + Ipv4.protocol] !== Protocol.icmp) return;
    const [type, code] = [bytes[network + IPV4_HEADER] as number, bytes[network + IPV4_HEADER + 1] as number];
    if (type !== IcmpType.unreachable && type !== IcmpType.timeExceeded) return;
    if (type === IcmpType.unreachable && code === UnreachableCode.fragmentationNeeded) return;
    if (!this.isOwn(bytes, network + Ipv4.source, 4)) return;
    this.#toldAt.set(formatAddress(bytes, network + Ipv4.destination, 4), this.now);
  }

  #hasRoute(packet: Packet): boolean {
    const family = packet.family === 6 ? 6 : 4;
    return this.#routes.find(packet.bytes, packet.destinationAt, family) !== undefined;
  }

  /** Sends a packet of the host's own stack: `[HEADROOM + 14, …)` of the cursor, parsed by `parseNetwork`. */
  send(packet: Packet): void {
    this.director.processLocal(packet, this.now);
    const family = packet.family === 6 ? 6 : 4;
    // A host originates nothing with a source that is not its own.
    if (!this.isOwn(packet.bytes, packet.sourceAt, family)) return;
    const hop = this.nextHop(packet.bytes, packet.destinationAt, family);
    if (!hop) return;
    const start = packet.network - ETHERNET_HEADER;
    const type = family === 4 ? EtherType.ipv4 : EtherType.ipv6;
    writeEthernet(packet.bytes, start, hop.destinationMac, hop.sourceMac, type);
    this.transmit(packet.bytes, start, packet.networkEnd, hop);
  }

  /** Lets time go by; what is due on the way happens when it is due, to a tenth of a second. */
  advance(to: number): void {
    if (to <= this.now) return;
    for (let next = nextBeat(this.now); next < to; next = nextBeat(next)) this.director.expire(next);
    this.now = to;
    this.director.expire(to);
  }
}

/**
 * Bytes left behind a frame that a packet socket sent over a virtual Ethernet pair, as the recorder's: Linux takes the
 * next power of two for the frame, 16 bytes in front, and the skb_shared_info behind (packet_alloc_skb, __alloc_skb),
 * and puts the Ethernet header at 2.
 */
function roomBehind(frame: number): number {
  const SHARED_INFO = 320;
  const needed = ((16 + frame + 63) & ~63) + SHARED_INFO;
  const buffer = 2 ** Math.ceil(Math.log2(needed));
  return buffer - SHARED_INFO - 2 - frame;
}

/** What an accelerator did with a frame: nothing, all there is to do, or it left it to the host's stack. */
const Handled = { not: 0, entirely: 1, passed: 2 } as const;

type Handled = (typeof Handled)[keyof typeof Handled];

/** Milliseconds between two looks at what time demands. */
const BEAT = 100;

function nextBeat(now: number): number {
  return (Math.floor(now / BEAT) + 1) * BEAT;
}

function neighbourKey(interfaceIndex: number, address: Uint8Array): string {
  return `${interfaceIndex} ${formatAddress(address)}`;
}

function isFor(frame: Uint8Array, mac: Uint8Array): boolean {
  return formatMac(frame, Ethernet.destination) === formatMac(mac);
}

function isUnicast(packet: Packet): boolean {
  const first = packet.bytes[packet.destinationAt] as number;
  return packet.family === 6 ? first !== 0xff : first < 224;
}

/** Where packets of the host's own stack begin in their buffer. */
export const LOCAL_NETWORK_AT = HEADROOM + ETHERNET_HEADER;
