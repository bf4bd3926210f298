/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The XDP fast path. Read it from the bottom: a frame comes in at dirigo(), IPv4 and IPv6 find the keys, forward() does
 * what is most frequent; what is less so is called from there.
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

char _license[] SEC("license") = "Dual MIT/GPL";

static __always_inline struct control *get_control(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&control, &zero);
}

static __always_inline int is_for(const struct interface *interface, const struct ethhdr *ethernet)
{
	const __u16 *mac = (const __u16 *)interface->mac;
	const __u16 *to = (const __u16 *)ethernet->h_dest;

	return mac[0] == to[0] && mac[1] == to[1] && mac[2] == to[2];
}

/* State, timer and counters after a packet from the client. */
static __always_inline void account(const struct packet *packet)
{
	struct connection *connection = packet->connection;
	__u32 side = connection->flags & FLAG_NO_OUTPUT ? SIDE_CLIENT_ONLY : SIDE_CLIENT;

	advance(packet->control, connection, packet->destination, side, packet->protocol, packet->tcp_flags,
		packet->now);
	connection->packets++;
	count_traffic(connection->destination, packet->length);
}

/* Client to server by NAT or FULLNAT. */
static __noinline int translate(struct xdp_md *ctx, struct packet *packet)
{
	void *end = (void *)(long)ctx->data_end;
	const struct interface *interface = packet->interface;
	struct connection *connection = packet->connection;
	struct destination *destination = packet->destination;
	__u32 method = connection->flags & FLAG_FORWARDING;
	struct extension *extension = 0;
	__u64 sum = 0;

	if (packet->length > destination->mtu)
		return to_director(ctx, interface, REASON_TOO_BIG);
	if (!has_checksum(packet))
		return to_director(ctx, interface, REASON_NO_CHECKSUM);
	if (method == FORWARDING_FULLNAT) {
		extension = bpf_map_lookup_elem(&extensions, &packet->slot);
		if (!extension || connection->local_port == 0)
			return to_director(ctx, interface, REASON_METHOD);
		if (packet->protocol == IPPROTO_TCP && !is_plain_request(packet, extension, end))
			return to_director(ctx, interface, REASON_METHOD);
	}
	account(packet);
	decrement(packet);
	if (extension) {
		if (packet->protocol == IPPROTO_TCP)
			sum += move_request(packet, extension, end);
		sum += replace_source(packet, extension->local, connection->local_port);
	}
	sum += replace_target(packet, destination->address, connection->destination_port);
	update_checksum(packet, end, sum);
	return leave(ctx, interface, packet->ethernet, destination->next_mac, destination->interface_index);
}

/* Client to server through a tunnel. */
static __noinline int tunnel(struct xdp_md *ctx, struct packet *packet)
{
	const struct interface *interface = packet->interface;
	struct destination *destination = packet->destination;
	__u32 overhead = tunnel_overhead(destination);
	__u32 index = packet->connection->destination;
	struct tunnel *tunnel = bpf_map_lookup_elem(&tunnels, &index);

	if (overhead == 0 || !tunnel || packet->tags)
		return to_director(ctx, interface, REASON_METHOD);
	if (!fits_tunnel(packet, tunnel, destination, overhead))
		return to_director(ctx, interface, REASON_TOO_BIG);
	account(packet);
	decrement(packet);
	return leave_by_tunnel(ctx, interface, packet, tunnel, destination, overhead,
			       packet->control->flags & CONTROL_PATH_DISCOVERY);
}

/* Makes the key of a client's packet that of a reply, and back. */
static __always_inline void turn(struct key *key, __u64 flags)
{
	key->ports = key->ports >> 16 | key->ports << 16;
	for (int word = 0; word < (flags & FLAG_IPV6 ? 4 : 1); word++) {
		__u32 client = key->client[word];

		key->client[word] = key->virtual[word];
		key->virtual[word] = client;
	}
}

/* Server to client, if the packet is a reply; negative if it is none. */
static __always_inline int reply(struct xdp_md *ctx, struct packet *packet)
{
	void *end = (void *)(long)ctx->data_end;
	const struct control *control = packet->control;
	const struct interface *interface = packet->interface;
	struct extension *extension = 0;
	struct connection *connection;
	struct destination *destination;
	struct hop *hop;
	__u32 slot = 0, index;
	__u64 sum = 0;

	turn(&packet->key, packet->flags);
	connection = find_reply(control, &packet->key, packet->protocol, packet->flags, packet->now, &slot);
	if (!connection) {
		turn(&packet->key, packet->flags);
		return -1;
	}
	if (connection->flags & (FLAG_DIRECTORS | FLAG_NO_OUTPUT))
		return to_director(ctx, interface, REASON_METHOD);
	index = connection->destination;
	destination = bpf_map_lookup_elem(&destinations, &index);
	if (!destination)
		return to_director(ctx, interface, REASON_UNAVAILABLE);
	hop = way_to_client(control, connection);
	if (!hop)
		return to_director(ctx, interface, REASON_NO_WAY);
	if (time_to_live(packet) <= 1)
		return to_director(ctx, interface, REASON_TIME_TO_LIVE);
	if (packet->length > hop->mtu)
		return to_director(ctx, interface, REASON_TOO_BIG);
	if (!has_checksum(packet))
		return to_director(ctx, interface, REASON_NO_CHECKSUM);
	if ((connection->flags & FLAG_FORWARDING) == FORWARDING_FULLNAT) {
		extension = bpf_map_lookup_elem(&extensions, &slot);
		if (!extension)
			return to_director(ctx, interface, REASON_METHOD);
		if (packet->protocol == IPPROTO_TCP && !is_plain_reply(packet, extension, end))
			return to_director(ctx, interface, REASON_METHOD);
	}

	advance(control, connection, destination, SIDE_SERVER, packet->protocol, packet->tcp_flags, packet->now);
	if (destination->flags & DESTINATION_AVAILABLE)
		count_reply(index, packet->length);
	decrement(packet);
	if (extension) {
		if (packet->protocol == IPPROTO_TCP)
			sum += move_reply(packet, extension, end);
		sum += replace_target(packet, connection->client, connection->client_port);
	}
	sum += replace_source(packet, connection->virtual, connection->virtual_port);
	update_checksum(packet, end, sum);
	return leave(ctx, interface, packet->ethernet, hop->next_mac, hop->interface_index);
}

static __always_inline int from_server(const struct packet *packet)
{
	__u32 word = packet->key.client[0];

	if (packet->flags & FLAG_IPV6)
		word ^= packet->key.client[1] ^ packet->key.client[2] ^ packet->key.client[3];
	return in_filter(packet->control->server_filter, word);
}

/* A packet that belongs to no connection by its key. */
static __noinline int unknown(struct xdp_md *ctx, struct packet *packet)
{
	__u8 family = packet->flags & FLAG_IPV6 ? 6 : 4;

	if (from_server(packet)) {
		int outcome = reply(ctx, packet);

		if (outcome >= 0)
			return outcome;
		if (packet->control->flags & CONTROL_STRAY_REPLIES && is_server(family, packet->key.client))
			return to_director(ctx, packet->interface, REASON_REPLY);
	}
	if (packet->control->flags & CONTROL_MARKS ||
	    is_service(packet->protocol, family, packet->key.ports >> 16, packet->key.virtual))
		return to_director(ctx, packet->interface, REASON_NO_CONNECTION);
	return to_host(REASON_NO_SERVICE);
}

/* A packet whose headers are all there: forwarded, or up, or past. */
static __always_inline int forward(struct xdp_md *ctx, struct packet *packet, int is_reply, int family)
{
	const struct control *control = packet->control;
	const struct interface *interface = packet->interface;
	struct connection *connection = 0;
	struct destination *destination;
	__u32 index, wanted, method;
	/* With IPv4 what is called gets a copy, so that the packet itself can live in registers. */
	struct packet copy;

	packet->now = now_ticks(control);
	if (!is_reply)
		connection = find_connection(control, &packet->key, packet->protocol, packet->flags, packet->now,
					     &packet->slot);
	if (!connection) {
		if (family == 6)
			return unknown(ctx, packet);
		copy = *packet;
		return unknown(ctx, &copy);
	}
	if (packet->tcp_flags & TCP_SYN)
		return to_director(ctx, interface, REASON_SYN);
	method = connection->flags & (FLAG_FORWARDING | FLAG_DIRECTORS);
	if (connection->flags & FLAG_DIRECTORS)
		return to_director(ctx, interface, REASON_METHOD);

	index = connection->destination;
	destination = bpf_map_lookup_elem(&destinations, &index);
	wanted = DESTINATION_USED | DESTINATION_AVAILABLE;
	if (!destination || (destination->flags & wanted) != wanted)
		return to_director(ctx, interface, REASON_UNAVAILABLE);
	if (!(destination->flags & DESTINATION_RESOLVED))
		return to_director(ctx, interface, REASON_UNRESOLVED);
	if (time_to_live(packet) <= 1)
		return to_director(ctx, interface, REASON_TIME_TO_LIVE);
	packet->connection = connection;
	packet->destination = destination;

	if (method != FORWARDING_GATE) {
		if (family == 4)
			copy = *packet;
		if (method == FORWARDING_MASQ || method == FORWARDING_FULLNAT)
			return translate(ctx, family == 4 ? &copy : packet);
		if (method == FORWARDING_TUNNEL)
			return tunnel(ctx, family == 4 ? &copy : packet);
		return to_director(ctx, interface, REASON_METHOD);
	}
	if (packet->length > destination->mtu)
		return to_director(ctx, interface, REASON_TOO_BIG);
	account(packet);
	decrement(packet);
	return leave(ctx, interface, packet->ethernet, destination->next_mac, destination->interface_index);
}

/* What is not a whole TCP segment or UDP datagram: the director's if it is to a VIP or from a server. */
static __always_inline int other(struct xdp_md *ctx, const struct packet *packet, enum reason reason)
{
	__u8 family = packet->flags & FLAG_IPV6 ? 6 : 4;

	if (packet->control->flags & CONTROL_MARKS || is_vip(family, packet->key.virtual) || is_server(family, packet->key.client))
		return to_director(ctx, packet->interface, reason);
	return to_host(REASON_NO_SERVICE);
}

/* True for an ICMP error about a packet that was sent to a server: a router on the way may report it. */
static __always_inline int is_error_about_request4(const struct control *control, const struct iphdr *ip, void *end)
{
	const __u8 *icmp = (const void *)(ip + 1);
	const struct iphdr *quoted = (const void *)(icmp + 8);

	return ip->protocol == IPPROTO_ICMP && (void *)(quoted + 1) <= end &&
	       in_filter(control->server_filter, quoted->daddr) && is_server(4, &quoted->daddr);
}

static __always_inline int is_error_about_request6(const struct control *control, const struct ipv6hdr *ip,
						   void *end)
{
	const __u8 *icmp = (const void *)(ip + 1);
	const struct ipv6hdr *quoted = (const void *)(icmp + 8);
	const __u32 *words = quoted->daddr.in6_u.u6_addr32;

	return ip->nexthdr == IPPROTO_ICMPV6 && (void *)(quoted + 1) <= end && *icmp < ICMPV6_FIRST_MESSAGE &&
	       in_filter(control->server_filter, words[0] ^ words[1] ^ words[2] ^ words[3]) &&
	       is_server(6, words);
}

static __always_inline int receive_ipv4(struct xdp_md *ctx, struct ethhdr *ethernet, void *network, void *end,
					__u32 tags)
{
	struct iphdr *ip = network;
	struct packet packet = { .ethernet = ethernet, .ipv4 = ip, .tags = tags };
	const struct control *control = get_control();
	struct interface *interface;
	int to_vip;
	__u8 *icmp;

	if (!control || (void *)(ip + 1) > end)
		return XDP_PASS;
	to_vip = in_filter(control->vip_filter, ip->daddr);
	if (!to_vip && !in_filter(control->server_filter, ip->saddr)) {
		if (ip->protocol != IPPROTO_ICMP || !is_error_about_request4(control, ip, end))
			return XDP_PASS;
		interface = find_interface(ctx->ingress_ifindex);
		return interface && is_for(interface, ethernet) ? to_director(ctx, interface, REASON_ICMP) :
								  XDP_PASS;
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
	    packet.length > bpf_xdp_get_buff_len(ctx) - sizeof(*ethernet) - tags)
		return other(ctx, &packet, REASON_MALFORMED);

	if (!is_transport(packet.protocol)) {
		if (packet.protocol != IPPROTO_ICMP)
			return XDP_PASS;
		icmp = (__u8 *)ip + ip->ihl * 4;
		if (ip->frag_off & bpf_htons(0x1fff) || (void *)(icmp + 1) > end)
			return XDP_PASS;
		if (*icmp != ICMP_UNREACHABLE && *icmp != ICMP_SOURCE_QUENCH && *icmp != ICMP_TIME_EXCEEDED)
			return XDP_PASS;
		return other(ctx, &packet, REASON_ICMP);
	}
	if (ip->frag_off & IPV4_FRAGMENT)
		return other(ctx, &packet, REASON_FRAGMENT);
	if (ip->ihl != 5)
		return other(ctx, &packet, REASON_OPTIONS);
	if (packet.protocol == IPPROTO_SCTP)
		return other(ctx, &packet, REASON_PROTOCOL);
	if (!ipv4_checksum_holds(ip) || !read_transport(&packet, ip + 1, end, packet.length - sizeof(*ip)))
		return other(ctx, &packet, REASON_MALFORMED);
	return forward(ctx, &packet, !to_vip, 4);
}

static __always_inline int receive_ipv6(struct xdp_md *ctx, struct ethhdr *ethernet, void *network, void *end,
					__u32 tags)
{
	struct ipv6hdr *ip = network;
	struct packet packet = { .ethernet = ethernet, .ipv6 = ip, .tags = tags, .flags = FLAG_IPV6 };
	const struct control *control = get_control();
	struct interface *interface;
	const __u32 *source, *target;
	int to_vip;
	__u8 *icmp;

	if (!control || (void *)(ip + 1) > end)
		return XDP_PASS;
	source = ip->saddr.in6_u.u6_addr32;
	target = ip->daddr.in6_u.u6_addr32;
	to_vip = in_filter(control->vip_filter, target[0] ^ target[1] ^ target[2] ^ target[3]);
	if (!to_vip && !in_filter(control->server_filter, source[0] ^ source[1] ^ source[2] ^ source[3])) {
		if (ip->nexthdr != IPPROTO_ICMPV6 || !is_error_about_request6(control, ip, end))
			return XDP_PASS;
		interface = find_interface(ctx->ingress_ifindex);
		return interface && is_for(interface, ethernet) ? to_director(ctx, interface, REASON_ICMP) :
								  XDP_PASS;
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
	if (ip->version != 6 || packet.length > bpf_xdp_get_buff_len(ctx) - sizeof(*ethernet) - tags)
		return other(ctx, &packet, REASON_MALFORMED);

	if (is_ipv6_extension(packet.protocol))
		return other(ctx, &packet, REASON_OPTIONS);
	if (!is_transport(packet.protocol)) {
		icmp = (__u8 *)(ip + 1);
		if (packet.protocol != IPPROTO_ICMPV6 || (void *)(icmp + 1) > end || *icmp >= ICMPV6_FIRST_MESSAGE)
			return XDP_PASS;
		return other(ctx, &packet, REASON_ICMP);
	}
	if (packet.protocol == IPPROTO_SCTP)
		return other(ctx, &packet, REASON_PROTOCOL);
	if (!read_transport(&packet, ip + 1, end, packet.length - sizeof(*ip)))
		return other(ctx, &packet, REASON_MALFORMED);
	return forward(ctx, &packet, !to_vip, 6);
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

/* The same for IPv4. Functions of their own, because the kernel adds up the stacks of those that call each other. */
static __noinline int receive_ipv4_frame(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = (void *)(long)ctx->data;

	if ((void *)(ethernet + 1) > end)
		return XDP_PASS;
	return receive_ipv4(ctx, ethernet, ethernet + 1, end, 0);
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
	return to_director(ctx, interface, REASON_OPTIONS);
}

SEC("xdp.frags")
int dirigo(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = (void *)(long)ctx->data;

	if ((void *)(ethernet + 1) > end)
		return XDP_PASS;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP))
		return receive_ipv4_frame(ctx);
	if (ethernet->h_proto == bpf_htons(ETH_P_IPV6))
		return receive_ipv6_frame(ctx, 0);
	if (is_vlan(ethernet->h_proto))
		return receive_tagged(ctx);
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
