/**
 * The configuration of a virtual server: services and their destinations, timeouts and synchronisation daemons, with
 * every check that the kernel makes on them (net/netfilter/ipvs/ip_vs_ctl.c of Linux 6.1) and in its order.
 *
 * The table knows nothing of packets. Its owner, the director, is told of each change while it happens and may refuse
 * it (by throwing), in which case nothing has changed. Counters come from the owner too.
 */
import { type Family, familyOf, formatAddress, parseAddress } from '../wire/address.ts';
import { type LocalAddress, parseLocalAddress } from './local-addresses.ts';
import type { Plan } from './plan.ts';
import {
  canonicalKey,
  isMulticast,
  MAXIMUM_TIMEOUT,
  ONE_PACKET_FULLNAT,
  requireInteger,
  ServiceChecks,
} from './service-checks.ts';
import {
  type DestinationSpecification,
  type DestinationStatus,
  IpvsError,
  type LocalAddressStatus,
  type ServiceKey,
  type ServiceSpecification,
  type ServiceStatus,
  type Statistics,
  type SyncDaemon,
  type SyncRole,
  serviceKeyText,
  type Timeouts,
} from './specification.ts';

/** A real server in a service. */
export class Destination {
  readonly service: Service;
  /** 4 or 16 bytes. */
  readonly address: Uint8Array;
  readonly family: Family;
  /** Replaced as a whole when the destination is edited. */
  specification: DestinationSpecification;
  /** The last weight above 0 it had, 0 if it never had one (Maglev keeps the places of a quiesced server). */
  lastWeight: number;
  /** The director's: record in the `DestinationTable`, -1 while it has none. */
  index = -1;

  constructor(service: Service, specification: DestinationSpecification, address: Uint8Array) {
    this.service = service;
    this.specification = specification;
    this.address = address;
    this.family = address.length === 4 ? 4 : 6;
    this.lastWeight = specification.weight;
  }
}

/** A virtual service. */
export class Service {
  readonly key: ServiceKey;
  /** `serviceKeyText(key)`. */
  readonly name: string;
  readonly family: Family;
  /** The VIP, 4 or 16 bytes; undefined for a firewall mark. */
  readonly address: Uint8Array | undefined;
  /** Replaced as a whole when the service is edited. */
  specification: ServiceSpecification;
  /** As the specification names them. */
  localAddresses: readonly LocalAddress[] = [];
  /** The director's: which of them was given last. */
  localTurn = 0;
  /** Newest first, the order in which the kernel keeps them. */
  readonly destinations: Destination[] = [];
  /** The director's: one of its destinations is reached by FULLNAT. */
  hasFullnat = false;
  /** The director's: what the scheduler compiled the destinations to. */
  plan: Plan | undefined = undefined;

  constructor(specification: ServiceSpecification, address: Uint8Array | undefined) {
    this.key = specification.key;
    this.name = serviceKeyText(specification.key);
    this.family =
      'mark' in specification.key ? specification.key.family : familyOf(specification.key.address);
    this.address = address;
    this.specification = specification;
  }
}

/**
 * Told of a change once the table holds it. If a method throws, the table takes the change back (deletions excepted:
 * they must not throw) and passes the error on.
 */
export interface ServiceTableListener {
  serviceAdded(service: Service): void;
  /** @param before the specification it had */
  serviceEdited(service: Service, before: ServiceSpecification): void;
  localAddressesChanged(service: Service): void;
  /** Its destinations have been deleted one by one before, each with `destinationDeleted`. */
  serviceDeleted(service: Service): void;
  destinationAdded(destination: Destination): void;
  /** @param before the specification it had */
  destinationEdited(destination: Destination, before: DestinationSpecification): void;
  /** @param last true while its whole service is being deleted: no plan needs to be compiled any more */
  destinationDeleted(destination: Destination, last: boolean): void;
  /** Several at once; it has thrown before it changed anything, or not at all. */
  destinationsReplaced(service: Service, replacement: DestinationReplacement): void;
  servicesArranged(): void;
}

/** How the destinations of a service came to be what they are now. */
export interface DestinationReplacement {
  added: readonly Destination[];
  edited: readonly Destination[];
  deleted: readonly Destination[];
  /** Those that stayed stand in another order. */
  arranged: boolean;
}

/** Connections of a destination and its statistics. */
export interface DestinationCounters {
  activeConnections: number;
  inactiveConnections: number;
  persistentConnections: number;
  statistics: Statistics;
}

/** Where the numbers in a `ServiceStatus` come from. */
export interface CounterSource {
  ofService(service: Service): Statistics;
  ofDestination(destination: Destination): DestinationCounters;
  /** Left out by those who know nothing of them. */
  ofLocalAddresses?(service: Service): LocalAddressStatus[];
}

/** What the checks need to know of the host. */
export interface HostAddresses {
  /** True if it is an address of this host. */
  isLocal(address: Uint8Array): boolean;
  /** True for the broadcast address of a network that an interface is in (255.255.255.255 need not be known). */
  isBroadcast(address: Uint8Array): boolean;
  /** MTU of the interface in bytes, undefined if there is none of this name. */
  interfaceMtu(name: string): number | undefined;
}

/** Schedulers and persistence engines by name, as the director has them. */
export interface ServiceTableOptions {
  schedulers: ReadonlySet<string>;
  /** Default: `sip`. */
  engines?: ReadonlySet<string>;
  host: HostAddresses;
  listener?: ServiceTableListener;
}

/** Default timeouts of the kernel in seconds. */
export const DEFAULT_TIMEOUTS: Timeouts = { tcp: 900, tcpFin: 120, udp: 300 };

export class ServiceTable {
  readonly #checks: ServiceChecks;
  readonly #host: HostAddresses;
  readonly #listener: ServiceTableListener | undefined;
  /** By name, oldest first. */
  readonly #services = new Map<string, Service>();
  readonly #syncDaemons = new Map<SyncRole, SyncDaemon>();
  #timeouts: Timeouts = DEFAULT_TIMEOUTS;
  /** Destinations of another family than their service: the synchronisation protocol cannot express them. */
  #mixedDestinations = 0;

  constructor(options: ServiceTableOptions) {
    this.#checks = new ServiceChecks(options.schedulers, options.engines ?? new Set(['sip']), options.host);
    this.#host = options.host;
    this.#listener = options.listener;
  }

  get size(): number {
    return this.#services.size;
  }

  /** All services, newest first. */
  services(): Service[] {
    return [...this.#services.values()].reverse();
  }

  /** The service, undefined if there is none; EINVAL if the key cannot be one. */
  find(key: ServiceKey): Service | undefined {
    return this.#services.get(serviceKeyText(canonicalKey(key)));
  }

  /** The service; ESRCH if there is none. */
  require(key: ServiceKey): Service {
    const service = this.find(key);
    if (!service) throw new IpvsError('ESRCH', `no service ${serviceKeyText(key)}`);
    return service;
  }

  /** The destination of a service, undefined if there is none. */
  findDestination(service: Service, address: string, port: number): Destination | undefined {
    return service.destinations.find(
      destination => destination.specification.port === port && destination.specification.address === address,
    );
  }

  /** EEXIST, ENOENT (scheduler or engine), EINVAL. */
  add(specification: ServiceSpecification): Service {
    const canonical = { ...specification, key: canonicalKey(specification.key) };
    const name = serviceKeyText(canonical.key);
    if (this.#services.has(name)) throw new IpvsError('EEXIST', `service ${name} already exists`);
    this.#checks.service(canonical);
    const service = new Service(
      canonical,
      'mark' in canonical.key ? undefined : parseAddress(canonical.key.address),
    );
    this.#setLocalAddresses(service, canonical);
    this.#services.set(name, service);
    try {
      this.#listener?.serviceAdded(service);
    } catch (error) {
      this.#services.delete(name);
      throw error;
    }
    return service;
  }

  /** Replaces all properties of a service. ESRCH, ENOENT, EINVAL. */
  edit(specification: ServiceSpecification): Service {
    const service = this.require(specification.key);
    const after = { ...specification, key: service.key };
    this.#checks.service(after);
    if (after.onePacket && service.destinations.some(each => each.specification.method === 'fullnat')) {
      throw new IpvsError('EINVAL', ONE_PACKET_FULLNAT, { isOwn: true });
    }
    if (after.synProxy)
      for (const each of service.destinations) this.#checks.behindSynProxy(each.specification);
    const before = service.specification;
    const localsBefore = service.localAddresses;
    this.#setLocalAddresses(service, {
      ...after,
      localAddresses: specification.localAddresses ?? before.localAddresses ?? [],
    });
    try {
      this.#listener?.serviceEdited(service, before);
    } catch (error) {
      service.specification = before;
      service.localAddresses = localsBefore;
      throw error;
    }
    return service;
  }

  /** ESRCH. */
  delete(key: ServiceKey): void {
    this.#remove(this.require(key));
  }

  /** Deletes all services. Timeouts and synchronisation daemons stay. */
  flush(): void {
    for (const service of this.services()) this.#remove(service);
  }

  /** ESRCH (service), ERANGE, EEXIST, EINVAL (address not unicast, other family without a tunnel …). */
  addDestination(key: ServiceKey, specification: DestinationSpecification): Destination {
    const service = this.require(key);
    const address = this.#checks.destination(service, specification, this.#syncDaemons.size > 0);
    const text = formatAddress(address);
    if (this.findDestination(service, text, specification.port)) {
      throw new IpvsError('EEXIST', `destination ${text} port ${specification.port} already exists`);
    }
    if (!this.#checks.isUnicast(address)) throw new IpvsError('EINVAL', `${text} is not a unicast address`);
    const destination = new Destination(service, { ...specification, address: text }, address);
    service.destinations.unshift(destination);
    this.#countMixed(destination, 1);
    try {
      this.#listener?.destinationAdded(destination);
    } catch (error) {
      service.destinations.splice(service.destinations.indexOf(destination), 1);
      this.#countMixed(destination, -1);
      throw error;
    }
    return destination;
  }

  /** Replaces all properties of a destination. ESRCH (service), ERANGE, ENOENT, EINVAL. */
  editDestination(key: ServiceKey, specification: DestinationSpecification): Destination {
    const service = this.require(key);
    const address = formatAddress(
      this.#checks.destination(service, specification, this.#syncDaemons.size > 0),
    );
    const destination = this.#requireDestination(service, address, specification.port);
    const before = destination.specification;
    const weightBefore = destination.lastWeight;
    destination.specification = { ...specification, address };
    if (specification.weight > 0) destination.lastWeight = specification.weight;
    try {
      this.#listener?.destinationEdited(destination, before);
    } catch (error) {
      destination.specification = before;
      destination.lastWeight = weightBefore;
      throw error;
    }
    return destination;
  }

  /** ESRCH (service), ENOENT. */
  deleteDestination(key: ServiceKey, address: string, port: number): void {
    const service = this.require(key);
    const bytes = parseAddress(address);
    const destination = this.#requireDestination(service, bytes ? formatAddress(bytes) : address, port);
    service.destinations.splice(service.destinations.indexOf(destination), 1);
    this.#countMixed(destination, -1);
    this.#listener?.destinationDeleted(destination, false);
  }

  /**
   * Gives a service exactly these destinations, in this order, newest first, in one step. Those it has already keep their
   * objects, and with them connections and counters. ESRCH (service), ERANGE, EEXIST (one stands there twice), EINVAL.
   */
  replaceDestinations(key: ServiceKey, specifications: readonly DestinationSpecification[]): void {
    const service = this.require(key);
    const before = [...service.destinations];
    const known = new Map(before.map(each => [destinationName(each.specification), each]));
    const added: Destination[] = [];
    const edited: { destination: Destination; specification: DestinationSpecification }[] = [];
    const after = specifications.map(given => {
      const address = this.#checks.destination(service, given, this.#syncDaemons.size > 0);
      const specification = { ...given, address: formatAddress(address) };
      const name = destinationName(specification);
      const destination = known.get(name);
      if (!destination) {
        if (!this.#checks.isUnicast(address)) {
          throw new IpvsError('EINVAL', `${specification.address} is not a unicast address`);
        }
        added.push(new Destination(service, specification, address));
        return added.at(-1) as Destination;
      }
      if (!isSame(destination.specification, specification)) edited.push({ destination, specification });
      return destination;
    });
    const staying = new Set(after);
    if (new Set(after.map(each => destinationName(each.specification))).size < after.length) {
      throw new IpvsError('EEXIST', `service ${service.name} has a destination twice`);
    }
    const deleted = before.filter(each => !staying.has(each));
    const stayed = before.filter(each => staying.has(each));
    const arranged = after.filter(each => !added.includes(each)).some((each, at) => each !== stayed[at]);
    if (added.length + edited.length + deleted.length === 0 && !arranged) return;
    const beforeEdit = edited.map(({ destination }) => [destination, destination.specification] as const);
    const weights = edited.map(({ destination }) => destination.lastWeight);
    for (const { destination, specification } of edited) {
      destination.specification = specification;
      if (specification.weight > 0) destination.lastWeight = specification.weight;
    }
    this.#setDestinations(service, after);
    try {
      const replacement = { added, edited: edited.map(each => each.destination), deleted, arranged };
      this.#listener?.destinationsReplaced(service, replacement);
    } catch (error) {
      beforeEdit.forEach(([destination, specification], at) => {
        destination.specification = specification;
        destination.lastWeight = weights[at] as number;
      });
      this.#setDestinations(service, before);
      throw error;
    }
  }

  #setDestinations(service: Service, destinations: readonly Destination[]): void {
    for (const each of service.destinations) this.#countMixed(each, -1);
    service.destinations.splice(0, Number.POSITIVE_INFINITY, ...destinations);
    for (const each of destinations) this.#countMixed(each, 1);
  }

  /**
   * Puts the services into an order.
   * @param names all of them, `serviceKeyText` of their keys, oldest first
   */
  arrange(names: readonly string[]): void {
    let index = 0;
    let isSameOrder = names.length === this.#services.size;
    for (const name of this.#services.keys()) isSameOrder &&= name === names[index++];
    if (isSameOrder) return;
    const services = names.map(name => this.#services.get(name));
    if (new Set(names).size !== this.#services.size || services.includes(undefined)) {
      throw new IpvsError('EINVAL', 'an order of the services names each of them once');
    }
    this.#services.clear();
    for (const service of services) if (service) this.#services.set(service.name, service);
    this.#listener?.servicesArranged();
  }

  /** ESRCH, EEXIST, EINVAL (no address, not unicast, other family), ENODEV (no such interface). */
  addLocalAddress(key: ServiceKey, address: string, interfaceName?: string): void {
    const service = this.require(key);
    const text = interfaceName ? `${address}%${interfaceName}` : address;
    const localAddresses = [...service.localAddresses.map(local => local.text), text];
    const before = service.specification;
    const localsBefore = service.localAddresses;
    this.#setLocalAddresses(service, { ...service.specification, localAddresses });
    try {
      this.#listener?.localAddressesChanged(service);
    } catch (error) {
      service.specification = before;
      service.localAddresses = localsBefore;
      throw error;
    }
  }

  /** ESRCH (service), ENOENT. */
  deleteLocalAddress(key: ServiceKey, address: string): void {
    const service = this.require(key);
    const bytes = parseAddress(address);
    const text = bytes ? formatAddress(bytes) : address;
    const rest = service.localAddresses.filter(local => local.address !== text);
    if (rest.length === service.localAddresses.length) {
      throw new IpvsError('ENOENT', `service ${service.name} has no local address ${text}`);
    }
    const localAddresses = rest.map(local => local.text);
    this.#setLocalAddresses(service, { ...service.specification, localAddresses });
    this.#listener?.localAddressesChanged(service);
  }

  /** Gives a service a specification and the local addresses in it; those it had keep their objects. */
  #setLocalAddresses(service: Service, specification: ServiceSpecification): void {
    const { localAddresses: texts = [], synProxy = false, ...rest } = specification;
    const others = synProxy ? { ...rest, synProxy } : rest;
    const family = service.family;
    const locals = texts.map(text => {
      const local = parseLocalAddress(text);
      if (!local)
        throw new IpvsError('EINVAL', `"${text}" is not a local address: ADDRESS or ADDRESS%INTERFACE`, {
          isOwn: true,
        });
      if (local.family !== family) {
        throw new IpvsError(
          'EINVAL',
          `local address ${local.address} is not of IPv${family}, as its service is`,
          { isOwn: true },
        );
      }
      if (!this.#checks.isUnicast(local.bytes)) {
        throw new IpvsError('EINVAL', `local address ${local.address} is not a unicast address`, {
          isOwn: true,
        });
      }
      if (local.interfaceName !== '' && this.#host.interfaceMtu(local.interfaceName) === undefined) {
        throw new IpvsError(
          'ENODEV',
          `no interface ${local.interfaceName} for local address ${local.address}`,
          { isOwn: true },
        );
      }
      return service.localAddresses.find(known => known.text === local.text) ?? local;
    });
    const addresses = new Set<string>();
    for (const { address } of locals) {
      if (addresses.has(address)) throw new IpvsError('EEXIST', `local address ${address} is there already`);
      addresses.add(address);
    }
    service.localAddresses = locals;
    service.specification =
      locals.length === 0 ? others : { ...others, localAddresses: locals.map(local => local.text) };
  }

  timeouts(): Timeouts {
    return { ...this.#timeouts };
  }

  /** Seconds; a value of 0 keeps the old one. EINVAL if one is out of range. */
  setTimeouts(timeouts: Timeouts): void {
    for (const [name, value] of Object.entries(timeouts)) {
      requireInteger(`timeout ${name}`, value, 0, MAXIMUM_TIMEOUT, 'EINVAL');
    }
    this.#timeouts = {
      tcp: timeouts.tcp || this.#timeouts.tcp,
      tcpFin: timeouts.tcpFin || this.#timeouts.tcpFin,
      udp: timeouts.udp || this.#timeouts.udp,
    };
  }

  /**
   * Starts a synchronisation daemon; its length is cut to what the interface takes (start_sync_thread). EINVAL if the
   * group is not multicast or a destination has another family than its service, ENODEV, EEXIST, ENETUNREACH.
   */
  startSyncDaemon(daemon: SyncDaemon): SyncDaemon {
    const group = parseAddress(daemon.group);
    if (!group || !isMulticast(group))
      throw new IpvsError('EINVAL', `${daemon.group} is not a multicast address`);
    requireInteger('sync id', daemon.syncId, 0, 255, 'EINVAL');
    requireInteger('sync message length', daemon.maximumLength, 0, 65535, 'EINVAL');
    requireInteger('port', daemon.port, 1, 65535, 'EINVAL');
    requireInteger('TTL', daemon.ttl, 1, 255, 'EINVAL');
    if (this.#mixedDestinations > 0) {
      throw new IpvsError('EINVAL', 'servers of another family than their service cannot be synchronised');
    }
    const interfaceMtu = this.#host.interfaceMtu(daemon.interfaceName);
    if (interfaceMtu === undefined) throw new IpvsError('ENODEV', `no interface ${daemon.interfaceName}`);
    if (this.#syncDaemons.has(daemon.role)) {
      throw new IpvsError('EEXIST', `a ${daemon.role} daemon runs already`);
    }
    // A master connects its socket, and the loopback interface has no route to IPv6 groups.
    if (daemon.role === 'master' && group.length === 16 && daemon.interfaceName === 'lo') {
      throw new IpvsError('ENETUNREACH', `lo has no way to ${daemon.group}`);
    }
    const headers = group.length === 4 ? 28 : 48;
    // A backup has to take what any master sends, whatever its own interface's MTU.
    const isBackup = daemon.role === 'backup';
    const mtu = isBackup ? Math.min(Math.max(interfaceMtu, 1500), 65535) : 1500;
    const maximumLength =
      daemon.maximumLength === 0
        ? mtu - headers
        : Math.min(Math.max(daemon.maximumLength, isBackup ? 1024 : 1), 65535 - headers);
    const started = { ...daemon, group: formatAddress(group), maximumLength };
    this.#syncDaemons.set(daemon.role, started);
    return started;
  }

  /** ESRCH if none of this role runs. */
  stopSyncDaemon(role: SyncRole): void {
    if (!this.#syncDaemons.delete(role)) throw new IpvsError('ESRCH', `no ${role} daemon is running`);
  }

  /** The running ones, the master first. */
  syncDaemons(): SyncDaemon[] {
    const roles: SyncRole[] = ['master', 'backup'];
    return roles.flatMap(role => {
      const daemon = this.#syncDaemons.get(role);
      return daemon ? [{ ...daemon }] : [];
    });
  }

  /** Plain data of a service and its destinations, with the owner's counters. */
  status(service: Service, counters: CounterSource): ServiceStatus {
    const localAddressUse =
      service.localAddresses.length === 0 ? undefined : counters.ofLocalAddresses?.(service);
    return {
      ...service.specification,
      ...(localAddressUse && { localAddressUse }),
      statistics: counters.ofService(service),
      destinations: service.destinations.map(
        (destination): DestinationStatus => ({
          ...destination.specification,
          ...counters.ofDestination(destination),
        }),
      ),
    };
  }

  #requireDestination(service: Service, address: string, port: number): Destination {
    const destination = this.findDestination(service, address, port);
    if (!destination) {
      throw new IpvsError('ENOENT', `no destination ${address} port ${port} in service ${service.name}`);
    }
    return destination;
  }

  #remove(service: Service): void {
    this.#services.delete(service.name);
    for (const destination of service.destinations.splice(0)) {
      this.#countMixed(destination, -1);
      this.#listener?.destinationDeleted(destination, true);
    }
    this.#listener?.serviceDeleted(service);
  }

  #countMixed(destination: Destination, change: number): void {
    if (destination.family !== destination.service.family) this.#mixedDestinations += change;
  }
}

/** Unique among the destinations of a service. */
function destinationName({ address, port }: DestinationSpecification): string {
  return `${address} ${port}`;
}

function isSame(one: DestinationSpecification, other: DestinationSpecification): boolean {
  const names = Object.keys(one) as (keyof DestinationSpecification)[];
  return names.every(name => one[name] === other[name]);
}
