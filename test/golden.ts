/**
 * What a real Linux IPVS did, recorded: the tests' truth. Nothing in it is written by hand. The recordings are read
 * from `../shared/oracle/golden` where that is, else from the packed copy in `test/golden` (see `golden-pack.ts`).
 */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliDecompressSync } from 'node:zlib';

const SHARED = fileURLToPath(new URL('../../shared/oracle/golden/', import.meta.url));
/** The packed copy: a file a folder, `rewrite.json.br`, which holds `{ "dr-tcp.json": "its text", … }`. */
export const PACKED = fileURLToPath(new URL('golden/', import.meta.url));

let root: string | undefined;

function recordings(): string {
  root ??= existsSync(SHARED) ? SHARED : unpack();
  return root;
}

/** Unpacks the copy once a user and project version; several test processes may do so at the same time. */
function unpack(): string {
  const packs = readdirSync(PACKED).filter(name => name.endsWith('.json.br'));
  const sizes = packs.map(name => readFileSync(join(PACKED, name)).length).join('-');
  const target = join(tmpdir(), `dirigo-golden-${process.getuid?.() ?? 0}-${sizes}`);
  if (existsSync(target)) return `${target}/`;
  const partial = mkdtempSync(join(tmpdir(), 'dirigo-golden-partial-'));
  for (const name of packs) {
    const files = unpackFolder(name);
    const folder = join(partial, basename(name, '.json.br'));
    mkdirSync(folder);
    for (const [file, text] of Object.entries(files))
      writeFileSync(join(folder, file), text, encodingOf(file));
  }
  try {
    renameSync(partial, target);
  } catch {
    // Another process was faster; its copy is the same.
    rmSync(partial, { recursive: true });
  }
  return `${target}/`;
}

/** How a file stands in a pack: text as it is, captures in base64. */
export function encodingOf(name: string): 'utf8' | 'base64' {
  return name.endsWith('.pcap') ? 'base64' : 'utf8';
}

/** The recordings in one pack, by file name, encoded as `encodingOf` says. */
export function unpackFolder(pack: string): Record<string, string> {
  return JSON.parse(brotliDecompressSync(readFileSync(join(PACKED, pack))).toString()) as Record<
    string,
    string
  >;
}

/** Where a recording lies, as `rewrite/dr-tcp.json`. */
export function goldenPath(name: string): string {
  return join(recordings(), name);
}

/** False where there is no such recording. */
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

/** The folder of the recordings that come with the project's surroundings, undefined in a clone alone. */
export function sharedRecordings(): string | undefined {
  return existsSync(SHARED) ? dirname(join(SHARED, 'x')) : undefined;
}
