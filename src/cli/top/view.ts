/** The screen of `dirigo top` as lines of text, and what keys do to it. */
import { duration, grouped, share, short } from '../numbers.ts';
import type { Rates, Sample, ServerLine, ServiceLine } from './sample.ts';

/** Orders, by the key that chooses them. */
export const SORT_KEYS = {
  n: 'name',
  c: 'connections',
  a: 'active',
  p: 'packets',
  b: 'bytes',
} as const;

export type Sort = (typeof SORT_KEYS)[keyof typeof SORT_KEYS];

export interface View {
  sort: Sort;
  /** Smallest first (for names: Z to A). */
  isReversed: boolean;
  showsServers: boolean;
  showsHelp: boolean;
  /** Rows of the table that are above the screen. */
  scroll: number;
}

export const FIRST_VIEW: View = {
  sort: 'packets',
  isReversed: false,
  showsServers: true,
  showsHelp: false,
  scroll: 0,
};

/** A line and how it is to be shown. */
export interface Line {
  text: string;
  style: 'plain' | 'bold' | 'reverse';
}

const HELP = [
  'Keys',
  '  n c a p b   sort by name, connections/s, active connections, packets/s, bytes/s',
  '  r           the other way round',
  '  s           servers, or services only',
  '  up down     scroll; also j k, Page Up, Page Down, Home, End',
  '  space       look again now',
  '  h ?         this help',
  '  q           quit (also Escape, Ctrl-C)',
];

/** Columns of numbers: head, width, value. */
const COLUMNS: readonly [string, number, (line: ServerLine) => string][] = [
  ['WEIGHT', 7, line => short(line.weight)],
  ['ACTIVE', 7, line => short(line.active)],
  ['INACT', 7, line => short(line.inactive)],
  ['CONN/s', 7, line => short(line.rates.connections)],
  ['IN PKT/s', 9, line => short(line.rates.inPackets)],
  ['IN B/s', 8, line => short(line.rates.inBytes)],
  ['OUT PKT/s', 10, line => short(line.rates.outPackets)],
  ['OUT B/s', 8, line => short(line.rates.outBytes)],
];
const KIND_WIDTH = 9;
const NARROWEST_NAME = 16;
const WIDEST_NAME = 52;

const ORDERS: Readonly<Record<Exclude<Sort, 'name'>, (line: ServerLine) => number>> = {
  connections: ({ rates }) => rates.connections,
  active: ({ active }) => active,
  packets: ({ rates }) => rates.inPackets + rates.outPackets,
  bytes: ({ rates }) => rates.inBytes + rates.outBytes,
};

function sorted<Item extends ServerLine>(items: readonly Item[], { sort, isReversed }: View): Item[] {
  const byName = (one: Item, other: Item): number =>
    one.name.localeCompare(other.name, 'en', { numeric: true });
  const order =
    sort === 'name'
      ? byName
      : (one: Item, other: Item) => ORDERS[sort](other) - ORDERS[sort](one) || byName(one, other);
  const list = items.toSorted(order);
  return isReversed ? list.reverse() : list;
}

/** The lines about the whole. */
function headLines({ status, total, paths, drops }: Sample, clock: string): string[] {
  const { datapath } = status;
  const interfaces = Array.isArray(datapath.interfaces) ? datapath.interfaces.join(', ') : '';
  const dropped = Object.values(drops).reduce((sum, rate) => sum + rate, 0);
  const reasons = Object.entries(drops)
    .sort(([, one], [, other]) => other - one)
    .map(([reason, rate]) => `${reason} ${short(rate)}/s`);
  const ever = Object.values(status.drops).reduce((sum, count) => sum + count, 0);
  const capacity =
    typeof datapath.capacity === 'number'
      ? ` of ${grouped(datapath.capacity)} (${share(status.connections, datapath.capacity)})`
      : '';
  return [
    `dirigo ${status.version}  ${clock}  up ${duration(status.uptime)}  ${datapath.kind}: ${interfaces}`,
    `Services ${grouped(status.services)}, servers ${grouped(status.destinations)} (${grouped(status.quiesced)} quiesced)` +
      `  Connections ${grouped(status.connections)}${capacity}`,
    `New ${short(total.connections)}/s  In ${trafficText(total, 'in')}  Out ${trafficText(total, 'out')}` +
      (paths
        ? `  Kernel ${short(paths.kernel)}/s, director ${short(paths.director)}/s (${share(paths.director, paths.kernel + paths.director)})`
        : ''),
    `Drops ${short(dropped)}/s, ${grouped(ever)} so far${reasons.length > 0 ? `: ${reasons.join(', ')}` : ''}`,
  ];
}

function trafficText(rates: Rates, direction: 'in' | 'out'): string {
  return `${short(rates[`${direction}Packets`])} packets/s ${short(8 * rates[`${direction}Bytes`])}bit/s`;
}

/** The rows of the table in their order. */
function tableRows(
  services: readonly ServiceLine[],
  view: View,
): { line: ServerLine; kind: string; isServer: boolean }[] {
  return sorted(services, view).flatMap(service => [
    { line: service, kind: service.scheduler, isServer: false },
    ...(view.showsServers ? sorted(service.servers, view) : []).map(server => ({
      line: server,
      kind: server.method,
      isServer: true,
    })),
  ]);
}

/**
 * The whole screen.
 * @param size columns and rows; without rows all of the table, for output that is no screen
 * @param notice what went wrong, in place of the line of keys
 */
export function screenLines(
  sample: Sample,
  view: View,
  clock: string,
  size: { columns: number; rows?: number },
  notice = '',
): Line[] {
  const head = headLines(sample, clock).map(text => ({ text, style: 'plain' as const }));
  const rows = tableRows(sample.services, view);
  const nameWidth = Math.min(
    WIDEST_NAME,
    Math.max(NARROWEST_NAME, ...rows.map(({ line, isServer }) => line.name.length + (isServer ? 2 : 0))),
  );
  const header = `${'SERVICE / SERVER'.padEnd(nameWidth)} ${'HOW'.padEnd(KIND_WIDTH)}${COLUMNS.map(([name, width]) => name.padStart(width)).join('')}`;
  const table = rows.map(({ line, kind, isServer }): Line => {
    const name = `${isServer ? '  ' : ''}${line.name}`.padEnd(nameWidth).slice(0, nameWidth);
    const cells = COLUMNS.map(([, width, value]) => value(line).padStart(width)).join('');
    return { text: `${name} ${kind.padEnd(KIND_WIDTH)}${cells}`, style: isServer ? 'plain' : 'bold' };
  });
  if (rows.length === 0) table.push({ text: 'No services: add one with `ipvsadm -A`.', style: 'plain' });
  const body = view.showsHelp ? HELP.map((text): Line => ({ text, style: 'plain' })) : table;
  const top: Line[] = [...head, { text: '', style: 'plain' }, { text: header, style: 'reverse' }];
  const cut = (line: Line): Line => ({
    ...line,
    // What is shown in reverse fills the line.
    text: (line.style === 'reverse' ? line.text.padEnd(size.columns) : line.text).slice(0, size.columns),
  });
  const hidden = sample.status.services - sample.services.length;
  if (hidden > 0 && size.rows === undefined) {
    body.push({ text: `${grouped(hidden)} more services: --sort says which come first`, style: 'plain' });
  }
  if (size.rows === undefined) return [...top, ...body].map(line => ({ ...line, text: line.text.trimEnd() }));
  const room = Math.max(0, size.rows - top.length - 1);
  const from = view.showsHelp ? 0 : Math.min(view.scroll, Math.max(0, body.length - room));
  const shown = body.slice(from, from + room);
  const more = body.length - from - shown.length;
  const others = sample.status.services - sample.services.length;
  const order = `by ${view.sort}${view.isReversed ? ', reversed' : ''}`;
  const foot =
    notice ||
    `q quit  h help  ${order}${more > 0 ? `  ${more} more below` : ''}${others > 0 ? `  ${grouped(others)} more services` : ''}`;
  const gap = Array.from({ length: room - shown.length }, (): Line => ({ text: '', style: 'plain' }));
  return [...top, ...shown, ...gap, { text: foot, style: notice ? ('bold' as const) : ('plain' as const) }]
    .slice(0, size.rows)
    .map(cut);
}

/** How many rows the table has, for scrolling to its end. */
export function tableLength(sample: Sample, view: View): number {
  return tableRows(sample.services, view).length;
}

/** What a key does to the view; undefined if it does nothing. `page`: rows that are seen at once, `length`: all there are. */
export function viewAfter(view: View, key: string, page: number, length: number): View | undefined {
  const last = Math.max(0, length - page);
  const scrolled = (by: number): View => ({ ...view, scroll: Math.max(0, Math.min(last, view.scroll + by)) });
  if (view.showsHelp) return { ...view, showsHelp: false };
  if (key in SORT_KEYS) return { ...view, sort: SORT_KEYS[key as keyof typeof SORT_KEYS], scroll: 0 };
  switch (key) {
    case 'r':
      return { ...view, isReversed: !view.isReversed, scroll: 0 };
    case 's':
      return { ...view, showsServers: !view.showsServers, scroll: 0 };
    case 'h':
    case '?':
      return { ...view, showsHelp: true };
    case 'up':
    case 'k':
      return scrolled(-1);
    case 'down':
    case 'j':
      return scrolled(1);
    case 'pageup':
      return scrolled(-page);
    case 'pagedown':
      return scrolled(page);
    case 'home':
      return scrolled(-length);
    case 'end':
      return scrolled(length);
    default:
      return undefined;
  }
}
