/** The kernel's tables of neighbours: IPv4's in the order in which /proc/net/arp has it, as net-tools reads it. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import type { TableEntry } from '../arp/table.ts';
import { inNetworkNamespace } from '../datapath/ffi/libc.ts';
import type { Family } from '../wire/address.ts';

/** Flags of an entry (linux/if_arp.h). */
const Flag = { complete: 0x02, permanent: 0x04, published: 0x08 } as const;

/** Kinds of hardware by number, in the words of net-tools. */
const HARDWARE: Readonly<Record<number, string>> = {
  1: 'ether',
  7: 'arcnet',
  27: 'eui64',
  32: 'infiniband',
  512: 'ppp',
  772: 'loop',
};

interface NeighbourJson {
  dst: string;
  dev: string;
  lladdr?: string;
  state?: string[];
}

/**
 * Runs `work` in the network namespace of this name, in the present one without a name. `work` must not be asynchronous.
 * @throws Error if there is no such namespace
 */
export function inNamespace<Result>(name: string | undefined, work: () => Result): Result {
  if (name === undefined) return work();
  const path = name.includes('/') ? name : `/run/netns/${name}`;
  if (!existsSync(path)) {
    throw new Error(`there is no network namespace ${name}: \`ip netns\` lists those there are`);
  }
  return inNetworkNamespace(path, work);
}

/** The table of the present network namespace. @throws Error if iproute2 is missing */
export function readNeighbourTable(family: Family): TableEntry[] {
  const entries = readStates(family);
  if (family === 6) {
    return entries.map(({ dst, dev, lladdr, state = [] }) => ({
      address: dst,
      mac: lladdr ?? null,
      state: state[0] ?? 'NONE',
      interface: dev,
    }));
  }
  // Not /proc/net: that is the namespace of the process's first thread.
  const text = readFileSync('/proc/thread-self/net/arp', 'utf8');
  const states = new Map(entries.map(({ dst, dev, state = [] }) => [`${dst} ${dev}`, state[0]]));
  return parseArpTable(text, (address, device) => states.get(`${address} ${device}`));
}

function readStates(family: Family): NeighbourJson[] {
  try {
    const text = execFileSync('ip', ['-json', `-${family}`, 'neigh', 'show'], {
      encoding: 'utf8',
      maxBuffer: 1 << 28,
    });
    return JSON.parse(text.trim() || '[]') as NeighbourJson[];
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') {
      throw new Error('the command `ip` is missing: install it (Debian: apt-get install iproute2)');
    }
    throw error;
  }
}

/**
 * Reads what /proc/net/arp says.
 * @param stateOf the state of an entry as `ip neigh` has it, undefined if it does not have the entry
 */
export function parseArpTable(
  text: string,
  stateOf: (address: string, device: string) => string | undefined = () => undefined,
): TableEntry[] {
  const entries: TableEntry[] = [];
  for (const line of text.split('\n').slice(1)) {
    const [address, type, flagText, mac, , device] = line.trim().split(/\s+/);
    if (address === undefined || mac === undefined || device === undefined) continue;
    const flags = Number(flagText);
    const isComplete = (flags & Flag.complete) !== 0;
    const fallback = flags & Flag.permanent ? 'PERMANENT' : isComplete ? 'REACHABLE' : 'INCOMPLETE';
    const number = Number(type);
    entries.push({
      address,
      mac: isComplete ? mac : null,
      state: flags & Flag.published ? 'PUBLISHED' : (stateOf(address, device) ?? fallback),
      interface: device,
      ...(number === 1 ? {} : { hardware: HARDWARE[number] ?? `[${number}]` }),
    });
  }
  return entries;
}
