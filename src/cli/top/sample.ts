/** What `dirigo top` shows, from two looks at the daemon: totals of the second, rates between the two. */
import type { DaemonStatus } from '../../control/routes/status.ts';
import {
  type DestinationStatus,
  type ServiceStatus,
  type Statistics,
  serviceKeyText,
} from '../../ipvs/specification.ts';

/** What the daemon said at one moment. */
export interface Look {
  /** Milliseconds of a clock that only runs forward. */
  at: number;
  status: DaemonStatus;
  /** Those that can be seen, at least. */
  services: readonly ServiceStatus[];
  /** Of the whole director. */
  total: Statistics;
}

/** A second's worth of each. */
export interface Rates {
  connections: number;
  inPackets: number;
  outPackets: number;
  inBytes: number;
  outBytes: number;
}

export interface ServerLine {
  name: string;
  method: string;
  weight: number;
  active: number;
  inactive: number;
  rates: Rates;
}

export interface ServiceLine extends ServerLine {
  scheduler: string;
  servers: readonly ServerLine[];
}

export interface Sample {
  status: DaemonStatus;
  services: readonly ServiceLine[];
  total: Rates;
  /** Packets a second through the kernel and through the director; undefined where there is no such difference. */
  paths: { kernel: number; director: number } | undefined;
  /** Drops a second, by reason, those that happen. */
  drops: Readonly<Record<string, number>>;
}

/** @param before undefined for the first look: rates are those that the director estimates then, and no drops are known */
export function sampleOf(look: Look, before: Look | undefined): Sample {
  const seconds = before ? Math.max(0.001, (look.at - before.at) / 1000) : 0;
  // A daemon that began anew counts anew, too.
  const past = before && before.status.startedAt === look.status.startedAt ? before : undefined;
  const known = new Map(past?.services.map(service => [serviceKeyText(service.key), service]));
  const services = look.services.map(service => {
    const name = serviceKeyText(service.key);
    return serviceLine(name, service, known.get(name), seconds);
  });
  return {
    status: look.status,
    services,
    total: ratesOf(look.total, past?.total, seconds),
    paths: pathRates(look, past, seconds),
    drops: dropRates(look, past, seconds),
  };
}

function serviceLine(
  name: string,
  service: ServiceStatus,
  before: ServiceStatus | undefined,
  seconds: number,
): ServiceLine {
  const key = (server: DestinationStatus): string => `${server.address} ${server.port}`;
  const known = new Map(before?.destinations.map(server => [key(server), server]));
  const servers = service.destinations.map(server => ({
    name: `${server.address.includes(':') ? `[${server.address}]` : server.address}:${server.port}`,
    method: server.method,
    weight: server.weight,
    active: server.activeConnections,
    inactive: server.inactiveConnections,
    rates: ratesOf(server.statistics, known.get(key(server))?.statistics, seconds),
  }));
  const sum = (field: 'weight' | 'active' | 'inactive'): number =>
    servers.reduce((total, server) => total + server[field], 0);
  return {
    name,
    method: '',
    scheduler: service.scheduler,
    weight: sum('weight'),
    active: sum('active'),
    inactive: sum('inactive'),
    rates: ratesOf(service.statistics, before?.statistics, seconds),
    servers,
  };
}

function ratesOf(now: Statistics, before: Statistics | undefined, seconds: number): Rates {
  if (!before) {
    return {
      connections: now.connectionRate,
      inPackets: now.inPacketRate,
      outPackets: now.outPacketRate,
      inBytes: now.inByteRate,
      outBytes: now.outByteRate,
    };
  }
  // Counters that somebody zeroed go on from there.
  const rate = (name: keyof Rates): number => Math.max(0, now[name] - before[name]) / seconds;
  return {
    connections: rate('connections'),
    inPackets: rate('inPackets'),
    outPackets: rate('outPackets'),
    inBytes: rate('inBytes'),
    outBytes: rate('outBytes'),
  };
}

function pathCounts({ status }: Look): { kernel: number; director: number } | undefined {
  const { fastPath, received } = status.datapath;
  if (typeof received !== 'number' || typeof fastPath !== 'object' || Array.isArray(fastPath))
    return undefined;
  return { kernel: Number((fastPath as Record<string, unknown>).forwarded ?? 0), director: received };
}

function pathRates(look: Look, before: Look | undefined, seconds: number): Sample['paths'] {
  const now = pathCounts(look);
  const then = before && pathCounts(before);
  if (!now) return undefined;
  if (!then) return { kernel: 0, director: 0 };
  return {
    kernel: Math.max(0, now.kernel - then.kernel) / seconds,
    director: Math.max(0, now.director - then.director) / seconds,
  };
}

function dropRates(look: Look, before: Look | undefined, seconds: number): Record<string, number> {
  if (!before) return {};
  const rates: Record<string, number> = {};
  for (const [reason, count] of Object.entries(look.status.drops)) {
    const rate = (count - (before.status.drops[reason] ?? 0)) / seconds;
    if (rate > 0) rates[reason] = rate;
  }
  return rates;
}
