import { leastCostScheduler } from './least-cost.ts';

/** Weighted failover: the greatest weight takes everything while it can (ip_vs_fo.c). */
export const fo = leastCostScheduler('fo');
