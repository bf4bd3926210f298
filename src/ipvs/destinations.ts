/**
 * The destinations (real servers in services) as the data paths see them: one flat table of 64-byte records, shared
 * with the XDP program, which reads next hops from it and counts connections in it.
 *
 * Layout of a record, little-endian unless it says *raw* (network bytes):
 *
 * | byte | field |
 * |---|---|
 * | 0 | u32 flags, `DestinationFlag` |
 * | 4 | u32 weight |
 * | 8 | u32 active connections |
 * | 12 | u32 inactive connections |
 * | 16 | u32 upper threshold |
 * | 20 | u32 lower threshold |
 * | 24 | u16 port, raw |
 * | 26 | u8 family, 4 or 6 |
 * | 27 | u8 forwarding method, `Forwarding` |
 * | 28 | u32 index of the outgoing interface |
 * | 32 | 16 bytes address, raw; IPv4 in the first four, the rest 0 |
 * | 48 | 6 bytes MAC of the next hop |
 * | 54 | 6 bytes MAC of the outgoing interface |
 * | 60 | u16 MTU |
 * | 62 | u8 tunnel type, u8 tunnel flags |
 */

export const DESTINATION_BYTES = 64;
const WORDS = DESTINATION_BYTES / 4;

export const DestinationField = {
  flags: 0,
  weight: 4,
  active: 8,
  inactive: 12,
  upperThreshold: 16,
  lowerThreshold: 20,
  port: 24,
  family: 26,
  forwarding: 27,
  interfaceIndex: 28,
  address: 32,
  nextMac: 48,
  sourceMac: 54,
  mtu: 60,
  tunnelType: 62,
  tunnelFlags: 63,
} as const;

export const DestinationFlag = {
  /** The record is in use. */
  used: 1,
  /** The destination belongs to a service now (cleared while it only waits for its last connections). */
  available: 2,
  /** Connections reached the upper threshold: no new ones. */
  overloaded: 4,
  /** Next hop and source MAC are known. */
  resolved: 8,
} as const;

/** Forwarding methods with the kernel's numbers (IP_VS_CONN_F_MASQ …); FULLNAT takes the first free one. */
export const Forwarding = { masq: 0, local: 1, tunnel: 2, gate: 3, bypass: 4, fullnat: 5 } as const;

/** Tunnel types with the kernel's numbers (IP_VS_CONN_F_TUNNEL_TYPE_IPIP …). */
export const TunnelType = { ipip: 0, gue: 1, gre: 2 } as const;

/** Tunnel flags with the kernel's numbers (IP_VS_TUNNEL_ENCAP_FLAG_CSUM, …_REMCSUM). */
export const TunnelFlag = { checksum: 1, remoteChecksum: 2 } as const;

export class DestinationTable {
  readonly capacity: number;
  readonly words: Int32Array;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  #free: number[] = [];
  #used = 0;

  /**
   * @param capacity most destinations at a time
   * @param buffer memory of `capacity` × 64 bytes to work on; what is in use there already stays in use
   */
  constructor(capacity: number, buffer: ArrayBufferLike = new ArrayBuffer(capacity * DESTINATION_BYTES)) {
    this.capacity = capacity;
    this.words = new Int32Array(buffer, 0, capacity * WORDS);
    this.bytes = new Uint8Array(buffer, 0, capacity * DESTINATION_BYTES);
    this.view = new DataView(buffer, 0, capacity * DESTINATION_BYTES);
    for (let index = 0; index < capacity; index++) {
      if (this.flags(index) & DestinationFlag.used) {
        for (let hole = this.#used; hole < index; hole++) this.#free.push(hole);
        this.#used = index + 1;
      }
    }
  }

  /** Records in use. */
  get size(): number {
    return this.#used - this.#free.length;
  }

  /** Takes a record, zeroed but for the `used` flag; -1 if the table is full. */
  allocate(): number {
    const index = this.#free.pop() ?? (this.#used < this.capacity ? this.#used++ : -1);
    if (index < 0) return -1;
    this.words.fill(0, index * WORDS, (index + 1) * WORDS);
    this.words[index * WORDS] = DestinationFlag.used;
    return index;
  }

  release(index: number): void {
    this.words.fill(0, index * WORDS, (index + 1) * WORDS);
    this.#free.push(index);
  }

  flags(index: number): number {
    return this.words[index * WORDS] as number;
  }

  setFlag(index: number, flag: number, on: boolean): void {
    if (on) Atomics.or(this.words, index * WORDS, flag);
    else Atomics.and(this.words, index * WORDS, ~flag);
  }

  weight(index: number): number {
    return this.words[index * WORDS + 1] as number;
  }

  active(index: number): number {
    return this.words[index * WORDS + 2] as number;
  }

  inactive(index: number): number {
    return this.words[index * WORDS + 3] as number;
  }

  /** Adds to the counts; the XDP program counts in the same words, hence atomically. */
  addActive(index: number, change: number): void {
    Atomics.add(this.words, index * WORDS + 2, change);
  }

  addInactive(index: number, change: number): void {
    Atomics.add(this.words, index * WORDS + 3, change);
  }

  upperThreshold(index: number): number {
    return this.words[index * WORDS + 4] as number;
  }

  lowerThreshold(index: number): number {
    return this.words[index * WORDS + 5] as number;
  }

  /**
   * Looks again whether the server is overloaded: from as many connections on as the upper threshold, until there are
   * fewer than the lower (without one: than three quarters of the upper, rounded up). Linux 6.1 of 2026, where it is
   * also called when thresholds change (ip_vs_dest_update_overload).
   */
  updateOverload(index: number): void {
    const upper = this.upperThreshold(index);
    const total = this.active(index) + this.inactive(index);
    if (upper !== 0 && total >= upper) {
      this.setFlag(index, DestinationFlag.overloaded, true);
      return;
    }
    const lower = this.lowerThreshold(index) || upper - (upper >>> 2);
    if (upper === 0 || total < lower) this.setFlag(index, DestinationFlag.overloaded, false);
  }

  /** True if a scheduler may choose it: weight above 0, part of a service, not overloaded. */
  isEligible(index: number): boolean {
    const state = this.flags(index) & (DestinationFlag.available | DestinationFlag.overloaded);
    return state === DestinationFlag.available && this.weight(index) > 0;
  }
}
