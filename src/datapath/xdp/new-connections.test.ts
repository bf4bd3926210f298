/** Connections that the program makes: under a flood, in turn with the director, in the place of others. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { missing } from '../../../test/requirements.ts';
import { ConnectionFlag } from '../../ipvs/connections.ts';
import type { Director } from '../../ipvs/director.ts';
import type { ForwardingMethod } from '../../ipvs/specification.ts';
import { TcpState } from '../../ipvs/tcp-states.ts';
import { Packet } from '../../wire/packet.ts';
import { TcpFlag } from '../../wire/tcp.ts';
import type { FastPath } from './fast-path.ts';
import { LOOPBACK, NewConnections, NOW, SERVICE, segment } from './new-connections.fixture.ts';
import type { ProgramConfiguration } from './program-configuration.ts';

describe('new connections', { skip: missing('root', 'clang') }, () => {
  let bed: NewConnections;
  let fastPath: FastPath;
  let director: Director;
  let configuration: ProgramConfiguration;
  const packet = new Packet();

  function open(scheduler: string, method: ForwardingMethod, capacity?: number): void {
    bed = new NewConnections({ scheduler, method, ...(capacity === undefined ? {} : { capacity }) });
    ({ fastPath, director, configuration } = bed);
  }

  const run = (flow: number, flags: number): boolean => bed.run(flow, flags);

  test('the director and the program take turns in one sequence', () => {
    open('wrr', 'gate');
    try {
      const { connections } = director;
      const chosen: number[] = [];
      for (let flow = 0; flow < 60; flow++) {
        const before = new Set(bed.ports());
        if (flow % 3 === 1) {
          packet.load(segment(flow, TcpFlag.syn));
          director.process(packet, LOOPBACK, NOW);
        } else assert.ok(run(flow, TcpFlag.syn));
        for (let slot = 0; slot < connections.highWater; slot++) {
          const raw = connections.ports(slot) & 0xffff;
          const port = ((raw & 0xff) << 8) | (raw >>> 8);
          if (connections.isUsed(slot) && !before.has(port)) chosen.push(connections.destination(slot));
        }
      }
      // Weights 3, 2, 1, the newest first. Adding servers kept the pass of weight 1, where the round begins.
      assert.deepEqual(chosen.slice(0, 6), [2, 1, 0, 2, 2, 1]);
      for (let turn = 6; turn < chosen.length; turn++) assert.equal(chosen[turn], chosen[turn - 6]);
    } finally {
      fastPath.remove();
    }
  });

  test('a flood on a full table throws out half-open connections, never established ones', () => {
    const capacity = 512;
    open('rr', 'masq', capacity);
    try {
      const established = 200;
      for (let flow = 0; flow < established; flow++) {
        assert.ok(run(flow, TcpFlag.syn));
        assert.ok(run(flow, TcpFlag.ack));
      }
      let made = 0;
      for (let flow = established; flow < 8000; flow++) if (run(flow, TcpFlag.syn)) made++;
      const { connections, destinations } = director;
      assert.equal(connections.size, capacity);
      const states = new Map<number, number>();
      for (let slot = 0; slot < connections.highWater; slot++) {
        if (!connections.isUsed(slot)) continue;
        const state = connections.state(slot);
        states.set(state, (states.get(state) ?? 0) + 1);
        assert.equal(connections.flags(slot) & ConnectionFlag.inactive, 0);
      }
      assert.equal(states.get(TcpState.established), established);
      assert.equal(states.get(TcpState.synReceived), capacity - established);
      const counted = [0, 1, 2].map(index => destinations.active(index));
      assert.equal(
        counted.reduce((sum, count) => sum + count, 0),
        capacity,
      );
      assert.equal(fastPath.reasons().evicted, made - (capacity - established));
      // Established ones are still found, the last of the flood too.
      for (let flow = 0; flow < established; flow++) assert.ok(run(flow, TcpFlag.ack), `flow ${flow}`);
    } finally {
      fastPath.remove();
    }
  });

  test('a table that is full of established connections takes no new one', () => {
    const capacity = 64;
    open('rr', 'gate', capacity);
    try {
      for (let flow = 0; flow < capacity; flow++) {
        assert.ok(run(flow, TcpFlag.syn));
        assert.ok(run(flow, TcpFlag.ack));
      }
      assert.equal(run(capacity, TcpFlag.syn), false);
      assert.equal(fastPath.reasons().evicted, 0);
      assert.equal(director.connections.size, capacity);
    } finally {
      fastPath.remove();
    }
  });

  /** The states of the connections of a flow; more than one would be a duplicate. */
  function statesOf(flow: number): number[] {
    const { connections } = director;
    const found: number[] = [];
    for (let slot = 0; slot < connections.highWater; slot++) {
      const raw = connections.ports(slot) & 0xffff;
      if (connections.isUsed(slot) && (((raw & 0xff) << 8) | (raw >>> 8)) === 1024 + flow)
        found.push(connections.state(slot));
    }
    return found;
  }

  for (const method of ['gate', 'masq', 'tunnel'] as const) {
    test(`a SYN on a connection that is over begins a new one, without the director (${method})`, () => {
      open('rr', method);
      try {
        const { destinations } = director;
        const bound = (): number[] =>
          [0, 1, 2].map(index => destinations.active(index) + destinations.inactive(index));
        for (const flow of [0, 1, 2]) assert.ok(run(flow, TcpFlag.syn));
        assert.deepEqual(bound(), [1, 1, 1]);
        const first = director.connections.destination(director.connections.highWater - 1);
        assert.ok(run(2, TcpFlag.ack));
        assert.ok(run(2, TcpFlag.rst));
        assert.deepEqual(statesOf(2), [TcpState.close]);
        // Turns go on: the closed flow is given to the next server, and counted there alone.
        assert.ok(run(2, TcpFlag.syn), 'the program itself');
        assert.deepEqual(statesOf(2), [TcpState.synReceived]);
        assert.equal(director.connections.size, 3);
        assert.deepEqual([...bound()].sort(), [0, 1, 2]);
        assert.equal(bound()[first], 0);
        configuration.takeCounts();
        assert.equal(director.administration.services()[0]?.statistics.connections, 4);
        // The director finds what the program made, and everything ends.
        packet.load(segment(2, TcpFlag.ack));
        director.process(packet, LOOPBACK, NOW);
        assert.deepEqual(statesOf(2), [TcpState.established]);
        director.expire(NOW + 3_600_000);
        assert.deepEqual(bound(), [0, 0, 0]);
      } finally {
        fastPath.remove();
      }
    });
  }

  test('a SYN on a connection that goes on is forwarded on it', () => {
    open('rr', 'gate');
    try {
      assert.ok(run(0, TcpFlag.syn));
      assert.ok(run(0, TcpFlag.syn), 'sent again');
      assert.ok(run(0, TcpFlag.ack));
      assert.ok(run(0, TcpFlag.fin | TcpFlag.ack));
      assert.deepEqual(statesOf(0), [TcpState.finWait]);
      // conn_reuse_mode 1 does not take it for over, 3 does.
      assert.ok(run(0, TcpFlag.syn));
      assert.deepEqual(statesOf(0), [TcpState.synReceived]);
      const connections = (): number | undefined => {
        configuration.takeCounts();
        return director.administration.services()[0]?.statistics.connections;
      };
      assert.equal(connections(), 1);
      assert.ok(run(0, TcpFlag.ack));
      assert.ok(run(0, TcpFlag.fin | TcpFlag.ack));
      director.set('conn_reuse_mode', '3');
      configuration.write();
      assert.ok(run(0, TcpFlag.syn));
      assert.equal(connections(), 2);
      assert.equal(director.connections.size, 1);
      // Without reuse every SYN goes with the connection.
      assert.ok(run(0, TcpFlag.rst));
      director.set('conn_reuse_mode', '0');
      configuration.write();
      assert.ok(run(0, TcpFlag.syn));
      assert.equal(connections(), 2);
    } finally {
      fastPath.remove();
    }
  });

  test('with expire_nodest_conn a SYN leaves a server that is quiesced', () => {
    open('rr', 'gate');
    try {
      assert.ok(run(0, TcpFlag.syn));
      assert.ok(run(0, TcpFlag.ack));
      const [slot] = [...Array(director.connections.highWater).keys()].filter(each =>
        director.connections.isUsed(each),
      );
      const quiesced = director.connections.destination(slot as number);
      const server = director.administration
        .services()[0]
        ?.destinations.find(
          ({ address }) => address === director.pool.owners[quiesced]?.specification.address,
        );
      assert.ok(server);
      director.administration.editDestination(SERVICE, { ...server, weight: 0 });
      configuration.write();
      assert.ok(run(0, TcpFlag.syn));
      assert.equal(director.destinations.active(quiesced), 1);
      director.set('expire_nodest_conn', '1');
      configuration.write();
      assert.ok(run(0, TcpFlag.syn));
      assert.equal(director.destinations.active(quiesced) + director.destinations.inactive(quiesced), 0);
      assert.equal(director.connections.size, 1);
    } finally {
      fastPath.remove();
    }
  });
});
