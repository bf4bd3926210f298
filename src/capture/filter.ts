/**
 * The pcap filter language (pcap-filter(7)), compiled to closures that read the frame as libpcap's BPF programs do:
 * Ethernet only, `and` and `or` of equal precedence from left to right, 32-bit unsigned arithmetic, and a read
 * behind the end of the frame refuses the frame whatever else the filter says.
 *
 * Differences from libpcap: host names, `gateway`, `protochain`, `inbound`, `ip broadcast` and the words of other
 * link layers than Ethernet are refused, by name.
 */
import { parseIpv4Address, parseIpv6Address, parseMac } from '../wire/address.ts';
import { EtherType } from '../wire/ethernet.ts';
import { Protocol } from '../wire/ipv4.ts';
import { IPV6_HEADER } from '../wire/ipv6.ts';
import type { Packet } from '../wire/packet.ts';
import { CONSTANTS, cutIntoWords, FilterError, PORTS, parseNumber, type Word } from './filter-words.ts';

export { FilterError } from './filter-words.ts';

/** What a compiled filter reads from; one is reused for all frames. */
class Reading {
  bytes: Uint8Array = new Uint8Array();
  start = 0;
  end = 0;
  /** Bytes the frame had on the wire. */
  wireLength = 0;
  /** Set by a read behind the end: such a frame never matches. */
  failed = false;

  /** 1, 2 or 4 bytes at an offset from the start of the frame, as an unsigned number. */
  load(offset: number, size: number): number {
    const at = this.start + offset;
    if (at + size > this.end) {
      this.failed = true;
      return 0;
    }
    let value = 0;
    for (let index = 0; index < size; index++) value = value * 256 + (this.bytes[at + index] as number);
    return value;
  }

  equals(offset: number, expected: Uint8Array, mask: Uint8Array | undefined): boolean {
    const at = this.start + offset;
    if (at + expected.length > this.end) {
      this.failed = true;
      return false;
    }
    for (let index = 0; index < expected.length; index++) {
      const bits = mask ? (mask[index] as number) : 0xff;
      if (((this.bytes[at + index] as number) & bits) !== expected[index]) return false;
    }
    return true;
  }
}

type Condition = (reading: Reading) => boolean;
type Value = (reading: Reading) => number;

/** A compiled filter. It is not reentrant, and allocates nothing while matching. */
export class Filter {
  readonly #condition: Condition;
  readonly #reading = new Reading();
  /** The text it was compiled from. */
  readonly text: string;

  /** Throws FilterError. An empty text matches every frame. */
  constructor(text: string) {
    this.text = text;
    this.#condition = new Compiler(cutIntoWords(text)).compile();
  }

  /** True if the frame in `bytes` matches; `wireLength` if the capture cut it off. */
  matches(bytes: Uint8Array, wireLength = bytes.length): boolean {
    return this.#run(bytes, 0, bytes.length, wireLength);
  }

  /** True if the frame under this cursor matches, however it parsed. */
  matchesPacket(packet: Packet): boolean {
    return this.#run(packet.bytes, packet.start, packet.end, packet.end - packet.start);
  }

  #run(bytes: Uint8Array, start: number, end: number, wireLength: number): boolean {
    const reading = this.#reading;
    reading.bytes = bytes;
    reading.start = start;
    reading.end = end;
    reading.wireLength = wireLength;
    reading.failed = false;
    return this.#condition(reading) && !reading.failed;
  }
}

type DirectionWord = 'src' | 'dst' | 'src or dst' | 'src and dst';
type TypeWord = 'host' | 'net' | 'port' | 'portrange' | 'proto';

/** What stands in front of a value and is inherited by the next ones: `tcp dst port 80 or 443`. */
interface Qualifiers {
  protocol: string | undefined;
  direction: DirectionWord | undefined;
  type: TypeWord | undefined;
}

/** A condition with what a bare value behind it inherits; undefined where libpcap lets nothing be inherited. */
interface Term {
  condition: Condition;
  qualifiers: Qualifiers | undefined;
}

/** Protocols of IP by the words that name them, and over which IP versions they mean something. */
const IP_PROTOCOLS: ReadonlyMap<string, { number: number; versions: readonly (4 | 6)[] }> = new Map([
  ['tcp', { number: Protocol.tcp, versions: [4, 6] }],
  ['udp', { number: Protocol.udp, versions: [4, 6] }],
  ['sctp', { number: Protocol.sctp, versions: [4, 6] }],
  ['icmp', { number: Protocol.icmp, versions: [4] }],
  ['icmp6', { number: Protocol.icmpv6, versions: [6] }],
  ['igmp', { number: 2, versions: [4] }],
  ['igrp', { number: 9, versions: [4] }],
  ['pim', { number: 103, versions: [4, 6] }],
  ['vrrp', { number: Protocol.vrrp, versions: [4] }],
  ['carp', { number: 112, versions: [4] }],
  ['ah', { number: Protocol.authentication, versions: [4, 6] }],
  ['esp', { number: Protocol.encapsulatingSecurity, versions: [4, 6] }],
]);

const RARP_TYPE = 0x8035;
const ETHER_TYPES: ReadonlyMap<string, number> = new Map([
  ['ip', EtherType.ipv4],
  ['ip6', EtherType.ipv6],
  ['arp', EtherType.arp],
  ['rarp', RARP_TYPE],
]);

/** Further names that `proto` takes (/etc/protocols). */
const PROTOCOL_NUMBERS: ReadonlyMap<string, number> = new Map([
  ['ipip', 4],
  ['ipencap', 4],
  ['ipv6', 41],
  ['gre', 47],
  ['ospf', 89],
]);

const ALIASES: ReadonlyMap<string, string> = new Map([
  ['link', 'ether'],
  ['icmpv6', 'icmp6'],
]);

const PROTOCOL_WORDS = new Set(['ether', ...ETHER_TYPES.keys(), ...IP_PROTOCOLS.keys(), ...ALIASES.keys()]);

/** Words of the language that this one does not speak: refused by name, never taken for a host. */
const UNSUPPORTED = new Set([
  ...['fddi', 'tr', 'wlan', 'ppp', 'slip', 'atalk', 'aarp', 'decnet', 'iso', 'stp', 'ipx', 'netbeui', 'lat'],
  ...[
    'moprc',
    'mopdl',
    'sca',
    'clnp',
    'esis',
    'isis',
    'gateway',
    'protochain',
    'inbound',
    'outbound',
    'mpls',
  ],
  ...['pppoed', 'pppoes', 'geneve', 'ifindex', 'ifname', 'on', 'rnr', 'rulenum', 'reason', 'action', 'type'],
  ...['subtype', 'dir', 'direction', 'addr1', 'addr2', 'addr3', 'addr4', 'ra', 'ta', 'radio', 'lane', 'llc'],
]);

const KEYWORDS = new Set([
  ...[
    'and',
    'or',
    'not',
    'src',
    'dst',
    'host',
    'net',
    'mask',
    'port',
    'portrange',
    'proto',
    'less',
    'greater',
  ],
  ...['vlan', 'broadcast', 'multicast', 'len', 'length', ...PROTOCOL_WORDS, ...UNSUPPORTED],
]);

/** Deeper parentheses are refused, before the machine's stack is. */
const DEEPEST_NESTING = 200;

/** Recursive descent over the words; state is the position and how far VLAN tags have moved the network header. */
class Compiler {
  readonly #words: readonly Word[];
  #next = 0;
  #depth = 0;
  /** Offset of the EtherType that counts now; `vlan` moves it for the rest of the filter (pcap-filter(7)). */
  #linkType = 12;

  constructor(words: readonly Word[]) {
    this.#words = words;
  }

  compile(): Condition {
    if (this.#peek().kind === 'end') return () => true;
    const { condition } = this.#expression();
    if (this.#peek().kind !== 'end') throw this.#unexpected('"and", "or" or the end');
    return condition;
  }

  #peek(ahead = 0): Word {
    return this.#words[Math.min(this.#next + ahead, this.#words.length - 1)] as Word;
  }

  #take(): Word {
    const word = this.#peek();
    this.#next++;
    return word;
  }

  /** Takes the next word if it is this sign or keyword. */
  #accept(...texts: string[]): boolean {
    const word = this.#peek();
    if (word.kind === 'escaped' || !texts.includes(word.text) || word.kind === 'end') return false;
    this.#next++;
    return true;
  }

  #expect(sign: string): void {
    if (!this.#accept(sign)) throw this.#unexpected(`"${sign}"`);
  }

  #unexpected(expected: string, word = this.#peek()): FilterError {
    const found = word.kind === 'end' ? 'unexpected end of the filter' : `unexpected "${word.text}"`;
    return new FilterError(`${found} (expected ${expected})`, word.position);
  }

  #nested<T>(parse: () => T): T {
    if (++this.#depth > DEEPEST_NESTING)
      throw new FilterError(`more than ${DEEPEST_NESTING} levels of nesting`, this.#peek().position);
    const parsed = parse();
    this.#depth--;
    return parsed;
  }

  #expression(): Term {
    let left = this.#term();
    for (;;) {
      const both = this.#accept('and', '&&');
      if (!both && !this.#accept('or', '||')) return left;
      const right = this.#bareValueFollows() ? this.#inherited(left.qualifiers) : this.#term();
      left = join(both, left.condition, right);
    }
  }

  /** A value that stands alone after `and` or `or`, with the qualifiers of what is before it. */
  #inherited(qualifiers: Qualifiers | undefined): Term {
    if (!qualifiers)
      throw new FilterError(
        `"${this.#peek().text}" has no qualifier like "host" or "port" to take over`,
        this.#peek().position,
      );
    return { condition: this.#values(qualifiers), qualifiers };
  }

  /** True if a value without qualifiers comes next, behind any `not` and parentheses. */
  #bareValueFollows(): boolean {
    let ahead = 0;
    while (['not', '!', '('].includes(this.#peek(ahead).text)) ahead++;
    const word = this.#peek(ahead);
    if (word.kind === 'escaped') return true;
    if (word.kind !== 'word' || KEYWORDS.has(word.text)) return false;
    if (parseNumber(word.text) === undefined && !CONSTANTS.has(word.text)) return true;
    let behind = this.#peek(ahead + 1);
    for (let closed = ahead + 1; behind.text === ')'; behind = this.#peek(closed)) closed++;
    return !isArithmetic(behind) || behind.text === '/';
  }

  #term(): Term {
    return this.#nested(() => {
      if (this.#accept('not', '!')) {
        const { condition, qualifiers } = this.#term();
        return { condition: reading => !condition(reading), qualifiers };
      }
      if (this.#arithmeticFollows()) return { condition: this.#relation(), qualifiers: undefined };
      if (this.#accept('(')) {
        const term = this.#expression();
        this.#expect(')');
        return term;
      }
      return this.#primitive();
    });
  }

  /** True if the next words are an expression of numbers: then a relation operator has to follow. */
  #arithmeticFollows(): boolean {
    const word = this.#peek();
    if (word.kind === 'sign' && word.text === '-') return true;
    if (word.kind === 'sign' && word.text === '(') {
      let open = 0;
      for (let ahead = 0; ; ahead++) {
        const each = this.#peek(ahead);
        if (each.kind === 'end') return false;
        if (each.kind !== 'sign') continue;
        if (each.text === '(') open++;
        if (each.text === ')' && --open === 0) return isArithmetic(this.#peek(ahead + 1));
      }
    }
    if (word.kind !== 'word') return false;
    if (word.text === 'len' || word.text === 'length') return true;
    if (PROTOCOL_WORDS.has(word.text)) return this.#peek(1).text === '[';
    return parseNumber(word.text) !== undefined || CONSTANTS.has(word.text);
  }

  #primitive(): Term {
    const word = this.#peek();
    if (word.kind !== 'word') throw this.#unexpected('a primitive such as "host", "port" or "tcp"');
    if (UNSUPPORTED.has(word.text))
      throw new FilterError(`"${word.text}" is not supported by this filter language`, word.position);
    const alone = this.#primitiveWithoutQualifiers();
    if (alone) return { condition: alone, qualifiers: undefined };

    const protocol = PROTOCOL_WORDS.has(word.text) ? canonicalProtocol(this.#take().text) : undefined;
    if (this.#accept('broadcast'))
      return { condition: this.#broadcast(protocol, word), qualifiers: undefined };
    if (this.#accept('multicast'))
      return { condition: this.#multicast(protocol, word), qualifiers: undefined };
    const direction = this.#direction();
    const type = this.#type();
    if (direction === undefined && type === undefined) {
      if (protocol === undefined) {
        if (KEYWORDS.has(word.text)) throw this.#unexpected('a primitive such as "host", "port" or "tcp"');
        throw new FilterError(`unknown word "${word.text}"`, word.position);
      }
      if (protocol === 'ether') throw this.#unexpected('"host", "src", "dst", "proto" or "broadcast"');
      return { condition: this.#protocol(protocol), qualifiers: undefined };
    }
    const qualifiers = { protocol, direction, type };
    return { condition: this.#values(qualifiers), qualifiers };
  }

  #primitiveWithoutQualifiers(): Condition | undefined {
    if (this.#accept('less')) {
      const limit = this.#number('a length');
      return reading => reading.wireLength <= limit;
    }
    if (this.#accept('greater')) {
      const limit = this.#number('a length');
      return reading => reading.wireLength >= limit;
    }
    if (this.#accept('vlan')) return this.#vlan();
    return undefined;
  }

  #direction(): DirectionWord | undefined {
    const first = this.#peek().text;
    if (this.#peek().kind !== 'word' || (first !== 'src' && first !== 'dst')) return undefined;
    this.#next++;
    const second = this.#peek(1).text;
    const other = first === 'src' ? 'dst' : 'src';
    if (this.#peek(1).kind === 'word' && second === other) {
      if (this.#accept('or', '||')) {
        this.#next++;
        return 'src or dst';
      }
      if (this.#accept('and', '&&')) {
        this.#next++;
        return 'src and dst';
      }
    }
    return first;
  }

  #type(): TypeWord | undefined {
    for (const type of ['host', 'net', 'port', 'portrange', 'proto'] as const) {
      if (this.#accept(type)) return type;
    }
    const word = this.#peek();
    if (word.kind === 'word' && UNSUPPORTED.has(word.text))
      throw new FilterError(`"${word.text}" is not supported by this filter language`, word.position);
    return undefined;
  }

  /** `not`, a value, or parentheses with several values that share the qualifiers. */
  #values(qualifiers: Qualifiers): Condition {
    return this.#nested(() => {
      if (this.#accept('not', '!')) {
        const condition = this.#values(qualifiers);
        return reading => !condition(reading);
      }
      if (!this.#accept('(')) return this.#value(qualifiers);
      let left = this.#values(qualifiers);
      for (;;) {
        if (this.#accept(')')) return left;
        const both = this.#accept('and', '&&');
        if (!both && !this.#accept('or', '||')) throw this.#unexpected('"and", "or" or ")"');
        left = join(both, left, { condition: this.#values(qualifiers), qualifiers }).condition;
      }
    });
  }

  #value(qualifiers: Qualifiers): Condition {
    const word = this.#take();
    if (word.kind !== 'word' && word.kind !== 'escaped') {
      this.#next--;
      throw this.#unexpected('an address, number or name');
    }
    if (word.kind === 'word' && KEYWORDS.has(word.text))
      throw new FilterError(
        `unexpected "${word.text}" (expected an address, number or name; a name that is also a word of the ` +
          `language is written \\${word.text})`,
        word.position,
      );
    switch (qualifiers.type) {
      case 'port':
      case 'portrange':
        return this.#ports(qualifiers, word);
      case 'proto':
        return this.#encapsulated(qualifiers, word);
      default:
        return this.#address(qualifiers, word);
    }
  }

  // Protocols

  #etherType(etherType: number): Condition {
    const at = this.#linkType;
    // Below 1536 the field is a length and the number a service access point of IEEE 802.2.
    if (etherType < 0x0600)
      return reading => reading.load(at, 2) <= 1500 && reading.load(at + 2, 1) === etherType;
    return reading => reading.load(at, 2) === etherType;
  }

  #protocol(name: string): Condition {
    const etherType = ETHER_TYPES.get(name);
    if (etherType !== undefined) return this.#etherType(etherType);
    const protocol = IP_PROTOCOLS.get(name);
    if (!protocol) return () => true;
    return anyOf(protocol.versions.map(version => this.#ipProtocol(version, protocol.number)));
  }

  /** IP packets of this protocol; in IPv6 also fragments, whose fragment header comes first and names it. */
  #ipProtocol(version: 4 | 6, protocol: number): Condition {
    const network = this.#linkType + 2;
    if (version === 4) {
      const ip = this.#etherType(EtherType.ipv4);
      return reading => ip(reading) && reading.load(network + 9, 1) === protocol;
    }
    const ip6 = this.#etherType(EtherType.ipv6);
    return reading => {
      if (!ip6(reading)) return false;
      const next = reading.load(network + 6, 1);
      if (next === protocol) return true;
      return next === Protocol.fragment && reading.load(network + IPV6_HEADER, 1) === protocol;
    };
  }

  /** `proto X`, `ip proto X`, `ip6 proto X`, `ether proto X`. */
  #encapsulated({ protocol, direction }: Qualifiers, word: Word): Condition {
    if (direction !== undefined)
      throw new FilterError(`"${direction}" does not go with "proto"`, word.position);
    if (protocol === 'ether') {
      const etherType = ETHER_TYPES.get(word.text) ?? parseNumber(word.text);
      if (etherType === undefined || etherType > 0xffff)
        throw new FilterError(`unknown Ethernet protocol "${word.text}"`, word.position);
      return this.#etherType(etherType);
    }
    const number =
      IP_PROTOCOLS.get(word.text)?.number ?? PROTOCOL_NUMBERS.get(word.text) ?? parseNumber(word.text);
    if (number === undefined || number > 255)
      throw new FilterError(`unknown IP protocol "${word.text}"`, word.position);
    if (protocol === undefined) return anyOf([this.#ipProtocol(4, number), this.#ipProtocol(6, number)]);
    if (protocol !== 'ip' && protocol !== 'ip6')
      throw new FilterError(
        `"${protocol} proto" means nothing: ${protocol} carries no protocols`,
        word.position,
      );
    return this.#ipProtocol(protocol === 'ip' ? 4 : 6, number);
  }

  /** `vlan` and `vlan ID`: tagged frames; what follows is looked for behind the tag. */
  #vlan(): Condition {
    const at = this.#linkType;
    const tagged: Condition = reading => {
      const type = reading.load(at, 2);
      return type === EtherType.vlan || type === EtherType.serviceVlan || type === 0x9100;
    };
    this.#linkType += 4;
    const word = this.#peek();
    const id = word.kind === 'word' && !KEYWORDS.has(word.text) ? parseNumber(word.text) : undefined;
    if (id === undefined) return tagged;
    this.#next++;
    if (id > 4095) throw new FilterError(`VLAN ${id} is above 4095`, word.position);
    return reading => tagged(reading) && (reading.load(at + 2, 2) & 0x0fff) === id;
  }

  #broadcast(protocol: string | undefined, word: Word): Condition {
    if (protocol === undefined || protocol === 'ether') {
      const broadcast = new Uint8Array(6).fill(0xff);
      return reading => reading.equals(0, broadcast, undefined);
    }
    if (protocol === 'ip')
      throw new FilterError('"ip broadcast" needs a netmask, which a capture does not know', word.position);
    throw new FilterError(`"${protocol} broadcast" means nothing`, word.position);
  }

  #multicast(protocol: string | undefined, word: Word): Condition {
    const network = this.#linkType + 2;
    switch (protocol) {
      case undefined:
      case 'ether':
        return reading => (reading.load(0, 1) & 1) !== 0;
      case 'ip': {
        const ip = this.#etherType(EtherType.ipv4);
        return reading => ip(reading) && reading.load(network + 16, 1) >= 224;
      }
      case 'ip6': {
        const ip6 = this.#etherType(EtherType.ipv6);
        return reading => ip6(reading) && reading.load(network + 24, 1) === 255;
      }
      default:
        throw new FilterError(`"${protocol} multicast" means nothing`, word.position);
    }
  }

  // Addresses

  #address({ protocol, direction, type }: Qualifiers, word: Word): Condition {
    if (protocol === 'ether') {
      const mac = parseAnyMac(word.text);
      if (!mac || type === 'net')
        throw new FilterError(`"${word.text}" is not an Ethernet address`, word.position);
      return inDirection(direction, at => reading => reading.equals(at, mac, undefined), 6, 0);
    }
    if (protocol !== undefined && !ETHER_TYPES.has(protocol))
      throw new FilterError(`"${protocol}" does not go with "${type ?? 'host'}"`, word.position);
    if (parseAnyMac(word.text))
      throw new FilterError(`the Ethernet address "${word.text}" needs "ether" in front`, word.position);
    return word.text.includes(':')
      ? this.#ipv6Address(protocol, direction, type, word)
      : this.#ipv4Address(protocol, direction, type, word);
  }

  #ipv4Address(
    protocol: string | undefined,
    direction: DirectionWord | undefined,
    type: TypeWord | undefined,
    word: Word,
  ): Condition {
    const number = word.text.includes('.') ? undefined : parseNumber(word.text);
    if (number !== undefined && (type !== 'net' || number > 255))
      throw new FilterError(`"${word.text}" is not a dotted IPv4 address`, word.position);
    const parts = word.text.split('.').map(part => (/^\d{1,3}$/.test(part) ? Number(part) : Number.NaN));
    if (parts.length > 4 || parts.some(part => !(part <= 255)))
      throw new FilterError(
        `"${word.text}" is not an address (host names are not looked up here)`,
        word.position,
      );
    const address = new Uint8Array(4);
    address.set(parts);
    // As many bytes count as are written: `net 10.1` is 10.1.0.0/16.
    const mask = this.#mask(4, 8 * parts.length, type, address, word);
    if (protocol === 'ip6') throw new FilterError(`"${word.text}" is no IPv6 address`, word.position);
    const network = this.#linkType + 2;
    const matching = (etherType: number, sourceAt: number, distance: number): Condition => {
      const rightType = this.#etherType(etherType);
      const there = inDirection(
        direction,
        at => reading => reading.equals(at, address, mask),
        network + sourceAt,
        network + sourceAt + distance,
      );
      return reading => rightType(reading) && there(reading);
    };
    const ip = matching(EtherType.ipv4, 12, 4);
    const arp = matching(EtherType.arp, 14, 10);
    const rarp = matching(RARP_TYPE, 14, 10);
    if (protocol === undefined) return anyOf([ip, arp, rarp]);
    return protocol === 'ip' ? ip : protocol === 'arp' ? arp : rarp;
  }

  #ipv6Address(
    protocol: string | undefined,
    direction: DirectionWord | undefined,
    type: TypeWord | undefined,
    word: Word,
  ): Condition {
    const address = parseIpv6Address(word.text);
    if (!address) throw new FilterError(`"${word.text}" is not an address`, word.position);
    const mask = this.#mask(16, 128, type, address, word);
    if (protocol !== undefined && protocol !== 'ip6')
      throw new FilterError(`"${protocol}" does not go with the IPv6 address "${word.text}"`, word.position);
    const network = this.#linkType + 2;
    const ip6 = this.#etherType(EtherType.ipv6);
    const there = inDirection(
      direction,
      at => reading => reading.equals(at, address, mask),
      network + 8,
      network + 24,
    );
    return reading => ip6(reading) && there(reading);
  }

  /** The mask behind an address: `/24`, `mask 255.255.255.0`, or the bits that are written. */
  #mask(
    size: 4 | 16,
    written: number,
    type: TypeWord | undefined,
    address: Uint8Array,
    word: Word,
  ): Uint8Array {
    let mask = maskOfLength(size, written);
    const next = this.#peek();
    if (this.#accept('/')) {
      const position = this.#peek().position;
      const length = this.#number('a prefix length');
      if (length > 8 * size)
        throw new FilterError(`the prefix length ${length} is above ${8 * size}`, position);
      mask = maskOfLength(size, length);
    } else if (size === 4 && this.#accept('mask')) {
      const text = this.#take();
      const parsed = parseIpv4Address(text.text);
      if (!parsed) throw new FilterError(`"${text.text}" is not a netmask`, text.position);
      mask = parsed;
    } else {
      return mask;
    }
    if (type !== 'net') throw new FilterError(`a mask needs "net" in front of "${word.text}"`, next.position);
    if (address.some((byte, index) => (byte & ~(mask[index] as number)) !== 0))
      throw new FilterError(`"${word.text}" has bits set behind the mask`, word.position);
    return mask;
  }

  // Ports

  #ports({ protocol, direction, type }: Qualifiers, word: Word): Condition {
    const named = protocol === undefined ? undefined : IP_PROTOCOLS.get(protocol)?.number;
    const withPorts: readonly number[] = [Protocol.tcp, Protocol.udp, Protocol.sctp];
    if (protocol !== undefined && (named === undefined || !withPorts.includes(named)))
      throw new FilterError(`"${protocol}" has no ports`, word.position);
    const service = type === 'port' ? PORTS.get(word.text) : undefined;
    // A service of one protocol means that one only (pcap-filter(7)); one of two means all that have ports.
    const possible = service && service.protocols.length === 1 ? service.protocols : withPorts;
    const protocols = named === undefined ? possible : [named];
    if (service && named !== undefined && !service.protocols.includes(named))
      throw new FilterError(`the service "${word.text}" is not one of ${protocol}`, word.position);
    const [low, high] = parsePorts(word, type === 'portrange');
    const inRange = (at: (reading: Reading) => number): Condition => {
      return reading => {
        const port = reading.load(at(reading), 2);
        return port >= low && port <= high;
      };
    };
    const network = this.#linkType + 2;
    const ip = this.#etherType(EtherType.ipv4);
    const ip6 = this.#etherType(EtherType.ipv6);
    const transport = (reading: Reading): number => network + 4 * (reading.load(network, 1) & 0x0f);
    const ports4 = inDirection(direction, offset => inRange(reading => transport(reading) + offset), 0, 2);
    const ports6 = inDirection(direction, offset => inRange(() => network + IPV6_HEADER + offset), 0, 2);
    return reading => {
      if (ip(reading)) {
        if (!protocols.includes(reading.load(network + 9, 1))) return false;
        if ((reading.load(network + 6, 2) & 0x1fff) !== 0) return false;
        return ports4(reading);
      }
      return ip6(reading) && protocols.includes(reading.load(network + 6, 1)) && ports6(reading);
    };
  }

  // Numbers

  #number(what: string): number {
    const word = this.#take();
    const number = word.kind === 'word' ? parseNumber(word.text) : undefined;
    if (number === undefined) {
      this.#next--;
      throw this.#unexpected(what);
    }
    return number;
  }

  #relation(): Condition {
    const guards: Condition[] = [];
    const left = this.#arithmetic(guards, 0);
    const operator = this.#take();
    const compare = operator.kind === 'sign' ? RELATIONS.get(operator.text) : undefined;
    if (!compare) {
      this.#next--;
      throw this.#unexpected('a relation such as "=" or "!="');
    }
    const right = this.#arithmetic(guards, 0);
    // `tcp[13]` says that the frame is TCP at all; if it is not, the relation is false.
    const related: Condition = reading => compare(left(reading), right(reading));
    return guards.reduceRight((inner, guard) => reading => guard(reading) && inner(reading), related);
  }

  /** Binary operators by precedence climbing; all associate to the left. */
  #arithmetic(guards: Condition[], lowest: number): Value {
    return this.#nested(() => {
      let left = this.#operand(guards);
      for (;;) {
        const word = this.#peek();
        const operator = word.kind === 'sign' ? OPERATORS.get(word.text) : undefined;
        if (!operator || operator.precedence < lowest) return left;
        this.#next++;
        const next = this.#peek();
        const constant = next.kind === 'word' ? parseNumber(next.text) : undefined;
        const { compute, divides, shifts } = operator;
        if (divides && constant === 0) throw new FilterError('division by zero', next.position);
        if (shifts && constant !== undefined && constant > 31)
          throw new FilterError('shift by more than 31 bits', next.position);
        const first = left;
        // libpcap forgets what a right operand implies (gen_arth): `1 + tcp[13] = 3` is also asked of UDP.
        const second = this.#arithmetic([], operator.precedence + 1);
        if (!divides) {
          left = reading => compute(first(reading), second(reading));
          continue;
        }
        left = reading => {
          const dividend = first(reading);
          const by = second(reading);
          // BPF refuses the packet when it would have to divide by zero.
          if (by === 0) reading.failed = true;
          return by === 0 ? 0 : compute(dividend, by);
        };
      }
    });
  }

  #operand(guards: Condition[]): Value {
    if (this.#accept('-')) {
      const value = this.#nested(() => this.#operand(guards));
      return reading => -value(reading) >>> 0;
    }
    if (this.#accept('(')) {
      const value = this.#arithmetic(guards, 0);
      this.#expect(')');
      return value;
    }
    if (this.#accept('len', 'length')) return reading => reading.wireLength;
    const word = this.#take();
    if (word.kind === 'word') {
      if (PROTOCOL_WORDS.has(word.text)) return this.#access(canonicalProtocol(word.text), guards, word);
      const number = CONSTANTS.get(word.text) ?? parseNumber(word.text);
      if (number !== undefined) return () => number;
    }
    this.#next--;
    throw this.#unexpected('a number, "len" or an access such as "tcp[13]"');
  }

  /** `PROTOCOL[OFFSET]` and `PROTOCOL[OFFSET:SIZE]`. */
  #access(protocol: string, guards: Condition[], word: Word): Value {
    this.#expect('[');
    const offset = this.#arithmetic(guards, 0);
    let size = 1;
    if (this.#accept(':')) {
      const position = this.#peek().position;
      size = this.#number('1, 2 or 4 bytes');
      if (size !== 1 && size !== 2 && size !== 4)
        throw new FilterError(`a size of ${size} bytes (1, 2 and 4 are possible)`, position);
    }
    this.#expect(']');
    const network = this.#linkType + 2;
    if (protocol === 'ether') return reading => reading.load(offset(reading), size);
    if (ETHER_TYPES.has(protocol)) {
      guards.push(this.#protocol(protocol));
      return reading => reading.load(network + offset(reading), size);
    }
    const carried = IP_PROTOCOLS.get(protocol);
    if (!carried) throw new FilterError(`"${word.text}" has no bytes to look at`, word.position);
    if (protocol === 'icmp6') {
      const ip6 = this.#etherType(EtherType.ipv6);
      guards.push(reading => ip6(reading) && reading.load(network + 6, 1) === carried.number);
      return reading => reading.load(network + IPV6_HEADER + offset(reading), size);
    }
    // As libpcap has it: only over IPv4, and not in later fragments, where something else stands there.
    const overIp = this.#ipProtocol(4, carried.number);
    guards.push(reading => overIp(reading) && (reading.load(network + 6, 2) & 0x1fff) === 0);
    return reading => {
      const transport = network + 4 * (reading.load(network, 1) & 0x0f);
      return reading.load(transport + offset(reading), size);
    };
  }
}

/** Ethernet addresses in all notations of libpcap's scanner: `0:c:29:2e:aa:48`, also with `-` or `.`, `000c.292e.aa48`. */
function parseAnyMac(text: string): Uint8Array | undefined {
  const dotted = /^([0-9a-f]{4})\.([0-9a-f]{4})\.([0-9a-f]{4})$/i.exec(text);
  if (dotted) return parseMac((dotted.slice(1).join('').match(/../g) ?? []).join(':'));
  if (!/^[0-9a-f]{1,2}([:.-])(?:[0-9a-f]{1,2}\1){4}[0-9a-f]{1,2}$/i.test(text)) return undefined;
  return parseMac(
    text
      .split(/[:.-]/)
      .map(part => part.padStart(2, '0'))
      .join(':'),
  );
}

function canonicalProtocol(word: string): string {
  return ALIASES.get(word) ?? word;
}

function join(both: boolean, left: Condition, right: Term): Term {
  const { condition, qualifiers } = right;
  return {
    condition: both
      ? reading => left(reading) && condition(reading)
      : reading => left(reading) || condition(reading),
    qualifiers,
  };
}

function anyOf(conditions: readonly Condition[]): Condition {
  return conditions.reduce((left, right) => reading => left(reading) || right(reading));
}

/** One condition for source and destination, joined as the direction says; without one, either will do. */
function inDirection(
  direction: DirectionWord | undefined,
  conditionAt: (offset: number) => Condition,
  sourceAt: number,
  destinationAt: number,
): Condition {
  const source = conditionAt(sourceAt);
  const destination = conditionAt(destinationAt);
  switch (direction) {
    case 'src':
      return source;
    case 'dst':
      return destination;
    case 'src and dst':
      return reading => source(reading) && destination(reading);
    default:
      return reading => source(reading) || destination(reading);
  }
}

function maskOfLength(size: number, length: number): Uint8Array {
  return Uint8Array.from({ length: size }, (_, index) => {
    const bits = Math.min(8, Math.max(0, length - 8 * index));
    return (0xff00 >>> bits) & 0xff;
  });
}

function parsePorts(word: Word, isRange: boolean): [low: number, high: number] {
  const port = (text: string): number => {
    const number = PORTS.get(text)?.port ?? parseNumber(text);
    if (number === undefined) throw new FilterError(`unknown port "${text}"`, word.position);
    if (number > 65535) throw new FilterError(`port ${number} is above 65535`, word.position);
    return number;
  };
  const range = isRange ? /^(\w+)-(\w+)$/.exec(word.text) : null;
  if (!range) return [port(word.text), port(word.text)];
  const [from, to] = [port(range[1] as string), port(range[2] as string)];
  return [Math.min(from, to), Math.max(from, to)];
}

const RELATIONS: ReadonlyMap<string, (left: number, right: number) => boolean> = new Map([
  ['=', (left: number, right: number) => left === right],
  ['==', (left: number, right: number) => left === right],
  ['!=', (left: number, right: number) => left !== right],
  ['<', (left: number, right: number) => left < right],
  ['<=', (left: number, right: number) => left <= right],
  ['>', (left: number, right: number) => left > right],
  ['>=', (left: number, right: number) => left >= right],
]);

interface Operator {
  /** Higher binds tighter. */
  precedence: number;
  /** Both operands and the result are unsigned 32-bit numbers. */
  compute: (left: number, right: number) => number;
  divides: boolean;
  shifts: boolean;
}

const operator = (
  precedence: number,
  compute: Operator['compute'],
  kind?: 'divides' | 'shifts',
): Operator => ({ precedence, compute, divides: kind === 'divides', shifts: kind === 'shifts' });

const OPERATORS: ReadonlyMap<string, Operator> = new Map([
  ['|', operator(1, (left, right) => (left | right) >>> 0)],
  ['^', operator(2, (left, right) => (left ^ right) >>> 0)],
  ['&', operator(3, (left, right) => (left & right) >>> 0)],
  ['<<', operator(4, (left, right) => (right > 31 ? 0 : (left << right) >>> 0), 'shifts')],
  ['>>', operator(4, (left, right) => (right > 31 ? 0 : left >>> right), 'shifts')],
  ['+', operator(5, (left, right) => (left + right) >>> 0)],
  ['-', operator(5, (left, right) => (left - right) >>> 0)],
  ['*', operator(6, (left, right) => Math.imul(left, right) >>> 0)],
  ['/', operator(6, (left, right) => Math.floor(left / right), 'divides')],
  ['%', operator(6, (left, right) => left % right, 'divides')],
]);

function isArithmetic(word: Word): boolean {
  return word.kind === 'sign' && (OPERATORS.has(word.text) || RELATIONS.has(word.text));
}
