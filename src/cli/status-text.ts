/** What `dirigo status` prints: first what an operator wants to know, then all that the data path says of itself. */
import type { DaemonStatus } from '../control/routes/status.ts';
import type { StatusRow } from '../datapath/datapath.ts';
import { duration, grouped, share } from './numbers.ts';

const NAME_WIDTH = 12;
/** Details that the summary has already. */
const SUMMARIZED = new Set(['kind', 'warnings', 'interfaces', 'connections']);

export function statusText(status: DaemonStatus): string {
  const { datapath } = status;
  const rows: [string, readonly string[]][] = [
    [
      'Daemon',
      [
        `pid ${status.pid}, version ${status.version}, up ${duration(status.uptime)} (since ${status.startedAt})`,
      ],
    ],
    ['State', [status.state ?? 'not kept: it is lost when the daemon ends (--state)']],
    ...(status.listen === null ? [] : [['API', [`TCP ${status.listen}`]] as [string, string[]]]),
    ['Services', [servicesText(status)]],
    ['Connections', [occupancy(status.connections, datapath.capacity)]],
    ['Data path', [datapath.kind]],
    ['Interfaces', texts(datapath.interfaces)],
    ['Packets', packetsText(status)],
    ['Drops', counters(status.drops)],
    ['Warnings', texts(datapath.warnings)],
  ];
  const details = Object.entries(datapath).filter(([name]) => !SUMMARIZED.has(name));
  const summary = rows.map(([name, lines]) => rowText(name, lines)).join('');
  return details.length === 0
    ? summary
    : `${summary}\n${details.map(([name, value]) => rowText(name, linesOf(value))).join('')}`;
}

function rowText(name: string, lines: readonly string[]): string {
  return lines.map((line, at) => `${(at === 0 ? name : '').padEnd(NAME_WIDTH)} ${line}\n`).join('');
}

function servicesText({ services, destinations, quiesced }: DaemonStatus): string {
  const some = quiesced > 0 ? `, ${grouped(quiesced)} of them quiesced (weight 0)` : '';
  return `${grouped(services)} with ${grouped(destinations)} real servers${some}`;
}

function occupancy(used: number, capacity: unknown): string {
  if (typeof capacity !== 'number') return grouped(used);
  return `${grouped(used)} of ${grouped(capacity)} (${share(used, capacity)})`;
}

/** What went the fast and what the slow path. */
function packetsText({ datapath }: DaemonStatus): string[] {
  const { fastPath, received } = datapath;
  if (!isRow(fastPath) || typeof received !== 'number') return [];
  const fast = Number(fastPath.forwarded ?? 0);
  const all = fast + received;
  return [
    `${grouped(fast)} forwarded in the kernel (${share(fast, all)}), ${grouped(received)} through the director (${share(received, all)})`,
  ];
}

function texts(value: unknown): string[] {
  const list = Array.isArray(value) ? value.map(String) : [];
  return list.length === 0 ? ['none'] : list;
}

function counters(counts: Readonly<Record<string, number>>): string[] {
  const counted = Object.entries(counts).filter(([, count]) => count > 0);
  return counted.length === 0 ? ['none'] : counted.map(([name, count]) => `${grouped(count)} ${name}`);
}

/** A value as lines: a list's elements, the counters of a record that are not 0, the rows of a table. */
function linesOf(value: unknown): string[] {
  if (Array.isArray(value)) {
    const lines = value.map(each => (isRow(each) ? tableRowText(each) : String(each)));
    return lines.length === 0 ? ['none'] : lines;
  }
  if (!isRow(value)) return [String(value)];
  const counted = Object.entries(value).filter(([, count]) => count !== 0);
  return counted.length === 0 ? ['none'] : counted.map(([name, count]) => `${name} ${count}`);
}

function isRow(value: unknown): value is StatusRow {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function tableRowText(row: StatusRow): string {
  return Object.entries(row)
    .map(([name, value]) => `${name} ${value}`)
    .join(', ');
}
