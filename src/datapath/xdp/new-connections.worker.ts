/** A CPU of its own for tests: runs the program on the frames it is given, each at the same moment as its twin. */
import { parentPort, workerData } from 'node:worker_threads';
import { BpfProgram, FrameRunner } from '../ffi/libbpf.ts';

interface Work {
  program: number;
  frames: Uint8Array;
  frameBytes: number;
  /** How many workers have come to each frame. */
  arrivals: Int32Array;
  workers: number;
}

const { program, frames, frameBytes, arrivals, workers } = workerData as Work;
const runner = new FrameRunner(new BpfProgram('dirigo', program), 2048);
for (let frame = 0; frame * frameBytes < frames.length; frame++) {
  runner.input.set(frames.subarray(frame * frameBytes, (frame + 1) * frameBytes));
  Atomics.add(arrivals, frame, 1);
  while (Atomics.load(arrivals, frame) < workers);
  runner.run(frameBytes, 0);
}
parentPort?.postMessage('done');
