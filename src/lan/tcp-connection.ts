/**
 * One TCP connection: the state machine of RFC 9293 with retransmission (RFC 6298), congestion control (RFC 5681, RFC
 * 6582) and the protections of RFC 5961. It knows nothing of IP: its layer hands it segments and sends what it emits.
 */
import { TcpFlag } from '../wire/tcp.ts';
import type { Simulation, Timer } from './simulation.ts';

export type TcpState =
  | 'SYN-SENT'
  | 'SYN-RECEIVED'
  | 'ESTABLISHED'
  | 'FIN-WAIT-1'
  | 'FIN-WAIT-2'
  | 'CLOSE-WAIT'
  | 'CLOSING'
  | 'LAST-ACK'
  | 'TIME-WAIT'
  | 'CLOSED';

/** Why a connection ended other than by an orderly close. */
export type TcpErrorCode =
  | 'refused'
  | 'reset'
  | 'aborted'
  | 'timeout'
  | 'host-unreachable'
  | 'net-unreachable';

export class TcpError extends Error {
  readonly code: TcpErrorCode;

  constructor(code: TcpErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

/** A received segment; sequence numbers are unsigned 32-bit. */
export interface TcpSegment {
  sequence: number;
  acknowledgement: number;
  /** A sum of `TcpFlag`. */
  flags: number;
  /** As in the header, unscaled. */
  window: number;
  data: Uint8Array;
  /** Options of a SYN, undefined if absent. */
  maximumSegmentSize: number | undefined;
  windowScale: number | undefined;
}

export interface TcpSettings {
  /** Receive buffer, bytes; default 65535. */
  receiveBuffer: number;
  /** Window scale offered, 0..14, undefined for none; default 7. */
  windowScale: number | undefined;
  /** Retransmissions of a SYN (tcp_syn_retries), of a SYN+ACK, and of data (tcp_retries2). */
  synRetries: number;
  synAckRetries: number;
  dataRetries: number;
  /** How long TIME-WAIT, and FIN-WAIT-2 without a sign of life, last, ms. */
  timeWait: number;
}

export const LINUX_TCP_SETTINGS: TcpSettings = {
  receiveBuffer: 65535,
  windowScale: 7,
  synRetries: 6,
  synAckRetries: 5,
  dataRetries: 15,
  timeWait: 60_000,
};

/** What a connection needs from its layer. */
export interface TcpEnvironment {
  simulation: Simulation;
  settings: TcpSettings;
  /** Largest segment the path takes now, bytes of data. */
  pathSegmentSize(): number;
  /** Sends a segment of this connection. Returns false if it was larger than the path takes. */
  emit(segment: TcpSegment): boolean;
  /** The peer acknowledged new data: the way there works. */
  confirm(): void;
  /** A passive connection is established. */
  accepted(): void;
  /** The connection is over and forgotten. */
  removed(): void;
}

const NO_DATA = new Uint8Array(0);
/** RFC 6298 with Linux's bounds, ms. */
const INITIAL_RTO = 1000;
const MINIMUM_RTO = 200;
const MAXIMUM_RTO = 120_000;
/** RFC 9293 3.7.1 without an MSS option. */
const DEFAULT_SEGMENT_SIZE = 536;
/** RFC 6928: initial window, segments. */
const INITIAL_WINDOW = 10;

export class TcpConnection {
  readonly localAddress: string;
  readonly localPort: number;
  readonly remoteAddress: string;
  readonly remotePort: number;
  /** The handshake is complete. */
  onOpen: () => void = () => {};
  /** Bytes have come, in order. The array is the callee's. */
  onData: (data: Uint8Array) => void = () => {};
  /** The peer has closed its side; `end` closes this one. */
  onEnd: () => void = () => {};
  /** The connection is over (an active closer's TIME-WAIT counts as over). */
  onClose: (error: TcpError | undefined) => void = () => {};
  /** Segments sent again. */
  retransmissions = 0;

  #environment: TcpEnvironment;
  #state: TcpState;
  #reported = false;

  #initialSequence: number;
  /** SND.UNA, SND.NXT, and the highest SND.NXT there was (NXT goes back for a retransmission). */
  #unacknowledged: number;
  #next: number;
  #highest: number;
  #sendWindow = 0;
  /** SND.WL1 and SND.WL2: the segment that last updated the window. */
  #windowSequence = 0;
  #windowAcknowledgement = 0;
  #sendScale = 0;
  #receiveScale = 0;
  #peerSegmentSize = DEFAULT_SEGMENT_SIZE;

  /** Bytes not yet acknowledged; the first has sequence number `#dataStart`. */
  #outgoing = NO_DATA;
  #dataStart: number;
  #finQueued = false;

  #receiveNext = 0;
  #outOfOrder: { sequence: number; data: Uint8Array }[] = [];
  #remoteFin: number | undefined;
  #paused = false;
  #waiting: Uint8Array[] = [];
  #acknowledgementDue = false;

  #timer: Timer | undefined;
  #retries = 0;
  #smoothedRtt: number | undefined;
  #rttVariation = 0;
  #rto = INITIAL_RTO;
  #timed: { sequence: number; at: number } | undefined;
  #congestionWindow: number;
  #slowStartThreshold = Number.POSITIVE_INFINITY;
  #duplicates = 0;
  #recovering = false;
  #recover: number;

  private constructor(
    environment: TcpEnvironment,
    endpoints: TcpEndpoints,
    state: TcpState,
    initialSequence: number,
  ) {
    this.#environment = environment;
    this.localAddress = endpoints.localAddress;
    this.localPort = endpoints.localPort;
    this.remoteAddress = endpoints.remoteAddress;
    this.remotePort = endpoints.remotePort;
    this.#state = state;
    this.#initialSequence = initialSequence;
    this.#unacknowledged = initialSequence;
    this.#next = add(initialSequence, 1);
    this.#highest = this.#next;
    this.#dataStart = this.#next;
    this.#recover = initialSequence;
    this.#congestionWindow = INITIAL_WINDOW * environment.pathSegmentSize();
  }

  /** Opens actively: sends the SYN. */
  static connect(
    environment: TcpEnvironment,
    endpoints: TcpEndpoints,
    initialSequence: number,
  ): TcpConnection {
    const connection = new TcpConnection(environment, endpoints, 'SYN-SENT', initialSequence);
    connection.#sendSyn();
    return connection;
  }

  /** Opens passively: answers the SYN. */
  static accept(
    environment: TcpEnvironment,
    endpoints: TcpEndpoints,
    initialSequence: number,
    syn: TcpSegment,
  ): TcpConnection {
    const connection = new TcpConnection(environment, endpoints, 'SYN-RECEIVED', initialSequence);
    connection.#takeSyn(syn);
    connection.#sendSyn();
    return connection;
  }

  get state(): TcpState {
    return this.#state;
  }

  /** Bytes written but not acknowledged. */
  get pending(): number {
    return this.#outgoing.length;
  }

  /** Smallest sequence number the peer may send next (RCV.NXT). */
  get receiveNext(): number {
    return this.#receiveNext;
  }

  /**
   * Sends bytes; they may be reused at once.
   * @throws Error after `end` or when the connection is over
   */
  write(data: Uint8Array): void {
    if (this.#finQueued || this.#state === 'CLOSED' || this.#state === 'TIME-WAIT')
      throw new Error('the connection is closed for sending');
    const joined = new Uint8Array(this.#outgoing.length + data.length);
    joined.set(this.#outgoing);
    joined.set(data, this.#outgoing.length);
    this.#outgoing = joined;
    this.#transmit();
  }

  /** Closes this side once everything written has been sent; the peer may go on sending. */
  end(): void {
    if (this.#finQueued || this.#state === 'CLOSED' || this.#state === 'TIME-WAIT') return;
    this.#finQueued = true;
    if (this.#state === 'ESTABLISHED') this.#state = 'FIN-WAIT-1';
    else if (this.#state === 'CLOSE-WAIT') this.#state = 'LAST-ACK';
    this.#transmit();
  }

  /** Ends the connection with a reset. */
  abort(): void {
    if (this.#state === 'CLOSED') return;
    if (this.#state !== 'SYN-SENT' && this.#state !== 'TIME-WAIT')
      this.#emit(TcpFlag.rst | TcpFlag.ack, this.#next, NO_DATA);
    this.#finish(new TcpError('aborted', 'the connection was aborted'));
  }

  /** Keeps incoming bytes back; the window closes as they pile up. */
  pause(): void {
    this.#paused = true;
  }

  /** Hands over what came meanwhile and opens the window again. */
  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    const wasNarrow = this.#receiveWindow() < this.#segmentSize();
    for (const data of this.#waiting.splice(0)) if (this.#state !== 'CLOSED') this.onData(data);
    if (this.#state === 'CLOSED') return;
    this.#acknowledgementDue = wasNarrow && this.#state !== 'SYN-SENT';
    if (this.#remoteFin === this.#receiveNext && !this.#hasReceivedFin()) this.#takeFin();
    this.#acknowledge();
  }

  /** An ICMP error about this connection. Only during the handshake does it end it (net/ipv4/tcp_ipv4.c tcp_v4_err). */
  unreachable(code: TcpErrorCode): void {
    if (this.#state === 'SYN-SENT') this.#finish(new TcpError(code, describe(code)));
  }

  /** The path takes smaller packets than assumed: what is under way is sent again in smaller pieces. */
  pathShrank(): void {
    if (this.#state === 'CLOSED' || this.#state === 'SYN-SENT' || this.#state === 'TIME-WAIT') return;
    this.#timed = undefined;
    this.#next = latest(this.#unacknowledged, this.#dataStart);
    this.#transmit();
  }

  /** A segment for this connection, checksum verified (RFC 9293 section 3.10.7). */
  receive(segment: TcpSegment): void {
    if (this.#state === 'CLOSED') return;
    this.#acknowledgementDue = false;
    if (this.#state === 'SYN-SENT') this.#receiveInSynSent(segment);
    else this.#receiveSynchronized(segment);
    this.#acknowledge();
  }

  /** Sends the acknowledgement that is due, if nothing sent meanwhile carried it. */
  #acknowledge(): void {
    if (this.#acknowledgementDue && this.#state !== 'CLOSED') this.#emit(TcpFlag.ack, this.#next, NO_DATA);
  }

  /** Compares against the state as callbacks may have left it. */
  #is(state: TcpState): boolean {
    return this.#state === state;
  }

  #receiveInSynSent(segment: TcpSegment): void {
    const { flags, acknowledgement } = segment;
    if (flags & TcpFlag.ack && acknowledgement !== this.#next) {
      if ((flags & TcpFlag.rst) === 0) this.#emitReset(acknowledgement);
      return;
    }
    if (flags & TcpFlag.rst) {
      if (flags & TcpFlag.ack) this.#finish(new TcpError('refused', describe('refused')));
      return;
    }
    if ((flags & TcpFlag.syn) === 0) return;
    this.#takeSyn(segment);
    if (flags & TcpFlag.ack) {
      this.#state = 'ESTABLISHED';
      this.#takeAcknowledgement(segment);
      this.#acknowledgementDue = true;
      this.#opened();
      this.#transmit();
    } else {
      // Both sides opened at once (RFC 9293 figure 7).
      this.#state = 'SYN-RECEIVED';
      this.#retries = 0;
      this.#sendSyn();
    }
  }

  #receiveSynchronized(segment: TcpSegment): void {
    if (!this.#isAcceptable(segment)) {
      // A SYN again means that our SYN+ACK was lost; a SYN+ACK, when both opened at once, wants an ACK.
      const isSyn = (segment.flags & (TcpFlag.syn | TcpFlag.ack)) === TcpFlag.syn;
      if (this.#state === 'SYN-RECEIVED' && isSyn) this.#sendSyn();
      else if ((segment.flags & TcpFlag.rst) === 0) this.#acknowledgementDue = true;
      if (this.#state === 'TIME-WAIT' && segment.flags & TcpFlag.fin) this.#enterTimeWait();
      return;
    }
    if (segment.flags & TcpFlag.rst) {
      this.#takeReset(segment);
      return;
    }
    if (segment.flags & TcpFlag.syn) {
      // RFC 5961 section 4: a challenge, whatever the sequence number.
      if (this.#state === 'SYN-RECEIVED') this.#sendSyn();
      else this.#acknowledgementDue = true;
      return;
    }
    if ((segment.flags & TcpFlag.ack) === 0) return;
    if (this.#state === 'SYN-RECEIVED') {
      const { acknowledgement } = segment;
      if (!isAfter(acknowledgement, this.#unacknowledged) || isAfter(acknowledgement, this.#highest)) {
        this.#emitReset(acknowledgement);
        return;
      }
      this.#state = this.#finQueued ? 'FIN-WAIT-1' : 'ESTABLISHED';
      this.#windowSequence = add(segment.sequence, -1);
      this.#takeAcknowledgement(segment);
      this.#environment.accepted();
      this.#opened();
    } else if (!this.#takeAcknowledgement(segment)) {
      return;
    }
    if (this.#is('CLOSED')) return;
    this.#takeData(segment);
    if (!this.#is('CLOSED')) this.#transmit();
  }

  #opened(): void {
    if (this.#finQueued && this.#state === 'ESTABLISHED') this.#state = 'FIN-WAIT-1';
    this.onOpen();
  }

  /** RFC 9293 3.10.7.4, first check. */
  #isAcceptable(segment: TcpSegment): boolean {
    const window = this.#receiveWindow();
    const length = segment.data.length + (segment.flags & TcpFlag.fin ? 1 : 0);
    const first = distance(segment.sequence, this.#receiveNext);
    if (length === 0) return window === 0 ? first === 0 : first >= 0 && first < window;
    if (window === 0) return false;
    const last = first + length - 1;
    return (first >= 0 && first < window) || (last >= 0 && last < window) || (first < 0 && last >= window);
  }

  #takeSyn(syn: TcpSegment): void {
    this.#receiveNext = add(syn.sequence, 1);
    this.#peerSegmentSize = Math.max(64, syn.maximumSegmentSize ?? DEFAULT_SEGMENT_SIZE);
    const offered = this.#environment.settings.windowScale;
    if (syn.windowScale !== undefined && offered !== undefined) {
      this.#sendScale = Math.min(14, syn.windowScale);
      this.#receiveScale = offered;
    }
    this.#sendWindow = syn.window;
    this.#windowSequence = syn.sequence;
    this.#windowAcknowledgement = syn.acknowledgement;
    this.#congestionWindow = INITIAL_WINDOW * this.#segmentSize();
  }

  /** RFC 5961 section 3: only the exact sequence number resets, others in the window are challenged. */
  #takeReset(segment: TcpSegment): void {
    if (segment.sequence !== this.#receiveNext) {
      this.#acknowledgementDue = true;
      return;
    }
    const refused = this.#state === 'SYN-RECEIVED';
    const quiet = this.#state === 'TIME-WAIT' || this.#state === 'LAST-ACK' || this.#state === 'CLOSING';
    const code = refused ? 'refused' : 'reset';
    this.#finish(quiet ? undefined : new TcpError(code, describe(code)));
  }

  /** Returns false if the segment is to be dropped. */
  #takeAcknowledgement(segment: TcpSegment): boolean {
    const { acknowledgement } = segment;
    if (isAfter(acknowledgement, this.#highest)) {
      this.#acknowledgementDue = true;
      return false;
    }
    const updated = this.#takeWindow(segment);
    if (isAfter(acknowledgement, this.#unacknowledged)) this.#advance(acknowledgement);
    else if (acknowledgement === this.#unacknowledged && segment.data.length === 0 && !updated)
      this.#countDuplicate(segment);
    if (!this.#isFinAcknowledged()) return true;
    if (this.#state === 'FIN-WAIT-1') {
      this.#state = 'FIN-WAIT-2';
      this.#armLast();
    } else if (this.#state === 'FIN-WAIT-2') {
      this.#armLast();
    } else if (this.#state === 'CLOSING') {
      this.#enterTimeWait();
    } else if (this.#state === 'LAST-ACK') {
      this.#finish(undefined);
    }
    return true;
  }

  /** Returns true if the window changed. */
  #takeWindow(segment: TcpSegment): boolean {
    const isNewer =
      isAfter(segment.sequence, this.#windowSequence) ||
      (segment.sequence === this.#windowSequence &&
        !isAfter(this.#windowAcknowledgement, segment.acknowledgement));
    if (!isNewer) return false;
    const window = segment.flags & TcpFlag.syn ? segment.window : segment.window << this.#sendScale;
    const changed = window !== this.#sendWindow;
    this.#sendWindow = window;
    this.#windowSequence = segment.sequence;
    this.#windowAcknowledgement = segment.acknowledgement;
    // A peer that keeps its window shut but answers is alive (RFC 9293 3.8.6.1).
    if (window === 0) this.#retries = 0;
    return changed;
  }

  #advance(acknowledgement: number): void {
    const size = this.#segmentSize();
    const newlyAcknowledged = distance(acknowledgement, this.#unacknowledged);
    this.#unacknowledged = acknowledgement;
    if (isAfter(acknowledgement, this.#next)) this.#next = acknowledgement;
    const bytes = Math.min(this.#outgoing.length, Math.max(0, distance(acknowledgement, this.#dataStart)));
    if (bytes > 0) {
      this.#outgoing = this.#outgoing.slice(bytes);
      this.#dataStart = add(this.#dataStart, bytes);
    }
    if (this.#timed && !isAfter(this.#timed.sequence, acknowledgement)) this.#measure(this.#timed.at);
    this.#retries = 0;
    this.#updateRto();
    this.#environment.confirm();
    this.#duplicates = 0;
    if (this.#recovering) {
      if (isAfter(this.#recover, acknowledgement)) {
        // A partial acknowledgement: the next hole (RFC 6582 section 3.2 step 5).
        this.#congestionWindow = Math.max(size, this.#congestionWindow - newlyAcknowledged + size);
        this.#resendFirst();
      } else {
        this.#recovering = false;
        this.#congestionWindow = this.#slowStartThreshold;
      }
    } else if (this.#congestionWindow < this.#slowStartThreshold) {
      this.#congestionWindow += Math.min(newlyAcknowledged, size);
    } else {
      this.#congestionWindow += Math.max(1, Math.floor((size * size) / this.#congestionWindow));
    }
    this.#disarm();
  }

  #countDuplicate(segment: TcpSegment): void {
    const underWay = this.#highest !== this.#unacknowledged;
    if (!underWay || segment.flags & (TcpFlag.fin | TcpFlag.syn)) return;
    const size = this.#segmentSize();
    this.#duplicates++;
    if (this.#recovering) {
      this.#congestionWindow += size;
    } else if (this.#duplicates === 3 && isAfter(this.#unacknowledged, this.#recover)) {
      this.#slowStartThreshold = Math.max(distance(this.#highest, this.#unacknowledged) / 2, 2 * size);
      this.#congestionWindow = this.#slowStartThreshold + 3 * size;
      this.#recovering = true;
      this.#recover = this.#highest;
      this.#resendFirst();
    }
  }

  #takeData(segment: TcpSegment): void {
    if (this.#state !== 'ESTABLISHED' && this.#state !== 'FIN-WAIT-1' && this.#state !== 'FIN-WAIT-2') {
      // Beyond the peer's FIN there is nothing; a repeated FIN is acknowledged again.
      if (segment.data.length > 0 || segment.flags & TcpFlag.fin) this.#acknowledgementDue = true;
      return;
    }
    if (segment.flags & TcpFlag.fin) this.#remoteFin = add(segment.sequence, segment.data.length);
    if (segment.data.length > 0) {
      this.#acknowledgementDue = true;
      this.#keep(segment.sequence, segment.data);
      this.#deliver();
    }
    if (this.#is('CLOSED')) return;
    if (this.#remoteFin !== undefined) {
      this.#acknowledgementDue = true;
      if (this.#remoteFin === this.#receiveNext && this.#waiting.length === 0) this.#takeFin();
    }
  }

  /** Stores what lies in the window, cut to it. */
  #keep(sequence: number, data: Uint8Array): void {
    const skip = Math.max(0, distance(this.#receiveNext, sequence));
    const room = this.#receiveWindow() - Math.max(0, distance(sequence, this.#receiveNext));
    const kept = data.subarray(skip, skip + Math.max(0, room));
    if (kept.length === 0) return;
    const from = add(sequence, skip);
    const twin = this.#outOfOrder.some(piece => piece.sequence === from && piece.data.length >= kept.length);
    if (twin) return;
    this.#outOfOrder.push({ sequence: from, data: kept });
    this.#outOfOrder.sort((left, right) => distance(left.sequence, right.sequence));
  }

  #deliver(): void {
    for (;;) {
      const piece = this.#outOfOrder[0];
      if (!piece || isAfter(piece.sequence, this.#receiveNext)) return;
      this.#outOfOrder.shift();
      const skip = distance(this.#receiveNext, piece.sequence);
      if (skip >= piece.data.length) continue;
      const data = piece.data.slice(skip);
      this.#receiveNext = add(this.#receiveNext, data.length);
      if (this.#paused) this.#waiting.push(data);
      else this.onData(data);
      if (this.#state === 'CLOSED') return;
    }
  }

  #hasReceivedFin(): boolean {
    return (
      this.#state === 'CLOSE-WAIT' ||
      this.#state === 'CLOSING' ||
      this.#state === 'LAST-ACK' ||
      this.#state === 'TIME-WAIT'
    );
  }

  #takeFin(): void {
    this.#receiveNext = add(this.#receiveNext, 1);
    this.#outOfOrder = [];
    if (this.#state === 'ESTABLISHED') this.#state = 'CLOSE-WAIT';
    else if (this.#state === 'FIN-WAIT-1') this.#state = this.#isFinAcknowledged() ? 'TIME-WAIT' : 'CLOSING';
    else if (this.#state === 'FIN-WAIT-2') this.#state = 'TIME-WAIT';
    this.#acknowledgementDue = true;
    this.onEnd();
    if (this.#is('TIME-WAIT')) this.#enterTimeWait();
  }

  #isFinAcknowledged(): boolean {
    return this.#finQueued && this.#unacknowledged === add(this.#finSequence(), 1);
  }

  #finSequence(): number {
    return add(this.#dataStart, this.#outgoing.length);
  }

  /** Sends what the windows allow, then sees to the timer. */
  #transmit(): void {
    const state = this.#state;
    if (state === 'SYN-SENT' || state === 'SYN-RECEIVED' || state === 'CLOSED' || state === 'TIME-WAIT')
      return;
    const window = Math.min(this.#sendWindow, this.#congestionWindow);
    for (;;) {
      if (this.#isFinAcknowledged()) break;
      const offset = distance(this.#next, this.#dataStart);
      const available = this.#outgoing.length - offset;
      const underWay = distance(this.#next, this.#unacknowledged);
      const room = window - underWay;
      const size = Math.min(this.#segmentSize(), available, Math.floor(room));
      const finGoes =
        this.#finQueued && available >= 0 && size === available && (room > size || underWay === 0);
      if (size <= 0 && !(finGoes && available === 0)) break;
      // A small piece waits for a larger window rather than going out alone (RFC 9293 3.8.6.2.1).
      if (size < available && size < this.#segmentSize() && underWay > 0) break;
      if (!this.#sendPiece(offset, Math.max(0, size), finGoes)) break;
    }
    this.#armRetransmission();
  }

  /** Sends `size` bytes from `offset` in the outgoing data; false when the path refused the size. */
  #sendPiece(offset: number, size: number, fin: boolean): boolean {
    const sequence = add(this.#dataStart, offset);
    const data = this.#outgoing.slice(offset, offset + size);
    const isLast = size > 0 && offset + size === this.#outgoing.length;
    const flags = TcpFlag.ack | (isLast ? TcpFlag.psh : 0) | (fin ? TcpFlag.fin : 0);
    const end = add(sequence, size + (fin ? 1 : 0));
    if (isAfter(end, this.#highest)) {
      this.#timed ??= { sequence: end, at: this.#environment.simulation.now };
      this.#highest = end;
    } else {
      this.retransmissions++;
      // Karn: what was sent twice is not measured.
      this.#timed = undefined;
    }
    if (isAfter(end, this.#next)) this.#next = end;
    return this.#emit(flags, sequence, data);
  }

  #resendFirst(): void {
    const size = Math.min(this.#segmentSize(), this.#outgoing.length);
    const offset = distance(this.#unacknowledged, this.#dataStart);
    if (offset < 0) return;
    const finSent = this.#finQueued && isAfter(this.#highest, this.#finSequence());
    this.#sendPiece(offset, size, finSent && offset + size === this.#outgoing.length);
  }

  #sendSyn(): void {
    const flags = this.#state === 'SYN-SENT' ? TcpFlag.syn : TcpFlag.syn | TcpFlag.ack;
    if (this.#retries === 0) this.#timed = { sequence: this.#next, at: this.#environment.simulation.now };
    else this.#timed = undefined;
    this.#emit(flags, this.#initialSequence, NO_DATA);
    this.#armRetransmission();
  }

  #armRetransmission(): void {
    const underWay = this.#highest !== this.#unacknowledged;
    const blocked = this.#sendWindow === 0 && (this.#outgoing.length > 0 || this.#finQueued);
    if (this.#isFinAcknowledged()) return;
    if (!underWay && !blocked) {
      this.#disarm();
      return;
    }
    if (this.#timer) return;
    const delay = Math.min(MAXIMUM_RTO, this.#rto * 2 ** this.#retries);
    this.#timer = this.#environment.simulation.after(delay, () => this.#timedOut());
  }

  #timedOut(): void {
    this.#timer = undefined;
    const { settings } = this.#environment;
    const most =
      this.#state === 'SYN-SENT'
        ? settings.synRetries
        : this.#state === 'SYN-RECEIVED'
          ? settings.synAckRetries
          : settings.dataRetries;
    if (this.#retries >= most) {
      this.#finish(new TcpError('timeout', describe('timeout')));
      return;
    }
    this.#retries++;
    this.#timed = undefined;
    if (this.#state === 'SYN-SENT' || this.#state === 'SYN-RECEIVED') {
      this.retransmissions++;
      this.#sendSyn();
      return;
    }
    const size = this.#segmentSize();
    if (this.#highest !== this.#unacknowledged) {
      const underWay = distance(this.#highest, this.#unacknowledged);
      if (this.#retries === 1) this.#slowStartThreshold = Math.max(underWay / 2, 2 * size);
      this.#congestionWindow = size;
    }
    this.#recovering = false;
    this.#recover = this.#highest;
    this.#duplicates = 0;
    this.#next = latest(this.#unacknowledged, this.#dataStart);
    // A closed window is probed with one byte (RFC 9293 3.8.6.1).
    if (this.#sendWindow === 0 && this.#outgoing.length > 0) this.#sendPiece(0, 1, false);
    else this.#transmit();
    this.#armRetransmission();
  }

  #measure(sentAt: number): void {
    const sample = this.#environment.simulation.now - sentAt;
    this.#timed = undefined;
    if (this.#smoothedRtt === undefined) {
      this.#smoothedRtt = sample;
      this.#rttVariation = sample / 2;
    } else {
      this.#rttVariation = 0.75 * this.#rttVariation + 0.25 * Math.abs(this.#smoothedRtt - sample);
      this.#smoothedRtt = 0.875 * this.#smoothedRtt + 0.125 * sample;
    }
  }

  #updateRto(): void {
    if (this.#smoothedRtt === undefined) return;
    const wanted = this.#smoothedRtt + 4 * this.#rttVariation;
    this.#rto = Math.min(MAXIMUM_RTO, Math.max(MINIMUM_RTO, wanted));
  }

  #segmentSize(): number {
    return Math.min(this.#peerSegmentSize, this.#environment.pathSegmentSize());
  }

  #receiveWindow(): number {
    let kept = 0;
    for (const data of this.#waiting) kept += data.length;
    return Math.max(0, this.#environment.settings.receiveBuffer - kept);
  }

  #emit(flags: number, sequence: number, data: Uint8Array): boolean {
    const isSyn = (flags & TcpFlag.syn) !== 0;
    const hasAck = (flags & TcpFlag.ack) !== 0;
    if (hasAck) this.#acknowledgementDue = false;
    const { settings } = this.#environment;
    const window = Math.min(65535, this.#receiveWindow() >>> (isSyn ? 0 : this.#receiveScale));
    // The answer to a SYN offers scaling only if the SYN did.
    const scales = this.#state === 'SYN-SENT' || this.#receiveScale > 0 || this.#sendScale > 0;
    return this.#environment.emit({
      sequence,
      acknowledgement: hasAck ? this.#receiveNext : 0,
      flags,
      window,
      data,
      maximumSegmentSize: isSyn ? this.#environment.pathSegmentSize() : undefined,
      windowScale: isSyn && scales ? settings.windowScale : undefined,
    });
  }

  #emitReset(sequence: number): void {
    this.#environment.emit({
      sequence,
      acknowledgement: 0,
      flags: TcpFlag.rst,
      window: 0,
      data: NO_DATA,
      maximumSegmentSize: undefined,
      windowScale: undefined,
    });
  }

  #enterTimeWait(): void {
    this.#state = 'TIME-WAIT';
    this.#armLast();
    this.#report(undefined);
  }

  /** The last timer: TIME-WAIT, or a FIN-WAIT-2 whose peer is silent (tcp_fin_timeout). */
  #armLast(): void {
    this.#disarm();
    const { simulation, settings } = this.#environment;
    const background = this.#state === 'TIME-WAIT';
    const over = (): void =>
      this.#finish(this.#state === 'TIME-WAIT' ? undefined : new TcpError('timeout', describe('timeout')));
    this.#timer = simulation.after(settings.timeWait, over, { background });
  }

  #disarm(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #finish(error: TcpError | undefined): void {
    if (this.#state === 'CLOSED') return;
    this.#state = 'CLOSED';
    this.#disarm();
    this.#outgoing = NO_DATA;
    this.#outOfOrder = [];
    this.#environment.removed();
    this.#report(error);
  }

  #report(error: TcpError | undefined): void {
    if (this.#reported) return;
    this.#reported = true;
    this.onClose(error);
  }
}

export interface TcpEndpoints {
  localAddress: string;
  localPort: number;
  remoteAddress: string;
  remotePort: number;
}

function describe(code: TcpErrorCode): string {
  switch (code) {
    case 'refused':
      return 'Connection refused';
    case 'reset':
      return 'Connection reset by peer';
    case 'timeout':
      return 'Connection timed out';
    case 'host-unreachable':
      return 'No route to host';
    case 'net-unreachable':
      return 'Network is unreachable';
    default:
      return 'Software caused connection abort';
  }
}

/** Sequence numbers wrap at 2^32 (RFC 9293 section 3.4). */
function add(sequence: number, count: number): number {
  return (sequence + count) >>> 0;
}

/** How far `left` lies behind `right`; negative if before. */
function distance(left: number, right: number): number {
  return (left - right) | 0;
}

function isAfter(left: number, right: number): boolean {
  return distance(left, right) > 0;
}

function latest(left: number, right: number): number {
  return isAfter(left, right) ? left : right;
}
