/** How long connections live in each state, in ticks of a connection table's clock. */
import { SCTP_TIMEOUTS } from './sctp-states.ts';
import type { Timeouts } from './specification.ts';
import { TCP_TIMEOUTS, TcpState } from './tcp-states.ts';

/** Seconds a UDP connection lives without a packet. */
const UDP_TIMEOUT = 300;
/** Seconds a new connection lives before its first state (ip_vs_conn_new). */
const NEW_TIMEOUT = 3;
/** Seconds a template lives on that ran out while it still controls connections (ip_vs_conn_expire). */
const CONTROLLING_TIMEOUT = 60;

export class TimeoutTable {
  readonly hz: number;
  /** By state. */
  readonly tcp: Int32Array;
  readonly sctp: Int32Array;
  udp: number;
  readonly created: number;
  readonly controlling: number;

  constructor(hz: number) {
    this.hz = hz;
    this.tcp = Int32Array.from(TCP_TIMEOUTS, seconds => seconds * hz);
    this.sctp = Int32Array.from(SCTP_TIMEOUTS, seconds => seconds * hz);
    this.udp = UDP_TIMEOUT * hz;
    this.created = NEW_TIMEOUT * hz;
    this.controlling = CONTROLLING_TIMEOUT * hz;
  }

  get(): Timeouts {
    return {
      tcp: (this.tcp[TcpState.established] as number) / this.hz,
      tcpFin: (this.tcp[TcpState.finWait] as number) / this.hz,
      udp: this.udp / this.hz,
    };
  }

  /** Connections follow with their next packet. Zeros keep what was. */
  set(timeouts: Timeouts): void {
    if (timeouts.tcp) this.tcp[TcpState.established] = timeouts.tcp * this.hz;
    if (timeouts.tcpFin) this.tcp[TcpState.finWait] = timeouts.tcpFin * this.hz;
    if (timeouts.udp) this.udp = timeouts.udp * this.hz;
  }
}
