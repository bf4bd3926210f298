// Runs the tests: all of them, or the files named. Says at the end, in one place, what was left out and why.
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
process.chdir(root);
const files = process.argv.slice(2);
if (files.length === 0) files.push('src/**/*.test.ts', 'test/**/*.test.ts');

const result = spawnSync(
  // The pinned one, whatever runs this file.
  join(root, 'node_modules/.bin/node'),
  [
    '--test',
    '--test-reporter=./setup/reporter.mjs',
    '--test-reporter-destination=stdout',
    '--test-timeout=300000',
    ...files,
  ],
  { stdio: 'inherit' },
);
process.exit(result.status ?? 1);
