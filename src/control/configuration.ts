/**
 * The configuration of a running daemon: the only way to it. Edits happen one after the other, each whole or not at all,
 * and are on disk before they are acknowledged. Every acknowledged edit is a revision, and one can go back to the last
 * ones.
 */
import type { Datapath } from '../datapath/datapath.ts';
import type { ConfigurationChange } from '../ipvs/configuration-change.ts';
import type { Director } from '../ipvs/director.ts';
import { type ServiceKey, serviceKeyText } from '../ipvs/specification.ts';
import { applyPatch } from './apply-patch.ts';
import { captureSections, captureService, captureState, type DesiredState } from './desired-state.ts';
import type { Revision } from './journal.ts';
import type { Log } from './log.ts';
import { describePatch, type Plan } from './plan.ts';
import { HISTORY, type StateFolder } from './state-folder.ts';
import {
  inverted,
  isEmpty,
  type Patch,
  patchBetween,
  SECTIONS,
  type Section,
  type ServiceStep,
  StateModel,
  withPlaces,
} from './state-patch.ts';
import type { PartialState } from './state-text.ts';

export interface ConfigurationOptions {
  datapath: Pick<Datapath, 'director' | 'interfaceIndex' | 'now'>;
  /** Where it is kept; undefined: it lasts as long as the process. */
  folder?: StateFolder | undefined;
  /** Milliseconds since 1970. Default: `Date.now`. */
  wallClock?: () => number;
  /** Where it is told that somebody who follows the configuration has failed. */
  log?: Log | undefined;
}

/** An edit that was acknowledged, for those who observe the configuration. */
export interface AcknowledgedEdit {
  revision: Revision;
  /** What changed, in its order. */
  changes: readonly ConfigurationChange[];
}

/** The edit was taken back because it could not be written to disk. */
export class StateNotKept extends Error {
  override name = 'StateNotKept';
}

/** A revision that cannot be gone to; the message says which there are. */
export class RevisionError extends Error {
  override name = 'RevisionError';
}

/** Letters of old revisions that are remembered for going back. */
const HISTORY_LETTERS = 64 * 1024 * 1024;

const SECTION_OF: Readonly<Partial<Record<ConfigurationChange['kind'], Section>>> = {
  timeouts: 'timeouts',
  'daemon-started': 'syncDaemons',
  'daemon-stopped': 'syncDaemons',
  setting: 'settings',
  marks: 'marks',
  pins: 'pins',
};

export class Configuration {
  readonly #director: Director;
  readonly #datapath: ConfigurationOptions['datapath'];
  readonly #folder: StateFolder | undefined;
  readonly #wallClock: () => number;
  readonly #log: Log | undefined;
  /** What was acknowledged last. */
  #model = new StateModel();
  #revision = 0;
  readonly #history: { revision: Revision; letters: number }[] = [];
  #historyLetters = 0;
  readonly #listeners = new Set<(edit: AcknowledgedEdit) => void>();
  /** What changed since the last acknowledged edit. */
  #changes: ConfigurationChange[] = [];
  /** Settles when the edits that were asked for are through. */
  #queue: Promise<unknown> = Promise.resolve();

  /** The director's configuration as it is now is the first state; `restore` brings back an older one. */
  constructor(options: ConfigurationOptions) {
    this.#datapath = options.datapath;
    this.#director = options.datapath.director;
    this.#folder = options.folder;
    this.#wallClock = options.wallClock ?? Date.now;
    this.#log = options.log;
    this.#model = new StateModel(captureState(this.#director));
    this.#director.administration.observe(change => this.#changes.push(change));
  }

  /**
   * Brings back what the folder holds, into a director without services.
   * @throws Error that names the file, if one is damaged or the director refuses something in it
   */
  restore(): void {
    const folder = this.#folder;
    if (!folder) return;
    const { model, revision, history } = folder.load();
    try {
      this.#become(model);
    } catch (error) {
      throw new Error(
        `${folder.path} cannot be restored (${(error as Error).message}): mend it or move it away`,
      );
    }
    this.#changes = [];
    this.#model = new StateModel(captureState(this.#director));
    this.#revision = revision;
    for (const each of history) this.#remember(each);
    folder.tidy(this.#model, revision);
  }

  /** Number of the last revision; 0: none yet. */
  get revision(): number {
    return this.#revision;
  }

  /** Where the state is kept; null: nowhere. */
  get path(): string | null {
    return this.#folder?.path ?? null;
  }

  /** The state that was acknowledged last. */
  state(): DesiredState {
    return this.#model.state();
  }

  /** The revisions that can be gone back, newest first. */
  revisions(): Revision[] {
    return this.#history.map(({ revision }) => revision).reverse();
  }

  /** Has `listener` told of every edit once it is on disk; what it throws is logged. Returns what ends it. */
  observe(listener: (edit: AcknowledgedEdit) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Does something to the director's configuration, after all that was asked for before. When this settles it is on disk;
   * if that fails, or if `work` throws, nothing has changed.
   * @param cause what is done, for people
   * @throws what `work` throws; StateNotKept
   */
  edit<Result>(cause: string, work: () => Result | Promise<Result>): Promise<Result> {
    const done = this.#queue.then(() => this.#edit(cause, work));
    this.#queue = done.catch(() => {});
    return done;
  }

  async #edit<Result>(cause: string, work: () => Result | Promise<Result>): Promise<Result> {
    let result: Result;
    this.#director.administration.now = this.#datapath.now();
    try {
      result = await work();
    } catch (error) {
      this.#takeBack();
      throw error;
    }
    const changes = this.#changes;
    const patch = this.#patch();
    this.#changes = [];
    if (isEmpty(patch)) return result;
    const revision: Revision = {
      number: this.#revision + 1,
      at: new Date(this.#wallClock()).toISOString(),
      cause,
      patch,
    };
    const folder = this.#folder;
    try {
      await folder?.append(revision);
    } catch (error) {
      this.#changes.push(...changes);
      this.#takeBack();
      throw new StateNotKept(
        `nothing was changed, because the state cannot be written: ${(error as Error).message}`,
      );
    }
    this.#model.apply(patch);
    this.#revision = revision.number;
    this.#remember(revision);
    folder?.tidy(this.#model, revision.number);
    this.#tell({ revision, changes });
    return result;
  }

  /**
   * What `apply` would change, and whom that affects.
   * @param clients affected clients that are listed at most
   */
  plan(target: PartialState, clients = 0): Plan {
    return this.#describe(this.#model.with(target), clients);
  }

  /** What `rollback` would change. @throws RevisionError */
  planRollback(number: number = this.#revision - 1, clients = 0): Plan {
    return this.#describe(this.modelAt(number), clients);
  }

  #describe(target: StateModel, clients: number): Plan {
    this.#director.administration.now = this.#datapath.now();
    const patch = patchBetween(this.#model, target);
    return describePatch(this.#director, patch, { revision: this.#revision, clients });
  }

  /**
   * Makes the configuration `target`, within one turn; what it leaves out stays.
   * @param revision only if this is the last revision still
   * @returns the plan that was carried out
   * @throws RevisionError; what the director refuses. Nothing has changed then.
   */
  apply(cause: string, target: PartialState, revision?: number): Promise<Plan> {
    return this.edit(cause, () => {
      if (revision !== undefined && revision !== this.#revision) {
        throw new RevisionError(
          `the configuration is at revision ${this.#revision}, not at ${revision} any more: look at the plan again`,
        );
      }
      const model = this.#model.with(target);
      const plan = this.#describe(model, 0);
      this.#become(model);
      return plan;
    });
  }

  /**
   * Goes back to the state after revision `number` (0: the one before the first).
   * @param number undefined: the one before the last
   * @returns the number it went to, and the plan that was carried out
   * @throws RevisionError if that is not remembered; what the director refuses
   */
  rollback(number?: number): Promise<{ to: number; plan: Plan }> {
    return this.edit(number === undefined ? 'rollback' : `rollback --to ${number}`, () => {
      const to = number ?? this.#revision - 1;
      const model = this.modelAt(to);
      const plan = this.#describe(model, 0);
      this.#become(model);
      return { to, plan };
    });
  }

  /**
   * The state after a revision.
   * @throws RevisionError
   */
  modelAt(number: number): StateModel {
    const oldest = this.#revision - this.#history.length;
    if (this.#history.length === 0) {
      throw new RevisionError('there is nothing to go back to: nothing has changed yet');
    }
    if (!Number.isInteger(number) || number < oldest || number > this.#revision) {
      throw new RevisionError(
        `revision ${number} is not remembered: there are ${oldest} to ${this.#revision}`,
      );
    }
    const model = this.#model.copy();
    for (const { revision } of this.#history
      .slice(this.#history.length - (this.#revision - number))
      .reverse()) {
      model.apply(inverted(revision.patch));
    }
    return model;
  }

  /** Waits for the edits that were asked for. */
  async settled(): Promise<void> {
    await this.#queue;
  }

  /** Waits for edits under way, then closes the folder. */
  async close(): Promise<void> {
    await this.#queue;
    await this.#folder?.close();
  }

  #become(target: StateModel): void {
    this.#take(patchBetween(this.#model, target));
  }

  #take(patch: Patch): void {
    this.#director.administration.now = this.#datapath.now();
    applyPatch(this.#director, patch, name => this.#datapath.interfaceIndex(name));
  }

  /** The step from what was acknowledged last to what the director is configured to be. */
  #patch(): Patch {
    const keys = new Map<string, ServiceKey>();
    const touched = new Set<Section>();
    let mayBeArranged = false;
    for (const change of this.#changes) {
      const section = SECTION_OF[change.kind];
      if (section) touched.add(section);
      if ('service' in change) {
        const key = 'key' in change.service ? change.service.key : change.service;
        keys.set(serviceKeyText(key), key);
      }
      mayBeArranged ||= /^service-(added|deleted)$|^services-arranged$/.test(change.kind);
    }
    const after = new Map<string, string>();
    for (const [name, key] of keys) {
      const service = this.#director.administration.serviceObject(key);
      if (service) after.set(name, JSON.stringify(captureService(service)));
    }
    const services: ServiceStep[] = [];
    for (const name of keys.keys()) {
      const step = { name, before: this.#model.services.get(name) ?? null, after: after.get(name) ?? null };
      if (step.before !== step.after) services.push(step);
    }
    const patch: Patch = { services: withPlaces(services, this.#model), sections: this.#sections(touched) };
    if (!mayBeArranged) return patch;
    const reached = this.#model.copy();
    reached.apply(patch);
    const names = [...this.#director.administration.serviceObjects()].map(({ name }) => name).reverse();
    const isSameOrder = [...reached.services.keys()].every((name, index) => name === names[index]);
    return isSameOrder
      ? patch
      : { ...patch, order: { before: [...this.#model.services.keys()], after: names } };
  }

  #sections(touched: ReadonlySet<Section>): Patch['sections'] {
    if (touched.size === 0) return {};
    const captured = captureSections(this.#director);
    const sections: Partial<Record<Section, { before: string; after: string }>> = {};
    for (const section of SECTIONS) {
      const step = { before: this.#model.sections[section], after: JSON.stringify(captured[section]) };
      if (step.before !== step.after) sections[section] = step;
    }
    return sections;
  }

  /** Undoes what was not acknowledged. */
  #takeBack(): void {
    const patch = this.#patch();
    if (!isEmpty(patch)) this.#take(inverted(patch));
    this.#changes = [];
  }

  #remember(revision: Revision): void {
    const { services } = revision.patch;
    const letters = services.reduce(
      (sum, { before, after }) => sum + (before?.length ?? 0) + (after?.length ?? 0),
      0,
    );
    this.#history.push({ revision, letters });
    this.#historyLetters += letters;
    while (
      this.#history.length > 1 &&
      (this.#history.length > HISTORY || this.#historyLetters > HISTORY_LETTERS)
    ) {
      this.#historyLetters -= this.#history.shift()?.letters ?? 0;
    }
  }

  #tell(edit: AcknowledgedEdit): void {
    for (const listener of this.#listeners) {
      try {
        listener(edit);
      } catch (error) {
        const { message, stack } = error as Error;
        this.#log?.error('a follower of the configuration failed', {
          revision: edit.revision.number,
          problem: message,
          stack,
        });
      }
    }
  }
}
