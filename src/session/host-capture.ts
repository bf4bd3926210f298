/** `dirigo capture` on a host of the virtual LAN: `-i INTERFACE`, `-f FILTER`, `-c COUNT`, tshark's one-line summaries. */
import { Filter, FilterError } from '../capture/filter.ts';
import { nanoseconds } from '../capture/frame.ts';
import { formatSummary, Summarizer } from '../capture/summary.ts';
import type { Host } from '../lan/host.ts';
import type { Interface } from '../lan/interface.ts';
import type { CommandResult } from '../lan/shell.ts';

interface HostCaptureOptions {
  interfaceName: string;
  /** In the language of pcap-filter; empty: every frame. */
  filter: string;
  /** Frames after which it ends. */
  count: number;
}

/** The command `dirigo` of a virtual host: `dirigo capture …`. */
export async function runDirigo(host: Host, argv: readonly string[]): Promise<CommandResult> {
  if (argv[0] !== 'capture') return refuse(`a virtual host knows "dirigo capture", not "${argv.join(' ')}"`);
  const options: HostCaptureOptions = { interfaceName: '', filter: '', count: 0 };
  for (let at = 1; at < argv.length; at += 2) {
    const [option, value] = [argv[at], argv[at + 1]];
    if (value === undefined) return refuse(`option ${option} needs a value`);
    if (option === '-i') options.interfaceName = value;
    else if (option === '-f') options.filter = value;
    else if (option === '-c' && /^[1-9]\d*$/.test(value)) options.count = Number(value);
    else return refuse(`option ${option} ${value} is none of -i INTERFACE, -f FILTER, -c COUNT`);
  }
  if (options.count === 0)
    return refuse('on a virtual host a capture has to end: say how many frames with -c');
  const device = host.interfaceNamed(options.interfaceName);
  if (!device) return refuse(`${host.name} has no interface "${options.interfaceName}"`);
  try {
    return {
      status: 0,
      stdout: await captureFrom(device, new Filter(options.filter), options.count),
      stderr: '',
    };
  } catch (error) {
    if (error instanceof FilterError) return refuse(error.message);
    throw error;
  }
}

function refuse(what: string): CommandResult {
  return { status: 2, stdout: '', stderr: `dirigo capture: ${what}\n` };
}

/** The lines for the next `count` frames that pass the filter. */
function captureFrom(device: Interface, filter: Filter, count: number): Promise<string> {
  const summarizer = new Summarizer();
  const { promise, resolve } = Promise.withResolvers<string>();
  let output = '';
  let number = 0;
  let first = 0n;
  const stop = device.tap((time, _direction, bytes) => {
    if (!filter.matches(bytes)) return;
    const now = nanoseconds(time);
    if (number++ === 0) first = now;
    output += `${formatSummary(summarizer.summarize({ bytes, length: bytes.length }), number, now - first)}\n`;
    if (number < count) return;
    stop();
    resolve(output);
  });
  return promise;
}
