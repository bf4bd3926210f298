/**
 * Why a packet goes where it goes, in plain data. `Explainer` asks the same questions in the same order as
 * `Director.process`, of the same tables, and changes nothing: it can be asked at any time, as often as one likes.
 */
import { addressBytes, type Family, formatAddress, formatMac } from '../wire/address.ts';
import { ICMP_HEADER, Icmp, isIcmpv6Error, isRelatedError } from '../wire/icmp.ts';
import { IPV4_DONT_FRAGMENT, IPV4_HEADER, Ipv4, Protocol } from '../wire/ipv4.ts';
import { IPV6_HEADER, IPV6_MINIMUM_MTU, Ipv6 } from '../wire/ipv6.ts';
import type { Packet } from '../wire/packet.ts';
import { SCTP_HEADER, SctpChunk } from '../wire/sctp.ts';
import { TcpFlag } from '../wire/tcp.ts';
import type { Administration } from './administration.ts';
import { ConnectionKey } from './connection-key.ts';
import {
  CONNECTION_BYTES,
  ConnectionField,
  ConnectionFlag,
  type ConnectionTable,
  EXTENSION_WORDS,
  Extension,
} from './connections.ts';
import type { Defence } from './defence.ts';
import {
  DESTINATION_BYTES,
  DestinationField,
  DestinationFlag,
  Forwarding,
  type TunnelType,
} from './destinations.ts';
import { DROP_NAMES, Drop } from './drops.ts';
import { EmbeddedPacket } from './embedded-packet.ts';
import { explainProxied, wayBack } from './explain-proxied.ts';
import type { SelectionExplanation } from './explanation.ts';
import { isInHandshake } from './forwarding/proxied.ts';
import { IPV4_MINIMUM_MTU, tunnelHeaderLength } from './forwarding/tunnel.ts';
import type { Ftp } from './ftp.ts';
import type { Lifecycle } from './lifecycle.ts';
import type { MarkRules } from './mark-rules.ts';
import type { Network, NextHop } from './network.ts';
import { Refused, type Scheduling, setKey, setReplyKey } from './scheduling.ts';
import type { ServiceIndex } from './service-index.ts';
import type { Service } from './service-table.ts';
import type { Settings } from './settings.ts';
import { SIP_ENGINE } from './sip.ts';
import type { ConnectionStatus, ServiceKey } from './specification.ts';
import type { SynProxy } from './syn-proxy.ts';
import { isBehindProxy, isPlainSyn, isProxied } from './syn-segments.ts';

/** What decides a packet's way; the text of each is for people too. */
export type Decision =
  | 'not IP'
  | 'no services'
  | 'a protocol that is not directed'
  | 'a fragment'
  | 'an ICMP error'
  | 'ICMP, but no error'
  | 'a packet of a connection'
  | 'a reply of a connection'
  | 'its server was deleted'
  | 'a reply that belongs to no connection'
  | 'begins a dialogue from the server'
  | 'not for this host'
  | 'left to the master'
  | 'begins no connection'
  | 'no service'
  | 'drop_packet'
  | 'from the FTP data port'
  | 'the persistence engine cannot read it'
  | 'no server'
  | 'no server, goes where it was addressed'
  | 'the connection table is full'
  | 'no local address'
  | 'answered with a SYN cookie'
  | 'a SYN cookie, waits for data'
  | 'no SYN cookie that holds'
  | 'no segment of a handshake'
  | 'a handshake that the SYN proxy waits for'
  | 'a new connection, by its SYN cookie'
  | 'a new connection'
  | 'a new connection, by its template';

export interface ExplainedFlow {
  family: Family | 0;
  /** IP protocol number. */
  protocol: number;
  source: string;
  sourcePort: number;
  destination: string;
  destinationPort: number;
  /** Names of the TCP flags set. */
  flags: string[];
  /** Bytes of the IP packet. */
  length: number;
}

export interface ExplainedConnection extends ConnectionStatus {
  /** Packets from the client. */
  packets: number;
  /** Connections that it controls. */
  controls: number;
  /** Its template or FTP control connection. */
  controlledBy?: ConnectionStatus;
}

export interface ExplainedServer {
  /** In the destination table. */
  index: number;
  address: string;
  port: number;
  method: string;
  weight: number;
  active: number;
  inactive: number;
  /** 0: none. */
  upperThreshold: number;
  lowerThreshold: number;
  overloaded: boolean;
  /** False once it was deleted. */
  available: boolean;
}

export interface Departure {
  method: 'masq' | 'gate' | 'tunnel' | 'fullnat' | 'bypass' | 'reply' | 'SYN proxy';
  /** `sent`, `sent in fragments`, `to this host`, or the name of a drop. */
  outcome: string;
  interfaceIndex?: number;
  sourceMac?: string;
  /** undefined: not known yet, the frame waits for it. */
  destinationMac?: string;
  /** Bytes the way takes, of the packet itself. */
  mtu?: number;
  ttl: { before: number; after: number };
  /** What is rewritten in the IP and transport headers, or put around them. */
  changes: { field: string; from: string; to: string }[];
}

export interface PacketExplanation {
  flow: ExplainedFlow;
  decision: Decision;
  /** What `process` would answer; undefined where only trying tells: fragments, ICMP errors, a full table. */
  verdict: 'pass' | 'taken' | 'dropped' | undefined;
  /** The counter of `Director.drops` that counts it, by name. */
  drop?: string;
  /** Firewall mark, 0: none. Only looked for in packets of no connection. */
  mark: number;
  /** The connection that was found. */
  connection?: ExplainedConnection;
  /** Why that connection gives way to a new one. */
  ended?: 'a new one begins on it' | 'its server was deleted';
  service?: { key: ServiceKey; matchedBy: 'firewall mark' | 'port' | 'FTP' | 'any port' };
  /** `drop_packet`, where it is on: one in so many is dropped. */
  sampling?: { oneIn: number; dropsThis: boolean };
  /** The SIP Call-ID. */
  callId?: string;
  template?: ExplainedConnection;
  /** False: its server is gone or quiesced, a new one is chosen. */
  templateHolds?: boolean;
  selection?: SelectionExplanation;
  server?: ExplainedServer;
  departure?: Departure;
}

export interface ExplainerOptions {
  network: Network;
  settings: Settings;
  connections: ConnectionTable;
  lifecycle: Lifecycle;
  administration: Administration;
  index: ServiceIndex;
  scheduling: Scheduling;
  ftp: Ftp;
  defence: Defence;
  synProxy: SynProxy;
  marks: () => MarkRules;
  /** True if this packet, on this connection, begins a new one. */
  beginsAnew: (slot: number, packet: Packet) => boolean;
  /** The same on a connection that the SYN proxy made; `answered`: by a SYN that changes nothing yet. */
  beginsProxiedAnew: (
    slot: number,
    packet: Packet,
    interfaceIndex: number,
    now: number,
  ) => 'no' | 'answered' | 'yes';
  standsBack: () => boolean;
  isStrayReply: (packet: Packet) => boolean;
  isBypassed: (service: Service, packet: Packet) => boolean;
}

const METHOD_NAMES: Readonly<Record<number, Departure['method']>> = {
  [Forwarding.masq]: 'masq',
  [Forwarding.tunnel]: 'tunnel',
  [Forwarding.gate]: 'gate',
  [Forwarding.bypass]: 'bypass',
  [Forwarding.fullnat]: 'fullnat',
};

const TUNNEL_NAMES: Readonly<Record<number, keyof typeof TunnelType>> = { 0: 'ipip', 1: 'gue', 2: 'gre' };

export class Explainer {
  readonly #options: ExplainerOptions;
  readonly #key = new ConnectionKey();
  readonly #embedded = new EmbeddedPacket();

  constructor(options: ExplainerOptions) {
    this.#options = options;
  }

  explain(packet: Packet, interfaceIndex: number, now: number, routedOn: boolean): PacketExplanation {
    const { administration, index, connections } = this.#options;
    const explanation: PacketExplanation = {
      flow: flowOf(packet),
      decision: 'not IP',
      verdict: 'pass',
      mark: 0,
    };
    const decide = (decision: Decision, more: Partial<PacketExplanation> = {}): PacketExplanation =>
      Object.assign(explanation, { decision }, more);
    if (packet.family === 0) return explanation;
    if ((packet.family === 4 ? index.size4 : index.size6) === 0) return decide('no services');
    if (packet.isFragment || packet.fragmentHeader >= 0) return decide('a fragment', { verdict: undefined });
    const tick = connections.tick(now);
    const { protocol } = packet;
    if (protocol !== Protocol.tcp && protocol !== Protocol.udp && protocol !== Protocol.sctp) {
      return this.#explainIcmp(packet, tick, decide);
    }
    setKey(this.#key, packet);
    const isReplyOnly = routedOn || this.#options.standsBack();
    let slot = isReplyOnly ? -1 : connections.find(this.#key, tick);
    if (slot < 0 && !isReplyOnly && this.#options.ftp.waiting > 0)
      slot = this.#options.ftp.waitingFor(this.#key, tick);
    let released = -1;
    if (slot >= 0) {
      explanation.connection = this.#connection(slot, tick);
      const destination = connections.destination(slot);
      const isHere =
        destination < 0 ||
        (this.#options.lifecycle.pool.table.flags(destination) & DestinationFlag.available) !== 0;
      const isProxy = isProxied(connections.flags(slot));
      const proxied = isProxy ? this.#options.beginsProxiedAnew(slot, packet, interfaceIndex, now) : 'no';
      if (proxied === 'answered') {
        return this.#explainNew(packet, interfaceIndex, now, tick, -1, explanation, decide);
      }
      if (proxied === 'yes' || (!isProxy && this.#options.beginsAnew(slot, packet)))
        explanation.ended = 'a new one begins on it';
      else if (isHere && isProxy && isInHandshake(connections, slot)) {
        return decide('a handshake that the SYN proxy waits for', { verdict: undefined });
      } else if (isHere) {
        return decide('a packet of a connection', this.#forwarded(packet, slot, destination));
      } else if (this.#options.settings.expire_nodest_conn === 0) {
        return decide('its server was deleted', dropped(Drop.serverGone));
      } else explanation.ended = 'its server was deleted';
      released = slot;
    } else if (administration.translated > 0) {
      setReplyKey(this.#key, packet);
      slot = connections.findReply(this.#key, tick);
      if (slot >= 0) {
        explanation.connection = this.#connection(slot, tick);
        const isAnswer =
          isProxied(connections.flags(slot)) &&
          (packet.tcpFlags & TcpFlag.syn || isInHandshake(connections, slot));
        if (isAnswer) return decide('a handshake that the SYN proxy waits for', { verdict: undefined });
        return decide('a reply of a connection', this.#returned(packet, slot));
      }
      const server = this.#dialogueServer(packet);
      if (server) return decide('begins a dialogue from the server', server);
      if (this.#options.settings.nat_icmp_send && this.#options.isStrayReply(packet)) {
        const expires = routedOn && ttlOf(packet) <= 1;
        return decide(
          'a reply that belongs to no connection',
          dropped(expires ? Drop.ttlExpired : Drop.replyUnknown),
        );
      }
    }
    if (isReplyOnly) return decide(routedOn ? 'not for this host' : 'left to the master');
    return this.#withoutConnection(released, () =>
      this.#explainNew(packet, interfaceIndex, now, tick, released, explanation, decide),
    );
  }

  #explainIcmp(
    packet: Packet,
    tick: number,
    decide: (decision: Decision, more?: Partial<PacketExplanation>) => PacketExplanation,
  ): PacketExplanation {
    const isIcmp = packet.protocol === (packet.family === 4 ? Protocol.icmp : Protocol.icmpv6);
    if (!isIcmp) return decide('a protocol that is not directed');
    const { view, transport } = packet;
    const type = view.getUint8(transport + Icmp.type);
    if (packet.family === 4 ? !isRelatedError(type) : !isIcmpv6Error(type))
      return decide('ICMP, but no error');
    const embedded = this.#embedded;
    const key = this.#key;
    const { connections } = this.#options;
    const isRead = embedded.read(view, packet.family, transport + ICMP_HEADER, packet.networkEnd);
    if (!isRead || !embedded.hasPorts) return decide('an ICMP error', { verdict: undefined });
    const ports = view.getInt32(embedded.transport, true);
    // The quoted packet is a reply, which comes from the VIP, or a request that went to a server.
    this.#setKey(key, packet, embedded.destinationAt, embedded.sourceAt);
    key.protocol = embedded.protocol;
    key.ports = (ports >>> 16) | (ports << 16);
    let slot = connections.find(key, tick);
    if (slot < 0) {
      this.#setKey(key, packet, embedded.sourceAt, embedded.destinationAt);
      key.ports = ports;
      slot = connections.findReply(key, tick);
    }
    const about = slot >= 0 ? { connection: this.#connection(slot, tick) } : {};
    return decide('an ICMP error', { verdict: undefined, ...about });
  }

  #setKey(key: ConnectionKey, packet: Packet, clientAt: number, virtualAt: number): void {
    if (packet.family === 4) key.setIpv4(packet.view, clientAt, virtualAt);
    else key.setIpv6(packet.view, clientAt, virtualAt);
    key.flags = packet.family === 6 ? ConnectionFlag.ipv6 : 0;
  }

  #explainNew(
    packet: Packet,
    interfaceIndex: number,
    now: number,
    tick: number,
    released: number,
    explanation: PacketExplanation,
    decide: (decision: Decision, more?: Partial<PacketExplanation>) => PacketExplanation,
  ): PacketExplanation {
    const { index, defence, scheduling, connections } = this.#options;
    const mayBegin = this.#mayBegin(packet);
    const mayBeProxied = packet.protocol === Protocol.tcp && this.#options.administration.proxied > 0;
    if (!mayBegin && !mayBeProxied) return decide('begins no connection');
    const mark = this.#options.marks().markOf(packet, interfaceIndex);
    explanation.mark = mark;
    const family = packet.family === 6 ? 6 : 4;
    const { protocol, bytes, view, destinationAt, destinationPort } = packet;
    const service = index.find(mark, family, protocol, bytes, view, destinationAt, destinationPort);
    const proxied = mayBeProxied && service !== undefined && isBehindProxy(service, packet);
    if (!mayBegin && !proxied) return decide('begins no connection');
    if (!service) return decide('no service');
    explanation.service = { key: service.key, matchedBy: matchOf(service, packet) };
    if (proxied && service.destinations.length === 0 && isPlainSyn(packet))
      return this.#explainNoServer(packet, service, decide, false);
    if (defence.dropRate > 0 && (!proxied || isPlainSyn(packet))) {
      explanation.sampling = { oneIn: defence.dropRate, dropsThis: defence.wouldDropPacket };
      if (defence.wouldDropPacket) return decide('drop_packet', dropped(Drop.overload));
    }
    if (proxied) {
      const { synProxy, network } = this.#options;
      const told = explainProxied(synProxy, packet, now, () =>
        this.#cookieDeparture(packet, wayBack(network, packet)),
      );
      if (told) {
        const { departure, verdict, drop } = told;
        return decide(told.decision, {
          ...(drop === Drop.none ? { verdict } : dropped(drop)),
          ...(departure && { departure }),
        });
      }
    }
    const preview = scheduling.preview(service, packet, mark, now, tick);
    if (preview.call) explanation.callId = preview.call;
    if (preview.template >= 0) {
      explanation.template = this.#connection(preview.template, tick);
      explanation.templateHolds = preview.templateHolds;
    }
    if (preview.selection) explanation.selection = preview.selection;
    const { destination } = preview;
    if (destination !== null && destination >= 0)
      explanation.server = this.#server(destination, preview.port);
    switch (preview.refused) {
      case Refused.ignored:
        return decide('from the FTP data port');
      case Refused.engine:
        return decide('the persistence engine cannot read it', dropped(Drop.engine));
      case Refused.noLocalAddress:
        return decide('no local address', dropped(Drop.noLocalAddress));
      case Refused.noServer:
        return this.#explainNoServer(packet, service, decide, !proxied);
    }
    const free = connections.capacity - connections.size + (this.#isReleased(released) ? 1 : 0);
    if (free < preview.records) return decide('the connection table is full', { verdict: undefined });
    if (proxied) return decide('a new connection, by its SYN cookie', { verdict: undefined });
    const decision = preview.templateHolds ? 'a new connection, by its template' : 'a new connection';
    if (destination === null) return decide(decision, { verdict: undefined });
    const method = this.#methodOf(destination);
    return decide(decision, this.#departing(packet, method, destination, preview.port, -1));
  }

  /** @param mayBypass false behind a SYN proxy, which has answered the client already */
  #explainNoServer(
    packet: Packet,
    service: Service,
    decide: (decision: Decision, more?: Partial<PacketExplanation>) => PacketExplanation,
    mayBypass: boolean,
  ): PacketExplanation {
    if (mayBypass && this.#options.isBypassed(service, packet)) {
      const { connections } = this.#options;
      if (connections.size === connections.capacity) {
        return decide('the connection table is full', { verdict: undefined });
      }
      const departing = this.#departing(packet, Forwarding.bypass, -1, 0, -1);
      return decide('no server, goes where it was addressed', departing);
    }
    const isFtpData =
      mayBypass && !('mark' in service.key) && service.key.port === 21 && packet.destinationPort !== 21;
    return decide('no server', isFtpData ? { verdict: 'pass' } : dropped(Drop.noServer));
  }

  #mayBegin(packet: Packet): boolean {
    const { sloppy_tcp, sloppy_sctp } = this.#options.settings;
    if (packet.protocol === Protocol.tcp) {
      if (packet.tcpFlags & TcpFlag.rst) return false;
      return (packet.tcpFlags & TcpFlag.syn) !== 0 || sloppy_tcp !== 0;
    }
    if (packet.protocol !== Protocol.sctp) return true;
    const chunk = packet.view.getUint8(packet.transport + SCTP_HEADER);
    return chunk !== SctpChunk.abort && (chunk === SctpChunk.init || sloppy_sctp !== 0);
  }

  /** True if a connection that gives way would leave the table: one that controls others stays. */
  #isReleased(slot: number): boolean {
    return slot >= 0 && this.#options.lifecycle.controlled(slot) === 0;
  }

  /**
   * Does something while a connection that gives way does not count at its server, as it will not when a server is chosen;
   * afterwards the server's record is as it was.
   */
  #withoutConnection<Result>(slot: number, work: () => Result): Result {
    const { connections, lifecycle } = this.#options;
    const destination = slot >= 0 ? connections.destination(slot) : -1;
    if (destination < 0 || !this.#isReleased(slot)) return work();
    const { table } = lifecycle.pool;
    const flags = connections.flags(slot);
    const wasOverloaded = (table.flags(destination) & DestinationFlag.overloaded) !== 0;
    lifecycle.discount(flags, destination);
    try {
      return work();
    } finally {
      // Added, not written: the XDP program goes on to count.
      lifecycle.count(flags, destination);
      table.setFlag(destination, DestinationFlag.overloaded, wasOverloaded);
    }
  }

  #forwarded(packet: Packet, slot: number, destination: number): Partial<PacketExplanation> {
    const { connections } = this.#options;
    const method = connections.flags(slot) & ConnectionFlag.forwarding;
    const port = swap(connections.destinationPortRaw(slot));
    const server = destination < 0 ? {} : { server: this.#server(destination, port) };
    return { ...server, ...this.#departing(packet, method, destination, port, slot) };
  }

  /** How a packet to a server leaves. @param slot its connection, -1: a new one */
  #departing(
    packet: Packet,
    method: number,
    destination: number,
    port: number,
    slot: number,
  ): Partial<PacketExplanation> {
    const name = METHOD_NAMES[method];
    if (!name || (destination < 0 && method !== Forwarding.bypass)) return { verdict: 'pass' };
    const departure: Departure = { method: name, outcome: '', ttl: ttlChange(packet), changes: [] };
    if (slot >= 0 && method === Forwarding.fullnat && this.#options.connections.localPortRaw(slot) === 0)
      return concluded(departure, Drop.noLocalPort);
    const { network, lifecycle } = this.#options;
    const { pool } = lifecycle;
    const family = packet.family === 6 ? 6 : 4;
    const owner = pool.owners[destination];
    let hop = pool.hops[destination];
    let mtu = hop ? pool.pathMtus.forNext(destination, hop.mtu) : 0;
    if (!hop) {
      if (owner && network.isLocal(owner.address, 0, owner.family)) {
        this.#listChanges(departure, packet, method, destination, port, slot);
        if (method === Forwarding.fullnat) return concluded(departure, Drop.noRoute);
        departure.outcome = 'to this host';
        return { departure, verdict: 'pass' };
      }
      hop =
        method === Forwarding.bypass
          ? network.nextHop(packet.bytes, packet.destinationAt, family)
          : owner && network.nextHop(owner.address, 0, owner.family);
      if (!hop) return concluded(departure, Drop.noRoute);
      mtu = hop.mtu;
    }
    describeHop(departure, hop);
    departure.mtu = mtu;
    this.#listChanges(departure, packet, method, destination, port, slot);
    if (ttlOf(packet) <= 1) return concluded(departure, Drop.ttlExpired);
    if (method === Forwarding.tunnel) return this.#tunnelled(packet, departure, destination, mtu);
    return concluded(departure, fits(packet, mtu) ? Drop.none : Drop.tooBig, packet, mtu);
  }

  #tunnelled(
    packet: Packet,
    departure: Departure,
    destination: number,
    mtu: number,
  ): Partial<PacketExplanation> {
    const { bytes } = this.#options.lifecycle.pool.table;
    const record = destination * DESTINATION_BYTES;
    const isOuter6 = bytes[record + DestinationField.family] === 6;
    const headers = tunnelHeaderLength(
      bytes[record + DestinationField.tunnelType] as number,
      bytes[record + DestinationField.tunnelFlags] as number,
    );
    const overhead = (isOuter6 ? IPV6_HEADER : IPV4_HEADER) + headers;
    const room = mtu - overhead;
    departure.mtu = room;
    if (room < (isOuter6 ? IPV6_MINIMUM_MTU : IPV4_MINIMUM_MTU)) return concluded(departure, Drop.tunnelMtu);
    const isAnswered = packet.family === 6 || this.#options.settings.pmtu_disc !== 0;
    if (isAnswered && !fits(packet, room)) return concluded(departure, Drop.tooBig);
    if (lengthOf(packet) + overhead > 65535) return concluded(departure, Drop.tunnelMtu);
    if (packet.start < overhead) return concluded(departure, Drop.noHeadroom);
    return concluded(departure, Drop.none, packet, room);
  }

  /** How the answer to a SYN leaves. */
  #cookieDeparture(packet: Packet, hop: NextHop | undefined): Departure | undefined {
    if (!hop) return undefined;
    const ttl = { before: ttlOf(packet), after: this.#options.settings.synproxy_synack_ttl };
    const departure: Departure = { method: 'SYN proxy', outcome: 'sent', mtu: hop.mtu, ttl, changes: [] };
    describeHop(departure, hop);
    return departure;
  }

  /** How a packet from a server leaves. */
  #returned(packet: Packet, slot: number): Partial<PacketExplanation> {
    const { connections } = this.#options;
    const at = slot * CONNECTION_BYTES;
    const length = packet.family === 6 ? 16 : 4;
    const virtual = formatAddress(connections.bytes, at + ConnectionField.virtual, length);
    const ports = connections.ports(slot);
    const changes = [
      change('source address', packet.source, virtual),
      change('source port', packet.sourcePort, swap(ports >>> 16)),
    ];
    const client = at + ConnectionField.client;
    if ((connections.flags(slot) & ConnectionFlag.forwarding) === Forwarding.fullnat) {
      changes.push(
        change('destination address', packet.destination, formatAddress(connections.bytes, client, length)),
        change('destination port', packet.destinationPort, swap(ports & 0xffff)),
      );
    }
    const destination = connections.destination(slot);
    return {
      server: this.#server(destination, swap(connections.destinationPortRaw(slot))),
      ...this.#toClient(packet, connections.bytes, client, changes),
    };
  }

  #toClient(
    packet: Packet,
    bytes: Uint8Array,
    client: number,
    changes: Departure['changes'],
  ): Partial<PacketExplanation> {
    const { network } = this.#options;
    const family = packet.family === 6 ? 6 : 4;
    const departure: Departure = {
      method: 'reply',
      outcome: '',
      ttl: ttlChange(packet),
      changes: changes.filter(({ from, to }) => from !== to),
    };
    if (network.isLocal(bytes, client, family)) {
      departure.outcome = 'to this host';
      return { departure, verdict: 'pass' };
    }
    const hop = network.nextHop(bytes, client, family);
    if (!hop) return concluded(departure, Drop.noRouteToClient);
    describeHop(departure, hop);
    departure.mtu = hop.mtu;
    if (ttlOf(packet) <= 1) return concluded(departure, Drop.ttlExpired);
    return concluded(departure, fits(packet, hop.mtu) ? Drop.none : Drop.tooBig, packet, hop.mtu);
  }

  #dialogueServer(packet: Packet): Partial<PacketExplanation> | undefined {
    const { administration, scheduling, connections } = this.#options;
    if (administration.engines === 0 || packet.protocol !== Protocol.udp) return undefined;
    const server = administration.translatedServer(packet, SIP_ENGINE);
    if (!server || !scheduling.wouldScheduleFromServer(server, packet)) return undefined;
    const { key } = server.service;
    if ('mark' in key) return undefined;
    if (connections.capacity - connections.size < 2) return { verdict: undefined };
    return {
      service: { key, matchedBy: 'port' },
      server: this.#server(server.index, packet.sourcePort),
      ...this.#toClient(packet, packet.bytes, packet.destinationAt, [
        change('source address', packet.source, key.address),
        change('source port', packet.sourcePort, key.port),
      ]),
    };
  }

  #listChanges(
    departure: Departure,
    packet: Packet,
    method: number,
    destination: number,
    port: number,
    slot: number,
  ): void {
    const owner = this.#options.lifecycle.pool.owners[destination];
    if (!owner) return;
    const server = formatAddress(owner.address);
    if (method === Forwarding.tunnel) {
      const { tunnelType, tunnelFlags } = DestinationField;
      const { bytes } = this.#options.lifecycle.pool.table;
      const type = TUNNEL_NAMES[bytes[destination * DESTINATION_BYTES + tunnelType] as number] ?? 'ipip';
      const flags = bytes[destination * DESTINATION_BYTES + tunnelFlags] === 0 ? '' : ' with checksum';
      departure.changes.push(change('outer header', 'none', `${type}${flags} to ${server}`));
      return;
    }
    if (method !== Forwarding.masq && method !== Forwarding.fullnat) return;
    const changes = [
      change('destination address', packet.destination, server),
      change('destination port', packet.destinationPort, port),
    ];
    if (method === Forwarding.fullnat) changes.push(...this.#localChanges(packet, slot));
    departure.changes.push(...changes.filter(({ from, to }) => from !== to));
  }

  #localChanges(packet: Packet, slot: number): Departure['changes'] {
    if (slot < 0)
      return [change('source address', packet.source, 'a local address and port to be allocated')];
    const { connections } = this.#options;
    const words = connections.extension;
    const at = (slot * EXTENSION_WORDS + Extension.localAddress) * 4;
    const bytes = new Uint8Array(words.buffer, words.byteOffset);
    return [
      change('source address', packet.source, formatAddress(bytes, at, packet.family === 6 ? 16 : 4)),
      change('source port', packet.sourcePort, swap(connections.localPortRaw(slot))),
    ];
  }

  #connection(slot: number, tick: number): ExplainedConnection {
    const { administration, connections, lifecycle } = this.#options;
    const controller = lifecycle.controllerOf(slot);
    return {
      ...administration.connectionStatus(slot, tick),
      packets: connections.packets(slot),
      controls: lifecycle.controlled(slot),
      ...(controller < 0 ? {} : { controlledBy: administration.connectionStatus(controller, tick) }),
    };
  }

  #server(index: number, port: number): ExplainedServer {
    const { table } = this.#options.lifecycle.pool;
    const at = index * DESTINATION_BYTES;
    const family = table.bytes[at + DestinationField.family] === 6 ? 6 : 4;
    const flags = table.flags(index);
    return {
      index,
      address: formatAddress(table.bytes, at + DestinationField.address, addressBytes(family)),
      port,
      method: METHOD_NAMES[this.#methodOf(index)] ?? 'gate',
      weight: table.weight(index),
      active: table.active(index),
      inactive: table.inactive(index),
      upperThreshold: table.upperThreshold(index),
      lowerThreshold: table.lowerThreshold(index),
      overloaded: (flags & DestinationFlag.overloaded) !== 0,
      available: (flags & DestinationFlag.available) !== 0,
    };
  }

  #methodOf(destination: number): number {
    const { bytes } = this.#options.lifecycle.pool.table;
    return bytes[destination * DESTINATION_BYTES + DestinationField.forwarding] as number;
  }
}

function flowOf(packet: Packet): ExplainedFlow {
  const isIp = packet.family !== 0;
  return {
    family: packet.family,
    protocol: packet.protocol,
    source: isIp ? packet.source : '',
    sourcePort: packet.sourcePort,
    destination: isIp ? packet.destination : '',
    destinationPort: packet.destinationPort,
    flags: Object.entries(TcpFlag)
      .filter(([, bit]) => packet.tcpFlags & bit)
      .map(([name]) => name),
    length: isIp ? lengthOf(packet) : 0,
  };
}

function matchOf(
  { key }: Service,
  { destinationPort }: Packet,
): 'firewall mark' | 'port' | 'FTP' | 'any port' {
  if ('mark' in key) return 'firewall mark';
  if (key.port === destinationPort) return 'port';
  return key.port === 0 ? 'any port' : 'FTP';
}

function dropped(reason: Drop): Partial<PacketExplanation> {
  return { verdict: 'dropped', drop: DROP_NAMES[reason] ?? '' };
}

/** The end of a departure: sent, in fragments if it does not fit `mtu`, or dropped. */
function concluded(
  departure: Departure,
  reason: Drop,
  packet?: Packet,
  mtu = Number.POSITIVE_INFINITY,
): Partial<PacketExplanation> {
  if (reason !== Drop.none) {
    departure.outcome = DROP_NAMES[reason] ?? '';
    return { departure, ...dropped(reason) };
  }
  departure.outcome = packet && lengthOf(packet) > mtu ? 'sent in fragments' : 'sent';
  return { departure, verdict: 'taken' };
}

function describeHop(departure: Departure, hop: NextHop): void {
  departure.interfaceIndex = hop.interfaceIndex;
  departure.sourceMac = formatMac(hop.sourceMac);
  if (hop.resolved) departure.destinationMac = formatMac(hop.destinationMac);
}

/** True if the packet is small enough or may be fragmented. */
function fits(packet: Packet, mtu: number): boolean {
  if (lengthOf(packet) <= mtu) return true;
  if (packet.family === 6) return false;
  return (packet.view.getUint16(packet.network + Ipv4.fragment) & IPV4_DONT_FRAGMENT) === 0;
}

function lengthOf(packet: Packet): number {
  return packet.networkEnd - packet.network;
}

function ttlOf(packet: Packet): number {
  return packet.view.getUint8(packet.network + (packet.family === 4 ? Ipv4.ttl : Ipv6.hopLimit));
}

function ttlChange(packet: Packet): Departure['ttl'] {
  const before = ttlOf(packet);
  return { before, after: Math.max(0, before - 1) };
}

function change(field: string, from: string | number, to: string | number): Departure['changes'][number] {
  return { field, from: String(from), to: String(to) };
}

function swap(port: number): number {
  return ((port & 0xff) << 8) | (port >>> 8);
}
