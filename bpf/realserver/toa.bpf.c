// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The client's address for unmodified programs on a real server of FULLNAT: what a kernel module (toa.ko) would do.
 *
 * The director puts the client's address into a TCP option of the segments that acknowledge nothing of the server's but
 * its SYN (src/ipvs/forwarding/toa.ts); one of these completes the handshake. `read_toa` reads the option from that
 * segment, and from no other, and keeps it with the new socket. `tell_ipv4` and `tell_ipv6` hand it out where a program
 * asks for the peer: getpeername() and the address that accept() returns.
 *
 * Whoever writes to the server could send such an option. It is believed only on connections from the director's local
 * addresses: `local_addresses`.
 */
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2
#define AF_INET6 10

#define TCP_HEADER 20
#define TCP_HEADER_MAX 60
#define OPTION_END 0
#define OPTION_NOP 1
#define TOA_KIND 254
#define TOA_KIND_ALIBABA6 253
#define TOA_LENGTH_IPV4 8
#define TOA_LENGTH_IPV6 20

#define IPV4_MAPPED bpf_htonl(0xffff)

/* src/realserver/fullnat.ts: TOA_COUNTS */
enum count {
	COUNT_TOLD,
	COUNT_WITHOUT,
	COUNT_REFUSED,
	COUNT_NO_MEMORY,
	COUNTS,
};

/* As a socket address has them; IPv4 as ::ffff:a.b.c.d. */
struct client {
	__be32 address[4];
	__be32 port;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct client);
} clients SEC(".maps");

struct prefix {
	__u32 length;
	__be32 address[4];
};

/* From where an option is believed. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 256);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, __u8);
} local_addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTS);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

static __always_inline void count(__u32 which)
{
	__u64 *counter = bpf_map_lookup_elem(&counts, &which);

	if (counter)
		++*counter;
}

static __always_inline int is_toa(__u8 kind, __u8 length)
{
	return (kind == TOA_KIND || kind == TOA_KIND_ALIBABA6) &&
	       (length == TOA_LENGTH_IPV4 || length == TOA_LENGTH_IPV6);
}

/* What a segment's options say, the first TOA counts; false if there is none. */
static __always_inline int find_client(struct bpf_sock_ops *ops, struct client *client)
{
	void *data = ops->skb_data;
	void *end = ops->skb_data_end;
	__u32 at = TCP_HEADER;
	__u32 header;

	if (data + TCP_HEADER > end)
		return 0;
	header = (((__u8 *)data)[12] >> 4) * 4;
	for (int option = 0; option < TCP_HEADER_MAX - TCP_HEADER; option++) {
		__u8 *bytes;

		/* The verifier follows masked offsets; the helper for options refuses these kinds. */
		at &= 63;
		bytes = data + at;
		if (at + 1 > header || (void *)(bytes + 1) > end || bytes[0] == OPTION_END)
			return 0;
		if (bytes[0] == OPTION_NOP) {
			at++;
			continue;
		}
		if (at + 2 > header || (void *)(bytes + 2) > end || bytes[1] < 2 || at + bytes[1] > header)
			return 0;
		if (is_toa(bytes[0], bytes[1])) {
			if ((void *)(bytes + TOA_LENGTH_IPV4) > end)
				return 0;
			__builtin_memset(client, 0, sizeof(*client));
			client->port = *(__be16 *)(bytes + 2);
			if (bytes[1] == TOA_LENGTH_IPV4) {
				client->address[2] = IPV4_MAPPED;
				__builtin_memcpy(&client->address[3], bytes + 4, 4);
				return 1;
			}
			if ((void *)(bytes + TOA_LENGTH_IPV6) > end)
				return 0;
			__builtin_memcpy(client->address, bytes + 4, 16);
			return 1;
		}
		at += bytes[1];
	}
	return 0;
}

/*
 * Sockets of IPv6 that have an IPv4 peer have its address in the mapped form. Both are read before either is chosen: a
 * pointer that the compiler makes of the choice is none the verifier lets through.
 */
static __always_inline int is_from_director(struct bpf_sock_ops *ops)
{
	volatile struct bpf_sock_ops *fields = ops;
	struct prefix prefix = { .length = 128 };
	__be32 ipv4 = fields->remote_ip4;
	__be32 first = fields->remote_ip6[0];
	__be32 second = fields->remote_ip6[1];
	__be32 third = fields->remote_ip6[2];
	__be32 fourth = fields->remote_ip6[3];

	if (ops->family == AF_INET) {
		prefix.address[2] = IPV4_MAPPED;
		prefix.address[3] = ipv4;
	} else if (ops->family == AF_INET6) {
		prefix.address[0] = first;
		prefix.address[1] = second;
		prefix.address[2] = third;
		prefix.address[3] = fourth;
	} else {
		return 0;
	}
	return bpf_map_lookup_elem(&local_addresses, &prefix) != NULL;
}

SEC("sockops")
int read_toa(struct bpf_sock_ops *ops)
{
	struct client found, *client;
	struct bpf_sock *socket;

	if (ops->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return 1;
	socket = ops->sk;
	if (!socket)
		return 1;
	if (!find_client(ops, &found)) {
		if (is_from_director(ops))
			count(COUNT_WITHOUT);
		return 1;
	}
	if (!is_from_director(ops)) {
		count(COUNT_REFUSED);
		return 1;
	}
	client = bpf_sk_storage_get(&clients, socket, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!client) {
		count(COUNT_NO_MEMORY);
		return 1;
	}
	*client = found;
	count(COUNT_TOLD);
	return 1;
}

static __always_inline struct client *client_of(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *socket = ctx->sk;

	return socket ? bpf_sk_storage_get(&clients, socket, NULL, 0) : NULL;
}

/* A client of IPv6 has no place in an address of IPv4: its server sees the director's. */
SEC("cgroup/getpeername4")
int tell_ipv4(struct bpf_sock_addr *ctx)
{
	struct client *client = client_of(ctx);

	if (!client || client->address[0] || client->address[1] || client->address[2] != IPV4_MAPPED)
		return 1;
	ctx->user_ip4 = client->address[3];
	ctx->user_port = client->port;
	return 1;
}

SEC("cgroup/getpeername6")
int tell_ipv6(struct bpf_sock_addr *ctx)
{
	struct client *client = client_of(ctx);

	if (!client)
		return 1;
	ctx->user_ip6[0] = client->address[0];
	ctx->user_ip6[1] = client->address[1];
	ctx->user_ip6[2] = client->address[2];
	ctx->user_ip6[3] = client->address[3];
	ctx->user_port = client->port;
	return 1;
}

char _license[] SEC("license") = "Dual MIT/GPL";
