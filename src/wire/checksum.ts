/**
 * The Internet checksum (RFC 1071) and its incremental update (RFC 1624, equation 3).
 *
 * Sums are kept in little-endian word order: a one's-complement sum is the same in either byte order up to a final
 * swap (RFC 1071 section 2B), so nothing on the hot path swaps bytes. A *raw* checksum is the field as
 * `getUint16(at, true)` reads it and `setUint16(at, value, true)` writes it.
 */

/** Folds a sum of 16-bit words to 16 bits. `sum` must be below 2^32. */
export function fold(sum: number): number {
  let folded = (sum & 0xffff) + (sum >>> 16);
  folded = (folded & 0xffff) + (folded >>> 16);
  return folded;
}

/**
 * Adds the bytes `[at, at + length)` to a running sum. An odd last byte counts as if followed by a zero.
 * Safe for up to 64 KiB a call; the result is folded, so that calls can be chained without overflow.
 */
export function sumBytes(view: DataView, at: number, length: number, sum = 0): number {
  const end = at + length;
  let total = sum;
  let offset = at;
  for (; offset + 3 < end; offset += 4) {
    const word = view.getUint32(offset, true);
    total += (word & 0xffff) + (word >>> 16);
  }
  if (offset + 1 < end) {
    total += view.getUint16(offset, true);
    offset += 2;
  }
  if (offset < end) total += view.getUint8(offset);
  return fold(total);
}

/** The part of the TCP/UDP/ICMPv6 checksum that covers the pseudo-header (RFC 9293 3.1, RFC 8200 8.1). */
export function sumPseudoHeader(
  view: DataView,
  addresses: number,
  addressBytes: number,
  protocol: number,
  length: number,
): number {
  return sumBytes(
    view,
    addresses,
    2 * addressBytes,
    (protocol << 8) + swap16(length & 0xffff) + swap16(length >>> 16),
  );
}

/** Exchanges the two bytes of a 16-bit number. */
export function swap16(value: number): number {
  return ((value & 0xff) << 8) | (value >>> 8);
}

/** The raw checksum field for a sum: its complement. */
export function finish(sum: number): number {
  return ~fold(sum) & 0xffff;
}

/**
 * A raw checksum field after one 16-bit word under it changed (RFC 1624 eqn. 3: HC' = ~(~HC + ~m + m')).
 * @param checksum the raw field before
 * @param before the raw word before, 0..0xffff
 * @param after the raw word after, 0..0xffff
 */
export function updateWord(checksum: number, before: number, after: number): number {
  return ~fold((~checksum & 0xffff) + (~before & 0xffff) + after) & 0xffff;
}

/**
 * What a change of one 32-bit word adds to a checksum's sum; differences of several words are added up and
 * applied once with `applyDifference`. Up to 8000 differences fit before a fold is needed.
 */
export function difference32(before: number, after: number): number {
  return (~before & 0xffff) + ((~before >>> 16) & 0xffff) + (after & 0xffff) + (after >>> 16);
}

/** What a change of one 16-bit word adds to a checksum's sum. */
export function difference16(before: number, after: number): number {
  return (~before & 0xffff) + after;
}

/** A raw checksum field after the words under it changed by the accumulated `difference`. */
export function applyDifference(checksum: number, difference: number): number {
  return ~fold((~checksum & 0xffff) + difference) & 0xffff;
}
