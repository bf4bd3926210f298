/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The records that the program shares with TypeScript, and the maps that hold them. */
#ifndef DIRIGO_LAYOUT_H
#define DIRIGO_LAYOUT_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Raised whenever a record below changes; src/datapath/xdp/control.ts holds the same number. */
#define LAYOUT_VERSION 8

/*
 * src/ipvs/connections.ts, ConnectionField. The low byte of `tag` says what the slot is (TAG_...); in a connection the
 * rest remembers the way to its client: twelve bits of generation above twelve bits of index in `hops`.
 */
struct connection {
	__u32 tag;
	__u32 expires;
	__u16 flags;
	__u8 state;
	__u8 protocol;
	__u16 client_port;
	__u16 virtual_port;
	__u32 client[4];
	__u32 virtual[4];
	__u32 destination;
	__u16 destination_port;
	__u16 local_port;
	__u32 control;
	__u32 packets;
};

#define TAG_FREE 0
#define TAG_USED 1
/* Taken, not to be found yet or any more: whoever made it so is writing. */
#define TAG_BUSY 2
#define TAG_MASK 0xff
#define TAG_WAY_SHIFT 8
#define WAY_INDEX_BITS 12
#define WAY_INDEX_MASK 0xfff

#define FLAG_FORWARDING 0x0007
/* Taken out of its server's counts: nothing moves it any more. */
#define FLAG_ENDED 0x0010
#define FLAG_HELPER 0x0040
#define FLAG_NO_OUTPUT 0x0080
#define FLAG_INACTIVE 0x0100
/*
 * Connections whose sequence numbers a helper moves, of which the SYN proxy moves more than the server's sequence numbers,
 * whose client's port is not known yet, or that end with their first datagram: the director's.
 */
#define FLAG_DIRECTORS 0x2c40
/* Made by the SYN proxy: `out_offset` is added to the server's sequence numbers. */
#define FLAG_OUT_SEQUENCE 0x0200
#define FLAG_TEMPLATE 0x1000
#define FLAG_IPV6 0x4000
#define FLAG_REPLIES 0x8000

#define FORWARDING_MASQ 0
#define FORWARDING_TUNNEL 2
#define FORWARDING_GATE 3
#define FORWARDING_FULLNAT 5

/* src/ipvs/connections.ts, Extension: what FULLNAT knows of a connection, by slot */
struct extension {
	__u32 local[4];
	__u32 in_offset;
	__u32 proxied_timestamps;
	__u32 proxied_options;
	__u32 out_offset;
	__u32 out_start;
	__u32 out_before;
	/* In host order, as all numbers of TCP here. */
	__u32 first_acknowledgement;
	__u32 flags;
	__u32 client_sequence;
	__u32 port_pool;
	__u32 proxy_length;
	__u32 answer;
};

/* src/ipvs/forwarding/fullnat.ts, FullnatFlag */
#define FULLNAT_TOA 1
#define FULLNAT_PROXY 6
#define FULLNAT_SERVER_SYN 8
#define FULLNAT_HEADER_ACKNOWLEDGED 16

/* Ticks for which an expired time is still recognised as past. */
#define EXPIRED_WINDOW 0x10000000

#define BUCKET_ENTRIES 8

struct bucket {
	__u32 entries[BUCKET_ENTRIES];
};

/* src/ipvs/destinations.ts, DestinationField */
struct destination {
	__u32 flags;
	__u32 weight;
	__u32 active;
	__u32 inactive;
	__u32 upper_threshold;
	__u32 lower_threshold;
	__u16 port;
	__u8 family;
	__u8 forwarding;
	__u32 interface_index;
	__u32 address[4];
	__u8 next_mac[6];
	__u8 source_mac[6];
	__u16 mtu;
	__u8 tunnel_type;
	__u8 tunnel_flags;
};

#define DESTINATION_USED 1
#define DESTINATION_AVAILABLE 2
#define DESTINATION_OVERLOADED 4
#define DESTINATION_RESOLVED 8

#define TUNNEL_IPIP 0
#define TUNNEL_GUE 1

/* src/datapath/xdp/control.ts, TunnelField: what a tunnel's outer header needs beyond the destination's record */
struct tunnel {
	__u32 source[4];
	/* UDP port of GUE, raw. */
	__u16 port;
	__u16 unused;
	__u32 reserved[3];
};

/* src/datapath/xdp/control.ts, HopField: a way to clients */
struct hop {
	__u8 next_mac[6];
	__u8 source_mac[6];
	__u32 interface_index;
	__u16 mtu;
	__u16 is_resolved;
	__u32 reserved[3];
};

#define HOPS (1 << WAY_INDEX_BITS)

struct route4 {
	__u32 prefix;
	__u32 address;
};

struct route6 {
	__u32 prefix;
	__u32 address[4];
};

struct unknown_way {
	__u32 family;
	__u32 address[4];
};

#define TCP_STATES 16
#define TCP_EVENTS 8
#define TCP_SIDES 3
#define FILTER_WORDS 64

/* src/datapath/xdp/control.ts, ControlField: one record, what the director tells the program */
struct control {
	__u32 version;
	__u32 hz;
	/* Added to the kernel's ticks; for tests, else 0. */
	__u32 clock_offset;
	__u32 seed;
	/* Raised when routes change: what connections remember of them is forgotten. */
	__u32 way_generation;
	__u32 udp_timeout;
	/* ~0: the offset alone is the time, so that tests know it to the tick; else 0. */
	__u32 clock_stopped;
	/* CONTROL_... */
	__u32 flags;
	/* Written by the program read_clock: the kernel's ticks and its monotonic clock at one moment. */
	__u64 clock_ticks;
	__u64 clock_nanoseconds;
	/* Ticks by state. */
	__u32 tcp_timeouts[TCP_STATES];
	/* A bit for every VIP (see filter_bit4), some of other addresses: most foreign packets leave here. */
	__u32 vip_filter[FILTER_WORDS];
	/* The same for servers whose replies are translated. */
	__u32 server_filter[FILTER_WORDS];
	/* The first without addresses that only replies and errors come to: local ones of FULLNAT. */
	__u32 request_filter[FILTER_WORDS];
	/* Ticks that a connection lives before its first state. */
	__u32 created_timeout;
	/* Raised whenever `services` has changed; 0: nobody says so. */
	__u32 service_generation;
	/* The next state by side (client, server, client only), event and state. */
	__u8 tcp_next[TCP_SIDES * TCP_EVENTS * TCP_STATES];
};

/* Replies that belong to no connection are the director's (nat_icmp_send). */
#define CONTROL_STRAY_REPLIES 1
/* Tunnels copy DF, and what is too big is answered (pmtu_disc). */
#define CONTROL_PATH_DISCOVERY 2
/* New connections are all the director's. */
#define CONTROL_NO_NEW 4
/* A template whose server is quiesced is no longer followed (expire_quiescent_template). */
#define CONTROL_EXPIRE_QUIESCENT 8
/* There are services of firewall marks, which the director knows: what belongs to no connection may be theirs. */
#define CONTROL_MARKS 16
/* A backup that leaves directing to its master (backup_only): nothing is sent on to servers. */
#define CONTROL_STANDS_BACK 32
/* A SYN on a connection that is over begins a new one (conn_reuse_mode); also on one of which only the client's FIN is known. */
#define CONTROL_REUSE 64
#define CONTROL_REUSE_FIN_WAIT 128
/* A SYN on a connection whose server is quiesced begins a new one (expire_nodest_conn). */
#define CONTROL_EXPIRE_NODEST 256

/*
 * src/datapath/xdp/control.ts, ServiceKeyField. Protocol 0 and port 0: the address is the VIP of some service, or a
 * local address of FULLNAT; protocol 0 and port 1: it is a server whose replies are translated.
 */
struct service_key {
	__u8 protocol;
	__u8 family;
	__u16 port;
	__u32 address[4];
};

/* src/datapath/xdp/control.ts, ServiceField: how a service's new connections find their server */
struct service {
	/* SERVICE_... */
	__u32 flags;
	/* PLAN_...; where the plan stands in `plans`, in words, and how many they are. */
	__u32 kind;
	__u32 at;
	__u32 length;
	/* In `cursors`. */
	__u32 cursor;
	/* Ticks; 0: not persistent. */
	__u32 persistence;
	/* What counts of a client's address there. */
	__u32 mask[4];
	/* Packets up to this length can be sent to every server; 0 while one of them is not resolved. */
	__u32 least_mtu;
};

/* In an address's own entry: other ports than those of its services belong to the director too. */
#define SERVICE_FTP 1
/* New connections are made here. */
#define SERVICE_SCHEDULED 2
#define SERVICE_ONE_PACKET 4
/* The client's port is part of what is hashed. */
#define SERVICE_HASH_PORT 8

/* src/datapath/xdp/control.ts, PlanKind */
#define PLAN_SEQUENCE 1
#define PLAN_SH 2
#define PLAN_DH 3
#define PLAN_MH 4
#define PLAN_LC 5
#define PLAN_WLC 6
#define PLAN_SED 7
#define PLAN_NQ 8
#define PLAN_FO 9
#define PLAN_OVF 10

#define PLAN_WORDS 16

struct plan_block {
	__u32 words[PLAN_WORDS];
};

/*
 * src/ipvs/connections.ts, TableState: which slots of the table are free, and who is entering a connection. Slots from
 * `first` on were never used; used and freed ones stand in stacks, linked by `expires`. A stack's head has the slot + 1
 * in its low 24 bits and a count above, which every change raises. Words that are written together share a cache line.
 */
#define FREE_STACKS 8
#define INSERT_LOCKS 1024

struct free_stack {
	__u32 head;
	__u32 reserved[15];
};

struct region {
	__u32 first;
	__u32 end;
	__u32 reserved[14];
	struct free_stack stacks[FREE_STACKS];
};

struct table_state {
	/* Connections in the table. */
	__u32 size;
	/* Of SYN cookies; the director's. */
	__u32 cookie_secret[8];
	__u32 reserved[7];
	/* Slots that have an extension, and those that have none. */
	struct region regions[2];
	__u32 locks[INSERT_LOCKS];
};

/* The last services that a CPU looked up, by VIP and port over IPv4: the map takes thirty nanoseconds. */
#define SERVICE_CACHE 64

struct cached_service {
	/* service_generation when it was looked up. */
	__u32 generation;
	/* The first two words of its key. */
	__u32 protocol_and_port;
	__u32 address;
	__u32 reserved[2];
	struct service service;
};

/* As it stands in the key. */
#define SERVER_PORT bpf_htons(1)

#define INTERFACE_SLOTS 64
#define INTERFACE_PROBES 4

/* src/datapath/xdp/control.ts, InterfaceField: an interface the program is attached to, found by its index modulo 64 */
struct interface {
	__u32 index;
	/* The AF_XDP socket of queue 0 in `sockets`; one a queue. */
	__u32 first_socket;
	__u32 queues;
	__u8 mac[6];
	__u16 flags;
	__u32 reserved[3];
};

/*
 * Send back by redirect instead of XDP_TX: veth delivers frames of XDP_TX only if the other end has a program too
 * (veth_xdp_flush in drivers/net/veth.c), redirected ones if it has NAPI (GRO switched on).
 */
#define INTERFACE_REDIRECT 1

/*
 * src/datapath/xdp/control.ts, OwnerField: the service a destination's record belongs to, by the same index. Only the
 * daemon reads it: it tells a successor which record is whose. Protocol 0: a firewall mark.
 */
struct owner {
	__u8 protocol;
	__u8 family;
	__u16 port;
	__u32 mark;
	__u32 address[4];
};

struct traffic {
	__u64 packets;
	__u64 bytes;
	__u64 out_packets;
	__u64 out_bytes;
	__u64 connections;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct owner);
} owners SEC(".maps");

/* Reached by their addresses, without a lookup: maps of one element, named after these sections. */
struct control control SEC(".data.control");
struct interface interfaces[INTERFACE_SLOTS] SEC(".data.interfaces");
struct table_state table_state SEC(".data.table_state");
/* Index 0 is no hop. */
struct hop hops[HOPS] SEC(".data.hops");

/*
 * So are these, of which only the first element stands in the object: how many there are is decided when the program is
 * loaded (src/datapath/xdp/fast-path.ts), and told to the verifier by constants.
 */
struct connection connections SEC(".data.connections");
struct bucket buckets SEC(".data.buckets");
/* The index by replies; kept here so that it outlives the daemon with the rest of the table. */
struct bucket reply_buckets SEC(".data.reply_buckets");
struct extension extensions SEC(".data.extensions");
struct destination destinations SEC(".data.destinations");
struct tunnel tunnels SEC(".data.tunnels");
struct plan_block plans SEC(".data.plans");

/* src/datapath/xdp/control.ts, SizeField */
struct sizes {
	__u32 connections;
	__u32 bucket_mask;
	__u32 extensions;
	/* Of destinations and tunnels. */
	__u32 destinations;
	/* Words less one. */
	__u32 plan_mask;
};

const volatile struct sizes sizes SEC(".rodata.sizes");

/* The verifier follows an address no farther than 2^29 bytes from where it knows it: connections from here on have a second place. */
#define NEAR_CONNECTIONS 0x7fffff

/*
 * Stands behind the comparison of the index, so that clang neither computes the address before it nor concludes that there
 * is one element only. The verifier knows the index by the register that was compared.
 */
#define OPAQUE(first, at) asm volatile("" : "+r"(first), "+r"(at))
/* Has the address computed where it stands: later it would take the first element and the index. */
#define COMPUTED(element) asm volatile("" : "+r"(element))

/* Null if there is none; slots and indexes may be any number. */
static __always_inline struct connection *connection_at(__u32 slot)
{
	struct connection *found = &connections;
	__u64 at = slot, count = sizes.connections;

	if (at >= count)
		return 0;
	OPAQUE(found, at);
	if (count > NEAR_CONNECTIONS && at >= NEAR_CONNECTIONS) {
		found += NEAR_CONNECTIONS;
		at -= NEAR_CONNECTIONS;
		OPAQUE(found, at);
	}
	found += at;
	COMPUTED(found);
	return found;
}

#define DEFINE_TABLE(type, name, first, size)                                                                          \
	static __always_inline struct type *name(__u32 index)                                                          \
	{                                                                                                              \
		struct type *found = &first;                                                                           \
		__u64 at = index;                                                                                      \
                                                                                                                       \
		if (at >= size)                                                                                        \
			return 0;                                                                                      \
		OPAQUE(found, at);                                                                                     \
		found += at;                                                                                           \
		COMPUTED(found);                                                                                       \
		return found;                                                                                          \
	}

DEFINE_TABLE(extension, extension_at, extensions, sizes.extensions)
DEFINE_TABLE(destination, destination_at, destinations, sizes.destinations)
DEFINE_TABLE(tunnel, tunnel_at, tunnels, sizes.destinations)

/* A word of the plans: no comparison, which in a loop would make the verifier tell one place from the other. */
static __always_inline __u32 plan_word(__u32 at)
{
	const __u32 *found = plans.words;
	__u64 index = at & sizes.plan_mask;

	OPAQUE(found, index);
	return found[index];
}

/* The bucket of a hash in one of the two indexes. */
static __always_inline struct bucket *bucket_of(struct bucket *index, __u32 hash)
{
	__u64 at = hash & sizes.bucket_mask;

	OPAQUE(index, at);
	index += at;
	COMPUTED(index);
	return index;
}

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct service_key);
	__type(value, struct service);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

/* Where packets may be redirected to, by interface index. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u32);
} devices SEC(".maps");

/*
 * The place in a sequence that was given last, plus 1, in the low half; 0 before the first. The high half changes with
 * every choice: a round that ends where it began is seen, too.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} cursors SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SERVICE_CACHE);
	__type(key, __u32);
	__type(value, struct cached_service);
} service_cache SEC(".maps");

/* Where each CPU looks next for a connection that may make room. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} hands SEC(".maps");

/* The connection of a datagram that is the only one of its connection. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct connection);
} passing SEC(".maps");

/* What is too much for one program's stack, and what other objects put behind it (bpf/guard). */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u32);
} programs SEC(".maps");

/* Index in `hops` by address; 0: ask the director. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct route4);
	__type(value, __u32);
} routes4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct route6);
	__type(value, __u32);
} routes6 SEC(".maps");

/* Clients whose way nobody has told yet. */
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 256);
	__type(value, struct unknown_way);
} unknown_ways SEC(".maps");

/* Packets and bytes by destination, to servers and back, and connections made. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct traffic);
} traffic SEC(".maps");

#endif
