/**
 * The connection table: one flat array of 64-byte records and a hash index that finds them, over plain memory or over
 * the memory-mapped arrays of the XDP program. Lookup, listing, expiry and draining are the code below in either case.
 *
 * Layout of a record, little-endian unless it says *raw* (network bytes):
 *
 * | byte | field |
 * |---|---|
 * | 0 | u32 tag: 0 free, 1 in use, 2 busy (see below); above the low byte, what the XDP program remembers of the way to the client |
 * | 4 | u32 time it expires at, ticks of the table's clock |
 * | 8 | u16 flags, `ConnectionFlag` |
 * | 10 | u8 state, numbered by protocol as the kernel does |
 * | 11 | u8 IP protocol; 0 for templates of firewall-mark services |
 * | 12 | u16 client port, raw; 0 for templates |
 * | 14 | u16 virtual port, raw |
 * | 16 | 16 bytes client address, raw; IPv4 in the first four, the rest 0 |
 * | 32 | 16 bytes virtual address, likewise |
 * | 48 | u32 index of the destination; 0xffffffff: none |
 * | 52 | u16 destination port, raw |
 * | 54 | u16 local port of FULLNAT, raw |
 * | 56 | u32 slot of the controlling connection + 1, 0: none; for templates: how many connections they control |
 * | 60 | u32 packets from the client; for templates: ticks that a new connection restarts its time with, 0: the service's |
 *
 * An index (`slot-index.ts`) finds connections by their keys, a second one of the same form by their replies (NAT and
 * FULLNAT).
 *
 * The director and the XDP program, which runs on every CPU, enter and end connections at the same time. A slot is taken
 * by exchanging its tag from free to busy, a connection is ended by exchanging it from in use to busy: only one succeeds.
 * Its flags and state are one word, which is exchanged as a whole: whoever changes `inactive` in it adjusts the server's
 * counts, and whoever ends the connection marks it `ended` there first, after which nobody changes it.
 * Entries of the index are written by exchanging 0. Whoever enters a connection holds the lock of its key's stripe while
 * it looks whether the key is there already, so none is there twice.
 *
 * Time is counted in ticks, a 32-bit number that wraps; `hz` ticks make a second. A record whose time lies up to
 * 2^28 ticks back has expired, anything else is in the future: at 250 Hz that leaves 186 days ahead for the longest
 * persistence (31 days) and needs a sweep every 12 days.
 */
import { ConnectionKey, hashKey } from './connection-key.ts';
import { DESTINATION_BYTES, DestinationField, type DestinationTable, Forwarding } from './destinations.ts';
import { FreeSlots, LOCKS, TABLE_STATE_BYTES, TableState, Tag } from './free-slots.ts';
import {
  BUCKET_BYTES,
  BUCKET_ENTRIES,
  bucketCount,
  PLACE_MASK,
  SlotIndex,
  secondHash,
} from './slot-index.ts';
import { SECRET_WORDS } from './syn-cookie.ts';

export const CONNECTION_BYTES = 64;
const WORDS = CONNECTION_BYTES / 4;
/** The slot field of an index entry has 24 bits. */
export const MAXIMUM_CAPACITY = 0xfffffe;

export const ConnectionField = {
  tag: 0,
  expires: 4,
  flags: 8,
  state: 10,
  protocol: 11,
  clientPort: 12,
  virtualPort: 14,
  client: 16,
  virtual: 32,
  destination: 48,
  destinationPort: 52,
  localPort: 54,
  control: 56,
  packets: 60,
} as const;

/** The kernel's IP_VS_CONN_F_… bits where it has them (include/uapi/linux/ip_vs.h), so that synchronisation copies them. */
export const ConnectionFlag = {
  /** Forwarding method, `Forwarding`. */
  forwarding: 0x0007,
  /** Dirigo's own, where the kernel has nothing: it has been taken out of its server's counts, nothing moves it any more. */
  ended: 0x0010,
  /** Learned by synchronisation. */
  sync: 0x0020,
  /** Dirigo's own, where the kernel has HASHED, which it never sends: the FTP helper reads it. */
  helper: 0x0040,
  /** Replies were not seen: the input-only state table applies. */
  noOutput: 0x0080,
  /** Counted as inactive at its destination. */
  inactive: 0x0100,
  /** The server's sequence numbers are moved: the SYN proxy has made it. */
  outSequence: 0x0200,
  /** More than these is moved, or they are not known yet: the XDP program leaves its packets to the director. */
  inSequence: 0x0400,
  /** The client's port is not known yet (FTP data). */
  noClientPort: 0x0800,
  template: 0x1000,
  onePacket: 0x2000,
  /** Dirigo's own: the addresses are IPv6. */
  ipv6: 0x4000,
  /** Dirigo's own: found by replies too. */
  replies: 0x8000,
} as const;

/** `destination` of a connection without one. */
export const NO_DESTINATION = 0xffffffff;

/** The part of the flags that belongs to the key. */
const KEY_FLAGS = ConnectionFlag.template | ConnectionFlag.ipv6;

/** Ticks for which an expired time is still recognised as past. */
const EXPIRED_WINDOW = 0x10000000;

/** Words of the extension a slot has for FULLNAT, SYN proxy and FTP. */
export const EXTENSION_WORDS = 16;

/** Offsets in it, in words. Sequence offsets are added to sequence numbers, modulo 2^32. */
export const Extension = {
  /** FULLNAT: 4 words, the local address, raw. */
  localAddress: 0,
  /** Sequence numbers client → server: the offset. */
  inOffset: 4,
  /** SYN proxy: `forwarding/proxied.ts`. */
  proxiedTimestamps: 5,
  proxiedOptions: 6,
  /** Sequence numbers server → client: the offset, and for FTP where it starts and what held before. */
  outOffset: 7,
  outStart: 8,
  outBefore: 9,
  /** The acknowledgement number that still acknowledges only the server's SYN (TOA rides on such segments). */
  firstAcknowledgement: 10,
  /** Bits of the method's own. */
  flags: 11,
  /** The client's initial sequence number. */
  clientSequence: 12,
  /** FULLNAT: which of `LocalAddresses`' pools the local port is from. */
  portPool: 13,
  /** FULLNAT: bytes of the PROXY header, 0 without one. */
  proxyLength: 14,
  /** FTP: where the last answer stands that was translated. */
  answer: 15,
} as const;

/** Attempts to get a lock; who holds one needs it for less than a microsecond. */
const LOCK_ATTEMPTS = 1_000_000;
/** Virtual port 21, raw, in the upper half of a key's ports. */
const FTP_PORT_BITS = 0x1500;
const TCP = 6;

/** The memory a table works on. */
export interface ConnectionMemory {
  /** `capacity` × 64 bytes. */
  records: ArrayBufferLike;
  /** A power of two × 32 bytes each. */
  buckets: ArrayBufferLike;
  replyBuckets: ArrayBufferLike;
  /**
   * `EXTENSION_WORDS` words for each of the first slots, as many as there is room for: only these can be of FULLNAT, SYN
   * proxy and FTP. Missing: made in this process when they are needed, for all slots.
   */
  extensions?: ArrayBufferLike;
  /** `TABLE_STATE_BYTES`; missing: found out from the records. */
  state?: ArrayBufferLike;
}

export interface ConnectionTableOptions {
  /** Most connections and templates at a time, 1..16777214. */
  capacity: number;
  /** Where the destinations' addresses are. */
  destinations: DestinationTable;
  /** Ticks a second of the clock that `expires` counts in. Default 1000. */
  hz?: number;
  /** Secret of the hash, any 32-bit number. */
  seed?: number;
  /** Memory to work on, records in use there included; made if missing. */
  memory?: ConnectionMemory;
}

/** Fresh memory for a table in this process. */
export function makeConnectionMemory(capacity: number): ConnectionMemory {
  const index = bucketCount(capacity) * BUCKET_BYTES;
  return {
    records: new ArrayBuffer(capacity * CONNECTION_BYTES),
    buckets: new ArrayBuffer(index),
    replyBuckets: new ArrayBuffer(index),
    state: new ArrayBuffer(TABLE_STATE_BYTES),
  };
}

export class ConnectionTable {
  readonly capacity: number;
  readonly hz: number;
  readonly seed: number;
  /** The records as 32-bit words (sixteen each), half words and bytes. */
  readonly words: Int32Array;
  readonly halves: Uint16Array;
  readonly bytes: Uint8Array;
  readonly #destinations: DestinationTable;
  #extension: Int32Array = new Int32Array(0);
  readonly #index: SlotIndex;
  readonly #replies: SlotIndex;
  readonly #state: Int32Array;
  readonly #slots: FreeSlots;

  constructor(options: ConnectionTableOptions) {
    const { capacity, destinations } = options;
    if (!Number.isInteger(capacity) || capacity < 1 || capacity > MAXIMUM_CAPACITY) {
      throw new RangeError(`connection table: capacity ${capacity} is not in 1..${MAXIMUM_CAPACITY}`);
    }
    const memory = options.memory ?? makeConnectionMemory(capacity);
    this.capacity = capacity;
    this.#destinations = destinations;
    this.hz = options.hz ?? 1000;
    this.seed = (options.seed ?? 0) | 0;
    this.words = new Int32Array(memory.records, 0, capacity * WORDS);
    this.halves = new Uint16Array(memory.records, 0, capacity * WORDS * 2);
    this.bytes = new Uint8Array(memory.records, 0, capacity * CONNECTION_BYTES);
    this.#index = new SlotIndex(memory.buckets, slot => this.#hashOf(slot));
    this.#replies = new SlotIndex(memory.replyBuckets, slot => this.#replyHashOf(slot));
    if (memory.extensions) this.#extension = new Int32Array(memory.extensions);
    const extended = memory.extensions ? Math.floor(this.#extension.length / EXTENSION_WORDS) : capacity;
    this.#state = new Int32Array(memory.state ?? new ArrayBuffer(TABLE_STATE_BYTES));
    // Nobody in another process holds a lock: there is one daemon, and the program gives them back at once.
    for (let lock = 0; lock < LOCKS; lock++) Atomics.store(this.#state, TableState.locks + lock, 0);
    this.#slots = new FreeSlots(this.#state, this.words, {
      capacity,
      extended: Math.min(capacity, extended),
    });
  }

  /** Connections and templates in the table. */
  get size(): number {
    return Atomics.load(this.#state, TableState.size);
  }

  /**
   * The secret of SYN cookies, eight words. It is kept with the table, so that whoever takes that over accepts the cookies
   * of its predecessor, too.
   * @param random draws it where there is none yet
   */
  cookieSecret(random: () => number): Int32Array {
    const secret = this.#state.subarray(TableState.cookieSecret, TableState.cookieSecret + SECRET_WORDS);
    if (secret.every(word => word === 0)) {
      for (let word = 0; word < SECRET_WORDS; word++) secret[word] = random();
    }
    return secret.slice();
  }

  /** No record at or behind this slot was ever in use. */
  get highWater(): number {
    return this.#slots.highWater;
  }

  /**
   * `EXTENSION_WORDS` words a slot for the few kinds of connections that need them (`Extension`); zero pages until the
   * first of them is written, so plain NAT and DR pay nothing.
   */
  get extension(): Int32Array {
    if (this.#extension.length === 0) this.#extension = new Int32Array(this.capacity * EXTENSION_WORDS);
    return this.#extension;
  }

  /** The tick that a time in milliseconds falls into, as a signed 32-bit number. */
  tick(now: number): number {
    return ((now * this.hz) / 1000) | 0;
  }

  /** Slot of the live connection with this key, or -1. `tick` is now. */
  find(key: ConnectionKey, tick: number): number {
    const hash = hashKey(key, this.seed);
    const index = this.#index;
    const entries = index.entries;
    const second = secondHash(hash);
    const tag = second >>> 24;
    let base = (hash & index.mask) << 3;
    for (let pass = 0; pass < 2; pass++) {
      for (let step = 0; step < BUCKET_ENTRIES; step++) {
        const entry = entries[base + ((second + step) & PLACE_MASK)] as number;
        if (entry === 0 || entry >>> 24 !== tag) continue;
        const slot = (entry & 0xffffff) - 1;
        if (this.#matches(slot, key) && this.isUsed(slot) && !this.hasExpired(slot, tick)) return slot;
      }
      base = ((second >>> 3) & index.mask) << 3;
    }
    return -1;
  }

  /** Slot of a connection with this key that has run out but was not swept yet, or -1. Not for the packet path. */
  findExpired(key: ConnectionKey, tick: number): number {
    for (const entry of this.#index.entriesOf(hashKey(key, this.seed))) {
      const slot = (entry & 0xffffff) - 1;
      if (slot >= 0 && this.#matches(slot, key) && this.hasExpired(slot, tick)) return slot;
    }
    return -1;
  }

  #matches(slot: number, key: ConnectionKey): boolean {
    const words = this.words;
    const at = slot * WORDS;
    if (words[at + 3] !== key.ports || words[at + 4] !== key.client0 || words[at + 8] !== key.virtual0)
      return false;
    const kind = words[at + 2] as number;
    if ((kind & KEY_FLAGS) !== key.flags || kind >>> 24 !== key.protocol) return false;
    if ((key.flags & ConnectionFlag.ipv6) === 0) return true;
    return (
      words[at + 5] === key.client1 &&
      words[at + 6] === key.client2 &&
      words[at + 7] === key.client3 &&
      words[at + 9] === key.virtual1 &&
      words[at + 10] === key.virtual2 &&
      words[at + 11] === key.virtual3
    );
  }

  /**
   * Slot of the live connection whose replies have this key, or -1: `client` is where the reply goes (the client, or
   * the local address of FULLNAT), `virtual` the real server that sent it.
   */
  findReply(key: ConnectionKey, tick: number): number {
    const { entries, mask } = this.#replies;
    const hash = hashKey(key, this.seed);
    const second = secondHash(hash);
    const tag = second >>> 24;
    let base = (hash & mask) << 3;
    for (let pass = 0; pass < 2; pass++) {
      for (let step = 0; step < BUCKET_ENTRIES; step++) {
        const entry = entries[base + ((second + step) & PLACE_MASK)] as number;
        if (entry === 0 || entry >>> 24 !== tag) continue;
        const slot = (entry & 0xffffff) - 1;
        if (this.isUsed(slot) && this.#repliesMatch(slot, key) && !this.hasExpired(slot, tick)) return slot;
      }
      base = ((second >>> 3) & mask) << 3;
    }
    return -1;
  }

  #repliesMatch(slot: number, key: ConnectionKey): boolean {
    const found = this.readReplyKey(slot, this.#scratch);
    return (
      found.ports === key.ports &&
      found.client0 === key.client0 &&
      found.virtual0 === key.virtual0 &&
      found.protocol === key.protocol &&
      found.flags === key.flags &&
      found.client1 === key.client1 &&
      found.client2 === key.client2 &&
      found.client3 === key.client3 &&
      found.virtual1 === key.virtual1 &&
      found.virtual2 === key.virtual2 &&
      found.virtual3 === key.virtual3
    );
  }

  /** Copies the key that replies of this connection have into `key`; it must have a destination. */
  readReplyKey(slot: number, key: ConnectionKey): ConnectionKey {
    const words = this.words;
    const at = slot * WORDS;
    const kind = words[at + 2] as number;
    const servers = this.#destinations.words;
    const server = ((words[at + 12] as number) * DESTINATION_BYTES) / 4 + DestinationField.address / 4;
    key.protocol = kind >>> 24;
    key.flags = kind & ConnectionFlag.ipv6;
    key.virtual0 = servers[server] as number;
    key.virtual1 = servers[server + 1] as number;
    key.virtual2 = servers[server + 2] as number;
    key.virtual3 = servers[server + 3] as number;
    const portWord = words[at + 13] as number;
    if ((kind & ConnectionFlag.forwarding) === Forwarding.fullnat) {
      const extension = this.extension;
      const local = slot * EXTENSION_WORDS + Extension.localAddress;
      key.client0 = extension[local] as number;
      key.client1 = extension[local + 1] as number;
      key.client2 = extension[local + 2] as number;
      key.client3 = extension[local + 3] as number;
      key.ports = (portWord >>> 16) | (portWord << 16);
      return key;
    }
    key.client0 = words[at + 4] as number;
    key.client1 = words[at + 5] as number;
    key.client2 = words[at + 6] as number;
    key.client3 = words[at + 7] as number;
    key.ports = ((words[at + 3] as number) & 0xffff) | (portWord << 16);
    return key;
  }

  hasExpired(slot: number, tick: number): boolean {
    return (tick - (this.words[slot * WORDS + 1] as number)) >>> 0 < EXPIRED_WINDOW;
  }

  /** True if the slot holds a connection, expired or not. */
  isUsed(slot: number): boolean {
    return ((this.words[slot * WORDS] as number) & Tag.mask) === Tag.used;
  }

  /**
   * Enters a connection: key, flags and state 0; everything else 0 and no destination. The caller fills in the rest
   * and calls `publish`. Returns the slot, or -1 if the table is full.
   */
  allocate(key: ConnectionKey, flags: number): number {
    const slot = this.#slots.take(needsExtension(key, flags));
    if (slot < 0) return -1;
    const words = this.words;
    const at = slot * WORDS;
    words[at + 1] = 0;
    words[at + 2] = (key.protocol << 24) | key.flags | flags;
    words[at + 3] = key.ports;
    words[at + 4] = key.client0;
    words[at + 5] = key.client1;
    words[at + 6] = key.client2;
    words[at + 7] = key.client3;
    words[at + 8] = key.virtual0;
    words[at + 9] = key.virtual1;
    words[at + 10] = key.virtual2;
    words[at + 11] = key.virtual3;
    words[at + 12] = NO_DESTINATION | 0;
    words[at + 13] = 0;
    words[at + 14] = 0;
    words[at + 15] = 0;
    return slot;
  }

  /**
   * Makes an allocated record visible to lookups (and to the XDP program), by its replies too if it carries
   * `ConnectionFlag.replies`. False if the index has no place left for it; the slot is free again then.
   * @param tick now: false then, too, if another live connection with the key has come into being meanwhile
   */
  publish(slot: number, tick?: number): boolean {
    const hash = this.#hashOf(slot);
    const lock = TableState.locks + (hash & (LOCKS - 1));
    for (let attempt = 0; attempt < LOCK_ATTEMPTS; attempt++) {
      if (Atomics.compareExchange(this.#state, lock, 0, 1) === 0) break;
    }
    const known = tick === undefined ? -1 : this.find(this.readKey(slot, this.#scratch), tick);
    const published = known < 0 && this.#publish(slot, hash);
    Atomics.store(this.#state, lock, 0);
    if (!published) this.#slots.give(slot);
    return published;
  }

  #publish(slot: number, hash: number): boolean {
    const byReplies = (this.flags(slot) & ConnectionFlag.replies) !== 0;
    Atomics.store(this.words, slot * WORDS, Tag.used);
    if (this.#index.insert(hash, slot)) {
      if (!byReplies || this.#replies.insert(this.#replyHashOf(slot), slot)) {
        Atomics.add(this.#state, TableState.size, 1);
        return true;
      }
      this.#index.remove(hash, slot);
    }
    return false;
  }

  /** Takes a connection for oneself, to end it; false if somebody else has ended it. */
  claim(slot: number): boolean {
    const tag = Atomics.load(this.words, slot * WORDS);
    if ((tag & Tag.mask) !== Tag.used) return false;
    return Atomics.compareExchange(this.words, slot * WORDS, tag, Tag.busy) === tag;
  }

  /** Gives a claimed connection back. */
  unclaim(slot: number): void {
    Atomics.store(this.words, slot * WORDS, Tag.used);
  }

  /** Takes a connection, claimed or not, out of the index and frees its slot. */
  remove(slot: number): void {
    this.#index.remove(this.#hashOf(slot), slot);
    if (this.flags(slot) & ConnectionFlag.replies) this.#replies.remove(this.#replyHashOf(slot), slot);
    this.#slots.give(slot);
    Atomics.sub(this.#state, TableState.size, 1);
  }

  /** Gives a published connection other ports (raw, as in the key). False if the index has no place: it is removed then. */
  changePorts(slot: number, ports: number): boolean {
    this.#index.remove(this.#hashOf(slot), slot);
    if (this.flags(slot) & ConnectionFlag.replies) this.#replies.remove(this.#replyHashOf(slot), slot);
    this.words[slot * WORDS + 3] = ports;
    Atomics.sub(this.#state, TableState.size, 1);
    return this.publish(slot);
  }

  readonly #scratch = new ConnectionKey();

  #hashOf(slot: number): number {
    return hashKey(this.readKey(slot, this.#scratch), this.seed);
  }

  #replyHashOf(slot: number): number {
    return hashKey(this.readReplyKey(slot, this.#scratch), this.seed);
  }

  /** Copies the key of a slot into `key`. */
  readKey(slot: number, key: ConnectionKey): ConnectionKey {
    const words = this.words;
    const at = slot * WORDS;
    const kind = words[at + 2] as number;
    key.protocol = kind >>> 24;
    key.flags = kind & KEY_FLAGS;
    key.ports = words[at + 3] as number;
    key.client0 = words[at + 4] as number;
    key.client1 = words[at + 5] as number;
    key.client2 = words[at + 6] as number;
    key.client3 = words[at + 7] as number;
    key.virtual0 = words[at + 8] as number;
    key.virtual1 = words[at + 9] as number;
    key.virtual2 = words[at + 10] as number;
    key.virtual3 = words[at + 11] as number;
    return key;
  }

  expires(slot: number): number {
    return this.words[slot * WORDS + 1] as number;
  }

  /** Ticks until it expires, 0 if it has. */
  remaining(slot: number, tick: number): number {
    const left = (this.expires(slot) - tick) >>> 0;
    return left > 0xffffffff - EXPIRED_WINDOW ? 0 : left;
  }

  setExpires(slot: number, tick: number): void {
    this.words[slot * WORDS + 1] = tick;
  }

  flags(slot: number): number {
    return this.halves[slot * 32 + 4] as number;
  }

  /** Sets one or more flags. Returns the flags before. The XDP program may change others at the same time. */
  raiseFlags(slot: number, flags: number): number {
    return Atomics.or(this.words, slot * WORDS + 2, flags) & 0xffff;
  }

  clearFlags(slot: number, flags: number): void {
    Atomics.and(this.words, slot * WORDS + 2, ~flags);
  }

  state(slot: number): number {
    return this.bytes[slot * CONNECTION_BYTES + ConnectionField.state] as number;
  }

  setState(slot: number, state: number): void {
    this.bytes[slot * CONNECTION_BYTES + ConnectionField.state] = state;
  }

  /**
   * Goes from one state to another, counted as inactive or not there. The XDP program does the same with the same word.
   * @returns the flags before; -1 if the connection is not in the state `from` any more
   */
  changeState(slot: number, from: number, to: number, inactive: boolean): number {
    const at = slot * WORDS + 2;
    const before = Atomics.load(this.words, at);
    if (((before >>> 16) & 0xff) !== from || before & ConnectionFlag.ended) return -1;
    const kept = before & ~(0xff0000 | ConnectionFlag.inactive);
    const after = kept | (to << 16) | (inactive ? ConnectionFlag.inactive : 0);
    return Atomics.compareExchange(this.words, at, before, after) === before ? before & 0xffff : -1;
  }

  protocol(slot: number): number {
    return this.bytes[slot * CONNECTION_BYTES + ConnectionField.protocol] as number;
  }

  /** Client port in the low half, virtual port in the high half, both raw. */
  ports(slot: number): number {
    return this.words[slot * WORDS + 3] as number;
  }

  /** Index in the destination table, or -1. */
  destination(slot: number): number {
    return this.words[slot * WORDS + 12] as number;
  }

  setDestination(slot: number, destination: number, portRaw: number): void {
    this.words[slot * WORDS + 12] = destination;
    this.halves[slot * 32 + 26] = portRaw;
  }

  destinationPortRaw(slot: number): number {
    return this.halves[slot * 32 + 26] as number;
  }

  localPortRaw(slot: number): number {
    return this.halves[slot * 32 + 27] as number;
  }

  setLocalPortRaw(slot: number, portRaw: number): void {
    this.halves[slot * 32 + 27] = portRaw;
  }

  /** The field at byte 56: see the layout. */
  control(slot: number): number {
    return this.words[slot * WORDS + 14] as number;
  }

  setControl(slot: number, control: number): void {
    this.words[slot * WORDS + 14] = control;
  }

  /** Adds to the field at byte 56 of a template: how many connections it controls. The XDP program does the same. */
  addControlled(slot: number, change: number): void {
    Atomics.add(this.words, slot * WORDS + 14, change);
  }

  /** Packets from the client, 32 bits, wrapping. */
  packets(slot: number): number {
    return (this.words[slot * WORDS + 15] as number) >>> 0;
  }

  /** The field at byte 60 of a template. */
  templateTimeout(slot: number): number {
    return this.words[slot * WORDS + 15] as number;
  }

  setTemplateTimeout(slot: number, ticks: number): void {
    this.words[slot * WORDS + 15] = ticks;
  }

  countPacket(slot: number): void {
    this.words[slot * WORDS + 15] = ((this.words[slot * WORDS + 15] as number) + 1) | 0;
  }
}

/** FULLNAT, SYN proxy and FTP keep what they know in extensions. */
function needsExtension(key: ConnectionKey, flags: number): boolean {
  if (key.flags & ConnectionFlag.template) return false;
  if (flags & ConnectionFlag.outSequence) return true;
  if ((flags & ConnectionFlag.forwarding) === Forwarding.fullnat) return true;
  return key.protocol === TCP && key.ports >>> 16 === FTP_PORT_BITS;
}
