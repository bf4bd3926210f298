/** What `dirigo capture` does: from a file or live, to the terminal or to a file. */

import { readCaptureFile } from '../capture/capture-file.ts';
import { Filter } from '../capture/filter.ts';
import type { StopConditions } from '../capture/stop-conditions.ts';
import { readNamedFile } from '../control/named-file.ts';
import { readHostStateSync } from '../datapath/host-state.ts';
import { CaptureOutput } from './capture-output.ts';
import { LiveFrames } from './live-frames.ts';

export interface CaptureOptions {
  interface?: string[];
  listInterfaces?: true;
  filter?: string;
  read?: string;
  write?: string;
  fileType: 'pcapng' | 'pcap';
  print?: true;
  count?: number;
  autostop?: StopConditions;
  snapshotLength: number;
  promiscuousMode: boolean;
  n?: true;
  V?: true;
  type: 'text' | 'json';
  x?: true;
  quiet?: true;
  comments?: true;
  director: boolean;
  sample: number;
  looks: number;
}

/**
 * @param words of the filter that stand behind the options
 * @throws Error in plain words
 */
export async function capture(words: readonly string[], options: CaptureOptions): Promise<void> {
  if (options.listInterfaces) {
    process.stdout.write(interfaceList());
    return;
  }
  const filter = options.filter ?? words.join(' ');
  if (options.filter !== undefined && words.length > 0)
    throw new Error(`a filter is given twice: -f ${options.filter}, and ${words.join(' ')}`);
  if (options.print && options.write === undefined)
    throw new Error('-P goes with -w: without it frames are printed anyway');
  const output = new CaptureOutput(options);
  if (options.read !== undefined) readFile(options.read, filter, options, output);
  else await captureLive(filter, options, output);
}

function readFile(path: string, filter: string, options: CaptureOptions, output: CaptureOutput): void {
  if (options.interface) throw new Error('-r reads a file, -i captures: give one of them');
  const bytes = readNamedFile(path);
  const passes = new Filter(filter);
  const frames = readCaptureFile(bytes);
  output.open();
  for (const frame of frames) {
    if (!passes.matches(frame.bytes, frame.length)) continue;
    const cut = frame.bytes.subarray(0, options.snapshotLength);
    if (!output.add({ ...frame, bytes: cut })) break;
  }
  output.close();
}

async function captureLive(filter: string, options: CaptureOptions, output: CaptureOutput): Promise<void> {
  const interfaces = chosenInterfaces(options.interface);
  const live = await LiveFrames.open({
    interfaces,
    filter,
    snapshotLength: options.snapshotLength,
    promiscuous: options.promiscuousMode,
    director: options.director,
    sample: options.sample,
    looks: options.looks,
  });
  const stop = (): void => live.stop();
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  for (const signal of signals) process.on(signal, stop);
  try {
    output.open();
    if (!options.quiet)
      process.stderr.write(`Capturing on ${interfaces.map(name => `'${name}'`).join(' and ')}\n`);
    const duration = options.autostop?.duration ?? Infinity;
    const timer = Number.isFinite(duration) ? setTimeout(stop, duration) : undefined;
    const problem = await live.run(frames => {
      for (const frame of frames) if (!output.add(frame)) return false;
      output.flush();
      return true;
    });
    clearTimeout(timer);
    output.close();
    if (!options.quiet) process.stderr.write(output.countText());
    for (const text of live.lossTexts()) process.stderr.write(`dirigo: ${text}\n`);
    if (problem !== undefined) throw new Error(problem);
  } finally {
    live.close();
    for (const signal of signals) process.off(signal, stop);
  }
}

function chosenInterfaces(names: readonly string[] | undefined): string[] {
  const { interfaces } = readHostStateSync();
  const up = interfaces.filter(({ isUp }) => isUp);
  if (names?.includes('any')) return up.map(({ name }) => name);
  if (names) return [...new Set(names)];
  const first = up.find(({ isLoopback }) => !isLoopback) ?? up[0];
  if (!first) throw new Error('no interface is up: name one with -i (-D lists them)');
  return [first.name];
}

/** In the form of `tshark -D`: the one that is captured on without -i first. */
function interfaceList(): string {
  const { interfaces } = readHostStateSync();
  const ranked = interfaces.toSorted(
    (one, other) =>
      Number(other.isUp) - Number(one.isUp) || Number(one.isLoopback) - Number(other.isLoopback),
  );
  const lines = ranked.map(({ name, isLoopback, isUp }) => {
    const remark = isLoopback ? ' (Loopback)' : isUp ? '' : ' (down)';
    return `${name}${remark}`;
  });
  return [...lines, 'any (all that are up)'].map((line, index) => `${index + 1}. ${line}\n`).join('');
}
