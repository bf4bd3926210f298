/**
 * A director on a described host for tests: 10.0.0.5 and 2001:db8::5 are its own, the VIPs 10.0.0.3 and 2001:db8::3 are
 * on it, everybody else is a neighbour. What it sends is kept.
 */
import { addressBytes, type Family, formatAddress, parseAddress } from '../wire/address.ts';
import { fillIcmpChecksum } from '../wire/icmp.ts';
import { fillIpv4Checksum, Protocol } from '../wire/ipv4.ts';
import { Malformed } from '../wire/malformed.ts';
import { Packet } from '../wire/packet.ts';
import { fillTcpChecksum } from '../wire/tcp.ts';
import { fillUdpChecksum } from '../wire/udp.ts';
import { Director, type DirectorOptions, type Verdict } from './director.ts';
import type { Network, NextHop } from './network.ts';
import type { HostAddresses } from './service-table.ts';
import type { DestinationSpecification, ProtocolName, ServiceKey } from './specification.ts';

const OWN = ['10.0.0.3', '10.0.0.5', '2001:db8::3', '2001:db8::5'];

export class DescribedNetwork implements Network, HostAddresses {
  /** Bytes; the same for every way but those in `mtus`. */
  mtu = 1500;
  readonly mtus = new Map<string, number>();
  /** The frames sent since the last `take`. */
  #sent: Uint8Array[] = [];

  isLocal(bytes: Uint8Array, at = 0, family: Family = bytes.length === 4 ? 4 : 6): boolean {
    return OWN.includes(formatAddress(bytes, at, addressBytes(family)));
  }

  isBroadcast(): boolean {
    return false;
  }

  interfaceMtu(): number {
    return this.mtu;
  }

  nextHop(bytes: Uint8Array, at: number, family: Family): NextHop {
    const address = formatAddress(bytes, at, addressBytes(family));
    return {
      interfaceIndex: 2,
      sourceMac: Uint8Array.of(2, 0, 0, 0, 0, 5),
      destinationMac: Uint8Array.of(2, 0, 0, 0, 9, bytes[at + addressBytes(family) - 1] as number),
      resolved: true,
      mtu: this.mtus.get(address) ?? this.mtu,
      sourceAddress: addressOf(family === 4 ? '10.0.0.5' : '2001:db8::5'),
    };
  }

  transmit(bytes: Uint8Array, start: number, end: number): void {
    this.#sent.push(bytes.slice(start, end));
  }

  take(): Uint8Array[] {
    const sent = this.#sent;
    this.#sent = [];
    return sent;
  }
}

export interface Bench {
  director: Director;
  network: DescribedNetwork;
  /** Lets a frame arrive; returns the verdict and what was sent. @throws Error if it does not parse */
  receive(frame: Uint8Array, now?: number): { verdict: Verdict; sent: Uint8Array[] };
}

export function makeBench(options: Partial<DirectorOptions> = {}): Bench {
  const network = new DescribedNetwork();
  const director = new Director({ network, host: network, capacity: 1024, ...options });
  const packet = new Packet();
  return {
    director,
    network,
    receive: (frame, now = 1000) => {
      const refused = packet.load(frame);
      if (refused !== Malformed.none) throw new Error(`the frame does not parse: ${refused}`);
      return { verdict: director.process(packet, 2, now), sent: network.take() };
    },
  };
}

/** A server by direct routing, but for where it is. */
export const PLAIN_SERVER: Omit<DestinationSpecification, 'address' | 'port'> = {
  method: 'gate',
  weight: 1,
  upperThreshold: 0,
  lowerThreshold: 0,
  tunnelType: 'ipip',
  tunnelPort: 0,
  tunnelChecksum: 'nocsum',
};

/** Adds a service of the VIP, with round robin if nothing else is said, and one server. Returns its key. */
export function addService(
  { director }: Bench,
  protocol: ProtocolName,
  family: Family,
  port: number,
  server: Partial<DestinationSpecification>,
  scheduler = 'rr',
): ServiceKey {
  const key: ServiceKey = { protocol, address: family === 4 ? '10.0.0.3' : '2001:db8::3', port };
  director.administration.addService({
    key,
    scheduler,
    schedulerFlags: 0,
    persistenceTimeout: 0,
    persistenceNetmask: family === 4 ? '255.255.255.255' : '128',
    persistenceEngine: '',
    onePacket: false,
  });
  director.administration.addDestination(key, {
    address: family === 4 ? '10.0.0.7' : '2001:db8::7',
    port,
    ...PLAIN_SERVER,
    ...server,
  });
  return key;
}

export function addressOf(text: string): Uint8Array {
  const bytes = parseAddress(text);
  if (!bytes) throw new RangeError(text);
  return bytes;
}

/** A parsed copy of a frame. @throws Error if it does not parse */
export function parsed(frame: Uint8Array | undefined): Packet {
  const packet = new Packet();
  if (!frame || packet.load(frame) !== Malformed.none) throw new Error('no frame that parses');
  return packet;
}

/** The frame with other addresses, its checksums right for them. */
export function readdressed(frame: Uint8Array, source: string, destination: string): Uint8Array {
  const packet = parsed(frame);
  packet.bytes.set(addressOf(source), packet.sourceAt);
  packet.bytes.set(addressOf(destination), packet.destinationAt);
  fillChecksums(packet);
  return packet.copy();
}

/** Makes all checksums of a packet right. */
export function fillChecksums(packet: Packet): void {
  const { view, network, transport, networkEnd } = packet;
  const family = packet.family === 6 ? 6 : 4;
  if (family === 4) fillIpv4Checksum(view, network);
  const length = networkEnd - transport;
  if (packet.protocol === Protocol.tcp) fillTcpChecksum(view, family, network, transport, length);
  if (packet.protocol === Protocol.udp) fillUdpChecksum(view, family, network, transport, length);
  if (packet.protocol === (family === 4 ? Protocol.icmp : Protocol.icmpv6)) {
    fillIcmpChecksum(view, family, network, transport, length);
  }
}

/** The IP packet of a frame. */
export function packetOf(frame: Uint8Array): Uint8Array {
  const packet = parsed(frame);
  return packet.bytes.slice(packet.network, packet.networkEnd);
}
