/** Tries a configuration that stands in a file on a table of its own, so that what a director would refuse is known before. */
import type { Director } from '../ipvs/director.ts';
import { MarkRules, parseMarkRule } from '../ipvs/mark-rules.ts';
import { distinctPins, formatPin, parsePin } from '../ipvs/pins.ts';
import { ServiceControls } from '../ipvs/service-controls.ts';
import type { CounterSource, ServiceTable } from '../ipvs/service-table.ts';
import { DEFAULT_SETTINGS, parseSetting, settingName } from '../ipvs/settings.ts';
import type {
  ServiceKey,
  ServiceStatus,
  SyncDaemon,
  SyncRole,
  Timeouts,
  VirtualServer,
} from '../ipvs/specification.ts';
import { serviceKeyText } from '../ipvs/specification.ts';
import { Tally } from '../ipvs/statistics.ts';
import type { NameService } from '../ipvsadm/names.ts';
import { splitRestoreInput } from '../ipvsadm/restore.ts';
import { runIpvsadm } from '../ipvsadm/run.ts';
import { captureService, type DesiredState } from './desired-state.ts';
import { type PartialState, parseStateText } from './state-text.ts';

/** A file that says no state that this host could have; the message says where and why. */
export class TargetError extends Error {
  override name = 'TargetError';
}

export interface TargetOptions {
  director: Director;
  names: NameService;
  /** The number of an interface that a mark rule names. */
  interfaceIndex(name: string): number | undefined;
}

/**
 * The state that a text asks for: what `ipvsadm -S` prints, or the JSON of a state. What it does not speak of is left out.
 * @throws TargetError, or what `names` throws for a name that has to be looked up first
 */
export function readTarget(text: string, options: TargetOptions): PartialState {
  return /^\s*[{[]/.test(text) ? readJson(text, options) : readCommands(text, options);
}

function readJson(text: string, { director, interfaceIndex }: TargetOptions): PartialState {
  const state = orTargetError('', () => parseStateText(text));
  const table = director.administration.draft();
  const { timeouts, syncDaemons, settings, marks, pins, services } = state;
  if (timeouts) orTargetError('timeouts', () => table.setTimeouts(timeouts));
  for (const [at, { destinations, ...service }] of (services ?? []).entries()) {
    const name = `services[${at}] (${serviceKeyText(service.key)})`;
    orTargetError(name, () => {
      table.add(service);
      table.replaceDestinations(service.key, destinations.toReversed());
    });
  }
  for (const [at, daemon] of (syncDaemons ?? []).entries()) {
    orTargetError(`syncDaemons[${at}]`, () => table.startSyncDaemon(daemon));
  }
  return {
    ...(timeouts && { timeouts: table.timeouts() }),
    ...(syncDaemons && { syncDaemons: table.syncDaemons() }),
    ...(settings && { settings: orTargetError('settings', () => checkSettings(settings)) }),
    ...(marks && { marks: orTargetError('marks', () => checkMarks(marks, interfaceIndex)) }),
    ...(pins && { pins: orTargetError('pins', () => distinctPins(pins.map(parsePin)).map(formatPin)) }),
    ...(services && { services: servicesOf(table) }),
  };
}

/** Those that are not at their default, in order. */
function checkSettings(settings: Readonly<Record<string, number>>): Record<string, number> {
  const entries = Object.entries(settings).map(
    ([name, value]) => [name, parseSetting(name, String(value))] as const,
  );
  return Object.fromEntries(entries.filter(([name, value]) => value !== DEFAULT_SETTINGS[settingName(name)]));
}

function checkMarks(
  rules: readonly string[],
  interfaceIndex: (name: string) => number | undefined,
): readonly string[] {
  new MarkRules(rules.map(parseMarkRule), interfaceIndex);
  return rules;
}

/** Lines of `ipvsadm`; the first that is refused ends it, unlike in `ipvsadm -R`. `#` begins a comment line. */
function readCommands(text: string, { director, names }: TargetOptions): PartialState {
  const table = director.administration.draft();
  const draft = new DraftServer(table);
  for (const [index, line] of text.split('\n').entries()) {
    if (/^\s*(#|$)/.test(line)) continue;
    const [words = []] = splitRestoreInput(`${line}\n`);
    const at = `line ${index + 1} (${line.trim().slice(0, 100)})`;
    const { status, stdout, stderr } = runIpvsadm(words, '', draft, names);
    if (stdout !== '') throw new TargetError(`${at}: it prints something and configures nothing`);
    if (status !== 0) throw new TargetError(`${at}: ${stderr.trim().split('\n')[0]}`);
  }
  return {
    services: servicesOf(table),
    // `ipvsadm -S` sorts what it prints.
    unordered: true,
    ...(draft.timeoutsGiven && { timeouts: table.timeouts() }),
    ...(draft.daemonsGiven && { syncDaemons: table.syncDaemons() }),
  };
}

function servicesOf(table: ServiceTable): DesiredState['services'] {
  return table.services().map(captureService).reverse();
}

/** Does something; an error is one of the target, with the place in it. */
function orTargetError<Result>(at: string, work: () => Result): Result {
  try {
    return work();
  } catch (error) {
    throw new TargetError(`${at === '' ? '' : `${at}: `}${(error as Error).message}`);
  }
}

const NO_STATISTICS = new Tally().statistics();

const NOTHING_COUNTED: CounterSource = {
  ofService: () => NO_STATISTICS,
  ofDestination: () => ({
    activeConnections: 0,
    inactiveConnections: 0,
    persistentConnections: 0,
    statistics: NO_STATISTICS,
  }),
};

/** A virtual server that is nothing but its configuration. */
class DraftServer extends ServiceControls implements VirtualServer {
  readonly tableSize = 0;
  timeoutsGiven = false;
  daemonsGiven = false;
  protected readonly table: ServiceTable;

  constructor(table: ServiceTable) {
    super();
    this.table = table;
  }

  /** There are no counters. */
  zero(): void {}

  /** Nothing to list: a line that lists is refused for what it prints. */
  services(): ServiceStatus[] {
    return [];
  }

  service(key: ServiceKey): ServiceStatus | undefined {
    const service = this.table.find(key);
    return service && this.table.status(service, NOTHING_COUNTED);
  }

  connections(): never[] {
    return [];
  }

  override setTimeouts(timeouts: Timeouts): void {
    super.setTimeouts(timeouts);
    this.timeoutsGiven = true;
  }

  override startSyncDaemon(daemon: SyncDaemon): void {
    super.startSyncDaemon(daemon);
    this.daemonsGiven = true;
  }

  override stopSyncDaemon(role: SyncRole): void {
    super.stopSyncDaemon(role);
    this.daemonsGiven = true;
  }
}
