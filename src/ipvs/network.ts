/**
 * What a director has to know of the host it runs on: which addresses are its own and where a packet has to go next.
 * The environment (virtual host, daemon, scenario player) answers from its routes and neighbours; the director asks
 * for a real server once and keeps the answer, and for a client only when it writes to one.
 */
import type { Family } from '../wire/address.ts';

/** How a packet leaves. One object a neighbour, changed in place by the environment when the neighbour changes. */
export interface NextHop {
  /** Index of the outgoing interface, 1 or more. */
  interfaceIndex: number;
  /** The interface's own MAC, 6 bytes. */
  sourceMac: Uint8Array;
  /** The neighbour's MAC, 6 bytes; meaningful only when `resolved`. */
  destinationMac: Uint8Array;
  resolved: boolean;
  /** Largest IP packet the way takes, bytes. */
  mtu: number;
  /** The address this host uses on the way, 4 or 16 bytes. */
  sourceAddress: Uint8Array;
  /** True if only the director's own frames can leave by it: the XDP program leaves packets for it to the director. */
  directorOnly?: boolean;
}

export interface Network {
  /** True if the 4 or 16 bytes at `at` are an address of this host (VIPs on its interfaces included). */
  isLocal(bytes: Uint8Array, at: number, family: Family): boolean;
  /** The way to the address, undefined if there is no route. */
  nextHop(bytes: Uint8Array, at: number, family: Family): NextHop | undefined;
  /**
   * Sends the frame `[start, end)` of the buffer, complete with Ethernet header, or, if the next hop is not
   * resolved, keeps a copy until it is (a few at most) and fills in the MAC. The bytes are the caller's again afterwards.
   */
  transmit(bytes: Uint8Array, start: number, end: number, hop: NextHop): void;
}
