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

#ifndef IPPROTO_SCTP
#define IPPROTO_SCTP 132
#endif

#define IPV4_FRAGMENT bpf_htons(0x3fff)

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define ICMP_UNREACHABLE 3
#define ICMP_SOURCE_QUENCH 4
#define ICMP_TIME_EXCEEDED 11
/* ICMPv6 types below this one are errors (RFC 4443 section 2.1). */
#define ICMPV6_FIRST_MESSAGE 128

/* True for the one's-complement sum of a good IPv4 header without options. */
static __always_inline int ipv4_checksum_holds(const struct iphdr *ip)
{
	const __u32 *words = (const __u32 *)ip;
	__u64 sum = (__u64)words[0] + words[1] + words[2] + words[3] + words[4];

	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
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

#endif
