/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What a packet does to its connection: TCP states of input-only traffic, timers, the destination's counts. */
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

enum tcp_event { EVENT_FIN, EVENT_ACK, EVENT_RST, EVENT_NONE };

/* The input-only columns of the kernel's table without SYN, which is the director's; no flag at all closes. */
static const __u8 tcp_next[TCP_STATES][4] = {
	[TCP_NONE] = { TCP_CLOSE, TCP_ESTABLISHED, TCP_CLOSE, TCP_CLOSE },
	[TCP_ESTABLISHED] = { TCP_FIN_WAIT, TCP_ESTABLISHED, TCP_CLOSE, TCP_CLOSE },
	[TCP_SYN_SENT] = { TCP_SYN_SENT, TCP_SYN_SENT, TCP_CLOSE, TCP_CLOSE },
	[TCP_SYN_RECV] = { TCP_TIME_WAIT, TCP_ESTABLISHED, TCP_SYN_RECV, TCP_CLOSE },
	[TCP_FIN_WAIT] = { TCP_FIN_WAIT, TCP_FIN_WAIT, TCP_CLOSE, TCP_CLOSE },
	[TCP_TIME_WAIT] = { TCP_TIME_WAIT, TCP_TIME_WAIT, TCP_CLOSE, TCP_CLOSE },
	[TCP_CLOSE] = { TCP_CLOSE, TCP_CLOSE, TCP_CLOSE, TCP_CLOSE },
	[TCP_CLOSE_WAIT] = { TCP_CLOSE_WAIT, TCP_CLOSE_WAIT, TCP_CLOSE, TCP_CLOSE },
	[TCP_LAST_ACK] = { TCP_LAST_ACK, TCP_CLOSE, TCP_LAST_ACK, TCP_CLOSE },
	[TCP_LISTEN] = { TCP_LISTEN, TCP_LISTEN, TCP_LISTEN, TCP_CLOSE },
	[TCP_SYNACK] = { TCP_TIME_WAIT, TCP_ESTABLISHED, TCP_CLOSE, TCP_CLOSE },
};

static __always_inline enum tcp_event tcp_event(__u8 flags)
{
	if (flags & TCP_RST)
		return EVENT_RST;
	if (flags & TCP_FIN)
		return EVENT_FIN;
	return flags & TCP_ACK ? EVENT_ACK : EVENT_NONE;
}

/* A template is assured once one of its connections is established. */
static __always_inline void assure_template(const struct connection *connection)
{
	__u32 slot = connection->control - 1;
	struct connection *template;

	if (connection->control == 0)
		return;
	template = bpf_map_lookup_elem(&connections, &slot);
	if (template && template->tag && template->flags & FLAG_TEMPLATE)
		template->state |= 1;
}

/*
 * Moves the connection on and returns its state. Several CPUs and the director may try at once: only the one whose
 * exchange of state and flags succeeds adjusts the destination's counts, so these always add up.
 */
static __always_inline __u8 tcp_transition(struct connection *connection, struct destination *destination,
					   __u8 tcp_flags)
{
	enum tcp_event event = tcp_event(tcp_flags);
	/* Flags in the low half, state above them, then the protocol. */
	__u32 *word = (__u32 *)&connection->flags;

	for (int attempt = 0; attempt < 4; attempt++) {
		__u32 before = *(volatile __u32 *)word;
		__u32 state = (before >> 16) & (TCP_STATES - 1);
		__u32 next = tcp_next[state][event & 3];
		int active = (TCP_ACTIVE_STATES >> next) & 1;
		__u32 after;

		if (next == state)
			return state;
		after = (before & 0xff00ffff & ~(active ? FLAG_INACTIVE : 0)) | (active ? 0 : FLAG_INACTIVE) |
			next << 16;
		if (__sync_val_compare_and_swap(word, before, after) != before)
			continue;
		if (active && before & FLAG_INACTIVE) {
			__sync_fetch_and_add(&destination->active, 1);
			__sync_fetch_and_add(&destination->inactive, -1);
		} else if (!active && !(before & FLAG_INACTIVE)) {
			__sync_fetch_and_add(&destination->active, -1);
			__sync_fetch_and_add(&destination->inactive, 1);
		}
		if (next == TCP_ESTABLISHED)
			assure_template(connection);
		return next;
	}
	return connection->state & (TCP_STATES - 1);
}

#endif
