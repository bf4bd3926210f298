/** `ip` of iproute2: address, link, neigh and route, as far as the sessions go. */
import { Scope, sameAddress } from '../../arp/local-addresses.ts';
import { isValid, type Neighbour } from '../../arp/neighbours.ts';
import { type Family, formatAddress, formatMac, parseAddress, parseMac } from '../../wire/address.ts';
import type { Host } from '../host.ts';
import type { Interface, InterfaceAddress } from '../interface.ts';
import { describeDestination, NetworkError, parsePrefix, type Route } from '../routes.ts';
import type { CommandResult } from '../shell.ts';

/** A refusal that ends the command. */
class IpError extends Error {
  readonly status: number;

  constructor(status: number, text: string) {
    super(text);
    this.status = status;
  }
}

type Verb = (host: Host, words: string[], family: Family | undefined) => string;

interface IpObject {
  name: string;
  verbs: readonly (readonly [string, Verb])[];
}

const OBJECTS: readonly IpObject[] = [
  {
    name: 'address',
    verbs: [
      ['add', addAddress],
      ['delete', deleteAddress],
      ['show', showAddresses],
      ['list', showAddresses],
    ],
  },
  {
    name: 'link',
    verbs: [
      ['set', setLink],
      ['show', showLinks],
      ['list', showLinks],
    ],
  },
  {
    name: 'neigh',
    verbs: [
      ['add', (host, words) => addNeighbour(host, words, false)],
      ['replace', (host, words) => addNeighbour(host, words, true)],
      ['delete', deleteNeighbour],
      ['flush', flushNeighbours],
      ['show', showNeighbours],
      ['list', showNeighbours],
    ],
  },
  {
    name: 'route',
    verbs: [
      ['add', addRoute],
      ['delete', deleteRoute],
      ['get', getRoute],
      ['show', showRoutes],
      ['list', showRoutes],
    ],
  },
];

/** `ip [-4|-6] OBJECT COMMAND …`; objects and commands may be shortened, as `ip a`. */
export function runIp(host: Host, argv: readonly string[]): CommandResult {
  try {
    return { status: 0, stdout: dispatch(host, [...argv]), stderr: '' };
  } catch (error) {
    if (error instanceof IpError) return { status: error.status, stdout: '', stderr: `${error.message}\n` };
    if (!(error instanceof NetworkError)) throw error;
    const { message } = error;
    if (message.startsWith('any valid prefix'))
      return { status: 1, stdout: '', stderr: `Error: ${message}\n` };
    // What the kernel explains comes as an error, a bare errno by its name.
    const prefix = BARE_ERRORS.has(message) ? 'RTNETLINK answers' : 'Error';
    return { status: 2, stdout: '', stderr: `${prefix}: ${message}\n` };
  }
}

const BARE_ERRORS: ReadonlySet<string> = new Set([
  'File exists',
  'Network is down',
  'Network is unreachable',
  'No such device',
  'No such file or directory',
  'No such process',
]);

function dispatch(host: Host, words: string[]): string {
  let family: Family | undefined;
  while (words[0]?.startsWith('-')) {
    const option = words.shift();
    if (option !== '-4' && option !== '-6')
      throw new IpError(255, `Option "${option}" is unknown, try "ip -help".`);
    family = option === '-4' ? 4 : 6;
  }
  const name = words.shift();
  if (name === undefined)
    throw new IpError(255, 'Usage: ip [ -4 | -6 ] { address | link | neigh | route } COMMAND');
  const object = OBJECTS.find(each => each.name.startsWith(name));
  if (!object) throw new IpError(1, `Object "${name}" is unknown, try "ip help".`);
  const wanted = words.shift() ?? 'show';
  const verb = object.verbs.find(([each]) => each.startsWith(wanted));
  if (!verb) throw new IpError(255, `Command "${wanted}" is unknown, try "ip ${object.name} help".`);
  return verb[1](host, words, family);
}

/** The argument of a keyword. */
function argument(words: string[]): string {
  const word = words.shift();
  if (word === undefined) throw new IpError(255, 'Command line is not complete. Try option "help"');
  return word;
}

function garbage(first: string, word: string): IpError {
  return new IpError(255, `Error: either "${first}" is duplicate, or "${word}" is a garbage.`);
}

function deviceNamed(host: Host, name: string): Interface {
  const found = host.interfaceNamed(name);
  if (!found) throw new IpError(1, `Cannot find device "${name}"`);
  return found;
}

function shownDevice(host: Host, words: string[]): Interface | undefined {
  let name: string | undefined;
  for (let word = words.shift(); word !== undefined; word = words.shift()) {
    const given = word === 'dev' ? argument(words) : word;
    if (name !== undefined) throw garbage('dev', given);
    name = given;
  }
  if (name === undefined) return undefined;
  const found = host.interfaceNamed(name);
  if (!found) throw new IpError(1, `Device "${name}" does not exist.`);
  return found;
}

// --- address

function readAddress(words: string[]): {
  local: string | undefined;
  device: string;
  label: string | undefined;
} {
  let local: string | undefined;
  let device: string | undefined;
  let label: string | undefined;
  for (let word = words.shift(); word !== undefined; word = words.shift()) {
    if (word === 'dev') device = argument(words);
    else if (word === 'label') label = argument(words);
    else if (local !== undefined) throw garbage('local', word);
    else {
      parsePrefix(word);
      local = word;
    }
  }
  if (device === undefined) throw new IpError(1, 'Not enough information: "dev" argument is required.');
  return { local, device, label };
}

function addAddress(host: Host, words: string[]): string {
  const { local, device, label } = readAddress(words);
  const on = deviceNamed(host, device);
  if (local === undefined) throw new IpError(2, 'RTNETLINK answers: Invalid argument');
  if (label !== undefined && label.length > 15)
    throw new IpError(2, 'Error: Attribute failed policy validation.');
  const [address, prefix] = parsePrefix(local);
  host.addAddress(on, address, prefix, label);
  return '';
}

function deleteAddress(host: Host, words: string[]): string {
  const { local, device } = readAddress(words);
  const on = deviceNamed(host, device);
  if (local === undefined) throw new IpError(2, 'RTNETLINK answers: Invalid argument');
  const [address, prefix] = parsePrefix(local);
  host.removeAddress(on, address, local.includes('/') ? prefix : undefined);
  return '';
}

function showAddresses(host: Host, words: string[], family: Family | undefined): string {
  const only = shownDevice(host, words);
  let text = '';
  for (const each of host.interfaces) {
    if (only && each !== only) continue;
    const shown = each.addresses.filter(address => family === undefined || address.family === family);
    if (family !== undefined && shown.length === 0) continue;
    text += describeLink(each, '', family === undefined);
    for (const address of shown) text += describeAddress(address);
  }
  return text;
}

function describeAddress(address: InterfaceAddress): string {
  const words = [
    address.family === 4 ? 'inet' : 'inet6',
    `${formatAddress(address.address)}/${address.prefix}`,
    'scope',
    SCOPES.get(address.scope) ?? String(address.scope),
    ...(address.secondary ? ['secondary'] : []),
    address.family === 4 ? address.label : '',
  ];
  return `    ${words.join(' ')}\n       valid_lft forever preferred_lft forever\n`;
}

const SCOPES: ReadonlyMap<number, string> = new Map([
  [Scope.global, 'global'],
  [Scope.link, 'link'],
  [Scope.host, 'host'],
]);

function describeLink(each: Interface, mode: string, withAddress: boolean): string {
  const up = each.isUp ? ',UP,LOWER_UP' : '';
  const flags = each.isLoopback ? `LOOPBACK${up}` : `BROADCAST,MULTICAST${up}`;
  const state = each.isLoopback && each.isUp ? 'UNKNOWN' : each.isUp ? 'UP' : 'DOWN';
  const queue = each.isLoopback ? 'noqueue' : 'fq_codel';
  const first = `${each.index}: ${each.name}: <${flags}> mtu ${each.mtu} qdisc ${queue} state ${state} ${mode}group default qlen 1000\n`;
  if (!withAddress) return first;
  const type = each.isLoopback ? 'loopback' : 'ether';
  const broadcast = each.isLoopback ? '00:00:00:00:00:00' : 'ff:ff:ff:ff:ff:ff';
  return `${first}    link/${type} ${formatMac(each.mac)} brd ${broadcast}\n`;
}

// --- link

function showLinks(host: Host, words: string[]): string {
  const only = shownDevice(host, words);
  return host.interfaces
    .filter(each => !only || each === only)
    .map(each => describeLink(each, 'mode DEFAULT ', true))
    .join('');
}

function setLink(host: Host, words: string[]): string {
  let name: string | undefined;
  let up: boolean | undefined;
  let mtu: number | undefined;
  for (let word = words.shift(); word !== undefined; word = words.shift()) {
    if (word === 'up' || word === 'down') up = word === 'up';
    else if (word === 'mtu') {
      const text = argument(words);
      mtu = Number(text);
      if (!/^\d+$/.test(text))
        throw new IpError(255, `Error: argument "${text}" is wrong: Invalid "mtu" value`);
      if (mtu < 68 || mtu > 65535) throw new IpError(2, 'Error: mtu less than device minimum.');
    } else {
      const given = word === 'dev' ? argument(words) : word;
      if (name !== undefined) throw garbage('dev', given);
      name = given;
    }
  }
  if (name === undefined) throw new IpError(255, 'Not enough information: "dev" argument is required.');
  const on = deviceNamed(host, name);
  if (mtu !== undefined) host.setMtu(on, mtu);
  if (up !== undefined) host.setLink(on, up);
  return '';
}

// --- neigh

interface NeighbourArguments {
  address: Uint8Array;
  device: Interface;
  mac: string | undefined;
  state: 'PERMANENT' | 'REACHABLE' | 'STALE' | 'NOARP';
}

const STATES: ReadonlyMap<string, NeighbourArguments['state']> = new Map([
  ['permanent', 'PERMANENT'],
  ['reachable', 'REACHABLE'],
  ['stale', 'STALE'],
  ['noarp', 'NOARP'],
]);

function readNeighbour(host: Host, words: string[]): NeighbourArguments {
  let address: Uint8Array | undefined;
  let device: string | undefined;
  let mac: string | undefined;
  let state: NeighbourArguments['state'] = 'PERMANENT';
  for (let word = words.shift(); word !== undefined; word = words.shift()) {
    if (word === 'dev') device = argument(words);
    else if (word === 'lladdr') mac = argument(words);
    else if (word === 'nud') {
      const text = argument(words);
      const known = STATES.get(text);
      if (!known) throw new IpError(255, `Error: argument "${text}" is wrong: nud state is bad`);
      state = known;
    } else {
      const text = word === 'to' ? argument(words) : word;
      if (address !== undefined) throw garbage('to', text);
      address = parseAddress(text);
      if (!address) throw new IpError(1, `Error: any valid address is expected rather than "${text}".`);
    }
  }
  if (device === undefined || address === undefined)
    throw new IpError(255, 'Device and destination are required arguments.');
  return { address, device: deviceNamed(host, device), mac, state };
}

function addNeighbour(host: Host, words: string[], replace: boolean): string {
  const { address, device, mac, state } = readNeighbour(host, words);
  const bytes = mac === undefined ? undefined : parseMac(mac);
  if (mac !== undefined && !bytes) throw new IpError(1, `"${mac}" is invalid lladdr.`);
  if (!bytes) throw new IpError(2, 'Error: No link layer address given.');
  const cache = host.neighbourhood.cacheOf(address);
  if (!replace && cache.find(device.index, address)) throw new IpError(2, 'RTNETLINK answers: File exists');
  const neighbour = cache.obtain(device.index, address, host.now);
  if (!neighbour) throw new IpError(2, 'RTNETLINK answers: No buffer space available');
  cache.set(neighbour, bytes, state, host.now);
  return '';
}

function deleteNeighbour(host: Host, words: string[]): string {
  const { address, device } = readNeighbour(host, words);
  const cache = host.neighbourhood.cacheOf(address);
  const neighbour = cache.find(device.index, address);
  if (!neighbour) throw new IpError(2, 'RTNETLINK answers: No such file or directory');
  cache.delete(neighbour);
  return '';
}

function readSelection(
  host: Host,
  words: string[],
): { device: Interface | undefined; address: Uint8Array | undefined } {
  let device: Interface | undefined;
  let address: Uint8Array | undefined;
  for (let word = words.shift(); word !== undefined; word = words.shift()) {
    if (word === 'dev') {
      device = deviceNamed(host, argument(words));
      continue;
    }
    const text = word === 'to' ? argument(words) : word;
    if (address !== undefined) throw garbage('to', text);
    address = parseAddress(text);
    if (!address) throw new IpError(1, `Error: any valid prefix is expected rather than "${text}".`);
  }
  return { device, address };
}

function flushNeighbours(host: Host, words: string[]): string {
  const { device, address } = readSelection(host, words);
  if (!device && !address) throw new IpError(255, 'Flush requires arguments.');
  for (const cache of [host.neighbourhood.arp, host.neighbourhood.discovery])
    for (const neighbour of [...cache.entries()])
      if (neighbour.state !== 'PERMANENT' && isSelected(neighbour, device, address)) cache.delete(neighbour);
  return '';
}

function showNeighbours(host: Host, words: string[], family: Family | undefined): string {
  const { device, address } = readSelection(host, words);
  const all = [
    ...(family === 6 ? [] : host.neighbourhood.arp.entries()),
    ...(family === 4 ? [] : host.neighbourhood.discovery.entries()),
  ];
  return all
    .filter(neighbour => neighbour.state !== 'NONE' && isSelected(neighbour, device, address))
    .map(neighbour => {
      const place = device ? '' : ` dev ${host.interfaceAt(neighbour.interfaceIndex)?.name}`;
      const mac = isValid(neighbour) ? ` lladdr ${formatMac(neighbour.mac)}` : '';
      return `${formatAddress(neighbour.address)}${place}${mac} ${neighbour.state} \n`;
    })
    .join('');
}

function isSelected(
  neighbour: Neighbour,
  device: Interface | undefined,
  address: Uint8Array | undefined,
): boolean {
  if (device && neighbour.interfaceIndex !== device.index) return false;
  return !address || sameAddress(neighbour.address, address);
}

// --- route

interface RouteArguments {
  destination: string;
  gateway: string | undefined;
  device: string | undefined;
  metric: number | undefined;
}

function readRoute(words: string[]): RouteArguments {
  let destination: string | undefined;
  let gateway: string | undefined;
  let device: string | undefined;
  let metric: number | undefined;
  for (let word = words.shift(); word !== undefined; word = words.shift()) {
    if (word === 'via') {
      gateway = argument(words);
      if (!parseAddress(gateway))
        throw new IpError(1, `Error: any valid address is expected rather than "${gateway}".`);
    } else if (word === 'dev') device = argument(words);
    else if (word === 'metric') {
      const text = argument(words);
      if (!/^\d{1,9}$/.test(text))
        throw new IpError(255, `Error: argument "${text}" is wrong: "metric" value is invalid`);
      metric = Number(text);
    } else if (destination !== undefined) throw garbage('to', word);
    else {
      if (word !== 'default') parsePrefix(word);
      destination = word;
    }
  }
  if (destination === undefined)
    throw new IpError(
      255,
      'Usage: ip route { add | del } { default | PREFIX } [ via ADDRESS ] [ dev STRING ] [ metric NUMBER ]',
    );
  return { destination, gateway, device, metric };
}

function addRoute(host: Host, words: string[]): string {
  const { destination, gateway, device, metric } = readRoute(words);
  const on = device === undefined ? undefined : deviceNamed(host, device);
  host.addRoute(destination, gateway, on, metric);
  return '';
}

function deleteRoute(host: Host, words: string[]): string {
  const { destination, gateway, device } = readRoute(words);
  if (device !== undefined) deviceNamed(host, device);
  host.removeRoute(destination, gateway);
  return '';
}

function getRoute(host: Host, words: string[]): string {
  const text = argument(words);
  const surplus = words[0];
  const destination = parseAddress(text);
  if (!destination) throw new IpError(1, `Error: any valid prefix is expected rather than "${text}".`);
  if (surplus !== undefined) throw garbage('to', surplus);
  const source = host.ip.sourceFor(destination);
  const address = formatAddress(destination);
  if (host.isLocal(destination)) return `local ${address} dev lo src ${address} uid 0 \n    cache <local> \n`;
  const route = host.routes.find(destination);
  if (!route || !source) throw new IpError(2, 'RTNETLINK answers: Network is unreachable');
  const via = route.gateway ? ` via ${formatAddress(route.gateway)}` : '';
  const from = formatAddress(source);
  if (destination.length === 4)
    return `${address}${via} dev ${route.interface.name} src ${from} uid 0 \n    cache \n`;
  const origin = route.origin === 'kernel' ? ' proto kernel' : '';
  return `${address} from ::${via} dev ${route.interface.name}${origin} src ${from} metric ${route.metric} pref medium\n`;
}

function showRoutes(host: Host, words: string[], family: Family | undefined): string {
  let only: Interface | undefined;
  let prefix: string | undefined;
  for (let word = words.shift(); word !== undefined; word = words.shift()) {
    if (word === 'dev') only = deviceNamed(host, argument(words));
    else if (prefix !== undefined) throw garbage('to', word);
    else {
      if (word !== 'default') parsePrefix(word);
      prefix = word;
    }
  }
  return host.routes
    .list(family ?? 4)
    .filter(
      route =>
        (!only || route.interface === only) &&
        (prefix === undefined || describeDestination(route) === prefix),
    )
    .map(route => describeRoute(route, only !== undefined))
    .join('');
}

function describeRoute(route: Route, withoutDevice: boolean): string {
  const words = [describeDestination(route)];
  if (route.gateway) words.push('via', formatAddress(route.gateway));
  if (!withoutDevice) words.push('dev', route.interface.name);
  if (route.origin === 'kernel') words.push('proto', 'kernel');
  if (route.family === 4) {
    if (!route.gateway) words.push('scope', 'link');
    if (route.source) words.push('src', formatAddress(route.source));
    if (route.metric > 0) words.push('metric', String(route.metric));
    return `${words.join(' ')} \n`;
  }
  words.push('metric', String(route.metric), 'pref', 'medium');
  return `${words.join(' ')}\n`;
}
