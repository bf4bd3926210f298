/**
 * Draining: servers that get no new connections (weight 0) until what they have has come to its end. What is left of a
 * server are its connections and its persistent clients: these come back to a quiesced server, too, for as long as they
 * are remembered, unless `expire_quiescent_template` is set.
 */
import type { Director } from '../ipvs/director.ts';
import type { Destination } from '../ipvs/service-table.ts';
import { type ServiceKey, serviceKeyText } from '../ipvs/specification.ts';
import type { Configuration } from './configuration.ts';
import type { DesiredService } from './desired-state.ts';
import { destinationName } from './plan.ts';
import { RequestRefused } from './refused.ts';

/** Which servers: those at an address, of one service or of all, with one port or any. */
export interface DrainSelection {
  service?: ServiceKey;
  address: string;
  port?: number;
}

export interface DrainedServer {
  /** `tcp 10.0.0.3:80` */
  service: string;
  address: string;
  port: number;
  weight: number;
  connections: number;
  persistentClients: number;
  /** Seconds until the last of them ends, if nothing comes from its client any more. */
  endsIn: number;
}

/** Weight of a server that is brought back and of which no revision tells another. */
const DEFAULT_WEIGHT = 1;

/** Gives no new connections to these servers from now on. */
export async function quiesce(
  configuration: Configuration,
  director: Director,
  selection: DrainSelection,
): Promise<void> {
  await configuration.edit(`drain ${selectionText(selection)}`, () => {
    for (const destination of select(director, selection)) setWeight(director, destination, 0);
  });
}

/** What is left of these servers. @param now milliseconds of the director's clock */
export function whatIsLeft(director: Director, selection: DrainSelection, now: number): DrainedServer[] {
  const servers = new Map<number, DrainedServer>();
  for (const { index, service, specification } of select(director, selection)) {
    const { address, port, weight } = specification;
    servers.set(index, {
      service: service.name,
      address,
      port,
      weight,
      connections: director.destinations.active(index) + director.destinations.inactive(index),
      persistentClients: director.pool.persistent[index] as number,
      endsIn: 0,
    });
  }
  const { connections } = director;
  const tick = connections.tick(now);
  for (let slot = 0; slot < connections.highWater; slot++) {
    const server = servers.get(connections.destination(slot));
    if (!server || !connections.isUsed(slot) || connections.hasExpired(slot, tick)) continue;
    server.endsIn = Math.max(server.endsIn, Math.ceil(connections.remaining(slot, tick) / connections.hz));
  }
  return [...servers.values()];
}

/**
 * Removes these servers.
 * @throws RequestRefused if somebody gave one weight again meanwhile; nothing is removed then
 */
export async function removeDrained(
  configuration: Configuration,
  director: Director,
  selection: DrainSelection,
): Promise<void> {
  await configuration.edit(`drained ${selectionText(selection)}`, () => {
    const servers = select(director, selection);
    for (const { service, specification } of servers) {
      if (specification.weight > 0) {
        throw new RequestRefused(
          409,
          `${destinationName(specification)} of ${service.name} has weight ${specification.weight} again: it is not removed`,
        );
      }
    }
    for (const { service, specification } of servers) {
      director.administration.deleteDestination(service.key, specification.address, specification.port);
    }
  });
}

/** Gives these servers the weight back that they had before they were quiesced. */
export async function bringBack(
  configuration: Configuration,
  director: Director,
  selection: DrainSelection,
): Promise<void> {
  await configuration.edit(`drain --cancel ${selectionText(selection)}`, () => {
    for (const destination of select(director, selection)) {
      if (destination.specification.weight > 0) continue;
      setWeight(director, destination, weightBefore(configuration, destination));
    }
  });
}

function setWeight(director: Director, { service, specification }: Destination, weight: number): void {
  director.administration.editDestination(service.key, { ...specification, weight });
}

/** The last weight above 0: the director remembers it, and after a restart the revisions do. */
function weightBefore(configuration: Configuration, destination: Destination): number {
  const { service, specification, lastWeight } = destination;
  if (lastWeight > 0) return lastWeight;
  for (const { patch } of configuration.revisions()) {
    const step = patch.services.find(({ name }) => name === service.name);
    if (!step?.before) continue;
    const { destinations }: DesiredService = JSON.parse(step.before);
    const before = destinations.find(
      ({ address, port }) => address === specification.address && port === specification.port,
    );
    if (before && before.weight > 0) return before.weight;
  }
  return DEFAULT_WEIGHT;
}

/** @throws RequestRefused if there are none */
function select(director: Director, { service, address, port }: DrainSelection): Destination[] {
  const { administration } = director;
  const services = service ? [administration.serviceObject(service)] : [...administration.serviceObjects()];
  if (service && !services[0])
    throw new RequestRefused(404, `there is no service ${serviceKeyText(service)}`);
  const servers = services.flatMap(each =>
    (each?.destinations ?? []).filter(
      ({ specification }) =>
        specification.address === address && (port === undefined || specification.port === port),
    ),
  );
  if (servers.length > 0) return servers;
  const where = service ? `service ${serviceKeyText(service)}` : 'any service';
  throw new RequestRefused(404, `there is no server ${serverText({ address, port })} in ${where}`);
}

function serverText({ address, port }: { address: string; port: number | undefined }): string {
  return port === undefined ? address : destinationName({ address, port });
}

function selectionText({ service, address, port }: DrainSelection): string {
  return `${serverText({ address, port })} of ${service ? serviceKeyText(service) : 'all services'}`;
}
