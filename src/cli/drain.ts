/** `dirigo drain`: servers taken out of service without cutting off their clients. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Command, InvalidArgumentError } from 'commander';
import type { DrainedServer } from '../control/drain.ts';
import type { Drained } from '../control/routes/drain.ts';
import { ask } from './ask.ts';
import { orFail } from './failure.ts';

interface DrainOptions {
  tcpService?: string;
  udpService?: string;
  sctpService?: string;
  fwmarkService?: string;
  ipv6?: boolean;
  realServer?: string;
  host?: string;
  within?: number;
  keep?: boolean;
  force?: boolean;
  cancel?: boolean;
}

interface Selection {
  service?: string;
  address: string;
  port?: number;
}

/** Milliseconds between two looks at what is left, and between two lines where no terminal shows them. */
const INTERVAL = 1000;
const LINE_INTERVAL = 10_000;
/** Status when the time was over and `--keep` kept the server. */
const LEFT = 3;
/** Status after Ctrl-C, as shells have it. */
const INTERRUPTED = 130;

const UNITS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600 };

export function addDrain(program: Command): void {
  program
    .command('drain')
    .summary('take a real server, or a whole host, out of service without cutting off its clients')
    .description(
      'Give a server no new connections (weight 0), show what is left of it and when that will be gone, and remove it when ' +
        'nothing is left, or when the time is over. With --host, all servers at an address, of all services.\n' +
        'Persistent clients come back to a quiesced server for as long as they are remembered, so they are waited for, too; ' +
        '`dirigo setting expire_quiescent_template 1` moves them with their next connection.',
    )
    .option('-t, --tcp-service <service-address>', 'the service: ADDRESS:PORT')
    .option('-u, --udp-service <service-address>', 'likewise')
    .option('--sctp-service <service-address>', 'likewise')
    .option('-f, --fwmark-service <mark>', 'a service of a firewall mark')
    .option('-6, --ipv6', 'with -f: of IPv6')
    .option('-r, --real-server <server-address>', 'the server: ADDRESS[:PORT]; without a port those of any')
    .option('--host <address>', 'all servers at this address, in all services')
    .option(
      '--within <time>',
      'remove it after this time at the latest, and drop what is left: 90s, 10m, 1h; default: wait for the last',
      parseTime,
    )
    .option('--keep', 'when the time is over, leave what still has connections quiesced (status 3)')
    .option('--force', 'remove it at once')
    .option('--cancel', 'give it the weight back that it had before it was drained')
    .addHelpText(
      'after',
      '\nCtrl-C ends the waiting and leaves the servers quiesced: --cancel brings them back, another drain goes on.\n' +
        '\nStatus: 0: removed, or brought back; 1: an error; 3: kept with connections; 130: Ctrl-C.',
    )
    .action((options: DrainOptions) => orFail(() => drain(options)));
}

async function drain(options: DrainOptions): Promise<void> {
  const selection = selectionOf(options);
  if (options.cancel) {
    const { servers } = await askDrain('/drain/cancel', selection);
    for (const each of servers) print(`${serverName(each)} has weight ${each.weight} again.`);
    return;
  }
  const { servers } = await askDrain('/drain', selection);
  for (const each of servers) {
    print(`Draining ${serverName(each)}${each.weight > 0 ? ` (weight ${each.weight} → 0)` : ''}.`);
  }
  const seconds = options.force ? 0 : options.within;
  const deadline = seconds === undefined ? undefined : performance.now() + seconds * 1000;
  const left = await waitForLast(selection, deadline);
  if (left === undefined) return;
  if (left > 0 && options.keep && !options.force) {
    print('The time is over: nothing is removed, the servers stay quiesced.');
    process.exitCode = LEFT;
    return;
  }
  const removed = await askDrain('/drain/remove', selection);
  for (const each of removed.servers) {
    const dropped = leftOf([each]);
    print(`Removed ${serverName(each)}${dropped === '' ? '' : `; dropped: ${dropped}`}.`);
  }
}

/**
 * Shows what is left until it is nothing, or the time is over.
 * @returns connections and persistent clients that are left; undefined after Ctrl-C
 */
async function waitForLast(selection: Selection, deadline: number | undefined): Promise<number | undefined> {
  const interrupted = new AbortController();
  process.once('SIGINT', () => interrupted.abort());
  let shown = '';
  let shownAt = Number.NEGATIVE_INFINITY;
  for (;;) {
    const { servers } = await askDrain('/drain/left', selection);
    const revived = servers.find(({ weight }) => weight > 0);
    if (revived)
      throw new Error(`${serverName(revived)} has weight ${revived.weight} again: it is not drained`);
    const left = servers.reduce((sum, each) => sum + each.connections + each.persistentClients, 0);
    const now = performance.now();
    const isOver = left === 0 || (deadline !== undefined && now >= deadline);
    const line = lineOf(servers, deadline === undefined ? undefined : deadline - now);
    const isDue = now - shownAt >= LINE_INTERVAL || isOver;
    if (process.stdout.isTTY) process.stdout.write(`\r\x1b[K${left === 0 ? '' : line}`);
    else if (left > 0 && isDue && line !== shown) {
      print(line);
      shown = line;
      shownAt = now;
    }
    if (isOver) {
      if (process.stdout.isTTY) process.stdout.write('\r\x1b[K');
      return left;
    }
    const rest = deadline === undefined ? INTERVAL : Math.min(INTERVAL, deadline - now);
    try {
      await sleep(Math.max(rest, 1), undefined, { signal: interrupted.signal });
    } catch {
      print('\nThe servers stay quiesced; `dirigo drain --cancel` with the same options brings them back.');
      process.exitCode = INTERRUPTED;
      return undefined;
    }
  }
}

function lineOf(servers: readonly DrainedServer[], rest: number | undefined): string {
  const last = Math.max(0, ...servers.map(({ endsIn }) => endsIn));
  const deadline = rest === undefined ? '' : `; removed in ${clock(Math.ceil(rest / 1000))} at the latest`;
  return `Left: ${leftOf(servers)}; the last ends in ${clock(last)} if nothing comes any more${deadline}`;
}

/** `12 connections, 1 persistent client`; empty if nothing is left. */
function leftOf(servers: readonly DrainedServer[]): string {
  const sum = (of: 'connections' | 'persistentClients'): number =>
    servers.reduce((total, each) => total + each[of], 0);
  return [
    [sum('connections'), 'connection'],
    [sum('persistentClients'), 'persistent client'],
  ]
    .filter(([number]) => number !== 0)
    .map(([number, noun]) => `${number} ${noun}${number === 1 ? '' : 's'}`)
    .join(', ');
}

/** `9:05`, `1:00:00`. */
function clock(seconds: number): string {
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  if (parts[0] === 0) parts.shift();
  return parts.map((part, index) => (index === 0 ? String(part) : String(part).padStart(2, '0'))).join(':');
}

function serverName({ service, address, port }: DrainedServer): string {
  return `${address.includes(':') ? `[${address}]` : address}:${port} of ${service}`;
}

function askDrain(path: string, selection: Selection): Promise<Drained> {
  return ask('POST', path, selection) as Promise<Drained>;
}

function selectionOf(options: DrainOptions): Selection {
  const services = [
    ...(options.tcpService === undefined ? [] : [`tcp ${options.tcpService}`]),
    ...(options.udpService === undefined ? [] : [`udp ${options.udpService}`]),
    ...(options.sctpService === undefined ? [] : [`sctp ${options.sctpService}`]),
    ...(options.fwmarkService === undefined
      ? []
      : [`${options.ipv6 ? 'fwm6' : 'fwm'} ${options.fwmarkService}`]),
  ];
  if (options.host !== undefined) {
    if (services.length > 0 || options.realServer !== undefined) {
      throw new Error('--host is for all services: it goes with no service and no -r');
    }
    return { address: options.host };
  }
  const [service] = services;
  if (service === undefined || services.length > 1 || options.realServer === undefined) {
    throw new Error('name one service and a server (-t VIP:PORT -r RIP), or a whole host (--host RIP)');
  }
  return { service, ...parseServer(options.realServer) };
}

/** `10.0.0.7`, `10.0.0.7:80`, `2001:db8::7`, `[2001:db8::7]:80`. */
function parseServer(text: string): { address: string; port?: number } {
  const [, bracketed, plain, port] = /^(?:\[([^\]]*)\]|([^:]*)):([0-9]{1,5})$/.exec(text) ?? [];
  if (port === undefined) return { address: text.replace(/^\[(.*)\]$/, '$1') };
  return { address: bracketed ?? plain ?? '', port: Number(port) };
}

/** Seconds. */
function parseTime(text: string): number {
  const [, number, unit] = /^([0-9]{1,6})([smh]?)$/.exec(text) ?? [];
  if (number === undefined) throw new InvalidArgumentError('It has to be a time such as 90s, 10m or 1h.');
  return Number(number) * (UNITS[unit || 's'] as number);
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
