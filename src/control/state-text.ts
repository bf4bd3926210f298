/**
 * The JSON of a desired state, as the daemon keeps it and as people write it for `dirigo plan` and `dirigo apply`: what
 * is left out has the default that `ipvsadm` gives it, and what makes no sense is refused with the place it stands at.
 *
 * Here only the form is checked; whether a server takes the values is seen when they are tried on one (`draft.ts`).
 */
import {
  type DestinationSpecification,
  parseServiceKey,
  type ServiceKey,
  type ServiceSpecification,
  type SyncDaemon,
  type Timeouts,
} from '../ipvs/specification.ts';
import { parseSchedulerFlags } from '../ipvsadm/values.ts';
import { familyOf, parseAddress } from '../wire/address.ts';
import type { DesiredService, DesiredState } from './desired-state.ts';

/** A text that is no state; the message says where and what. */
export class StateTextError extends Error {
  override name = 'StateTextError';
}

/** A state of which parts may be missing. */
export interface PartialState extends Partial<DesiredState> {
  /** The order of services and servers says nothing: those that stay keep theirs, and new ones come last. */
  unordered?: true;
}

/** What stands in a snapshot. @throws StateTextError, SyntaxError */
export function parseStoredState(text: string): { state: DesiredState; revision: number } {
  const fields = asObject('', JSON.parse(text), [...STATE_FIELDS, 'revision']);
  const { timeouts, syncDaemons, settings = {}, marks = [], pins = [], services } = parseFields(fields);
  if (!timeouts || !syncDaemons || !services) {
    throw new StateTextError('timeouts, syncDaemons and services have to be there');
  }
  const revision = fields.revision === undefined ? 0 : wholeNumber('revision', fields.revision);
  return { state: { version: 1, timeouts, syncDaemons, settings, marks, pins, services }, revision };
}

/**
 * What a file written by a person says.
 * @throws StateTextError
 */
export function parseStateText(text: string): PartialState {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new StateTextError(`it is no JSON: ${(error as Error).message}`);
  }
  return parseFields(asObject('', value, [...STATE_FIELDS, 'revision']));
}

const STATE_FIELDS = ['version', 'timeouts', 'syncDaemons', 'settings', 'marks', 'pins', 'services'] as const;

function parseFields(fields: Record<string, unknown>): PartialState {
  const { version, timeouts, syncDaemons, settings, marks, pins, services } = fields;
  if (version !== 1) {
    throw new StateTextError(
      version === undefined
        ? 'version has to be 1'
        : `version ${JSON.stringify(version)} is not known: it has to be 1`,
    );
  }
  return {
    version: 1,
    ...(timeouts !== undefined && { timeouts: parseTimeouts('timeouts', timeouts) }),
    ...(syncDaemons !== undefined && {
      syncDaemons: asArray('syncDaemons', syncDaemons).map((each, at) =>
        parseDaemon(`syncDaemons[${at}]`, each),
      ),
    }),
    ...(settings !== undefined && { settings: parseSettings(settings) }),
    ...(marks !== undefined && {
      marks: asArray('marks', marks).map((each, at) => asText(`marks[${at}]`, each)),
    }),
    ...(pins !== undefined && {
      pins: asArray('pins', pins).map((each, at) => asText(`pins[${at}]`, each)),
    }),
    ...(services !== undefined && {
      services: asArray('services', services).map((each, at) => parseService(`services[${at}]`, each)),
    }),
  };
}

function parseTimeouts(at: string, value: unknown): Timeouts {
  const { tcp, tcpFin, udp } = asObject(at, value, ['tcp', 'tcpFin', 'udp']);
  return {
    tcp: wholeNumber(`${at}.tcp`, tcp),
    tcpFin: wholeNumber(`${at}.tcpFin`, tcpFin),
    udp: wholeNumber(`${at}.udp`, udp),
  };
}

function parseSettings(value: unknown): Record<string, number> {
  const given = asObject('settings', value);
  return Object.fromEntries(
    Object.keys(given)
      .sort()
      .map(name => [name, wholeNumber(`settings.${name}`, given[name])]),
  );
}

function parseDaemon(at: string, value: unknown): SyncDaemon {
  const given = asObject(at, value, [
    'role',
    'interfaceName',
    'syncId',
    'maximumLength',
    'group',
    'port',
    'ttl',
  ]);
  return {
    role: oneOf(`${at}.role`, given.role, ['master', 'backup']),
    interfaceName: asText(`${at}.interfaceName`, given.interfaceName ?? 'eth0'),
    syncId: wholeNumber(`${at}.syncId`, given.syncId ?? 0),
    maximumLength: wholeNumber(`${at}.maximumLength`, given.maximumLength ?? 0),
    group: asText(`${at}.group`, given.group ?? '224.0.0.81'),
    port: wholeNumber(`${at}.port`, given.port ?? 8848),
    ttl: wholeNumber(`${at}.ttl`, given.ttl ?? 1),
  };
}

const SERVICE_FIELDS = [
  'key',
  'scheduler',
  'schedulerFlags',
  'persistenceTimeout',
  'persistenceNetmask',
  'persistenceEngine',
  'onePacket',
  'localAddresses',
  'clientAddress',
  'synProxy',
  'destinations',
];

export function parseService(at: string, value: unknown): DesiredService {
  const given = asObject(at, value, SERVICE_FIELDS);
  const key = parseKey(`${at}.key`, given.key);
  const isIpv6 = 'mark' in key ? key.family === 6 : familyOf(key.address) === 6;
  const scheduler = asText(`${at}.scheduler`, given.scheduler ?? 'wlc');
  const service: ServiceSpecification = {
    key,
    scheduler,
    schedulerFlags: parseFlags(`${at}.schedulerFlags`, given.schedulerFlags ?? 0, scheduler),
    persistenceTimeout: wholeNumber(`${at}.persistenceTimeout`, given.persistenceTimeout ?? 0),
    persistenceNetmask: asText(
      `${at}.persistenceNetmask`,
      given.persistenceNetmask ?? (isIpv6 ? '128' : '255.255.255.255'),
    ),
    persistenceEngine: asText(`${at}.persistenceEngine`, given.persistenceEngine ?? ''),
    onePacket: asBoolean(`${at}.onePacket`, given.onePacket ?? false),
  };
  if (given.localAddresses !== undefined) {
    service.localAddresses = asArray(`${at}.localAddresses`, given.localAddresses).map((each, index) =>
      asText(`${at}.localAddresses[${index}]`, each),
    );
  }
  if (given.clientAddress !== undefined) {
    service.clientAddress = oneOf(`${at}.clientAddress`, given.clientAddress, [
      'none',
      'toa',
      'proxy-v1',
      'proxy-v2',
    ]);
  }
  if (given.synProxy !== undefined) service.synProxy = asBoolean(`${at}.synProxy`, given.synProxy);
  const destinations = asArray(`${at}.destinations`, given.destinations).map((each, index) =>
    parseDestination(`${at}.destinations[${index}]`, each, key),
  );
  return { ...service, destinations };
}

/** An object, or text: `tcp 10.0.0.3:80`, `fwm 1`. */
function parseKey(at: string, value: unknown): ServiceKey {
  if (typeof value === 'string') {
    const key = parseServiceKey(value);
    if (key) return key;
    throw wrong(at, value, 'a service such as "tcp 10.0.0.3:80", "udp [2001:db8::3]:53" or "fwm 1"');
  }
  const given = asObject(at, value, ['protocol', 'address', 'port', 'mark', 'family']);
  if (given.mark !== undefined) {
    asObject(at, value, ['mark', 'family']);
    const family = wholeNumber(`${at}.family`, given.family ?? 4);
    if (family !== 4 && family !== 6) throw wrong(`${at}.family`, family, '4 or 6');
    return { mark: wholeNumber(`${at}.mark`, given.mark), family };
  }
  asObject(at, value, ['protocol', 'address', 'port']);
  return {
    protocol: oneOf(`${at}.protocol`, given.protocol, ['tcp', 'udp', 'sctp']),
    address: asAddress(`${at}.address`, given.address),
    port: wholeNumber(`${at}.port`, given.port),
  };
}

/** A sum of `SchedulerFlag`, or names as `ipvsadm -b` takes them. */
function parseFlags(at: string, value: unknown, scheduler: string): number {
  if (typeof value !== 'string') return wholeNumber(at, value);
  const flags = value === '' ? 0 : parseSchedulerFlags(value, scheduler);
  if (typeof flags === 'string') throw new StateTextError(`${at.replace(/^\./, '')}: ${flags}`);
  return flags;
}

const DESTINATION_FIELDS = [
  'address',
  'port',
  'method',
  'weight',
  'upperThreshold',
  'lowerThreshold',
  'tunnelType',
  'tunnelPort',
  'tunnelChecksum',
];

export function parseDestination(at: string, value: unknown, service: ServiceKey): DestinationSpecification {
  const given = asObject(at, value, DESTINATION_FIELDS);
  const servicePort = 'mark' in service ? 0 : service.port;
  const method = oneOf(`${at}.method`, given.method ?? 'gate', ['masq', 'gate', 'tunnel', 'fullnat']);
  const port = wholeNumber(`${at}.port`, given.port ?? servicePort);
  if ((method === 'gate' || method === 'tunnel') && !('mark' in service) && port !== servicePort) {
    throw wrong(`${at}.port`, port, `${servicePort}, the service's: "${method}" does not change ports`);
  }
  return {
    address: asAddress(`${at}.address`, given.address),
    port,
    method,
    weight: wholeNumber(`${at}.weight`, given.weight ?? 1),
    upperThreshold: wholeNumber(`${at}.upperThreshold`, given.upperThreshold ?? 0),
    lowerThreshold: wholeNumber(`${at}.lowerThreshold`, given.lowerThreshold ?? 0),
    tunnelType: oneOf(`${at}.tunnelType`, given.tunnelType ?? 'ipip', ['ipip', 'gue', 'gre']),
    tunnelPort: wholeNumber(`${at}.tunnelPort`, given.tunnelPort ?? 0),
    tunnelChecksum: oneOf(`${at}.tunnelChecksum`, given.tunnelChecksum ?? 'nocsum', [
      'nocsum',
      'csum',
      'remcsum',
    ]),
  };
}

function wrong(at: string, value: unknown, expected: string): StateTextError {
  const shown = value === undefined ? 'is missing' : `is ${JSON.stringify(value).slice(0, 80)}`;
  // What stands in nothing begins with the dot before its name.
  return new StateTextError(`${at.replace(/^\./, '') || 'it'} ${shown}: it has to be ${expected}`);
}

/** @param fields those it may have; undefined: any */
function asObject(at: string, value: unknown, fields?: readonly string[]): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw wrong(at, value, 'an object');
  const unknown = fields && Object.keys(value).find(name => !fields.includes(name));
  if (unknown !== undefined) {
    const place = at === '' ? '' : `${at}.`;
    throw new StateTextError(`${place}${unknown} is not known; there are ${fields?.join(', ')}`);
  }
  return value as Record<string, unknown>;
}

function asArray(at: string, value: unknown): unknown[] {
  if (!Array.isArray(value)) throw wrong(at, value, 'a list');
  return value;
}

function asText(at: string, value: unknown): string {
  if (typeof value !== 'string') throw wrong(at, value, 'text');
  return value;
}

function asAddress(at: string, value: unknown): string {
  if (typeof value !== 'string' || !parseAddress(value)) throw wrong(at, value, 'an IP address');
  return value;
}

function asBoolean(at: string, value: unknown): boolean {
  if (typeof value !== 'boolean') throw wrong(at, value, 'true or false');
  return value;
}

function wholeNumber(at: string, value: unknown): number {
  if (typeof value !== 'number' || !Number.isInteger(value)) throw wrong(at, value, 'a whole number');
  return value;
}

function oneOf<Word extends string>(at: string, value: unknown, words: readonly Word[]): Word {
  const found = words.find(word => word === value);
  if (found === undefined) throw wrong(at, value, words.join(', ').replace(/, ([^,]*)$/, ' or $1'));
  return found;
}
