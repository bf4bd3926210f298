/** `dirigo replay`: what a director would do with a scenario or a capture, and whether a real one did the same. */
import { readFileSync, writeFileSync } from 'node:fs';
import type { Command } from 'commander';
import type { CapturedFrame } from '../capture/frame.ts';
import type { NameService } from '../ipvsadm/names.ts';
import type { PlayOptions } from '../replay/packet-play.ts';

interface ReplayOptions {
  check?: boolean;
  setup?: string;
  read?: string;
  write?: string;
}

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
    const { setup, read, write } = options;
    if (setup === undefined && read === undefined && write === undefined) {
      await playFiles(scenarios, options.check === true);
    } else if (setup === undefined || read === undefined || write === undefined) {
      throw new InputError('--setup, --read and --write go together');
    } else if (scenarios.length > 0 || options.check) {
      throw new InputError('a capture is played without scenarios and without --check');
    } else await playCaptureFile(setup, read, write);
  } catch (error) {
    const isInput = [InputError, ScenarioError, SetupError, CaptureFileError].some(
      kind => error instanceof kind,
    );
    if (!isInput) throw error;
    console.error(`dirigo: ${(error as Error).message}`);
    process.exitCode = WRONG_INPUT;
  }
}

async function playFiles(files: readonly string[], check: boolean): Promise<void> {
  if (files.length === 0) throw new InputError('name a scenario, or give --setup, --read and --write');
  const options = await playOptions();
  let differing = 0;
  let checked = 0;
  for (const file of files) {
    if (!check) await printPlayed(file, options);
    else {
      const counts = await checkFile(file, options);
      differing += counts.differing;
      checked += counts.checked;
    }
  }
  if (!check) return;
  process.stdout.write(`${checked} scenarios, ${differing === 0 ? 'none differs' : `${differing} differ`}\n`);
  if (differing > 0) process.exitCode = DIFFERENT;
}

async function printPlayed(file: string, options: PlayOptions): Promise<void> {
  const { parseScenarios } = await import('../replay/scenario.ts');
  const { filledIn, playPackets } = await import('../replay/packet-play.ts');
  const { playScheduling, schedulingFilledIn } = await import('../replay/scheduling-play.ts');
  for (const each of parseScenarios(readText(file), file)) {
    // As they are recorded: scenarios of scheduling one a line, the others indented.
    const text =
      each.kind === 'scheduling'
        ? JSON.stringify(schedulingFilledIn(each.scenario, playScheduling(each.scenario, file, options)))
        : JSON.stringify(filledIn(each.scenario, playPackets(each.scenario, file, options)), null, 1);
    process.stdout.write(`${text}\n`);
  }
}

async function checkFile(
  file: string,
  options: PlayOptions,
): Promise<{ checked: number; differing: number }> {
  const { parseScenarios } = await import('../replay/scenario.ts');
  const { checkScenario } = await import('../replay/check.ts');
  const { formatDifference } = await import('../replay/comparison.ts');
  let differing = 0;
  const scenarios = parseScenarios(readText(file), file);
  for (const each of scenarios) {
    const differences = checkScenario(each, file, options);
    if (differences.length === 0) continue;
    differing++;
    const count = differences.length === 1 ? '1 difference' : `${differences.length} differences`;
    process.stdout.write(
      `${file} ${each.scenario.name}: ${count}\n${differences.map(formatDifference).join('')}\n`,
    );
  }
  return { checked: scenarios.length, differing };
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
    return readFileSync(file);
  } catch (error) {
    throw new InputError(`${file}: ${(error as NodeJS.ErrnoException).code ?? (error as Error).message}`);
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
