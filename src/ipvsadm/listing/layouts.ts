/** The columns of a service listing: headings, and what follows the name of a service or a server. */
import type {
  DestinationStatus,
  ForwardingMethod,
  ServiceSpecification,
  ServiceStatus,
  Statistics,
} from '../../ipvs/specification.ts';
import type { ListFormat } from '../parse.ts';
import { schedulerFlagNames } from '../values.ts';
import { counterText, left, right } from './text.ts';

export interface Layout {
  /** Two lines, each with its newline. */
  heading: string;
  /** The row of a service of this name. */
  service(name: string, service: ServiceStatus): string;
  /** What follows a server's name, which is padded to 28 columns; begins with the gap between them. */
  server(server: DestinationStatus): string;
}

/** The layout that the options ask for: the first of stats, rate, thresholds, persistent connections, tunnels. */
export function layoutFor(format: ListFormat): Layout {
  if (format.stats) return statisticsLayout(format.exact);
  if (format.rate) return rateLayout(format.exact);
  if (format.thresholds) return THRESHOLDS;
  if (format.persistentConnections) return PERSISTENT_CONNECTIONS;
  return format.tunnelInformation ? TUNNELS : PLAIN;
}

const LOCAL = left('Prot LocalAddress:Port', 33);
const REMOTE = '  -> RemoteAddress:Port';

export const METHOD_NAMES: Readonly<Record<ForwardingMethod, string>> = {
  masq: 'Masq',
  gate: 'Route',
  tunnel: 'Tunnel',
  fullnat: 'FullNat',
};

function withProperties(name: string, service: ServiceStatus): string {
  return `${name} ${service.scheduler}${propertiesText(service)}`;
}

/** Flags, persistence, one-packet scheduling and, where DPVS has it, the SYN proxy. */
function propertiesText(service: ServiceSpecification): string {
  let text = '';
  if (service.schedulerFlags !== 0) {
    text += ` (${schedulerFlagNames(service.scheduler, service.schedulerFlags)})`;
  }
  if (service.persistenceTimeout !== 0) {
    text += ` persistent ${service.persistenceTimeout}`;
    if (!isWholeMask(service.persistenceNetmask)) text += ` mask ${service.persistenceNetmask}`;
    if (service.persistenceEngine !== '') text += ` pe ${service.persistenceEngine}`;
  }
  if (service.onePacket) text += ' ops';
  return service.synProxy ? `${text} synproxy` : text;
}

/** True for the mask that tells every single address apart, which goes without saying. */
export function isWholeMask(mask: string): boolean {
  return mask === '255.255.255.255' || mask === '128';
}

function counts(server: DestinationStatus): string {
  return `${left(server.activeConnections, 10)} ${left(server.inactiveConnections, 10)}`;
}

const PLAIN: Layout = {
  heading: `Prot LocalAddress:Port Scheduler Flags\n${REMOTE}           Forward Weight ActiveConn InActConn\n`,
  service: withProperties,
  server: server => ` ${left(METHOD_NAMES[server.method], 7)} ${left(server.weight, 6)} ${counts(server)}`,
};

const TUNNELS: Layout = {
  heading:
    `Prot LocalAddress:Port Scheduler Flags\n` +
    `${REMOTE}           Forward TunnelInfo    Weight ActiveConn InActConn\n`,
  service: withProperties,
  server: server =>
    ` ${left(METHOD_NAMES[server.method], 7)} ${left(tunnelText(server), 13)} ` +
    `${left(server.weight, 6)} ${counts(server)}`,
};

const CHECKSUMS = { nocsum: '-c', csum: '+c', remcsum: 'r+c' } as const;

function tunnelText(server: DestinationStatus): string {
  if (server.method !== 'tunnel') return 'n/a';
  const checksum = CHECKSUMS[server.tunnelChecksum];
  if (server.tunnelType === 'gue') return `gue:${server.tunnelPort}:${checksum}`;
  return server.tunnelType === 'gre' ? `gre:${checksum}` : 'ipip';
}

const THRESHOLDS: Layout = {
  heading: `${LOCAL} Uthreshold Lthreshold ActiveConn InActConn \n${REMOTE}\n`,
  service: withProperties,
  server: server =>
    ` ${left(server.upperThreshold, 10)} ${left(server.lowerThreshold, 10)} ${counts(server)}`,
};

const PERSISTENT_CONNECTIONS: Layout = {
  heading: `${LOCAL} Weight    PersistConn ActiveConn InActConn \n${REMOTE}\n`,
  service: withProperties,
  server: server => ` ${left(server.weight, 9)} ${left(server.persistentConnections, 11)} ${counts(server)}`,
};

function countersHeading(columns: readonly string[]): string {
  return `${LOCAL}${columns.map(column => ` ${right(column, 8)}`).join('')}\n${REMOTE}\n`;
}

function statisticsLayout(exact: boolean): Layout {
  const row = (statistics: Statistics): string =>
    [
      statistics.connections,
      statistics.inPackets,
      statistics.outPackets,
      statistics.inBytes,
      statistics.outBytes,
    ]
      .map(value => counterText(value, exact))
      .join('');
  return {
    heading: countersHeading(['Conns', 'InPkts', 'OutPkts', 'InBytes', 'OutBytes']),
    service: (name, service) => left(name, 33) + row(service.statistics),
    server: server => row(server.statistics),
  };
}

function rateLayout(exact: boolean): Layout {
  const bytes = (statistics: Statistics): string =>
    counterText(statistics.inByteRate, exact) + counterText(statistics.outByteRate, exact);
  const others = (statistics: Statistics): number[] => [
    statistics.connectionRate,
    statistics.inPacketRate,
    statistics.outPacketRate,
  ];
  return {
    heading: countersHeading(['CPS', 'InPPS', 'OutPPS', 'InBPS', 'OutBPS']),
    service: (name, { statistics }) =>
      left(name, 33) +
      others(statistics)
        .map(value => counterText(value, exact))
        .join('') +
      bytes(statistics),
    // ipvsadm never shortens these three in the rows of servers.
    server: ({ statistics }) =>
      others(statistics)
        .map(value => ` ${right(Math.trunc(value), 8)}`)
        .join('') + bytes(statistics),
  };
}
