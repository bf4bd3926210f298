/** The filter in front of a tap: ARP, and IPv6 that may be neighbour discovery, with up to one VLAN tag in the frame. */
import type { FilterInstruction } from '../datapath/ffi/packet-tap.ts';

/** Operations of classic BPF (Documentation/networking/filter.rst). */
const Code = {
  loadHalfAbsolute: 0x28,
  loadHalf: 0x48,
  loadByte: 0x50,
  loadX: 0x01,
  equal: 0x15,
  return: 0x06,
};

/** Bytes kept of a frame: neighbour discovery with all its options. */
const SNAPSHOT = 400;

type Line =
  | { code: number; k: number }
  /** Goes on at the label `jump` if the value is `k`, else at `otherwise`, by default the next line. */
  | { equal: number; jump: string; otherwise?: string }
  | { label: string };

const LINES: readonly Line[] = [
  { code: Code.loadX, k: 0 },
  { code: Code.loadHalfAbsolute, k: 12 },
  { equal: 0x0806, jump: 'keep' },
  { equal: 0x86dd, jump: 'ipv6' },
  { equal: 0x8100, jump: 'tagged' },
  { equal: 0x88a8, jump: 'tagged', otherwise: 'drop' },
  { label: 'tagged' },
  { code: Code.loadX, k: 4 },
  { code: Code.loadHalfAbsolute, k: 16 },
  { equal: 0x0806, jump: 'keep' },
  // More tags than one are rare enough to be looked at.
  { equal: 0x8100, jump: 'keep' },
  { equal: 0x88a8, jump: 'keep' },
  { equal: 0x86dd, jump: 'ipv6', otherwise: 'drop' },
  { label: 'ipv6' },
  // Hop limit 255: what a router forwarded is no neighbour discovery.
  { code: Code.loadByte, k: 21 },
  { equal: 255, jump: 'near', otherwise: 'drop' },
  { label: 'near' },
  { code: Code.loadByte, k: 20 },
  { equal: 58, jump: 'icmp' },
  // Extension headers in front of it are walked later.
  { equal: 0, jump: 'keep' },
  { equal: 43, jump: 'keep' },
  { equal: 44, jump: 'keep' },
  { equal: 51, jump: 'keep' },
  { equal: 60, jump: 'keep', otherwise: 'drop' },
  { label: 'icmp' },
  { code: Code.loadByte, k: 54 },
  { equal: 133, jump: 'keep' },
  { equal: 134, jump: 'keep' },
  { equal: 137, jump: 'keep' },
  { equal: 135, jump: 'keep' },
  { equal: 136, jump: 'keep' },
  { label: 'drop' },
  { code: Code.return, k: 0 },
  { label: 'keep' },
  { code: Code.return, k: SNAPSHOT },
];

function assemble(lines: readonly Line[]): FilterInstruction[] {
  const places = new Map<string, number>();
  let place = 0;
  for (const line of lines) {
    if ('label' in line) places.set(line.label, place);
    else place++;
  }
  const instructions: FilterInstruction[] = [];
  const distance = (label: string | undefined): number =>
    label === undefined ? 0 : (places.get(label) ?? 0) - instructions.length - 1;
  for (const line of lines) {
    if ('label' in line) continue;
    if ('code' in line) instructions.push({ code: line.code, jt: 0, jf: 0, k: line.k });
    else {
      instructions.push({
        code: Code.equal,
        jt: distance(line.jump),
        jf: distance(line.otherwise),
        k: line.equal,
      });
    }
  }
  return instructions;
}

export const DISCOVERY_FILTER: readonly FilterInstruction[] = assemble(LINES);
