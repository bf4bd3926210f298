/**
 * A segment: a learning switch with its cables. Frames are copied onto the wire (padded to Ethernet's minimum), learned
 * from, forwarded or flooded, and arrive after a latency. What a switch refuses is dropped under a named counter.
 */
import { ETHERNET_HEADER, ETHERNET_MINIMUM, Ethernet, macEquals } from '../wire/ethernet.ts';
import type { Simulation } from './simulation.ts';

export interface SegmentOptions {
  /** From port to port, ms; default 0.12. */
  latency?: number;
  /** Up to this much more, by chance, ms; default 0.02. Frames to one port never overtake one another. */
  jitter?: number;
  /** How long a learned MAC is remembered, ms; default 300 s (IEEE 802.1D). */
  ageing?: number;
  /** Most MACs remembered; default 4096. */
  capacity?: number;
  /** Longest frame, bytes without check sequence; default 9018 (jumbo). */
  maximumFrame?: number;
}

/**
 * A fault on a segment: for each frame that would go to a port, the extra delays, ms, of the copies that arrive.
 * `[]` loses it, `[0]` is a healthy wire, `[0, 0]` doubles it, `[5]` lets others overtake it.
 */
export type Impairment = (frame: Uint8Array, from: Port, to: Port) => readonly number[];

/** Sees each frame once, when it enters the segment. */
export type SegmentTap = (time: number, frame: Uint8Array, from: Port) => void;

/** A frame that is handed on unchanged this often travels in a circle. */
const MAXIMUM_PASSES = 16;

/** A frame on its way; all copies of it share this. */
class Transmission {
  readonly frame: Uint8Array;
  /** How often it was sent on with the same payload since it was first sent. */
  readonly passes: number;
  /** Switches it has crossed. */
  readonly crossed = new Set<Segment>();

  constructor(frame: Uint8Array, passes: number) {
    this.frame = frame;
    this.passes = passes;
  }
}

/** One end of a cable in a switch. */
export class Port {
  readonly segment: Segment;
  /** Who is plugged in, for messages. */
  readonly name: string;
  /** Frames that the switch sends out of this port, with what they belong to. */
  readonly receive: (transmission: object, frame: Uint8Array) => void;
  /** Time at which the last frame arrives, ms: the next must not be earlier. */
  busyUntil = 0;

  constructor(segment: Segment, name: string, receive: (transmission: object, frame: Uint8Array) => void) {
    this.segment = segment;
    this.name = name;
    this.receive = receive;
  }

  /** Sends a frame from the station into the switch; the bytes are copied. */
  send(frame: Uint8Array): void {
    this.segment.accept(this, frame);
  }
}

export class Segment {
  readonly name: string;
  readonly simulation: Simulation;
  /** Dropped frames by reason: `too-short`, `too-long`, `group-source`, `same-port`, `loop`. */
  readonly dropped = new Map<string, number>();
  /** A fault to inject, undefined for a healthy segment. */
  impairment: Impairment | undefined;
  #latency: number;
  #jitter: number;
  #ageing: number;
  #capacity: number;
  #maximumFrame: number;
  #ports: Port[] = [];
  #learned = new Map<number, { port: Port; seen: number }>();
  #taps: SegmentTap[] = [];

  constructor(simulation: Simulation, name: string, options: SegmentOptions = {}) {
    this.simulation = simulation;
    this.name = name;
    this.#latency = options.latency ?? 0.12;
    this.#jitter = options.jitter ?? 0.02;
    this.#ageing = options.ageing ?? 300_000;
    this.#capacity = options.capacity ?? 4096;
    this.#maximumFrame = options.maximumFrame ?? 9018;
  }

  /** Plugs a station in. */
  attach(name: string, receive: (frame: Uint8Array) => void): Port {
    const port = new Port(this, name, (_transmission, frame) => receive(frame));
    this.#ports.push(port);
    return port;
  }

  /** Puts a cable between two switches. Two of them make a loop: what comes round is dropped as `loop`. */
  link(other: Segment): void {
    const here: Port = new Port(this, other.name, transmission => other.#carry(there, transmission));
    const there: Port = new Port(other, this.name, transmission => this.#carry(here, transmission));
    this.#ports.push(here);
    other.#ports.push(there);
  }

  /** Unplugs a port and forgets the MACs learned on it. */
  detach(port: Port): void {
    this.#ports = this.#ports.filter(each => each !== port);
    for (const [mac, entry] of this.#learned) if (entry.port === port) this.#learned.delete(mac);
  }

  /** Watches the segment; the returned function ends it. */
  tap(listener: SegmentTap): () => void {
    this.#taps.push(listener);
    return () => {
      this.#taps = this.#taps.filter(each => each !== listener);
    };
  }

  /** The port behind which a MAC was seen last, undefined if unknown or forgotten. */
  portOf(mac: Uint8Array): Port | undefined {
    const entry = this.#learned.get(macNumber(mac, 0));
    return entry && this.simulation.now - entry.seen < this.#ageing ? entry.port : undefined;
  }

  /** A frame from a station. */
  accept(from: Port, bytes: Uint8Array): void {
    if (bytes.length < ETHERNET_HEADER) {
      this.#drop('too-short');
      return;
    }
    if (bytes.length > this.#maximumFrame) {
      this.#drop('too-long');
      return;
    }
    const frame = new Uint8Array(Math.max(bytes.length, ETHERNET_MINIMUM));
    frame.set(bytes);
    // A station that hands on what it is just being given, with at most the MACs changed, bounces the frame.
    const cause = this.simulation.cause;
    let passes = 0;
    if (cause instanceof Transmission && samePayload(cause.frame, frame)) passes = cause.passes + 1;
    if (passes > MAXIMUM_PASSES) {
      this.#drop('loop');
      return;
    }
    this.#carry(from, new Transmission(frame, passes));
  }

  #carry(from: Port, transmission: object): void {
    if (!(transmission instanceof Transmission)) return;
    const { frame, crossed } = transmission;
    if (crossed.has(this)) {
      this.#drop('loop');
      return;
    }
    crossed.add(this);
    if (((frame[Ethernet.source] as number) & 1) === 1) {
      this.#drop('group-source');
      return;
    }
    const now = this.simulation.now;
    for (const tap of this.#taps) tap(now, frame, from);
    this.#learn(from, frame, now);
    const isGroup = ((frame[Ethernet.destination] as number) & 1) === 1;
    const known = isGroup ? undefined : this.#learned.get(macNumber(frame, Ethernet.destination));
    if (known && now - known.seen < this.#ageing) {
      if (known.port === from) {
        this.#drop('same-port');
        return;
      }
      this.#forward(from, known.port, transmission);
      return;
    }
    for (const port of this.#ports) if (port !== from) this.#forward(from, port, transmission);
  }

  #learn(from: Port, frame: Uint8Array, now: number): void {
    const source = macNumber(frame, Ethernet.source);
    const entry = this.#learned.get(source);
    if (entry) {
      entry.port = from;
      entry.seen = now;
      return;
    }
    if (this.#learned.size >= this.#capacity) {
      for (const [mac, old] of this.#learned) if (now - old.seen >= this.#ageing) this.#learned.delete(mac);
      // A full table means flooding, as in any switch.
      if (this.#learned.size >= this.#capacity) return;
    }
    this.#learned.set(source, { port: from, seen: now });
  }

  #forward(from: Port, to: Port, transmission: Transmission): void {
    const delays = this.impairment ? this.impairment(transmission.frame, from, to) : HEALTHY;
    for (const delay of delays) {
      const latency = this.#latency + this.simulation.random.fraction() * this.#jitter;
      let time = Math.max(this.simulation.now + latency, to.busyUntil);
      if (delay > 0) time += delay;
      else to.busyUntil = time;
      this.simulation.at(time, () => {
        this.simulation.cause = transmission;
        to.receive(transmission, transmission.frame);
      });
    }
  }

  #drop(reason: string): void {
    this.dropped.set(reason, (this.dropped.get(reason) ?? 0) + 1);
  }
}

const HEALTHY: readonly number[] = [0];

function macNumber(bytes: Uint8Array, at: number): number {
  let value = 0;
  for (let index = 0; index < 6; index++) value = value * 256 + (bytes[at + index] as number);
  return value;
}

function samePayload(left: Uint8Array, right: Uint8Array): boolean {
  if (left.length !== right.length) return false;
  if (!macEquals(left, Ethernet.etherType, right.subarray(Ethernet.etherType, Ethernet.etherType + 6)))
    return false;
  for (let index = Ethernet.etherType; index < left.length; index++)
    if (left[index] !== right[index]) return false;
  return true;
}
