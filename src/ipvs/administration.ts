/**
 * What an administrator can do to a director and see of it: configuration, counters, rates and listings.
 */
import { formatAddress } from '../wire/address.ts';
import { Protocol } from '../wire/ipv4.ts';
import type { Packet } from '../wire/packet.ts';
import type { ConfigurationChange, ConfigurationListener } from './configuration-change.ts';
import { CONNECTION_BYTES, ConnectionField, ConnectionFlag } from './connections.ts';
import { DESTINATION_BYTES, DestinationField } from './destinations.ts';
import type { Lifecycle } from './lifecycle.ts';
import type { LocalAddresses } from './local-addresses.ts';
import type { PlanChange } from './plan.ts';
import { SCHEDULERS } from './schedulers/registry.ts';
import { SCTP_STATE_NAMES } from './sctp-states.ts';
import type { ServerPool } from './server-pool.ts';
import { ServiceControls } from './service-controls.ts';
import { PROTOCOL_NUMBERS, type ServiceIndex } from './service-index.ts';
import {
  type CounterSource,
  type Destination,
  type DestinationCounters,
  type DestinationReplacement,
  type HostAddresses,
  type Service,
  ServiceTable,
  type ServiceTableListener,
} from './service-table.ts';
import type { Settings } from './settings.ts';
import { SIP_ENGINE } from './sip.ts';
import {
  type ConnectionStatus,
  type DestinationSpecification,
  IpvsError,
  type ServiceKey,
  type ServiceSpecification,
  type ServiceStatus,
  type Statistics,
  type SyncDaemon,
  type SyncRole,
  type Timeouts,
  type VirtualServer,
} from './specification.ts';
import { COUNTER_STRIDE, ESTIMATION_PERIOD, Tally } from './statistics.ts';
import { TCP_STATE_NAMES } from './tcp-states.ts';

/** Milliseconds that the kernel's work queue takes about to end the connections of a deleted server. */
const EXPIRY_DELAY = 10;
const SCHEDULER_NAMES: ReadonlySet<string> = new Set(SCHEDULERS.keys());

export class Administration extends ServiceControls implements VirtualServer {
  readonly tableSize: number;
  /** Milliseconds: the time listings are made for; the director sets it. */
  now = 0;
  /** Destinations ever added whose replies pass the director: while 0, nothing is looked up by replies. */
  translated = 0;
  /** Services with a persistence engine. */
  engines = 0;
  /** Services with a SYN proxy. */
  proxied = 0;
  /** True while a backup's synchronisation daemon runs. */
  isBackup = false;
  /** What the persistence engine of a template keeps, undefined without one. */
  engineDataOf: (slot: number) => string | undefined = () => undefined;
  readonly #listeners = new Set<ConfigurationListener>();
  readonly #lifecycle: Lifecycle;
  /** Most services; the data path may have room for so many only. */
  serviceCapacity = Number.POSITIVE_INFINITY;
  /** What whoever needs room for more can do, to follow what is wrong; empty: the kernel's words are enough. */
  advice = '';
  readonly #pool: ServerPool;
  readonly #index: ServiceIndex;
  readonly #settings: Settings;
  readonly #locals: LocalAddresses;
  readonly #host: HostAddresses;
  /** When a server was last deleted whose connections are to end, milliseconds. */
  #serversWentAt: number | undefined;
  protected readonly table: ServiceTable;
  readonly #tallies = new Map<Service, Tally>();
  readonly #total = new Tally();
  readonly #sums = new Float64Array(COUNTER_STRIDE);
  /** A sample of rates that is not whole yet: of these services those from `next` on are missing. */
  #sample: { services: readonly Service[]; next: number } | undefined;

  /**
   * @param tableSize buckets that listings state (`size=`)
   */
  constructor(
    lifecycle: Lifecycle,
    index: ServiceIndex,
    host: HostAddresses,
    settings: Settings,
    tableSize: number,
    locals: LocalAddresses,
  ) {
    super();
    this.tableSize = tableSize;
    this.#settings = settings;
    this.#locals = locals;
    this.#host = host;
    this.#lifecycle = lifecycle;
    this.#pool = lifecycle.pool;
    this.#index = index;
    this.table = new ServiceTable({
      schedulers: SCHEDULER_NAMES,
      host,
      listener: this.#listener(),
    });
  }

  /** Ends the connections of servers deleted since the last call, where `expire_nodest_conn` asks for it. */
  expireConnections(tick: number): void {
    if (this.#serversWentAt === undefined || this.now < this.#serversWentAt + EXPIRY_DELAY) return;
    this.#serversWentAt = undefined;
    this.#lifecycle.expireWithoutServer(tick);
  }

  /**
   * Begins a sample of all rates, and ends the one before; to be called every `ESTIMATION_PERIOD`.
   * @param most servers that are looked at in this call, the rest being `estimateOn`'s
   */
  estimate(most = Number.POSITIVE_INFINITY): void {
    this.estimateOn(Number.POSITIVE_INFINITY);
    this.#sample = { services: this.table.services(), next: 0 };
    this.estimateOn(most);
  }

  /** Goes on with a sample that is not whole yet: a hundred thousand servers at once would keep everybody waiting. */
  estimateOn(most: number): void {
    const sample = this.#sample;
    if (!sample) return;
    const { services } = sample;
    for (let looked = 0; sample.next < services.length && looked < most; sample.next++) {
      const service = services[sample.next] as Service;
      if (this.table.find(service.key) !== service) continue;
      for (const { index } of service.destinations) this.#pool.estimate(index, ESTIMATION_PERIOD);
      this.#tallyOf(service).estimate(this.#countersOf(service), 0, ESTIMATION_PERIOD);
      looked += service.destinations.length + 1;
    }
    if (sample.next < services.length) return;
    this.#total.estimate(this.#totalCounters(), 0, ESTIMATION_PERIOD);
    this.#sample = undefined;
  }

  /** True if the sender of this packet is a real server behind NAT (ip_vs_has_real_service). */
  isTranslatedServer(packet: Packet): boolean {
    return this.translatedServer(packet) !== undefined;
  }

  /**
   * The destination behind NAT that a packet comes from.
   * @param engine only of services with this persistence engine
   */
  translatedServer(packet: Packet, engine?: string): Destination | undefined {
    const { family } = packet;
    if (family === 0 || !this.#pool.isTranslated(packet.bytes, packet.sourceAt, family)) return undefined;
    for (const service of this.table.services()) {
      if (engine !== undefined && service.specification.persistenceEngine !== engine) continue;
      for (const destination of service.destinations) {
        if (!isTranslated(destination) || destination.family !== packet.family) continue;
        const { address, specification } = destination;
        const byMark = 'mark' in service.key;
        if (!byMark && specification.port !== packet.sourcePort) continue;
        if (!byMark && PROTOCOL_NUMBERS[service.key.protocol] !== packet.protocol) continue;
        if (address.every((byte, index) => byte === packet.bytes[packet.sourceAt + index]))
          return destination;
      }
    }
    return undefined;
  }

  #tallyOf(service: Service): Tally {
    let tally = this.#tallies.get(service);
    if (!tally) {
      tally = new Tally();
      this.#tallies.set(service, tally);
    }
    return tally;
  }

  /** What a service has counted: its destinations, and what deleted ones left behind. Valid until the next call. */
  #countersOf(service: Service): Float64Array {
    const sums = this.#sums;
    sums.set(this.#tallyOf(service).totals);
    for (const { index } of service.destinations) {
      for (let counter = 0; counter < 5; counter++) {
        sums[counter] =
          (sums[counter] as number) + (this.#pool.counters[index * COUNTER_STRIDE + counter] as number);
      }
    }
    return sums;
  }

  #totalCounters(): Float64Array {
    const sums = new Float64Array(COUNTER_STRIDE);
    sums.set(this.#total.totals);
    for (const service of this.table.services()) {
      const counters = this.#countersOf(service);
      for (let counter = 0; counter < 5; counter++) {
        sums[counter] = (sums[counter] as number) + (counters[counter] as number);
      }
    }
    return sums;
  }

  /**
   * Has `listener` told of every change of the configuration, when it is in force.
   * @returns ends it
   */
  observe(listener: ConfigurationListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Tells those who observe the configuration; for the director, whose settings and marks belong to it. */
  changed(change: ConfigurationChange): void {
    for (const listener of this.#listeners) listener(change);
  }

  #listener(): ServiceTableListener {
    return {
      serviceAdded: service => {
        if (this.table.size > this.serviceCapacity) {
          throw new IpvsError(
            'ENOMEM',
            `no room for more than ${this.serviceCapacity} services${this.advice}`,
            {
              isOwn: this.advice !== '',
            },
          );
        }
        this.#index.add(service);
        this.engines += countEngines(service.specification);
        this.proxied += countProxies(service.specification);
        this.#compile(service, 'service');
        this.changed({ kind: 'service-added', service: service.specification });
      },
      serviceEdited: (service, before) => {
        this.engines += countEngines(service.specification) - countEngines(before);
        this.proxied += countProxies(service.specification) - countProxies(before);
        if (before.scheduler !== service.specification.scheduler) service.plan = undefined;
        this.#compile(service, 'service');
        this.changed({ kind: 'service-edited', service: service.specification });
      },
      serviceDeleted: service => {
        this.#index.remove(service);
        this.engines -= countEngines(service.specification);
        this.proxied -= countProxies(service.specification);
        this.#total.add(this.#countersOf(service));
        this.#tallies.delete(service);
        this.changed({ kind: 'service-deleted', service: service.key });
      },
      localAddressesChanged: ({ specification }) =>
        this.changed({ kind: 'service-edited', service: specification }),
      destinationAdded: destination => {
        this.#take(destination);
        this.#compile(destination.service, 'add');
        this.#tell('destination-added', destination);
      },
      destinationEdited: destination => {
        this.#update(destination);
        this.#compile(destination.service, 'edit');
        this.#tell('destination-edited', destination);
      },
      destinationDeleted: (destination, last) => {
        this.#release(destination);
        if (last) return;
        this.#compile(destination.service, 'delete');
        this.#tellDeleted(destination);
      },
      destinationsReplaced: (service, replacement) => this.#replace(service, replacement),
      servicesArranged: () => this.changed({ kind: 'services-arranged' }),
    };
  }

  /** Gives a new destination its record. */
  #take(destination: Destination): void {
    this.#pool.add(destination);
    // One that comes back brings its counters, which the service kept for it.
    this.#tallyOf(destination.service).subtract(this.#pool.counters, destination.index * COUNTER_STRIDE);
    if (isTranslated(destination)) this.translated++;
  }

  #update(destination: Destination): void {
    this.#pool.update(destination);
    if (isTranslated(destination)) this.translated++;
  }

  #release(destination: Destination): void {
    this.#tallyOf(destination.service).add(this.#pool.counters, destination.index * COUNTER_STRIDE);
    this.#pool.remove(destination, this.now);
    if (this.#settings.expire_nodest_conn) this.#serversWentAt = this.now;
  }

  #replace(service: Service, { added, edited, deleted, arranged }: DestinationReplacement): void {
    const taken: Destination[] = [];
    try {
      for (const destination of added) {
        this.#take(destination);
        taken.push(destination);
      }
    } catch (error) {
      for (const destination of taken) this.#release(destination);
      throw error;
    }
    for (const destination of edited) this.#update(destination);
    for (const destination of deleted) this.#release(destination);
    this.#compile(service, 'edit');
    for (const destination of deleted) this.#tellDeleted(destination);
    for (const destination of added) this.#tell('destination-added', destination);
    for (const destination of edited) this.#tell('destination-edited', destination);
    if (arranged) this.changed({ kind: 'destinations-arranged', service: service.key });
  }

  #tell(kind: 'destination-added' | 'destination-edited', { service, specification }: Destination): void {
    this.changed({ kind, service: service.key, destination: specification });
  }

  #tellDeleted({ service, specification: { address, port } }: Destination): void {
    this.changed({ kind: 'destination-deleted', service: service.key, address, port });
  }

  get serviceCount(): number {
    return this.table.size;
  }

  /** The services as they are, with their plans; not to be changed. */
  serviceObjects(): Iterable<Service> {
    return this.table.services();
  }

  /** One service as it is; undefined if there is none. Not to be changed. */
  serviceObject(key: ServiceKey): Service | undefined {
    return this.table.find(key);
  }

  /** A table with nothing in it, and the same checks: to try a configuration on. */
  draft(): ServiceTable {
    return new ServiceTable({ schedulers: SCHEDULER_NAMES, host: this.#host });
  }

  #compile(service: Service, change: PlanChange): void {
    const { scheduler, schedulerFlags } = service.specification;
    const servers = service.destinations.map(({ index, address, specification, lastWeight }) => ({
      index,
      address,
      port: specification.port,
      weight: specification.weight,
      lastWeight,
    }));
    service.hasFullnat = service.destinations.some(each => each.specification.method === 'fullnat');
    if (service.plan?.kind === 'sequence') service.plan.shared?.load();
    service.plan = SCHEDULERS.get(scheduler)?.compile(servers, schedulerFlags, change, service.plan);
  }

  /** Gives a service exactly these destinations, newest first, in one step; see `ServiceTable.replaceDestinations`. */
  replaceDestinations(service: ServiceKey, destinations: readonly DestinationSpecification[]): void {
    this.table.replaceDestinations(service, destinations);
  }

  /** Puts the services into an order: `serviceKeyText` of each, oldest first. */
  arrange(names: readonly string[]): void {
    this.table.arrange(names);
  }

  override startSyncDaemon(daemon: SyncDaemon): void {
    const started = this.table.startSyncDaemon(daemon);
    this.isBackup ||= daemon.role === 'backup';
    this.changed({ kind: 'daemon-started', daemon: started });
  }

  override stopSyncDaemon(role: SyncRole): void {
    this.table.stopSyncDaemon(role);
    if (role === 'backup') this.isBackup = false;
    this.changed({ kind: 'daemon-stopped', role });
  }

  override setTimeouts(timeouts: Timeouts): void {
    this.table.setTimeouts(timeouts);
    this.#lifecycle.timeouts.set(timeouts);
    this.changed({ kind: 'timeouts', timeouts: this.table.timeouts() });
  }

  zero(key?: ServiceKey): void {
    const services = key === undefined ? this.table.services() : [this.table.require(key)];
    const total = this.#totalCounters();
    for (const service of services) this.#zeroService(service);
    // What services forget, the whole director still counts.
    this.#total.adjust(this.#totalCounters(), total);
    if (key === undefined) this.#total.zero();
  }

  #zeroService(service: Service): void {
    const tally = this.#tallyOf(service);
    const counters = this.#countersOf(service).slice();
    for (const { index } of service.destinations) this.#pool.zero(index);
    tally.adjust(this.#countersOf(service), counters);
    tally.zero();
  }

  services(): ServiceStatus[] {
    return this.table.services().map(service => this.table.status(service, this.#counterSource));
  }

  /** What a `Counter` of a service gains a second, as `service` states it. */
  rateOf(service: Service, counter: number): number {
    return this.#tallyOf(service).rate(counter);
  }

  service(key: ServiceKey): ServiceStatus | undefined {
    const service = this.table.find(key);
    return service && this.table.status(service, this.#counterSource);
  }

  /** Counters of the whole director. */
  totals(): Statistics {
    return this.#total.statistics(this.#totalCounters());
  }

  readonly #counterSource: CounterSource = {
    ofService: service => this.#tallyOf(service).statistics(this.#countersOf(service)),
    ofLocalAddresses: service => this.#locals.status(service.localAddresses),
    ofDestination: ({ index }): DestinationCounters => ({
      activeConnections: this.#pool.table.active(index),
      inactiveConnections: this.#pool.table.inactive(index),
      persistentConnections: this.#pool.persistent[index] as number,
      statistics: this.#pool.statistics(index),
    }),
  };

  connections(): ConnectionStatus[] {
    const { connections } = this.#lifecycle;
    const tick = connections.tick(this.now);
    const listed: ConnectionStatus[] = [];
    for (let slot = 0; slot < connections.highWater; slot++) {
      if (!connections.isUsed(slot) || connections.hasExpired(slot, tick)) continue;
      listed.push(this.connectionStatus(slot, tick));
    }
    return listed;
  }

  /** One connection as listings show it. */
  connectionStatus(slot: number, tick: number): ConnectionStatus {
    const { connections } = this.#lifecycle;
    const servers = this.#pool.table.bytes;
    const flags = connections.flags(slot);
    const template = (flags & ConnectionFlag.template) !== 0;
    const protocol = connections.protocol(slot);
    const length = flags & ConnectionFlag.ipv6 ? 16 : 4;
    const at = slot * CONNECTION_BYTES;
    const ports = connections.ports(slot);
    const destination = connections.destination(slot);
    const server = destination * DESTINATION_BYTES;
    const engineData = this.engineDataOf(slot);
    return {
      protocol,
      state: connectionStateName(protocol, connections.state(slot), template),
      expiresIn: Math.floor(connections.remaining(slot, tick) / connections.hz),
      client: formatAddress(connections.bytes, at + ConnectionField.client, length),
      clientPort: template ? 0 : swap(ports & 0xffff),
      virtual: formatAddress(connections.bytes, at + ConnectionField.virtual, length),
      virtualPort: swap(ports >>> 16),
      destination:
        destination < 0
          ? formatAddress(new Uint8Array(length))
          : formatAddress(
              servers,
              server + DestinationField.address,
              servers[server + DestinationField.family] === 6 ? 16 : 4,
            ),
      destinationPort: swap(connections.destinationPortRaw(slot)),
      template,
      engine: engineData === undefined ? '' : SIP_ENGINE,
      engineData: engineData ?? '',
    };
  }
}

function countEngines(specification: ServiceSpecification): number {
  return specification.persistenceEngine === '' ? 0 : 1;
}

function countProxies(specification: ServiceSpecification): number {
  return specification.synProxy ? 1 : 0;
}

function isTranslated(destination: Destination): boolean {
  const { method } = destination.specification;
  return method === 'masq' || method === 'fullnat';
}

/** A state as `ipvsadm -Lnc` prints it. */
export function connectionStateName(protocol: number, state: number, template: boolean): string {
  if (template) return state ? 'ASSURED' : 'NONE';
  if (protocol === Protocol.tcp) return TCP_STATE_NAMES[state] ?? 'ERR!';
  if (protocol === Protocol.udp) return 'UDP';
  if (protocol === Protocol.sctp) return SCTP_STATE_NAMES[state] ?? 'ERR!';
  return 'NONE';
}

function swap(port: number): number {
  return ((port & 0xff) << 8) | (port >>> 8);
}
