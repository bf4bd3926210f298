/**
 * Replays what a real ip_vs chose (recordings `sched/*.jsonl`), at the level of schedulers: the recorded counts after
 * each step are the connection counts of the next, so nothing but the choice is computed here.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { goldenExists, goldenLines, goldenNames } from '../../../test/golden.ts';
import { parseAddress } from '../../wire/address.ts';
import { DestinationField, DestinationFlag, DestinationTable } from '../destinations.ts';
import { explainSelection } from '../explanation.ts';
import type { Plan, PlanChange, Scheduler, SchedulerServer, SelectionRequest } from '../plan.ts';
import { DEFAULT_LOCALITY_EXPIRATION, Selector } from '../selection.ts';
import { SchedulerFlag } from '../specification.ts';
import { SCHEDULERS } from './registry.ts';

interface Scenario {
  name: string;
  scheduler: string;
  setup: string[][];
  steps: Step[];
}

interface Step {
  op: 'new' | 'fin' | 'rst' | 'ipvsadm' | 'sleep';
  client?: [string, number];
  dst?: string;
  chosen?: string | null;
  argv?: string[];
  seconds?: number;
  counts: Record<string, [active: number, inactive: number]>;
}

/** A server as the scenario's commands made it; stays known after its deletion, as in the kernel's trash. */
interface Server extends SchedulerServer {
  rip: string;
  upper: number;
  lower: number;
}

/** Follows a scenario's commands and counts, and asks the scheduler's plan for each new connection. */
class Replay {
  readonly table = new DestinationTable(64);
  readonly selector: Selector;
  readonly request: SelectionRequest;
  /** Newest first. */
  servers: Server[] = [];
  scheduler: Scheduler | undefined;
  plan: Plan | undefined;
  flags = 0;
  virtual = '10.0.0.3';
  #known = new Map<string, Server>();

  constructor(random: () => number) {
    this.selector = new Selector(this.table, { random, localityExpiration: DEFAULT_LOCALITY_EXPIRATION });
    const bytes = new Uint8Array(32);
    this.request = {
      now: 1_000_000,
      family: 4,
      bytes,
      view: new DataView(bytes.buffer),
      sourceAt: 0,
      destinationAt: 16,
      sourcePort: 0,
    };
  }

  command(argv: readonly string[]): void {
    const value = (option: string): string | undefined => {
      const at = argv.indexOf(option);
      return at < 0 ? undefined : argv[at + 1];
    };
    switch (argv[1]) {
      case '-A':
      case '-E':
        this.#service(value('-s') ?? 'wlc', value('-b') ?? '', value('-t') ?? value('-u') ?? '');
        break;
      case '-a':
      case '-e':
        this.#server(argv[1] === '-a' ? 'add' : 'edit', value);
        break;
      case '-d': {
        const gone = this.#find(value('-r') ?? '');
        this.servers = this.servers.filter(server => server !== gone);
        this.table.setFlag(gone.index, DestinationFlag.available, false);
        this.#compile('delete');
        break;
      }
      default:
        throw new Error(`the recording has a command this test does not know: ${argv.join(' ')}`);
    }
  }

  /** Takes over the counts recorded after a step, with what they do to the overload flags. */
  count(counts: Step['counts']): void {
    for (const [rip, [active, inactive]] of Object.entries(counts)) {
      const server = [...this.#known.values()].find(candidate => candidate.rip === rip);
      assert(server, `counts of unknown server ${rip}`);
      const before = this.table.active(server.index) + this.table.inactive(server.index);
      this.table.addActive(server.index, active - this.table.active(server.index));
      this.table.addInactive(server.index, inactive - this.table.inactive(server.index));
      const total = active + inactive;
      if (total > before && server.upper > 0 && total >= server.upper) this.#overload(server, true);
      if (total < before && total < (server.lower || server.upper * 0.75)) this.#overload(server, false);
    }
  }

  /** The address chosen for a client, null if it is refused. */
  select(step: Step): string | null {
    const [client, port] = step.client ?? ['', 0];
    this.request.bytes.set(parseAddress(client) ?? [], this.request.sourceAt);
    this.request.bytes.set(parseAddress(step.dst ?? this.virtual) ?? [], this.request.destinationAt);
    this.request.family = client.includes(':') ? 6 : 4;
    this.request.sourcePort = port;
    assert(this.plan);
    const before = structuredClone(this.plan);
    const told = explainSelection(this.plan, this.request, this.table, {
      localityExpiration: DEFAULT_LOCALITY_EXPIRATION,
    });
    assert.deepEqual(this.plan, before, 'an explanation must not move the plan on');
    const chosen = this.selector.select(this.plan, this.request);
    if (told.kind !== 'random')
      assert.equal(told.chosen, chosen, 'the explanation differs from the selection');
    return this.servers.find(server => server.index === chosen)?.rip ?? null;
  }

  #service(name: string, flags: string, address: string): void {
    const scheduler = SCHEDULERS.get(name);
    assert(scheduler, `no scheduler ${name}`);
    this.flags =
      (flags.includes('fallback') ? SchedulerFlag.flag1 : 0) |
      (flags.includes('port') ? SchedulerFlag.flag2 : 0);
    this.virtual = /^\[?([0-9a-f.:]+)\]?:\d+$/.exec(address)?.[1] ?? this.virtual;
    if (this.scheduler !== scheduler) this.plan = undefined;
    this.scheduler = scheduler;
    this.#compile('service');
  }

  #server(change: 'add' | 'edit', value: (option: string) => string | undefined): void {
    const key = value('-r') ?? '';
    const weight = Number(value('-w') ?? 1);
    let server = this.#known.get(key);
    if (!server) {
      const rip = key.replace(/^\[(.*)\]:\d+$|^([\d.]+):\d+$/, '$1$2');
      const address = parseAddress(rip);
      assert(address, `no address in ${key}`);
      const port = rip === key ? 0 : Number(key.slice(key.lastIndexOf(':') + 1));
      server = {
        rip,
        address,
        port,
        index: this.table.allocate(),
        weight,
        lastWeight: 0,
        upper: 0,
        lower: 0,
      };
      this.#known.set(key, server);
    }
    if (change === 'add') this.servers.unshift(server);
    const upper = Number(value('-x') ?? 0);
    if (upper === 0 || upper > server.upper) this.#overload(server, false);
    server.upper = upper;
    server.lower = Number(value('-y') ?? 0);
    server.weight = weight;
    if (weight > 0) server.lastWeight = weight;
    this.table.view.setInt32(server.index * 64 + DestinationField.weight, weight, true);
    this.table.setFlag(server.index, DestinationFlag.available, true);
    this.#compile(change);
  }

  #find(key: string): Server {
    const server = this.#known.get(key);
    assert(server, `no server ${key}`);
    return server;
  }

  #overload(server: Server, on: boolean): void {
    this.table.setFlag(server.index, DestinationFlag.overloaded, on);
  }

  #compile(change: PlanChange): void {
    this.plan = this.scheduler?.compile(this.servers, this.flags, change, this.plan);
  }
}

/** Pseudo-random and the same every time (xorshift32). */
function sequence(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

const skip = goldenExists('sched') ? false : 'the recordings shared/oracle/golden/sched are not here';

for (const name of skip ? [] : goldenNames('sched')) {
  for (const scenario of goldenLines<Scenario>(`sched/${name}.jsonl`)) {
    test(`${scenario.name}: as recorded`, () => {
      if (scenario.scheduler === 'twos') replayTwos(scenario);
      else replay(scenario);
    });
  }
}

test('every recording was found', { skip }, () => {
  assert.deepEqual(goldenNames('sched'), [...SCHEDULERS.keys()].sort());
});

function replay(scenario: Scenario): void {
  const replaying = new Replay(sequence(1));
  const connected = new Set<string>();
  for (const argv of scenario.setup) replaying.command(argv);
  for (const [at, step] of scenario.steps.entries()) {
    if (step.op === 'new') {
      const client = `${step.client?.join(' ')} ${step.dst}`;
      assert(!connected.has(client), `step ${at}: ${client} has a connection, its packet is not scheduled`);
      connected.add(client);
      assert.equal(replaying.select(step), step.chosen, `step ${at}`);
    }
    if (step.op === 'ipvsadm') replaying.command(step.argv ?? []);
    if (step.op === 'sleep') replaying.request.now += (step.seconds ?? 0) * 1000;
    replaying.count(step.counts);
  }
}

/** twos is random: each recorded choice must be one that two draws can end in, and the shares must be alike. */
function replayTwos(scenario: Scenario): void {
  const replaying = new Replay(sequence(20));
  const recorded = new Map<string, number>();
  const chosen = new Map<string, number>();
  for (const argv of scenario.setup) replaying.command(argv);
  for (const [at, step] of scenario.steps.entries()) {
    if (step.op === 'new') {
      const possible = new Set<string | null>();
      for (let attempt = 0; attempt < 200; attempt++) {
        const rip = replaying.select(step);
        possible.add(rip);
        if (rip) chosen.set(rip, (chosen.get(rip) ?? 0) + 1 / 200);
      }
      assert(possible.has(step.chosen ?? null), `step ${at}: ${step.chosen} cannot be chosen`);
      if (step.chosen) recorded.set(step.chosen, (recorded.get(step.chosen) ?? 0) + 1);
    }
    if (step.op === 'ipvsadm') replaying.command(step.argv ?? []);
    replaying.count(step.counts);
  }
  const total = [...recorded.values()].reduce((sum, count) => sum + count, 0);
  for (const [rip, count] of recorded) {
    const expected = chosen.get(rip) ?? 0;
    assert(
      Math.abs(count - expected) < 4 * Math.sqrt(total),
      `${rip}: recorded ${count}, expected ${expected}`,
    );
  }
}
