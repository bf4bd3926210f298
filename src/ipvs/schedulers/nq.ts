import { leastCostScheduler } from './least-cost.ts';

/** Never queue: the first server without an active connection, else as sed (ip_vs_nq.c). */
export const nq = leastCostScheduler('nq');
