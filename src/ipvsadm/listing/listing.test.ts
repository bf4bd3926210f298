/** Rows that the real ipvsadm printed, read back into data and printed again. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { goldenExists, goldenJson, goldenNames } from '../../../test/golden.ts';
import type { ConnectionStatus, DestinationStatus, ServiceStatus } from '../../ipvs/specification.ts';
import { NO_NAMES } from '../name-files.ts';
import { PLAIN_FORMAT } from '../parse.ts';
import { NO_STATISTICS } from '../table-server.fixture.ts';
import { listConnections } from './connections.ts';
import { layoutFor } from './layouts.ts';
import { listAllServices } from './services.ts';
import { counterText, endpointText } from './text.ts';

const NUMERIC = { ...PLAIN_FORMAT, numeric: true };

function endpoint(text: string): [string, number] {
  const colon = text.lastIndexOf(':');
  return [text.slice(0, colon).replace(/[[\]]/g, ''), Number(text.slice(colon + 1))];
}

const PROTOCOLS: Readonly<Record<string, number>> = { IP: 0, TCP: 6, UDP: 17, SCTP: 132 };

function readConnection(row: string): ConnectionStatus {
  const [protocol, expires, state, client, virtual, destination, engine, data] = row.trim().split(/ +/);
  const [minutes, seconds] = (expires ?? '').split(':').map(Number);
  const [clientAddress, clientPort] = endpoint(client ?? '');
  const [virtualAddress, virtualPort] = endpoint(virtual ?? '');
  const [destinationAddress, destinationPort] = endpoint(destination ?? '');
  return {
    protocol: PROTOCOLS[protocol ?? ''] ?? -1,
    state: state ?? '',
    expiresIn: 60 * (minutes ?? 0) + (seconds ?? 0),
    client: clientAddress,
    clientPort,
    virtual: virtualAddress,
    virtualPort,
    destination: destinationAddress,
    destinationPort,
    template: clientPort === 0,
    engine: engine ?? '',
    engineData: data ?? '',
  };
}

interface Scenario {
  steps: { show?: Record<string, string> }[];
}

test('recorded connection listings', { skip: !goldenExists('conns') && 'no recordings' }, () => {
  let rows = 0;
  for (const name of goldenNames('conns')) {
    for (const { show } of goldenJson<Scenario>(`conns/${name}.json`).steps) {
      for (const text of Object.values(show ?? {})) {
        if (!text.startsWith('IPVS connection entries\n')) continue;
        const [, heading = '', ...lines] = text.trimEnd().split('\n');
        const connections = lines.map(readConnection);
        rows += lines.length;
        const persistentConnections = heading.includes('pe name');
        assert.equal(listConnections(connections, { ...NUMERIC, persistentConnections }, NO_NAMES), text);
      }
    }
  }
  assert.ok(rows > 100, `${rows} rows`);
});

test('an engine’s data follows a connection that has some', () => {
  const row =
    'UDP 00:59  UDP         172.16.0.9:5060    10.0.0.3:5060      10.0.0.7:5060    sip                abc@host';
  const text = listConnections([readConnection(row)], { ...NUMERIC, persistentConnections: true }, NO_NAMES);
  assert.equal(text.split('\n')[2], row);
  assert.equal(
    listConnections([readConnection(row)], NUMERIC, NO_NAMES).split('\n')[2],
    'UDP 00:59  UDP         172.16.0.9:5060    10.0.0.3:5060      10.0.0.7:5060',
  );
});

test('counters shorten', () => {
  const shortened: [number, string][] = [
    [0, '        0'],
    [99_999_999, ' 99999999'],
    [100_000_000, '  100000K'],
    [999_999_999, '  999999K'],
    [1_000_000_000, '    1000M'],
    [99_999_999_999, '   99999M'],
    [100_000_000_000, '     100G'],
    [99_999_999_999_999, '   99999G'],
    [100_000_000_000_000, '     100T'],
  ];
  for (const [value, text] of shortened) assert.equal(counterText(value, false), text);
  assert.equal(counterText(12_345_678, true), ' 12345678');
  assert.equal(counterText(123_456_789, true), ' 123456789');
  assert.equal(counterText(2 ** 70, true), ' 1180591620717411303424');
});

const SERVER: DestinationStatus = {
  address: '10.0.0.7',
  port: 80,
  method: 'masq',
  weight: 1,
  upperThreshold: 0,
  lowerThreshold: 0,
  tunnelType: 'ipip',
  tunnelPort: 0,
  tunnelChecksum: 'nocsum',
  activeConnections: 0,
  inactiveConnections: 0,
  persistentConnections: 0,
  statistics: {
    ...NO_STATISTICS,
    connectionRate: 123_456_789,
    inPacketRate: 1,
    outPacketRate: 2,
    inByteRate: 123_456_789,
    outByteRate: 3,
  },
};

test('a server’s rates are shortened only where ipvsadm does', () => {
  assert.equal(
    layoutFor({ ...NUMERIC, rate: true }).server(SERVER),
    ' 123456789        1        2  123456K        3',
  );
});

test('long names are cut where ipvsadm cuts them', () => {
  const service: ServiceStatus = {
    key: { protocol: 'tcp', address: '10.0.0.3', port: 80 },
    scheduler: 'rr',
    schedulerFlags: 0,
    persistenceTimeout: 0,
    persistenceNetmask: '255.255.255.255',
    persistenceEngine: '',
    onePacket: false,
    statistics: NO_STATISTICS,
    destinations: [SERVER],
  };
  const names = { ...NO_NAMES, hostName: () => 'a-host-with-a-name-of-some-length.example.com' };
  const [, , , row, server] = listAllServices([service], 4096, PLAIN_FORMAT, names).split('\n');
  assert.equal(row, 'TCP  a-host-with-a-name-of-some-l rr');
  assert.equal(server, '  -> a-host-with-a-name-of-some-l Masq    1      0          0         ');
});

test('IPv4-compatible addresses print as inet_ntop prints them', () => {
  const print = (address: string) => endpointText(address, 80, 'tcp', true, NO_NAMES);
  assert.equal(print('::a00:3'), '[::10.0.0.3]:80');
  assert.equal(print('::1'), '[::1]:80');
  assert.equal(print('::ffff:10.0.0.3'), '[::ffff:10.0.0.3]:80');
});
