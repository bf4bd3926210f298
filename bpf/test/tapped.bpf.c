/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * A program for tests of the tap that handles every frame: its first byte says as what it is counted and what becomes of
 * it, so that the rest of the frame may be anything.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "../tap.h"

char _license[] SEC("license") = "Dual MIT/GPL";

static __noinline int direct(struct xdp_md *ctx)
{
	__u8 *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;

	if ((void *)(data + 1) > end)
		return XDP_PASS;
	switch (*data) {
	case 0xf8:
		count(REASON_FORWARDED);
		*data = 0xf6;
		return XDP_TX;
	case 0xfa:
		count(REASON_NO_SERVICE);
		return XDP_PASS;
	case 0xfc:
		count(REASON_SYN);
		return XDP_REDIRECT;
	default:
		count(REASON_NO_DIRECTOR);
		return XDP_DROP;
	}
}

SEC("xdp.frags")
int dirigo(struct xdp_md *ctx)
{
	int verdict;

	tap_before(ctx);
	verdict = direct(ctx);
	tap_after(ctx, verdict);
	return verdict;
}
