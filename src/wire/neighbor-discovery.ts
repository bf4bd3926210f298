/** Neighbour discovery for IPv6 over Ethernet: solicitations and advertisements (RFC 4861 sections 4.3, 4.4, 4.6). */
import { ETHERNET_HEADER, EtherType, writeEthernet } from './ethernet.ts';
import { fillIcmpChecksum, ICMP_HEADER, Icmpv6Type, writeIcmp } from './icmp.ts';
import { Protocol } from './ipv4.ts';
import { IPV6_HEADER, Ipv6, writeIpv6 } from './ipv6.ts';
import type { Packet } from './packet.ts';

/** Flags in the second word of an advertisement. */
export const AdvertisementFlag = { router: 0x80000000, solicited: 0x40000000, override: 0x20000000 } as const;

export const LinkLayerOption = { source: 1, target: 2 } as const;

/** Bytes in front of the options: the ICMPv6 header and the target. */
export const NEIGHBOR_MESSAGE = ICMP_HEADER + 16;

/** The hop limit that proves that a message was not forwarded (RFC 4861 section 7.1). */
export const DISCOVERY_HOP_LIMIT = 255;

/** ff02::1 */
export const ALL_NODES = Uint8Array.of(0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1);

/** The group in which the owner of an address listens for solicitations (RFC 4291 section 2.7.1). */
export function solicitedNode(address: Uint8Array): Uint8Array {
  const group = Uint8Array.of(0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0);
  group.set(address.subarray(13), 13);
  return group;
}

/** The MAC of an IPv6 multicast group (RFC 2464 section 7). */
export function groupMac(group: Uint8Array): Uint8Array {
  return Uint8Array.of(0x33, 0x33, ...group.subarray(12, 16));
}

export interface NeighborMessage {
  /** `Icmpv6Type.neighborSolicitation` or `neighborAdvertisement`. */
  type: number;
  /** `AdvertisementFlag`s; 0 in a solicitation. */
  flags: number;
  /** 16 bytes, not a group. */
  target: Uint8Array;
  /** The MAC of the option that belongs to the type (source in a solicitation, target in an advertisement). */
  mac: Uint8Array | undefined;
}

/** Where options begin in the messages that may carry a MAC, and which option counts for the receiver. */
const LAYOUTS: ReadonlyMap<number, { options: number; option: number }> = new Map([
  [Icmpv6Type.routerSolicitation, { options: 8, option: LinkLayerOption.source }],
  [Icmpv6Type.routerAdvertisement, { options: 16, option: LinkLayerOption.source }],
  [Icmpv6Type.neighborSolicitation, { options: NEIGHBOR_MESSAGE, option: LinkLayerOption.source }],
  [Icmpv6Type.neighborAdvertisement, { options: NEIGHBOR_MESSAGE, option: LinkLayerOption.target }],
  [Icmpv6Type.redirect, { options: 40, option: LinkLayerOption.target }],
]);

/** True for the five messages of neighbour discovery. */
export function isDiscovery(type: number): boolean {
  return LAYOUTS.has(type);
}

/**
 * The MAC that a message of neighbour discovery names, `undefined` if none; `false` if the message breaks a rule of
 * RFC 4861 (sections 6.1, 7.1 and 8.1: hop limit 255, code 0, options that fit). The parser accepted the packet; the
 * checksum is the caller's to verify.
 */
export function readLinkLayerOption(packet: Packet): Uint8Array | undefined | false {
  const { bytes, view, transport, networkEnd } = packet;
  const layout = transport < networkEnd ? LAYOUTS.get(view.getUint8(transport)) : undefined;
  if (!layout || networkEnd - transport < layout.options) return false;
  if (view.getUint8(packet.network + Ipv6.hopLimit) !== DISCOVERY_HOP_LIMIT) return false;
  if (view.getUint8(transport + 1) !== 0) return false;
  let mac: Uint8Array | undefined;
  let at = transport + layout.options;
  while (at < networkEnd) {
    const length = at + 1 < networkEnd ? view.getUint8(at + 1) * 8 : 0;
    if (length === 0 || at + length > networkEnd) return false;
    // Of two options of a kind the first one counts, as it does for Linux (net/ipv6/ndisc.c ndisc_parse_options).
    if (view.getUint8(at) === layout.option) mac ??= bytes.slice(at + 2, at + 8);
    at += length;
  }
  return mac;
}

/**
 * The solicitation or advertisement of a neighbour that `packet` holds, which its parser accepted; undefined if it
 * breaks a rule of RFC 4861 section 7.1. The checksum is the caller's to verify.
 */
export function readNeighborMessage(packet: Packet): NeighborMessage | undefined {
  const { bytes, view, transport } = packet;
  const mac = readLinkLayerOption(packet);
  if (mac === false || bytes[transport + ICMP_HEADER] === 0xff) return undefined;
  const type = view.getUint8(transport);
  return {
    type,
    flags: type === Icmpv6Type.neighborSolicitation ? 0 : view.getUint32(transport + 4),
    target: bytes.slice(transport + ICMP_HEADER, transport + NEIGHBOR_MESSAGE),
    mac,
  };
}

/** The ICMPv6 message without a checksum, 32 bytes with a MAC, 24 without. */
export function neighborMessage({ type, flags, target, mac }: NeighborMessage): Uint8Array {
  const message = new Uint8Array(NEIGHBOR_MESSAGE + (mac ? 8 : 0));
  writeIcmp(new DataView(message.buffer), 0, type, 0, flags);
  message.set(target, ICMP_HEADER);
  if (mac) {
    const option = type === Icmpv6Type.neighborSolicitation ? LinkLayerOption.source : LinkLayerOption.target;
    message.set([option, 1], NEIGHBOR_MESSAGE);
    message.set(mac, NEIGHBOR_MESSAGE + 2);
  }
  return message;
}

/** A whole frame with a message in it. `source` and `destination` are IPv6 addresses. */
export function neighborFrame(
  ethernetDestination: Uint8Array,
  ethernetSource: Uint8Array,
  source: Uint8Array,
  destination: Uint8Array,
  message: NeighborMessage,
): Uint8Array {
  const payload = neighborMessage(message);
  const frame = new Uint8Array(ETHERNET_HEADER + IPV6_HEADER + payload.length);
  const view = new DataView(frame.buffer);
  const network = writeEthernet(frame, 0, ethernetDestination, ethernetSource, EtherType.ipv6);
  const at = writeIpv6(view, frame, network, {
    source,
    destination,
    nextHeader: Protocol.icmpv6,
    payloadLength: payload.length,
    hopLimit: DISCOVERY_HOP_LIMIT,
  });
  frame.set(payload, at);
  fillIcmpChecksum(view, 6, network, at, payload.length);
  return frame;
}
