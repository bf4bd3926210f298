/** The guard at work: on interfaces of this host, in one of three modes each. */
import { type ChildProcess, spawn } from 'node:child_process';
import { announcementFrame } from '../arp/announcement.ts';
import { type Binding, type ClusterDescription, ClusterKnowledge } from '../arp/cluster-knowledge.ts';
import { Corrections } from '../arp/correction.ts';
import { DEFAULT_GUARD_LIMITS, Guard, type GuardLimits, type Sighting } from '../arp/guard.ts';
import type { GuardEvent, GuardEventKind } from '../arp/guard-events.ts';
import { type Observation, observe } from '../arp/observation.ts';
import { type HostState, readHostState } from '../datapath/host-state.ts';
import { formatAddress, formatMac, parseAddress } from '../wire/address.ts';
import { Packet } from '../wire/packet.ts';
import { enquire } from './enquiry.ts';
import { type FilterPlace, GuardFilter } from './filter.ts';
import type { FilterVerdict } from './filter-layout.ts';
import { type LinkRoles, readLinkRoles } from './link-roles.ts';
import { directRoute, Segment, segmentInterface, sourceFor } from './segment.ts';
import type { EntryKeeper, StaticEntry } from './static-entries.ts';

/** `protect` does what `watch` does and more, `enforce` what `protect` does. */
export type GuardMode = 'watch' | 'protect' | 'enforce';

export interface GuardedInterface {
  /** An interface, a bridge (all its ports), or one port of a bridge. */
  name: string;
  mode: GuardMode;
}

export interface GuardServiceOptions {
  interfaces: readonly GuardedInterface[];
  /** What is known of the cluster; this host's own addresses are found out. */
  cluster: Omit<ClusterDescription, 'own'>;
  /** Where static entries go. */
  entries: EntryKeeper;
  /** Where a director's program is pinned. */
  directory: string;
  limits?: Partial<GuardLimits>;
  onEvent(event: GuardEvent): void;
  /** Something about the guard itself, in one line. */
  onNotice(text: string): void;
}

export interface GuardStatus {
  interfaces: { name: string; mode: GuardMode; filter: FilterPlace | null; lost: number }[];
  /** ARP and neighbour discovery messages looked at. */
  observed: number;
  /** Events by kind since the start. */
  events: Partial<Record<GuardEventKind, number>>;
  /** Events that were held back as repeats or as too many. */
  heldBack: number;
  /** Messages that the filter dropped, by why. */
  dropped: Partial<Record<FilterVerdict, number>>;
  /** Announcements that corrected a claim of others. */
  corrections: number;
  staticEntries: number;
  /** Bindings that the guard found out itself in order to protect them. */
  learned: Binding[];
}

interface Post {
  name: string;
  mode: GuardMode;
  index: number;
  isPort: boolean;
  segment: Segment;
}

/** Milliseconds. */
const SETTLE = 100;
const MONITOR_RESTART = 1_000;
const DROP_INTERVAL = 20;
const REPEAT_INTERVAL = 250;
const ENQUIRY = { count: 2, interval: 100, timeout: 400 };

export class GuardService {
  readonly #options: GuardServiceOptions;
  readonly #guard: Guard;
  readonly #corrections = new Corrections();
  readonly #packet = new Packet();
  readonly #events = new Map<GuardEventKind, number>();
  readonly #posts = new Map<string, Post>();
  readonly #learned = new Map<string, string>();
  /** Addresses that were asked for and not answered by exactly one station. */
  readonly #unknown = new Set<string>();
  readonly #notices = new Set<string>();
  #cluster: Omit<ClusterDescription, 'own'>;
  #state: HostState | undefined;
  #roles: LinkRoles = { ports: new Map(), isPort: new Set(), xdpPrograms: new Map() };
  #filter: GuardFilter | undefined;
  #monitor: ChildProcess | undefined;
  #settling: NodeJS.Timeout | undefined;
  #restarting: NodeJS.Timeout | undefined;
  readonly #timers: NodeJS.Timeout[] = [];
  #work: Promise<void> = Promise.resolve();
  #entries: readonly StaticEntry[] = [];
  #phase: 'new' | 'running' | 'stopped' = 'new';

  constructor(options: GuardServiceOptions) {
    this.#options = options;
    this.#cluster = options.cluster;
    this.#guard = new Guard(
      {
        event: event => this.#raise(event),
        contradicted: (address, _mac, sighting) => this.#contradicted(address, sighting),
      },
      new ClusterKnowledge(),
      { ...DEFAULT_GUARD_LIMITS, ...options.limits },
    );
  }

  /**
   * Begins to guard.
   * @throws Error that says what is wrong with an interface or with what is known of the cluster; nothing is left then
   */
  async start(): Promise<void> {
    try {
      await this.#refresh(true);
    } catch (error) {
      await this.stop();
      throw error;
    }
    this.#phase = 'running';
    this.#watchHost();
    this.#timers.push(setInterval(() => this.#repeatCorrections(), REPEAT_INTERVAL));
    this.#timers.push(setInterval(() => this.#takeDropped(), DROP_INTERVAL));
  }

  /** The cluster is another one from now on. @throws Error that names what is wrong in it; the old one stays then */
  async setCluster(cluster: Omit<ClusterDescription, 'own'>): Promise<void> {
    new ClusterKnowledge({ ...cluster, own: { addresses: [], macs: [] } });
    this.#cluster = cluster;
    this.#unknown.clear();
    await this.#schedule(false);
  }

  /** Ends it: filters, static entries and taps are gone then. Safe to call twice. */
  async stop(): Promise<void> {
    if (this.#phase === 'stopped') return;
    this.#phase = 'stopped';
    for (const timer of this.#timers) clearInterval(timer);
    clearTimeout(this.#settling);
    clearTimeout(this.#restarting);
    this.#monitor?.kill();
    await this.#work.catch(() => {});
    for (const post of this.#posts.values()) post.segment.close();
    this.#posts.clear();
    this.#filter?.close();
    await this.#options.entries.release();
  }

  status(): GuardStatus {
    const places = new Map(this.#filter?.places().map(({ index, place }) => [index, place]));
    return {
      interfaces: [...this.#posts.values()].map(({ name, mode, index, segment }) => ({
        name,
        mode,
        filter: places.get(index) ?? null,
        lost: segment.lost(),
      })),
      observed: this.#guard.observed,
      events: Object.fromEntries(this.#events),
      heldBack: this.#guard.heldBack,
      dropped: this.#filter?.counts() ?? {},
      corrections: this.#corrections.sent,
      staticEntries: this.#entries.length,
      learned: [...this.#learned].map(([address, mac]) => ({ address, macs: [mac] })),
    };
  }

  /** Follows addresses and interfaces of the host. */
  #watchHost(): void {
    const monitor = spawn('ip', ['monitor', 'link', 'address'], { stdio: ['ignore', 'pipe', 'ignore'] });
    this.#monitor = monitor;
    monitor.stdout.on('data', () => {
      this.#settling ??= setTimeout(() => {
        this.#settling = undefined;
        this.#schedule(false).catch((error: Error) => this.#options.onNotice(error.message));
      }, SETTLE);
    });
    monitor.on('error', () => {});
    monitor.on('close', () => {
      if (this.#phase !== 'running') return;
      this.#restarting = setTimeout(() => this.#watchHost(), MONITOR_RESTART);
    });
  }

  #schedule(isFirst: boolean): Promise<void> {
    this.#work = this.#work.catch(() => {}).then(() => this.#refresh(isFirst));
    return this.#work;
  }

  /** Brings posts, bindings, filter and static entries in line with the host and the cluster. */
  async #refresh(isFirst: boolean): Promise<void> {
    const [state, roles] = await Promise.all([readHostState(), readLinkRoles()]);
    if (this.#phase === 'stopped') return;
    this.#state = state;
    this.#roles = roles;
    this.#guard.cluster = this.#knowledge(state);
    if (isFirst) this.#learnTable(state);
    this.#openPosts(state, roles, isFirst);
    await this.#learnBindings(state);
    if ((this.#phase as string) === 'stopped') return;
    this.#guard.cluster = this.#knowledge(state);
    this.#writeFilter();
    this.#entries = this.#staticEntries(state);
    const problems = await this.#options.entries.set(this.#entries);
    for (const problem of problems) this.#notice(problem);
  }

  /** The cluster with this host's addresses and what the guard found out itself. */
  #knowledge(state: HostState): ClusterKnowledge {
    const addresses: string[] = [];
    for (const { interfaceIndex, bytes, isGlobal } of state.addresses) {
      const link = state.interfaces.find(({ index }) => index === interfaceIndex);
      // A real server has the VIP on lo: that is no claim to it.
      if (link && !link.isLoopback && isGlobal) addresses.push(formatAddress(bytes));
    }
    const complete = (binding: Binding): Binding => {
      const learned = this.#learned.get(binding.address);
      return binding.macs.length > 0 || learned === undefined ? binding : { ...binding, macs: [learned] };
    };
    return new ClusterKnowledge({
      ...this.#cluster,
      servers: this.#cluster.servers.map(complete),
      gateways: this.#cluster.gateways.map(complete),
      own: { addresses, macs: ownMacs(state, this.#roles) },
    });
  }

  /** What the kernel knew before is how it was before. */
  #learnTable(state: HostState): void {
    for (const { address, mac } of state.neighbours) {
      if (mac?.some(byte => byte !== 0)) this.#guard.learn(address, formatMac(mac), Date.now());
    }
  }

  #openPosts(state: HostState, roles: LinkRoles, isFirst: boolean): void {
    const wanted = new Map<string, GuardMode>();
    for (const { name, mode } of this.#options.interfaces) {
      // The bridge itself for what this host says, its ports for what others say.
      for (const each of [name, ...(roles.ports.get(name) ?? [])]) wanted.set(each, mode);
    }
    for (const [name, post] of this.#posts) {
      const index = state.interfaces.find(each => each.name === name)?.index;
      if (wanted.has(name) && index === post.index) continue;
      post.segment.close();
      this.#filter?.detach(post.index);
      this.#posts.delete(name);
      this.#options.onNotice(`${name} is gone: not guarded`);
    }
    for (const [name, mode] of wanted) {
      if (this.#posts.has(name)) continue;
      try {
        this.#open(name, mode, state, roles);
      } catch (error) {
        if (isFirst) throw error;
        this.#notice(`${name} is not guarded: ${(error as Error).message}`);
      }
    }
  }

  #open(name: string, mode: GuardMode, state: HostState, roles: LinkRoles): void {
    const own = segmentInterface(name, state);
    const isPort = roles.isPort.has(name);
    const isBridge = roles.ports.has(name);
    const segment = new Segment(own);
    const post: Post = { name, mode, index: own.index, isPort, segment };
    try {
      if (mode === 'enforce' && !isBridge) {
        this.#filter ??= new GuardFilter({ directory: this.#options.directory });
        const xdpProgram = roles.xdpPrograms.get(name);
        const place = this.#filter.attach({ index: own.index, name, isBridgePort: isPort, xdpProgram });
        this.#options.onNotice(`${name}: filter in place (${place})`);
      }
    } catch (error) {
      segment.close();
      throw error;
    }
    this.#posts.set(name, post);
    segment.watch(({ observation, isOutgoing, isToThisHost, time }) => {
      // What a bridge hands on was seen where it came in, and what its filter drops is told by the filter: taps are
      // before it there.
      if (isOutgoing ? isPort : isBridge || (isPort && mode === 'enforce' && this.#isDropped(observation)))
        return;
      const sighting: Sighting = { interface: name, isOutgoing, isToThisHost: isToThisHost || isPort };
      this.#guard.observe(observation, sighting, time);
    });
  }

  /** True for what the filter drops. */
  #isDropped({ claim, mac, fault }: Observation): boolean {
    if (fault !== undefined) return fault === 'arp-lengths' || fault === 'arp-truncated';
    return claim !== undefined && mac !== undefined && this.#guard.cluster.mayHold(claim, mac) === false;
  }

  /** Asks for real servers and gateways whose MAC nobody configured, so that they can be protected. */
  async #learnBindings(state: HostState): Promise<void> {
    for (const { address, macs } of [...this.#cluster.servers, ...this.#cluster.gateways]) {
      if (macs.length > 0 || this.#learned.has(address) || this.#unknown.has(address)) continue;
      if (this.#guard.cluster.mayHold(address, '') !== undefined) continue;
      const target = parseAddress(address);
      const post = this.#postFor(address, state);
      if (!target || !post || post.mode === 'watch') continue;
      const own = segmentInterface(post.name, state);
      const source = sourceFor(own, target, state);
      if (!source) continue;
      const segment = new Segment(own);
      const answers = await enquire(segment, { target, source, ...ENQUIRY }).finally(() => segment.close());
      const [answer, ...others] = answers;
      if (answer && others.length === 0) {
        this.#learned.set(address, answer.mac);
        this.#options.onNotice(`${address} is at ${answer.mac}, the only one that answers: protected there`);
      } else {
        this.#unknown.add(address);
        const how = answer ? `${answers.length} stations answer for it` : 'nobody answers for it';
        this.#notice(`${address} is not protected: ${how}; pin it with \`dirigo arp pin\``);
      }
    }
  }

  /** The guarded interface by which an address is reached directly. */
  #postFor(address: string, state: HostState): Post | undefined {
    const bytes = parseAddress(address);
    const route = bytes && directRoute(bytes, state)?.interfaceIndex;
    return [...this.#posts.values()].find(({ index }) => index === route);
  }

  #staticEntries(state: HostState): StaticEntry[] {
    const entries: StaticEntry[] = [];
    for (const { address, role, macs } of this.#guard.cluster.bindings()) {
      // A VIP moves; this host's own addresses have no entries.
      if (role === 'vip' || role === 'own' || macs.length !== 1) continue;
      const post = this.#postFor(address, state);
      if (!post || post.mode === 'watch') continue;
      entries.push({ address, mac: macs[0] as string, interface: post.name });
    }
    return entries;
  }

  #writeFilter(): void {
    const { cluster } = this.#guard;
    this.#filter?.setBindings(cluster.bindings(), cluster.directorMacs());
  }

  #takeDropped(): void {
    const clock = Date.now() - Number(process.hrtime.bigint()) / 1e6;
    this.#filter?.takeDropped(({ interfaceIndex, bytes, time }) => {
      const post = [...this.#posts.values()].find(({ index }) => index === interfaceIndex);
      const observation = observe(this.#packet, this.#packet.load(bytes));
      if (!post || !observation) return;
      const sighting = { interface: post.name, isOutgoing: false, isToThisHost: true, dropped: true };
      this.#guard.observe(observation, sighting, clock + time);
    });
  }

  #raise(event: GuardEvent): void {
    this.#events.set(event.kind, (this.#events.get(event.kind) ?? 0) + 1);
    this.#options.onEvent(event);
  }

  /** Somebody else claimed an address: whoever believed it is told better, if it is this host's to tell. */
  #contradicted(address: string, sighting: Sighting): void {
    const post = this.#posts.get(sighting.interface);
    if (!post || post.mode === 'watch' || sighting.dropped) return;
    if (!this.#holds(address) || !this.#corrections.claimed(address, Date.now())) return;
    this.#correct(address, post.isPort ? undefined : post);
  }

  #repeatCorrections(): void {
    for (const address of this.#corrections.due(Date.now())) if (this.#holds(address)) this.#correct(address);
  }

  /** Announces it on the interface where it was claimed, else on all that are protected. */
  #correct(address: string, where?: Post): void {
    const bytes = parseAddress(address);
    if (!bytes) return;
    for (const post of where ? [where] : this.#posts.values()) {
      if (post.mode === 'watch' || post.isPort) continue;
      try {
        post.segment.send(announcementFrame(post.segment.interface.mac, bytes));
      } catch (error) {
        this.#notice(`${address} could not be announced on ${post.name}: ${(error as Error).message}`);
      }
    }
  }

  /** True if the address is on this host now, and not only on lo. */
  #holds(address: string): boolean {
    const { addresses = [], interfaces = [] } = this.#state ?? {};
    return addresses.some(
      ({ bytes, interfaceIndex }) =>
        formatAddress(bytes) === address &&
        interfaces.some(({ index, isLoopback }) => index === interfaceIndex && !isLoopback),
    );
  }

  /** Says something once. */
  #notice(text: string): void {
    if (this.#notices.has(text)) return;
    if (this.#notices.size < 1000) this.#notices.add(text);
    this.#options.onNotice(text);
  }
}

/** The MACs that this host itself speaks with; ports of a bridge only hand on. */
function ownMacs(state: HostState, { isPort }: LinkRoles): string[] {
  return state.interfaces
    .filter(({ mac, name }) => mac.some(byte => byte !== 0) && !isPort.has(name))
    .map(({ mac }) => formatMac(mac));
}
