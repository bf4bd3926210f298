import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatAddress } from '../wire/address.ts';
import { type HostAddresses, ServiceTable, type ServiceTableListener } from './service-table.ts';
import {
  type DestinationSpecification,
  IpvsError,
  type IpvsErrorCode,
  type ServiceKey,
  type ServiceSpecification,
  type SyncDaemon,
} from './specification.ts';

const host: HostAddresses = {
  isLocal: address => ['10.0.0.1', 'fe80::1', '127.0.0.1'].includes(formatAddress(address)),
  isBroadcast: address => formatAddress(address) === '10.0.0.255',
  interfaceMtu: name => ({ lo: 65536, eth0: 1500, tiny: 600 })[name],
};

const http: ServiceKey = { protocol: 'tcp', address: '10.0.0.3', port: 80 };
const http6: ServiceKey = { protocol: 'tcp', address: '2001:db8::3', port: 80 };

function service(key: ServiceKey, changes: Partial<ServiceSpecification> = {}): ServiceSpecification {
  const isIpv6 = 'mark' in key ? key.family === 6 : key.address.includes(':');
  return {
    key,
    scheduler: 'rr',
    schedulerFlags: 0,
    persistenceTimeout: 0,
    persistenceNetmask: isIpv6 ? '128' : '255.255.255.255',
    persistenceEngine: '',
    onePacket: false,
    ...changes,
  };
}

function server(address: string, changes: Partial<DestinationSpecification> = {}): DestinationSpecification {
  return {
    address,
    port: 80,
    method: 'gate',
    weight: 1,
    upperThreshold: 0,
    lowerThreshold: 0,
    tunnelType: 'ipip',
    tunnelPort: 0,
    tunnelChecksum: 'nocsum',
    ...changes,
  };
}

const daemon: SyncDaemon = {
  role: 'master',
  interfaceName: 'eth0',
  syncId: 0,
  maximumLength: 0,
  group: '224.0.0.81',
  port: 8848,
  ttl: 1,
};

function table(listener?: Partial<ServiceTableListener>): ServiceTable {
  const ignore = (): void => {};
  return new ServiceTable({
    schedulers: new Set(['rr', 'wlc']),
    host,
    listener: {
      serviceAdded: ignore,
      serviceEdited: ignore,
      localAddressesChanged: ignore,
      serviceDeleted: ignore,
      destinationAdded: ignore,
      destinationEdited: ignore,
      destinationDeleted: ignore,
      destinationsReplaced: ignore,
      servicesArranged: ignore,
      ...listener,
    },
  });
}

function refuses(code: IpvsErrorCode, work: () => unknown): void {
  assert.throws(work, (error: unknown) => error instanceof IpvsError && error.code === code);
}

test('services and destinations are kept newest first, under canonical keys', () => {
  const services = table();
  services.add(service(http));
  services.add(service({ protocol: 'tcp', address: '2001:DB8:0::3', port: 80 }));
  assert.deepEqual(
    services.services().map(({ name }) => name),
    ['tcp [2001:db8::3]:80', 'tcp 10.0.0.3:80'],
  );
  assert.ok(services.find(http6));
  for (const last of [7, 8, 9]) services.addDestination(http, server(`10.0.0.${last}`));
  services.deleteDestination(http, '10.0.0.8', 80);
  assert.deepEqual(
    services.find(http)?.destinations.map(({ specification }) => specification.address),
    ['10.0.0.9', '10.0.0.7'],
  );
});

test('what is there twice or not at all', () => {
  const services = table();
  refuses('ESRCH', () => services.edit(service(http)));
  refuses('ESRCH', () => services.delete(http));
  refuses('ESRCH', () => services.addDestination(http, server('10.0.0.7')));
  services.add(service(http));
  refuses('EEXIST', () => services.add(service(http, { scheduler: 'none such' })));
  services.addDestination(http, server('10.0.0.7'));
  refuses('EEXIST', () => services.addDestination(http, server('10.0.0.7', { weight: 5 })));
  refuses('ENOENT', () => services.editDestination(http, server('10.0.0.7', { port: 81 })));
  refuses('ENOENT', () => services.deleteDestination(http, '10.0.0.8', 80));
});

test('a service the kernel would not take', () => {
  const services = table();
  const refused: [IpvsErrorCode, ServiceSpecification][] = [
    ['ENOENT', service(http, { scheduler: 'RR' })],
    ['ENOENT', service(http, { persistenceEngine: 'dns' })],
    ['EINVAL', service(http, { persistenceTimeout: 2_678_401 })],
    ['EINVAL', service(http, { persistenceTimeout: 1.5 })],
    ['EINVAL', service(http, { persistenceNetmask: '24' })],
    ['EINVAL', service(http6, { persistenceNetmask: '129' })],
    ['EINVAL', service(http6, { persistenceNetmask: '0' })],
    ['EINVAL', service({ ...http, address: 'nowhere' })],
    ['EINVAL', service({ ...http, port: 65536 })],
    ['EINVAL', service({ mark: 0, family: 4 })],
    ['EINVAL', service({ mark: 2 ** 32, family: 4 })],
  ];
  for (const [code, specification] of refused) refuses(code, () => services.add(specification));
  assert.equal(services.size, 0);
  services.add(service(http, { scheduler: 'none' }));
});

test('an edit that is refused changes nothing', () => {
  const services = table();
  services.add(service(http, { persistenceTimeout: 20 }));
  refuses('ENOENT', () => services.edit(service(http, { scheduler: 'nope' })));
  assert.equal(services.find(http)?.specification.persistenceTimeout, 20);
});

test('a destination the kernel would not take', () => {
  const services = table();
  services.add(service(http));
  services.add(service(http6));
  const refused: [IpvsErrorCode, ServiceKey, DestinationSpecification][] = [
    ['EINVAL', http, server('0.0.0.0')],
    ['EINVAL', http, server('255.255.255.255')],
    ['EINVAL', http, server('239.1.1.1')],
    ['EINVAL', http, server('10.0.0.255')],
    ['EINVAL', http, server('10.0.0.256')],
    ['EINVAL', http, server('10.0.0.7', { port: -1 })],
    ['EINVAL', http6, server('::')],
    ['EINVAL', http6, server('ff02::1')],
    ['EINVAL', http6, server('fe80::7')],
    ['EINVAL', http6, server('::ffff:10.0.0.7')],
    ['EINVAL', http6, server('10.0.0.7')],
    ['EINVAL', http, server('2001:db8::7', { method: 'masq' })],
    ['EINVAL', http, server('10.0.0.7', { method: 'tunnel', tunnelType: 'gue' })],
    ['ERANGE', http, server('10.0.0.7', { weight: -1 })],
    ['ERANGE', http, server('10.0.0.7', { weight: 2 ** 31 })],
    ['ERANGE', http, server('10.0.0.7', { lowerThreshold: 5 })],
    ['ERANGE', http, server('10.0.0.7', { lowerThreshold: 6, upperThreshold: 5 })],
  ];
  for (const [code, key, specification] of refused) {
    refuses(code, () => services.addDestination(key, specification));
  }
  for (const key of [http, http6]) assert.equal(services.find(key)?.destinations.length, 0);
  services.addDestination(http6, server('fe80::1'));
  services.addDestination(http, server('10.0.0.1'));
  services.addDestination(http, server('240.0.0.1'));
  services.addDestination(http, server('2001:db8::7', { method: 'tunnel' }));
});

test('a listener that refuses a change undoes it', () => {
  const full = (): never => {
    throw new IpvsError('ENOMEM', 'full');
  };
  const services = table({ destinationAdded: full, destinationEdited: full, serviceEdited: full });
  services.add(service(http));
  refuses('ENOMEM', () => services.edit(service(http, { scheduler: 'wlc' })));
  assert.equal(services.find(http)?.specification.scheduler, 'rr');
  refuses('ENOMEM', () => services.addDestination(http, server('2001:db8::7', { method: 'tunnel' })));
  assert.equal(services.find(http)?.destinations.length, 0);
  services.startSyncDaemon(daemon);
  const closed = table({ serviceAdded: full });
  refuses('ENOMEM', () => closed.add(service(http)));
  assert.equal(closed.size, 0);
});

test('deleting a service tells of each of its destinations first', () => {
  const told: string[] = [];
  const services = table({
    destinationDeleted: ({ specification }, last) => told.push(`${specification.address} ${last}`),
    serviceDeleted: ({ name }) => told.push(name),
  });
  services.add(service(http));
  services.addDestination(http, server('10.0.0.7'));
  services.addDestination(http, server('10.0.0.8'));
  services.flush();
  assert.deepEqual(told, ['10.0.0.8 true', '10.0.0.7 true', 'tcp 10.0.0.3:80']);
  assert.equal(services.size, 0);
});

test('the last weight above 0 is remembered', () => {
  const services = table();
  services.add(service(http));
  const destination = services.addDestination(http, server('10.0.0.7', { weight: 4 }));
  services.editDestination(http, server('10.0.0.7', { weight: 0 }));
  assert.equal(destination.lastWeight, 4);
  assert.equal(destination.specification.weight, 0);
});

test('timeouts: 0 keeps, too large is refused', () => {
  const services = table();
  services.setTimeouts({ tcp: 30, tcpFin: 0, udp: 60 });
  assert.deepEqual(services.timeouts(), { tcp: 30, tcpFin: 120, udp: 60 });
  refuses('EINVAL', () => services.setTimeouts({ tcp: 1, tcpFin: 2_678_401, udp: 0 }));
  assert.deepEqual(services.timeouts(), { tcp: 30, tcpFin: 120, udp: 60 });
});

test('synchronisation daemons: one of each role, lengths cut to what fits', () => {
  const services = table();
  refuses('ESRCH', () => services.stopSyncDaemon('master'));
  refuses('ENODEV', () => services.startSyncDaemon({ ...daemon, interfaceName: 'eth7' }));
  refuses('EINVAL', () => services.startSyncDaemon({ ...daemon, group: '10.0.0.1' }));
  assert.equal(services.startSyncDaemon(daemon).maximumLength, 1472);
  refuses('EEXIST', () => services.startSyncDaemon(daemon));
  refuses('ENETUNREACH', () =>
    table().startSyncDaemon({ ...daemon, interfaceName: 'lo', group: 'ff02::81' }),
  );
  refuses('ENODEV', () => services.startSyncDaemon({ ...daemon, interfaceName: 'eth7' }));
  const backup = { ...daemon, role: 'backup', group: 'ff02::81' } as const;
  assert.equal(services.startSyncDaemon({ ...backup, maximumLength: 100 }).maximumLength, 1024);
  assert.deepEqual(
    services.syncDaemons().map(({ role }) => role),
    ['master', 'backup'],
  );
  services.stopSyncDaemon('backup');
  assert.equal(services.startSyncDaemon({ ...backup, interfaceName: 'lo' }).maximumLength, 65535 - 48);
});

test('servers of another family and synchronisation exclude each other', () => {
  const mixed = server('2001:db8::7', { method: 'tunnel' });
  const services = table();
  services.add(service(http));
  services.addDestination(http, mixed);
  refuses('EINVAL', () => services.startSyncDaemon(daemon));
  services.delete(http);
  services.startSyncDaemon(daemon);
  services.add(service(http));
  refuses('EINVAL', () => services.addDestination(http, mixed));
  services.stopSyncDaemon('master');
  services.addDestination(http, mixed);
});
