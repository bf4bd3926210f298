/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Address and port translation with its checksums, as src/ipvs/forwarding/translation.ts does it. */
#ifndef DIRIGO_REWRITE_H
#define DIRIGO_REWRITE_H

#include "parse.h"

/* What a change of a word adds to a checksum's sum (RFC 1624 equation 3). */
static __always_inline __u64 difference(__u32 before, __u32 after)
{
	return (__u64)(__u32)~before + after;
}

static __always_inline __u16 apply(__u16 checksum, __u64 sum)
{
	sum += (__u16)~checksum;
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~(sum + (sum >> 16));
}

/* Time to live less one, header checksum with it (RFC 1141). */
static __always_inline void decrement_ttl(struct iphdr *ip)
{
	__u32 sum = (__u32)ip->check + bpf_htons(0x0100);

	ip->check = (__u16)(sum + (sum >= 0xffff));
	ip->ttl--;
}

static __always_inline void decrement(struct packet *packet)
{
	if (packet->flags & FLAG_IPV6)
		packet->ipv6->hop_limit--;
	else
		decrement_ttl(packet->ipv4);
}

static __always_inline __u64 replace4(__be32 *field, __u32 after)
{
	__u64 sum = difference(*field, after);

	*field = after;
	return sum;
}

static __always_inline __u64 replace6(struct in6_addr *field, const __u32 *after)
{
	__u32 *words = field->in6_u.u6_addr32;
	__u64 sum = 0;

	for (int word = 0; word < 4; word++) {
		sum += difference(words[word], after[word]);
		words[word] = after[word];
	}
	return sum;
}

/* What one less in the time to live adds to the header checksum's sum: the lower byte of its word in memory. */
#define TTL_DIFFERENCE 0xfffe

/*
 * Time to live less one, and with it the header checksum of the new addresses: `sum` is what replace_source() and
 * replace_target() returned. The same as each change by itself: a sum that is not 0 has one form.
 */
static __always_inline void settle_header(struct packet *packet, __u64 sum)
{
	if (packet->flags & FLAG_IPV6) {
		packet->ipv6->hop_limit--;
	} else {
		packet->ipv4->check = apply(packet->ipv4->check, sum + TTL_DIFFERENCE);
		packet->ipv4->ttl--;
	}
}

/* Gives the packet another source; returns what that adds to the sums of both checksums. */
static __always_inline __u64 replace_source(struct packet *packet, const __u32 *address)
{
	if (packet->flags & FLAG_IPV6)
		return replace6(&packet->ipv6->saddr, address);
	return replace4(&packet->ipv4->saddr, address[0]);
}

static __always_inline __u64 replace_target(struct packet *packet, const __u32 *address)
{
	if (packet->flags & FLAG_IPV6)
		return replace6(&packet->ipv6->daddr, address);
	return replace4(&packet->ipv4->daddr, address[0]);
}

/* Gives the packet other ports (as in a key); returns what that adds to the transport checksum's sum. */
static __always_inline __u64 replace_ports(struct packet *packet, __u32 ports)
{
	return replace4(packet->transport, ports);
}

/* A datagram without a checksum leaves with a full one: that is the director's work. */
static __always_inline int has_checksum(const struct packet *packet)
{
	return packet->protocol == IPPROTO_TCP || ((struct udphdr *)packet->transport)->check != 0;
}

/* `end` is there for the verifier, which has forgotten what read_transport() looked at. */
static __always_inline void update_checksum(struct packet *packet, void *end, __u64 sum)
{
	if (packet->protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = packet->transport;

		if ((void *)(tcp + 1) > end)
			return;
		tcp->check = apply(tcp->check, sum);
	} else {
		struct udphdr *udp = packet->transport;
		__u16 checksum = apply(udp->check, sum);

		udp->check = checksum ? checksum : 0xffff;
	}
}

#endif
