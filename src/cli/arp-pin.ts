/** `dirigo arp pin` and `unpin`: static bindings, kept by the daemon. */

import { readFileSync, writeFileSync } from 'node:fs';
import type { Command } from 'commander';
import type { EthersEntry } from '../arp/ethers.ts';
import { readNamedText } from '../control/named-file.ts';
import { ask } from './ask.ts';
import { orFail } from './failure.ts';

interface PinOptions {
  import?: string;
  export?: string;
  json?: true;
}

interface Outcome {
  pins: EthersEntry[];
  notes: string[];
}

export function addPin(arp: Command): void {
  arp
    .command('pin')
    .summary('pin addresses to MACs; without arguments, list the pins')
    .description(
      'Pin an address to a MAC: the daemon keeps it in its state, makes it a static entry of the kernel (and so of the\n' +
        'next hops of the fast path), and the guard drops or reports what contradicts it. Without arguments the pins are\n' +
        'listed in the form of /etc/ethers: MAC, address.',
    )
    .argument('[address]')
    .argument('[mac]')
    .option(
      '--import <file>',
      'pin what a file in the form of /etc/ethers says, all of it or nothing (-: standard input)',
    )
    .option('--export <file>', 'write the pins to a file in that form')
    .option('--json', 'list them as JSON')
    .action((address: string | undefined, mac: string | undefined, options: PinOptions) =>
      orFail(() => pin(address, mac, options)),
    );
  arp
    .command('unpin')
    .summary('take pins off addresses')
    .description(
      'Take pins off addresses: the kernel looks after these again, beginning with the MAC it has.',
    )
    .argument('[address...]')
    .option('--all', 'off all of them')
    .action((addresses: string[], options: { all?: true }) => orFail(() => unpin(addresses, options)));
}

async function pin(address: string | undefined, mac: string | undefined, options: PinOptions): Promise<void> {
  const { formatEthers } = await import('../arp/ethers.ts');
  if (options.import !== undefined) {
    if (address !== undefined) throw new Error('--import goes without an address');
    report((await ask('POST', '/arp/pins', { pins: await readPins(options.import) })) as Outcome);
  } else if (address !== undefined) {
    if (mac === undefined) throw new Error(`at which MAC is ${address}? dirigo arp pin ${address} <mac>`);
    report((await ask('POST', '/arp/pins', { pins: [{ address, mac }] })) as Outcome);
    return;
  }
  const { pins } = (await ask('GET', '/arp/pins')) as Outcome;
  if (options.export !== undefined) writeText(options.export, formatEthers(pins));
  else if (options.import === undefined) {
    process.stdout.write(options.json ? `${JSON.stringify(pins, null, 2)}\n` : formatEthers(pins));
  }
}

async function unpin(addresses: readonly string[], { all }: { all?: true }): Promise<void> {
  if (all ? addresses.length > 0 : addresses.length === 0) {
    throw new Error('name the addresses, or give --all');
  }
  let gone = addresses;
  if (all) gone = ((await ask('GET', '/arp/pins')) as Outcome).pins.map(each => each.address);
  report((await ask('POST', '/arp/unpin', { addresses: gone })) as Outcome);
}

function report({ notes }: Outcome): void {
  for (const note of notes) console.error(`dirigo: ${note}`);
}

async function readPins(file: string): Promise<EthersEntry[]> {
  const { parseEthers } = await import('../arp/ethers.ts');
  const { parseHosts } = await import('./hosts-file.ts');
  const text = readNamedText(file);
  try {
    const names = parseHosts(readIfThere('/etc/hosts'));
    return parseEthers(text, name => names.get(name));
  } catch (error) {
    throw new Error(`${file}: ${(error as Error).message}`);
  }
}

function readIfThere(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

function writeText(file: string, text: string): void {
  try {
    writeFileSync(file, text);
  } catch (error) {
    throw new Error(`${file}: ${(error as NodeJS.ErrnoException).code ?? (error as Error).message}`);
  }
}
