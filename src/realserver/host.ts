/** This host as iproute2, /proc/sys and /proc/mounts show it: of the network namespace that the process is in. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { type Family, familyOf } from '../wire/address.ts';

/** Runs a program to its end and returns what it printed. @throws Error with what it complained of */
export function run(program: string, ...words: string[]): string {
  try {
    return execFileSync(program, words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  } catch (error) {
    const { code, stderr, message } = error as NodeJS.ErrnoException & { stderr?: string };
    if (code === 'ENOENT') {
      throw new Error(`the command \`${program}\` is missing: install it (Debian: apt-get install iproute2)`);
    }
    throw new Error(`\`${[program, ...words].join(' ')}\` failed: ${stderr?.trim() || message}`);
  }
}

function json<Result>(program: string, ...words: string[]): Result[] {
  const text = run(program, '-json', ...words).trim();
  return text === '' ? [] : (JSON.parse(text) as Result[]);
}

export interface InterfaceAddress {
  family: Family;
  /** Canonical text. */
  address: string;
  prefixLength: number;
  scope: string;
  isTentative: boolean;
  hasFailedDetection: boolean;
}

export interface Interface {
  name: string;
  isUp: boolean;
  isLoopback: boolean;
  /** It neither asks nor answers who has an address: lo, dummy devices, tunnels. */
  isSilent: boolean;
  /** Bytes. */
  mtu: number;
  addresses: InterfaceAddress[];
}

interface AddressJson {
  ifname: string;
  flags: string[];
  mtu: number;
  link_type: string;
  addr_info?: {
    family: string;
    local?: string;
    prefixlen: number;
    scope: string;
    tentative?: boolean;
    dadfailed?: boolean;
  }[];
}

export function interfaces(): Interface[] {
  return json<AddressJson>('ip', 'address', 'show')
    .filter(link => link.ifname !== undefined)
    .map(link => ({
      name: link.ifname,
      isUp: link.flags.includes('UP'),
      isLoopback: link.flags.includes('LOOPBACK'),
      isSilent: link.flags.includes('LOOPBACK') || link.flags.includes('NOARP'),
      mtu: link.mtu,
      addresses: (link.addr_info ?? []).flatMap(info =>
        info.local === undefined
          ? []
          : [
              {
                family: info.family === 'inet' ? 4 : 6,
                address: info.local,
                prefixLength: info.prefixlen,
                scope: info.scope,
                isTentative: info.tentative === true,
                hasFailedDetection: info.dadfailed === true,
              },
            ],
      ),
    }));
}

export interface Way {
  device: string;
  /** Undefined: the destination is on the link. */
  gateway: string | undefined;
  /** The route is to this host itself. */
  isLocal: boolean;
}

interface RouteJson {
  type?: string;
  dst?: string;
  dev?: string;
  gateway?: string;
  via?: { host?: string };
}

/**
 * Where this host sends a packet to `destination`.
 * @param source with this address of its own as the sender; rules may look at it
 * @returns undefined if there is no way
 */
export function wayTo(destination: string, source?: string): Way | undefined {
  const words = ['route', 'get', destination, ...(source === undefined ? [] : ['from', source])];
  let routes: RouteJson[];
  try {
    routes = json('ip', ...words);
  } catch {
    return undefined;
  }
  const [route] = routes;
  if (!route?.dev) return undefined;
  return {
    device: route.dev,
    gateway: route.gateway ?? route.via?.host,
    isLocal: route.type === 'local' || route.dev === 'lo',
  };
}

/** Routes of the main table as `ip route` prints them and takes them back, without what only shows their state. */
export function routeLines(family: Family, ...selection: string[]): string[] {
  return run('ip', `-${family}`, 'route', 'show', ...selection)
    .split('\n')
    .map(line => line.replace(/ (linkdown|dead|expires \S+)(?= |$)/g, '').trim())
    .filter(line => line !== '');
}

/** True if two lines say the same of a route, in whatever order. */
export function sameRoute(one: string, other: string): boolean {
  const words = (line: string): string => line.split(/\s+/).sort().join(' ');
  return words(one) === words(other);
}

/** Rules that are not the three every system has. */
export function policyRules(family: Family): string[] {
  return run('ip', `-${family}`, 'rule', 'show')
    .split('\n')
    .map(line => line.trim().replace(/\s+/g, ' '))
    .filter(
      line =>
        line !== '' && !/^(0: from all lookup local|3276[67]: from all lookup (main|default))$/.test(line),
    );
}

/** Addresses that an interface answers neighbour solicitations for without having them. */
export function proxiedAddresses(): { address: string; device: string }[] {
  return json<{ dst: string; dev: string }>('ip', '-6', 'neigh', 'show', 'proxy').map(({ dst, dev }) => ({
    address: dst,
    device: dev,
  }));
}

/** A setting of an interface, or of `all`, under net.ipv4.conf or net.ipv6.conf. */
export interface SettingName {
  family: Family;
  device: string;
  key: string;
}

function settingPath({ family, device, key }: SettingName): string {
  return `/proc/sys/net/ipv${family}/conf/${device}/${key}`;
}

/** As `sysctl` takes it; names of interfaces may have dots. */
export function settingText({ family, device, key }: SettingName): string {
  const parts = ['net', `ipv${family}`, 'conf', device, key];
  return parts.join(device.includes('.') ? '/' : '.');
}

/** Undefined if there is no such setting: no such interface, or no IPv6. */
export function readSetting(name: SettingName): number | undefined {
  const path = settingPath(name);
  return existsSync(path) ? Number(readFileSync(path, 'utf8')) : undefined;
}

export function writeSetting(name: SettingName, value: number): void {
  try {
    writeFileSync(settingPath(name), `${value}\n`);
  } catch (error) {
    throw new Error(`setting ${settingText(name)} failed: ${(error as Error).message}`);
  }
}

/** What counts on an interface where the kernel takes the larger of its own value and that of `all`. */
export function effective(name: SettingName): number {
  return Math.max(readSetting(name) ?? 0, readSetting({ ...name, device: 'all' }) ?? 0);
}

/** Where the cgroups of version 2 are mounted; undefined if they are not. */
export function cgroupRoot(): string | undefined {
  const mounts = readFileSync('/proc/self/mounts', 'utf8').split('\n');
  return mounts.map(line => line.split(' ')).find(([, , type]) => type === 'cgroup2')?.[1];
}

/** An address outside of every network one has: where a reply to any client goes (RFC 5737, RFC 3849). */
export function anyClient(family: Family): string {
  return family === 4 ? '198.51.100.1' : '2001:db8:c11e:7::1';
}

/** The way that replies to clients take, from one of this host's addresses. */
export function wayToClients(family: Family, source?: string): Way | undefined {
  return wayTo(anyClient(family), source && familyOf(source) === family ? source : undefined);
}
