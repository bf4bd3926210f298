/** Announcements that nobody asked for: gratuitous ARP and unsolicited neighbour advertisements. */
import { ArpOperation } from '../wire/arp.ts';
import { BROADCAST_MAC } from '../wire/ethernet.ts';
import { Icmpv6Type } from '../wire/icmp.ts';
import { AdvertisementFlag, ALL_NODES, groupMac, neighborFrame } from '../wire/neighbor-discovery.ts';
import { gratuitousFrame } from './resolver.ts';
import { arpFrame } from './responder.ts';

export interface AnnouncementForm {
  /** ARP only: as a reply instead of a request. Linux takes both; some old systems only one of them. */
  reply?: boolean;
  /** IPv6 only: the station is a router. A wrong bit makes hosts drop it as their router, or take it for one. */
  router?: boolean;
}

/**
 * A broadcast frame that tells every station that `address` (4 or 16 bytes) is at `mac`: a gratuitous request as
 * keepalived sends it (vrrp_arp.c), or an advertisement to all nodes with the override flag (RFC 4861 section 7.2.6).
 */
export function announcementFrame(
  mac: Uint8Array,
  address: Uint8Array,
  { reply = false, router = false }: AnnouncementForm = {},
): Uint8Array {
  if (address.length === 4) {
    if (!reply) return gratuitousFrame(mac, address);
    // Linux takes a reply for gratuitous only if it is addressed to its own sender (net/ipv4/arp.c arp_is_garp).
    return arpFrame(ArpOperation.reply, BROADCAST_MAC, mac, address, mac, address);
  }
  const flags = AdvertisementFlag.override | (router ? AdvertisementFlag.router : 0);
  return neighborFrame(groupMac(ALL_NODES), mac, address, ALL_NODES, {
    type: Icmpv6Type.neighborAdvertisement,
    flags: flags >>> 0,
    target: address,
    mac,
  });
}
