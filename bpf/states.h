/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What a packet does to its connection: TCP states, timers, the destination's counts. */
#ifndef DIRIGO_STATES_H
#define DIRIGO_STATES_H

#include "layout.h"
#include "parse.h"

enum tcp_state {
	TCP_NONE,
	TCP_ESTABLISHED,
	TCP_SYN_SENT,
	TCP_SYN_RECV,
	TCP_FIN_WAIT,
	TCP_TIME_WAIT,
	TCP_CLOSE,
	TCP_CLOSE_WAIT,
	TCP_LAST_ACK,
	TCP_LISTEN,
	TCP_SYNACK,
};

/* States in which a connection counts as active, as bits (tcp_state_active_table in ip_vs_proto_tcp.c). */
#define TCP_ACTIVE_STATES (1 << TCP_ESTABLISHED | 1 << TCP_SYN_SENT | 1 << TCP_SYN_RECV | 1 << TCP_SYNACK)

/* Which part of the table of states applies: TcpDirection in src/ipvs/tcp-states.ts */
#define SIDE_CLIENT 0
#define SIDE_SERVER 1
#define SIDE_CLIENT_ONLY 2

/* Rows of control.tcp_next within a side; a segment without any of these flags closes. */
enum tcp_event { EVENT_SYN, EVENT_FIN, EVENT_ACK, EVENT_RST, EVENT_NONE };

static __always_inline enum tcp_event tcp_event(__u8 flags)
{
	if (flags & TCP_RST)
		return EVENT_RST;
	if (flags & TCP_SYN)
		return EVENT_SYN;
	if (flags & TCP_FIN)
		return EVENT_FIN;
	return flags & TCP_ACK ? EVENT_ACK : EVENT_NONE;
}

/* A template is assured once one of its connections is established. */
static __always_inline void assure_template(const struct connection *connection)
{
	struct connection *template;

	if (connection->control == 0)
		return;
	template = connection_at(connection->control - 1);
	if (template && (template->tag & TAG_MASK) == TAG_USED && template->flags & FLAG_TEMPLATE)
		template->state |= 1;
}

/*
 * The server of a connection that has just been moved. Not the one that the packet found: its slot may have become another
 * connection's meanwhile.
 */
static __always_inline void count_activity(const struct connection *connection, int change)
{
	struct destination *destination = destination_at(*(const volatile __u32 *)&connection->destination);

	if (!destination)
		return;
	__sync_fetch_and_add(&destination->active, change);
	__sync_fetch_and_add(&destination->inactive, -change);
}

/*
 * Moves the connection on and returns its state. Several CPUs and the director may try at once: only the one whose
 * exchange of state and flags succeeds adjusts the destination's counts, so these always add up. A connection that has
 * been ended is not moved: it is counted nowhere.
 */
static __always_inline __u8 tcp_transition(const struct control *control, struct connection *connection, __u32 side,
					   __u8 tcp_flags)
{
	__u32 row = (side * TCP_EVENTS + tcp_event(tcp_flags)) * TCP_STATES;
	/* Flags in the low half, state above them, then the protocol. */
	__u32 *word = (__u32 *)&connection->flags;

#pragma clang loop unroll(disable)
	for (int attempt = 0; attempt < 4; attempt++) {
		__u32 before = *(volatile __u32 *)word;
		__u32 state = (before >> 16) & (TCP_STATES - 1);
		__u32 next = control->tcp_next[row + state] & (TCP_STATES - 1);
		int active = (TCP_ACTIVE_STATES >> next) & 1;
		__u32 after;

		if (next == state || before & FLAG_ENDED)
			return state;
		after = (before & 0xff00ffff & ~(active ? FLAG_INACTIVE : 0)) | (active ? 0 : FLAG_INACTIVE) |
			next << 16;
		if (__sync_val_compare_and_swap(word, before, after) != before)
			continue;
		if (active && before & FLAG_INACTIVE)
			count_activity(connection, 1);
		else if (!active && !(before & FLAG_INACTIVE))
			count_activity(connection, -1);
		if (next == TCP_ESTABLISHED)
			assure_template(connection);
		return next;
	}
	return connection->state & (TCP_STATES - 1);
}

/* True if a SYN on this TCP connection begins a new one: isReplaceable() in src/ipvs/director.ts. */
static __always_inline int is_replaceable(const struct control *control, const struct connection *connection,
					  const struct destination *destination)
{
	__u8 state = connection->state;

	if (control->flags & CONTROL_EXPIRE_NODEST && destination->weight == 0)
		return 1;
	if (!(control->flags & CONTROL_REUSE) || connection->control)
		return 0;
	return state == TCP_TIME_WAIT || state == TCP_CLOSE ||
	       (state == TCP_FIN_WAIT && connection->flags & FLAG_NO_OUTPUT && control->flags & CONTROL_REUSE_FIN_WAIT);
}

/* State and timer after a packet of one side. */
static __always_inline void advance(const struct control *control, struct connection *connection,
				    __u32 side, __u8 protocol, __u8 tcp_flags, __u32 now)
{
	__u32 timeout;

	if (protocol == IPPROTO_TCP) {
		__u8 state = tcp_transition(control, connection, side, tcp_flags);

		timeout = control->tcp_timeouts[state & (TCP_STATES - 1)];
	} else {
		if (side == SIDE_SERVER)
			assure_template(connection);
		timeout = control->udp_timeout;
	}
	connection->expires = now + timeout;
}

#endif
