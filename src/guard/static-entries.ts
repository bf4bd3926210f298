/**
 * Static entries in the kernel's table of neighbours (`ip neigh … nud permanent`), and with them in the fast path's
 * next hops, which follow that table. Each entry carries a protocol number of ours, so that a later process finds what
 * an earlier one left behind; an entry that an administrator made is never touched.
 */
import { runIp } from '../datapath/host-state.ts';

export interface StaticEntry {
  address: string;
  mac: string;
  /** Name of the interface. */
  interface: string;
}

/** Who made an entry (NDA_PROTOCOL): the daemon, or a guard that runs by itself. */
export const EntryOwner = { daemon: 209, guard: 210 } as const;

interface NeighbourJson {
  dst: string;
  dev: string;
  lladdr?: string;
  state?: string[];
  protocol?: string;
}

/** Where static entries are asked for. */
export interface EntryKeeper {
  /** Makes exactly these static. Returns what could not be done, in words. */
  set(wanted: readonly StaticEntry[]): Promise<string[]>;
  /** Asks for none any more. */
  release(): Promise<void>;
}

export class StaticEntries implements EntryKeeper {
  readonly #owner: number;
  /** Changes happen one after the other. */
  #queue: Promise<unknown> = Promise.resolve();

  constructor(owner: (typeof EntryOwner)[keyof typeof EntryOwner]) {
    this.#owner = owner;
  }

  /**
   * Makes exactly these entries static; others of this owner become ordinary ones again, which the kernel checks.
   * @returns what could not be done, in words
   */
  set(wanted: readonly StaticEntry[]): Promise<string[]> {
    const done = this.#queue.then(() => this.#set(wanted));
    this.#queue = done.catch(() => {});
    return done;
  }

  async #set(wanted: readonly StaticEntry[]): Promise<string[]> {
    const problems: string[] = [];
    const lines: string[] = [];
    const table = new Map((await readTable()).map(entry => [`${entry.dst} ${entry.dev}`, entry]));
    const kept = new Set<string>();
    for (const { address, mac, interface: device } of wanted) {
      const key = `${address} ${device}`;
      const known = table.get(key);
      const isPermanent = known?.state?.includes('PERMANENT') === true;
      const isOurs = known?.protocol === String(this.#owner);
      kept.add(key);
      if (isPermanent && known?.lladdr === mac) continue;
      if (isPermanent && !isOurs) {
        problems.push(conflictText(known, device));
        continue;
      }
      lines.push(
        `neigh replace ${address} lladdr ${mac} dev ${device} nud permanent protocol ${this.#owner}`,
      );
    }
    for (const [key, { dst, dev, lladdr, protocol }] of table) {
      if (protocol !== String(this.#owner) || kept.has(key)) continue;
      // The number of an entry cannot be taken away: a new one takes its place, at once.
      lines.push(`neigh del ${dst} dev ${dev}`);
      if (lladdr !== undefined) lines.push(`neigh add ${dst} lladdr ${lladdr} dev ${dev} nud stale`);
    }
    if (lines.length > 0) {
      await runIp(['-force', '-batch', '-'], `${lines.join('\n')}\n`).catch((error: Error) => {
        problems.push(`static entries: ${error.message.trim().split('\n').at(-1)}`);
      });
    }
    return problems;
  }

  /** What stands in the way of entries: others that an administrator made for the same addresses, in words. */
  async conflicts(wanted: readonly StaticEntry[]): Promise<string[]> {
    const table = await readTable();
    return wanted.flatMap(({ address, mac, interface: device }) => {
      const known = table.find(({ dst, dev }) => dst === address && dev === device);
      const isTheirs = known?.state?.includes('PERMANENT') && known.protocol !== String(this.#owner);
      return known && isTheirs && known.lladdr !== mac ? [conflictText(known, device)] : [];
    });
  }

  /** Leaves all entries of this owner to the kernel again. */
  async release(): Promise<void> {
    await this.set([]);
  }
}

function conflictText({ dst, lladdr }: NeighbourJson, device: string): string {
  return `the kernel's table has ${dst} at ${lladdr} on ${device} by somebody else's hand: \`ip neigh del ${dst} dev ${device}\` first`;
}

async function readTable(): Promise<NeighbourJson[]> {
  const texts = await Promise.all([4, 6].map(family => runIp(['-json', `-${family}`, 'neigh', 'show'])));
  return texts.flatMap(text => JSON.parse(text.trim() || '[]') as NeighbourJson[]);
}
