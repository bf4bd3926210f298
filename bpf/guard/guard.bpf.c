/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The guard's filter: drops ARP and neighbour discovery frames that say that an address is at another MAC than the
 * bindings allow. Everything else passes, unseen as early as possible.
 *
 * Three ways to it: guard_chained() behind the director's program, for what that one would pass to the host;
 * guard_alone() as an interface's XDP program where no director runs; guard_port() at the ingress of a bridge's port
 * (tc), before the bridge.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "Dual MIT/GPL";

/* MACs of one binding, besides the directors'. */
#define MACS 4
/* First bytes of a dropped frame that are kept for the guard. */
#define SNAPSHOT 128

#define VLAN_TAG 4
#define MAXIMUM_TAGS 2
#define MAXIMUM_EXTENSION_HEADERS 6
#define MAXIMUM_OPTIONS 10

#define ARP_LENGTH 28
#define NEXT_FRAGMENT 44
#define OPTION_SOURCE 1
#define OPTION_TARGET 2

/* tc, for a program that lets others decide and for one that drops. */
#define TCX_NEXT -1
#define TC_ACT_SHOT 2

/* The binding's address may also be at any director's MAC. */
#define BINDING_DIRECTORS 1

/* src/guard/filter-layout.ts */
struct binding {
	__u32 flags;
	__u32 count;
	/* The six bytes in the order of the wire, read little-endian. */
	__u64 macs[MACS];
};

/* An IPv6 address; IPv4 as ::ffff:a.b.c.d. */
struct address {
	__u32 words[4];
};

enum verdict {
	VERDICT_PASSED,
	/* Contradicts a binding. */
	VERDICT_ARP,
	VERDICT_DISCOVERY,
	/* ARP with lengths that no host takes. */
	VERDICT_MALFORMED,
	VERDICTS,
};

/* Puts the names into the object's type information, where the layout test reads them. */
const volatile enum verdict verdict_count = VERDICTS;

struct dropped {
	/* CLOCK_MONOTONIC, nanoseconds. */
	__u64 time;
	__u32 interface_index;
	__u16 verdict;
	/* Bytes in `frame`. */
	__u16 length;
	__u8 frame[SNAPSHOT];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct address);
	__type(value, struct binding);
} bindings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u32);
} directors SEC(".maps");

/* Messages that were judged, by verdict. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, VERDICTS);
	__type(key, __u32);
	__type(value, __u64);
} verdicts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 1024);
	__type(value, struct dropped);
} drops SEC(".maps");

/* Interfaces that the filter is for: the director's program brings here what came by any of its own. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u32);
} enforced SEC(".maps");

static __always_inline __u64 read_mac(const __u8 *bytes)
{
	return (__u64)bytes[0] | (__u64)bytes[1] << 8 | (__u64)bytes[2] << 16 | (__u64)bytes[3] << 24 |
	       (__u64)bytes[4] << 32 | (__u64)bytes[5] << 40;
}

/* True if the address may be at the MAC, or nobody said where it may be. */
static __noinline int may_hold(const struct address *address, __u64 mac)
{
	struct binding *binding;

	if (!address)
		return 1;
	binding = bpf_map_lookup_elem(&bindings, address);
	if (!binding)
		return 1;
	for (__u32 index = 0; index < MACS; index++)
		if (index < binding->count && binding->macs[index] == mac)
			return 1;
	return binding->flags & BINDING_DIRECTORS && bpf_map_lookup_elem(&directors, &mac) != 0;
}

static __always_inline enum verdict judge_arp(const __u8 *arp, const void *end)
{
	struct address sender = {};

	if ((const void *)(arp + 8) > end || arp[4] != ETH_ALEN || arp[5] != 4 ||
	    (const void *)(arp + ARP_LENGTH) > end)
		return VERDICT_MALFORMED;
	__builtin_memcpy(&sender.words[3], arp + 14, 4);
	/* A probe for duplicates claims nothing. */
	if (sender.words[3] == 0)
		return VERDICT_PASSED;
	sender.words[2] = bpf_htonl(0xffff);
	return may_hold(&sender, read_mac(arp + 8)) ? VERDICT_PASSED : VERDICT_ARP;
}

/* Where what a message of neighbour discovery claims is to be found in it; 0: it claims nothing. */
static __always_inline __u32 options_of(__u8 type)
{
	switch (type) {
	case 133: /* router solicitation */
		return 8;
	case 134: /* router advertisement */
		return 16;
	case 135: /* neighbour solicitation */
	case 136: /* neighbour advertisement */
		return 24;
	case 137: /* redirect */
		return 40;
	default:
		return 0;
	}
}

static __always_inline enum verdict judge_discovery(const struct ipv6hdr *ip, const void *end)
{
	const __u8 *at = (const void *)(ip + 1), *message;
	const __u8 *claim;
	struct address address;
	__u8 next = ip->nexthdr, wanted;
	__u32 options;

	/* What a router forwarded is no neighbour discovery (RFC 4861 section 7.1). */
	if (ip->hop_limit != 255)
		return VERDICT_PASSED;
	for (int headers = 0; headers < MAXIMUM_EXTENSION_HEADERS && next != IPPROTO_ICMPV6; headers++) {
		/* In fragments it is not to be believed (RFC 6980). */
		if (next != 0 && next != 43 && next != 60 && next != 51)
			return VERDICT_PASSED;
		if ((const void *)(at + 8) > end)
			return VERDICT_PASSED;
		__u32 length = next == 51 ? (at[1] + 2) * 4 : (at[1] + 1) * 8;

		next = at[0];
		at += length;
	}
	if (next != IPPROTO_ICMPV6 || (const void *)(at + 8) > end)
		return VERDICT_PASSED;
	message = at;
	options = options_of(message[0]);
	if (options == 0)
		return VERDICT_PASSED;
	claim = message[0] < 136 ? (const __u8 *)&ip->saddr : message + 8;
	if ((const void *)(claim + 16) > end)
		return VERDICT_PASSED;
	__builtin_memcpy(&address, claim, sizeof(address));
	wanted = message[0] < 136 ? OPTION_SOURCE : OPTION_TARGET;
	at = message + options;
	for (int count = 0; count < MAXIMUM_OPTIONS; count++) {
		if ((const void *)(at + 8) > end || at[1] == 0)
			return VERDICT_PASSED;
		if (at[0] == wanted && !may_hold(&address, read_mac(at + 2)))
			return VERDICT_DISCOVERY;
		at += at[1] * 8;
	}
	return VERDICT_PASSED;
}

static __always_inline enum verdict judge(const void *data, const void *end)
{
	const struct ethhdr *ethernet = data;
	const void *network = ethernet + 1;
	__be16 type;

	if (network > end)
		return VERDICT_PASSED;
	type = ethernet->h_proto;
	for (int tags = 0; tags < MAXIMUM_TAGS; tags++) {
		if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD))
			break;
		if (network + VLAN_TAG > end)
			return VERDICT_PASSED;
		type = *(__be16 *)(network + 2);
		network += VLAN_TAG;
	}
	if (type == bpf_htons(ETH_P_ARP))
		return judge_arp(network, end);
	if (type != bpf_htons(ETH_P_IPV6) || network + sizeof(struct ipv6hdr) > end)
		return VERDICT_PASSED;
	return judge_discovery(network, end);
}

/* True if the frame may pass. */
static __always_inline int admits(const void *data, const void *end, __u32 interface_index)
{
	enum verdict verdict = judge(data, end);
	struct dropped dropped = {};
	__u32 key = verdict;
	const __u8 *bytes = data;
	__u64 *counter;

	if (verdict == VERDICT_PASSED)
		return 1;
	counter = bpf_map_lookup_elem(&verdicts, &key);
	if (counter)
		(*counter)++;
	dropped.time = bpf_ktime_get_ns();
	dropped.interface_index = interface_index;
	dropped.verdict = verdict;
	for (__u32 at = 0; at < SNAPSHOT; at++) {
		if ((const void *)(bytes + at + 1) > end)
			break;
		dropped.frame[at] = bytes[at];
		dropped.length = at + 1;
	}
	/* The guard takes them out; if it does not come, the newest stay. */
	bpf_map_push_elem(&drops, &dropped, BPF_EXIST);
	return 0;
}

static __always_inline int filter(struct xdp_md *ctx)
{
	const void *data = (void *)(long)ctx->data;
	const void *end = (void *)(long)ctx->data_end;

	return admits(data, end, ctx->ingress_ifindex) ? XDP_PASS : XDP_DROP;
}

SEC("xdp.frags")
int guard_alone(struct xdp_md *ctx)
{
	return filter(ctx);
}

SEC("xdp.frags")
int guard_chained(struct xdp_md *ctx)
{
	__u32 index = ctx->ingress_ifindex;

	return bpf_map_lookup_elem(&enforced, &index) ? filter(ctx) : XDP_PASS;
}

SEC("tc")
int guard_port(struct __sk_buff *skb)
{
	__be16 type = skb->protocol;

	if (type != bpf_htons(ETH_P_ARP) && type != bpf_htons(ETH_P_IPV6) && type != bpf_htons(ETH_P_8021Q) &&
	    type != bpf_htons(ETH_P_8021AD))
		return TCX_NEXT;
	/* Whatever of it is not in one piece yet. */
	bpf_skb_pull_data(skb, skb->len < 256 ? skb->len : 256);
	return admits((void *)(long)skb->data, (void *)(long)skb->data_end, skb->ingress_ifindex) ? TCX_NEXT :
													TC_ACT_SHOT;
}
