/** A host's network interface: MAC, MTU, addresses, taps, and the cable to a segment. */
import { inSubnet, type LocalAddress, Scope, sameAddress } from '../arp/local-addresses.ts';
import type { Family } from '../wire/address.ts';
import { Ethernet } from '../wire/ethernet.ts';
import type { Port, Segment } from './segment.ts';
import type { Simulation } from './simulation.ts';

export type Direction = 'in' | 'out';

/**
 * Sees the frames of one interface as a capture on the host would: sent ones before the wire pads them, received ones
 * as they arrive, those for other stations included.
 */
export type Tap = (time: number, direction: Direction, frame: Uint8Array) => void;

export interface InterfaceAddress extends LocalAddress {
  family: Family;
  /** As `ip addr` shows it; the interface's name unless set (`eth0:0`). IPv4 only. */
  label: string;
}

export class Interface {
  /** 1 for `lo`, counting up. */
  readonly index: number;
  readonly name: string;
  /** 6 bytes; zero for `lo`. */
  readonly mac: Uint8Array;
  readonly isLoopback: boolean;
  /** Largest IP packet, bytes. */
  mtu: number;
  addresses: InterfaceAddress[] = [];
  /** Frames and bytes received and sent. */
  readonly counters = { receivedFrames: 0, receivedBytes: 0, sentFrames: 0, sentBytes: 0 };
  #simulation: Simulation;
  #up = true;
  #port: Port | undefined;
  #taps: Tap[] = [];
  #receive: (frame: Uint8Array) => void;

  constructor(
    simulation: Simulation,
    index: number,
    name: string,
    mac: Uint8Array,
    mtu: number,
    receive: (frame: Uint8Array) => void,
  ) {
    this.#simulation = simulation;
    this.index = index;
    this.name = name;
    this.mac = mac;
    this.mtu = mtu;
    this.isLoopback = name === 'lo';
    this.#receive = receive;
  }

  get isUp(): boolean {
    return this.#up;
  }

  /** Takes the interface up or down; a host must be told through `Host.setLink`, which also sees to its routes. */
  setUp(up: boolean): void {
    this.#up = up;
  }

  /** Plugs the interface into a segment. */
  plug(segment: Segment, owner: string): void {
    this.unplug();
    this.#port = segment.attach(`${owner} ${this.name}`, frame => this.deliver(frame));
  }

  unplug(): void {
    this.#port?.segment.detach(this.#port);
    this.#port = undefined;
  }

  /** Sends a complete frame; without cable or while down it is lost. */
  send(frame: Uint8Array): void {
    if (!this.#up) return;
    this.counters.sentFrames++;
    this.counters.sentBytes += frame.length;
    this.#show('out', frame);
    if (this.isLoopback) {
      // Never from within the sender's own call: the stack must not be entered twice.
      this.#simulation.after(LOOPBACK_LATENCY, () => this.deliver(frame));
      return;
    }
    this.#port?.send(frame);
  }

  /** A frame has arrived. */
  deliver(frame: Uint8Array): void {
    if (!this.#up) return;
    this.counters.receivedFrames++;
    this.counters.receivedBytes += frame.length;
    this.#show('in', frame);
    this.#receive(frame);
  }

  /** Watches the interface; the returned function ends it. */
  tap(listener: Tap): () => void {
    this.#taps.push(listener);
    return () => {
      this.#taps = this.#taps.filter(each => each !== listener);
    };
  }

  /**
   * Adds an address; like the kernel, one in the subnet of another on this interface becomes secondary.
   * @returns false if the interface has it already
   */
  add(address: Uint8Array, prefix: number, label: string, scope: number): boolean {
    const known = this.addresses.some(
      each => sameAddress(each.address, address) && (each.prefix === prefix || each.family === 6),
    );
    if (known) return false;
    const family = address.length === 4 ? 4 : 6;
    const secondary =
      family === 4 &&
      this.addresses.some(
        each => !each.secondary && each.prefix === prefix && each.scope <= scope && inSubnet(address, each),
      );
    const added: InterfaceAddress = { family, address, prefix, label, scope, secondary };
    // The kernel lists IPv6 addresses newest first within the wider scope.
    if (family === 6) {
      const before = this.addresses.findIndex(each => each.family === 6 && each.scope >= scope);
      this.addresses.splice(before < 0 ? this.addresses.length : before, 0, added);
    } else {
      const firstSixth = this.addresses.findIndex(each => each.family === 6);
      this.addresses.splice(firstSixth < 0 ? this.addresses.length : firstSixth, 0, added);
    }
    return true;
  }

  /**
   * Takes an address away, and with a primary one its secondaries (net.ipv4.conf.*.promote_secondaries is 0).
   * @param prefix undefined takes it whatever its length
   * @returns the addresses that went, empty if there was none
   */
  remove(address: Uint8Array, prefix: number | undefined): InterfaceAddress[] {
    const found = this.addresses.find(
      each => sameAddress(each.address, address) && (prefix === undefined || each.prefix === prefix),
    );
    if (!found) return [];
    const goes = (each: InterfaceAddress): boolean =>
      each === found ||
      (!found.secondary && each.secondary && each.prefix === found.prefix && inSubnet(each.address, found));
    const gone = this.addresses.filter(goes);
    this.addresses = this.addresses.filter(each => !goes(each));
    return gone;
  }

  /** True if the address is one of this interface's. */
  has(address: Uint8Array): boolean {
    return this.addresses.some(each => sameAddress(each.address, address));
  }

  #show(direction: Direction, frame: Uint8Array): void {
    if (this.#taps.length === 0) return;
    for (const tap of this.#taps) tap(this.#simulation.now, direction, frame);
  }
}

/** From sending to receiving on `lo`, ms. */
const LOOPBACK_LATENCY = 0.02;

/** The IPv6 link-local address of a MAC (RFC 4291 appendix A). */
export function linkLocalAddress(mac: Uint8Array): Uint8Array {
  const address = new Uint8Array(16);
  address.set([0xfe, 0x80]);
  address.set(mac.subarray(0, 3), 8);
  address.set([0xff, 0xfe], 11);
  address.set(mac.subarray(3), 13);
  address[8] = (address[8] as number) ^ 2;
  return address;
}

/** Scope of an address as `ip addr add` derives it. */
export function scopeOf(address: Uint8Array): number {
  if (address.length === 4) return address[0] === 127 ? Scope.host : Scope.global;
  if (address[0] === 0xfe && ((address[1] as number) & 0xc0) === 0x80) return Scope.link;
  const isLoopback = address.every((byte, index) => byte === (index === 15 ? 1 : 0));
  return isLoopback ? Scope.host : Scope.global;
}

/** True if a MAC's frame is for this interface: its own, or a group's. */
export function isForStation(frame: Uint8Array, mac: Uint8Array): boolean {
  if (((frame[Ethernet.destination] as number) & 1) === 1) return true;
  for (let index = 0; index < 6; index++) if (frame[index] !== mac[index]) return false;
  return true;
}
