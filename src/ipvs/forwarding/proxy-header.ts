/**
 * The PROXY protocol's header (haproxy.org/download/2.9/doc/proxy-protocol.txt): the client's address at the beginning
 * of the byte stream that a server gets. Version 1 is a line of text, version 2 binary.
 */
import { formatAddress } from '../../wire/address.ts';
import { swap16 } from '../../wire/checksum.ts';
import { CONNECTION_BYTES, ConnectionField, ConnectionFlag, type ConnectionTable } from '../connections.ts';

/** The longest header there is: version 1 with two IPv6 addresses (section 2.1). */
export const PROXY_HEADER_LIMIT = 107;

/** Section 2.2. */
const SIGNATURE = Uint8Array.of(0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a);
const VERSION_2_PROXY = 0x21;
const TCP_OVER_IPV4 = 0x11;
const TCP_OVER_IPV6 = 0x21;
/** Signature, version and command, family and protocol, length. */
const FIXED = 16;

/** Bytes of version 2's header. */
export function proxyHeader2Length(family: number): number {
  return FIXED + (family === 4 ? 12 : 36);
}

/**
 * Writes the header of a connection, the same each time: client and VIP as the client sees them.
 * @param version 1 or 2
 * @returns its length in bytes
 */
export function writeProxyHeader(
  bytes: Uint8Array,
  at: number,
  connections: ConnectionTable,
  slot: number,
  version: number,
): number {
  const family = connections.flags(slot) & ConnectionFlag.ipv6 ? 6 : 4;
  return version === 1
    ? writeProxyHeader1(bytes, at, connections, slot, family)
    : writeProxyHeader2(bytes, at, connections, slot, family);
}

function writeProxyHeader1(
  bytes: Uint8Array,
  at: number,
  connections: ConnectionTable,
  slot: number,
  family: number,
): number {
  const record = slot * CONNECTION_BYTES;
  const length = family === 4 ? 4 : 16;
  const client = formatAddress(connections.bytes, record + ConnectionField.client, length);
  const virtual = formatAddress(connections.bytes, record + ConnectionField.virtual, length);
  const ports = connections.ports(slot);
  const line = `PROXY TCP${family} ${client} ${virtual} ${swap16(ports & 0xffff)} ${swap16(ports >>> 16)}\r\n`;
  for (let index = 0; index < line.length; index++) bytes[at + index] = line.charCodeAt(index);
  return line.length;
}

function writeProxyHeader2(
  bytes: Uint8Array,
  at: number,
  connections: ConnectionTable,
  slot: number,
  family: number,
): number {
  const record = slot * CONNECTION_BYTES;
  const length = family === 4 ? 4 : 16;
  bytes.set(SIGNATURE, at);
  bytes[at + 12] = VERSION_2_PROXY;
  bytes[at + 13] = family === 4 ? TCP_OVER_IPV4 : TCP_OVER_IPV6;
  bytes[at + 14] = 0;
  bytes[at + 15] = 2 * length + 4;
  const addresses = at + FIXED;
  for (let byte = 0; byte < length; byte++) {
    bytes[addresses + byte] = connections.bytes[record + ConnectionField.client + byte] as number;
    bytes[addresses + length + byte] = connections.bytes[record + ConnectionField.virtual + byte] as number;
  }
  // Client port and virtual port stand side by side in the record too.
  for (let byte = 0; byte < 4; byte++) {
    bytes[addresses + 2 * length + byte] = connections.bytes[
      record + ConnectionField.clientPort + byte
    ] as number;
  }
  return addresses + 2 * length + 4 - at;
}
