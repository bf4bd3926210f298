/** Random services, servers and settings, and changes to them on the way. */
import type { Director } from '../../src/ipvs/director.ts';
import { MarkRules, parseMarkRule } from '../../src/ipvs/mark-rules.ts';
import { DEFAULT_SETTINGS, type Settings } from '../../src/ipvs/settings.ts';
import type {
  DestinationSpecification,
  ForwardingMethod,
  ServiceKey,
  ServiceSpecification,
  SyncRole,
  Timeouts,
} from '../../src/ipvs/specification.ts';
import type { Family } from '../../src/wire/address.ts';
import type { Random } from './random.ts';
import { LOCALS, SERVERS, VIPS } from './world.ts';

export const METHODS: readonly ForwardingMethod[] = ['gate', 'tunnel', 'masq', 'fullnat'];

const TRANSLATING: readonly ForwardingMethod[] = ['masq', 'fullnat'];

const SCHEDULERS = [
  'rr',
  'wrr',
  'lc',
  'wlc',
  'lblc',
  'lblcr',
  'dh',
  'sh',
  'mh',
  'sed',
  'nq',
  'fo',
  'ovf',
  'twos',
];

/** What an administrator does. */
export type Operation =
  | { do: 'add service' | 'edit service'; service: ServiceSpecification }
  | { do: 'delete service'; key: ServiceKey }
  | { do: 'add destination' | 'edit destination'; key: ServiceKey; destination: DestinationSpecification }
  | { do: 'delete destination'; key: ServiceKey; address: string; port: number }
  | { do: 'set timeouts'; timeouts: Timeouts }
  | { do: 'set'; name: string; value: string }
  | { do: 'set marks'; rules: string[] }
  | { do: 'start daemon' | 'stop daemon'; role: SyncRole };

/** @throws IpvsError as the virtual server does */
export function perform(operation: Operation, director: Director): void {
  const server = director.administration;
  switch (operation.do) {
    case 'add service':
      server.addService(operation.service);
      break;
    case 'edit service':
      server.editService(operation.service);
      break;
    case 'delete service':
      server.deleteService(operation.key);
      break;
    case 'add destination':
      server.addDestination(operation.key, operation.destination);
      break;
    case 'edit destination':
      server.editDestination(operation.key, operation.destination);
      break;
    case 'delete destination':
      server.deleteDestination(operation.key, operation.address, operation.port);
      break;
    case 'set timeouts':
      server.setTimeouts(operation.timeouts);
      break;
    case 'set':
      director.set(operation.name, operation.value);
      break;
    case 'set marks':
      director.marks = new MarkRules(operation.rules.map(parseMarkRule));
      break;
    case 'start daemon':
      server.startSyncDaemon({ ...SYNC_DAEMON, role: operation.role });
      break;
    case 'stop daemon':
      server.stopSyncDaemon(operation.role);
  }
}

const SYNC_DAEMON = {
  interfaceName: 'eth0',
  syncId: 0,
  maximumLength: 0,
  group: '224.0.0.81',
  port: 8848,
  ttl: 1,
};

/** Settings that may change under way, with values worth it. */
const CHANGING: readonly (readonly [keyof Settings, readonly number[]])[] = [
  ['sloppy_tcp', [0, 1]],
  ['expire_nodest_conn', [0, 1]],
  ['expire_quiescent_template', [0, 1]],
  ['schedule_icmp', [0, 1]],
  ['nat_icmp_send', [0, 1]],
  ['pmtu_disc', [0, 1]],
  ['conn_reuse_mode', [0, 1, 2, 3]],
  ['backup_only', [0, 0, 1]],
  ['secure_tcp', [0, 0, 3]],
  ['synproxy_defer', [0, 0, 1]],
  ['synproxy_wscale', [0, 0, 7]],
  ['synproxy_timestamp', [0, 0, 1]],
  ['synproxy_conn_reuse', [0, 1]],
  ['synproxy_conn_reuse_fin_wait', [0, 1]],
];

export interface Target {
  /** Where traffic goes. */
  key: Exclude<ServiceKey, { mark: number }>;
  family: Family;
  /** The service's: its address, or a firewall mark that its packets get. */
  service: ServiceKey;
  /** It has a SYN proxy: servers of NAT and FULLNAT only. */
  isProxied: boolean;
}

/** Draws configurations. What it drew last is what traffic is aimed at. */
export class Configurator {
  readonly targets: Target[] = [];
  readonly #random: Random;
  readonly #methods: readonly ForwardingMethod[];
  readonly #marks: string[] = [];
  readonly #destinations = new Map<Target, DestinationSpecification[]>();

  constructor(random: Random, methods: readonly ForwardingMethod[]) {
    this.#random = random;
    this.#methods = methods;
  }

  settings(): Partial<Settings> {
    const random = this.#random;
    const settings: Partial<Settings> = {};
    const switches = [
      'sloppy_tcp',
      'expire_nodest_conn',
      'expire_quiescent_template',
      'schedule_icmp',
      'nat_icmp_send',
      'pmtu_disc',
    ] as const satisfies readonly (keyof Settings)[];
    for (const name of switches) if (random.chance(20)) settings[name] = 1 - DEFAULT_SETTINGS[name];
    if (random.chance(30)) settings.conn_reuse_mode = random.below(4);
    return settings;
  }

  /** The operations that set everything up. */
  initial(): Operation[] {
    const random = this.#random;
    const operations: Operation[] = [];
    const services = 1 + random.below(4);
    for (let count = 0; count < services; count++) operations.push(...this.#addService());
    if (random.chance(20)) operations.push(this.#setTimeouts());
    return operations;
  }

  #addService(): Operation[] {
    const random = this.#random;
    const family: Family = random.chance(65) ? 4 : 6;
    const protocol = random.pick(['tcp', 'tcp', 'tcp', 'udp', 'udp', 'sctp'] as const);
    const persistent = random.chance(25);
    const port = persistent && random.chance(15) ? 0 : random.pick([80, 80, 443, 53, 8080, 21]);
    const key = { protocol, address: random.pick(VIPS[family]), port };
    const mark = random.chance(6) ? 1 + random.below(3) : 0;
    const isTranslated = this.#methods.some(method => TRANSLATING.includes(method));
    const isProxied = protocol === 'tcp' && isTranslated && random.chance(20);
    const target: Target = { key, family, service: mark > 0 ? { mark, family } : key, isProxied };
    this.targets.push(target);
    this.#destinations.set(target, []);
    const operations: Operation[] = [{ do: 'add service', service: this.#service(target, persistent) }];
    if (mark > 0) {
      this.#marks.push(`${protocol} to ${key.address}${port > 0 ? ` port ${port}` : ''} mark ${mark}`);
      operations.push({ do: 'set marks', rules: [...this.#marks] });
    }
    const servers = random.below(6);
    for (let count = 0; count < servers; count++) operations.push(this.#addDestination(target));
    return operations;
  }

  #service({ key, family, service, isProxied }: Target, persistent: boolean): ServiceSpecification {
    const random = this.#random;
    const masks = family === 4 ? ['255.255.255.255', '255.255.255.0'] : ['128', '64'];
    return {
      key: service,
      scheduler: random.pick(SCHEDULERS),
      schedulerFlags: random.chance(70) ? 0 : 8 * random.below(8),
      persistenceTimeout: persistent ? random.pick([2, 30, 300, 360]) : 0,
      persistenceNetmask: random.pick(masks),
      persistenceEngine: '',
      onePacket: key.protocol === 'udp' && random.chance(20),
      // Switched off now and then, over connections that it made.
      synProxy: isProxied && random.chance(90),
      ...(this.#methods.includes('fullnat') ? { localAddresses: [...LOCALS[family]] } : {}),
    };
  }

  #addDestination(target: Target): Operation {
    const destination = this.#destination(target);
    this.#destinations.get(target)?.push(destination);
    return { do: 'add destination', key: target.service, destination };
  }

  #destination({ key, family, isProxied }: Target): DestinationSpecification {
    const random = this.#random;
    const methods = isProxied ? this.#methods.filter(each => TRANSLATING.includes(each)) : this.#methods;
    const method = random.pick(methods);
    const mayCross = method === 'tunnel' && random.chance(15);
    const servers = SERVERS[mayCross ? (family === 4 ? 6 : 4) : family];
    const upperThreshold = random.chance(15) ? 1 + random.below(6) : 0;
    const tunnelType = method === 'tunnel' ? random.pick(['ipip', 'ipip', 'gue', 'gre'] as const) : 'ipip';
    return {
      address: random.chance(1) ? '198.18.0.1' : random.pick(servers),
      port: method === 'masq' || method === 'fullnat' ? random.pick([key.port, 8080]) : key.port,
      method,
      weight: random.pick([0, 1, 1, 1, 2, 3, 5, 100]),
      upperThreshold,
      lowerThreshold: upperThreshold > 1 ? random.below(upperThreshold) : 0,
      tunnelType,
      tunnelPort: tunnelType === 'gue' ? 6080 : 0,
      tunnelChecksum:
        tunnelType === 'ipip' ? 'nocsum' : random.pick(['nocsum', 'nocsum', 'csum', 'remcsum'] as const),
    };
  }

  #setTimeouts(): Operation {
    const random = this.#random;
    const timeouts = {
      tcp: random.pick([0, 5, 900]),
      tcpFin: random.pick([0, 2]),
      udp: random.pick([0, 3, 300]),
    };
    return { do: 'set timeouts', timeouts };
  }

  #setSetting(): Operation {
    const [name, values] = this.#random.pick(CHANGING);
    return { do: 'set', name, value: String(this.#random.pick(values)) };
  }

  /** One change to what there is. */
  change(): Operation {
    const random = this.#random;
    const target = this.targets.length > 0 ? random.pick(this.targets) : undefined;
    if (!target || random.chance(5)) return this.#addService()[0] as Operation;
    if (random.chance(8)) return this.#setSetting();
    if (random.chance(3)) {
      return {
        do: random.pick(['start daemon', 'stop daemon'] as const),
        role: random.pick(['master', 'backup'] as const),
      };
    }
    const destinations = this.#destinations.get(target) ?? [];
    const destination = destinations.length > 0 ? random.pick(destinations) : undefined;
    const choice = random.below(100);
    if (choice < 5) return this.#setTimeouts();
    if (choice < 8) return { do: 'delete service', key: target.service };
    if (choice < 20) return { do: 'edit service', service: this.#service(target, random.chance(25)) };
    if (!destination || choice < 45) return this.#addDestination(target);
    const { address, port } = destination;
    if (choice < 70) return { do: 'delete destination', key: target.service, address, port };
    return {
      do: 'edit destination',
      key: target.service,
      destination: { ...this.#destination(target), address, port },
    };
  }
}
