/**
 * Defence against floods (update_defense_level in ip_vs_ctl.c, ip_vs_random_dropentry in ip_vs_conn.c): giving up
 * connections that never got going (`drop_entry`), refusing some of the new ones (`drop_packet`), and the stricter TCP
 * table (`secure_tcp`). Each setting has a level:
 *
 * | level | meaning |
 * |---|---|
 * | 0 | off |
 * | 1 | on when records run short; the level turns to 2 then |
 * | 2 | on, and back to 1 once there are enough |
 * | 3 | always on |
 *
 * The kernel looks at free memory. Here what runs short are the records of the connection table: `amemthresh` of them, or
 * a quarter of the table if that is less.
 */
import { Protocol } from '../wire/ipv4.ts';
import { ConnectionFlag } from './connections.ts';
import { type Lifecycle, TemplateState } from './lifecycle.ts';
import { SctpState } from './sctp-states.ts';
import type { Settings } from './settings.ts';
import { TcpState } from './tcp-states.ts';

/** Milliseconds between two looks (DEFENSE_TIMER_PERIOD). */
const PERIOD = 1000;
/** One in so many records is looked at each time. */
const SCANNED_SHARE = 32;
/** Seconds without a packet below which an established connection is left alone. */
const GRACE = 60;
/** Connections with more packets from the client than this are left alone. */
const MOST_PACKETS = 8;

type Level = 'drop_entry' | 'drop_packet' | 'secure_tcp';

export class Defence {
  /** Connections that `drop_entry` gave up; a template that went with the last of its connections is not counted. */
  entriesDropped = 0;
  /** One in so many new connections is refused; 0: none. */
  dropRate = 0;
  /** True while `drop_entry` is at work. */
  dropsEntries = false;
  readonly #lifecycle: Lifecycle;
  readonly #settings: Settings;
  readonly #random: () => number;
  #untilDrop = 0;
  #next = 0;
  /** Connections still to spare before the next one with so many packets goes. */
  readonly #toSpare = new Uint8Array(MOST_PACKETS + 1);

  /** @param random 0..2^32-1 */
  constructor(lifecycle: Lifecycle, settings: Settings, random: () => number) {
    this.#lifecycle = lifecycle;
    this.#settings = settings;
    this.#random = random;
    this.update();
  }

  /** Does what is due each second. @param now milliseconds */
  run(now: number): void {
    if (now < this.#next) return;
    this.#next = now + PERIOD;
    this.update();
    if (this.dropsEntries) this.#dropEntries(this.#lifecycle.connections.tick(now));
  }

  /** True if the packet that is about to begin a connection is to be dropped instead (ip_vs_todrop). */
  dropsPacket(): boolean {
    if (this.dropRate === 0) return false;
    this.#untilDrop--;
    if (this.#untilDrop > 0) return false;
    this.#untilDrop = this.dropRate;
    return true;
  }

  /** What `dropsPacket` would say. */
  get wouldDropPacket(): boolean {
    return this.dropRate !== 0 && this.#untilDrop <= 1;
  }

  /** Puts the settings and what is free into force. */
  update(): void {
    const { connections } = this.#lifecycle;
    const free = connections.capacity - connections.size;
    const enough = Math.min(this.#settings.amemthresh, connections.capacity >>> 2);
    const isShort = free < enough;
    this.dropsEntries = this.#isOn('drop_entry', isShort);
    this.#lifecycle.secureTcp = this.#isOn('secure_tcp', isShort);
    if (!this.#isOn('drop_packet', isShort)) this.dropRate = 0;
    else if (this.#settings.drop_packet === 3) this.dropRate = this.#settings.am_droprate;
    else {
      this.dropRate = Math.floor(enough / (enough - free));
      this.#untilDrop = this.dropRate;
    }
  }

  #isOn(name: Level, isShort: boolean): boolean {
    const level = this.#settings[name];
    if (level === 1 || level === 2) this.#settings[name] = isShort ? 2 : 1;
    return level === 3 || (level !== 0 && isShort);
  }

  /** Looks at records picked at random, as many as make the share of the table in use. */
  #dropEntries(tick: number): void {
    const { connections } = this.#lifecycle;
    let left = connections.highWater + (this.#random() % SCANNED_SHARE);
    for (; left >= SCANNED_SHARE; left -= SCANNED_SHARE) {
      const slot = this.#random() % connections.highWater;
      if (!connections.isUsed(slot) || !this.#isToGo(slot, tick)) continue;
      this.#lifecycle.expire(slot, tick, true);
      this.entriesDropped++;
    }
  }

  #isToGo(slot: number, tick: number): boolean {
    const { connections } = this.#lifecycle;
    if (this.#lifecycle.controlled(slot) > 0) return false;
    const state = connections.state(slot);
    // Templates of one-packet services, which control nothing, count no packets either: the kernel's test spares them.
    if (connections.flags(slot) & ConnectionFlag.template)
      return state !== TemplateState.assured && !this.#isOnePacket(slot);
    switch (connections.protocol(slot)) {
      case Protocol.tcp:
        if (state === TcpState.synReceived || state === TcpState.synAck) return true;
        return state === TcpState.established && this.#isIdle(slot, tick);
      case Protocol.sctp:
        if (state === SctpState.init1 || state === SctpState.init) return true;
        return state === SctpState.established && this.#isIdle(slot, tick);
      default:
        return this.#isIdle(slot, tick);
    }
  }

  #isOnePacket(slot: number): boolean {
    const owner = this.#lifecycle.pool.owners[this.#lifecycle.connections.destination(slot)];
    return owner?.service.specification.onePacket ?? false;
  }

  /** True for one in as many idle connections as it had packets, up to eight (todrop_entry). */
  #isIdle(slot: number, tick: number): boolean {
    const lifecycle = this.#lifecycle;
    const { connections } = lifecycle;
    const sincePacket = lifecycle.timeoutOf(slot) - connections.remaining(slot, tick);
    if (sincePacket < GRACE * connections.hz) return false;
    const packets = connections.packets(slot);
    if (packets > MOST_PACKETS || packets === 0) return false;
    const toSpare = this.#toSpare[packets] as number;
    if (toSpare > 1) {
      this.#toSpare[packets] = toSpare - 1;
      return false;
    }
    this.#toSpare[packets] = packets;
    return true;
  }
}
