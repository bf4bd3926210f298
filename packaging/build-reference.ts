/**
 * Writes manual pages and completions: `node packaging/build-reference.ts [directory]`, by default under dist/. They are
 * made from the commands' definitions each time and never kept, so they cannot be out of date.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SHELLS } from '../src/cli/completion.ts';
import { createProgram } from '../src/cli/program.ts';
import { completionFiles, manualFiles } from '../src/cli/reference/reference.ts';

const root = join(import.meta.dirname, '..');

/** Day that the pages name: that of `SOURCE_DATE_EPOCH` (seconds), else today. */
function date(): string {
  const { SOURCE_DATE_EPOCH: epoch } = process.env;
  return new Date(epoch ? Number(epoch) * 1000 : Date.now()).toISOString().slice(0, 10);
}

/** Writes `man/NAME.8` and `completions/SHELL/FILE` under the directory. */
export function buildReference(directory: string): void {
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
  const program = createProgram();
  write(join(directory, 'man'), manualFiles(program, { date: date(), version }));
  for (const shell of SHELLS) write(join(directory, 'completions', shell), completionFiles(program, shell));
}

function write(directory: string, files: ReadonlyMap<string, string>): void {
  mkdirSync(directory, { recursive: true });
  for (const [name, text] of files) writeFileSync(join(directory, name), text);
}

if (import.meta.main) buildReference(process.argv[2] ?? join(root, 'dist'));
