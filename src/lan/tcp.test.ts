import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Tcp, TcpFlag } from '../wire/tcp.ts';
import { Host } from './host.ts';
import { Segment } from './segment.ts';
import { Simulation } from './simulation.ts';
import type { TcpConnection, TcpError } from './tcp-connection.ts';

function pair(seed = 1) {
  const simulation = new Simulation({ seed });
  const segment = new Segment(simulation, 'lan');
  const [client, server] = [1, 2].map(last => {
    const host = new Host(simulation, `host${last}`);
    host.addInterface({
      name: 'eth0',
      mac: `02:00:00:00:00:0${last}`,
      segment,
      addresses: [`10.0.0.${last}/24`],
    });
    return host;
  }) as [Host, Host];
  return { simulation, segment, client, server };
}

function pattern(length: number, salt: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => (index * 31 + salt + (index >>> 8)) & 0xff);
}

interface Side {
  connection: TcpConnection | undefined;
  received: number[];
  ended: boolean;
  closed: TcpError | 'orderly' | undefined;
}

function watch(side: Side, connection: TcpConnection): void {
  side.connection = connection;
  connection.onData = data => side.received.push(...data);
  connection.onEnd = () => {
    side.ended = true;
  };
  connection.onClose = error => {
    side.closed = error ?? 'orderly';
  };
}

const newSide = (): Side => ({ connection: undefined, received: [], ended: false, closed: undefined });

/** Opens a connection; both ends are watched. `accepted` runs on the server's end. */
function open(each: ReturnType<typeof pair>, accepted: (connection: TcpConnection) => void = () => {}) {
  const [client, server] = [newSide(), newSide()];
  each.server.tcp.listen({ port: 80 }, connection => {
    watch(server, connection);
    accepted(connection);
  });
  watch(client, each.client.tcp.open({ address: '10.0.0.2', port: 80 }));
  return { client, server };
}

test('a transfer in both directions and an orderly close', () => {
  const each = pair();
  const request = pattern(5000, 1);
  const answer = pattern(200_000, 2);
  const { client, server } = open(each, connection => connection.write(answer));
  client.connection?.write(request);
  each.simulation.advance(1000);
  assert.equal(client.connection?.state, 'ESTABLISHED');
  assert.deepEqual(Uint8Array.from(server.received), request);
  assert.deepEqual(Uint8Array.from(client.received), answer);
  client.connection?.end();
  each.simulation.advance(10);
  assert.equal(server.connection?.state, 'CLOSE-WAIT');
  assert.equal(client.connection?.state, 'FIN-WAIT-2');
  server.connection?.write(pattern(10, 3));
  server.connection?.end();
  each.simulation.advance(10);
  assert.equal(client.connection?.state, 'TIME-WAIT');
  assert.equal(server.connection?.state, 'CLOSED');
  assert.equal(client.received.length, 200_010, 'half-closed, the other side may still send');
  assert.deepEqual([client.closed, server.closed], ['orderly', 'orderly']);
  each.simulation.advance(60_000);
  assert.equal(client.connection?.state, 'CLOSED');
  assert.equal(each.client.tcp.connections().length, 0);
  assert.equal(client.connection?.retransmissions, 0);
});

test('both sides close at the same time', () => {
  const each = pair();
  const { client, server } = open(each);
  each.simulation.advance(10);
  client.connection?.end();
  server.connection?.end();
  each.simulation.advance(10);
  assert.deepEqual([client.connection?.state, server.connection?.state], ['TIME-WAIT', 'TIME-WAIT']);
  assert.deepEqual([client.closed, server.closed], ['orderly', 'orderly']);
});

test('both sides open at the same time (RFC 9293 figure 7)', () => {
  const each = pair();
  const [left, right] = [newSide(), newSide()];
  // Both SYNs are on their way before either arrives.
  const mac = Uint8Array.of(2, 0, 0, 0, 0, 2);
  const known = each.client.neighbourhood.arp.obtain(2, Uint8Array.of(10, 0, 0, 2), 0);
  assert.ok(known);
  each.client.neighbourhood.arp.set(known, mac, 'PERMANENT', 0);
  const back = each.server.neighbourhood.arp.obtain(2, Uint8Array.of(10, 0, 0, 1), 0);
  assert.ok(back);
  each.server.neighbourhood.arp.set(back, Uint8Array.of(2, 0, 0, 0, 0, 1), 'PERMANENT', 0);
  watch(left, each.client.tcp.open({ address: '10.0.0.2', port: 5002, localPort: 5001 }));
  watch(right, each.server.tcp.open({ address: '10.0.0.1', port: 5001, localPort: 5002 }));
  each.simulation.advance(100);
  assert.deepEqual([left.connection?.state, right.connection?.state], ['ESTABLISHED', 'ESTABLISHED']);
  left.connection?.write(pattern(3000, 4));
  each.simulation.advance(100);
  assert.equal(right.received.length, 3000);
});

test('closing in the middle of the handshake and before everything is sent loses nothing', () => {
  const each = pair();
  const { client, server } = open(each, connection => connection.end());
  client.connection?.write(pattern(100_000, 5));
  client.connection?.end();
  each.simulation.advance(2000);
  assert.equal(server.received.length, 100_000);
  assert.equal(server.ended, true);
  assert.equal(client.ended, true);
  assert.deepEqual([client.closed, server.closed], ['orderly', 'orderly']);
});

test('a closed port refuses, an abort resets', () => {
  const each = pair();
  const refused = newSide();
  watch(refused, each.client.tcp.open({ address: '10.0.0.2', port: 81 }));
  each.simulation.advance(10);
  assert.equal((refused.closed as TcpError).code, 'refused');
  assert.equal((refused.closed as TcpError).message, 'Connection refused');
  const { client, server } = open(each);
  each.simulation.advance(10);
  server.connection?.abort();
  each.simulation.advance(10);
  assert.equal((client.closed as TcpError).code, 'reset');
  assert.equal((server.closed as TcpError).code, 'aborted');
});

test('a silent peer: the SYN is sent seven times in 127 s, then it is a timeout', () => {
  const each = pair();
  let syns = 0;
  each.segment.impairment = frame => {
    if (frame[12] === 8 && frame[13] === 0) {
      syns++;
      return [];
    }
    return [0];
  };
  const { client } = open(each);
  each.simulation.runUntilIdle();
  assert.equal(syns, 7);
  assert.equal((client.closed as TcpError).code, 'timeout');
  assert.equal(Math.round(each.simulation.now / 1000), 127);
});

test('no neighbour and no route are told at once', () => {
  const each = pair();
  const side = newSide();
  watch(side, each.client.tcp.open({ address: '10.0.0.9', port: 80 }));
  each.simulation.advance(3100);
  assert.equal((side.closed as TcpError).code, 'host-unreachable');
  assert.throws(() => each.client.tcp.open({ address: '192.0.2.1', port: 80 }), /Network is unreachable/);
  assert.throws(() => each.client.tcp.open({ address: 'nobody', port: 80 }), RangeError);
});

test('one lost segment is sent again fast, not after a timeout', () => {
  const each = pair();
  const { client, server } = open(each);
  each.simulation.advance(10);
  let data = 0;
  each.segment.impairment = frame => (frame.length > 1000 && ++data === 3 ? [] : [0]);
  const started = each.simulation.now;
  let last = 0;
  each.segment.tap(time => {
    last = time;
  });
  client.connection?.write(pattern(14_600, 6));
  each.simulation.runUntilIdle();
  assert.equal(server.received.length, 14_600);
  assert.equal(client.connection?.retransmissions, 1);
  assert.ok(last - started < 100, `${last - started} ms`);
});

test('a paused reader closes the window, and opening it again needs no luck', () => {
  const each = pair();
  const { client, server } = open(each, connection => connection.pause());
  client.connection?.write(pattern(200_000, 7));
  each.simulation.advance(5000);
  assert.equal(server.received.length, 0);
  const kept = 200_000 - (client.connection?.pending ?? 0);
  assert.ok(kept <= 65_535 && kept > 60_000, `${kept} bytes are in the closed window`);
  // The window update is lost; the sender's probes find out.
  let lost = false;
  each.segment.impairment = (_frame, from) => {
    if (lost || !from.name.startsWith('host2')) return [0];
    lost = true;
    return [];
  };
  server.connection?.resume();
  each.simulation.advance(20_000);
  assert.equal(lost, true);
  assert.equal(server.received.length, 200_000);
  assert.deepEqual(Uint8Array.from(server.received), pattern(200_000, 7));
});

test('a reset outside the exact sequence number is only challenged (RFC 5961)', () => {
  const each = pair();
  const { client, server } = open(each);
  each.simulation.advance(10);
  const attack = each.client.tcp.connections()[0];
  assert.ok(attack && server.connection);
  const forged = {
    sequence: (server.connection.receiveNext + 100) >>> 0,
    acknowledgement: 0,
    flags: TcpFlag.rst,
    window: 0,
    data: new Uint8Array(0),
    maximumSegmentSize: undefined,
    windowScale: undefined,
  };
  server.connection.receive(forged);
  assert.equal(server.connection.state, 'ESTABLISHED');
  server.connection.receive({ ...forged, sequence: server.connection.receiveNext });
  assert.equal(server.connection.state, 'CLOSED');
  assert.equal(client.closed, undefined);
});

test('options: segment size and window scale are offered and obeyed; scaling may be off', () => {
  for (const scale of [7, undefined]) {
    const each = pair();
    each.server.tcp.settings.windowScale = scale;
    const syns: { length: number; flags: number }[] = [];
    let largest = 0;
    each.segment.tap((_time, frame) => {
      if (frame[12] !== 8 || frame[13] !== 0) return;
      const at = 34;
      const flags = frame[at + Tcp.flags] as number;
      if (flags & TcpFlag.syn) syns.push({ length: (frame[at + Tcp.dataOffset] as number) >>> 4, flags });
      largest = Math.max(largest, frame.length);
    });
    each.server.setMtu(each.server.interfaces[1] as (typeof each.server.interfaces)[0], 900);
    const { client, server } = open(each);
    client.connection?.write(pattern(150_000, 8));
    each.simulation.advance(1000);
    assert.equal(server.received.length, 150_000);
    assert.deepEqual(
      syns.map(syn => syn.length),
      [7, scale === undefined ? 6 : 7],
    );
    assert.equal(largest, 914, 'the smaller MTU was announced as segment size');
  }
});

test('a SYN for a connection in TIME-WAIT opens a new one', () => {
  const each = pair();
  const sides = open(each, connection => {
    connection.onEnd = () => connection.end();
    // The server closes first and keeps the TIME-WAIT.
    connection.end();
  });
  each.simulation.advance(5);
  sides.client.connection?.end();
  each.simulation.advance(5);
  assert.equal(sides.server.connection?.state, 'TIME-WAIT');
  const localPort = sides.client.connection?.localPort as number;
  const first = sides.server.connection;
  const again = newSide();
  // Sequence numbers are random here; try until one is newer than the old connection's.
  for (let tried = 0; tried < 20 && again.connection?.state !== 'FIN-WAIT-2'; tried++) {
    again.connection?.abort();
    watch(again, each.client.tcp.open({ address: '10.0.0.2', port: 80, localPort }));
    each.simulation.advance(5);
    if (again.connection?.state === 'CLOSE-WAIT') break;
  }
  assert.equal(again.connection?.state, 'CLOSE-WAIT', 'established, and closed by the server');
  assert.notEqual(sides.server.connection, first);
});

test('a segment with a wrong checksum is dropped under its name', () => {
  const each = pair();
  const { client } = open(each);
  each.simulation.advance(10);
  const attached = each.segment.attach('forger', () => {});
  each.segment.tap((_time, frame) => captured.push(frame));
  const captured: Uint8Array[] = [];
  client.connection?.write(pattern(100, 9));
  each.simulation.advance(10);
  const broken = (captured[0] as Uint8Array).slice();
  broken[60] = (broken[60] as number) ^ 1;
  attached.send(broken);
  each.simulation.advance(10);
  assert.equal(each.server.dropped.get('tcp-checksum'), 1);
});

/** What happens to the n-th TCP frame on the wire; behind the list everything arrives. */
const fate = fc.oneof(
  { weight: 5, arbitrary: fc.constant([0]) },
  { weight: 2, arbitrary: fc.constant([]) },
  { weight: 1, arbitrary: fc.constant([0, 0]) },
  { weight: 1, arbitrary: fc.constant([0, 3]) },
  { weight: 1, arbitrary: fc.constant([0.7]) },
  { weight: 1, arbitrary: fc.constant([400]) },
);

test('whatever is lost, doubled or overtaken: the bytes arrive in order, or it ends in a timeout', () => {
  fc.assert(
    fc.property(
      fc.array(fate, { maxLength: 120 }),
      fc.nat(40_000),
      fc.nat(40_000),
      fc.nat(1000),
      fc.constantFrom('client', 'server', 'both'),
      (fates, up, down, seed, closer) => {
        const each = pair(seed);
        let index = 0;
        each.segment.impairment = frame => {
          const isTcp = frame[12] === 8 && frame[13] === 0 && frame[23] === 6;
          return isTcp ? (fates[index++] ?? [0]) : [0];
        };
        const [request, answer] = [pattern(up, 1), pattern(down, 2)];
        const { client, server } = open(each, connection => {
          connection.write(answer);
          if (closer !== 'client') connection.end();
          else connection.onEnd = () => connection.end();
        });
        client.connection?.write(request);
        if (closer !== 'server') client.connection?.end();
        else if (client.connection) client.connection.onEnd = () => client.connection?.end();
        each.simulation.runUntilIdle();
        const arrived = Uint8Array.from(server.received);
        const returned = Uint8Array.from(client.received);
        assert.deepEqual(arrived, request.subarray(0, arrived.length));
        assert.deepEqual(returned, answer.subarray(0, returned.length));
        if (client.closed === 'orderly' && server.closed === 'orderly') {
          assert.equal(arrived.length, up);
          assert.equal(returned.length, down);
        } else {
          for (const error of [client.closed, server.closed]) {
            if (error === undefined || error === 'orderly') continue;
            assert.ok(['timeout', 'reset', 'refused'].includes(error.code), error.code);
          }
        }
        each.simulation.advance(61_000);
        assert.equal(each.client.tcp.connections().length + each.server.tcp.connections().length, 0);
      },
    ),
    { numRuns: 150 },
  );
});

test('with moderate loss every transfer completes', () => {
  fc.assert(
    fc.property(fc.nat(100_000), fc.nat(60_000), (seed, length) => {
      const each = pair(seed);
      each.segment.impairment = () => {
        const chance = each.simulation.random.fraction();
        if (chance < 0.1) return [];
        if (chance < 0.15) return [0, 1];
        return chance < 0.25 ? [2] : [0];
      };
      const { client, server } = open(each, connection => {
        connection.onEnd = () => connection.end();
      });
      client.connection?.write(pattern(length, 3));
      client.connection?.end();
      each.simulation.runUntilIdle();
      // ARP is lossy as well: a neighbour that is not found ends the attempt.
      if ((client.closed as TcpError).code === 'host-unreachable') return;
      assert.equal(client.closed, 'orderly');
      assert.deepEqual(Uint8Array.from(server.received), pattern(length, 3));
    }),
    { numRuns: 60 },
  );
});
