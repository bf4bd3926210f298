/**
 * The SIP persistence engine (net/netfilter/ipvs/ip_vs_pe_sip.c): datagrams of one call go to one server. A call is known
 * by its Call-ID, found as the kernel's ct_sip_get_header does; a template remembers it beside what is in its record.
 *
 * A client has many calls with the same addresses and ports, so the client port of a SIP template's record, which
 * templates have no other use for, numbers them. Listings show it as 0 like that of any template.
 */
import type { Packet } from '../wire/packet.ts';
import { UDP_HEADER } from '../wire/udp.ts';
import type { ConnectionKey } from './connection-key.ts';
import type { ConnectionTable } from './connections.ts';

export const SIP_ENGINE = 'sip';

/** Longest Call-ID in bytes (IP_VS_PEDATA_MAXLEN). */
const MAXIMUM_CALL_ID = 255;

const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;
const COLON = 0x3a;
const AT = 0x40;

/** By byte: 1 for those that a Call-ID is made of (RFC 3261 25.1, "word"), and for Latin-1 letters as in the kernel. */
const WORD = new Uint8Array(256);
for (const character of `abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!"%()*+:<>?[\\]_\`{}~-./'`) {
  WORD[character.charCodeAt(0)] = 1;
}
for (let letter = 0xc0; letter <= 0xff; letter++) {
  if (letter !== 0xd7 && letter !== 0xf7) WORD[letter] = 1;
}

/** The Call-ID of a SIP message in UDP, one character a byte; undefined if there is none that can be read. */
export function readCallId(packet: Packet): string | undefined {
  const at = packet.transport + UDP_HEADER;
  const found = findCallId(packet.bytes, at, packet.networkEnd);
  if (found < 0) return undefined;
  const length = callIdLength(packet.bytes, found, packet.networkEnd);
  let text = '';
  for (let index = found; index < found + length; index++)
    text += String.fromCharCode(packet.bytes[index] as number);
  return text;
}

/** Offset of the first Call-ID in `[at, end)` that can be one, or -1. The first line of the message is none. */
export function findCallId(bytes: Uint8Array, at: number, end: number): number {
  let line = nextLine(bytes, at, end);
  while (line < end) {
    const value = valueOfHeader(bytes, line, end);
    if (value === end) return -1;
    if (value > 0) {
      const length = callIdLength(bytes, value, end);
      if (length > 0) return isComplete(bytes, value, length, end) ? value : -1;
    }
    line = nextLine(bytes, Math.max(line, value), end);
  }
  return -1;
}

/** Where the next line that continues none begins, or `end`. */
function nextLine(bytes: Uint8Array, from: number, end: number): number {
  for (let at = from; at < end; at++) {
    if (bytes[at] !== CARRIAGE_RETURN && bytes[at] !== LINE_FEED) continue;
    const next = at + (bytes[at] === CARRIAGE_RETURN && bytes[at + 1] === LINE_FEED ? 2 : 1);
    if (next >= end) return end;
    if (!isBlank(bytes[next])) return next;
  }
  return end;
}

/** Where the value of a Call-ID header that begins at `at` stands; 0: it is no such header; `end`: it is spoilt. */
function valueOfHeader(bytes: Uint8Array, at: number, end: number): number {
  let behind: number;
  if (startsWith(bytes, at, end, 'call-id')) behind = at + 7;
  else if (startsWith(bytes, at, end, 'i') && at + 1 < end && !isLetter(bytes[at + 1])) behind = at + 1;
  else return 0;
  behind = skipBlanks(bytes, behind, end);
  if (behind >= end || bytes[behind] !== COLON) return end;
  return skipBlanks(bytes, behind + 1, end);
}

function callIdLength(bytes: Uint8Array, at: number, end: number): number {
  const length = wordLength(bytes, at, end);
  if (length === 0 || bytes[at + length] !== AT || at + length >= end) return length;
  const domain = wordLength(bytes, at + length + 1, end);
  return domain === 0 ? 0 : length + 1 + domain;
}

function wordLength(bytes: Uint8Array, at: number, end: number): number {
  let behind = at;
  while (behind < end && WORD[bytes[behind] as number]) behind++;
  return behind - at;
}

/** True if a line ends behind the Call-ID, and it is not too long. */
function isComplete(bytes: Uint8Array, at: number, length: number, end: number): boolean {
  if (length > MAXIMUM_CALL_ID || at + length >= end) return false;
  return bytes[at + length] === CARRIAGE_RETURN || bytes[at + length] === LINE_FEED;
}

function skipBlanks(bytes: Uint8Array, from: number, end: number): number {
  let at = from;
  while (at < end && isBlank(bytes[at])) at++;
  return at;
}

function isBlank(byte: number | undefined): boolean {
  return byte === 0x20 || byte === 0x09;
}

function isLetter(byte: number | undefined): boolean {
  const lower = (byte ?? 0) | 0x20;
  return lower >= 0x61 && lower <= 0x7a;
}

/** @param text lower case */
function startsWith(bytes: Uint8Array, at: number, end: number, text: string): boolean {
  if (end - at < text.length) return false;
  for (let index = 0; index < text.length; index++) {
    const byte = bytes[at + index] as number;
    const lower = byte >= 0x41 && byte <= 0x5a ? byte | 0x20 : byte;
    if (lower !== text.charCodeAt(index)) return false;
  }
  return true;
}

/** The Call-IDs of templates. */
export class SipTemplates {
  readonly #connections: ConnectionTable;
  /** By key and Call-ID. */
  readonly #slots = new Map<string, number>();
  readonly #callIds = new Map<number, string>();
  readonly #names = new Map<number, string>();
  #number = 0;

  constructor(connections: ConnectionTable) {
    this.#connections = connections;
  }

  /** Slot of the live template with this key (its client port 0) and Call-ID, or -1. */
  find(key: ConnectionKey, callId: string, tick: number): number {
    const slot = this.#slots.get(nameOf(key, callId)) ?? -1;
    return slot >= 0 && !this.#connections.hasExpired(slot, tick) ? slot : -1;
  }

  /** Gives the key of a template that is to be made its number. */
  number(key: ConnectionKey, tick: number): void {
    const ports = key.ports & 0xffff0000;
    for (let tries = 0; tries < 0xffff; tries++) {
      this.#number = this.#number === 0xffff ? 1 : this.#number + 1;
      key.ports = ports | this.#number;
      if (this.#connections.find(key, tick) < 0) return;
    }
  }

  /** Notes the Call-ID of a template that was made with this key. */
  remember(slot: number, key: ConnectionKey, callId: string): void {
    const name = nameOf(key, callId);
    this.#slots.set(name, slot);
    this.#names.set(slot, name);
    this.#callIds.set(slot, callId);
  }

  /** No lookup finds this template any more; it is still listed with its Call-ID. */
  invalidate(slot: number): void {
    const name = this.#names.get(slot);
    if (name !== undefined && this.#slots.get(name) === slot) this.#slots.delete(name);
  }

  /** The template is gone. */
  release(slot: number): void {
    if (this.#callIds.size === 0) return;
    this.invalidate(slot);
    this.#names.delete(slot);
    this.#callIds.delete(slot);
  }

  /** The Call-ID of a template, undefined if it is none of SIP's. */
  callIdOf(slot: number): string | undefined {
    return this.#callIds.get(slot);
  }
}

/** The key without its number, and the Call-ID. */
function nameOf(key: ConnectionKey, callId: string): string {
  const { client0, client1, client2, client3, virtual0, virtual1, virtual2, virtual3 } = key;
  const words = [client0, client1, client2, client3, virtual0, virtual1, virtual2, virtual3];
  return `${key.protocol} ${key.flags} ${key.ports >>> 16} ${words.join(' ')} ${callId}`;
}
