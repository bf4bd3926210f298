/** Where captured frames go: lines, trees or JSON to the terminal, and a file. */
import { closeSync, openSync, writeSync } from 'node:fs';
import type { CapturedFrame, CaptureWriter } from '../capture/frame.ts';
import { hexDump } from '../capture/hex-dump.ts';
import { PcapWriter } from '../capture/pcap.ts';
import { PcapngWriter } from '../capture/pcapng.ts';
import { CapturePrinter } from '../capture/printer.ts';
import { StopConditions } from '../capture/stop-conditions.ts';
import type { CaptureOptions } from './capture-run.ts';
import { vendorList } from './vendor.ts';

/** Bytes of the file that are gathered until they are written. */
const BUFFER_BYTES = 1 << 20;

export class CaptureOutput {
  readonly #options: CaptureOptions;
  readonly #stop: StopConditions;
  readonly #prints: boolean;
  readonly #printer: CapturePrinter;
  readonly #writer: CaptureWriter | undefined;
  #file = -1;
  #pending: Uint8Array[] = [];
  #pendingBytes = 0;
  #fileBytes = 0;
  #count = 0;
  #text = '';
  #isBroken = false;

  constructor(options: CaptureOptions) {
    this.#options = options;
    this.#stop = options.autostop ?? new StopConditions();
    this.#stop.packets = Math.min(this.#stop.packets, options.count ?? Infinity);
    this.#prints = options.write === undefined || options.print === true;
    if (options.write === '-' && this.#prints)
      if (options.print) throw new Error('-P and -w -: both would go to standard output');
    this.#printer = new CapturePrinter({
      format: options.type === 'json' ? 'json' : options.V ? 'tree' : 'summary',
      names: !options.n,
      ...(this.#prints && !options.n ? { vendors: vendorList() } : {}),
    });
    if (options.write !== undefined)
      this.#writer = options.fileType === 'pcap' ? new PcapWriter() : new PcapngWriter();
  }

  /** Begins the file. @throws Error that names the file */
  open(): void {
    const { write, type } = this.#options;
    process.stdout.on('error', (error: NodeJS.ErrnoException) => {
      // Whoever read us has seen enough, as `head` does.
      if (error.code !== 'EPIPE') throw error;
      this.#isBroken = true;
    });
    if (write !== undefined && this.#writer) {
      try {
        this.#file = write === '-' ? 1 : openSync(write, 'w', 0o644);
      } catch (error) {
        throw new Error(`cannot write ${write}: ${(error as Error).message}`);
      }
      this.#write(this.#writer.start());
    }
    if (this.#prints && type === 'json') this.#text += '[\n';
  }

  /** Takes a frame; false if no more are wanted. */
  add(frame: CapturedFrame): boolean {
    if (this.#isBroken || this.#stop.isReached(this.#count, this.#fileBytes)) return false;
    this.#count++;
    if (this.#writer) this.#write(this.#writer.frame(frame));
    if (this.#prints) this.#print(frame);
    return !this.#stop.isReached(this.#count, this.#fileBytes);
  }

  #print(frame: CapturedFrame): void {
    const { type, x, V, comments } = this.#options;
    const text = this.#printer.print(frame.time, frame.bytes, frame) ?? '';
    if (type === 'json') {
      this.#text += `${this.#count > 1 ? ',\n' : ''}${text.replace(/^/gm, '  ')}`;
      return;
    }
    this.#text += `${text}\n`;
    if (comments && !V && frame.comment !== undefined)
      this.#text += `${frame.comment.replace(/[^\P{Cc}\n]/gu, '\ufffd').replace(/^/gm, '    ')}\n`;
    if (x) this.#text += `${hexDump(frame.bytes)}\n`;
    if (this.#text.length > BUFFER_BYTES) this.flush();
  }

  #write(bytes: Uint8Array): void {
    this.#pending.push(bytes);
    this.#pendingBytes += bytes.length;
    this.#fileBytes += bytes.length;
    if (this.#pendingBytes > BUFFER_BYTES) this.flush();
  }

  /** Brings what was gathered to where it goes. @throws Error that names the file */
  flush(): void {
    if (this.#text !== '') process.stdout.write(this.#text);
    this.#text = '';
    if (this.#pendingBytes === 0) return;
    const bytes = Buffer.concat(this.#pending);
    this.#pending = [];
    this.#pendingBytes = 0;
    try {
      for (let at = 0; at < bytes.length; ) at += writeSync(this.#file, bytes, at);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EPIPE') this.#isBroken = true;
      else throw new Error(`cannot write ${this.#options.write}: ${(error as Error).message}`);
    }
  }

  close(): void {
    if (this.#prints && this.#options.type === 'json') this.#text += this.#count > 0 ? '\n]\n' : ']\n';
    this.flush();
    if (this.#file > 1) closeSync(this.#file);
  }

  countText(): string {
    return `${this.#count} packet${this.#count === 1 ? '' : 's'} captured\n`;
  }
}
