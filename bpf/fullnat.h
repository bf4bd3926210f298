/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Sequence numbers of FULLNAT (src/ipvs/forwarding/fullnat.ts) and of the SYN proxy (src/ipvs/forwarding/proxied.ts). The segments that carry the client's address to the
 * server are the director's: here is what comes after them.
 */
#ifndef DIRIGO_FULLNAT_H
#define DIRIGO_FULLNAT_H

#include "rewrite.h"

#define TCP_OPTION_SACK 5
#define TCP_OPTION_TIMESTAMPS 8
#define SACK_BLOCKS 4

/* NOP, NOP, one option: how every system aligns SACK and timestamps. */
struct aligned_option {
	__u16 padding;
	__u8 kind;
	__u8 length;
	__be32 edges[];
};

/* The number of SACK blocks among a segment's options; negative if there is anything else than everyday ones. */
static __always_inline int sack_blocks(const struct tcphdr *tcp, const void *end)
{
	const struct aligned_option *option = (const void *)(tcp + 1);
	__u32 room = tcp->doff * 4 - sizeof(*tcp);

	if (room == 0)
		return 0;
	if ((const void *)(option + 1) > end || option->padding != 0x0101 || room != 2 + (__u32)option->length)
		return -1;
	if (option->kind == TCP_OPTION_TIMESTAMPS && option->length == 10)
		return 0;
	if (option->kind != TCP_OPTION_SACK || (option->length - 2) % 8 != 0)
		return -1;
	return (option->length - 2) / 8;
}

/* True if the segment to the server needs nothing but other numbers. */
static __always_inline int is_plain_request(const struct packet *packet, const struct extension *extension,
					    const void *end)
{
	const struct tcphdr *tcp = packet->transport;
	int blocks;

	if ((const void *)(tcp + 1) > end)
		return 0;
	if (extension->flags & FULLNAT_PROXY && !(extension->flags & FULLNAT_HEADER_ACKNOWLEDGED))
		return 0;
	if (extension->flags & FULLNAT_TOA && extension->flags & FULLNAT_SERVER_SYN &&
	    (packet->tcp_flags & (TCP_ACK | TCP_RST)) == TCP_ACK &&
	    bpf_ntohl(tcp->ack_seq) - extension->out_offset == extension->first_acknowledgement)
		return 0;
	blocks = sack_blocks(tcp, end);
	/* What the client of a SYN proxy has not got is rare enough to be the director's. */
	return blocks == 0 || (blocks > 0 && extension->out_offset == 0);
}

static __always_inline __u32 offset_of(const struct extension *extension)
{
	return extension->in_offset + (extension->flags & FULLNAT_PROXY ? extension->proxy_length : 0);
}

static __always_inline __u64 move_request(const struct packet *packet, const struct extension *extension,
					  const void *end)
{
	struct tcphdr *tcp = packet->transport;
	__u64 sum;

	if ((void *)(tcp + 1) > end)
		return 0;
	sum = replace4(&tcp->seq, bpf_htonl(bpf_ntohl(tcp->seq) + offset_of(extension)));
	if (extension->out_offset && packet->tcp_flags & TCP_ACK)
		sum += replace4(&tcp->ack_seq, bpf_htonl(bpf_ntohl(tcp->ack_seq) - extension->out_offset));
	return sum;
}

static __always_inline int is_plain_reply(const struct packet *packet, const struct extension *extension,
					  const void *end)
{
	if ((const void *)((const struct tcphdr *)packet->transport + 1) > end)
		return 0;
	if (extension->flags & FULLNAT_PROXY && !(extension->flags & FULLNAT_HEADER_ACKNOWLEDGED))
		return 0;
	return !(packet->tcp_flags & TCP_SYN) && sack_blocks(packet->transport, end) >= 0;
}

/* The server acknowledges numbers of its own view; without ACK there are none. */
static __always_inline __u64 move_reply(const struct packet *packet, const struct extension *extension,
					const void *end)
{
	struct tcphdr *tcp = packet->transport;
	__u32 offset = offset_of(extension);
	struct aligned_option *option = (void *)(tcp + 1);
	int blocks;
	__u64 sum = 0;

	if ((void *)(tcp + 1) > end)
		return 0;
	if (extension->out_offset)
		sum = replace4(&tcp->seq, bpf_htonl(bpf_ntohl(tcp->seq) + extension->out_offset));
	if (!(packet->tcp_flags & TCP_ACK))
		return sum;
	sum += replace4(&tcp->ack_seq, bpf_htonl(bpf_ntohl(tcp->ack_seq) - offset));
	blocks = sack_blocks(tcp, end);
	for (int edge = 0; edge < 2 * SACK_BLOCKS; edge++) {
		if (edge >= 2 * blocks || (void *)&option->edges[edge + 1] > end)
			break;
		sum += replace4(&option->edges[edge], bpf_htonl(bpf_ntohl(option->edges[edge]) - offset));
	}
	return sum;
}

#endif
