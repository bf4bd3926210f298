/**
 * Runs the benchmarks named on the command line, or all of them: `npm run bench -- director`. A name may be followed by
 * a file that its figures go to: `npm run bench -- xdp=figures.json`.
 */
import { directorBenchmark } from './director.ts';
import { pathBenchmark } from './path.ts';
import { stateBenchmark } from './state.ts';
import { xdpBenchmark } from './xdp.ts';

const benchmarks: ReadonlyMap<string, (file?: string) => void | Promise<void>> = new Map([
  ['director', directorBenchmark],
  ['xdp', xdpBenchmark],
  ['path', pathBenchmark],
  ['state', stateBenchmark],
]);

const chosen = new Map(
  process.argv.slice(2).map(word => {
    const [name = '', file] = word.split('=');
    return [name, file] as const;
  }),
);
for (const name of chosen.keys()) {
  if (!benchmarks.has(name)) {
    console.error(`bench: there is no "${name}"; there are: ${[...benchmarks.keys()].join(', ')}`);
    process.exit(2);
  }
}
for (const [name, run] of benchmarks) {
  if (chosen.size === 0 || chosen.has(name)) await run(chosen.get(name));
}
