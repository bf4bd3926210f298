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

static __always_inline __u32 rotate(__u32 word, __u32 bits)
{
	return (word << bits) | (word >> (32 - bits));
}

static __always_inline __u32 hash_key(const struct key *key, __u8 protocol, __u32 flags, __u32 seed)
{
	__u32 a = key->client[0] + seed;
	__u32 b = key->virtual[0] + 0x9e3779b9;
	__u32 c = key->ports ^ (((__u32)protocol << 16) | flags);

	if (flags & FLAG_IPV6) {
		a += key->client[1];
		b += key->client[2];
		c += key->client[3];
		a = (a - c) ^ rotate(c, 4);
		c += b;
		b = (b - a) ^ rotate(a, 6);
		a += c;
		c = (c - b) ^ rotate(b, 8);
		b += a;
		a = (a - c) ^ rotate(c, 16);
		c += b;
		b = (b - a) ^ rotate(a, 19);
		a += c;
		c = (c - b) ^ rotate(b, 4);
		b += a;
		a += key->virtual[1];
		b += key->virtual[2];
		c += key->virtual[3];
	}
	c = (c ^ b) - rotate(b, 14);
	a = (a ^ c) - rotate(c, 11);
	b = (b ^ a) - rotate(a, 25);
	c = (c ^ b) - rotate(b, 16);
	a = (a ^ c) - rotate(c, 4);
	b = (b ^ a) - rotate(a, 14);
	c = (c ^ b) - rotate(b, 24);
	return c;
}

/* What an index takes the second bucket (from bit 3 on) and the tag of an entry (the top eight bits) from. */
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

/* Makes the key of a client's packet that of a reply, and back. */
static __always_inline void turn(struct key *key, __u64 flags)
{
	key->ports = key->ports >> 16 | key->ports << 16;
	for (int word = 0; word < (flags & FLAG_IPV6 ? 4 : 1); word++) {
		__u32 client = key->client[word];

		key->client[word] = key->virtual[word];
		key->virtual[word] = client;
	}
}

#endif
