/** Where a director stands in a host: it sees frames before the host's own stack, and sends through its neighbours. */
import { sameAddress } from '../arp/local-addresses.ts';
import { isValid, type Neighbour } from '../arp/neighbours.ts';
import type { Network, NextHop } from '../ipvs/network.ts';
import { type Family, formatAddress } from '../wire/address.ts';
import { Ethernet } from '../wire/ethernet.ts';
import type { Packet } from '../wire/packet.ts';
import type { Host } from './host.ts';

/** `Verdict.passWhole` of the director, whose code the hosts of a LAN without one need not load. */
export const PASS_WHOLE = 3;

/** What a host asks of a director. The one of `ipvs` fits; a test may bring its own. */
export interface FrameDirector {
  /**
   * Looks at a packet where netfilter's hooks would: one for an address of the host before its transports see it, and one
   * that is to be routed on before it is. Packets to groups, ARP and neighbour discovery by multicast never get here.
   * @param packet the host's reusable cursor, parsed; the director may rewrite it if it takes it
   * @param interfaceIndex where it came in
   * @param now virtual time, ms
   * @param routedOn true if the host would route it on
   * @returns 0 to leave the untouched packet to the host, `PASS_WHOLE` to leave it the datagram in `whole`; anything
   *   else: taken
   */
  process(packet: Packet, interfaceIndex: number, now: number, routedOn: boolean): number;
  /** The datagram that the fragment just processed completed, for a director that gathers fragments. */
  readonly whole?: Packet;
  /** Looks at a packet that the host itself sends, and may translate it in place. */
  processLocal?(packet: Packet, now: number): void;
  /** Called each virtual second. */
  expire(now: number): void;
}

/** A next hop together with the destination it is the way to, so that it can follow routes and neighbours. */
class HostNextHop implements NextHop {
  readonly target: Uint8Array;
  interfaceIndex = 0;
  sourceMac: Uint8Array = new Uint8Array(6);
  readonly destinationMac = new Uint8Array(6);
  resolved = false;
  mtu = 0;
  sourceAddress: Uint8Array;
  /** The neighbour's address: the gateway, or the target itself; undefined once there is no route. */
  neighbour: Uint8Array | undefined;

  constructor(target: Uint8Array) {
    this.target = target;
    this.sourceAddress = new Uint8Array(target.length);
  }
}

/** The host's routes and neighbours as a director sees them. */
export class HostNetwork implements Network {
  #host: Host;
  /** Weak, because a director keeps the way to a real server for long but asks for clients by the thousand. */
  #hops = new Map<string, WeakRef<HostNextHop>>();
  #pruneAt = 1024;

  constructor(host: Host) {
    this.#host = host;
  }

  isLocal(bytes: Uint8Array, at: number, family: Family): boolean {
    return this.#host.isLocal(bytes.subarray(at, at + (family === 4 ? 4 : 16)));
  }

  nextHop(bytes: Uint8Array, at: number, family: Family): NextHop | undefined {
    const target = bytes.slice(at, at + (family === 4 ? 4 : 16));
    const key = formatAddress(target);
    const known = this.#hops.get(key)?.deref();
    if (known) return known.neighbour ? known : undefined;
    const hop = new HostNextHop(target);
    this.#refresh(hop);
    if (!hop.neighbour) return undefined;
    this.#prune();
    this.#hops.set(key, new WeakRef(hop));
    return hop;
  }

  transmit(bytes: Uint8Array, start: number, end: number, hop: NextHop): void {
    if (!(hop instanceof HostNextHop))
      throw new Error('this next hop was not made by the host that is to send');
    const out = hop.neighbour ? this.#host.interfaceAt(hop.interfaceIndex) : undefined;
    if (!out || !hop.neighbour) {
      this.#host.drop('no-route');
      return;
    }
    const frame = bytes.slice(start, end);
    frame.set(out.mac, Ethernet.source);
    this.#host.neighbourhood.send(out, hop.neighbour, frame);
  }

  /** Routes or addresses changed: every next hop that is in use follows. */
  routesChanged(): void {
    for (const reference of this.#hops.values()) {
      const hop = reference.deref();
      if (hop) this.#refresh(hop);
    }
  }

  /** A neighbour's state or MAC changed. */
  neighbourChanged(neighbour: Neighbour): void {
    for (const reference of this.#hops.values()) {
      const hop = reference.deref();
      if (hop?.neighbour && hop.interfaceIndex === neighbour.interfaceIndex) {
        if (sameAddress(hop.neighbour, neighbour.address)) this.#takeNeighbour(hop, neighbour);
      }
    }
  }

  #refresh(hop: HostNextHop): void {
    const route = this.#host.routes.find(hop.target);
    const source = route && this.#host.ip.sourceFor(hop.target);
    if (!route || !source) {
      hop.neighbour = undefined;
      hop.resolved = false;
      return;
    }
    hop.neighbour = route.gateway ?? hop.target;
    hop.interfaceIndex = route.interface.index;
    hop.sourceMac = route.interface.mac;
    hop.mtu = route.interface.mtu;
    hop.sourceAddress = source;
    hop.resolved = false;
    const neighbour = this.#host.neighbourhood.cacheOf(hop.target).find(hop.interfaceIndex, hop.neighbour);
    if (neighbour) this.#takeNeighbour(hop, neighbour);
  }

  #takeNeighbour(hop: HostNextHop, neighbour: Neighbour): void {
    hop.resolved = isValid(neighbour);
    if (hop.resolved) hop.destinationMac.set(neighbour.mac);
  }

  #prune(): void {
    if (this.#hops.size < this.#pruneAt) return;
    for (const [key, reference] of this.#hops) if (!reference.deref()) this.#hops.delete(key);
    this.#pruneAt = Math.max(1024, 2 * this.#hops.size);
  }
}
