/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* IPIP and GUE over IPv4 and IPv6, as src/ipvs/forwarding/tunnel.ts builds them. */
#ifndef DIRIGO_TUNNEL_H
#define DIRIGO_TUNNEL_H

#include "forward.h"
#include "rewrite.h"

#define GUE_HEADER 4
#define IPV4_MINIMUM_MTU 68
#define IPV6_MINIMUM_MTU 1280

#define FIRST_SOURCE_PORT 32768
#define SOURCE_PORTS (60999 - FIRST_SOURCE_PORT)

/* The inner traffic class; congestion experienced starts anew on the outer way (RFC 3168 section 9.1.1). */
static __always_inline __u8 outer_class(__u8 inner)
{
	return (inner & 3) == 3 ? (inner & ~3) | 2 : inner;
}

static __always_inline __u32 mix(__u32 hash, __u32 word)
{
	hash = (hash ^ word) * 0x9e3779b1;
	return hash ^ hash >> 15;
}

/* The source port of a flow's GUE packets. */
static __always_inline __u16 flow_port(const struct key *key, __u32 flags)
{
	__u32 hash = bpf_ntohl(key->ports & 0xffff) | bpf_ntohs(key->ports >> 16);

	hash = mix(hash, key->client[0]);
	if (flags & FLAG_IPV6) {
		hash = mix(hash, key->client[1]);
		hash = mix(hash, key->client[2]);
		hash = mix(hash, key->client[3]);
	}
	hash = mix(hash, key->virtual[0]);
	if (flags & FLAG_IPV6) {
		hash = mix(hash, key->virtual[1]);
		hash = mix(hash, key->virtual[2]);
		hash = mix(hash, key->virtual[3]);
	}
	return FIRST_SOURCE_PORT + (__u32)(((__u64)hash * SOURCE_PORTS) >> 32);
}

/* Bytes that the tunnel to this destination puts in front of a packet; 0: not one that is built here. */
static __always_inline __u32 tunnel_overhead(const struct destination *destination)
{
	__u32 outer = destination->family == 6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);

	if (destination->tunnel_type == TUNNEL_IPIP)
		return outer;
	if (destination->tunnel_type == TUNNEL_GUE && destination->tunnel_flags == 0)
		return outer + sizeof(struct udphdr) + GUE_HEADER;
	return 0;
}

/* True if the packet fits into the tunnel, DF or not: what does not is the director's. */
static __always_inline int fits_tunnel(const struct packet *packet, const struct destination *destination,
				       __u32 overhead)
{
	__u32 minimum = destination->family == 6 ? IPV6_MINIMUM_MTU : IPV4_MINIMUM_MTU;

	return destination->mtu >= overhead + minimum && packet->length + overhead <= destination->mtu;
}

/* IDs of outer packets that may be fragmented; each CPU counts in a part of its own, and in a cache line. */
#define IDENTIFICATIONS 64

struct identification {
	__u32 last;
	__u32 reserved[15];
};

struct identification identifications[IDENTIFICATIONS] SEC(".data.identifications");

static __always_inline __u16 next_identification(void)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct identification *counter = &identifications[cpu & (IDENTIFICATIONS - 1)];

	return bpf_htons((++counter->last & 0xfff) | cpu << 12);
}

/* Puts the packet, whose TTL is one less already, into its tunnel and sends it. */
static __always_inline int leave_by_tunnel(struct xdp_md *ctx, const struct interface *interface,
					   const struct packet *packet, const struct tunnel *tunnel,
					   const struct destination *destination, __u32 overhead, int discovery)
{
	int is_gue = destination->tunnel_type == TUNNEL_GUE;
	__u32 length = packet->length + overhead;
	__u8 inner_protocol = packet->flags & FLAG_IPV6 ? IPPROTO_IPV6 : IPPROTO_IPIP;
	__u8 protocol = is_gue ? IPPROTO_UDP : inner_protocol;
	__u16 source_port = is_gue ? flow_port(&packet->key, packet->flags) : 0;
	__u16 dont_fragment = 0;
	__u8 class, ttl;
	struct ethhdr *ethernet;
	void *end, *inner;

	if (packet->flags & FLAG_IPV6) {
		const __u8 *first = (const __u8 *)packet->ipv6;

		class = outer_class(first[0] << 4 | first[1] >> 4);
		ttl = packet->ipv6->hop_limit;
	} else {
		class = outer_class(packet->ipv4->tos);
		ttl = packet->ipv4->ttl;
		if (discovery)
			dont_fragment = packet->ipv4->frag_off & IPV4_DONT_FRAGMENT;
	}
	if (bpf_xdp_adjust_head(ctx, -(int)overhead))
		return UP(REASON_NO_HEADROOM);
	ethernet = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;

	if (destination->family == 6) {
		struct ipv6hdr *outer = (void *)(ethernet + 1);

		if ((void *)(outer + 1) + sizeof(struct udphdr) + GUE_HEADER > end)
			return XDP_DROP;
		*(__u32 *)outer = bpf_htonl(6 << 28 | class << 20);
		outer->payload_len = bpf_htons(length - sizeof(*outer));
		outer->nexthdr = protocol;
		outer->hop_limit = ttl;
		__builtin_memcpy(&outer->saddr, tunnel->source, sizeof(outer->saddr));
		__builtin_memcpy(&outer->daddr, destination->address, sizeof(outer->daddr));
		ethernet->h_proto = bpf_htons(ETH_P_IPV6);
		inner = outer + 1;
	} else {
		struct iphdr *outer = (void *)(ethernet + 1);
		__u64 sum;

		if ((void *)(outer + 1) + sizeof(struct udphdr) + GUE_HEADER > end)
			return XDP_DROP;
		*(__u16 *)outer = bpf_htons(0x4500 | class);
		outer->tot_len = bpf_htons(length);
		outer->id = dont_fragment ? 0 : next_identification();
		outer->frag_off = dont_fragment;
		*(__u16 *)&outer->ttl = bpf_htons(ttl << 8 | protocol);
		outer->saddr = tunnel->source[0];
		outer->daddr = destination->address[0];
		sum = (__u64)*(__u16 *)outer + outer->tot_len + outer->id + outer->frag_off +
		      *(__u16 *)&outer->ttl + outer->saddr + outer->daddr;
		outer->check = apply(0xffff, sum);
		ethernet->h_proto = bpf_htons(ETH_P_IP);
		inner = outer + 1;
	}
	if (is_gue) {
		struct udphdr *udp = inner;
		__u32 *gue = (void *)(udp + 1);

		udp->source = bpf_htons(source_port);
		udp->dest = tunnel->port;
		udp->len = bpf_htons(packet->length + sizeof(*udp) + GUE_HEADER);
		udp->check = 0;
		*gue = bpf_htonl(inner_protocol << 16);
	}
	return leave(ctx, interface, ethernet, destination->next_mac, destination->interface_index);
}

#endif
