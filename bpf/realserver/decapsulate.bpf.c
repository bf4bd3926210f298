// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * A real server's end of the director's tunnels (src/ipvs/forwarding/tunnel.ts): IPIP, GUE and GRE over IPv4 and IPv6,
 * for kernels without tunnel devices. Attached to the ingress of an interface, behind whatever XDP does there.
 *
 * Taken out of its tunnel is only what is addressed to this host on the outside and to a VIP on the inside; and, where
 * directors are named, what comes from one of them. The host's stack sees the inner packet as received on the interface.
 * Everything else goes on as it came: to the host, or to its own tunnels.
 */
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/types.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define IPV4_MAPPED bpf_htonl(0xffff)
#define IPV4_FRAGMENT bpf_htons(0x3fff)
#define IPV6_DESTINATION_OPTIONS 60

/* BPF_F_ADJ_ROOM_DECAP_L3_IPV4 and _IPV6, from Linux 6.3 on */
#define DECAPSULATE_IPV4 (1ULL << 7)
#define DECAPSULATE_IPV6 (1ULL << 8)

#define GUE_VERSION_AND_CONTROL 0xe0
#define GUE_OPTION_WORDS 0x1f
#define GRE_CHECKSUM bpf_htons(0x8000)

#define ECN_MASK 3
#define ECN_CONGESTION 3

/* src/realserver/tunnel.ts: TunnelBit */
#define TUNNEL_IPIP 1
#define TUNNEL_GUE 2
#define TUNNEL_GRE 4
#define ONLY_DIRECTORS 0x100

struct settings {
	/* TUNNEL_... and ONLY_DIRECTORS */
	__u32 flags;
	/* Of GUE, as in the header. */
	__be16 port;
	__u16 reserved;
};

/* src/realserver/tunnel.ts: DECAPSULATION_COUNTS */
enum count {
	COUNT_DECAPSULATED,
	COUNT_NOT_A_DIRECTOR,
	COUNT_FRAGMENT,
	COUNT_DAMAGED,
	COUNT_CONGESTION,
	COUNTS,
};

/* IPv4 as ::ffff:a.b.c.d. */
struct address {
	__be32 words[4];
};

struct prefix {
	__u32 length;
	struct address address;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

/* The host's own addresses, where tunnels end. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct address);
	__type(value, __u8);
} tunnel_ends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct address);
	__type(value, __u8);
} virtual_addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 256);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, __u8);
} directors SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTS);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

struct tunnel {
	struct prefix source;
	/* Bytes from the outer IP header to the inner one. */
	__u32 overhead;
	/* What is inside, ETH_P_IP or ETH_P_IPV6; 0: no tunnel that ends here. */
	__be16 inner;
	__u8 traffic_class;
	__u8 is_fragment;
};

static __always_inline int count(__u32 which, int verdict)
{
	__u64 *counter = bpf_map_lookup_elem(&counts, &which);

	if (counter)
		++*counter;
	return verdict;
}

static __always_inline struct address mapped(__be32 ipv4)
{
	struct address address = { { 0, 0, IPV4_MAPPED, ipv4 } };

	return address;
}

static __always_inline __be16 inner_of_protocol(__u8 protocol)
{
	if (protocol == IPPROTO_IPIP)
		return bpf_htons(ETH_P_IP);
	return protocol == IPPROTO_IPV6 ? bpf_htons(ETH_P_IPV6) : 0;
}

/* What stands between the two IP headers; `tunnel->overhead` is the length of the outer one. */
static __always_inline void read_tunnel_header(struct __sk_buff *skb, const struct settings *setting, __u8 protocol,
					       struct tunnel *tunnel)
{
	__u32 at = ETH_HLEN + tunnel->overhead;

	if (protocol == IPPROTO_IPIP || protocol == IPPROTO_IPV6) {
		if (setting->flags & TUNNEL_IPIP)
			tunnel->inner = inner_of_protocol(protocol);
	} else if (protocol == IPPROTO_GRE) {
		__be16 gre[2];

		if (!(setting->flags & TUNNEL_GRE) || bpf_skb_load_bytes(skb, at, gre, sizeof(gre)))
			return;
		/* Keys and sequence numbers belong to tunnels of somebody else. */
		if (gre[0] & ~GRE_CHECKSUM || (gre[1] != bpf_htons(ETH_P_IP) && gre[1] != bpf_htons(ETH_P_IPV6)))
			return;
		tunnel->overhead += gre[0] ? 8 : 4;
		tunnel->inner = gre[1];
	} else if (protocol == IPPROTO_UDP) {
		struct {
			struct udphdr udp;
			__u8 head, protocol;
			__be16 flags;
		} gue;

		if (!(setting->flags & TUNNEL_GUE) || bpf_skb_load_bytes(skb, at, &gue, sizeof(gue)))
			return;
		if (gue.udp.dest != setting->port || gue.head & GUE_VERSION_AND_CONTROL)
			return;
		tunnel->overhead += sizeof(gue) + (gue.head & GUE_OPTION_WORDS) * 4;
		tunnel->inner = inner_of_protocol(gue.protocol);
	}
}

static __always_inline void read_outer_ipv4(struct __sk_buff *skb, const struct settings *setting,
					    struct tunnel *tunnel)
{
	struct address end;
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return;
	end = mapped(ip.daddr);
	if (!bpf_map_lookup_elem(&tunnel_ends, &end))
		return;
	/* Only the first fragment of a packet shows what is in it. */
	if (ip.frag_off & bpf_htons(0x1fff))
		return;
	tunnel->is_fragment = (ip.frag_off & IPV4_FRAGMENT) != 0;
	tunnel->source.address = mapped(ip.saddr);
	tunnel->traffic_class = ip.tos;
	tunnel->overhead = ip.ihl * 4;
	read_tunnel_header(skb, setting, ip.protocol, tunnel);
}

static __always_inline void read_outer_ipv6(struct __sk_buff *skb, const struct settings *setting,
					    struct tunnel *tunnel)
{
	struct address end;
	struct ipv6hdr ip;
	__u8 first[2];

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.version != 6)
		return;
	__builtin_memcpy(&end, &ip.daddr, sizeof(end));
	if (!bpf_map_lookup_elem(&tunnel_ends, &end))
		return;
	__builtin_memcpy(&tunnel->source.address, &ip.saddr, sizeof(ip.saddr));
	__builtin_memcpy(first, &ip, sizeof(first));
	tunnel->traffic_class = first[0] << 4 | first[1] >> 4;
	tunnel->overhead = sizeof(ip);
	/* Linux's own tunnels put their encapsulation limit here (RFC 2473 section 5.1). */
	if (ip.nexthdr == IPV6_DESTINATION_OPTIONS) {
		__u8 options[2];

		if (bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(ip), options, sizeof(options)))
			return;
		tunnel->overhead += (options[1] + 1) * 8;
		ip.nexthdr = options[0];
	}
	read_tunnel_header(skb, setting, ip.nexthdr, tunnel);
}

/* Where the inner packet goes to; false if it is damaged. Its own traffic class comes along. */
static __always_inline int read_inner(struct __sk_buff *skb, const struct tunnel *tunnel, struct address *to,
				      __u8 *traffic_class)
{
	__u32 at = ETH_HLEN + tunnel->overhead;

	if (tunnel->inner == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 4)
			return 0;
		*to = mapped(ip.daddr);
		*traffic_class = ip.tos;
	} else {
		struct ipv6hdr ip;
		__u8 first[2];

		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 6)
			return 0;
		__builtin_memcpy(to, &ip.daddr, sizeof(*to));
		__builtin_memcpy(first, &ip, sizeof(first));
		*traffic_class = first[0] << 4 | first[1] >> 4;
	}
	return 1;
}

/* The routers on the tunnel's way marked congestion: the receiver has to hear of it (RFC 6040 section 4.2). */
static __always_inline int mark_congestion(struct __sk_buff *skb, const struct tunnel *tunnel, __u8 traffic_class)
{
	__u32 at = ETH_HLEN + tunnel->overhead;

	if (tunnel->inner == bpf_htons(ETH_P_IP)) {
		__u8 marked = traffic_class | ECN_CONGESTION;

		/* The traffic class is the low byte of its word in the checksum. */
		return bpf_l3_csum_replace(skb, at + 10, bpf_htons(traffic_class), bpf_htons(marked), 2) ||
		       bpf_skb_store_bytes(skb, at + 1, &marked, sizeof(marked), 0);
	} else {
		__u8 second;

		if (bpf_skb_load_bytes(skb, at + 1, &second, sizeof(second)))
			return 1;
		second |= ECN_CONGESTION << 4;
		return bpf_skb_store_bytes(skb, at + 1, &second, sizeof(second), 0);
	}
}

SEC("tc")
int decapsulate(struct __sk_buff *skb)
{
	struct tunnel tunnel = { .source = { .length = 128 } };
	struct settings *setting;
	struct address to = {};
	__u8 traffic_class = 0;
	__u32 zero = 0;
	__be16 inner;

	setting = bpf_map_lookup_elem(&settings, &zero);
	if (!setting)
		return TC_ACT_UNSPEC;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		read_outer_ipv4(skb, setting, &tunnel);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		read_outer_ipv6(skb, setting, &tunnel);
	inner = tunnel.inner;
	if (!inner)
		return TC_ACT_UNSPEC;
	if (!read_inner(skb, &tunnel, &to, &traffic_class))
		return count(COUNT_DAMAGED, TC_ACT_UNSPEC);
	if (!bpf_map_lookup_elem(&virtual_addresses, &to))
		return TC_ACT_UNSPEC;
	if (setting->flags & ONLY_DIRECTORS && !bpf_map_lookup_elem(&directors, &tunnel.source))
		return count(COUNT_NOT_A_DIRECTOR, TC_ACT_SHOT);
	/* Put together is a packet only behind this place, by the host itself. */
	if (tunnel.is_fragment)
		return count(COUNT_FRAGMENT, TC_ACT_UNSPEC);
	if ((tunnel.traffic_class & ECN_MASK) == ECN_CONGESTION && (traffic_class & ECN_MASK) != ECN_CONGESTION) {
		/* Whose transport does not know ECN hears of congestion by loss. */
		if ((traffic_class & ECN_MASK) == 0)
			return count(COUNT_CONGESTION, TC_ACT_SHOT);
		if (mark_congestion(skb, &tunnel, traffic_class))
			return count(COUNT_DAMAGED, TC_ACT_SHOT);
	}
	if (bpf_skb_adjust_room(skb, -(__s32)tunnel.overhead, BPF_ADJ_ROOM_MAC,
				inner == skb->protocol ? 0 :
				inner == bpf_htons(ETH_P_IP) ? DECAPSULATE_IPV4 : DECAPSULATE_IPV6))
		return count(COUNT_DAMAGED, TC_ACT_SHOT);
	bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &inner, sizeof(inner), 0);
	return count(COUNT_DECAPSULATED, TC_ACT_UNSPEC);
}

char _license[] SEC("license") = "Dual MIT/GPL";
