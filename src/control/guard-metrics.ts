/** What the guard over ARP and neighbour discovery counted, as metrics; none without a guard. */
import type { GuardStatus } from '../guard/guard-service.ts';
import { labelText, type Metric, type Sample } from './open-metrics.ts';

export function guardMetrics(status: GuardStatus | undefined): Metric[] {
  if (!status) return [];
  const by = (label: string, values: Readonly<Record<string, number>>): Sample[] =>
    Object.entries(values).map(([name, value]) => ({ labels: labelText({ [label]: name }), value }));
  const single = (value: number): Sample[] => [{ labels: '', value }];
  return [
    {
      name: 'dirigo_guard_messages',
      type: 'counter',
      help: 'ARP and neighbour discovery messages that the guard looked at.',
      samples: single(status.observed),
    },
    {
      name: 'dirigo_guard_events',
      type: 'counter',
      help: 'Events of the guard by kind.',
      samples: by('kind', status.events),
    },
    {
      name: 'dirigo_guard_events_held_back',
      type: 'counter',
      help: 'Events of the guard that were repeats or too many.',
      samples: single(status.heldBack),
    },
    {
      name: 'dirigo_guard_dropped_messages',
      type: 'counter',
      help: "Messages that the guard's filter dropped, by why.",
      samples: by('reason', status.dropped),
    },
    {
      name: 'dirigo_guard_corrections',
      type: 'counter',
      help: 'Announcements that corrected what somebody else had claimed.',
      samples: single(status.corrections),
    },
    {
      name: 'dirigo_guard_static_entries',
      type: 'gauge',
      help: 'Entries that the guard made static.',
      samples: single(status.staticEntries),
    },
  ];
}
