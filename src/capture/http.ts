/** The first line of HTTP messages (RFC 9112): as much of HTTP as a one-line summary needs. */

const REQUEST = /^[A-Z]{3,10} \S+ HTTP\/1\.[01]$/;
const STATUS = /^HTTP\/1\.[01] \d{3}( .*)?$/;
/** Longer first lines are not looked for. */
const LONGEST_LINE = 2048;

/** The request or status line with which these bytes begin, made printable; undefined if they begin otherwise. */
export function httpFirstLine(bytes: Uint8Array): string | undefined {
  const first = bytes[0];
  if (first === undefined || first < 0x41 || first > 0x5a) return undefined;
  const end = bytes.subarray(0, LONGEST_LINE).indexOf(0x0d);
  if (end < 0) return undefined;
  const line = printable(bytes.subarray(0, end));
  return REQUEST.test(line) || STATUS.test(line) ? line : undefined;
}

/** ASCII as it is, every other byte as `\xNN`: what came over a network must not reach a terminal raw. */
export function printable(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) {
    text +=
      byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, '0')}`;
  }
  return text;
}
