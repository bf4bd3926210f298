/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Stands in front of the program that is measured: BPF_PROG_TEST_RUN resets nothing between repeats, so this restores
 * the frame, makes it one of the next flow, and calls the program.
 */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

#define HEADERS 60

/* bench/flows.ts, GeneratorField */
struct generator {
	/* Packets sent so far; at `first` and `last` the clock is read. */
	__u32 sent;
	__u32 first;
	__u32 last;
	/* Flows, and which of them is next. */
	__u32 flows;
	__u32 position;
	__u32 length;
	/* Where the flow's address goes: 26 source, 30 destination. */
	__u32 address_at;
	/* Sum of the IP header without that address, not folded, in memory order. */
	__u32 sum;
	__u64 began;
	__u64 ended;
	/* Ethernet, IPv4 and TCP or UDP. */
	__u8 headers[HEADERS + 4];
};

struct flow {
	__u32 address;
	__u32 ports;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct generator);
} generator SEC(".maps");

/* In the order in which they are visited, so that reading them costs the same for every program. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} target SEC(".maps");

char _license[] SEC("license") = "Dual MIT/GPL";

SEC("xdp.frags")
int generate(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct generator *state = bpf_map_lookup_elem(&generator, &zero);
	struct flow *flow;
	__u32 *to, sum, position;
	int grown;

	if (!state)
		return XDP_ABORTED;
	grown = (int)(ctx->data_end - ctx->data) - (int)state->length;
	if (grown && bpf_xdp_adjust_head(ctx, grown))
		return XDP_ABORTED;
	to = (void *)(long)ctx->data;
	if ((void *)to + HEADERS > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	position = state->position;
	flow = bpf_map_lookup_elem(&flows, &position);
	if (!flow)
		return XDP_ABORTED;
	state->position = position + 1 == state->flows ? 0 : position + 1;

	/* Fields are written as wide as they are read, or the loads that follow wait for the stores. */
#pragma unroll
	for (int word = 0; word < 3; word++)
		to[word] = ((__u32 *)state->headers)[word];
	((__u16 *)to)[6] = ((__u16 *)state->headers)[6];
	for (int at = 14; at < 54; at += 4)
		if (at != 22)
			*(__u32 *)((void *)to + at) = *(__u32 *)((void *)state->headers + at);
	if (state->address_at == 26)
		*(__u32 *)((void *)to + 26) = flow->address;
	else
		*(__u32 *)((void *)to + 30) = flow->address;
	*(__u32 *)((void *)to + 34) = flow->ports;
	sum = state->sum + (flow->address >> 16) + (flow->address & 0xffff);
	sum = (sum & 0xffff) + (sum >> 16);
	/* Time to live, protocol and checksum: a checksum over the header reads them as one word. */
	*(__u32 *)((void *)to + 22) = *(__u16 *)((void *)state->headers + 22) | ~((sum & 0xffff) + (sum >> 16)) << 16;

	if (state->sent == state->first)
		state->began = bpf_ktime_get_ns();
	else if (state->sent == state->last)
		state->ended = bpf_ktime_get_ns();
	state->sent++;
	bpf_tail_call(ctx, &target, 0);
	return XDP_ABORTED;
}

/* What the time is held against. */
SEC("xdp.frags")
int nothing(struct xdp_md *ctx)
{
	return XDP_TX;
}

/*
 * The same for a program that puts 20 bytes in front: moves the head once, as the program that is measured must; the
 * generator moves it back.
 */
SEC("xdp.frags")
int grow(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_head(ctx, -20) ? XDP_ABORTED : XDP_TX;
}

/* Datagrams that came to the end of a way, by the program below. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} received SEC(".maps");

/* On a server's interface: counts UDP over IPv4 and drops it, leaves everything else to the host. */
SEC("xdp.frags")
int count_datagrams(struct xdp_md *ctx)
{
	__u8 *frame = (void *)(long)ctx->data;
	__u32 zero = 0;
	__u64 *count;

	if ((void *)(frame + 34) > (void *)(long)ctx->data_end || frame[12] != 8 || frame[13] != 0 || frame[23] != 17)
		return XDP_PASS;
	count = bpf_map_lookup_elem(&received, &zero);
	if (count)
		__sync_fetch_and_add(count, 1);
	return XDP_DROP;
}
