/** Records that the filter in bpf/guard/guard.bpf.c and this process share, little-endian. */

/** `struct binding`. */
export const BindingField = { flags: 0, count: 4, macs: 8 } as const;
export const BINDING_BYTES = 40;
/** MACs of a binding besides the directors'. */
export const BINDING_MACS = 4;
export const BindingFlag = { directors: 1 } as const;

/** `struct dropped`. */
export const DroppedField = { time: 0, interfaceIndex: 8, verdict: 12, length: 14, frame: 16 } as const;
export const DROPPED_BYTES = 144;
export const SNAPSHOT = 128;

/** `enum verdict`, in words. */
export const VERDICTS = ['passed', 'arp', 'discovery', 'malformed'] as const;
export type FilterVerdict = (typeof VERDICTS)[number];
