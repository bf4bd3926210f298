/** `dirigo status`: what the daemon is and holds. */
import type { Command } from 'commander';
import type { DaemonStatus } from '../control/routes/status.ts';
import type { StatusRow } from '../datapath/datapath.ts';
import { ask } from './ask.ts';
import { orFail } from './failure.ts';

export function addStatus(program: Command): void {
  program
    .command('status')
    .summary('show the daemon and its data path')
    .description('Show the daemon and its data path. Status 1 if none runs.')
    .option('--json', 'print it as JSON')
    .action((options: { json?: boolean }) =>
      orFail(async () => {
        const status = (await ask('GET', '/status')) as DaemonStatus;
        process.stdout.write(options.json ? `${JSON.stringify(status, null, 2)}\n` : statusText(status));
      }),
    );
}

function statusText(status: DaemonStatus): string {
  const { kind, ...details } = status.datapath;
  const rows: [string, unknown][] = [
    ['Daemon', `pid ${status.pid}, version ${status.version}, since ${status.startedAt}`],
    ['State', status.state ?? 'not kept'],
    ['Services', `${status.services} with ${status.destinations} real servers`],
    ['Connections', status.connections],
    ['Data path', kind],
    ...Object.entries(details),
  ];
  return rows
    .flatMap(([name, value]) =>
      linesOf(value).map((line, index) => `${(index === 0 ? name : '').padEnd(12)} ${line}\n`),
    )
    .join('');
}

/** A value as lines: a list's elements, the counters of a record that are not 0, the rows of a table. */
function linesOf(value: unknown): string[] {
  if (Array.isArray(value)) return value.map(each => (isRow(each) ? rowText(each) : String(each)));
  if (!isRow(value)) return [String(value)];
  const counted = Object.entries(value).filter(([, count]) => count !== 0);
  return counted.length === 0 ? ['none'] : counted.map(([name, count]) => `${name} ${count}`);
}

function isRow(value: unknown): value is StatusRow {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function rowText(row: StatusRow): string {
  return Object.entries(row)
    .map(([name, value]) => `${name} ${value}`)
    .join(', ');
}
