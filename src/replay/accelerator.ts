/**
 * What may work in front of a played director on the same tables, as the XDP program does in front of a real one. The
 * player knows nothing of it but this.
 */
import type { ConnectionMemory } from '../ipvs/connections.ts';
import type { Director } from '../ipvs/director.ts';

export interface Accelerator {
  /** Most connections. */
  readonly capacity: number;
  /** Secret of the connection hash. */
  readonly seed: number;
  readonly connectionMemory: ConnectionMemory;
  readonly destinationCapacity: number;
  readonly destinationMemory: ArrayBufferLike;
  /** Names the director that works on these tables. What is configured at it is looked at before each frame. */
  serve(director: Director): void;
  /** A way changed. */
  changed(): void;
  /**
   * Sees a frame that came in by an interface.
   * @param tick the time, in ticks of the connection table
   * @returns the frame that it sent (valid until the next call), `up`: the director's, `pass`: the host's, or `dropped`
   */
  receive(
    frame: Uint8Array,
    interfaceIndex: number,
    tick: number,
  ): AcceleratedFrame | 'up' | 'pass' | 'dropped';
}

export interface AcceleratedFrame {
  bytes: Uint8Array;
  interfaceIndex: number;
}
