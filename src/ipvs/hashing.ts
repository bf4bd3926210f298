/**
 * How the hashing schedulers turn an address and a port into a place in their table
 * (net/netfilter/ipvs/ip_vs_sh.c, ip_vs_dh.c, ip_vs_mh.c; include/linux/hash.h).
 */
import type { HashPlan, SelectionRequest } from './plan.ts';
import { type SipHashKey, sipHash13 } from './siphash.ts';

/** Places in the tables of sh and dh. */
export const HASH_TABLE_SIZE = 256;

/** Places in a Maglev table: a prime, as the kernel's default CONFIG_IP_VS_MH_TAB_INDEX chooses it. */
export const MAGLEV_TABLE_SIZE = 4093;

/** Key of the Maglev lookup, and of the first place of a server. */
export const MAGLEV_OFFSET_KEY: SipHashKey = { word0: 0x9e3779b1, word1: 0, word2: 0x9e3779b1, word3: 0 };

/** Key of the distance between the places of a server. */
export const MAGLEV_SKIP_KEY: SipHashKey = { word0: 0x9e37a52c, word1: 0, word2: 0x9e37a52c, word3: 0 };

/** 2^32 over the golden ratio: GOLDEN_RATIO_32. */
const GOLDEN_RATIO = 0x61c88647;

/** The address at `at` as one 32-bit number: IPv6 is the exclusive or of its four words. 0..2^32-1. */
export function foldAddress(view: DataView, at: number, family: 4 | 6): number {
  const first = view.getUint32(at);
  if (family === 4) return first;
  return (first ^ view.getUint32(at + 4) ^ view.getUint32(at + 8) ^ view.getUint32(at + 12)) >>> 0;
}

/** What a plan hashes of a request: the folded address plus, if the plan says so, the source port. 0..2^32-1. */
export function hashInput(plan: HashPlan, request: SelectionRequest): number {
  const at = plan.algorithm === 'dh' ? request.destinationAt : request.sourceAt;
  const address = foldAddress(request.view, at, request.family);
  return plan.withPort ? (address + request.sourcePort) >>> 0 : address;
}

/**
 * The place an input has in the plan's table; `offset` moves a fallback on to other places (0 for the first try).
 * sh and dh take the top byte of a multiplicative hash and add the offset; mh adds it before hashing.
 */
export function placeOf(plan: HashPlan, input: number, offset: number): number {
  if (plan.algorithm === 'mh') return maglevHash(input, offset) % plan.table.length;
  return (offset + (Math.imul(input, GOLDEN_RATIO) >>> 24)) & (HASH_TABLE_SIZE - 1);
}

/** The 32-bit hash of a Maglev lookup. */
export function maglevHash(input: number, offset: number): number {
  return sipHash13((input + offset) >>> 0, MAGLEV_OFFSET_KEY);
}
