/** Which service a packet is for: the kernel's order of lookups (ip_vs_service_find) over a hash of the services. */
import { addressBytes, type Family, formatAddress } from '../wire/address.ts';
import { Protocol } from '../wire/ipv4.ts';
import type { Service } from './service-table.ts';
import type { ProtocolName } from './specification.ts';

export const PROTOCOL_NUMBERS: Readonly<Record<ProtocolName, number>> = {
  tcp: Protocol.tcp,
  udp: Protocol.udp,
  sctp: Protocol.sctp,
};

const FTP_PORT = 21;
const FTP_DATA_PORT = 20;
/** Ports from here on need no privilege; a passive FTP server listens on one of them. */
const FIRST_UNPRIVILEGED_PORT = 1024;

export class ServiceIndex {
  /** By hash; services that share one stand in a list. */
  readonly #services = new Map<number, Service[]>();
  readonly #marks = new Map<number, Service>();
  /** Services of marks, by family. */
  readonly #marked = { 4: 0, 6: 0 };
  /** How many services have an address. */
  readonly #addresses = new Map<string, number>();
  #ftpServices = 0;
  #anyPortServices = 0;
  /** Services in the index, by family. */
  size4 = 0;
  size6 = 0;

  add(service: Service): void {
    if (service.family === 4) this.size4++;
    else this.size6++;
    if ('mark' in service.key) {
      this.#marks.set(markKey(service.key.mark, service.key.family), service);
      this.#marked[service.key.family]++;
      return;
    }
    if (service.key.port === FTP_PORT) this.#ftpServices++;
    if (service.key.port === 0) this.#anyPortServices++;
    this.#addresses.set(service.key.address, (this.#addresses.get(service.key.address) ?? 0) + 1);
    const hash = hashOf(service);
    const bucket = this.#services.get(hash);
    if (bucket) bucket.push(service);
    else this.#services.set(hash, [service]);
  }

  remove(service: Service): void {
    if (service.family === 4) this.size4--;
    else this.size6--;
    if ('mark' in service.key) {
      this.#marks.delete(markKey(service.key.mark, service.key.family));
      this.#marked[service.key.family]--;
      return;
    }
    if (service.key.port === FTP_PORT) this.#ftpServices--;
    if (service.key.port === 0) this.#anyPortServices--;
    const others = (this.#addresses.get(service.key.address) ?? 1) - 1;
    if (others > 0) this.#addresses.set(service.key.address, others);
    else this.#addresses.delete(service.key.address);
    const hash = hashOf(service);
    const bucket = (this.#services.get(hash) ?? []).filter(other => other !== service);
    if (bucket.length > 0) this.#services.set(hash, bucket);
    else this.#services.delete(hash);
  }

  /** True if there may be a service for packets to this address: it is a VIP, or marks decide. */
  mayServe(bytes: Uint8Array, addressAt: number, family: Family): boolean {
    return (
      this.#marked[family] > 0 || this.#addresses.has(formatAddress(bytes, addressAt, addressBytes(family)))
    );
  }

  /**
   * The service for a packet to this protocol, address and port: that of the firewall mark first, then the exact one,
   * the FTP service whose data connection it may be, and the one for any port.
   * @param mark 0: none
   */
  find(
    mark: number,
    family: Family,
    protocol: number,
    bytes: Uint8Array,
    view: DataView,
    addressAt: number,
    port: number,
  ): Service | undefined {
    if (mark !== 0) {
      const marked = this.#marks.get(markKey(mark, family));
      if (marked) return marked;
    }
    const address = hashAddress(view, addressAt, family) ^ protocol;
    let found = this.#exact(address, family, protocol, bytes, addressAt, port);
    if (found) return found;
    if (
      this.#ftpServices > 0 &&
      protocol === Protocol.tcp &&
      (port === FTP_DATA_PORT || port >= FIRST_UNPRIVILEGED_PORT)
    ) {
      found = this.#exact(address, family, protocol, bytes, addressAt, FTP_PORT);
      if (found) return found;
    }
    return this.#anyPortServices > 0
      ? this.#exact(address, family, protocol, bytes, addressAt, 0)
      : undefined;
  }

  #exact(
    address: number,
    family: Family,
    protocol: number,
    bytes: Uint8Array,
    addressAt: number,
    port: number,
  ): Service | undefined {
    const bucket = this.#services.get(address ^ (port << 8));
    if (!bucket) return undefined;
    for (let index = 0; index < bucket.length; index++) {
      const service = bucket[index] as Service;
      if (service.family === family && isFor(service, protocol, bytes, addressAt, port)) return service;
    }
    return undefined;
  }
}

function isFor(
  service: Service,
  protocol: number,
  bytes: Uint8Array,
  addressAt: number,
  port: number,
): boolean {
  const { key, address } = service;
  if ('mark' in key || key.port !== port || PROTOCOL_NUMBERS[key.protocol] !== protocol || !address)
    return false;
  for (let index = 0; index < address.length; index++) {
    if (bytes[addressAt + index] !== address[index]) return false;
  }
  return true;
}

function markKey(mark: number, family: Family): number {
  return family === 6 ? mark + 0x1_0000_0000 : mark;
}

function hashAddress(view: DataView, at: number, family: Family): number {
  const first = view.getInt32(at, true);
  if (family === 4) return first;
  return first ^ view.getInt32(at + 4, true) ^ view.getInt32(at + 8, true) ^ view.getInt32(at + 12, true);
}

function hashOf(service: Service): number {
  if ('mark' in service.key || !service.address) return 0;
  const view = new DataView(service.address.buffer, service.address.byteOffset, service.address.length);
  return (
    hashAddress(view, 0, service.family) ^ PROTOCOL_NUMBERS[service.key.protocol] ^ (service.key.port << 8)
  );
}
