/** What the daemon is and holds. */
import type { DatapathStatus, StatusRow } from '../../datapath/datapath.ts';
import { DROP_NAMES } from '../../ipvs/drops.ts';
import { anything, count, nullable, object, text, wholeNumber } from '../schema.ts';
import { directorOf, type Route, type RouteEnvironment, route } from './route.ts';

export interface DaemonStatus {
  pid: number;
  version: string;
  /** ISO 8601. */
  startedAt: string;
  /** Whole seconds since then. */
  uptime: number;
  services: number;
  destinations: number;
  /** Destinations with weight 0. */
  quiesced: number;
  /** Connections and templates in the table. */
  connections: number;
  /** Where the desired state is kept; null: nowhere. */
  state: string | null;
  /** Where TCP is served, `127.0.0.1:8080`; null: nowhere. */
  listen: string | null;
  /** Packets that the director and the data path dropped, by reason; 0 is left out. */
  drops: Record<string, number>;
  datapath: { kind: string } & DatapathStatus;
}

export function daemonStatus(environment: RouteEnvironment): DaemonStatus {
  const { configuration, datapath, version, startedAt } = environment;
  const datapathStatus = datapath.status();
  const { administration, connections } = directorOf(environment);
  let services = 0;
  let destinations = 0;
  let quiesced = 0;
  for (const service of administration.serviceObjects()) {
    services++;
    destinations += service.destinations.length;
    for (const { specification } of service.destinations) if (specification.weight === 0) quiesced++;
  }
  return {
    pid: process.pid,
    version,
    startedAt,
    uptime: Math.max(0, Math.floor((Date.now() - Date.parse(startedAt)) / 1000)),
    services,
    destinations,
    quiesced,
    connections: connections.size,
    state: configuration.path,
    listen: environment.listen() ?? null,
    drops: dropsOf(directorOf(environment).drops, datapathStatus),
    datapath: { ...datapathStatus, kind: datapath.kind },
  };
}

/** The only reason for which the program itself drops a packet: nobody is there to take it. All others go to the director. */
const PROGRAM_DROPS = ['no director'];

function dropsOf(counts: ArrayLike<number>, status: DatapathStatus): Record<string, number> {
  const drops: Record<string, number> = {};
  DROP_NAMES.forEach((name, reason) => {
    const count = counts[reason] ?? 0;
    if (count > 0) drops[name] = count;
  });
  const { fastPath, queueDrops, unresolved, malformed, notPassedToHost } = status;
  for (const name of PROGRAM_DROPS) add(`program: ${name}`, recordOf(fastPath)[name]);
  for (const [name, count] of Object.entries(recordOf(queueDrops))) add(`queues: ${name}`, count);
  add('neighbour unresolved', unresolved);
  add('malformed', malformed);
  add('not passed to the host', notPassedToHost);
  return drops;

  function add(name: string, count: unknown): void {
    if (typeof count === 'number' && count > 0) drops[name] = (drops[name] ?? 0) + count;
  }
}

function recordOf(value: DatapathStatus[string] | undefined): StatusRow {
  return typeof value === 'object' && !Array.isArray(value) ? (value as StatusRow) : {};
}

export function statusRoutes(environment: RouteEnvironment): Route[] {
  return [
    route({
      method: 'GET',
      path: '/status',
      summary: 'Show the daemon and its data path',
      answer: object(
        {
          pid: wholeNumber(1, 2 ** 31 - 1),
          version: text(),
          startedAt: text({ description: 'ISO 8601.' }),
          uptime: count({ description: 'Seconds since then.' }),
          services: count(),
          destinations: count(),
          quiesced: count({ description: 'Destinations with weight 0.' }),
          connections: count({ description: 'Connections and persistence templates in the table.' }),
          state: nullable(text(), { description: 'Where the desired state is kept; null: nowhere.' }),
          listen: nullable(text(), { description: 'Where TCP is served, `127.0.0.1:8080`; null: nowhere.' }),
          drops: anything({
            description:
              'Packets dropped, by reason: those of the director by their names, those of the data path with what dropped them before.',
          }),
          datapath: anything({ description: 'What the data path says of itself; `kind` is always there.' }),
        },
        { title: 'Status' },
      ),
      handle: () => daemonStatus(environment),
    }),
  ];
}
