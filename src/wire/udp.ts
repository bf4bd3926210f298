/** UDP datagrams (RFC 768, RFC 8200 8.1 for IPv6). */
import type { Family } from './address.ts';
import { finish } from './checksum.ts';
import { Protocol } from './ipv4.ts';
import { Malformed } from './malformed.ts';
import { transportSum } from './pseudo-header.ts';

export const UDP_HEADER = 8;

export const Udp = { sourcePort: 0, destinationPort: 2, length: 4, checksum: 6 } as const;

/** Refuses a datagram that is cut off or whose length field is below 8 or beyond the packet. */
export function checkUdp(view: DataView, at: number, length: number): Malformed {
  if (length < UDP_HEADER) return Malformed.udpTruncated;
  const claimed = view.getUint16(at + Udp.length);
  if (claimed < UDP_HEADER || claimed > length) return Malformed.udpLength;
  return Malformed.none;
}

/** Refuses what cannot be the first fragment of a datagram: its length field speaks of all of the datagram. */
export function checkFirstUdpFragment(view: DataView, at: number, length: number): Malformed {
  if (length < UDP_HEADER) return Malformed.udpTruncated;
  return view.getUint16(at + Udp.length) < UDP_HEADER ? Malformed.udpLength : Malformed.none;
}

export interface UdpHeader {
  sourcePort: number;
  destinationPort: number;
  /** Header and data, bytes. */
  length: number;
  /** As it stands in the header, most significant byte first; 0 is none. */
  checksum: number;
}

/** The header at `at`, which `checkUdp` accepted. */
export function readUdp(view: DataView, at: number): UdpHeader {
  return {
    sourcePort: view.getUint16(at + Udp.sourcePort),
    destinationPort: view.getUint16(at + Udp.destinationPort),
    length: view.getUint16(at + Udp.length),
    checksum: view.getUint16(at + Udp.checksum),
  };
}

/** Sum over pseudo-header and datagram: 0xffff if the checksum in it is right. */
export function udpSum(view: DataView, family: Family, network: number, at: number, length: number): number {
  return transportSum(view, family, network, Protocol.udp, at, length);
}

/** Computes and stores the checksum; a sum of 0 is sent as 0xffff, because 0 means none (RFC 768). */
export function fillUdpChecksum(
  view: DataView,
  family: Family,
  network: number,
  at: number,
  length: number,
): void {
  view.setUint16(at + Udp.checksum, 0);
  view.setUint16(at + Udp.checksum, finish(udpSum(view, family, network, at, length)) || 0xffff, true);
}

/** Writes the header with checksum 0; returns the offset of the data. `length` counts header and data. */
export function writeUdp(
  view: DataView,
  at: number,
  sourcePort: number,
  destinationPort: number,
  length: number,
): number {
  view.setUint16(at + Udp.sourcePort, sourcePort);
  view.setUint16(at + Udp.destinationPort, destinationPort);
  view.setUint16(at + Udp.length, length);
  view.setUint16(at + Udp.checksum, 0);
  return at + UDP_HEADER;
}
