/** A plan as people read it: a line for each service, server and setting that changes, and whom it affects. */
import { styleText } from 'node:util';
import type { DestinationPlan, Differences, Effect, Kind, Plan, ServicePlan } from '../control/plan.ts';
import type { SyncDaemon } from '../ipvs/specification.ts';
import { schedulerFlagNames } from '../ipvsadm/values.ts';

/** @param colors true for a terminal */
export function planText(plan: Plan, colors = false): string {
  if (!plan.changes) return 'Nothing changes.\n';
  const paint = colors ? styleText : (_: string, text: string): string => text;
  const lines = [
    ...plan.services.flatMap(service => serviceLines(service, paint)),
    ...sectionLines(plan, paint),
    ...(plan.rearranged ? [paint('yellow', '~ the order of the services')] : []),
    ...(plan.clients ?? []).map(
      each =>
        `${each.becomes === 'drop' ? 'drops' : 'moves'}: client ${nameOf(each.client, each.clientPort)} of ${each.service} on ${each.server}`,
    ),
    summary(plan),
  ];
  return `${lines.join('\n')}\n`;
}

type Paint = (color: 'green' | 'yellow' | 'red', text: string) => string;

const SIGNS = { added: '+', edited: '~', deleted: '-' } as const;
const COLORS = { added: 'green', edited: 'yellow', deleted: 'red' } as const;

function serviceLines(service: ServicePlan, paint: Paint): string[] {
  const { specification, differences, change } = service;
  const scheduler = specification?.scheduler ?? '';
  const details =
    specification === undefined
      ? differencesText(differences, scheduler)
      : [specification.scheduler, ...propertiesText(specification)].join(' ');
  const rearranged = service.rearranged ? [paint('yellow', '    ~ the order of its servers')] : [];
  return [
    paint(COLORS[change], `${SIGNS[change]} ${service.service}${details === '' ? '' : `  ${details}`}`),
    ...service.destinations.map(each => destinationLine(each, paint)),
    ...rearranged,
  ];
}

function propertiesText({
  schedulerFlags,
  scheduler,
  persistenceTimeout,
  onePacket,
  synProxy,
  localAddresses = [],
}: NonNullable<ServicePlan['specification']>): string[] {
  return [
    ...(schedulerFlags ? [`(${schedulerFlagNames(scheduler, schedulerFlags)})`] : []),
    ...(persistenceTimeout ? [`persistent ${persistenceTimeout}`] : []),
    ...(onePacket ? ['ops'] : []),
    ...(synProxy ? ['synproxy'] : []),
    ...(localAddresses.length > 0 ? [`local addresses ${localAddresses.join(' ')}`] : []),
  ];
}

function destinationLine(plan: DestinationPlan, paint: Paint): string {
  const { destination, change, connections, persistentClients } = plan;
  const details = destination
    ? `${destination.method} weight ${destination.weight}`
    : differencesText(plan.differences, '');
  const effects = [
    effectText(connections, 'connection'),
    effectText(persistentClients, 'persistent client'),
  ].filter(text => text !== '');
  const name = nameOf(plan.address, plan.port);
  const text = `    ${SIGNS[change]} ${name}${details === '' ? '' : `  ${details}`}`;
  return `${paint(COLORS[change], text)}${effects.length > 0 ? `  (${effects.join(', ')})` : ''}`;
}

/** `40 connections drop`; empty if there are none. */
function effectText(effect: Effect, noun: string): string {
  return (['stay', 'move', 'drop'] as const)
    .filter(becomes => effect[becomes] > 0)
    .map(becomes => {
      const number = effect[becomes];
      return number === 1 ? `1 ${noun} ${becomes}s` : `${number} ${noun}s ${becomes}`;
    })
    .join(', ');
}

const PROPERTY_NAMES: Readonly<Record<string, string>> = {
  schedulerFlags: 'flags',
  persistenceTimeout: 'persistence',
  persistenceNetmask: 'mask',
  persistenceEngine: 'engine',
  onePacket: 'one-packet',
  localAddresses: 'local addresses',
  clientAddress: 'client address',
  synProxy: 'SYN proxy',
  upperThreshold: 'upper threshold',
  lowerThreshold: 'lower threshold',
  tunnelType: 'tunnel',
  tunnelPort: 'tunnel port',
  tunnelChecksum: 'tunnel checksum',
  tcpFin: 'tcpfin',
};

function differencesText(differences: Differences, scheduler: string): string {
  return Object.entries(differences)
    .map(([name, { before, after }]) => {
      const shown = (value: unknown): string =>
        name === 'schedulerFlags' && value
          ? schedulerFlagNames(scheduler, value as number)
          : valueText(value);
      return `${PROPERTY_NAMES[name] ?? name} ${shown(before)} → ${shown(after)}`;
    })
    .join(', ');
}

function valueText(value: unknown): string {
  if (value === null || value === '') return 'none';
  if (Array.isArray(value)) return value.length === 0 ? 'none' : value.join(' ');
  return value === true ? 'yes' : value === false ? 'no' : String(value);
}

function sectionLines({ sections }: Plan, paint: Paint): string[] {
  const lines: string[] = [];
  const line = (change: Kind, text: string): void => {
    lines.push(paint(COLORS[change], `${SIGNS[change]} ${text}`));
  };
  const { timeouts, settings, marks, pins, syncDaemons } = sections;
  for (const [title, section] of [
    ['timeouts', timeouts],
    ['settings', settings],
  ] as const) {
    if (!section) continue;
    const [before, after] = [section.before, section.after] as Record<string, number>[];
    const names = new Set([...Object.keys(before ?? {}), ...Object.keys(after ?? {})]);
    for (const name of names) {
      const values = [before?.[name] ?? 'default', after?.[name] ?? 'default'];
      if (values[0] !== values[1]) {
        line('edited', `${title}  ${PROPERTY_NAMES[name] ?? name} ${values[0]} → ${values[1]}`);
      }
    }
  }
  const listed = <Item>(
    section: { before: unknown; after: unknown } | undefined,
    text: (item: Item) => string,
  ) => {
    const [before, after] = [section?.before ?? [], section?.after ?? []].map(list =>
      (list as Item[]).map(text),
    ) as [string[], string[]];
    for (const each of before) if (!after.includes(each)) line('deleted', each);
    for (const each of after) if (!before.includes(each)) line('added', each);
    if (section && before.toSorted().join('\n') === after.toSorted().join('\n')) {
      line('edited', `the order of the ${section === pins ? 'pins' : 'mark rules'}`);
    }
  };
  listed<string>(marks, rule => `mark rule  ${rule}`);
  listed<string>(pins, pin => `pin  ${pin}`);
  listed<SyncDaemon>(
    syncDaemons,
    ({ role, interfaceName, syncId, group, port }) =>
      `${role} daemon  ${interfaceName} syncid ${syncId} group ${group} port ${port}`,
  );
  return lines;
}

function summary({ services, connections, persistentClients }: Plan): string {
  const counts = (['added', 'edited', 'deleted'] as const)
    .map(kind => [services.filter(({ change }) => change === kind).length, kind] as const)
    .filter(([number]) => number > 0)
    .map(([number, kind]) => `${number} ${kind}`);
  const effects = [
    effectText(connections, 'connection'),
    effectText(persistentClients, 'persistent client'),
  ].filter(text => text !== '');
  const servicesText = counts.length > 0 ? `Services: ${counts.join(', ')}. ` : '';
  return `${servicesText}${effects.length > 0 ? `In all, ${effects.join(', ')}.` : 'No connection is affected.'}`;
}

function nameOf(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}
