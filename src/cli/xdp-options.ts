/** Options of `dirigo up` that only the data path in the kernel has. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { DatapathKind } from '../datapath/datapath.ts';
import type { XdpRequest } from '../datapath/open.ts';
import { MAXIMUM_CAPACITY } from '../ipvs/connections.ts';

export interface XdpOptions {
  mode?: 'auto' | 'native' | 'generic';
  capacity?: number;
  services?: number;
  servers?: number;
  ring?: number;
}

const NAMES = ['mode', 'capacity', 'services', 'servers', 'ring'] as const;

export function addXdpOptions(command: Command): Command {
  return command
    .addOption(
      new Option(
        '--mode <mode>',
        'xdp: native: in the driver, or not at all; generic: in the network stack; auto: native, else generic (default: auto)',
      ).choices(['auto', 'native', 'generic']),
    )
    .addOption(
      new Option(
        '--capacity <number>',
        'xdp: most connections at a time; each takes 113 to 128 bytes (default: 262144)',
      ).argParser(numberBetween(64, MAXIMUM_CAPACITY)),
    )
    .addOption(
      new Option('--services <number>', 'xdp: most services (default: 16384)').argParser(
        numberBetween(1, 65536),
      ),
    )
    .addOption(
      new Option(
        '--servers <number>',
        'xdp: most real servers of all services; each takes some 200 bytes and 40 for each CPU (default: 131072)',
      ).argParser(numberBetween(1, 262144)),
    )
    .addOption(
      new Option(
        '--ring <number>',
        'xdp: frames that may wait for the director on each receive queue, a power of two; what is more is dropped and counted (default: 1024)',
      ).argParser(powerOfTwo(64, 32768)),
    );
}

/** @throws Error if one of them was given for another data path */
export function xdpRequest(datapath: DatapathKind, options: XdpOptions): XdpRequest {
  const given = NAMES.filter(name => options[name] !== undefined);
  if (datapath !== 'xdp' && given.length > 0) {
    throw new Error(`--${given[0]} is for --datapath xdp; this is --datapath ${datapath}`);
  }
  const { servers, ...rest } = Object.fromEntries(given.map(name => [name, options[name]])) as XdpOptions;
  return servers === undefined ? rest : { ...rest, destinations: servers };
}

function numberBetween(least: number, most: number): (text: string) => number {
  return text => {
    const number = Number(text);
    if (!/^[0-9]+$/.test(text) || number < least || number > most) {
      throw new InvalidArgumentError(`It is not a whole number from ${least} to ${most}.`);
    }
    return number;
  };
}

function powerOfTwo(least: number, most: number): (text: string) => number {
  const parse = numberBetween(least, most);
  return text => {
    const number = parse(text);
    if (number & (number - 1)) throw new InvalidArgumentError('It is not a power of two.');
    return number;
  };
}
