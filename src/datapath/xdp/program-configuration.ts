/**
 * Keeps the program in the kernel in step with a director: what is configured goes down, what the program counted comes
 * up. Whoever runs the two together needs it: the daemon, the player of scenarios, tests and measurements.
 */

import { DestinationFlag } from '../../ipvs/destinations.ts';
import type { Director } from '../../ipvs/director.ts';
import { PROTOCOL_NUMBERS } from '../../ipvs/service-index.ts';
import { type ServiceKey, serviceKeyText } from '../../ipvs/specification.ts';
import { COUNTER_STRIDE, Counter } from '../../ipvs/statistics.ts';
import { TCP_TIMEOUTS, TcpState } from '../../ipvs/tcp-states.ts';
import { formatAddress, parseAddress } from '../../wire/address.ts';
import { OWNER_BYTES, OwnerField, ServiceValue, serviceKey } from './control.ts';
import type { FastPath } from './fast-path.ts';

const FTP_PORT = 21;

export class ProgramConfiguration {
  readonly #fastPath: FastPath;
  readonly #director: Director;
  readonly #owners: DataView;
  /** By destination: what the program had forwarded when its counters were last taken over. */
  readonly #seenPackets: Float64Array;
  readonly #seenBytes: Float64Array;
  /** VIPs without a service whose connections live on. */
  readonly #lingering = new Map<string, Uint8Array>();
  #vips = new Map<string, Uint8Array>();

  /** @param director works on the tables of `fastPath` */
  constructor(fastPath: FastPath, director: Director) {
    this.#fastPath = fastPath;
    this.#director = director;
    this.#owners = new DataView(fastPath.ownerMemory);
    this.#seenPackets = new Float64Array(fastPath.destinationCapacity);
    this.#seenBytes = new Float64Array(fastPath.destinationCapacity);
  }

  /** `serviceKeyText` of the service that a destination's record was written for, by a predecessor perhaps. */
  ownerName(index: number): string {
    const at = index * OWNER_BYTES;
    const family = this.#owners.getUint8(at + OwnerField.family) === 6 ? 6 : 4;
    const number = this.#owners.getUint8(at + OwnerField.protocol);
    if (number === 0)
      return serviceKeyText({ mark: this.#owners.getUint32(at + OwnerField.mark, true), family });
    const protocol =
      number === PROTOCOL_NUMBERS.udp ? 'udp' : number === PROTOCOL_NUMBERS.sctp ? 'sctp' : 'tcp';
    const address = new Uint8Array(this.#owners.buffer, at + OwnerField.address, family === 6 ? 16 : 4);
    return serviceKeyText({
      protocol,
      address: formatAddress(address),
      port: this.#owners.getUint16(at + OwnerField.port),
    });
  }

  /** Notes which service a record is written for. True if it was another one before. */
  #writeOwner(index: number, key: ServiceKey): boolean {
    const record = new DataView(new ArrayBuffer(OWNER_BYTES));
    if ('mark' in key) {
      record.setUint8(OwnerField.family, key.family);
      record.setUint32(OwnerField.mark, key.mark, true);
    } else {
      const address = parseAddress(key.address) ?? new Uint8Array(4);
      record.setUint8(OwnerField.protocol, PROTOCOL_NUMBERS[key.protocol]);
      record.setUint8(OwnerField.family, address.length === 4 ? 4 : 6);
      record.setUint16(OwnerField.port, key.port);
      new Uint8Array(record.buffer).set(address, OwnerField.address);
    }
    const before = new Uint8Array(this.#owners.buffer, index * OWNER_BYTES, OWNER_BYTES);
    const after = new Uint8Array(record.buffer);
    if (before.every((byte, at) => byte === after[at])) return false;
    before.set(after);
    return true;
  }

  /** Tells the program what the director's configuration is now. */
  write(): void {
    const { administration, pool } = this.#director;
    const keys = new Map<string, { key: Uint8Array; value: number }>();
    const vips = new Map<string, Uint8Array>();
    const add = (key: Uint8Array, value: number): void => {
      const name = Buffer.from(key).toString('hex');
      keys.set(name, { key, value: value | (keys.get(name)?.value ?? 0) });
    };
    for (const { key } of administration.services()) {
      if ('mark' in key) continue;
      const address = parseAddress(key.address);
      if (!address) continue;
      vips.set(key.address, address);
      add(serviceKey(PROTOCOL_NUMBERS[key.protocol], address, key.port), 0);
      add(serviceKey(0, address, 0), key.protocol === 'tcp' && key.port === FTP_PORT ? ServiceValue.ftp : 0);
    }
    // Without services the virtual server stands aside; a VIP that lost its last one keeps its connections.
    if (vips.size === 0) this.#lingering.clear();
    else for (const [name, address] of this.#vips) if (!vips.has(name)) this.#lingering.set(name, address);
    this.#vips = vips;
    this.#writeServices(keys);
    this.#writeVips();
    const [tcp, udp] = this.#timeouts();
    this.#fastPath.control.setTimeouts(tcp, udp);
    for (const [index, owner] of pool.owners.entries()) {
      if (owner && this.#writeOwner(index, owner.service.key)) {
        this.#fastPath.clearTraffic(index);
        this.#seenPackets[index] = 0;
        this.#seenBytes[index] = 0;
      }
    }
    for (const hop of pool.hops) if (hop) this.#fastPath.allowDevice(hop.interfaceIndex);
  }

  #writeServices(keys: Map<string, { key: Uint8Array; value: number }>): void {
    const { services } = this.#fastPath;
    const existing = new Set(services.keys().map(key => Buffer.from(key).toString('hex')));
    for (const [name, { key, value }] of keys) {
      existing.delete(name);
      const word = new DataView(new ArrayBuffer(4));
      word.setUint32(0, value, true);
      services.update(key, new Uint8Array(word.buffer));
    }
    for (const name of existing) services.delete(Uint8Array.from(Buffer.from(name, 'hex')));
  }

  #writeVips(): void {
    for (const name of this.#vips.keys()) this.#lingering.delete(name);
    this.#fastPath.control.setVips([...this.#vips.values(), ...this.#lingering.values()]);
  }

  /** Milliseconds by TCP state, and for UDP. */
  #timeouts(): [number[], number] {
    const { tcp, tcpFin, udp } = this.#director.administration.timeouts();
    const states = TCP_TIMEOUTS.map(seconds => seconds * 1000);
    states[TcpState.established] = tcp * 1000;
    states[TcpState.finWait] = tcpFin * 1000;
    return [states, udp * 1000];
  }

  /** Takes over what the program counted since the last call. */
  takeCounts(): void {
    const { pool, destinations } = this.#director;
    for (const index of pool.owners.keys()) {
      if ((destinations.flags(index) & DestinationFlag.used) === 0) continue;
      const { packets, bytes } = this.#fastPath.traffic(index);
      const at = index * COUNTER_STRIDE;
      const { counters } = pool;
      counters[at + Counter.inPackets] =
        (counters[at + Counter.inPackets] as number) + packets - (this.#seenPackets[index] as number);
      counters[at + Counter.inBytes] =
        (counters[at + Counter.inBytes] as number) + bytes - (this.#seenBytes[index] as number);
      this.#seenPackets[index] = packets;
      this.#seenBytes[index] = bytes;
    }
  }

  /** Gives up VIPs without a service once all connections are gone. */
  forgetLingering(): void {
    if (this.#lingering.size === 0 || this.#director.connections.size > 0) return;
    this.#lingering.clear();
    this.#writeVips();
  }
}
