/** Plays scenarios of packets: each step's frames go in, and what the director does is written beside them. */
import type { NameService } from '../ipvsadm/names.ts';
import type { Accelerator } from './accelerator.ts';
import { CommandError, Console } from './console.ts';
import { describeFrame, fromHex, toHex } from './frames.ts';
import type { HostInterface, HostOptions, ReplayHost } from './host.ts';
import {
  type FloodStep,
  type OutFrame,
  type PacketScenario,
  ScenarioError,
  type Shown,
  type Step,
} from './scenario.ts';
import { recordedHost } from './topology.ts';

export interface PlayOptions {
  names?: NameService;
  /** Random numbers 0..2^32-1 of the director. */
  random?: () => number;
  /** Jiffies on the kernel's clock at t = 0, whose timer wheel decides when connections end. */
  timerPhase?: number;
  /** Makes what works in front of the director; called for each director. */
  accelerate?: () => Accelerator;
  /** What steps show that do not say what: everything (default), or nothing. */
  listings?: 'everything' | 'asked';
}

/** What became of a step. */
export interface StepOutcome {
  out?: OutFrame[];
  show?: Shown;
  status?: number;
  stdout?: string;
  stderr?: string;
}

export interface PacketOutcome {
  steps: StepOutcome[];
  end: Shown;
}

/** The listings a step or the end shows when the scenario does not say which. */
const ALL_LISTINGS = [
  '-Lnc',
  '-Ln',
  '-Ln --stats --exact',
  '-Ln --rate',
  '-Ln --thresholds',
  '-Ln --persistent-conn',
  '-Lnc --persistent-conn',
];
const END_LISTINGS = ['-Ln', '-Lnc', '-Ln --stats --exact'];

/** Milliseconds from the birth of the recorder's network namespace, where the kernel's clock of rates starts, to t = 0. */
const HEAD_START = 610;
/** Milliseconds from the end of a step to the next frame, and to the end of a step that does not say when it ended. */
const GAP = 2;
const STEP = 15;
/** Milliseconds that a command takes to begin. */
const COMMAND = 8;
/** How long the recorder listens after a flood, milliseconds. */
const FLOOD_WAIT = 100;
/** How long the recorder waits for the statistics to be brought up to date, milliseconds. */
const STATISTICS_WAIT = 2100;

/**
 * Plays a scenario.
 * @param file for errors
 * @throws ScenarioError at what cannot be done
 */
export function playPackets(
  scenario: PacketScenario,
  file: string,
  options: PlayOptions = {},
): PacketOutcome {
  const player = new Player(scenario, options);
  const where = scenario.name === '' ? file : `${file} (${scenario.name})`;
  for (const [index, line] of scenario.setup.entries()) {
    naming(`${where} setup line ${index}`, () => player.console.setUp(line));
  }
  const steps = scenario.steps.map((step, index) =>
    naming(`${where} step ${index}`, () => player.play(step)),
  );
  return { steps, end: player.end(scenario.end) };
}

class Player {
  readonly host: ReplayHost;
  readonly console: Console;
  readonly #otherwise: readonly string[];

  constructor(scenario: PacketScenario, options: PlayOptions) {
    this.host = recordedHost(
      {
        interfaces: scenario.interfaces,
        forwarding: scenario.net.fwd !== 0,
        ...(scenario.net.mtu1 === undefined ? {} : { mtu1: scenario.net.mtu1 }),
      },
      hostOptions(options),
    );
    this.console = new Console(this.host, options.names);
    this.#otherwise = options.listings === 'asked' ? [] : ALL_LISTINGS;
    this.host.advance(HEAD_START);
  }

  play(step: Step): StepOutcome {
    const { host } = this;
    const outcome: StepOutcome = {};
    const begun = host.now;
    switch (step.op) {
      case 'packet': {
        host.advance(begun + GAP);
        host.receive(fromHex(step.in), this.#device(step.dev));
        outcome.out = host.takeSent().map(frame => ({
          dev: frame.dev,
          hex: toHex(frame.bytes),
          desc: describeFrame(frame.bytes),
        }));
        break;
      }
      case 'flood':
        this.#flood(step, begun);
        break;
      case 'sleep':
        host.advance(begun + step.seconds * 1000);
        break;
      case 'show':
        break;
      case 'ipvsadm': {
        host.advance(begun + COMMAND);
        const { status, stdout, stderr } = this.console.ipvsadm(withoutProgram(step.argv), step.stdin);
        Object.assign(outcome, { status, stdout, stderr });
        break;
      }
      case 'sh':
        host.advance(begun + COMMAND);
        outcome.stdout = this.console.shell(step.cmd);
        break;
    }
    const listings = this.#listings(step);
    this.#settle(step, begun, listings);
    if (listings.length > 0) outcome.show = this.#show(listings);
    return outcome;
  }

  /** Sends the frame as often as the step says, over all of its time. */
  #flood(step: FloodStep, begun: number): void {
    const { host } = this;
    const frame = fromHex(step.in);
    const on = this.#device(step.dev);
    const end = step.t === undefined ? begun + STEP : HEAD_START + step.t * 1000 - FLOOD_WAIT;
    const duration = Math.max(0, end - begun - GAP);
    for (let sent = 0; sent < step.times; sent++) {
      host.advance(begun + GAP + (duration * sent) / step.times);
      host.receive(frame, on);
      host.takeSent();
    }
  }

  /** Goes to the end of a step. */
  #settle(step: Step, begun: number, listings: readonly string[] = []): void {
    const waits = step.show !== undefined && listings.some(listing => listing.includes('--stats'));
    const end =
      step.t === undefined ? begun + STEP + (waits ? STATISTICS_WAIT : 0) : HEAD_START + step.t * 1000;
    this.host.advance(end);
  }

  /** The listings a step asks for by the names in its `show`. */
  #listings(step: Step): readonly string[] {
    const { show } = step;
    if (typeof show === 'object' && show !== null) {
      const names = Array.isArray(show) ? show.map(String) : Object.keys(show);
      if (names.length > 0) return names;
    }
    return this.#otherwise;
  }

  #show(listings: readonly string[]): Shown {
    return Object.fromEntries(
      listings.map(listing => {
        const { stdout, stderr } = this.console.ipvsadm(listing.split(/\s+/).filter(word => word !== ''));
        return [listing, stdout + stderr];
      }),
    );
  }

  end(asked: unknown): Shown {
    this.host.advance(this.host.now + STATISTICS_WAIT);
    const names = typeof asked === 'object' && asked !== null ? Object.keys(asked) : [];
    return this.#show(names.length > 0 ? names : END_LISTINGS);
  }

  #device(name: string): HostInterface {
    const found = this.host.interfaceNamed(name);
    if (!found) throw new CommandError(`there is no interface ${name}`);
    return found;
  }
}

/** What the host takes of the options. */
export function hostOptions({ random, timerPhase, accelerate }: PlayOptions): HostOptions {
  return {
    ...(random ? { random } : {}),
    ...(timerPhase === undefined ? {} : { timerPhase }),
    ...(accelerate ? { accelerator: accelerate() } : {}),
  };
}

function withoutProgram(argv: readonly string[]): string[] {
  return argv[0] === 'ipvsadm' ? argv.slice(1) : [...argv];
}

/** Says in errors of commands where they stood. */
export function naming<Result>(where: string, work: () => Result): Result {
  try {
    return work();
  } catch (error) {
    if (error instanceof CommandError) throw new ScenarioError(`${where}: ${error.message}`);
    throw error;
  }
}

/** The scenario with what the director did in the place of what it said of the outcome. */
export function filledIn(scenario: PacketScenario, outcome: PacketOutcome): PacketScenario {
  const steps = scenario.steps.map((step, index) => {
    const { edge: _, ...asked } = step;
    return { ...asked, ...outcome.steps[index] } as Step;
  });
  return { ...scenario, steps, end: outcome.end };
}
