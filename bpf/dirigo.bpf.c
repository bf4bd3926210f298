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
#define NO_REPLY -5
/* Places in the map `programs`: src/datapath/xdp/fast-path.ts */
#define PROGRAM_BEGIN 0
/* The guard's filter (bpf/guard), if there is one: for what would be passed to the host. */
#define PROGRAM_GUARD 1
#define PROGRAM_RELATE 2
#define PROGRAM_OTHER 3

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
	__u32 method = connection->flags & FLAG_FORWARDING;
	struct extension *extension = 0;
	__u64 sum = 0;

	if (packet->length > destination->mtu)
		return UP(REASON_TOO_BIG);
	if (!has_checksum(packet))
		return UP(REASON_NO_CHECKSUM);
	if (method == FORWARDING_FULLNAT) {
		extension = bpf_map_lookup_elem(&extensions, &packet->slot);
		if (!extension || connection->local_port == 0)
			return UP(REASON_METHOD);
		if (packet->protocol == IPPROTO_TCP && !is_plain_request(packet, extension, end))
			return UP(REASON_METHOD);
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
static __always_inline int tunnel(struct xdp_md *ctx, struct packet *packet)
{
	const struct interface *interface = packet->interface;
	struct destination *destination = packet->destination;
	__u32 overhead = tunnel_overhead(destination);
	__u32 index = packet->connection->destination;
	struct tunnel *tunnel = bpf_map_lookup_elem(&tunnels, &index);

	if (overhead == 0 || !tunnel || packet->tags)
		return UP(REASON_METHOD);
	if (!fits_tunnel(packet, destination, overhead))
		return UP(REASON_TOO_BIG);
	account(packet);
	decrement(packet);
	return leave_by_tunnel(ctx, interface, packet, tunnel, destination, overhead,
			       packet->control->flags & CONTROL_PATH_DISCOVERY);
}

/* Server to client, if the packet is a reply, else NO_REPLY. */
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
		return NO_REPLY;
	}
	if (connection->flags & (FLAG_DIRECTORS | FLAG_NO_OUTPUT))
		return UP(REASON_METHOD);
	index = connection->destination;
	destination = bpf_map_lookup_elem(&destinations, &index);
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
	if ((connection->flags & FLAG_FORWARDING) == FORWARDING_FULLNAT) {
		extension = bpf_map_lookup_elem(&extensions, &slot);
		if (!extension)
			return UP(REASON_METHOD);
		if (packet->protocol == IPPROTO_TCP && !is_plain_reply(packet, extension, end))
			return UP(REASON_METHOD);
	}

	advance(control, connection, SIDE_SERVER, packet->protocol, packet->tcp_flags, packet->now);
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

/* A packet that belongs to no connection by its key, nor as a reply. */
static __always_inline int unknown(const struct packet *packet, int is_servers)
{
	__u8 family = packet->flags & FLAG_IPV6 ? 6 : 4;

	if (is_servers && packet->control->flags & CONTROL_STRAY_REPLIES && is_server(family, packet->key.client))
		return UP(REASON_REPLY);
	if (packet->control->flags & CONTROL_MARKS)
		return UP(REASON_NO_CONNECTION);
	if (find_service(packet->protocol, family, packet->key.ports >> 16, packet->key.virtual))
		return BEGIN;
	if (is_service(packet->protocol, family, packet->key.ports >> 16, packet->key.virtual))
		return UP(REASON_NO_CONNECTION);
	return to_host(REASON_NO_SERVICE);
}

/* A packet whose headers are all there: forwarded, or up, or past. */
static __always_inline int forward(struct xdp_md *ctx, struct packet *packet, int is_reply, int family)
{
	const struct control *control = packet->control;
	struct connection *connection = 0;
	struct destination *destination;
	__u32 index, wanted, method;

	packet->now = now_ticks(control);
	if (!is_reply)
		connection = find_connection(control, &packet->key, packet->protocol, packet->flags, packet->now,
					     &packet->slot);
	if (!connection) {
		int is_servers = from_server(packet), outcome = NO_REPLY;

		if (is_servers)
			outcome = family == 4 ? reply(ctx, packet) : reply_apart(ctx, packet);
		return outcome == NO_REPLY ? unknown(packet, is_servers) : outcome;
	}
	method = connection->flags & (FLAG_FORWARDING | FLAG_DIRECTORS);
	if (connection->flags & FLAG_DIRECTORS)
		return UP(REASON_METHOD);

	index = connection->destination;
	destination = bpf_map_lookup_elem(&destinations, &index);
	wanted = DESTINATION_USED | DESTINATION_AVAILABLE;
	if (!destination || (destination->flags & wanted) != wanted)
		return UP(REASON_UNAVAILABLE);
	if (!(destination->flags & DESTINATION_RESOLVED))
		return UP(REASON_UNRESOLVED);
	if (time_to_live(packet) <= 1)
		return UP(REASON_TIME_TO_LIVE);
	if (packet->tcp_flags & TCP_SYN) {
		if (method == FORWARDING_FULLNAT)
			return UP(REASON_SYN);
		if (is_replaceable(control, connection, destination))
			return BEGIN;
	}
	packet->connection = connection;
	packet->destination = destination;

	if (method == FORWARDING_GATE)
		return route(ctx, packet);
	if (method == FORWARDING_MASQ || method == FORWARDING_FULLNAT)
		return family == 4 ? translate(ctx, packet) : translate_apart(ctx, packet);
	if (method == FORWARDING_TUNNEL)
		return family == 4 ? tunnel(ctx, packet) : tunnel_apart(ctx, packet);
	return UP(REASON_METHOD);
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
	int to_vip;

	if (!control || (void *)(ip + 1) > end)
		return XDP_PASS;
	to_vip = in_filter4(control->vip_filter, ip->daddr);
	if (!to_vip && !in_filter4(control->server_filter, ip->saddr)) {
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

	if (!control || (void *)(ip + 1) > end)
		return XDP_PASS;
	source = ip->saddr.in6_u.u6_addr32;
	target = ip->daddr.in6_u.u6_addr32;
	to_vip = in_filter6(control->vip_filter, &ip->daddr);
	if (!to_vip && !in_filter6(control->server_filter, &ip->saddr)) {
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

/* Lets the program go on that an outcome stands for. */
static __always_inline int go_on(struct xdp_md *ctx, int outcome)
{
	if (outcome == XDP_PASS)
		bpf_tail_call(ctx, &programs, PROGRAM_GUARD);
	else if (outcome == BEGIN)
		bpf_tail_call(ctx, &programs, PROGRAM_BEGIN);
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
	return outcome > XDP_PASS ? outcome : go_on(ctx, outcome);
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
	return go_on(ctx, ethernet->h_proto == bpf_htons(ETH_P_IPV6) ? receive_ipv6_frame(ctx, 0) : receive_tagged(ctx));
}

/* Sends the first packet of a connection, or leaves that to the director, who finds the connection. */
static __always_inline int send_first(struct xdp_md *ctx, struct packet *packet)
{
	struct destination *destination = packet->destination;
	__u32 method = packet->connection->flags & FLAG_FORWARDING;

	if (!(destination->flags & DESTINATION_RESOLVED))
		return UP(REASON_UNRESOLVED);
	if (time_to_live(packet) <= 1)
		return UP(REASON_TIME_TO_LIVE);
	if (method == FORWARDING_MASQ)
		return translate_apart(ctx, packet);
	if (method == FORWARDING_TUNNEL)
		return tunnel_apart(ctx, packet);
	if (method != FORWARDING_GATE)
		return UP(REASON_METHOD);
	return route(ctx, packet);
}

/* A connection about to be, as functions take it that are looked at by themselves. */
struct newcomer {
	struct key key;
	/* FLAG_IPV6, for a template FLAG_TEMPLATE */
	__u32 flags;
	__u32 protocol;
	__u32 now;
	__u32 slot;
	/* The destination. */
	__u32 index;
	/* Slot + 1 of the template, or 0. */
	__u32 template;
};

/* The slot of the live connection with this key, or NO_SLOT. */
__noinline __u32 find_slot(const struct newcomer *newcomer)
{
	const struct control *control = get_control();
	__u32 slot = NO_SLOT;

	if (!newcomer || !control)
		return NO_SLOT;
	return find_connection(control, &newcomer->key, newcomer->protocol, newcomer->flags, newcomer->now, &slot) ?
		       slot :
		       NO_SLOT;
}

/*
 * Writes a connection to a server into a slot that is TAG_BUSY, and makes it known. 0 if the index has no place: the
 * director can make one.
 */
__noinline int enter(const struct newcomer *newcomer)
{
	const struct control *control = get_control();
	struct connection *connection;
	struct destination *destination;
	__u32 flags, hash, slot;
	struct key key;

	if (!newcomer || !control)
		return 0;
	slot = newcomer->slot;
	connection = connection_at(slot);
	destination = destination_at(newcomer->index);
	if (!connection || !destination)
		return 0;
	flags = newcomer->flags | destination->forwarding | FLAG_INACTIVE;
	flags |= destination->forwarding == FORWARDING_MASQ ? FLAG_REPLIES : FLAG_NO_OUTPUT;
	connection->expires = newcomer->now + control->created_timeout;
	*(__u32 *)&connection->flags = flags | newcomer->protocol << 24;
	((__u32 *)connection)[3] = newcomer->key.ports;
	for (int word = 0; word < 4; word++) {
		connection->client[word] = newcomer->key.client[word];
		connection->virtual[word] = newcomer->key.virtual[word];
	}
	connection->destination = newcomer->index;
	connection->destination_port = destination->port ? destination->port : newcomer->key.ports >> 16;
	connection->local_port = 0;
	connection->control = newcomer->template;
	connection->packets = 0;
	__sync_lock_test_and_set(&connection->tag, TAG_USED);

	hash = hash_key(&newcomer->key, newcomer->protocol, newcomer->flags, control->seed);
	if (!add_entry(&buckets, control, hash, slot))
		return 0;
	if (flags & FLAG_REPLIES) {
		__u32 reply_hash;

		reply_key_of(connection, destination, &key);
		reply_hash = hash_key(&key, newcomer->protocol, newcomer->flags, control->seed);
		if (!add_entry(&reply_buckets, control, reply_hash, slot)) {
			remove_entry(&buckets, control, hash, slot);
			return 0;
		}
	}
	bind(destination);
	count_connection(newcomer->index);
	return 1;
}

/*
 * The server of a client that has a template, which counts one connection more from here on; NO_CHOICE if the template
 * does not hold, or ends at this moment.
 */
static __always_inline __u32 follow_template(const struct packet *packet, const struct service *service, __u32 slot)
{
	struct connection *template = connection_at(slot);
	struct destination *destination;
	__u32 index;

	if (!template)
		return NO_CHOICE;
	index = template->destination;
	destination = destination_at(index);
	if (!destination || !(destination->flags & DESTINATION_AVAILABLE))
		return NO_CHOICE;
	if (packet->control->flags & CONTROL_EXPIRE_QUIESCENT && destination->weight == 0)
		return NO_CHOICE;
	__sync_fetch_and_add(&template->control, 1);
	if ((*(volatile __u32 *)&template->tag & TAG_MASK) != TAG_USED) {
		__sync_fetch_and_add(&template->control, -1);
		return NO_CHOICE;
	}
	template->expires = packet->now + (template->packets ? template->packets : service->persistence);
	return index;
}

/* A datagram of a service that schedules each by itself: its connection is over when it is sent. */
static __always_inline int send_once(struct xdp_md *ctx, struct packet *packet, const struct service *service)
{
	struct destination *destination;
	struct connection *connection;
	__u32 zero = 0, index;
	int outcome;

	/* Whatever could go wrong once a server is chosen is the director's from the beginning. */
	if (time_to_live(packet) <= 1 || packet->length > service->least_mtu || packet->tags || !has_checksum(packet))
		return UP(REASON_NO_CONNECTION);
	index = select_server(service, packet);
	destination = destination_at(index);
	connection = bpf_map_lookup_elem(&passing, &zero);
	if (!destination || !connection)
		return UP(REASON_NO_SERVER);
	connection->flags = packet->flags | destination->forwarding | FLAG_INACTIVE |
			    (destination->forwarding == FORWARDING_MASQ ? 0 : FLAG_NO_OUTPUT);
	connection->destination = index;
	connection->destination_port = destination->port ? destination->port : packet->key.ports >> 16;
	connection->control = 0;
	packet->connection = connection;
	packet->destination = destination;
	bind(destination);
	count_connection(index);
	outcome = send_first(ctx, packet);
	unbind(destination, 1);
	return outcome;
}

/* The server of a packet's connection: its template's, or the plan's; NO_CHOICE if the director has to say. */
static __always_inline __u32 choose(const struct packet *packet, const struct service *service,
				    struct newcomer *newcomer)
{
	struct newcomer template;
	__u32 slot, index;

	if (!service->persistence)
		return select_server(service, packet);
	template = *newcomer;
	template.flags |= FLAG_TEMPLATE;
	template.key.ports &= 0xffff0000;
	for (int word = 0; word < 4; word++)
		template.key.client[word] &= service->mask[word];
	slot = find_slot(&template);
	if (slot == NO_SLOT)
		return NO_CHOICE;
	index = follow_template(packet, service, slot);
	if (index != NO_CHOICE)
		newcomer->template = slot + 1;
	return index;
}

/* Takes back what was done for a connection that did not come about. */
static __always_inline void give_up(const struct newcomer *newcomer)
{
	struct connection *connection = connection_at(newcomer->slot);

	if (newcomer->slot != NO_SLOT && connection) {
		__sync_lock_test_and_set(&connection->tag, TAG_BUSY);
		free_slot(newcomer->slot);
	}
	if (newcomer->template) {
		connection = connection_at(newcomer->template - 1);
		if (connection)
			__sync_fetch_and_add(&connection->control, -1);
	}
}

/* A packet of no connection, or one that begins a new one. */
static __noinline int start(struct xdp_md *ctx, struct packet *packet)
{
	const struct control *control = packet->control;
	struct newcomer newcomer = {
		.flags = packet->flags,
		.protocol = packet->protocol,
		.now = packet->now,
	};
	struct table_state *state = get_table_state();
	struct service *service;
	__u32 hash, known;

	newcomer.key = packet->key;
	service = find_service(packet->protocol, packet->flags & FLAG_IPV6 ? 6 : 4, packet->key.ports >> 16,
			       packet->key.virtual);
	if (!service || !state || !(service->flags & SERVICE_SCHEDULED) || control->flags & CONTROL_NO_NEW)
		return UP(REASON_NO_CONNECTION);
	if (packet->protocol == IPPROTO_TCP && (packet->tcp_flags & (TCP_SYN | TCP_RST)) != TCP_SYN)
		return UP(REASON_NO_CONNECTION);
	/* A data connection of active FTP is opened by the server. */
	if ((__u16)packet->key.ports == bpf_htons(20))
		return UP(REASON_NO_CONNECTION);
	if (service->flags & SERVICE_ONE_PACKET)
		return send_once(ctx, packet, service);

	hash = hash_key(&packet->key, packet->protocol, packet->flags, control->seed);
	if (!lock_stripe(hash))
		return UP(REASON_NO_CONNECTION);
	known = find_slot(&newcomer);
	if (known != NO_SLOT && !end_replaceable(known)) {
		/* It goes on, or another CPU was faster. */
		unlock_stripe(state, hash);
		return UP(REASON_SYN);
	}
	/* The place of the one that is over is the first that is free. */
	newcomer.slot = known;
	newcomer.index = choose(packet, service, &newcomer);
	if (newcomer.index == NO_CHOICE) {
		give_up(&newcomer);
		unlock_stripe(state, hash);
		return UP(REASON_NO_SERVER);
	}
	if (known == NO_SLOT)
		newcomer.slot = take_slot(packet->now);
	if (newcomer.slot == NO_SLOT || !enter(&newcomer)) {
		give_up(&newcomer);
		unlock_stripe(state, hash);
		return UP(REASON_NO_ROOM);
	}
	unlock_stripe(state, hash);
	packet->slot = newcomer.slot;
	packet->connection = connection_at(newcomer.slot);
	packet->destination = destination_at(newcomer.index);
	if (!packet->connection || !packet->destination)
		return XDP_DROP;
	return send_first(ctx, packet);
}

static __noinline int begin_ipv4(struct xdp_md *ctx, __u32 tags)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(ethernet + 1) + (tags ? VLAN_TAG : 0);
	struct packet packet = { .ethernet = ethernet, .ipv4 = ip, .tags = tags };

	packet.control = get_control();
	packet.interface = find_interface(ctx->ingress_ifindex);
	if (!packet.control || !packet.interface || (void *)(ip + 1) > end)
		return XDP_DROP;
	packet.key.client[0] = ip->saddr;
	packet.key.virtual[0] = ip->daddr;
	packet.protocol = ip->protocol;
	packet.length = bpf_ntohs(ip->tot_len);
	packet.now = now_ticks(packet.control);
	if (!read_transport(&packet, ip + 1, end, packet.length - sizeof(*ip)))
		return XDP_DROP;
	return start(ctx, &packet);
}

static __noinline int begin_ipv6(struct xdp_md *ctx, __u32 tags)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	struct ipv6hdr *ip = (void *)(ethernet + 1) + (tags ? VLAN_TAG : 0);
	struct packet packet = { .ethernet = ethernet, .ipv6 = ip, .tags = tags, .flags = FLAG_IPV6 };

	packet.control = get_control();
	packet.interface = find_interface(ctx->ingress_ifindex);
	if (!packet.control || !packet.interface || (void *)(ip + 1) > end)
		return XDP_DROP;
	__builtin_memcpy(packet.key.client, &ip->saddr, sizeof(packet.key.client));
	__builtin_memcpy(packet.key.virtual, &ip->daddr, sizeof(packet.key.virtual));
	packet.protocol = ip->nexthdr;
	packet.length = bpf_ntohs(ip->payload_len) + sizeof(*ip);
	packet.now = now_ticks(packet.control);
	if (!read_transport(&packet, ip + 1, end, packet.length - sizeof(*ip)))
		return XDP_DROP;
	return start(ctx, &packet);
}

/* Called by dirigo() for a good packet that belongs to no connection, or begins a new one in the place of one that is over. */
SEC("xdp.frags")
int begin(struct xdp_md *ctx)
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
	return verdict_of(ctx, type == bpf_htons(ETH_P_IP) ? begin_ipv4(ctx, tags) : begin_ipv6(ctx, tags));
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
	return outcome;
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
