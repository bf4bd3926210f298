/** `dirigo arp`: the table of neighbours, and what can be asked, said and pinned about them. */
import { type Command, Option } from 'commander';
import type { TableEntry } from '../arp/table.ts';
import type { Family } from '../wire/address.ts';
import { addAnnounce } from './arp-announce.ts';
import { addGuard } from './arp-guard.ts';
import { addPin } from './arp-pin.ts';
import { addWhoHas } from './arp-who-has.ts';
import { orFail } from './failure.ts';

interface TableOptions {
  6?: true;
  interface?: string;
  json?: true;
  namespace?: string;
  host?: string;
  daemon?: true;
}

export function addArp(program: Command): void {
  const arp = program
    .command('arp')
    .summary('show who is at which MAC, ask, announce, pin and guard it')
    .description(
      'Without a subcommand: the table of IPv4 neighbours, as `arp -n` prints it; with an address, its entries.',
    )
    // Options behind a subcommand are that subcommand's.
    .enablePositionalOptions()
    .configureHelp({ showGlobalOptions: false })
    .argument('[address]')
    .option('-6', 'the IPv6 neighbours instead')
    .option('-i, --interface <name>', 'only those on this interface')
    .option('--json', 'as JSON, with the state of each entry')
    .addOption(
      new Option(
        '--namespace <name>',
        'of this network namespace (`ip netns`), or of one by its path',
      ).conflicts(['host', 'daemon']),
    )
    .addOption(
      new Option(
        '--host <name>',
        'of this host on the virtual LAN, after the session: lb01, m01, web01, …',
      ).conflicts('daemon'),
    )
    .option('--daemon', "of the daemon's host: its network namespace, or the host of its virtual data path")
    .addHelpText(
      'after',
      '\nFlags: C complete, M pinned, P answered for in the place of others (proxy ARP).\n' +
        'Status 1 if an address was given and has no entry.',
    )
    .action((address: string | undefined, options: TableOptions) =>
      orFail(() => showTable(address, options)),
    );
  addWhoHas(arp);
  addAnnounce(arp);
  addPin(arp);
  addGuard(arp);
}

async function showTable(address: string | undefined, options: TableOptions): Promise<void> {
  const { parseAddress, formatAddress } = await import('../wire/address.ts');
  const bytes = address === undefined ? undefined : parseAddress(address);
  if (address !== undefined && !bytes) {
    throw new Error(`"${address}" is neither an IP address nor a subcommand (see dirigo arp --help)`);
  }
  const family = options[6] || bytes?.length === 16 ? 6 : 4;
  const wanted = bytes && formatAddress(bytes);
  const all = await readTable(family, options);
  const entries = all.filter(
    entry =>
      (wanted === undefined || entry.address === wanted) &&
      (options.interface === undefined || entry.interface === options.interface),
  );
  if (options.json) process.stdout.write(`${JSON.stringify(entries, null, 2)}\n`);
  else {
    const { formatArpTable } = await import('../arp/table.ts');
    process.stdout.write(formatArpTable(entries));
  }
  if (wanted === undefined || entries.length > 0) return;
  if (!options.json) process.stdout.write(`${wanted} (${wanted}) -- no entry\n`);
  process.exitCode = 1;
}

async function readTable(family: Family, options: TableOptions): Promise<readonly TableEntry[]> {
  if (options.daemon) {
    const { ask } = await import('./ask.ts');
    const { entries } = (await ask('GET', `/arp?family=${family}`)) as { entries: TableEntry[] };
    return entries;
  }
  if (options.host !== undefined) return virtualTable(options.host, family);
  const { inNamespace, readNeighbourTable } = await import('../guard/neighbour-table.ts');
  return inNamespace(options.namespace, () => readNeighbourTable(family));
}

/** What a host of the virtual LAN knows when the session is over. */
async function virtualTable(name: string, family: Family): Promise<readonly TableEntry[]> {
  const { VirtualLaboratory } = await import('../session/virtual-laboratory.ts');
  const { runSession } = await import('../session/session.ts');
  const { neighbourEntries } = await import('../lan/commands/arp.ts');
  const { CLUSTER_PLAN } = await import('../lan/cluster.ts');
  const laboratory = new VirtualLaboratory();
  const host = laboratory.cluster.host(name);
  if (!host) {
    const names = CLUSTER_PLAN.map(plan => plan.name).join(', ');
    throw new Error(`there is no host ${name} on the virtual LAN; there are ${names}`);
  }
  await runSession(laboratory, () => {});
  return neighbourEntries(host, family);
}
