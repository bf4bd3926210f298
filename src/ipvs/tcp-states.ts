/** The TCP states of a connection as a director sees them (net/netfilter/ipvs/ip_vs_proto_tcp.c). */
import { TcpFlag } from '../wire/tcp.ts';

/** The kernel's numbers, which synchronisation messages carry. */
export const TcpState = {
  none: 0,
  established: 1,
  synSent: 2,
  synReceived: 3,
  finWait: 4,
  timeWait: 5,
  close: 6,
  closeWait: 7,
  lastAck: 8,
  listen: 9,
  synAck: 10,
} as const;

export const TCP_STATE_NAMES: readonly string[] = [
  'NONE',
  'ESTABLISHED',
  'SYN_SENT',
  'SYN_RECV',
  'FIN_WAIT',
  'TIME_WAIT',
  'CLOSE',
  'CLOSE_WAIT',
  'LAST_ACK',
  'LISTEN',
  'SYNACK',
];

/** Seconds a connection stays in each state without a packet. */
export const TCP_TIMEOUTS: readonly number[] = [2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120];

/** Which packets a director sees: both directions (NAT), or only the client's (DR, TUN). */
export const TcpDirection = { in: 0, out: 1, inOnly: 2 } as const;

const STATES = TCP_STATE_NAMES.length;
const letters = 'NO ES SS SR FW TW CL CW LA LI SA'.split(' ');

/** One row a direction and event (SYN, FIN, ACK, RST): the next state from each state, in the order of `TcpState`. */
const TABLE = [
  'SR ES ES SR SR SR SR SR SR SR SR',
  'CL CW SS TW TW TW CL CW LA LI TW',
  'ES ES SS ES FW TW CL CW CL LI ES',
  'CL CL CL SR CL CL CL CL LA LI SR',
  'SS ES SS SR SS SS SS SS SS LI SR',
  'TW FW SS TW FW TW CL TW LA LI TW',
  'ES ES SS ES FW TW CL CW LA ES ES',
  'CL CL SS CL CL TW CL CL CL CL CL',
  'SR ES ES SR SR SR SR SR SR SR SR',
  'CL FW SS TW FW TW CL CW LA LI TW',
  'ES ES SS ES FW TW CL CW CL LI ES',
  'CL CL CL SR CL CL CL CL LA LI CL',
];

/** What the defence table (`secure_tcp`) does differently: row, from, to. */
const SECURE: readonly (readonly [number, string, string])[] = [
  [0, 'SA', 'SA'],
  [1, 'SA', 'SA'],
  [2, 'SR', 'SR'],
  [2, 'SA', 'SA'],
  [3, 'SA', 'CL'],
  [4, 'SR', 'SA'],
  [4, 'SA', 'SA'],
  ...['NO', 'FW', 'TW', 'CL', 'CW', 'LA', 'LI', 'SA'].map(from => [8, from, 'SA'] as const),
];

function compile(): Uint8Array {
  return Uint8Array.from(TABLE.flatMap(row => row.split(' ').map(state => letters.indexOf(state))));
}

/** Next states: `[(direction × 4 + event) × 11 + state]`, events as `tcpEvent` numbers them. */
export const TCP_TABLE: Uint8Array = compile();

/** The same for `secure_tcp`: a client's ACK alone does not make a connection established. */
export const SECURE_TCP_TABLE: Uint8Array = (() => {
  const table = compile();
  for (const [row, from, to] of SECURE) table[row * STATES + letters.indexOf(from)] = letters.indexOf(to);
  return table;
})();

/** The event a segment is: 0 SYN, 1 FIN, 2 ACK, 3 RST, -1 none of them; RST goes before SYN, FIN and ACK. */
export function tcpEvent(flags: number): number {
  if (flags & TcpFlag.rst) return 3;
  if (flags & TcpFlag.syn) return 0;
  if (flags & TcpFlag.fin) return 1;
  return flags & TcpFlag.ack ? 2 : -1;
}

/** The state after a segment with these flags; one without any of the four closes. */
export function nextTcpState(table: Uint8Array, direction: number, flags: number, state: number): number {
  const event = tcpEvent(flags);
  return event < 0 ? TcpState.close : (table[(direction * 4 + event) * STATES + state] as number);
}

/** True for the states that count as ActiveConn (tcp_state_active). */
export function isTcpStateActive(state: number): boolean {
  return (
    state === TcpState.established ||
    state === TcpState.synSent ||
    state === TcpState.synReceived ||
    state === TcpState.synAck
  );
}
