/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The XDP fast path. Read it from the bottom: a frame comes in at dirigo(), IPv4 and IPv6 find the keys, forward() does
 * what is most frequent; what is less so is called from there. What belongs to no connection goes on to the program
 * begin().
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
#include "rewrite.h"
#include "fullnat.h"
#include "tunnel.h"
#include "ways.h"
#include "insert.h"
#include "select.h"
#include "icmp.h"
#include "relate.h"
#ifdef TAP
#include "tap.h"
#endif

/* Outcomes that are no verdict yet: another program goes on with the packet. UP(reason) is one, too. */
#define BEGIN -2
#define RELATE -3
#define RECEIVE_OTHER -4
/* Places in the map `programs`: src/datapath/xdp/fast-path.ts */
#define PROGRAM_BEGIN 0
/* The guard's filter (bpf/guard), if there is one: for what would be passed to the host. */
#define PROGRAM_GUARD 1
#define PROGRAM_RELATE 2
#define PROGRAM_OTHER 3
#define PROGRAM_BEGIN_OTHER 4

char _license[] SEC("license") = "Dual MIT/GPL";

/* State, timer and counters after a packet from the client. */
static __always_inline void account(const struct packet *packet)
{
	struct connection *connection = packet->connection;
	__u32 side = connection->flags & FLAG_NO_OUTPUT ? SIDE_CLIENT_ONLY : SIDE_CLIENT;

	advance(packet->control, connection, side, packet->protocol, packet->tcp_flags, packet->now);
	connection->packets++;
	count_traffic(connection->destination, packet->length);
}

/* Client to server by DR. */
static __always_inline int route(struct xdp_md *ctx, struct packet *packet)
{
	struct destination *destination = packet->destination;

	if (packet->length > destination->mtu)
		return UP(REASON_TOO_BIG);
	account(packet);
	decrement(packet);
	return leave(ctx, packet->interface, packet->ethernet, destination->next_mac, destination->interface_index);
}

/* Client to server by NAT or FULLNAT. */
static __always_inline int translate(struct xdp_md *ctx, struct packet *packet)
{
	void *end = (void *)(long)ctx->data_end;
	const struct interface *interface = packet->interface;
	struct connection *connection = packet->connection;
	struct destination *destination = packet->destination;
	/* FULLNAT, or made by the SYN proxy, or both; else 0. */
	__u32 moves = connection->flags & (FLAG_FORWARDING | FLAG_OUT_SEQUENCE);
	struct extension *extension = 0;
	__u32 ports;
	__u64 header, sum = 0;

	if (packet->length > destination->mtu)
		return UP(REASON_TOO_BIG);
	if (!has_checksum(packet))
		return UP(REASON_NO_CHECKSUM);
	if (moves) {
		extension = extension_at(packet->slot);
		if (!extension || (moves & FLAG_FORWARDING && connection->local_port == 0))
			return UP(REASON_METHOD);
		/* On one that is over, it may be the cookie of the next. */
		if (moves & FLAG_OUT_SEQUENCE && connection->state != TCP_ESTABLISHED)
			return UP(REASON_METHOD);
		if (packet->protocol == IPPROTO_TCP && !is_plain_request(packet, extension, end))
			return UP(REASON_METHOD);
	}
	account(packet);
	header = replace_target(packet, destination->address);
	ports = (packet->key.ports & 0xffff) | (__u32)connection->destination_port << 16;
	if (extension) {
		if (packet->protocol == IPPROTO_TCP)
			sum = move_request(packet, extension, end);
		if (moves & FLAG_FORWARDING) {
			header += replace_source(packet, extension->local);
			ports = connection->local_port | (ports & 0xffff0000);
		}
	}
	settle_header(packet, header);
	update_checksum(packet, end, sum + header + replace_ports(packet, ports));
	return leave(ctx, interface, packet->ethernet, destination->next_mac, destination->interface_index);
}

/* Client to server through a tunnel. */
static __always_inline int tunnel(struct xdp_md *ctx, struct packet *packet)
{
	const struct interface *interface = packet->interface;
	struct destination *destination = packet->destination;
	__u32 overhead = tunnel_overhead(destination);
	struct tunnel *tunnel = tunnel_at(packet->connection->destination);

	if (overhead == 0 || !tunnel || packet->tags)
		return UP(REASON_METHOD);
	if (!fits_tunnel(packet, destination, overhead))
		return UP(REASON_TOO_BIG);
	account(packet);
	decrement(packet);
	return leave_by_tunnel(ctx, interface, packet, tunnel, destination, overhead,
			       packet->control->flags & CONTROL_PATH_DISCOVERY);
}

/* Server to client, if the packet is a reply. */
static __always_inline int reply(struct xdp_md *ctx, struct packet *packet)
{
	void *end = (void *)(long)ctx->data_end;
	const struct control *control = packet->control;
	const struct interface *interface = packet->interface;
	struct extension *extension = 0;
	struct connection *connection;
	struct destination *destination;
	struct hop *hop;
	__u32 ports, index, moves;
	__u64 header, sum = 0;

	turn(&packet->key, packet->flags);
	connection = find_reply(control, &packet->key, packet->protocol, packet->flags, packet->now, &packet->slot,
				&extension);
	if (!connection)
		return BEGIN;
	if (connection->flags & (FLAG_DIRECTORS | FLAG_NO_OUTPUT))
		return UP(REASON_METHOD);
	index = connection->destination;
	destination = destination_at(index);
	if (!destination)
		return UP(REASON_UNAVAILABLE);
	hop = way_to_client(control, connection);
	if (!hop)
		return UP(REASON_NO_WAY);
	if (time_to_live(packet) <= 1)
		return UP(REASON_TIME_TO_LIVE);
	if (packet->length > hop->mtu)
		return UP(REASON_TOO_BIG);
	if (!has_checksum(packet))
		return UP(REASON_NO_CHECKSUM);
	moves = connection->flags & (FLAG_FORWARDING | FLAG_OUT_SEQUENCE);
	if (moves) {
		if (!extension)
			extension = extension_at(packet->slot);
		if (!extension)
			return UP(REASON_METHOD);
		if (packet->protocol == IPPROTO_TCP && !is_plain_reply(packet, extension, end))
			return UP(REASON_METHOD);
	}

	advance(control, connection, SIDE_SERVER, packet->protocol, packet->tcp_flags, packet->now);
	if (destination->flags & DESTINATION_AVAILABLE)
		count_reply(index, packet->length);
	header = replace_source(packet, connection->virtual);
	if (extension) {
		if (packet->protocol == IPPROTO_TCP)
			sum = move_reply(packet, extension, end);
		if (moves & FLAG_FORWARDING)
			header += replace_target(packet, connection->client);
	}
	/* Those of the client's packets, turned; with NAT the client's port is in the packet already. */
	ports = ((const __u32 *)connection)[3];
	settle_header(packet, header);
	update_checksum(packet, end, sum + header + replace_ports(packet, ports >> 16 | ports << 16));
	return leave(ctx, interface, packet->ethernet, hop->next_mac, hop->interface_index);
}

static __always_inline int from_server(const struct packet *packet)
{
	const __u32 *source = packet->key.client;

	return in_filter(packet->control->server_filter,
			 packet->flags & FLAG_IPV6 ? filter_bit6(source) : filter_bit4(source[0]));
}

/*
 * The same, as functions that are called. A call costs six nanoseconds where the kernel makes returns safe from
 * speculation, so the way of established connections over IPv4 has none.
 */
static __noinline int translate_apart(struct xdp_md *ctx, struct packet *packet)
{
	return translate(ctx, packet);
}

static __noinline int tunnel_apart(struct xdp_md *ctx, struct packet *packet)
{
	return tunnel(ctx, packet);
}

static __noinline int reply_apart(struct xdp_md *ctx, struct packet *packet)
{
	return reply(ctx, packet);
}

/* A packet from the client whose connection is known. */
static __always_inline int forward_known(struct xdp_md *ctx, struct packet *packet, int family)
{
	struct connection *connection = packet->connection;
	struct destination *destination = destination_at(connection->destination);
	__u32 wanted = DESTINATION_USED | DESTINATION_AVAILABLE;
	__u32 method = connection->flags & (FLAG_FORWARDING | FLAG_DIRECTORS);

	if (connection->flags & FLAG_DIRECTORS)
		return UP(REASON_METHOD);
	if (!destination || (destination->flags & wanted) != wanted)
		return UP(REASON_UNAVAILABLE);
	if (!(destination->flags & DESTINATION_RESOLVED))
		return UP(REASON_UNRESOLVED);
	if (time_to_live(packet) <= 1)
		return UP(REASON_TIME_TO_LIVE);
	if (packet->tcp_flags & TCP_SYN) {
		if (method == FORWARDING_FULLNAT || connection->flags & FLAG_OUT_SEQUENCE)
			return UP(REASON_SYN);
		if (is_replaceable(packet->control, connection, destination))
			return BEGIN;
	}
	packet->destination = destination;

	if (method == FORWARDING_GATE)
		return route(ctx, packet);
	if (method == FORWARDING_MASQ || method == FORWARDING_FULLNAT)
		return family == 4 ? translate(ctx, packet) : translate_apart(ctx, packet);
	if (method == FORWARDING_TUNNEL)
		return family == 4 ? tunnel(ctx, packet) : tunnel_apart(ctx, packet);
	return UP(REASON_METHOD);
}

/*
 * A packet whose headers are all there: forwarded, or up, or past. `is_reply`: it can be none of a client's. A SYN mostly begins a connection: begin() looks for the
 * one that it may belong to, when nobody else can make it.
 */
static __always_inline int forward(struct xdp_md *ctx, struct packet *packet, int is_reply, int family)
{
	const struct control *control = packet->control;

	packet->now = now_ticks(control);
	if (!is_reply) {
		if (family == 4 && is_first_segment(packet) && !from_server(packet))
			return BEGIN;
		packet->connection = find_connection(control, &packet->key, packet->protocol, packet->flags, packet->now,
						     &packet->slot);
		if (packet->connection)
			return forward_known(ctx, packet, family);
	}
	if (!from_server(packet))
		return BEGIN;
	return family == 4 ? reply(ctx, packet) : reply_apart(ctx, packet);
}

/* True for what the director has to see although it belongs to no connection: it is to a VIP or from a server. */
static __always_inline int concerns(const struct packet *packet)
{
	__u8 family = packet->flags & FLAG_IPV6 ? 6 : 4;

	return packet->control->flags & CONTROL_MARKS || is_vip(family, packet->key.virtual) ||
	       is_server(family, packet->key.client);
}

/* What is not a whole TCP segment or UDP datagram. */
static __always_inline int other(const struct packet *packet, enum reason reason)
{
	return concerns(packet) ? UP(reason) : to_host(REASON_NO_SERVICE);
}

/* True if the frame ends before the packet. One in several pieces is longer than its first; only then is it asked. */
static __always_inline int is_cut_off(struct xdp_md *ctx, const void *network, const void *end, __u32 length,
				      __u32 before)
{
	return length > (__u64)(end - network) && length > bpf_xdp_get_buff_len(ctx) - before;
}

static __always_inline int receive_ipv4(struct xdp_md *ctx, struct ethhdr *ethernet, void *network, void *end,
					__u32 tags)
{
	struct iphdr *ip = network;
	struct packet packet = { .ethernet = ethernet, .ipv4 = ip, .tags = tags };
	const struct control *control = get_control();
	struct interface *interface;

	if (!control || (void *)(ip + 1) > end)
		return XDP_PASS;
	if (!in_filter4(control->vip_filter, ip->daddr) && !in_filter4(control->server_filter, ip->saddr)) {
		if (ip->protocol != IPPROTO_ICMP)
			return XDP_PASS;
		return may_be_error4(control, ip, end) ? RELATE : XDP_PASS;
	}
	interface = find_interface(ctx->ingress_ifindex);
	if (!interface || !is_for(interface, ethernet))
		return to_host(REASON_FOREIGN_MAC);
	packet.control = control;
	packet.interface = interface;
	packet.key.client[0] = ip->saddr;
	packet.key.virtual[0] = ip->daddr;
	packet.protocol = ip->protocol;
	packet.length = bpf_ntohs(ip->tot_len);
	if (ip->version != 4 || ip->ihl < 5 || packet.length < sizeof(*ip) ||
	    is_cut_off(ctx, network, end, packet.length, sizeof(*ethernet) + tags))
		return other(&packet, REASON_MALFORMED);

	if (!is_transport(packet.protocol))
		return may_be_error4(control, ip, end) ? RELATE : XDP_PASS;
	if (ip->frag_off & IPV4_FRAGMENT)
		return other(&packet, REASON_FRAGMENT);
	if (ip->ihl != 5)
		return other(&packet, REASON_OPTIONS);
	if (packet.protocol == IPPROTO_SCTP)
		return other(&packet, REASON_PROTOCOL);
	if (!ipv4_checksum_holds(ip) || !read_transport(&packet, ip + 1, end, packet.length - sizeof(*ip)))
		return other(&packet, REASON_MALFORMED);
	return forward(ctx, &packet, !in_filter4(control->request_filter, ip->daddr), 4);
}

static __always_inline int receive_ipv6(struct xdp_md *ctx, struct ethhdr *ethernet, void *network, void *end,
					__u32 tags)
{
	struct ipv6hdr *ip = network;
	struct packet packet = { .ethernet = ethernet, .ipv6 = ip, .tags = tags, .flags = FLAG_IPV6 };
	const struct control *control = get_control();
	struct interface *interface;
	const __u32 *source, *target;

	if (!control || (void *)(ip + 1) > end)
		return XDP_PASS;
	source = ip->saddr.in6_u.u6_addr32;
	target = ip->daddr.in6_u.u6_addr32;
	if (!in_filter6(control->vip_filter, &ip->daddr) && !in_filter6(control->server_filter, &ip->saddr)) {
		if (ip->nexthdr != IPPROTO_ICMPV6 && !is_ipv6_extension(ip->nexthdr))
			return XDP_PASS;
		return may_be_error6(control, ip, end) ? RELATE : XDP_PASS;
	}
	interface = find_interface(ctx->ingress_ifindex);
	if (!interface || !is_for(interface, ethernet))
		return to_host(REASON_FOREIGN_MAC);
	packet.control = control;
	packet.interface = interface;
	packet.key.client[0] = source[0];
	packet.key.client[1] = source[1];
	packet.key.client[2] = source[2];
	packet.key.client[3] = source[3];
	packet.key.virtual[0] = target[0];
	packet.key.virtual[1] = target[1];
	packet.key.virtual[2] = target[2];
	packet.key.virtual[3] = target[3];
	packet.protocol = ip->nexthdr;
	packet.length = bpf_ntohs(ip->payload_len) + sizeof(*ip);
	if (ip->version != 6 || is_cut_off(ctx, network, end, packet.length, sizeof(*ethernet) + tags))
		return other(&packet, REASON_MALFORMED);

	if (is_ipv6_extension(packet.protocol)) {
		if (is_icmp_piece(ip, end))
			return XDP_PASS;
		return concerns(&packet) ? UP(REASON_OPTIONS) : RELATE;
	}
	if (!is_transport(packet.protocol))
		return may_be_error6(control, ip, end) ? RELATE : XDP_PASS;
	if (packet.protocol == IPPROTO_SCTP)
		return other(&packet, REASON_PROTOCOL);
	if (!read_transport(&packet, ip + 1, end, packet.length - sizeof(*ip)))
		return other(&packet, REASON_MALFORMED);
	return forward(ctx, &packet, !in_filter6(control->request_filter, &ip->daddr), 6);
}

/* A frame of IPv6, with or without a VLAN tag. */
static __noinline int receive_ipv6_frame(struct xdp_md *ctx, __u32 tags)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = (void *)(long)ctx->data;

	if ((void *)(ethernet + 1) + VLAN_TAG > end)
		return XDP_PASS;
	if (tags)
		return receive_ipv6(ctx, ethernet, (void *)(ethernet + 1) + VLAN_TAG, end, VLAN_TAG);
	return receive_ipv6(ctx, ethernet, ethernet + 1, end, 0);
}

static __noinline int receive_tagged_ipv4(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = (void *)(long)ctx->data;

	if ((void *)(ethernet + 1) + VLAN_TAG > end)
		return XDP_PASS;
	return receive_ipv4(ctx, ethernet, (void *)(ethernet + 1) + VLAN_TAG, end, VLAN_TAG);
}

/* A frame with VLAN tags, which it keeps. Two and more are left to the director. */
static __noinline int receive_tagged(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	struct interface *interface;
	__u16 *type = (void *)(ethernet + 1) + 2;

	if ((void *)(type + 1) > end)
		return XDP_PASS;
	if (*type == bpf_htons(ETH_P_IP))
		return receive_tagged_ipv4(ctx);
	if (*type == bpf_htons(ETH_P_IPV6))
		return receive_ipv6_frame(ctx, VLAN_TAG);
	if (!is_vlan(*type))
		return XDP_PASS;
	interface = find_interface(ctx->ingress_ifindex);
	if (!interface || !is_for(interface, ethernet))
		return XDP_PASS;
	return UP(REASON_OPTIONS);
}

/* IPv4 is received here, the rest by the program receive_other(). */
static __always_inline int receive(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	__be16 type;

	if ((void *)(ethernet + 1) > end)
		return XDP_PASS;
	type = ((__be16 *)ethernet)[6];
	if (type == bpf_htons(ETH_P_IP))
		return receive_ipv4(ctx, ethernet, ethernet + 1, end, 0);
	return type == bpf_htons(ETH_P_IPV6) || is_vlan(type) ? RECEIVE_OTHER : XDP_PASS;
}

#ifdef TAP
#define DIRECT __noinline
#else
#define DIRECT __always_inline
#endif

/* The verdict, where no other program can go on. */
static __always_inline int verdict_of(struct xdp_md *ctx, int outcome)
{
	struct interface *interface;

	if (outcome >= 0)
		return outcome;
	interface = find_interface(ctx->ingress_ifindex);
	if (!interface)
		return XDP_DROP;
	return to_director(ctx, interface, outcome > UP(0) ? REASON_NO_CONNECTION : UP_REASON(outcome));
}

/* Lets the program go on that an outcome stands for. `begin`: which of the two that may begin a connection. */
static __always_inline int go_on(struct xdp_md *ctx, int outcome, __u32 begin)
{
	if (outcome == XDP_PASS)
		bpf_tail_call(ctx, &programs, PROGRAM_GUARD);
	else if (outcome == BEGIN)
		bpf_tail_call(ctx, &programs, begin);
	else if (outcome == RECEIVE_OTHER)
		bpf_tail_call(ctx, &programs, PROGRAM_OTHER);
	else if (outcome == RELATE)
		bpf_tail_call(ctx, &programs, PROGRAM_RELATE);
	return verdict_of(ctx, outcome);
}

static DIRECT int direct(struct xdp_md *ctx)
{
	int outcome = receive(ctx);

	/* What was forwarded has nothing to do with the rest. */
	return outcome > XDP_PASS ? outcome : go_on(ctx, outcome, PROGRAM_BEGIN);
}

SEC("xdp.frags")
int dirigo(struct xdp_md *ctx)
{
#ifdef TAP
	int verdict;

	tap_before(ctx);
	verdict = direct(ctx);
	tap_after(ctx, verdict);
	return verdict;
#else
	return direct(ctx);
#endif
}

/* Called by dirigo() for IPv6 and for what has VLAN tags. */
SEC("xdp.frags")
int receive_other(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = (void *)(long)ctx->data;

	if ((void *)(ethernet + 1) > end)
		return XDP_DROP;
	return go_on(ctx, ethernet->h_proto == bpf_htons(ETH_P_IPV6) ? receive_ipv6_frame(ctx, 0) : receive_tagged(ctx),
		     PROGRAM_BEGIN_OTHER);
}

#include "begin.h"

/* The end of the programs that begin connections: what turned out to be the host's passes the guard. */
static __always_inline int end_begun(struct xdp_md *ctx, int outcome)
{
	if (outcome == XDP_PASS)
		bpf_tail_call(ctx, &programs, PROGRAM_GUARD);
	return verdict_of(ctx, outcome);
}

/*
 * Called by dirigo() for a good packet of IPv4 that belongs to no connection, or begins a new one in the place of one that
 * is over.
 */
SEC("xdp.frags")
int begin(struct xdp_md *ctx)
{
	return end_begun(ctx, begin_ipv4(ctx, 0));
}

/* The same for receive_other(). */
SEC("xdp.frags")
int begin_other(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	__be16 *inner = (void *)(ethernet + 1) + 2;
	__be16 type;
	__u32 tags = 0;

	if ((void *)(inner + 1) > end)
		return XDP_DROP;
	type = ethernet->h_proto;
	if (is_vlan(type)) {
		type = *inner;
		tags = VLAN_TAG;
	}
	return end_begun(ctx, type == bpf_htons(ETH_P_IP) ? begin_tagged_ipv4(ctx) : begin_ipv6(ctx, tags));
}

/* Called by dirigo() for what may be an ICMP error about a packet of a virtual service. */
SEC("xdp.frags")
int relate(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	__be16 *inner = (void *)(ethernet + 1) + 2;
	__be16 type;
	__u32 tags = 0;
	int outcome;

	if ((void *)(inner + 1) > end)
		return XDP_PASS;
	type = ethernet->h_proto;
	if (is_vlan(type)) {
		type = *inner;
		tags = VLAN_TAG;
	}
	outcome = type == bpf_htons(ETH_P_IP) ? relate_ipv4(ctx, tags) : relate_ipv6(ctx, tags);
	if (outcome == XDP_PASS)
		bpf_tail_call(ctx, &programs, PROGRAM_GUARD);
	return verdict_of(ctx, outcome);
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
