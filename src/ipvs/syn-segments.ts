/** What a SYN proxy asks of segments and of connections. */
import { Protocol } from '../wire/ipv4.ts';
import type { Packet } from '../wire/packet.ts';
import { findTcpOption, TcpFlag, tcpHeaderLength } from '../wire/tcp.ts';
import { ConnectionFlag } from './connections.ts';
import type { Service } from './service-table.ts';

const FTP_PORT = 21;
/** A data connection of active FTP is opened by the server; towards a service it can only be forged. */
const FTP_DATA_PORT = 20;

/** True for the flags of a connection that the SYN proxy has made. */
export function isProxied(flags: number): boolean {
  return (flags & (ConnectionFlag.outSequence | ConnectionFlag.template)) === ConnectionFlag.outSequence;
}

/** True for a packet to a service that lets its SYNs be answered; not for the data connections of FTP that are expected. */
export function isBehindProxy({ key, specification }: Service, packet: Packet): boolean {
  if (!specification.synProxy || packet.protocol !== Protocol.tcp || packet.sourcePort === FTP_DATA_PORT)
    return false;
  if ('mark' in key || key.port !== FTP_PORT || packet.destinationPort === FTP_PORT) return true;
  return specification.persistenceTimeout > 0;
}

/** True for a TCP packet that can only ask for a connection. */
export function isPlainSyn(packet: Packet): boolean {
  const flags = TcpFlag.syn | TcpFlag.ack | TcpFlag.rst | TcpFlag.fin;
  return packet.protocol === Protocol.tcp && (packet.tcpFlags & flags) === TcpFlag.syn;
}

/** True for a TCP packet that may bring a cookie back. */
export function isAcknowledgement(packet: Packet): boolean {
  const flags = TcpFlag.syn | TcpFlag.ack | TcpFlag.rst;
  return packet.protocol === Protocol.tcp && (packet.tcpFlags & flags) === TcpFlag.ack;
}

/** True for a segment with data, or with the end of it. */
export function carriesAnything({ view, transport, networkEnd, tcpFlags }: Packet): boolean {
  return (tcpFlags & TcpFlag.fin) !== 0 || transport + tcpHeaderLength(view, transport) < networkEnd;
}

/** Where an option of the right length stands, or -1. */
export function optionOf(view: DataView, transport: number, kind: number, length: number): number {
  const at = findTcpOption(view, transport, kind);
  return at >= 0 && view.getUint8(at + 1) === length ? at : -1;
}
