/** Tells a web server of events: one POST with JSON each, in their order, from a queue of bounded length. */

export interface WebhookOptions {
  url: string;
  /** Messages that wait at most; of more the oldest are given up. Default 256. */
  capacity?: number;
  /** Milliseconds for one attempt. Default 5000. */
  timeout?: number;
  /** Milliseconds before the second attempt; doubled for each further one, up to thirty times. Default 1000. */
  pause?: number;
  /** Attempts for one message. Default 6. */
  attempts?: number;
}

export class Webhook {
  readonly url: string;
  /** Messages that arrived, and that were given up. */
  delivered = 0;
  lost = 0;
  readonly #options: Required<WebhookOptions>;
  readonly #queue: object[] = [];
  readonly #closing = new AbortController();
  #sending: Promise<void> | undefined;

  /** @throws Error if the address is none of http or https */
  constructor(options: WebhookOptions) {
    this.#options = { capacity: 256, timeout: 5_000, pause: 1_000, attempts: 6, ...options };
    this.url = checkWebhookUrl(options.url);
  }

  /** Queues a message. */
  post(message: object): void {
    if (this.#closing.signal.aborted) return;
    this.#queue.push(message);
    // The one under way stays at the head.
    if (this.#queue.length > this.#options.capacity) {
      this.#queue.splice(1, 1);
      this.lost++;
    }
    this.#sending ??= this.#send().finally(() => {
      this.#sending = undefined;
    });
  }

  async #send(): Promise<void> {
    for (let message = this.#queue[0]; message !== undefined; message = this.#queue[0]) {
      if (await this.#deliver(message)) this.delivered++;
      else this.lost++;
      this.#queue.shift();
    }
  }

  async #deliver(message: object): Promise<boolean> {
    const { attempts, pause } = this.#options;
    for (let attempt = 0; attempt < attempts; attempt++) {
      if (attempt > 0) await this.#wait(Math.min(pause * 2 ** (attempt - 1), pause * 30));
      if (this.#closing.signal.aborted) return false;
      const outcome = await this.#attempt(message);
      if (outcome !== 'again') return outcome === 'taken';
    }
    return false;
  }

  async #attempt(message: object): Promise<'taken' | 'refused' | 'again'> {
    try {
      const response = await fetch(this.url, {
        method: 'POST',
        headers: { 'content-type': 'application/json', 'user-agent': 'dirigo' },
        body: JSON.stringify(message),
        redirect: 'error',
        signal: AbortSignal.any([AbortSignal.timeout(this.#options.timeout), this.#closing.signal]),
      });
      await response.body?.cancel();
      if (response.ok) return 'taken';
      const mayHeal = response.status >= 500 || response.status === 408 || response.status === 429;
      return mayHeal ? 'again' : 'refused';
    } catch {
      return 'again';
    }
  }

  #wait(milliseconds: number): Promise<void> {
    return new Promise(resolve => {
      const timer = setTimeout(resolve, milliseconds);
      this.#closing.signal.addEventListener('abort', () => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  /** Waits for what is queued, at most so many milliseconds, then gives the rest up. */
  async close(patience = 1_000): Promise<void> {
    const timer = setTimeout(() => this.#closing.abort(), patience);
    await this.#sending;
    clearTimeout(timer);
    this.#closing.abort();
  }
}

/** The address in its canonical form. @throws Error if it is none of http or https */
export function checkWebhookUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (!url || !/^https?:$/.test(url.protocol)) {
    throw new Error(`"${text}" is no address of a web server such as http://127.0.0.1:9000/arp`);
  }
  return url.href;
}
