/**
 * Runs the benchmarks named on the command line, or all of them: `npm run bench -- director`. A name may be followed by
 * a file that its figures go to: `npm run bench -- xdp=figures.json`. While a program is being made faster, one case with
 * few repeats says enough: `npm run bench -- xdp --only DR --flows 1,10000 --runs 5 --object other.bpf.o`.
 */
import { parseArgs } from 'node:util';
import { captureBenchmark } from './capture.ts';
import { directorBenchmark } from './director.ts';
import { guardBenchmark } from './guard.ts';
import { ipvsadmBenchmark } from './ipvsadm.ts';
import { pathBenchmark } from './path.ts';
import { stateBenchmark } from './state.ts';
import { type Selection, xdpBenchmark } from './xdp.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    only: { type: 'string' },
    flows: { type: 'string' },
    runs: { type: 'string' },
    object: { type: 'string' },
  },
});
const selection: Selection = {
  only: values.only ?? '',
  flows: values.flows?.split(',').map(Number) ?? [],
  runs: Number(values.runs ?? 9),
  ...(values.object === undefined ? {} : { object: values.object }),
};
if (!(selection.runs >= 1) || selection.flows.some(flows => !(flows >= 1))) {
  console.error('bench: --runs and --flows take numbers of 1 and more, the latter with commas between them');
  process.exit(2);
}

const benchmarks: ReadonlyMap<string, (file?: string) => void | Promise<void>> = new Map([
  ['director', directorBenchmark],
  ['xdp', (file?: string) => xdpBenchmark(selection, file)],
  ['path', pathBenchmark],
  ['capture', captureBenchmark],
  ['state', stateBenchmark],
  ['ipvsadm', ipvsadmBenchmark],
  ['guard', guardBenchmark],
]);

const chosen = new Map(
  positionals.map(word => {
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
