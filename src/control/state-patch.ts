/**
 * The desired state as the daemon holds it in memory, and steps from one to the next. Each service is the text of its
 * JSON: comparing two, writing one to disk and keeping an old one cost little that way, however many there are.
 *
 * A step says what was before and what is after, so that it can be gone both ways.
 */

import { serviceKeyText } from '../ipvs/specification.ts';
import type { DesiredService, DesiredState } from './desired-state.ts';
import type { PartialState } from './state-text.ts';

/** The parts of the state beside the services. */
export const SECTIONS = ['timeouts', 'syncDaemons', 'settings', 'marks', 'pins'] as const;
export type Section = (typeof SECTIONS)[number];

/** A service before and after; null: there is none. */
export interface ServiceStep {
  /** `serviceKeyText` of its key. */
  name: string;
  before: string | null;
  after: string | null;
  /** Where it stood among all, oldest first, if it was deleted: it comes back to that place. */
  at?: number;
}

export interface Patch {
  services: readonly ServiceStep[];
  /** Text before and after of the sections that change. */
  sections: Readonly<Partial<Record<Section, { before: string; after: string }>>>;
  /** Names of all services, oldest first, where the order does not follow from the steps. */
  order?: { before: readonly string[]; after: readonly string[] };
}

export class StateModel {
  /** Text of each service by its name, oldest first. */
  readonly services = new Map<string, string>();
  readonly sections: Record<Section, string>;

  constructor(state: DesiredState = EMPTY_STATE) {
    this.sections = {
      timeouts: JSON.stringify(state.timeouts),
      syncDaemons: JSON.stringify(state.syncDaemons),
      settings: JSON.stringify(state.settings),
      marks: JSON.stringify(state.marks),
      pins: JSON.stringify(state.pins),
    };
    for (const service of state.services) {
      this.services.set(serviceKeyText(service.key), JSON.stringify(service));
    }
  }

  state(): DesiredState {
    const section = <Name extends Section>(name: Name): DesiredState[Name] => JSON.parse(this.sections[name]);
    return {
      version: 1,
      timeouts: section('timeouts'),
      syncDaemons: section('syncDaemons'),
      settings: section('settings'),
      marks: section('marks'),
      pins: section('pins'),
      services: [...this.services.values()].map(text => JSON.parse(text) as DesiredService),
    };
  }

  copy(): StateModel {
    const copy = new StateModel();
    Object.assign(copy.sections, this.sections);
    for (const [name, text] of this.services) copy.services.set(name, text);
    return copy;
  }

  /** A copy with the parts that are given in the place of its own. */
  with(given: PartialState): StateModel {
    const model = this.copy();
    for (const section of SECTIONS) {
      if (given[section] !== undefined) model.sections[section] = JSON.stringify(given[section]);
    }
    if (given.services === undefined) return model;
    const services = new Map(given.services.map(each => [serviceKeyText(each.key), each]));
    model.services.clear();
    const names = given.unordered
      ? [...this.services.keys()].filter(name => services.has(name)).concat([...services.keys()])
      : services.keys();
    for (const name of new Set(names)) {
      const service = services.get(name) as DesiredService;
      const known = this.services.get(name);
      const kept = given.unordered && known ? inKnownOrder(JSON.parse(known), service) : service;
      model.services.set(name, JSON.stringify(kept));
    }
    return model;
  }

  /** Goes a step. */
  apply(patch: Patch): void {
    for (const [section, { after }] of Object.entries(patch.sections)) {
      this.sections[section as Section] = after;
    }
    const back: (ServiceStep & { at: number; after: string })[] = [];
    for (const step of patch.services) {
      const { name, before, after, at } = step;
      if (after === null) this.services.delete(name);
      else if (before === null && at !== undefined) back.push({ ...step, at, after });
      else this.services.set(name, after);
    }
    if (back.length > 0) {
      const entries = [...this.services];
      for (const { name, after, at } of back.sort((one, other) => one.at - other.at)) {
        entries.splice(at, 0, [name, after]);
      }
      this.#arrange(entries);
    }
    if (patch.order) {
      this.#arrange(patch.order.after.map(name => [name, this.services.get(name) as string]));
    }
  }

  #arrange(entries: readonly (readonly [string, string])[]): void {
    this.services.clear();
    for (const [name, text] of entries) this.services.set(name, text);
  }
}

/** A service with its servers in the order that those known before had, and then the new ones. */
function inKnownOrder(known: DesiredService, service: DesiredService): DesiredService {
  const places = new Map(known.destinations.map(({ address, port }, at) => [`${address} ${port}`, at]));
  const placeOf = ({ address, port }: { address: string; port: number }): number =>
    places.get(`${address} ${port}`) ?? places.size;
  const destinations = service.destinations.toSorted((one, other) => placeOf(one) - placeOf(other));
  return { ...service, destinations };
}

const EMPTY_STATE: DesiredState = {
  version: 1,
  timeouts: { tcp: 900, tcpFin: 120, udp: 300 },
  syncDaemons: [],
  settings: {},
  marks: [],
  pins: [],
  services: [],
};

/** The step back. */
export function inverted(patch: Patch): Patch {
  const sections: Patch['sections'] = Object.fromEntries(
    Object.entries(patch.sections).map(([name, { before, after }]) => [
      name,
      { before: after, after: before },
    ]),
  );
  return {
    services: patch.services.map(({ before, after, ...step }) => ({ ...step, before: after, after: before })),
    sections,
    ...(patch.order && { order: { before: patch.order.after, after: patch.order.before } }),
  };
}

/** True if it changes nothing. */
export function isEmpty({ services, sections, order }: Patch): boolean {
  return services.length === 0 && Object.keys(sections).length === 0 && order === undefined;
}

/** Notes of the deleted services where they stand in the state before. */
export function withPlaces(services: readonly ServiceStep[], before: StateModel): ServiceStep[] {
  if (!services.some(({ after }) => after === null)) return [...services];
  const places = new Map<string, number>();
  for (const name of before.services.keys()) places.set(name, places.size);
  return services.map(step =>
    step.after === null ? { ...step, at: places.get(step.name) as number } : { ...step },
  );
}

/** The step from one state to another. */
export function patchBetween(before: StateModel, after: StateModel): Patch {
  const sections: Partial<Record<Section, { before: string; after: string }>> = {};
  for (const section of SECTIONS) {
    const step = { before: before.sections[section], after: after.sections[section] };
    if (step.before !== step.after) sections[section] = step;
  }
  const services: ServiceStep[] = [];
  for (const [name, text] of before.services) {
    if (!after.services.has(name)) services.push({ name, before: text, after: null });
  }
  for (const [name, text] of after.services) {
    const known = before.services.get(name) ?? null;
    if (known !== text) services.push({ name, before: known, after: text });
  }
  const patch: Patch = { services: withPlaces(services, before), sections };
  const reached = before.copy();
  reached.apply(patch);
  const names = [...after.services.keys()];
  let index = 0;
  for (const name of reached.services.keys()) {
    if (name !== names[index++])
      return { ...patch, order: { before: [...before.services.keys()], after: names } };
  }
  return patch;
}
