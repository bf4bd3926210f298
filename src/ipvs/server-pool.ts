/**
 * The real servers as the packet path needs them: their records, ways and counters, by index in the destination table.
 * A deleted server keeps its record while connections refer to it (the kernel's "trash"): added again to the same
 * service in that time, it comes back with its counts, and its connections work again.
 */
import { addressBytes, type Family, formatAddress } from '../wire/address.ts';
import {
  DESTINATION_BYTES,
  DestinationField,
  DestinationFlag,
  type DestinationTable,
  Forwarding,
  TunnelFlag,
  TunnelType,
} from './destinations.ts';
import type { Network, NextHop } from './network.ts';
import { PathMtus } from './path-mtus.ts';
import type { Destination } from './service-table.ts';
import { type ForwardingMethod, IpvsError, type Statistics, type TunnelChecksum } from './specification.ts';
import { COUNTER_STRIDE, hasCounted, Tally } from './statistics.ts';

const FORWARDING: Readonly<Record<ForwardingMethod, number>> = {
  masq: Forwarding.masq,
  tunnel: Forwarding.tunnel,
  gate: Forwarding.gate,
  fullnat: Forwarding.fullnat,
};

const TUNNEL_FLAGS: Readonly<Record<TunnelChecksum, number>> = {
  nocsum: 0,
  csum: TunnelFlag.checksum,
  remcsum: TunnelFlag.remoteChecksum,
};

/** Milliseconds a deleted server without connections is remembered with its counters (IP_VS_DEST_TRASH_PERIOD). */
const TRASH_PERIOD = 120_000;
/** Milliseconds between two looks at them. */
const TRASH_CHECK = 60_000;

interface Trashed {
  index: number;
  /** When a check first found that nothing refers to it, milliseconds. */
  idleSince: number | undefined;
}

export class ServerPool {
  readonly table: DestinationTable;
  /** `COUNTER_STRIDE` counters a destination, see `Counter`. */
  readonly counters: Float64Array;
  /** Templates bound to a destination. */
  readonly persistent: Int32Array;
  /** The way to each destination; undefined: none, or it is this host itself. */
  readonly hops: (NextHop | undefined)[] = [];
  /** UDP port of a destination's GUE tunnel. */
  readonly tunnelPorts: Uint16Array;
  /** What is known of the ways' MTUs beyond the first link. */
  readonly pathMtus: PathMtus;
  /** The destination of an index; for one in the trash, what it was. */
  readonly owners: (Destination | undefined)[] = [];
  /** What whoever needs room for more servers can do, to follow what is wrong; empty: the kernel's words are enough. */
  advice = '';
  /** Told of each destination whose record, owner or way is written or given up, for who keeps what depends on it. */
  onChange: (index: number) => void = () => {};
  readonly #tallies: (Tally | undefined)[] = [];
  readonly #network: Network;
  readonly #trash = new Map<string, Trashed>();
  #nextTrashCheck = 0;
  /** Records whose servers' replies are translated, or were before an edit, by address: how many. */
  readonly #translated = new Map<string, number>();
  readonly #wasTranslated: boolean[] = [];

  constructor(table: DestinationTable, network: Network) {
    this.table = table;
    this.#network = network;
    this.counters = new Float64Array(table.capacity * COUNTER_STRIDE);
    this.persistent = new Int32Array(table.capacity);
    this.tunnelPorts = new Uint16Array(table.capacity);
    this.pathMtus = new PathMtus(table.capacity);
  }

  /** Gives a destination its record, or the one it had. @throws IpvsError ENOMEM */
  add(destination: Destination): void {
    const key = trashKey(destination);
    const trashed = this.#trash.get(key);
    if (trashed) {
      this.#trash.delete(key);
      destination.index = trashed.index;
      if (this.owners[trashed.index]?.service !== destination.service) this.zero(trashed.index);
    } else {
      destination.index = this.table.allocate();
      if (destination.index < 0) {
        throw new IpvsError(
          'ENOMEM',
          `no room for more than ${this.table.capacity} real servers${this.advice}`,
          {
            isOwn: this.advice !== '',
          },
        );
      }
      this.#tallies[destination.index] = undefined;
      this.counters.fill(0, destination.index * COUNTER_STRIDE, (destination.index + 1) * COUNTER_STRIDE);
    }
    this.owners[destination.index] = destination;
    const { view } = this.table;
    const at = destination.index * DESTINATION_BYTES;
    view.setUint16(at + DestinationField.port, destination.specification.port);
    view.setUint8(at + DestinationField.family, destination.family);
    this.table.bytes.set(destination.address, at + DestinationField.address);
    this.update(destination);
    this.table.setFlag(destination.index, DestinationFlag.available, true);
  }

  /** Writes the properties that may change. Overload begins and ends with other thresholds, too. */
  update(destination: Destination): void {
    const { view } = this.table;
    const { index, specification } = destination;
    const at = index * DESTINATION_BYTES;
    const { table } = this;
    const haveChanged =
      table.upperThreshold(index) !== specification.upperThreshold ||
      table.lowerThreshold(index) !== specification.lowerThreshold;
    view.setUint32(at + DestinationField.weight, specification.weight, true);
    view.setUint32(at + DestinationField.upperThreshold, specification.upperThreshold, true);
    view.setUint32(at + DestinationField.lowerThreshold, specification.lowerThreshold, true);
    if (haveChanged) table.updateOverload(index);
    view.setUint8(at + DestinationField.forwarding, FORWARDING[specification.method]);
    if (specification.method === 'masq' || specification.method === 'fullnat')
      this.#noteTranslated(destination);
    view.setUint8(at + DestinationField.tunnelType, TunnelType[specification.tunnelType]);
    view.setUint8(at + DestinationField.tunnelFlags, TUNNEL_FLAGS[specification.tunnelChecksum]);
    this.tunnelPorts[index] = specification.tunnelPort;
    this.resolve(index);
  }

  /** Takes a destination out of its service; its record stays while connections refer to it. */
  remove(destination: Destination, now: number): void {
    this.table.setFlag(destination.index, DestinationFlag.available, false);
    if (this.#trash.size === 0) this.#nextTrashCheck = now + TRASH_CHECK;
    this.#trash.set(trashKey(destination), { index: destination.index, idleSince: undefined });
  }

  /**
   * Takes over a record that a predecessor left in the table, as if its server had just been deleted: added to the
   * same service again, the server finds its connections.
   * @param service `serviceKeyText` of the service it belonged to
   */
  adopt(index: number, service: string, address: string, port: number, now: number): void {
    this.#trash.set(`${service} ${address} ${port}`, { index, idleSince: now });
  }

  /** Every minute, frees the records of deleted servers that nothing has referred to for two (ip_vs_dest_trash_expire). */
  sweep(now: number): void {
    this.pathMtus.sweep(now, index => this.writeHop(index, this.hops[index]));
    if (this.#trash.size === 0 || now < this.#nextTrashCheck) return;
    this.#nextTrashCheck = now + TRASH_CHECK;
    for (const [key, trashed] of this.#trash) {
      const { index } = trashed;
      if (this.references(index) > 0) continue;
      trashed.idleSince ??= now;
      if (now - trashed.idleSince < TRASH_PERIOD) continue;
      this.#trash.delete(key);
      this.#forgetTranslated(index);
      this.owners[index] = undefined;
      this.hops[index] = undefined;
      this.pathMtus.forget(index);
      this.table.release(index);
      this.onChange(index);
    }
  }

  /** Connections and templates bound to a destination. */
  references(index: number): number {
    return this.table.active(index) + this.table.inactive(index) + (this.persistent[index] as number);
  }

  /** Asks for the way to a destination again and writes it into its record. */
  resolve(index: number): void {
    const destination = this.owners[index];
    if (!destination) return;
    const { address, family } = destination;
    const hop = this.#network.isLocal(address, 0, family)
      ? undefined
      : this.#network.nextHop(address, 0, family);
    this.hops[index] = hop;
    this.writeHop(index, hop);
  }

  /** The MTU of the way to a destination, for the packet that is about to be sent there. */
  useMtu(index: number, hop: NextHop): number {
    const isPending = this.pathMtus.isPending(index);
    const mtu = this.pathMtus.use(index, hop.mtu);
    if (isPending) this.writeHop(index, hop);
    return mtu;
  }

  /** Writes a way into a destination's record. */
  writeHop(index: number, hop: NextHop | undefined): void {
    const { bytes, view } = this.table;
    const at = index * DESTINATION_BYTES;
    if (hop?.resolved) {
      bytes.set(hop.destinationMac, at + DestinationField.nextMac);
      bytes.set(hop.sourceMac, at + DestinationField.sourceMac);
      // The next packet has to come by the director to put into effect what was learned: nothing else fits.
      const mtu = this.pathMtus.isPending(index) ? 0 : this.pathMtus.forNext(index, hop.mtu);
      view.setUint16(at + DestinationField.mtu, Math.min(mtu, 65535), true);
      view.setUint32(at + DestinationField.interfaceIndex, hop.interfaceIndex, true);
    }
    this.table.setFlag(index, DestinationFlag.resolved, hop?.resolved === true && !hop.directorOnly);
    this.onChange(index);
  }

  /** Brings the records of destinations up to date whose next hops are among these, which have changed. */
  rewrite(hops: ReadonlySet<NextHop>): void {
    for (const [index, hop] of this.hops.entries()) if (hop && hops.has(hop)) this.writeHop(index, hop);
  }

  /** Brings all records up to date with routes and neighbours. */
  resolveAll(): void {
    for (let index = 0; index < this.owners.length; index++) if (this.owners[index]) this.resolve(index);
  }

  /**
   * Takes note of an ICMP error of a router on the way to a destination: the way carries no more than `mtu` bytes. All
   * destinations at the address learn it.
   */
  learnPathMtu(index: number, mtu: number, now: number): void {
    const told = this.owners[index];
    if (!told) return;
    for (const [other, owner] of this.owners.entries()) {
      const hop = this.hops[other];
      if (!owner || !hop || !sameAddress(owner.address, told.address)) continue;
      this.pathMtus.learn(other, mtu, hop.mtu, now);
      this.writeHop(other, hop);
    }
  }

  /**
   * True for the address of a server whose replies may have to be translated: by its method now, or by one it had before,
   * while its record remains.
   */
  isTranslated(bytes: Uint8Array, at: number, family: Family): boolean {
    return this.#translated.size > 0 && this.#translated.has(formatAddress(bytes, at, addressBytes(family)));
  }

  #noteTranslated({ index, address }: Destination): void {
    if (this.#wasTranslated[index]) return;
    this.#wasTranslated[index] = true;
    const text = formatAddress(address);
    this.#translated.set(text, (this.#translated.get(text) ?? 0) + 1);
  }

  #forgetTranslated(index: number): void {
    const owner = this.owners[index];
    if (!owner || !this.#wasTranslated[index]) return;
    this.#wasTranslated[index] = false;
    const text = formatAddress(owner.address);
    const count = (this.#translated.get(text) ?? 0) - 1;
    if (count > 0) this.#translated.set(text, count);
    else this.#translated.delete(text);
  }

  zero(index: number): void {
    this.#tallies[index]?.zero(this.counters, index * COUNTER_STRIDE);
  }

  /** Takes a sample of a destination's rates. One that never counted anything has none, and costs nothing. */
  estimate(index: number, seconds: number): void {
    const at = index * COUNTER_STRIDE;
    let tally = this.#tallies[index];
    if (!tally) {
      if (!hasCounted(this.counters, at)) return;
      tally = new Tally();
      this.#tallies[index] = tally;
    }
    tally.estimate(this.counters, at, seconds);
  }

  /** What a destination has counted, and its rates. */
  statistics(index: number): Statistics {
    return (this.#tallies[index] ?? NO_RATES).statistics(this.counters, index * COUNTER_STRIDE);
  }
}

const NO_RATES = new Tally();

function trashKey(destination: Destination): string {
  return `${destination.service.name} ${destination.specification.address} ${destination.specification.port}`;
}

function sameAddress(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, index) => byte === other[index]);
}
