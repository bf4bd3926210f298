/**
 * What another desired state would change in a director, and what that means for the connections it has:
 *
 * - a connection **stays** as long as its server does, whatever else changes;
 * - it **drops** when its server, or its whole service, is deleted: its packets are dropped from then on
 *   (with `expire_nodest_conn` the connection ends, and the client is told so by the host);
 * - a persistent client **moves** to another server with its next connection when its own is deleted, is quiesced while
 *   `expire_quiescent_template` is set, or when persistence ends or groups clients otherwise.
 */
import type { Director } from '../ipvs/director.ts';
import {
  type DestinationSpecification,
  type ServiceSpecification,
  serviceKeyText,
} from '../ipvs/specification.ts';
import type { DesiredService } from './desired-state.ts';
import type { Patch, Section } from './state-patch.ts';

export type Kind = 'added' | 'edited' | 'deleted';

/** Numbers of connections, or of persistent clients. */
export interface Effect {
  stay: number;
  move: number;
  drop: number;
}

/** Values before and after, by property. */
export type Differences = Readonly<Record<string, { before: unknown; after: unknown }>>;

export interface DestinationPlan {
  address: string;
  port: number;
  change: Kind;
  /** Of an edited one. */
  differences: Differences;
  /** The whole of an added one. */
  destination?: DestinationSpecification;
  connections: Effect;
  persistentClients: Effect;
}

export interface ServicePlan {
  /** `tcp 10.0.0.3:80` */
  service: string;
  change: Kind;
  /** Of an edited one; empty if only its servers change. */
  differences: Differences;
  /** The whole of an added one. */
  specification?: ServiceSpecification;
  /** Those that change. */
  destinations: DestinationPlan[];
  /** Servers that stay stand in another order. */
  rearranged: boolean;
  /** Of all its servers, those that do not change included. */
  connections: Effect;
  persistentClients: Effect;
}

export interface AffectedClient {
  client: string;
  clientPort: number;
  service: string;
  server: string;
  /** `move` is said of persistent clients. */
  becomes: 'move' | 'drop';
}

export interface Plan {
  /** The revision that it starts from. */
  revision: number;
  /** True if it changes anything. */
  changes: boolean;
  services: ServicePlan[];
  /** Timeouts, synchronisation daemons, settings and mark rules that change. */
  sections: Readonly<Partial<Record<Section, { before: unknown; after: unknown }>>>;
  /** Services stand in another order. */
  rearranged: boolean;
  /** Of the whole director. */
  connections: Effect;
  persistentClients: Effect;
  /** Those whose connections drop or who move, as many as were asked for. */
  clients?: AffectedClient[];
}

export interface PlanOptions {
  revision: number;
  /** Clients listed at most; 0: none. */
  clients?: number;
}

/** @param patch from what the director is configured to be */
export function describePatch(
  director: Director,
  patch: Patch,
  { revision, clients = 0 }: PlanOptions,
): Plan {
  const planner = new Planner(director, patch);
  const services = patch.services.map(step => planner.service(step.before, step.after));
  const sections = Object.fromEntries(
    Object.entries(patch.sections).map(([name, { before, after }]) => [
      name,
      { before: JSON.parse(before), after: JSON.parse(after) },
    ]),
  );
  const total = { connections: 0, persistentClients: 0 };
  for (const { destinations } of director.administration.serviceObjects()) {
    for (const { index } of destinations) {
      total.connections += planner.connections(index);
      total.persistentClients += planner.persistentClients(index);
    }
  }
  return {
    revision,
    changes: services.length > 0 || Object.keys(sections).length > 0 || patch.order !== undefined,
    services,
    sections,
    rearranged: patch.order !== undefined,
    connections: whole(
      total.connections,
      services.map(each => each.connections),
    ),
    persistentClients: whole(
      total.persistentClients,
      services.map(each => each.persistentClients),
    ),
    ...(clients > 0 && { clients: planner.clients(clients) }),
  };
}

/** All there are, less those that move or drop. */
function whole(total: number, parts: readonly Effect[]): Effect {
  const sum = parts.reduce(plus, NONE);
  return { stay: total - sum.move - sum.drop, move: sum.move, drop: sum.drop };
}

const NONE: Effect = { stay: 0, move: 0, drop: 0 };

function plus(one: Effect, other: Effect): Effect {
  return { stay: one.stay + other.stay, move: one.move + other.move, drop: one.drop + other.drop };
}

/** All of a number share one fate. */
function all(becomes: keyof Effect, number: number): Effect {
  return { ...NONE, [becomes]: number };
}

class Planner {
  readonly #director: Director;
  /** True if clients of a quiesced server are scheduled anew, once the change is made. */
  readonly #expiresQuiescent: boolean;
  /** What becomes of each server of each service that was looked at. */
  readonly #destinations = new Map<string, Map<string, DestinationPlan>>();

  constructor(director: Director, patch: Patch) {
    this.#director = director;
    const { settings } = patch.sections;
    const after: Record<string, number> | undefined = settings && JSON.parse(settings.after);
    this.#expiresQuiescent =
      (after ? (after.expire_quiescent_template ?? 0) : director.settings.expire_quiescent_template) !== 0;
  }

  connections(index: number): number {
    const { destinations } = this.#director;
    return index < 0 ? 0 : destinations.active(index) + destinations.inactive(index);
  }

  persistentClients(index: number): number {
    return index < 0 ? 0 : (this.#director.pool.persistent[index] as number);
  }

  service(beforeText: string | null, afterText: string | null): ServicePlan {
    const before: DesiredService | undefined = JSON.parse(beforeText ?? 'null') ?? undefined;
    const after: DesiredService | undefined = JSON.parse(afterText ?? 'null') ?? undefined;
    const { destinations: _, ...known } = (before ?? after) as DesiredService;
    const { destinations: __, ...wanted } = (after ?? before) as DesiredService;
    const differences = differencesBetween(known, wanted);
    // Templates are found by the client's address under the mask, for as long as the service is persistent.
    const forgetsClients =
      after === undefined || after.persistenceTimeout === 0 || 'persistenceNetmask' in differences;
    const canMove = after?.destinations.some(({ weight }) => weight > 0) ?? false;
    const names = new Map((before?.destinations ?? []).map(each => [destinationName(each), each]));
    const wantedNames = new Map((after?.destinations ?? []).map(each => [destinationName(each), each]));
    const destinations: DestinationPlan[] = [];
    const looked = new Map<string, DestinationPlan>();
    this.#destinations.set(serviceKeyText(known.key), looked);
    let connections = NONE;
    let persistentClients = NONE;
    for (const name of new Set([...names.keys(), ...wantedNames.keys()])) {
      const plan = this.#destination(known, names.get(name), wantedNames.get(name), forgetsClients, canMove);
      looked.set(name, plan);
      connections = plus(connections, plan.connections);
      persistentClients = plus(persistentClients, plan.persistentClients);
      if (plan.change !== 'edited' || Object.keys(plan.differences).length > 0) destinations.push(plan);
    }
    const stayed = [...names.keys()].filter(name => wantedNames.has(name));
    const stands = [...wantedNames.keys()].filter(name => names.has(name));
    return {
      service: serviceKeyText(known.key),
      change: before === undefined ? 'added' : after === undefined ? 'deleted' : 'edited',
      differences,
      ...(before === undefined && { specification: wanted }),
      destinations,
      rearranged: stayed.some((name, at) => name !== stands[at]),
      connections,
      persistentClients,
    };
  }

  #destination(
    service: ServiceSpecification,
    before: DestinationSpecification | undefined,
    after: DestinationSpecification | undefined,
    forgetsClients: boolean,
    canMove: boolean,
  ): DestinationPlan {
    const { address, port } = (before ?? after) as DestinationSpecification;
    const index = before ? this.#indexOf(service, address, port) : -1;
    const isQuiesced = after?.weight === 0 && before?.weight !== 0 && this.#expiresQuiescent;
    const leaves = after === undefined || forgetsClients || isQuiesced;
    const move = canMove ? 'move' : 'drop';
    return {
      address,
      port,
      change: before === undefined ? 'added' : after === undefined ? 'deleted' : 'edited',
      differences: before && after ? differencesBetween(before, after) : {},
      ...(before === undefined && after && { destination: after }),
      connections: all(after === undefined ? 'drop' : 'stay', this.connections(index)),
      persistentClients: all(leaves ? move : 'stay', this.persistentClients(index)),
    };
  }

  #indexOf({ key }: ServiceSpecification, address: string, port: number): number {
    const found = this.#director.administration
      .serviceObject(key)
      ?.destinations.find(each => each.specification.address === address && each.specification.port === port);
    return found?.index ?? -1;
  }

  /** The connections that drop and the persistent clients that move. */
  clients(most: number): AffectedClient[] {
    const { connections, administration, pool } = this.#director;
    const found: AffectedClient[] = [];
    const tick = connections.tick(administration.now);
    for (let slot = 0; slot < connections.highWater && found.length < most; slot++) {
      if (!connections.isUsed(slot) || connections.hasExpired(slot, tick)) continue;
      const owner = pool.owners[connections.destination(slot)];
      const plan =
        owner && this.#destinations.get(owner.service.name)?.get(destinationName(owner.specification));
      if (!owner || !plan) continue;
      const { client, clientPort, template } = administration.connectionStatus(slot, tick);
      const { move, drop } = template ? plan.persistentClients : plan.connections;
      if (move + drop === 0) continue;
      found.push({
        client,
        clientPort,
        service: owner.service.name,
        server: destinationName(owner.specification),
        becomes: move > 0 ? 'move' : 'drop',
      });
    }
    return found;
  }
}

/** `10.0.0.7:80`, `[2001:db8::7]:80`. */
export function destinationName({ address, port }: { address: string; port: number }): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

function differencesBetween(before: object, after: object): Differences {
  const differences: Record<string, { before: unknown; after: unknown }> = {};
  const values = [before, after] as Record<string, unknown>[];
  for (const name of new Set(values.flatMap(each => Object.keys(each)))) {
    const [one, other] = values.map(each => each[name] ?? null);
    if (JSON.stringify(one) !== JSON.stringify(other)) differences[name] = { before: one, after: other };
  }
  return differences;
}
