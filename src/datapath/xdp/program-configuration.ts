/**
 * Keeps the program in the kernel in step with a director: what is configured goes down, what the program counted comes
 * up. Whoever runs the two together needs it: the daemon, the player of scenarios, tests and measurements.
 */

import type { ConfigurationChange } from '../../ipvs/configuration-change.ts';
import { CONNECTION_BYTES, ConnectionField, ConnectionFlag } from '../../ipvs/connections.ts';
import { DestinationFlag } from '../../ipvs/destinations.ts';
import type { Director } from '../../ipvs/director.ts';
import { GUE_HEADER, IPV4_MINIMUM_MTU } from '../../ipvs/forwarding/tunnel.ts';
import { clientMask } from '../../ipvs/scheduling.ts';
import { PROTOCOL_NUMBERS } from '../../ipvs/service-index.ts';
import type { Service } from '../../ipvs/service-table.ts';
import { type ServiceKey, serviceKeyText } from '../../ipvs/specification.ts';
import { COUNTER_STRIDE, Counter } from '../../ipvs/statistics.ts';
import { SECURE_TCP_TABLE, TCP_TABLE, TCP_TIMEOUTS, TcpState } from '../../ipvs/tcp-states.ts';
import type { Family } from '../../wire/address.ts';
import { IPV4_HEADER } from '../../wire/ipv4.ts';
import { IPV6_HEADER, IPV6_MINIMUM_MTU } from '../../wire/ipv6.ts';
import { UDP_HEADER } from '../../wire/udp.ts';
import { AddressEntries, type Claim } from './address-entries.ts';
import { AddressFilter, ControlFlag, ServiceField, ServiceFlag, serviceKey } from './control.ts';
import type { FastPath } from './fast-path.ts';
import { LingeringSearch } from './lingering.ts';
import { Plans } from './plans.ts';
import { type HopHolder, ServerEntries } from './server-entries.ts';
import { ServiceMap, serviceRecord } from './service-map.ts';
import type { Traffic } from './traffic-counters.ts';
import { Ways } from './ways.ts';

const FTP_PORT = 21;
/** Addresses without a service that are remembered for connections of deleted services of firewall marks. */
const MOST_LINGERING = 256;
const NO_TRAFFIC: Traffic = { packets: 0, bytes: 0, outPackets: 0, outBytes: 0, connections: 0 };

/** What a service was when it was last written. */
interface ServiceEntry {
  readonly key: ServiceKey;
  readonly family: Family;
  /** The VIP; undefined for a firewall mark. */
  readonly address: Uint8Array | undefined;
  /** Its key in the map `services`. */
  readonly mapKey: Uint8Array | undefined;
  readonly isFtp: boolean;
  readonly local: readonly Uint8Array[];
}

export class ProgramConfiguration {
  readonly #fastPath: FastPath;
  readonly #director: Director;
  readonly #plans: Plans;
  readonly #services: ServiceMap;
  readonly #addresses: AddressEntries;
  readonly #servers: ServerEntries;
  readonly #lingering: LingeringSearch;
  /** Which way clients have; for who knows of routes. */
  readonly ways: Ways;
  /** By destination: what the program had forwarded when its counters were last taken over. */
  readonly #seen: (Traffic | undefined)[] = [];
  /** Undefined: the program does not know yet. */
  #isSecure: boolean | undefined;
  /** What is written of services, by name. */
  readonly #entries = new Map<string, ServiceEntry>();
  /** Records from here on were not there when the tables were taken over. */
  readonly #adopted: number;
  /** Services by family, and those of them of firewall marks: any address may be theirs. */
  readonly #inFamily: Record<Family, number> = { 4: 0, 6: 0 };
  readonly #marked: Record<Family, number> = { 4: 0, 6: 0 };
  /** What may have changed since the program was told, by name and by destination. */
  readonly #changedServices = new Map<string, ServiceKey>();
  readonly #changedServers = new Set<number>();
  /** Anything may have. */
  #mayAllHaveChanged = true;

  /**
   * @param director works on the tables of `fastPath`
   * @param holder is told of next hops that servers are reached by
   */
  constructor(fastPath: FastPath, director: Director, holder?: HopHolder) {
    this.#fastPath = fastPath;
    this.#director = director;
    this.#plans = new Plans(fastPath.planMemory, fastPath.cursorMemory, director.destinations);
    this.#services = new ServiceMap(fastPath);
    this.#addresses = new AddressEntries(this.#services);
    this.#lingering = new LingeringSearch(director.connections, this.#addresses);
    this.#servers = new ServerEntries(fastPath, director, this.#addresses, holder);
    this.ways = new Ways(fastPath, director.network);
    const { destinations, pool } = director;
    let adopted = 0;
    for (let index = 0; index < destinations.capacity; index++) {
      if (destinations.flags(index) & DestinationFlag.used) adopted = index + 1;
    }
    this.#adopted = adopted;
    pool.onChange = index => this.#changedServers.add(index);
  }

  /** True if there are services of firewall marks. */
  get hasMarks(): boolean {
    return this.#markedFamilies().size > 0;
  }

  /** Services that the program could schedule, if it had room for their plans. */
  get withoutRoom(): number {
    return this.#plans.withoutRoom;
  }

  /** `serviceKeyText` of the service that a destination's record was written for, by a predecessor perhaps. */
  ownerName(index: number): string {
    return this.#servers.ownerName(index);
  }

  /** Takes note of what the director was told; `update` tells the program. */
  note(change: ConfigurationChange): void {
    if (!('service' in change)) {
      // Settings and marks are few; the order of services is nothing to the program.
      return;
    }
    const key = 'key' in change.service ? change.service.key : change.service;
    this.#changedServices.set(serviceKeyText(key), key);
  }

  /** Tells the program what the director's configuration is now, all of it. */
  write(): void {
    this.#mayAllHaveChanged = true;
    this.ways.refresh();
    this.update();
  }

  /**
   * Tells the program what has changed since the last call: services that were noted, servers and their ways, settings.
   * @throws Error if the kernel refuses something; the next call tries everything again
   */
  update(): void {
    try {
      if (this.#mayAllHaveChanged) this.#noteAll();
      const isFirst = this.#mayAllHaveChanged;
      this.#mayAllHaveChanged = true;
      this.#writeChanged();
      if (isFirst) this.#services.dropInherited();
      this.#mayAllHaveChanged = false;
    } finally {
      this.#changedServices.clear();
      this.#changedServers.clear();
    }
  }

  #noteAll(): void {
    const { administration, pool } = this.#director;
    for (const [name, { key }] of this.#entries) this.#changedServices.set(name, key);
    for (const { name, key } of administration.serviceObjects()) this.#changedServices.set(name, key);
    const end = Math.max(this.#adopted, pool.owners.length);
    for (let index = 0; index < end; index++) this.#changedServers.add(index);
  }

  #writeChanged(): void {
    const { administration, pool } = this.#director;
    for (const index of this.#changedServers) {
      if (this.#servers.write(index)) {
        this.#fastPath.traffic.clear(index);
        this.#seen[index] = undefined;
      }
      // What a service can send at once, and whether the program can schedule it, follows from its servers' ways.
      const service = pool.owners[index]?.service;
      if (service) this.#changedServices.set(service.name, service.key);
    }
    // Entries change one by one: while more than one does, new connections wait for the director, which knows them all.
    if (this.#changedServices.size > 1) this.#fastPath.control.flags |= ControlFlag.noNew;
    const wereMarked = this.#markedFamilies();
    for (const [name, key] of this.#changedServices)
      this.#writeService(name, administration.serviceObject(key));
    const marked = this.#markedFamilies();
    for (const family of wereMarked) if (!marked.has(family)) this.#lingerMarked(family);
    this.#addresses.write(familiesIn(this.#inFamily));
    this.#writeFilters();
    const [tcp, udp] = this.#timeouts();
    this.#fastPath.control.setTimeouts(tcp, udp);
    this.#writeSettings();
    this.ways.tell();
  }

  #markedFamilies(): ReadonlySet<Family> {
    return familiesIn(this.#marked);
  }

  /** @param service undefined: it is gone */
  #writeService(name: string, service: Service | undefined): void {
    const before = this.#entries.get(name);
    const after = service && entryOf(service);
    // First what cannot fail: the kernel may refuse what follows.
    if (after) {
      this.#count(after, 1);
      this.#entries.set(name, after);
    } else this.#entries.delete(name);
    if (before) this.#count(before, -1);
    if (!service) this.#plans.forget(name);
    const mapKey = after?.mapKey ?? before?.mapKey;
    if (mapKey) this.#services.set(mapKey, service && this.#serviceRecord(service));
  }

  #count({ family, address, isFtp, local }: ServiceEntry, by: 1 | -1): void {
    const claim = (kind: Claim, bytes: Uint8Array): void =>
      by === 1 ? this.#addresses.claim(kind, bytes) : this.#addresses.release(kind, bytes);
    this.#inFamily[family] += by;
    for (const bytes of local) claim('own', bytes);
    if (!address) this.#marked[family] += by;
    else {
      claim('vip', address);
      if (isFtp) claim('ftp', address);
    }
  }

  #writeSettings(): void {
    const { settings } = this.#director;
    const { control } = this.#fastPath;
    const marked = this.#markedFamilies().size > 0;
    control.flags =
      (settings.nat_icmp_send ? ControlFlag.strayReplies : 0) |
      (marked ? ControlFlag.marks : 0) |
      (settings.pmtu_disc ? ControlFlag.pathDiscovery : 0) |
      (settings.expire_quiescent_template ? ControlFlag.expireQuiescent : 0) |
      (settings.conn_reuse_mode ? ControlFlag.reuse : 0) |
      (settings.conn_reuse_mode & 2 ? ControlFlag.reuseFinWait : 0) |
      (settings.expire_nodest_conn ? ControlFlag.expireNodest : 0) |
      (this.#standsBack() ? ControlFlag.standsBack : 0) |
      (this.#director.defence.dropRate > 0 || marked || this.#standsBack() ? ControlFlag.noNew : 0);
    if (this.#isSecure === this.#director.isTcpSecure) return;
    this.#isSecure = this.#director.isTcpSecure;
    control.setTcpTable(this.#isSecure ? SECURE_TCP_TABLE : TCP_TABLE);
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
    // With a SYN proxy nothing is begun by a SYN.
    if (specification.persistenceEngine !== '' || specification.synProxy) return false;
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

  #writeFilters(): void {
    const { control } = this.#fastPath;
    // A backup sees replies only.
    if (this.#standsBack()) control.setVips(NO_ADDRESSES);
    else control.setVips(this.#addresses.vips, this.#markedFamilies(), this.#addresses.requested);
    control.setServers(this.#addresses.servers);
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

  /** Tells the program what the director found out by itself: ways, path MTUs, and whether it defends itself. */
  refresh(): void {
    if (this.#changedServers.size > 0) this.update();
    else if (this.#director.isTcpSecure !== this.#isSecure) this.#writeSettings();
  }

  /**
   * Takes over what the program counted since the last call, and what it asks for.
   * @param share which part of the destinations is looked at; missing: all
   */
  takeCounts(share?: { part: number; of: number }): void {
    const { pool, destinations } = this.#director;
    this.ways.answer();
    const { counters } = pool;
    const take = (index: number, now: Traffic): void => {
      if ((destinations.flags(index) & DestinationFlag.used) === 0) return;
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
    };
    this.#fastPath.traffic.changed(pool.owners.length, take, share);
  }

  /** True for a VIP, and for one without a service whose connections live on. */
  isVip(bytes: Uint8Array, at: number, family: Family): boolean {
    return this.#addresses.isVip(bytes, at, family);
  }

  /** Remembers the addresses of a family's connections when its last service of a firewall mark is gone. */
  #lingerMarked(family: Family): void {
    const { connections } = this.#director;
    const length = family === 6 ? 16 : 4;
    for (let slot = 0; slot < connections.highWater && this.#addresses.lingering < MOST_LINGERING; slot++) {
      const flags = connections.flags(slot);
      if (!connections.isUsed(slot) || flags & ConnectionFlag.template) continue;
      if (((flags & ConnectionFlag.ipv6) !== 0) !== (family === 6)) continue;
      const at = slot * CONNECTION_BYTES + ConnectionField.virtual;
      this.#addresses.linger(connections.bytes.subarray(at, at + length));
    }
  }

  /** Gives up VIPs without a service once their connections are gone; a part of these is looked at in each call. */
  forgetLingering(): void {
    if (this.#lingering.step()) this.update();
  }
}

/** Bytes of a packet that fit into the tunnel with the longer header, GUE; 0 if the way carries no tunnel at all. */
function roomInTunnel(mtu: number, family: Family): number {
  const room = mtu - (family === 4 ? IPV4_HEADER : IPV6_HEADER) - UDP_HEADER - GUE_HEADER;
  return room < (family === 4 ? IPV4_MINIMUM_MTU : IPV6_MINIMUM_MTU) ? 0 : room;
}

function entryOf({ key, family, address, localAddresses }: Service): ServiceEntry {
  const local = localAddresses.map(({ bytes }) => bytes);
  if ('mark' in key || !address) {
    return { key, family, address: undefined, mapKey: undefined, isFtp: false, local };
  }
  const mapKey = serviceKey(PROTOCOL_NUMBERS[key.protocol], address, key.port);
  return { key, family, address, mapKey, isFtp: key.protocol === 'tcp' && key.port === FTP_PORT, local };
}

function familiesIn(counts: Readonly<Record<Family, number>>): ReadonlySet<Family> {
  return new Set(([4, 6] as const).filter(family => counts[family] > 0));
}

const NO_ADDRESSES = new AddressFilter();
