/**
 * Static bindings of addresses to MACs, as an administrator pinned them. They are part of the configuration; whoever
 * keeps the host's neighbours brings them about, and the next hops follow these.
 */
import { formatAddress, formatMac, parseAddress, parseMac } from '../wire/address.ts';

export interface Pin {
  /** In canonical form. */
  address: string;
  /** Lower-case. */
  mac: string;
}

/** A binding that cannot be; the message says which and why. */
export class PinError extends Error {
  override name = 'PinError';
}

/** @throws PinError if it is no address of a station or no MAC of one */
export function makePin(address: string, mac: string): Pin {
  const bytes = parseAddress(address);
  const hardware = parseMac(mac);
  if (!bytes) throw new PinError(`"${address}" is no IP address`);
  if (!hardware) throw new PinError(`"${mac}" is no MAC address such as 00:0c:29:3b:07:73`);
  if ((hardware[0] as number) & 1 || hardware.every(byte => byte === 0)) {
    throw new PinError(`${formatMac(hardware)} is no MAC of one station`);
  }
  const first = bytes[0] as number;
  const isGroup = bytes.length === 4 ? first >= 224 || first === 127 : first === 0xff;
  if (isGroup || bytes.every(byte => byte === 0)) {
    throw new PinError(`${formatAddress(bytes)} is no address that a station has`);
  }
  return { address: formatAddress(bytes), mac: formatMac(hardware) };
}

/** Reads `00:0c:29:3b:07:73 10.0.0.7`, the form of /etc/ethers. @throws PinError */
export function parsePin(text: string): Pin {
  const [mac = '', address = '', ...others] = text.trim().split(/\s+/);
  if (others.length > 0) throw new PinError(`"${text}" is no pin such as "00:0c:29:3b:07:73 10.0.0.7"`);
  return makePin(address, mac);
}

export function formatPin({ address, mac }: Pin): string {
  return `${mac} ${address}`;
}

/** The pins in their order, of an address the last one. */
export function distinctPins(pins: Iterable<Pin>): Pin[] {
  const byAddress = new Map<string, Pin>();
  for (const pin of pins) byAddress.set(pin.address, pin);
  return [...byAddress.values()];
}
