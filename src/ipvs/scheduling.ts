/**
 * New connections: which server gets one, with persistence or without (ip_vs_schedule, ip_vs_sched_persist in
 * net/netfilter/ipvs/ip_vs_core.c).
 */
import { parseIpv4Address } from '../wire/address.ts';
import { Protocol } from '../wire/ipv4.ts';
import type { Packet } from '../wire/packet.ts';
import { ConnectionFlag, ConnectionKey } from './connections.ts';
import { DESTINATION_BYTES, DestinationField, DestinationFlag, Forwarding } from './destinations.ts';
import { Drop } from './drops.ts';
import type { Fullnat } from './forwarding/fullnat.ts';
import type { Lifecycle } from './lifecycle.ts';
import type { SelectionRequest } from './plan.ts';
import type { Selector } from './selection.ts';
import type { ServerPool } from './server-pool.ts';
import type { Service } from './service-table.ts';
import type { Settings } from './settings.ts';
import { COUNTER_STRIDE, Counter } from './statistics.ts';

/** What came of scheduling a packet; a slot of 0 or more is the new connection. */
export const Refused = {
  /** The service does not want this packet: it is not the virtual server's business. */
  ignored: -1,
  /** No server is to be had. */
  noServer: -2,
  /** No room, or a persistence engine that cannot read the packet: dropped without an answer. */
  dropped: -3,
  /** FULLNAT: no port is left to reach the server from. */
  noLocalPort: -4,
  /** FULLNAT: the service has no local address. */
  noLocalAddress: -5,
} as const;

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
  readonly #key = new ConnectionKey();
  readonly #templateKey = new ConnectionKey();
  readonly #request: SelectionRequest;

  constructor(lifecycle: Lifecycle, selector: Selector, settings: Settings, fullnat: Fullnat) {
    this.#lifecycle = lifecycle;
    this.#pool = lifecycle.pool;
    this.#selector = selector;
    this.#settings = settings;
    this.#fullnat = fullnat;
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
   * @returns the slot, or one of `Refused`
   */
  schedule(service: Service, packet: Packet, mark: number, now: number, tick: number): number {
    // A data connection of active FTP is opened by the server; towards a service it can only be forged.
    if (packet.sourcePort === FTP_DATA_PORT) return Refused.ignored;
    const { specification } = service;
    if (specification.persistenceTimeout > 0)
      return this.#schedulePersistent(service, packet, mark, now, tick);
    if (!('mark' in service.key) && packet.destinationPort !== service.key.port) return Refused.noServer;
    const destination = this.#select(service, packet, now);
    if (destination < 0) return Refused.noServer;
    return this.#create(service, packet, destination, packet.destinationPort, now, tick);
  }

  #select(service: Service, packet: Packet, now: number): number {
    const { plan } = service;
    if (!plan) return -1;
    const request = this.#request;
    request.now = now;
    request.family = packet.family === 6 ? 6 : 4;
    request.bytes = packet.bytes;
    request.view = packet.view;
    request.sourceAt = packet.sourceAt;
    request.destinationAt = packet.destinationAt;
    request.sourcePort = packet.sourcePort;
    return this.#selector.select(plan, request);
  }

  /** Enters the connection of a packet to a destination. Its port is the server's own, or the packet's if it has none. */
  #create(
    service: Service,
    packet: Packet,
    destination: number,
    port: number,
    now: number,
    tick: number,
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
      onePacket ? ConnectionFlag.onePacket : 0,
      destination,
      swap(serverPort),
      tick,
      isFullnat ? this.#fullnat.commit : undefined,
    );
    if (slot < 0) {
      if (isFullnat) this.#fullnat.cancel();
      return Refused.dropped;
    }
    const { counters } = this.#pool;
    const at = destination * COUNTER_STRIDE + Counter.connections;
    counters[at] = (counters[at] as number) + 1;
    return slot;
  }

  #isFullnat(destination: number): boolean {
    const at = destination * DESTINATION_BYTES + DestinationField.forwarding;
    return this.#pool.table.bytes[at] === Forwarding.fullnat;
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

  #schedulePersistent(service: Service, packet: Packet, mark: number, now: number, tick: number): number {
    const lifecycle = this.#lifecycle;
    const { connections } = lifecycle;
    const template = this.#templateKey;
    this.#setTemplateKey(template, service, packet, mark);
    let controller = connections.find(template, tick);
    let destination = controller < 0 ? -1 : connections.destination(controller);
    if (controller < 0 || !this.#isTemplateUsable(destination)) {
      if (controller >= 0) this.#invalidate(controller);
      destination = this.#select(service, packet, now);
      if (destination < 0) return Refused.noServer;
      const servicePort = 'mark' in service.key ? -1 : service.key.port;
      const keepsPort = packet.destinationPort === servicePort && servicePort !== FTP_PORT;
      const port = keepsPort ? (this.#pool.owners[destination]?.specification.port ?? 0) : 0;
      this.#setTemplateKey(template, service, packet, mark);
      controller = lifecycle.create(template, 0, destination, swap(port), tick);
      if (controller < 0) return Refused.dropped;
    }
    const slot = this.#create(service, packet, destination, packet.destinationPort, now, tick);
    if (slot < 0) return slot;
    lifecycle.control(slot, controller);
    const timeout = service.specification.persistenceTimeout * lifecycle.timeouts.hz;
    connections.setExpires(controller, (tick + timeout) | 0);
    return slot;
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

  /** A template holds while its server is part of the service, and not quiesced if that is to end it. */
  #isTemplateUsable(destination: number): boolean {
    if (destination < 0) return false;
    const { table } = this.#pool;
    if ((table.flags(destination) & DestinationFlag.available) === 0) return false;
    return this.#settings.expire_quiescent_template === 0 || table.weight(destination) !== 0;
  }

  /** Leaves a template to its connections but lets nothing new match it (ip_vs_check_template). */
  #invalidate(controller: number): void {
    const { connections } = this.#lifecycle;
    if (connections.ports(controller) >>> 16 === INVALID_PORT) return;
    connections.setDestination(controller, connections.destination(controller), INVALID_PORT);
    connections.changePorts(controller, INVALID_PORT << 16);
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
function clientMask(service: Service): Int32Array {
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
