/** A CPU of its own for tests: runs the program on the frames it is given, each at the same moment as its twin. */
import { parentPort, workerData } from 'node:worker_threads';
import { BpfProgram, FrameRunner } from '../ffi/libbpf.ts';

export interface Work {
  program: number;
  frames: Uint8Array;
  frameBytes: number;
  /** How often all frames are run. */
  rounds: number;
  /** How many workers have come to each frame of each round. */
  arrivals: Int32Array;
  workers: number;
}

const { program, frames, frameBytes, rounds, arrivals, workers } = workerData as Work;
const runner = new FrameRunner(new BpfProgram('dirigo', program), 2048);
for (let turn = 0; turn * frameBytes < frames.length * rounds; turn++) {
  const at = (turn * frameBytes) % frames.length;
  runner.input.set(frames.subarray(at, at + frameBytes));
  Atomics.add(arrivals, turn, 1);
  while (Atomics.load(arrivals, turn) < workers);
  runner.run(frameBytes, 0);
}
parentPort?.postMessage('done');
