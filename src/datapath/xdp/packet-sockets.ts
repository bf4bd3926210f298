/**
 * The way of frames between the kernel and the director: an AF_XDP socket for every receive queue, all over one memory.
 * A frame is worked on where the kernel put it; one that takes several chunks is put together first. What goes out is
 * copied into chunks of its own, because the director may go on changing the bytes it sent.
 *
 * All queues are bounded. What does not fit is dropped, by the kernel or here, and counted by reason.
 */
import {
  CHUNK_BYTES,
  FRAME_CONTINUES,
  FRAME_WORDS,
  FrameMemory,
  type Ring,
  XdpSocket,
  type XdpSocketOptions,
} from '../ffi/af-xdp.ts';
import { SystemError } from '../ffi/libc.ts';

/** Frames that may wait for the director on each queue, if nobody says otherwise. */
export const DEFAULT_RING = 1024;
/** Chunks for sending, shared by all sockets, and slots of their transmit rings. */
const TRANSMIT_CHUNKS = 1024;
/** Frames of one socket in a row before others, and timers, get their turn. */
const BATCH = 256;
/** Frames handed to the kernel at most before it is asked to send them. */
const TRANSMIT_BATCH = 32;
/** Bytes that the kernel keeps free in front of a frame. */
const HEADROOM = 256;
/** Longest frame that fits a chunk. */
const WHOLE_FRAME = CHUNK_BYTES - HEADROOM;
/** Longest frame of all: an IP packet with its Ethernet header and tags. */
const LONGEST_FRAME = 65535 + 22;
const ASSEMBLY_CHUNKS = Math.ceil((HEADROOM + LONGEST_FRAME + HEADROOM) / CHUNK_BYTES);

export interface QueueAddress {
  interfaceIndex: number;
  interfaceName: string;
  queue: number;
}

export interface PacketSocketsOptions {
  /** Do without zero-copy even where the driver has it. */
  copy: boolean;
  /** Frames that may wait on each queue, a power of two. Default `DEFAULT_RING`. */
  slots?: number;
}

/**
 * Gets a received frame in `memory`, valid until it returns.
 * @param start first byte of the frame
 * @param interfaceIndex where it came in
 */
export type FrameHandler = (start: number, length: number, interfaceIndex: number) => void;

/** Why a frame was lost on its way to or from the director. */
export const QUEUE_DROPS = [
  /** As many frames as the queue holds were waiting. */
  'receive ring full',
  /** The same, noticed by the kernel when it looked for a free chunk. */
  'fill ring empty',
  /** Longer than a chunk, on a kernel that cannot scatter frames (before Linux 6.6), or than any IP packet. */
  'frame too long',
  /** As many frames as fit were waiting to be sent. */
  'transmit ring full',
  /** The interface it had to go out of cannot be sent from. */
  'no way out',
] as const;

export type QueueDrop = (typeof QUEUE_DROPS)[number];

/** One receive queue. */
export interface QueueStatistics {
  interfaceName: string;
  queue: number;
  /** Frames the director took. */
  received: number;
  /** Frames that wait for it now, of `capacity`. */
  waiting: number;
  capacity: number;
  /** Frames the kernel dropped because they found no place here. */
  dropped: number;
}

export interface PacketSocketsStatistics {
  received: number;
  transmitted: number;
  drops: Readonly<Record<QueueDrop, number>>;
  queues: readonly QueueStatistics[];
}

export class PacketSockets {
  /** All frames, received ones and those to send. */
  readonly memory: ArrayBuffer;
  /** False: frames are copied between the driver and the memory. */
  readonly zeroCopy: boolean;
  readonly sockets: XdpSocket[] = [];
  readonly slots: number;
  /** The first sockets are those of queues, the rest only send. */
  readonly #queues: number;
  readonly #frames: FrameMemory;
  readonly #bytes: Uint8Array;
  /** Where frames of several chunks are put together. */
  readonly #assembly: number;
  /** True if frames may take several chunks. */
  #scattered = true;
  /** Addresses of free chunks for sending. */
  readonly #free = new Uint32Array(TRANSMIT_CHUNKS);
  #freeCount = 0;
  /** The socket that sends for an interface. */
  readonly #senders = new Map<number, XdpSocket | undefined>();
  readonly #pending = new Set<XdpSocket>();
  #pendingFrames = 0;
  /** True while received frames are handled; what they cause is sent after them. */
  #isDraining = false;
  /** Frames the director took, by socket. */
  readonly #received = new Map<XdpSocket, number>();
  #transmitted = 0;
  readonly #drops: Record<QueueDrop, number> = {
    'receive ring full': 0,
    'fill ring empty': 0,
    'frame too long': 0,
    'transmit ring full': 0,
    'no way out': 0,
  };
  #closed = false;

  /** @param queues one socket is opened for each */
  constructor(queues: readonly QueueAddress[], { copy, slots = DEFAULT_RING }: PacketSocketsOptions) {
    const chunks = queues.length * slots + TRANSMIT_CHUNKS;
    this.slots = slots;
    this.#queues = queues.length;
    this.#frames = new FrameMemory(chunks + ASSEMBLY_CHUNKS);
    this.memory = this.#frames.memory;
    this.#bytes = new Uint8Array(this.memory);
    this.#assembly = chunks * CHUNK_BYTES + HEADROOM;
    this.#openAll(queues, copy);
    this.zeroCopy = this.sockets[0]?.zeroCopy ?? false;
    for (let chunk = 0; chunk < TRANSMIT_CHUNKS; chunk++) {
      this.#free[this.#freeCount++] = (chunks - 1 - chunk) * CHUNK_BYTES;
    }
  }

  /** Opens all sockets, with zero-copy if every driver has it, and for scattered frames if the kernel has them. */
  #openAll(queues: readonly QueueAddress[], copy: boolean): void {
    const { slots } = this;
    try {
      for (const [index, queue] of queues.entries()) {
        const { fill } = this.#open({ ...queue, slots, copy, scattered: this.#scattered });
        for (let slot = 0; slot < slots; slot++)
          fill.descriptors[2 * slot] = (index * slots + slot) * CHUNK_BYTES;
        fill.producer = slots;
      }
    } catch (error) {
      this.#closeSockets();
      if (!(error instanceof SystemError)) throw error;
      if (error.code === 'EBUSY') {
        throw new Error(`${error.message}; another program has this queue: stop it first`);
      }
      if (error.code === 'EINVAL' && this.#scattered) {
        this.#scattered = false;
        this.#openAll(queues, copy);
      } else if (copy) throw error;
      else {
        this.#scattered = true;
        this.#openAll(queues, true);
      }
    }
  }

  #open(options: XdpSocketOptions): XdpSocket {
    const socket = new XdpSocket(this.#frames, options);
    this.sockets.push(socket);
    this.#received.set(socket, 0);
    if (!this.#senders.has(options.interfaceIndex)) this.#senders.set(options.interfaceIndex, socket);
    return socket;
  }

  /** Begins to hand frames to `handler`; `afterBatch` is called when the ones at hand are through. */
  start(handler: FrameHandler, afterBatch: () => void = () => {}): void {
    for (const socket of this.sockets) {
      socket.watch(() => {
        this.#isDraining = true;
        this.#drain(socket, handler);
        this.#isDraining = false;
        this.flush();
        afterBatch();
      });
    }
  }

  #drain(socket: XdpSocket, handler: FrameHandler): void {
    const { receive, fill, interfaceIndex } = socket;
    const { descriptors, mask } = receive;
    const start = receive.consumer;
    const available = (receive.producer - start) >>> 0;
    const filled = fill.producer;
    let taken = 0;
    let frames = 0;
    while (taken < available && frames < BATCH) {
      const at = ((start + taken) & mask) * FRAME_WORDS;
      const address = descriptors[at] as number;
      let count = 1;
      if (((descriptors[at + 3] as number) & FRAME_CONTINUES) === 0) {
        handler(address, descriptors[at + 2] as number, interfaceIndex);
      } else {
        count = this.#countPieces(receive, start + taken, available - taken);
        // Its end is not there yet.
        if (count === 0) break;
        const length = this.#assemble(receive, start + taken, count);
        if (length > 0) handler(this.#assembly, length, interfaceIndex);
      }
      for (let piece = 0; piece < count; piece++) {
        const from = ((start + taken + piece) & mask) * FRAME_WORDS;
        const chunk = descriptors[from] as number;
        const slot = ((filled + taken + piece) & fill.mask) * 2;
        fill.descriptors[slot] = chunk - (chunk % CHUNK_BYTES);
        fill.descriptors[slot + 1] = 0;
      }
      taken += count;
      frames++;
      if (this.#closed) return;
    }
    receive.consumer = (start + taken) >>> 0;
    fill.producer = (filled + taken) >>> 0;
    if (fill.needsWakeup) socket.kick();
    this.#received.set(socket, (this.#received.get(socket) as number) + frames);
  }

  /** How many descriptors the frame takes that begins at `first`; 0 if its last is not among `available`. */
  #countPieces({ descriptors, mask }: Ring, first: number, available: number): number {
    for (let count = 1; count <= available; count++) {
      const at = ((first + count - 1) & mask) * FRAME_WORDS;
      if (((descriptors[at + 3] as number) & FRAME_CONTINUES) === 0) return count;
    }
    return 0;
  }

  /** Puts a frame together and returns its length; 0 if it is longer than any may be. */
  #assemble({ descriptors, mask }: Ring, first: number, count: number): number {
    let length = 0;
    for (let piece = 0; piece < count; piece++) {
      const at = ((first + piece) & mask) * FRAME_WORDS;
      const address = descriptors[at] as number;
      const bytes = descriptors[at + 2] as number;
      if (length + bytes > LONGEST_FRAME) {
        this.#drops['frame too long']++;
        return 0;
      }
      this.#bytes.copyWithin(this.#assembly + length, address, address + bytes);
      length += bytes;
    }
    return length;
  }

  /** Sends the frame `[start, end)` of `bytes` out of an interface. The kernel gets it with the next `flush`. */
  transmit(bytes: Uint8Array, start: number, end: number, interfaceIndex: number): void {
    const socket = this.#senders.has(interfaceIndex)
      ? this.#senders.get(interfaceIndex)
      : this.#openSender(interfaceIndex);
    const length = end - start;
    if (!socket) {
      this.#drops['no way out']++;
      return;
    }
    if (length > LONGEST_FRAME || (length > WHOLE_FRAME && !this.#scattered)) {
      this.#drops['frame too long']++;
      return;
    }
    const pieces = length <= WHOLE_FRAME ? 1 : Math.ceil(length / WHOLE_FRAME);
    if (this.#freeCount < pieces) {
      this.flush();
      for (const sender of this.#senders.values()) if (sender) this.#reap(sender);
    }
    const ring = socket.transmit;
    const producer = ring.producer;
    if (this.#freeCount < pieces || ((producer - ring.consumer) >>> 0) + pieces > ring.mask + 1) {
      this.#drops['transmit ring full']++;
      return;
    }
    for (let piece = 0; piece < pieces; piece++) {
      const from = start + piece * WHOLE_FRAME;
      const to = Math.min(end, from + WHOLE_FRAME);
      this.#place(ring, producer + piece, bytes, from, to, piece < pieces - 1);
    }
    ring.producer = (producer + pieces) >>> 0;
    this.#transmitted++;
    this.#pending.add(socket);
    // What is sent for no received frame (a probe, for example) goes out by itself.
    if (!this.#isDraining && this.#pendingFrames === 0) queueMicrotask(() => this.flush());
    if (++this.#pendingFrames >= TRANSMIT_BATCH) this.flush();
  }

  /** Copies bytes into a free chunk and puts it into a transmit ring. */
  #place(ring: Ring, slot: number, bytes: Uint8Array, from: number, to: number, continues: boolean): void {
    const chunk = this.#free[--this.#freeCount] as number;
    if (bytes.buffer === this.memory)
      this.#bytes.copyWithin(chunk, bytes.byteOffset + from, bytes.byteOffset + to);
    else this.#bytes.set(bytes.subarray(from, to), chunk);
    const at = (slot & ring.mask) * FRAME_WORDS;
    ring.descriptors[at] = chunk;
    ring.descriptors[at + 1] = 0;
    ring.descriptors[at + 2] = to - from;
    ring.descriptors[at + 3] = continues ? FRAME_CONTINUES : 0;
  }

  /** A socket on an interface that the program is not attached to: only for sending. */
  #openSender(interfaceIndex: number): XdpSocket | undefined {
    try {
      const interfaceName = `interface ${interfaceIndex}`;
      const { slots } = this;
      const copy = !this.zeroCopy;
      return this.#open({ interfaceIndex, interfaceName, queue: 0, slots, copy, scattered: this.#scattered });
    } catch {
      // Not tried again for every packet.
      this.#senders.set(interfaceIndex, undefined);
      return undefined;
    }
  }

  /** Makes the kernel send what was handed over and takes back the chunks it is done with. */
  flush(): void {
    if (this.#pendingFrames === 0 || this.#closed) return;
    for (const socket of this.#pending) {
      // Without zero-copy the kernel sends a batch a call, in the call.
      const { transmit } = socket;
      const most = (transmit.mask + 1) / TRANSMIT_BATCH;
      for (let tries = 0; tries <= most && transmit.consumer !== transmit.producer; tries++) {
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
    const drops = { ...this.#drops };
    const queues: QueueStatistics[] = [];
    let received = 0;
    for (const [position, socket] of (this.#closed ? [] : this.sockets).entries()) {
      const { dropped, ringFull, fillRingEmpty, invalidTransmit } = socket.statistics();
      // What found no chunk is counted as dropped, too.
      drops['receive ring full'] += ringFull;
      drops['fill ring empty'] += Math.min(fillRingEmpty, dropped);
      drops['frame too long'] += Math.max(0, dropped - fillRingEmpty) + invalidTransmit;
      if (position >= this.#queues) continue;
      const taken = this.#received.get(socket) ?? 0;
      received += taken;
      queues.push({
        interfaceName: socket.interfaceName,
        queue: socket.queue,
        received: taken,
        waiting: (socket.receive.producer - socket.receive.consumer) >>> 0,
        capacity: this.slots,
        dropped: dropped + ringFull,
      });
    }
    return { received, transmitted: this.#transmitted, drops, queues };
  }

  close(): void {
    this.#closed = true;
    this.#closeSockets();
  }

  #closeSockets(): void {
    for (const socket of this.sockets) socket.close();
    this.sockets.length = 0;
    this.#senders.clear();
    this.#received.clear();
    this.#frames.owner = undefined;
  }
}
