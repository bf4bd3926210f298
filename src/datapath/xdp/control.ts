/**
 * What the director tells the XDP program, as the program reads it: the layouts of bpf/layout.h in TypeScript
 * (`layout.test.ts` compares them with the compiled object), and the record that holds timeouts and the VIP filter.
 */
import { TCP_STATE_NAMES, TcpState } from '../../ipvs/tcp-states.ts';
import type { Family } from '../../wire/address.ts';

/** The number in bpf/layout.h: tables of another version are refused, never misread. */
export const LAYOUT_VERSION = 8;

const TCP_STATES = 16;
/** Milliseconds that a connection lives before its first state: as in timeouts.ts. */
const CREATED_TIMEOUT = 3000;
const TCP_EVENTS = 8;
const TCP_SIDES = 3;
const FILTER_WORDS = 64;
/** Bits of a filter that belong to a family. */
const FAMILY_BITS = (FILTER_WORDS * 32) / 2;

/** Byte offsets in `struct control`. */
export const ControlField = {
  version: 0,
  hz: 4,
  clockOffset: 8,
  seed: 12,
  wayGeneration: 16,
  udpTimeout: 20,
  clockStopped: 24,
  flags: 28,
  clockTicks: 32,
  clockNanoseconds: 40,
  tcpTimeouts: 48,
  vipFilter: 112,
  serverFilter: 368,
  requestFilter: 624,
  createdTimeout: 880,
  serviceGeneration: 884,
  tcpNext: 888,
} as const;

export const CONTROL_BYTES = ControlField.tcpNext + TCP_SIDES * TCP_EVENTS * TCP_STATES;

/** Byte offsets in `struct sizes`: how large the tables are, which the program is told when it is loaded. */
export const SizeField = {
  connections: 0,
  bucketMask: 4,
  extensions: 8,
  destinations: 12,
  planMask: 16,
} as const;
export const SIZE_BYTES = 20;

/** Bits of the record's flags. */
export const ControlFlag = {
  /** Replies that belong to no connection are the director's (`nat_icmp_send`). */
  strayReplies: 1,
  /** Tunnels copy DF, and what is too big is answered (`pmtu_disc`). */
  pathDiscovery: 2,
  /** New connections are all the director's. */
  noNew: 4,
  /** Templates of quiesced servers are not followed (`expire_quiescent_template`). */
  expireQuiescent: 8,
  /** There are services of firewall marks: any packet may be for one of them. */
  marks: 16,
  /** A backup that leaves directing to its master (`backup_only`): nothing is sent on to servers. */
  standsBack: 32,
  /** A SYN on a connection that is over begins a new one (`conn_reuse_mode`); `reuseFinWait`: its bit 2. */
  reuse: 64,
  reuseFinWait: 128,
  /** A SYN on a connection whose server is quiesced begins a new one (`expire_nodest_conn`). */
  expireNodest: 256,
} as const;

/** Byte offsets in `struct tunnel`. */
export const TunnelField = { source: 0, port: 16 } as const;
export const TUNNEL_BYTES = 32;

/** Byte offsets in `struct hop`. */
export const HopField = { nextMac: 0, sourceMac: 6, interfaceIndex: 12, mtu: 16, isResolved: 18 } as const;
export const HOP_BYTES = 32;
/** Number 0 is none. */
export const HOPS = 4096;

/** Byte offsets in `struct service_key`. */
export const ServiceKeyField = { protocol: 0, family: 1, port: 2, address: 4 } as const;
export const SERVICE_KEY_BYTES = 20;

/** The port that an address has in `services` as a server whose replies are translated. */
export const SERVER_PORT = 1;

/** Byte offsets in `struct service`. */
export const ServiceField = {
  flags: 0,
  kind: 4,
  at: 8,
  length: 12,
  cursor: 16,
  persistence: 20,
  mask: 24,
  leastMtu: 40,
} as const;
export const SERVICE_BYTES = 44;

/** Bits of a service's flags. */
export const ServiceFlag = {
  /** In an address's own entry: other ports than those of its services are the director's too. */
  ftp: 1,
  /** The program makes new connections. */
  scheduled: 2,
  onePacket: 4,
  hashPort: 8,
} as const;

/** Kinds of plans, by number. */
export const PlanKind = {
  sequence: 1,
  sh: 2,
  dh: 3,
  mh: 4,
  lc: 5,
  wlc: 6,
  sed: 7,
  nq: 8,
  fo: 9,
  ovf: 10,
} as const;

export const PLAN_BLOCK_BYTES = 64;

/** Byte offsets in `struct interface`. */
export const InterfaceField = { index: 0, firstSocket: 4, queues: 8, mac: 12, flags: 18 } as const;
/** Bits of an interface's flags. */
export const InterfaceFlag = { redirect: 1 } as const;
export const INTERFACE_BYTES = 32;
export const INTERFACE_SLOTS = 64;
export const INTERFACE_PROBES = 4;

/** Byte offsets in `struct owner`. */
export const OwnerField = { protocol: 0, family: 1, port: 2, mark: 4, address: 8 } as const;
export const OWNER_BYTES = 24;

/** Names of the counters in `reasons`, in the order of `enum reason` in bpf/counters.h. */
export const reasonNames = [
  'forwarded',
  'foreign mac',
  'no service',
  'no connection',
  'syn',
  'fragment',
  'options',
  'time to live',
  'icmp',
  'malformed',
  'too big',
  'unresolved',
  'unavailable',
  'method',
  'protocol',
  'no way',
  'no headroom',
  'no checksum',
  'reply',
  'no room',
  'no server',
  'evicted',
  'no director',
] as const;

export type Reason = (typeof reasonNames)[number];

/**
 * The bit of an address in the filters, from its raw word (IPv6: the four words combined by XOR): 0..1023, for IPv6
 * 1024..2047. So each family can be let alone as a whole.
 */
export function filterBit(word: number, family: Family): number {
  return (Math.imul(word, 0x9e3779b1) >>> 22) + (family === 6 ? FAMILY_BITS : 0);
}

/** The words of an address combined into the one that the filters hash. */
export function filterWord(address: Uint8Array): number {
  const view = new DataView(address.buffer, address.byteOffset, address.length);
  let word = 0;
  for (let at = 0; at < address.length; at += 4) word ^= view.getInt32(at, true);
  return word;
}

/** A filter of addresses, in which several may share a bit. */
export class AddressFilter {
  /** As the program reads it. */
  readonly words = new Uint32Array(FILTER_WORDS);
  /** Addresses by bit. */
  readonly #counts = new Int32Array(FILTER_WORDS * 32);

  constructor(addresses: Iterable<Uint8Array> = []) {
    for (const address of addresses) this.count(address, 1);
  }

  /** @param by 1: one more has this address, -1: one less */
  count(address: Uint8Array, by: 1 | -1): void {
    const bit = filterBit(filterWord(address), address.length === 16 ? 6 : 4);
    const count = (this.#counts[bit] as number) + by;
    this.#counts[bit] = count;
    const word = this.words[bit >>> 5] as number;
    this.words[bit >>> 5] = count > 0 ? word | (1 << (bit & 31)) : word & ~(1 << (bit & 31));
  }
}

/** A key of the map `services`. Port 0 is any port; protocol 0 with port 0 says that the address is a VIP. */
export function serviceKey(protocol: number, address: Uint8Array, port: number): Uint8Array {
  const key = new Uint8Array(new ArrayBuffer(SERVICE_KEY_BYTES));
  const family: Family = address.length === 4 ? 4 : 6;
  key[ServiceKeyField.protocol] = protocol;
  key[ServiceKeyField.family] = family;
  new DataView(key.buffer).setUint16(ServiceKeyField.port, port);
  key.set(address, ServiceKeyField.address);
  return key;
}

/** The one record of the map `control`. */
export class ControlRecord {
  readonly #view: DataView;

  constructor(memory: ArrayBuffer) {
    this.#view = new DataView(memory, 0, CONTROL_BYTES);
  }

  #get(field: number): number {
    return this.#view.getUint32(field, true);
  }

  #set(field: number, value: number): void {
    this.#view.setUint32(field, value, true);
  }

  /** 0 in a record that nobody has filled in. */
  get version(): number {
    return this.#get(ControlField.version);
  }

  set version(version: number) {
    this.#set(ControlField.version, version);
  }

  /** Ticks a second of the kernel. */
  get hz(): number {
    return this.#get(ControlField.hz);
  }

  set hz(hz: number) {
    this.#set(ControlField.hz, hz);
  }

  /** Ticks that the program adds to the kernel's: lets tests move its time. */
  get clockOffset(): number {
    return this.#get(ControlField.clockOffset);
  }

  set clockOffset(ticks: number) {
    this.#set(ControlField.clockOffset, ticks);
  }

  /** Stops the program's clock at a tick: for tests and players, which set their own time. */
  stopClock(tick: number): void {
    this.#set(ControlField.clockStopped, 0xffffffff);
    this.clockOffset = tick;
  }

  /** Secret of the connection hash. */
  get seed(): number {
    return this.#get(ControlField.seed);
  }

  set seed(seed: number) {
    this.#set(ControlField.seed, seed);
  }

  /** What `read_clock` wrote: the kernel's ticks and its monotonic clock in nanoseconds, of one moment. */
  get clock(): { ticks: bigint; nanoseconds: bigint } {
    return {
      ticks: this.#view.getBigUint64(ControlField.clockTicks, true),
      nanoseconds: this.#view.getBigUint64(ControlField.clockNanoseconds, true),
    };
  }

  /**
   * Sets for how long a packet keeps a connection.
   * @param tcp milliseconds by TCP state number
   * @param udp milliseconds
   */
  setTimeouts(tcp: ArrayLike<number>, udp: number): void {
    const ticks = (milliseconds: number): number => Math.round((milliseconds * this.hz) / 1000);
    for (let state = 0; state < Math.min(tcp.length, TCP_STATES); state++) {
      this.#set(ControlField.tcpTimeouts + 4 * state, ticks(tcp[state] as number));
    }
    this.#set(ControlField.udpTimeout, ticks(udp));
    this.#set(ControlField.createdTimeout, ticks(CREATED_TIMEOUT));
  }

  /**
   * Lets packets to these addresses, and to few others, into the program.
   * @param whole families of which packets to any address are let in
   * @param requested those of the addresses that clients' packets come to; to the others come replies and errors only
   */
  setVips(
    addresses: AddressFilter,
    whole: ReadonlySet<Family> = new Set(),
    requested: AddressFilter = addresses,
  ): void {
    // First what packets of a new VIP are, then that they are let in.
    this.#setFilter(ControlField.requestFilter, requested, whole);
    this.#setFilter(ControlField.vipFilter, addresses, whole);
  }

  /** The same for packets from these servers, whose replies are translated. */
  setServers(addresses: AddressFilter): void {
    this.#setFilter(ControlField.serverFilter, addresses, new Set());
  }

  /** Both filters as the program reads them; a copy. */
  get filters(): Uint8Array {
    const { buffer, byteOffset } = this.#view;
    const both = new Uint8Array(2 * 4 * FILTER_WORDS);
    for (const [place, field] of [ControlField.vipFilter, ControlField.serverFilter].entries()) {
      both.set(new Uint8Array(buffer, byteOffset + field, 4 * FILTER_WORDS), place * 4 * FILTER_WORDS);
    }
    return both;
  }

  #setFilter(field: number, { words }: AddressFilter, whole: ReadonlySet<Family>): void {
    words.forEach((word, index) => {
      const family = index < FILTER_WORDS / 2 ? 4 : 6;
      this.#set(field + 4 * index, whole.has(family) ? 0xffffffff : word);
    });
  }

  /** A sum of `ControlFlag`. */
  get flags(): number {
    return this.#get(ControlField.flags);
  }

  set flags(flags: number) {
    this.#set(ControlField.flags, flags);
  }

  /** Makes the program forget which services it looked up. Number 0 is left out: it says that nobody calls this. */
  forgetServices(): void {
    const next = (this.#get(ControlField.serviceGeneration) + 1) >>> 0;
    this.#set(ControlField.serviceGeneration, next || 1);
  }

  /** Makes the program forget which way each client has. */
  forgetWays(): void {
    this.#set(ControlField.wayGeneration, this.#get(ControlField.wayGeneration) + 1);
  }

  /** Sets the states that segments lead to: `TCP_TABLE` or `SECURE_TCP_TABLE` of tcp-states.ts. */
  setTcpTable(table: Uint8Array): void {
    const states = TCP_STATE_NAMES.length;
    for (let side = 0; side < TCP_SIDES; side++) {
      for (let state = 0; state < states; state++) {
        for (let event = 0; event < TCP_EVENTS; event++) {
          const known = table[(side * 4 + event) * states + state] as number;
          const next = event < 4 ? known : TcpState.close;
          this.#view.setUint8(ControlField.tcpNext + (side * TCP_EVENTS + event) * TCP_STATES + state, next);
        }
      }
    }
  }
}
