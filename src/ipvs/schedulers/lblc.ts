import { localityScheduler } from './locality.ts';

/**
 * Locality-based least connection (ip_vs_lblc.c), for caches: the packet's destination address (so it needs a
 * firewall mark) stays with one server until that is gone, quiesced or busy while another is idle; then as wlc.
 */
export const lblc = localityScheduler('lblc', false);
