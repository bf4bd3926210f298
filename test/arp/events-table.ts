/** The table of the guard's events in docs/arp.md. `node test/arp/events-table.ts` prints it. */
import { GUARD_EVENT_KINDS } from '../../src/arp/guard-events.ts';

export function eventsTable(): string {
  const rows = Object.entries(GUARD_EVENT_KINDS).map(
    ([kind, { severity, meaning, advice }]) => `| \`${kind}\` | ${severity} | ${meaning} | ${advice} |\n`,
  );
  return `| event | | seen | what to do |\n|---|---|---|---|\n${rows.join('')}`;
}

if (import.meta.main) process.stdout.write(eventsTable());
