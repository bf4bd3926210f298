/** A case: settings, and steps that a seed determines; played, and made smaller when it fails. */
import type { TestBed } from '../../src/datapath/xdp/test-bed.ts';
import type { Settings } from '../../src/ipvs/settings.ts';
import type { ForwardingMethod } from '../../src/ipvs/specification.ts';
import { Configurator, type Operation } from './configuration.ts';
import { type Difference, Paths } from './paths.ts';
import { Random } from './random.ts';
import { type ArrivingFrame, Traffic } from './traffic.ts';

export type Step =
  | { kind: 'administer'; operation: Operation }
  | { kind: 'frame'; frame: ArrivingFrame }
  /** Ticks. */
  | { kind: 'wait'; ticks: number };

export interface Failure {
  seed: number;
  settings: Partial<Settings>;
  steps: Step[];
  difference: string;
}

export interface CaseResult {
  packets: number;
  /** Those that the program handled by itself, and the ICMP errors among them. */
  sent: number;
  errorsSent: number;
  failure: Failure | undefined;
}

/** Packets between two comparisons of everything. */
const CHECK_INTERVAL = 50;
const SHRINKING_ATTEMPTS = 400;

/** Plays a case of `packets` packets. */
export function playCase(
  bed: TestBed,
  seed: number,
  packets: number,
  methods: readonly ForwardingMethod[],
): CaseResult {
  const random = new Random(seed);
  const configurator = new Configurator(random, methods);
  const settings = configurator.settings();
  const paths = new Paths(bed, settings, seed);
  const steps: Step[] = configurator.initial().map(operation => ({ kind: 'administer', operation }));
  let difference: Difference;
  for (const step of steps) difference ??= take(paths, step);
  const traffic = new Traffic(random, configurator.targets);
  let played = 0;
  while (difference === undefined && played < packets) {
    const step = nextStep(random, configurator, traffic);
    steps.push(step);
    difference = take(paths, step);
    if (step.kind !== 'frame') continue;
    traffic.observe(paths.observed);
    played++;
    if (played % CHECK_INTERVAL === 0) difference ??= paths.compareState();
  }
  difference ??= paths.compareState();
  const { sent, errorsSent } = paths;
  const failure = difference === undefined ? undefined : shrink(bed, { seed, settings, steps, difference });
  return { packets: played, sent, errorsSent, failure };
}

function nextStep(random: Random, configurator: Configurator, traffic: Traffic): Step {
  const choice = random.below(1000);
  if (choice < 4) return { kind: 'administer', operation: configurator.change() };
  if (choice < 30) {
    // Most timeouts are seconds or minutes.
    const ticks = random.chance(60)
      ? 1 + random.below(300)
      : random.pick([1000, 2500, 16_000, 31_000, 80_000, 230_000]);
    return { kind: 'wait', ticks };
  }
  return { kind: 'frame', frame: traffic.next() };
}

function take(paths: Paths, step: Step): Difference {
  switch (step.kind) {
    case 'administer':
      return paths.perform(step.operation);
    case 'wait':
      return paths.wait(step.ticks);
    case 'frame':
      return paths.receive(step.frame);
  }
}

/** Plays steps as they are, comparing everything after each. Returns what differs and how many steps that took. */
function replay(
  bed: TestBed,
  { settings, seed }: Pick<Failure, 'settings' | 'seed'>,
  steps: readonly Step[],
): { difference: string; taken: number } | undefined {
  const paths = new Paths(bed, settings, seed);
  for (const [index, step] of steps.entries()) {
    const difference = take(paths, step) ?? paths.compareState();
    if (difference !== undefined) return { difference, taken: index + 1 };
  }
  return undefined;
}

/** Cuts off what follows the first difference, then leaves out whatever is not needed for one. */
function shrink(bed: TestBed, failure: Failure): Failure {
  const first = replay(bed, failure, failure.steps);
  // Not the same without what the comparison in between did: it stays as it is.
  if (!first) return failure;
  let best: Failure = {
    ...failure,
    steps: failure.steps.slice(0, first.taken),
    difference: first.difference,
  };
  let attempts = 0;
  for (let size = Math.ceil(best.steps.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let end = best.steps.length; end > 0 && attempts < SHRINKING_ATTEMPTS; end -= size) {
      const begin = Math.max(0, end - size);
      const fewer = [...best.steps.slice(0, begin), ...best.steps.slice(end)];
      attempts++;
      const found = replay(bed, failure, fewer);
      if (found) best = { ...best, steps: fewer.slice(0, found.taken), difference: found.difference };
    }
  }
  return best;
}

/** A failure as somebody reads it who is to find its cause. */
export function failureText({ seed, settings, steps, difference }: Failure): string {
  const lines = steps.map((step, index) => `  ${index}: ${stepText(step)}`);
  return `seed ${seed}, settings ${JSON.stringify(settings)}, ${steps.length} steps:\n${lines.join('\n')}\n${difference}`;
}

function stepText(step: Step): string {
  switch (step.kind) {
    case 'administer':
      return JSON.stringify(step.operation);
    case 'wait':
      return `wait ${step.ticks} ticks`;
    case 'frame':
      return `${step.frame.on.name} receives ${Buffer.from(step.frame.bytes).toString('hex')}`;
  }
}
