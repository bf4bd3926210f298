/**
 * Connections that the SYN proxy has made (`syn-proxy.ts`): the client knows the server's sequence numbers by the cookie
 * that the director answered with, the server by its own. The difference is added to the server's sequence numbers and
 * taken off the client's acknowledgements and SACK blocks. So it is with timestamps, where they are in use; and window
 * sizes are stated in the scale that each side was told.
 *
 * With an FTP helper, whose texts move the same numbers, the helper does this (`ftp.ts`).
 */
import type { Packet } from '../../wire/packet.ts';
import { TCP_HEADER, Tcp, TcpFlag, tcpHeaderLength } from '../../wire/tcp.ts';
import { ConnectionFlag, type ConnectionTable, EXTENSION_WORDS, Extension } from '../connections.ts';
import { NO_SCALE, SynOptions, windowScaleOf } from '../syn-cookie.ts';
import { applyToTcp, moveTimestamp, setNumber, Timestamp, translateSack } from './tcp-options.ts';

/**
 * What `Extension.proxiedOptions` says besides the `SynOptions` that client and server both keep to; scales are 0..14, or
 * `NO_SCALE`.
 */
export const ProxiedOptions = {
  /** The server's. */
  serverScaleShift: 0,
  /** The one that the director has told the client. */
  promisedScaleShift: 4,
  /** The server has not answered yet. */
  handshake: 1 << 8,
  /** The connection is over, and a SYN for the next one was answered. */
  begins: 1 << 9,
} as const;

/** Where an extension's words mean something else until the server has answered. */
export const Handshake = {
  /** The cookie, which is the server's initial sequence number for the client; afterwards the difference. */
  cookie: Extension.outOffset,
  /** The timestamps that director and client sent last. */
  ownTimestamp: Extension.outStart,
  clientTimestamp: Extension.outBefore,
  /** The client's window, as it stands in a segment. */
  window: Extension.answer,
} as const;

const GREATEST_WINDOW = 0xffff;

/** True until the server has answered. */
export function isInHandshake(connections: ConnectionTable, slot: number): boolean {
  const options = connections.extension[slot * EXTENSION_WORDS + Extension.proxiedOptions] as number;
  return (options & ProxiedOptions.handshake) !== 0;
}

/** Makes a client's segment one for the server, checksum included. */
export function offsetRequest(packet: Packet, connections: ConnectionTable, slot: number): void {
  const { view, transport, tcpFlags } = packet;
  const { extension } = connections;
  const at = slot * EXTENSION_WORDS;
  const options = extension[at + Extension.proxiedOptions] as number;
  if (options & ProxiedOptions.handshake) return;
  const isHelped = (connections.flags(slot) & ConnectionFlag.helper) !== 0;
  let difference = 0;
  if (!isHelped && tcpFlags & TcpFlag.ack) {
    const field = transport + Tcp.acknowledgement;
    difference += setNumber(view, field, serverNumber(connections, slot, view.getInt32(field)));
    if (tcpHeaderLength(view, transport) > TCP_HEADER) {
      difference += translateSack(
        view,
        transport,
        (of, number) => serverNumber(connections, of, number),
        slot,
      );
    }
  }
  if (options & SynOptions.timestamps) {
    difference += moveTimestamp(
      view,
      transport,
      Timestamp.echoReply,
      -(extension[at + Extension.proxiedTimestamps] as number),
    );
  }
  // A server that does not scale takes the field as it is.
  const serverScales = ((options >>> ProxiedOptions.serverScaleShift) & 15) !== NO_SCALE;
  if (!serverScales) difference += scaleWindow(view, transport, amountOf(windowScaleOf(options)));
  applyToTcp(view, transport, difference);
}

/** Makes a server's segment one for the client, checksum included. */
export function offsetReply(packet: Packet, connections: ConnectionTable, slot: number): void {
  const { view, transport } = packet;
  const { extension } = connections;
  const at = slot * EXTENSION_WORDS;
  const options = extension[at + Extension.proxiedOptions] as number;
  let difference = 0;
  if ((connections.flags(slot) & ConnectionFlag.helper) === 0) {
    const field = transport + Tcp.sequence;
    const offset = extension[at + Extension.outOffset] as number;
    difference += setNumber(view, field, view.getInt32(field) + offset);
  }
  if (options & SynOptions.timestamps) {
    difference += moveTimestamp(
      view,
      transport,
      Timestamp.value,
      extension[at + Extension.proxiedTimestamps] as number,
    );
  }
  const server = amountOf((options >>> ProxiedOptions.serverScaleShift) & 15);
  const promised = amountOf((options >>> ProxiedOptions.promisedScaleShift) & 15);
  difference += scaleWindow(view, transport, server - promised);
  applyToTcp(view, transport, difference);
}

/** True if neither timestamps nor windows have to be rewritten. */
export function movesNumbersOnly(connections: ConnectionTable, slot: number): boolean {
  const options = connections.extension[slot * EXTENSION_WORDS + Extension.proxiedOptions] as number;
  const server = (options >>> ProxiedOptions.serverScaleShift) & 15;
  const promised = (options >>> ProxiedOptions.promisedScaleShift) & 15;
  return (
    (options & SynOptions.timestamps) === 0 &&
    amountOf(server) === amountOf(promised) &&
    (server !== NO_SCALE || amountOf(windowScaleOf(options)) === 0)
  );
}

/** What a client's number for one of the server's sequence numbers is to the server. */
export function serverNumber(connections: ConnectionTable, slot: number, number: number): number {
  return (number - (connections.extension[slot * EXTENSION_WORDS + Extension.outOffset] as number)) | 0;
}

function amountOf(scale: number): number {
  return scale === NO_SCALE ? 0 : scale;
}

/** Multiplies the window by a power of two, down to whole numbers and up to the greatest there is. */
function scaleWindow(view: DataView, transport: number, by: number): number {
  if (by === 0) return 0;
  const field = transport + Tcp.window;
  const before = view.getUint16(field, true);
  const window = view.getUint16(field);
  view.setUint16(field, Math.min(by > 0 ? window << by : window >>> -by, GREATEST_WINDOW));
  return (~before & 0xffff) + view.getUint16(field, true);
}
