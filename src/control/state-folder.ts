/**
 * The folder of the desired state: a snapshot, `state.json`, and journals of the revisions since, `journal-NUMBER.jsonl`,
 * named after their first. A snapshot replaces the last one whole or not at all, and journals older than it are kept for
 * `dirigo rollback`, as far as the history reaches.
 */
import {
  closeSync,
  existsSync,
  fsync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Journal, type Revision, readJournal, syncFolder } from './journal.ts';
import { StateModel } from './state-patch.ts';
import { parseStoredState } from './state-text.ts';

/** Revisions that can be gone back, at least, and bytes of journals beyond which older ones are given up. */
export const HISTORY = 1000;
const HISTORY_BYTES = 64 * 1024 * 1024;
/** Bytes of a journal after which a snapshot is taken and a new one begun. */
const LONGEST_JOURNAL = 16 * 1024 * 1024;
/** Revisions of a journal, likewise: journals are given up whole. */
const MOST_REVISIONS = 1000;
/** Letters of a snapshot that are written before others have their turn. */
const SLICE = 256 * 1024;

const synchronise = promisify(fsync);

interface Segment {
  path: string;
  revisions: number;
  bytes: number;
}

/** What was found in a folder. */
export interface StoredState {
  model: StateModel;
  /** The last revision; 0: none yet. */
  revision: number;
  /** The last ones, oldest first. */
  history: Revision[];
}

export class StateFolder {
  /** The snapshot's path. */
  readonly path: string;
  readonly #folder: string;
  /** Older journals, oldest first. */
  #segments: Segment[] = [];
  #journal: Journal | undefined;
  #revisions = 0;
  #snapshot: Promise<void> | undefined;
  #failure: string | undefined;

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

  /** Why the last snapshot could not be written, if it could not: the journal has all of it, and grows on. */
  get failure(): string | undefined {
    return this.#failure;
  }

  /**
   * Reads the state and opens the journal.
   * @throws Error that names the file if one is damaged
   */
  load(): StoredState {
    const { model, revision: begin } = this.#readSnapshot();
    let revision = begin;
    const history: Revision[] = [];
    const names = readdirSync(this.#folder).filter(name => /^journal-[0-9]{12}\.jsonl$/.test(name));
    for (const name of names.sort()) {
      const path = join(this.#folder, name);
      try {
        const isLast = name === names.at(-1);
        const { journal, revisions, bytes } = isLast ? openLast(path) : readOlder(path);
        for (const each of revisions) {
          const expected = history.at(-1)?.number ?? each.number - 1;
          if (each.number !== expected + 1) {
            throw new Error(`revision ${each.number} follows ${expected}`);
          }
          if (each.number > revision) {
            if (each.number !== revision + 1) {
              throw new Error(`revision ${revision + 1} is missing`);
            }
            model.apply(each.patch);
            revision = each.number;
          }
          history.push(each);
        }
        if (journal) {
          this.#journal = journal;
          this.#revisions = revisions.length;
        } else this.#segments.push({ path, revisions: revisions.length, bytes });
      } catch (error) {
        throw damaged(path, error);
      }
    }
    return { model, revision, history };
  }

  #readSnapshot(): { model: StateModel; revision: number } {
    let text: string;
    try {
      text = readFileSync(this.path, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { model: new StateModel(), revision: 0 };
      throw new Error(`cannot read the state: ${messageOf(error)}`);
    }
    try {
      const { state, revision } = parseStoredState(text);
      return { model: new StateModel(state), revision };
    } catch (error) {
      throw damaged(this.path, error);
    }
  }

  /**
   * Writes a revision; it is on disk when this settles.
   * @throws Error if it could not be written; it will not be found there then
   */
  async append(revision: Revision): Promise<void> {
    this.#journal ??= Journal.create(this.#journalPath(revision.number));
    await this.#journal.append(revision);
    this.#revisions++;
  }

  /** Takes a snapshot if the journal has become long; returns at once. @param model what all revisions so far amount to */
  tidy(model: StateModel, revision: number): void {
    const journal = this.#journal;
    if (!journal || this.#snapshot) return;
    if (journal.length < LONGEST_JOURNAL && this.#revisions < MOST_REVISIONS) return;
    this.#snapshot = this.#takeSnapshot(model, revision)
      .then(
        () => {
          this.#failure = undefined;
        },
        error => {
          this.#failure = `cannot write ${this.path}: ${messageOf(error)}`;
        },
      )
      .finally(() => {
        this.#snapshot = undefined;
      });
  }

  /** Waits for a snapshot that is being written, and closes the journal. */
  async close(): Promise<void> {
    await this.#snapshot;
    this.#journal?.close();
    this.#journal = undefined;
  }

  async #takeSnapshot(model: StateModel, revision: number): Promise<void> {
    // Revisions from now on go to a new journal; the old one stays until the snapshot that replaces it is there.
    const old = this.#journal as Journal;
    const next = Journal.create(this.#journalPath(revision + 1));
    this.#segments.push({ path: old.path, revisions: this.#revisions, bytes: old.length });
    this.#journal = next;
    this.#revisions = 0;
    old.close();
    const temporary = `${this.path}.new`;
    const file = openSync(temporary, 'w', 0o600);
    try {
      for (const slice of snapshotSlices({ ...model.sections }, [...model.services.values()], revision)) {
        writeSync(file, slice);
        await setImmediate();
      }
      await synchronise(file);
    } finally {
      closeSync(file);
    }
    renameSync(temporary, this.path);
    syncFolder(this.#folder);
    this.#forgetOld();
  }

  /** Removes journals that neither the state nor the history needs. */
  #forgetOld(): void {
    let revisions = 0;
    let bytes = 0;
    for (const segment of this.#segments.toReversed()) {
      if (revisions >= HISTORY || bytes + segment.bytes > HISTORY_BYTES) {
        rmSync(segment.path, { force: true });
        this.#segments.splice(this.#segments.indexOf(segment), 1);
      }
      revisions += segment.revisions;
      bytes += segment.bytes;
    }
  }

  #journalPath(revision: number): string {
    return join(this.#folder, `journal-${String(revision).padStart(12, '0')}.jsonl`);
  }
}

function openLast(path: string): { journal: Journal; revisions: Revision[]; bytes: number } {
  const { journal, revisions } = Journal.open(path);
  return { journal, revisions, bytes: journal.length };
}

function readOlder(path: string): { journal: undefined; revisions: Revision[]; bytes: number } {
  const { revisions, length } = readJournal(readFileSync(path));
  return { journal: undefined, revisions, bytes: length };
}

/** The text of a snapshot, a service a line, in slices. */
function* snapshotSlices(
  sections: StateModel['sections'],
  services: readonly string[],
  revision: number,
): Generator<string> {
  const { timeouts, syncDaemons, settings, marks, pins } = sections;
  yield `{"version":1,"revision":${revision},"timeouts":${timeouts},"syncDaemons":${syncDaemons},` +
    `"settings":${settings},"marks":${marks},"pins":${pins},"services":[\n`;
  let slice = '';
  for (const [index, text] of services.entries()) {
    slice += index === services.length - 1 ? `${text}\n` : `${text},\n`;
    if (slice.length > SLICE) {
      yield slice;
      slice = '';
    }
  }
  yield `${slice}]}\n`;
}

function damaged(path: string, error: unknown): Error {
  return new Error(`${path} cannot be restored (${messageOf(error)}): mend it or move it away`);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/**
 * Removes the state from a folder, and the folder if nothing else is in it. No daemon may be using it.
 * @returns false if there was none
 */
export function removeState(folder: string): boolean {
  const found = existsSync(folder)
    ? readdirSync(folder).filter(name => /^(state\.json(\.new)?|journal-[0-9]{12}\.jsonl)$/.test(name))
    : [];
  for (const name of found) rmSync(join(folder, name));
  try {
    rmdirSync(folder);
  } catch {
    // Something of others is in it, or it was not there.
  }
  return found.length > 0;
}
