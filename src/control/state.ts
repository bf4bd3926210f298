/** The desired state: all that an administrator configured, as one JSON file that is replaced whole or not at all. */
import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Director } from '../ipvs/director.ts';
import { formatMarkRule, MarkRules, parseMarkRule } from '../ipvs/mark-rules.ts';
import { DEFAULT_SETTINGS, settingName } from '../ipvs/settings.ts';
import type {
  DestinationSpecification,
  ServiceSpecification,
  SyncDaemon,
  Timeouts,
} from '../ipvs/specification.ts';

export interface DesiredState {
  version: 1;
  timeouts: Timeouts;
  syncDaemons: SyncDaemon[];
  /** Oldest first, so that adding them in this order brings back the director's. */
  services: (ServiceSpecification & { destinations: DestinationSpecification[] })[];
  /** Settings that are not at their default. */
  settings?: Record<string, number>;
  /** Rules of firewall marks, as `parseMarkRule` reads them. */
  marks?: string[];
}

/** What the director is configured to be. */
export function captureState(director: Director): DesiredState {
  const server = director.administration;
  const settings = Object.entries(director.settings).filter(
    ([name, value]) => value !== DEFAULT_SETTINGS[settingName(name)],
  );
  return {
    version: 1,
    timeouts: server.timeouts(),
    syncDaemons: server.syncDaemons(),
    services: server
      .services()
      .reverse()
      .map(({ statistics: _, localAddressUse: __, destinations, ...service }) => ({
        ...service,
        destinations: destinations.toReversed().map(destination => ({
          address: destination.address,
          port: destination.port,
          method: destination.method,
          weight: destination.weight,
          upperThreshold: destination.upperThreshold,
          lowerThreshold: destination.lowerThreshold,
          tunnelType: destination.tunnelType,
          tunnelPort: destination.tunnelPort,
          tunnelChecksum: destination.tunnelChecksum,
        })),
      })),
    ...(settings.length > 0 ? { settings: Object.fromEntries(settings) } : {}),
    ...(director.marks.rules.length > 0 ? { marks: director.marks.rules.map(formatMarkRule) } : {}),
  };
}

/**
 * Configures an empty director so.
 * @param interfaceIndex the number of an interface that a mark rule names
 */
export function applyState(
  director: Director,
  state: DesiredState,
  interfaceIndex: (name: string) => number | undefined,
): void {
  const server = director.administration;
  for (const [name, value] of Object.entries(state.settings ?? {})) director.set(name, String(value));
  director.marks = new MarkRules((state.marks ?? []).map(parseMarkRule), interfaceIndex);
  server.setTimeouts(state.timeouts);
  for (const { destinations, ...service } of state.services) {
    server.addService(service);
    for (const destination of destinations) server.addDestination(service.key, destination);
  }
  for (const daemon of state.syncDaemons) server.startSyncDaemon(daemon);
}

/** The state in a folder. */
export class StateFile {
  readonly path: string;
  readonly #folder: string;
  #saved = '';

  /** @throws Error if the folder cannot be made */
  constructor(folder: string) {
    this.#folder = folder;
    this.path = join(folder, 'state.json');
    try {
      mkdirSync(folder, { recursive: true, mode: 0o700 });
    } catch (error) {
      throw new Error(`cannot make the folder of the state: ${messageOf(error)}`);
    }
  }

  /**
   * The state that was saved last, undefined if there is none yet.
   * @throws Error that names the file if it is damaged
   */
  load(): DesiredState | undefined {
    let text: string;
    try {
      text = readFileSync(this.path, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw new Error(`cannot read the state: ${messageOf(error)}`);
    }
    try {
      const state: unknown = JSON.parse(text);
      checkState(state);
      this.#saved = text;
      return state;
    } catch (error) {
      throw this.#damaged(error);
    }
  }

  /**
   * Configures an empty director as the state says.
   * @throws Error that names the file if the director refuses something in it
   */
  restore(director: Director, interfaceIndex: (name: string) => number | undefined): void {
    const state = this.load();
    if (!state) return;
    try {
      applyState(director, state, interfaceIndex);
    } catch (error) {
      throw this.#damaged(error);
    }
  }

  #damaged(error: unknown): Error {
    return new Error(`${this.path} cannot be restored (${messageOf(error)}): mend it or move it away`);
  }

  /** Writes the state, to disk and all, before it returns; nothing if it is the one that is there. */
  save(state: DesiredState): void {
    const text = `${JSON.stringify(state)}\n`;
    if (text === this.#saved) return;
    const temporary = `${this.path}.new`;
    const file = openSync(temporary, 'w', 0o600);
    try {
      writeFileSync(file, text);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(temporary, this.path);
    const folder = openSync(this.#folder, 'r');
    try {
      fsyncSync(folder);
    } finally {
      closeSync(folder);
    }
    this.#saved = text;
  }
}

/** Checks the frame of it; the values are checked by the server that takes them. */
function checkState(state: unknown): asserts state is DesiredState {
  if (typeof state !== 'object' || state === null) throw new Error('it is no JSON object');
  const { version, timeouts, services, syncDaemons } = state as Partial<Record<keyof DesiredState, unknown>>;
  if (version !== 1) throw new Error(`its version ${JSON.stringify(version)} is not known`);
  if (typeof timeouts !== 'object' || timeouts === null) throw new Error('it has no timeouts');
  if (!Array.isArray(services) || !Array.isArray(syncDaemons))
    throw new Error('it has no services or daemons');
  for (const service of services as Partial<DesiredState['services'][number]>[]) {
    if (typeof service?.key !== 'object' || !Array.isArray(service.destinations)) {
      throw new Error('a service in it has no key or no destinations');
    }
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
