/**
 * Keeps the program in the kernel in step with a director: what is configured goes down, what the program counted comes
 * up. Whoever runs the two together needs it: the daemon, the player of scenarios, tests and measurements.
 */

import { CONNECTION_BYTES, ConnectionField, ConnectionFlag } from '../../ipvs/connections.ts';
import { DESTINATION_BYTES, DestinationField, DestinationFlag, Forwarding } from '../../ipvs/destinations.ts';
import type { Director } from '../../ipvs/director.ts';
import { GUE_HEADER, IPV4_MINIMUM_MTU } from '../../ipvs/forwarding/tunnel.ts';
import { clientMask } from '../../ipvs/scheduling.ts';
import { PROTOCOL_NUMBERS } from '../../ipvs/service-index.ts';
import type { Service } from '../../ipvs/service-table.ts';
import { type ServiceKey, serviceKeyText } from '../../ipvs/specification.ts';
import { COUNTER_STRIDE, Counter } from '../../ipvs/statistics.ts';
import { SECURE_TCP_TABLE, TCP_TABLE, TCP_TIMEOUTS, TcpState } from '../../ipvs/tcp-states.ts';
import { type Family, formatAddress, parseAddress } from '../../wire/address.ts';
import { IPV4_HEADER } from '../../wire/ipv4.ts';
import { IPV6_HEADER, IPV6_MINIMUM_MTU } from '../../wire/ipv6.ts';
import { UDP_HEADER } from '../../wire/udp.ts';
import {
  ControlFlag,
  OWNER_BYTES,
  OwnerField,
  SERVER_PORT,
  SERVICE_BYTES,
  ServiceField,
  ServiceFlag,
  serviceKey,
  TUNNEL_BYTES,
  TunnelField,
} from './control.ts';
import type { FastPath, Traffic } from './fast-path.ts';
import { Plans } from './plans.ts';
import { Ways } from './ways.ts';

const FTP_PORT = 21;
/** Addresses without a service that are remembered for connections of deleted services of firewall marks. */
const MOST_LINGERING = 256;
const NO_TRAFFIC: Traffic = { packets: 0, bytes: 0, outPackets: 0, outBytes: 0, connections: 0 };

/** What a service has in the map `services`: keys as hexadecimal text. */
interface ServiceEntry {
  key: string;
  /** Of its address. */
  ofAddress: string;
  record: Uint8Array;
}

export class ProgramConfiguration {
  readonly #fastPath: FastPath;
  readonly #director: Director;
  readonly #owners: DataView;
  readonly #tunnels: DataView;
  readonly #plans: Plans;
  /** What `services` holds, by key. */
  readonly #written = new Map<string, Uint8Array>();
  /** Which way clients have; for who knows of routes. */
  readonly ways: Ways;
  /** By destination: what the program had forwarded when its counters were last taken over. */
  readonly #seen: (Traffic | undefined)[] = [];
  /** Destinations whose replies were translated at some time. */
  readonly #translated = new Set<number>();
  /** Destinations at the end of a tunnel at some time. */
  readonly #tunnelled = new Set<number>();
  /** Undefined: the program does not know yet. */
  #isSecure: boolean | undefined;
  readonly #entries = new Map<string, ServiceEntry>();
  /** Records from here on were not there when the tables were taken over. */
  #adopted = 0;
  #pathMtuChanges = 0;
  /** VIPs without a service whose connections live on, or wait for a service of their family. */
  readonly #lingering = new Map<string, Uint8Array>();
  #vips = new Map<string, Uint8Array>();
  #own: Uint8Array[] = [];
  #servers: Uint8Array[] = [];
  /** Families with services of firewall marks: any address may be theirs. */
  #marked: ReadonlySet<Family> = new Set();

  /** @param director works on the tables of `fastPath` */
  constructor(fastPath: FastPath, director: Director) {
    this.#fastPath = fastPath;
    this.#director = director;
    this.#owners = new DataView(fastPath.ownerMemory);
    this.#tunnels = new DataView(fastPath.tunnelMemory);
    this.#plans = new Plans(fastPath.planMemory, fastPath.cursorMemory, director.destinations);
    for (const key of fastPath.serviceKeys())
      this.#written.set(Buffer.from(key).toString('hex'), UNKNOWN_RECORD);
    this.ways = new Ways(fastPath, director.network);
    const { destinations } = director;
    for (let index = 0; index < destinations.capacity; index++) {
      if (destinations.flags(index) & DestinationFlag.used) this.#adopted = index + 1;
    }
  }

  /** `serviceKeyText` of the service that a destination's record was written for, by a predecessor perhaps. */
  ownerName(index: number): string {
    const at = index * OWNER_BYTES;
    const family = this.#owners.getUint8(at + OwnerField.family) === 6 ? 6 : 4;
    const number = this.#owners.getUint8(at + OwnerField.protocol);
    if (number === 0)
      return serviceKeyText({ mark: this.#owners.getUint32(at + OwnerField.mark, true), family });
    const protocol =
      number === PROTOCOL_NUMBERS.udp ? 'udp' : number === PROTOCOL_NUMBERS.sctp ? 'sctp' : 'tcp';
    const address = new Uint8Array(this.#owners.buffer, at + OwnerField.address, family === 6 ? 16 : 4);
    return serviceKeyText({
      protocol,
      address: formatAddress(address),
      port: this.#owners.getUint16(at + OwnerField.port),
    });
  }

  /** Notes which service a record is written for. True if it was another one before. */
  #writeOwner(index: number, key: ServiceKey): boolean {
    const record = new DataView(new ArrayBuffer(OWNER_BYTES));
    if ('mark' in key) {
      record.setUint8(OwnerField.family, key.family);
      record.setUint32(OwnerField.mark, key.mark, true);
    } else {
      const address = parseAddress(key.address) ?? new Uint8Array(4);
      record.setUint8(OwnerField.protocol, PROTOCOL_NUMBERS[key.protocol]);
      record.setUint8(OwnerField.family, address.length === 4 ? 4 : 6);
      record.setUint16(OwnerField.port, key.port);
      new Uint8Array(record.buffer).set(address, OwnerField.address);
    }
    const before = new Uint8Array(this.#owners.buffer, index * OWNER_BYTES, OWNER_BYTES);
    const after = new Uint8Array(record.buffer);
    if (before.every((byte, at) => byte === after[at])) return false;
    before.set(after);
    return true;
  }

  /**
   * Tells the program what the director's configuration is now.
   * @param touched names of the services that may have changed since the last call; missing: any, and ways to servers
   */
  write(touched?: ReadonlySet<string>): void {
    const { administration, pool } = this.#director;
    const changed = pool.pathMtus.changes === this.#pathMtuChanges ? touched : undefined;
    this.#pathMtuChanges = pool.pathMtus.changes;
    const keys = new Map<string, Uint8Array>();
    const vips = new Map<string, Uint8Array>();
    // Addresses of the director's that replies and errors come to.
    const own = new Map<string, Uint8Array>();
    const marked = new Set<Family>();
    const add = (key: Uint8Array, value: Uint8Array): void => {
      keys.set(Buffer.from(key).toString('hex'), value);
    };
    const names = new Set<string>();
    const families = new Set<Family>();
    for (const service of administration.serviceObjects()) {
      const { key, address } = service;
      names.add(service.name);
      families.add(service.family);
      for (const { bytes } of service.localAddresses) own.set(formatAddress(bytes), bytes);
      if ('mark' in key || !address) {
        marked.add(service.family);
        continue;
      }
      vips.set(key.address, address);
      const entry = this.#entryOf(service, address, changed);
      keys.set(entry.key, entry.record);
      if (key.protocol === 'tcp' && key.port === FTP_PORT) keys.set(entry.ofAddress, FTP_RECORD);
      else if (!keys.has(entry.ofAddress)) keys.set(entry.ofAddress, EMPTY_RECORD);
    }
    for (const name of this.#plans.names()) if (!names.has(name)) this.#plans.forget(name);
    for (const name of this.#entries.keys()) if (!names.has(name)) this.#entries.delete(name);
    // A VIP that lost its last service keeps its connections.
    for (const [name, address] of this.#vips) if (!vips.has(name)) this.#lingering.set(name, address);
    for (const family of this.#marked) if (!marked.has(family)) this.#lingerMarked(family);
    for (const name of vips.keys()) this.#lingering.delete(name);
    this.#vips = vips;
    for (const address of this.#tunnelSources()) own.set(formatAddress(address), address);
    // What is no TCP or UDP goes by these entries alone, also to a VIP whose last service is gone.
    for (const address of [...own.values(), ...this.#lingering.values()]) {
      const key = serviceKey(0, address, 0);
      if (!keys.has(Buffer.from(key).toString('hex'))) add(key, serviceRecord(0));
    }
    this.#own = [...own.values()];
    this.#marked = marked;
    const servers = this.#translatedServers();
    for (const address of servers) add(serviceKey(0, address, SERVER_PORT), serviceRecord(0));
    // Without services of a family the virtual server stands aside: nothing of that family is looked at.
    const isOnDuty = ({ length }: Uint8Array): boolean => families.has(length === 4 ? 4 : 6);
    this.#servers = servers.filter(isOnDuty);
    this.#own = [...this.#own, ...this.#lingering.values()].filter(isOnDuty);
    // Entries change one by one: while more than one does, new connections wait for the director, which knows them all.
    if (!changed || changed.size > 1) this.#fastPath.control.flags |= ControlFlag.noNew;
    this.#writeServices(keys);
    this.#writeVips();
    const [tcp, udp] = this.#timeouts();
    this.#fastPath.control.setTimeouts(tcp, udp);
    this.#writeSettings();
    this.#writeTunnels();
    this.ways.refresh();
    for (const [index, owner] of pool.owners.entries()) {
      if (changed && owner && !changed.has(owner.service.name)) continue;
      if (owner && this.#writeOwner(index, owner.service.key)) {
        this.#fastPath.clearTraffic(index);
        this.#seen[index] = undefined;
      }
    }
    for (const hop of pool.hops) if (hop) this.#fastPath.allowDevice(hop.interfaceIndex);
  }

  /** What a service has in `services`; what was found for one that did not change still holds. */
  #entryOf(service: Service, address: Uint8Array, touched: ReadonlySet<string> | undefined): ServiceEntry {
    const known = this.#entries.get(service.name);
    if (known && touched && !touched.has(service.name)) return known;
    const { key } = service;
    const port = 'mark' in key ? 0 : key.port;
    const protocol = 'mark' in key ? 0 : PROTOCOL_NUMBERS[key.protocol];
    const entry = {
      key: Buffer.from(serviceKey(protocol, address, port)).toString('hex'),
      ofAddress: Buffer.from(serviceKey(0, address, 0)).toString('hex'),
      record: this.#serviceRecord(service),
    };
    this.#entries.set(service.name, entry);
    return entry;
  }

  /** Addresses of servers whose replies are translated, or were while connections may remain. */
  #translatedServers(): Uint8Array[] {
    const { pool, destinations } = this.#director;
    const addresses: Uint8Array[] = [];
    const end = Math.max(this.#adopted, pool.owners.length);
    for (let index = 0; index < end; index++) {
      if ((destinations.flags(index) & DestinationFlag.used) === 0) {
        this.#translated.delete(index);
        continue;
      }
      const at = index * DESTINATION_BYTES;
      const method = this.#methodOf(index);
      if (method === Forwarding.masq || method === Forwarding.fullnat) this.#translated.add(index);
      if (!this.#translated.has(index)) continue;
      const length = destinations.bytes[at + DestinationField.family] === 6 ? 16 : 4;
      const from = at + DestinationField.address;
      addresses.push(pool.owners[index]?.address ?? destinations.bytes.slice(from, from + length));
    }
    return addresses;
  }

  /** `Forwarding` that a destination's record says. */
  #methodOf(index: number): number | undefined {
    return this.#director.destinations.bytes[index * DESTINATION_BYTES + DestinationField.forwarding];
  }

  #writeSettings(): void {
    const { settings } = this.#director;
    const { control } = this.#fastPath;
    control.flags =
      (settings.nat_icmp_send ? ControlFlag.strayReplies : 0) |
      (this.#marked.size > 0 ? ControlFlag.marks : 0) |
      (settings.pmtu_disc ? ControlFlag.pathDiscovery : 0) |
      (settings.expire_quiescent_template ? ControlFlag.expireQuiescent : 0) |
      (settings.conn_reuse_mode ? ControlFlag.reuse : 0) |
      (settings.conn_reuse_mode & 2 ? ControlFlag.reuseFinWait : 0) |
      (settings.expire_nodest_conn ? ControlFlag.expireNodest : 0) |
      (this.#standsBack() ? ControlFlag.standsBack : 0) |
      (this.#director.defence.dropRate > 0 || this.#marked.size > 0 || this.#standsBack()
        ? ControlFlag.noNew
        : 0);
    if (this.#isSecure === this.#director.isTcpSecure) return;
    this.#isSecure = this.#director.isTcpSecure;
    control.setTcpTable(this.#isSecure ? SECURE_TCP_TABLE : TCP_TABLE);
  }

  /** The director's addresses on tunnels, of connections from before an edit too: errors about these come there. */
  #tunnelSources(): Uint8Array[] {
    const { pool, destinations } = this.#director;
    const sources: Uint8Array[] = [];
    for (const [index, hop] of pool.hops.entries()) {
      if ((destinations.flags(index) & DestinationFlag.used) === 0) this.#tunnelled.delete(index);
      else if (this.#methodOf(index) === Forwarding.tunnel) this.#tunnelled.add(index);
      if (hop && this.#tunnelled.has(index)) sources.push(hop.sourceAddress);
    }
    return sources;
  }

  /** Writes what outer headers of tunnels need beyond the destinations' records. */
  #writeTunnels(): void {
    const { pool } = this.#director;
    for (const [index, hop] of pool.hops.entries()) {
      if (!hop || this.#methodOf(index) !== Forwarding.tunnel) continue;
      const at = index * TUNNEL_BYTES;
      new Uint8Array(this.#tunnels.buffer).set(hop.sourceAddress, at + TunnelField.source);
      this.#tunnels.setUint16(at + TunnelField.port, pool.tunnelPorts[index] as number);
    }
  }

  /** How the program finds servers for a service's new connections, if it does. */
  #serviceRecord(service: Service): Uint8Array {
    const { key, specification } = service;
    const plan = this.#plans.write(service.name, this.#isScheduledHere(service) ? service.plan : undefined);
    const record = serviceRecord(
      plan
        ? ServiceFlag.scheduled |
            (specification.onePacket && !('mark' in key) && key.protocol === 'udp'
              ? ServiceFlag.onePacket
              : 0) |
            (plan.withPort ? ServiceFlag.hashPort : 0)
        : 0,
    );
    if (!plan) return record;
    const view = new DataView(record.buffer);
    view.setUint32(ServiceField.kind, plan.kind, true);
    view.setUint32(ServiceField.at, plan.at, true);
    view.setUint32(ServiceField.length, plan.length, true);
    view.setUint32(ServiceField.cursor, plan.cursor, true);
    const { hz } = this.#director.connections;
    view.setUint32(ServiceField.persistence, specification.persistenceTimeout * hz, true);
    clientMask(service).forEach((word, index) => {
      view.setInt32(ServiceField.mask + 4 * index, word, true);
    });
    view.setUint32(ServiceField.leastMtu, this.#leastMtu(service), true);
    return record;
  }

  /** True if the program can do all that a new connection of this service may need. */
  #isScheduledHere(service: Service): boolean {
    const { key, specification, destinations } = service;
    if ('mark' in key || key.port === 0 || key.port === FTP_PORT || key.protocol === 'sctp') return false;
    if (specification.persistenceEngine !== '') return false;
    // A persistent datagram of one packet needs its template's counts at once.
    if (specification.onePacket && specification.persistenceTimeout > 0) return false;
    const { pool } = this.#director;
    return destinations.every(({ index, specification: { method, tunnelType, tunnelChecksum } }) => {
      if (index < 0 || !pool.hops[index]) return false;
      if (method === 'tunnel') {
        return tunnelType === 'ipip' || (tunnelType === 'gue' && tunnelChecksum === 'nocsum');
      }
      return method === 'gate' || method === 'masq';
    });
  }

  /** Bytes that can be sent to every server whatever is chosen. */
  #leastMtu(service: Service): number {
    const { pool } = this.#director;
    let least = 65535;
    for (const { index, family, specification } of service.destinations) {
      const hop = pool.hops[index];
      // What a router told of the way takes effect with a packet that the director sends.
      if (!hop?.resolved || pool.pathMtus.isPending(index)) return 0;
      const mtu = pool.pathMtus.forNext(index, hop.mtu);
      if (specification.method !== 'tunnel') least = Math.min(least, mtu);
      else least = Math.min(least, roomInTunnel(mtu, family));
    }
    return least;
  }

  #writeServices(keys: ReadonlyMap<string, Uint8Array>): void {
    for (const [name, value] of keys) {
      const written = this.#written.get(name);
      if (written === value || (written && Buffer.compare(written, value) === 0)) continue;
      this.#fastPath.setService(Uint8Array.from(Buffer.from(name, 'hex')), value);
      this.#written.set(name, value);
    }
    for (const name of this.#written.keys()) {
      if (keys.has(name)) continue;
      this.#fastPath.setService(Uint8Array.from(Buffer.from(name, 'hex')));
      this.#written.delete(name);
    }
  }

  #writeVips(): void {
    const addresses = [...this.#vips.values(), ...this.#own];
    // A backup sees replies only.
    const standsBack = this.#standsBack();
    this.#fastPath.control.setVips(standsBack ? [] : addresses, standsBack ? [] : this.#marked);
    this.#fastPath.control.setServers(this.#servers);
  }

  #standsBack(): boolean {
    const { settings, administration } = this.#director;
    return settings.backup_only !== 0 && administration.isBackup;
  }

  /** Milliseconds by TCP state, and for UDP. */
  #timeouts(): [number[], number] {
    const { tcp, tcpFin, udp } = this.#director.administration.timeouts();
    const states = TCP_TIMEOUTS.map(seconds => seconds * 1000);
    states[TcpState.established] = tcp * 1000;
    states[TcpState.finWait] = tcpFin * 1000;
    return [states, udp * 1000];
  }

  /** Tells the program what the director found out by itself: path MTUs, and whether it defends itself. */
  refresh(): void {
    if (this.#director.pool.pathMtus.changes !== this.#pathMtuChanges) {
      this.write();
      return;
    }
    if (this.#director.isTcpSecure !== this.#isSecure) this.#writeSettings();
    this.#writeTunnels();
  }

  /** Takes over what the program counted since the last call, and what it asks for. */
  takeCounts(): void {
    const { pool, destinations } = this.#director;
    this.ways.answer();
    const { counters } = pool;
    this.#fastPath.changedTraffic(pool.owners.length, index => {
      if ((destinations.flags(index) & DestinationFlag.used) === 0) return;
      const now = this.#fastPath.traffic(index);
      const seen = this.#seen[index] ?? NO_TRAFFIC;
      const at = index * COUNTER_STRIDE;
      const add = (counter: number, more: number): void => {
        counters[at + counter] = (counters[at + counter] as number) + more;
      };
      add(Counter.connections, now.connections - seen.connections);
      add(Counter.inPackets, now.packets - seen.packets);
      add(Counter.inBytes, now.bytes - seen.bytes);
      add(Counter.outPackets, now.outPackets - seen.outPackets);
      add(Counter.outBytes, now.outBytes - seen.outBytes);
      this.#seen[index] = now;
    });
  }

  /** True for a VIP, and for one without a service whose connections live on. */
  isVip(bytes: Uint8Array, at: number, family: Family): boolean {
    const text = formatAddress(bytes, at, family === 4 ? 4 : 16);
    return this.#vips.has(text) || this.#lingering.has(text);
  }

  /** Remembers the addresses of a family's connections when its last service of a firewall mark is gone. */
  #lingerMarked(family: Family): void {
    const { connections } = this.#director;
    const length = family === 6 ? 16 : 4;
    for (let slot = 0; slot < connections.highWater && this.#lingering.size < MOST_LINGERING; slot++) {
      const flags = connections.flags(slot);
      if (!connections.isUsed(slot) || flags & ConnectionFlag.template) continue;
      if (((flags & ConnectionFlag.ipv6) !== 0) !== (family === 6)) continue;
      const at = slot * CONNECTION_BYTES + ConnectionField.virtual;
      const address = connections.bytes.slice(at, at + length);
      this.#lingering.set(formatAddress(address), address);
    }
  }

  /** Gives up VIPs without a service once all connections are gone. */
  forgetLingering(): void {
    if (this.#lingering.size === 0 || this.#director.connections.size > 0) return;
    this.#lingering.clear();
    this.write();
  }
}

/** Bytes of a packet that fit into the tunnel with the longer header, GUE; 0 if the way carries no tunnel at all. */
function roomInTunnel(mtu: number, family: Family): number {
  const room = mtu - (family === 4 ? IPV4_HEADER : IPV6_HEADER) - UDP_HEADER - GUE_HEADER;
  return room < (family === 4 ? IPV4_MINIMUM_MTU : IPV6_MINIMUM_MTU) ? 0 : room;
}

/** A value of the map `services` with nothing but flags, a sum of `ServiceFlag`. */
function serviceRecord(flags: number): Uint8Array {
  const record = new Uint8Array(new ArrayBuffer(SERVICE_BYTES));
  new DataView(record.buffer).setUint32(ServiceField.flags, flags, true);
  return record;
}

const EMPTY_RECORD = serviceRecord(0);
/** Of a predecessor's entry: equal to none. */
const UNKNOWN_RECORD = new Uint8Array(0);
const FTP_RECORD = serviceRecord(ServiceFlag.ftp);
