/** What `dirigo capture` prints: frames through a filter, numbered, as one line, a tree or JSON. */
import { Decoder, formatDecoded } from './decode.ts';
import { Filter } from './filter.ts';
import type { CapturedFrame } from './frame.ts';
import { formatSummary, Summarizer } from './summary.ts';
import { tsharkJson } from './tshark-json.ts';
import type { VendorList } from './vendors.ts';

export interface CapturePrinterOptions {
  /** A filter in pcap's language; frames it does not let through are not counted. Default: all frames. */
  filter?: string;
  /** `summary` is one line a frame, `tree` what `tshark -V` prints, `json` an
   * element of what `tshark -T json` prints. Default `summary`. */
  format?: 'summary' | 'tree' | 'json';
  /** The frame's number in front of a summary. Default true. */
  numbering?: boolean;
  /** MAC addresses with their vendor's name (default true), or plain as with `tshark -n`. */
  names?: boolean;
  /** Vendors besides the few that are built in. */
  vendors?: VendorList;
}

/** Give it frames in the order they are seen; it counts them and measures times from the first one. */
export class CapturePrinter {
  readonly #filter: Filter;
  readonly #format: 'summary' | 'tree' | 'json';
  readonly #numbering: boolean;
  readonly #summarizer: Summarizer;
  readonly #decoder: Decoder;
  #count = 0;
  #first = 0n;

  /** Throws FilterError, whose message names the word and its position. */
  constructor(options: CapturePrinterOptions = {}) {
    const { names = true, vendors } = options;
    const naming = vendors ? { names, vendors } : { names };
    this.#filter = new Filter(options.filter ?? '');
    this.#format = options.format ?? 'summary';
    this.#numbering = options.numbering ?? true;
    this.#summarizer = new Summarizer(naming);
    this.#decoder = new Decoder(naming);
  }

  /** Frames printed so far. */
  get count(): number {
    return this.#count;
  }

  /**
   * The text for a frame, to be printed as a line (a tree ends with an empty one); undefined if the filter refuses it. Never throws.
   * @param time nanoseconds, from any beginning (`nanoseconds()` of frame.ts makes them from milliseconds)
   * @param bytes the frame from its destination MAC on
   * @param context what else is known: its length on the wire if it was cut off, interface, comment
   */
  print(
    time: bigint,
    bytes: Uint8Array,
    context: Partial<Pick<CapturedFrame, 'length' | 'interface' | 'comment'>> = {},
  ): string | undefined {
    const frame: CapturedFrame = { length: bytes.length, ...context, time, bytes };
    if (!this.#filter.matches(bytes, frame.length)) return undefined;
    if (this.#count++ === 0) this.#first = time;
    const elapsed = time - this.#first;
    if (this.#format === 'summary') {
      const summary = this.#summarizer.summarize(frame);
      return formatSummary(summary, this.#numbering ? this.#count : undefined, elapsed);
    }
    const decoded = this.#decoder.decode(frame, this.#count, elapsed);
    if (this.#format === 'tree') return formatDecoded(decoded);
    const day = new Date(Number(time / 1_000_000n)).toISOString().slice(0, 10);
    return JSON.stringify(tsharkJson(decoded, day), null, 2);
  }
}
