/** What a daemon left pinned in the kernel, seen by one that is not (yet) to load anything. */
import { closeSync, existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import {
  DESTINATION_BYTES,
  DestinationField,
  DestinationFlag,
  DestinationTable,
} from '../../ipvs/destinations.ts';
import { formatAddress } from '../../wire/address.ts';
import { BpfMap, requireLibbpf } from '../ffi/libbpf.ts';
import { interfaceIndex, interfaceName, lockFile } from '../ffi/libc.ts';
import { runIp } from '../host-state.ts';
import { LAYOUT_VERSION } from './control.ts';
import { DEFAULT_DIRECTORY, defaultObject, removePinned } from './fast-path.ts';
import { elementsOf } from './tables.ts';

/**
 * Makes sure that a data path could start or take over here, without touching anything.
 * @throws Error that says what is missing, or that the tables there are of another layout
 */
export function checkXdp(directory = DEFAULT_DIRECTORY, interfaces: readonly string[] = []): void {
  requireLibbpf();
  const object = defaultObject();
  if (!existsSync(object)) throw new Error(`the XDP program ${object} is missing: install it anew`);
  for (const name of interfaces) {
    if (interfaceIndex(name) === 0) {
      throw new Error(`there is no interface ${name}: \`ip link\` lists those there are`);
    }
  }
  requireFit(directory);
}

/** @throws Error that says which layout the tables have, if it is not this version's */
function requireFit(directory: string): void {
  const control = BpfMap.openPinned('control', join(directory, 'control'));
  if (!control) return;
  try {
    const value = new Uint8Array(new ArrayBuffer(control.valueSize));
    control.lookup(new Uint8Array(new ArrayBuffer(4)), value);
    const layout = new DataView(value.buffer).getUint32(0, true);
    if (layout === LAYOUT_VERSION || layout === 0) return;
    throw new Error(
      `${directory} holds tables of layout ${layout}, this version has layout ${LAYOUT_VERSION} and cannot take them over: ` +
        '`dirigo down` removes them, which ends their connections',
    );
  } finally {
    control.close();
  }
}

/**
 * Removes everything that a daemon which is gone left: programs, links, maps, pins, and what it asked of the host's
 * neighbour table.
 * @returns what was removed, for people; undefined if there was nothing
 * @throws Error if a daemon still uses it
 */
export async function removeLeftovers(directory = DEFAULT_DIRECTORY): Promise<string | undefined> {
  if (!existsSync(join(directory, 'connections'))) return undefined;
  let lock = -1;
  if (!lockFile(directory, fd => (lock = fd))) {
    throw new Error(`a daemon on another socket uses ${directory}: set DIRIGO_SOCKET to its socket`);
  }
  try {
    const names = readdirSync(directory).flatMap(entry => {
      const index = /^link_(\d+)_/.exec(entry)?.[1];
      return index === undefined ? [] : [interfaceName(Number(index)) ?? `interface ${index}`];
    });
    await releaseNeighbours(serverAddresses(directory));
    removePinned(directory);
    return names.length > 0
      ? `the program on ${names.join(', ')} and the tables in ${directory}`
      : `the tables in ${directory}`;
  } finally {
    closeSync(lock);
  }
}

/** The addresses of all servers in the pinned table. */
function serverAddresses(directory: string): string[] {
  const map = BpfMap.openPinned('destinations', join(directory, 'destinations'));
  if (!map) return [];
  const destinations = new DestinationTable(elementsOf('destinations', map), map.memory());
  const addresses = new Set<string>();
  for (let index = 0; index < destinations.capacity; index++) {
    if ((destinations.flags(index) & DestinationFlag.used) === 0) continue;
    const at = index * DESTINATION_BYTES;
    const length = destinations.bytes[at + DestinationField.family] === 6 ? 16 : 4;
    addresses.add(formatAddress(destinations.bytes, at + DestinationField.address, length));
  }
  map.close();
  return [...addresses];
}

/** Leaves the entries that were kept for good (`managed`), of servers or of gateways to them, to the kernel's own rules. */
async function releaseNeighbours(servers: readonly string[]): Promise<void> {
  if (servers.length === 0) return;
  const asked = servers.map(address => `route get ${address}\n`).join('');
  const routes = await runIp(['-json', '-force', '-batch', '-'], asked).catch(() => '');
  const gateways = [...routes.matchAll(/"gateway":"([^"]+)"/g)].map(match => match[1] as string);
  const kept = new Set([...servers, ...gateways]);
  const known = JSON.parse(await runIp(['-json', 'neigh', 'show'])) as {
    dst: string;
    dev: string;
    managed?: null;
  }[];
  const lines = known
    .filter(each => 'managed' in each && kept.has(each.dst))
    .map(each => `neigh replace ${each.dst} dev ${each.dev} use\n`);
  if (lines.length > 0) await runIp(['-force', '-batch', '-'], lines.join(''));
}
