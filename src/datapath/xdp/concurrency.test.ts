/**
 * Two CPUs and the director at the same tables at once (docs/fast-path.md says why this must go well): no connection is
 * there twice, none is lost, and every count says what there is.
 */
import assert from 'node:assert/strict';
import { availableParallelism } from 'node:os';
import { describe, test } from 'node:test';
import { missing } from '../../../test/requirements.ts';
import { ConnectionFlag } from '../../ipvs/connections.ts';
import { Packet } from '../../wire/packet.ts';
import { TcpFlag } from '../../wire/tcp.ts';
import {
  type FixtureOptions,
  LOOPBACK,
  NewConnections,
  NOW,
  SERVICE,
  segment,
} from './new-connections.fixture.ts';

const skip = missing('root', 'clang') || (availableParallelism() < 2 && 'needs two CPUs');
/** Milliseconds after which nothing is left, whatever its timeout. */
const LATER = NOW + 3_600_000;

function segments(count: number, flags: number): Uint8Array[] {
  return Array.from({ length: count }, (_, flow) => segment(flow, flags));
}

async function withBed(options: FixtureOptions, work: (bed: NewConnections) => Promise<void>): Promise<void> {
  const bed = new NewConnections(options);
  try {
    await work(bed);
  } finally {
    bed.close();
  }
}

/** Ends everything; nothing may be left or still be counted, and every slot must be free again. */
function endAll(bed: NewConnections): void {
  const { director, fastPath } = bed;
  director.expire(LATER);
  // A template goes when its last connection has gone.
  director.expire(LATER + 3_600_000);
  assert.equal(director.connections.size, 0);
  assert.deepEqual(bed.faults(), []);
  director.administration.editService({
    key: SERVICE,
    scheduler: 'rr',
    schedulerFlags: 0,
    persistenceTimeout: 0,
    persistenceNetmask: '255.255.255.255',
    persistenceEngine: '',
    onePacket: false,
  });
  bed.configuration.write();
  for (let flow = 0; flow < fastPath.capacity; flow++)
    assert.ok(bed.run(flow, TcpFlag.syn), `slot ${flow} is lost`);
  assert.equal(director.connections.size, fastPath.capacity);
  assert.deepEqual(bed.faults(), []);
}

describe('at once', { skip }, () => {
  for (const method of ['gate', 'masq'] as const) {
    test(`two CPUs that meet the same flows make each connection once (${method})`, () =>
      withBed({ scheduler: 'wrr', method }, async bed => {
        const flows = 3000;
        await bed.race(segments(flows, TcpFlag.syn));
        const { director, configuration } = bed;
        const { connections, destinations } = director;
        assert.equal(connections.size, flows);
        assert.deepEqual(
          bed.ports(),
          Array.from({ length: flows }, (_, flow) => 1024 + flow),
        );
        assert.deepEqual(bed.faults(), []);
        // Weights 1, 2, 3: exactly the plan's shares, whoever took each turn.
        const counts = director.pool.owners.map((_, index) => destinations.active(index));
        assert.deepEqual(
          counts.slice(0, 3).sort((one, other) => one - other),
          [flows / 6, flows / 3, flows / 2],
        );
        configuration.takeCounts();
        assert.equal(director.administration.services()[0]?.statistics.connections, flows);
        // Every connection is found again by the director.
        const packet = new Packet();
        for (let flow = 0; flow < flows; flow += 7) {
          packet.load(segment(flow, TcpFlag.ack));
          director.process(packet, LOOPBACK, NOW);
        }
        assert.equal(connections.size, flows);
        if (method === 'masq') {
          // And by its replies, each by its own.
          const found = new Set<number>();
          for (let slot = 0; slot < connections.highWater; slot++) {
            if (!connections.isUsed(slot)) continue;
            const key = bed.replyKeyOf(slot);
            assert.equal(connections.findReply(key, connections.tick(NOW)), slot);
            found.add(slot);
          }
          assert.equal(found.size, flows);
        }
        endAll(bed);
      }));
  }

  test('connections under one template: all to its server, all counted at it', () =>
    withBed({ scheduler: 'wrr', method: 'masq', persistence: 300 }, async bed => {
      const { director } = bed;
      const { connections } = director;
      // The first goes up: only the director makes templates.
      const packet = new Packet();
      packet.load(segment(0, TcpFlag.syn));
      director.process(packet, LOOPBACK, NOW);
      const flows = 2000;
      await bed.race(segments(flows, TcpFlag.syn));
      assert.equal(connections.size, flows + 1);
      const servers = new Set<number>();
      let templates = 0;
      for (let slot = 0; slot < connections.highWater; slot++) {
        if (!connections.isUsed(slot)) continue;
        servers.add(connections.destination(slot));
        if (connections.flags(slot) & ConnectionFlag.template) {
          templates++;
          assert.equal(connections.control(slot), flows);
        }
      }
      assert.equal(templates, 1);
      assert.equal(servers.size, 1);
      assert.deepEqual(bed.faults(), []);
      endAll(bed);
    }));

  test('counts of connections, which the least-connection schedulers go by, add up', () =>
    withBed({ scheduler: 'wlc', method: 'gate' }, async bed => {
      const flows = 1800;
      const kinds = [
        TcpFlag.syn,
        TcpFlag.ack,
        TcpFlag.fin | TcpFlag.ack,
        TcpFlag.syn,
        TcpFlag.rst,
        TcpFlag.syn,
      ];
      await bed.race(kinds.flatMap(flags => segments(flows, flags)));
      assert.equal(bed.director.connections.size, flows);
      assert.deepEqual(bed.faults(), []);
      endAll(bed);
    }));

  test('a choice of the least is off by no more than the other CPUs have in hand', () =>
    withBed({ scheduler: 'wlc', method: 'gate' }, async bed => {
      const flows = 1800;
      await bed.race(segments(flows, TcpFlag.syn));
      const { destinations, pool } = bed.director;
      for (const [index, owner] of pool.owners.entries()) {
        if (!owner) continue;
        const share = (flows * owner.specification.weight) / 6;
        const active = destinations.active(index);
        assert.ok(Math.abs(active - share) <= 2, `${active} instead of ${share}`);
      }
    }));

  for (const [name, options] of [
    ['direct routing', { scheduler: 'wrr', method: 'gate' }],
    ['NAT', { scheduler: 'wlc', method: 'masq' }],
    ['persistence', { scheduler: 'rr', method: 'masq', persistence: 2 }],
  ] as const) {
    test(`the director ends connections while two CPUs make them and move their states (${name})`, () =>
      withBed({ ...options, capacity: 1024 }, async bed => {
        const { director } = bed;
        const packet = new Packet();
        let ended = 0;
        let turn = 0;
        const kinds = [TcpFlag.syn, TcpFlag.ack, TcpFlag.fin | TcpFlag.ack, TcpFlag.ack];
        await bed.race(
          kinds.flatMap(flags => segments(500, flags)),
          12,
          () => {
            // What the CPUs leave to the director, and its own first packets.
            packet.load(segment(turn++ % 500, TcpFlag.syn));
            director.process(packet, LOOPBACK, NOW);
            const before = director.connections.size;
            director.expire(LATER);
            ended += Math.max(0, before - director.connections.size);
          },
        );
        assert.ok(ended > 500, `only ${ended} connections were ended meanwhile`);
        assert.deepEqual(bed.faults(), []);
        endAll(bed);
      }));
  }

  test('a full table: CPUs and director throw out half-open connections at once, each of them once', () =>
    withBed({ scheduler: 'rr', method: 'masq', capacity: 512 }, async bed => {
      const { director } = bed;
      const packet = new Packet();
      let turn = 0;
      await bed.race(segments(6000, TcpFlag.syn), 2, () => {
        packet.load(segment(20_000 + turn++, TcpFlag.syn));
        director.process(packet, LOOPBACK, NOW);
      });
      assert.ok(turn > 10);
      assert.ok(director.connections.size <= 512);
      assert.deepEqual(bed.faults(), []);
      endAll(bed);
    }));
});
