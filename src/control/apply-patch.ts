/** Brings about in a director what a step of the desired state says, within one turn: no packet sees half of it. */
import type { Director } from '../ipvs/director.ts';
import { MarkRules, parseMarkRule } from '../ipvs/mark-rules.ts';
import { distinctPins, parsePin } from '../ipvs/pins.ts';
import { DEFAULT_SETTINGS, settingName } from '../ipvs/settings.ts';
import type { SyncDaemon } from '../ipvs/specification.ts';
import type { DesiredService } from './desired-state.ts';
import type { Patch, ServiceStep } from './state-patch.ts';

/**
 * @param interfaceIndex the number of an interface that a mark rule names
 * @throws IpvsError, SettingError, MarkRuleError: the director refuses something; what came before it is done
 */
export function applyPatch(
  director: Director,
  patch: Patch,
  interfaceIndex: (name: string) => number | undefined,
): void {
  const server = director.administration;
  const { settings, marks, pins, timeouts, syncDaemons } = patch.sections;
  if (settings) {
    const after: Record<string, number> = JSON.parse(settings.after);
    for (const name of Object.keys({ ...JSON.parse(settings.before), ...after })) {
      director.set(name, String(after[name] ?? DEFAULT_SETTINGS[settingName(name)]));
    }
  }
  if (marks) director.marks = new MarkRules(JSON.parse(marks.after).map(parseMarkRule), interfaceIndex);
  if (pins) director.pins = distinctPins(JSON.parse(pins.after).map(parsePin));
  if (timeouts) server.setTimeouts(JSON.parse(timeouts.after));
  const daemons = syncDaemons && daemonSteps(JSON.parse(syncDaemons.before), JSON.parse(syncDaemons.after));
  for (const daemon of daemons?.stopped ?? []) server.stopSyncDaemon(daemon.role);
  for (const step of patch.services) if (step.after === null) deleteService(director, step);
  for (const step of patch.services) if (step.after !== null) setService(director, step.before, step.after);
  const order = patch.order?.after ?? orderWithReturned(director, patch);
  if (order) server.arrange(order);
  for (const daemon of daemons?.started ?? []) server.startSyncDaemon(daemon);
}

function deleteService(director: Director, { before }: ServiceStep): void {
  const { key }: DesiredService = JSON.parse(before as string);
  director.administration.deleteService(key);
}

function setService(director: Director, before: string | null, after: string): void {
  const server = director.administration;
  const { destinations, ...service }: DesiredService = JSON.parse(after);
  if (before === null) server.addService(service);
  else {
    const { destinations: _, ...known }: DesiredService = JSON.parse(before);
    // An edited service keeps its local addresses unless it is told otherwise.
    if (JSON.stringify(known) !== JSON.stringify(service)) {
      const edited = { ...service, localAddresses: service.localAddresses ?? [] };
      // A SYN proxy is switched on when its servers are what it needs.
      const switchedOn = edited.synProxy === true && !known.synProxy;
      server.editService(switchedOn ? { ...edited, synProxy: false } : edited);
      server.replaceDestinations(service.key, destinations.toReversed());
      if (switchedOn) server.editService(edited);
      return;
    }
  }
  server.replaceDestinations(service.key, destinations.toReversed());
}

/** The order in which deleted services that come back stand where they stood; undefined: none comes back. */
function orderWithReturned(director: Director, { services }: Patch): string[] | undefined {
  const returned = services.flatMap(({ name, before, after, at }) =>
    before === null && after !== null && at !== undefined ? [{ name, at }] : [],
  );
  if (returned.length === 0) return undefined;
  const isBack = new Set(returned.map(({ name }) => name));
  const names = [...director.administration.serviceObjects()].map(({ name }) => name).reverse();
  const order = names.filter(name => !isBack.has(name));
  for (const { name, at } of returned.sort((one, other) => one.at - other.at)) order.splice(at, 0, name);
  return order;
}

function daemonSteps(
  before: readonly SyncDaemon[],
  after: readonly SyncDaemon[],
): { stopped: SyncDaemon[]; started: SyncDaemon[] } {
  const isIn = (list: readonly SyncDaemon[], daemon: SyncDaemon): boolean =>
    list.some(each => JSON.stringify(each) === JSON.stringify(daemon));
  return {
    stopped: before.filter(daemon => !isIn(after, daemon)),
    started: after.filter(daemon => !isIn(before, daemon)),
  };
}
