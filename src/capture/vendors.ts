/**
 * Who made a network card, from the first bytes of its MAC address, in the words of Wireshark 1.10 (at most eight
 * letters). A short table: the virtual machines a lab consists of, and the addresses that protocols reserve.
 */
import { formatMac } from '../wire/address.ts';

/** Prefixes of whole bytes in hex; a longer one that fits goes before a shorter one. */
const VENDORS: ReadonlyMap<string, string> = new Map([
  ['000569', 'Vmware'],
  ['000c29', 'Vmware'],
  ['001c14', 'Vmware'],
  ['005056', 'Vmware'],
  ['00155d', 'Microsof'],
  ['00163e', 'Xensourc'],
  ['080027', 'CadmusCo'],
  ['525400', 'RealtekU'],
  // RFC 9568 section 7.3: the last byte is the virtual router's number; 00-01 for IPv4, 00-02 for IPv6.
  ['00005e0001', 'IETF-VRRP-VRID'],
  ['00005e0002', 'IETF-VRRP-VRID'],
  // RFC 1112 section 6.4 and RFC 2464 section 7.
  ['01005e', 'IPv4mcast'],
  ['3333', 'IPv6mcast'],
]);

const LONGEST_PREFIX = 5;

/**
 * A MAC address as people recognise it: `Broadcast`, the vendor and the bytes behind its prefix
 * (`Vmware_2e:aa:48`), or plain bytes where the vendor is not in the table.
 */
export function macName(bytes: Uint8Array, at = 0): string {
  const plain = formatMac(bytes, at);
  if (plain === 'ff:ff:ff:ff:ff:ff') return 'Broadcast';
  const parts = plain.split(':');
  for (let length = LONGEST_PREFIX; length >= 2; length--) {
    const vendor = VENDORS.get(parts.slice(0, length).join(''));
    if (vendor !== undefined) return `${vendor}_${parts.slice(length).join(':')}`;
  }
  return plain;
}
