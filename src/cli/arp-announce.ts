/** `dirigo arp announce`: tells the segment where an address is. */
import type { Command } from 'commander';
import { openSegment, seconds, stationAddress, wholeNumber } from './arp-options.ts';
import { orFail } from './failure.ts';

interface AnnounceOptions {
  interface?: string;
  namespace?: string;
  mac?: string;
  count: number;
  interval: number;
  reply?: true;
  router?: true;
  force?: true;
}

export function addAnnounce(arp: Command): void {
  const command = arp
    .command('announce')
    .summary('announce an address: gratuitous ARP, or an unsolicited neighbour advertisement')
    .description(
      'Tell everybody on the segment that an address is at this host: for IPv4 a gratuitous ARP request as keepalived\n' +
        'sends it, for IPv6 an unsolicited neighbour advertisement with the override flag.',
    )
    .argument('<address>')
    .option('-i, --interface <name>', 'on this interface (default: the one that the routes say)')
    .option('--namespace <name>', 'in this network namespace')
    .option('--mac <mac>', "where it is, also the frame's source (default: the interface's)")
    .option('--count <n>', 'frames to send', wholeNumber(1, 1000), 5)
    .option('--interval <seconds>', 'time between two of them', seconds(0, 60), 0)
    .option('--reply', 'IPv4: as a reply instead of a request')
    .option('--router', 'IPv6: say that the station is a router')
    .option('--force', 'also if this host does not have the address')
    .action((address: string, options: AnnounceOptions) => orFail(() => announceAddress(address, options)));
  for (const option of command.options) {
    if (option.long === '--interval') option.defaultValueDescription = '0';
  }
}

async function announceAddress(text: string, options: AnnounceOptions): Promise<void> {
  const { formatAddress, formatMac, parseMac } = await import('../wire/address.ts');
  const { announce } = await import('../guard/enquiry.ts');
  const address = await stationAddress(text);
  const canonical = formatAddress(address);
  if (options.reply && address.length === 16) throw new Error('--reply is a form of ARP: IPv6 has none');
  if (options.router && address.length === 4) throw new Error('--router is a flag of IPv6: ARP has none');
  const mac = options.mac === undefined ? undefined : parseMac(options.mac);
  if (options.mac !== undefined && !mac) throw new Error(`"${options.mac}" is no MAC address`);
  const { segment, own, state } = await openSegment(address, options.interface, options.namespace);
  try {
    const holders = state.addresses.filter(each => formatAddress(each.bytes) === canonical);
    const isOnLoopbackOnly =
      holders.length > 0 &&
      holders.every(({ interfaceIndex }) =>
        state.interfaces.some(link => link.index === interfaceIndex && link.isLoopback),
      );
    if (!options.force && holders.length === 0) {
      throw new Error(
        `this host does not have ${canonical}: who believes it would send into the void (--force does it all the same)`,
      );
    }
    if (!options.force && isOnLoopbackOnly) {
      throw new Error(
        `this host has ${canonical} on lo only, as a real server of direct routing has the VIP: it must keep silent about it (--force does it all the same)`,
      );
    }
    const { count, interval, reply, router } = options;
    await announce(segment, {
      address,
      count,
      interval,
      ...(mac ? { mac } : {}),
      ...(reply ? { reply } : {}),
      ...(router ? { router } : {}),
    });
    const frames = count === 1 ? 'once' : `${count} times`;
    process.stdout.write(
      `Announced ${frames} on ${own.name}: ${canonical} is at ${formatMac(mac ?? own.mac)}\n`,
    );
  } finally {
    segment.close();
  }
}
