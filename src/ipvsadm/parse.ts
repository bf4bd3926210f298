/** Command lines to commands: everything ipvsadm decides before it asks the kernel. */
import type {
  ClientAddress,
  DestinationSpecification,
  ForwardingMethod,
  ProtocolName,
  ServiceKey,
  ServiceSpecification,
  SyncDaemon,
  SyncRole,
  Timeouts,
  TunnelChecksum,
  TunnelType,
} from '../ipvs/specification.ts';
import { type Family, formatAddress, parseAddress } from '../wire/address.ts';
import { checkLegality, Exit, fail, OptionError } from './exit.ts';
import { HELP, TRY_HELP, VERSION } from './messages.ts';
import type { NameService } from './names.ts';
import {
  type CommandName,
  LEGALITY,
  OPTION_NAMES,
  OPTIONS,
  type OptionName,
  type OptionTag,
  optionsAfter,
  TUNNEL_LEGALITY,
  TUNNEL_OPTION_NAMES,
} from './options.ts';
import { PoptReader } from './popt.ts';
import {
  type Endpoint,
  parseClassicIpv4,
  parseEndpoint,
  parseLeadingNumber,
  parseMark,
  parseNumber,
  parseSchedulerFlags,
} from './values.ts';

/** How a listing looks. */
export interface ListFormat {
  numeric: boolean;
  stats: boolean;
  rate: boolean;
  thresholds: boolean;
  persistentConnections: boolean;
  tunnelInformation: boolean;
  exact: boolean;
  sorted: boolean;
  /** `-S`: also what ipvsadm 1.31 loses, thresholds. */
  complete: boolean;
}

export type Command =
  | { name: 'add-service' | 'edit-service'; service: ServiceSpecification }
  | { name: 'delete-service'; service: ServiceKey }
  | { name: 'add-server' | 'edit-server'; service: ServiceKey; server: DestinationSpecification }
  | { name: 'delete-server'; service: ServiceKey; address: string; port: number }
  | { name: 'flush' }
  /** Without a service: all. */
  | { name: 'zero'; service?: ServiceKey }
  | { name: 'set'; timeouts: Timeouts }
  | { name: 'start-daemon'; daemon: SyncDaemon }
  | { name: 'stop-daemon'; role: SyncRole }
  | { name: 'list'; what: 'connections' | 'timeouts' | 'daemons' | 'services'; format: ListFormat }
  | { name: 'list'; what: 'service'; service: ServiceKey; format: ListFormat }
  | { name: 'save'; format: ListFormat }
  | { name: 'add-laddr' | 'del-laddr'; service: ServiceKey; address: string; interfaceName: string }
  /** Without a service: of all. */
  | { name: 'get-laddr'; service?: ServiceKey }
  | { name: 'restore' };

/** `Try ipvsadm -h`. */
export function tryHelp(): Exit {
  return new Exit(255, '', `${TRY_HELP}\n`);
}

/** Seconds of persistence if `-p` names none. */
const DEFAULT_PERSISTENCE = 360;
const MAXIMUM_TIMEOUT = 86400 * 31;
const DEFAULT_SCHEDULER = 'wlc';
const CLIENT_ADDRESSES: readonly ClientAddress[] = ['none', 'toa', 'proxy-v1', 'proxy-v2'];
const GREATEST_INT = 0x7fff_ffff;

export const PLAIN_FORMAT: Readonly<ListFormat> = {
  numeric: false,
  stats: false,
  rate: false,
  thresholds: false,
  persistentConnections: false,
  tunnelInformation: false,
  exact: false,
  sorted: true,
  complete: false,
};

/**
 * Parses a command line without the program's name.
 * @throws Exit if the program ends here, OptionError if an option is unknown or lacks its argument
 */
export function parseCommand(words: readonly string[], names: NameService): Command {
  return new CommandLine(words, names).parse();
}

/** What the options said so far: ipvsadm judges many of them by what stood before them. */
class CommandLine {
  readonly #reader: PoptReader<OptionTag>;
  readonly #names: NameService;
  readonly #given = new Set<OptionName>();

  #protocol: ProtocolName | undefined;
  #family: Family | undefined;
  #address = '';
  #port = 0;
  #mark = 0;
  #scheduler = '';
  #schedulerFlagList = '';
  #schedulerFlags = 0;
  #persistence = 0;
  #netmask = '255.255.255.255';
  #engine = '';
  #server: Endpoint | undefined;
  /** The server's port, the service's as far as it was known if it has none of its own. */
  #serverPort = 0;
  #method: ForwardingMethod = 'gate';
  #weight = 1;
  #upperThreshold = 0;
  #lowerThreshold = 0;
  #tunnelType: TunnelType = 'ipip';
  #tunnelPort = 0;
  #tunnelChecksum: TunnelChecksum = 'nocsum';
  #role: SyncRole = 'master';
  #interfaceName = '';
  #syncId = 0;
  #maximumLength = 0;
  #group = '224.0.0.81';
  #groupPort = 8848;
  #ttl = 1;
  #localAddress = '';
  #clientAddress: ClientAddress | undefined;
  #synProxy: boolean | undefined;
  #timeouts: Timeouts = { tcp: 0, tcpFin: 0, udp: 0 };

  constructor(words: readonly string[], names: NameService) {
    this.#reader = new PoptReader(OPTIONS, words);
    this.#names = names;
  }

  parse(): Command {
    const name = this.#parseCommandName();
    this.#reader.use(optionsAfter(name));
    for (;;) {
      const result = this.#reader.next();
      if (result.kind === 'end') break;
      if (result.kind === 'error') throw new OptionError(`${this.#reader.lastWord}: ${result.message}`);
      if (result.tag === 'persistent') this.#takePersistence(result.argument);
      else if (result.tag === 'fullnat-or-flags') {
        if (result.argument === undefined) this.#take('fullnat', '');
        else this.#take('sched-flags', result.argument);
      } else this.#take(result.tag, result.argument ?? '');
    }
    const words = this.#reader.leftovers;
    if (name === 'set') this.#timeouts = parseTimeouts(words.splice(0, 3));
    if (words[0] !== undefined) fail(`unexpected argument ${words[0]}`);
    if (this.#schedulerFlagList !== '') {
      const flags = parseSchedulerFlags(this.#schedulerFlagList, this.#scheduler || DEFAULT_SCHEDULER);
      if (typeof flags === 'string') fail(flags);
      this.#schedulerFlags = flags;
    }
    checkLegality(LEGALITY[name], OPTION_NAMES, this.#given, `'${name}' command`);
    return this.#build(name);
  }

  /** The first option, which must be a command. */
  #parseCommandName(): CommandName {
    const result = this.#reader.next();
    if (result.kind !== 'option') throw tryHelp();
    const { tag, argument } = result;
    if (tag === 'help') throw new Exit(0, HELP, '');
    if (tag === 'version') throw new Exit(0, VERSION, '');
    if (!isCommandName(tag)) throw tryHelp();
    if (tag === 'start-daemon' || tag === 'stop-daemon') {
      if (argument !== 'master' && argument !== 'backup') {
        fail(
          tag === 'start-daemon'
            ? 'illegal start-daemon parameter specified'
            : 'illegal start_daemon specified',
        );
      }
      this.#role = argument;
    }
    return tag;
  }

  #take(tag: Exclude<OptionTag, 'persistent' | 'fullnat-or-flags'>, argument: string): void {
    switch (tag) {
      case 'tcp-service':
      case 'udp-service':
      case 'sctp-service':
        this.#give('service-address');
        this.#protocol = tag === 'tcp-service' ? 'tcp' : tag === 'udp-service' ? 'udp' : 'sctp';
        this.#takeService(argument);
        return;
      case 'fwmark-service':
        this.#give('service-address');
        this.#family = 4;
        this.#protocol = 'tcp';
        this.#mark = parseMark(argument) ?? fail(`invalid fwmark value \`${argument}' specified`);
        return;
      case 'ipv6':
        if (this.#mark === 0) fail('-6 used before -f\n');
        this.#family = 6;
        this.#netmask = '128';
        return;
      case 'scheduler':
        this.#give(tag);
        this.#scheduler = argument.slice(0, 15);
        return;
      case 'netmask':
        this.#give(tag);
        this.#takeNetmask(argument);
        return;
      case 'pe':
        this.#give(tag);
        this.#engine = argument.slice(0, 16);
        return;
      case 'sched-flags':
        this.#give(tag);
        this.#schedulerFlagList = argument.slice(0, 127);
        return;
      case 'real-server':
        this.#give(tag);
        this.#server =
          parseEndpoint(argument, this.#protocol, this.#names) ??
          fail('illegal real server address[:port] specified');
        this.#serverPort = this.#server.port ?? this.#port;
        return;
      case 'masquerading':
        this.#give('forwarding-method');
        this.#method = 'masq';
        return;
      case 'ipip':
        this.#give('forwarding-method');
        this.#method = 'tunnel';
        return;
      case 'gatewaying':
        this.#give('forwarding-method');
        this.#method = 'gate';
        return;
      case 'fullnat':
        this.#give('forwarding-method');
        this.#method = 'fullnat';
        return;
      case 'local-address':
        this.#give(tag);
        this.#localAddress = (
          parseEndpoint(argument, undefined, this.#names) ?? fail('illegal local address')
        ).address;
        return;
      case 'ifname':
        this.#give(tag);
        this.#interfaceName = argument.slice(0, 15);
        return;
      case 'synproxy':
        this.#give(tag);
        if (argument !== 'enable' && argument !== 'disable') {
          fail('synproxy switch must be enable or disable\n');
        }
        this.#synProxy = argument === 'enable';
        return;
      case 'client-address':
        this.#give(tag);
        this.#clientAddress =
          CLIENT_ADDRESSES.find(each => each === argument) ??
          fail(`client address must be one of ${CLIENT_ADDRESSES.join(', ')}`);
        return;
      case 'weight':
        this.#give(tag);
        this.#weight = parseNumber(argument, 0, GREATEST_INT) ?? fail('illegal weight specified');
        return;
      case 'u-threshold':
        this.#give(tag);
        this.#upperThreshold =
          parseNumber(argument, 0, GREATEST_INT) ?? fail('illegal u_threshold specified');
        return;
      case 'l-threshold':
        this.#give(tag);
        this.#lowerThreshold =
          parseNumber(argument, 0, GREATEST_INT) ?? fail('illegal l_threshold specified');
        return;
      case 'mcast-interface':
        this.#give(tag);
        this.#interfaceName = argument.slice(0, 15);
        return;
      case 'syncid':
        this.#give(tag);
        this.#syncId = parseNumber(argument, 0, 255) ?? fail('illegal syncid specified');
        return;
      case 'mcast-group':
        this.#give(tag);
        this.#group = parseGroup(argument);
        return;
      case 'mcast-port':
        this.#give(tag);
        this.#groupPort = parseNumber(argument, 1, 65535) ?? fail('illegal mcast-port specified');
        return;
      case 'mcast-ttl':
        this.#give(tag);
        this.#ttl = parseNumber(argument, 1, 255) ?? fail('illegal mcast-ttl specified');
        return;
      case 'sync-maxlen':
        this.#give(tag);
        this.#maximumLength = parseNumber(argument, 1, 65535 - 28) ?? fail('illegal sync-maxlen specified');
        return;
      case 'tun-type':
        this.#give(tag);
        if (argument !== 'ipip' && argument !== 'gue' && argument !== 'gre')
          fail('illegal tunnel type specified');
        this.#tunnelType = argument;
        return;
      case 'tun-port':
        this.#give(tag);
        this.#tunnelPort = parseNumber(argument, 1, 65535) ?? fail('illegal tunnel port specified');
        return;
      case 'tun-nocsum':
        this.#give(tag);
        return;
      case 'tun-csum':
        this.#give(tag);
        this.#tunnelChecksum = 'csum';
        return;
      case 'tun-remcsum':
        this.#give(tag);
        this.#tunnelChecksum = 'remcsum';
        return;
      case 'sort':
        return;
      case 'connection':
      case 'numeric':
      case 'timeout':
      case 'daemon':
      case 'stats':
      case 'rate':
      case 'thresholds':
      case 'persistent-conn':
      case 'nosort':
      case 'exact':
      case 'ops':
      case 'tun-info':
      case 'complete':
        this.#give(tag);
        return;
      default:
        fail(`invalid option \`${this.#reader.lastWord}'`);
    }
  }

  #give(option: OptionName): void {
    if (this.#given.has(option)) fail(`multiple '${option}' options specified`);
    this.#given.add(option);
  }

  #takeService(text: string): void {
    const endpoint =
      parseEndpoint(text, this.#protocol, this.#names) ??
      fail('illegal virtual server address[:port] specified');
    this.#family = endpoint.family;
    this.#address = endpoint.address;
    this.#port = endpoint.port ?? 0;
    if (endpoint.family === 6) this.#netmask = '128';
  }

  #takePersistence(text: string | undefined): void {
    this.#give('persistent');
    this.#persistence = text === undefined ? DEFAULT_PERSISTENCE : parseTimeout(text, 1);
  }

  #takeNetmask(text: string): void {
    if (this.#family === 6) {
      const prefix = parseLeadingNumber(text);
      if (prefix < 1 || prefix > 128) fail('illegal ipv6 netmask specified');
      this.#netmask = String(prefix);
      return;
    }
    this.#netmask =
      parseClassicIpv4(text) ??
      this.#names.hostAddress(text) ??
      fail('illegal virtual server persistent mask specified');
  }

  #build(name: CommandName): Command {
    switch (name) {
      case 'add-service':
      case 'edit-service':
        return { name, service: this.#buildService() };
      case 'add-server':
      case 'edit-server':
        return { name, service: this.#buildKey(), server: this.#buildServer() };
      case 'delete-service':
        return { name, service: this.#buildKey() };
      case 'delete-server':
        return {
          name,
          service: this.#buildKey(),
          address: this.#server?.address ?? '',
          port: this.#serverPort,
        };
      case 'zero':
        return this.#given.has('service-address') ? { name, service: this.#buildKey() } : { name };
      case 'add-laddr':
      case 'del-laddr':
        return {
          name,
          service: this.#buildKey(),
          address: this.#localAddress,
          interfaceName: this.#interfaceName,
        };
      case 'get-laddr':
        return this.#given.has('service-address') ? { name, service: this.#buildKey() } : { name };
      case 'set':
        return { name, timeouts: this.#timeouts };
      case 'start-daemon':
        return {
          name,
          daemon: {
            role: this.#role,
            interfaceName: this.#interfaceName || 'eth0',
            syncId: this.#syncId,
            maximumLength: this.#maximumLength,
            group: this.#group,
            port: this.#groupPort,
            ttl: this.#ttl,
          },
        };
      case 'stop-daemon':
        return { name, role: this.#role };
      case 'list':
        return this.#buildList();
      case 'save':
        return { name, format: this.#buildFormat() };
      case 'flush':
      case 'restore':
        return { name };
    }
  }

  #buildKey(): ServiceKey {
    if (this.#mark !== 0) return { mark: this.#mark, family: this.#family ?? 4 };
    return { protocol: this.#protocol ?? 'tcp', address: this.#address, port: this.#port };
  }

  #buildService(): ServiceSpecification {
    const isPersistent = this.#given.has('persistent');
    const onePacket = this.#given.has('ops');
    if (this.#mark === 0 && this.#port === 0 && !isPersistent) {
      fail('Zero port specified for non-persistent service');
    }
    if (onePacket && this.#mark === 0 && this.#protocol !== 'udp') {
      fail('One-Packet Scheduling is only for UDP virtual services');
    }
    return {
      key: this.#buildKey(),
      scheduler: this.#scheduler || DEFAULT_SCHEDULER,
      schedulerFlags: this.#schedulerFlags,
      persistenceTimeout: this.#persistence,
      persistenceNetmask: this.#netmask,
      persistenceEngine: this.#engine,
      onePacket,
      ...(this.#clientAddress !== undefined && { clientAddress: this.#clientAddress }),
      ...(this.#synProxy !== undefined && { synProxy: this.#synProxy }),
    };
  }

  #buildServer(): DestinationSpecification {
    const server = this.#server ?? fail('illegal real server address[:port] specified');
    // Only NAT can change the port.
    const keepsPort = this.#mark === 0 && (this.#method === 'gate' || this.#method === 'tunnel');
    if (server.family !== this.#family && this.#method !== 'tunnel') {
      fail('Different address family is allowed only for tunneling servers');
    }
    const tunnelOptions = ['tun-type', ...TUNNEL_OPTION_NAMES] as const;
    if (this.#method !== 'tunnel' && tunnelOptions.some(option => this.#given.has(option))) {
      fail('Tunnel options conflict with forward method');
    }
    const type = this.#tunnelType;
    checkLegality(TUNNEL_LEGALITY[type], TUNNEL_OPTION_NAMES, this.#given, `'${type}' tunnel type`);
    return {
      address: server.address,
      port: keepsPort ? this.#port : this.#serverPort,
      method: this.#method,
      weight: this.#weight,
      upperThreshold: this.#upperThreshold,
      lowerThreshold: this.#lowerThreshold,
      tunnelType: type,
      tunnelPort: this.#tunnelPort,
      tunnelChecksum: this.#tunnelChecksum,
    };
  }

  #buildList(): Command {
    const given = (...options: OptionName[]): boolean => options.some(option => this.#given.has(option));
    if (
      (given('connection', 'timeout', 'daemon') && given('stats', 'rate', 'thresholds')) ||
      (given('timeout', 'daemon') && given('persistent-conn'))
    ) {
      fail('options conflicts in the list command');
    }
    const format = this.#buildFormat();
    if (given('service-address')) return { name: 'list', what: 'service', service: this.#buildKey(), format };
    const what = given('connection')
      ? 'connections'
      : given('timeout')
        ? 'timeouts'
        : given('daemon')
          ? 'daemons'
          : 'services';
    return { name: 'list', what, format };
  }

  #buildFormat(): ListFormat {
    const given = this.#given;
    return {
      numeric: given.has('numeric'),
      stats: given.has('stats'),
      rate: given.has('rate'),
      thresholds: given.has('thresholds'),
      persistentConnections: given.has('persistent-conn'),
      tunnelInformation: given.has('tun-info'),
      exact: given.has('exact'),
      sorted: !given.has('nosort'),
      complete: given.has('complete'),
    };
  }
}

function isCommandName(tag: OptionTag): tag is CommandName {
  return Object.hasOwn(LEGALITY, tag);
}

function parseTimeout(text: string, least: number): number {
  return parseNumber(text, least, MAXIMUM_TIMEOUT) ?? fail(`invalid timeout value \`${text}' specified`);
}

function parseTimeouts(words: readonly string[]): Timeouts {
  const [tcp, tcpFin, udp] = words;
  if (tcp === undefined || tcpFin === undefined || udp === undefined) {
    fail('--set option requires 3 timeout values');
  }
  return { tcp: parseTimeout(tcp, 0), tcpFin: parseTimeout(tcpFin, 0), udp: parseTimeout(udp, 0) };
}

function parseGroup(text: string): string {
  const bytes = parseAddress(text);
  const first = bytes?.[0] ?? 0;
  const isMulticast = bytes?.length === 16 ? first === 0xff : first >> 4 === 14;
  if (!bytes || !isMulticast) fail(`invalid IPv${text.includes(':') ? 6 : 4} mcast-group \`${text}'`);
  return formatAddress(bytes);
}
