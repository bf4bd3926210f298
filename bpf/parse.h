/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Where the headers are, and what makes a packet one for the director. */
#ifndef DIRIGO_PARSE_H
#define DIRIGO_PARSE_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>

#include "hash.h"

#ifndef IPPROTO_SCTP
#define IPPROTO_SCTP 132
#endif

#define IPV4_FRAGMENT bpf_htons(0x3fff)
#define IPV4_DONT_FRAGMENT bpf_htons(0x4000)
#define IPV4_OFFSET bpf_htons(0x1fff)
/* Offset and flag of a fragment header: both 0 in a datagram that is whole in spite of it. */
#define IPV6_FRAGMENT bpf_htons(0xfff9)

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define VLAN_TAG 4

/* A packet and what is known of it. */
struct packet {
	const struct control *control;
	const struct interface *interface;
	struct connection *connection;
	struct destination *destination;
	/* Of the connection. */
	__u32 slot;
	__u32 now;
	struct ethhdr *ethernet;
	union {
		struct iphdr *ipv4;
		struct ipv6hdr *ipv6;
	};
	void *transport;
	/* Bytes of the IP packet. */
	__u32 length;
	/* FLAG_IPV6 or 0; as wide as the verifier keeps track of. */
	__u64 flags;
	__u8 protocol;
	__u8 tcp_flags;
	/* Bytes of VLAN tags. */
	__u8 tags;
	struct key key;
};

/*
 * True for the one's-complement sum of a good IPv4 header without options. It is 0xffff if the sum of the words, which is
 * not 0, is a multiple of 0xffff; and of all 64-bit numbers these, times the inverse of 0xffff, are the smallest.
 */
static __always_inline int ipv4_checksum_holds(const struct iphdr *ip)
{
	const __u32 *words = (const __u32 *)ip;
	__u64 sum = (__u64)words[0] + words[1] + words[2] + words[3] + words[4];

	return sum * 0xfffefffefffeffffULL <= 0x0001000100010001ULL;
}

/* Extension headers that the director walks: hop-by-hop, routing, fragment, AH, destination options. */
static __always_inline int is_ipv6_extension(__u8 next)
{
	return next == 0 || next == 43 || next == 44 || next == 51 || next == 60;
}

static __always_inline int is_transport(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP;
}

static __always_inline int is_vlan(__be16 type)
{
	return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD);
}

/* Ports and flags; 0 if the transport header is cut off or wrong. `length` is what the IP packet has left. */
static __always_inline int read_transport(struct packet *packet, void *transport, void *end, __u32 length)
{
	const __u32 *ports = transport;

	packet->transport = transport;
	if (packet->protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = transport;

		if ((void *)(tcp + 1) > end || tcp->doff < 5 || tcp->doff * 4 > length)
			return 0;
		packet->tcp_flags = ((__u8 *)tcp)[13];
	} else {
		struct udphdr *udp = transport;
		__u32 stated;

		if ((void *)(udp + 1) > end)
			return 0;
		stated = bpf_ntohs(udp->len);
		if (stated < sizeof(*udp) || stated > length)
			return 0;
		packet->tcp_flags = 0;
	}
	packet->key.ports = *ports;
	return 1;
}

/* True for a piece of an ICMPv6 message, which the host puts together. */
static __always_inline int is_icmp_piece(const struct ipv6hdr *ip, const void *end)
{
	const __u8 *header = (const void *)(ip + 1);

	return ip->nexthdr == IPPROTO_FRAGMENT && (const void *)(header + 4) <= end && header[0] == IPPROTO_ICMPV6 &&
	       *(const __u16 *)(header + 2) & IPV6_FRAGMENT;
}

/* True for the segment that a client opens a connection with. */
static __always_inline int is_first_segment(const struct packet *packet)
{
	return (packet->tcp_flags & (TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK)) == TCP_SYN;
}

static __always_inline __u8 time_to_live(const struct packet *packet)
{
	return packet->flags & FLAG_IPV6 ? packet->ipv6->hop_limit : packet->ipv4->ttl;
}

#endif
