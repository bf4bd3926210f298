/** Frames as text: hexadecimal, and what they say. */
import { Summarizer } from '../capture/summary.ts';
import { formatMac } from '../wire/address.ts';

export function toHex(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += byte.toString(16).padStart(2, '0');
  return text;
}

/** The bytes of an even number of hexadecimal digits. */
export function fromHex(text: string): Uint8Array {
  return Uint8Array.from({ length: text.length / 2 }, (_, index) =>
    Number.parseInt(text.slice(2 * index, 2 * index + 2), 16),
  );
}

/** One line about a frame: the MAC it goes to and what it carries. */
export function describeFrame(bytes: Uint8Array): string {
  if (bytes.length < 14) return `${bytes.length} bytes, no frame`;
  const { source, destination, protocol, info } = new Summarizer({ names: false }).summarize({
    bytes,
    length: bytes.length,
  });
  return `to ${formatMac(bytes)} ${source} -> ${destination} ${protocol} ${info}`.trimEnd();
}
