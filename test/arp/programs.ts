/** How tests run `dirigo`. */
import { fileURLToPath } from 'node:url';

const ENTRY = fileURLToPath(new URL('../../src/cli/dirigo.ts', import.meta.url));

/** The command line of `dirigo` with these words, in the Node that runs this. */
export function dirigo(...words: string[]): [string, ...string[]] {
  return [process.execPath, ENTRY, ...words];
}
