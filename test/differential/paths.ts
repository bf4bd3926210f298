/** The two data paths side by side, and what is compared of them. */

import { ProgramConfiguration } from '../../src/datapath/xdp/program-configuration.ts';
import { Handling, type TestBed } from '../../src/datapath/xdp/test-bed.ts';
import { CONNECTION_BYTES, ConnectionFlag, ConnectionTable } from '../../src/ipvs/connections.ts';
import { DestinationTable } from '../../src/ipvs/destinations.ts';
import { Director, Verdict } from '../../src/ipvs/director.ts';
import { DROP_NAMES } from '../../src/ipvs/drops.ts';
import type { Settings } from '../../src/ipvs/settings.ts';
import { IpvsError } from '../../src/ipvs/specification.ts';
import { COUNTER_STRIDE } from '../../src/ipvs/statistics.ts';
import { formatAddress } from '../../src/wire/address.ts';
import { fillIpv4Checksum, IPV4_DONT_FRAGMENT, Ipv4, Protocol } from '../../src/wire/ipv4.ts';
import { Malformed } from '../../src/wire/malformed.ts';
import { Packet } from '../../src/wire/packet.ts';
import { type Operation, perform } from './configuration.ts';
import { Random } from './random.ts';
import type { ArrivingFrame } from './traffic.ts';
import { type SentFrame, VIPS, World } from './world.ts';

/** Ticks a second of both tables; times are multiples of a tick. */
export const HZ = 250;
export const CAPACITY = 4096;
export const DESTINATIONS = 256;

/** Fragments of other protocols, ICMP among them, are the host's: the program does not look for errors in pieces. */
const DIRECTED: ReadonlySet<number> = new Set([Protocol.tcp, Protocol.udp, Protocol.sctp]);

/** What became of a frame. */
type Outcome = 'passed' | 'taken' | 'dropped' | 'malformed' | 'not ours';

/** A director with its host. */
class Path {
  readonly world = new World();
  readonly director: Director;
  readonly #packet = new Packet();

  constructor(settings: Partial<Settings>, seed: number, bed?: TestBed) {
    const random = new Random(seed);
    const destinations = bed
      ? new DestinationTable(bed.fastPath.destinationCapacity, bed.fastPath.destinationMemory)
      : new DestinationTable(DESTINATIONS);
    const connections = new ConnectionTable({
      capacity: CAPACITY,
      destinations,
      hz: HZ,
      ...(bed ? { memory: bed.fastPath.connectionMemory, seed: bed.fastPath.control.seed } : {}),
    });
    this.director = new Director({
      network: this.world,
      host: this.world,
      settings,
      destinations,
      connections,
      random: () => random.next(),
    });
  }

  /** Returns the error's code, or an empty text. */
  perform(operation: Operation, now: number): string {
    this.director.administration.now = now;
    try {
      perform(operation, this.director);
      return '';
    } catch (error) {
      if (error instanceof IpvsError) return error.code;
      throw error;
    }
  }

  process({ bytes, on }: ArrivingFrame, now: number): Outcome {
    const packet = this.#packet;
    if (packet.load(bytes) !== Malformed.none) return 'malformed';
    if (packet.family === 0) return 'not ours';
    if (!on.mac.every((byte, at) => byte === bytes[at])) return 'not ours';
    const isLocal = this.world.isLocal(packet.bytes, packet.destinationAt, packet.family);
    if (!isLocal && !this.#mayBeReply(packet)) return 'not ours';
    if (packet.isFragment && !isVip(packet) && !this.#mayBeReply(packet)) return 'not ours';
    // Those of other protocols come back whole from the director, as the host would have gathered them.
    if (packet.isFragment && !DIRECTED.has(packet.protocol)) return 'not ours';
    const verdict = this.director.process(packet, on.index, now, !isLocal);
    if (verdict === Verdict.dropped) return 'dropped';
    return verdict === Verdict.taken ? 'taken' : 'passed';
  }

  /**
   * Of what the host routes on, only what a translated server sent and ICMP concern a director; the program leaves the
   * rest to the host at once. The director alone looks at all of it: it gathers fragments and gives back what is no reply.
   */
  #mayBeReply(packet: Packet): boolean {
    const family = packet.family === 6 ? 6 : 4;
    return (
      packet.protocol === (family === 4 ? Protocol.icmp : Protocol.icmpv6) ||
      this.director.pool.isTranslated(packet.bytes, packet.sourceAt, family)
    );
  }
}

function isIcmp(bytes: Uint8Array): boolean {
  const at = bytes[12] === 0x81 || bytes[12] === 0x88 ? 18 : 14;
  return bytes[at - 2] === 8
    ? bytes[at + Ipv4.protocol] === Protocol.icmp
    : bytes[at + 6] === Protocol.icmpv6;
}

function isVip(packet: Packet): boolean {
  const family = packet.family === 6 ? 6 : 4;
  return VIPS[family].includes(formatAddress(packet.bytes, packet.destinationAt, family === 4 ? 4 : 16));
}

/** What is different; undefined: nothing. */
export type Difference = string | undefined;

export class Paths {
  /** Frames that the program handled by itself, and how many of them were ICMP errors. */
  sent = 0;
  errorsSent = 0;
  readonly #plain: Path;
  readonly #accelerated: Path;
  readonly #bed: TestBed;
  readonly #configuration: ProgramConfiguration;
  #now = 1000;

  constructor(bed: TestBed, settings: Partial<Settings>, seed: number) {
    this.#bed = bed;
    bed.fastPath.clear();
    this.#plain = new Path(settings, seed);
    this.#accelerated = new Path(settings, seed, bed);
    this.#configuration = new ProgramConfiguration(bed.fastPath, this.#accelerated.director);
    this.#accelerated.director.administration.observe(change => this.#configuration.note(change));
  }

  /** What the director alone sent for the last frame. */
  get observed(): readonly SentFrame[] {
    return this.#plain.world.sent;
  }

  perform(operation: Operation): Difference {
    const one = this.#plain.perform(operation, this.#now);
    const other = this.#accelerated.perform(operation, this.#now);
    return one === other ? undefined : `answers to the administrator: ${one || 'done'}, ${other || 'done'}`;
  }

  /** Lets time go by, a whole number of ticks. */
  wait(ticks: number): Difference {
    this.#now += (ticks * 1000) / HZ;
    this.#empty();
    this.#configuration.takeCounts();
    this.#plain.director.expire(this.#now);
    this.#accelerated.director.expire(this.#now);
    return this.#compareSent('what time brought');
  }

  #empty(): void {
    this.#plain.world.sent.length = 0;
    this.#accelerated.world.sent.length = 0;
  }

  receive(frame: ArrivingFrame): Difference {
    this.#empty();
    const expected = this.#plain.process(frame, this.#now);
    this.#configuration.update();
    const bed = this.#bed;
    const tick = this.#accelerated.director.connections.tick(this.#now);
    const handling = bed.run(frame.bytes, frame.on.index, tick);
    switch (handling) {
      case Handling.sent:
        this.sent++;
        if (isIcmp(frame.bytes)) this.errorsSent++;
        this.#accelerated.world.sent.push({
          bytes: bed.output.slice(0, bed.length),
          interfaceIndex: bed.sentBy,
        });
        if (expected !== 'taken') return `the director: ${expected}; the program sent it`;
        break;
      case Handling.pass:
        // The host throws away what is malformed, as the director would.
        if (expected === 'taken' || expected === 'dropped') {
          return `the director: ${expected}; the program passed it to the host`;
        }
        break;
      case Handling.dropped:
        if (expected !== 'dropped' && expected !== 'malformed') {
          return `the director: ${expected}; the program dropped it`;
        }
        break;
      default: {
        const outcome = this.#accelerated.process(frame, this.#now);
        // The program may have asked for a way.
        this.#configuration.ways.answer();
        if (outcome !== expected) return `the director alone: ${expected}; behind the program: ${outcome}`;
      }
    }
    return this.#compareSent(handling === Handling.sent ? 'the program' : 'behind the program');
  }

  #compareSent(what: string): Difference {
    const one = this.#plain.world.sent;
    const other = this.#accelerated.world.sent;
    for (let at = 0; at < Math.max(one.length, other.length); at++) {
      const [expected, got] = [one[at], other[at]];
      if (expected && got && isSameFrame(expected, got)) continue;
      return `frame ${at} sent (${what}):\n  director ${describe(expected)}\n  xdp      ${describe(got)}`;
    }
    return undefined;
  }

  /** Compares all that can be seen of the two: connections, servers, counters, drops. */
  compareState(): Difference {
    this.#configuration.takeCounts();
    return (
      this.#compareConnections() ??
      this.#compareDestinations() ??
      this.#compareCounters() ??
      this.#compareDrops()
    );
  }

  #compareConnections(): Difference {
    const one = connectionsOf(this.#plain.director.connections);
    const other = connectionsOf(this.#accelerated.director.connections);
    for (const [key, record] of one) {
      const found = other.get(key);
      if (found !== record) return `connection ${key}:\n  director ${record}\n  xdp      ${found ?? 'none'}`;
    }
    for (const [key, record] of other) {
      if (!one.has(key)) return `connection ${key}:\n  director none\n  xdp      ${record}`;
    }
    return undefined;
  }

  #compareDestinations(): Difference {
    const [one, other] = [this.#plain.director.destinations, this.#accelerated.director.destinations];
    for (let index = 0; index < DESTINATIONS; index++) {
      for (let word = 0; word < 16; word++) {
        const [expected, got] = [one.words[index * 16 + word], other.words[index * 16 + word]];
        if (expected === got) continue;
        return `destination ${index}, word ${word} of its record: director ${expected}, xdp ${got}`;
      }
    }
    return undefined;
  }

  #compareCounters(): Difference {
    const [one, other] = [this.#plain.director.pool, this.#accelerated.director.pool];
    const names = ['connections', 'packets in', 'packets out', 'bytes in', 'bytes out'];
    for (const index of one.owners.keys()) {
      for (const [counter, name] of names.entries()) {
        const at = index * COUNTER_STRIDE + counter;
        if (one.counters[at] === other.counters[at]) continue;
        return `destination ${index}, ${name}: director ${one.counters[at]}, xdp ${other.counters[at]}`;
      }
      if (one.persistent[index] !== other.persistent[index]) {
        return `destination ${index}, templates: director ${one.persistent[index]}, xdp ${other.persistent[index]}`;
      }
    }
    return undefined;
  }

  #compareDrops(): Difference {
    const [one, other] = [this.#plain.director.drops, this.#accelerated.director.drops];
    for (const [reason, name] of DROP_NAMES.entries()) {
      if (one[reason] !== other[reason])
        return `drops, ${name}: director ${one[reason]}, xdp ${other[reason]}`;
    }
    return undefined;
  }
}

/** Every connection as a text of all its fields, by its key. Slots, which differ, are replaced by keys. */
function connectionsOf(table: ConnectionTable): Map<string, string> {
  const found = new Map<string, string>();
  for (let slot = 0; slot < table.highWater; slot++) {
    if (!table.isUsed(slot)) continue;
    const flags = table.flags(slot);
    const isTemplate = (flags & ConnectionFlag.template) !== 0;
    const control = table.control(slot);
    const controller = isTemplate || control === 0 ? String(control) : keyOf(table, control - 1);
    found.set(
      keyOf(table, slot),
      `flags ${flags.toString(16)} state ${table.state(slot)} expires ${table.expires(slot)} destination ` +
        `${table.destination(slot)} port ${table.destinationPortRaw(slot)} local ${table.localPortRaw(slot)} ` +
        `control ${controller} packets ${table.packets(slot)}`,
    );
  }
  return found;
}

function keyOf(table: ConnectionTable, slot: number): string {
  const at = slot * CONNECTION_BYTES;
  const bytes = Buffer.from(table.bytes.buffer, table.bytes.byteOffset + at, CONNECTION_BYTES);
  const kind = table.flags(slot) & (ConnectionFlag.template | ConnectionFlag.ipv6);
  return `${kind.toString(16)}/${table.protocol(slot)} ${bytes.toString('hex', 12, 48)}`;
}

/** @param other of the program: it leaves padding behind the packet, which the director cuts off */
function isSameFrame(one: SentFrame, other: SentFrame): boolean {
  if (one.interfaceIndex !== other.interfaceIndex || one.bytes.length > other.bytes.length) return false;
  let differs = false;
  for (let at = 0; at < one.bytes.length && !differs; at++) differs = one.bytes[at] !== other.bytes[at];
  return !differs || isSameButNumber(one.bytes, other.bytes.subarray(0, one.bytes.length));
}

/** What is sent in packets of a director's own: tunnels, and errors. */
const OWN_PROTOCOLS: ReadonlySet<number> = new Set([Protocol.ipv4, 41, Protocol.gre, Protocol.udp]);

/**
 * The identification in a header of a data path's own is counted by each data path for itself (0 where the packet may
 * not be fragmented): all but that and the checksum over it must be equal, and the checksum right.
 */
function isSameButNumber(one: Uint8Array, other: Uint8Array): boolean {
  let at = 14;
  while (one[at - 2] === 0x81 || one[at - 2] === 0x88) at += 4;
  if (one.length < at + 20 || one[at] !== 0x45 || one[at - 2] !== 8 || one[at - 1] !== 0) return false;
  if (!OWN_PROTOCOLS.has(one[at + Ipv4.protocol] as number)) return false;
  const [expected, got] = [one.slice(), other.slice()];
  const [view, viewed] = [new DataView(expected.buffer), new DataView(got.buffer)];
  if (view.getUint16(at + Ipv4.fragment) & IPV4_DONT_FRAGMENT) return false;
  const checksum = viewed.getUint16(at + Ipv4.checksum);
  fillIpv4Checksum(viewed, at);
  if (viewed.getUint16(at + Ipv4.checksum) !== checksum) return false;
  for (const each of [view, viewed]) {
    each.setUint16(at + Ipv4.identification, 0);
    each.setUint16(at + Ipv4.checksum, 0);
  }
  return expected.every((byte, index) => byte === got[index]);
}

function describe(frame: SentFrame | undefined): string {
  return frame ? `on ${frame.interfaceIndex}: ${Buffer.from(frame.bytes).toString('hex')}` : 'nothing';
}
