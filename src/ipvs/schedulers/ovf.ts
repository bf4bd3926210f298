import { leastCostScheduler } from './least-cost.ts';

/** Weighted overflow: as fo, but a server with more active connections than weight is passed over (ip_vs_ovf.c). */
export const ovf = leastCostScheduler('ovf');
