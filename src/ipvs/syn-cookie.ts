/**
 * SYN cookies (D. J. Bernstein; in this form of Alibaba LVS and DPVS, ip_vs_synproxy.c): the sequence number of a SYN/ACK
 * says all that has to be known of the SYN when the client's ACK brings it back, so that nothing is kept for a SYN.
 *
 *     cookie = H(ends, 0) + client's sequence number + count × 2^24 + (H(ends, count) + options) mod 2^24      (mod 2^32)
 *
 * `count` are minutes. `options` are 24 bits of which fourteen are always 0: by these, the count and the bounds of the rest,
 * an ACK that answers no SYN/ACK of ours is recognised, but for one in 1.7 million. H is SipHash-2-4, as Linux has it for
 * its own cookies, where Alibaba's is of MD5; each of the two has a secret of its own.
 */
import type { Packet } from '../wire/packet.ts';
import { type SipHashKey, sipHash24 } from './siphash.ts';

/** What a client may state as the largest segment it takes, bytes; a cookie has room for the number of one. */
export const SEGMENT_SIZES: readonly number[] = [64, 256, 512, 536, 1024, 1280, 1440, 1452, 1460, 4312];
/** Without the option a segment has at most this many bytes of data (RFC 9293 3.7.1, MUST-15). */
export const DEFAULT_SEGMENT_SIZE = 536;
/** Scales go up to 14 (RFC 7323 2.2): no scaling. */
export const NO_SCALE = 15;

/** Minutes that a cookie holds, the one it was made in included. */
const LIFETIME = 4;
const MINUTE = 60_000;

/** The options of a client's SYN that both sides will keep to, packed as a cookie carries them. */
export const SynOptions = {
  /** Always 0. */
  unused: 0xc00fff,
  segmentSizeShift: 12,
  windowScaleShift: 16,
  timestamps: 1 << 20,
  sack: 1 << 21,
} as const;

/** @param segmentSize the client's, bytes; the largest known size that is no larger is remembered */
export function packSynOptions(
  segmentSize: number,
  windowScale: number,
  timestamps: boolean,
  sack: boolean,
): number {
  let index = 0;
  while (index + 1 < SEGMENT_SIZES.length && (SEGMENT_SIZES[index + 1] as number) <= segmentSize) index++;
  return (
    (index << SynOptions.segmentSizeShift) |
    (windowScale << SynOptions.windowScaleShift) |
    (timestamps ? SynOptions.timestamps : 0) |
    (sack ? SynOptions.sack : 0)
  );
}

/** Bytes. */
export function segmentSizeOf(options: number): number {
  return SEGMENT_SIZES[(options >>> SynOptions.segmentSizeShift) & 15] as number;
}

/** 0..14, or `NO_SCALE`. */
export function windowScaleOf(options: number): number {
  return (options >>> SynOptions.windowScaleShift) & 15;
}

/** Words of the secret that all cookies depend on. */
export const SECRET_WORDS = 8;

export class SynCookies {
  readonly #first: SipHashKey;
  readonly #second: SipHashKey;
  /** Addresses, ports, and the count. */
  readonly #input = new Int32Array(10);
  #words = 0;

  /** @param secret `SECRET_WORDS` random words */
  constructor(secret: ArrayLike<number>) {
    this.#first = keyOf(secret, 0);
    this.#second = keyOf(secret, 4);
  }

  /**
   * The sequence number for the answer to a SYN.
   * @param options `SynOptions`
   * @param now milliseconds of a clock that never goes back
   * @returns a signed 32-bit number
   */
  make(syn: Packet, clientSequence: number, options: number, now: number): number {
    const count = Math.floor(now / MINUTE);
    this.#setEnds(syn);
    const low = (this.#hash(this.#second, count) + options) & 0xffffff;
    return (this.#hash(this.#first, 0) + clientSequence + (count << 24) + low) | 0;
  }

  /**
   * What the SYN asked for whose cookie this is.
   * @param acknowledgement a packet of the client's with the same ends
   * @returns `SynOptions`, or -1: no cookie of the last four minutes
   */
  read(acknowledgement: Packet, cookie: number, clientSequence: number, now: number): number {
    const count = Math.floor(now / MINUTE);
    this.#setEnds(acknowledgement);
    const rest = (cookie - this.#hash(this.#first, 0) - clientSequence) | 0;
    const age = (count - (rest >>> 24)) & 0xff;
    if (age >= LIFETIME || age > count) return -1;
    const options = (rest - this.#hash(this.#second, count - age)) & 0xffffff;
    if ((options & SynOptions.unused) !== 0) return -1;
    return ((options >>> SynOptions.segmentSizeShift) & 15) < SEGMENT_SIZES.length ? options : -1;
  }

  #setEnds({ view, sourceAt, family, transport }: Packet): void {
    const input = this.#input;
    // Source and destination stand side by side.
    const words = family === 4 ? 2 : 8;
    for (let word = 0; word < words; word++) input[word] = view.getInt32(sourceAt + 4 * word, true);
    input[words] = view.getInt32(transport, true);
    this.#words = words + 2;
  }

  #hash(key: SipHashKey, count: number): number {
    this.#input[this.#words - 1] = count;
    return sipHash24(this.#input, this.#words, key);
  }
}

function keyOf(secret: ArrayLike<number>, at: number): SipHashKey {
  return {
    word0: secret[at] as number,
    word1: secret[at + 1] as number,
    word2: secret[at + 2] as number,
    word3: secret[at + 3] as number,
  };
}
