/**
 * What happens to the virtual server, told to whoever listens: the source of `GET /events`. The last events are kept, so
 * that a listener which comes back goes on where it was.
 */

/** Kinds of events; the first word says what it is about. */
export type EventType =
  /** An edit of the configuration that is on disk: `{revision, cause, by, changes}`. */
  | 'change'
  /** A real server's next hop or overload changed. */
  | 'health'
  /** What becomes of a server that is being drained. */
  | 'drain'
  /** What the guard over ARP and neighbour discovery saw. */
  | 'guard'
  /** The daemon itself: starts, stops. */
  | 'daemon';

export interface DaemonEvent {
  /** Counts up from 1 for each run of the daemon. */
  number: number;
  /** ISO 8601. */
  at: string;
  type: EventType;
  data: object;
  /** The data as JSON: made once, however many listen. */
  text: string;
}

/** Its functions must not throw. */
export interface EventListener {
  heard(event: DaemonEvent): void;
  /** No more events come. */
  ended(): void;
}

export interface EventsOptions {
  /** Events that are kept at most, and the letters of their data. */
  capacity?: number;
  letters?: number;
  /** Milliseconds since 1970. Default: `Date.now`. */
  wallClock?: () => number;
  /** Tells this run from others. Default: when it began. */
  run?: string;
}

const CAPACITY = 4096;
const LETTERS = 4 * 1024 * 1024;

export class Events {
  /** Part of every id: the numbers of another run mean something else. */
  readonly run: string;
  readonly #capacity: number;
  readonly #mostLetters: number;
  readonly #wallClock: () => number;
  readonly #kept: DaemonEvent[] = [];
  #letters = 0;
  #last = 0;
  readonly #listeners = new Set<EventListener>();
  #isClosed = false;

  constructor(options: EventsOptions = {}) {
    this.#capacity = options.capacity ?? CAPACITY;
    this.#mostLetters = options.letters ?? LETTERS;
    this.#wallClock = options.wallClock ?? Date.now;
    this.run = options.run ?? this.#wallClock().toString(36);
  }

  /** Number of the last event, 0 before the first. */
  get last(): number {
    return this.#last;
  }

  /** Those who listen now. */
  get listeners(): number {
    return this.#listeners.size;
  }

  /** @param data plain data */
  publish(type: EventType, data: object): void {
    this.#last++;
    const event: DaemonEvent = {
      number: this.#last,
      at: new Date(this.#wallClock()).toISOString(),
      type,
      data,
      text: JSON.stringify(data),
    };
    this.#kept.push(event);
    this.#letters += event.text.length;
    while (
      this.#kept.length > this.#capacity ||
      (this.#letters > this.#mostLetters && this.#kept.length > 1)
    ) {
      this.#letters -= this.#kept.shift()?.text.length ?? 0;
    }
    for (const { heard } of this.#listeners) heard(event);
  }

  /** Has `listener` told of every event from now on. Returns what ends it. */
  subscribe(listener: EventListener): () => void {
    if (this.#isClosed) listener.ended();
    else this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** No events come any more; whoever listens is told so. */
  close(): void {
    this.#isClosed = true;
    const listeners = [...this.#listeners];
    this.#listeners.clear();
    for (const { ended } of listeners) ended();
  }

  idOf({ number }: Pick<DaemonEvent, 'number'>): string {
    return `${this.run}-${number}`;
  }

  /**
   * The events after the one with this id.
   * @returns undefined if they are not all kept any more, or the id is of another run: state has to be read anew
   */
  after(id: string): DaemonEvent[] | undefined {
    const [run, digits = ''] = id.split('-');
    const number = Number(digits);
    if (run !== this.run || !/^[0-9]{1,15}$/.test(digits) || number > this.#last) return undefined;
    const oldest = this.#last - this.#kept.length;
    return number < oldest ? undefined : this.#kept.slice(number - oldest);
  }
}
