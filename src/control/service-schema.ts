/** Services, servers and connections as the API takes and shows them. */
import { MAXIMUM_TIMEOUT } from '../ipvs/service-checks.ts';
import { boolean, count, either, list, object, optional, text, wholeNumber, word } from './schema.ts';

const GREATEST_INT = 0x7fff_ffff;

const PORT = wholeNumber(0, 65_535);
const ADDRESS = text({ minLength: 2, maxLength: 64, expected: 'an IP address', examples: ['10.0.0.7'] });

export const SERVICE_KEY = either(
  object(
    {
      protocol: word(['tcp', 'udp', 'sctp']),
      address: { ...ADDRESS, examples: ['10.0.0.3'] },
      port: { ...PORT, description: '0: any port.' },
    },
    { title: 'Endpoint' },
  ),
  object(
    { mark: wholeNumber(1, 0xffff_ffff), family: optional(wholeNumber(4, 6, { default: 4 })) },
    { title: 'FirewallMark' },
  ),
  { description: 'What a service is known by.' },
);

const SERVICE = {
  scheduler: text({
    maxLength: 16,
    description: 'rr wrr lc wlc lblc lblcr dh sh mh sed nq fo ovf twos.',
    examples: ['rr', 'wlc', 'sh'],
  }),
  schedulerFlags: either(
    wholeNumber(0, 0x38, { description: 'A sum of 8, 16 and 32.' }),
    text({ maxLength: 64, description: 'Names, as `ipvsadm -b` takes them.', examples: ['sh-port'] }),
  ),
  persistenceTimeout: wholeNumber(0, MAXIMUM_TIMEOUT, { description: 'Seconds; 0: not persistent.' }),
  persistenceNetmask: text({
    maxLength: 40,
    description: 'Which clients count as one: a mask for IPv4, the length of a prefix for IPv6.',
    examples: ['255.255.255.0', '64'],
  }),
  persistenceEngine: text({ maxLength: 16, description: '`sip`, or empty.', examples: [''] }),
  onePacket: boolean({ description: 'Every datagram is scheduled anew (UDP).' }),
  localAddresses: list(text({ maxLength: 80 }), {
    maxItems: 256,
    description: 'Of FULLNAT: `10.0.0.50`, or `10.0.0.50%eth1` with the interface that it is meant for.',
  }),
  clientAddress: word(['none', 'toa', 'proxy-v1', 'proxy-v2'], {
    description: 'How servers behind FULLNAT learn the client’s address.',
  }),
  synProxy: boolean({
    description:
      'SYNs are answered by the director, and servers of NAT and FULLNAT see only clients that are there (TCP).',
  }),
};

const DESTINATION = {
  method: word(['masq', 'gate', 'tunnel', 'fullnat']),
  weight: wholeNumber(0, GREATEST_INT, { description: '0: quiesced.' }),
  upperThreshold: wholeNumber(0, GREATEST_INT, {
    description: 'Overloaded from this many connections on; 0: never.',
  }),
  lowerThreshold: wholeNumber(0, GREATEST_INT, {
    description: 'No longer overloaded below this many; 0: three quarters of the upper one.',
  }),
  tunnelType: word(['ipip', 'gue', 'gre']),
  tunnelPort: wholeNumber(0, 65_535, { description: 'UDP port of a GUE tunnel.' }),
  tunnelChecksum: word(['nocsum', 'csum', 'remcsum']),
};

const DESTINATION_PROPERTIES = {
  method: optional({ ...DESTINATION.method, default: 'gate' as const }),
  weight: optional({ ...DESTINATION.weight, default: 1 }),
  upperThreshold: optional({ ...DESTINATION.upperThreshold, default: 0 }),
  lowerThreshold: optional({ ...DESTINATION.lowerThreshold, default: 0 }),
  tunnelType: optional({ ...DESTINATION.tunnelType, default: 'ipip' as const }),
  tunnelPort: optional({ ...DESTINATION.tunnelPort, default: 0 }),
  tunnelChecksum: optional({ ...DESTINATION.tunnelChecksum, default: 'nocsum' as const }),
};

/** All but what it is known by; what is missing has the default that `ipvsadm` gives it. */
export const DESTINATION_CHANGE = object(DESTINATION_PROPERTIES, { title: 'DestinationProperties' });

export const NEW_DESTINATION = object(
  {
    address: ADDRESS,
    port: optional({ ...PORT, description: 'Default: the service’s.' }),
    ...DESTINATION_PROPERTIES,
  },
  { title: 'NewDestination' },
);

const SERVICE_PROPERTIES = {
  scheduler: optional({ ...SERVICE.scheduler, default: 'wlc' }),
  schedulerFlags: optional({ ...SERVICE.schedulerFlags, default: 0 }),
  persistenceTimeout: optional({ ...SERVICE.persistenceTimeout, default: 0 }),
  persistenceNetmask: optional(SERVICE.persistenceNetmask),
  persistenceEngine: optional({ ...SERVICE.persistenceEngine, default: '' }),
  onePacket: optional({ ...SERVICE.onePacket, default: false }),
  localAddresses: optional(SERVICE.localAddresses),
  clientAddress: optional(SERVICE.clientAddress),
  synProxy: optional(SERVICE.synProxy),
};

export const SERVICE_CHANGE = object(SERVICE_PROPERTIES, { title: 'ServiceProperties' });

export const NEW_SERVICE = object(
  {
    key: either(
      SERVICE_KEY,
      text({ maxLength: 80, description: 'The same as text.', examples: ['tcp 10.0.0.3:80', 'fwm 1'] }),
    ),
    ...SERVICE_PROPERTIES,
    destinations: optional(list(NEW_DESTINATION, { description: 'In the order in which they are added.' })),
  },
  { title: 'NewService' },
);

export const STATISTICS = object(
  {
    connections: count(),
    inPackets: count(),
    outPackets: count(),
    inBytes: count(),
    outBytes: count(),
    connectionRate: count({ description: 'A second, as are the other rates.' }),
    inPacketRate: count(),
    outPacketRate: count(),
    inByteRate: count(),
    outByteRate: count(),
  },
  { title: 'Statistics', description: 'Totals since the last zeroing, and rates.' },
);

export const DESTINATION_STATUS = object(
  {
    address: ADDRESS,
    port: PORT,
    ...DESTINATION,
    activeConnections: count(),
    inactiveConnections: count(),
    persistentConnections: count(),
    statistics: STATISTICS,
  },
  { title: 'Destination' },
);

export const SERVICE_STATUS = object(
  {
    key: SERVICE_KEY,
    ...SERVICE,
    schedulerFlags: wholeNumber(0, 0x38),
    localAddresses: optional(SERVICE.localAddresses),
    clientAddress: optional(SERVICE.clientAddress),
    synProxy: optional(SERVICE.synProxy),
    statistics: STATISTICS,
    destinations: list(DESTINATION_STATUS, { description: 'Newest first.' }),
    localAddressUse: optional(
      list(
        object(
          {
            address: ADDRESS,
            interfaceName: text(),
            connections: count({ description: 'That have one of its ports.' }),
            refused: count({ description: 'New ones for which it had no port left.' }),
          },
          { title: 'LocalAddressUse' },
        ),
      ),
    ),
  },
  { title: 'Service' },
);

export const CONNECTION = object(
  {
    protocol: wholeNumber(0, 255, { description: 'IP protocol; 0: a template of a firewall mark.' }),
    state: text({ examples: ['ESTABLISHED'] }),
    expiresIn: count({ description: 'Seconds.' }),
    client: ADDRESS,
    clientPort: PORT,
    virtual: ADDRESS,
    virtualPort: PORT,
    destination: ADDRESS,
    destinationPort: PORT,
    template: boolean({ description: 'A persistence template.' }),
    engine: text({ description: 'Persistence engine, empty without one.' }),
    engineData: text(),
  },
  { title: 'Connection' },
);
