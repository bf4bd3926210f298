/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* How a packet leaves: to its real server in direct routing, or up to the director. */
#ifndef DIRIGO_FORWARD_H
#define DIRIGO_FORWARD_H

#include "counters.h"
#include "layout.h"
#include "parse.h"

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

/* Time to live less one, header checksum with it (RFC 1141). */
static __always_inline void decrement_ttl(struct iphdr *ip)
{
	__u32 sum = (__u32)ip->check + bpf_htons(0x0100);

	ip->check = (__u16)(sum + (sum >= 0xffff));
	ip->ttl--;
}

/* Direct routing: only the link layer changes. */
static __always_inline int leave(struct xdp_md *ctx, const struct interface *interface, struct ethhdr *ethernet,
				 const struct destination *destination)
{
	/* The record keeps both addresses in the order of the header. */
	const __u32 *from = (const __u32 *)destination->next_mac;
	__u32 *to = (__u32 *)ethernet;

	to[0] = from[0];
	to[1] = from[1];
	to[2] = from[2];
	count(REASON_FORWARDED);
	if (destination->interface_index == interface->index && !(interface->flags & INTERFACE_REDIRECT))
		return XDP_TX;
	return bpf_redirect_map(&devices, destination->interface_index, XDP_DROP);
}

#endif
