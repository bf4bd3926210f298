import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type SipHashKey, sipHash13, sipHash24 } from './siphash.ts';

test('the vector of the kernel for four bytes (lib/tests/siphash_kunit.c, 64 bit)', () => {
  const key = { word0: 0x03020100, word1: 0x07060504, word2: 0x0b0a0908, word3: 0x0f0e0d0c };
  assert.equal(sipHash13(0x03020100, key), 0x88d38328);
});

test('SipHash-2-4 of words: what `openssl mac -macopt size:8 SIPHASH` says of the bytes 0, 1, 2 …', () => {
  const key = { word0: 0x03020100, word1: 0x07060504, word2: 0x0b0a0908, word3: 0x0f0e0d0c };
  const words = Int32Array.of(0x03020100, 0x07060504, 0x0b0a0908, 0x0f0e0d0c, 0x13121110);
  const expected = [0xdd0e0e31, 0x277187b7, 0x9a932462, 0x860ee5fb, 0x57c29bdb, 0x1aa2ee98];
  for (const [count, hash] of expected.entries()) assert.equal(sipHash24(words, count, key), hash);
});

test('agrees with the definition in 64-bit arithmetic for any word and key', () => {
  const word = fc.nat({ max: 0xffffffff });
  fc.assert(
    fc.property(word, word, word, word, word, (input, word0, word1, word2, word3) => {
      const key = { word0, word1, word2, word3 };
      assert.equal(sipHash13(input, key), definition(input, key));
    }),
  );
});

/** SipHash-1-3 as its paper writes it, for one four-byte input. */
function definition(word: number, key: SipHashKey): number {
  const mask = (1n << 64n) - 1n;
  const k0 = (BigInt(key.word1) << 32n) | BigInt(key.word0);
  const k1 = (BigInt(key.word3) << 32n) | BigInt(key.word2);
  let v0 = 0x736f6d6570736575n ^ k0;
  let v1 = 0x646f72616e646f6dn ^ k1;
  let v2 = 0x6c7967656e657261n ^ k0;
  let v3 = 0x7465646279746573n ^ k1;
  const rotate = (value: bigint, by: bigint): bigint => ((value << by) | (value >> (64n - by))) & mask;
  const round = (): void => {
    v0 = (v0 + v1) & mask;
    v1 = rotate(v1, 13n) ^ v0;
    v0 = rotate(v0, 32n);
    v2 = (v2 + v3) & mask;
    v3 = rotate(v3, 16n) ^ v2;
    v0 = (v0 + v3) & mask;
    v3 = rotate(v3, 21n) ^ v0;
    v2 = (v2 + v1) & mask;
    v1 = rotate(v1, 17n) ^ v2;
    v2 = rotate(v2, 32n);
  };
  const block = (4n << 56n) | BigInt(word);
  v3 ^= block;
  round();
  v0 ^= block;
  v2 ^= 0xffn;
  round();
  round();
  round();
  return Number((v0 ^ v1 ^ v2 ^ v3) & 0xffffffffn);
}
