/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* ICMP errors and the packets they quote: what the hot path asks about them, how they are read and made right again. */
#ifndef DIRIGO_ICMP_H
#define DIRIGO_ICMP_H

#include <stddef.h>

#include "lookup.h"
#include "rewrite.h"

#define ICMP_UNREACHABLE 3
#define ICMP_SOURCE_QUENCH 4
#define ICMP_TIME_EXCEEDED 11
#define ICMP_FRAGMENTATION_NEEDED 4
/* ICMPv6 types below this one are errors (RFC 4443 section 2.1). */
#define ICMPV6_FIRST_MESSAGE 128
#define ICMPV6_PACKET_TOO_BIG 2

#define ICMP_HEADER 8
/* Bytes of the quoted transport header up to the ports' and the TCP sequence number's end. */
#define QUOTED_PORTS 4
#define QUOTED_SEQUENCE 8
/* Words of an error that is translated here; no host makes longer ones (RFC 1812 4.3.2.3, RFC 4443 2.4). */
#define LONGEST_ERROR (1280 / 4)

/* An error and what it quotes. In `packet` the protocol and the key are those of the quoted packet. */
struct error {
	struct packet packet;
	__u8 *icmp;
	/* The quoted IP header, and its ports. */
	void *quoted;
	__u16 *ports;
	int is_to_vip;
};

static __always_inline int is_error4(__u8 type)
{
	return type == ICMP_UNREACHABLE || type == ICMP_SOURCE_QUENCH || type == ICMP_TIME_EXCEEDED;
}

/* True for what may be an error about a packet of a virtual service. Fragments of ICMP are put together by the host. */
static __always_inline int may_be_error4(const struct control *control, const struct iphdr *ip, const void *end)
{
	const __u8 *icmp = (const void *)ip + ip->ihl * 4;
	const struct iphdr *quoted = (const void *)(icmp + ICMP_HEADER);

	if (ip->protocol != IPPROTO_ICMP || ip->frag_off & IPV4_FRAGMENT || ip->ihl < 5 ||
	    (const void *)(quoted + 1) > end || !is_error4(*icmp))
		return 0;
	return in_filter4(control->vip_filter, ip->daddr) || in_filter4(control->vip_filter, quoted->saddr) ||
	       in_filter4(control->vip_filter, quoted->daddr) || in_filter4(control->server_filter, quoted->daddr);
}

/* The same for IPv6; true for all that has extension headers: whether an error is behind them is seen later. */
static __always_inline int may_be_error6(const struct control *control, const struct ipv6hdr *ip, const void *end)
{
	const __u8 *icmp = (const void *)(ip + 1);
	const struct ipv6hdr *quoted = (const void *)(icmp + ICMP_HEADER);

	if (is_ipv6_extension(ip->nexthdr))
		return 1;
	if (ip->nexthdr != IPPROTO_ICMPV6 || (const void *)(quoted + 1) > end || *icmp >= ICMPV6_FIRST_MESSAGE)
		return 0;
	return in_filter6(control->vip_filter, &ip->daddr) ||
	       in_filter6(control->vip_filter, &quoted->saddr) ||
	       in_filter6(control->vip_filter, &quoted->daddr) ||
	       in_filter6(control->server_filter, &quoted->daddr);
}

static __always_inline __u32 header_length(__u64 flags)
{
	return flags & FLAG_IPV6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
}

static __always_inline void *network_of(const struct packet *packet)
{
	return packet->flags & FLAG_IPV6 ? (void *)packet->ipv6 : (void *)packet->ipv4;
}

static __always_inline void *source_of(void *header, __u64 flags)
{
	return flags & FLAG_IPV6 ? (void *)&((struct ipv6hdr *)header)->saddr : (void *)&((struct iphdr *)header)->saddr;
}

static __always_inline void *target_of(void *header, __u64 flags)
{
	return flags & FLAG_IPV6 ? (void *)&((struct ipv6hdr *)header)->daddr : (void *)&((struct iphdr *)header)->daddr;
}

static __always_inline int is_same_address(const __u32 *one, const __u32 *other, __u64 flags)
{
	if (!(flags & FLAG_IPV6))
		return one[0] == other[0];
	return one[0] == other[0] && one[1] == other[1] && one[2] == other[2] && one[3] == other[3];
}

/* The key of a packet from a client to a VIP with these headers. */
static __always_inline void set_key(struct key *key, void *header, __u32 ports, __u64 flags)
{
	const __u32 *source = source_of(header, flags), *target = target_of(header, flags);

	key->ports = ports;
	for (int word = 0; word < (flags & FLAG_IPV6 ? 4 : 1); word++) {
		key->client[word] = source[word];
		key->virtual[word] = target[word];
	}
}

/*
 * True if the checksum of a message of `length` bytes is right, whose IP header begins at `network` in the frame and has
 * `header` bytes. Not static, so that the verifier counts to the end of the loop once and not for every way to call it.
 */
__noinline int checksum_holds(struct xdp_md *ctx, __u32 network, __u32 header, __u32 length)
{
	void *end = (void *)(long)ctx->data_end;
	__u8 *ip = (void *)(long)ctx->data;
	const __u32 *words;
	const __u8 *rest;
	__u64 sum = 0;
	__u32 at;

	if (network > sizeof(struct ethhdr) + VLAN_TAG || header > sizeof(struct ipv6hdr) || length > 4 * LONGEST_ERROR)
		return 0;
	ip += network;
	words = (const __u32 *)(ip + header);
	for (at = 0; at < LONGEST_ERROR; at++) {
		if (4 * at + 4 > length || (void *)(words + at + 1) > end)
			break;
		sum += words[at];
	}
	rest = (const __u8 *)(words + at);
	for (__u32 byte = 0; byte < 3; byte++) {
		if (4 * at + byte >= length || (void *)(rest + byte + 1) > end)
			break;
		sum += (__u32)rest[byte] << 8 * (byte & 1);
	}
	if (header == sizeof(struct ipv6hdr)) {
		words = (const __u32 *)(ip + offsetof(struct ipv6hdr, saddr));
		if ((void *)(words + 8) > end)
			return 0;
		for (int word = 0; word < 8; word++)
			sum += words[word];
		sum += (__u64)bpf_htonl(length) + bpf_htonl(IPPROTO_ICMPV6);
	}
	return sum != 0 && apply(0xffff, sum) == 0;
}

static __always_inline int is_right(struct xdp_md *ctx, const struct error *error)
{
	const struct packet *packet = &error->packet;
	__u32 header = header_length(packet->flags);

	return checksum_holds(ctx, sizeof(struct ethhdr) + packet->tags, header, packet->length - header);
}

/* Gives a header another address; returns what that adds to a sum over it. */
static __always_inline __u64 put_address(void *field, const __u32 *address, __u64 flags)
{
	return flags & FLAG_IPV6 ? replace6(field, address) : replace4(field, address[0]);
}

static __always_inline __u64 put_port(__u16 *field, __u16 port)
{
	__u64 sum = (__u16)~*field + (__u32)port;

	*field = port;
	return sum;
}

/* A quoted header may have come with any checksum: it leaves with a right one. */
static __always_inline __u64 refill_quoted(struct iphdr *quoted)
{
	const __u32 *words = (const __u32 *)quoted;
	__u16 before = quoted->check;
	__u64 sum;

	quoted->check = 0;
	sum = (__u64)words[0] + words[1] + words[2] + words[3] + words[4];
	quoted->check = apply(0xffff, sum);
	return (__u16)~before + (__u32)quoted->check;
}

/* Makes the checksums right after changes that added this to the sums of the error's own addresses and of the message. */
static __always_inline void settle(struct error *error, __u64 outer, __u64 message)
{
	struct packet *packet = &error->packet;
	__u16 *checksum = (__u16 *)error->icmp + 1;

	if (packet->flags & FLAG_IPV6) {
		message += outer;
	} else {
		packet->ipv4->check = apply(packet->ipv4->check, outer);
		message += refill_quoted(error->quoted);
	}
	*checksum = apply(*checksum, message);
}

#endif
