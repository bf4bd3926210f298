/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Packets that belong to no connection: those that begin one are sent to the server that the service's plan says, others
 * are the director's or the host's.
 */
#ifndef DIRIGO_BEGIN_H
#define DIRIGO_BEGIN_H

#include "insert.h"
#include "select.h"

/* An outcome that is no verdict yet: the packet belongs to a connection that there is. */
#define GOES_ON -5

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

/* A connection about to be. */
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
	/* Of the key. */
	__u32 hash;
	/* Nothing can keep its packet from being sent: it counts in the state that a SYN leads to from the beginning. */
	__u32 is_sent;
};

/* The slot of the live connection with this key, or NO_SLOT. Looked at by itself, as the verifier does with these. */
__noinline __u32 find_slot(const struct newcomer *newcomer)
{
	__u32 slot = NO_SLOT;

	if (!newcomer)
		return NO_SLOT;
	return find_connection(get_control(), &newcomer->key, newcomer->protocol, newcomer->flags, newcomer->now, &slot) ?
		       slot :
		       NO_SLOT;
}

/* Makes a connection that is in the table known by its replies; 0 if that index has no place. */
__noinline int enter_by_reply(__u32 slot)
{
	const struct control *control = get_control();
	struct connection *connection = connection_at(slot);
	struct destination *destination;
	struct key key;
	__u32 hash;

	destination = connection ? destination_at(connection->destination) : 0;
	if (!destination)
		return 0;
	reply_key_of(connection, destination, &key);
	hash = hash_key(&key, connection->protocol, connection->flags & FLAG_IPV6, control->seed);
	return add_entry(&reply_buckets, hash, slot);
}

/*
 * Writes a connection to a server into a slot that nobody else has, and makes it known. 0 if the index has no place: the
 * director can make one.
 */
static __always_inline int enter(const struct newcomer *newcomer, struct connection *connection,
				 struct destination *destination)
{
	const struct control *control = get_control();
	__u32 slot = newcomer->slot;
	__u32 forwarding = destination->forwarding, side = SIDE_CLIENT_ONLY, state = TCP_NONE;
	__u32 flags = newcomer->flags | forwarding | FLAG_INACTIVE;

	if (forwarding == FORWARDING_MASQ) {
		side = SIDE_CLIENT;
		flags |= FLAG_REPLIES;
	} else {
		flags |= FLAG_NO_OUTPUT;
	}
	if (newcomer->is_sent && newcomer->protocol == IPPROTO_TCP) {
		state = control->tcp_next[(side * TCP_EVENTS + EVENT_SYN) * TCP_STATES + TCP_NONE] & (TCP_STATES - 1);
		if (TCP_ACTIVE_STATES >> state & 1)
			flags &= ~FLAG_INACTIVE;
	}
	connection->expires = newcomer->now + control->created_timeout;
	*(__u32 *)&connection->flags = flags | state << 16 | newcomer->protocol << 24;
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
	/* The exchange that makes the entry is a barrier behind all of this. */
	if (!add_entry(&buckets, newcomer->hash, slot))
		return 0;
	if (flags & FLAG_REPLIES && !enter_by_reply(slot)) {
		remove_entry(&buckets, newcomer->hash, slot);
		return 0;
	}
	/* Whoever followed the entry before this did not find the connection, and has to wait for the lock now. */
	*(volatile __u32 *)&connection->tag = TAG_USED;
	bind(destination, flags & FLAG_INACTIVE);
	count_connection(newcomer->index);
	return 1;
}

/*
 * The server of a client that has a template, which counts one connection more from here on; NO_CHOICE if the template
 * does not hold, or ends at this moment.
 */
static __always_inline __u32 follow_template(__u32 now, const struct service *service, __u32 slot)
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
	/* With expire_nodest_conn, the director replaces a connection to it with the next SYN, should this one go up. */
	if (get_control()->flags & (CONTROL_EXPIRE_QUIESCENT | CONTROL_EXPIRE_NODEST) && destination->weight == 0)
		return NO_CHOICE;
	__sync_fetch_and_add(&template->control, 1);
	if ((*(volatile __u32 *)&template->tag & TAG_MASK) != TAG_USED) {
		__sync_fetch_and_add(&template->control, -1);
		return NO_CHOICE;
	}
	template->expires = now + (template->packets ? template->packets : service->persistence);
	return index;
}

/* A datagram of a service that schedules each by itself: its connection is over when it is sent. */
static __noinline int send_once(struct xdp_md *ctx, struct packet *packet, const struct service *service)
{
	struct destination *destination;
	struct connection *connection;
	__u32 zero = 0, index;
	int outcome;

	/* Whatever could go wrong once a server is chosen is the director's from the beginning. */
	if (time_to_live(packet) <= 1 || packet->length > service->least_mtu || packet->tags || !has_checksum(packet))
		return UP(REASON_NO_CONNECTION);
	index = select_server(service, &packet->key, packet->flags);
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
	bind(destination, 1);
	count_connection(index);
	outcome = send_first(ctx, packet);
	unbind(destination, 1);
	return outcome;
}

/* The server of a persistent service's client: its template's; NO_CHOICE if the director has to say. */
static __noinline __u32 choose_by_template(const struct service *service, struct newcomer *newcomer)
{
	const struct key key = newcomer->key;
	__u32 slot, index;

	/* The newcomer stands for its template meanwhile: there is no room for two on the stack. */
	newcomer->flags |= FLAG_TEMPLATE;
	newcomer->key.ports &= 0xffff0000;
	for (int word = 0; word < 4; word++)
		newcomer->key.client[word] &= service->mask[word];
	slot = find_slot(newcomer);
	newcomer->flags &= ~FLAG_TEMPLATE;
	newcomer->key = key;
	if (slot == NO_SLOT)
		return NO_CHOICE;
	index = follow_template(newcomer->now, service, slot);
	if (index != NO_CHOICE)
		newcomer->template = slot + 1;
	return index;
}

/* Takes back what was done for a connection that did not come about. */
static __noinline int give_up(const struct newcomer *newcomer)
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
	return 0;
}

/* Sends a packet on by a connection that there is, which goes on. */
static __noinline int send_by_known(struct xdp_md *ctx, struct packet *packet)
{
	int outcome;

	packet->connection = connection_at(packet->slot);
	if (!packet->connection)
		return UP(REASON_NO_CONNECTION);
	outcome = forward_known(ctx, packet, 0);
	return outcome == BEGIN ? UP(REASON_SYN) : outcome;
}

/*
 * Chooses the server, takes a slot and enters the connection; tells the newcomer its slot and its server. An outcome if that
 * is not to be, else 0.
 */
static __always_inline int make_connection(const struct service *service, struct newcomer *newcomer)
{
	struct destination *destination;
	struct connection *connection;
	__u32 known = find_hashed(newcomer->hash, &newcomer->key, newcomer->protocol, newcomer->flags, newcomer->now,
				  &newcomer->slot) ?
			      newcomer->slot :
			      NO_SLOT;

	/* It goes on: it was there, or another CPU was faster. */
	if (known != NO_SLOT && !end_replaceable(known))
		return GOES_ON;
	/* The place of the one that is over is the first that is free. */
	newcomer->slot = known;
	newcomer->index = service->persistence ? choose_by_template(service, newcomer) :
						 select_server(service, &newcomer->key, newcomer->flags);
	destination = destination_at(newcomer->index);
	if (newcomer->index == NO_CHOICE || !destination) {
		give_up(newcomer);
		return UP(REASON_NO_SERVER);
	}
	if (known == NO_SLOT)
		newcomer->slot = take_slot(newcomer->now);
	connection = connection_at(newcomer->slot);
	if (!connection || !enter(newcomer, connection, destination)) {
		give_up(newcomer);
		return UP(REASON_NO_ROOM);
	}
	return 0;
}

/* The same, looked at by itself: the verifier goes through it once, and not for each kind of packet. */
__noinline int make_connection_apart(const struct service *service, struct newcomer *newcomer)
{
	return service && newcomer ? make_connection(service, newcomer) : UP(REASON_NO_CONNECTION);
}

/* A packet of no connection, or one that begins a new one. */
static __always_inline int start(struct xdp_md *ctx, struct packet *packet, int is_apart)
{
	const struct control *control = packet->control;
	__u8 family = packet->flags & FLAG_IPV6 ? 6 : 4;
	__u16 port = packet->key.ports >> 16;
	struct newcomer newcomer = {
		.flags = packet->flags,
		.protocol = packet->protocol,
		.now = packet->now,
	};
	struct service *service;
	int outcome = UP(REASON_NO_CONNECTION);

	newcomer.key = packet->key;
	if (control->flags & CONTROL_STRAY_REPLIES && from_server(packet) && is_server(family, packet->key.client))
		return UP(REASON_REPLY);
	if (control->flags & CONTROL_MARKS)
		goto elsewhere;
	service = family == 4 ? find_service4(packet->protocol, port, packet->key.virtual) :
				find_service(packet->protocol, family, port, packet->key.virtual);
	if (!service) {
		if (!is_service(packet->protocol, family, port, packet->key.virtual))
			outcome = XDP_PASS;
		goto elsewhere;
	}
	if (!(service->flags & SERVICE_SCHEDULED) || control->flags & CONTROL_NO_NEW)
		goto elsewhere;
	if (packet->protocol == IPPROTO_TCP && (packet->tcp_flags & (TCP_SYN | TCP_RST)) != TCP_SYN)
		goto elsewhere;
	/* A data connection of active FTP is opened by the server. */
	if ((__u16)packet->key.ports == bpf_htons(20))
		goto elsewhere;
	if (service->flags & SERVICE_ONE_PACKET)
		return send_once(ctx, packet, service);

	newcomer.hash = hash_key(&packet->key, packet->protocol, packet->flags, control->seed);
	newcomer.is_sent = time_to_live(packet) > 1 && packet->length <= service->least_mtu && !packet->tags;
	if (!lock_stripe(newcomer.hash))
		goto elsewhere;
	outcome = is_apart ? make_connection_apart(service, &newcomer) : make_connection(service, &newcomer);
	packet->slot = newcomer.slot;
	if (outcome) {
		unlock_stripe(newcomer.hash);
		return outcome == GOES_ON ? send_by_known(ctx, packet) : outcome;
	}
	unlock_after_barrier(newcomer.hash);
	packet->connection = connection_at(newcomer.slot);
	packet->destination = destination_at(newcomer.index);
	if (!packet->connection || !packet->destination)
		return UP(REASON_NO_CONNECTION);
	return send_first(ctx, packet);

elsewhere:
	/* Of a SYN nobody has looked yet whether it belongs to a connection. */
	packet->slot = is_first_segment(packet) ? find_slot(&newcomer) : NO_SLOT;
	if (packet->slot != NO_SLOT)
		return send_by_known(ctx, packet);
	return outcome == XDP_PASS ? to_host(REASON_NO_SERVICE) : outcome;
}

static __noinline int start_apart(struct xdp_md *ctx, struct packet *packet)
{
	return start(ctx, packet, 1);
}

/* An untagged one is begun without a call. */
static __always_inline int begin_ipv4(struct xdp_md *ctx, __u32 tags)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(ethernet + 1) + tags;
	struct packet packet = { .ethernet = ethernet, .ipv4 = ip, .tags = tags };

	packet.control = get_control();
	packet.interface = find_interface(ctx->ingress_ifindex);
	if (!packet.interface || (void *)(ip + 1) > end)
		return XDP_DROP;
	packet.key.client[0] = ip->saddr;
	packet.key.virtual[0] = ip->daddr;
	packet.protocol = ip->protocol;
	packet.length = bpf_ntohs(ip->tot_len);
	packet.now = now_ticks(packet.control);
	if (!read_transport(&packet, ip + 1, end, packet.length - sizeof(*ip)))
		return XDP_DROP;
	return tags ? start_apart(ctx, &packet) : start(ctx, &packet, 0);
}

static __noinline int begin_tagged_ipv4(struct xdp_md *ctx)
{
	return begin_ipv4(ctx, VLAN_TAG);
}

static __noinline int begin_ipv6(struct xdp_md *ctx, __u32 tags)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	struct ipv6hdr *ip = (void *)(ethernet + 1) + (tags ? VLAN_TAG : 0);
	struct packet packet = { .ethernet = ethernet, .ipv6 = ip, .tags = tags, .flags = FLAG_IPV6 };

	packet.control = get_control();
	packet.interface = find_interface(ctx->ingress_ifindex);
	if (!packet.interface || (void *)(ip + 1) > end)
		return XDP_DROP;
	__builtin_memcpy(packet.key.client, &ip->saddr, sizeof(packet.key.client));
	__builtin_memcpy(packet.key.virtual, &ip->daddr, sizeof(packet.key.virtual));
	packet.protocol = ip->nexthdr;
	packet.length = bpf_ntohs(ip->payload_len) + sizeof(*ip);
	packet.now = now_ticks(packet.control);
	if (!read_transport(&packet, ip + 1, end, packet.length - sizeof(*ip)))
		return XDP_DROP;
	return start_apart(ctx, &packet);
}

#endif
