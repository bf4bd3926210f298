/**
 * What an administrator says and sees: services, real servers and their state, in plain data. Everything above the
 * director (the `ipvsadm` command, the daemon's API, configuration files) speaks in these types.
 *
 * Addresses are canonical text (`formatAddress`), ports and marks host numbers.
 */
import { type Family, formatAddress, parseAddress } from '../wire/address.ts';

export type ProtocolName = 'tcp' | 'udp' | 'sctp';

/** A service is a protocol, VIP and port (0: any port), or a firewall mark (1..2^32-1) of one family. */
export type ServiceKey =
  | { protocol: ProtocolName; address: string; port: number }
  | { mark: number; family: Family };

/** Scheduler flags, the bits of the kernel's IP_VS_SVC_F_SCHED1..3 (sh and mh: fallback and port). */
export const SchedulerFlag = { flag1: 0x08, flag2: 0x10, flag3: 0x20 } as const;

export interface ServiceSpecification {
  key: ServiceKey;
  /** A scheduler's name: rr wrr lc wlc lblc lblcr dh sh mh sed nq fo ovf twos. */
  scheduler: string;
  /** A sum of `SchedulerFlag`. */
  schedulerFlags: number;
  /** Persistence timeout in seconds, 1..2678400; 0 when the service is not persistent. */
  persistenceTimeout: number;
  /** Which clients count as one: dotted mask for IPv4 ("255.255.255.255"), prefix length 1..128 as text for IPv6. */
  persistenceNetmask: string;
  /** Persistence engine, `sip`, or the empty string. */
  persistenceEngine: string;
  /** One-packet scheduling: every datagram is scheduled anew (UDP). */
  onePacket: boolean;
  /**
   * Local addresses for FULLNAT, `10.0.0.50` or, with the interface that it is meant for, `10.0.0.50%eth1`. They should be
   * the director's own and serve nothing else. Undefined: none; when a service is edited: those it has.
   */
  localAddresses?: readonly string[];
  /** How servers behind FULLNAT learn the client's address. Default: `toa` for TCP, and `none` for anything else. */
  clientAddress?: ClientAddress;
  /**
   * The SYN proxy: SYNs are answered by the director, and servers see only clients that are there. For TCP, and servers of
   * NAT and FULLNAT. Default: false.
   */
  synProxy?: boolean;
}

/** TOA is a TCP option, the PROXY protocol a header in front of the client's bytes (TCP only, both). */
export type ClientAddress = 'none' | 'toa' | 'proxy-v1' | 'proxy-v2';

export type ForwardingMethod = 'masq' | 'gate' | 'tunnel' | 'fullnat';
export type TunnelType = 'ipip' | 'gue' | 'gre';
export type TunnelChecksum = 'nocsum' | 'csum' | 'remcsum';

export interface DestinationSpecification {
  address: string;
  /** 0 only for services without a port of their own (marks, any-port). */
  port: number;
  method: ForwardingMethod;
  /** 0 (quiesced) .. 2147483647. */
  weight: number;
  /** Overloaded from this many connections on; 0: never. */
  upperThreshold: number;
  /** No longer overloaded below this many; 0: below three quarters of the upper threshold. */
  lowerThreshold: number;
  tunnelType: TunnelType;
  /** UDP port of a GUE tunnel, else 0. */
  tunnelPort: number;
  tunnelChecksum: TunnelChecksum;
}

/** Totals since the last zeroing and rates as `ipvsadm --stats` and `--rate` show them. */
export interface Statistics {
  connections: number;
  inPackets: number;
  outPackets: number;
  inBytes: number;
  outBytes: number;
  connectionRate: number;
  inPacketRate: number;
  outPacketRate: number;
  inByteRate: number;
  outByteRate: number;
}

export interface DestinationStatus extends DestinationSpecification {
  activeConnections: number;
  inactiveConnections: number;
  persistentConnections: number;
  statistics: Statistics;
}

export interface ServiceStatus extends ServiceSpecification {
  statistics: Statistics;
  /** In the director's order: newest first. */
  destinations: DestinationStatus[];
  /** What became of the local addresses, in their order; undefined without any. */
  localAddressUse?: LocalAddressStatus[];
}

/** Counts are those of the address, which services may share. */
export interface LocalAddressStatus {
  address: string;
  /** Empty if none was named. */
  interfaceName: string;
  /** Connections that have one of its ports. */
  connections: number;
  /** New connections for which it had no port left. */
  refused: number;
}

export interface ConnectionStatus {
  /** IP protocol number; 0 for the template of a firewall-mark service. */
  protocol: number;
  /** State name as `ipvsadm -Lnc` prints it. */
  state: string;
  /** Whole seconds until it expires, 0 or more. */
  expiresIn: number;
  client: string;
  clientPort: number;
  virtual: string;
  virtualPort: number;
  destination: string;
  destinationPort: number;
  template: boolean;
  /** Persistence engine and its data (for SIP the Call-ID), empty without one. */
  engine: string;
  engineData: string;
}

/** Seconds, as `ipvsadm --set` takes them. */
export interface Timeouts {
  tcp: number;
  tcpFin: number;
  udp: number;
}

export type SyncRole = 'master' | 'backup';

/** A connection synchronisation daemon, as `ipvsadm --start-daemon` describes it. */
export interface SyncDaemon {
  role: SyncRole;
  /** Interface the messages go out of or come in on. */
  interfaceName: string;
  /** 0..255; a backup with another one than 0 takes only messages that carry it. */
  syncId: number;
  /** Longest message in bytes of UDP payload; when starting, 0 takes what the interface's MTU allows. */
  maximumLength: number;
  /** Multicast group, IPv4 or IPv6. */
  group: string;
  port: number;
  ttl: number;
}

/** What the kernel would answer with an errno; `ipvsadm` turns it into its messages. */
export type IpvsErrorCode =
  /** Service or destination already exists. */
  | 'EEXIST'
  /** No such service. */
  | 'ESRCH'
  /** No such destination, scheduler or persistence engine. */
  | 'ENOENT'
  /** An operation that cannot be: address not unicast, value out of range, wrong combination. */
  | 'EINVAL'
  /** A number outside its range: a negative weight, a lower threshold above the upper one. */
  | 'ERANGE'
  /** No such network interface. */
  | 'ENODEV'
  /** The interface has no way to a multicast group. */
  | 'ENETUNREACH'
  /** The table is full. */
  | 'ENOMEM';

export class IpvsError extends Error {
  override name = 'IpvsError';
  readonly code: IpvsErrorCode;
  /** True for what only Dirigo can refuse: the command has no words of its own for it, and shows the message. */
  readonly isOwn: boolean;

  constructor(code: IpvsErrorCode, message: string, { isOwn = false } = {}) {
    super(message);
    this.code = code;
    this.isOwn = isOwn;
  }
}

/** The controls of a virtual server: what `ipvsadm` can do to one. Every method either takes effect whole or throws. */
export interface VirtualServer {
  /** Buckets of the connection table, which listings state as `size=`. */
  readonly tableSize: number;
  addService(service: ServiceSpecification): void;
  /** Replaces all properties of an existing service; its destinations stay. */
  editService(service: ServiceSpecification): void;
  deleteService(key: ServiceKey): void;
  /** Deletes all services. */
  flush(): void;
  addDestination(service: ServiceKey, destination: DestinationSpecification): void;
  editDestination(service: ServiceKey, destination: DestinationSpecification): void;
  deleteDestination(service: ServiceKey, address: string, port: number): void;
  /**
   * Adds a local address for FULLNAT. ESRCH, EEXIST, EINVAL (not unicast, other family than the service), ENODEV.
   * @param interfaceName the interface that it is meant for
   */
  addLocalAddress(service: ServiceKey, address: string, interfaceName?: string): void;
  /** Connections that use it go on. ESRCH, ENOENT. */
  deleteLocalAddress(service: ServiceKey, address: string): void;
  /** Zeroes the counters of one service and its destinations, or of all. */
  zero(service?: ServiceKey): void;
  /** All services, newest first. */
  services(): ServiceStatus[];
  /** One service, undefined if there is none. */
  service(key: ServiceKey): ServiceStatus | undefined;
  connections(): ConnectionStatus[];
  timeouts(): Timeouts;
  /** A value of 0 keeps the old one. */
  setTimeouts(timeouts: Timeouts): void;
  /** At most one of each role; EEXIST if there is one already, ENODEV without such an interface. */
  startSyncDaemon(daemon: SyncDaemon): void;
  /** ESRCH if none of this role runs. */
  stopSyncDaemon(role: SyncRole): void;
  /** The running ones, the master first. */
  syncDaemons(): SyncDaemon[];
}

/** A key as text, unique a service: `tcp 10.0.0.3:80`, `udp [2001:db8::3]:53`, `fwm 1`, `fwm6 1`. */
export function serviceKeyText(key: ServiceKey): string {
  if ('mark' in key) return `${key.family === 4 ? 'fwm' : 'fwm6'} ${key.mark}`;
  const address = key.address.includes(':') ? `[${key.address}]` : key.address;
  return `${key.protocol} ${address}:${key.port}`;
}

/** The key that `serviceKeyText` wrote so; undefined if the text is none. */
export function parseServiceKey(text: string): ServiceKey | undefined {
  const [, kind = '', rest = ''] = /^(tcp|udp|sctp|fwm|fwm6) (\S+)$/.exec(text) ?? [];
  if (kind === 'fwm' || kind === 'fwm6') {
    const mark = /^[0-9]{1,10}$/.test(rest) ? Number(rest) : 0;
    return mark >= 1 && mark <= 0xffff_ffff ? { mark, family: kind === 'fwm' ? 4 : 6 } : undefined;
  }
  const [, six, four, digits = ''] = /^(?:\[(.*)\]|([^:]*)):([0-9]{1,5})$/.exec(rest) ?? [];
  const address = parseAddress(six ?? four ?? '');
  if (!address || (address.length === 16) !== (six !== undefined) || Number(digits) > 65535) return undefined;
  return { protocol: kind as ProtocolName, address: formatAddress(address), port: Number(digits) };
}
