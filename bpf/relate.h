/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * ICMP errors that belong to a connection: what src/ipvs/related.ts does with them as far as it is looking up, translating
 * and forwarding. An error quotes the packet it is about, whose addresses and ports lead to the connection: the server is
 * told of one about a reply, the client of one about a request. Left to the director is what needs more: options,
 * fragments and SCTP in the error or in what it quotes, errors about tunnel packets, connections to be made for an error.
 */
#ifndef DIRIGO_RELATE_H
#define DIRIGO_RELATE_H

#include "forward.h"
#include "fullnat.h"
#include "icmp.h"
#include "lookup.h"
#include "tunnel.h"
#include "ways.h"

#define MAXIMUM_EXTENSION_HEADERS 8
#define EXTENSION_UNIT 8

/* True if what is changed is in the frame: the verifier has forgotten it. */
static __always_inline int is_there(const struct error *error, const void *end)
{
	return error->icmp + ICMP_HEADER <= (const __u8 *)end &&
	       error->quoted + header_length(error->packet.flags) <= end && (const void *)(error->ports + 2) <= end;
}

/* Counts an error about a reply; no state moves and no timer starts again. */
static __always_inline void count_error(const struct packet *packet)
{
	packet->connection->packets++;
	count_traffic(packet->connection->destination, packet->length);
}

/* An error about a reply, of a connection whose packets are translated. */
static __noinline int translate_to_server(struct xdp_md *ctx, struct error *error)
{
	void *end = (void *)(long)ctx->data_end;
	struct packet *packet = &error->packet;
	const struct connection *connection = packet->connection;
	struct destination *destination = packet->destination;
	__u64 flags = packet->flags, outer, message;
	const struct extension *extension = 0;

	if ((connection->flags & FLAG_FORWARDING) == FORWARDING_FULLNAT) {
		extension = extension_at(packet->slot);
		if (!extension || connection->local_port == 0)
			return UP(REASON_METHOD);
	}
	if (!is_right(ctx, error) || !is_there(error, end))
		return UP(REASON_MALFORMED);
	count_error(packet);
	decrement(packet);
	outer = put_address(target_of(network_of(packet), flags), destination->address, flags);
	message = put_address(source_of(error->quoted, flags), destination->address, flags);
	message += put_port(&error->ports[0], connection->destination_port);
	if (extension) {
		outer += put_address(source_of(network_of(packet), flags), extension->local, flags);
		message += put_address(target_of(error->quoted, flags), extension->local, flags);
		message += put_port(&error->ports[1], connection->local_port);
	}
	settle(error, outer, message);
	return leave(ctx, packet->interface, packet->ethernet, destination->next_mac, destination->interface_index);
}

/* An error about a reply, of a connection through a tunnel. */
static __noinline int tunnel_to_server(struct xdp_md *ctx, struct packet *packet)
{
	struct destination *destination = packet->destination;
	__u32 overhead = tunnel_overhead(destination);
	struct tunnel *tunnel = tunnel_at(packet->connection->destination);

	if (overhead == 0 || !tunnel || packet->tags)
		return UP(REASON_METHOD);
	if (!fits_tunnel(packet, destination, overhead))
		return UP(REASON_TOO_BIG);
	count_error(packet);
	decrement(packet);
	/* The flow of an error is that of its own addresses. */
	set_key(&packet->key, network_of(packet), 0, packet->flags);
	return leave_by_tunnel(ctx, packet->interface, packet, tunnel, destination, overhead,
			       packet->control->flags & CONTROL_PATH_DISCOVERY);
}

/* The server is told of an error about a reply, by the way that its requests go. */
static __noinline int error_to_server(struct xdp_md *ctx, struct error *error)
{
	struct packet *packet = &error->packet;
	const struct interface *interface = packet->interface;
	__u32 wanted = DESTINATION_USED | DESTINATION_AVAILABLE;
	struct destination *destination = destination_at(packet->connection->destination);
	__u32 method = packet->connection->flags & FLAG_FORWARDING;

	/* What the SYN proxy has moved is quoted with the client's number. */
	if (packet->connection->flags & (FLAG_DIRECTORS | FLAG_OUT_SEQUENCE))
		return UP(REASON_METHOD);
	if (!destination || (destination->flags & wanted) != wanted)
		return UP(REASON_UNAVAILABLE);
	if (!(destination->flags & DESTINATION_RESOLVED))
		return UP(REASON_UNRESOLVED);
	if (time_to_live(packet) <= 1)
		return UP(REASON_TIME_TO_LIVE);
	packet->destination = destination;
	if (method == FORWARDING_TUNNEL)
		return tunnel_to_server(ctx, packet);
	if (packet->length > destination->mtu)
		return UP(REASON_TOO_BIG);
	if (method == FORWARDING_MASQ || method == FORWARDING_FULLNAT)
		return translate_to_server(ctx, error);
	if (method != FORWARDING_GATE)
		return UP(REASON_METHOD);
	count_error(packet);
	decrement(packet);
	return leave(ctx, interface, packet->ethernet, destination->next_mac, destination->interface_index);
}

/* True for an error that states a size, which FULLNAT lowers while it may add to segments. */
static __always_inline int states_size(const struct error *error)
{
	if (error->packet.flags & FLAG_IPV6)
		return error->icmp[0] == ICMPV6_PACKET_TOO_BIG;
	return error->icmp[0] == ICMP_UNREACHABLE && error->icmp[1] == ICMP_FRAGMENTATION_NEEDED;
}

/* While its header is not acknowledged, sequence numbers depend on where they lie. */
static __always_inline int is_header_on_way(const struct extension *extension)
{
	return extension->flags & FULLNAT_PROXY && !(extension->flags & FULLNAT_HEADER_ACKNOWLEDGED);
}

/* What a client of FULLNAT is told beyond what others are; adds to the sums of outer addresses and message. */
static __always_inline __u64 translate_to_fullnat_client(struct error *error, const struct extension *extension,
							 const void *end, __u64 *outer)
{
	struct packet *packet = &error->packet;
	const struct connection *connection = packet->connection;
	__u64 flags = packet->flags, message;
	__be32 *sequence = (__be32 *)(error->ports + 2);

	*outer += put_address(target_of(network_of(packet), flags), connection->client, flags);
	message = put_address(source_of(error->quoted, flags), connection->client, flags);
	message += put_port(&error->ports[0], connection->client_port);
	if (packet->protocol != IPPROTO_TCP || (const void *)(sequence + 1) > end ||
	    2 * header_length(flags) + ICMP_HEADER + QUOTED_SEQUENCE > packet->length)
		return message;
	return message + replace4(sequence, bpf_htonl(bpf_ntohl(*sequence) - offset_of(extension)));
}

/* The client is told of an error about a translated request: the VIP says it, about a packet to the VIP. */
static __noinline int error_to_client(struct xdp_md *ctx, struct error *error)
{
	void *end = (void *)(long)ctx->data_end;
	struct packet *packet = &error->packet;
	const struct interface *interface = packet->interface;
	struct connection *connection = packet->connection;
	struct extension *extension = 0;
	struct destination *destination;
	__u64 flags = packet->flags, outer, message;
	__u32 index = connection->destination;
	struct hop *hop;

	destination = destination_at(index);
	if (!destination)
		return UP(REASON_UNAVAILABLE);
	if (connection->flags & FLAG_DIRECTORS)
		return UP(REASON_METHOD);
	if ((connection->flags & FLAG_FORWARDING) == FORWARDING_FULLNAT) {
		extension = extension_at(packet->slot);
		if (!extension || is_header_on_way(extension) || (extension->flags & FULLNAT_TOA && states_size(error)))
			return UP(REASON_METHOD);
	} else if (!is_same_address(target_of(network_of(packet), flags), connection->client, flags)) {
		/* Whoever it is for, it is not on the way that is known here. */
		return UP(REASON_NO_WAY);
	}
	hop = way_to_client(packet->control, connection);
	if (!hop)
		return UP(REASON_NO_WAY);
	if (time_to_live(packet) <= 1)
		return UP(REASON_TIME_TO_LIVE);
	if (packet->length > hop->mtu)
		return UP(REASON_TOO_BIG);
	if (!is_right(ctx, error) || !is_there(error, end))
		return UP(REASON_MALFORMED);
	if (destination->flags & DESTINATION_AVAILABLE)
		count_reply(index, packet->length);
	decrement(packet);
	outer = put_address(source_of(network_of(packet), flags), connection->virtual, flags);
	message = put_address(target_of(error->quoted, flags), connection->virtual, flags);
	message += put_port(&error->ports[1], connection->virtual_port);
	if (extension)
		message += translate_to_fullnat_client(error, extension, end, &outer);
	settle(error, outer, message);
	return leave(ctx, interface, packet->ethernet, hop->next_mac, hop->interface_index);
}

/* An error about a request that was not translated: it goes by untouched, and is counted where the host routes it on. */
static __always_inline void count_passing(const struct packet *packet)
{
	__u32 index = packet->connection->destination;
	struct destination *destination = destination_at(index);

	if (destination && destination->flags & DESTINATION_AVAILABLE && time_to_live(packet) > 1)
		count_reply(index, packet->length);
}

static __always_inline int is_translated(const struct connection *connection)
{
	__u32 method = connection->flags & FLAG_FORWARDING;

	return method == FORWARDING_MASQ || method == FORWARDING_FULLNAT;
}

enum related { TO_NOBODY, TO_SERVER, TO_CLIENT, TO_DIRECTOR };

/* Who is to be told of an error that is whole and plain, as what it quotes is. */
static __noinline enum related find_related(struct packet *packet)
{
	const struct control *control = packet->control;
	struct extension *extension;

	turn(&packet->key, packet->flags);
	packet->connection = control->flags & CONTROL_STANDS_BACK ?
				     0 :
				     find_connection(control, &packet->key, packet->protocol, packet->flags,
						     packet->now, &packet->slot);
	if (packet->connection)
		return TO_SERVER;
	turn(&packet->key, packet->flags);
	packet->connection = find_reply(control, &packet->key, packet->protocol, packet->flags, packet->now, &packet->slot,
					&extension);
	if (packet->connection)
		return TO_CLIENT;
	/* The director may make a connection for it (schedule_icmp). */
	if (is_vip(packet->flags & FLAG_IPV6 ? 6 : 4, packet->key.client))
		return TO_DIRECTOR;
	packet->connection = find_connection(control, &packet->key, packet->protocol, packet->flags, packet->now,
					     &packet->slot);
	if (packet->connection && !is_translated(packet->connection))
		count_passing(packet);
	return TO_NOBODY;
}

static __always_inline int tell(struct xdp_md *ctx, struct error *error)
{
	switch (find_related(&error->packet)) {
	case TO_SERVER:
		return error_to_server(ctx, error);
	case TO_CLIENT:
		return error_to_client(ctx, error);
	case TO_DIRECTOR:
		return UP(REASON_ICMP);
	default:
		return XDP_PASS;
	}
}

/* What is found out about only by the director, if it may be about a service or a server. */
static __noinline int leave_to_director(const struct error *error, enum reason reason)
{
	const struct packet *packet = &error->packet;
	__u8 family = packet->flags & FLAG_IPV6 ? 6 : 4;
	const __u32 *target = packet->key.virtual, *source = packet->key.client;

	if (packet->control->flags & CONTROL_MARKS || is_vip(family, target) || is_vip(family, source) ||
	    is_server(family, target) || error->is_to_vip)
		return UP(reason);
	return XDP_PASS;
}


/* A quoted datagram that may be a GUE packet of ours: then the error is about the packet within. */
static __always_inline int may_be_gue(const struct error *error, const void *end)
{
	const __u8 *gue = (const __u8 *)error->ports + sizeof(struct udphdr);

	return error->packet.protocol == IPPROTO_UDP && (const void *)(gue + 2) <= end && gue[0] >> 5 == 0 &&
	       gue[1] == IPPROTO_IPIP;
}

static __noinline int relate_ipv4(struct xdp_md *ctx, __u32 tags)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(ethernet + 1) + (tags ? VLAN_TAG : 0), *quoted;
	struct error error = { .packet = { .ethernet = ethernet, .ipv4 = ip, .tags = tags } };
	struct packet *packet = &error.packet;

	packet->control = get_control();
	packet->interface = find_interface(ctx->ingress_ifindex);
	if (!packet->control || !packet->interface || (void *)(ip + 1) > end || ip->ihl < 5)
		return XDP_PASS;
	error.icmp = (__u8 *)ip + ip->ihl * 4;
	error.quoted = quoted = (void *)(error.icmp + ICMP_HEADER);
	error.ports = (void *)(quoted + 1);
	packet->length = bpf_ntohs(ip->tot_len);
	if (!is_for(packet->interface, ethernet) || ip->version != 4 || (void *)(quoted + 1) > end)
		return XDP_PASS;
	packet->now = now_ticks(packet->control);
	packet->protocol = quoted->protocol;
	set_key(&packet->key, quoted, 0, 0);
	error.is_to_vip = is_vip(4, &ip->daddr);
	if (ip->ihl != 5 || quoted->ihl != 5)
		return leave_to_director(&error, REASON_OPTIONS);
	if ((void *)ip + packet->length > end)
		return leave_to_director(&error, REASON_MALFORMED);
	if (quoted->version != 4 || quoted->frag_off & IPV4_OFFSET ||
	    packet->length < 2 * sizeof(*ip) + ICMP_HEADER + QUOTED_PORTS || !ipv4_checksum_holds(ip))
		return XDP_PASS;
	if ((packet->protocol != IPPROTO_TCP && packet->protocol != IPPROTO_UDP) ||
	    (error.is_to_vip && may_be_gue(&error, end)))
		return leave_to_director(&error, REASON_ICMP);
	if ((void *)(error.ports + 2) > end)
		return XDP_PASS;
	packet->key.ports = *(__u32 *)error.ports;
	return tell(ctx, &error);
}

/* An error behind extension headers is the director's, if it is one and whole. */
static __noinline int relate_extended(struct xdp_md *ctx, struct error *error)
{
	void *end = (void *)(long)ctx->data_end;
	struct packet *packet = &error->packet;
	__u8 *header = (__u8 *)(packet->ipv6 + 1);
	__u8 next = packet->protocol;
	struct ipv6hdr *quoted;

	for (int walked = 0; walked < MAXIMUM_EXTENSION_HEADERS; walked++) {
		if (!is_ipv6_extension(next))
			break;
		if ((void *)(header + EXTENSION_UNIT) > end)
			return XDP_PASS;
		if (next == IPPROTO_FRAGMENT && *(__u16 *)(header + 2) & IPV6_FRAGMENT)
			return XDP_PASS;
		if (next == IPPROTO_FRAGMENT) {
			next = header[0];
			header += EXTENSION_UNIT;
		} else if (next == IPPROTO_AH) {
			next = header[0];
			header += 4 * (header[1] + 2);
		} else {
			next = header[0];
			header += EXTENSION_UNIT * (header[1] + 1);
		}
	}
	quoted = (void *)(header + ICMP_HEADER);
	if (next != IPPROTO_ICMPV6 || (void *)(quoted + 1) > end || *header >= ICMPV6_FIRST_MESSAGE)
		return XDP_PASS;
	set_key(&packet->key, quoted, 0, packet->flags);
	return leave_to_director(error, REASON_OPTIONS);
}

static __noinline int relate_ipv6(struct xdp_md *ctx, __u32 tags)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	struct ipv6hdr *ip = (void *)(ethernet + 1) + (tags ? VLAN_TAG : 0), *quoted;
	struct error error = { .packet = { .ethernet = ethernet, .ipv6 = ip, .tags = tags, .flags = FLAG_IPV6 } };
	struct packet *packet = &error.packet;

	packet->control = get_control();
	packet->interface = find_interface(ctx->ingress_ifindex);
	if (!packet->control || !packet->interface || (void *)(ip + 1) > end)
		return XDP_PASS;
	error.icmp = (void *)(ip + 1);
	error.quoted = quoted = (void *)(error.icmp + ICMP_HEADER);
	error.ports = (void *)(quoted + 1);
	packet->length = bpf_ntohs(ip->payload_len) + sizeof(*ip);
	if (!is_for(packet->interface, ethernet) || ip->version != 6)
		return XDP_PASS;
	packet->now = now_ticks(packet->control);
	packet->protocol = ip->nexthdr;
	error.is_to_vip = is_vip(6, ip->daddr.in6_u.u6_addr32);
	if (is_ipv6_extension(packet->protocol))
		return relate_extended(ctx, &error);
	if ((void *)(quoted + 1) > end)
		return XDP_PASS;
	packet->protocol = quoted->nexthdr;
	set_key(&packet->key, quoted, 0, FLAG_IPV6);
	if ((void *)ip + packet->length > end)
		return leave_to_director(&error, REASON_MALFORMED);
	if (quoted->version != 6 || packet->length < 2 * sizeof(*ip) + ICMP_HEADER + QUOTED_PORTS)
		return XDP_PASS;
	if (packet->protocol != IPPROTO_TCP && packet->protocol != IPPROTO_UDP)
		return leave_to_director(&error, is_ipv6_extension(packet->protocol) ? REASON_OPTIONS : REASON_ICMP);
	if ((void *)(error.ports + 2) > end)
		return XDP_PASS;
	packet->key.ports = *(__u32 *)error.ports;
	return tell(ctx, &error);
}

#endif
