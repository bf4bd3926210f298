/**
 * The desired state: all that an administrator configured, as plain data. It is what the daemon keeps on disk, what
 * `dirigo plan` compares and what `dirigo apply` brings about.
 */
import type { Director } from '../ipvs/director.ts';
import { formatMarkRule } from '../ipvs/mark-rules.ts';
import { formatPin } from '../ipvs/pins.ts';
import type { Service } from '../ipvs/service-table.ts';
import { DEFAULT_SETTINGS, settingName } from '../ipvs/settings.ts';
import type {
  DestinationSpecification,
  ServiceSpecification,
  SyncDaemon,
  Timeouts,
} from '../ipvs/specification.ts';

/** A service with its destinations, oldest first: adding them in this order brings back the director's. */
export type DesiredService = ServiceSpecification & { destinations: readonly DestinationSpecification[] };

export interface DesiredState {
  version: 1;
  timeouts: Timeouts;
  syncDaemons: readonly SyncDaemon[];
  /** Settings that are not at their default. */
  settings: Readonly<Record<string, number>>;
  /** Rules of firewall marks, as `parseMarkRule` reads them. */
  marks: readonly string[];
  /** Static bindings of addresses to MACs, as `parsePin` reads them. */
  pins: readonly string[];
  /** Oldest first. */
  services: readonly DesiredService[];
}

/** What the director is configured to be. */
export function captureState(director: Director): DesiredState {
  return {
    version: 1,
    ...captureSections(director),
    services: [...director.administration.serviceObjects()].reverse().map(captureService),
  };
}

/** All but the services. */
export function captureSections(director: Director): Omit<DesiredState, 'version' | 'services'> {
  const settings = Object.entries(director.settings)
    .filter(([name, value]) => value !== DEFAULT_SETTINGS[settingName(name)])
    .sort(([one], [other]) => (one < other ? -1 : 1));
  return {
    timeouts: director.administration.timeouts(),
    syncDaemons: director.administration.syncDaemons(),
    settings: Object.fromEntries(settings),
    marks: director.marks.rules.map(formatMarkRule),
    pins: director.pins.map(formatPin),
  };
}

/** Its properties always stand in the same order, so that the same service gives the same JSON. */
export function captureService({ specification, destinations }: Service): DesiredService {
  const { localAddresses = [], clientAddress, synProxy, key } = specification;
  return {
    key: 'mark' in key ? { mark: key.mark, family: key.family } : { ...addressKey(key) },
    scheduler: specification.scheduler,
    schedulerFlags: specification.schedulerFlags,
    persistenceTimeout: specification.persistenceTimeout,
    persistenceNetmask: specification.persistenceNetmask,
    persistenceEngine: specification.persistenceEngine,
    onePacket: specification.onePacket,
    ...(localAddresses.length > 0 && { localAddresses }),
    ...(clientAddress !== undefined && { clientAddress }),
    ...(synProxy && { synProxy }),
    destinations: destinations.map(each => captureDestination(each.specification)).reverse(),
  };
}

function addressKey({ protocol, address, port }: Exclude<ServiceSpecification['key'], { mark: number }>) {
  return { protocol, address, port };
}

export function captureDestination(destination: DestinationSpecification): DestinationSpecification {
  return {
    address: destination.address,
    port: destination.port,
    method: destination.method,
    weight: destination.weight,
    upperThreshold: destination.upperThreshold,
    lowerThreshold: destination.lowerThreshold,
    tunnelType: destination.tunnelType,
    tunnelPort: destination.tunnelPort,
    tunnelChecksum: destination.tunnelChecksum,
  };
}
