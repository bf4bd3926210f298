import type { Plan, Scheduler, SchedulerServer } from '../plan.ts';

/** Round robin (ip_vs_rr.c). Changes keep its place; when the server it stands on goes, it goes on with the next. */
export const rr: Scheduler = {
  name: 'rr',
  compile: (servers, _flags, _change, previous) => ({
    kind: 'sequence',
    weighted: false,
    destinations: Int32Array.from(servers, server => server.index),
    step: 1,
    maximum: 1,
    currentWeight: 1,
    cursor: placeKept(servers, previous),
  }),
};

/** Where the last server chosen is now; if it left, the nearest one before it that did not. */
function placeKept(servers: readonly SchedulerServer[], previous: Plan | undefined): number {
  if (previous?.kind !== 'sequence' || previous.weighted) return -1;
  for (let cursor = previous.cursor; cursor >= 0; cursor--) {
    const place = servers.findIndex(server => server.index === previous.destinations[cursor]);
    if (place >= 0) return place;
  }
  return -1;
}
