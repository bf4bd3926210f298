/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What became of packets of a VIP, by reason. */
#ifndef DIRIGO_COUNTERS_H
#define DIRIGO_COUNTERS_H

#include "layout.h"

/* src/datapath/xdp/control.ts, Reason */
enum reason {
	/* Forwarded here. */
	REASON_FORWARDED,
	/* Passed to the host: for another MAC; for the VIP but no service. */
	REASON_FOREIGN_MAC,
	REASON_NO_SERVICE,
	/* Up to the director: */
	REASON_NO_CONNECTION,
	REASON_SYN,
	REASON_FRAGMENT,
	REASON_OPTIONS,
	REASON_TIME_TO_LIVE,
	REASON_ICMP,
	REASON_MALFORMED,
	REASON_TOO_BIG,
	REASON_UNRESOLVED,
	REASON_UNAVAILABLE,
	REASON_METHOD,
	REASON_PROTOCOL,
	REASON_NO_WAY,
	REASON_NO_HEADROOM,
	REASON_NO_CHECKSUM,
	REASON_REPLY,
	REASON_NO_ROOM,
	REASON_NO_SERVER,
	/* Not packets but connections: thrown out to make room. */
	REASON_EVICTED,
	/* Belonged to the director, but no socket was there: dropped. */
	REASON_NO_DIRECTOR,
	REASONS,
};

/* Puts the names into the object's type information, where the layout test reads them. */
const volatile enum reason reason_count = REASONS;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASONS);
	__type(key, __u32);
	__type(value, __u64);
} reasons SEC(".maps");

static __always_inline void count(enum reason reason)
{
	__u32 key = reason;
	__u64 *counter = bpf_map_lookup_elem(&reasons, &key);

	if (counter)
		(*counter)++;
}

static __always_inline void count_traffic(__u32 destination, __u32 bytes)
{
	struct traffic *counter = bpf_map_lookup_elem(&traffic, &destination);

	if (counter) {
		counter->packets++;
		counter->bytes += bytes;
	}
}

static __always_inline void count_reply(__u32 destination, __u32 bytes)
{
	struct traffic *counter = bpf_map_lookup_elem(&traffic, &destination);

	if (counter) {
		counter->out_packets++;
		counter->out_bytes += bytes;
	}
}

static __always_inline void count_connection(__u32 destination)
{
	struct traffic *counter = bpf_map_lookup_elem(&traffic, &destination);

	if (counter)
		counter->connections++;
}

#endif
