/** A host's TCP: finds the connection of a segment, accepts, refuses, and turns segments into packets. */
import { formatAddress, parseAddress } from '../wire/address.ts';
import { IPV4_HEADER, Protocol } from '../wire/ipv4.ts';
import { IPV6_HEADER } from '../wire/ipv6.ts';
import { MALFORMED_NAMES } from '../wire/malformed.ts';
import type { Packet } from '../wire/packet.ts';
import {
  checkTcpOptions,
  findTcpOption,
  TCP_HEADER,
  Tcp,
  TcpFlag,
  TcpOption,
  tcpHeaderLength,
  tcpSum,
  writeTcp,
} from '../wire/tcp.ts';
import type { Host } from './host.ts';
import type { IcmpError } from './icmp.ts';
import {
  LINUX_TCP_SETTINGS,
  TcpConnection,
  type TcpEndpoints,
  type TcpEnvironment,
  TcpError,
  type TcpErrorCode,
  type TcpSegment,
} from './tcp-connection.ts';

export interface ListenOptions {
  /** 1..65535. */
  port: number;
  /** Only connections to this address; left out: all of the host's. */
  address?: string;
}

export interface ConnectOptions {
  address: string;
  port: number;
  localAddress?: string;
  /** Left out: a free one. */
  localPort?: number;
}

export interface TcpListener {
  readonly port: number;
  readonly address: string | undefined;
  /** Stops accepting; connections that exist go on. */
  close(): void;
}

interface Listening extends TcpListener {
  accept: (connection: TcpConnection) => void;
}

const FIRST_EPHEMERAL_PORT = 32768;
const LAST_EPHEMERAL_PORT = 60999;
/** Half-open connections per host. */
const BACKLOG = 128;

export class TcpLayer {
  readonly #host: Host;
  /** Change it before opening connections. */
  settings = { ...LINUX_TCP_SETTINGS };
  #connections = new Map<string, TcpConnection>();
  #listeners: Listening[] = [];
  #nextPort: number;

  constructor(host: Host) {
    this.#host = host;
    this.#nextPort = FIRST_EPHEMERAL_PORT + host.simulation.random.below(20_000);
    host.ip.protocols.set(Protocol.tcp, packet => this.#receive(packet));
  }

  /** All connections, TIME-WAIT included. */
  connections(): TcpConnection[] {
    return [...this.#connections.values()];
  }

  /**
   * Accepts connections: `accept` gets each one when its handshake is complete, before its first data.
   * @throws Error if the port is taken
   */
  listen(options: ListenOptions, accept: (connection: TcpConnection) => void): TcpListener {
    const { port, address } = options;
    if (
      this.#listeners.some(
        each => each.port === port && (!each.address || !address || each.address === address),
      )
    )
      throw new Error(`${this.#host.name}: TCP port ${port} is in use`);
    const listener: Listening = {
      port,
      address,
      accept,
      close: () => {
        this.#listeners = this.#listeners.filter(each => each !== listener);
      },
    };
    this.#listeners.push(listener);
    return listener;
  }

  /**
   * Opens a connection and returns it at once, still in the handshake; set its callbacks.
   * @throws RangeError if an address is none, TcpError `net-unreachable` without a route
   */
  open(options: ConnectOptions): TcpConnection {
    const remote = parseAddress(options.address);
    if (!remote) throw new RangeError(`${options.address} is not an IP address`);
    const local = options.localAddress ? parseAddress(options.localAddress) : this.#host.ip.sourceFor(remote);
    if (!local || (!this.#host.isLocal(remote) && !this.#host.routes.find(remote)))
      throw new TcpError('net-unreachable', 'Network is unreachable');
    const endpoints: TcpEndpoints = {
      localAddress: formatAddress(local),
      localPort: 0,
      remoteAddress: formatAddress(remote),
      remotePort: options.port,
    };
    endpoints.localPort = options.localPort ?? this.#freePort(endpoints);
    if (this.#connections.has(keyOf(endpoints)))
      throw new Error(`${this.#host.name}: port ${endpoints.localPort} is in use for this destination`);
    const initialSequence = this.#host.simulation.random.uint32();
    const connection = TcpConnection.connect(this.#environment(endpoints), endpoints, initialSequence);
    this.#connections.set(keyOf(endpoints), connection);
    return connection;
  }

  /** Opens a connection; resolves when it is established, rejects with a TcpError (or what `open` throws). */
  connect(options: ConnectOptions): Promise<TcpConnection> {
    return new Promise((resolve, reject) => {
      const connection = this.open(options);
      connection.onOpen = () => resolve(connection);
      connection.onClose = error => reject(error ?? new TcpError('aborted', 'the connection was closed'));
    });
  }

  /** An ICMP error about a segment of this host. */
  receiveError(error: IcmpError): void {
    const connection = this.#connections.get(
      keyOf({
        localAddress: error.source,
        localPort: error.sourcePort,
        remoteAddress: error.destination,
        remotePort: error.destinationPort,
      }),
    );
    if (!connection) return;
    if (error.kind === 'too-big') {
      connection.pathShrank();
      return;
    }
    const code = UNREACHABLE[error.kind];
    if (code) connection.unreachable(code);
  }

  #receive(packet: Packet): void {
    const { view, network, transport, networkEnd } = packet;
    const family = packet.family === 4 ? 4 : 6;
    if (tcpSum(view, family, network, transport, networkEnd - transport) !== 0xffff) {
      this.#host.drop('tcp-checksum');
      return;
    }
    const refused = checkTcpOptions(view, transport);
    if (refused !== 0) {
      this.#host.drop(MALFORMED_NAMES[refused] as string);
      return;
    }
    const endpoints: TcpEndpoints = {
      localAddress: packet.destination,
      localPort: packet.destinationPort,
      remoteAddress: packet.source,
      remotePort: packet.sourcePort,
    };
    const segment = readSegment(packet);
    const known = this.#connections.get(keyOf(endpoints));
    if (known && !this.#supersedes(known, segment)) {
      known.receive(segment);
      return;
    }
    const isFirst = (segment.flags & (TcpFlag.syn | TcpFlag.ack | TcpFlag.rst | TcpFlag.fin)) === TcpFlag.syn;
    const listener = this.#listenerFor(endpoints);
    if (!listener || !isFirst) {
      this.#refuse(endpoints, segment);
      return;
    }
    let halfOpen = 0;
    for (const each of this.#connections.values()) if (each.state === 'SYN-RECEIVED') halfOpen++;
    if (halfOpen >= BACKLOG) {
      this.#host.drop('listen-overflow');
      return;
    }
    this.#accept(endpoints, segment, listener);
  }

  #listenerFor(endpoints: TcpEndpoints): Listening | undefined {
    return this.#listeners.find(
      each => each.port === endpoints.localPort && (!each.address || each.address === endpoints.localAddress),
    );
  }

  #accept(endpoints: TcpEndpoints, segment: TcpSegment, listener: Listening): void {
    const environment = this.#environment(endpoints);
    environment.accepted = () => {
      const connection = this.#connections.get(keyOf(endpoints));
      if (connection) listener.accept(connection);
    };
    const initialSequence = this.#host.simulation.random.uint32();
    const connection = TcpConnection.accept(environment, endpoints, initialSequence, segment);
    this.#connections.set(keyOf(endpoints), connection);
  }

  /** A newer SYN for a connection in TIME-WAIT opens a new one in its place (RFC 1122 section 4.2.2.13). */
  #supersedes(known: TcpConnection, segment: TcpSegment): boolean {
    if (known.state !== 'TIME-WAIT') return false;
    if ((segment.flags & (TcpFlag.syn | TcpFlag.ack | TcpFlag.rst)) !== TcpFlag.syn) return false;
    if (((segment.sequence - known.receiveNext) | 0) <= 0) return false;
    known.abort();
    return true;
  }

  /** RFC 9293 section 3.10.7.1: what belongs to no connection is answered with a reset. */
  #refuse(endpoints: TcpEndpoints, segment: TcpSegment): void {
    if (segment.flags & TcpFlag.rst) return;
    this.#host.drop('no-socket');
    const hasAck = (segment.flags & TcpFlag.ack) !== 0;
    const length =
      segment.data.length + (segment.flags & TcpFlag.syn ? 1 : 0) + (segment.flags & TcpFlag.fin ? 1 : 0);
    this.#emit(endpoints, {
      sequence: hasAck ? segment.acknowledgement : 0,
      acknowledgement: hasAck ? 0 : (segment.sequence + length) >>> 0,
      flags: hasAck ? TcpFlag.rst : TcpFlag.rst | TcpFlag.ack,
      window: 0,
      data: new Uint8Array(0),
      maximumSegmentSize: undefined,
      windowScale: undefined,
    });
  }

  #environment(endpoints: TcpEndpoints): TcpEnvironment {
    const remote = parseAddress(endpoints.remoteAddress) as Uint8Array;
    const header = (remote.length === 4 ? IPV4_HEADER : IPV6_HEADER) + TCP_HEADER;
    return {
      simulation: this.#host.simulation,
      settings: this.settings,
      pathSegmentSize: () => this.#host.ip.pathMtu(remote) - header,
      emit: segment => this.#emit(endpoints, segment) !== 'too-big',
      confirm: () => this.#host.confirm(remote),
      accepted: () => {},
      removed: () => {
        this.#connections.delete(keyOf(endpoints));
      },
    };
  }

  #emit(endpoints: TcpEndpoints, segment: TcpSegment): string {
    const options = writeOptions(segment);
    const payload = new Uint8Array(TCP_HEADER + options.length + segment.data.length);
    const at = writeTcp(new DataView(payload.buffer), payload, 0, {
      sourcePort: endpoints.localPort,
      destinationPort: endpoints.remotePort,
      sequence: segment.sequence,
      acknowledgement: segment.acknowledgement,
      flags: segment.flags,
      window: segment.window,
      options,
    });
    payload.set(segment.data, at);
    return this.#host.ip.send({
      source: parseAddress(endpoints.localAddress),
      destination: parseAddress(endpoints.remoteAddress) as Uint8Array,
      protocol: Protocol.tcp,
      payload,
      dontFragment: true,
    });
  }

  #freePort(endpoints: TcpEndpoints): number {
    for (let tried = FIRST_EPHEMERAL_PORT; tried <= LAST_EPHEMERAL_PORT; tried++) {
      const port = this.#nextPort;
      this.#nextPort = port === LAST_EPHEMERAL_PORT ? FIRST_EPHEMERAL_PORT : port + 1;
      if (!this.#connections.has(keyOf({ ...endpoints, localPort: port }))) return port;
    }
    throw new Error(`${this.#host.name}: no free TCP port`);
  }
}

const UNREACHABLE: Partial<Record<IcmpError['kind'], TcpErrorCode>> = {
  'net-unreachable': 'net-unreachable',
  'host-unreachable': 'host-unreachable',
  'port-unreachable': 'refused',
  'time-exceeded': 'host-unreachable',
  other: 'host-unreachable',
};

function keyOf(endpoints: TcpEndpoints): string {
  return `${endpoints.localAddress} ${endpoints.localPort} ${endpoints.remoteAddress} ${endpoints.remotePort}`;
}

function readSegment(packet: Packet): TcpSegment {
  const { view, bytes, transport, networkEnd } = packet;
  const size = findTcpOption(view, transport, TcpOption.maximumSegmentSize);
  const scale = findTcpOption(view, transport, TcpOption.windowScale);
  return {
    sequence: view.getUint32(transport + Tcp.sequence),
    acknowledgement: view.getUint32(transport + Tcp.acknowledgement),
    flags: packet.tcpFlags,
    window: view.getUint16(transport + Tcp.window),
    data: bytes.slice(transport + tcpHeaderLength(view, transport), networkEnd),
    maximumSegmentSize: size >= 0 && view.getUint8(size + 1) === 4 ? view.getUint16(size + 2) : undefined,
    windowScale: scale >= 0 && view.getUint8(scale + 1) === 3 ? view.getUint8(scale + 2) : undefined,
  };
}

function writeOptions(segment: TcpSegment): Uint8Array {
  const options: number[] = [];
  const { maximumSegmentSize, windowScale } = segment;
  if (maximumSegmentSize !== undefined)
    options.push(TcpOption.maximumSegmentSize, 4, maximumSegmentSize >>> 8, maximumSegmentSize & 0xff);
  if (windowScale !== undefined) options.push(TcpOption.nop, TcpOption.windowScale, 3, windowScale);
  return Uint8Array.from(options);
}
