/**
 * The director's own firewall marks. XDP sees a packet before netfilter could mark it, so what `nft` or `iptables`
 * would say is said here: protocol, prefixes, ports and interface of a packet give its mark, which a firewall-mark
 * service (`ipvsadm -A -f`) catches. Only packets without a connection are looked at.
 */
import { type Family, formatAddress, parseAddress } from '../wire/address.ts';
import { Protocol } from '../wire/ipv4.ts';
import type { Packet } from '../wire/packet.ts';

export type MarkedProtocol = 'tcp' | 'udp' | 'sctp';

export interface Prefix {
  /** 4 or 16 bytes. */
  address: Uint8Array;
  /** Bits, 0..32 or 0..128. */
  length: number;
}

export interface PortRange {
  /** 0..65535, both included. */
  first: number;
  last: number;
}

export interface MarkRule {
  /** Empty: all three. */
  protocols: readonly MarkedProtocol[];
  source?: Prefix;
  destination?: Prefix;
  sourcePorts?: PortRange;
  destinationPorts?: PortRange;
  /** Name of the interface the packet came in on. */
  interfaceName?: string;
  /** 1..2^32-1; 0 leaves the packet without a mark, whatever later rules say. */
  mark: number;
}

/** A rule that cannot be read; the message says which word and what is expected. */
export class MarkRuleError extends Error {
  override name = 'MarkRuleError';
}

const PROTOCOL_BITS: Readonly<Record<MarkedProtocol, number>> = { tcp: 1, udp: 2, sctp: 4 };
const GRAMMAR =
  '[tcp|udp|sctp[,…]] [from PREFIX] [to PREFIX] [sport PORTS] [port PORTS] [on INTERFACE] mark NUMBER';

/**
 * Reads a rule such as `tcp to 10.0.0.3 port 80-443 mark 1` or `tcp,udp from 192.0.2.0/24 on eth0 mark 7`.
 * @throws MarkRuleError
 */
export function parseMarkRule(text: string): MarkRule {
  const words = text.trim().split(/\s+/);
  const rule: { -readonly [Field in keyof MarkRule]?: MarkRule[Field] } = {};
  for (let at = 0; at < words.length; at++) {
    const word = words[at] as string;
    if (at === 0 && word.split(',').every(isMarkedProtocol)) {
      rule.protocols = word.split(',').filter(isMarkedProtocol);
      continue;
    }
    const value = words[++at];
    if (value === undefined) throw wrong(text, `"${word}" stands at the end without a value`);
    switch (word) {
      case 'from':
        rule.source = once(text, word, rule.source, parsePrefix(text, value));
        break;
      case 'to':
        rule.destination = once(text, word, rule.destination, parsePrefix(text, value));
        break;
      case 'sport':
        rule.sourcePorts = once(text, word, rule.sourcePorts, parsePorts(text, value));
        break;
      case 'port':
        rule.destinationPorts = once(text, word, rule.destinationPorts, parsePorts(text, value));
        break;
      case 'on':
        rule.interfaceName = once(text, word, rule.interfaceName, value);
        break;
      case 'mark':
        rule.mark = once(text, word, rule.mark, parseMark(text, value));
        break;
      default:
        throw wrong(text, `"${word}" is not part of a rule`);
    }
  }
  const { mark, source, destination } = rule;
  if (mark === undefined) throw wrong(text, 'it gives no mark');
  if (source && destination && source.address.length !== destination.address.length) {
    throw wrong(text, 'source and destination are of different families');
  }
  return { ...rule, protocols: rule.protocols ?? [], mark };
}

/** The text that `parseMarkRule` reads. */
export function formatMarkRule(rule: MarkRule): string {
  return [
    ...(rule.protocols.length > 0 ? [rule.protocols.join(',')] : []),
    ...(rule.source ? [`from ${formatPrefix(rule.source)}`] : []),
    ...(rule.destination ? [`to ${formatPrefix(rule.destination)}`] : []),
    ...(rule.sourcePorts ? [`sport ${formatPorts(rule.sourcePorts)}`] : []),
    ...(rule.destinationPorts ? [`port ${formatPorts(rule.destinationPorts)}`] : []),
    ...(rule.interfaceName ? [`on ${rule.interfaceName}`] : []),
    `mark ${rule.mark}`,
  ].join(' ');
}

/** Rules as the packet path reads them: every condition is there, at its widest where the rule leaves it open. */
interface CompiledRule {
  protocols: number;
  /** 0: either. */
  family: Family | 0;
  /** Prefixes as raw words and masks over them, 4 each; masks of 0 match everything. */
  source: Int32Array;
  sourceMask: Int32Array;
  destination: Int32Array;
  destinationMask: Int32Array;
  sourcePorts: PortRange;
  destinationPorts: PortRange;
  /** 0: any. */
  interfaceIndex: number;
  mark: number;
}

const ANY_PORT: PortRange = { first: 0, last: 65535 };

/** Rules in order: the first that matches gives the mark. */
export class MarkRules {
  readonly rules: readonly MarkRule[];
  readonly #compiled: readonly CompiledRule[];

  /**
   * @param interfaceIndex the number of an interface by its name, undefined if there is none
   * @throws MarkRuleError if a rule names an interface that is not there
   */
  constructor(
    rules: readonly MarkRule[],
    interfaceIndex: (name: string) => number | undefined = () => undefined,
  ) {
    this.rules = rules;
    this.#compiled = rules.map(rule => compile(rule, interfaceIndex));
  }

  /** The mark of a packet that came in on this interface, 0 for none. Allocates nothing. */
  markOf(packet: Packet, interfaceIndex: number): number {
    const rules = this.#compiled;
    for (let at = 0; at < rules.length; at++) {
      const rule = rules[at] as CompiledRule;
      if (matches(rule, packet, interfaceIndex)) return rule.mark;
    }
    return 0;
  }
}

function compile(rule: MarkRule, interfaceIndex: (name: string) => number | undefined): CompiledRule {
  const index = rule.interfaceName === undefined ? 0 : interfaceIndex(rule.interfaceName);
  if (index === undefined) throw wrong(formatMarkRule(rule), `there is no interface ${rule.interfaceName}`);
  const protocols = rule.protocols.length > 0 ? rule.protocols : (['tcp', 'udp', 'sctp'] as const);
  const known = rule.source ?? rule.destination;
  return {
    protocols: protocols.reduce((bits, name) => bits | PROTOCOL_BITS[name], 0),
    family: known ? (known.address.length === 4 ? 4 : 6) : 0,
    source: addressWords(rule.source),
    sourceMask: maskWords(rule.source),
    destination: addressWords(rule.destination),
    destinationMask: maskWords(rule.destination),
    sourcePorts: rule.sourcePorts ?? ANY_PORT,
    destinationPorts: rule.destinationPorts ?? ANY_PORT,
    interfaceIndex: index,
    mark: rule.mark,
  };
}

function addressWords(prefix: Prefix | undefined): Int32Array {
  const bytes = new Uint8Array(16);
  if (prefix) bytes.set(prefix.address);
  return new Int32Array(bytes.buffer);
}

function maskWords(prefix: Prefix | undefined): Int32Array {
  const bytes = new Uint8Array(16);
  for (let bit = 0; bit < (prefix?.length ?? 0); bit++) {
    bytes[bit >>> 3] = (bytes[bit >>> 3] as number) | (0x80 >>> (bit & 7));
  }
  return new Int32Array(bytes.buffer);
}

function matches(rule: CompiledRule, packet: Packet, interfaceIndex: number): boolean {
  if (rule.family !== 0 && rule.family !== packet.family) return false;
  if (rule.interfaceIndex !== 0 && rule.interfaceIndex !== interfaceIndex) return false;
  if ((rule.protocols & protocolBit(packet.protocol)) === 0) return false;
  return (
    isWithin(packet.sourcePort, rule.sourcePorts) &&
    isWithin(packet.destinationPort, rule.destinationPorts) &&
    isInPrefix(packet, packet.sourceAt, rule.source, rule.sourceMask) &&
    isInPrefix(packet, packet.destinationAt, rule.destination, rule.destinationMask)
  );
}

function protocolBit(protocol: number): number {
  switch (protocol) {
    case Protocol.tcp:
      return PROTOCOL_BITS.tcp;
    case Protocol.udp:
      return PROTOCOL_BITS.udp;
    case Protocol.sctp:
      return PROTOCOL_BITS.sctp;
    default:
      return 0;
  }
}

function isWithin(port: number, range: PortRange): boolean {
  return port >= range.first && port <= range.last;
}

function isInPrefix(packet: Packet, at: number, words: Int32Array, mask: Int32Array): boolean {
  const count = packet.family === 4 ? 1 : 4;
  for (let word = 0; word < count; word++) {
    const difference = packet.view.getInt32(at + 4 * word, true) ^ (words[word] as number);
    if ((difference & (mask[word] as number)) !== 0) return false;
  }
  return true;
}

function isMarkedProtocol(word: string): word is MarkedProtocol {
  return Object.hasOwn(PROTOCOL_BITS, word);
}

function once<Value>(text: string, word: string, before: Value | undefined, value: Value): Value {
  if (before !== undefined) throw wrong(text, `"${word}" is given twice`);
  return value;
}

function parsePrefix(text: string, word: string): Prefix {
  const [address = '', length, ...more] = word.split('/');
  const bytes = parseAddress(address);
  if (!bytes) throw wrong(text, `"${word}" is no address`);
  const bits = length === undefined ? 8 * bytes.length : Number(length);
  if (more.length > 0 || !/^[0-9]{1,3}$/.test(length ?? '0') || bits > 8 * bytes.length) {
    throw wrong(text, `"${word}" is no prefix, such as 192.0.2.0/24`);
  }
  return { address: bytes, length: bits };
}

function parsePorts(text: string, word: string): PortRange {
  const match = /^([0-9]{1,5})(?:-([0-9]{1,5}))?$/.exec(word);
  const first = Number(match?.[1]);
  const last = Number(match?.[2] ?? match?.[1]);
  if (!match || first > last || last > 65535) {
    throw wrong(text, `"${word}" is no port and no range of ports, such as 80-443`);
  }
  return { first, last };
}

function parseMark(text: string, word: string): number {
  const mark = /^(0x[0-9a-fA-F]{1,8}|[0-9]{1,10})$/.test(word) ? Number(word) : Number.NaN;
  if (!(mark <= 0xffffffff)) throw wrong(text, `"${word}" is no mark: 0..4294967295`);
  return mark;
}

function formatPrefix(prefix: Prefix): string {
  const address = formatAddress(prefix.address);
  return prefix.length === 8 * prefix.address.length ? address : `${address}/${prefix.length}`;
}

function formatPorts(range: PortRange): string {
  return range.first === range.last ? String(range.first) : `${range.first}-${range.last}`;
}

function wrong(text: string, reason: string): MarkRuleError {
  return new MarkRuleError(`mark rule "${text.trim()}": ${reason}; a rule reads ${GRAMMAR}`);
}
