/**
 * Why a frame was refused. The number travels through the packet path (it allocates nothing), the name is what
 * counters and messages show.
 */
export const Malformed = {
  none: 0,
  frameTooShort: 1,
  frameTooLong: 2,
  vlanTruncated: 3,
  arpTruncated: 4,
  arpUnsupported: 5,
  ipv4Truncated: 6,
  ipv4Version: 7,
  ipv4HeaderLength: 8,
  ipv4TotalLength: 9,
  ipv4Checksum: 10,
  ipv4Options: 11,
  ipv6Truncated: 12,
  ipv6Version: 13,
  ipv6PayloadLength: 14,
  ipv6ExtensionHeader: 15,
  fragmentLength: 16,
  icmpTruncated: 17,
  icmpChecksum: 18,
  tcpTruncated: 19,
  tcpHeaderLength: 20,
  tcpOptions: 21,
  udpTruncated: 22,
  udpLength: 23,
  sctpTruncated: 24,
  sctpChunk: 25,
  addressInvalid: 26,
} as const;

export type Malformed = (typeof Malformed)[keyof typeof Malformed];

/** The names by number, kebab-case as counters show them: `MALFORMED_NAMES[Malformed.tcpOptions]` is `tcp-options`. */
export const MALFORMED_NAMES: readonly string[] = Object.keys(Malformed).map(name =>
  name.replace(/[A-Z]/g, letter => `-${letter.toLowerCase()}`),
);
