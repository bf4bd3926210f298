/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The way back to a client: looked up by its address once, then remembered in the connection. */
#ifndef DIRIGO_WAYS_H
#define DIRIGO_WAYS_H

#include "layout.h"

static __always_inline struct hop *hop_at(__u32 index)
{
	struct hop *hop = &hops[index & WAY_INDEX_MASK];

	return hop->is_resolved ? hop : 0;
}

/* Null: the director knows, or finds out. */
static __noinline struct hop *find_way(const struct control *control, struct connection *connection)
{
	__u32 generation = control->way_generation & WAY_INDEX_MASK;
	struct unknown_way unknown = {};
	__u32 *index;
	__u32 tag;

	if (connection->flags & FLAG_IPV6) {
		struct route6 key = { .prefix = 128 };

		__builtin_memcpy(key.address, connection->client, sizeof(key.address));
		index = bpf_map_lookup_elem(&routes6, &key);
	} else {
		struct route4 key = { .prefix = 32, .address = connection->client[0] };

		index = bpf_map_lookup_elem(&routes4, &key);
	}
	if (!index || *index == 0) {
		unknown.family = connection->flags & FLAG_IPV6 ? 6 : 4;
		__builtin_memcpy(unknown.address, connection->client, sizeof(unknown.address));
		bpf_map_push_elem(&unknown_ways, &unknown, 0);
		return 0;
	}
	tag = connection->tag;
	/* A slot that was taken over meanwhile must not get its tag back. */
	if ((tag & TAG_MASK) == TAG_USED)
		__sync_val_compare_and_swap(&connection->tag, tag,
					    TAG_USED | (generation << WAY_INDEX_BITS | (*index & WAY_INDEX_MASK))
							       << TAG_WAY_SHIFT);
	return hop_at(*index);
}

static __always_inline struct hop *way_to_client(const struct control *control, struct connection *connection)
{
	__u32 remembered = connection->tag >> TAG_WAY_SHIFT;

	if (remembered >> WAY_INDEX_BITS == (control->way_generation & WAY_INDEX_MASK) &&
	    remembered & WAY_INDEX_MASK)
		return hop_at(remembered & WAY_INDEX_MASK);
	return find_way(control, connection);
}

#endif
