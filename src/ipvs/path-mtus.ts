/**
 * The MTU of the way to each destination, as routers told it (path MTU discovery, RFC 1191; __ip_rt_update_pmtu and
 * update_or_create_fnhe in net/ipv4/route.c). Only tunnels learn here: the errors about them come to the director.
 *
 * As in the kernel, what was learned first comes into effect with the next packet to the destination, what corrects it
 * at once.
 */

/** Milliseconds after which a path MTU is forgotten (net.ipv4.route.mtu_expires). */
export const PATH_MTU_LIFETIME = 600_000;
/** A router that claims less than this is believed this much (net.ipv4.route.min_pmtu). */
export const MINIMUM_PATH_MTU = 552;

export class PathMtus {
  /** By destination: bytes, 0 if nothing is known; negative: learned, but not in effect yet. */
  readonly #mtus: Int32Array;
  readonly #learnedAt = new Map<number, number>();

  /** @param capacity most destinations */
  constructor(capacity: number) {
    this.#mtus = new Int32Array(capacity);
  }

  /** The MTU to a destination behind a link with this MTU, for the packet that is about to be sent there. */
  use(index: number, linkMtu: number): number {
    const mtu = this.#mtus[index] as number;
    if (mtu === 0) return linkMtu;
    if (mtu < 0) this.#set(index, -mtu);
    return Math.min(Math.abs(mtu), linkMtu);
  }

  /** True if something was learned that the next packet puts into effect. */
  isPending(index: number): boolean {
    return (this.#mtus[index] as number) < 0;
  }

  /** What `use` would answer. */
  forNext(index: number, linkMtu: number): number {
    const mtu = this.#mtus[index] as number;
    return mtu === 0 ? linkMtu : Math.min(Math.abs(mtu), linkMtu);
  }

  /** The MTU in effect now. */
  inEffect(index: number, linkMtu: number): number {
    const mtu = this.#mtus[index] as number;
    return mtu > 0 ? Math.min(mtu, linkMtu) : linkMtu;
  }

  /** A router said that the way carries no more than `mtu` bytes. More than is in effect is not believed. */
  learn(index: number, mtu: number, linkMtu: number, now: number): void {
    const before = this.inEffect(index, linkMtu);
    if (before < mtu) return;
    const learned = mtu < MINIMUM_PATH_MTU ? Math.min(before, MINIMUM_PATH_MTU) : mtu;
    this.#set(index, (this.#mtus[index] as number) > 0 ? learned : -learned);
    this.#learnedAt.set(index, now);
  }

  /** Forgets what was learned too long ago, and tells of which destinations. */
  sweep(now: number, forgotten: (index: number) => void): void {
    for (const [index, learnedAt] of this.#learnedAt) {
      if (now - learnedAt < PATH_MTU_LIFETIME) continue;
      this.forget(index);
      forgotten(index);
    }
  }

  forget(index: number): void {
    this.#set(index, 0);
    this.#learnedAt.delete(index);
  }

  #set(index: number, mtu: number): void {
    this.#mtus[index] = mtu;
  }
}
