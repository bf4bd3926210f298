/** What the program is told: one change among many services costs what it changes, and leads where telling all does. */
import assert from 'node:assert/strict';
import { describe, mock, test } from 'node:test';
import { buildBpf } from '../../../bpf/build.ts';
import { missing } from '../../../test/requirements.ts';
import { ConnectionKey } from '../../ipvs/connection-key.ts';
import { ConnectionTable } from '../../ipvs/connections.ts';
import { DestinationTable } from '../../ipvs/destinations.ts';
import { DescribedNetwork } from '../../ipvs/director.fixture.ts';
import { Director } from '../../ipvs/director.ts';
import type { ForwardingMethod, ServiceKey } from '../../ipvs/specification.ts';
import { FastPath } from './fast-path.ts';
import { ProgramConfiguration } from './program-configuration.ts';

const METHODS: readonly ForwardingMethod[] = ['gate', 'masq', 'tunnel'];
let directories = 0;

/** A program with a director whose changes it is told one by one. */
class Told {
  readonly fastPath = new FastPath({
    capacity: 1024,
    destinationCapacity: 4096,
    serviceCapacity: 1024,
    hz: 250,
    object: buildBpf(),
    directory: `/sys/fs/bpf/dirigo-told-${process.pid}-${directories++}`,
  });
  readonly network = new DescribedNetwork();
  readonly destinations = new DestinationTable(
    this.fastPath.destinationCapacity,
    this.fastPath.destinationMemory,
  );
  readonly director = new Director({
    network: this.network,
    host: this.network,
    destinations: this.destinations,
    connections: new ConnectionTable({
      capacity: this.fastPath.capacity,
      destinations: this.destinations,
      hz: 250,
      seed: this.fastPath.control.seed,
      memory: this.fastPath.connectionMemory,
    }),
  });
  readonly configuration = new ProgramConfiguration(this.fastPath, this.director);

  constructor() {
    this.director.administration.observe(change => this.configuration.note(change));
  }

  addService(key: ServiceKey, servers: number): void {
    this.director.administration.addService({
      key,
      scheduler: 'wrr',
      schedulerFlags: 0,
      persistenceTimeout: 0,
      persistenceNetmask: '255.255.255.255',
      persistenceEngine: '',
      onePacket: false,
    });
    for (let server = 0; server < servers; server++) this.addServer(key, server);
  }

  addServer(key: ServiceKey, server: number, weight = 1): void {
    this.director.administration.addDestination(key, this.#specification(key, server, weight));
  }

  weigh(key: ServiceKey, server: number, weight: number): void {
    this.director.administration.editDestination(key, this.#specification(key, server, weight));
  }

  removeServer(key: ServiceKey, server: number): void {
    const { address, port } = this.#specification(key, server, 0);
    this.director.administration.deleteDestination(key, address, port);
  }

  #specification(key: ServiceKey, server: number, weight: number) {
    return {
      address: `10.1.${server}.7`,
      port: 'port' in key ? key.port : 0,
      method: METHODS[server % METHODS.length] as ForwardingMethod,
      weight,
      upperThreshold: 0,
      lowerThreshold: 0,
      tunnelType: 'ipip',
      tunnelPort: 0,
      tunnelChecksum: 'nocsum',
    } as const;
  }
}

function keyOf(number: number): ServiceKey {
  return { protocol: 'tcp', address: `10.2.${number >> 8}.${number & 255}`, port: 80 };
}

/** How often `work` has the kernel write, and looks at services and servers. */
function counted({ fastPath, director, destinations }: Told, work: () => void): Record<string, number> {
  const { administration } = director;
  const spies = {
    keys: mock.method(fastPath, 'setService'),
    counters: mock.method(fastPath.traffic, 'clear'),
    devices: mock.method(fastPath, 'allowDevice'),
    services: mock.method(administration, 'serviceObject'),
    all: mock.method(administration, 'serviceObjects'),
    servers: mock.method(destinations, 'flags'),
  };
  work();
  return Object.fromEntries(
    Object.entries(spies).map(([name, { mock: spy }]) => {
      const calls = spy.callCount();
      spy.restore();
      return [name, calls];
    }),
  );
}

/** What each kind of edit costs among so many services. */
function costs(services: number): Record<string, Record<string, number>> {
  const told = new Told();
  try {
    const { director, configuration } = told;
    for (let number = 0; number < services; number++) told.addService(keyOf(number), 3);
    configuration.update();
    const key = keyOf(7);
    const fresh = keyOf(1000);
    const edits: Record<string, () => void> = {
      nothing: () => {},
      'a weight': () => told.weigh(key, 0, 5),
      'a new server': () => told.addServer(key, 3),
      'a server less': () => told.removeServer(key, 3),
      'a new service': () => told.addService(fresh, 3),
      'a service less': () => director.administration.deleteService(fresh),
      timeouts: () => director.administration.setTimeouts({ tcp: 100, tcpFin: 10, udp: 10 }),
    };
    return Object.fromEntries(
      Object.entries(edits).map(([name, edit]) => {
        edit();
        return [name, counted(told, () => configuration.update())];
      }),
    );
  } finally {
    told.fastPath.remove();
  }
}

const skip = missing('root', 'clang', 'ip');

describe('the program is told', { skip }, () => {
  test('what changed: as much work among 500 services as among 20', () => {
    const few = costs(20);
    const many = costs(500);
    assert.deepEqual(many, few);
    assert.deepEqual(many.nothing, { keys: 0, counters: 0, devices: 0, services: 0, all: 0, servers: 0 });
    assert.deepEqual(many['a weight'], { keys: 1, counters: 0, devices: 1, services: 1, all: 0, servers: 1 });
  });

  test('step by step the same as at once', () => {
    const told = new Told();
    let seed = 1;
    const random = (below: number): number => {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
      return (seed >>> 8) % below;
    };
    const there = new Map<number, Set<number>>();
    const step = (): void => {
      const number = random(12);
      const key = keyOf(number);
      const servers = there.get(number);
      const server = random(6);
      if (!servers) {
        told.addService(key, 0);
        there.set(number, new Set());
      } else if (random(6) === 0) {
        told.director.administration.deleteService(key);
        there.delete(number);
      } else if (servers.has(server)) {
        if (random(2)) told.weigh(key, server, random(4));
        else {
          told.removeServer(key, server);
          servers.delete(server);
        }
      } else {
        told.addServer(key, server, random(4));
        servers.add(server);
      }
    };
    try {
      for (let round = 0; round < 300; round++) {
        // Time goes by: records of servers that are gone become free, and others get them.
        told.director.expire(round * 20_000);
        for (let edits = random(3); edits >= 0; edits--) step();
        told.configuration.update();
      }
      told.configuration.forgetLingering();
      const byStep = stateOf(told.fastPath);
      // One that begins with what is there, as after a restart.
      new ProgramConfiguration(told.fastPath, told.director).update();
      assert.deepEqual(stateOf(told.fastPath), byStep);
      assert.ok(byStep.keys.length > 20, `${byStep.keys.length} keys`);
    } finally {
      told.fastPath.remove();
    }
  });

  test('nothing stays of what is gone, once its connections and records are', () => {
    const told = new Told();
    const { director, configuration, fastPath } = told;
    try {
      configuration.update();
      const empty = stateOf(fastPath);
      for (let number = 0; number < 5; number++) told.addService(keyOf(number), 6);
      configuration.update();
      assert.ok(stateOf(fastPath).keys.length > 10);
      for (let number = 0; number < 5; number++) director.administration.deleteService(keyOf(number));
      for (let minute = 0; minute < 5; minute++) director.expire(minute * 60_000);
      configuration.update();
      configuration.forgetLingering();
      assert.deepEqual(stateOf(fastPath), empty);
    } finally {
      told.fastPath.remove();
    }
  });
});

test('a VIP without a service stays as long as its connections, and no longer than they', { skip }, () => {
  const told = new Told();
  const { director, configuration } = told;
  const { connections } = director;
  const tryAll = (): void => {
    for (let step = 0; step < 4; step++) configuration.forgetLingering();
  };
  const isKnown = (number: number): boolean => configuration.isVip(Uint8Array.of(10, 2, 0, number), 0, 4);
  try {
    for (let number = 1; number <= 3; number++) told.addService(keyOf(number), 1);
    const slots = [1, 2, 3].map(number => {
      const key = new ConnectionKey();
      key.client0 = number;
      key.virtual0 = new DataView(Uint8Array.of(10, 2, 0, number).buffer).getInt32(0, true);
      const slot = connections.allocate(key, 0);
      assert.ok(connections.publish(slot));
      return slot;
    });
    configuration.update();
    for (const number of [1, 2]) director.administration.deleteService(keyOf(number));
    configuration.update();
    tryAll();
    assert.deepEqual([1, 2, 3].map(isKnown), [true, true, true]);
    connections.remove(slots[0] as number);
    tryAll();
    assert.deepEqual([1, 2, 3].map(isKnown), [false, true, true]);
    connections.remove(slots[1] as number);
    tryAll();
    assert.deepEqual([1, 2, 3].map(isKnown), [false, false, true]);
  } finally {
    told.fastPath.remove();
  }
});

/** Which keys the program knows, and its filters. */
function stateOf(fastPath: FastPath): { keys: string[]; filters: string } {
  return {
    keys: fastPath
      .serviceKeys()
      .map(key => Buffer.from(key).toString('hex'))
      .sort(),
    filters: Buffer.from(fastPath.control.filters).toString('hex'),
  };
}
