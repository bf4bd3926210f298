/** Shows a capture what the XDP program and the director behind it do with frames. */
import type { CapturedFrame } from '../../capture/frame.ts';
import { type Director, Verdict } from '../../ipvs/director.ts';
import { DROP_NAMES } from '../../ipvs/drops.ts';
import type { PacketExplanation } from '../../ipvs/explain.ts';
import { explanationText } from '../../ipvs/explanation-text.ts';
import { Malformed } from '../../wire/malformed.ts';
import { Packet } from '../../wire/packet.ts';
import { XdpVerdict } from '../ffi/libbpf.ts';
import { interfaceName } from '../ffi/libc.ts';
import { compileFilter } from '../ffi/libpcap.ts';
import {
  Arrivals,
  type Observation,
  type ObservationLosses,
  type ObservationOptions,
  realTimeOffset,
} from '../observation.ts';
import { reasonNames } from './control.ts';
import type { FastPath } from './fast-path.ts';
import type { ProgramSighting, ProgramTap } from './program-tap.ts';

export interface XdpObserverOptions extends ObservationOptions {
  fastPath: FastPath;
  director: Director;
  /** What the director would do with a packet that came in by this interface. */
  explain(packet: Packet, interfaceIndex: number): PacketExplanation;
  show(frame: CapturedFrame): void;
  /** Called when the observation ends. */
  onClose(): void;
}

export class XdpObserver implements Observation {
  readonly #options: XdpObserverOptions;
  readonly #arrivals: Arrivals;
  readonly #tap: ProgramTap;
  readonly #offset = realTimeOffset();
  readonly #packet = new Packet();
  /** The sighting of a frame as it came, until the one as it left is there. */
  #before: ProgramSighting | undefined;
  #leavesBy = '';
  #number = 0;
  #losses: ObservationLosses = { overflow: 0, overLimit: 0 };
  readonly #drops = new Float64Array(DROP_NAMES.length);
  #closed = false;

  /** @throws Error: the filter is wrong, or the program cannot be loaded */
  constructor(options: XdpObserverOptions) {
    this.#options = options;
    this.#arrivals = new Arrivals(options, this.#offset, options.show);
    const { filter, limit, looks, snapshotLength } = options;
    const compiled = filter === '' ? [] : compileFilter(filter);
    this.#tap = options.fastPath.tap({ filter: compiled, limit, looks, snapshotLength });
    this.#tap.start(sighting => this.#see(sighting));
  }

  /** A frame came up to the director. */
  begin(packet: Packet, interfaceIndex: number): void {
    const from = nameOf(interfaceIndex);
    if (!this.#isOf(from)) return;
    this.#drops.set(this.#options.director.drops);
    const bytes = packet.bytes.subarray(packet.start, packet.end);
    this.#arrivals.begin(bytes, from, () => this.#decision(this.#options.explain(packet, interfaceIndex)));
  }

  /** The director sent a frame. */
  sent(bytes: Uint8Array, start: number, end: number, interfaceIndex: number): void {
    this.#arrivals.sent(bytes.subarray(start, end), nameOf(interfaceIndex));
  }

  /** The director is done with it. */
  end(verdict: Verdict): void {
    this.#arrivals.end(() => {
      if (verdict === Verdict.dropped) return `dropped${this.#dropped()}`;
      return verdict === Verdict.taken ? 'taken' : 'left to the host';
    });
  }

  /** The counters that rose since the frame came, in brackets. */
  #dropped(): string {
    const { drops } = this.#options.director;
    const risen = DROP_NAMES.filter((_, index) => (drops[index] as number) > (this.#drops[index] as number));
    return risen.length > 0 ? ` (${risen.join(', ')})` : '';
  }

  #isOf(name: string): boolean {
    return this.#options.interfaces?.includes(name) ?? true;
  }

  #see(sighting: ProgramSighting): void {
    if (sighting.isAfter) {
      const before = this.#before;
      this.#before = undefined;
      if (before?.number === sighting.number)
        this.#show(sighting, this.#leavesBy, `out ${this.#number}, by the XDP program`);
      return;
    }
    const from = nameOf(sighting.interfaceIndex);
    this.#before = undefined;
    if (!this.#isOf(from)) return;
    this.#before = sighting;
    this.#number++;
    this.#show(sighting, from, `in ${this.#number}, by the XDP program: ${this.#account(sighting, from)}`);
  }

  /** What the program did, with what the tables say about the frame now. */
  #account(sighting: ProgramSighting, from: string): string {
    this.#leavesBy = from;
    if (sighting.verdict === XdpVerdict.drop || sighting.verdict === XdpVerdict.aborted)
      return `dropped (${reasonNames[sighting.reason] ?? 'no room in a queue'})`;
    const packet = this.#packet;
    if (packet.load(sighting.bytes) !== Malformed.none) return 'sent on';
    const explanation = this.#options.explain(packet, sighting.interfaceIndex);
    const leaves = explanation.departure?.interfaceIndex;
    if (leaves !== undefined) this.#leavesBy = nameOf(leaves);
    return this.#decision(explanation);
  }

  #decision(explanation: PacketExplanation): string {
    const { owners } = this.#options.director.pool;
    const text = explanationText(explanation, index => {
      const specification = owners[index]?.specification;
      return specification ? `${specification.address} port ${specification.port}` : `server #${index}`;
    });
    return text.trimEnd();
  }

  #show(sighting: ProgramSighting, name: string, remark: string): void {
    this.#options.show({
      time: sighting.time + this.#offset,
      bytes: sighting.bytes,
      length: sighting.length,
      interface: name,
      comment: `dirigo: ${remark}`,
    });
  }

  losses(): ObservationLosses {
    if (this.#closed) return this.#losses;
    const { ring, limit } = this.#tap.losses();
    return { overflow: ring, overLimit: limit + this.#arrivals.refused };
  }

  close(): void {
    if (this.#closed) return;
    this.#losses = this.losses();
    this.#closed = true;
    this.#options.fastPath.untap(this.#tap);
    this.#options.onClose();
  }
}

const names = new Map<number, string>();

/** Interfaces are renamed rarely enough for a capture not to ask for each frame. */
function nameOf(index: number): string {
  let name = names.get(index);
  if (name === undefined) {
    name = interfaceName(index) ?? `interface ${index}`;
    names.set(index, name);
  }
  return name;
}
