/** Packets inside packets: IP in IP in all four combinations, and GRE (RFC 2784, RFC 2890). */
import { EtherType } from '../wire/ethernet.ts';
import { Protocol } from '../wire/ipv4.ts';
import type { Packet } from '../wire/packet.ts';

export interface InnerPacket {
  /** Offset of the inner IP header in the packet's buffer. */
  at: number;
  /** Bytes from there to the end of the outer packet. */
  length: number;
}

const GRE_CHECKSUM = 0x8000;
const GRE_KEY = 0x2000;
const GRE_SEQUENCE = 0x1000;
/** Routing (RFC 1701) or another version than 0 (PPTP): not what ip_vs sends. */
const GRE_UNSUPPORTED = 0x4007;

/**
 * Length of the GRE header at `at` with the fields that its flags announce, or 0 if it is none to look behind.
 * @param end behind the last byte that may be read
 */
export function greHeaderLength(view: DataView, at: number, end: number): number {
  if (end - at < 4) return 0;
  const flags = view.getUint16(at);
  if (flags & GRE_UNSUPPORTED) return 0;
  const words = [GRE_CHECKSUM, GRE_KEY, GRE_SEQUENCE].filter(bit => flags & bit).length;
  const length = 4 + 4 * words;
  return end - at < length ? 0 : length;
}

/** Where the packet inside this one lies; undefined if it carries none, or only a fragment of one. */
export function innerPacket(packet: Packet): InnerPacket | undefined {
  if (packet.family === 0 || packet.isFragment) return undefined;
  return packetBehind(packet.view, packet.protocol, packet.transport, packet.networkEnd);
}

/** Where the packet lies that an IP packet of this protocol carries at `at`; undefined if it carries none. */
export function packetBehind(
  view: DataView,
  protocol: number,
  at: number,
  end: number,
): InnerPacket | undefined {
  if (protocol === Protocol.ipv4 || protocol === Protocol.ipv6) return { at, length: end - at };
  if (protocol !== Protocol.gre) return undefined;
  const header = greHeaderLength(view, at, end);
  if (header === 0) return undefined;
  const carried = view.getUint16(at + 2);
  if (carried !== EtherType.ipv4 && carried !== EtherType.ipv6) return undefined;
  return { at: at + header, length: end - at - header };
}

/** A frame with more layers than this is nobody's honest frame. */
export const DEEPEST_TUNNEL = 8;
