/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * What captures see of the program. The object that is compiled with TAP is the same program with this around it: it
 * copies frames as they came and as they left into a ring. It takes the place of the other one while somebody captures,
 * so that without a capture nothing of this costs anything.
 *
 * The capture filter is not in here: src/datapath/xdp/program-tap.ts puts it, compiled, in the place of the empty
 * instructions of tap_matches().
 */
#ifndef DIRIGO_TAP_H
#define DIRIGO_TAP_H

#include "counters.h"

/* Most bytes of a frame that are kept. src/datapath/xdp/program-tap.ts has it and the layouts here, too. */
#define TAP_KEPT 2048
#define TAP_WORDS 16

struct sighting {
	/* CLOCK_MONOTONIC, nanoseconds. */
	__u64 time;
	/* The same for both sightings of a frame. */
	__u64 number;
	__u32 interface;
	__u32 queue;
	/* Of the whole frame. */
	__u32 length;
	/* In `bytes`. */
	__u32 kept;
	/* What the program returned. */
	__u32 verdict;
	/* The counter that was increased, REASONS if none. */
	__u32 reason;
	__u32 is_after;
	__u32 unused;
	__u8 bytes[TAP_KEPT];
	/* The filter's own memory. */
	__u32 words[TAP_WORDS];
};

struct tap {
	/* Kept between the beginning and the end of a run of the program: runs follow each other on one CPU. */
	__u32 is_watched;
	__u32 is_match;
	__u64 number;
	__u64 counters[REASONS];
	/* The pace of this CPU. */
	__u64 window;
	__u32 taken;
	__u32 looked;
	struct sighting before;
	struct sighting after;
};

struct tap_limits {
	/* Frames that are kept and that are looked at, each a window and CPU. */
	__u32 frames;
	__u32 looks;
	/* Ticks a window. */
	__u32 window;
	/* Most bytes of a frame, at most TAP_KEPT. */
	__u32 bytes;
};

/* Written before the program is loaded. */
volatile const struct tap_limits tap_limits SEC(".rodata.tap") = { 1, 1, 1, TAP_KEPT };

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} tap_ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tap);
} taps SEC(".maps");

/* Frames that matched and found the ring full; frames that nobody looked at because the limit was reached. */
#define TAP_LOST_RING 0
#define TAP_LOST_LIMIT 1

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} tap_losses SEC(".maps");

static __always_inline struct tap *get_tap(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&taps, &zero);
}

static __always_inline void tap_lose(__u32 how)
{
	__u64 *counter = bpf_map_lookup_elem(&tap_losses, &how);

	if (counter)
		(*counter)++;
}

static __always_inline int tap_is_over_limit(struct tap *tap)
{
	__u64 now = bpf_jiffies64();

	if (now - tap->window >= tap_limits.window) {
		tap->window = now;
		tap->taken = 0;
		tap->looked = 0;
	}
	return tap->taken >= tap_limits.frames || tap->looked >= tap_limits.looks;
}

static __always_inline void tap_see(struct xdp_md *ctx, struct sighting *seen)
{
	__u32 kept = bpf_xdp_get_buff_len(ctx);

	seen->time = bpf_ktime_get_ns();
	seen->interface = ctx->ingress_ifindex;
	seen->queue = ctx->rx_queue_index;
	seen->length = kept;
	if (kept > tap_limits.bytes)
		kept = tap_limits.bytes;
	if (kept > TAP_KEPT)
		kept = TAP_KEPT;
	if (kept < 1 || bpf_xdp_load_bytes(ctx, 0, seen->bytes, kept))
		kept = 0;
	seen->kept = kept;
}

/* True if the filter lets the frame through. An empty one does. */
static __always_inline int tap_matches(struct sighting *seen)
{
	__u64 result;

	asm volatile("r1 = %[bytes]\n"
		     "r2 = %[kept]\n"
		     "r3 = %[length]\n"
		     "r0 = 1\n"
		     ".rept 4096\n"
		     "goto +0\n"
		     ".endr\n"
		     "%[result] = r0\n"
		     : [result] "=r"(result)
		     : [bytes] "r"(seen->bytes), [kept] "r"((__u64)seen->kept), [length] "r"((__u64)seen->length)
		     : "r0", "r1", "r2", "r3", "r4", "r5", "memory");
	return result != 0;
}

/* The key is a copy: a loop whose counter is in memory the verifier cannot follow. */
static __always_inline __u64 tap_counter(__u32 reason)
{
	__u64 *counter = bpf_map_lookup_elem(&reasons, &reason);

	return counter ? *counter : 0;
}

static __noinline int tap_before(struct xdp_md *ctx)
{
	struct tap *tap = get_tap();

	if (!tap)
		return 0;
	tap->is_watched = 0;
	if (tap_is_over_limit(tap)) {
		tap_lose(TAP_LOST_LIMIT);
		return 0;
	}
	tap->is_watched = 1;
	tap->looked++;
	tap_see(ctx, &tap->before);
	tap->is_match = tap_matches(&tap->before);
	for (__u32 reason = 0; reason < REASONS; reason++)
		tap->counters[reason] = tap_counter(reason);
	return 0;
}

/* What the packet was counted as. Evictions are no packets. */
static __always_inline __u32 tap_reason(struct tap *tap)
{
	for (__u32 reason = 0; reason < REASONS; reason++) {
		if (tap->counters[reason] != tap_counter(reason) && reason != REASON_EVICTED)
			return reason;
	}
	return REASONS;
}

static __always_inline void tap_send(struct sighting *seen)
{
	__u32 kept = seen->kept;

	if (kept > TAP_KEPT)
		kept = TAP_KEPT;
	if (bpf_ringbuf_output(&tap_ring, seen, __builtin_offsetof(struct sighting, bytes) + kept, 0))
		tap_lose(TAP_LOST_RING);
}

static __noinline int tap_after(struct xdp_md *ctx, int verdict)
{
	struct tap *tap = get_tap();
	__u32 reason;

	if (!tap || !tap->is_watched)
		return 0;
	tap->is_watched = 0;
	/* The host's own taps see it. */
	if (verdict == XDP_PASS)
		return 0;
	reason = tap_reason(tap);
	/* What went up, the director tells of. */
	if (verdict == XDP_REDIRECT && reason != REASON_FORWARDED && reason != REASONS)
		return 0;
	tap_see(ctx, &tap->after);
	if (!tap->is_match && !tap_matches(&tap->after))
		return 0;
	tap->taken++;
	tap->number++;
	tap->before.number = tap->after.number = tap->number;
	tap->before.verdict = tap->after.verdict = verdict;
	tap->before.reason = tap->after.reason = reason;
	tap->before.is_after = 0;
	tap->after.is_after = 1;
	tap_send(&tap->before);
	if (verdict == XDP_TX || verdict == XDP_REDIRECT)
		tap_send(&tap->after);
	return 0;
}

#endif
