/**
 * New connections: which server gets one, with persistence or without (ip_vs_schedule, ip_vs_sched_persist in
 * net/netfilter/ipvs/ip_vs_core.c).
 */
import { parseIpv4Address } from '../wire/address.ts';
import { Protocol } from '../wire/ipv4.ts';
import type { Packet } from '../wire/packet.ts';
import { ConnectionKey } from './connection-key.ts';
import { ConnectionFlag } from './connections.ts';
import { DESTINATION_BYTES, DestinationField, DestinationFlag, Forwarding } from './destinations.ts';
import { Drop } from './drops.ts';
import { explainSelection, type SelectionExplanation } from './explanation.ts';
import type { Fullnat } from './forwarding/fullnat.ts';
import type { Ftp } from './ftp.ts';
import type { Lifecycle } from './lifecycle.ts';
import type { SelectionRequest } from './plan.ts';
import type { Selector } from './selection.ts';
import type { ServerPool } from './server-pool.ts';
import type { Destination, Service } from './service-table.ts';
import type { Settings } from './settings.ts';
import { readCallId, SIP_ENGINE, type SipTemplates } from './sip.ts';
import { COUNTER_STRIDE, Counter } from './statistics.ts';

/** What came of scheduling a packet; a slot of 0 or more is the new connection. */
export const Refused = {
  /** The service does not want this packet: it is not the virtual server's business. */
  ignored: -1,
  /** No server is to be had. */
  noServer: -2,
  /** No room: dropped without an answer. */
  dropped: -3,
  /** FULLNAT: no port is left to reach the server from. */
  noLocalPort: -4,
  /** FULLNAT: the service has no local address. */
  noLocalAddress: -5,
  /** The persistence engine cannot read the packet. */
  engine: -6,
} as const;

/** What `Scheduling.schedule` would do. */
export interface SchedulingPreview {
  /** One of `Refused`, 0 if a connection would be made. */
  refused: number;
  /** What the persistence engine goes by: '' without one, undefined if it cannot read the packet. */
  call: string | undefined;
  /** The packet's template, -1: none, or the service is not persistent. */
  template: number;
  /** The template's server will do. */
  templateHolds: boolean;
  /** The choice of a server, undefined where it was not needed or not come to. */
  selection: SelectionExplanation | undefined;
  /** Index, -1: none; null: left to chance. */
  destination: number | null;
  /** The server's port. */
  port: number;
  /** Records that the connection, and a template for it, would take. */
  records: number;
}

const FTP_PORT = 21;
const FTP_DATA_PORT = 20;
/** Raw port of templates that no longer match. */
const INVALID_PORT = 0xffff;

export class Scheduling {
  readonly #lifecycle: Lifecycle;
  readonly #pool: ServerPool;
  readonly #selector: Selector;
  readonly #settings: Settings;
  readonly #fullnat: Fullnat;
  readonly #ftp: Ftp;
  readonly #sip: SipTemplates;
  readonly #key = new ConnectionKey();
  readonly #templateKey = new ConnectionKey();
  readonly #request: SelectionRequest;

  constructor(
    lifecycle: Lifecycle,
    selector: Selector,
    settings: Settings,
    fullnat: Fullnat,
    ftp: Ftp,
    sip: SipTemplates,
  ) {
    this.#lifecycle = lifecycle;
    this.#pool = lifecycle.pool;
    this.#selector = selector;
    this.#settings = settings;
    this.#fullnat = fullnat;
    this.#ftp = ftp;
    this.#sip = sip;
    const bytes = new Uint8Array(0);
    this.#request = {
      now: 0,
      family: 4,
      bytes,
      view: new DataView(bytes.buffer),
      sourceAt: 0,
      destinationAt: 0,
      sourcePort: 0,
    };
  }

  /**
   * Chooses a server for the first packet of a connection and enters the connection.
   * @param mark the packet's firewall mark, 0 for none
   * @param flags `ConnectionFlag`, that the connection gets
   * @returns the slot, or one of `Refused`
   */
  schedule(service: Service, packet: Packet, mark: number, now: number, tick: number, flags = 0): number {
    // A data connection of active FTP is opened by the server; towards a service it can only be forged.
    if (packet.sourcePort === FTP_DATA_PORT) return Refused.ignored;
    const { specification } = service;
    if (specification.persistenceTimeout > 0)
      return this.#schedulePersistent(service, packet, mark, now, tick, flags);
    if (!('mark' in service.key) && packet.destinationPort !== service.key.port) return Refused.noServer;
    const destination = this.#select(service, packet, now);
    if (destination < 0) return Refused.noServer;
    return this.#create(service, packet, destination, packet.destinationPort, now, tick, flags);
  }

  /** Tells what `schedule` would do, and changes nothing. */
  preview(service: Service, packet: Packet, mark: number, now: number, tick: number): SchedulingPreview {
    const preview: SchedulingPreview = {
      refused: 0,
      call: '',
      template: -1,
      templateHolds: false,
      selection: undefined,
      destination: -1,
      port: 0,
      records: 1,
    };
    const refuse = (refused: number): SchedulingPreview => ({ ...preview, refused });
    if (packet.sourcePort === FTP_DATA_PORT) return refuse(Refused.ignored);
    const isPersistent = service.specification.persistenceTimeout > 0;
    if (isPersistent) {
      preview.call = this.#callOf(service, packet);
      if (preview.call === undefined) return refuse(Refused.engine);
      const key = new ConnectionKey();
      this.#setTemplateKey(key, service, packet, mark);
      preview.template = this.#findTemplate(key, preview.call, tick);
      if (preview.template >= 0) {
        preview.destination = this.#lifecycle.connections.destination(preview.template);
        preview.templateHolds = this.#isTemplateUsable(preview.destination);
      }
      if (!preview.templateHolds) preview.records = 2;
    } else if (!('mark' in service.key) && packet.destinationPort !== service.key.port) {
      return refuse(Refused.noServer);
    }
    if (!preview.templateHolds) {
      const { plan } = service;
      if (!plan) return { ...refuse(Refused.noServer), destination: -1 };
      const expiration = this.#selector.expirationOf(plan);
      preview.selection = explainSelection(plan, this.#requestOf(packet, now), this.#pool.table, {
        localityExpiration: expiration,
      });
      preview.destination = preview.selection.chosen;
      if (preview.destination === -1) return refuse(Refused.noServer);
    }
    if (preview.destination === null) return preview;
    preview.port = this.#serverPort(preview.destination, packet.destinationPort, service);
    const isUnreachable = this.#isFullnat(preview.destination) && service.localAddresses.length === 0;
    return isUnreachable ? refuse(Refused.noLocalAddress) : preview;
  }

  /** True if `scheduleFromServer` would make a connection for this datagram. */
  wouldScheduleFromServer({ service }: Destination, packet: Packet): boolean {
    return !('mark' in service.key) && this.#callOf(service, packet) !== undefined;
  }

  #select(service: Service, packet: Packet, now: number): number {
    const { plan } = service;
    return plan ? this.#selector.select(plan, this.#requestOf(packet, now)) : -1;
  }

  #requestOf(packet: Packet, now: number): SelectionRequest {
    const request = this.#request;
    request.now = now;
    request.family = packet.family === 6 ? 6 : 4;
    request.bytes = packet.bytes;
    request.view = packet.view;
    request.sourceAt = packet.sourceAt;
    request.destinationAt = packet.destinationAt;
    request.sourcePort = packet.sourcePort;
    return request;
  }

  /** Enters the connection of a packet to a destination. Its port is the server's own, or the packet's if it has none. */
  #create(
    service: Service,
    packet: Packet,
    destination: number,
    port: number,
    now: number,
    tick: number,
    flags: number,
  ): number {
    const key = this.#key;
    setKey(key, packet);
    const onePacket = service.specification.onePacket && packet.protocol === Protocol.udp;
    const serverPort = this.#serverPort(destination, port, service);
    const isFullnat = this.#isFullnat(destination);
    if (isFullnat) {
      const drop = this.#fullnat.reserve(service, packet, key, destination, swap(serverPort), now, tick);
      if (drop !== Drop.none) {
        return drop === Drop.noLocalPort ? Refused.noLocalPort : Refused.noLocalAddress;
      }
    }
    const slot = this.#lifecycle.create(
      key,
      onePacket ? flags | ConnectionFlag.onePacket : flags,
      destination,
      swap(serverPort),
      tick,
      isFullnat ? this.#fullnat.commit : undefined,
    );
    if (slot < 0) {
      if (isFullnat) this.#fullnat.cancel();
      return Refused.dropped;
    }
    if (packet.protocol === Protocol.tcp && packet.destinationPort === FTP_PORT && this.#isMasq(destination))
      this.#ftp.begin(slot);
    this.#count(destination);
    return slot;
  }

  #count(destination: number): void {
    const { counters } = this.#pool;
    const at = destination * COUNTER_STRIDE + Counter.connections;
    counters[at] = (counters[at] as number) + 1;
  }

  #isFullnat(destination: number): boolean {
    return this.#methodOf(destination) === Forwarding.fullnat;
  }

  #isMasq(destination: number): boolean {
    return this.#methodOf(destination) === Forwarding.masq;
  }

  #methodOf(destination: number): number {
    return this.#pool.table.bytes[destination * DESTINATION_BYTES + DestinationField.forwarding] as number;
  }

  #serverPort(destination: number, port: number, service: Service): number {
    const own = this.#pool.owners[destination]?.specification.port ?? 0;
    if (own === 0) return port;
    // In a persistent service only packets to the service's own port go to the server's own port.
    if (service.specification.persistenceTimeout > 0) {
      const servicePort = 'mark' in service.key ? 0 : service.key.port;
      return port === servicePort ? own : port;
    }
    return own;
  }

  #schedulePersistent(
    service: Service,
    packet: Packet,
    mark: number,
    now: number,
    tick: number,
    flags: number,
  ): number {
    const call = this.#callOf(service, packet);
    if (call === undefined) return Refused.engine;
    const template = this.#templateKey;
    this.#setTemplateKey(template, service, packet, mark);
    let controller = this.#findTemplate(template, call, tick);
    let destination = controller < 0 ? -1 : this.#lifecycle.connections.destination(controller);
    if (controller < 0 || !this.#isTemplateUsable(destination)) {
      if (controller >= 0) this.#invalidate(controller);
      destination = this.#select(service, packet, now);
      if (destination < 0) return Refused.noServer;
      this.#setTemplateKey(template, service, packet, mark);
      const port = this.#templatePort(service, packet, destination);
      controller = this.#createTemplate(service, template, call, destination, port, tick);
      if (controller < 0) return Refused.dropped;
    }
    const slot = this.#create(service, packet, destination, packet.destinationPort, now, tick, flags);
    if (slot < 0) return slot;
    this.#control(service, slot, controller, tick);
    return slot;
  }

  /**
   * Enters the connection of a datagram with which a server begins a dialogue, or answers one whose connection lasted for
   * one datagram only (ip_vs_new_conn_out).
   * @returns the slot, or one of `Refused`
   */
  scheduleFromServer({ service, index }: Destination, packet: Packet, tick: number): number {
    const call = this.#callOf(service, packet);
    if (call === undefined || 'mark' in service.key || !service.address) return Refused.ignored;
    const { connections } = this.#lifecycle;
    const portRaw = swap(packet.sourcePort);
    const key = this.#key;
    setReplyKey(key, packet);
    const virtual = new DataView(service.address.buffer, service.address.byteOffset, service.address.length);
    key.virtual0 = virtual.getInt32(0, true);
    if (service.family === 6) {
      key.virtual1 = virtual.getInt32(4, true);
      key.virtual2 = virtual.getInt32(8, true);
      key.virtual3 = virtual.getInt32(12, true);
    }
    key.ports = (key.ports & 0xffff) | (swap(service.key.port) << 16);
    const template = this.#templateKey;
    Object.assign(template, key);
    template.flags |= ConnectionFlag.template;
    template.ports = key.ports & 0xffff0000;
    maskClient(template, service);
    let controller = this.#findTemplate(template, call, tick);
    if (controller >= 0 && !this.#isTemplateUsable(connections.destination(controller), index)) {
      this.#invalidate(controller);
      controller = -1;
    }
    if (controller < 0) controller = this.#createTemplate(service, template, call, index, portRaw, tick);
    if (controller < 0) return Refused.dropped;
    const flags = service.specification.onePacket ? ConnectionFlag.onePacket : 0;
    const slot = this.#lifecycle.create(key, flags, index, portRaw, tick);
    if (slot < 0) return Refused.dropped;
    this.#count(index);
    this.#control(service, slot, controller, tick);
    return slot;
  }

  /** What the persistence engine goes by: '' without one, undefined if it cannot read the packet. */
  #callOf(service: Service, packet: Packet): string | undefined {
    if (service.specification.persistenceEngine !== SIP_ENGINE) return '';
    return packet.protocol === Protocol.udp ? readCallId(packet) : undefined;
  }

  #findTemplate(key: ConnectionKey, call: string, tick: number): number {
    return call === '' ? this.#lifecycle.findTemplate(key, tick) : this.#sip.find(key, call, tick);
  }

  /** Raw port of a new template: the server's, or 0 where the template is for all ports. */
  #templatePort(service: Service, packet: Packet, destination: number): number {
    const servicePort = 'mark' in service.key ? -1 : service.key.port;
    if (packet.destinationPort !== servicePort || servicePort === FTP_PORT) return 0;
    return swap(this.#pool.owners[destination]?.specification.port ?? 0);
  }

  #createTemplate(
    service: Service,
    key: ConnectionKey,
    call: string,
    destination: number,
    portRaw: number,
    tick: number,
  ): number {
    if (call !== '') this.#sip.number(key, tick);
    const slot = this.#lifecycle.create(key, 0, destination, portRaw, tick);
    if (slot >= 0) this.#lifecycle.setTemplateTimeout(slot, this.#timeoutOf(service));
    if (slot >= 0 && call !== '') this.#sip.remember(slot, key, call);
    return slot;
  }

  #control(service: Service, slot: number, controller: number, tick: number): void {
    this.#lifecycle.control(slot, controller);
    this.#lifecycle.renewTemplate(controller, tick, this.#timeoutOf(service));
  }

  /** Persistence timeout in ticks. */
  #timeoutOf(service: Service): number {
    return service.specification.persistenceTimeout * this.#lifecycle.timeouts.hz;
  }

  /**
   * The key of the template a packet falls under: the client masked, no client port, and by the kind of service the
   * VIP and its port, the VIP for all ports (FTP, any-port services), or the firewall mark.
   */
  #setTemplateKey(key: ConnectionKey, service: Service, packet: Packet, mark: number): void {
    setKey(key, packet);
    key.flags |= ConnectionFlag.template;
    maskClient(key, service);
    const servicePort = 'mark' in service.key ? 0 : service.key.port;
    let virtualPort = 0;
    if (packet.destinationPort === servicePort) {
      if (servicePort !== FTP_PORT) virtualPort = packet.destinationPort;
    } else if ('mark' in service.key) {
      key.protocol = 0;
      key.virtual0 = swap32(mark);
      key.virtual1 = key.virtual2 = key.virtual3 = 0;
    }
    key.ports = swap(virtualPort) << 16;
  }

  /**
   * A template holds while its server is part of the service, and not quiesced if that is to end it.
   * @param wanted the only server it may be for; default any
   */
  #isTemplateUsable(destination: number, wanted = destination): boolean {
    if (destination < 0 || destination !== wanted) return false;
    const { table } = this.#pool;
    if ((table.flags(destination) & DestinationFlag.available) === 0) return false;
    return this.#settings.expire_quiescent_template === 0 || table.weight(destination) !== 0;
  }

  /** Leaves a template to its connections but lets nothing new match it (ip_vs_check_template). */
  #invalidate(controller: number): void {
    const { connections } = this.#lifecycle;
    const ports = connections.ports(controller);
    if (ports >>> 16 === INVALID_PORT) return;
    this.#sip.invalidate(controller);
    connections.setDestination(controller, connections.destination(controller), INVALID_PORT);
    connections.changePorts(controller, (INVALID_PORT << 16) | (ports & 0xffff));
  }
}

/** The key of the connection a client's packet belongs to. */
export function setKey(key: ConnectionKey, packet: Packet): void {
  if (packet.family === 4) {
    key.setIpv4(packet.view, packet.sourceAt, packet.destinationAt);
    key.flags = 0;
  } else {
    key.setIpv6(packet.view, packet.sourceAt, packet.destinationAt);
    key.flags = ConnectionFlag.ipv6;
  }
  key.protocol = packet.protocol;
  key.ports = packet.view.getInt32(packet.transport, true);
}

/** The key of the connection a server's packet answers: see `ConnectionTable.findReply`. */
export function setReplyKey(key: ConnectionKey, packet: Packet): void {
  if (packet.family === 4) {
    key.setIpv4(packet.view, packet.destinationAt, packet.sourceAt);
    key.flags = 0;
  } else {
    key.setIpv6(packet.view, packet.destinationAt, packet.sourceAt);
    key.flags = ConnectionFlag.ipv6;
  }
  key.protocol = packet.protocol;
  const ports = packet.view.getInt32(packet.transport, true);
  key.ports = (ports >>> 16) | (ports << 16);
}

function maskClient(key: ConnectionKey, service: Service): void {
  const mask = clientMask(service);
  key.client0 &= mask[0] as number;
  key.client1 &= mask[1] as number;
  key.client2 &= mask[2] as number;
  key.client3 &= mask[3] as number;
}

const masks = new WeakMap<object, Int32Array>();

/** The persistence netmask as raw words; kept by specification, which is replaced when it changes. */
export function clientMask(service: Service): Int32Array {
  const known = masks.get(service.specification);
  if (known) return known;
  const bytes = new Uint8Array(16);
  const text = service.specification.persistenceNetmask;
  if (service.family === 4) bytes.set(parseIpv4Address(text) ?? [255, 255, 255, 255]);
  else {
    const prefix = Number(text);
    for (let bit = 0; bit < prefix; bit++)
      bytes[bit >>> 3] = (bytes[bit >>> 3] as number) | (0x80 >>> (bit & 7));
  }
  const mask = new Int32Array(bytes.buffer);
  masks.set(service.specification, mask);
  return mask;
}

function swap(port: number): number {
  return ((port & 0xff) << 8) | (port >>> 8);
}

function swap32(value: number): number {
  return (
    ((value & 0xff) << 24) | ((value & 0xff00) << 8) | ((value >>> 8) & 0xff00) | ((value >>> 24) & 0xff)
  );
}
