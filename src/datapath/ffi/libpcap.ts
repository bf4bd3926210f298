/** Captures of live interfaces, and capture filters compiled, through libpcap (1.9 or later). */
import koffi from 'koffi';
import { watchReadable } from './libc.ts';

type Foreign = ReturnType<ReturnType<typeof koffi.load>['func']>;

interface Functions {
  create: Foreign;
  setSnapshotLength: Foreign;
  setPromiscuous: Foreign;
  setImmediate: Foreign;
  setBufferSize: Foreign;
  setPrecision: Foreign;
  activate: Foreign;
  linkType: Foreign;
  openDead: Foreign;
  compile: Foreign;
  freeCode: Foreign;
  setFilter: Foreign;
  setNonblocking: Foreign;
  selectableFd: Foreign;
  next: Foreign;
  statistics: Foreign;
  error: Foreign;
  close: Foreign;
}

const ERROR_BYTES = 256;
const LINKTYPE_ETHERNET = 1;
const PRECISION_NANOSECONDS = 1;
const PROGRAM_BYTES = 16;
const NETMASK_UNKNOWN = 0xffffffff;
/** Bytes the kernel keeps for one capture until they are read: a tenth of a second of a million small frames. */
const BUFFER_BYTES = 32 << 20;
/** Frames in a row before others get their turn. */
const BATCH = 512;

let loaded: Functions | undefined;

/** The library, loaded at the first use. @throws Error that says what to install if it is missing */
function libpcap(): Functions {
  if (loaded) return loaded;
  let library: ReturnType<typeof koffi.load>;
  try {
    library = koffi.load('libpcap.so.0.8');
  } catch {
    try {
      library = koffi.load('libpcap.so.1');
    } catch {
      throw new Error('libpcap is missing: install it (Debian: apt-get install libpcap0.8)');
    }
  }
  const func = (prototype: string): Foreign => library.func(prototype);
  loaded = {
    create: func('void *pcap_create(str source, void *error)'),
    setSnapshotLength: func('int pcap_set_snaplen(void *capture, int length)'),
    setPromiscuous: func('int pcap_set_promisc(void *capture, int on)'),
    setImmediate: func('int pcap_set_immediate_mode(void *capture, int on)'),
    setBufferSize: func('int pcap_set_buffer_size(void *capture, int bytes)'),
    setPrecision: func('int pcap_set_tstamp_precision(void *capture, int precision)'),
    activate: func('int pcap_activate(void *capture)'),
    linkType: func('int pcap_datalink(void *capture)'),
    openDead: func('void *pcap_open_dead(int linkType, int snapshotLength)'),
    compile: func(
      'int pcap_compile(void *capture, void *program, str filter, int optimize, uint32_t netmask)',
    ),
    freeCode: func('void pcap_freecode(void *program)'),
    setFilter: func('int pcap_setfilter(void *capture, void *program)'),
    setNonblocking: func('int pcap_setnonblock(void *capture, int on, void *error)'),
    selectableFd: func('int pcap_get_selectable_fd(void *capture)'),
    next: func('int pcap_next_ex(void *capture, _Out_ void **header, _Out_ void **data)'),
    statistics: func('int pcap_stats(void *capture, void *statistics)'),
    error: func('str pcap_geterr(void *capture)'),
    close: func('void pcap_close(void *capture)'),
  };
  return loaded;
}

/** One instruction of classic BPF (`struct sock_filter`), as the kernel runs it on a frame. */
export interface FilterInstruction {
  code: number;
  jumpTrue: number;
  jumpFalse: number;
  /** 32 bits, unsigned. */
  constant: number;
}

/** A capture filter that libpcap refuses; the message is libpcap's own. */
export class CaptureFilterError extends Error {
  override name = 'CaptureFilterError';
}

/** Compiles a filter for Ethernet frames. @throws CaptureFilterError */
export function compileFilter(filter: string, snapshotLength = 262144): FilterInstruction[] {
  const functions = libpcap();
  const dead = functions.openDead(LINKTYPE_ETHERNET, snapshotLength);
  const program = new Uint8Array(new ArrayBuffer(PROGRAM_BYTES));
  try {
    if ((functions.compile(dead, program, filter, 1, NETMASK_UNKNOWN) as number) < 0)
      throw new CaptureFilterError(functions.error(dead) as string);
    const view = new DataView(program.buffer);
    const count = view.getUint32(0, true);
    const pointer = view.getBigUint64(8, true);
    const code = new DataView(koffi.view(pointer, 8 * count));
    const instructions = Array.from({ length: count }, (_, index) => ({
      code: code.getUint16(8 * index, true),
      jumpTrue: code.getUint8(8 * index + 2),
      jumpFalse: code.getUint8(8 * index + 3),
      constant: code.getUint32(8 * index + 4, true),
    }));
    functions.freeCode(program);
    return instructions;
  } finally {
    functions.close(dead);
  }
}

export interface LiveCaptureOptions {
  /** The interface. */
  name: string;
  /** In the language of pcap-filter(7); empty: every frame. */
  filter: string;
  /** Most bytes of a frame, 1..262144. */
  snapshotLength: number;
  /** Also frames that are for other stations. */
  promiscuous: boolean;
}

/** @param length of the frame on the wire; `bytes` may be fewer. `time` is nanoseconds since 1970. */
export type LiveFrameHandler = (time: bigint, bytes: Uint8Array, length: number) => void;

/** Frames of one interface as the kernel's taps see them; the kernel filters. */
export class LiveCapture {
  readonly name: string;
  readonly #functions = libpcap();
  readonly #capture: unknown;
  readonly #header: [unknown] = [null];
  readonly #data: [unknown] = [null];
  #unwatch: (() => void) | undefined;
  #closed = false;

  /** @throws Error whose message names the interface and what to do; CaptureFilterError */
  constructor({ name, filter, snapshotLength, promiscuous }: LiveCaptureOptions) {
    this.name = name;
    const functions = this.#functions;
    const error = new Uint8Array(new ArrayBuffer(ERROR_BYTES));
    const capture: unknown = functions.create(name, error);
    if (capture === null) throw new Error(`cannot capture on ${name}: ${textOf(error)}`);
    this.#capture = capture;
    try {
      functions.setSnapshotLength(capture, snapshotLength);
      functions.setPromiscuous(capture, promiscuous ? 1 : 0);
      functions.setImmediate(capture, 1);
      functions.setBufferSize(capture, BUFFER_BYTES);
      functions.setPrecision(capture, PRECISION_NANOSECONDS);
      const activated = functions.activate(capture) as number;
      if (activated < 0) throw new Error(this.#refusal(activated));
      if (functions.linkType(capture) !== LINKTYPE_ETHERNET)
        throw new Error(`${name} does not carry Ethernet frames: choose another interface (-D lists them)`);
      this.#setFilter(filter);
      if ((functions.setNonblocking(capture, 1, error) as number) < 0)
        throw new Error(`cannot capture on ${name}: ${textOf(error)}`);
    } catch (problem) {
      this.close();
      throw problem;
    }
  }

  #refusal(result: number): string {
    const [NO_SUCH_DEVICE, PERMISSION_DENIED, PROMISCUOUS_DENIED, DOWN] = [-5, -8, -11, -9];
    if (result === NO_SUCH_DEVICE) return `there is no interface ${this.name}: -D lists those there are`;
    if (result === PERMISSION_DENIED || result === PROMISCUOUS_DENIED)
      return `capturing on ${this.name} needs root (CAP_NET_RAW)`;
    if (result === DOWN) return `${this.name} is down: \`ip link set ${this.name} up\``;
    return `cannot capture on ${this.name}: ${this.#functions.error(this.#capture) as string}`;
  }

  #setFilter(filter: string): void {
    const functions = this.#functions;
    const program = new Uint8Array(new ArrayBuffer(PROGRAM_BYTES));
    if ((functions.compile(this.#capture, program, filter, 1, NETMASK_UNKNOWN) as number) < 0)
      throw new CaptureFilterError(functions.error(this.#capture) as string);
    const result = functions.setFilter(this.#capture, program) as number;
    functions.freeCode(program);
    if (result < 0) throw new CaptureFilterError(functions.error(this.#capture) as string);
  }

  /**
   * Begins to hand over frames; the bytes are the handler's to keep.
   * @param afterBatch called when those at hand are through, with the reason if the interface went away
   */
  start(handler: LiveFrameHandler, afterBatch: (problem?: string) => void): void {
    const fd = this.#functions.selectableFd(this.#capture) as number;
    this.#unwatch = watchReadable(fd, () => {
      const problem = this.drain(handler);
      if (problem !== undefined) this.#unwatch?.();
      afterBatch(problem);
    });
  }

  /** Hands over what is there, a batch at most; gives the reason if there will be no more. */
  drain(handler: LiveFrameHandler): string | undefined {
    const { next } = this.#functions;
    for (let count = 0; count < BATCH && !this.#closed; count++) {
      const result = next(this.#capture, this.#header, this.#data) as number;
      if (result === 0) return undefined;
      if (result < 0) return this.#functions.error(this.#capture) as string;
      // struct pcap_pkthdr: seconds, fraction, bytes captured, bytes on the wire
      const header = new DataView(koffi.view(this.#header[0] as bigint, 24));
      const captured = header.getUint32(16, true);
      const time = header.getBigUint64(0, true) * 1_000_000_000n + header.getBigUint64(8, true);
      const bytes = new Uint8Array(koffi.view(this.#data[0] as bigint, captured)).slice();
      handler(time, bytes, header.getUint32(20, true));
    }
    return undefined;
  }

  /** Frames that the kernel had no room for. */
  get dropped(): number {
    if (this.#closed) return 0;
    const statistics = new Uint32Array(new ArrayBuffer(12));
    const result = this.#functions.statistics(this.#capture, new Uint8Array(statistics.buffer)) as number;
    return result < 0 ? 0 : (statistics[1] as number);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#unwatch?.();
    this.#functions.close(this.#capture);
  }
}

function textOf(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));
}
