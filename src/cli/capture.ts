/** `dirigo capture`: frames of interfaces and of the director, with tshark's manners. */
import { type Command, InvalidArgumentError } from 'commander';
import { StopConditionError, StopConditions } from '../capture/stop-conditions.ts';
import type { CaptureOptions } from './capture-run.ts';
import { orFail } from './failure.ts';

/** Most bytes of a frame, as libpcap has it. */
const LONGEST_FRAME = 262_144;

export function addCapture(program: Command): void {
  program
    .command('capture')
    .summary('show or record frames, those that XDP takes included, with what was decided about them')
    .description(
      'Capture frames with the options of tshark: one line a frame, a decoded tree (-V), JSON (-T json), or a file (-w).\n' +
        'Besides what the taps of the kernel see it shows what the XDP program and the director take, as it came and as\n' +
        'it left, with the decision: service, server, method, or why it was dropped. The decisions are comments in pcapng\n' +
        'files, and shown with -V, -T json and --comments.',
    )
    .argument('[filter...]', 'the capture filter, as -f')
    .option(
      '-i, --interface <interface>',
      'capture here; may be repeated; "any": all of them (default: the first that is not loopback)',
      collect,
    )
    .option('-D, --list-interfaces', 'list the interfaces and exit')
    .option('-f, --filter <expression>', 'only frames that this filter passes (pcap-filter(7))')
    .option('-r, --read <file>', 'read frames from this file (pcapng or pcap; - for standard input)')
    .option('-w, --write <file>', 'write frames to this file (- for standard output)')
    .option('-F, --file-type <type>', 'type of the file that -w writes: pcapng or pcap', fileType, 'pcapng')
    .option('-P, --print', 'print frames although they are written')
    .option('-c, --count <number>', 'stop after this many frames', whole(1, Number.MAX_SAFE_INTEGER))
    .option(
      '-a, --autostop <condition>',
      'stop after duration:SECONDS, packets:NUMBER or filesize:KILOBYTES; may be repeated',
      condition,
    )
    .option('-s, --snapshot-length <bytes>', 'most bytes of a frame', whole(1, LONGEST_FRAME), LONGEST_FRAME)
    .option('-p, --no-promiscuous-mode', 'do not ask for frames that are for other stations')
    .option('-n', 'no names of vendors in MAC addresses')
    .option('-V', 'print the decoded tree of each frame')
    .option('-T, --type <type>', 'print as text, or as json in the shape of tshark', outputType, 'text')
    .option('-x', 'print the bytes, too')
    .option('-q, --quiet', 'no count of frames on standard error')
    .option('--comments', 'print comments below the line of their frame')
    .option('--no-director', 'only what the taps of the kernel see')
    .option(
      '--sample <number>',
      'most frames a second that are shown of the XDP program (each CPU) and of the director',
      whole(1, 1_000_000),
      1000,
    )
    .option(
      '--looks <number>',
      'most frames a second that the filter is tried on in the XDP program (each CPU)',
      whole(1, 100_000_000),
      100_000,
    )
    .action((words: string[], options: CaptureOptions) =>
      orFail(async () => {
        const { capture } = await import('./capture-run.ts');
        await capture(words, options);
      }),
    );
}

function collect(value: string, before: string[] | undefined): string[] {
  return [...(before ?? []), value];
}

function whole(least: number, most: number): (text: string) => number {
  return text => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < least || value > most)
      throw new InvalidArgumentError(`It is not a whole number from ${least} to ${most}.`);
    return value;
  };
}

function condition(text: string, before: StopConditions | undefined): StopConditions {
  const conditions = before ?? new StopConditions();
  try {
    conditions.add(text);
  } catch (error) {
    if (error instanceof StopConditionError) throw new InvalidArgumentError(error.message);
    throw error;
  }
  return conditions;
}

function fileType(text: string): string {
  if (text !== 'pcapng' && text !== 'pcap') throw new InvalidArgumentError('It is neither pcapng nor pcap.');
  return text;
}

function outputType(text: string): string {
  if (text !== 'text' && text !== 'json') throw new InvalidArgumentError('It is neither text nor json.');
  return text;
}
