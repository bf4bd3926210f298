/** What iproute2 says of this host: its interfaces, addresses, routes and neighbours, read as JSON. */
import { execFile, execFileSync } from 'node:child_process';
import { formatAddress, parseAddress, parseMac } from '../wire/address.ts';

export interface HostInterface {
  index: number;
  name: string;
  /** 6 bytes; zeros for interfaces without one. */
  mac: Uint8Array;
  /** Bytes. */
  mtu: number;
  isUp: boolean;
  isLoopback: boolean;
  /** The kind of a device that stands on others or has no wire (`vlan`, `bridge`, `veth`); empty for a plain one. */
  kind: string;
}

export interface HostAddress {
  interfaceIndex: number;
  /** 4 or 16 bytes. */
  bytes: Uint8Array;
  prefixLength: number;
  isGlobal: boolean;
}

export interface HostRoute {
  /** 4 or 16 bytes. */
  bytes: Uint8Array;
  prefixLength: number;
  metric: number;
  /** 0 if the route refuses (unreachable, blackhole, prohibit). */
  interfaceIndex: number;
  gateway: Uint8Array | undefined;
  preferredSource: Uint8Array | undefined;
  /** 0: the interface's. */
  mtu: number;
}

export interface HostNeighbour {
  interfaceIndex: number;
  /** Canonical text. */
  address: string;
  /** Undefined while it is not known. */
  mac: Uint8Array | undefined;
  /** The kernel keeps it fresh by itself. */
  isManaged: boolean;
  /** An administrator pinned it, or the link needs none. */
  isPermanent: boolean;
  isReachable: boolean;
}

export interface HostState {
  interfaces: HostInterface[];
  addresses: HostAddress[];
  /** Most specific first, of equal ones the one with the smaller metric. */
  routes: HostRoute[];
  neighbours: HostNeighbour[];
}

interface AddressJson {
  ifindex: number;
  ifname: string;
  flags: string[];
  mtu: number;
  address?: string;
  linkinfo?: { info_kind?: string };
  addr_info?: { family: string; local?: string; prefixlen: number; scope: string }[];
}

interface NextHopJson {
  gateway?: string;
  via?: { host?: string };
  dev?: string;
  flags?: string[];
}

interface RouteJson extends NextHopJson {
  type?: string;
  dst: string;
  prefsrc?: string;
  metric?: number;
  metrics?: { mtu?: number }[];
  nexthops?: NextHopJson[];
}

interface NeighbourJson {
  dst: string;
  dev: string;
  lladdr?: string;
  managed?: null;
  state?: string[];
}

const BATCH = 'addr show\nroute show table main\nneigh show\n';
const REFUSING = new Set(['unreachable', 'blackhole', 'prohibit', 'throw']);
const MISSING = 'the command `ip` is missing: install it (Debian: apt-get install iproute2)';

/** Reads the state, waiting for it. @throws Error if iproute2 is missing */
export function readHostStateSync(): HostState {
  try {
    const batch = execFileSync('ip', ['-json', '-details', '-batch', '-'], {
      input: BATCH,
      encoding: 'utf8',
      stdio: 'pipe',
    });
    const routes6 = execFileSync('ip', ['-json', '-6', 'route', 'show', 'table', 'main'], {
      encoding: 'utf8',
    });
    return parseHostState(batch, routes6);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') throw new Error(MISSING);
    throw new Error(`reading the host's network by iproute2 failed: ${message.trim().split('\n').at(-1)}`);
  }
}

export async function readHostState(): Promise<HostState> {
  const [batch, routes6] = await Promise.all([
    runIp(['-json', '-details', '-batch', '-'], BATCH),
    runIp(['-json', '-6', 'route', 'show', 'table', 'main']),
  ]);
  return parseHostState(batch, routes6);
}

/**
 * Seconds since each neighbour last answered, by `neighbourKey`.
 * @param interfaces whose indexes the keys have
 */
export async function readConfirmations(interfaces: readonly HostInterface[]): Promise<Map<string, number>> {
  const indexes = new Map(interfaces.map(({ name, index }) => [name, index]));
  const known = JSON.parse((await runIp(['-json', '-statistics', 'neigh', 'show'])) || '[]') as {
    dst: string;
    dev: string;
    confirmed?: number;
  }[];
  const ages = new Map<string, number>();
  for (const { dst, dev, confirmed } of known) {
    const address = parseAddress(dst);
    if (!address || confirmed === undefined) continue;
    ages.set(neighbourKey(indexes.get(dev) ?? 0, formatAddress(address)), confirmed);
  }
  return ages;
}

/** @param address canonical text */
export function neighbourKey(interfaceIndex: number, address: string): string {
  return `${interfaceIndex} ${address}`;
}

/** Runs iproute2 and returns what it printed. */
export function runIp(parameters: readonly string[], input = ''): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile('ip', parameters, { maxBuffer: 1 << 28 }, (error, stdout) =>
      error ? reject(error) : resolve(stdout),
    );
    child.stdin?.on('error', () => {});
    child.stdin?.end(input);
  });
}

/**
 * @param batch three JSON arrays, one a line: addresses, IPv4 routes, neighbours
 * @param routes6 IPv6 routes
 */
export function parseHostState(batch: string, routes6: string): HostState {
  const [links = [], routes4 = [], neighbours = []] = batch
    .split('\n')
    .filter(line => line.trim() !== '')
    .map(line => JSON.parse(line) as unknown[]);
  const state: HostState = { interfaces: [], addresses: [], routes: [], neighbours: [] };
  const indexes = new Map<string, number>();
  for (const link of links as AddressJson[]) readLink(link, state, indexes);
  for (const route of routes4 as RouteJson[]) readRoute(route, 4, state, indexes);
  for (const route of JSON.parse(routes6 || '[]') as RouteJson[]) readRoute(route, 16, state, indexes);
  state.routes.sort((one, other) => other.prefixLength - one.prefixLength || one.metric - other.metric);
  for (const neighbour of neighbours as NeighbourJson[]) readNeighbour(neighbour, state, indexes);
  return state;
}

function readLink(link: AddressJson, state: HostState, indexes: Map<string, number>): void {
  indexes.set(link.ifname, link.ifindex);
  state.interfaces.push({
    index: link.ifindex,
    name: link.ifname,
    mac: parseMac(link.address ?? '') ?? new Uint8Array(6),
    mtu: link.mtu,
    isUp: link.flags.includes('UP'),
    isLoopback: link.flags.includes('LOOPBACK'),
    kind: link.linkinfo?.info_kind ?? '',
  });
  for (const { local, prefixlen, scope } of link.addr_info ?? []) {
    const bytes = parseAddress(local ?? '');
    if (!bytes) continue;
    state.addresses.push({
      interfaceIndex: link.ifindex,
      bytes,
      prefixLength: prefixlen,
      isGlobal: scope === 'global',
    });
  }
}

function readRoute(route: RouteJson, length: 4 | 16, state: HostState, indexes: Map<string, number>): void {
  const [text = '', prefix] = (
    route.dst === 'default' ? (length === 4 ? '0.0.0.0/0' : '::/0') : route.dst
  ).split('/');
  const bytes = parseAddress(text);
  if (bytes?.length !== length) return;
  // Of several ways at once the first that works is as good as any.
  const hops = route.nexthops ?? [route];
  const hop = hops.find(({ flags }) => !flags?.includes('dead')) ?? hops[0] ?? {};
  const refuses = REFUSING.has(route.type ?? '');
  state.routes.push({
    bytes,
    prefixLength: prefix === undefined ? length * 8 : Number(prefix),
    metric: route.metric ?? 0,
    interfaceIndex: refuses ? 0 : (indexes.get(hop.dev ?? route.dev ?? '') ?? 0),
    gateway: parseAddress(hop.gateway ?? hop.via?.host ?? ''),
    preferredSource: parseAddress(route.prefsrc ?? ''),
    mtu: route.metrics?.find(({ mtu }) => mtu !== undefined)?.mtu ?? 0,
  });
}

function readNeighbour(neighbour: NeighbourJson, state: HostState, indexes: Map<string, number>): void {
  const address = parseAddress(neighbour.dst);
  const states = neighbour.state ?? [];
  if (!address) return;
  const failed = states.includes('FAILED') || states.includes('INCOMPLETE') || states.includes('NONE');
  state.neighbours.push({
    interfaceIndex: indexes.get(neighbour.dev) ?? 0,
    address: formatAddress(address),
    mac: failed ? undefined : parseMac(neighbour.lladdr ?? ''),
    isManaged: 'managed' in neighbour,
    isPermanent: states.includes('PERMANENT') || states.includes('NOARP'),
    isReachable: states.includes('REACHABLE') || states.includes('PERMANENT'),
  });
}
