/**
 * The program in front of a director that is played (`src/replay`), on tables that both work on: frames that it leaves
 * to the director are given back.
 */
import type { ConnectionMemory } from '../../ipvs/connections.ts';
import type { Director } from '../../ipvs/director.ts';
import { ProgramConfiguration } from './program-configuration.ts';
import { Handling, type TestBed } from './test-bed.ts';

export class XdpAccelerator {
  readonly capacity: number;
  readonly seed: number;
  readonly connectionMemory: ConnectionMemory;
  readonly destinationCapacity: number;
  readonly destinationMemory: ArrayBuffer;
  /** Frames the program sent by itself. */
  sent = 0;
  /** Frames it handed to the director. */
  up = 0;
  readonly #bed: TestBed;
  readonly #outcome: { bytes: Uint8Array; interfaceIndex: number } = {
    bytes: new Uint8Array(0),
    interfaceIndex: 0,
  };
  #director: Director | undefined;
  #configuration: ProgramConfiguration | undefined;
  #isCurrent = false;
  #settings = '';

  /** @param bed its tables are emptied: one accelerator at a time */
  constructor(bed: TestBed) {
    const { fastPath } = bed;
    fastPath.clear();
    this.#bed = bed;
    this.capacity = fastPath.capacity;
    this.seed = fastPath.control.seed;
    this.connectionMemory = fastPath.connectionMemory;
    this.destinationCapacity = fastPath.destinationCapacity;
    this.destinationMemory = fastPath.destinationMemory;
  }

  /** Names the director that works on these tables. What is configured at it is looked at before each frame. */
  serve(director: Director): void {
    this.#director = director;
    this.#configuration = new ProgramConfiguration(this.#bed.fastPath, director);
    director.administration.observe(() => this.changed());
  }

  /** The configuration or a way changed. */
  changed(): void {
    this.#isCurrent = false;
  }

  /**
   * Sees a frame that came in by an interface.
   * @param tick the time, in ticks of the connection table
   * @returns the frame that it sent (valid until the next call), `up`: the director's, `pass`: the host's, or `dropped`
   */
  receive(
    frame: Uint8Array,
    interfaceIndex: number,
    tick: number,
  ): { bytes: Uint8Array; interfaceIndex: number } | 'up' | 'pass' | 'dropped' {
    this.#configure();
    const bed = this.#bed;
    const handling = bed.run(frame, interfaceIndex, tick);
    if (handling === Handling.pass) return 'pass';
    if (handling === Handling.dropped) return 'dropped';
    if (handling === Handling.up) {
      this.up++;
      return 'up';
    }
    this.sent++;
    this.#configuration?.takeCounts();
    this.#outcome.bytes = bed.output.subarray(0, bed.length);
    this.#outcome.interfaceIndex = bed.sentBy;
    return this.#outcome;
  }

  #configure(): void {
    const settings = JSON.stringify(this.#director?.settings);
    if (this.#isCurrent && settings === this.#settings) {
      this.#configuration?.refresh();
      return;
    }
    this.#isCurrent = true;
    this.#settings = settings;
    this.#configuration?.ways.forget();
    this.#configuration?.write();
  }
}
