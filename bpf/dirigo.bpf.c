/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The XDP fast path. Read it from the bottom: a frame comes in at dirigo(), IPv4 and IPv6 find the keys, forward()
 * does what both have in common.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "layout.h"
#include "parse.h"
#include "hash.h"
#include "lookup.h"
#include "counters.h"
#include "states.h"
#include "forward.h"

char _license[] SEC("license") = "Dual MIT/GPL";

static __always_inline struct control *get_control(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&control, &zero);
}

static __always_inline int may_be_vip(const struct control *control, __u32 word)
{
	__u32 bit = vip_bit(word);

	return (control->vip_filter[(bit >> 5) & (VIP_FILTER_WORDS - 1)] >> (bit & 31)) & 1;
}

static __always_inline int is_for(const struct interface *interface, const struct ethhdr *ethernet)
{
	const __u16 *mac = (const __u16 *)interface->mac;
	const __u16 *to = (const __u16 *)ethernet->h_dest;

	return mac[0] == to[0] && mac[1] == to[1] && mac[2] == to[2];
}

struct packet {
	struct ethhdr *ethernet;
	struct iphdr *ipv4;
	struct ipv6hdr *ipv6;
	/* Bytes of the IP packet. */
	__u32 length;
	__u8 protocol;
	__u8 tcp_flags;
	struct key key;
};

/* A packet to a VIP whose headers are all there: forwarded, or up, or past. */
static __always_inline int forward(struct xdp_md *ctx, const struct control *control,
				   const struct interface *interface, struct packet *packet, __u32 flags)
{
	__u8 family = flags & FLAG_IPV6 ? 6 : 4;
	__u32 now = now_ticks(control);
	struct connection *connection =
		find_connection(control, &packet->key, packet->protocol, flags, now);
	struct destination *destination;
	__u32 index, timeout, wanted;

	if (!connection) {
		if (is_service(packet->protocol, family, packet->key.ports >> 16, packet->key.virtual))
			return to_director(ctx, interface, REASON_NO_CONNECTION);
		count(REASON_NO_SERVICE);
		return XDP_PASS;
	}
	if ((connection->flags & (FLAG_FORWARDING | FLAG_NO_OUTPUT)) != (FORWARDING_GATE | FLAG_NO_OUTPUT))
		return to_director(ctx, interface, REASON_METHOD);
	if (packet->tcp_flags & TCP_SYN)
		return to_director(ctx, interface, REASON_SYN);

	index = connection->destination;
	destination = bpf_map_lookup_elem(&destinations, &index);
	wanted = DESTINATION_USED | DESTINATION_AVAILABLE;
	if (!destination || (destination->flags & wanted) != wanted)
		return to_director(ctx, interface, REASON_UNAVAILABLE);
	if (!(destination->flags & DESTINATION_RESOLVED))
		return to_director(ctx, interface, REASON_UNRESOLVED);
	if (packet->length > destination->mtu)
		return to_director(ctx, interface, REASON_TOO_BIG);
	if ((flags & FLAG_IPV6 ? packet->ipv6->hop_limit : packet->ipv4->ttl) <= 1)
		return to_director(ctx, interface, REASON_TIME_TO_LIVE);

	if (packet->protocol == IPPROTO_TCP) {
		__u8 state = tcp_transition(connection, destination, packet->tcp_flags);

		timeout = control->tcp_timeouts[state & (TCP_STATES - 1)];
	} else {
		timeout = control->udp_timeout;
	}
	connection->expires = now + timeout;
	connection->packets++;
	count_traffic(index, packet->length);

	if (flags & FLAG_IPV6)
		packet->ipv6->hop_limit--;
	else
		decrement_ttl(packet->ipv4);
	return leave(ctx, interface, packet->ethernet, destination);
}

/* Ports and flags; 0 if the transport header is cut off or wrong. `length` is what the IP packet has left. */
static __always_inline int read_transport(struct packet *packet, void *transport, void *end, __u32 length)
{
	const __u32 *ports = transport;

	if (packet->protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = transport;

		if ((void *)(tcp + 1) > end || tcp->doff < 5 || tcp->doff * 4 > length)
			return 0;
		packet->tcp_flags = ((__u8 *)tcp)[13];
	} else {
		struct udphdr *udp = transport;
		__u32 stated;

		if ((void *)(udp + 1) > end)
			return 0;
		stated = bpf_ntohs(udp->len);
		if (stated < sizeof(*udp) || stated > length)
			return 0;
		packet->tcp_flags = 0;
	}
	packet->key.ports = *ports;
	return 1;
}

/* What is not a whole TCP segment or UDP datagram: the director's if the address is a VIP. */
static __always_inline int other(struct xdp_md *ctx, const struct interface *interface, __u8 family,
				 const __u32 *address, enum reason reason)
{
	if (is_vip(family, address))
		return to_director(ctx, interface, reason);
	count(REASON_NO_SERVICE);
	return XDP_PASS;
}

static __always_inline int receive_ipv4(struct xdp_md *ctx, struct ethhdr *ethernet, void *end)
{
	struct iphdr *ip = (void *)(ethernet + 1);
	struct packet packet = { .ethernet = ethernet, .ipv4 = ip };
	struct interface *interface;
	struct control *control = get_control();
	__u32 address;
	__u8 *icmp;

	if (!control || (void *)(ip + 1) > end || !may_be_vip(control, ip->daddr))
		return XDP_PASS;
	interface = find_interface(ctx->ingress_ifindex);
	if (!interface || !is_for(interface, ethernet)) {
		count(REASON_FOREIGN_MAC);
		return XDP_PASS;
	}
	address = ip->daddr;
	packet.protocol = ip->protocol;
	packet.length = bpf_ntohs(ip->tot_len);
	if (ip->version != 4 || ip->ihl < 5 || packet.length < sizeof(*ip) ||
	    packet.length > bpf_xdp_get_buff_len(ctx) - sizeof(*ethernet))
		return other(ctx, interface, 4, &address, REASON_MALFORMED);

	if (!is_transport(packet.protocol)) {
		if (packet.protocol != IPPROTO_ICMP)
			return XDP_PASS;
		icmp = (__u8 *)ip + ip->ihl * 4;
		if (ip->frag_off & bpf_htons(0x1fff) || (void *)(icmp + 1) > end)
			return XDP_PASS;
		if (*icmp != ICMP_UNREACHABLE && *icmp != ICMP_SOURCE_QUENCH && *icmp != ICMP_TIME_EXCEEDED)
			return XDP_PASS;
		return other(ctx, interface, 4, &address, REASON_ICMP);
	}
	if (ip->frag_off & IPV4_FRAGMENT)
		return other(ctx, interface, 4, &address, REASON_FRAGMENT);
	if (ip->ihl != 5)
		return other(ctx, interface, 4, &address, REASON_OPTIONS);
	if (packet.protocol == IPPROTO_SCTP)
		return other(ctx, interface, 4, &address, REASON_PROTOCOL);
	if (!ipv4_checksum_holds(ip) || !read_transport(&packet, ip + 1, end, packet.length - sizeof(*ip)))
		return other(ctx, interface, 4, &address, REASON_MALFORMED);

	packet.key.client[0] = ip->saddr;
	packet.key.virtual[0] = address;
	return forward(ctx, control, interface, &packet, 0);
}

static __always_inline int receive_ipv6(struct xdp_md *ctx, struct ethhdr *ethernet, void *end)
{
	struct ipv6hdr *ip = (void *)(ethernet + 1);
	struct packet packet = { .ethernet = ethernet, .ipv6 = ip };
	struct interface *interface;
	struct control *control = get_control();
	const __u32 *source, *target;
	__u8 *icmp;

	if (!control || (void *)(ip + 1) > end)
		return XDP_PASS;
	target = ip->daddr.in6_u.u6_addr32;
	if (!may_be_vip(control, target[0] ^ target[1] ^ target[2] ^ target[3]))
		return XDP_PASS;
	interface = find_interface(ctx->ingress_ifindex);
	if (!interface || !is_for(interface, ethernet)) {
		count(REASON_FOREIGN_MAC);
		return XDP_PASS;
	}
	packet.key.virtual[0] = target[0];
	packet.key.virtual[1] = target[1];
	packet.key.virtual[2] = target[2];
	packet.key.virtual[3] = target[3];
	packet.protocol = ip->nexthdr;
	packet.length = bpf_ntohs(ip->payload_len) + sizeof(*ip);
	if (ip->version != 6 || packet.length > bpf_xdp_get_buff_len(ctx) - sizeof(*ethernet))
		return other(ctx, interface, 6, packet.key.virtual, REASON_MALFORMED);

	if (is_ipv6_extension(packet.protocol))
		return other(ctx, interface, 6, packet.key.virtual, REASON_OPTIONS);
	if (!is_transport(packet.protocol)) {
		icmp = (__u8 *)(ip + 1);
		if (packet.protocol != IPPROTO_ICMPV6 || (void *)(icmp + 1) > end || *icmp >= ICMPV6_FIRST_MESSAGE)
			return XDP_PASS;
		return other(ctx, interface, 6, packet.key.virtual, REASON_ICMP);
	}
	if (packet.protocol == IPPROTO_SCTP)
		return other(ctx, interface, 6, packet.key.virtual, REASON_PROTOCOL);
	if (!read_transport(&packet, ip + 1, end, packet.length - sizeof(*ip)))
		return other(ctx, interface, 6, packet.key.virtual, REASON_MALFORMED);

	source = ip->saddr.in6_u.u6_addr32;
	packet.key.client[0] = source[0];
	packet.key.client[1] = source[1];
	packet.key.client[2] = source[2];
	packet.key.client[3] = source[3];
	return forward(ctx, control, interface, &packet, FLAG_IPV6);
}

SEC("xdp.frags")
int dirigo(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = (void *)(long)ctx->data;

	if ((void *)(ethernet + 1) > end)
		return XDP_PASS;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP))
		return receive_ipv4(ctx, ethernet, end);
	if (ethernet->h_proto == bpf_htons(ETH_P_IPV6))
		return receive_ipv6(ctx, ethernet, end);
	return XDP_PASS;
}

/* Run by the daemon on a frame that the director left to the host: the kernel's stack takes it as received. */
SEC("xdp")
int pass_to_host(struct xdp_md *ctx)
{
	return XDP_PASS;
}

/* Run by the daemon to learn how the kernel's ticks and its monotonic clock belong together. */
SEC("xdp")
int read_clock(struct xdp_md *ctx)
{
	struct control *control = get_control();

	if (!control)
		return XDP_ABORTED;
	control->clock_ticks = bpf_jiffies64();
	control->clock_nanoseconds = bpf_ktime_get_ns();
	return XDP_DROP;
}
