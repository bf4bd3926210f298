/** A host's routing table: the longest prefix wins, then the smallest metric, then the older route. */
import { commonPrefix } from '../arp/local-addresses.ts';
import { type Family, formatAddress, parseAddress } from '../wire/address.ts';
import type { Interface } from './interface.ts';

/** Why an address or route was refused, in the words of the kernel's answer to `ip`. */
export class NetworkError extends Error {}

export interface Route {
  family: Family;
  /** 4 or 16 bytes, host bits 0. */
  destination: Uint8Array;
  prefix: number;
  /** The next hop; undefined if the destination is on the link. */
  gateway: Uint8Array | undefined;
  interface: Interface;
  /** Preferred source address. */
  source: Uint8Array | undefined;
  metric: number;
  /** `kernel` came with an address, `static` was set by hand. */
  origin: 'kernel' | 'static';
}

export class RoutingTable {
  #routes: Route[] = [];

  /** All routes, the widest first and sorted by destination, as `ip route` lists them. */
  list(family: Family): Route[] {
    return this.#routes
      .filter(route => route.family === family)
      .sort((left, right) => {
        if ((left.prefix === 0) !== (right.prefix === 0))
          return (left.prefix === 0) === (family === 4) ? -1 : 1;
        for (let index = 0; index < left.destination.length; index++) {
          const difference = (left.destination[index] as number) - (right.destination[index] as number);
          if (difference !== 0) return difference;
        }
        return left.prefix - right.prefix || left.metric - right.metric;
      });
  }

  /** @returns false if there is one with the same destination and metric */
  add(route: Route): boolean {
    const twin = this.#routes.some(
      each =>
        each.family === route.family &&
        each.prefix === route.prefix &&
        each.metric === route.metric &&
        commonPrefix(each.destination, route.destination) >= route.prefix &&
        // One kernel route per interface, as IPv6 has for fe80::/64.
        (route.origin !== 'kernel' || each.interface === route.interface),
    );
    if (twin) return false;
    this.#routes.push(route);
    return true;
  }

  /** Removes the routes that match; returns how many went. */
  remove(matches: (route: Route) => boolean): number {
    const before = this.#routes.length;
    this.#routes = this.#routes.filter(route => !matches(route));
    return before - this.#routes.length;
  }

  /** The route to an address, through `only` if given; undefined if there is none. */
  find(destination: Uint8Array, only?: Interface): Route | undefined {
    let best: Route | undefined;
    for (const route of this.#routes) {
      if (route.destination.length !== destination.length || !route.interface.isUp) continue;
      if (only && route.interface !== only) continue;
      if (commonPrefix(route.destination, destination) < route.prefix) continue;
      if (!best || route.prefix > best.prefix || (route.prefix === best.prefix && route.metric < best.metric))
        best = route;
    }
    return best;
  }
}

/** `address` with everything behind `prefix` bits cleared. */
export function networkOf(address: Uint8Array, prefix: number): Uint8Array {
  return address.map((byte, index) => {
    const bits = Math.min(8, Math.max(0, prefix - index * 8));
    return byte & (0xff00 >>> bits) & 0xff;
  });
}

/** `10.0.0.0/24`, or `default`. */
export function describeDestination(route: Route): string {
  if (route.prefix === 0) return 'default';
  const full = route.destination.length * 8;
  const text = formatAddress(route.destination);
  return route.prefix === full ? text : `${text}/${route.prefix}`;
}

/**
 * Address and prefix length of `10.0.0.51/24`; without a length, the whole address.
 * @throws NetworkError if it is none
 */
export function parsePrefix(text: string): [Uint8Array, number] {
  const match = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(text);
  const address = match ? parseAddress(match[1] as string) : undefined;
  const most = address ? address.length * 8 : 0;
  const prefix = match?.[2] === undefined ? most : Number(match[2]);
  if (!address || prefix > most)
    throw new NetworkError(`any valid prefix is expected rather than "${text}".`);
  return [address, prefix];
}
