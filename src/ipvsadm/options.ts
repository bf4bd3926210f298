/** The options of ipvsadm 1.31, its commands, and which of them go together. */
import type { PoptOption } from './popt.ts';

export type CommandName =
  | 'add-service'
  | 'edit-service'
  | 'delete-service'
  | 'flush'
  | 'list'
  | 'add-server'
  | 'delete-server'
  | 'edit-server'
  | 'set'
  | 'start-daemon'
  | 'stop-daemon'
  | 'restore'
  | 'save'
  | 'zero';

/** The options' names in messages, in the order in which they are checked. */
export const OPTION_NAMES = [
  'numeric',
  'connection',
  'service-address',
  'scheduler',
  'persistent',
  'netmask',
  'real-server',
  'forwarding-method',
  'weight',
  'u-threshold',
  'l-threshold',
  'mcast-interface',
  'timeout',
  'daemon',
  'stats',
  'rate',
  'thresholds',
  'persistent-conn',
  'nosort',
  'syncid',
  'exact',
  'ops',
  'pe',
  'sched-flags',
  'mcast-group',
  'mcast-port',
  'mcast-ttl',
  'sync-maxlen',
  'tun-info',
  'tun-type',
  'tun-port',
  'tun-nocsum',
  'tun-csum',
  'tun-remcsum',
] as const;

export type OptionName = (typeof OPTION_NAMES)[number];

/** What one command makes of the options; those it does not name are illegal with it. */
export interface Legality {
  required?: readonly OptionName[];
  allowed?: readonly OptionName[];
  /** At most one of these. */
  exclusive?: readonly OptionName[];
}

const SERVICE_OPTIONS = ['scheduler', 'persistent', 'netmask', 'ops', 'pe', 'sched-flags'] as const;

const SERVER_OPTIONS = [
  'forwarding-method',
  'weight',
  'u-threshold',
  'l-threshold',
  'tun-type',
  'tun-port',
  'tun-nocsum',
  'tun-csum',
  'tun-remcsum',
] as const;

export const LEGALITY: Readonly<Record<CommandName, Legality>> = {
  'add-service': { required: ['service-address'], allowed: SERVICE_OPTIONS },
  'edit-service': { required: ['service-address'], allowed: SERVICE_OPTIONS },
  'delete-service': { required: ['service-address'] },
  flush: {},
  list: {
    allowed: [
      'numeric',
      'stats',
      'rate',
      'thresholds',
      'persistent-conn',
      'nosort',
      'syncid',
      'exact',
      'tun-info',
    ],
    exclusive: ['connection', 'service-address', 'timeout', 'daemon'],
  },
  'add-server': { required: ['service-address', 'real-server'], allowed: SERVER_OPTIONS },
  'delete-server': { required: ['service-address', 'real-server'] },
  'edit-server': { required: ['service-address', 'real-server'], allowed: SERVER_OPTIONS },
  set: {},
  'start-daemon': {
    allowed: ['mcast-interface', 'syncid', 'mcast-group', 'mcast-port', 'mcast-ttl', 'sync-maxlen'],
  },
  'stop-daemon': { allowed: ['syncid'] },
  restore: {},
  save: { allowed: ['numeric'] },
  zero: { allowed: ['service-address'] },
};

/** The tunnel options with each tunnel type, in the order in which they are checked. */
export const TUNNEL_OPTION_NAMES = ['tun-port', 'tun-nocsum', 'tun-csum', 'tun-remcsum'] as const;

export const TUNNEL_LEGALITY = {
  ipip: {},
  gue: { required: ['tun-port'], exclusive: ['tun-nocsum', 'tun-csum', 'tun-remcsum'] },
  gre: { exclusive: ['tun-nocsum', 'tun-csum'] },
} as const satisfies Record<string, Legality>;

export type OptionTag =
  | CommandName
  | OptionName
  | 'help'
  | 'version'
  | 'tcp-service'
  | 'udp-service'
  | 'sctp-service'
  | 'fwmark-service'
  | 'masquerading'
  | 'ipip'
  | 'gatewaying'
  | 'sort'
  | 'ipv6';

const flag = (tag: OptionTag, long: string, short = ''): PoptOption<OptionTag> => ({
  tag,
  long,
  short,
  argument: 'none',
});
const valued = (tag: OptionTag, long: string, short = ''): PoptOption<OptionTag> => ({
  tag,
  long,
  short,
  argument: 'required',
});

export const OPTIONS: readonly PoptOption<OptionTag>[] = [
  flag('add-service', 'add-service', 'A'),
  flag('edit-service', 'edit-service', 'E'),
  flag('delete-service', 'delete-service', 'D'),
  flag('flush', 'clear', 'C'),
  flag('list', 'list', 'L'),
  flag('list', 'list', 'l'),
  flag('zero', 'zero', 'Z'),
  flag('add-server', 'add-server', 'a'),
  flag('edit-server', 'edit-server', 'e'),
  flag('delete-server', 'delete-server', 'd'),
  flag('set', 'set'),
  flag('help', 'help', 'h'),
  flag('version', 'version', 'v'),
  flag('restore', 'restore', 'R'),
  flag('save', 'save', 'S'),
  valued('start-daemon', 'start-daemon'),
  valued('stop-daemon', 'stop-daemon'),
  valued('tcp-service', 'tcp-service', 't'),
  valued('udp-service', 'udp-service', 'u'),
  valued('sctp-service', 'sctp-service'),
  valued('fwmark-service', 'fwmark-service', 'f'),
  valued('scheduler', 'scheduler', 's'),
  { tag: 'persistent', long: 'persistent', short: 'p', argument: 'optional' },
  valued('netmask', 'netmask', 'M'),
  valued('real-server', 'real-server', 'r'),
  flag('masquerading', 'masquerading', 'm'),
  flag('ipip', 'ipip', 'i'),
  flag('gatewaying', 'gatewaying', 'g'),
  valued('weight', 'weight', 'w'),
  valued('u-threshold', 'u-threshold', 'x'),
  valued('l-threshold', 'l-threshold', 'y'),
  flag('numeric', 'numeric', 'n'),
  flag('connection', 'connection', 'c'),
  valued('mcast-interface', 'mcast-interface'),
  valued('syncid', 'syncid'),
  flag('timeout', 'timeout'),
  flag('daemon', 'daemon'),
  flag('stats', 'stats'),
  flag('rate', 'rate'),
  flag('thresholds', 'thresholds'),
  flag('persistent-conn', 'persistent-conn'),
  flag('nosort', 'nosort'),
  flag('sort', 'sort'),
  flag('exact', 'exact', 'X'),
  flag('ipv6', 'ipv6', '6'),
  flag('ops', 'ops', 'o'),
  valued('pe', 'pe'),
  valued('sched-flags', 'sched-flags', 'b'),
  valued('mcast-group', 'mcast-group'),
  valued('mcast-port', 'mcast-port'),
  valued('mcast-ttl', 'mcast-ttl'),
  valued('sync-maxlen', 'sync-maxlen'),
  flag('tun-info', 'tun-info'),
  valued('tun-type', 'tun-type'),
  valued('tun-port', 'tun-port'),
  flag('tun-nocsum', 'tun-nocsum'),
  flag('tun-csum', 'tun-csum'),
  flag('tun-remcsum', 'tun-remcsum'),
];
