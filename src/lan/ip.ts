/**
 * A host's IP layer: receive, deliver or forward, and send. The weak host model of Linux: a packet for any of the
 * host's addresses is accepted on any interface.
 */
import { commonPrefix, Scope, sameAddress, selectSource } from '../arp/local-addresses.ts';
import { formatAddress } from '../wire/address.ts';
import { BROADCAST_MAC, ETHERNET_HEADER, Ethernet, EtherType, writeEthernet } from '../wire/ethernet.ts';
import { fillIcmpChecksum, IcmpType, Icmpv6Type, Unreachable6Code, UnreachableCode } from '../wire/icmp.ts';
import { decrementTtl, IPV4_DONT_FRAGMENT, IPV4_HEADER, Ipv4, Protocol, writeIpv4 } from '../wire/ipv4.ts';
import { IPV6_HEADER, Ipv6, writeIpv6 } from '../wire/ipv6.ts';
import { MALFORMED_NAMES } from '../wire/malformed.ts';
import { Packet } from '../wire/packet.ts';
import { fillTcpChecksum } from '../wire/tcp.ts';
import { fillUdpChecksum } from '../wire/udp.ts';
import { fragmentIpv4, fragmentIpv6, Reassembler } from './fragments.ts';
import type { Host } from './host.ts';
import type { Interface } from './interface.ts';
import { listensTo } from './neighbourhood.ts';
import type { Route } from './routes.ts';

export interface Datagram {
  /** 4 or 16 bytes; chosen by route when left out. */
  source?: Uint8Array | undefined;
  destination: Uint8Array;
  /** A number of `Protocol`; checksums of TCP, UDP and ICMP are filled in. */
  protocol: number;
  /** The transport packet, header included. */
  payload: Uint8Array;
  /** TTL or hop limit; default 64. */
  ttl?: number | undefined;
  dontFragment?: boolean | undefined;
}

/** What became of a datagram: `no-route`, or `too-big` for one with `dontFragment`; `sent` is no promise of arrival. */
export type SendResult = 'sent' | 'no-route' | 'too-big';

/** Takes packets of one protocol that are for this host. */
export type ProtocolHandler = (packet: Packet, on: Interface) => void;

export class IpLayer {
  readonly #host: Host;
  /** By protocol number; ICMP, TCP and UDP are there from the start. */
  readonly protocols = new Map<number, ProtocolHandler>();
  #reassembler = new Reassembler();
  #assembled = new Packet();
  #identification: number;
  /** Path MTUs that routers told (RFC 1191), by destination. */
  #pathMtu = new Map<string, number>();

  constructor(host: Host) {
    this.#host = host;
    this.#identification = host.simulation.random.below(0x10000);
  }

  /** A parsed IP packet in a frame that was for this station. */
  receive(packet: Packet, on: Interface): void {
    const host = this.#host;
    const size = packet.family === 4 ? 4 : 16;
    const destination = packet.bytes.slice(packet.destinationAt, packet.destinationAt + size);
    const source = packet.bytes.slice(packet.sourceAt, packet.sourceAt + size);
    const onWire = packet.start !== packet.network;
    const toGroup = onWire && ((packet.bytes[packet.start + Ethernet.destination] as number) & 1) === 1;
    if (isMulticast(destination) || isBroadcast(destination, on)) {
      if (isMulticast(source)) {
        host.drop('martian-source');
        return;
      }
      if (size === 16 && !listensTo(on, destination)) return;
      if (size === 4 && packet.protocol !== Protocol.udp) {
        host.drop('broadcast');
        return;
      }
      this.#deliver(packet, on);
      return;
    }
    if (!on.isLoopback && (isLoopback(destination) || destination.every(byte => byte === 0))) {
      host.drop('martian-destination');
      return;
    }
    if (!on.isLoopback && !this.isSourceValid(source, on)) {
      host.drop('martian-source');
      return;
    }
    if (host.isLocal(destination)) {
      // A unicast packet in a broadcast frame is never for the transports (RFC 1122 section 3.3.6).
      if (toGroup) {
        host.drop('broadcast');
        return;
      }
      const passed = host.direct(packet, on, false);
      if (passed) this.#deliver(passed, on);
      return;
    }
    if (toGroup) {
      host.drop('broadcast');
      return;
    }
    if (size === 4 ? !host.sysctls.forwards4 : !host.sysctls.forwards6) {
      host.drop('not-for-this-host');
      return;
    }
    const passed = host.direct(packet, on, true);
    if (passed) this.#forward(passed, destination);
  }

  /**
   * True if a packet from this source may come in on this interface (net/ipv4/fib_frontend.c fib_validate_source): no
   * group, no loopback, no address of this host, and with `rp_filter` a source whose way back exists (2) or leads
   * through this very interface (1).
   */
  isSourceValid(source: Uint8Array, on: Interface): boolean {
    const host = this.#host;
    if (isMulticast(source) || isLoopback(source) || host.isLocal(source)) return false;
    if (source.length === 16) return true;
    if (isBroadcast(source, on) || source[0] === 0) return false;
    const filter = host.sysctls.effective(on.name, 'rp_filter');
    if (filter <= 0) return true;
    const route = host.routes.find(source);
    if (!route) return false;
    return filter !== 1 || route.interface === on;
  }

  /** Sends a datagram; an address of this host is reached through `lo`. */
  send(datagram: Datagram): SendResult {
    const host = this.#host;
    const { destination } = datagram;
    const isLocal = host.isLocal(destination);
    const route = isLocal ? undefined : host.routes.find(destination);
    const broadcastOn = isLocal ? undefined : this.#broadcastInterface(destination);
    const out = isLocal ? host.loopback : (broadcastOn ?? route?.interface);
    const source = datagram.source ?? this.sourceFor(destination);
    if (!out || !source) return 'no-route';
    const frame = this.#frame(datagram, source);
    if (!isLocal) host.directLocal(frame);
    const mtu = isLocal ? out.mtu : this.pathMtu(destination, out);
    const frames = this.#fit(frame, mtu, datagram.dontFragment ?? false);
    if (!frames) return 'too-big';
    for (const each of frames) this.#output(each, out, destination, route, broadcastOn !== undefined);
    return 'sent';
  }

  /** Sends to a neighbour or group on an interface without asking the routes, hop limit 255 (neighbour discovery). */
  sendOnLink(
    out: Interface,
    source: Uint8Array,
    destination: Uint8Array,
    protocol: number,
    payload: Uint8Array,
    mac?: Uint8Array,
  ): void {
    const frame = this.#frame({ destination, protocol, payload, ttl: 255 }, source);
    frame.set(out.mac, Ethernet.source);
    if (isMulticast(destination)) frame.set(multicastMac(destination), Ethernet.destination);
    else if (mac) frame.set(mac, Ethernet.destination);
    else {
      this.#host.neighbourhood.send(out, destination, frame);
      return;
    }
    out.send(frame);
  }

  /** The source address this host uses towards a destination, undefined without route or address. */
  sourceFor(destination: Uint8Array): Uint8Array | undefined {
    const host = this.#host;
    if (host.isLocal(destination)) return destination;
    const route = host.routes.find(destination);
    const out = route?.interface ?? this.#broadcastInterface(destination);
    if (!out) return undefined;
    if (route?.source) return route.source;
    if (destination.length === 4)
      return selectSource(out, host.interfaces, route?.gateway ?? destination, Scope.link);
    return selectSource6(out, host.interfaces, destination);
  }

  /** Largest packet towards a destination, bytes. */
  pathMtu(destination: Uint8Array, out?: Interface): number {
    const through = out ?? this.#host.routes.find(destination)?.interface ?? this.#host.loopback;
    const told = this.#pathMtu.get(formatAddress(destination));
    return Math.min(through.mtu, told ?? through.mtu);
  }

  /** Takes in what a router said about the path to a destination; values below the family's minimum are raised. */
  learnPathMtu(destination: Uint8Array, mtu: number): void {
    // Linux's min_pmtu for IPv4, RFC 8200's minimum for IPv6.
    const least = destination.length === 4 ? 552 : 1280;
    const value = Math.max(least, mtu);
    if (value < this.pathMtu(destination)) this.#pathMtu.set(formatAddress(destination), value);
  }

  #deliver(packet: Packet, on: Interface): void {
    const host = this.#host;
    let whole = packet;
    if (packet.isFragment) {
      const frame = this.#reassembler.add(packet, host.now);
      if (frame === 'wait') return;
      if (frame === 'overlap') {
        host.drop('fragment-overlap');
        return;
      }
      const refused = this.#assembled.load(frame);
      if (refused !== 0) {
        host.drop(MALFORMED_NAMES[refused] as string);
        return;
      }
      whole = this.#assembled;
    }
    const handler = this.protocols.get(whole.protocol);
    if (handler) {
      handler(whole, on);
      return;
    }
    host.drop('protocol-unknown');
    if (whole.family === 4) host.icmp.error(whole, IcmpType.unreachable, UnreachableCode.protocol, 0);
    // RFC 8200 section 4: code 1, pointer to the next-header field that was not known.
    else host.icmp.error(whole, Icmpv6Type.parameterProblem, 1, Ipv6.nextHeader);
  }

  #forward(packet: Packet, destination: Uint8Array): void {
    const host = this.#host;
    const isIpv4 = packet.family === 4;
    const route = host.routes.find(destination);
    if (!route) {
      host.drop('no-route');
      if (isIpv4) host.icmp.error(packet, IcmpType.unreachable, UnreachableCode.net, 0);
      else host.icmp.error(packet, Icmpv6Type.unreachable, Unreachable6Code.noRoute, 0);
      return;
    }
    const ttl = packet.view.getUint8(packet.network + (isIpv4 ? Ipv4.ttl : Ipv6.hopLimit));
    if (ttl <= 1) {
      host.drop('ttl');
      host.icmp.error(packet, isIpv4 ? IcmpType.timeExceeded : Icmpv6Type.timeExceeded, 0, 0);
      return;
    }
    const { mtu } = route.interface;
    const length = packet.networkEnd - packet.network;
    const mayFragment =
      isIpv4 && (packet.view.getUint16(packet.network + Ipv4.fragment) & IPV4_DONT_FRAGMENT) === 0;
    if (length > mtu && !mayFragment) {
      host.drop('too-big');
      if (isIpv4) host.icmp.error(packet, IcmpType.unreachable, UnreachableCode.fragmentationNeeded, mtu);
      else host.icmp.error(packet, Icmpv6Type.packetTooBig, 0, mtu);
      return;
    }
    const frame = new Uint8Array(ETHERNET_HEADER + length);
    writeEthernet(frame, 0, route.interface.mac, route.interface.mac, packet.etherType);
    frame.set(packet.bytes.subarray(packet.network, packet.networkEnd), ETHERNET_HEADER);
    const view = new DataView(frame.buffer);
    if (isIpv4) decrementTtl(view, ETHERNET_HEADER);
    else view.setUint8(ETHERNET_HEADER + Ipv6.hopLimit, ttl - 1);
    host.forwarded++;
    const frames = length > mtu ? fragmentIpv4(frame, mtu) : [frame];
    for (const each of frames) this.#output(each, route.interface, destination, route, false);
  }

  #output(
    frame: Uint8Array,
    out: Interface,
    destination: Uint8Array,
    route: Route | undefined,
    broadcast: boolean,
  ): void {
    frame.set(out.mac, Ethernet.source);
    if (out.isLoopback) {
      frame.set(out.mac, Ethernet.destination);
      out.send(frame);
    } else if (broadcast || isMulticast(destination)) {
      frame.set(broadcast ? BROADCAST_MAC : multicastMac(destination), Ethernet.destination);
      out.send(frame);
    } else {
      this.#host.neighbourhood.send(out, route?.gateway ?? destination, frame);
    }
  }

  /** A frame with IP header, payload and checksums; the MACs are still 0. */
  #frame(datagram: Datagram, source: Uint8Array): Uint8Array {
    const { destination, protocol, payload } = datagram;
    const isIpv4 = destination.length === 4;
    const header = isIpv4 ? IPV4_HEADER : IPV6_HEADER;
    const frame = new Uint8Array(ETHERNET_HEADER + header + payload.length);
    const view = new DataView(frame.buffer);
    view.setUint16(Ethernet.etherType, isIpv4 ? EtherType.ipv4 : EtherType.ipv6);
    const ttl = datagram.ttl ?? 64;
    if (isIpv4) {
      this.#identification = (this.#identification + 1) & 0xffff;
      writeIpv4(view, frame, ETHERNET_HEADER, {
        source,
        destination,
        protocol,
        totalLength: header + payload.length,
        ttl,
        identification: this.#identification,
        fragment: datagram.dontFragment ? IPV4_DONT_FRAGMENT : 0,
      });
    } else {
      writeIpv6(view, frame, ETHERNET_HEADER, {
        source,
        destination,
        nextHeader: protocol,
        payloadLength: payload.length,
        hopLimit: ttl,
      });
    }
    const at = ETHERNET_HEADER + header;
    frame.set(payload, at);
    const family = isIpv4 ? 4 : 6;
    if (protocol === Protocol.tcp) fillTcpChecksum(view, family, ETHERNET_HEADER, at, payload.length);
    else if (protocol === Protocol.udp) fillUdpChecksum(view, family, ETHERNET_HEADER, at, payload.length);
    else if (protocol === Protocol.icmp || protocol === Protocol.icmpv6)
      fillIcmpChecksum(view, family, ETHERNET_HEADER, at, payload.length);
    return frame;
  }

  #fit(frame: Uint8Array, mtu: number, dontFragment: boolean): Uint8Array[] | undefined {
    if (frame.length - ETHERNET_HEADER <= mtu) return [frame];
    if (dontFragment) return undefined;
    if (frame[Ethernet.etherType] === EtherType.ipv4 >>> 8 && frame[Ethernet.etherType + 1] === 0)
      return fragmentIpv4(frame, mtu);
    return fragmentIpv6(frame, mtu, this.#host.simulation.random.uint32());
  }

  #broadcastInterface(destination: Uint8Array): Interface | undefined {
    if (destination.length !== 4) return undefined;
    const candidates = this.#host.interfaces.filter(each => !each.isLoopback && each.isUp);
    return candidates.find(each => isBroadcast(destination, each));
  }
}

/** True for an IPv4 or IPv6 multicast address. */
export function isMulticast(address: Uint8Array): boolean {
  return address.length === 4 ? ((address[0] as number) & 0xf0) === 0xe0 : address[0] === 0xff;
}

function isLoopback(address: Uint8Array): boolean {
  if (address.length === 4) return address[0] === 127;
  return address.every((byte, index) => byte === (index === 15 ? 1 : 0));
}

/** True for 255.255.255.255 and the last address of a subnet of this interface. */
export function isBroadcast(address: Uint8Array, on: Interface): boolean {
  if (address.length !== 4) return false;
  if (address.every(byte => byte === 255)) return true;
  return on.addresses.some(local => {
    if (local.family !== 4 || local.prefix > 30 || on.isLoopback) return false;
    return address.every((byte, index) => {
      const bits = Math.min(8, Math.max(0, local.prefix - index * 8));
      return byte === ((local.address[index] as number) | (0xff >>> bits));
    });
  });
}

/** Source for an IPv6 destination: matching scope, the outgoing interface first, then the longest common prefix (RFC 6724). */
function selectSource6(
  out: Interface,
  all: readonly Interface[],
  destination: Uint8Array,
): Uint8Array | undefined {
  const linkLocal = destination[0] === 0xfe && ((destination[1] as number) & 0xc0) === 0x80;
  const scope = linkLocal || isMulticast(destination) ? Scope.link : Scope.global;
  const groups = [out.addresses, all.flatMap(each => each.addresses)];
  for (const addresses of groups) {
    let best: Uint8Array | undefined;
    for (const local of addresses) {
      if (local.family !== 6 || local.scope !== scope || sameAddress(local.address, destination)) continue;
      if (!best || commonPrefix(local.address, destination) > commonPrefix(best, destination))
        best = local.address;
    }
    if (best) return best;
  }
  return undefined;
}

/** The Ethernet group of an IP group (RFC 1112 section 6.4, RFC 2464 section 7). */
function multicastMac(address: Uint8Array): Uint8Array {
  if (address.length === 16) return Uint8Array.of(0x33, 0x33, ...address.subarray(12));
  return Uint8Array.of(1, 0, 0x5e, (address[1] as number) & 0x7f, address[2] as number, address[3] as number);
}
