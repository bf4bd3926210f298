/**
 * The SYN proxy (Alibaba LVS, DPVS; ip_vs_synproxy.c): the director answers a client's SYN in the name of the service, and
 * only a client that is really there, as its acknowledgement shows, gets a connection and a server.
 *
 *     client                         director                                server
 *       SYN C             →            nothing is kept
 *            ←            SYN/ACK cookie, C+1
 *       ACK cookie+1      →            schedules, makes the connection:  SYN_SENT
 *                                      SYN C                 →
 *       data              →            held
 *                                           ←                SYN/ACK S, C+1
 *                                      ACK S+1, data         →           ESTABLISHED
 *
 * From here on the server's numbers are moved by cookie − S (`forwarding/proxied.ts`). What was promised to the client must
 * hold for the server: the SYN to it has the options that client and director agreed on, and no others.
 *
 * The window in the director's SYN/ACK is as large as what it holds: what a client sends before the server has
 * answered is not lost. All that a handshake needs but the held segments stands in the connection's record and extension,
 * so a successor goes on with it.
 */
import { Packet } from '../wire/packet.ts';
import { Tcp, TcpFlag, TcpOption } from '../wire/tcp.ts';
import {
  CONNECTION_BYTES,
  ConnectionField,
  ConnectionFlag,
  type ConnectionTable,
  EXTENSION_WORDS,
  Extension,
} from './connections.ts';
import { DestinationFlag, Forwarding } from './destinations.ts';
import { Drop } from './drops.ts';
import type { Fullnat } from './forwarding/fullnat.ts';
import { Handshake, isInHandshake, movesNumbersOnly, ProxiedOptions } from './forwarding/proxied.ts';
import { Timestamp } from './forwarding/tcp-options.ts';
import type { Outcome, Way } from './forwarding/way.ts';
import type { Lifecycle } from './lifecycle.ts';
import { OwnSegments, tagsOf } from './own-segments.ts';
import { Refused, type Scheduling } from './scheduling.ts';
import type { Service } from './service-table.ts';
import type { Settings } from './settings.ts';
import { SynAnswers } from './syn-answers.ts';
import { NO_SCALE, SynOptions, segmentSizeOf, windowScaleOf } from './syn-cookie.ts';
import { carriesAnything, isProxied, optionOf } from './syn-segments.ts';
import { TcpState } from './tcp-states.ts';

/** What the SYN proxy did, by number. */
export const SynProxyCount = {
  /** SYNs answered with a cookie. */
  answered: 0,
  /** Acknowledgements whose cookie was right: clients that are there. */
  accepted: 1,
  /** Acknowledgements that waited for data (`synproxy_defer`). */
  deferred: 2,
  /** Segments held until the server answered. */
  held: 3,
  /** SYNs to servers sent again. */
  repeated: 4,
  /** Servers that answered. */
  established: 5,
  /** Servers that refused: the client got a reset. */
  refused: 6,
  /** Servers that never answered: the client got a reset. */
  unanswered: 7,
} as const;

/** Names by number, as counters show them. */
export const SYN_PROXY_COUNT_NAMES: readonly string[] = Object.keys(SynProxyCount);

/** Milliseconds until a server's answer is waited for no more and the SYN is sent again; doubled each time. */
const FIRST_RETRY = 1000;
const GREATEST_WINDOW = 0xffff;
const NO_TAGS = new Uint8Array(0);
/** Bytes of frames that may be held for all connections together. */
const HELD_LIMIT = 32 * 1024 * 1024;
const GREATEST_SCALE = 14;

/** With a connection that is over: the client's initial sequence number for the next one. */
const BEGINNING = Handshake.window;

const SYN_ACK = TcpFlag.syn | TcpFlag.ack;

/** Why there was no connection for a client that is there. */
const REFUSALS: Readonly<Record<number, Drop>> = {
  [Refused.noServer]: Drop.noServer,
  [Refused.dropped]: Drop.tableFull,
  [Refused.noLocalPort]: Drop.noLocalPort,
  [Refused.noLocalAddress]: Drop.noLocalAddress,
  [Refused.engine]: Drop.engine,
};

/** A connection whose server has not answered yet. */
interface Pending {
  /** Times that the SYN was sent again. */
  repeated: number;
  /** When it is next, milliseconds. */
  nextAt: number;
  /** Acknowledgements without data since. */
  acknowledgements: number;
  /** Frames of segments with data or FIN. */
  held: Uint8Array[];
  /** VLAN tags of the client's side, see `tagsOf`. */
  tags: Uint8Array;
}

/** What becomes of the proxy's own segments, and of those it held. */
export interface SynProxyOptions {
  way: Way;
  connections: ConnectionTable;
  lifecycle: Lifecycle;
  scheduling: Scheduling;
  fullnat: Fullnat;
  settings: Settings;
  random: () => number;
  /** Sends a segment to a connection's server, which it is counted for. */
  send: (slot: number, packet: Packet) => Outcome;
  /** Does with a packet what is done with every packet of the client's on this connection. */
  forward: (slot: number, packet: Packet, tick: number) => void;
  /** Counts a server's packet of so many bytes. */
  countReply: (slot: number, bytes: number) => void;
}

export class SynProxy {
  /** By `SynProxyCount`. */
  readonly counts = new Float64Array(SYN_PROXY_COUNT_NAMES.length);
  readonly #options: SynProxyOptions;
  readonly #settings: Settings;
  readonly #connections: ConnectionTable;
  readonly #segments = new OwnSegments();
  readonly #released = new Packet();
  readonly #pending = new Map<number, Pending>();
  readonly #answers: SynAnswers;
  #heldBytes = 0;

  constructor(options: SynProxyOptions) {
    this.#options = options;
    this.#settings = options.settings;
    this.#connections = options.connections;
    const { way, settings, connections, random } = options;
    this.#answers = new SynAnswers(way, settings, connections, random);
    this.#adopt();
  }

  /** Connections whose server has not answered yet. */
  get pending(): number {
    return this.#pending.size;
  }

  /** Goes on with the handshakes that a predecessor left: their SYNs are sent again. */
  #adopt(): void {
    const connections = this.#connections;
    for (let slot = 0; slot < connections.highWater; slot++) {
      if (!connections.isUsed(slot) || !isProxied(connections.flags(slot))) continue;
      if (connections.state(slot) === TcpState.synSent && isInHandshake(connections, slot)) {
        this.#pending.set(slot, { repeated: 0, nextAt: 0, acknowledgements: 0, held: [], tags: NO_TAGS });
      }
    }
  }

  /** Answers a client's SYN, of which nothing is kept. */
  answer(service: Service, packet: Packet, now: number): Outcome {
    const outcome = this.#answers.answer(service, packet, now);
    if (outcome === Drop.none) this.#count(SynProxyCount.answered);
    return outcome;
  }

  /** The `SynOptions` in the cookie that a segment acknowledges; -1 if it is none that holds. */
  readCookie(packet: Packet, now: number): number {
    return this.#answers.readCookie(packet, now);
  }

  /** True for an acknowledgement that makes no connection yet, whatever its cookie. */
  defers(packet: Packet): boolean {
    return this.#settings.synproxy_defer !== 0 && !carriesAnything(packet);
  }

  /** Takes an acknowledgement that belongs to no connection: with the right cookie it begins one. */
  accept(service: Service, packet: Packet, mark: number, now: number, tick: number): Outcome {
    const options = this.readCookie(packet, now);
    if (options < 0) return Drop.synCookie;
    if (this.defers(packet)) {
      this.#count(SynProxyCount.deferred);
      return Drop.none;
    }
    this.#count(SynProxyCount.accepted);
    const { view, transport } = packet;
    const sequence = view.getInt32(transport + Tcp.sequence) - 1;
    // Servers are chosen, and local ports, for the SYN that the client sent once.
    const syn = this.#segments.like(packet, false, TcpFlag.syn, sequence, 0, 0);
    const slot = this.#options.scheduling.schedule(
      service,
      syn,
      mark,
      now,
      tick,
      ConnectionFlag.outSequence | ConnectionFlag.inSequence,
    );
    if (slot < 0) {
      this.#resetSender(packet);
      return REFUSALS[slot] ?? Drop.noServer;
    }
    this.#begin(slot, packet, options);
    this.#options.lifecycle.enter(slot, TcpState.synSent, tick);
    const pending = {
      repeated: 0,
      nextAt: now + FIRST_RETRY,
      acknowledgements: 0,
      held: [],
      tags: tagsOf(packet),
    };
    this.#pending.set(slot, pending);
    if (carriesAnything(packet)) this.#hold(pending, packet);
    return this.#sendSyn(slot, pending);
  }

  /** Writes down what is to be known until the server answers. */
  #begin(slot: number, { view, transport }: Packet, agreed: number): void {
    const { extension } = this.#connections;
    const at = slot * EXTENSION_WORDS;
    // NAT leaves the words of a connection before this one.
    if (!this.#isFullnat(slot)) extension.fill(0, at, at + EXTENSION_WORDS);
    const stamps = agreed & SynOptions.timestamps ? optionOf(view, transport, TcpOption.timestamps, 10) : -1;
    // A client that does not send them any more does not expect any.
    const options = stamps < 0 ? agreed & ~SynOptions.timestamps : agreed;
    const scale = windowScaleOf(options) === NO_SCALE ? NO_SCALE : this.#settings.synproxy_wscale;
    extension[at + Extension.proxiedOptions] =
      options |
      ProxiedOptions.handshake |
      (scale << ProxiedOptions.promisedScaleShift) |
      (NO_SCALE << ProxiedOptions.serverScaleShift);
    extension[at + Extension.clientSequence] = view.getInt32(transport + Tcp.sequence) - 1;
    extension[at + Handshake.cookie] = view.getInt32(transport + Tcp.acknowledgement) - 1;
    extension[at + Handshake.window] = view.getUint16(transport + Tcp.window);
    extension[at + Handshake.clientTimestamp] = stamps < 0 ? 0 : view.getInt32(stamps + Timestamp.value);
    extension[at + Handshake.ownTimestamp] = stamps < 0 ? 0 : view.getInt32(stamps + Timestamp.echoReply);
  }

  #sendSyn(slot: number, { tags }: Pending): Outcome {
    const { extension } = this.#connections;
    const at = slot * EXTENSION_WORDS;
    const options = extension[at + Extension.proxiedOptions] as number;
    const segments = this.#segments;
    segments.addSegmentSize(segmentSizeOf(options));
    if (options & SynOptions.sack) segments.addSackPermitted();
    if (options & SynOptions.timestamps)
      segments.addTimestamps(extension[at + Handshake.clientTimestamp] as number, 0);
    const scale = windowScaleOf(options);
    segments.addWindowScale(scale);
    // In a SYN it is not scaled.
    const stated = (extension[at + Handshake.window] as number) << (scale === NO_SCALE ? 0 : scale);
    const syn = segments.between(
      this.#connections,
      slot,
      false,
      tags,
      TcpFlag.syn,
      extension[at + Extension.clientSequence] as number,
      0,
      Math.min(stated, GREATEST_WINDOW),
    );
    return this.#options.send(slot, syn);
  }

  /** Takes a segment of a client whose server has not answered yet. */
  fromClient(packet: Packet, slot: number, tick: number): Outcome {
    const pending = this.#pending.get(slot);
    const { extension } = this.#connections;
    const at = slot * EXTENSION_WORDS;
    const { view, transport, tcpFlags } = packet;
    const first = (extension[at + Extension.clientSequence] as number) + 1;
    const position = (view.getInt32(transport + Tcp.sequence) - first) | 0;
    if (position < 0 || position > GREATEST_WINDOW) return Drop.synProxyStray;
    if (tcpFlags & TcpFlag.rst) {
      if (!pending) return Drop.synProxyStray;
      this.#resetServer(slot, first, pending.tags);
      this.#close(slot, tick);
      return Drop.none;
    }
    const cookie = extension[at + Handshake.cookie] as number;
    const acknowledges = view.getInt32(transport + Tcp.acknowledgement) === ((cookie + 1) | 0);
    if ((tcpFlags & SYN_ACK) !== TcpFlag.ack || !acknowledges) return Drop.synProxyStray;
    if (!pending) {
      // It has not got the reset that ended it.
      this.#resetSender(packet);
      return Drop.synProxyStray;
    }
    if (carriesAnything(packet)) return this.#hold(pending, packet);
    pending.acknowledgements++;
    const isStorm = pending.acknowledgements >= this.#settings.synproxy_ack_storm_thresh;
    return isStorm ? Drop.synProxyStorm : Drop.none;
  }

  /** Keeps a copy of a frame, unless it is there already. */
  #hold(pending: Pending, packet: Packet): Outcome {
    const { start, bytes, networkEnd } = packet;
    const { held } = pending;
    // What comes again differs in its identification and its timestamps at most.
    const sequence = packet.transport - start + Tcp.sequence;
    const isHeld = held.some(
      frame =>
        frame.length === networkEnd - start &&
        [0, 1, 2, 3].every(byte => frame[sequence + byte] === bytes[start + sequence + byte]),
    );
    if (isHeld) return Drop.none;
    const isFull = held.length >= this.#settings.synproxy_ack_skb_store_thresh;
    if (isFull || this.#heldBytes + networkEnd - start > HELD_LIMIT) return Drop.synProxyFull;
    held.push(bytes.slice(start, networkEnd));
    this.#heldBytes += networkEnd - start;
    this.#count(SynProxyCount.held);
    return Drop.none;
  }

  /** Takes a SYN of a server, or what it sends before one. */
  fromServer(packet: Packet, slot: number, tick: number): Outcome {
    const { view, transport, tcpFlags } = packet;
    const acknowledgement = this.#acknowledged(slot, view.getInt32(transport + Tcp.acknowledgement));
    const pending = this.#pending.get(slot);
    if (!pending && !isInHandshake(this.#connections, slot)) {
      return this.#acknowledgeAgain(packet, slot, acknowledgement);
    }
    const { extension } = this.#connections;
    const first = (extension[slot * EXTENSION_WORDS + Extension.clientSequence] as number) + 1;
    const isRight = (tcpFlags & TcpFlag.ack) !== 0 && acknowledgement === (first | 0);
    if (tcpFlags & TcpFlag.rst) {
      if (!isRight || !pending) return Drop.synProxyStray;
      this.#options.countReply(slot, packet.networkEnd - packet.network);
      this.#count(SynProxyCount.refused);
      this.#end(slot, pending, tick);
      return Drop.none;
    }
    if (pending && isRight && tcpFlags & TcpFlag.syn) {
      this.#establish(packet, slot, pending, tick);
      return Drop.none;
    }
    if ((tcpFlags & TcpFlag.ack) === 0) return Drop.synProxyStray;
    // Too late, or it remembers another connection with these ends (RFC 9293 3.10.7.3): the SYN comes again when that is
    // forgotten.
    this.#resetServer(slot, acknowledgement, pending?.tags ?? NO_TAGS);
    return Drop.synProxyStray;
  }

  /** The client's number for what a server acknowledges. */
  #acknowledged(slot: number, acknowledgement: number): number {
    return this.#isFullnat(slot)
      ? this.#options.fullnat.sequenceToClient(slot, acknowledgement)
      : acknowledgement;
  }

  #isFullnat(slot: number): boolean {
    return (this.#connections.flags(slot) & ConnectionFlag.forwarding) === Forwarding.fullnat;
  }

  /** The server is there: what is different between it and what the client knows is kept, what was held goes to it. */
  #establish(packet: Packet, slot: number, pending: Pending, tick: number): void {
    const { view, transport } = packet;
    const connections = this.#connections;
    const { extension } = connections;
    const at = slot * EXTENSION_WORDS;
    if (this.#isFullnat(slot)) this.#options.fullnat.takeServerSyn(packet, slot);
    const agreed = extension[at + Extension.proxiedOptions] as number;
    const sequence = view.getInt32(transport + Tcp.sequence);
    const cookie = extension[at + Handshake.cookie] as number;
    const first = (extension[at + Extension.clientSequence] as number) + 1;
    const ownTimestamp = extension[at + Handshake.ownTimestamp] as number;
    const clientTimestamp = extension[at + Handshake.clientTimestamp] as number;
    const scale =
      windowScaleOf(agreed) === NO_SCALE ? -1 : optionOf(view, transport, TcpOption.windowScale, 3);
    const serverScale = scale < 0 ? NO_SCALE : Math.min(view.getUint8(scale + 2), GREATEST_SCALE);
    const stamps = agreed & SynOptions.timestamps ? optionOf(view, transport, TcpOption.timestamps, 10) : -1;
    extension[at + Extension.proxiedOptions] =
      (agreed & ~(ProxiedOptions.handshake | (NO_SCALE << ProxiedOptions.serverScaleShift))) |
      (serverScale << ProxiedOptions.serverScaleShift);
    extension[at + Extension.proxiedTimestamps] =
      stamps < 0 ? 0 : ownTimestamp - view.getInt32(stamps + Timestamp.value);
    extension[at + Extension.outOffset] = cookie - sequence;
    // For the FTP helper: the difference holds from the beginning.
    extension[at + Extension.outBefore] = cookie - sequence;
    extension[at + Extension.outStart] = sequence;
    if (movesNumbersOnly(connections, slot)) connections.clearFlags(slot, ConnectionFlag.inSequence);
    this.#options.lifecycle.enter(slot, TcpState.established, tick);
    this.#options.countReply(slot, packet.networkEnd - packet.network);
    this.#count(SynProxyCount.established);
    this.release(slot);
    if (stamps >= 0) this.#segments.addTimestamps(clientTimestamp, ownTimestamp);
    const window = extension[at + Handshake.window] as number;
    this.#acknowledge(slot, first, cookie + 1, window, pending.tags, tick);
    for (const frame of pending.held) {
      this.#released.load(frame);
      this.#options.forward(slot, this.#released, tick);
    }
  }

  /** Sends the server an acknowledgement in the client's name; numbers are those the client knows. */
  #acknowledge(
    slot: number,
    sequence: number,
    acknowledgement: number,
    window: number,
    tags: Uint8Array,
    tick: number,
  ): void {
    const segment = this.#segments.between(
      this.#connections,
      slot,
      false,
      tags,
      TcpFlag.ack,
      sequence,
      acknowledgement,
      window,
    );
    this.#options.forward(slot, segment, tick);
  }

  /** A server that sends its SYN again has not got the acknowledgement. */
  #acknowledgeAgain(packet: Packet, slot: number, acknowledgement: number): Outcome {
    const { view, transport, tcpFlags } = packet;
    if ((tcpFlags & SYN_ACK) !== SYN_ACK || tcpFlags & TcpFlag.rst) return Drop.synProxyStray;
    const { extension } = this.#connections;
    const at = slot * EXTENSION_WORDS;
    const sequence = view.getInt32(transport + Tcp.sequence);
    if (sequence !== extension[at + Extension.outStart]) {
      // A copy of the client's SYN has reached it after the connection was over there.
      this.#resetServer(slot, acknowledgement, NO_TAGS);
      return Drop.synProxyStray;
    }
    const segment = this.#segments.between(
      this.#connections,
      slot,
      false,
      NO_TAGS,
      TcpFlag.ack,
      acknowledgement,
      sequence + 1 + (extension[at + Extension.outOffset] as number),
      (extension[at + Handshake.window] as number) & GREATEST_WINDOW,
    );
    this.#options.countReply(slot, packet.networkEnd - packet.network);
    return this.#options.send(slot, segment);
  }

  /** Notes with a connection that is over which SYN was answered on it: only this one's cookie ends it. */
  noteSyn({ view, transport }: Packet, slot: number): void {
    const { extension } = this.#connections;
    const at = slot * EXTENSION_WORDS;
    const sequence = view.getInt32(transport + Tcp.sequence);
    // A late copy of the SYN that it began with is none.
    if (sequence === extension[at + Extension.clientSequence]) return;
    extension[at + Extension.proxiedOptions] =
      (extension[at + Extension.proxiedOptions] as number) | ProxiedOptions.begins;
    extension[at + BEGINNING] = sequence;
  }

  /**
   * True for the acknowledgement that brings this cookie back. Any cookie will not do: segments of the connection itself
   * have numbers that stand as far apart as the numbers of its handshake, if each side has sent as much as the other.
   */
  isBegunAnew(packet: Packet, slot: number, now: number): boolean {
    const { view, transport } = packet;
    const { extension } = this.#connections;
    const at = slot * EXTENSION_WORDS;
    if (((extension[at + Extension.proxiedOptions] as number) & ProxiedOptions.begins) === 0) return false;
    const first = (extension[at + BEGINNING] as number) + 1;
    if (view.getInt32(transport + Tcp.sequence) !== (first | 0)) return false;
    return this.reuses(slot) && this.readCookie(packet, now) >= 0;
  }

  /** True if a client may begin anew on a connection that is over. */
  reuses(slot: number): boolean {
    const settings = this.#settings;
    if (settings.synproxy_conn_reuse === 0) return false;
    switch (this.#connections.state(slot)) {
      case TcpState.close:
        return settings.synproxy_conn_reuse_close !== 0;
      case TcpState.timeWait:
        return settings.synproxy_conn_reuse_time_wait !== 0;
      case TcpState.finWait:
        return settings.synproxy_conn_reuse_fin_wait !== 0;
      case TcpState.closeWait:
        return settings.synproxy_conn_reuse_close_wait !== 0;
      case TcpState.lastAck:
        return settings.synproxy_conn_reuse_last_ack !== 0;
      default:
        return false;
    }
  }

  /** Sends SYNs again that servers have not answered, and gives up those that never will. To be called about every second. */
  expire(now: number, tick: number): void {
    for (const [slot, pending] of this.#pending) {
      const isGone = !this.#isServerThere(slot);
      if (now < pending.nextAt && !isGone) continue;
      if (isGone || pending.repeated >= this.#settings.synproxy_syn_retry) {
        this.#count(SynProxyCount.unanswered);
        this.#end(slot, pending, tick);
        continue;
      }
      pending.repeated++;
      pending.nextAt = now + FIRST_RETRY * 2 ** pending.repeated;
      this.#count(SynProxyCount.repeated);
      this.#sendSyn(slot, pending);
    }
  }

  #isServerThere(slot: number): boolean {
    const destination = this.#connections.destination(slot);
    const { table } = this.#options.lifecycle.pool;
    return destination >= 0 && (table.flags(destination) & DestinationFlag.available) !== 0;
  }

  /** Resets the client of a connection that did not come about. */
  #end(slot: number, { tags }: Pending, tick: number): void {
    const connections = this.#connections;
    const { network } = this.#options.way;
    const { extension } = connections;
    const at = slot * EXTENSION_WORDS;
    const family = connections.flags(slot) & ConnectionFlag.ipv6 ? 6 : 4;
    const client = slot * CONNECTION_BYTES + ConnectionField.client;
    const hop = network.nextHop(connections.bytes, client, family);
    if (hop) {
      const reset = this.#segments.between(
        connections,
        slot,
        true,
        tags,
        TcpFlag.rst | TcpFlag.ack,
        (extension[at + Handshake.cookie] as number) + 1,
        (extension[at + Extension.clientSequence] as number) + 1,
        0,
      );
      this.#options.way.send(reset, hop);
    }
    this.#close(slot, tick);
  }

  /** What comes late finds the connection in CLOSE, and does not begin it again. */
  #close(slot: number, tick: number): void {
    this.#options.lifecycle.enter(slot, TcpState.close, tick);
    this.release(slot);
  }

  /** Answers a client's segment with a reset. */
  #resetSender(packet: Packet): void {
    const { view, transport, bytes, sourceAt } = packet;
    const { way } = this.#options;
    const hop = way.network.nextHop(bytes, sourceAt, packet.family === 6 ? 6 : 4);
    if (!hop) return;
    const sequence = view.getInt32(transport + Tcp.acknowledgement);
    way.send(this.#segments.like(packet, true, TcpFlag.rst, sequence, 0, 0), hop);
  }

  #resetServer(slot: number, sequence: number, tags: Uint8Array): void {
    const reset = this.#segments.between(this.#connections, slot, false, tags, TcpFlag.rst, sequence, 0, 0);
    this.#options.send(slot, reset);
  }

  /** Forgets what was held for a connection: it is gone, or its server has answered. */
  release(slot: number): void {
    const pending = this.#pending.get(slot);
    if (!pending) return;
    this.#pending.delete(slot);
    for (const frame of pending.held) this.#heldBytes -= frame.length;
  }

  #count(counter: number): void {
    this.counts[counter] = (this.counts[counter] as number) + 1;
  }
}
