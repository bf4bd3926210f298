import type { Scheduler } from '../plan.ts';

/** Power of two random choices: two draws by weight, the less loaded is taken (ip_vs_twos.c). */
export const twos: Scheduler = {
  name: 'twos',
  compile: servers => ({ kind: 'random', destinations: Int32Array.from(servers, server => server.index) }),
};
