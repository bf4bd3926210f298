/** The director chooses a server while the XDP program, on another CPU, enters the same connection. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ethernetFrame, ipv4Packet, tcpSegment } from '../../test/frames.ts';
import { EtherType } from '../wire/ethernet.ts';
import { Protocol } from '../wire/ipv4.ts';
import { TcpFlag } from '../wire/tcp.ts';
import { ConnectionKey } from './connection-key.ts';
import { ConnectionFlag } from './connections.ts';
import { Forwarding } from './destinations.ts';
import { addressOf, addService, makeBench, PLAIN_SERVER, readdressed } from './director.fixture.ts';
import { Verdict } from './director.ts';
import { Drop } from './drops.ts';

const CLIENT = '10.1.0.1';
const VIP = '10.0.0.3';

test('a connection that another CPU enters at the same moment is the one that the packet goes by', () => {
  let meanwhile = (): void => {};
  // The scheduler `twos` asks for random numbers: after the lookup, before the connection is entered.
  const bench = makeBench({
    random: () => {
      meanwhile();
      meanwhile = () => {};
      return 0;
    },
  });
  const { director } = bench;
  const { connections, destinations, administration } = director;
  const key = addService(bench, 'tcp', 4, 80, {}, 'twos');
  administration.addDestination(key, { ...PLAIN_SERVER, address: '10.0.0.8', port: 80 });
  const other = director.pool.owners.findIndex(owner => owner?.specification.address === '10.0.0.7');
  const frame = (port: number): Uint8Array => {
    const fields = { sourcePort: port, destinationPort: 80, flags: TcpFlag.syn };
    return readdressed(
      ethernetFrame(EtherType.ipv4, ipv4Packet(Protocol.tcp, tcpSegment(4, fields))),
      CLIENT,
      VIP,
    );
  };
  const raw = (address: string): number => new DataView(addressOf(address).slice().buffer).getInt32(0, true);

  // Random numbers that are all 0 choose the server that was added last.
  assert.equal(bench.receive(frame(40_000)).sent[0]?.[5], 8);

  meanwhile = () => {
    const entered = new ConnectionKey();
    entered.client0 = raw(CLIENT);
    entered.virtual0 = raw(VIP);
    entered.ports = 0x419c | (0x5000 << 16);
    entered.protocol = Protocol.tcp;
    const slot = connections.allocate(
      entered,
      Forwarding.gate | ConnectionFlag.noOutput | ConnectionFlag.inactive,
    );
    connections.setDestination(slot, other, 0x5000);
    connections.setExpires(slot, connections.tick(60_000));
    destinations.addInactive(other, 1);
    assert.ok(connections.publish(slot));
  };
  const { verdict, sent } = bench.receive(frame(40_001));
  assert.equal(verdict, Verdict.taken);
  assert.equal(sent[0]?.[5], 7);
  assert.equal(director.drops[Drop.tableFull], 0);
  assert.equal(connections.size, 2);
  assert.deepEqual(
    [0, 1].map(index => destinations.active(index) + destinations.inactive(index)),
    [1, 1],
  );
});
