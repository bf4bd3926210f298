/** What the daemon shows of its director's frames: a pcapng stream over its socket. */
import { request } from 'node:http';
import type { CapturedFrame } from '../capture/frame.ts';
import { PcapngReader } from '../capture/pcapng.ts';

export interface DirectorFramesOptions {
  /** The daemon's socket. */
  socket: string;
  /** In the language of pcap-filter(7); empty: every frame. */
  filter: string;
  /** Interfaces by which the frames come in to the director; empty: all. */
  interfaces: readonly string[];
  /** Most frames a second that are shown, and that are looked at. */
  limit: number;
  looks: number;
  /** Most bytes of a frame. */
  snapshotLength: number;
}

export interface DirectorFrames {
  /** Frames so far that were over the limit or found no room. */
  readonly dropped: number;
  /** Ends it. */
  close(): void;
  /** Settles when there are no more, with the reason if it was not `close`. */
  readonly ended: Promise<string | undefined>;
}

/**
 * Asks a daemon to show its frames.
 * @throws Error with the daemon's words if it refuses; with the system's `code` if there is no daemon
 */
export function openDirectorFrames(
  options: DirectorFramesOptions,
  show: (frame: CapturedFrame) => void,
): Promise<DirectorFrames> {
  const { socket, filter, interfaces, limit, looks, snapshotLength } = options;
  const query = new URLSearchParams({
    filter,
    limit: String(limit),
    looks: String(looks),
    snaplen: String(snapshotLength),
  });
  if (interfaces.length > 0) query.set('interfaces', interfaces.join(','));
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath: socket, path: `/capture?${query}`, headers: { Host: 'dirigo' } });
    asked.on('error', reject);
    asked.on('response', response => {
      const chunks: Buffer[] = [];
      if (response.statusCode !== 200) {
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('end', () => reject(new Error(errorIn(Buffer.concat(chunks), response.statusCode))));
        return;
      }
      const reader = new PcapngReader();
      const { promise: ended, resolve: end } = Promise.withResolvers<string | undefined>();
      let closed = false;
      response.on('data', (chunk: Buffer) => {
        for (const frame of reader.read(chunk)) show(frame);
      });
      const over = (): void => end(closed ? undefined : 'the daemon ended it');
      for (const event of ['end', 'error', 'close']) response.on(event, over);
      resolve({
        get dropped() {
          return reader.dropped;
        },
        ended,
        close: () => {
          closed = true;
          asked.destroy();
          end(undefined);
        },
      });
    });
    asked.end();
  });
}

function errorIn(body: Buffer, status: number | undefined): string {
  try {
    return String((JSON.parse(body.toString()) as { error: unknown }).error);
  } catch {
    return `the daemon answers with status ${status}`;
  }
}
