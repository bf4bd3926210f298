/** The bytes of a frame as `tshark -x` shows them: sixteen a line, in hex and as text. */

const WIDTH = 16;

export function hexDump(bytes: Uint8Array): string {
  let text = '';
  for (let at = 0; at < bytes.length; at += WIDTH) {
    const line = bytes.subarray(at, at + WIDTH);
    const hex = Array.from(line, byte => byte.toString(16).padStart(2, '0')).join(' ');
    const shown = Array.from(line, byte =>
      byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.',
    ).join('');
    text += `${at.toString(16).padStart(4, '0')}  ${hex.padEnd(3 * WIDTH - 1)}   ${shown}\n`;
  }
  return text;
}
