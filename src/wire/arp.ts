/** ARP for IPv4 over Ethernet (RFC 826). */
import { formatAddress, formatMac, parseIpv4Address, parseMac } from './address.ts';
import { Malformed } from './malformed.ts';

export const ARP_LENGTH = 28;

export const Arp = {
  hardwareType: 0,
  protocolType: 2,
  hardwareLength: 4,
  protocolLength: 5,
  operation: 6,
  senderMac: 8,
  senderAddress: 14,
  targetMac: 18,
  targetAddress: 24,
} as const;

export const ArpOperation = { request: 1, reply: 2 } as const;

export interface ArpPacket {
  /** 1 request, 2 reply. */
  operation: number;
  senderMac: string;
  senderAddress: string;
  targetMac: string;
  targetAddress: string;
}

/** Refuses what is cut off, and hardware or protocol types other than Ethernet and IPv4. */
export function checkArp(view: DataView, at: number, length: number): Malformed {
  if (length < ARP_LENGTH) return Malformed.arpTruncated;
  if (view.getUint16(at + Arp.hardwareType) !== 1) return Malformed.arpUnsupported;
  if (view.getUint16(at + Arp.protocolType) !== 0x0800) return Malformed.arpUnsupported;
  if (view.getUint8(at + Arp.hardwareLength) !== 6) return Malformed.arpUnsupported;
  if (view.getUint8(at + Arp.protocolLength) !== 4) return Malformed.arpUnsupported;
  const operation = view.getUint16(at + Arp.operation);
  if (operation !== ArpOperation.request && operation !== ArpOperation.reply) return Malformed.arpUnsupported;
  return Malformed.none;
}

/** The packet at `at`, which `checkArp` accepted. */
export function readArp(bytes: Uint8Array, at: number): ArpPacket {
  return {
    operation: ((bytes[at + Arp.operation] as number) << 8) | (bytes[at + Arp.operation + 1] as number),
    senderMac: formatMac(bytes, at + Arp.senderMac),
    senderAddress: formatAddress(bytes, at + Arp.senderAddress, 4),
    targetMac: formatMac(bytes, at + Arp.targetMac),
    targetAddress: formatAddress(bytes, at + Arp.targetAddress, 4),
  };
}

/**
 * Writes 28 bytes. Returns the offset behind them.
 * @throws RangeError that names the address which is not one
 */
export function writeArp(bytes: Uint8Array, at: number, packet: ArpPacket): number {
  bytes.set([0, 1, 8, 0, 6, 4, packet.operation >>> 8, packet.operation & 0xff], at);
  bytes.set(macBytes(packet.senderMac), at + Arp.senderMac);
  bytes.set(ipv4Bytes(packet.senderAddress), at + Arp.senderAddress);
  bytes.set(macBytes(packet.targetMac), at + Arp.targetMac);
  bytes.set(ipv4Bytes(packet.targetAddress), at + Arp.targetAddress);
  return at + ARP_LENGTH;
}

function macBytes(text: string): Uint8Array {
  const bytes = parseMac(text);
  if (!bytes) throw new RangeError(`"${text}" is not a MAC address`);
  return bytes;
}

function ipv4Bytes(text: string): Uint8Array {
  const bytes = parseIpv4Address(text);
  if (!bytes) throw new RangeError(`"${text}" is not an IPv4 address`);
  return bytes;
}
