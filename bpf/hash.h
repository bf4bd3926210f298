/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The hash of a connection's key, the same as hashKey() in src/ipvs/connections.ts. */
#ifndef DIRIGO_HASH_H
#define DIRIGO_HASH_H

#include "layout.h"

/* Laid out as the bytes 12..47 of a connection: ports, client, virtual. */
struct key {
	__u32 ports;
	__u32 client[4];
	__u32 virtual[4];
};

/* One step of the finish of MurmurHash3, which is a bijection. */
static __always_inline __u32 stir(__u32 hash, __u32 multiplier, __u32 shift)
{
	hash *= multiplier;
	return hash ^ hash >> shift;
}

static __always_inline __u32 hash_key(const struct key *key, __u8 protocol, __u32 flags, __u32 seed)
{
	__u32 other = key->virtual[0] * 0x27d4eb2f ^ key->ports ^ (((__u32)protocol << 16) | flags);
	__u32 hash = key->client[0] ^ seed;

	hash ^= hash >> 16;
	if (flags & FLAG_IPV6) {
		hash = stir(hash, 0x85ebca6b, 13) ^ key->client[1];
		hash = stir(hash, 0xc2b2ae35, 16) ^ key->client[2];
		hash = stir(hash, 0x85ebca6b, 13) ^ key->client[3];
		hash = stir(hash, 0xc2b2ae35, 16) ^ key->virtual[1];
		hash = stir(hash, 0x85ebca6b, 13) ^ key->virtual[2];
		hash = stir(hash, 0xc2b2ae35, 16) ^ key->virtual[3];
	}
	hash = stir(hash, 0x85ebca6b, 13) ^ other;
	return stir(hash, 0xc2b2ae35, 16);
}

/*
 * What an index takes the second bucket (from bit 3 on), the tag of an entry (the top eight bits) and the place that is
 * looked at first (the low three) from. An entry stands at or soon behind that place: so the branch which finds it is one
 * that can be predicted.
 */
static __always_inline __u32 second_hash(__u32 hash)
{
	return (hash ^ (hash >> 16)) * 0x9e3779b1;
}

/* The bit of an address in the filters, whose halves belong to the families; filterBit() in src/datapath/xdp/control.ts. */
static __always_inline __u32 filter_bit4(__u32 address)
{
	return (address * 0x9e3779b1) >> 22;
}

static __always_inline __u32 filter_bit6(const __u32 *address)
{
	return filter_bit4(address[0] ^ address[1] ^ address[2] ^ address[3]) | 1 << 10;
}

static __always_inline void swap_word(struct key *key, int word)
{
	__u32 client = key->client[word];

	key->client[word] = key->virtual[word];
	key->virtual[word] = client;
}

/* Makes the key of a client's packet that of a reply, and back. */
static __always_inline void turn(struct key *key, __u64 flags)
{
	key->ports = key->ports >> 16 | key->ports << 16;
	swap_word(key, 0);
	/* No loop: clang would keep the key in memory, and with it all that is known of the packet. */
	if (flags & FLAG_IPV6) {
		swap_word(key, 1);
		swap_word(key, 2);
		swap_word(key, 3);
	}
}

#endif
