/**
 * Gives up VIPs without a service once none of their connections is left, so that whoever takes VIPs and gives them back
 * for years has room for the next one. The connections are gone through in parts, beside the work.
 */
import {
  CONNECTION_BYTES,
  ConnectionField,
  ConnectionFlag,
  type ConnectionTable,
} from '../../ipvs/connections.ts';
import { formatAddress } from '../../wire/address.ts';
import type { AddressEntries } from './address-entries.ts';

/** Connections that are looked at in one step: a millisecond. */
const STEP = 16_384;
const VIRTUAL_WORD = ConnectionField.virtual / 4;
const RECORD_WORDS = CONNECTION_BYTES / 4;

export class LingeringSearch {
  readonly #connections: ConnectionTable;
  readonly #addresses: AddressEntries;
  #slot = 0;
  /** Addresses that are looked for, and the first words of them: most connections are told by that. */
  #sought = new Set<string>();
  #firstWords = new Set<number>();
  /** Not found so far, and not found the last time either. */
  #missing = new Set<string>();
  #missedBefore: ReadonlySet<string> = new Set();

  constructor(connections: ConnectionTable, addresses: AddressEntries) {
    this.#connections = connections;
    this.#addresses = addresses;
  }

  /** Looks at the next connections. True if addresses were given up. */
  step(): boolean {
    if (this.#addresses.lingering === 0) {
      this.#slot = 0;
      return false;
    }
    if (this.#connections.size === 0) {
      this.#slot = 0;
      this.#addresses.forgetLingering();
      return true;
    }
    if (this.#slot === 0) this.#begin();
    const end = Math.min(this.#slot + STEP, this.#connections.highWater);
    for (; this.#slot < end; this.#slot++) this.#look(this.#slot);
    return this.#slot >= this.#connections.highWater && this.#finish();
  }

  #begin(): void {
    this.#sought.clear();
    this.#firstWords.clear();
    for (const { name, bytes } of this.#addresses.lingeringAddresses()) {
      this.#sought.add(name);
      this.#firstWords.add(new DataView(bytes.buffer, bytes.byteOffset).getInt32(0, true));
    }
    this.#missing = new Set(this.#sought);
  }

  #look(slot: number): void {
    const connections = this.#connections;
    if (!this.#firstWords.has(connections.words[slot * RECORD_WORDS + VIRTUAL_WORD] as number)) return;
    if (!connections.isUsed(slot)) return;
    const length = connections.flags(slot) & ConnectionFlag.ipv6 ? 16 : 4;
    const at = slot * CONNECTION_BYTES + ConnectionField.virtual;
    this.#missing.delete(formatAddress(connections.bytes, at, length));
  }

  /** A connection may have come into being behind this while the one that it belongs to ended before: so twice. */
  #finish(): boolean {
    this.#slot = 0;
    const given = [...this.#missing].filter(name => this.#missedBefore.has(name));
    this.#missedBefore = this.#missing;
    for (const name of given) this.#addresses.stopLingering(name);
    return given.length > 0;
  }
}
