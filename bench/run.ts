/** Runs the benchmarks named on the command line, or all of them: `npm run bench -- director`. */
import { directorBenchmark } from './director.ts';

const benchmarks: ReadonlyMap<string, () => void | Promise<void>> = new Map([
  ['director', directorBenchmark],
]);

const names = process.argv.slice(2);
for (const name of names) {
  if (!benchmarks.has(name)) {
    console.error(`bench: there is no "${name}"; there are: ${[...benchmarks.keys()].join(', ')}`);
    process.exit(2);
  }
}
for (const [name, run] of benchmarks) if (names.length === 0 || names.includes(name)) await run();
