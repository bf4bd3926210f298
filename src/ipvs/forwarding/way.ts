/**
 * What every forwarding method does on the way out (net/netfilter/ipvs/ip_vs_xmit.c, __ip_vs_get_out_rt): find the next
 * hop, take one off the TTL, see that the packet fits, put the Ethernet header on.
 */
import { IcmpType, Icmpv6Type, Unreachable6Code, UnreachableCode } from '../../wire/icmp.ts';
import { decrementTtl, IPV4_DONT_FRAGMENT, Ipv4, Protocol } from '../../wire/ipv4.ts';
import { Ipv6 } from '../../wire/ipv6.ts';
import type { Packet } from '../../wire/packet.ts';
import { DESTINATION_BYTES, DestinationField, DestinationFlag } from '../destinations.ts';
import { Drop } from '../drops.ts';
import type { IcmpErrors } from '../icmp-errors.ts';
import type { Network, NextHop } from '../network.ts';
import type { ServerPool } from '../server-pool.ts';
import { Fragmenter, type FragmentSizes } from './fragmenter.ts';

/** A forwarding method's answer: a `Drop`, `Drop.none` for sent, or this: the packet is for the host's own stack. */
export const DELIVER_LOCALLY = -1;
export type Outcome = Drop | typeof DELIVER_LOCALLY;

export class Way {
  readonly network: Network;
  readonly errors: IcmpErrors;
  readonly pool: ServerPool;
  /** How the datagram on its way came, while one that came in fragments is forwarded. */
  came: FragmentSizes | undefined = undefined;
  /** MTU of the way to the destination that `hopTo` was asked for last. */
  mtu = 0;
  readonly #fragmenter: Fragmenter;
  #identification: number;

  /** @param identification what outer packets and fragments are numbered from, 32 bits */
  constructor(network: Network, errors: IcmpErrors, pool: ServerPool, identification = 0) {
    this.network = network;
    this.errors = errors;
    this.pool = pool;
    this.#identification = identification;
    this.#fragmenter = new Fragmenter(network, identification);
  }

  /** A number for an IPv4 packet of the director's own that may be fragmented. */
  nextIdentification(): number {
    this.#identification = (this.#identification + 1) & 0xffff;
    return this.#identification;
  }

  /**
   * The next hop to a destination. Undefined if it is this host itself (then `failure` is `DELIVER_LOCALLY`) or if no
   * route leads there: the sender is told then.
   */
  hopTo(destination: number, packet: Packet): NextHop | undefined {
    const hop = this.pool.hops[destination];
    if (hop) {
      this.mtu = this.pool.useMtu(destination, hop);
      return hop;
    }
    const owner = this.pool.owners[destination];
    if (owner && this.network.isLocal(owner.address, 0, owner.family)) {
      this.failure = DELIVER_LOCALLY;
      return undefined;
    }
    this.pool.resolve(destination);
    const found = this.pool.hops[destination];
    if (found) this.mtu = found.mtu;
    else {
      this.failure = Drop.noRoute;
      if (packet.family === 4) this.errors.send(packet, IcmpType.unreachable, UnreachableCode.host);
      else this.errors.send(packet, Icmpv6Type.unreachable, Unreachable6Code.address);
    }
    return found;
  }

  /** Why `hopTo` found nothing. */
  failure: Outcome = Drop.none;

  /** Takes one off the TTL or hop limit; if none is left, tells the sender and returns false. */
  passTtl(packet: Packet): boolean {
    const { view, network } = packet;
    if (packet.family === 4) {
      if (view.getUint8(network + Ipv4.ttl) <= 1) {
        this.errors.send(packet, IcmpType.timeExceeded, 0);
        return false;
      }
      decrementTtl(view, network);
      return true;
    }
    const hopLimit = view.getUint8(network + Ipv6.hopLimit);
    if (hopLimit <= 1) {
      this.errors.send(packet, Icmpv6Type.timeExceeded, 0);
      return false;
    }
    view.setUint8(network + Ipv6.hopLimit, hopLimit - 1);
    return true;
  }

  /**
   * True if the packet fits or may be fragmented; otherwise the sender is told the size, unless the packet is an error
   * itself. A datagram that came in IPv6 fragments fits if its largest fragment does.
   */
  passSize(packet: Packet, mtu: number): boolean {
    const size = packet.networkEnd - packet.network;
    if (size <= mtu) return true;
    if (packet.family === 4) {
      if ((packet.view.getUint16(packet.network + Ipv4.fragment) & IPV4_DONT_FRAGMENT) === 0) return true;
      if (packet.protocol === Protocol.icmp) return true;
      this.errors.send(packet, IcmpType.unreachable, UnreachableCode.fragmentationNeeded, mtu);
      return false;
    }
    if (this.came !== undefined && this.came.largest <= mtu) return true;
    this.errors.send(packet, Icmpv6Type.packetTooBig, 0, mtu);
    return false;
  }

  /**
   * Sends a packet that is ready but for its Ethernet header to the destination that `hopTo` was asked for last, in
   * pieces if it is too big.
   */
  sendTo(packet: Packet, destination: number, hop: NextHop): void {
    const { table } = this.pool;
    if ((table.flags(destination) & DestinationFlag.resolved) === 0) {
      this.pool.writeHop(destination, hop);
    }
    const at = destination * DESTINATION_BYTES + DestinationField.nextMac;
    const { view, start } = packet;
    // The record has the next hop's MAC and ours side by side, as they stand on the wire.
    view.setUint32(start, table.view.getUint32(at, true), true);
    view.setUint32(start + 4, table.view.getUint32(at + 4, true), true);
    view.setUint32(start + 8, table.view.getUint32(at + 8, true), true);
    this.#transmit(packet, hop, this.mtu);
  }

  /** The same for any next hop. */
  send(packet: Packet, hop: NextHop): void {
    const { bytes, start } = packet;
    for (let index = 0; index < 6; index++) {
      bytes[start + index] = hop.destinationMac[index] as number;
      bytes[start + 6 + index] = hop.sourceMac[index] as number;
    }
    this.#transmit(packet, hop, hop.mtu);
  }

  #transmit(packet: Packet, hop: NextHop, mtu: number): void {
    if (packet.networkEnd - packet.network > mtu || this.came !== undefined) {
      this.#fragmenter.send(packet, hop, mtu, this.came);
      return;
    }
    this.network.transmit(packet.bytes, packet.start, packet.networkEnd, hop);
  }
}
