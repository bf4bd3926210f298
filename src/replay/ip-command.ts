/** The part of `ip` (iproute2) that describes a host: addresses, routes, neighbours and links. */
import { parseAddress, parseMac } from '../wire/address.ts';
import type { HostInterface, ReplayHost } from './host.ts';
import { networkOf } from './routing.ts';

const USAGE =
  'write ip addr add|del ADDRESS/LENGTH dev NAME, ip route add|replace|del [unreachable] PREFIX|default [via ADDRESS] [dev NAME], ' +
  'ip neigh add|replace ADDRESS lladdr MAC dev NAME, or ip link set NAME [address MAC] [mtu BYTES]';

/**
 * Does what the words after `ip` say, and prints nothing.
 * @throws Error that says what was wrong
 */
export function runIp(host: ReplayHost, words: readonly string[]): string {
  const [object = '', action = '', ...rest] = words.filter(
    word => word !== '-4' && word !== '-6' && word !== '-force',
  );
  const isIpv6 = words.includes('-6');
  switch (`${full(object)} ${action}`) {
    case 'address add':
    case 'address replace':
      addAddress(host, rest);
      break;
    case 'address del': {
      const { bytes } = prefix(rest[0], false);
      if (!host.removeAddress(bytes)) throw new Error(`there is no address ${rest[0]}`);
      break;
    }
    case 'route add':
    case 'route replace':
      addRoute(host, rest, action === 'replace', isIpv6);
      break;
    case 'route del': {
      const target = rest[0] === 'unreachable' ? rest[1] : rest[0];
      const { bytes, length } = prefix(target, isIpv6);
      if (!host.removeRoute(bytes, length)) throw new Error(`there is no route to ${target}`);
      break;
    }
    case 'neighbour add':
    case 'neighbour replace':
      addNeighbour(host, rest);
      break;
    case 'link set':
      setLink(host, rest);
      break;
    default:
      throw new Error(USAGE);
  }
  host.changed();
  return '';
}

/** The object's whole name; iproute2 takes any beginning of it. */
function full(object: string): string {
  if (object === '') return '';
  return ['address', 'route', 'neighbour', 'link'].find(name => name.startsWith(object)) ?? object;
}

function addAddress(host: ReplayHost, words: readonly string[]): void {
  const { bytes, length } = prefix(words[0], false);
  const on = device(host, wordAfter(words, 'dev'));
  host.addAddress(on.index, bytes, length);
}

function addRoute(host: ReplayHost, words: readonly string[], replace: boolean, isIpv6: boolean): void {
  const unreachable = words[0] === 'unreachable' || words[0] === 'blackhole';
  const gatewayText = wordAfter(words, 'via');
  const gateway = gatewayText === undefined ? undefined : parseAddress(gatewayText);
  if (gatewayText !== undefined && !gateway) throw new Error(`"${gatewayText}" is no address`);
  const target = prefix(words[unreachable ? 1 : 0], isIpv6 || gateway?.length === 16);
  const deviceName = wordAfter(words, 'dev');
  let interfaceIndex = 0;
  if (deviceName !== undefined) interfaceIndex = device(host, deviceName).index;
  else if (gateway) interfaceIndex = host.interfaceToward(gateway);
  if (!unreachable && interfaceIndex === 0) {
    throw new Error(
      gateway ? `${gatewayText} is on no network of this host` : 'say via which address or on which dev',
    );
  }
  const network = networkOf(target.bytes, target.length);
  if (replace) host.removeRoute(network, target.length);
  host.addRoute({
    prefix: network,
    length: target.length,
    interfaceIndex: unreachable ? 0 : interfaceIndex,
    gateway: unreachable ? undefined : gateway,
  });
}

function addNeighbour(host: ReplayHost, words: readonly string[]): void {
  const address = parseAddress(words[0] ?? '');
  const mac = parseMac(wordAfter(words, 'lladdr') ?? '');
  if (!address || !mac) throw new Error(USAGE);
  host.addNeighbour(device(host, wordAfter(words, 'dev')).index, address, mac);
}

function setLink(host: ReplayHost, words: readonly string[]): void {
  const [name, ...rest] = words.filter(word => word !== 'dev' && word !== 'up');
  const link = device(host, name);
  const mac = wordAfter(rest, 'address');
  const mtu = wordAfter(rest, 'mtu');
  if (mac !== undefined) {
    const bytes = parseMac(mac);
    if (!bytes) throw new Error(`"${mac}" is no MAC address`);
    link.mac = bytes;
  }
  if (mtu !== undefined) {
    if (!/^[0-9]{2,5}$/.test(mtu) || Number(mtu) < 68 || Number(mtu) > 65535) {
      throw new Error(`"${mtu}" is no MTU: 68..65535`);
    }
    link.mtu = Number(mtu);
  }
}

/** The word behind this one. */
function wordAfter(words: readonly string[], word: string): string | undefined {
  const at = words.indexOf(word);
  return at < 0 ? undefined : words[at + 1];
}

function device(host: ReplayHost, name: string | undefined): HostInterface {
  const found = host.interfaceNamed(name ?? '');
  if (!found) {
    const known = host.interfaces.map(each => each.name).join(', ');
    throw new Error(name === undefined ? USAGE : `there is no interface ${name}, only ${known}`);
  }
  return found;
}

function prefix(text: string | undefined, isIpv6: boolean): { bytes: Uint8Array; length: number } {
  if (text === 'default') return { bytes: new Uint8Array(isIpv6 ? 16 : 4), length: 0 };
  const [address = '', bits, ...more] = (text ?? '').split('/');
  const bytes = parseAddress(address);
  const length = bits === undefined ? 8 * (bytes?.length ?? 0) : Number(bits);
  if (!bytes || more.length > 0 || !/^[0-9]{1,3}$/.test(bits ?? '0') || length > 8 * bytes.length) {
    throw new Error(text === undefined ? USAGE : `"${text}" is no address or prefix`);
  }
  return { bytes, length };
}
