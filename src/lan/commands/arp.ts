/** `arp` of net-tools 2.10, numeric: there is no name service on the virtual LAN. */
import { formatArpTable, formatArpTableBsd, type TableEntry, tableEntries } from '../../arp/table.ts';
import { type Family, parseIpv4Address, parseMac } from '../../wire/address.ts';
import type { Host } from '../host.ts';
import type { CommandResult } from '../shell.ts';

/** The host's table of IPv4 or IPv6 neighbours as data. */
export function neighbourEntries(host: Host, family: Family): TableEntry[] {
  const { arp, discovery } = host.neighbourhood;
  return tableEntries(
    (family === 4 ? arp : discovery).entries(),
    index => host.interfaceAt(index)?.name ?? `if${index}`,
  );
}

/** The host's ARP table as data. */
export function arpTable(host: Host): TableEntry[] {
  return neighbourEntries(host, 4);
}

function failure(text: string, status = 255): CommandResult {
  return { status, stdout: '', stderr: `${text}\n` };
}

/** `arp [-n] [-a] [-e] [-i IF] [ADDRESS]`, `arp -d ADDRESS`, `arp -s ADDRESS MAC`. */
export function runArp(host: Host, argv: readonly string[]): CommandResult {
  const options = new Set<string>();
  const words: string[] = [];
  let device: string | undefined;
  const rest = [...argv];
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    if (!word.startsWith('-')) {
      words.push(word);
      continue;
    }
    for (const letter of word.slice(1)) {
      if (!'naedsi'.includes(letter) || word === '-') return failure(`arp: invalid option -- '${letter}'`, 3);
      options.add(letter);
    }
    if (word.includes('i')) {
      device = rest.shift();
      if (device === undefined) return failure("arp: option requires an argument -- 'i'", 3);
    }
  }
  const [name, mac, surplus] = words;
  const address = name === undefined ? undefined : host.resolve(name);
  if (name !== undefined && (!address || !parseIpv4Address(address)))
    return failure(`${name}: Host name lookup failure`);
  if (options.has('s')) return set(host, address, mac, device);
  if (mac !== undefined || surplus !== undefined) return failure(`arp: unexpected argument ${mac}`, 3);
  if (options.has('d')) return remove(host, address, device);
  return show(host, address, device, options.has('a'));
}

function show(
  host: Host,
  address: string | undefined,
  device: string | undefined,
  bsd: boolean,
): CommandResult {
  const all = arpTable(host);
  const chosen = all.filter(
    entry =>
      (address === undefined || entry.address === address) &&
      (device === undefined || entry.interface === device),
  );
  let stdout = bsd ? formatArpTableBsd(chosen) : formatArpTable(chosen);
  if (chosen.length === 0 && address !== undefined) stdout = `${address} (${address}) -- no entry\n`;
  else if (chosen.length === 0 && device !== undefined)
    stdout = `arp: in ${all.length} entries no match found.\n`;
  return { status: 0, stdout, stderr: '' };
}

function remove(host: Host, address: string | undefined, device: string | undefined): CommandResult {
  if (address === undefined) return failure('arp: need host name');
  const cache = host.neighbourhood.arp;
  const bytes = parseIpv4Address(address);
  const found = host.interfaces
    .filter(each => device === undefined || each.name === device)
    .map(each => (bytes ? cache.find(each.index, bytes) : undefined))
    .find(each => each !== undefined);
  if (!found) return failure(`No ARP entry for ${address}`);
  cache.delete(found);
  return { status: 0, stdout: '', stderr: '' };
}

function set(
  host: Host,
  address: string | undefined,
  mac: string | undefined,
  device: string | undefined,
): CommandResult {
  if (address === undefined) return failure('arp: need host name');
  if (mac === undefined) return failure('arp: need hardware address');
  const macBytes = parseMac(mac);
  const bytes = parseIpv4Address(address);
  if (!macBytes || !bytes) return failure('arp: invalid hardware address');
  const out = device === undefined ? host.routes.find(bytes)?.interface : host.interfaceNamed(device);
  if (!out) return failure('SIOCSARP: No such device');
  const neighbour = host.neighbourhood.arp.obtain(out.index, bytes, host.now);
  if (!neighbour) return failure('SIOCSARP: No buffer space available');
  host.neighbourhood.arp.set(neighbour, macBytes, 'PERMANENT', host.now);
  return { status: 0, stdout: '', stderr: '' };
}
