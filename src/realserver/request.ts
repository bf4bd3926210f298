/** What was asked for, checked: the words of the command line as addresses, prefixes and names. */
import { type Family, familyOf, formatAddress, parseAddress } from '../wire/address.ts';

export const MODES = ['dr', 'tun', 'nat', 'fullnat'] as const;
export type Mode = (typeof MODES)[number];

export const TUNNELS = ['ipip', 'gue', 'gre'] as const;
export type Tunnel = (typeof TUNNELS)[number];

export interface Prefix {
  /** Canonical text of an address. */
  address: string;
  /** Bits. */
  length: number;
}

export interface Request {
  mode: Mode;
  /** Canonical text. */
  vips: string[];
  /** Empty: the ones that packets to the VIPs are expected on. */
  interfaces: string[];
  /** NAT: the way to clients. TUN: the only ones whose packets are taken out of tunnels; empty: anybody's. */
  directors: Prefix[];
  /** NAT: also send replies to clients on the server's own network by the director. */
  clientsOnLan: boolean;
  /** NAT: clients whose replies are looked up. */
  clients: string[];
  tunnels: Tunnel[];
  /** UDP port of GUE. */
  guePort: number;
  /** Take packets out of tunnels by a program even where the kernel has tunnel devices. */
  decapsulation: 'auto' | 'bpf' | 'device';
  /** TUN: bytes of the largest TCP segment to announce on the default routes; undefined: leave them. */
  advertisedMss: number | 'fit' | undefined;
  /** FULLNAT: the director's local addresses. */
  localAddresses: Prefix[];
  /** Directories of cgroups, or paths below where they are mounted. */
  cgroups: string[];
  units: string[];
}

/** The options as the command line has them. */
export interface RequestWords {
  mode: string;
  vip: string[];
  interface: string[];
  director: string[];
  clientsOnLan?: true;
  client: string[];
  tunnel: string[];
  guePort: string;
  decapsulation: string;
  advmss?: string | true;
  lip: string[];
  cgroup: string[];
  unit: string[];
}

/** Which modes an option means something in. */
const OPTION_MODES: Partial<Record<keyof RequestWords, { name: string; modes: readonly Mode[] }>> = {
  director: { name: '--director', modes: ['dr', 'tun', 'nat'] },
  clientsOnLan: { name: '--clients-on-lan', modes: ['nat'] },
  client: { name: '--client', modes: ['nat'] },
  tunnel: { name: '--tunnel', modes: ['tun'] },
  advmss: { name: '--advmss', modes: ['tun'] },
  lip: { name: '--lip', modes: ['fullnat'] },
  cgroup: { name: '--cgroup', modes: ['fullnat'] },
  unit: { name: '--unit', modes: ['fullnat'] },
  interface: { name: '--interface', modes: ['dr', 'tun', 'nat'] },
};

/** @throws Error that names the wrong word and says what to do */
export function parseRequest(words: RequestWords): Request {
  const mode = MODES.find(each => each === words.mode);
  if (!mode) throw new Error(`there is no mode "${words.mode}"; there are ${MODES.join(', ')}`);
  for (const [key, option] of Object.entries(OPTION_MODES)) {
    const value = words[key as keyof RequestWords];
    const given = Array.isArray(value) ? value.length > 0 : value !== undefined;
    if (given && !option.modes.includes(mode)) {
      throw new Error(
        `${option.name} means nothing with --mode ${mode}: it is for ${option.modes.join(', ')}`,
      );
    }
  }
  const request: Request = {
    mode,
    vips: distinct(words.vip.map(vip => parseUnicast('--vip', vip))),
    interfaces: distinct(words.interface),
    directors: words.director.map(text => parsePrefix('--director', text)),
    clients: distinct(words.client.map(client => parseUnicast('--client', client))),
    clientsOnLan: words.clientsOnLan === true,
    tunnels: parseTunnels(words.tunnel),
    guePort: parsePort(words.guePort),
    decapsulation: parseDecapsulation(words.decapsulation),
    advertisedMss: parseAdvertisedMss(words.advmss),
    localAddresses: words.lip.map(text => parsePrefix('--lip', text)),
    cgroups: distinct(words.cgroup),
    units: distinct(words.unit),
  };
  requireOptions(request);
  return request;
}

function requireOptions(request: Request): void {
  const { mode, vips, directors, localAddresses, cgroups, units } = request;
  if ((mode === 'dr' || mode === 'tun') && vips.length === 0) {
    throw new Error(`--mode ${mode} needs the address of the service: --vip <address>`);
  }
  if (mode === 'nat') {
    if (directors.length === 0) {
      throw new Error('--mode nat needs the director: --director <its address on this network>');
    }
    for (const { address, length } of directors) {
      if (length !== bits(address)) {
        throw new Error(`replies go by one director: --director ${address} without a prefix length`);
      }
    }
    for (const family of [4, 6] as const) {
      if (directors.filter(({ address }) => familyOf(address) === family).length > 1) {
        throw new Error(`replies go by one director a family: name one IPv${family} address with --director`);
      }
    }
  }
  if (mode === 'fullnat') {
    if (localAddresses.length === 0) {
      throw new Error(
        "--mode fullnat needs the director's local addresses: --lip <address or prefix>. " +
          'Only what comes from them is believed: anybody can send the option, so an address in it is no identity',
      );
    }
    if (cgroups.length + units.length === 0) {
      throw new Error(
        '--mode fullnat needs the programs that shall see clients: --unit nginx.service, or --cgroup <path>',
      );
    }
  }
}

function distinct(words: readonly string[]): string[] {
  return [...new Set(words)];
}

function bits(address: string): number {
  return familyOf(address) === 4 ? 32 : 128;
}

function parseUnicast(option: string, text: string): string {
  const bytes = parseAddress(text);
  if (!bytes) throw new Error(`${option} ${text}: not an IP address (no port and no prefix length)`);
  if (!isUnicast(bytes))
    throw new Error(`${option} ${text}: not an address that a service or a client can have`);
  return formatAddress(bytes);
}

/** Neither unspecified, loopback, multicast nor broadcast; IPv6 not link-local either. */
function isUnicast(bytes: Uint8Array): boolean {
  const [first = 0, second = 0] = bytes;
  if (bytes.length === 4) return first !== 0 && first !== 127 && first < 224;
  if (bytes.subarray(0, 15).every(byte => byte === 0)) return false;
  return first !== 0xff && !(first === 0xfe && (second & 0xc0) === 0x80);
}

function parsePrefix(option: string, text: string): Prefix {
  const [addressText = '', lengthText, more] = text.split('/');
  const bytes = parseAddress(addressText);
  if (!bytes || more !== undefined) throw new Error(`${option} ${text}: not an IP address or prefix`);
  const limit = bytes.length * 8;
  const length = lengthText === undefined ? limit : Number(lengthText);
  if (!/^\d*$/.test(lengthText ?? '') || lengthText === '' || length > limit) {
    throw new Error(`${option} ${text}: the prefix length must be a number from 1 to ${limit}`);
  }
  if (length === 0) {
    throw new Error(`${option} ${text} would trust everybody: name the addresses that the director has`);
  }
  for (let bit = length; bit < limit; bit++) {
    if (((bytes[bit >>> 3] as number) >>> (7 - (bit & 7))) & 1) {
      throw new Error(
        `${option} ${text}: bits behind the prefix are set; one address is written without "/${length}"`,
      );
    }
  }
  return { address: formatAddress(bytes), length };
}

function parseTunnels(words: readonly string[]): Tunnel[] {
  if (words.length === 0) return [...TUNNELS];
  return TUNNELS.filter(tunnel => {
    const unknown = words.find(word => !(TUNNELS as readonly string[]).includes(word));
    if (unknown) throw new Error(`--tunnel ${unknown}: there are ${TUNNELS.join(', ')}`);
    return words.includes(tunnel);
  });
}

function parsePort(text: string): number {
  const port = Number(text);
  if (!/^\d+$/.test(text) || port < 1 || port > 65535) {
    throw new Error(`--gue-port ${text}: a port is a number from 1 to 65535`);
  }
  return port;
}

function parseDecapsulation(text: string): Request['decapsulation'] {
  const kind = (['auto', 'bpf', 'device'] as const).find(each => each === text);
  if (!kind) throw new Error(`--decapsulation ${text}: there are auto, bpf, device`);
  return kind;
}

function parseAdvertisedMss(word: string | true | undefined): Request['advertisedMss'] {
  if (word === undefined) return undefined;
  if (word === true) return 'fit';
  const bytes = Number(word);
  if (!/^\d+$/.test(word) || bytes < 64 || bytes > 65495) {
    throw new Error(`--advmss ${word}: a segment size is a number of bytes from 64 to 65495`);
  }
  return bytes;
}

/** Families that the request is about. */
export function familiesOf(addresses: readonly string[]): Family[] {
  return ([4, 6] as const).filter(family => addresses.some(address => familyOf(address) === family));
}

/** The words of the command that asks for the same. */
export function requestWords(request: Request): string[] {
  const words = ['realserver', '--mode', request.mode];
  const add = (option: string, values: readonly string[]): void => {
    for (const value of values) words.push(option, value);
  };
  const prefixes = (list: readonly Prefix[]): string[] =>
    list.map(({ address, length }) => (length === bits(address) ? address : `${address}/${length}`));
  add('--vip', request.vips);
  add('--interface', request.interfaces);
  add('--director', prefixes(request.directors));
  if (request.clientsOnLan) words.push('--clients-on-lan');
  if (request.mode === 'tun') {
    add('--tunnel', request.tunnels);
    words.push('--gue-port', String(request.guePort), '--decapsulation', request.decapsulation);
    if (request.advertisedMss !== undefined) {
      words.push('--advmss', ...(request.advertisedMss === 'fit' ? [] : [String(request.advertisedMss)]));
    }
  }
  add('--lip', prefixes(request.localAddresses));
  add('--cgroup', request.cgroups);
  add('--unit', request.units);
  return words;
}
