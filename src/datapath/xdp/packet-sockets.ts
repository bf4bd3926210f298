/**
 * The way of frames between the kernel and the director: an AF_XDP socket for every receive queue, all over one memory.
 * A frame is worked on where the kernel put it; what goes out is copied into a chunk of its own, because the director
 * may go on changing the bytes it sent.
 *
 * All queues are bounded. What does not fit is dropped, by the kernel or here, and counted.
 */
import { CHUNK_BYTES, FRAME_WORDS, FrameMemory, XdpSocket, type XdpSocketOptions } from '../ffi/af-xdp.ts';
import { SystemError } from '../ffi/libc.ts';

/** Slots of each ring, and chunks for receiving a socket. */
const SLOTS = 1024;
/** Chunks for sending, shared by all sockets. */
const TRANSMIT_CHUNKS = 1024;
/** Frames of one socket in a row before others, and timers, get their turn. */
const BATCH = 256;
/** Frames handed to the kernel at most before it is asked to send them. */
const TRANSMIT_BATCH = 32;
/** Longest frame that fits a chunk behind the headroom that the kernel keeps. */
export const MAXIMUM_FRAME = CHUNK_BYTES - 256;

export interface QueueAddress {
  interfaceIndex: number;
  interfaceName: string;
  queue: number;
}

/**
 * Takes a frame `[start, start + length)` of the shared memory. It may change the frame and up to 256 bytes in front
 * of it; afterwards the bytes are the kernel's again.
 */
export type FrameHandler = (start: number, length: number, interfaceIndex: number) => void;

export interface PacketSocketsStatistics {
  received: number;
  transmitted: number;
  /** Frames for which no transmit chunk was free. */
  transmitOverflow: number;
  /** Frames that were longer than a chunk or had no interface to go out of. */
  transmitRefused: number;
  /** Frames that the kernel could not put into a receive ring. */
  receiveOverflow: number;
}

export class PacketSockets {
  /** All frames, received ones and those to send. */
  readonly memory: ArrayBuffer;
  /** False: frames are copied between the driver and the memory. */
  readonly zeroCopy: boolean;
  readonly sockets: XdpSocket[] = [];
  readonly #frames: FrameMemory;
  readonly #bytes: Uint8Array;
  /** Addresses of free chunks for sending. */
  readonly #free = new Uint32Array(TRANSMIT_CHUNKS);
  #freeCount = 0;
  /** The socket that sends for an interface. */
  readonly #senders = new Map<number, XdpSocket | undefined>();
  readonly #pending = new Set<XdpSocket>();
  #pendingFrames = 0;
  #received = 0;
  #transmitted = 0;
  #transmitOverflow = 0;
  #transmitRefused = 0;
  #closed = false;

  /**
   * @param queues one socket is opened for each
   * @param copy do without zero-copy even where the driver has it
   */
  constructor(queues: readonly QueueAddress[], copy: boolean) {
    const chunks = queues.length * SLOTS + TRANSMIT_CHUNKS;
    this.#frames = new FrameMemory(chunks);
    this.memory = this.#frames.memory;
    this.#bytes = new Uint8Array(this.memory);
    this.#openAll(queues, copy);
    this.zeroCopy = this.sockets[0]?.zeroCopy ?? false;
    for (let chunk = 0; chunk < TRANSMIT_CHUNKS; chunk++) {
      this.#free[this.#freeCount++] = (chunks - 1 - chunk) * CHUNK_BYTES;
    }
  }

  /** Opens all sockets, with zero-copy if every driver has it. */
  #openAll(queues: readonly QueueAddress[], copy: boolean): void {
    try {
      for (const [index, queue] of queues.entries()) {
        const { fill } = this.#open({ ...queue, slots: SLOTS, copy });
        for (let slot = 0; slot < SLOTS; slot++)
          fill.descriptors[2 * slot] = (index * SLOTS + slot) * CHUNK_BYTES;
        fill.producer = SLOTS;
      }
    } catch (error) {
      this.#closeSockets();
      if (!(error instanceof SystemError)) throw error;
      if (error.code === 'EBUSY') {
        throw new Error(`${error.message}; another program has this queue: stop it first`);
      }
      if (copy) throw error;
      this.#openAll(queues, true);
    }
  }

  #open(options: XdpSocketOptions): XdpSocket {
    const socket = new XdpSocket(this.#frames, options);
    this.sockets.push(socket);
    if (!this.#senders.has(options.interfaceIndex)) this.#senders.set(options.interfaceIndex, socket);
    return socket;
  }

  /** Begins to hand frames to `handler`; `afterBatch` is called when the ones at hand are through. */
  start(handler: FrameHandler, afterBatch: () => void = () => {}): void {
    for (const socket of this.sockets) {
      socket.watch(() => {
        this.#drain(socket, handler);
        this.flush();
        afterBatch();
      });
    }
  }

  #drain(socket: XdpSocket, handler: FrameHandler): void {
    const { receive, fill } = socket;
    const { descriptors, mask } = receive;
    const start = receive.consumer;
    const count = Math.min((receive.producer - start) >>> 0, BATCH);
    const filled = fill.producer;
    for (let index = 0; index < count; index++) {
      const at = ((start + index) & mask) * FRAME_WORDS;
      const address = descriptors[at] as number;
      handler(address, descriptors[at + 2] as number, socket.interfaceIndex);
      const slot = ((filled + index) & fill.mask) * 2;
      fill.descriptors[slot] = address - (address % CHUNK_BYTES);
      fill.descriptors[slot + 1] = 0;
      if (this.#closed) return;
    }
    receive.consumer = (start + count) >>> 0;
    fill.producer = (filled + count) >>> 0;
    if (fill.needsWakeup) socket.kick();
    this.#received += count;
  }

  /** Sends the frame `[start, end)` of `bytes` out of an interface. The kernel gets it with the next `flush`. */
  transmit(bytes: Uint8Array, start: number, end: number, interfaceIndex: number): void {
    const socket = this.#senders.has(interfaceIndex)
      ? this.#senders.get(interfaceIndex)
      : this.#openSender(interfaceIndex);
    const length = end - start;
    if (!socket || length > MAXIMUM_FRAME) {
      this.#transmitRefused++;
      return;
    }
    if (this.#freeCount === 0) {
      this.flush();
      for (const sender of this.#senders.values()) if (sender) this.#reap(sender);
    }
    const ring = socket.transmit;
    const producer = ring.producer;
    if (this.#freeCount === 0 || (producer - ring.consumer) >>> 0 > ring.mask) {
      this.#transmitOverflow++;
      return;
    }
    const chunk = this.#free[--this.#freeCount] as number;
    if (bytes.buffer === this.memory)
      this.#bytes.copyWithin(chunk, bytes.byteOffset + start, bytes.byteOffset + end);
    else this.#bytes.set(bytes.subarray(start, end), chunk);
    const at = (producer & ring.mask) * FRAME_WORDS;
    ring.descriptors[at] = chunk;
    ring.descriptors[at + 1] = 0;
    ring.descriptors[at + 2] = length;
    ring.descriptors[at + 3] = 0;
    ring.producer = (producer + 1) >>> 0;
    this.#transmitted++;
    this.#pending.add(socket);
    if (++this.#pendingFrames >= TRANSMIT_BATCH) this.flush();
  }

  /** A socket on an interface that the program is not attached to: only for sending. */
  #openSender(interfaceIndex: number): XdpSocket | undefined {
    try {
      const interfaceName = `interface ${interfaceIndex}`;
      return this.#open({ interfaceIndex, interfaceName, queue: 0, slots: SLOTS, copy: !this.zeroCopy });
    } catch {
      // Not tried again for every packet.
      this.#senders.set(interfaceIndex, undefined);
      return undefined;
    }
  }

  /** Makes the kernel send what was handed over and takes back the chunks it is done with. */
  flush(): void {
    if (this.#pendingFrames === 0) return;
    for (const socket of this.#pending) {
      // Without zero-copy the kernel sends a batch a call, in the call.
      const { transmit } = socket;
      for (
        let tries = 0;
        tries <= SLOTS / TRANSMIT_BATCH && transmit.consumer !== transmit.producer;
        tries++
      ) {
        if (!socket.kick() && this.zeroCopy) break;
      }
      this.#reap(socket);
    }
    this.#pending.clear();
    this.#pendingFrames = 0;
  }

  #reap(socket: XdpSocket): void {
    const { completion } = socket;
    const { producer } = completion;
    let consumer = completion.consumer;
    while (consumer !== producer) {
      this.#free[this.#freeCount++] = completion.descriptors[(consumer & completion.mask) * 2] as number;
      consumer = (consumer + 1) >>> 0;
    }
    completion.consumer = consumer;
  }

  statistics(): PacketSocketsStatistics {
    let receiveOverflow = 0;
    for (const socket of this.#closed ? [] : this.sockets) {
      const { dropped, ringFull } = socket.statistics();
      receiveOverflow += dropped + ringFull;
    }
    return {
      received: this.#received,
      transmitted: this.#transmitted,
      transmitOverflow: this.#transmitOverflow,
      transmitRefused: this.#transmitRefused,
      receiveOverflow,
    };
  }

  close(): void {
    this.#closed = true;
    this.#closeSockets();
  }

  #closeSockets(): void {
    for (const socket of this.sockets) socket.close();
    this.sockets.length = 0;
    this.#senders.clear();
    this.#frames.owner = undefined;
  }
}
