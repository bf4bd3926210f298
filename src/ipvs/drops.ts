/** Why the director dropped or refused a packet, each with a counter of its own. */

export const Drop = {
  none: 0,
  malformed: 1,
  /** The connection's server is gone (deleted), and `expire_nodest_conn` is off. */
  serverGone: 2,
  /** No server could be chosen: the client got port unreachable. */
  noServer: 3,
  /** No route to the server: the client got host unreachable. */
  noRoute: 4,
  /** The next hop does not answer. */
  nextHopUnresolved: 5,
  ttlExpired: 6,
  /** Larger than the way takes, and may not be fragmented: the client was told the size. */
  tooBig: 7,
  /** The connection table is full and nothing in it could make room. */
  tableFull: 8,
  /** Given up by `drop_packet`. */
  overload: 9,
  /** Fragments that overlap, contradict each other or make an impossible datagram: all of it is given up. */
  fragment: 10,
  /** An ICMP error about no connection. */
  icmpUnknown: 11,
  /** A reply of a server that belongs to no connection (`nat_icmp_send`). */
  replyUnknown: 12,
  /** Forwarding is off and the packet had to be routed. */
  forwardingOff: 13,
  /** No local address or port was left for FULLNAT. */
  noLocalPort: 14,
  /** A tunnel's overhead leaves no room on the way. */
  tunnelMtu: 15,
  /** A persistence engine could not read the packet. */
  engine: 16,
  /** The answer to a client could not be routed. */
  noRouteToClient: 17,
  /** Datagrams of which not all fragments came in time. */
  fragmentTimeout: 18,
  /** Datagrams given up because fragments took more memory than they may. */
  fragmentMemory: 19,
  /** No room in front of the frame for a tunnel's headers. */
  noHeadroom: 20,
  /** The service has a FULLNAT server, but no local address. */
  noLocalAddress: 21,
  /** A server at a loopback address: what comes from a wire cannot be translated to it. */
  loopbackServer: 22,
  /** SYN proxy: an acknowledgement of no connection, whose cookie is wrong or older than four minutes. */
  synCookie: 23,
  /** SYN proxy: another segment than SYN and ACK that belongs to no connection, or one that does not fit its handshake. */
  synProxyStray: 24,
  /** SYN proxy: too many acknowledgements while the server has not answered (`synproxy_ack_storm_thresh`). */
  synProxyStorm: 25,
  /** SYN proxy: more data than is held until the server answers (`synproxy_ack_skb_store_thresh`). */
  synProxyFull: 26,
} as const;

export type Drop = (typeof Drop)[keyof typeof Drop];

/** Names by number, kebab-case, as counters show them. */
export const DROP_NAMES: readonly string[] = Object.keys(Drop).map(name =>
  name.replace(/[A-Z]/g, letter => `-${letter.toLowerCase()}`),
);
