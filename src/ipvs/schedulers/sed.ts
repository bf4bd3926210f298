import { leastCostScheduler } from './least-cost.ts';

/** Shortest expected delay: the least (active + 1) over weight (ip_vs_sed.c). Inactive, so UDP, does not count. */
export const sed = leastCostScheduler('sed');
