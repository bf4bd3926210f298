/** Whatever is configured, `-S -n` writes commands from which `-R` makes the same again. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type {
  DestinationSpecification,
  ServiceKey,
  ServiceSpecification,
  ServiceStatus,
  VirtualServer,
} from '../ipvs/specification.ts';
import { NO_NAMES } from './name-files.ts';
import { runIpvsadm } from './run.ts';
import { SCHEDULERS, TableServer } from './table-server.fixture.ts';

const byte = fc.nat(255);
const ipv4 = fc.tuple(fc.integer({ min: 1, max: 223 }), byte, byte, byte).map(parts => parts.join('.'));
const ipv6 = fc
  .array(fc.integer({ min: 1, max: 0xffff }), { minLength: 3, maxLength: 3 })
  .map(words => `2001:db8::${words.map(word => word.toString(16)).join(':')}`);
const port = fc.integer({ min: 1, max: 65535 });

const key: fc.Arbitrary<ServiceKey> = fc.oneof(
  fc.record({
    protocol: fc.constantFrom('tcp' as const, 'udp' as const, 'sctp' as const),
    address: fc.oneof(ipv4, ipv6),
    port,
  }),
  fc.record({
    mark: fc.integer({ min: 1, max: 0x7fff_ffff }),
    family: fc.constantFrom(4 as const, 6 as const),
  }),
);

function isIpv6(service: ServiceKey): boolean {
  return 'mark' in service ? service.family === 6 : service.address.includes(':');
}

function server(service: ServiceKey): fc.Arbitrary<DestinationSpecification> {
  return fc
    .record({
      address: isIpv6(service) ? ipv6 : ipv4,
      port,
      method: fc.constantFrom('masq' as const, 'gate' as const, 'tunnel' as const, 'fullnat' as const),
      weight: fc.nat(0x7fff_ffff),
      upperThreshold: fc.oneof(fc.constant(0), fc.integer({ min: 100, max: 0x7fff_ffff })),
      lowerThreshold: fc.nat(100),
      tunnelType: fc.constantFrom('ipip' as const, 'gue' as const, 'gre' as const),
      tunnelPort: port,
      tunnelChecksum: fc.constantFrom('nocsum' as const, 'csum' as const, 'remcsum' as const),
    })
    .map(drawn => {
      const isTunnel = drawn.method === 'tunnel';
      const tunnelType = isTunnel ? drawn.tunnelType : 'ipip';
      const keepsPort = (drawn.method === 'gate' || isTunnel) && !('mark' in service);
      return {
        ...drawn,
        lowerThreshold: drawn.upperThreshold === 0 ? 0 : drawn.lowerThreshold,
        port: keepsPort ? service.port : drawn.port,
        tunnelType,
        tunnelPort: tunnelType === 'gue' ? drawn.tunnelPort : 0,
        tunnelChecksum:
          tunnelType === 'ipip' || (tunnelType === 'gre' && drawn.tunnelChecksum === 'remcsum')
            ? 'nocsum'
            : drawn.tunnelChecksum,
      };
    });
}

function service(of: ServiceKey): fc.Arbitrary<ServiceSpecification> {
  const isTcp = !('mark' in of) && of.protocol === 'tcp';
  const isUdp = 'mark' in of || of.protocol === 'udp';
  const wholeMask = isIpv6(of) ? '128' : '255.255.255.255';
  return fc
    .record({
      scheduler: fc.constantFrom(...SCHEDULERS),
      schedulerFlags: fc.constantFrom(0, 0x08, 0x10, 0x18),
      persistenceTimeout: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 2_678_400 })),
      persistenceNetmask: isIpv6(of) ? fc.integer({ min: 1, max: 128 }).map(String) : ipv4,
      persistenceEngine: fc.constantFrom('', 'sip'),
      onePacket: isUdp ? fc.boolean() : fc.constant(false),
      localAddresses: fc.uniqueArray(isIpv6(of) ? ipv6 : ipv4, { maxLength: 2 }),
      onInterface: fc.boolean(),
      synProxy: fc.boolean(),
      clientAddress: fc.constantFrom(undefined, 'none' as const, 'proxy-v2' as const),
    })
    .map(({ localAddresses, onInterface, clientAddress, synProxy, ...drawn }) => ({
      ...drawn,
      key: of,
      persistenceNetmask: drawn.persistenceTimeout === 0 ? wholeMask : drawn.persistenceNetmask,
      ...(localAddresses.length > 0 && {
        localAddresses: localAddresses.map(address => (onInterface ? `${address}%eth0` : address)),
      }),
      ...(clientAddress && isTcp && { clientAddress }),
      ...(synProxy && (isTcp || 'mark' in of) && { synProxy }),
    }));
}

const table = fc.uniqueArray(key, { maxLength: 6, selector: each => JSON.stringify(each) }).chain(keys =>
  fc.tuple(
    ...keys.map(each =>
      fc.record({
        service: service(each),
        servers: fc.uniqueArray(server(each), {
          maxLength: 5,
          selector: ({ address, port: own }) => `${address} ${own}`,
        }),
      }),
    ),
  ),
);

/** As plain data, independent of the order in which things were added. */
function contents(target: VirtualServer): unknown {
  const services: ServiceStatus[] = JSON.parse(JSON.stringify(target.services()));
  return services
    .map(({ destinations, ...rest }) => ({
      ...rest,
      destinations: destinations.toSorted((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1)),
    }))
    .sort((a, b) => (JSON.stringify(a.key) < JSON.stringify(b.key) ? -1 : 1));
}

test('save and restore', () => {
  fc.assert(
    fc.property(table, services => {
      const first = new TableServer();
      for (const each of services) {
        first.addService(each.service);
        for (const own of each.servers) {
          if (each.service.onePacket && own.method === 'fullnat') continue;
          if (each.service.synProxy && (own.method === 'gate' || own.method === 'tunnel')) continue;
          first.addDestination(each.service.key, own);
        }
      }
      const saved = runIpvsadm(['-S', '-n', '--complete'], '', first, NO_NAMES).stdout;
      const second = new TableServer();
      assert.deepEqual(runIpvsadm(['-R'], saved, second, NO_NAMES), { status: 0, stdout: '', stderr: '' });
      assert.deepEqual(contents(second), contents(first));
      // ipvsadm's order is not transitive, hence not always the same.
      const savedAgain = runIpvsadm(['-S', '-n', '--complete'], '', second, NO_NAMES).stdout;
      assert.deepEqual(savedAgain.split('\n').sort(), saved.split('\n').sort());
    }),
    { numRuns: 150 },
  );
});

test('no command line makes it throw', () => {
  const word = fc.oneof(
    fc.string(),
    fc.constantFrom(
      '-A',
      '-a',
      '-L',
      '-R',
      '-t',
      '-r',
      '10.0.0.3:80',
      '-f',
      '1',
      '-6',
      '-p',
      '-M',
      '-b',
      '-w',
      '-n',
      '-i',
      '-P',
      '-G',
      '-z',
      '-j',
      'enable',
    ),
  );
  fc.assert(
    fc.property(fc.array(word, { maxLength: 8 }), fc.string(), (words, stdin) => {
      const { status } = runIpvsadm(words, stdin, new TableServer(), NO_NAMES);
      assert.ok([0, 1, 2, 255].includes(status));
    }),
    { numRuns: 500 },
  );
});
