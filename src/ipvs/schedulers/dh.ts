import { HASH_TABLE_SIZE } from '../hashing.ts';
import type { Scheduler } from '../plan.ts';

/** Destination hashing (ip_vs_dh.c): the servers take turns in the table, whatever their weights. */
export const dh: Scheduler = {
  name: 'dh',
  compile: servers => {
    const table = new Int32Array(HASH_TABLE_SIZE).fill(-1);
    for (let place = 0; place < table.length && servers.length > 0; place++) {
      table[place] = servers[place % servers.length]?.index ?? -1;
    }
    return { kind: 'hash', algorithm: 'dh', table, withPort: false, fallback: false };
  },
};
