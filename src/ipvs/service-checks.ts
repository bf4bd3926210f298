/**
 * The checks that the kernel makes on services and destinations, one by one and in its order (ip_vs_add_service,
 * ip_vs_add_dest and their netlink parsers in net/netfilter/ipvs/ip_vs_ctl.c), and Dirigo's own on what only it has.
 */
import { familyOf, formatAddress, parseAddress, parseIpv4Address } from '../wire/address.ts';
import type { HostAddresses, Service } from './service-table.ts';
import {
  type ClientAddress,
  type DestinationSpecification,
  IpvsError,
  type ServiceKey,
  type ServiceSpecification,
} from './specification.ts';

/** Largest timeout in seconds, of persistence and of `--set`: 31 days (ipvsadm.c). */
export const MAXIMUM_TIMEOUT = 2_678_400;

const GREATEST_INT = 0x7fff_ffff;

const CLIENT_ADDRESSES: ReadonlySet<ClientAddress> = new Set([
  'none',
  'toa',
  'proxy-v1',
  'proxy-v2',
] as const);

export class ServiceChecks {
  readonly #schedulers: ReadonlySet<string>;
  readonly #engines: ReadonlySet<string>;
  readonly #host: HostAddresses;

  constructor(schedulers: ReadonlySet<string>, engines: ReadonlySet<string>, host: HostAddresses) {
    this.#schedulers = schedulers;
    this.#engines = engines;
    this.#host = host;
  }

  /** ENOENT (scheduler or engine), EINVAL. */
  service(service: ServiceSpecification): void {
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
    const { clientAddress, synProxy } = service;
    if (synProxy && !('mark' in service.key) && service.key.protocol !== 'tcp') {
      throw new IpvsError(
        'EINVAL',
        `there are no SYNs in ${service.key.protocol}: the SYN proxy is for TCP`,
        OWN,
      );
    }
    if (clientAddress === undefined) return;
    if (!CLIENT_ADDRESSES.has(clientAddress)) {
      throw new IpvsError(
        'EINVAL',
        `"${clientAddress}" is not one of ${[...CLIENT_ADDRESSES].join(', ')}`,
        OWN,
      );
    }
    if (clientAddress !== 'none' && !('mark' in service.key) && service.key.protocol !== 'tcp') {
      throw new IpvsError('EINVAL', `${clientAddress} tells the client's address to TCP servers only`, OWN);
    }
  }

  /**
   * Everything but whether its address is unicast; returns the address. ERANGE, EINVAL.
   * @param synchronised a synchronisation daemon runs
   */
  destination(service: Service, destination: DestinationSpecification, synchronised: boolean): Uint8Array {
    const address = parseAddress(destination.address);
    if (!address) throw new IpvsError('EINVAL', `"${destination.address}" is not an IP address`);
    requireInteger('port', destination.port, 0, 65535, 'EINVAL');
    requireInteger('weight', destination.weight, 0, GREATEST_INT, 'ERANGE');
    requireInteger('upper threshold', destination.upperThreshold, 0, GREATEST_INT, 'ERANGE');
    requireInteger('lower threshold', destination.lowerThreshold, 0, GREATEST_INT, 'ERANGE');
    if ((address.length === 4 ? 4 : 6) !== service.family) {
      if (synchronised) {
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
      if (service.specification.onePacket) throw new IpvsError('EINVAL', ONE_PACKET_FULLNAT, OWN);
      if (this.#host.isLocal(address)) {
        throw new IpvsError(
          'EINVAL',
          `${formatAddress(address)} is the director's own: its answers to a local address would not pass the director`,
          OWN,
        );
      }
    }
    if (service.specification.synProxy) this.behindSynProxy(destination);
    requireInteger('tunnel port', destination.tunnelPort, 0, 65535, 'EINVAL');
    if (destination.tunnelType === 'gue' && destination.tunnelPort === 0) {
      throw new IpvsError('EINVAL', 'a GUE tunnel needs a port');
    }
    return address;
  }

  /** Only a server whose answers pass the director can stand behind a SYN proxy: EINVAL for others. */
  behindSynProxy({ address, port, method }: DestinationSpecification): void {
    const server = `${address.includes(':') ? `[${address}]` : address}:${port}`;
    if (method === 'gate' || method === 'tunnel') {
      throw new IpvsError(
        'EINVAL',
        `${server} cannot stand behind a SYN proxy: with ${method === 'gate' ? 'direct routing' : 'a tunnel'} its answers do not pass the director. Use NAT (-m) or FULLNAT (-b), or switch the SYN proxy off (-j disable)`,
        OWN,
      );
    }
    const bytes = parseAddress(address);
    if (bytes && this.#host.isLocal(bytes)) {
      throw new IpvsError(
        'EINVAL',
        `${server} cannot stand behind a SYN proxy: it is the director's own address, whose answers do not pass the director`,
        OWN,
      );
    }
  }

  /** Addresses a server may have (inet_addr_type, ipv6_addr_type): one's own or unicast, not link-local. */
  isUnicast(address: Uint8Array): boolean {
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

/** Only Dirigo refuses it. */
const OWN = { isOwn: true };

export const ONE_PACKET_FULLNAT =
  'one-packet scheduling forgets a connection before its answer, which FULLNAT has to translate';

/** The key with its address in canonical text; EINVAL if it names no service that can be. */
export function canonicalKey(key: ServiceKey): ServiceKey {
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

export function isMulticast(address: Uint8Array): boolean {
  const first = address[0] as number;
  return address.length === 4 ? first >> 4 === 14 : first === 0xff;
}

export function requireInteger(
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
