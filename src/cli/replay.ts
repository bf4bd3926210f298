/** `dirigo replay`: what a director would do with a scenario or a capture, and whether a real one did the same. */

import { readFileSync, writeFileSync } from 'node:fs';
import type { Command } from 'commander';
import type { CapturedFrame } from '../capture/frame.ts';
import { readNamedFile } from '../control/named-file.ts';
import type { XdpAccelerator } from '../datapath/xdp/accelerator.ts';
import type { NameService } from '../ipvsadm/names.ts';
import type { PlayOptions } from '../replay/packet-play.ts';

interface ReplayOptions {
  check?: boolean;
  datapath: string;
  setup?: string;
  read?: string;
  write?: string;
}

/** Tables of the XDP program: more than any scenario needs. */
const CONNECTIONS = 8192;
const DESTINATIONS = 1024;
/** Status for input that cannot be played. */
const WRONG_INPUT = 2;
/** Status for a check that found differences. */
const DIFFERENT = 1;

/** What is wrong with the command line or a file. */
class InputError extends Error {}

export function addReplay(program: Command): void {
  program
    .command('replay')
    .summary('play recorded scenarios or a capture against the director')
    .description(
      'Play scenarios against the director on a virtual clock and print them with what it did: the frames it sent, the\n' +
        'servers it chose, the listings. What the files say about that is ignored, but for --check.\n' +
        'With --setup, play a capture and write what the director sent.',
    )
    .argument('[scenario...]', 'files in the recorded formats: JSON, or JSON lines for scheduling')
    .option('--check', 'compare with what the files say; status 1 if something differs')
    .option(
      '--datapath <kind>',
      'virtual: the director alone; xdp: the program in the kernel in front of it, run on each frame (as root)',
      'virtual',
    )
    .option(
      '--setup <file>',
      'lines of ipvsadm, sysctl, ip and mark rules that set up the director for --read',
    )
    .option('--read <capture>', 'frames to play: pcap or pcapng')
    .option('--write <capture>', 'where to write what was sent: pcapng if its name ends so, else pcap')
    .addHelpText(
      'after',
      '\nLines of a set-up, for example:\n' +
        '  ipvsadm -A -t 10.0.0.3:80 -s wlc\n' +
        '  ipvsadm -a -t 10.0.0.3:80 -r 10.0.0.7:80 -g\n' +
        '  sysctl net.ipv4.vs.sloppy_tcp=1\n' +
        '  tcp to 10.0.0.3 port 80-443 mark 1\n' +
        '  ip addr add 192.0.2.1/24 dev eth0\n' +
        '  ip route add default via 192.0.2.254\n' +
        '  ip neigh add 192.0.2.7 lladdr 02:00:00:00:02:07 dev eth0\n' +
        '\nStatus: 0; 1: --check found differences; 2: input that cannot be played.',
    )
    // Commander says 1 for a wrong command line, which here means a difference.
    .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : WRONG_INPUT))
    .action((scenarios: string[], options: ReplayOptions) => run(scenarios, options));
}

async function run(scenarios: readonly string[], options: ReplayOptions): Promise<void> {
  const { ScenarioError } = await import('../replay/scenario.ts');
  const { SetupError } = await import('../replay/capture-play.ts');
  const { CaptureFileError } = await import('../capture/frame.ts');
  try {
    const { setup, read, write, datapath } = options;
    if (datapath !== 'virtual' && datapath !== 'xdp') {
      throw new InputError(`there is no data path "${datapath}" to play on: virtual or xdp`);
    }
    if (setup === undefined && read === undefined && write === undefined) {
      await playFiles(scenarios, options.check === true, datapath === 'xdp');
    } else if (setup === undefined || read === undefined || write === undefined) {
      throw new InputError('--setup, --read and --write go together');
    } else if (scenarios.length > 0 || options.check || datapath === 'xdp') {
      throw new InputError('a capture is played without scenarios, without --check and not on XDP');
    } else await playCaptureFile(setup, read, write);
  } catch (error) {
    const { TestBedError } = await import('../datapath/xdp/test-bed.ts');
    const isInput = [InputError, ScenarioError, SetupError, CaptureFileError, TestBedError].some(
      kind => error instanceof kind,
    );
    if (!isInput) throw error;
    console.error(`dirigo: ${(error as Error).message}`);
    process.exitCode = WRONG_INPUT;
  }
}

async function playFiles(files: readonly string[], check: boolean, onXdp: boolean): Promise<void> {
  if (files.length === 0) throw new InputError('name a scenario, or give --setup, --read and --write');
  const options = await playOptions();
  const work = check ? await checker(files) : await printer(files);
  if (!onXdp) {
    work(options);
    return;
  }
  await onTestBed(accelerate => work({ ...options, accelerate }));
}

/**
 * Runs `work` with a test bed of the XDP program that has the interfaces of the recordings.
 * @throws Error that says what is missing: root, libbpf, the program
 */
export async function onTestBed(work: (accelerate: () => XdpAccelerator) => void): Promise<void> {
  const { withTestBed } = await import('../datapath/xdp/test-bed.ts');
  const { XdpAccelerator } = await import('../datapath/xdp/accelerator.ts');
  const { KERNEL_HZ } = await import('../replay/kernel-timers.ts');
  const { recordedHost } = await import('../replay/topology.ts');
  const [, ...interfaces] = recordedHost({ interfaces: 2 }).interfaces;
  const options = { interfaces, hz: KERNEL_HZ, capacity: CONNECTIONS, destinationCapacity: DESTINATIONS };
  withTestBed(options, bed => work(() => new XdpAccelerator(bed)));
}

/** What prints scenarios with what came of them. */
async function printer(files: readonly string[]): Promise<(options: PlayOptions) => void> {
  const { parseScenarios } = await import('../replay/scenario.ts');
  const { filledIn, playPackets } = await import('../replay/packet-play.ts');
  const { playScheduling, schedulingFilledIn } = await import('../replay/scheduling-play.ts');
  return options => {
    for (const file of files) {
      for (const each of parseScenarios(readText(file), file)) {
        // As they are recorded: scenarios of scheduling one a line, the others indented.
        const text =
          each.kind === 'scheduling'
            ? JSON.stringify(schedulingFilledIn(each.scenario, playScheduling(each.scenario, file, options)))
            : JSON.stringify(filledIn(each.scenario, playPackets(each.scenario, file, options)), null, 1);
        process.stdout.write(`${text}\n`);
      }
    }
  };
}

/** What compares scenarios with what they say. */
async function checker(files: readonly string[]): Promise<(options: PlayOptions) => void> {
  const { parseScenarios } = await import('../replay/scenario.ts');
  const { checkScenario } = await import('../replay/check.ts');
  const { formatDifference } = await import('../replay/comparison.ts');
  return options => {
    let differing = 0;
    let checked = 0;
    for (const file of files) {
      for (const each of parseScenarios(readText(file), file)) {
        checked++;
        const differences = checkScenario(each, file, options);
        if (differences.length === 0) continue;
        differing++;
        const count = differences.length === 1 ? '1 difference' : `${differences.length} differences`;
        process.stdout.write(
          `${file} ${each.scenario.name}: ${count}\n${differences.map(formatDifference).join('')}\n`,
        );
      }
    }
    process.stdout.write(
      `${checked} scenarios, ${differing === 0 ? 'none differs' : `${differing} differ`}\n`,
    );
    if (differing > 0) process.exitCode = DIFFERENT;
  };
}

async function playCaptureFile(setup: string, read: string, write: string): Promise<void> {
  const { readCaptureFile } = await import('../capture/capture-file.ts');
  const { playCapture } = await import('../replay/capture-play.ts');
  const frames = readNamed(read, () => readCaptureFile(readBytes(read)));
  const outcome = playCapture(readText(setup), setup, frames, await playOptions());
  try {
    writeFileSync(write, await captureFile(write, outcome.sent));
  } catch (error) {
    throw new InputError(`${write}: ${(error as Error).message}`);
  }
  for (const note of outcome.notes) console.error(`dirigo: ${note}`);
  const drops = [...outcome.drops].map(([reason, count]) => `dropped: ${count} ${reason}\n`).join('');
  process.stdout.write(
    `${outcome.received} frames in, ${outcome.sent.length} out\n${drops}\n${outcome.listings}`,
  );
}

async function captureFile(name: string, frames: readonly CapturedFrame[]): Promise<Uint8Array> {
  if (name.endsWith('.pcapng')) {
    const { writePcapng } = await import('../capture/pcapng.ts');
    return writePcapng(frames);
  }
  const { writePcap } = await import('../capture/pcap.ts');
  return writePcap(frames);
}

async function playOptions(): Promise<PlayOptions> {
  const { NO_NAMES, namesFromFiles } = await import('../ipvsadm/name-files.ts');
  let names: NameService = NO_NAMES;
  try {
    names = namesFromFiles(readFileSync('/etc/services', 'utf8'), '');
  } catch {
    // Without the file ports have no names: commands must give numbers, and listings do.
  }
  return { names, random: sequence(1) };
}

/** Numbers that look random and are the same in every run (xorshift32). */
function sequence(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

function readText(file: string): string {
  return new TextDecoder().decode(readBytes(file));
}

function readBytes(file: string): Uint8Array {
  try {
    return readNamedFile(file);
  } catch (error) {
    throw new InputError((error as Error).message);
  }
}

/** Names the file in errors about what is in it. */
function readNamed<Result>(file: string, work: () => Result): Result {
  try {
    return work();
  } catch (error) {
    if (error instanceof Error && error.name === 'CaptureFileError') {
      throw new InputError(`${file}: ${error.message}`);
    }
    throw error;
  }
}
