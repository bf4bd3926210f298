/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Which connection, service or interface a packet belongs to. */
#ifndef DIRIGO_LOOKUP_H
#define DIRIGO_LOOKUP_H

#include "hash.h"
#include "layout.h"
#include "parse.h"

static __always_inline struct control *get_control(void)
{
	return &control;
}

static __always_inline __u32 now_ticks(const struct control *control)
{
	return ((__u32)bpf_jiffies64() & ~control->clock_stopped) + control->clock_offset;
}

static __always_inline int same_key(const struct connection *found, const struct key *key, __u8 protocol,
				    __u32 flags)
{
	const __u32 *words = (const __u32 *)found;

	if (words[3] != key->ports || found->client[0] != key->client[0] || found->virtual[0] != key->virtual[0])
		return 0;
	if ((found->flags & (FLAG_TEMPLATE | FLAG_IPV6)) != flags || found->protocol != protocol)
		return 0;
	if (!(flags & FLAG_IPV6))
		return 1;
	return found->client[1] == key->client[1] && found->client[2] == key->client[2] &&
	       found->client[3] == key->client[3] && found->virtual[1] == key->virtual[1] &&
	       found->virtual[2] == key->virtual[2] && found->virtual[3] == key->virtual[3];
}

static __always_inline struct connection *find_in_bucket(const struct bucket *bucket, __u32 second,
							 const struct key *key, __u8 protocol, __u32 flags, __u32 now,
							 __u32 *slot_found)
{
#pragma clang loop unroll(disable)
	for (int at = 0; at < BUCKET_ENTRIES; at++) {
		__u32 entry = bucket->entries[(second + at) & (BUCKET_ENTRIES - 1)];
		__u32 slot = (entry & 0xffffff) - 1;
		struct connection *found;

		if (entry >> 24 != second >> 24)
			continue;
		/* None for slot -1 of an entry that is free. */
		found = connection_at(slot);
		if (!found || !same_key(found, key, protocol, flags))
			continue;
		if ((found->tag & TAG_MASK) == TAG_USED && now - found->expires >= EXPIRED_WINDOW) {
			*slot_found = slot;
			return found;
		}
	}
	return 0;
}

/* The live connection with this key, whose hash is known, or null. */
static __always_inline struct connection *find_hashed(__u32 hash, const struct key *key, __u8 protocol, __u32 flags,
						      __u32 now, __u32 *slot)
{
	__u32 second = second_hash(hash);
	struct connection *found;

	found = find_in_bucket(bucket_of(&buckets, hash), second, key, protocol, flags, now, slot);
	if (found)
		return found;
	return find_in_bucket(bucket_of(&buckets, second >> 3), second, key, protocol, flags, now, slot);
}

static __always_inline struct connection *find_connection(const struct control *control, const struct key *key,
							  __u8 protocol, __u32 flags, __u32 now, __u32 *slot)
{
	return find_hashed(hash_key(key, protocol, flags, control->seed), key, protocol, flags, now, slot);
}

/*
 * The same for a reply: `client` is where it goes (the client, or a local address of FULLNAT), `virtual` the server that
 * sent it. `extension` is the connection's if it is of FULLNAT.
 */
static __always_inline int same_reply_key(__u32 slot, const struct connection *found, const struct key *key,
					  __u8 protocol, __u32 flags, struct extension **extension_found)
{
	const __u32 *client = found->client;
	__u16 client_port = found->client_port;
	struct destination *destination;
	__u32 same;

	*extension_found = 0;
	if (found->destination_port != key->ports >> 16 || found->protocol != protocol ||
	    (found->flags & (FLAG_REPLIES | FLAG_IPV6)) != (FLAG_REPLIES | flags))
		return 0;
	if ((found->flags & FLAG_FORWARDING) == FORWARDING_FULLNAT) {
		struct extension *extension = extension_at(slot);

		if (!extension)
			return 0;
		*extension_found = extension;
		client = extension->local;
		client_port = found->local_port;
	}
	if (client_port != (__u16)key->ports || client[0] != key->client[0])
		return 0;
	destination = destination_at(found->destination);
	if (!destination || destination->address[0] != key->virtual[0])
		return 0;
	if (!flags)
		return 1;
	same = client[1] == key->client[1] && client[2] == key->client[2] && client[3] == key->client[3];
	return same && destination->address[1] == key->virtual[1] &&
	       destination->address[2] == key->virtual[2] && destination->address[3] == key->virtual[3];
}

static __always_inline struct connection *find_reply_in_bucket(const struct bucket *bucket, __u32 second,
							       const struct key *key, __u8 protocol, __u32 flags,
							       __u32 now, __u32 *slot_found,
							       struct extension **extension)
{
#pragma clang loop unroll(disable)
	for (int at = 0; at < BUCKET_ENTRIES; at++) {
		__u32 entry = bucket->entries[(second + at) & (BUCKET_ENTRIES - 1)];
		__u32 slot = (entry & 0xffffff) - 1;
		struct connection *found;

		if (entry >> 24 != second >> 24)
			continue;
		/* None for slot -1 of an entry that is free. */
		found = connection_at(slot);
		if (!found || !same_reply_key(slot, found, key, protocol, flags, extension))
			continue;
		if ((found->tag & TAG_MASK) == TAG_USED && now - found->expires >= EXPIRED_WINDOW) {
			*slot_found = slot;
			return found;
		}
	}
	return 0;
}

static __always_inline struct connection *find_reply(const struct control *control, const struct key *key,
						     __u8 protocol, __u32 flags, __u32 now, __u32 *slot,
						     struct extension **extension)
{
	__u32 hash = hash_key(key, protocol, flags, control->seed);
	__u32 second = second_hash(hash);
	struct connection *found;

	found = find_reply_in_bucket(bucket_of(&reply_buckets, hash), second, key, protocol, flags, now, slot, extension);
	if (found)
		return found;
	return find_reply_in_bucket(bucket_of(&reply_buckets, second >> 3), second, key, protocol, flags, now,
				    slot, extension);
}

static __always_inline struct service *find_service(__u8 protocol, __u8 family, __u16 port, const __u32 *address)
{
	struct service_key key = {};

	/* One store, as wide as the load that hashes it: that would have to wait for narrower ones. */
	*(__u32 *)&key = protocol | family << 8 | (__u32)port << 16;
	key.address[0] = address[0];
	if (family == 6) {
		key.address[1] = address[1];
		key.address[2] = address[2];
		key.address[3] = address[3];
	}
	return bpf_map_lookup_elem(&services, &key);
}

/* The service of an IPv4 packet, if it can be from what this CPU found before. */
static __always_inline struct service *find_service4(__u8 protocol, __u16 port, const __u32 *address)
{
	/* Read before the map: if that is changed meanwhile, what is kept here is of the past. */
	__u32 generation = *(volatile __u32 *)&control.service_generation;
	__u32 word = protocol | 4 << 8 | (__u32)port << 16;
	__u32 place = (address[0] ^ word) * 0x9e3779b1 >> 26;
	struct cached_service *cached = bpf_map_lookup_elem(&service_cache, &place);
	struct service *found;

	if (cached && generation && cached->generation == generation && cached->protocol_and_port == word &&
	    cached->address == address[0])
		return &cached->service;
	found = find_service(protocol, 4, port, address);
	if (found && cached) {
		cached->generation = 0;
		cached->service = *found;
		cached->protocol_and_port = word;
		cached->address = address[0];
		cached->generation = generation;
	}
	return found;
}

/* True if a packet to this port of a VIP is the director's. */
static __always_inline int is_service(__u8 protocol, __u8 family, __u16 port, const __u32 *address)
{
	struct service *vip;

	if (find_service(protocol, family, port, address) || find_service(protocol, family, 0, address))
		return 1;
	if (protocol != IPPROTO_TCP)
		return 0;
	vip = find_service(0, family, 0, address);
	return vip && vip->flags & SERVICE_FTP && (port == bpf_htons(20) || bpf_ntohs(port) >= 1024);
}

static __always_inline int is_vip(__u8 family, const __u32 *address)
{
	return find_service(0, family, 0, address) != 0;
}

/* True for a server whose replies are translated. */
static __always_inline int is_server(__u8 family, const __u32 *address)
{
	return find_service(0, family, SERVER_PORT, address) != 0;
}

static __always_inline int in_filter(const __u32 *filter, __u32 bit)
{
	return (filter[(bit >> 5) & (FILTER_WORDS - 1)] >> (bit & 31)) & 1;
}

static __always_inline int in_filter4(const __u32 *filter, __u32 address)
{
	return in_filter(filter, filter_bit4(address));
}

static __always_inline int in_filter6(const __u32 *filter, const struct in6_addr *address)
{
	return in_filter(filter, filter_bit6(address->in6_u.u6_addr32));
}

static __always_inline struct interface *find_interface(__u32 index)
{
	struct interface *found = &interfaces[index % INTERFACE_SLOTS];

	if (found->index == index)
		return found;
#pragma clang loop unroll(disable)
	for (__u32 probe = 1; probe < INTERFACE_PROBES; probe++) {
		found = &interfaces[(index + probe) % INTERFACE_SLOTS];
		if (found->index == index)
			return found;
	}
	return 0;
}

static __always_inline int is_for(const struct interface *interface, const struct ethhdr *ethernet)
{
	const __u16 *mac = (const __u16 *)interface->mac;
	const __u16 *to = (const __u16 *)ethernet->h_dest;

	return mac[0] == to[0] && mac[1] == to[1] && mac[2] == to[2];
}

#endif
