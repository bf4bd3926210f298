import { foldAddress, MAGLEV_OFFSET_KEY, MAGLEV_SKIP_KEY, MAGLEV_TABLE_SIZE } from '../hashing.ts';
import type { Scheduler, SchedulerServer } from '../plan.ts';
import { sipHash13 } from '../siphash.ts';
import { SchedulerFlag } from '../specification.ts';

/**
 * Maglev hashing (ip_vs_mh.c; Eisenbud et al., "Maglev", NSDI 2016, section 3.4): every server has its own order of
 * preference over the table's places; in turn each takes its next free ones. A server that comes or goes moves few
 * clients of the others. A quiesced server keeps its places (its last weight counts). Flags: mh-fallback, mh-port.
 */
export const mh: Scheduler = {
  name: 'mh',
  compile: (servers, flags) => ({
    kind: 'hash',
    algorithm: 'mh',
    table: populate(servers),
    fallback: (flags & SchedulerFlag.flag1) !== 0,
    withPort: (flags & SchedulerFlag.flag2) !== 0,
  }),
};

/** Places a server of the greatest weight takes in one turn: below 2^6, by shifting all weights (IP_VS_MH_TAB_BITS). */
const TURN_BITS = 6;

interface Contender {
  index: number;
  /** The place it would take next. */
  place: number;
  /** From one place it prefers to the next. */
  skip: number;
  /** Places a turn. */
  turns: number;
}

function populate(servers: readonly SchedulerServer[]): Int32Array {
  const size = MAGLEV_TABLE_SIZE;
  const table = new Int32Array(size).fill(-1);
  const contenders = contendersOf(servers);
  let free = size;
  while (free > 0 && contenders.length > 0) {
    for (const contender of contenders) {
      for (let turn = 0; turn < contender.turns && free > 0; turn++) {
        while (table[contender.place] !== -1) contender.place = (contender.place + contender.skip) % size;
        table[contender.place] = contender.index;
        free--;
      }
    }
  }
  return table;
}

function contendersOf(servers: readonly SchedulerServer[]): Contender[] {
  let divisor = 0;
  let greatest = 0;
  for (const { lastWeight } of servers) {
    let [larger, smaller] = [divisor, lastWeight];
    while (smaller > 0) [larger, smaller] = [smaller, larger % smaller];
    divisor = larger;
    greatest = Math.max(greatest, lastWeight);
  }
  if (divisor === 0) return [];
  const shift = Math.max(0, 32 - Math.clz32(greatest / divisor) - TURN_BITS);
  return servers
    .filter(server => server.lastWeight > 0)
    .map(server => {
      const view = new DataView(server.address.buffer, server.address.byteOffset, server.address.byteLength);
      const input = (foldAddress(view, 0, view.byteLength === 4 ? 4 : 6) + server.port) >>> 0;
      return {
        index: server.index,
        place: sipHash13(input, MAGLEV_OFFSET_KEY) % MAGLEV_TABLE_SIZE,
        skip: (sipHash13(input, MAGLEV_SKIP_KEY) % (MAGLEV_TABLE_SIZE - 1)) + 1,
        turns: (server.lastWeight / divisor) >> shift || 1,
      };
    });
}
