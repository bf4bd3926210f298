import { HASH_TABLE_SIZE } from '../hashing.ts';
import type { Scheduler } from '../plan.ts';
import { SchedulerFlag } from '../specification.ts';

/**
 * Source hashing (ip_vs_sh.c): the servers take turns in the table, each with as many places in a row as its weight,
 * at least one. Weights that add up to more than the table starve the last. Flags: sh-fallback, sh-port.
 */
export const sh: Scheduler = {
  name: 'sh',
  compile: (servers, flags) => {
    const table = new Int32Array(HASH_TABLE_SIZE).fill(-1);
    let place = 0;
    while (place < table.length && servers.length > 0) {
      for (const server of servers) {
        const end = place + Math.max(1, server.weight);
        table.fill(server.index, place, end);
        place = end;
      }
    }
    return {
      kind: 'hash',
      algorithm: 'sh',
      table,
      fallback: (flags & SchedulerFlag.flag1) !== 0,
      withPort: (flags & SchedulerFlag.flag2) !== 0,
    };
  },
};
