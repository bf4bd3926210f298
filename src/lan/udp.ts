/** UDP sockets of a host (RFC 768). */
import { parseAddress } from '../wire/address.ts';
import { IcmpType, Icmpv6Type, Unreachable6Code, UnreachableCode } from '../wire/icmp.ts';
import { Protocol } from '../wire/ipv4.ts';
import type { Packet } from '../wire/packet.ts';
import { UDP_HEADER, Udp, udpSum, writeUdp } from '../wire/udp.ts';
import type { Host } from './host.ts';
import type { IcmpError } from './icmp.ts';
import { isBroadcast, isMulticast, type SendResult } from './ip.ts';

export interface UdpMessage {
  data: Uint8Array;
  /** Sender. */
  address: string;
  port: number;
  /** The address of this host it was sent to. */
  localAddress: string;
}

export class UdpSocket {
  readonly port: number;
  /** Only messages to this address; undefined takes all of the host's. */
  readonly address: string | undefined;
  /** Called for each message. */
  onMessage: (message: UdpMessage) => void = () => {};
  /** Called when an ICMP error comes back for something this socket sent. */
  onError: (error: IcmpError) => void = () => {};
  #layer: UdpLayer;

  constructor(layer: UdpLayer, port: number, address: string | undefined) {
    this.#layer = layer;
    this.port = port;
    this.address = address;
  }

  /**
   * Sends a message.
   * @throws RangeError if `address` is no IP address
   */
  send(address: string, port: number, data: Uint8Array, from = this.address): SendResult {
    return this.#layer.send(this.port, address, port, data, from);
  }

  close(): void {
    this.#layer.close(this);
  }
}

const FIRST_EPHEMERAL_PORT = 32768;

export class UdpLayer {
  readonly #host: Host;
  #sockets: UdpSocket[] = [];
  #nextPort = FIRST_EPHEMERAL_PORT;

  constructor(host: Host) {
    this.#host = host;
    host.ip.protocols.set(Protocol.udp, packet => this.#receive(packet));
  }

  /**
   * Opens a socket.
   * @param port 1..65535, or 0 for a free one
   * @throws Error if the port is taken
   */
  open(port = 0, address?: string): UdpSocket {
    const local = port === 0 ? this.#freePort() : port;
    if (
      this.#sockets.some(
        each => each.port === local && (!each.address || !address || each.address === address),
      )
    )
      throw new Error(`${this.#host.name}: UDP port ${local} is in use`);
    const socket = new UdpSocket(this, local, address);
    this.#sockets.push(socket);
    return socket;
  }

  close(socket: UdpSocket): void {
    this.#sockets = this.#sockets.filter(each => each !== socket);
  }

  send(
    localPort: number,
    address: string,
    port: number,
    data: Uint8Array,
    from: string | undefined,
  ): SendResult {
    const destination = parseAddress(address);
    const source = from === undefined ? undefined : parseAddress(from);
    if (!destination) throw new RangeError(`${address} is not an IP address`);
    const payload = new Uint8Array(UDP_HEADER + data.length);
    writeUdp(new DataView(payload.buffer), 0, localPort, port, payload.length);
    payload.set(data, UDP_HEADER);
    return this.#host.ip.send({ source, destination, protocol: Protocol.udp, payload });
  }

  /** An ICMP error about a datagram of this host. */
  receiveError(error: IcmpError): void {
    for (const socket of this.#sockets) if (socket.port === error.sourcePort) socket.onError(error);
  }

  #receive(packet: Packet): void {
    const { view, network, transport } = packet;
    const family = packet.family === 4 ? 4 : 6;
    const length = view.getUint16(transport + Udp.length);
    const checksum = view.getUint16(transport + Udp.checksum);
    // IPv4 may leave it out; IPv6 may not (RFC 8200 section 8.1).
    const wrong = checksum === 0 ? family === 6 : udpSum(view, family, network, transport, length) !== 0xffff;
    if (wrong) {
      this.#host.drop('udp-checksum');
      return;
    }
    const localAddress = packet.destination;
    const socket = this.#sockets.find(
      each => each.port === packet.destinationPort && (!each.address || each.address === localAddress),
    );
    if (socket) {
      const data = packet.bytes.slice(transport + UDP_HEADER, transport + length);
      socket.onMessage({ data, address: packet.source, port: packet.sourcePort, localAddress });
      return;
    }
    this.#host.drop('no-socket');
    const destination = parseAddress(localAddress);
    const toGroup = !destination || isMulticast(destination);
    if (toGroup || this.#host.interfaces.some(each => isBroadcast(destination, each))) return;
    if (family === 4) this.#host.icmp.error(packet, IcmpType.unreachable, UnreachableCode.port, 0);
    else this.#host.icmp.error(packet, Icmpv6Type.unreachable, Unreachable6Code.port, 0);
  }

  #freePort(): number {
    for (let tried = 0; tried < 28232; tried++) {
      const port = this.#nextPort;
      this.#nextPort = port === 60999 ? FIRST_EPHEMERAL_PORT : port + 1;
      if (!this.#sockets.some(each => each.port === port)) return port;
    }
    throw new Error(`${this.#host.name}: no free UDP port`);
  }
}
