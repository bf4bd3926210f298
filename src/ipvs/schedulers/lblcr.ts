import { localityScheduler } from './locality.ts';

/**
 * Locality-based least connection with replication (ip_vs_lblcr.c): a destination address has a set of servers, of
 * which the least loaded is taken; the set grows when that one is busy and shrinks when it did not change for long.
 */
export const lblcr = localityScheduler('lblcr', true);
