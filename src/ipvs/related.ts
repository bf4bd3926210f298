/**
 * ICMP errors that belong to a connection (ip_vs_in_icmp, ip_vs_out_icmp and their IPv6 sisters in
 * net/netfilter/ipvs/ip_vs_core.c of Linux 6.1). An error quotes the packet it is about, and that packet's addresses and
 * ports lead to the connection:
 *
 * - about a reply (from the client or a router on its side): passed on to the real server, translated inside and
 *   outside if the connection is;
 * - about a translated request (from the real server or a router on its side): passed on to the client, as the VIP's;
 * - about the director's own tunnel packet: the client is told of the packet within.
 */

import { EtherType } from '../wire/ethernet.ts';
import {
  checkIcmp,
  fillIcmpChecksum,
  ICMP_HEADER,
  Icmp,
  IcmpType,
  Icmpv6Type,
  isIcmpv6Error,
  isRelatedError,
  UnreachableCode,
} from '../wire/icmp.ts';
import { fillIpv4Checksum, IPV4_DONT_FRAGMENT, IPV4_HEADER, Ipv4, Protocol } from '../wire/ipv4.ts';
import { IPV6_MINIMUM_MTU, Ipv6 } from '../wire/ipv6.ts';
import { Malformed } from '../wire/malformed.ts';
import { Packet } from '../wire/packet.ts';
import { Tcp } from '../wire/tcp.ts';
import { UDP_HEADER, Udp } from '../wire/udp.ts';
import { ConnectionKey } from './connection-key.ts';
import { CONNECTION_BYTES, ConnectionField, ConnectionFlag, type ConnectionTable } from './connections.ts';
import {
  DESTINATION_BYTES,
  DestinationField,
  DestinationFlag,
  Forwarding,
  TunnelType,
} from './destinations.ts';
import { Drop } from './drops.ts';
import { EmbeddedPacket } from './embedded-packet.ts';
import type { Fullnat } from './forwarding/fullnat.ts';
import { isInHandshake, serverNumber } from './forwarding/proxied.ts';
import { GRE_CHECKSUM_PRESENT, GRE_HEADER, GUE_HEADER, IPV4_MINIMUM_MTU } from './forwarding/tunnel.ts';
import { DELIVER_LOCALLY, type Outcome, type Way } from './forwarding/way.ts';
import { Refused } from './scheduling.ts';
import { COUNTER_STRIDE, Counter } from './statistics.ts';

export interface RelatedOptions {
  connections: ConnectionTable;
  way: Way;
  fullnat: Fullnat;
  /** Sends a packet on by the method of a connection that does not translate. */
  forward: (slot: number, packet: Packet, destination: number) => Outcome;
  /**
   * Asked for an error about a reply of no connection (`schedule_icmp`): the packet that the reply would have answered,
   * as far as its addresses and ports go. Returns the new connection's slot or one of `Refused`.
   */
  schedule: (request: Packet, now: number, tick: number) => number;
}

export class Related {
  readonly #connections: ConnectionTable;
  readonly #way: Way;
  readonly #options: RelatedOptions;
  readonly #embedded = new EmbeddedPacket();
  readonly #inner = new EmbeddedPacket();
  readonly #key = new ConnectionKey();
  /** The packet in a tunnel, to be quoted. */
  readonly #quoted = new Packet(0);
  /** A request made up from a quoted reply. */
  readonly #request = new Packet(64);

  constructor(options: RelatedOptions) {
    this.#connections = options.connections;
    this.#way = options.way;
    this.#options = options;
  }

  /**
   * Handles an ICMP or ICMPv6 packet.
   * @param repliesOnly leaves alone what would go to a server
   * @returns what became of it; `DELIVER_LOCALLY` for one that is none of the virtual server's
   */
  handle(packet: Packet, now: number, tick: number, repliesOnly = false): Outcome {
    const { view, transport } = packet;
    const family = packet.family === 6 ? 6 : 4;
    const type = view.getUint8(transport + Icmp.type);
    if (family === 4 ? !isRelatedError(type) : !isIcmpv6Error(type)) return DELIVER_LOCALLY;
    const embedded = this.#embedded;
    if (!embedded.read(view, family, transport + ICMP_HEADER, packet.networkEnd)) return DELIVER_LOCALLY;
    if (family === 4 && !repliesOnly && isTunnelProtocol(embedded.protocol) && this.#isLocal(packet)) {
      const outcome = this.#handleTunnelError(packet, now, tick);
      if (outcome !== DELIVER_LOCALLY) return outcome;
    }
    if (!isDirected(embedded.protocol) || !embedded.hasPorts) return DELIVER_LOCALLY;
    setReplyKeyOf(this.#key, packet, embedded);
    const slot = repliesOnly ? -1 : this.#connections.find(this.#key, tick);
    if (slot >= 0) return this.#toServer(slot, packet);
    const outcome = this.#toClient(packet, tick);
    if (outcome !== DELIVER_LOCALLY || repliesOnly) return outcome;
    const scheduled = this.#options.schedule(this.#requestOf(packet), now, tick);
    if (scheduled >= 0) return this.#toServer(scheduled, packet);
    if (scheduled === Refused.ignored) return DELIVER_LOCALLY;
    return scheduled === Refused.noServer ? Drop.noServer : Drop.tableFull;
  }

  /** Sees an ICMP packet that the host itself sends: one about a connection counts as its reply, and is translated. */
  handleLocal(packet: Packet, tick: number): void {
    const { view, transport } = packet;
    const family = packet.family === 6 ? 6 : 4;
    const type = view.getUint8(transport + Icmp.type);
    if (family === 4 ? !isRelatedError(type) : !isIcmpv6Error(type)) return;
    const embedded = this.#embedded;
    if (!embedded.read(view, family, transport + ICMP_HEADER, packet.networkEnd)) return;
    if (!isDirected(embedded.protocol) || !embedded.hasPorts) return;
    setRequestKeyOf(this.#key, packet, embedded);
    let slot = this.#connections.findReply(this.#key, tick);
    if (slot >= 0 && this.#isMasq(slot)) {
      this.#translateSource(slot, packet);
      return;
    }
    slot = this.#connections.find(this.#key, tick);
    if (slot >= 0 && !this.#isMasq(slot)) this.#countOut(slot, lengthOf(packet));
  }

  #isMasq(slot: number): boolean {
    return this.#methodOf(slot) === Forwarding.masq;
  }

  #isFullnat(slot: number): boolean {
    return this.#methodOf(slot) === Forwarding.fullnat;
  }

  #methodOf(slot: number): number {
    return this.#connections.flags(slot) & ConnectionFlag.forwarding;
  }

  #isLocal(packet: Packet): boolean {
    return this.#way.network.isLocal(packet.bytes, packet.destinationAt, packet.family === 6 ? 6 : 4);
  }

  /** An error about a reply. */
  #toServer(slot: number, packet: Packet): Outcome {
    const connections = this.#connections;
    const { pool } = this.#way;
    const destination = connections.destination(slot);
    if (destination < 0) return DELIVER_LOCALLY;
    // What is passed on as it is keeps a wrong checksum; what is rewritten would get a right one.
    const translated = this.#isMasq(slot) || this.#isFullnat(slot);
    if (translated && !isChecksumRight(packet)) return Drop.malformed;
    if (pool.table.flags(destination) & DestinationFlag.available) {
      count(pool.counters, destination, Counter.inPackets, Counter.inBytes, lengthOf(packet));
    }
    const outcome =
      this.#isMasq(slot) || this.#isFullnat(slot)
        ? this.#translateToServer(slot, packet, destination)
        : this.#options.forward(slot, packet, destination);
    connections.countPacket(slot);
    return outcome;
  }

  #translateToServer(slot: number, packet: Packet, destination: number): Outcome {
    const way = this.#way;
    const hop = way.hopTo(destination, packet);
    if (hop) {
      if (!way.passTtl(packet)) return Drop.ttlExpired;
      if (!way.passSize(packet, way.mtu)) return Drop.tooBig;
    } else if (way.failure !== DELIVER_LOCALLY) return way.failure;
    else if (this.#isFullnat(slot)) return Drop.noRoute;
    if (this.#isFullnat(slot)) this.#options.fullnat.translateErrorToServer(packet, this.#embedded, slot);
    else {
      const server = destination * DESTINATION_BYTES + DestinationField.address;
      const { bytes } = way.pool.table;
      replaceAddress(packet, packet.destinationAt, bytes, server);
      replaceAddress(packet, this.#embedded.sourceAt, bytes, server);
      packet.view.setUint16(this.#embedded.transport, this.#connections.destinationPortRaw(slot), true);
    }
    this.#restoreSequence(slot, packet);
    this.#fillChecksums(packet);
    if (!hop) return DELIVER_LOCALLY;
    way.sendTo(packet, destination, hop);
    return Drop.none;
  }

  /** A quoted segment gets the number back that its server gave it: the server checks it (RFC 5927 section 4). */
  #restoreSequence(slot: number, { view, networkEnd }: Packet): void {
    const connections = this.#connections;
    const at = this.#embedded.transport + Tcp.sequence;
    if ((connections.flags(slot) & ConnectionFlag.outSequence) === 0 || at + 4 > networkEnd) return;
    if (!isInHandshake(connections, slot))
      view.setInt32(at, serverNumber(connections, slot, view.getInt32(at)));
  }

  /** An error about a request that went to a server. */
  #toClient(packet: Packet, tick: number): Outcome {
    const connections = this.#connections;
    setRequestKeyOf(this.#key, packet, this.#embedded);
    let slot = connections.findReply(this.#key, tick);
    if (slot >= 0 && (this.#isMasq(slot) || this.#isFullnat(slot))) {
      return this.#translateToClient(slot, packet);
    }
    // Without translation the request still has the VIP: the error is the connection's, but needs nothing done to it.
    slot = connections.find(this.#key, tick);
    // The kernel sees it after routing (ip_vs_forward_icmp at NF_INET_FORWARD), which one that has lived too long fails.
    if (slot >= 0 && !this.#isMasq(slot) && !this.#isFullnat(slot) && ttlOf(packet) > 1) {
      this.#countOut(slot, lengthOf(packet));
    }
    return DELIVER_LOCALLY;
  }

  #translateToClient(slot: number, packet: Packet): Outcome {
    const way = this.#way;
    const family = packet.family === 6 ? 6 : 4;
    if (!isChecksumRight(packet)) return Drop.malformed;
    // To a local address of FULLNAT the error is the director's, but it is meant for the client.
    const fullnat = this.#isFullnat(slot);
    const bytes = fullnat ? this.#connections.bytes : packet.bytes;
    const client = fullnat ? slot * CONNECTION_BYTES + ConnectionField.client : packet.destinationAt;
    const local = way.network.isLocal(bytes, client, family);
    const hop = local ? undefined : way.network.nextHop(bytes, client, family);
    if (!local && !hop) return Drop.noRouteToClient;
    if (hop) {
      if (!way.passTtl(packet)) return Drop.ttlExpired;
      if (!way.passSize(packet, hop.mtu)) return Drop.tooBig;
    }
    if (fullnat) this.#translateFullnat(slot, packet);
    else this.#translateSource(slot, packet);
    if (!hop) return DELIVER_LOCALLY;
    way.send(packet, hop);
    return Drop.none;
  }

  /** Makes it an error of the VIP about a packet to the VIP. */
  #translateSource(slot: number, packet: Packet): void {
    const virtual = slot * CONNECTION_BYTES + ConnectionField.virtual;
    const { bytes } = this.#connections;
    replaceAddress(packet, packet.sourceAt, bytes, virtual);
    replaceAddress(packet, this.#embedded.destinationAt, bytes, virtual);
    packet.view.setUint16(this.#embedded.transport + 2, this.#connections.ports(slot) >>> 16, true);
    this.#fillChecksums(packet);
    this.#countOut(slot, lengthOf(packet));
  }

  /** The same for FULLNAT; a size that the way takes is stated less what the director adds to segments. */
  #translateFullnat(slot: number, packet: Packet): void {
    const { fullnat } = this.#options;
    const { view, transport } = packet;
    fullnat.translateErrorToClient(packet, this.#embedded, slot);
    const type = view.getUint8(transport + Icmp.type);
    const growth = fullnat.growth(slot);
    if (packet.family === 6) {
      if (type === Icmpv6Type.packetTooBig) {
        const mtu = view.getUint32(transport + Icmp.rest);
        view.setUint32(transport + Icmp.rest, Math.max(mtu - growth, Math.min(mtu, IPV6_MINIMUM_MTU)));
      }
    } else if (
      type === IcmpType.unreachable &&
      view.getUint8(transport + Icmp.code) === UnreachableCode.fragmentationNeeded
    ) {
      const mtu = view.getUint16(transport + Icmp.mtu);
      view.setUint16(transport + Icmp.mtu, Math.max(mtu - growth, Math.min(mtu, IPV4_MINIMUM_MTU)));
    }
    this.#fillChecksums(packet);
    this.#countOut(slot, lengthOf(packet));
  }

  /** The quoted transport checksum is left alone: it may cover bytes that are not there. */
  #fillChecksums(packet: Packet): void {
    const { view, network, transport } = packet;
    const family = packet.family === 6 ? 6 : 4;
    if (family === 4) {
      fillIpv4Checksum(view, network);
      fillIpv4Checksum(view, this.#embedded.network);
    }
    fillIcmpChecksum(view, family, network, transport, packet.networkEnd - transport);
  }

  #countOut(slot: number, length: number): void {
    const { pool } = this.#way;
    const destination = this.#connections.destination(slot);
    if (destination < 0 || (pool.table.flags(destination) & DestinationFlag.available) === 0) return;
    count(pool.counters, destination, Counter.outPackets, Counter.outBytes, length);
  }

  /** `DELIVER_LOCALLY` if the quoted packet is no tunnel of ours. */
  #handleTunnelError(packet: Packet, now: number, tick: number): Outcome {
    const { view } = packet;
    const outer = this.#embedded;
    const inner = this.#inner;
    const at = findTunnelPayload(view, outer, packet.networkEnd);
    if (at < 0 || !inner.read(view, 4, at, packet.networkEnd)) return DELIVER_LOCALLY;
    if (!isDirected(inner.protocol) || !inner.hasPorts) return DELIVER_LOCALLY;
    setRequestKeyOf(this.#key, packet, inner);
    const slot = this.#connections.find(this.#key, tick);
    if (slot < 0 || !this.#isTunnelOf(slot, packet)) return DELIVER_LOCALLY;
    if (!isChecksumRight(packet)) return Drop.malformed;
    const type = view.getUint8(packet.transport + Icmp.type);
    const code = view.getUint8(packet.transport + Icmp.code);
    let rest = view.getUint32(packet.transport + Icmp.rest);
    if (type === IcmpType.unreachable && code === UnreachableCode.fragmentationNeeded) {
      const mtu = this.#learnMtu(slot, view.getUint16(packet.transport + Icmp.mtu), now);
      if ((view.getUint16(inner.network + Ipv4.fragment) & IPV4_DONT_FRAGMENT) === 0) return Drop.none;
      rest = mtu;
    }
    const quoted = this.#quote(packet);
    this.#way.errors.send(quoted, type, code, rest);
    // The kernel counts what the client is sent, as every answer to a client, and here the packet it quotes too.
    if (this.#way.errors.lastLength > 0) this.#countOut(slot, this.#way.errors.lastLength);
    this.#countOut(slot, lengthOf(quoted));
    return Drop.none;
  }

  /**
   * Takes note of what the router said. Returns what to tell the client: the MTU in effect now, less the tunnel's
   * headers.
   */
  #learnMtu(slot: number, mtu: number, now: number): number {
    const { pool } = this.#way;
    const destination = this.#connections.destination(slot);
    pool.learnPathMtu(destination, mtu, now);
    const hop = pool.hops[destination];
    const inEffect = hop ? pool.pathMtus.inEffect(destination, hop.mtu) : mtu;
    const overhead = IPV4_HEADER + this.#inner.network - this.#embedded.transport;
    return inEffect > IPV4_MINIMUM_MTU + overhead ? inEffect - overhead : inEffect;
  }

  /** True if the connection's packets go through the tunnel that the error is about. */
  #isTunnelOf(slot: number, packet: Packet): boolean {
    const { pool } = this.#way;
    const { protocol, transport, destinationAt } = this.#embedded;
    const destination = this.#connections.destination(slot);
    if (destination < 0) return false;
    if ((this.#connections.flags(slot) & ConnectionFlag.forwarding) !== Forwarding.tunnel) return false;
    const record = destination * DESTINATION_BYTES;
    const { view } = pool.table;
    if (view.getUint8(record + DestinationField.family) !== 4) return false;
    if (view.getUint32(record + DestinationField.address) !== packet.view.getUint32(destinationAt))
      return false;
    const type = view.getUint8(record + DestinationField.tunnelType);
    if (protocol === Protocol.ipv4) return type === TunnelType.ipip;
    if (protocol === Protocol.gre) return type === TunnelType.gre;
    return (
      type === TunnelType.gue &&
      packet.view.getUint16(transport + Udp.destinationPort) === pool.tunnelPorts[destination]
    );
  }

  /** The packet in the tunnel, as if it had come by itself. */
  #quote(packet: Packet): Packet {
    const quoted = this.#quoted;
    const inner = this.#inner;
    quoted.bytes = packet.bytes;
    quoted.view = packet.view;
    quoted.start = packet.start;
    quoted.tags = packet.tags;
    quoted.etherType = packet.etherType;
    quoted.family = 4;
    quoted.network = inner.network;
    quoted.networkEnd = packet.networkEnd;
    quoted.protocol = inner.protocol;
    quoted.transport = inner.transport;
    return quoted;
  }

  /** The request that the quoted reply would have answered: addresses and ports, nothing else. */
  #requestOf(packet: Packet): Packet {
    const request = this.#request;
    const embedded = this.#embedded;
    const length = packet.family === 4 ? 4 : 16;
    request.family = packet.family;
    request.network = 0;
    request.transport = request.sourceAt + 2 * length;
    request.networkEnd = request.transport + 4;
    request.protocol = embedded.protocol;
    for (let index = 0; index < length; index++) {
      request.bytes[request.sourceAt + index] = packet.bytes[embedded.destinationAt + index] as number;
      request.bytes[request.destinationAt + index] = packet.bytes[embedded.sourceAt + index] as number;
    }
    request.sourcePort = packet.view.getUint16(embedded.transport + 2);
    request.destinationPort = packet.view.getUint16(embedded.transport);
    request.view.setUint16(request.transport, request.sourcePort);
    request.view.setUint16(request.transport + 2, request.destinationPort);
    return request;
  }
}

function isDirected(protocol: number): boolean {
  return protocol === Protocol.tcp || protocol === Protocol.udp || protocol === Protocol.sctp;
}

function isTunnelProtocol(protocol: number): boolean {
  return protocol === Protocol.ipv4 || protocol === Protocol.udp || protocol === Protocol.gre;
}

/** Where the IPv4 packet begins that a quoted tunnel packet carries, or -1 if it carries none. */
function findTunnelPayload(view: DataView, outer: EmbeddedPacket, end: number): number {
  const { protocol, transport, isLaterFragment } = outer;
  if (isLaterFragment) return -1;
  if (protocol === Protocol.ipv4) return transport;
  if (protocol === Protocol.gre) {
    if (transport + GRE_HEADER > end) return -1;
    const flags = view.getUint16(transport);
    if ((flags & ~GRE_CHECKSUM_PRESENT) !== 0) return -1;
    if (view.getUint16(transport + 2) !== EtherType.ipv4) return -1;
    return transport + GRE_HEADER + (flags === 0 ? 0 : 4);
  }
  const gue = transport + UDP_HEADER;
  if (gue + GUE_HEADER > end) return -1;
  // Version 0 and no control message; what remains of the first byte is the length of the options in words.
  const words = view.getUint8(gue);
  if (words >>> 5 !== 0 || view.getUint8(gue + 1) !== Protocol.ipv4) return -1;
  return gue + GUE_HEADER + (words << 2);
}

function isChecksumRight(packet: Packet): boolean {
  const { view, network, transport } = packet;
  const length = packet.networkEnd - transport;
  return checkIcmp(view, packet.family === 6 ? 6 : 4, network, transport, length, true) === Malformed.none;
}

function lengthOf(packet: Packet): number {
  return packet.networkEnd - packet.network;
}

function ttlOf(packet: Packet): number {
  return packet.view.getUint8(packet.network + (packet.family === 4 ? Ipv4.ttl : Ipv6.hopLimit));
}

function count(
  counters: Float64Array,
  destination: number,
  packets: number,
  bytes: number,
  length: number,
): void {
  const at = destination * COUNTER_STRIDE;
  counters[at + packets] = (counters[at + packets] as number) + 1;
  counters[at + bytes] = (counters[at + bytes] as number) + length;
}

function replaceAddress(packet: Packet, at: number, from: Uint8Array, fromAt: number): void {
  const length = packet.family === 4 ? 4 : 16;
  for (let index = 0; index < length; index++) packet.bytes[at + index] = from[fromAt + index] as number;
}

/** The key of the connection that a quoted request belongs to; as key of a reply, if the request was translated. */
function setRequestKeyOf(key: ConnectionKey, packet: Packet, embedded: EmbeddedPacket): void {
  setAddresses(key, packet, embedded.sourceAt, embedded.destinationAt);
  key.protocol = embedded.protocol;
  key.ports = packet.view.getInt32(embedded.transport, true);
}

/** The key of the connection that a quoted reply belongs to. */
function setReplyKeyOf(key: ConnectionKey, packet: Packet, embedded: EmbeddedPacket): void {
  setAddresses(key, packet, embedded.destinationAt, embedded.sourceAt);
  key.protocol = embedded.protocol;
  const ports = packet.view.getInt32(embedded.transport, true);
  key.ports = (ports >>> 16) | (ports << 16);
}

function setAddresses(key: ConnectionKey, packet: Packet, clientAt: number, virtualAt: number): void {
  if (packet.family === 4) {
    key.setIpv4(packet.view, clientAt, virtualAt);
    key.flags = 0;
  } else {
    key.setIpv6(packet.view, clientAt, virtualAt);
    key.flags = ConnectionFlag.ipv6;
  }
}
