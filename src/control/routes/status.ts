/** What the daemon is and holds. */
import type { DatapathStatus } from '../../datapath/datapath.ts';
import { anything, count, nullable, object, text, wholeNumber } from '../schema.ts';
import { directorOf, type Route, type RouteEnvironment, route } from './route.ts';

export interface DaemonStatus {
  pid: number;
  version: string;
  /** ISO 8601. */
  startedAt: string;
  services: number;
  destinations: number;
  /** Connections and templates in the table. */
  connections: number;
  /** Where the desired state is kept; null: nowhere. */
  state: string | null;
  /** Where TCP is served, `127.0.0.1:8080`; null: nowhere. */
  listen: string | null;
  datapath: { kind: string } & DatapathStatus;
}

export function daemonStatus(environment: RouteEnvironment): DaemonStatus {
  const { configuration, datapath, version, startedAt } = environment;
  const { administration, connections } = directorOf(environment);
  let services = 0;
  let destinations = 0;
  for (const service of administration.serviceObjects()) {
    services++;
    destinations += service.destinations.length;
  }
  return {
    pid: process.pid,
    version,
    startedAt,
    services,
    destinations,
    connections: connections.size,
    state: configuration.path,
    listen: environment.listen() ?? null,
    datapath: { ...datapath.status(), kind: datapath.kind },
  };
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
          services: count(),
          destinations: count(),
          connections: count({ description: 'Connections and persistence templates in the table.' }),
          state: nullable(text(), { description: 'Where the desired state is kept; null: nowhere.' }),
          listen: nullable(text(), { description: 'Where TCP is served, `127.0.0.1:8080`; null: nowhere.' }),
          datapath: anything({ description: 'What the data path says of itself; `kind` is always there.' }),
        },
        { title: 'Status' },
      ),
      handle: () => daemonStatus(environment),
    }),
  ];
}
