/**
 * AF_XDP sockets (Documentation/networking/af_xdp.rst in the kernel): memory shared with the kernel in chunks of one
 * page, and rings of descriptors over it.
 */
import { closeSync } from 'node:fs';
import {
  AddressFamily,
  bindSocket,
  getSocketOption,
  kick,
  LOCKED_MEMORY_ADVICE,
  mapAnonymous,
  mapShared,
  openSocket,
  SystemError,
  setSocketOption,
  watchReadable,
} from './libc.ts';

const SOCK_RAW_CLOEXEC = 3 | 0x80000;
const SOL_XDP = 283;
const Option = {
  mapOffsets: 1,
  rx: 2,
  tx: 3,
  umem: 4,
  fill: 5,
  completion: 6,
  statistics: 7,
  options: 8,
} as const;
const Page = { rx: 0, tx: 0x8000_0000, fill: 0x1_0000_0000, completion: 0x1_8000_0000 } as const;
const BindFlag = { sharedMemory: 1, copy: 2, needWakeup: 8, scattered: 16 } as const;
const RING_NEED_WAKEUP = 1;

/** Bytes of a chunk: a frame and its headroom must fit. */
export const CHUNK_BYTES = 4096;

/** What all sockets of a data path share: chunks that frames are received into and sent from. */
export class FrameMemory {
  readonly chunks: number;
  readonly memory: ArrayBuffer;
  /** The socket that the memory is registered with; others refer to it. */
  owner: XdpSocket | undefined;
  readonly #pointer: bigint;

  constructor(chunks: number) {
    const { memory, pointer } = mapAnonymous(chunks * CHUNK_BYTES);
    this.chunks = chunks;
    this.memory = memory;
    this.#pointer = pointer;
  }

  register(fd: number): void {
    // struct xdp_umem_reg: address, length, chunk size, headroom
    const registration = new DataView(new ArrayBuffer(32));
    registration.setBigUint64(0, this.#pointer, true);
    registration.setBigUint64(8, BigInt(this.memory.byteLength), true);
    registration.setUint32(16, CHUNK_BYTES, true);
    setSocketOption(
      fd,
      SOL_XDP,
      Option.umem,
      new Uint8Array(registration.buffer),
      `${this.memory.byteLength} bytes of memory for frames`,
      // net/xdp/xdp_umem.c, xdp_umem_account_pages
      code => (code === 'ENOBUFS' ? LOCKED_MEMORY_ADVICE : ''),
    );
  }
}

/** One side of a ring: the words that both sides count in, and its descriptors as 32-bit words. */
export class Ring {
  /** Slots less one; counters are taken modulo this. */
  readonly mask: number;
  readonly descriptors: Uint32Array;
  readonly #producer: Uint32Array;
  readonly #consumer: Uint32Array;
  readonly #flags: Uint32Array;

  constructor(memory: ArrayBuffer, offsets: RingOffsets, slots: number, words: number) {
    this.mask = slots - 1;
    this.#producer = new Uint32Array(memory, offsets.producer, 1);
    this.#consumer = new Uint32Array(memory, offsets.consumer, 1);
    this.#flags = new Uint32Array(memory, offsets.flags, 1);
    this.descriptors = new Uint32Array(memory, offsets.descriptors, slots * words);
  }

  get producer(): number {
    return Atomics.load(this.#producer, 0);
  }

  set producer(count: number) {
    Atomics.store(this.#producer, 0, count);
  }

  get consumer(): number {
    return Atomics.load(this.#consumer, 0);
  }

  set consumer(count: number) {
    Atomics.store(this.#consumer, 0, count);
  }

  /** True if the kernel waits for a kick before it looks at the ring. */
  get needsWakeup(): boolean {
    return ((this.#flags[0] as number) & RING_NEED_WAKEUP) !== 0;
  }
}

interface RingOffsets {
  producer: number;
  consumer: number;
  descriptors: number;
  flags: number;
}

/** Words of a descriptor: a chunk's address (fill, completion), or address, length and options (receive, transmit). */
export const CHUNK_WORDS = 2;
export const FRAME_WORDS = 4;
/** In a descriptor's options: the frame goes on in the next one (XDP_PKT_CONTD). */
export const FRAME_CONTINUES = 1;

export interface XdpSocketOptions {
  interfaceIndex: number;
  /** For errors. */
  interfaceName: string;
  queue: number;
  /** Slots of each ring, a power of two. */
  slots: number;
  /** Never use the driver's zero-copy mode, even if it has one. */
  copy: boolean;
  /** Frames may be longer than a chunk and take several (Linux 6.6); of sockets that share memory the first decides. */
  scattered: boolean;
}

/** What the kernel counted on a socket since it was opened. */
export interface XdpSocketStatistics {
  /** Frames dropped because no chunk was free (counted in `fillRingEmpty`, too) or because they were too long. */
  dropped: number;
  /** Frames dropped because the receive ring was full. */
  ringFull: number;
  /** Times that no chunk was free for a frame. */
  fillRingEmpty: number;
  /** Descriptors that the kernel refused to send. */
  invalidTransmit: number;
}

export class XdpSocket {
  readonly fd: number;
  readonly interfaceIndex: number;
  readonly interfaceName: string;
  readonly queue: number;
  readonly receive: Ring;
  readonly transmit: Ring;
  readonly fill: Ring;
  readonly completion: Ring;
  /** True if the driver reads and writes the shared memory itself. */
  readonly zeroCopy: boolean;
  #unwatch: (() => void) | undefined;

  /** @throws SystemError; EBUSY means that the queue has a socket already */
  constructor(memory: FrameMemory, options: XdpSocketOptions) {
    const { interfaceIndex, interfaceName, queue, slots } = options;
    const name = `the AF_XDP socket of ${interfaceName}, queue ${queue}`;
    this.interfaceIndex = interfaceIndex;
    this.interfaceName = interfaceName;
    this.queue = queue;
    try {
      this.fd = openSocket(AddressFamily.xdp, SOCK_RAW_CLOEXEC, 0, name);
    } catch (error) {
      if (error instanceof SystemError && error.code === 'EAFNOSUPPORT') {
        throw new Error('this kernel has no AF_XDP sockets (CONFIG_XDP_SOCKETS): use --datapath virtual');
      }
      throw error;
    }
    try {
      if (!memory.owner) memory.register(this.fd);
      for (const option of [Option.fill, Option.completion, Option.rx, Option.tx]) {
        setSocketOption(this.fd, SOL_XDP, option, word(slots), `a ring of ${name}`);
      }
      const offsets = new DataView(new ArrayBuffer(128));
      getSocketOption(
        this.fd,
        SOL_XDP,
        Option.mapOffsets,
        new Uint8Array(offsets.buffer),
        `the rings of ${name}`,
      );
      this.receive = this.#ring(offsets, 0, slots, FRAME_WORDS, Page.rx, name);
      this.transmit = this.#ring(offsets, 32, slots, FRAME_WORDS, Page.tx, name);
      this.fill = this.#ring(offsets, 64, slots, CHUNK_WORDS, Page.fill, name);
      this.completion = this.#ring(offsets, 96, slots, CHUNK_WORDS, Page.completion, name);
      this.#bind(memory, name, options);
      memory.owner ??= this;
      const mode = new Uint8Array(new ArrayBuffer(4));
      getSocketOption(this.fd, SOL_XDP, Option.options, mode, `the options of ${name}`);
      this.zeroCopy = ((mode[0] as number) & 1) !== 0;
    } catch (error) {
      closeSync(this.fd);
      throw error;
    }
  }

  #ring(offsets: DataView, at: number, slots: number, words: number, page: number, name: string): Ring {
    const offset = (index: number): number => Number(offsets.getBigUint64(at + 8 * index, true));
    const ring = { producer: offset(0), consumer: offset(1), descriptors: offset(2), flags: offset(3) };
    const memory = mapShared(this.fd, ring.descriptors + slots * words * 4, page, `a ring of ${name}`);
    return new Ring(memory, ring, slots, words);
  }

  #bind(memory: FrameMemory, name: string, { copy, scattered }: XdpSocketOptions): void {
    // struct sockaddr_xdp; a socket that shares memory inherits the other flags
    const address = new DataView(new ArrayBuffer(16));
    const flags = memory.owner
      ? BindFlag.sharedMemory
      : BindFlag.needWakeup | (copy ? BindFlag.copy : 0) | (scattered ? BindFlag.scattered : 0);
    address.setUint16(0, AddressFamily.xdp, true);
    address.setUint16(2, flags, true);
    address.setUint32(4, this.interfaceIndex, true);
    address.setUint32(8, this.queue, true);
    address.setUint32(12, memory.owner?.fd ?? 0, true);
    bindSocket(this.fd, new Uint8Array(address.buffer), name);
  }

  /** Makes the kernel look at the rings; false if it is busy and has to be asked again. */
  kick(): boolean {
    return kick(this.fd);
  }

  /** Calls back while there are frames to receive. */
  watch(callback: () => void): void {
    this.#unwatch = watchReadable(this.fd, callback);
  }

  statistics(): XdpSocketStatistics {
    const bytes = new Uint8Array(new ArrayBuffer(48));
    getSocketOption(this.fd, SOL_XDP, Option.statistics, bytes, 'the statistics of an AF_XDP socket');
    const view = new DataView(bytes.buffer);
    const counter = (index: number): number => Number(view.getBigUint64(8 * index, true));
    return {
      dropped: counter(0),
      invalidTransmit: counter(2),
      ringFull: counter(3),
      fillRingEmpty: counter(4),
    };
  }

  close(): void {
    this.#unwatch?.();
    this.#unwatch = undefined;
    closeSync(this.fd);
  }
}

function word(value: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint32(0, value, true);
  return new Uint8Array(view.buffer);
}
