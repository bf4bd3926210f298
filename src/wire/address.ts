/** IP and Ethernet addresses: text to bytes and back. Text is canonical where this file produced it. */

export type Family = 4 | 6;

/** Bytes of an address of this family: 4 or 16. */
export function addressBytes(family: Family): 4 | 16 {
  return family === 4 ? 4 : 16;
}

/** Parses dotted-quad IPv4 (exactly four decimal numbers without leading zeros) or RFC 4291 IPv6 text. */
export function parseAddress(text: string): Uint8Array | undefined {
  return text.includes(':') ? parseIpv6Address(text) : parseIpv4Address(text);
}

/** Parses an IPv4 address; undefined if it is not one. Four decimal numbers, 0..255, no leading zeros. */
export function parseIpv4Address(text: string): Uint8Array | undefined {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text);
  if (!match) return undefined;
  const bytes = new Uint8Array(4);
  for (let index = 0; index < 4; index++) {
    const part = match[index + 1] as string;
    if (Number(part) > 255 || (part.length > 1 && part.startsWith('0'))) return undefined;
    bytes[index] = Number(part);
  }
  return bytes;
}

/** Parses an IPv6 address (RFC 4291 section 2.2, with `::` and an embedded IPv4 tail); no zone. */
export function parseIpv6Address(text: string): Uint8Array | undefined {
  let groups = text;
  const tail = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text);
  if (tail) {
    const quad = parseIpv4Address(tail[2] as string);
    if (!quad) return undefined;
    const [a, b, c, d] = quad as unknown as [number, number, number, number];
    groups = `${tail[1]}${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
  }
  const halves = groups.split('::');
  if (halves.length > 2) return undefined;
  const words = (half: string): string[] => (half === '' ? [] : half.split(':'));
  const head = words(halves[0] as string);
  const rest = halves.length === 2 ? words(halves[1] as string) : [];
  const gap = 8 - head.length - rest.length;
  if (halves.length === 2 ? gap < 1 : gap !== 0) return undefined;
  const all = [...head, ...new Array<string>(halves.length === 2 ? gap : 0).fill('0'), ...rest];
  const bytes = new Uint8Array(16);
  for (let index = 0; index < 8; index++) {
    const word = all[index] as string;
    if (!/^[0-9a-fA-F]{1,4}$/.test(word)) return undefined;
    const value = Number.parseInt(word, 16);
    bytes[2 * index] = value >>> 8;
    bytes[2 * index + 1] = value & 0xff;
  }
  return bytes;
}

/** Canonical text of 4 or 16 address bytes at `at` (IPv6 as RFC 5952: lower case, longest zero run compressed). */
export function formatAddress(bytes: Uint8Array, at = 0, length = bytes.length - at): string {
  if (length === 4) return `${bytes[at]}.${bytes[at + 1]}.${bytes[at + 2]}.${bytes[at + 3]}`;
  const words: number[] = [];
  for (let index = 0; index < 16; index += 2) {
    words.push(((bytes[at + index] as number) << 8) | (bytes[at + index + 1] as number));
  }
  if (words.slice(0, 5).every(word => word === 0) && words[5] === 0xffff) {
    return `::ffff:${formatAddress(bytes, at + 12, 4)}`;
  }
  let bestStart = -1;
  let bestLength = 1;
  for (let start = 0; start < 8; start++) {
    let end = start;
    while (end < 8 && words[end] === 0) end++;
    if (end - start > bestLength) {
      bestStart = start;
      bestLength = end - start;
    }
    if (end > start) start = end;
  }
  const hex = (part: number[]): string => part.map(word => word.toString(16)).join(':');
  if (bestStart < 0) return hex(words);
  return `${hex(words.slice(0, bestStart))}::${hex(words.slice(bestStart + bestLength))}`;
}

/** The family of address text that `parseAddress` accepted. */
export function familyOf(text: string): Family {
  return text.includes(':') ? 6 : 4;
}

/** Parses `00:50:56:c0:00:08` (or with dashes); undefined if it is not a MAC address. */
export function parseMac(text: string): Uint8Array | undefined {
  if (!/^[0-9a-fA-F]{2}([:-])(?:[0-9a-fA-F]{2}\1){4}[0-9a-fA-F]{2}$/.test(text)) return undefined;
  return Uint8Array.from(text.split(/[:-]/), part => Number.parseInt(part, 16));
}

/** Lower-case, colon-separated text of the six bytes at `at`. */
export function formatMac(bytes: Uint8Array, at = 0): string {
  let text = '';
  for (let index = 0; index < 6; index++) {
    text += `${index ? ':' : ''}${(bytes[at + index] as number).toString(16).padStart(2, '0')}`;
  }
  return text;
}
