/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* How a packet leaves: to the next hop, or up to the director. */
#ifndef DIRIGO_FORWARD_H
#define DIRIGO_FORWARD_H

#include "counters.h"
#include "layout.h"
#include "parse.h"

/* An outcome that is no verdict yet: the packet is the director's, for this reason. */
#define UP(reason) (-16 - (int)(reason))
#define UP_REASON(outcome) (-16 - (outcome))

/* Hands the packet to the director; without one it is dropped, because the host's own stack would answer it. */
static __always_inline int to_director(struct xdp_md *ctx, const struct interface *interface, enum reason reason)
{
	__u32 socket = interface->first_socket + ctx->rx_queue_index;

	if (ctx->rx_queue_index >= interface->queues ||
	    bpf_redirect_map(&sockets, socket, XDP_DROP) != XDP_REDIRECT) {
		count(REASON_NO_DIRECTOR);
		return XDP_DROP;
	}
	count(reason);
	return XDP_REDIRECT;
}

/* The same for a packet whose frame has not been changed although its headers may have been looked at. */
static __always_inline int to_host(enum reason reason)
{
	count(reason);
	return XDP_PASS;
}

/* Sends the frame to a next hop: `macs` is its address and ours, in the order of the header. */
static __always_inline int leave(struct xdp_md *ctx, const struct interface *interface, struct ethhdr *ethernet,
				 const __u8 *macs, __u32 interface_index)
{
	const __u32 *from = (const __u32 *)macs;
	__u32 *to = (__u32 *)ethernet;

	to[0] = from[0];
	to[1] = from[1];
	to[2] = from[2];
	count(REASON_FORWARDED);
	if (interface_index == interface->index && !(interface->flags & INTERFACE_REDIRECT))
		return XDP_TX;
	return bpf_redirect_map(&devices, interface_index, XDP_DROP);
}

#endif
