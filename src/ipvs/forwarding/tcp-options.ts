/**
 * Changes to TCP options and the room in front of them, as FULLNAT needs them. Nothing here touches the TCP checksum:
 * functions return what their change adds to its sum, for `applyDifference`, so that several are applied at once. All of
 * them stop quietly where options run out of the header, as the receiver's parser does.
 */
import {
  applyDifference,
  difference16,
  difference32,
  fold,
  swap16,
  updateWord,
} from '../../wire/checksum.ts';
import { Ipv4 } from '../../wire/ipv4.ts';
import { Ipv6 } from '../../wire/ipv6.ts';
import type { Packet } from '../../wire/packet.ts';
import { TCP_HEADER, Tcp, TcpOption, tcpHeaderLength } from '../../wire/tcp.ts';

/** Most bytes of options that a header holds. */
export const TCP_OPTIONS_LIMIT = 40;
const SACK_BLOCK = 8;
const TIMESTAMPS_LENGTH = 10;

/**
 * Overwrites options with NOPs.
 * @param kinds by kind: not 0 for those to erase
 * @returns 0 if there was none
 */
export function eraseOptions(view: DataView, at: number, kinds: Uint8Array): number {
  const end = at + tcpHeaderLength(view, at);
  let difference = 0;
  let option = at + TCP_HEADER;
  while (option < end) {
    const kind = view.getUint8(option);
    if (kind === TcpOption.end) break;
    if (kind === TcpOption.nop) {
      option++;
      continue;
    }
    if (option + 1 >= end) break;
    const length = view.getUint8(option + 1);
    if (length < 2 || option + length > end) break;
    if (kinds[kind]) difference += fillWithNops(view, at, option, length);
    option += length;
  }
  return difference;
}

function fillWithNops(view: DataView, at: number, option: number, length: number): number {
  let difference = 0;
  for (let byte = option; byte < option + length; byte++) {
    const shift = ((byte - at) & 1) << 3;
    difference += difference16(view.getUint8(byte) << shift, TcpOption.nop << shift);
    view.setUint8(byte, TcpOption.nop);
  }
  return difference;
}

/** Lowers the maximum segment size, if the segment states one that leaves something. */
export function lowerSegmentSize(view: DataView, at: number, by: number): number {
  const option = findOption(view, at, TcpOption.maximumSegmentSize);
  if (option < 0 || view.getUint8(option + 1) !== 4) return 0;
  const field = option + 2;
  const before = view.getUint16(field, true);
  const size = view.getUint16(field);
  if (size <= by) return 0;
  view.setUint16(field, size - by);
  return aligned(difference16(before, view.getUint16(field, true)), field - at);
}

/**
 * Passes both edges of every SACK block (RFC 2018) through a function.
 * @param translate given and returning a 32-bit number
 */
export function translateSack(
  view: DataView,
  at: number,
  translate: (slot: number, sequence: number) => number,
  slot: number,
): number {
  const option = findOption(view, at, TcpOption.sack);
  if (option < 0) return 0;
  const end = option + view.getUint8(option + 1);
  let difference = 0;
  for (let block = option + 2; block + SACK_BLOCK <= end; block += SACK_BLOCK) {
    for (let edge = block; edge < block + SACK_BLOCK; edge += 4) {
      const before = view.getInt32(edge, true);
      view.setInt32(edge, translate(slot, view.getInt32(edge)));
      difference += aligned(difference32(before, view.getInt32(edge, true)), edge - at);
    }
  }
  return difference;
}

/** Where the two numbers of the timestamps option stand in it (RFC 7323 3.2). */
export const Timestamp = { value: 2, echoReply: 6 } as const;

/**
 * Adds to one number of the timestamps option, if there is one.
 * @param which `Timestamp`
 */
export function moveTimestamp(view: DataView, at: number, which: number, by: number): number {
  const option = findOption(view, at, TcpOption.timestamps);
  if (option < 0 || view.getUint8(option + 1) !== TIMESTAMPS_LENGTH) return 0;
  const field = option + which;
  return aligned(setNumber(view, field, view.getInt32(field) + by), field - at);
}

function findOption(view: DataView, at: number, kind: number): number {
  const end = at + tcpHeaderLength(view, at);
  let option = at + TCP_HEADER;
  while (option < end) {
    const found = view.getUint8(option);
    if (found === TcpOption.end) return -1;
    if (found === TcpOption.nop) {
      option++;
      continue;
    }
    if (option + 1 >= end) return -1;
    const length = view.getUint8(option + 1);
    if (length < 2 || option + length > end) return -1;
    if (found === kind) return option;
    option += length;
  }
  return -1;
}

/** A field at an odd offset counts with its bytes exchanged (RFC 1071 section 2B). */
function aligned(difference: number, offset: number): number {
  return offset & 1 ? swap16(fold(difference)) : difference;
}

/**
 * Copies a segment's options, leaving out what must go to make them fit: first NOPs, then whatever a segment without SYN
 * can do without, from the first on: all but timestamps, which a connection cannot change its mind about.
 * @param out at least 40 bytes
 * @param most bytes they may take
 * @returns bytes they take now, a multiple of four, or -1 if they cannot be made to fit
 */
export function pruneOptions(
  bytes: Uint8Array,
  at: number,
  length: number,
  out: Uint8Array,
  most: number,
): number {
  let size = 0;
  for (let option = at; option < at + length; ) {
    const kind = bytes[option] as number;
    if (kind === TcpOption.end) break;
    if (kind === TcpOption.nop) {
      option++;
      continue;
    }
    const taken = option + 1 < at + length ? (bytes[option + 1] as number) : 0;
    if (taken < 2 || option + taken > at + length) break;
    for (let byte = 0; byte < taken; byte++) out[size++] = bytes[option + byte] as number;
    option += taken;
  }
  let kept = 0;
  for (let option = 0, rest = size; option < size; ) {
    const taken = out[option + 1] as number;
    if (out[option] === TcpOption.timestamps || padded(rest) <= most) {
      out.copyWithin(kept, option, option + taken);
      kept += taken;
    } else rest -= taken;
    option += taken;
  }
  const total = padded(kept);
  if (total > most) return -1;
  out.fill(TcpOption.end, kept, total);
  return total;
}

function padded(length: number): number {
  return (length + 3) & ~3;
}

/**
 * Opens a gap in front of `at`, behind the TCP header's fixed part, by moving everything before it into the room in front
 * of the frame (or closes one, if `length` is negative). The IP header says the new length, its checksum with it.
 * @returns false, and nothing has changed, if there is no room
 */
export function openGap(packet: Packet, at: number, length: number): boolean {
  if (packet.start < length) return false;
  packet.bytes.copyWithin(packet.start - length, packet.start, at);
  packet.start -= length;
  packet.network -= length;
  packet.transport -= length;
  if (packet.fragmentHeader >= 0) packet.fragmentHeader -= length;
  growNetwork(packet, length);
  return true;
}

/** Makes the IP header say that the packet is `length` bytes longer. */
export function growNetwork(packet: Packet, length: number): void {
  const { view, network } = packet;
  const field = network + (packet.family === 4 ? Ipv4.totalLength : Ipv6.payloadLength);
  const before = view.getUint16(field, true);
  view.setUint16(field, view.getUint16(field) + length);
  if (packet.family !== 4) return;
  const checksum = network + Ipv4.checksum;
  view.setUint16(
    checksum,
    updateWord(view.getUint16(checksum, true), before, view.getUint16(field, true)),
    true,
  );
}

/** What a change of the segment's length adds to the sum, which covers it in the pseudo-header. */
export function lengthDifference(before: number, after: number): number {
  return difference16(swap16(before), swap16(after));
}

/** Writes the header length, bytes, into the data offset. */
export function setHeaderLength(view: DataView, at: number, length: number): number {
  const before = view.getUint16(at + Tcp.dataOffset, true);
  view.setUint8(at + Tcp.dataOffset, ((length >>> 2) << 4) | (view.getUint8(at + Tcp.dataOffset) & 0x0f));
  return difference16(before, view.getUint16(at + Tcp.dataOffset, true));
}

/** Writes a sequence or acknowledgement number. */
export function setNumber(view: DataView, field: number, number: number): number {
  const before = view.getInt32(field, true);
  view.setInt32(field, number);
  return difference32(before, view.getInt32(field, true));
}

/** Brings the TCP checksum up to date. */
export function applyToTcp(view: DataView, at: number, difference: number): void {
  if (difference === 0) return;
  const checksum = view.getUint16(at + Tcp.checksum, true);
  view.setUint16(at + Tcp.checksum, applyDifference(checksum, difference), true);
}
