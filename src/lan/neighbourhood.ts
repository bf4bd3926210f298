/**
 * A host's ARP (RFC 826) and IPv6 neighbour discovery (RFC 4861): the two caches of `arp/` connected to the host's
 * interfaces and to virtual time.
 */
import { inSubnet, Scope, sameAddress } from '../arp/local-addresses.ts';
import { isValid, type Neighbour, NeighbourCache, type NeighbourEvents } from '../arp/neighbours.ts';
import { gratuitousFrame, learnFromArp, requestFrame, requestSource } from '../arp/resolver.ts';
import { ignoresRequest, replyFrame } from '../arp/responder.ts';
import { Arp, ArpOperation } from '../wire/arp.ts';
import { ETHERNET_HEADER, Ethernet } from '../wire/ethernet.ts';
import { Icmpv6Type } from '../wire/icmp.ts';
import { Ipv4, Protocol } from '../wire/ipv4.ts';
import { Ipv6 } from '../wire/ipv6.ts';
import {
  AdvertisementFlag,
  ALL_NODES,
  type NeighborMessage,
  neighborMessage,
  readNeighborMessage,
  solicitedNode,
} from '../wire/neighbor-discovery.ts';
import type { Packet } from '../wire/packet.ts';
import type { Host } from './host.ts';
import type { Interface } from './interface.ts';
import type { Timer } from './simulation.ts';

export class Neighbourhood {
  readonly arp: NeighbourCache;
  readonly discovery: NeighbourCache;
  #host: Host;
  #timers = new Map<Neighbour, Timer>();

  constructor(host: Host) {
    this.#host = host;
    this.arp = new NeighbourCache(this.#events((...given) => this.#solicit4(...given)));
    this.discovery = new NeighbourCache(this.#events((...given) => this.#solicit6(...given)));
  }

  /** The cache that an address of this family belongs in. */
  cacheOf(address: Uint8Array): NeighbourCache {
    return address.length === 4 ? this.arp : this.discovery;
  }

  /** Sends a frame to a neighbour, whose MAC is filled in, now or when it is known. */
  send(out: Interface, address: Uint8Array, frame: Uint8Array): void {
    const cache = this.cacheOf(address);
    const neighbour = cache.obtain(out.index, address, this.#host.now);
    if (!neighbour) {
      this.#host.drop('neighbour-table-full');
      return;
    }
    cache.send(neighbour, frame, this.#host.now);
  }

  /** A higher layer knows that the neighbour works (dst_confirm). */
  confirm(out: Interface, address: Uint8Array): void {
    const cache = this.cacheOf(address);
    const neighbour = cache.find(out.index, address);
    if (neighbour) cache.confirm(neighbour, this.#host.now);
  }

  /** Announces an address of this host to the segment: gratuitous ARP, or an unsolicited advertisement. */
  announce(out: Interface, address: Uint8Array): void {
    if (address.length === 4) out.send(gratuitousFrame(out.mac, address));
    else this.#advertise(out, address, ALL_NODES, 0);
  }

  /** An ARP frame that `checkArp` accepted (net/ipv4/arp.c arp_process). */
  receiveArp(packet: Packet, on: Interface): void {
    const { bytes, network: at } = packet;
    const host = this.#host;
    const sender = bytes.slice(at + Arp.senderAddress, at + Arp.senderAddress + 4);
    const target = bytes.slice(at + Arp.targetAddress, at + Arp.targetAddress + 4);
    if (target[0] === 127 || ((target[0] as number) & 0xf0) === 0xe0) {
      host.drop('arp-target');
      return;
    }
    const isRequest = bytes[at + Arp.operation + 1] === ArpOperation.request;
    const isProbe = sender.every(byte => byte === 0);
    if (isRequest && host.isLocal(target) && (isProbe || host.ip.isSourceValid(sender, on))) {
      const mode = host.sysctls.effective(on.name, 'arp_ignore');
      if (ignoresRequest(mode, on, host.interfaces, sender, target)) return;
      if (!isProbe) {
        const asking = this.arp.obtain(on.index, sender, host.now);
        const mac = bytes.subarray(at + Arp.senderMac, at + Arp.senderMac + 6);
        if (asking) this.arp.update(asking, mac, 'STALE', true, host.now);
      }
      on.send(replyFrame(bytes, at, on.mac));
      return;
    }
    if (isProbe) return;
    const toThisHost = ((bytes[packet.start + Ethernet.destination] as number) & 1) === 0;
    learnFromArp(this.arp, on.index, bytes, at, toThisHost, host.now);
  }

  /** A neighbour solicitation (net/ipv6/ndisc.c ndisc_recv_ns); the checksum has been verified. */
  receiveSolicitation(packet: Packet, on: Interface): void {
    const host = this.#host;
    const message = this.#checkDiscovery(packet);
    if (!message) return;
    const { target, mac } = message;
    // Unlike ARP, only addresses of the receiving interface are answered for: a VIP on lo stays silent by itself.
    if (!on.has(target)) return;
    const source = packet.bytes.slice(packet.sourceAt, packet.sourceAt + 16);
    if (source.every(byte => byte === 0)) {
      this.#advertise(on, target, ALL_NODES, AdvertisementFlag.override);
      return;
    }
    if (mac) {
      const asking = this.discovery.obtain(on.index, source, host.now);
      if (asking) this.discovery.update(asking, mac, 'STALE', true, host.now);
    }
    this.#advertise(on, target, source, AdvertisementFlag.solicited | AdvertisementFlag.override);
  }

  /** A neighbour advertisement (ndisc_recv_na); only existing entries change. */
  receiveAdvertisement(packet: Packet, on: Interface): void {
    const message = this.#checkDiscovery(packet);
    if (!message) return;
    const neighbour = this.discovery.find(on.index, message.target);
    if (!neighbour) return;
    const { flags } = message;
    const mac = message.mac ?? (isValid(neighbour) ? neighbour.mac : undefined);
    if (!mac) return;
    const state = flags & AdvertisementFlag.solicited ? 'REACHABLE' : 'STALE';
    this.discovery.update(neighbour, mac, state, (flags & AdvertisementFlag.override) !== 0, this.#host.now);
  }

  #events(solicit: NeighbourEvents['solicit']): NeighbourEvents {
    return {
      solicit,
      deliver: (neighbour, frame) => {
        frame.set(neighbour.mac, Ethernet.destination);
        this.#host.interfaceAt(neighbour.interfaceIndex)?.send(frame);
      },
      fail: (_neighbour, frames) => {
        for (const frame of frames) this.#host.icmp.hostUnreachable(frame);
      },
      change: neighbour => this.#host.neighbourChanged(neighbour),
      arm: neighbour => this.#arm(neighbour),
    };
  }

  #arm(neighbour: Neighbour): void {
    this.#timers.get(neighbour)?.cancel();
    this.#timers.delete(neighbour);
    if (neighbour.timer === Number.POSITIVE_INFINITY) return;
    const fire = (): void => {
      this.cacheOf(neighbour.address).expire(neighbour, this.#host.now);
    };
    // Only behind an unknown neighbour somebody waits; entries that grow old and are probed are housekeeping.
    const background = neighbour.state !== 'INCOMPLETE';
    this.#timers.set(neighbour, this.#host.simulation.at(neighbour.timer, fire, { background }));
  }

  #solicit4(neighbour: Neighbour, unicast: boolean, waiting: Uint8Array | undefined): void {
    const host = this.#host;
    const out = host.interfaceAt(neighbour.interfaceIndex);
    if (!out) return;
    const at = ETHERNET_HEADER + Ipv4.source;
    const source = requestSource(
      host.sysctls.effective(out.name, 'arp_announce'),
      out,
      host.interfaces,
      neighbour.address,
      waiting?.subarray(at, at + 4),
      address => host.isLocal(address),
    );
    out.send(requestFrame(out.mac, source, neighbour.address, unicast ? neighbour.mac : undefined));
  }

  /** ndisc_solicit: from the waiting packet's source if that is on the interface, else from the link-local address. */
  #solicit6(neighbour: Neighbour, unicast: boolean, waiting: Uint8Array | undefined): void {
    const out = this.#host.interfaceAt(neighbour.interfaceIndex);
    if (!out) return;
    const at = ETHERNET_HEADER + Ipv6.source;
    const wanted = waiting?.slice(at, at + 16);
    const linkLocal = out.addresses.find(each => each.family === 6 && each.scope === Scope.link)?.address;
    const subnet = out.addresses.find(
      each => each.family === 6 && inSubnet(neighbour.address, each),
    )?.address;
    const source = wanted && out.has(wanted) ? wanted : (linkLocal ?? subnet);
    if (!source) return;
    const destination = unicast ? neighbour.address : solicitedNode(neighbour.address);
    const type = Icmpv6Type.neighborSolicitation;
    const payload = neighborMessage({ type, flags: 0, target: neighbour.address, mac: out.mac });
    const mac = unicast ? neighbour.mac : undefined;
    this.#host.ip.sendOnLink(out, source, destination, Protocol.icmpv6, payload, mac);
  }

  #advertise(out: Interface, target: Uint8Array, destination: Uint8Array, flags: number): void {
    const router = this.#host.sysctls.forwards6 ? AdvertisementFlag.router : 0;
    const unsolicited = flags === 0 ? AdvertisementFlag.override : flags;
    const payload = neighborMessage({
      type: Icmpv6Type.neighborAdvertisement,
      flags: (unsolicited | router) >>> 0,
      target,
      mac: out.mac,
    });
    this.#host.ip.sendOnLink(out, target, destination, Protocol.icmpv6, payload);
  }

  #checkDiscovery(packet: Packet): NeighborMessage | undefined {
    const message = readNeighborMessage(packet);
    if (!message) this.#host.drop('neighbor-discovery');
    return message;
  }
}

/** True if a host with this interface listens to the group. */
export function listensTo(on: Interface, group: Uint8Array): boolean {
  return (
    sameAddress(group, ALL_NODES) ||
    on.addresses.some(each => each.family === 6 && sameAddress(group, solicitedNode(each.address)))
  );
}
