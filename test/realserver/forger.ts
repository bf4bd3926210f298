/** TCP by hand: connections from any address, with any options in the segment that completes the handshake. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { inNetworkNamespace, interfaceIndex } from '../../src/datapath/ffi/libc.ts';
import { PacketTap } from '../../src/datapath/ffi/packet-tap.ts';
import { familyOf, parseAddress, parseMac } from '../../src/wire/address.ts';
import { EtherType, writeEthernet } from '../../src/wire/ethernet.ts';
import { IPV4_HEADER, Protocol, writeIpv4 } from '../../src/wire/ipv4.ts';
import { IPV6_HEADER, writeIpv6 } from '../../src/wire/ipv6.ts';
import { Packet } from '../../src/wire/packet.ts';
import { fillTcpChecksum, TCP_HEADER, Tcp, TcpFlag, tcpHeaderLength, writeTcp } from '../../src/wire/tcp.ts';
import type { NamespaceLab } from '../namespaces.ts';

const PATIENCE = 3000;

interface Segment {
  port: number;
  flags: number;
  sequence: number;
  acknowledgement: number;
  options: Uint8Array;
  data: string;
}

interface Seen {
  flags: number;
  sequence: number;
  data: string;
}

export class Forger {
  readonly #tap: PacketTap;
  readonly #source: Uint8Array;
  readonly #target: Uint8Array;
  readonly #seen: { port: number; segment: Seen }[] = [];
  readonly #packet = new Packet(8192);
  #port = 40_000;

  /** Sends from one host's eth0 to another's. */
  constructor(lab: NamespaceLab, from: string, to: string) {
    const mac = (host: string): Uint8Array => {
      const [link] = JSON.parse(lab.run(host, 'ip', '-j', 'link', 'show', 'eth0')) as { address: string }[];
      return parseMac(link?.address ?? '') ?? new Uint8Array(6);
    };
    this.#source = mac(from);
    this.#target = mac(to);
    this.#tap = inNetworkNamespace(
      lab.namespace(from),
      () =>
        new PacketTap({ interfaceIndex: interfaceIndex('eth0'), interfaceName: 'eth0', promiscuous: true }),
    );
    this.#tap.watch(({ bytes }) => {
      if (this.#packet.load(bytes) !== 0 || this.#packet.protocol !== Protocol.tcp) return;
      const { view, transport, networkEnd, tcpFlags, destinationPort } = this.#packet;
      const data = this.#packet.bytes.subarray(transport + tcpHeaderLength(view, transport), networkEnd);
      const sequence = view.getUint32(transport + Tcp.sequence);
      this.#seen.push({
        port: destinationPort,
        segment: { flags: tcpFlags, sequence, data: new TextDecoder().decode(data) },
      });
    });
  }

  /** Sends a SYN from `source` to a VIP inside of an IPIP packet from `outer` to the server. */
  sendTunnelled(outer: string, server: string, source: string, vip: string): void {
    const none = new Uint8Array(0);
    const inner = this.#packetFor(source, vip, {
      port: this.#port++,
      flags: TcpFlag.syn,
      sequence: 1000,
      acknowledgement: 0,
      options: none,
      data: '',
    });
    const frame = new Uint8Array(14 + IPV4_HEADER + inner.length);
    writeEthernet(frame, 0, this.#target, this.#source, EtherType.ipv4);
    writeIpv4(new DataView(frame.buffer), frame, 14, {
      source: bytesOf(outer),
      destination: bytesOf(server),
      totalLength: IPV4_HEADER + inner.length,
      ttl: 64,
      protocol: Protocol.ipv4,
    });
    frame.set(inner, 14 + IPV4_HEADER);
    this.#tap.send(frame);
  }

  /**
   * Opens a connection as `source` to `destination`, whose last handshake segment has `options`, asks for `path` and
   * returns the body of the answer, as far as it came in one segment.
   */
  async ask(source: string, destination: string, options: Uint8Array, path: string): Promise<string> {
    const port = this.#port++;
    const send = (
      flags: number,
      sequence: number,
      acknowledgement: number,
      more: Uint8Array,
      data = '',
    ): void => {
      this.#send(source, destination, { port, flags, sequence, acknowledgement, options: more, data });
    };
    const none = new Uint8Array(0);
    send(TcpFlag.syn, 1000, 0, none);
    const { sequence } = await this.#wait(port, ({ flags }) => (flags & TcpFlag.syn) !== 0, 'the SYN/ACK');
    const next = (sequence + 1) >>> 0;
    send(TcpFlag.ack, 1001, next, options);
    send(TcpFlag.ack | TcpFlag.psh, 1001, next, none, `GET ${path} HTTP/1.0\r\n\r\n`);
    const { data } = await this.#wait(port, seen => seen.data !== '', 'an answer');
    send(TcpFlag.rst, 1001 + path.length + 17, 0, none);
    return data.split('\r\n\r\n')[1] ?? '';
  }

  #send(source: string, destination: string, fields: Segment): void {
    const packet = this.#packetFor(source, destination, fields);
    const frame = new Uint8Array(14 + packet.length);
    const type = familyOf(source) === 4 ? EtherType.ipv4 : EtherType.ipv6;
    writeEthernet(frame, 0, this.#target, this.#source, type);
    frame.set(packet, 14);
    this.#tap.send(frame);
  }

  #packetFor(source: string, destination: string, fields: Segment): Uint8Array {
    const family = familyOf(source);
    const data = new TextEncoder().encode(fields.data);
    const network = 0;
    const transport = network + (family === 4 ? IPV4_HEADER : IPV6_HEADER);
    const length = TCP_HEADER + fields.options.length + data.length;
    const frame = new Uint8Array(transport + length);
    const view = new DataView(frame.buffer);
    const addresses = { source: bytesOf(source), destination: bytesOf(destination) };
    if (family === 4) {
      const totalLength = IPV4_HEADER + length;
      writeIpv4(view, frame, network, { ...addresses, totalLength, ttl: 64, protocol: Protocol.tcp });
    } else {
      const next = { payloadLength: length, nextHeader: Protocol.tcp, hopLimit: 64 };
      writeIpv6(view, frame, network, { ...addresses, ...next });
    }
    const { flags, sequence, acknowledgement, options } = fields;
    writeTcp(view, frame, transport, {
      sourcePort: fields.port,
      destinationPort: 80,
      sequence,
      acknowledgement,
      flags,
      window: 65535,
      options,
    });
    frame.set(data, transport + TCP_HEADER + options.length);
    fillTcpChecksum(view, family, network, transport, length);
    return frame;
  }

  async #wait(port: number, is: (seen: Seen) => boolean, what: string): Promise<Seen> {
    for (const end = Date.now() + PATIENCE; Date.now() < end; await sleep(5)) {
      const found = this.#seen.find(each => each.port === port && is(each.segment));
      if (found) return found.segment;
    }
    return assert.fail(`${what} did not come`);
  }

  close(): void {
    this.#tap.close();
  }
}

function bytesOf(address: string): Uint8Array {
  return parseAddress(address) ?? assert.fail(address);
}

/** The option TOA for a client. */
export function toa(kind: number, client: string, port: number): Uint8Array {
  const address = bytesOf(client);
  return Uint8Array.of(kind, 4 + address.length, port >>> 8, port & 0xff, ...address);
}
