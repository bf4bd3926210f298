/** What each option of ipvsadm is for: the text of its manual page and of completions. Every option has to have one. */
import type { OptionTag } from './options.ts';

export interface OptionDescription {
  /** Sentences, for the manual. */
  text: string;
  /** Name of the value, where there is one; completions go by it. */
  value?: string;
}

/** Options that say what to do; one of them comes first. */
export const COMMAND_DESCRIPTIONS = {
  'add-service': { text: 'Add a virtual service: an address, a protocol and a port, or a firewall mark.' },
  'edit-service': { text: 'Edit a virtual service: all its properties are replaced, its real servers stay.' },
  'delete-service': { text: 'Delete a virtual service, along with its real servers.' },
  flush: { text: 'Clear the virtual server table.' },
  restore: {
    text: 'Restore the table from standard input: lines as `-S` prints them. The table is not cleared before (see ipvsadm-restore).',
  },
  save: {
    text: 'Print the table as lines that `-R` reads. Give `-n`, too, if names of hosts may mean something else later.',
  },
  'add-server': { text: 'Add a real server to a virtual service.' },
  'edit-server': {
    text: 'Edit a real server in a virtual service: its weight, forwarding method and thresholds.',
  },
  'delete-server': { text: 'Remove a real server from a virtual service.' },
  list: {
    text: 'List the table, or one virtual service of it. With `-c` the connections, with `--timeout`, `--daemon`, `--stats`, `--rate`, `--thresholds`, `--persistent-conn` and `--tun-info` what these name.',
  },
  zero: { text: 'Zero the counters of one virtual service or of all.' },
  set: {
    text: 'Set the timeouts of TCP sessions, of TCP sessions after a FIN and of UDP packets, three numbers of seconds: `--set TCP TCPFIN UDP`. 0 leaves one as it is.',
  },
  'add-laddr': {
    text: 'Add a local address to a service: FULLNAT sends connections to its servers from there, `-P -t VIP:PORT -z ADDRESS`.',
  },
  'del-laddr': { text: 'Remove a local address from a service; connections that use it go on.' },
  'get-laddr': {
    text: 'List the local addresses of one service or of all: new connections that found no free port (CONFLICTS), and connections.',
  },
  'start-daemon': {
    text: 'Start a connection synchronisation daemon.',
    value: 'master|backup',
  },
  'stop-daemon': { text: 'Stop the connection synchronisation daemon.', value: 'master|backup' },
  help: { text: 'Print a summary of the options.' },
  version: { text: 'Print the version of ipvsadm that this one behaves like.' },
} as const satisfies Partial<Record<OptionTag, OptionDescription>>;

export type CommandTag = keyof typeof COMMAND_DESCRIPTIONS;

/** All the others. */
export const OPTION_DESCRIPTIONS: Readonly<
  Record<
    Exclude<OptionTag, CommandTag | 'service-address' | 'forwarding-method' | 'fullnat-or-flags'>,
    OptionDescription
  >
> = {
  'tcp-service': {
    text: 'A service of TCP: `host[:port]`, an IPv6 address in brackets. Without a port the service takes every port, which needs persistence.',
    value: 'service-address',
  },
  'udp-service': { text: 'A service of UDP, likewise.', value: 'service-address' },
  'sctp-service': { text: 'A service of SCTP, likewise.', value: 'service-address' },
  'fwmark-service': {
    text: 'A service of all packets with this firewall mark, an integer greater than zero; `dirigo marks` gives marks.',
    value: 'mark',
  },
  ipv6: { text: 'With `-f`: the firewall mark is for IPv6.' },
  scheduler: { text: 'How servers are chosen; wlc if not given.', value: 'scheduler' },
  'sched-flags': {
    text: 'Flags of the scheduler, separated by commas: sh-fallback and sh-port with sh, mh-fallback and mh-port with mh, or flag-1, flag-2, flag-3.',
    value: 'flags',
  },
  persistent: {
    text: 'The service is persistent: connections of one client go to the same server, for this many seconds after the last one ended; 360 if not given.',
    value: 'timeout',
  },
  netmask: {
    text: 'Which clients count as one for persistence: a netmask for IPv4, a prefix length for IPv6.',
    value: 'netmask',
  },
  pe: { text: 'Persistence engine: sip (by Call-ID, for UDP).', value: 'engine' },
  ops: { text: 'One-packet scheduling: every UDP packet is scheduled alone.' },
  'real-server': {
    text: 'The real server: `host[:port]`; without a port that of the service.',
    value: 'server-address',
  },
  gatewaying: { text: 'Direct routing: the packet goes to the server as it is. The default.' },
  ipip: { text: 'Tunnelling: the packet goes to the server inside another one.' },
  masquerading: { text: "Masquerading (NAT): the server's address takes the place of the service's." },
  fullnat: {
    text: 'FULLNAT: the server sees a local address of the service (`-P`) and learns the client by TOA or the PROXY protocol. `-b` means this with `-a` and `-e`, and `--sched-flags` with `-A` and `-E`.',
  },
  'local-address': { text: 'With `-P` and `-Q`: the local address.', value: 'address' },
  ifname: {
    text: 'With `-P` and `-Q`: the interface that a local address is meant for.',
    value: 'interface',
  },
  synproxy: {
    text: 'With `-A` and `-E`: whether the director answers SYNs itself, by cookies, so that floods of them reach neither its table nor the servers. For TCP, and servers of NAT (`-m`) and FULLNAT (`-b`).',
    value: 'enable|disable',
  },
  'client-address': {
    text: "With `-A` and `-E`: how FULLNAT tells servers the client's address; toa for TCP if not given.",
    value: 'none|toa|proxy-v1|proxy-v2',
  },
  complete: {
    text: 'With `-S`: write thresholds, too, which ipvsadm 1.31 loses.',
  },
  weight: {
    text: 'Capacity of the server relative to the others, 0 or more; 1 if not given. 0: no new connections.',
    value: 'weight',
  },
  'u-threshold': {
    text: 'No new connections to the server from this many on, 0 to 2147483647; 0: no limit.',
    value: 'upper-threshold',
  },
  'l-threshold': {
    text: 'New connections again below this many; 0: below three quarters of the upper threshold.',
    value: 'lower-threshold',
  },
  'tun-type': { text: 'Kind of tunnel: ipip (the default), gue or gre.', value: 'ipip|gue|gre' },
  'tun-port': { text: 'UDP port of a GUE tunnel.', value: 'port' },
  'tun-nocsum': { text: 'Tunnel without a checksum.' },
  'tun-csum': { text: 'Tunnel with a checksum.' },
  'tun-remcsum': { text: 'Tunnel with remote checksum offload.' },
  numeric: { text: 'Addresses and ports as numbers, not as names.' },
  connection: { text: 'List connections.' },
  timeout: { text: 'List the timeouts that `--set` sets.' },
  daemon: { text: 'List the synchronisation daemons.' },
  stats: { text: 'List totals: connections, packets and bytes, in and out.' },
  rate: { text: 'List rates: connections, packets and bytes a second.' },
  thresholds: { text: 'List the thresholds of connections.' },
  'persistent-conn': { text: 'List the persistent connections.' },
  'tun-info': { text: 'List the tunnels of the servers.' },
  nosort: { text: 'List in the order of the table.' },
  sort: { text: 'Nothing: listings are sorted anyway. For old scripts.' },
  exact: { text: 'Numbers in full, without the suffixes K, M and G.' },
  'mcast-interface': { text: 'Interface of the synchronisation messages.', value: 'interface' },
  syncid: { text: 'Number that the daemons of a cluster share, 0 to 255.', value: 'number' },
  'mcast-group': { text: 'Multicast group of the messages, 224.0.0.81 if not given.', value: 'address' },
  'mcast-port': { text: 'UDP port of the messages, 8848 if not given.', value: 'port' },
  'mcast-ttl': { text: 'TTL of the messages, 1 if not given.', value: 'ttl' },
  'sync-maxlen': { text: 'Longest message in bytes.', value: 'length' },
};
