/** Frames that something is wrong with, or that are rare: cut off, bits turned over, lengths that lie, options, VLAN tags. */
import { fillIpv4Checksum, Ipv4 } from '../../src/wire/ipv4.ts';
import type { Random } from './random.ts';
import type { ArrivingFrame } from './traffic.ts';

const FOREIGN_MACS = [
  [255, 255, 255, 255, 255, 255],
  [2, 0, 0, 0, 9, 9],
] as const;

/** The frame with one thing or another wrong. */
export function spoiled({ bytes, on }: ArrivingFrame, random: Random): ArrivingFrame {
  switch (random.below(10)) {
    case 0:
      return { bytes: bytes.slice(0, 14 + random.below(bytes.length - 13)), on };
    case 1: {
      const other = bytes.slice();
      other.set(random.pick(FOREIGN_MACS), 0);
      return { bytes: other, on };
    }
    case 2:
      return { bytes: withOptions(bytes, random), on };
    case 3:
    case 4:
      return { bytes: withLyingLength(bytes, random), on };
    default: {
      const changed = bytes.slice();
      const count = 1 + random.below(3);
      for (let change = 0; change < count; change++) {
        const at = 12 + random.below(Math.min(changed.length, 80) - 12);
        changed[at] = random.chance(50)
          ? random.below(256)
          : (changed[at] as number) ^ (1 << random.below(8));
      }
      // What has a wrong header checksum leaves at once: most of the spoiled ones should get further.
      if (random.chance(80)) fillHeaderChecksum(changed);
      return { bytes: changed, on };
    }
  }
}

/** The frame in a VLAN, or in one of a provider's. */
export function tagged({ bytes, on }: ArrivingFrame, random: Random): ArrivingFrame {
  const tags = random.chance(85) ? 1 : random.pick([2, 3]);
  const longer = new Uint8Array(bytes.length + 4 * tags);
  longer.set(bytes.subarray(0, 12));
  for (let tag = 0; tag < tags; tag++) {
    const type = random.chance(80) ? [0x81, 0] : [0x88, 0xa8];
    longer.set([...type, random.below(16), random.below(256)], 12 + 4 * tag);
  }
  longer.set(bytes.subarray(12), 12 + 4 * tags);
  return { bytes: longer, on };
}

function fillHeaderChecksum(bytes: Uint8Array): void {
  if (bytes[12] !== 8 || bytes[13] !== 0 || bytes.length < 34) return;
  const words = (bytes[14] as number) & 15;
  if (words >= 5 && 14 + 4 * words <= bytes.length) fillIpv4Checksum(new DataView(bytes.buffer), 14);
}

/** One of the lengths that the headers state is another. */
function withLyingLength(bytes: Uint8Array, random: Random): Uint8Array {
  const changed = bytes.slice();
  const isIpv4 = changed[12] === 8;
  if (changed.length < 62) return changed;
  const view = new DataView(changed.buffer);
  // Total or payload length, header length, data offset of TCP, length of UDP.
  const transport = isIpv4 ? 34 : 54;
  switch (random.below(4)) {
    case 0: {
      const at = isIpv4 ? 16 : 18;
      const right = view.getUint16(at);
      view.setUint16(
        at,
        random.pick([0, 1, 19, 20, 28, 40, right - 1, right + 1, right + 40, 65535]) & 0xffff,
      );
      break;
    }
    case 1:
      changed[14] = random.pick([0x40, 0x44, 0x46, 0x4f, 0x55, 0x60, 0x65, 0x6f, 0x05]);
      break;
    case 2:
      changed[transport + 12] = random.pick([0, 0x40, 0x50, 0x60, 0xf0]);
      break;
    default: {
      const right = view.getUint16(transport + 4);
      view.setUint16(transport + 4, random.pick([0, 7, 8, right - 1, right + 1, 65535]) & 0xffff);
    }
  }
  if (random.chance(90)) fillHeaderChecksum(changed);
  return changed;
}

/** The same packet with options in its IP header, or an extension header. */
export function withOptions(bytes: Uint8Array, random: Random): Uint8Array {
  if (bytes.length < 54) return bytes;
  const isIpv4 = bytes[12] === 8;
  const length = isIpv4 ? 4 * (1 + random.below(3)) : 8;
  const at = isIpv4 ? 34 : 54;
  const longer = new Uint8Array(bytes.length + length);
  longer.set(bytes.subarray(0, at));
  longer.set(bytes.subarray(at), at + length);
  const view = new DataView(longer.buffer);
  if (isIpv4) {
    longer.fill(1, at, at + length);
    longer[14] = 0x45 + length / 4;
    view.setUint16(14 + Ipv4.totalLength, view.getUint16(14 + Ipv4.totalLength) + length);
    fillIpv4Checksum(view, 14);
    return longer;
  }
  longer[at] = longer[20] as number;
  longer[20] = random.pick([0, 60, 43, 44]);
  // PadN, or an atomic fragment header of zeros.
  if (longer[20] !== 44) longer.set([1, 4], at + 2);
  view.setUint16(18, view.getUint16(18) + length);
  return longer;
}
