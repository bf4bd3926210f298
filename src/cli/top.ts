/** `dirigo top`: services, servers, rates and drops, as they are now. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { DaemonStatus } from '../control/routes/status.ts';
import type { ServiceStatus, Statistics } from '../ipvs/specification.ts';
import { ask } from './ask.ts';
import { orFail } from './failure.ts';
import { type Look, type Sample, sampleOf } from './top/sample.ts';
import { canDraw, Screen } from './top/screen.ts';
import {
  FIRST_VIEW,
  SORT_KEYS,
  type Sort,
  screenLines,
  tableLength,
  type View,
  viewAfter,
} from './top/view.ts';

interface TopOptions {
  delay: number;
  count?: number;
  once?: true;
  batch?: true;
  sort: Sort;
  reverse?: true;
  servers: boolean;
}

/** Lines of the screen that are not the table's. */
const FRAME_ROWS = 7;
/** Services that are asked for at a time: at least, and at most. Of more, the first ones by the order are shown. */
const FEW_SERVICES = 100;
const MOST_SERVICES = 1000;
/** Columns of output that is no screen. */
const WIDE = 200;

export function addTop(program: Command): void {
  program
    .command('top')
    .summary('watch services, servers, rates and drops')
    .description(
      'Show services and their servers with connections and rates, which way packets go, and what is dropped, again and ' +
        'again. On a terminal a full screen, with keys to sort and scroll (h lists them); else, or on a terminal that ' +
        'cannot, one table after the other. Rates are those between two looks; of the first look, those that the director ' +
        'estimates.',
    )
    .option('-d, --delay <seconds>', 'time between two looks, from 0.1 on', seconds, 1)
    .option('-n, --count <number>', 'end after so many looks', wholeNumber)
    .option('-b, --batch', 'one table after the other, as text')
    .option('-1, --once', 'one table as text: the same as --batch --count 1')
    .addOption(
      new Option('--sort <column>', 'what comes first')
        .choices(Object.values(SORT_KEYS))
        .default(FIRST_VIEW.sort),
    )
    .option('--reverse', 'the other way round')
    .option('--no-servers', 'services only')
    .action((options: TopOptions) => orFail(() => top(options)));
}

function seconds(text: string): number {
  const value = Number(text);
  if (!(value >= 0.1 && value <= 86_400))
    throw new InvalidArgumentError('It is a number of seconds, 0.1 to 86400.');
  return value;
}

function wholeNumber(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1)
    throw new InvalidArgumentError('It is a whole number, 1 or more.');
  return value;
}

/** @param rows of the table that can be seen, from its beginning on: each service has one at least */
async function look({ sort, isReversed }: View, rows: number): Promise<Look> {
  const status = (await ask('GET', '/status')) as DaemonStatus;
  const total = (await ask('GET', '/statistics')) as Statistics;
  const limit = Math.min(MOST_SERVICES, Math.max(FEW_SERVICES, rows));
  const { services } = (await ask('GET', `/services?order=${sort}&reverse=${isReversed}&limit=${limit}`)) as {
    services: ServiceStatus[];
  };
  return { at: performance.now(), status, services, total };
}

async function top(options: TopOptions): Promise<void> {
  const view: View = {
    ...FIRST_VIEW,
    sort: options.sort,
    isReversed: options.reverse === true,
    showsServers: options.servers,
  };
  const count = options.once ? 1 : (options.count ?? Number.POSITIVE_INFINITY);
  if (options.once || options.batch || !canDraw()) await printTables(view, options.delay, count);
  else await watch(view, options.delay, count);
}

async function printTables(view: View, delay: number, count: number): Promise<void> {
  // `dirigo top -b | head` closes the pipe early; that is no error.
  process.stdout.on('error', () => process.exit(0));
  let before: Look | undefined;
  for (let number = 1; ; number++) {
    const now = await look(view, MOST_SERVICES);
    const lines = screenLines(sampleOf(now, before), view, clock(), { columns: WIDE });
    process.stdout.write(`${lines.map(({ text }) => text).join('\n')}\n`);
    before = now;
    if (number >= count) return;
    process.stdout.write('\n');
    await new Promise(resolve => setTimeout(resolve, 1000 * delay));
  }
}

/** The full screen, until a key or a signal ends it. */
async function watch(first: View, delay: number, count: number): Promise<void> {
  // What is wrong from the start is said on the terminal as it is.
  let last = await look(first, FEW_SERVICES);
  let sample: Sample = sampleOf(last, undefined);
  let view = first;
  let notice = '';
  let wake = (): void => {};
  let isOver = false;
  const screen = new Screen();
  const draw = (): void => screen.draw(screenLines(sample, view, clock(), screen.size, notice));
  const end = (): void => {
    isOver = true;
    wake();
  };
  screen.onRedraw = draw;
  screen.onKey = key => {
    if (key === 'q' || key === 'interrupt' || (key === 'escape' && !view.showsHelp)) end();
    else if (key === 'space') wake();
    else {
      const before = view;
      view = viewAfter(view, key, screen.size.rows - FRAME_ROWS, tableLength(sample, view)) ?? view;
      draw();
      // Others than those that are known may come first now.
      const isOther = view.sort !== before.sort || view.isReversed !== before.isReversed;
      if (isOther && sample.services.length < sample.status.services) wake();
    }
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, end);
  screen.open();
  try {
    draw();
    for (let number = 1; number < count && !isOver; number++) {
      await new Promise<void>(resolve => {
        wake = resolve;
        setTimeout(resolve, 1000 * delay).unref();
      });
      if (isOver) break;
      try {
        const now = await look(view, view.scroll + 2 * screen.size.rows);
        sample = sampleOf(now, last);
        last = now;
        notice = '';
      } catch (error) {
        // It may come back; what was known last stays on the screen.
        notice = (error as Error).message;
      }
      if (!isOver) draw();
    }
  } finally {
    screen.close();
  }
}

function clock(): string {
  return new Date().toTimeString().slice(0, 8);
}
