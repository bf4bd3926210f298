/**
 * FULLNAT (Alibaba LVS, DPVS): the client's packets leave with a local address and port as their source and the server
 * as their destination; the server's answers come back to the local address from wherever it stands, and leave with the
 * VIP as their source and the client as their destination.
 *
 * What a server can no longer see, the client's address, it is told by TOA (`toa.ts`) or by the PROXY protocol
 * (`proxy-header.ts`).
 *
 * **Sequence numbers.** Connections of many clients share a local address, so a server may see a pair of ends again while
 * it remembers the last connection between them. To be recognised as new, a client's SYN gets an initial sequence number
 * that grows with time for each pair of ends (RFC 6528); the difference is added to the client's sequence numbers and
 * taken off the server's acknowledgements and SACK blocks. Timestamps of different clients do not grow together: the
 * option is taken out of the SYN, so that none are used. So is TCP Fast Open, as a server would act on data before it
 * knows the client; data in a SYN is cut off, and the client sends it again.
 *
 * **The PROXY header** takes the first `length` sequence numbers of the server's view, behind its view of the SYN:
 *
 *     client        C   | C+1 …                      server → client: C+1 for all of the header
 *     server        S   | S+1 … header … | S+1+length …
 *
 * It rides in front of every segment that begins at C+1, the handshake's ACK included, until the server has acknowledged
 * it: it is lost and retransmitted with these, byte by byte the same, and a server that speaks first need not wait for
 * the client to speak. Where the way is too small for both, the header goes in a segment of its own, just before: nothing
 * depends on the MSS, which would have to be lower for the whole connection because of one segment. The client may fill
 * the server's window beyond its end by the header's length until that is acknowledged; a server that minds has the
 * bytes sent again.
 *
 * UDP and SCTP are translated without telling the server the client's address: TOA is a TCP option, and the PROXY
 * protocol stands at the beginning of a stream; its specification names UDP as what a client may use, but not how
 * datagrams would carry a header.
 */
import { sumBytes, swap16 } from '../../wire/checksum.ts';
import { IcmpType, Icmpv6Type, Unreachable6Code, UnreachableCode } from '../../wire/icmp.ts';
import { fillIpv4Checksum, IPV4_DONT_FRAGMENT, Ipv4, Protocol } from '../../wire/ipv4.ts';
import { HEADROOM, Packet } from '../../wire/packet.ts';
import { fillTcpChecksum, TCP_HEADER, Tcp, TcpFlag, TcpOption, tcpHeaderLength } from '../../wire/tcp.ts';
import type { ConnectionKey } from '../connection-key.ts';
import {
  CONNECTION_BYTES,
  ConnectionField,
  ConnectionFlag,
  type ConnectionTable,
  EXTENSION_WORDS,
  Extension,
} from '../connections.ts';
import { DESTINATION_BYTES, DestinationField } from '../destinations.ts';
import { Drop } from '../drops.ts';
import type { EmbeddedPacket } from '../embedded-packet.ts';
import type { LocalAddresses } from '../local-addresses.ts';
import type { NextHop } from '../network.ts';
import type { Service } from '../service-table.ts';
import type { Settings } from '../settings.ts';
import { type SipHashKey, sipHash13 } from '../siphash.ts';
import type { ClientAddress } from '../specification.ts';
import { offsetReply, offsetRequest } from './proxied.ts';
import { writeProxyHeader } from './proxy-header.ts';
import {
  applyToTcp,
  eraseOptions,
  growNetwork,
  lengthDifference,
  lowerSegmentSize,
  openGap,
  setNumber,
  translateSack,
} from './tcp-options.ts';
import { insertToa, TOA_KIND, TOA_KIND_ALIBABA6, TOA_KIND_UCLOUD, Toa, toaLength } from './toa.ts';
import { End, translate } from './translation.ts';
import { DELIVER_LOCALLY, type Outcome, type Way } from './way.ts';

/** What a connection's `Extension.flags` say. */
export const FullnatFlag = {
  toa: 1,
  proxy1: 2,
  proxy2: 4,
  /** The server's SYN was seen: `Extension.firstAcknowledgement` holds. */
  serverSyn: 8,
  /** The server has acknowledged all of the PROXY header. */
  headerAcknowledged: 16,
} as const;

/** What FULLNAT did to TCP segments on their way to servers, by number. */
export const FullnatCount = {
  toaInserted: 0,
  /** Sent without TOA: it would have been too big for the way. */
  toaTooBig: 1,
  /** Sent without TOA: no room among the options. */
  toaNoOptionSpace: 2,
  /** Sent without TOA: no room in front of the frame. */
  toaNoHeadroom: 3,
  /** Segments in which a client had put a TOA of its own. */
  toaForged: 4,
  proxyInserted: 5,
  /** PROXY headers that went in a segment of their own. */
  proxySeparate: 6,
  /** SYNs whose data was cut off. */
  synDataCut: 7,
} as const;

/** Names by number, kebab-case, as counters show them. */
export const FULLNAT_COUNT_NAMES: readonly string[] = Object.keys(FullnatCount).map(name =>
  name.replace(/[A-Z]/g, letter => `-${letter.toLowerCase()}`),
);

const TOA_COUNTS: Readonly<Record<Toa, number>> = {
  [Toa.inserted]: FullnatCount.toaInserted,
  [Toa.tooBig]: FullnatCount.toaTooBig,
  [Toa.noOptionSpace]: FullnatCount.toaNoOptionSpace,
  [Toa.noHeadroom]: FullnatCount.toaNoHeadroom,
};

const CLIENT_ADDRESS_FLAGS: Readonly<Record<ClientAddress, number>> = {
  none: 0,
  toa: FullnatFlag.toa,
  'proxy-v1': FullnatFlag.proxy1,
  'proxy-v2': FullnatFlag.proxy2,
};
const PROXY = FullnatFlag.proxy1 | FullnatFlag.proxy2;
const PASSES_ADDRESS = PROXY | FullnatFlag.toa;

/** Data offset of a header without options, as the byte stands there (the low half is not part of it). */
const NO_OPTIONS = (TCP_HEADER >>> 2) << 4;
const FAST_OPEN = 34;
/** Initial sequence numbers advance by one in 64 ns, as Linux's do (net/core/secure_seq.c). */
const SEQUENCES_PER_MILLISECOND = 15_625;

export interface FullnatOptions {
  way: Way;
  connections: ConnectionTable;
  locals: LocalAddresses;
  settings: Settings;
  /** Gives random numbers, 0..2^32-1. */
  random: () => number;
}

export class Fullnat {
  /** By `FullnatCount`. */
  readonly counts = new Float64Array(FULLNAT_COUNT_NAMES.length);
  readonly #way: Way;
  readonly #connections: ConnectionTable;
  readonly #locals: LocalAddresses;
  readonly #settings: Settings;
  readonly #secret: SipHashKey;
  /** By option kind: 1 for those that a client must not send. */
  readonly #forged = new Uint8Array(256);
  /** The configured ones among them, by which the table was made. */
  #kind4 = -1;
  #kind6 = -1;
  /** The same for a SYN's options that FULLNAT takes out. */
  readonly #unwanted = new Uint8Array(256);
  readonly #headerPacket = new Packet();
  /** The connection that is being made. */
  #packet: Packet | undefined = undefined;
  #mode = 0;
  #now = 0;
  #committed = false;

  constructor(options: FullnatOptions) {
    const { random, settings } = options;
    this.#way = options.way;
    this.#connections = options.connections;
    this.#locals = options.locals;
    this.#settings = settings;
    this.#secret = { word0: random(), word1: random(), word2: random(), word3: random() };
  }

  /**
   * Finds a local address and port for a new connection. `commit` follows while it is made, or `cancel`.
   * @param portRaw the server's port
   * @returns `Drop.none`, or why there is none
   */
  reserve(
    service: Service,
    packet: Packet,
    key: ConnectionKey,
    destination: number,
    portRaw: number,
    now: number,
    tick: number,
  ): Drop {
    const owner = this.#way.pool.owners[destination];
    if (!owner || service.localAddresses.length === 0) return Drop.noLocalAddress;
    if (this.#locals.reserve(service, owner, key, portRaw, tick) < 0) return Drop.noLocalPort;
    this.#packet = packet;
    this.#now = now;
    this.#committed = false;
    this.#mode = 0;
    if (packet.protocol === Protocol.tcp && packet.tcpFlags & TcpFlag.syn) {
      this.#mode = CLIENT_ADDRESS_FLAGS[service.specification.clientAddress ?? 'toa'];
      if (this.#settings.fullnat_toa_entry === 0) this.#mode &= ~FullnatFlag.toa;
    }
    return Drop.none;
  }

  /** Writes what was reserved into a connection that lookups do not find yet. */
  readonly commit = (slot: number): void => {
    this.#locals.commit(slot);
    this.#committed = true;
    const connections = this.#connections;
    const { extension } = connections;
    const at = slot * EXTENSION_WORDS;
    const packet = this.#packet;
    extension[at + Extension.flags] = this.#mode;
    extension[at + Extension.inOffset] = 0;
    extension[at + Extension.outOffset] = 0;
    extension[at + Extension.firstAcknowledgement] = 0;
    extension[at + Extension.clientSequence] = 0;
    extension[at + Extension.proxyLength] = 0;
    if (!packet || packet.protocol !== Protocol.tcp || (packet.tcpFlags & TcpFlag.syn) === 0) return;
    const sequence = packet.view.getInt32(packet.transport + Tcp.sequence);
    extension[at + Extension.clientSequence] = sequence;
    extension[at + Extension.inOffset] = (this.#initialSequence(slot) - sequence) | 0;
    if (this.#mode & PROXY) {
      extension[at + Extension.proxyLength] = writeProxyHeader(
        this.#headerPacket.bytes,
        0,
        connections,
        slot,
        this.#mode & FullnatFlag.proxy1 ? 1 : 2,
      );
    }
  };

  /** Takes a reservation back: the connection did not come about. */
  cancel(): void {
    this.#locals.cancel(this.#committed);
  }

  /** RFC 6528: a clock plus a secret function of both ends. */
  #initialSequence(slot: number): number {
    const connections = this.#connections;
    const { extension } = connections;
    const { words } = this.#way.pool.table;
    const local = slot * EXTENSION_WORDS + Extension.localAddress;
    const server = (connections.destination(slot) * DESTINATION_BYTES + DestinationField.address) >>> 2;
    const ports = connections.localPortRaw(slot) | (connections.destinationPortRaw(slot) << 16);
    const count = connections.flags(slot) & ConnectionFlag.ipv6 ? 4 : 1;
    let hash = sipHash13(ports, this.#secret);
    for (let word = 0; word < count; word++) {
      hash = sipHash13(hash ^ (extension[local + word] as number), this.#secret);
      hash = sipHash13(hash ^ (words[server + word] as number), this.#secret);
    }
    // Cut first: the product of a whole clock would lose its last digits.
    return (hash + (this.#now % 0x1_0000_0000) * SEQUENCES_PER_MILLISECOND) | 0;
  }

  /** Client to server. */
  forward(packet: Packet, slot: number, destination: number): Outcome {
    const way = this.#way;
    const connections = this.#connections;
    const portRaw = connections.localPortRaw(slot);
    if (portRaw === 0) return Drop.noLocalPort;
    const hop = way.hopTo(destination, packet);
    // A server on this host would answer the local address, which is on this host too: the answer would never come by.
    if (!hop) return way.failure === DELIVER_LOCALLY ? Drop.noRoute : way.failure;
    if (!way.passTtl(packet)) return Drop.ttlExpired;
    if (!way.passSize(packet, way.mtu)) return Drop.tooBig;
    if (packet.protocol === Protocol.tcp) this.#rewriteRequest(packet, slot, destination, hop);
    this.#translateToServer(packet, slot, destination);
    way.sendTo(packet, destination, hop);
    return Drop.none;
  }

  #translateToServer(packet: Packet, slot: number, destination: number): void {
    const connections = this.#connections;
    const local = slot * EXTENSION_WORDS + Extension.localAddress;
    const server = (destination * DESTINATION_BYTES + DestinationField.address) >>> 2;
    translate(packet, End.source, connections.extension, local, connections.localPortRaw(slot));
    translate(
      packet,
      End.destination,
      this.#way.pool.table.words,
      server,
      connections.destinationPortRaw(slot),
    );
  }

  #rewriteRequest(packet: Packet, slot: number, destination: number, hop: NextHop): void {
    const { view, transport, tcpFlags } = packet;
    const connections = this.#connections;
    const { extension } = connections;
    const at = slot * EXTENSION_WORDS;
    const flags = extension[at + Extension.flags] as number;
    // What follows goes by the server's own numbers.
    if (connections.flags(slot) & ConnectionFlag.outSequence) offsetRequest(packet, connections, slot);
    let difference = 0;
    if (view.getUint8(transport + Tcp.dataOffset) >>> 4 > NO_OPTIONS >>> 4) {
      difference += this.#eraseForged(view, transport);
      if (tcpFlags & TcpFlag.syn) difference += this.#eraseUnwanted(view, transport, flags);
    }
    if (tcpFlags & TcpFlag.syn && flags & PASSES_ADDRESS) difference += this.#cutData(packet);
    const field = transport + Tcp.sequence;
    const sequence = view.getInt32(field);
    let headerDue = false;
    let shift = extension[at + Extension.inOffset] as number;
    if (flags & PROXY && (tcpFlags & TcpFlag.syn) === 0) {
      const length = extension[at + Extension.proxyLength] as number;
      const position = (sequence - (extension[at + Extension.clientSequence] as number) - 1) | 0;
      headerDue = position === 0 && isAcknowledgement(tcpFlags);
      if (flags & FullnatFlag.headerAcknowledged || position > 0) {
        shift += length;
        headerDue = false;
      }
    }
    difference += setNumber(view, field, sequence + shift);
    applyToTcp(view, transport, difference);
    if (headerDue) this.#prependHeader(packet, slot, destination, hop);
    else if (flags & FullnatFlag.toa) this.#addToa(packet, slot, flags);
  }

  #eraseForged(view: DataView, transport: number): number {
    const { toa_kind, toa_kind_v6 } = this.#settings;
    if (toa_kind !== this.#kind4 || toa_kind_v6 !== this.#kind6) this.#listForged(toa_kind, toa_kind_v6);
    const difference = eraseOptions(view, transport, this.#forged);
    if (difference !== 0) this.#count(FullnatCount.toaForged);
    return difference;
  }

  /** Every kind that some server may take for TOA, whichever is sent. */
  #listForged(kind4: number, kind6: number): void {
    this.#kind4 = kind4;
    this.#kind6 = kind6;
    this.#forged.fill(0);
    for (const kind of [TOA_KIND, TOA_KIND_ALIBABA6, TOA_KIND_UCLOUD, kind4, kind6]) {
      this.#forged[kind & 0xff] = 1;
    }
  }

  #eraseUnwanted(view: DataView, transport: number, flags: number): number {
    this.#unwanted[TcpOption.timestamps] = this.#settings.fullnat_timestamp_remove_entry ? 1 : 0;
    this.#unwanted[FAST_OPEN] = flags & PASSES_ADDRESS ? 1 : 0;
    return eraseOptions(view, transport, this.#unwanted);
  }

  #cutData(packet: Packet): number {
    const { view, transport } = packet;
    const data = transport + tcpHeaderLength(view, transport);
    const cut = packet.networkEnd - data;
    if (cut === 0) return 0;
    const difference = ~sumBytes(view, data, cut) & 0xffff;
    const length = packet.networkEnd - transport;
    packet.networkEnd = data;
    growNetwork(packet, -cut);
    this.#count(FullnatCount.synDataCut);
    return difference + lengthDifference(length, length - cut);
  }

  #addToa(packet: Packet, slot: number, flags: number): void {
    if ((flags & FullnatFlag.serverSyn) === 0 || !isAcknowledgement(packet.tcpFlags)) return;
    const first = this.#connections.extension[slot * EXTENSION_WORDS + Extension.firstAcknowledgement];
    if (packet.view.getInt32(packet.transport + Tcp.acknowledgement) !== first) return;
    const { toa_kind, toa_kind_v6 } = this.#settings;
    const kind = packet.family === 4 ? toa_kind : toa_kind_v6;
    this.#count(TOA_COUNTS[insertToa(packet, this.#connections, slot, kind, this.#way.mtu)]);
  }

  /** Puts the PROXY header in front of the data of a segment that begins with the first byte. */
  #prependHeader(packet: Packet, slot: number, destination: number, hop: NextHop): void {
    const { extension } = this.#connections;
    const { bytes, view, transport } = packet;
    const at = slot * EXTENSION_WORDS;
    const length = extension[at + Extension.proxyLength] as number;
    const version = (extension[at + Extension.flags] as number) & FullnatFlag.proxy1 ? 1 : 2;
    const headerLength = tcpHeaderLength(view, transport);
    const data = transport + headerLength;
    const before = packet.networkEnd - transport;
    const fits = packet.networkEnd - packet.network + length <= this.#way.mtu;
    if (!fits || !openGap(packet, data, length)) {
      this.#sendHeader(packet, slot, destination, hop, version);
      const field = transport + Tcp.sequence;
      applyToTcp(view, transport, setNumber(view, field, view.getInt32(field) + length));
      this.#count(FullnatCount.proxySeparate);
      return;
    }
    writeProxyHeader(bytes, data - length, this.#connections, slot, version);
    let difference = sumBytes(view, data - length, length) + lengthDifference(before, before + length);
    if (length & 1) {
      // The data stands at odd offsets now, and counts with its bytes exchanged.
      const sum = sumBytes(view, data, packet.networkEnd - data);
      difference += (~sum & 0xffff) + swap16(sum);
    }
    const moved = packet.transport;
    if (packet.tcpFlags & TcpFlag.urg) {
      const urgent = moved + Tcp.urgent;
      const was = view.getUint16(urgent, true);
      view.setUint16(urgent, view.getUint16(urgent) + length);
      difference += (~was & 0xffff) + view.getUint16(urgent, true);
    }
    applyToTcp(view, moved, difference);
    this.#count(FullnatCount.proxyInserted);
  }

  /** Sends the PROXY header in a segment of its own, like the one it precedes. */
  #sendHeader(packet: Packet, slot: number, destination: number, hop: NextHop, version: number): void {
    const header = this.#headerPacket;
    const { view } = header;
    const data = packet.transport + tcpHeaderLength(packet.view, packet.transport);
    const shift = HEADROOM - packet.start;
    header.bytes.set(packet.bytes.subarray(packet.start, data), HEADROOM);
    header.start = HEADROOM;
    header.etherType = packet.etherType;
    header.tags = packet.tags;
    header.family = packet.family;
    header.protocol = packet.protocol;
    header.network = packet.network + shift;
    header.transport = packet.transport + shift;
    const length = writeProxyHeader(header.bytes, data + shift, this.#connections, slot, version);
    header.networkEnd = data + shift + length;
    growNetwork(header, length - (packet.networkEnd - data));
    if (header.family === 4) {
      const fragment = view.getUint16(header.network + Ipv4.fragment);
      if ((fragment & IPV4_DONT_FRAGMENT) === 0) {
        view.setUint16(header.network + Ipv4.identification, this.#way.nextIdentification());
      }
    }
    const { transport } = header;
    view.setUint8(transport + Tcp.flags, TcpFlag.ack | TcpFlag.psh);
    view.setUint16(transport + Tcp.urgent, 0);
    this.#translateToServer(header, slot, destination);
    if (header.family === 4) fillIpv4Checksum(view, header.network);
    const family = header.family === 6 ? 6 : 4;
    fillTcpChecksum(view, family, header.network, transport, header.networkEnd - transport);
    this.#way.sendTo(header, destination, hop);
  }

  /** Server to client. */
  reply(packet: Packet, slot: number): Outcome {
    const way = this.#way;
    const { bytes } = this.#connections;
    const family = packet.family === 6 ? 6 : 4;
    const client = slot * CONNECTION_BYTES + ConnectionField.client;
    if (way.network.isLocal(bytes, client, family)) {
      this.#rewriteReply(packet, slot);
      return DELIVER_LOCALLY;
    }
    const hop = way.network.nextHop(bytes, client, family);
    if (!hop) {
      if (family === 4) way.errors.send(packet, IcmpType.unreachable, UnreachableCode.net);
      else way.errors.send(packet, Icmpv6Type.unreachable, Unreachable6Code.noRoute);
      return Drop.noRouteToClient;
    }
    if (!way.passTtl(packet)) return Drop.ttlExpired;
    if (!way.passSize(packet, hop.mtu)) return Drop.tooBig;
    this.#rewriteReply(packet, slot);
    way.send(packet, hop);
    return Drop.none;
  }

  #rewriteReply(packet: Packet, slot: number): void {
    if (packet.protocol === Protocol.tcp) this.#rewriteTcpReply(packet, slot);
    const { words } = this.#connections;
    const record = slot * CONNECTION_BYTES;
    const ports = this.#connections.ports(slot);
    translate(packet, End.source, words, (record + ConnectionField.virtual) >>> 2, ports >>> 16);
    translate(packet, End.destination, words, (record + ConnectionField.client) >>> 2, ports & 0xffff);
  }

  #rewriteTcpReply(packet: Packet, slot: number): void {
    const { view, transport, tcpFlags } = packet;
    const connections = this.#connections;
    if (connections.flags(slot) & ConnectionFlag.outSequence) offsetReply(packet, connections, slot);
    if ((tcpFlags & TcpFlag.ack) === 0) return;
    const field = transport + Tcp.acknowledgement;
    const acknowledgement = view.getInt32(field);
    let difference = 0;
    if (tcpFlags & TcpFlag.syn) difference += this.#readServerSyn(view, transport, slot, acknowledgement);
    else this.#takeAcknowledgement(slot, acknowledgement);
    difference += setNumber(view, field, this.sequenceToClient(slot, acknowledgement));
    const hasOptions = view.getUint8(transport + Tcp.dataOffset) >>> 4 > NO_OPTIONS >>> 4;
    if (hasOptions && (tcpFlags & TcpFlag.syn) === 0) {
      difference += translateSack(view, transport, this.#toClient, slot);
    }
    applyToTcp(view, transport, difference);
  }

  /** Takes a server's SYN that is not sent on: the SYN proxy has answered the client in its place. */
  takeServerSyn({ view, transport }: Packet, slot: number): void {
    this.#readServerSyn(view, transport, slot, view.getInt32(transport + Tcp.acknowledgement));
  }

  /** The server's SYN says which sequence number of the client's it has accepted, and where its own begin. */
  #readServerSyn(view: DataView, transport: number, slot: number, acknowledgement: number): number {
    const { extension } = this.#connections;
    const at = slot * EXTENSION_WORDS;
    const flags = extension[at + Extension.flags] as number;
    extension[at + Extension.flags] = flags | FullnatFlag.serverSyn;
    extension[at + Extension.firstAcknowledgement] = view.getInt32(transport + Tcp.sequence) + 1;
    extension[at + Extension.clientSequence] =
      acknowledgement - 1 - (extension[at + Extension.inOffset] as number);
    if ((flags & FullnatFlag.toa) === 0 || this.#settings.fullnat_mss_adjust_entry === 0) return 0;
    return lowerSegmentSize(view, transport, this.growth(slot));
  }

  #takeAcknowledgement(slot: number, acknowledgement: number): void {
    const { extension } = this.#connections;
    const at = slot * EXTENSION_WORDS;
    const flags = extension[at + Extension.flags] as number;
    if ((flags & PROXY) === 0 || flags & FullnatFlag.headerAcknowledged) return;
    if (this.#positionAtServer(at, acknowledgement) >= (extension[at + Extension.proxyLength] as number)) {
      extension[at + Extension.flags] = flags | FullnatFlag.headerAcknowledged;
    }
  }

  /** Where a sequence number of the server's view lies behind the SYN, 0 for the first byte of the PROXY header. */
  #positionAtServer(at: number, sequence: number): number {
    const { extension } = this.#connections;
    const first =
      (extension[at + Extension.clientSequence] as number) + (extension[at + Extension.inOffset] as number);
    return (sequence - first - 1) | 0;
  }

  /** The client's number for one of its sequence numbers as the server knows it. */
  sequenceToClient(slot: number, sequence: number): number {
    const { extension } = this.#connections;
    const at = slot * EXTENSION_WORDS;
    const plain = (sequence - (extension[at + Extension.inOffset] as number)) | 0;
    const flags = extension[at + Extension.flags] as number;
    if ((flags & PROXY) === 0) return plain;
    const length = extension[at + Extension.proxyLength] as number;
    if (flags & FullnatFlag.headerAcknowledged) return (plain - length) | 0;
    const position = this.#positionAtServer(at, sequence);
    return position <= 0 ? plain : (plain - Math.min(position, length)) | 0;
  }

  readonly #toClient = (slot: number, sequence: number): number => this.sequenceToClient(slot, sequence);

  /** Bytes by which segments of a connection may grow on their way to the server, now or later. */
  growth(slot: number): number {
    const { extension } = this.#connections;
    const at = slot * EXTENSION_WORDS;
    const flags = extension[at + Extension.flags] as number;
    if (flags & FullnatFlag.toa) {
      return toaLength(this.#connections.flags(slot) & ConnectionFlag.ipv6 ? 6 : 4);
    }
    return flags & FullnatFlag.headerAcknowledged ? 0 : (extension[at + Extension.proxyLength] as number);
  }

  /**
   * Rewrites an ICMP error about a reply, on its way to the server: the server sees it come from the local address, with
   * its own packet in it. Checksums are the caller's.
   */
  translateErrorToServer(packet: Packet, quoted: EmbeddedPacket, slot: number): void {
    const connections = this.#connections;
    const { view } = packet;
    const destination = connections.destination(slot);
    const server = (destination * DESTINATION_BYTES + DestinationField.address) >>> 2;
    const { words } = this.#way.pool.table;
    const local = slot * EXTENSION_WORDS + Extension.localAddress;
    setAddress(packet, packet.sourceAt, connections.extension, local);
    setAddress(packet, packet.destinationAt, words, server);
    setAddress(packet, quoted.sourceAt, words, server);
    setAddress(packet, quoted.destinationAt, connections.extension, local);
    view.setUint16(quoted.transport, connections.destinationPortRaw(slot), true);
    view.setUint16(quoted.transport + 2, connections.localPortRaw(slot), true);
  }

  /**
   * Rewrites an ICMP error about a request, on its way to the client: the client sees it come from the VIP, with its own
   * packet in it, whose sequence number it can check (RFC 5927 section 4). Checksums are the caller's.
   */
  translateErrorToClient(packet: Packet, quoted: EmbeddedPacket, slot: number): void {
    const connections = this.#connections;
    const { view } = packet;
    const { words } = connections;
    const record = slot * CONNECTION_BYTES;
    const virtual = (record + ConnectionField.virtual) >>> 2;
    const client = (record + ConnectionField.client) >>> 2;
    setAddress(packet, packet.sourceAt, words, virtual);
    setAddress(packet, packet.destinationAt, words, client);
    setAddress(packet, quoted.sourceAt, words, client);
    setAddress(packet, quoted.destinationAt, words, virtual);
    view.setInt32(quoted.transport, connections.ports(slot), true);
    const sequence = quoted.transport + Tcp.sequence;
    if (quoted.protocol === Protocol.tcp && sequence + 4 <= packet.networkEnd) {
      view.setInt32(sequence, this.sequenceToClient(slot, view.getInt32(sequence)));
    }
  }

  #count(counter: number): void {
    this.counts[counter] = (this.counts[counter] as number) + 1;
  }
}

/** True for segments that TOA and the PROXY header may ride on. */
function isAcknowledgement(flags: number): boolean {
  return (flags & (TcpFlag.ack | TcpFlag.syn | TcpFlag.rst)) === TcpFlag.ack;
}

function setAddress(packet: Packet, at: number, words: Int32Array, from: number): void {
  const count = packet.family === 4 ? 1 : 4;
  for (let word = 0; word < count; word++) {
    packet.view.setInt32(at + 4 * word, words[from + word] as number, true);
  }
}
