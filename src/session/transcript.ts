/** How a session reads: steps with headings, commands with their output, frames and verdicts. */
import type { CommandOutput } from './laboratory.ts';

export class Transcript {
  readonly #print: (text: string) => void;
  #step = 0;

  constructor(print: (text: string) => void) {
    this.#print = print;
  }

  title(text: string): void {
    this.#print(`${text}\n${'='.repeat(text.length)}\n`);
  }

  /** Begins the next step. */
  step(text: string): void {
    this.#step++;
    const heading = `${this.#step}. ${text}`;
    this.#print(`\n${heading}\n${'-'.repeat(heading.length)}\n`);
  }

  note(text: string): void {
    this.#print(`${text}\n`);
  }

  /** A command as typed on a host, and what it printed. */
  command(host: string, line: string, { stdout, stderr, status }: CommandOutput): void {
    this.#print(`${host}# ${line}\n${stdout}`);
    // Progress meters and the like go to standard error, too; it matters when something went wrong.
    if (status !== 0) this.#print(`${stderr}[status ${status}]\n`);
  }

  lines(lines: readonly string[]): void {
    for (const line of lines) this.#print(`  ${line}\n`);
  }

  verdict(holds: boolean, text: string): void {
    this.#print(`  ${holds ? 'ok  ' : 'FAIL'} ${text}\n`);
  }
}
