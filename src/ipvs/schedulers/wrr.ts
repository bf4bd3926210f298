import type { Plan, PlanChange, Scheduler, SchedulerServer } from '../plan.ts';

/**
 * Weighted round robin (ip_vs_wrr.c). Adding, editing or deleting a server goes back to the head of the list but
 * keeps the weight of the pass under way, as far as the new weights have such a pass.
 */
export const wrr: Scheduler = {
  name: 'wrr',
  compile: (servers, _flags, change, previous) => {
    const step = commonDivisor(servers);
    const greatest = servers.reduce((most, server) => Math.max(most, server.weight), 0);
    const maximum = greatest - (step - 1);
    return {
      kind: 'sequence',
      weighted: true,
      destinations: Int32Array.from(servers, server => server.index),
      step,
      maximum,
      ...placeKept(change, previous, step, maximum),
    };
  },
};

function commonDivisor(servers: readonly SchedulerServer[]): number {
  let divisor = 0;
  for (const { weight } of servers) {
    let [larger, smaller] = [divisor, weight];
    while (smaller > 0) [larger, smaller] = [smaller, larger % smaller];
    divisor = larger;
  }
  return divisor || 1;
}

function placeKept(
  change: PlanChange,
  previous: Plan | undefined,
  step: number,
  maximum: number,
): { cursor: number; currentWeight: number } {
  if (previous?.kind !== 'sequence' || !previous.weighted) return { cursor: -1, currentWeight: maximum };
  const current = previous.currentWeight;
  if (change === 'service') return { cursor: previous.cursor, currentWeight: current };
  if (current > maximum || current === 0) return { cursor: -1, currentWeight: maximum };
  // Passes are 1, 1 + step, 1 + 2 × step …
  return { cursor: -1, currentWeight: step > 1 ? Math.floor(current / step) * step + 1 : current };
}
