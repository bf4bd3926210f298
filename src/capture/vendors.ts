/**
 * Who made a network card, from the first bytes of its MAC address, in the words of Wireshark: at most eight letters. A
 * short table is built in: the virtual machines a lab consists of, and the addresses that protocols reserve. Whoever has
 * the list of the IEEE hands it in.
 */
import { formatMac } from '../wire/address.ts';

/** Prefixes of whole bytes in hex; a longer one that fits goes before a shorter one. */
const BUILT_IN: ReadonlyMap<string, string> = new Map([
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

/** Hex digits of the prefixes in the built-in table and in the IEEE's list (MA-S, MA-M, MA-L), the longest first. */
const BUILT_IN_LENGTHS = [10, 6, 4] as const;
const LISTED_LENGTHS = [9, 7, 6] as const;

/** The IEEE's list: names of organisations (the first line is theirs) by 6, 7 or 9 hex digits in capitals. */
export type VendorList = Readonly<Record<string, string>>;

/**
 * A MAC address as people recognise it: `Broadcast`, the vendor and what stands behind its prefix
 * (`Vmware_2e:aa:48`), or plain bytes where nobody knows the vendor.
 * @param list asked for what is not built in
 */
export function macName(bytes: Uint8Array, at = 0, list: VendorList = {}): string {
  const plain = formatMac(bytes, at);
  if (plain === 'ff:ff:ff:ff:ff:ff') return 'Broadcast';
  const digits = plain.replaceAll(':', '');
  for (const length of BUILT_IN_LENGTHS) {
    const vendor = BUILT_IN.get(digits.slice(0, length));
    if (vendor !== undefined) return `${vendor}_${behind(digits, length)}`;
  }
  for (const length of LISTED_LENGTHS) {
    const name = list[digits.slice(0, length).toUpperCase()];
    const vendor = name === undefined ? '' : shortVendorName(name);
    if (vendor !== '') return `${vendor}_${behind(digits, length)}`;
  }
  return plain;
}

/** The digits behind a prefix, in bytes. */
function behind(digits: string, length: number): string {
  const rest = digits.slice(length);
  const first = rest.length % 2 === 0 ? [] : [rest.slice(0, 1)];
  return [...first, ...(rest.slice(first.length).match(/../g) ?? [])].join(':');
}

/** Words that say what kind of company it is. */
const LEGAL_FORMS = [
  ...[
    'a/s',
    'ab',
    'ag',
    'b v',
    'bv',
    'co',
    'company',
    'corp',
    'corporation',
    'de c v',
    'gmbh',
    'inc',
    'incorporated',
  ],
  ...[
    'k k',
    'kg',
    'kk',
    'limited',
    'llc',
    'ltd',
    'n v',
    'of',
    'oy',
    'oyj',
    'plc',
    'pty',
    'pvt',
    's a',
    's p a',
    's r l',
  ],
  ...['sa', 'sarl', 'spa', 'srl', 'systems', 'the'],
];
const LEGAL_FORM = new RegExp(` (?:${LEGAL_FORMS.join('|')})(?= |$)`, 'gi');

/** What Wireshark makes of an organisation's name: `Huawei Technologies Co.,Ltd` is `HuaweiTe`. */
export function shortVendorName(name: string): string {
  let text = (name.split('\n', 1)[0] as string)
    .replace(/['"`]/g, '')
    .replace(/[,.;:()]+/g, ' ')
    .replace(/\s+/g, ' ')
    .trim();
  // All in capitals is not how a company writes itself.
  if (text === text.toUpperCase())
    text = text.toLowerCase().replace(/(?<=^|[\s\-&/])\w/g, letter => letter.toUpperCase());
  return text
    .replace(LEGAL_FORM, ' ')
    .replace(/^the /i, '')
    .replace(/[^\w\-+!*]/g, '')
    .slice(0, 8);
}
