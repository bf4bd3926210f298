/** What a capture costs the XDP program. */
import { compileFilter } from '../src/datapath/ffi/libpcap.ts';
import type { ProgramTap } from '../src/datapath/xdp/program-tap.ts';
import { TcpFlag } from '../src/wire/tcp.ts';
import { heading } from './measure.ts';
import { clientFlows, type Figure, type Rig, withRig } from './xdp.ts';

const FLOWS = 10_000;
const PACKETS = 1_000_000;
const FRAME = 60;

/** The tap as it is set for a measurement; undefined: no capture. */
interface Case {
  what: string;
  tap?: { filter: string; limit: number; looks: number; snapshotLength: number };
}

const NO_LIMIT = 1_000_000_000;
const CASES: readonly Case[] = [
  { what: 'no capture' },
  {
    what: 'a capture, its limit (1000 a second) used up',
    tap: { filter: '', limit: 1000, looks: 100_000, snapshotLength: 2048 },
  },
  {
    what: 'a filter that no frame passes, 100000 looks a second',
    tap: { filter: 'tcp port 9 or host 192.0.2.1', limit: 1000, looks: 100_000, snapshotLength: 2048 },
  },
  {
    what: 'no limit, a filter that no frame passes',
    tap: { filter: 'tcp port 9 or host 192.0.2.1', limit: NO_LIMIT, looks: NO_LIMIT, snapshotLength: 2048 },
  },
  {
    what: 'no limit, every frame copied (ring full most of the time)',
    tap: { filter: '', limit: NO_LIMIT, looks: NO_LIMIT, snapshotLength: 2048 },
  },
];

export function captureBenchmark(): void {
  heading(`A capture of the XDP program: DR, established TCP, ${FLOWS} flows, frames of ${FRAME} bytes`);
  withRig({ capacity: FLOWS }, rig => {
    const list = clientFlows(FLOWS);
    rig.fill(list);
    for (const each of CASES) show(each.what, measure(rig, each));
  });
}

function measure(rig: Rig, { tap }: Case): Figure | undefined {
  const list = clientFlows(FLOWS);
  const shape = rig.shape(TcpFlag.ack);
  if (!tap) return rig.measure(shape, list, PACKETS);
  const { filter, ...rest } = tap;
  const open: ProgramTap = rig.bed.fastPath.tap({ filter: filter ? compileFilter(filter) : [], ...rest });
  try {
    return rig.measure(shape, list, PACKETS, open.program);
  } finally {
    rig.bed.fastPath.untap(open);
  }
}

function show(what: string, figure: Figure | undefined): void {
  const value = figure
    ? `${figure.net.toFixed(0).padStart(6)} ns (median ${figure.median.toFixed(0)})`
    : 'not handled';
  process.stdout.write(`  ${what.padEnd(60)} ${value}\n`);
}
