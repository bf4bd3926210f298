/** The SCTP states of a connection as a director sees them (net/netfilter/ipvs/ip_vs_proto_sctp.c). */
import { SCTP_CHUNK_HEADER, SCTP_HEADER, SctpChunk } from '../wire/sctp.ts';

/** The kernel's numbers, which synchronisation messages carry. */
export const SctpState = {
  none: 0,
  init1: 1,
  init: 2,
  cookieSent: 3,
  cookieReplied: 4,
  cookieWait: 5,
  cookie: 6,
  cookieEchoed: 7,
  established: 8,
  shutdownSent: 9,
  shutdownReceived: 10,
  shutdownAckSent: 11,
  rejected: 12,
  closed: 13,
} as const;

export const SCTP_STATE_NAMES: readonly string[] = [
  'NONE',
  'INIT1',
  'INIT',
  'C-SENT',
  'C-REPLIED',
  'C-WAIT',
  'COOKIE',
  'C-ECHOED',
  'ESTABLISHED',
  'S-SENT',
  'S-RECEIVED',
  'S-ACK-SENT',
  'REJECTED',
  'CLOSED',
];

/** Seconds a connection stays in each state without a packet. */
export const SCTP_TIMEOUTS: readonly number[] = [2, 4, 61, 61, 61, 61, 61, 61, 900, 61, 61, 61, 4, 61];

const STATES = SCTP_STATE_NAMES.length;
const EVENTS = 10;
const letters = 'NO I1 IN CS CR CW CO CE ES SS SR SA RJ CL'.split(' ');

/** What a chunk is to the table. */
export const SctpEvent = {
  data: 0,
  init: 1,
  initAck: 2,
  cookieEcho: 3,
  cookieAck: 4,
  shutdown: 5,
  shutdownAck: 6,
  shutdownComplete: 7,
  error: 8,
  abort: 9,
} as const;

/**
 * One row a direction (in, out, in only: `TcpDirection`) and event in the order of `SctpEvent`: the next state from
 * each state, in the order of `SctpState`.
 */
const TABLE = [
  'ES I1 IN CS CR CW CO CE ES SS SR SA RJ CL',
  'I1 IN IN CS CR CW CO CE ES SS SR SA IN IN',
  'CW CW CW CS CR CO CO CE ES SS SR SA RJ CL',
  'CR IN IN CR CR CW CO CE ES SS SR SA RJ CL',
  'ES I1 IN CS CR CW CO ES ES SS SR SA RJ CL',
  'SR I1 IN CS CR CW CO CE SR SS SR SA RJ CL',
  'CL IN IN CS CR CW CO CE ES CL SR CL RJ CL',
  'CL CL CL CS CR CW CO CE ES SS SR CL RJ CL',
  'CL I1 IN CS CR CW CO CL ES SS SR SA RJ CL',
  'CL CL CL CL CL RJ CL CL CL CL CL CL CL CL',

  'ES I1 IN CS CR CW CO CE ES SS SR SA RJ CL',
  'CW CW CW CW CW CW CW CW ES CW CW CW CW CW',
  'CS CS CS CS CR CW CO CE ES SS SR SA RJ CL',
  'CE CE CE CE CE CE CE CE ES SS SR SA RJ CL',
  'ES ES ES ES ES ES ES ES ES SS SR SA RJ CL',
  'SS SS SS SS SS SS SS SS SS SS SR SA RJ CL',
  'SA SA SA SA SA CW CO CE ES SA SA SA RJ CL',
  'CL I1 IN CS CR CW CO CE ES SS SR SA RJ CL',
  'CL CL CL CL CL CW CO CE ES SS SR SA RJ CL',
  'CL RJ CL CL CL CL CL CL CL CL CL CL CL CL',

  'ES I1 IN CS CR ES CO CE ES SS SR SA RJ CL',
  'I1 IN IN IN IN IN CO CE ES SS SR SA IN IN',
  'CE CE CE CE CE CE CO CE ES SS SR SA RJ CL',
  'ES ES ES ES ES ES CO CE ES SS SR SA RJ CL',
  'ES I1 IN ES ES CW ES ES ES SS SR SA RJ CL',
  'SR I1 IN CS CR CW CO CE SR SS SR SA RJ CL',
  'CL IN IN CS CR CW CO CE CL CL SR CL RJ CL',
  'CL CL CL CL CL CW CO CE ES SS CL CL RJ CL',
  'CL I1 IN CS CR CW CO CE ES SS SR SA RJ CL',
  'CL CL CL CL CL RJ CL CL CL CL CL CL CL CL',
];

const NEXT_STATES = Uint8Array.from(
  TABLE.flatMap(row => row.split(' ').map(state => letters.indexOf(state))),
);

/** The event of each chunk type; chunks that only carry data on, and unknown ones, are data. */
const EVENT_OF_CHUNK: Uint8Array = (() => {
  const events = new Uint8Array(256);
  for (const name of Object.keys(SctpEvent) as (keyof typeof SctpEvent)[]) {
    events[SctpChunk[name]] = SctpEvent[name];
  }
  return events;
})();

/**
 * The event of the packet whose common header is at `at`: that of its first chunk, but an ABORT behind a COOKIE ECHO or
 * COOKIE ACK counts (RFC 9260 section 6.10 allows that bundle).
 * @param end behind the last byte of the packet
 */
export function sctpEvent(view: DataView, at: number, end: number): number {
  const chunk = at + SCTP_HEADER;
  const type = view.getUint8(chunk);
  if (type === SctpChunk.cookieEcho || type === SctpChunk.cookieAck) {
    const length = view.getUint16(chunk + 2);
    const second = chunk + ((length + 3) & ~3);
    if (length >= SCTP_CHUNK_HEADER && second + SCTP_CHUNK_HEADER <= end) {
      if (view.getUint8(second) === SctpChunk.abort) return SctpEvent.abort;
    }
  }
  return EVENT_OF_CHUNK[type] as number;
}

/** The state after an event. */
export function nextSctpState(direction: number, event: number, state: number): number {
  return NEXT_STATES[(direction * EVENTS + event) * STATES + state] as number;
}
