/** Asking for a neighbour: the source address under `arp_announce`, the request, and what an answer means. */
import { Arp, ArpOperation } from '../wire/arp.ts';
import { BROADCAST_MAC } from '../wire/ethernet.ts';
import { type AddressedInterface, isOnLink, Scope, sameAddress, selectSource } from './local-addresses.ts';
import type { Neighbour, NeighbourCache } from './neighbours.ts';
import { arpFrame } from './responder.ts';

const UNKNOWN_MAC = new Uint8Array(6);
const NO_ADDRESS = new Uint8Array(4);

/**
 * The sender address of an ARP request (net/ipv4/arp.c arp_solicit).
 *
 * @param mode the effective `arp_announce`: 0 takes the source of the packet that waits, if it is local (a real server
 *   answering from the VIP on lo thus announces the VIP); 1 only if it is in a subnet of this interface that also
 *   holds the target; 2 never looks at the packet but takes the interface's best address.
 * @param packetSource source address of the IP packet that waits for the answer, undefined when none does (a probe)
 * @param isLocal whether an address is this host's own
 */
export function requestSource(
  mode: number,
  own: AddressedInterface,
  all: readonly AddressedInterface[],
  target: Uint8Array,
  packetSource: Uint8Array | undefined,
  isLocal: (address: Uint8Array) => boolean,
): Uint8Array {
  if (packetSource && mode !== 2 && isLocal(packetSource)) {
    if (mode !== 1 || isOnLink(own, target, packetSource)) return packetSource;
  }
  return selectSource(own, all, target, Scope.link) ?? NO_ADDRESS;
}

/** A request for `target`: broadcast, or, as a probe of a known neighbour, to its MAC. */
export function requestFrame(
  mac: Uint8Array,
  source: Uint8Array,
  target: Uint8Array,
  neighbourMac?: Uint8Array,
): Uint8Array {
  return arpFrame(
    ArpOperation.request,
    neighbourMac ?? BROADCAST_MAC,
    mac,
    source,
    neighbourMac ?? UNKNOWN_MAC,
    target,
  );
}

/**
 * A gratuitous ARP that announces `address` at `mac`, as keepalived sends it (vrrp_arp.c): a broadcast request with
 * sender and target address the same and the target MAC all ones.
 */
export function gratuitousFrame(mac: Uint8Array, address: Uint8Array): Uint8Array {
  return arpFrame(ArpOperation.request, BROADCAST_MAC, mac, address, BROADCAST_MAC, address);
}

/**
 * Takes what an ARP packet says about its sender into the cache (the end of arp_process). Only existing entries
 * change (`arp_accept` is 0): a reply to this host confirms, everything else leaves the entry stale. Another MAC
 * replaces the known one only when the entry has rested for the lock time, or by a gratuitous ARP.
 *
 * @param toThisHost the frame was addressed to this host's MAC
 */
export function learnFromArp(
  cache: NeighbourCache,
  interfaceIndex: number,
  bytes: Uint8Array,
  at: number,
  toThisHost: boolean,
  now: number,
): Neighbour | undefined {
  const sender = bytes.subarray(at + Arp.senderAddress, at + Arp.senderAddress + 4);
  const neighbour = cache.find(interfaceIndex, sender);
  if (!neighbour) return undefined;
  const target = bytes.subarray(at + Arp.targetAddress, at + Arp.targetAddress + 4);
  const gratuitous = sameAddress(sender, target);
  const isReply = bytes[at + Arp.operation + 1] === ArpOperation.reply;
  cache.update(
    neighbour,
    bytes.subarray(at + Arp.senderMac, at + Arp.senderMac + 6),
    isReply && toThisHost ? 'REACHABLE' : 'STALE',
    gratuitous || now > neighbour.updated + cache.parameters.lockTime,
    now,
  );
  return neighbour;
}
