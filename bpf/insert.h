/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Entering connections, on any CPU and beside the director (src/ipvs/connections.ts does the same).
 *
 * A slot is taken by exchanging its tag from TAG_FREE, or of a connection that makes room from its tag, to TAG_BUSY: only
 * one succeeds. Entries of the index are written by exchanging 0. Whoever enters a connection holds the lock of its key's
 * stripe while it looks whether the connection is there, chooses the server and enters it: so no connection is there
 * twice. Nobody waits long for a lock: an XDP program is not interrupted while it holds one, and who waited in vain
 * leaves the packet to the director.
 */
#ifndef DIRIGO_INSERT_H
#define DIRIGO_INSERT_H

#include "counters.h"
#include "hash.h"
#include "lookup.h"
#include "states.h"

#define LOCK_ATTEMPTS 256
#define TAKE_ATTEMPTS 4
#define PUSH_ATTEMPTS 32
#define EVICTION_WINDOW 32
/* Entries in a bucket from which on the other one is preferred, if it has fewer than these. */
#define BUCKET_FULLISH 6
#define NO_SLOT 0xffffffff
#define SLOT_BITS 0xffffff
#define HEAD_COUNT 0x1000000

/* States of a TCP connection that never got going, as bits. */
#define HALF_OPEN_STATES (1 << TCP_NONE | 1 << TCP_SYN_RECV | 1 << TCP_SYNACK)

/* What is not static here is so that the verifier looks at it once and not once for every way to call it. */
__noinline int wait_for_stripe(__u32 hash)
{
	__u32 *lock = &table_state.locks[hash & (INSERT_LOCKS - 1)];

	for (int attempt = 0; attempt < LOCK_ATTEMPTS; attempt++)
		if (*(volatile __u32 *)lock == 0 && __sync_val_compare_and_swap(lock, 0, 1) == 0)
			return 1;
	return 0;
}

static __always_inline int lock_stripe(__u32 hash)
{
	return __sync_val_compare_and_swap(&table_state.locks[hash & (INSERT_LOCKS - 1)], 0, 1) == 0 ||
	       wait_for_stripe(hash);
}

static __always_inline void unlock_stripe(__u32 hash)
{
	__sync_lock_test_and_set(&table_state.locks[hash & (INSERT_LOCKS - 1)], 0);
}

/* The same behind bind(), which is a barrier: a store is enough, and four nanoseconds faster. */
static __always_inline void unlock_after_barrier(__u32 hash)
{
	*(volatile __u32 *)&table_state.locks[hash & (INSERT_LOCKS - 1)] = 0;
}

static __always_inline __u32 pop_slot(struct free_stack *stack)
{
	for (int attempt = 0; attempt < TAKE_ATTEMPTS; attempt++) {
		__u32 head = *(volatile __u32 *)&stack->head;
		struct connection *top;
		__u32 next;

		if ((head & SLOT_BITS) == 0)
			return NO_SLOT;
		top = connection_at((head & SLOT_BITS) - 1);
		if (!top)
			return NO_SLOT;
		next = *(volatile __u32 *)&top->expires & SLOT_BITS;
		next |= ((head & ~SLOT_BITS) + HEAD_COUNT);
		if (__sync_val_compare_and_swap(&stack->head, head, next) == head &&
		    __sync_val_compare_and_swap(&top->tag, TAG_FREE, TAG_BUSY) == TAG_FREE)
			return (head & SLOT_BITS) - 1;
	}
	return NO_SLOT;
}

static __always_inline __u32 take_from_region(struct region *region, __u32 cpu)
{
	struct connection *fresh;
	__u32 slot = pop_slot(&region->stacks[cpu & (FREE_STACKS - 1)]);

	if (slot != NO_SLOT)
		return slot;
	if (*(volatile __u32 *)&region->first < region->end) {
		slot = __sync_fetch_and_add(&region->first, 1);
		if (slot < region->end) {
			fresh = connection_at(slot);
			if (fresh && __sync_val_compare_and_swap(&fresh->tag, TAG_FREE, TAG_BUSY) == TAG_FREE)
				return slot;
		}
	}
	/* What other CPUs freed. */
	for (__u32 stack = 0; stack < FREE_STACKS; stack++) {
		slot = pop_slot(&region->stacks[stack]);
		if (slot != NO_SLOT)
			return slot;
	}
	return NO_SLOT;
}

/* Gives a slot back that is TAG_BUSY. */
__noinline int free_slot(__u32 slot)
{
	struct table_state *state = &table_state;
	struct connection *freed = connection_at(slot);
	__u32 which, cpu = bpf_get_smp_processor_id() & (FREE_STACKS - 1);
	struct free_stack *stack;

	if (!freed)
		return 0;
	which = slot >= state->regions[0].end;
	stack = &state->regions[which & 1].stacks[cpu];
	__sync_fetch_and_add(&state->size, -1);
	for (int attempt = 0; attempt < PUSH_ATTEMPTS; attempt++) {
		__u32 head = *(volatile __u32 *)&stack->head;

		freed->expires = head & SLOT_BITS;
		__sync_lock_test_and_set(&freed->tag, TAG_FREE);
		if (__sync_val_compare_and_swap(&stack->head, head,
						((head & ~SLOT_BITS) + HEAD_COUNT) | (slot + 1)) == head)
			return 1;
		/* Nobody takes it meanwhile: it stands in no stack. */
	}
	return 0;
}

static __always_inline int remove_entry(struct bucket *index, __u32 hash, __u32 slot)
{
	__u32 second = second_hash(hash);

	for (int pass = 0; pass < 2; pass++) {
		struct bucket *bucket = bucket_of(index, pass ? second >> 3 : hash);

		for (int at = 0; at < BUCKET_ENTRIES; at++) {
			__u32 entry = bucket->entries[at];

			if ((entry & SLOT_BITS) == slot + 1 &&
			    __sync_val_compare_and_swap(&bucket->entries[at], entry, 0) == entry)
				return 1;
		}
	}
	return 0;
}

/* How many entries a bucket has: two at a time, and no branch that depends on them. */
static __always_inline __u32 bucket_fill(const struct bucket *bucket)
{
	const __u64 *pairs = (const __u64 *)bucket;
	const __u64 low = 0x7fffffff7fffffffULL;
	__u64 sum = 0;

#pragma unroll
	for (int at = 0; at < BUCKET_ENTRIES / 2; at++)
		/* The top bit of each half says whether the half is other than 0. */
		sum += ((((pairs[at] & low) + low) | pairs[at]) >> 31) & 0x100000001ULL;
	return sum + (sum >> 32);
}

/* Begins with the entry's own place. */
static __always_inline int add_to_bucket(struct bucket *bucket, __u32 second, __u32 entry)
{
#pragma clang loop unroll(disable)
	for (int step = 0; step < BUCKET_ENTRIES; step++) {
		__u32 *place = &bucket->entries[(second + step) & (BUCKET_ENTRIES - 1)];

		if (*place == 0 && __sync_val_compare_and_swap(place, 0, entry) == 0)
			return 1;
	}
	return 0;
}

/* The first bucket is the one that lookups read first; the second takes over when it gets full. */
static __always_inline int add_entry(struct bucket *index, __u32 hash, __u32 slot)
{
	__u32 second = second_hash(hash);
	__u32 entry = (second & 0xff000000) | (slot + 1);
	struct bucket *bucket = bucket_of(index, hash);
	struct bucket *spare = bucket_of(index, second >> 3);

	if (bucket_fill(bucket) >= BUCKET_FULLISH && bucket_fill(spare) < BUCKET_FULLISH)
		return add_to_bucket(spare, second, entry) || add_to_bucket(bucket, second, entry);
	return add_to_bucket(bucket, second, entry) || add_to_bucket(spare, second, entry);
}

static __always_inline void key_of(const struct connection *connection, struct key *key)
{
	key->ports = ((const __u32 *)connection)[3];
	__builtin_memcpy(key->client, connection->client, sizeof(key->client));
	__builtin_memcpy(key->virtual, connection->virtual, sizeof(key->virtual));
}

static __always_inline void reply_key_of(const struct connection *connection, const struct destination *destination,
					 struct key *key)
{
	key->ports = connection->client_port | (__u32)connection->destination_port << 16;
	__builtin_memcpy(key->client, connection->client, sizeof(key->client));
	__builtin_memcpy(key->virtual, destination->address, sizeof(key->virtual));
}

/* Whether the server is overloaded: updateOverload() in src/ipvs/destinations.ts */
static __always_inline void update_overload(struct destination *destination)
{
	__u32 total = destination->active + destination->inactive;
	__u32 lower = destination->lower_threshold;
	__u32 upper = destination->upper_threshold;

	if (upper && total >= upper) {
		__sync_fetch_and_or(&destination->flags, DESTINATION_OVERLOADED);
		return;
	}
	if (destination->flags & DESTINATION_OVERLOADED &&
	    (upper == 0 || total < (lower ? lower : upper - (upper >> 2))))
		__sync_fetch_and_and(&destination->flags, ~DESTINATION_OVERLOADED);
}

/* Counts a new connection at its server (ip_vs_bind_dest). */
static __always_inline void bind(struct destination *destination, int inactive)
{
	/* An addition whose result is used is a barrier (Documentation/bpf/standardization/instruction-set.rst). */
	__u32 before = inactive ? __sync_fetch_and_add(&destination->inactive, 1) :
				  __sync_fetch_and_add(&destination->active, 1);

	asm volatile("" : : "r"(before) : "memory");
	update_overload(destination);
}

static __always_inline void unbind(struct destination *destination, int inactive)
{
	if (inactive)
		__sync_fetch_and_add(&destination->inactive, -1);
	else
		__sync_fetch_and_add(&destination->active, -1);
	if (destination->flags & DESTINATION_OVERLOADED)
		update_overload(destination);
}

/* True for one that may make room: run out or half open; templates and what only the director can end never do. */
static __always_inline int is_evictable(const struct connection *connection, __u32 now)
{
	if ((connection->tag & TAG_MASK) != TAG_USED || connection->flags & (FLAG_TEMPLATE | FLAG_DIRECTORS) ||
	    (connection->flags & FLAG_FORWARDING) == FORWARDING_FULLNAT)
		return 0;
	if (now - connection->expires < EXPIRED_WINDOW)
		return 1;
	return connection->protocol == IPPROTO_TCP &&
	       (HALF_OPEN_STATES >> (connection->state & (TCP_STATES - 1))) & 1;
}

/* Takes a connection, TAG_BUSY already, out of everything that refers to it. */
__noinline int release(__u32 slot)
{
	__u32 flags;
	const struct control *control = get_control();
	struct connection *connection = connection_at(slot);
	struct destination *destination;
	struct key key;

	if (!control || !connection)
		return 0;
	destination = destination_at(connection->destination);
	/* Whoever moves its state from here on sees that it counts no more. */
	flags = __sync_fetch_and_or((__u32 *)&connection->flags, FLAG_ENDED);
	key_of(connection, &key);
	remove_entry(&buckets, hash_key(&key, connection->protocol, flags & FLAG_IPV6, control->seed), slot);
	if (connection->control) {
		struct connection *template = connection_at(connection->control - 1);

		if (template && template->flags & FLAG_TEMPLATE)
			__sync_fetch_and_add(&template->control, -1);
	}
	if (!destination)
		return 0;
	if (flags & FLAG_REPLIES) {
		reply_key_of(connection, destination, &key);
		remove_entry(&reply_buckets, hash_key(&key, connection->protocol, flags & FLAG_IPV6, control->seed), slot);
	}
	unbind(destination, flags & FLAG_INACTIVE);
	return 1;
}

/*
 * Ends a connection for a SYN that begins a new one with its key: the slot is TAG_BUSY then. 0 if the connection goes on,
 * or if it is the director's to end.
 */
__noinline int end_replaceable(__u32 slot)
{
	const struct control *control = get_control();
	struct connection *connection = connection_at(slot);
	struct destination *destination;
	__u32 tag;

	if (!control || !connection)
		return 0;
	destination = destination_at(connection->destination);
	tag = connection->tag;
	if (!destination || connection->protocol != IPPROTO_TCP ||
	    connection->flags & (FLAG_DIRECTORS | FLAG_OUT_SEQUENCE) ||
	    (connection->flags & FLAG_FORWARDING) == FORWARDING_FULLNAT ||
	    !is_replaceable(control, connection, destination))
		return 0;
	if ((tag & TAG_MASK) != TAG_USED || __sync_val_compare_and_swap(&connection->tag, tag, TAG_BUSY) != tag)
		return 0;
	release(slot);
	return 1;
}

/* A slot of a connection that makes room, TAG_BUSY. */
static __always_inline __u32 evict(__u32 now)
{
	__u32 zero = 0, capacity = sizes.connections;
	__u32 *hand = bpf_map_lookup_elem(&hands, &zero);

	if (!hand || capacity == 0)
		return NO_SLOT;
	if (*hand == 0)
		*hand = (bpf_get_smp_processor_id() * 0x9e3779b1) % capacity;
	for (int step = 0; step < EVICTION_WINDOW; step++) {
		__u32 slot = *hand + 1 < capacity ? *hand + 1 : 0;
		struct connection *victim = connection_at(slot);
		__u32 tag;

		*hand = slot;
		if (!victim)
			return NO_SLOT;
		tag = victim->tag;
		if (!is_evictable(victim, now) || __sync_val_compare_and_swap(&victim->tag, tag, TAG_BUSY) != tag)
			continue;
		release(slot);
		count(REASON_EVICTED);
		return slot;
	}
	return NO_SLOT;
}

/* The slot that this CPU freed last, or one that was never used; NO_SLOT if that is not to be had at once. */
static __always_inline __u32 take_at_once(struct region *region, __u32 cpu)
{
	struct free_stack *stack = &region->stacks[cpu & (FREE_STACKS - 1)];
	__u32 head = *(volatile __u32 *)&stack->head, slot;
	struct connection *taken;

	if (head & SLOT_BITS) {
		__u32 next = (head & ~SLOT_BITS) + HEAD_COUNT;

		slot = (head & SLOT_BITS) - 1;
		taken = connection_at(slot);
		if (!taken)
			return NO_SLOT;
		next |= *(volatile __u32 *)&taken->expires & SLOT_BITS;
		return __sync_val_compare_and_swap(&stack->head, head, next) == head &&
				       __sync_val_compare_and_swap(&taken->tag, TAG_FREE, TAG_BUSY) == TAG_FREE ?
			       slot :
			       NO_SLOT;
	}
	if (*(volatile __u32 *)&region->first >= region->end)
		return NO_SLOT;
	slot = __sync_fetch_and_add(&region->first, 1);
	if (slot >= region->end)
		return NO_SLOT;
	/* Nobody else has it: it stands in no stack and in no index. */
	taken = connection_at(slot);
	return taken && taken->tag == TAG_FREE ? slot : NO_SLOT;
}

/* The same with more patience; then the slot of one that makes room. */
__noinline __u32 take_slot_slowly(__u32 now)
{
	__u32 cpu = bpf_get_smp_processor_id();
	__u32 slot = take_from_region(&table_state.regions[1], cpu);

	if (slot == NO_SLOT)
		slot = take_from_region(&table_state.regions[0], cpu);
	if (slot != NO_SLOT) {
		__sync_fetch_and_add(&table_state.size, 1);
		return slot;
	}
	return evict(now);
}

/* A slot to write a connection into, which nobody else has; NO_SLOT if the table is full of what stays. */
static __always_inline __u32 take_slot(__u32 now)
{
	__u32 slot = take_at_once(&table_state.regions[1], bpf_get_smp_processor_id());

	if (slot == NO_SLOT)
		return take_slot_slowly(now);
	__sync_fetch_and_add(&table_state.size, 1);
	return slot;
}

#endif
