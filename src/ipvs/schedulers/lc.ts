import { leastCostScheduler } from './least-cost.ts';

/** Least connection: the least active × 256 + inactive, whatever the weights (ip_vs_lc.c). */
export const lc = leastCostScheduler('lc');
