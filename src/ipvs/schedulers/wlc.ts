import { leastCostScheduler } from './least-cost.ts';

/** Weighted least connection, the default: the least (active × 256 + inactive) over weight (ip_vs_wlc.c). */
export const wlc = leastCostScheduler('wlc');
