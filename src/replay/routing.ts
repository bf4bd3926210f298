/** Addresses, routes and neighbours of a described host, by longest prefix. */
import { type Family, formatAddress } from '../wire/address.ts';

export interface Route {
  /** 4 or 16 bytes, host bits 0. */
  prefix: Uint8Array;
  /** Bits. */
  length: number;
  /** Index of the interface; 0 for an unreachable route. */
  interfaceIndex: number;
  /** The router, undefined if the destination itself is the neighbour. */
  gateway: Uint8Array | undefined;
}

export class Routes {
  /** Longest prefix first; of equal ones the newest first. */
  readonly #routes: Route[] = [];

  add(route: Route): void {
    const at = this.#routes.findIndex(other => other.length <= route.length);
    this.#routes.splice(at < 0 ? this.#routes.length : at, 0, route);
  }

  /** Takes out the routes to exactly this prefix; returns how many there were. */
  remove(prefix: Uint8Array, length: number): number {
    const text = formatAddress(prefix);
    const keep = this.#routes.filter(
      route =>
        route.length !== length ||
        route.prefix.length !== prefix.length ||
        formatAddress(route.prefix) !== text,
    );
    const removed = this.#routes.length - keep.length;
    this.#routes.splice(0, this.#routes.length, ...keep);
    return removed;
  }

  find(bytes: Uint8Array, at: number, family: Family): Route | undefined {
    return this.#routes.find(
      route => route.prefix.length === (family === 4 ? 4 : 16) && isInPrefix(bytes, at, route),
    );
  }
}

function isInPrefix(bytes: Uint8Array, at: number, { prefix, length }: Route): boolean {
  for (let bit = 0; bit < length; bit += 8) {
    const bits = Math.min(8, length - bit);
    const difference = (bytes[at + (bit >>> 3)] as number) ^ (prefix[bit >>> 3] as number);
    if (difference >>> (8 - bits) !== 0) return false;
  }
  return true;
}

/** The address with its host bits cleared, or with `set` all ones. */
export function networkOf(address: Uint8Array, length: number, set = false): Uint8Array {
  return address.map((byte, index) => {
    const mask = 0xff >> Math.min(Math.max(length - 8 * index, 0), 8);
    return set ? byte | mask : byte & ~mask;
  });
}
