/**
 * The ways back to clients, for the program: what routes say of whole networks beforehand, and of single clients when it
 * asks.
 */
import type { Network, NextHop } from '../../ipvs/network.ts';
import type { Family } from '../../wire/address.ts';
import { HOP_BYTES, HOPS, HopField } from './control.ts';
import type { FastPath } from './fast-path.ts';

/** A network that is all reached by one next hop; undefined: its addresses have to be asked for one by one. */
export interface Route {
  /** 4 or 16 bytes, host bits 0. */
  prefix: Uint8Array;
  /** Bits. */
  length: number;
  hop: NextHop | undefined;
}

/** A network that says which routes it has. */
export interface Routed extends Network {
  routes(): Iterable<Route>;
}

/** Addresses remembered, of 65536 that fit with the routes. */
const MOST_ADDRESSES = 60_000;
/** More routes than this are not told: their addresses are asked for. */
const MOST_ROUTES = 4096;

export class Ways {
  readonly #fastPath: FastPath;
  readonly #network: Network;
  readonly #hops: DataView;
  readonly #numbers = new Map<NextHop, number>();
  readonly #question = new Uint8Array(new ArrayBuffer(20));
  #addresses = 0;
  #isTold = false;

  constructor(fastPath: FastPath, network: Network) {
    this.#fastPath = fastPath;
    this.#network = network;
    this.#hops = new DataView(fastPath.hopMemory);
  }

  /** Tells the routes, if they are not told yet. */
  tell(): void {
    if (!this.#isTold) this.#tellRoutes();
  }

  /** Writes next hops again. @param changed those that have changed; missing: any may have */
  refresh(changed?: ReadonlySet<NextHop>): void {
    this.tell();
    for (const [hop, number] of this.#numbers) if (!changed || changed.has(hop)) this.#write(number, hop);
  }

  /** Routes changed: nothing that was told holds any more. */
  forget(): void {
    for (const family of [4, 6] as const) {
      const map = this.#fastPath.routes[family];
      for (const key of map.keys()) map.delete(key);
    }
    this.#numbers.clear();
    this.#addresses = 0;
    this.#isTold = false;
    this.#fastPath.control.forgetWays();
  }

  #tellRoutes(): void {
    this.#isTold = true;
    if (!('routes' in this.#network)) return;
    const routes = [...(this.#network as Routed).routes()];
    if (routes.length > MOST_ROUTES) return;
    for (const { prefix, length, hop } of routes) this.#tell(prefix, length, hop ? this.#numberOf(hop) : 0);
  }

  /** Answers what the program asked. */
  answer(): void {
    const question = this.#question;
    const view = new DataView(question.buffer);
    while (this.#fastPath.unknownWays.pop(question)) {
      const family: Family = view.getUint32(0, true) === 6 ? 6 : 4;
      if (this.#network.isLocal(question, 4, family)) continue;
      const hop = this.#network.nextHop(question, 4, family);
      if (!hop) continue;
      if (++this.#addresses > MOST_ADDRESSES) {
        this.forget();
        this.refresh();
      }
      const length = family === 4 ? 4 : 16;
      this.#tell(question.slice(4, 4 + length), 8 * length, this.#numberOf(hop));
    }
  }

  #tell(prefix: Uint8Array, length: number, number: number): void {
    const key = new Uint8Array(new ArrayBuffer(4 + prefix.length));
    new DataView(key.buffer).setUint32(0, length, true);
    key.set(prefix, 4);
    const value = new Uint8Array(new ArrayBuffer(4));
    new DataView(value.buffer).setUint32(0, number, true);
    this.#fastPath.routes[prefix.length === 4 ? 4 : 6].update(key, value);
  }

  /** The number of a next hop; 0 if there are too many. */
  #numberOf(hop: NextHop): number {
    const known = this.#numbers.get(hop);
    if (known !== undefined) return known;
    const number = this.#numbers.size + 1;
    if (number >= HOPS) return 0;
    this.#numbers.set(hop, number);
    this.#write(number, hop);
    this.#fastPath.allowDevice(hop.interfaceIndex);
    return number;
  }

  #write(number: number, hop: NextHop): void {
    const at = number * HOP_BYTES;
    const bytes = new Uint8Array(this.#hops.buffer, at, HOP_BYTES);
    bytes.set(hop.destinationMac, HopField.nextMac);
    bytes.set(hop.sourceMac, HopField.sourceMac);
    this.#hops.setUint32(at + HopField.interfaceIndex, hop.interfaceIndex, true);
    this.#hops.setUint16(at + HopField.mtu, Math.min(hop.mtu, 65535), true);
    this.#hops.setUint16(at + HopField.isResolved, hop.resolved && !hop.directorOnly ? 1 : 0, true);
  }
}
