/** Checks a scenario: plays it and compares with what it says. */
import { comparePackets, compareScheduling, type Difference } from './comparison.ts';
import { type PlayOptions, playPackets } from './packet-play.ts';
import type { Scenario } from './scenario.ts';
import { playScheduling } from './scheduling-play.ts';

/** Jiffies after which the part of the timer wheel repeats that timers of up to 17 minutes use. */
const WHEEL = 4096;
/** Jiffies between two phases that are tried: 0.26 s, an eighth of a slot for timers of 16 to 129 seconds. */
const PHASE_STEP = 64;

/**
 * What differs. A recording does not tell where the kernel's timer wheel stood when it began, which decides by up to
 * seconds when connections end: if it agrees with what is played at one of the positions, nothing differs.
 * @param file for errors
 * @throws ScenarioError
 */
export function checkScenario(scenario: Scenario, file: string, options: PlayOptions = {}): Difference[] {
  const differences = checkOnce(scenario, file, options);
  if (differences.length === 0 || options.timerPhase !== undefined || !takesTime(scenario))
    return differences;
  for (let timerPhase = 0; timerPhase < WHEEL; timerPhase += PHASE_STEP) {
    if (checkOnce(scenario, file, { ...options, timerPhase }).length === 0) return [];
  }
  return differences;
}

function checkOnce({ kind, scenario }: Scenario, file: string, options: PlayOptions): Difference[] {
  if (kind === 'scheduling') return compareScheduling(scenario, playScheduling(scenario, file, options));
  return comparePackets(scenario, playPackets(scenario, file, { ...options, listings: 'asked' }));
}

/** True if the scenario is long enough for timers to run out: the shortest take two seconds. */
function takesTime({ scenario }: Scenario): boolean {
  const steps: readonly { op: string; t?: number }[] = scenario.steps;
  return steps.some(({ op, t }) => op === 'sleep' || (t ?? 0) > 2);
}
