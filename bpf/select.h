/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Which server a new connection gets, by the service's plan: src/ipvs/selection.ts. */
#ifndef DIRIGO_SELECT_H
#define DIRIGO_SELECT_H

#include "layout.h"
#include "parse.h"

/* Not to be decided here. */
#define NO_CHOICE 0xffffffff
#define SEQUENCE_STEPS 64
#define CURSOR_ATTEMPTS 4
#define LONGEST_SCAN 64
#define HASH_PLACES 256
#define MAGLEV_PLACES 4093

static __always_inline int is_eligible(const struct destination *destination)
{
	return destination && (destination->flags & (DESTINATION_AVAILABLE | DESTINATION_OVERLOADED)) ==
				      DESTINATION_AVAILABLE &&
	       destination->weight > 0;
}

/* The destination in a place of a plan, if it is eligible. */
static __always_inline __u32 eligible_in(__u32 at)
{
	__u32 index = plan_word(at);

	return is_eligible(destination_at(index)) ? index : NO_CHOICE;
}

/* The same, looked at by itself: for the verifier, loops over it are short. */
__noinline __u32 eligible_at(__u32 at)
{
	return eligible_in(at);
}

/* A cursor after the choice of a place: see `cursors` in layout.h. */
static __always_inline __u64 after_choice(__u64 last, __u32 place)
{
	return ((last >> 32) + 1) << 32 | (place + 1);
}

/* The next of a round: the cursor moves behind what is given, and over what is not eligible, in one exchange. */
__noinline __u32 select_next(const struct service *service)
{
	__u32 number, length, at;
	__u64 *cursor;

	if (!service)
		return NO_CHOICE;
	number = service->cursor;
	cursor = bpf_map_lookup_elem(&cursors, &number);
	length = service->length;
	at = service->at;
	if (!cursor || length == 0)
		return NO_CHOICE;
	for (int attempt = 0; attempt < CURSOR_ATTEMPTS; attempt++) {
		__u64 last = *(volatile __u64 *)cursor;
		__u32 first = (__u32)last < length ? (__u32)last : 0, place = 0;
		__u32 index = NO_CHOICE;

		for (__u32 step = 0; step < SEQUENCE_STEPS; step++) {
			if (step >= length)
				break;
			place = first + step < length ? first + step : first + step - length;
			index = eligible_at(at + place);
			if (index != NO_CHOICE)
				break;
		}
		if (index == NO_CHOICE)
			return NO_CHOICE;
		if (__sync_val_compare_and_swap(cursor, last, after_choice(last, place)) == last)
			return index;
	}
	return NO_CHOICE;
}

/* The same where the next is eligible and no other CPU takes it at the same time. */
static __always_inline __u32 select_at_once(const struct service *service)
{
	__u32 number = service->cursor, index;
	__u64 *cursor = bpf_map_lookup_elem(&cursors, &number);

	if (cursor) {
		__u64 last = *(volatile __u64 *)cursor;
		__u32 place = (__u32)last < service->length ? (__u32)last : 0;

		index = eligible_in(service->at + place);
		if (index != NO_CHOICE && __sync_val_compare_and_swap(cursor, last, after_choice(last, place)) == last)
			return index;
	}
	return select_next(service);
}

#define SIP_ROUND(a, b, c, d)                                                                                          \
	do {                                                                                                           \
		a += b;                                                                                                \
		b = (b << 13 | b >> 51) ^ a;                                                                           \
		a = a << 32 | a >> 32;                                                                                 \
		c += d;                                                                                                \
		d = (d << 16 | d >> 48) ^ c;                                                                           \
		a += d;                                                                                                \
		d = (d << 21 | d >> 43) ^ a;                                                                           \
		c += b;                                                                                                \
		b = (b << 17 | b >> 47) ^ c;                                                                           \
		c = c << 32 | c >> 32;                                                                                 \
	} while (0)

/* SipHash-1-3 of one word with the key of the Maglev lookup: src/ipvs/siphash.ts */
static __always_inline __u32 maglev_hash(__u32 word)
{
	const __u64 key = 0x9e3779b1;
	__u64 block = (__u64)4 << 56 | word;
	__u64 a = 0x736f6d6570736575ULL ^ key, b = 0x646f72616e646f6dULL ^ key;
	__u64 c = 0x6c7967656e657261ULL ^ key, d = 0x7465646279746573ULL ^ key;

	d ^= block;
	SIP_ROUND(a, b, c, d);
	a ^= block;
	c ^= 0xff;
	SIP_ROUND(a, b, c, d);
	SIP_ROUND(a, b, c, d);
	SIP_ROUND(a, b, c, d);
	return a ^ b ^ c ^ d;
}

/* What is in the client's place of the table, if it is eligible; else the director knows what to do. */
static __always_inline __u32 select_hashed(const struct service *service, const struct key *key, __u32 flags)
{
	const __u32 *address = service->kind == PLAN_DH ? key->virtual : key->client;
	__u32 word = address[0], place;

	if (flags & FLAG_IPV6)
		word ^= address[1] ^ address[2] ^ address[3];
	word = bpf_ntohl(word);
	if (service->flags & SERVICE_HASH_PORT)
		word += bpf_ntohs((__u16)key->ports);
	place = service->kind == PLAN_MH ? maglev_hash(word) % MAGLEV_PLACES : word * 0x61c88647 >> 24;
	if (place >= service->length)
		return NO_CHOICE;
	return eligible_in(service->at + place);
}

/*
 * The least load over weight; weights are small enough here (see the daemon) that products fit. What differs between the
 * schedulers is decided before the loop: a server costs three nanoseconds.
 */
static __always_inline __u32 least_of(const struct service *service, int is_expected_delay)
{
	__u64 least_load = 0, least_weight = 1;
	__u32 kind = service->kind, length = service->length, at = service->at, least = NO_CHOICE;
	/* nq takes the first server without an active connection. */
	__u32 idle = kind == PLAN_NQ ? 0 : NO_CHOICE;
	__u32 weights = kind == PLAN_LC ? 0 : ~0, no_weights = kind == PLAN_LC;

	for (__u32 place = 0; place < LONGEST_SCAN; place++) {
		const struct destination *destination;
		__u64 load, weight;
		__u32 index, active;

		if (place >= length)
			break;
		index = plan_word(at + place);
		destination = destination_at(index);
		if (!is_eligible(destination))
			continue;
		active = destination->active;
		if (active == idle)
			return index;
		load = is_expected_delay ? (__u64)active + 1 : (__u64)active * 256 + destination->inactive;
		weight = (destination->weight & weights) | no_weights;
		if (least == NO_CHOICE || least_load * weight > load * least_weight) {
			least = index;
			least_load = load;
			least_weight = weight;
		}
	}
	return least;
}

__noinline __u32 select_least(const struct service *service)
{
	if (!service)
		return NO_CHOICE;
	return service->kind == PLAN_SED || service->kind == PLAN_NQ ? least_of(service, 1) : least_of(service, 0);
}

/* The greatest weight; for ovf of those with no more active connections than weight. */
__noinline __u32 select_greatest(const struct service *service)
{
	__u32 length, at, greatest = NO_CHOICE, greatest_weight = 0;

	if (!service)
		return NO_CHOICE;
	length = service->length;
	at = service->at;
	for (__u32 place = 0; place < LONGEST_SCAN; place++) {
		struct destination *destination;
		__u32 index;

		if (place >= length)
			break;
		index = eligible_at(at + place);
		destination = destination_at(index);
		if (!destination || destination->weight <= greatest_weight)
			continue;
		if (service->kind == PLAN_OVF && destination->active > destination->weight)
			continue;
		greatest = index;
		greatest_weight = destination->weight;
	}
	return greatest;
}

static __always_inline __u32 select_server(const struct service *service, const struct key *key, __u32 flags)
{
	switch (service->kind) {
	case PLAN_SEQUENCE:
		return select_at_once(service);
	case PLAN_SH:
	case PLAN_DH:
	case PLAN_MH:
		return select_hashed(service, key, flags);
	case PLAN_FO:
	case PLAN_OVF:
		return select_greatest(service);
	default:
		return select_least(service);
	}
}

#endif
