/**
 * What the program knows of a server beside its record, by destination index: the service that it belongs to, its
 * tunnel, and what it makes of addresses: replies that are translated, errors about tunnels.
 */
import { DESTINATION_BYTES, DestinationField, DestinationFlag, Forwarding } from '../../ipvs/destinations.ts';
import type { Director } from '../../ipvs/director.ts';
import type { NextHop } from '../../ipvs/network.ts';
import { PROTOCOL_NUMBERS } from '../../ipvs/service-index.ts';
import { type ServiceKey, serviceKeyText } from '../../ipvs/specification.ts';
import { formatAddress, parseAddress } from '../../wire/address.ts';
import type { AddressEntries, Claim } from './address-entries.ts';
import { OWNER_BYTES, OwnerField, TUNNEL_BYTES, TunnelField } from './control.ts';
import type { FastPath } from './fast-path.ts';

/** Who has to know which next hops servers are reached by. */
export interface HopHolder {
  /** A server is reached by it from now on, one more than before. */
  hold(hop: NextHop): void;
  /** One server less. */
  release(hop: NextHop): void;
}

export class ServerEntries {
  readonly #fastPath: FastPath;
  readonly #director: Director;
  readonly #addresses: AddressEntries;
  readonly #holder: HopHolder | undefined;
  readonly #owners: DataView;
  readonly #tunnels: DataView;
  /** Whose record it is. */
  readonly #servers: (Uint8Array | undefined)[] = [];
  /** Replies were translated at some time, or it was at the end of a tunnel: connections of then may remain. */
  readonly #translated: boolean[] = [];
  readonly #tunnelled: boolean[] = [];
  /** What is claimed for it now. */
  readonly #claims: Record<'server' | 'own', (Uint8Array | undefined)[]> = { server: [], own: [] };
  readonly #hops: (NextHop | undefined)[] = [];

  constructor(fastPath: FastPath, director: Director, addresses: AddressEntries, holder?: HopHolder) {
    this.#fastPath = fastPath;
    this.#director = director;
    this.#addresses = addresses;
    this.#holder = holder;
    this.#owners = new DataView(fastPath.ownerMemory);
    this.#tunnels = new DataView(fastPath.tunnelMemory);
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

  /**
   * Brings what is known of a destination up to date.
   * @returns true if its record is another service's now: its counters begin anew
   */
  write(index: number): boolean {
    const { pool, destinations } = this.#director;
    const isUsed = (destinations.flags(index) & DestinationFlag.used) !== 0;
    const owner = isUsed ? pool.owners[index] : undefined;
    const hop = isUsed ? pool.hops[index] : undefined;
    const at = index * DESTINATION_BYTES;
    const method = isUsed ? destinations.bytes[at + DestinationField.forwarding] : undefined;
    const address = isUsed ? this.#addressOf(index) : undefined;
    if (!isSame(address, this.#servers[index])) {
      this.#translated[index] = false;
      this.#tunnelled[index] = false;
    }
    this.#servers[index] = address;
    this.#translated[index] ||= method === Forwarding.masq || method === Forwarding.fullnat;
    this.#tunnelled[index] ||= method === Forwarding.tunnel;
    this.#claim('server', index, this.#translated[index] ? address : undefined);
    // Errors about what was sent into a tunnel come to the address that it was sent from.
    this.#claim('own', index, this.#tunnelled[index] ? hop?.sourceAddress : undefined);
    if (hop && method === Forwarding.tunnel) this.#writeTunnel(index, hop);
    this.#hold(index, hop);
    return owner !== undefined && this.#writeOwner(index, owner.service.key);
  }

  #addressOf(index: number): Uint8Array {
    const { pool, destinations } = this.#director;
    const at = index * DESTINATION_BYTES;
    const length = destinations.bytes[at + DestinationField.family] === 6 ? 16 : 4;
    const from = at + DestinationField.address;
    return pool.owners[index]?.address ?? destinations.bytes.slice(from, from + length);
  }

  #claim(claim: Claim & ('server' | 'own'), index: number, address: Uint8Array | undefined): void {
    const claims = this.#claims[claim];
    const before = claims[index];
    if (isSame(before, address)) return;
    if (address) this.#addresses.claim(claim, address);
    if (before) this.#addresses.release(claim, before);
    claims[index] = address;
  }

  #hold(index: number, hop: NextHop | undefined): void {
    const before = this.#hops[index];
    if (before === hop) return;
    if (hop) {
      this.#fastPath.allowDevice(hop.interfaceIndex);
      this.#holder?.hold(hop);
    }
    if (before) this.#holder?.release(before);
    this.#hops[index] = hop;
  }

  /** What outer headers of tunnels need beyond the destination's record. */
  #writeTunnel(index: number, hop: NextHop): void {
    const at = index * TUNNEL_BYTES;
    new Uint8Array(this.#tunnels.buffer).set(hop.sourceAddress, at + TunnelField.source);
    this.#tunnels.setUint16(at + TunnelField.port, this.#director.pool.tunnelPorts[index] as number);
  }

  /** Notes which service a record is written for. True if it was another one's before, not if nobody's. */
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
    if (Buffer.compare(before, after) === 0) return false;
    const wasNobodys = before[OwnerField.family] === 0;
    before.set(after);
    return !wasNobodys;
  }
}

function isSame(one: Uint8Array | undefined, other: Uint8Array | undefined): boolean {
  return one === other || (one !== undefined && other !== undefined && Buffer.compare(one, other) === 0);
}
