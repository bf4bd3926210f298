/** Ethernet II frames (IEEE 802.3) with any number of 802.1Q / 802.1ad tags. */
import { formatMac } from './address.ts';

export const ETHERNET_HEADER = 14;
export const VLAN_TAG = 4;
/** Shortest frame on a real wire, without the frame check sequence: shorter payloads are padded to it. */
export const ETHERNET_MINIMUM = 60;

export const Ethernet = { destination: 0, source: 6, etherType: 12 } as const;

export const EtherType = {
  ipv4: 0x0800,
  arp: 0x0806,
  vlan: 0x8100,
  serviceVlan: 0x88a8,
  ipv6: 0x86dd,
} as const;

export const BROADCAST_MAC = Uint8Array.of(255, 255, 255, 255, 255, 255);

/** True for broadcast and multicast destinations (the group bit of the first byte). */
export function isGroupMac(view: DataView, at: number): boolean {
  return (view.getUint8(at) & 1) === 1;
}

/** True if the six bytes at `at` are `mac`. */
export function macEquals(bytes: Uint8Array, at: number, mac: Uint8Array): boolean {
  for (let index = 0; index < 6; index++) if (bytes[at + index] !== mac[index]) return false;
  return true;
}

/** Writes destination, source and type; returns the offset of the payload. */
export function writeEthernet(
  bytes: Uint8Array,
  at: number,
  destination: Uint8Array,
  source: Uint8Array,
  etherType: number,
): number {
  bytes.set(destination, at + Ethernet.destination);
  bytes.set(source, at + Ethernet.source);
  bytes[at + Ethernet.etherType] = etherType >>> 8;
  bytes[at + Ethernet.etherType + 1] = etherType & 0xff;
  return at + ETHERNET_HEADER;
}

export interface EthernetHeader {
  destination: string;
  source: string;
  etherType: number;
}

/** The outermost header as plain data; the caller has checked that 14 bytes are there. */
export function readEthernet(bytes: Uint8Array, at = 0): EthernetHeader {
  return {
    destination: formatMac(bytes, at + Ethernet.destination),
    source: formatMac(bytes, at + Ethernet.source),
    etherType:
      ((bytes[at + Ethernet.etherType] as number) << 8) | (bytes[at + Ethernet.etherType + 1] as number),
  };
}
