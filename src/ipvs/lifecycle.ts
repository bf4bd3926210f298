/**
 * The life of a connection: made and bound to a server, moved through its states, and released
 * (net/netfilter/ipvs/ip_vs_conn.c). Counts at the servers and their overload follow from here.
 */

import { Protocol } from '../wire/ipv4.ts';
import type { ConnectionKey } from './connection-key.ts';
import { ConnectionFlag, type ConnectionTable, NO_DESTINATION } from './connections.ts';
import { DESTINATION_BYTES, DestinationField, DestinationFlag, Forwarding } from './destinations.ts';
import { nextSctpState, SctpState } from './sctp-states.ts';
import type { ServerPool } from './server-pool.ts';
import {
  isTcpStateActive,
  nextTcpState,
  SECURE_TCP_TABLE,
  TCP_TABLE,
  TcpDirection,
  TcpState,
} from './tcp-states.ts';
import type { TimeoutTable } from './timeouts.ts';

/** States of a template: 1 once a connection that it controls was established. */
export const TemplateState = { none: 0, assured: 1 } as const;

/** Times that a state is looked at again because the XDP program has changed it meanwhile. */
const STATE_ATTEMPTS = 4;

export class Lifecycle {
  readonly connections: ConnectionTable;
  readonly pool: ServerPool;
  readonly timeouts: TimeoutTable;
  /** True while the stricter TCP table applies (`secure_tcp`). */
  secureTcp = false;
  /** Connections evicted because the table was full. */
  evictions = 0;
  /** How many connections a connection controls that is no template (FTP). By slot. */
  readonly #controlledBy = new Map<number, number>();
  #evictionHand = 0;
  #sweepHand = 0;
  /** Called with a slot just before it is freed. */
  onRelease: (slot: number, tick: number) => void = () => {};

  constructor(connections: ConnectionTable, pool: ServerPool, timeouts: TimeoutTable) {
    this.connections = connections;
    this.pool = pool;
    this.timeouts = timeouts;
  }

  /**
   * Makes a connection or template and binds it to a server (-1: to none). Returns its slot, or -1 if the table is full
   * of connections that may not be evicted. `prepare` fields a record needs before lookups find it (FULLNAT).
   */
  create(
    key: ConnectionKey,
    flags: number,
    destination: number,
    destinationPortRaw: number,
    tick: number,
    prepare?: (slot: number) => void,
  ): number {
    const { connections, pool } = this;
    let all = flags;
    if (destination >= 0) {
      const forwarding = pool.table.bytes[
        destination * DESTINATION_BYTES + DestinationField.forwarding
      ] as number;
      all |= forwarding;
      if (forwarding === Forwarding.masq || forwarding === Forwarding.fullnat) {
        if ((key.flags & ConnectionFlag.template) === 0 && (flags & ConnectionFlag.onePacket) === 0) {
          all |= ConnectionFlag.replies;
        }
      } else all |= ConnectionFlag.noOutput;
      if ((key.flags & ConnectionFlag.template) === 0) all |= ConnectionFlag.inactive;
    }
    let slot = connections.allocate(key, all);
    if (slot < 0 && this.#evict(tick)) slot = connections.allocate(key, all);
    if (slot < 0) return -1;
    connections.setDestination(slot, destination < 0 ? NO_DESTINATION | 0 : destination, destinationPortRaw);
    connections.setExpires(slot, (tick + this.timeouts.created) | 0);
    prepare?.(slot);
    // Counted before the XDP program can find it and count it elsewhere.
    if (destination >= 0) this.#bind(key.flags | all, destination);
    if (connections.publish(slot, tick)) return slot;
    if (destination >= 0) this.#unbind(key.flags | all, destination);
    return -1;
  }

  #bind(flags: number, destination: number): void {
    const { table, persistent } = this.pool;
    if (flags & ConnectionFlag.template) persistent[destination] = (persistent[destination] as number) + 1;
    this.count(flags, destination);
    table.updateOverload(destination);
  }

  /** Counts a connection with these flags in its server's record, where templates are not counted. */
  count(flags: number, destination: number): void {
    const { table } = this.pool;
    if (flags & ConnectionFlag.template) return;
    if (flags & ConnectionFlag.inactive) table.addInactive(destination, 1);
    else table.addActive(destination, 1);
  }

  #unbind(flags: number, destination: number): void {
    const { persistent } = this.pool;
    if (flags & ConnectionFlag.template) persistent[destination] = (persistent[destination] as number) - 1;
    this.discount(flags, destination);
  }

  /** The opposite of `count`; the server may be overloaded no more. */
  discount(flags: number, destination: number): void {
    const { table } = this.pool;
    if ((flags & ConnectionFlag.template) === 0) {
      if (flags & ConnectionFlag.inactive) table.addInactive(destination, -1);
      else table.addActive(destination, -1);
    }
    if (table.flags(destination) & DestinationFlag.overloaded) table.updateOverload(destination);
  }

  /** Says how many ticks a template lives without a new connection; its first does not start that time yet. */
  setTemplateTimeout(slot: number, ticks: number): void {
    this.connections.setTemplateTimeout(slot, ticks);
  }

  /** Starts a template's time anew, as each new connection under it does. */
  renewTemplate(slot: number, tick: number, otherwise: number): void {
    this.connections.setExpires(slot, (tick + (this.connections.templateTimeout(slot) || otherwise)) | 0);
  }

  /** Lets `controller` control `slot`. */
  control(slot: number, controller: number): void {
    const { connections } = this;
    connections.setControl(slot, controller + 1);
    if (connections.flags(controller) & ConnectionFlag.template) {
      connections.addControlled(controller, 1);
    } else this.#controlledBy.set(controller, (this.#controlledBy.get(controller) ?? 0) + 1);
  }

  /** The connection that controls this one, or -1. */
  controllerOf(slot: number): number {
    if (this.connections.flags(slot) & ConnectionFlag.template) return -1;
    return this.connections.control(slot) - 1;
  }

  /** How many connections this one controls. */
  controlled(slot: number): number {
    if (this.connections.flags(slot) & ConnectionFlag.template) return this.connections.control(slot);
    return this.#controlledBy.get(slot) ?? 0;
  }

  /**
   * Ends a connection now, unless it controls others: then it lives on for a minute.
   * @param withController also end the controller if this was its last connection and it has no standing of its own
   */
  expire(slot: number, tick: number, withController = false): void {
    const { connections } = this;
    if (this.controlled(slot) > 0) {
      connections.setExpires(slot, (tick + this.timeouts.controlling) | 0);
      // From now on that is its timeout, also when a new connection restarts it.
      if (connections.flags(slot) & ConnectionFlag.template) {
        connections.setTemplateTimeout(slot, this.timeouts.controlling);
      }
      return;
    }
    const controller = this.controllerOf(slot);
    this.#release(slot, tick);
    if (!withController || controller < 0 || this.controlled(controller) > 0) return;
    const template = (connections.flags(controller) & ConnectionFlag.template) !== 0;
    if (!template || connections.state(controller) !== TemplateState.assured) this.#release(controller, tick);
  }

  /**
   * Ends all connections whose server was deleted, and the templates that controlled nothing else
   * (ip_vs_expire_nodest_conn_flush): what `expire_nodest_conn` does when a server goes.
   */
  expireWithoutServer(tick: number): void {
    const { connections } = this;
    for (let slot = 0; slot < connections.highWater; slot++) {
      if (!connections.isUsed(slot) || this.controlled(slot) > 0) continue;
      const destination = connections.destination(slot);
      if (destination < 0 || this.pool.table.flags(destination) & DestinationFlag.available) continue;
      const controller = this.controllerOf(slot);
      this.#release(slot, tick);
      if (controller >= 0 && this.controlled(controller) === 0) this.expire(controller, tick);
    }
  }

  /**
   * The template with this key, also one that ran out since the last sweep but lives on because it controls
   * connections. -1 if there is none.
   */
  findTemplate(key: ConnectionKey, tick: number): number {
    const slot = this.connections.find(key, tick);
    if (slot >= 0) return slot;
    const stale = this.connections.findExpired(key, tick);
    if (stale < 0) return -1;
    const lives = this.controlled(stale) > 0;
    this.expire(stale, tick);
    return lives ? stale : -1;
  }

  #release(slot: number, tick: number): void {
    const { connections } = this;
    // The XDP program may have been faster.
    if (!connections.claim(slot)) return;
    if (this.controlled(slot) > 0 && connections.flags(slot) & ConnectionFlag.template) {
      // It has just got a connection.
      connections.setExpires(slot, (tick + this.timeouts.controlling) | 0);
      connections.unclaim(slot);
      return;
    }
    this.onRelease(slot, tick);
    const controller = this.controllerOf(slot);
    if (controller >= 0) this.#uncontrol(controller);
    this.#controlledBy.delete(slot);
    const destination = connections.destination(slot);
    const flags = connections.raiseFlags(slot, ConnectionFlag.ended);
    if (destination >= 0) this.#unbind(flags, destination);
    connections.remove(slot);
  }

  #uncontrol(controller: number): void {
    const { connections } = this;
    if (connections.flags(controller) & ConnectionFlag.template) {
      connections.addControlled(controller, -1);
      return;
    }
    const rest = (this.#controlledBy.get(controller) ?? 1) - 1;
    if (rest > 0) this.#controlledBy.set(controller, rest);
    else this.#controlledBy.delete(controller);
  }

  /**
   * Ends connections that ran out, looking at up to `limit` records from where the last call stopped. Those that
   * control others come last, so that a template goes with its last connection.
   * @returns true when the end of the table was reached
   */
  sweep(tick: number, limit = Number.POSITIVE_INFINITY): boolean {
    const { connections } = this;
    const end = Math.min(connections.highWater, this.#sweepHand + limit);
    let controlling = false;
    for (let slot = this.#sweepHand; slot < end; slot++) {
      if (!connections.isUsed(slot) || !connections.hasExpired(slot, tick)) continue;
      if (this.controlled(slot) > 0) controlling = true;
      else this.expire(slot, tick);
    }
    for (let slot = this.#sweepHand; controlling && slot < end; slot++) {
      if (connections.isUsed(slot) && connections.hasExpired(slot, tick)) this.expire(slot, tick);
    }
    this.#sweepHand = end >= connections.highWater ? 0 : end;
    return this.#sweepHand === 0;
  }

  /** Makes room in a full table: an expired or half-open connection goes, never an established one or a template. */
  #evict(tick: number): boolean {
    const { connections } = this;
    const limit = Math.min(connections.highWater, 512);
    for (let tried = 0; tried < limit; tried++) {
      const slot = this.#evictionHand;
      this.#evictionHand = slot + 1 >= connections.highWater ? 0 : slot + 1;
      if (!connections.isUsed(slot)) continue;
      const evictable = connections.hasExpired(slot, tick) || this.#isHalfOpen(slot);
      if (!evictable || this.controlled(slot) > 0) continue;
      this.#release(slot, tick);
      this.evictions++;
      return true;
    }
    return false;
  }

  #isHalfOpen(slot: number): boolean {
    const { connections } = this;
    if (connections.flags(slot) & ConnectionFlag.template) return false;
    if (connections.protocol(slot) !== Protocol.tcp) return false;
    const state = connections.state(slot);
    return state === TcpState.none || state === TcpState.synReceived || state === TcpState.synAck;
  }

  /** Moves a TCP connection on a segment with these flags, and restarts its timer. */
  tcp(slot: number, direction: number, flags: number, tick: number): void {
    const { connections } = this;
    const side = this.#sideOf(slot, direction);
    const table = this.secureTcp ? SECURE_TCP_TABLE : TCP_TABLE;
    let after = connections.state(slot);
    for (let attempt = 0; attempt < STATE_ATTEMPTS; attempt++) {
      const before = connections.state(slot);
      after = nextTcpState(table, side, flags, before);
      if (after === before) break;
      if (this.#change(slot, before, after, isTcpStateActive(after), after === TcpState.established)) break;
    }
    connections.setExpires(slot, (tick + (this.timeouts.tcp[after] as number)) | 0);
  }

  /** Moves an SCTP connection on a packet with this `SctpEvent`, and restarts its timer. */
  sctp(slot: number, direction: number, event: number, tick: number): void {
    const { connections } = this;
    const before = connections.state(slot);
    const after = nextSctpState(this.#sideOf(slot, direction), event, before);
    const established = after === SctpState.established;
    if (after !== before) this.#change(slot, before, after, established, established);
    connections.setExpires(slot, (tick + (this.timeouts.sctp[after] as number)) | 0);
  }

  /** Which table applies: a connection whose replies pass elsewhere has its own, until one is seen after all. */
  #sideOf(slot: number, direction: number): number {
    const { connections } = this;
    const flags = connections.flags(slot);
    if ((flags & ConnectionFlag.noOutput) === 0) return direction;
    if (direction !== TcpDirection.out) return TcpDirection.inOnly;
    connections.clearFlags(slot, ConnectionFlag.noOutput);
    return direction;
  }

  /** Puts a TCP connection into a state that no segment of its own leads to, and starts its timer. */
  enter(slot: number, state: number, tick: number): void {
    const { connections } = this;
    for (let attempt = 0; attempt < STATE_ATTEMPTS; attempt++) {
      const before = connections.state(slot);
      if (before === state) break;
      if (this.#change(slot, before, state, isTcpStateActive(state), state === TcpState.established)) break;
    }
    connections.setExpires(slot, (tick + (this.timeouts.tcp[state] as number)) | 0);
  }

  /** Lets a TCP connection wait for the first segment of either side (ip_vs_tcp_conn_listen). */
  listen(slot: number, tick: number): void {
    this.#change(slot, this.connections.state(slot), TcpState.listen, false, false);
    this.connections.setExpires(slot, (tick + (this.timeouts.tcp[TcpState.listen] as number)) | 0);
  }

  /** Ticks that a connection in its state lives without a packet. */
  timeoutOf(slot: number): number {
    const { connections, timeouts } = this;
    const protocol = connections.protocol(slot);
    if (protocol === Protocol.tcp) return timeouts.tcp[connections.state(slot)] as number;
    if (protocol === Protocol.sctp) return timeouts.sctp[connections.state(slot)] as number;
    return timeouts.udp;
  }

  /** Restarts the timer of a UDP connection; an answer assures its template. */
  udp(slot: number, direction: number, tick: number): void {
    if (direction === TcpDirection.out) this.assure(slot);
    this.connections.setExpires(slot, (tick + this.timeouts.udp) | 0);
  }

  /**
   * Goes from one state to another and counts the connection as active or inactive accordingly. False if the XDP program
   * has moved it meanwhile.
   */
  #change(slot: number, from: number, to: number, active: boolean, established: boolean): boolean {
    const { connections } = this;
    const { table } = this.pool;
    const destination = connections.destination(slot);
    const isInactive = destination < 0 ? (connections.flags(slot) & ConnectionFlag.inactive) !== 0 : !active;
    const flags = connections.changeState(slot, from, to, isInactive);
    if (flags < 0) return false;
    if (destination >= 0 && active === ((flags & ConnectionFlag.inactive) !== 0)) {
      table.addActive(destination, active ? 1 : -1);
      table.addInactive(destination, active ? -1 : 1);
    }
    if (established) this.assure(slot);
    return true;
  }

  /** Marks the template that controls this connection as worth keeping. */
  assure(slot: number): void {
    const controller = this.controllerOf(slot);
    if (controller >= 0 && this.connections.flags(controller) & ConnectionFlag.template) {
      this.connections.setState(controller, TemplateState.assured);
    }
  }
}
