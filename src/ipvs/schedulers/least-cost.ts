import type { LeastCostPlan, Scheduler } from '../plan.ts';

/** A scheduler that keeps no state: it scans its servers for the least cost, or the greatest weight. */
export function leastCostScheduler(cost: LeastCostPlan['cost']): Scheduler {
  return {
    name: cost,
    compile: servers => ({
      kind: 'least-cost',
      cost,
      destinations: Int32Array.from(servers, server => server.index),
    }),
  };
}
