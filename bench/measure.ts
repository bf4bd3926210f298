/** Taking times, and printing them beside what they are held against. */

/** The least nanoseconds an operation took, over `runs` runs of `operations` each. */
export function nanoseconds(operations: number, runs: number, run: () => void): number {
  let least = Number.POSITIVE_INFINITY;
  for (let round = 0; round < runs; round++) {
    const begin = process.hrtime.bigint();
    run();
    least = Math.min(least, Number(process.hrtime.bigint() - begin) / operations);
  }
  return least;
}

export interface Row {
  what: string;
  value: number;
  unit: string;
  /** The most it may be; undefined: only shown. */
  target?: number;
}

/** Prints a row; a missed target is said plainly. */
export function report({ what, value, unit, target }: Row): void {
  const verdict =
    target === undefined ? '' : value <= target ? `(target ${target}: met)` : `(target ${target}: MISSED)`;
  process.stdout.write(`  ${what.padEnd(58)} ${value.toFixed(1).padStart(9)} ${unit.padEnd(9)} ${verdict}\n`);
}

export function heading(text: string): void {
  process.stdout.write(`\n${text}\n`);
}

/** Says how many times as much one is as the other, and whether that is what was aimed at. */
export function reportRatio(what: string, ratio: number, target: number): void {
  const verdict = ratio >= target ? 'met' : 'MISSED';
  process.stdout.write(
    `  ${what.padEnd(30)} ${ratio.toFixed(2).padStart(7)} times  (target ${target}: ${verdict})\n`,
  );
}
