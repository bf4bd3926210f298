/**
 * The host's neighbours as the configuration wants them: pinned MACs in the kernel's table (and with it in the next hops
 * of the fast path), and the guard over ARP and neighbour discovery, which knows the cluster from the configuration.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Binding, ClusterDescription } from '../arp/cluster-knowledge.ts';
import { GUARD_EVENT_KINDS, type GuardEvent } from '../arp/guard-events.ts';
import type { TableEntry } from '../arp/table.ts';
import type { Datapath } from '../datapath/datapath.ts';
import { readHostState } from '../datapath/host-state.ts';
import { removeChained } from '../guard/filter.ts';
import { type GuardedInterface, GuardService, type GuardStatus } from '../guard/guard-service.ts';
import { readNeighbourTable } from '../guard/neighbour-table.ts';
import { directRoute } from '../guard/segment.ts';
import { EntryOwner, StaticEntries, type StaticEntry } from '../guard/static-entries.ts';
import { Webhook } from '../guard/webhook.ts';
import type { Pin } from '../ipvs/pins.ts';
import { type Family, parseAddress } from '../wire/address.ts';
import type { Configuration } from './configuration.ts';
import type { Events } from './events.ts';
import type { Log } from './log.ts';

/** What `dirigo up` is told about the guard. */
export interface GuardSettings {
  interfaces: readonly GuardedInterface[];
  /** MACs of the other directors. */
  directors: readonly string[];
  virtualRouters: readonly number[];
  gateways: readonly Binding[];
  webhook?: string;
}

export interface NeighbourKeeperOptions {
  datapath: Datapath;
  configuration: Configuration;
  events: Events;
  log: Log;
  guard?: GuardSettings | undefined;
}

/** Milliseconds between two looks whether pinned entries are still there: an interface that goes down loses them. */
const INTERVAL = 5_000;
/** Milliseconds in which edits are gathered: looking at the host's neighbours takes a hundred times as long as an edit. */
const SETTLE = 100;

const LEVELS = { info: 'info', warning: 'warning', alarm: 'error' } as const;

export class NeighbourKeeper {
  readonly #options: NeighbourKeeperOptions;
  readonly #entries = new StaticEntries(EntryOwner.daemon);
  readonly #webhook: Webhook | undefined;
  #guard: GuardService | undefined;
  /** What the guard wants to be static, besides the pins. */
  #guardEntries: readonly StaticEntry[] = [];
  #timer: NodeJS.Timeout | undefined;
  #unobserve: (() => void) | undefined;
  /** Changed since it was last followed. */
  #newPins = false;
  #newCluster = false;
  #following: Promise<void> | undefined;
  #looking: Promise<unknown> | undefined;
  #isStopped = false;
  /** The cluster that the guard knows, as text. */
  #known = '';

  constructor(options: NeighbourKeeperOptions) {
    this.#options = options;
    const url = options.guard?.webhook;
    this.#webhook = url === undefined ? undefined : new Webhook({ url });
  }

  /** True if this host's neighbours are the kernel's. */
  get #isReal(): boolean {
    return this.#options.datapath.kind === 'xdp';
  }

  /** @throws Error that says what is wrong with the guard's settings */
  async start(): Promise<void> {
    const { configuration, guard } = this.#options;
    if (!this.#isReal) {
      if (guard) throw new Error('the guard needs real interfaces: use --datapath xdp');
      return;
    }
    // A daemon that did not end in order may have left its filter.
    removeChained(this.#directory);
    this.#report(await this.#apply());
    if (guard) await this.#startGuard(guard);
    this.#unobserve = configuration.observe(({ changes }) => {
      for (const { kind } of changes) {
        if (kind === 'pins') this.#newPins = true;
        // Only the guard wants to know who belongs to the cluster.
        this.#newCluster ||= this.#guard !== undefined && /^(pins|service-|destination-)/.test(kind);
      }
      if (this.#newPins || this.#newCluster) this.#following ??= this.#follow();
    });
    this.#timer = setInterval(() => {
      if (this.#pins.length > 0) this.#looking = this.#apply().catch(() => {});
    }, INTERVAL);
    this.#timer.unref();
  }

  get #directory(): string {
    return process.env.DIRIGO_BPF ?? '/sys/fs/bpf/dirigo';
  }

  async #startGuard(settings: GuardSettings): Promise<void> {
    const cluster = this.cluster();
    this.#known = JSON.stringify(cluster);
    this.#guard = new GuardService({
      interfaces: settings.interfaces,
      cluster,
      entries: {
        set: entries => {
          this.#guardEntries = entries;
          return this.#apply();
        },
        release: async () => {
          this.#guardEntries = [];
          await this.#apply();
        },
      },
      directory: this.#directory,
      onEvent: event => this.#tell(event),
      onNotice: notice => this.#options.log.info('guard', { notice }),
    });
    try {
      await this.#guard.start();
    } catch (error) {
      throw new Error(`the guard cannot start: ${(error as Error).message}`);
    }
  }

  #tell(event: GuardEvent): void {
    const { advice } = GUARD_EVENT_KINDS[event.kind];
    const data = { ...event, time: new Date(event.time).toISOString(), advice };
    this.#options.events.publish('guard', data);
    this.#webhook?.post(data);
    const { severity, kind, interface: name, text, count } = event;
    this.#options.log[LEVELS[severity]]('guard', { kind, interface: name, text, count });
  }

  #report(problems: readonly string[]): void {
    for (const problem of problems) this.#options.log.warning('neighbours', { problem });
  }

  /** Goes on until nothing new came meanwhile: one look for however many edits. */
  async #follow(): Promise<void> {
    while ((this.#newPins || this.#newCluster) && !this.#isStopped) {
      await sleep(SETTLE);
      const [newPins, newCluster] = [this.#newPins, this.#newCluster];
      this.#newPins = false;
      this.#newCluster = false;
      try {
        if (newPins) this.#report(await this.#apply());
        if (newCluster) await this.#tellGuard();
      } catch (error) {
        this.#options.log.error('neighbours', { problem: (error as Error).message });
      }
    }
    this.#following = undefined;
  }

  /** Most edits change weights: the guard reads the host's network anew only for another cluster. */
  async #tellGuard(): Promise<void> {
    if (!this.#guard) return;
    const cluster = this.cluster();
    const text = JSON.stringify(cluster);
    if (text === this.#known) return;
    await this.#guard.setCluster(cluster);
    this.#known = text;
  }

  get #pins(): readonly Pin[] {
    return this.#options.datapath.director.pins;
  }

  /** What the configuration says of the cluster. */
  cluster(): Omit<ClusterDescription, 'own'> {
    const { director } = this.#options.datapath;
    const vips = new Set<string>();
    const servers = new Set<string>();
    for (const { key, destinations } of director.administration.serviceObjects()) {
      if ('address' in key) vips.add(key.address);
      for (const { specification } of destinations) servers.add(specification.address);
    }
    const { directors = [], virtualRouters = [], gateways = [] } = this.#options.guard ?? {};
    return {
      vips: [...vips],
      directors,
      virtualRouters,
      gateways,
      servers: [...servers].map(address => ({ address, macs: [] })),
      pins: this.#pins.map(({ address, mac }) => ({ address, macs: [mac] })),
    };
  }

  guardStatus(): GuardStatus | undefined {
    return this.#guard?.status();
  }

  /** Makes the kernel's table what pins and guard want. Returns what could not be done, in words. */
  async #apply(): Promise<string[]> {
    if (!this.#isReal) return [];
    const { entries, problems } = await this.#pinnedEntries(this.#pins);
    const pinned = new Set(entries.map(({ address }) => address));
    const others = this.#guardEntries.filter(({ address }) => !pinned.has(address));
    return [...problems, ...(await this.#entries.set([...entries, ...others]))];
  }

  /** The interfaces that pins belong on now. */
  async #pinnedEntries(pins: readonly Pin[]): Promise<{ entries: StaticEntry[]; problems: string[] }> {
    const entries: StaticEntry[] = [];
    const problems: string[] = [];
    if (pins.length === 0) return { entries, problems };
    const state = await readHostState();
    for (const { address, mac } of pins) {
      const bytes = parseAddress(address);
      const index = bytes && directRoute(bytes, state)?.interfaceIndex;
      const link = state.interfaces.find(each => each.index === index && !each.isLoopback);
      if (link) entries.push({ address, mac, interface: link.name });
      else problems.push(`${address} is on no segment of this host now: pinned when it is`);
    }
    return { entries, problems };
  }

  /** What stands in the way of pins, in words; they are kept all the same where it is only not yet possible. */
  async foresee(pins: readonly Pin[]): Promise<{ refusals: string[]; notes: string[] }> {
    if (!this.#isReal) return { refusals: [], notes: [] };
    const { entries, problems } = await this.#pinnedEntries(pins);
    return { refusals: await this.#entries.conflicts(entries), notes: problems };
  }

  /** Waits until what was configured is in force. */
  async settle(): Promise<string[]> {
    await this.#tellGuard();
    return this.#apply();
  }

  /** The table of the director's host. */
  table(family: Family): TableEntry[] {
    if (this.#isReal) return readNeighbourTable(family);
    const { datapath } = this.#options;
    return datapath.director.pins.flatMap(({ address, mac }) => {
      const bytes = parseAddress(address);
      if (!bytes || (bytes.length === 4) !== (family === 4)) return [];
      const index = datapath.director.network.nextHop(bytes, 0, family)?.interfaceIndex;
      const names = [datapath.status().interfaces ?? []].flat().map(line => String(line).split(' ')[0] ?? '');
      const name = names.find(each => datapath.interfaceIndex(each) === index);
      // Without a way to it there is no interface that it could be behind.
      return name === undefined ? [] : [{ address, mac, state: 'PERMANENT', interface: name }];
    });
  }

  /** Ends the guard; with `remove` the pinned entries go, too, otherwise they stay for the next daemon. */
  async stop({ remove }: { remove: boolean }): Promise<void> {
    this.#isStopped = true;
    clearInterval(this.#timer);
    this.#unobserve?.();
    // What is made from here on nobody would take back.
    await Promise.all([this.#following, this.#looking]);
    await this.#guard?.stop();
    await this.#webhook?.close();
    if (remove && this.#isReal) await this.#entries.release();
  }
}
