/**
 * Writes lines to standard error without waiting for whoever reads it: Node writes to a pipe synchronously, so a journal
 * that hangs would stop the director.
 */
import { write } from 'node:fs';

/** Letters that wait at most; lines beyond are counted and left out. */
const MOST_WAITING = 1024 * 1024;
/** Milliseconds until a descriptor that takes nothing now is tried again. */
const RETRY = 20;
/** Milliseconds that the end waits for what is still to be written. */
const PATIENCE = 500;

export class LogWriter {
  readonly #fd: number;
  #waiting = '';
  #isWriting = false;
  #lost = 0;
  #idle: (() => void) | undefined;

  constructor(fd = 2) {
    this.#fd = fd;
  }

  /** @param line with its end */
  write(line: string): void {
    if (this.#waiting.length > MOST_WAITING) {
      this.#lost++;
      return;
    }
    if (this.#lost > 0) {
      this.#waiting += `<4>log lines left out, nobody reads them lines=${this.#lost}\n`;
      this.#lost = 0;
    }
    this.#waiting += line;
    if (!this.#isWriting) this.#flush();
  }

  /** True while a line is on its way: a thread may be waiting for whoever reads, and would keep the process from ending. */
  get isWriting(): boolean {
    return this.#isWriting;
  }

  /** Waits for what is still to be written, not for ever. */
  async drained(): Promise<void> {
    if (!this.#isWriting) return;
    await new Promise<void>(resolve => {
      this.#idle = resolve;
      setTimeout(resolve, PATIENCE).unref();
    });
  }

  #flush(): void {
    if (this.#waiting === '') {
      this.#isWriting = false;
      this.#idle?.();
      return;
    }
    this.#isWriting = true;
    const bytes = Buffer.from(this.#waiting);
    this.#waiting = '';
    this.#send(bytes);
  }

  #send(bytes: Buffer): void {
    write(this.#fd, bytes, (error, written) => {
      if (error?.code === 'EAGAIN') setTimeout(() => this.#send(bytes), RETRY);
      else if (!error && written < bytes.length) this.#send(bytes.subarray(written));
      // Otherwise it is written, or nobody will ever read it.
      else this.#flush();
    });
  }
}
