/**
 * The options of ipvsadm 1.31, its commands, and which of them go together; and, with the commands that take them, those
 * of FULLNAT as the ipvsadm of DPVS and Alibaba LVS has them. With all other commands these are as unknown as upstream.
 */
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
  | 'zero'
  | 'add-laddr'
  | 'del-laddr'
  | 'get-laddr';

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
  'local-address',
  'ifname',
  'synproxy',
  'client-address',
  'complete',
] as const;

export type OptionName = (typeof OPTION_NAMES)[number];

/** What one command makes of the options; those it does not name are illegal with it. */
export interface Legality {
  required?: readonly OptionName[];
  allowed?: readonly OptionName[];
  /** At most one of these. */
  exclusive?: readonly OptionName[];
}

const SERVICE_OPTIONS = [
  'scheduler',
  'persistent',
  'netmask',
  'ops',
  'pe',
  'sched-flags',
  'synproxy',
  'client-address',
] as const;

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
  save: { allowed: ['numeric', 'complete'] },
  zero: { allowed: ['service-address'] },
  'add-laddr': { required: ['service-address', 'local-address'], allowed: ['ifname'] },
  'del-laddr': { required: ['service-address', 'local-address'], allowed: ['ifname'] },
  'get-laddr': { allowed: ['service-address'] },
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
  | 'ipv6'
  | 'fullnat'
  | 'fullnat-or-flags';

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
  flag('add-laddr', 'add-laddr', 'P'),
  flag('del-laddr', 'del-laddr', 'Q'),
  flag('get-laddr', 'get-laddr', 'G'),
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

const LOCAL_ADDRESS_OPTIONS: readonly PoptOption<OptionTag>[] = [
  valued('local-address', 'laddr', 'z'),
  valued('ifname', 'ifname', 'F'),
];

const SERVICE_EXTENSIONS: readonly PoptOption<OptionTag>[] = [
  valued('synproxy', 'synproxy', 'j'),
  valued('client-address', 'client-address'),
];

/** With a server, `-b` is FULLNAT, but upstream's `-b flags` where a word follows that is no option. */
const SERVER_OPTIONS_TABLE: readonly PoptOption<OptionTag>[] = [
  ...OPTIONS.map(option => (option.tag === 'sched-flags' ? { ...option, short: '' } : option)),
  flag('fullnat', 'fullnat'),
  { tag: 'fullnat-or-flags', long: '', short: 'b', argument: 'optional' },
];

const EXTENSIONS: Readonly<Partial<Record<CommandName, readonly PoptOption<OptionTag>[]>>> = {
  'add-service': [...OPTIONS, ...SERVICE_EXTENSIONS],
  'edit-service': [...OPTIONS, ...SERVICE_EXTENSIONS],
  'add-server': SERVER_OPTIONS_TABLE,
  'edit-server': SERVER_OPTIONS_TABLE,
  'add-laddr': [...OPTIONS, ...LOCAL_ADDRESS_OPTIONS],
  'del-laddr': [...OPTIONS, ...LOCAL_ADDRESS_OPTIONS],
  save: [...OPTIONS, flag('complete', 'complete')],
};

/** Every option, for manuals: what `-b` means depends on the command. */
export const DOCUMENTED_OPTIONS: readonly PoptOption<OptionTag>[] = [
  ...OPTIONS,
  flag('fullnat', 'fullnat', 'b'),
  ...LOCAL_ADDRESS_OPTIONS,
  ...SERVICE_EXTENSIONS,
  flag('complete', 'complete'),
];

/** The options that may follow a command. */
export function optionsAfter(command: CommandName): readonly PoptOption<OptionTag>[] {
  return EXTENSIONS[command] ?? OPTIONS;
}
