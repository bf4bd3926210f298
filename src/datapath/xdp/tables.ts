/**
 * The tables that the XDP program reaches by their addresses: sections of data of its object, of which the object has one
 * element. Each is a map of one value that is made here as large as it is to be; the program is told how many elements
 * there are by constants, which the verifier reads, too.
 */

import { CONNECTION_BYTES, EXTENSION_WORDS } from '../../ipvs/connections.ts';
import { DESTINATION_BYTES } from '../../ipvs/destinations.ts';
import { BUCKET_BYTES, bucketCount } from '../../ipvs/slot-index.ts';
import { BpfMap, type BpfObject } from '../ffi/libbpf.ts';
import { PLAN_BLOCK_BYTES, SizeField, TUNNEL_BYTES } from './control.ts';

/** Part of the slots that FULLNAT and FTP can use. */
const EXTENDED_SHARE = 0.5;
/** Blocks of 64 bytes for selection plans: a sequence of 64 places, or a part of a table of hashes, for each service. */
const PLAN_BLOCKS = 32768;
const PLAN_BLOCKS_OF_SERVICE = 4;

/** Bytes of an element. */
const ELEMENT_BYTES = {
  connections: CONNECTION_BYTES,
  buckets: BUCKET_BYTES,
  reply_buckets: BUCKET_BYTES,
  extensions: EXTENSION_WORDS * 4,
  destinations: DESTINATION_BYTES,
  tunnels: TUNNEL_BYTES,
  plans: PLAN_BLOCK_BYTES,
} as const;

export type TableName = keyof typeof ELEMENT_BYTES;
const tableNames = Object.keys(ELEMENT_BYTES) as TableName[];

export interface TableSizes {
  /** Most connections, 1..16777214. */
  connections: number;
  /** Most destinations. */
  destinations: number;
  /** Most services. */
  services: number;
}

/** How many elements a table that is there already has. */
export function elementsOf(name: TableName, map: BpfMap): number {
  return map.valueSize / ELEMENT_BYTES[name];
}

/**
 * The tables: those that a predecessor left, the others new. They are the caller's to close.
 * @throws Error that says what to do if there is not that much memory
 */
export function makeTables(
  { connections, destinations, services }: TableSizes,
  existing: ReadonlyMap<string, BpfMap>,
): Map<string, BpfMap> {
  const counts: Record<TableName, number> = {
    connections,
    buckets: bucketCount(connections),
    reply_buckets: bucketCount(connections),
    extensions: Math.ceil(connections * EXTENDED_SHARE),
    destinations,
    tunnels: destinations,
    // A power of two: the program finds a place by a mask.
    plans: 2 ** Math.ceil(Math.log2(Math.max(PLAN_BLOCKS, PLAN_BLOCKS_OF_SERVICE * services))),
  };
  const tables = new Map<string, BpfMap>();
  try {
    for (const name of tableNames) {
      tables.set(name, existing.get(name) ?? BpfMap.createData(name, counts[name] * ELEMENT_BYTES[name]));
    }
    return tables;
  } catch (error) {
    for (const [name, map] of tables) if (existing.get(name) !== map) map.close();
    throw error;
  }
}

/** Makes an object that is not loaded yet use these tables. */
export function useTables(object: BpfObject, tables: ReadonlyMap<string, BpfMap>): void {
  const sizes = object.data('.rodata.sizes');
  const count = (name: TableName): number => elementsOf(name, tables.get(name) as BpfMap);
  sizes.setUint32(SizeField.connections, count('connections'), true);
  sizes.setUint32(SizeField.bucketMask, count('buckets') - 1, true);
  sizes.setUint32(SizeField.extensions, count('extensions'), true);
  sizes.setUint32(SizeField.destinations, count('destinations'), true);
  sizes.setUint32(SizeField.planMask, (count('plans') * PLAN_BLOCK_BYTES) / 4 - 1, true);
  for (const [name, map] of tables) object.reuse(name, map);
}
