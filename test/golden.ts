/**
 * What a real Linux IPVS did, recorded (`shared/oracle/golden`): the tests' truth. Nothing in it is written by hand.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const RECORDINGS = fileURLToPath(new URL('../../shared/oracle/golden/', import.meta.url));

/** Where a recording lies, as `rewrite/dr-tcp.json`. */
export function goldenPath(name: string): string {
  return `${RECORDINGS}${name}`;
}

/** False where the recordings are not there; a test that needs them skips and says so. */
export function goldenExists(name = ''): boolean {
  return existsSync(goldenPath(name));
}

/** The recordings of a folder without their ending, sorted: `goldenNames('rewrite')` holds `dr-tcp`. */
export function goldenNames(folder: string): string[] {
  return readdirSync(goldenPath(folder))
    .filter(name => /\.jsonl?$/.test(name))
    .map(name => name.replace(/\.jsonl?$/, ''))
    .sort();
}

/** A recording that is one JSON value. */
export function goldenJson<T>(name: string): T {
  return JSON.parse(readFileSync(goldenPath(name), 'utf8')) as T;
}

/** A recording of one JSON value a line. */
export function goldenLines<T>(name: string): T[] {
  return readFileSync(goldenPath(name), 'utf8')
    .split('\n')
    .filter(line => line !== '')
    .map(line => JSON.parse(line) as T);
}
