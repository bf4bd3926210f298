/** `dirigo arp guard`: the guard in the foreground. */

import { type Command, Option } from 'commander';
import type { ClusterDescription } from '../arp/cluster-knowledge.ts';
import { GUARD_EVENT_KINDS, type GuardEvent } from '../arp/guard-events.ts';
import { readNamedText } from '../control/named-file.ts';
import type { GuardMode, GuardStatus } from '../guard/guard-service.ts';
import { repeated, seconds, wholeNumber } from './arp-options.ts';
import { orFail } from './failure.ts';
import { parseBinding } from './guard-options.ts';

interface GuardOptions {
  interface: string[];
  mode: GuardMode;
  vip: string[];
  director: string[];
  vrid: string[];
  gateway: string[];
  server: string[];
  ethers?: string;
  daemon?: true;
  webhook?: string;
  mostAddresses: number;
  rate: number;
  quiet: number;
  status?: true;
  json?: true;
}

/** What a daemon knows of the cluster. */
interface DaemonCluster {
  vips: string[];
  servers: string[];
  pins: { address: string; mac: string }[];
}

export function addGuard(arp: Command): void {
  const command = arp
    .command('guard')
    .summary('watch ARP and neighbour discovery, and defend the addresses of the cluster')
    .description(
      'Follow ARP and IPv6 neighbour discovery on interfaces of this host and tell what contradicts the cluster or what\n' +
        'was seen before. It runs in the foreground until SIGINT or SIGTERM; the daemon does the same with `dirigo up --guard`.',
    )
    .option(
      '-i, --interface <name>',
      'guard this interface, or all ports of this bridge (repeat)',
      repeated,
      [],
    )
    .addOption(
      new Option(
        '--mode <mode>',
        'watch: events only; protect: also static entries and corrections; enforce: also drop what contradicts',
      )
        .choices(['watch', 'protect', 'enforce'])
        .default('watch'),
    )
    .option('--vip <address>', 'a virtual address (repeat)', repeated, [])
    .option(
      '--director <mac>',
      'a MAC of another director, where VIPs may be; this host is one (repeat)',
      repeated,
      [],
    )
    .option('--vrid <number>', 'a virtual router whose virtual MACs may have the VIPs (repeat)', repeated, [])
    .option('--gateway <address[=mac,…]>', 'a gateway, and where it may be (repeat)', repeated, [])
    .option('--server <address[=mac]>', 'a real server, and where it is (repeat)', repeated, [])
    .option('--ethers <file>', 'bindings in the form of /etc/ethers, as if pinned')
    .option('--daemon', 'take VIPs, real servers and pins from the daemon as it is now')
    .option('--webhook <url>', 'also POST each event there, as JSON')
    .option('--most-addresses <n>', 'addresses that one MAC may claim in a minute', wholeNumber(1, 65535), 16)
    .option('--rate <n>', 'messages a second that one MAC may send', wholeNumber(1, 1_000_000), 100)
    .option('--quiet <seconds>', 'hold the same event back for this time', seconds(0, 86_400), 30_000)
    .option('--status', "show the daemon's guard (`dirigo up --guard`) and end")
    .option('--json', 'a line of JSON an event; the status as JSON')
    .addHelpText('after', `\nEvents:\n${eventHelp()}\nWhat to do about each: docs/arp.md.`)
    .action((options: GuardOptions) => orFail(() => (options.status ? showStatus(options) : guard(options))));
  for (const option of command.options) {
    if (option.long === '--quiet') option.defaultValueDescription = '30';
    if (Array.isArray(option.defaultValue)) option.defaultValueDescription = 'none';
  }
}

function eventHelp(): string {
  return Object.entries(GUARD_EVENT_KINDS)
    .map(([kind, { severity, meaning }]) => `  ${kind.padEnd(24)}${severity.padEnd(9)}${meaning}\n`)
    .join('');
}

async function showStatus({ json }: GuardOptions): Promise<void> {
  const { ask } = await import('./ask.ts');
  const { guard: status } = (await ask('GET', '/arp/guard')) as { guard: GuardStatus | null };
  if (json) {
    process.stdout.write(`${JSON.stringify(status, null, 2)}\n`);
    return;
  }
  if (!status) throw new Error('this daemon has no guard: start it with `dirigo up --guard <interface>`');
  for (const { name, mode, filter, lost } of status.interfaces) {
    const where = filter === null ? '' : `, filter ${filter}`;
    process.stdout.write(`${name.padEnd(16)} ${mode}${where}${lost ? `, ${lost} messages lost` : ''}\n`);
  }
  for (const { address, macs } of status.learned) {
    process.stdout.write(`${'protected'.padEnd(16)} ${address} at ${macs.join(', ')}\n`);
  }
  process.stdout.write(`${summaryText(status)}\n`);
}

async function guard(options: GuardOptions): Promise<void> {
  if (options.interface.length === 0) throw new Error('which interface? Name it with --interface');
  const { GuardService } = await import('../guard/guard-service.ts');
  const { EntryOwner, StaticEntries } = await import('../guard/static-entries.ts');
  const { Webhook } = await import('../guard/webhook.ts');
  if (process.geteuid?.() !== 0)
    throw new Error('the guard needs root (CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF)');
  const cluster = await describeCluster(options);
  const webhook = options.webhook === undefined ? undefined : new Webhook({ url: options.webhook });
  const explained = new Set<string>();
  const service = new GuardService({
    interfaces: options.interface.map(name => ({ name, mode: options.mode })),
    cluster,
    entries: new StaticEntries(EntryOwner.guard),
    directory: process.env.DIRIGO_BPF ?? '/sys/fs/bpf/dirigo',
    limits: { addresses: options.mostAddresses, stationRate: options.rate, quietTime: options.quiet },
    onEvent: event => {
      process.stdout.write(
        options.json ? `${JSON.stringify(eventJson(event))}\n` : eventText(event, explained),
      );
      webhook?.post(eventJson(event));
    },
    onNotice: text => console.error(`dirigo: ${text}`),
  });
  const ended = new Promise<void>(resolve => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => resolve());
  });
  await service.start();
  console.error(`dirigo: guarding ${options.interface.join(', ')} (${options.mode})`);
  await ended;
  const status = service.status();
  await service.stop();
  await webhook?.close();
  console.error(`dirigo: ${summaryText(status)}`);
}

async function describeCluster(options: GuardOptions): Promise<Omit<ClusterDescription, 'own'>> {
  const { parseEthers } = await import('../arp/ethers.ts');
  const { ClusterKnowledge } = await import('../arp/cluster-knowledge.ts');
  let known: DaemonCluster = { vips: [], servers: [], pins: [] };
  if (options.daemon) {
    const { ask } = await import('./ask.ts');
    known = (await ask('GET', '/arp/cluster')) as DaemonCluster;
  }
  const pins = options.ethers === undefined ? [] : parseEthers(readNamedText(options.ethers));
  const given = new Set(options.server.map(text => text.split('=')[0]));
  const cluster = {
    vips: [...options.vip, ...known.vips],
    directors: options.director,
    virtualRouters: options.vrid.map(Number),
    gateways: options.gateway.map(parseBinding),
    servers: [
      ...options.server.map(parseBinding),
      ...known.servers.filter(address => !given.has(address)).map(address => ({ address, macs: [] })),
    ],
    pins: [...known.pins, ...pins].map(({ address, mac }) => ({ address, macs: [mac] })),
  };
  // Whatever is wrong in it is said before anything begins.
  new ClusterKnowledge({ ...cluster, own: { addresses: [], macs: [] } });
  return cluster;
}

/** The event with its time in words that any program reads. */
export function eventJson(event: GuardEvent): object {
  return { ...event, time: new Date(event.time).toISOString(), advice: GUARD_EVENT_KINDS[event.kind].advice };
}

function eventText(event: GuardEvent, explained: Set<string>): string {
  const { time, severity, kind, text, count } = event;
  const repeats = count > 1 ? ` (${count} times)` : '';
  const line = `${new Date(time).toISOString()} ${severity} ${kind} ${event.interface}: ${text}${repeats}\n`;
  if (severity === 'info' || explained.has(kind)) return line;
  explained.add(kind);
  return `${line}    ${GUARD_EVENT_KINDS[kind].advice}\n`;
}

function summaryText(status: GuardStatus): string {
  const events = Object.entries(status.events).map(([kind, count]) => `${count} ${kind}`);
  const dropped = Object.values(status.dropped).reduce((sum, count) => sum + count, 0);
  return (
    `${status.observed} messages seen; events: ${events.join(', ') || 'none'}; ` +
    `${status.heldBack} held back; ${dropped} messages dropped; ${status.corrections} corrections`
  );
}
