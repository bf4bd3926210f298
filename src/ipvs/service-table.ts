/**
 * The configuration of a virtual server: services and their destinations, timeouts and synchronisation daemons, with
 * every check that the kernel makes on them (net/netfilter/ipvs/ip_vs_ctl.c of Linux 6.1) and in its order.
 *
 * The table knows nothing of packets. Its owner, the director, is told of each change while it happens and may refuse
 * it (by throwing), in which case nothing has changed. Counters come from the owner too.
 */
import { type Family, familyOf, formatAddress, parseAddress, parseIpv4Address } from '../wire/address.ts';
import { type LocalAddress, parseLocalAddress } from './local-addresses.ts';
import type { Plan } from './plan.ts';
import {
  type ClientAddress,
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

/** Largest timeout in seconds, of persistence and of `--set`: 31 days (ipvsadm.c). */
export const MAXIMUM_TIMEOUT = 2_678_400;

const GREATEST_INT = 0x7fff_ffff;

const CLIENT_ADDRESSES: ReadonlySet<ClientAddress> = new Set([
  'none',
  'toa',
  'proxy-v1',
  'proxy-v2',
] as const);

export class ServiceTable {
  readonly #schedulers: ReadonlySet<string>;
  readonly #engines: ReadonlySet<string>;
  readonly #host: HostAddresses;
  readonly #listener: ServiceTableListener | undefined;
  /** By name, oldest first. */
  readonly #services = new Map<string, Service>();
  readonly #syncDaemons = new Map<SyncRole, SyncDaemon>();
  #timeouts: Timeouts = DEFAULT_TIMEOUTS;
  /** Destinations of another family than their service: the synchronisation protocol cannot express them. */
  #mixedDestinations = 0;

  constructor(options: ServiceTableOptions) {
    this.#schedulers = options.schedulers;
    this.#engines = options.engines ?? new Set(['sip']);
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
    this.#checkService(canonical);
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
    this.#checkService(after);
    if (after.onePacket && service.destinations.some(each => each.specification.method === 'fullnat')) {
      throw new IpvsError('EINVAL', ONE_PACKET_FULLNAT);
    }
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
    const address = this.#checkDestination(service, specification);
    const text = formatAddress(address);
    if (this.findDestination(service, text, specification.port)) {
      throw new IpvsError('EEXIST', `destination ${text} port ${specification.port} already exists`);
    }
    if (!this.#isUnicast(address)) throw new IpvsError('EINVAL', `${text} is not a unicast address`);
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
    const address = formatAddress(this.#checkDestination(service, specification));
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
    const { localAddresses: texts = [], ...others } = specification;
    const family = service.family;
    const locals = texts.map(text => {
      const local = parseLocalAddress(text);
      if (!local)
        throw new IpvsError('EINVAL', `"${text}" is not a local address: ADDRESS or ADDRESS%INTERFACE`);
      if (local.family !== family) {
        throw new IpvsError(
          'EINVAL',
          `local address ${local.address} is not of IPv${family}, as its service is`,
        );
      }
      if (!this.#isUnicast(local.bytes)) {
        throw new IpvsError('EINVAL', `local address ${local.address} is not a unicast address`);
      }
      if (local.interfaceName !== '' && this.#host.interfaceMtu(local.interfaceName) === undefined) {
        throw new IpvsError(
          'ENODEV',
          `no interface ${local.interfaceName} for local address ${local.address}`,
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

  #checkService(service: ServiceSpecification): void {
    // "none" is the kernel's word for a service without a scheduler: nothing new is scheduled.
    if (service.scheduler !== 'none' && !this.#schedulers.has(service.scheduler)) {
      throw new IpvsError('ENOENT', `no scheduler ${service.scheduler}`);
    }
    if (service.persistenceEngine !== '' && !this.#engines.has(service.persistenceEngine)) {
      throw new IpvsError('ENOENT', `no persistence engine ${service.persistenceEngine}`);
    }
    requireInteger('persistence timeout', service.persistenceTimeout, 0, MAXIMUM_TIMEOUT, 'EINVAL');
    requireInteger('scheduler flags', service.schedulerFlags, 0, 0x38, 'EINVAL');
    const mask = service.persistenceNetmask;
    const family = 'mark' in service.key ? service.key.family : familyOf(service.key.address);
    const isMask =
      family === 4
        ? parseIpv4Address(mask) !== undefined
        : /^[1-9][0-9]{0,2}$/.test(mask) && Number(mask) <= 128;
    if (!isMask) throw new IpvsError('EINVAL', `"${mask}" is not a netmask of IPv${family}`);
    const { clientAddress } = service;
    if (clientAddress === undefined) return;
    if (!CLIENT_ADDRESSES.has(clientAddress)) {
      throw new IpvsError('EINVAL', `"${clientAddress}" is not one of ${[...CLIENT_ADDRESSES].join(', ')}`);
    }
    if (clientAddress !== 'none' && !('mark' in service.key) && service.key.protocol !== 'tcp') {
      throw new IpvsError('EINVAL', `${clientAddress} tells the client's address to TCP servers only`);
    }
  }

  /** Everything but whether its address is unicast; returns the address. */
  #checkDestination(service: Service, destination: DestinationSpecification): Uint8Array {
    const address = parseAddress(destination.address);
    if (!address) throw new IpvsError('EINVAL', `"${destination.address}" is not an IP address`);
    requireInteger('port', destination.port, 0, 65535, 'EINVAL');
    requireInteger('weight', destination.weight, 0, GREATEST_INT, 'ERANGE');
    requireInteger('upper threshold', destination.upperThreshold, 0, GREATEST_INT, 'ERANGE');
    requireInteger('lower threshold', destination.lowerThreshold, 0, GREATEST_INT, 'ERANGE');
    if ((address.length === 4 ? 4 : 6) !== service.family) {
      if (this.#syncDaemons.size > 0) {
        throw new IpvsError(
          'EINVAL',
          'a server of another family cannot be synchronised: stop the daemon first',
        );
      }
      if (destination.method !== 'tunnel') {
        throw new IpvsError('EINVAL', 'a server of another family than its service needs a tunnel');
      }
    }
    if (destination.lowerThreshold > destination.upperThreshold) {
      throw new IpvsError('ERANGE', 'the lower threshold is above the upper one');
    }
    if (destination.method === 'fullnat') {
      if (service.specification.onePacket) throw new IpvsError('EINVAL', ONE_PACKET_FULLNAT);
      if (this.#host.isLocal(address)) {
        throw new IpvsError(
          'EINVAL',
          `${formatAddress(address)} is the director's own: its answers to a local address would not pass the director`,
        );
      }
    }
    requireInteger('tunnel port', destination.tunnelPort, 0, 65535, 'EINVAL');
    if (destination.tunnelType === 'gue' && destination.tunnelPort === 0) {
      throw new IpvsError('EINVAL', 'a GUE tunnel needs a port');
    }
    return address;
  }

  /** Addresses a server may have (inet_addr_type, ipv6_addr_type): one's own or unicast, not link-local. */
  #isUnicast(address: Uint8Array): boolean {
    if (this.#host.isLocal(address)) return true;
    if (isMulticast(address)) return false;
    if (address.length === 4) {
      return (
        address.some(byte => byte !== 0) &&
        address.some(byte => byte !== 0xff) &&
        !this.#host.isBroadcast(address)
      );
    }
    const isUnspecified = address.every(byte => byte === 0);
    const isLinkLocal = address[0] === 0xfe && ((address[1] as number) & 0xc0) === 0x80;
    return !isUnspecified && !isLinkLocal && !formatAddress(address).startsWith('::ffff:');
  }
}

const ONE_PACKET_FULLNAT =
  'one-packet scheduling forgets a connection before its answer, which FULLNAT has to translate';

/** The key with its address in canonical text; EINVAL if it names no service that can be. */
function canonicalKey(key: ServiceKey): ServiceKey {
  if ('mark' in key) {
    requireInteger('firewall mark', key.mark, 1, 0xffff_ffff, 'EINVAL');
    return key;
  }
  const address = parseAddress(key.address);
  if (!address) throw new IpvsError('EINVAL', `"${key.address}" is not an IP address`);
  requireInteger('port', key.port, 0, 65535, 'EINVAL');
  const text = formatAddress(address);
  return text === key.address ? key : { ...key, address: text };
}

function isMulticast(address: Uint8Array): boolean {
  const first = address[0] as number;
  return address.length === 4 ? first >> 4 === 14 : first === 0xff;
}

function requireInteger(
  name: string,
  value: number,
  least: number,
  greatest: number,
  code: 'EINVAL' | 'ERANGE',
): void {
  if (!Number.isInteger(value) || value < least || value > greatest) {
    throw new IpvsError(code, `${name} ${value} is not a whole number from ${least} to ${greatest}`);
  }
}
