/** The terminal while a full-screen view has it: taken over, drawn on, and given back as it was, however it ends. */
import type { Line } from './view.ts';

const ENTER = '\x1b[?1049h\x1b[?25l\x1b[?7l';
const LEAVE = '\x1b[?7h\x1b[?25h\x1b[?1049l';
const STYLES: Readonly<Record<Line['style'], string>> = { plain: '', bold: '\x1b[1m', reverse: '\x1b[7m' };

/** Names of keys by the bytes that terminals send for them. */
const KEYS: Readonly<Record<string, string>> = {
  '\x1b': 'escape',
  '\x03': 'interrupt',
  '\x1a': 'suspend',
  '\x0c': 'redraw',
  ' ': 'space',
  '\x1b[A': 'up',
  '\x1b[B': 'down',
  '\x1bOA': 'up',
  '\x1bOB': 'down',
  '\x1b[5~': 'pageup',
  '\x1b[6~': 'pagedown',
  '\x1b[H': 'home',
  '\x1b[F': 'end',
  '\x1b[1~': 'home',
  '\x1b[4~': 'end',
};

/** True if a full screen can be drawn: a terminal on both sides that is not a teletype. */
export function canDraw(environment: NodeJS.ProcessEnv = process.env): boolean {
  const { TERM: name = 'dumb' } = environment;
  return process.stdin.isTTY === true && process.stdout.isTTY === true && name !== 'dumb';
}

export class Screen {
  /** Called with the name of each key that is pressed, a character for most. */
  onKey: (key: string) => void = () => {};
  /** Called when what is there has to be drawn again: another size, or back from the shell. */
  onRedraw: () => void = () => {};
  #isTaken = false;
  readonly #leave = (): void => this.#giveBack();
  readonly #resized = (): void => this.onRedraw();
  readonly #pressed = (bytes: Buffer): void => {
    for (const key of keysOf(bytes.toString())) {
      if (key === 'suspend') this.#suspend();
      else this.onKey(key);
    }
  };
  readonly #continued = (): void => {
    this.#take();
    this.onRedraw();
  };

  get size(): { columns: number; rows: number } {
    return { columns: process.stdout.columns || 80, rows: process.stdout.rows || 24 };
  }

  open(): void {
    // A terminal that has gone is no reason to fail: the signal that says so ends the view.
    process.stdout.on('error', () => {});
    this.#take();
    process.stdin.on('data', this.#pressed);
    process.stdin.resume();
    process.stdout.on('resize', this.#resized);
    process.on('SIGCONT', this.#continued);
    process.on('exit', this.#leave);
  }

  close(): void {
    process.stdin.off('data', this.#pressed);
    process.stdin.pause();
    process.stdout.off('resize', this.#resized);
    process.off('SIGCONT', this.#continued);
    process.off('exit', this.#leave);
    this.#giveBack();
  }

  draw(lines: readonly Line[]): void {
    const text = lines.map(
      ({ text, style }) => `${STYLES[style]}${text}${style === 'plain' ? '' : '\x1b[0m'}\x1b[K`,
    );
    process.stdout.write(`\x1b[H${text.join('\r\n')}\x1b[J`);
  }

  #take(): void {
    if (this.#isTaken) return;
    this.#isTaken = true;
    process.stdin.setRawMode(true);
    process.stdout.write(ENTER);
  }

  #giveBack(): void {
    if (!this.#isTaken) return;
    this.#isTaken = false;
    process.stdout.write(LEAVE);
    try {
      process.stdin.setRawMode(false);
    } catch {
      // The terminal is gone.
    }
  }

  /** As Ctrl-Z would without raw mode: the shell has the terminal until `fg`. */
  #suspend(): void {
    this.#giveBack();
    process.kill(0, 'SIGTSTP');
  }
}

/** The keys in what a terminal sent at once. */
export function keysOf(text: string): string[] {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: terminals send them
  const pieces = text.match(/\x1b\[[0-9;]*[A-Za-z~]|\x1bO[A-Z]|[\s\S]/g) ?? [];
  return pieces.map(piece => KEYS[piece] ?? piece);
}
