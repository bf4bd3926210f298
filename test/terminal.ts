/** A terminal for tests: a program under tmux, keys in, screen out. */
import { execFileSync, spawnSync } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';

/** Milliseconds that the screen may take to show something. */
const PATIENCE = 20_000;

let terminals = 0;

export class Terminal {
  readonly #server = `dirigo-${process.pid}-${terminals++}`;

  /** @param command run by a shell; the terminal lives as long as it */
  constructor(
    command: string,
    options: { columns?: number; rows?: number; environment?: NodeJS.ProcessEnv } = {},
  ) {
    const { columns = 100, rows = 30, environment } = options;
    execFileSync(
      'tmux',
      [
        '-L',
        this.#server,
        '-f',
        '/dev/null',
        'new-session',
        '-d',
        '-x',
        `${columns}`,
        '-y',
        `${rows}`,
        command,
      ],
      { env: { ...process.env, ...environment, LANG: 'C.UTF-8', HISTFILE: '' } },
    );
    this.#tmux('set-option', '-g', 'status', 'off');
  }

  #tmux(...words: string[]): string {
    return execFileSync('tmux', ['-L', this.#server, ...words], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  }

  /** Types text as it is. */
  type(text: string): void {
    this.#tmux('send-keys', '-l', '--', text);
  }

  /** Presses keys by tmux's names: `Enter`, `Tab`, `C-c`. */
  press(...keys: string[]): void {
    this.#tmux('send-keys', ...keys);
  }

  resize(columns: number, rows: number): void {
    this.#tmux('resize-window', '-x', `${columns}`, '-y', `${rows}`);
  }

  /** The lines on the screen. */
  screen(): string[] {
    return this.#tmux('capture-pane', '-p').split('\n');
  }

  /** Whether the program shows the second screen, which full-screen programs use. */
  isOnAlternateScreen(): boolean {
    return this.#tmux('display-message', '-p', '#{alternate_on}').trim() === '1';
  }

  hasCursor(): boolean {
    return this.#tmux('display-message', '-p', '#{cursor_flag}').trim() === '1';
  }

  /** Waits until the screen matches and returns it. @throws Error with the screen as it is */
  async until(pattern: RegExp): Promise<string> {
    for (const end = performance.now() + PATIENCE; ; await sleep(50)) {
      const text = this.screen().join('\n');
      if (pattern.test(text)) return text;
      if (performance.now() > end) throw new Error(`the screen does not show ${pattern}:\n${text.trimEnd()}`);
    }
  }

  close(): void {
    spawnSync('tmux', ['-L', this.#server, 'kill-server']);
  }
}
