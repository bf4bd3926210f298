/**
 * TOA: the client's address and port in a TCP option, for servers that see a local address of FULLNAT (Alibaba's and
 * DPVS's `toa.ko` on the server override getpeername with it). Layout: kind, length, client port (2), client address
 * (4 or 16): 8 or 20 bytes, so that no padding is needed.
 *
 * Which segments carry it is DPVS's choice: every segment from the client that acknowledges nothing of the server's but
 * its SYN, and has neither SYN nor RST. So the handshake's ACK has it, what is sent before the server's first answer is
 * acknowledged has it, and every retransmission of these. The option stands directly behind the fixed header, where a
 * receiver meets it first.
 *
 * A segment in which it does not fit goes out without it, and is counted. It is made to fit if NOPs, or options other
 * than timestamps, can go: that is safe in a segment without SYN.
 *
 * What a client itself sends under one of the kinds is overwritten with NOPs in every segment, whether or not the
 * director adds an option of its own: otherwise any client could choose the address that the server's log shows and that
 * its access rules look at.
 */
import { sumBytes } from '../../wire/checksum.ts';
import type { Packet } from '../../wire/packet.ts';
import { TCP_HEADER, tcpHeaderLength } from '../../wire/tcp.ts';
import { CONNECTION_BYTES, ConnectionField, type ConnectionTable } from '../connections.ts';
import {
  applyToTcp,
  lengthDifference,
  openGap,
  pruneOptions,
  setHeaderLength,
  TCP_OPTIONS_LIMIT,
} from './tcp-options.ts';

/** Alibaba and DPVS for IPv4, DPVS for IPv6 as well. */
export const TOA_KIND = 254;
/** Alibaba for IPv6. */
export const TOA_KIND_ALIBABA6 = 253;
/** A variant of UCloud's, which the director only recognises. */
export const TOA_KIND_UCLOUD = 252;

/** Bytes of the option for a client of this family. */
export function toaLength(family: number): number {
  return family === 4 ? 8 : 20;
}

/** What became of an insertion. */
export const Toa = {
  inserted: 0,
  /** The segment would not fit the way. */
  tooBig: 1,
  /** No room left among the options. */
  noOptionSpace: 2,
  /** No room in front of the frame to grow into. */
  noHeadroom: 3,
} as const;

export type Toa = (typeof Toa)[keyof typeof Toa];

/** Options to keep while the header is rebuilt; holds nothing from one call to the next. */
const kept = new Uint8Array(TCP_OPTIONS_LIMIT);

/**
 * Inserts the option, checksums included.
 * @param mtu of the way, bytes
 */
export function insertToa(
  packet: Packet,
  connections: ConnectionTable,
  slot: number,
  kind: number,
  mtu: number,
): Toa {
  const { bytes, view, transport } = packet;
  const own = toaLength(packet.family);
  const headerLength = tcpHeaderLength(view, transport);
  const options = transport + TCP_HEADER;
  const before = headerLength - TCP_HEADER;
  const roomOnWay = mtu - (packet.networkEnd - packet.network) + before - own;
  const room = Math.min(TCP_OPTIONS_LIMIT - own, roomOnWay);
  if (room < 0) return Toa.tooBig;
  let rest = before;
  if (before > room) {
    rest = pruneOptions(bytes, options, before, kept, room);
    if (rest < 0) return roomOnWay < TCP_OPTIONS_LIMIT - own ? Toa.tooBig : Toa.noOptionSpace;
  } else for (let byte = 0; byte < before; byte++) kept[byte] = bytes[options + byte] as number;
  const growth = own + rest - before;
  let difference = ~sumBytes(view, options, before) & 0xffff;
  const length = packet.networkEnd - transport;
  if (!openGap(packet, options, growth)) return Toa.noHeadroom;
  let at = packet.transport + TCP_HEADER;
  writeToa(bytes, at, connections, slot, kind, own);
  at += own;
  for (let byte = 0; byte < rest; byte++) bytes[at + byte] = kept[byte] as number;
  difference += sumBytes(view, at - own, own + rest);
  difference += setHeaderLength(view, packet.transport, headerLength + growth);
  difference += lengthDifference(length, length + growth);
  applyToTcp(view, packet.transport, difference);
  return Toa.inserted;
}

function writeToa(
  bytes: Uint8Array,
  at: number,
  connections: ConnectionTable,
  slot: number,
  kind: number,
  length: number,
): void {
  const record = slot * CONNECTION_BYTES;
  bytes[at] = kind;
  bytes[at + 1] = length;
  bytes[at + 2] = connections.bytes[record + ConnectionField.clientPort] as number;
  bytes[at + 3] = connections.bytes[record + ConnectionField.clientPort + 1] as number;
  for (let byte = 0; byte < length - 4; byte++) {
    bytes[at + 4 + byte] = connections.bytes[record + ConnectionField.client + byte] as number;
  }
}
