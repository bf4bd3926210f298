/**
 * The journal of the desired state: a file that only grows, a line for each revision. A line is the CRC-32 of what follows
 * in eight hexadecimal digits, a blank, and JSON.
 *
 *     7d0c2a51 {"revision":42,"at":"2026-11-28T05:50:00.000Z","cause":"ipvsadm -A -t 10.0.0.3:80","services":[…],"sections":{}}
 *
 * Whatever moment a crash chooses, what was acknowledged is there: a line counts once it is whole, and only the last one
 * can be anything else.
 */
import { closeSync, fdatasync, fsyncSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { crc32 } from 'node:zlib';
import type { Patch, Section, ServiceStep } from './state-patch.ts';

/** One acknowledged change of the desired state. */
export interface Revision {
  /** 1, 2, 3 … */
  number: number;
  /** When, ISO 8601. */
  at: string;
  /** What made it, for people: `ipvsadm -A -t 10.0.0.3:80`. */
  cause: string;
  patch: Patch;
}

const NEWLINE = 0x0a;
/** Eight digits and a blank. */
const HEAD = 9;
/** Letters of a cause that are kept. */
const LONGEST_CAUSE = 200;

const synchronise = promisify(fdatasync);

/** The line of a revision, newline included. */
export function revisionLine({ number, at, cause, patch }: Revision): string {
  const services = patch.services.map(
    ({ name, before, after, at: place }) =>
      `{"name":${JSON.stringify(name)},"before":${before},"after":${after}${place === undefined ? '' : `,"at":${place}`}}`,
  );
  const sections = Object.entries(patch.sections).map(
    ([name, { before, after }]) => `"${name}":{"before":${before},"after":${after}}`,
  );
  const order = patch.order ? `,"order":${JSON.stringify(patch.order)}` : '';
  const text =
    `{"revision":${number},"at":"${at}","cause":${JSON.stringify(cause.slice(0, LONGEST_CAUSE))},` +
    `"services":[${services.join(',')}],"sections":{${sections.join(',')}}${order}}`;
  return `${crc32(text).toString(16).padStart(8, '0')} ${text}\n`;
}

/** @throws Error if the text is not what `revisionLine` wrote */
function parseRevision(bytes: Buffer): Revision {
  const text = bytes.toString('utf8', HEAD);
  if (crc32(text) !== Number.parseInt(bytes.toString('latin1', 0, HEAD - 1), 16)) {
    throw new Error('its checksum does not fit');
  }
  const { revision, at, cause, services, sections, order } = JSON.parse(text);
  const textOrNull = (value: unknown): string | null => (value === null ? null : JSON.stringify(value));
  return {
    number: revision,
    at,
    cause,
    patch: {
      services: services.map((step: ServiceStep) => ({
        ...step,
        before: textOrNull(step.before),
        after: textOrNull(step.after),
      })),
      sections: Object.fromEntries(
        Object.entries(sections as Record<Section, { before: unknown; after: unknown }>).map(
          ([name, { before, after }]) => [
            name,
            { before: JSON.stringify(before), after: JSON.stringify(after) },
          ],
        ),
      ),
      ...(order && { order }),
    },
  };
}

export interface JournalContents {
  revisions: Revision[];
  /** Bytes up to the end of the last whole line. */
  length: number;
}

/**
 * Reads a journal's bytes. What follows the last whole line was never acknowledged and is left out.
 * @throws Error if a line is damaged that others follow
 */
export function readJournal(bytes: Buffer): JournalContents {
  const revisions: Revision[] = [];
  let length = 0;
  let damage: string | undefined;
  for (let at = 0, end = bytes.indexOf(NEWLINE); end >= 0; at = end + 1, end = bytes.indexOf(NEWLINE, at)) {
    let revision: Revision;
    try {
      revision = parseRevision(bytes.subarray(at, end));
    } catch (error) {
      damage ??= `line ${revisions.length + 1} is damaged: ${(error as Error).message}`;
      continue;
    }
    // A line that was not finished is the last one.
    if (damage !== undefined) throw new Error(damage);
    revisions.push(revision);
    length = end + 1;
  }
  return { revisions, length };
}

/** A journal open for writing. */
export class Journal {
  readonly path: string;
  #file: number;
  #length: number;
  #isBroken = false;

  private constructor(path: string, file: number, length: number) {
    this.path = path;
    this.#file = file;
    this.#length = length;
  }

  /** Begins a journal; it is in its folder for good when this returns. */
  static create(path: string): Journal {
    const journal = new Journal(path, openSync(path, 'ax', 0o600), 0);
    syncFolder(dirname(path));
    return journal;
  }

  /** Goes on with one, without what was not acknowledged at its end. @throws Error if it is damaged */
  static open(path: string): { journal: Journal; revisions: Revision[] } {
    const { revisions, length } = readJournal(readFileSync(path));
    const file = openSync(path, 'a', 0o600);
    ftruncateSync(file, length);
    fsyncSync(file);
    return { journal: new Journal(path, file, length), revisions };
  }

  /** Bytes. */
  get length(): number {
    return this.#length;
  }

  /**
   * Writes a revision; on disk when this settles.
   * @throws Error if it could not be; then it is not there after a restart either
   */
  async append(revision: Revision): Promise<void> {
    if (this.#isBroken) throw new Error(`${this.path} could not be mended after a failed write`);
    const bytes = Buffer.from(revisionLine(revision));
    try {
      for (let written = 0; written < bytes.length; ) written += writeSync(this.#file, bytes, written);
      await synchronise(this.#file);
      this.#length += bytes.length;
    } catch (error) {
      this.#takeBack();
      throw error;
    }
  }

  #takeBack(): void {
    try {
      ftruncateSync(this.#file, this.#length);
      fsyncSync(this.#file);
    } catch {
      this.#isBroken = true;
    }
  }

  close(): void {
    closeSync(this.#file);
  }
}

/** Makes names in a folder last. */
export function syncFolder(folder: string): void {
  const file = openSync(folder, 'r');
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}
