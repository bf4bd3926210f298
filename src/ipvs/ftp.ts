/**
 * FTP through NAT (net/netfilter/ipvs/ip_vs_ftp.c): reads the commands and answers of a control connection, so that its
 * data connections find their server, and puts the VIP where a server names its own address. When that changes the length
 * of an answer, the numbers of all that follow are adjusted, as the kernel's connection tracking does for ip_vs
 * (net/netfilter/nf_conntrack_seqadj.c).
 *
 * Two things it does better than the kernel: an answer sent again is translated again, not passed on with the server's
 * address; and a data connection goes to the server whose answer it was, whatever address the answer names.
 * Not seen: servers on the director itself, whose answers the host's own stack sends.
 */
import { formatAddress, parseAddress } from '../wire/address.ts';
import type { Packet } from '../wire/packet.ts';
import { fillTcpChecksum, Tcp, TcpFlag, tcpHeaderLength } from '../wire/tcp.ts';
import { ConnectionKey } from './connection-key.ts';
import {
  CONNECTION_BYTES,
  ConnectionField,
  ConnectionFlag,
  type ConnectionTable,
  EXTENSION_WORDS,
  Extension,
} from './connections.ts';
import { Drop } from './drops.ts';
import { applyToTcp, openGap, setNumber, translateSack } from './forwarding/tcp-options.ts';
import type { Lifecycle } from './lifecycle.ts';
import { TcpState } from './tcp-states.ts';

/** What a control connection waits for: `Extension.flags`. */
const Mode = {
  none: 0,
  /** The answer to PASV, 227. */
  passive: 1,
  /** The answer to EPSV, 229. */
  extendedPassive: 2,
  /** An answer at `Extension.answer` was translated; it may come again. */
  answered: 4,
} as const;

const ANSWERS = { [Mode.passive]: '227 ', [Mode.extendedPassive]: '229 ' } as const;
const WAITED_FOR = Mode.passive | Mode.extendedPassive;

/** Longest text that names an address: IPv6 with an IPv4 tail. */
const MAXIMUM_ADDRESS_TEXT = 45;

/** An address and port as a command or an answer states them. Reused. */
export class FtpEndpoint {
  /** 4 or 16 bytes; empty where none was stated (EPSV). */
  address: Uint8Array = new Uint8Array(0);
  port = 0;
  /** Offsets of the text that states them. */
  from = 0;
  to = 0;
}

export class Ftp {
  /** Data connections whose client port is not known yet. */
  waiting = 0;
  /** Data connections made ready. */
  expected = 0;
  /** Answers in which the server's address was replaced. */
  rewritten = 0;
  readonly #lifecycle: Lifecycle;
  readonly #connections: ConnectionTable;
  readonly #key = new ConnectionKey();
  readonly #endpoint = new FtpEndpoint();

  constructor(lifecycle: Lifecycle) {
    this.#lifecycle = lifecycle;
    this.#connections = lifecycle.connections;
  }

  /** Begins to read a new connection. */
  begin(slot: number): void {
    const connections = this.#connections;
    connections.extension.fill(0, slot * EXTENSION_WORDS, (slot + 1) * EXTENSION_WORDS);
    connections.raiseFlags(slot, ConnectionFlag.helper);
  }

  /** The connection is gone. */
  release(slot: number): void {
    if (this.waiting > 0 && this.#connections.flags(slot) & ConnectionFlag.noClientPort) this.waiting--;
  }

  /**
   * The passive data connection that a packet belongs to which matches no other: it has the packet's client port from now
   * on. -1 without one.
   * @param key the packet's, unchanged afterwards
   */
  claim(key: ConnectionKey, tick: number): number {
    const slot = this.waitingFor(key, tick);
    if (slot < 0) return -1;
    const connections = this.#connections;
    connections.clearFlags(slot, ConnectionFlag.noClientPort);
    this.waiting--;
    return connections.changePorts(slot, key.ports) ? slot : -1;
  }

  /** The connection that `claim` would take. */
  waitingFor(key: ConnectionKey, tick: number): number {
    const connections = this.#connections;
    const { ports } = key;
    key.ports = ports & 0xffff0000;
    const slot = connections.find(key, tick);
    key.ports = ports;
    return slot >= 0 && connections.flags(slot) & ConnectionFlag.noClientPort ? slot : -1;
  }

  /** A packet from the client, which the server has not got yet: commands, and acknowledgements to adjust. */
  fromClient(packet: Packet, slot: number, tick: number): void {
    const data = this.#dataOf(packet, slot);
    if (data < packet.networkEnd) this.#readCommand(packet, data, slot, tick);
    const at = slot * EXTENSION_WORDS;
    const { extension } = this.#connections;
    if (extension[at + Extension.outOffset] === 0 && extension[at + Extension.outBefore] === 0) return;
    if ((packet.tcpFlags & TcpFlag.ack) === 0) return;
    const { view, transport } = packet;
    const field = transport + Tcp.acknowledgement;
    let difference = setNumber(view, field, this.#acknowledged(slot, view.getInt32(field)));
    difference += translateSack(view, transport, this.#acknowledged, slot);
    applyToTcp(view, transport, difference);
  }

  /** A packet from the server, before its address is translated. Anything but `Drop.none`: it cannot go on. */
  fromServer(packet: Packet, slot: number, tick: number): Drop {
    const { view } = packet;
    const sequence = view.getInt32(packet.transport + Tcp.sequence);
    const data = this.#dataOf(packet, slot);
    if (data < packet.networkEnd) {
      const drop = this.#readAnswer(packet, data, slot, sequence, tick);
      if (drop !== Drop.none) return drop;
    }
    const { extension } = this.#connections;
    const at = slot * EXTENSION_WORDS;
    const isLater = isAfter(sequence, extension[at + Extension.outStart] as number);
    const offset = extension[at + (isLater ? Extension.outOffset : Extension.outBefore)] as number;
    if (offset === 0) return Drop.none;
    const { transport } = packet;
    applyToTcp(view, transport, setNumber(view, transport + Tcp.sequence, sequence + offset));
    return Drop.none;
  }

  /** Where a packet's text begins, if it is one to read; else its end. */
  #dataOf(packet: Packet, slot: number): number {
    if (this.#connections.state(slot) !== TcpState.established) return packet.networkEnd;
    return packet.transport + tcpHeaderLength(packet.view, packet.transport);
  }

  /** What a client's acknowledgement acknowledges in the server's own numbers. */
  readonly #acknowledged = (slot: number, number: number): number => {
    const { extension } = this.#connections;
    const at = slot * EXTENSION_WORDS;
    const before = extension[at + Extension.outBefore] as number;
    const isLater = isAfter((number - before) | 0, extension[at + Extension.outStart] as number);
    return (number - (isLater ? (extension[at + Extension.outOffset] as number) : before)) | 0;
  };

  #readCommand(packet: Packet, data: number, slot: number, tick: number): void {
    const { bytes, networkEnd } = packet;
    const family = packet.family === 6 ? 6 : 4;
    const { extension } = this.#connections;
    const modeAt = slot * EXTENSION_WORDS + Extension.flags;
    const answered = (extension[modeAt] as number) & Mode.answered;
    const asked = findPassiveCommand(bytes, data, networkEnd, family);
    if (asked === 'stop') return;
    if (asked !== undefined) {
      extension[modeAt] = answered | (asked === 'PASV' ? Mode.passive : Mode.extendedPassive);
      return;
    }
    const endpoint = this.#endpoint;
    const isActive =
      (family === 4 && readHostPort(bytes, data, networkEnd, 'port', ' ', endpoint)) ||
      readExtended(bytes, data, networkEnd, 'eprt', ' ', family, false, endpoint);
    if (!isActive) return;
    extension[modeAt] = Mode.none;
    this.#expectActive(slot, endpoint, tick);
  }

  /** The server is going to connect to the client, from the port before the control connection's. */
  #expectActive(slot: number, { address, port }: FtpEndpoint, tick: number): void {
    const connections = this.#connections;
    const key = connections.readKey(slot, this.#key);
    const view = new DataView(address.buffer, address.byteOffset, address.length);
    key.client0 = view.getInt32(0, true);
    if (address.length === 16) {
      key.client1 = view.getInt32(4, true);
      key.client2 = view.getInt32(8, true);
      key.client3 = view.getInt32(12, true);
    }
    key.ports = swap(port) | (swap(swap(key.ports >>> 16) - 1) << 16);
    const serverPort = swap(connections.destinationPortRaw(slot)) - 1;
    this.#expect(slot, 0, serverPort, tick);
  }

  /** Makes the connection with `#key` or finds it, and lets it listen. */
  #expect(slot: number, flags: number, serverPort: number, tick: number): boolean {
    const lifecycle = this.#lifecycle;
    const connections = this.#connections;
    let expected = connections.find(this.#key, tick);
    if (expected < 0) {
      const destination = connections.destination(slot);
      if (destination < 0) return false;
      expected = lifecycle.create(this.#key, flags, destination, swap(serverPort), tick);
      if (expected < 0) return false;
      if (flags & ConnectionFlag.noClientPort) this.waiting++;
      lifecycle.control(expected, slot);
      this.expected++;
    }
    lifecycle.listen(expected, tick);
    return true;
  }

  #readAnswer(packet: Packet, data: number, slot: number, sequence: number, tick: number): Drop {
    const { extension } = this.#connections;
    const at = slot * EXTENSION_WORDS;
    const mode = extension[at + Extension.flags] as number;
    const again = (mode & Mode.answered) !== 0 && sequence === extension[at + Extension.answer];
    let kind = mode & WAITED_FOR;
    if (again) kind = mode & ANSWERED_EXTENDED ? Mode.extendedPassive : Mode.passive;
    if (kind === Mode.none) return Drop.none;
    const endpoint = this.#endpoint;
    const { bytes, networkEnd } = packet;
    const family = packet.family === 6 ? 6 : 4;
    const isRead =
      kind === Mode.passive
        ? readHostPort(bytes, data, networkEnd, ANSWERS[Mode.passive], '(', endpoint)
        : readExtended(bytes, data, networkEnd, ANSWERS[Mode.extendedPassive], '(', family, true, endpoint);
    if (!isRead) return Drop.none;
    if (!again) {
      const key = this.#connections.readKey(slot, this.#key);
      key.ports = swap(endpoint.port) << 16;
      if (!this.#expect(slot, ConnectionFlag.noClientPort, endpoint.port, tick)) return Drop.tableFull;
    }
    const text = kind === Mode.passive ? this.#hostPortText(slot, endpoint.port) : `|||${endpoint.port}|`;
    const growth = text.length - (endpoint.to - endpoint.from);
    if (!replaceText(packet, endpoint.from, endpoint.to, text)) return Drop.noHeadroom;
    this.rewritten++;
    if (again) return Drop.none;
    extension[at + Extension.flags] = Mode.answered | (kind === Mode.extendedPassive ? ANSWERED_EXTENDED : 0);
    extension[at + Extension.answer] = sequence;
    if (growth !== 0) this.#adjustFrom(at, sequence, growth);
    return Drop.none;
  }

  /** From the segment behind this one on, the server's numbers are `growth` more ahead (nf_ct_seqadj_set). */
  #adjustFrom(at: number, sequence: number, growth: number): void {
    const { extension } = this.#connections;
    const before = extension[at + Extension.outBefore] as number;
    const after = extension[at + Extension.outOffset] as number;
    if (before !== after && !isAfter(sequence, extension[at + Extension.outStart] as number)) return;
    extension[at + Extension.outStart] = sequence;
    extension[at + Extension.outBefore] = after;
    extension[at + Extension.outOffset] = after + growth;
  }

  #hostPortText(slot: number, port: number): string {
    const at = slot * CONNECTION_BYTES + ConnectionField.virtual;
    const address = formatAddress(this.#connections.bytes, at, 4);
    return `${address.replaceAll('.', ',')},${port >>> 8},${port & 0xff}`;
  }
}

/** Of `Mode.answered`: it was the answer to EPSV. */
const ANSWERED_EXTENDED = 8;

/**
 * Puts `text` in the place of `[from, to)` of a segment's data. What is in front of it moves in the buffer.
 * @returns false, and nothing has changed, if there is no room in front of the frame
 */
function replaceText(packet: Packet, from: number, to: number, text: string): boolean {
  const growth = text.length - (to - from);
  if (growth !== 0 && !openGap(packet, growth > 0 ? to : to + growth, growth)) return false;
  for (let index = 0; index < text.length; index++) {
    packet.bytes[from - growth + index] = text.charCodeAt(index);
  }
  const { transport, networkEnd, network } = packet;
  const family = packet.family === 6 ? 6 : 4;
  fillTcpChecksum(packet.view, family, network, transport, networkEnd - transport);
  return true;
}

/**
 * Looks for PASV (IPv4 only) or EPSV anywhere in a client's text. `stop`: an EPSV that is not for this family or asks for
 * something else.
 */
export function findPassiveCommand(
  bytes: Uint8Array,
  from: number,
  end: number,
  family: 4 | 6,
): 'PASV' | 'EPSV' | 'stop' | undefined {
  for (let at = from; at <= end - 6; at++) {
    const first = (bytes[at] as number) | 0x20;
    if (first === 0x70) {
      if (family === 4 && startsWith(bytes, at, end, 'pasv\r\n')) return 'PASV';
    } else if (first === 0x65 && startsWith(bytes, at, end, 'epsv')) {
      if (bytes[at + 4] === CARRIAGE_RETURN) return 'EPSV';
      if (bytes[at + 4] !== SPACE) continue;
      if (at + 7 > end || bytes[at + 6] !== CARRIAGE_RETURN) return 'stop';
      return bytes[at + 5] === (family === 6 ? DIGIT_0 + 2 : DIGIT_0 + 1) ? 'EPSV' : 'stop';
    }
  }
  return undefined;
}

const SPACE = 0x20;
const CARRIAGE_RETURN = 0x0d;
const COMMA = 0x2c;
const DIGIT_0 = 0x30;

/**
 * Reads `h1,h2,h3,h4,p1,p2` (RFC 959) behind a keyword, which must begin the text. What is in front of the first digit or
 * the first `skip` does not matter; something must follow, so that no number was cut off.
 */
export function readHostPort(
  bytes: Uint8Array,
  at: number,
  end: number,
  keyword: string,
  skip: string,
  found: FtpEndpoint,
): boolean {
  if (!startsWith(bytes, at, end, keyword)) return false;
  const from = skipTo(bytes, at + keyword.length, end, skip.charCodeAt(0), true);
  const numbers = new Uint8Array(6);
  let count = 0;
  let number = 0;
  let to = from;
  for (; ; to++) {
    if (to >= end) return false;
    const byte = bytes[to] as number;
    if (isDigit(byte)) {
      number = number * 10 + byte - DIGIT_0;
      if (number > 255) return false;
    } else if (byte === COMMA && count < 5) {
      numbers[count++] = number;
      number = 0;
    } else break;
  }
  if (count !== 5) return false;
  numbers[5] = number;
  found.address = numbers.subarray(0, 4);
  found.port = ((numbers[4] as number) << 8) | (numbers[5] as number);
  found.from = from;
  found.to = to;
  return true;
}

/**
 * Reads `|family|address|port|` (RFC 2428), with any delimiter, behind a keyword which must begin the text.
 * @param mayOmit true for answers to EPSV: family and address are usually empty, and the address is then left alone
 */
export function readExtended(
  bytes: Uint8Array,
  at: number,
  end: number,
  keyword: string,
  skip: string,
  family: 4 | 6,
  mayOmit: boolean,
  found: FtpEndpoint,
): boolean {
  if (!startsWith(bytes, at, end, keyword)) return false;
  const from = skipTo(bytes, at + keyword.length, end, skip.charCodeAt(0), false);
  if (from + 1 >= end) return false;
  const delimiter = bytes[from] as number;
  if (delimiter < 33 || delimiter > 126) return false;
  let next = from + 1;
  found.address = new Uint8Array(0);
  if (bytes[next] === delimiter) {
    if (!mayOmit || bytes[next + 1] !== delimiter) return false;
    next += 2;
  } else {
    if (bytes[next] !== DIGIT_0 + (family === 6 ? 2 : 1) || bytes[next + 1] !== delimiter) return false;
    const behind = indexOf(bytes, next + 2, Math.min(end, next + 3 + MAXIMUM_ADDRESS_TEXT), delimiter);
    if (behind < 0) return false;
    const address = parseAddress(String.fromCharCode(...bytes.subarray(next + 2, behind)));
    if (!address || address.length !== (family === 6 ? 16 : 4)) return false;
    found.address = address;
    next = behind + 1;
  }
  let port = 0;
  for (; next < end && isDigit(bytes[next] as number); next++) {
    port = port * 10 + (bytes[next] as number) - DIGIT_0;
    if (port > 65535) return false;
  }
  if (next >= end || port === 0 || bytes[next] !== delimiter) return false;
  found.port = port;
  found.from = from;
  found.to = next + 1;
  return true;
}

/** Where the first byte stands behind one or more `skip`, or the first digit if one will do and comes before; or `end`. */
function skipTo(bytes: Uint8Array, at: number, end: number, skip: number, digitWillDo: boolean): number {
  let isFound = false;
  for (let index = at; index < end; index++) {
    const byte = bytes[index] as number;
    if (isFound ? byte !== skip : digitWillDo && isDigit(byte)) return index;
    if (byte === skip) isFound = true;
  }
  return end;
}

function indexOf(bytes: Uint8Array, from: number, end: number, byte: number): number {
  for (let at = from; at < end; at++) if (bytes[at] === byte) return at;
  return -1;
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

function isDigit(byte: number): boolean {
  return byte >= DIGIT_0 && byte <= DIGIT_0 + 9;
}

/** Sequence numbers: true if `a` comes after `b`. */
function isAfter(a: number, b: number): boolean {
  return ((a - b) | 0) > 0;
}

function swap(port: number): number {
  return ((port & 0xff) << 8) | (port >>> 8);
}
