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

/** Writes 28 bytes; addresses must be valid text. Returns the offset behind them. */
export function writeArp(bytes: Uint8Array, at: number, packet: ArpPacket): number {
  bytes.set([0, 1, 8, 0, 6, 4, packet.operation >>> 8, packet.operation & 0xff], at);
  bytes.set(parseMac(packet.senderMac) as Uint8Array, at + Arp.senderMac);
  bytes.set(parseIpv4Address(packet.senderAddress) as Uint8Array, at + Arp.senderAddress);
  bytes.set(parseMac(packet.targetMac) as Uint8Array, at + Arp.targetMac);
  bytes.set(parseIpv4Address(packet.targetAddress) as Uint8Array, at + Arp.targetAddress);
  return at + ARP_LENGTH;
}
