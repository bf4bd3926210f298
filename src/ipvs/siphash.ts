/**
 * SipHash after Aumasson and Bernstein, "SipHash: a fast short-input PRF", cut to 32 bits: SipHash-1-3 of one 32-bit word,
 * what a 64-bit Linux computes as `hsiphash_1u32` (lib/siphash.c; only 32-bit kernels use HalfSipHash), and SipHash-2-4
 * of several. The 64-bit state is kept as pairs of 32-bit numbers, because BigInt would allocate.
 */

/** A 128-bit key as four 32-bit words, least significant first. */
export interface SipHashKey {
  readonly word0: number;
  readonly word1: number;
  readonly word2: number;
  readonly word3: number;
}

const single = new Int32Array(1);

/**
 * @param word the input, 0..2^32-1 (its little-endian bytes are what is hashed)
 * @returns 0..2^32-1
 */
export function sipHash13(word: number, key: SipHashKey): number {
  single[0] = word;
  return sipHash(single, 1, key, 1, 3);
}

/**
 * @param words the input: of each the little-endian bytes are hashed
 * @param count how many of them
 * @returns 0..2^32-1
 */
export function sipHash24(words: Int32Array, count: number, key: SipHashKey): number {
  return sipHash(words, count, key, 2, 4);
}

/** @param compression rounds a block @param finalization rounds at the end */
function sipHash(
  words: Int32Array,
  count: number,
  key: SipHashKey,
  compression: number,
  finalization: number,
): number {
  // "somepseudorandomlygeneratedbytes", each half of each word mixed with the key.
  let low0 = 0x70736575 ^ key.word0;
  let high0 = 0x736f6d65 ^ key.word1;
  let low1 = 0x6e646f6d ^ key.word2;
  let high1 = 0x646f7261 ^ key.word3;
  let low2 = 0x6e657261 ^ key.word0;
  let high2 = 0x6c796765 ^ key.word1;
  let low3 = 0x79746573 ^ key.word2;
  let high3 = 0x74656462 ^ key.word3;
  const blocks = (count >>> 1) + 1;
  // The round behind the last block finishes, and takes nothing in.
  for (let block = 0; block <= blocks; block++) {
    const isFinal = block === blocks;
    let low = 0;
    let high = 0;
    if (isFinal) low2 ^= 0xff;
    else {
      low = 2 * block < count ? (words[2 * block] as number) : 0;
      // The last block has the input's length in bytes in its top byte.
      high = block + 1 === blocks ? (4 * count) << 24 : (words[2 * block + 1] as number);
    }
    low3 ^= low;
    high3 ^= high;
    for (let round = isFinal ? finalization : compression; round > 0; round--) {
      let sum = (low0 >>> 0) + (low1 >>> 0);
      low0 = sum | 0;
      high0 = (high0 + high1 + (sum > 0xffffffff ? 1 : 0)) | 0;
      let swap = (low1 << 13) | (high1 >>> 19);
      high1 = ((high1 << 13) | (low1 >>> 19)) ^ high0;
      low1 = swap ^ low0;
      swap = low0;
      low0 = high0;
      high0 = swap;

      sum = (low2 >>> 0) + (low3 >>> 0);
      low2 = sum | 0;
      high2 = (high2 + high3 + (sum > 0xffffffff ? 1 : 0)) | 0;
      swap = (low3 << 16) | (high3 >>> 16);
      high3 = ((high3 << 16) | (low3 >>> 16)) ^ high2;
      low3 = swap ^ low2;

      sum = (low0 >>> 0) + (low3 >>> 0);
      low0 = sum | 0;
      high0 = (high0 + high3 + (sum > 0xffffffff ? 1 : 0)) | 0;
      swap = (low3 << 21) | (high3 >>> 11);
      high3 = ((high3 << 21) | (low3 >>> 11)) ^ high0;
      low3 = swap ^ low0;

      sum = (low2 >>> 0) + (low1 >>> 0);
      low2 = sum | 0;
      high2 = (high2 + high1 + (sum > 0xffffffff ? 1 : 0)) | 0;
      swap = (low1 << 17) | (high1 >>> 15);
      high1 = ((high1 << 17) | (low1 >>> 15)) ^ high2;
      low1 = swap ^ low2;
      swap = low2;
      low2 = high2;
      high2 = swap;
    }
    low0 ^= low;
    high0 ^= high;
  }
  return (low0 ^ low1 ^ low2 ^ low3) >>> 0;
}
