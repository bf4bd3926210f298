/**
 * A look at the frames of one interface as the kernel's taps see them (packet(7)): a ring of frames shared with the
 * kernel (TPACKET_V2), behind a filter that the kernel runs. Sends whole frames as well.
 */
import { closeSync } from 'node:fs';
import koffi from 'koffi';
import {
  AddressFamily,
  bindSocket,
  getSocketOption,
  mapShared,
  openSocket,
  sendFrame,
  setSocketOption,
  watchReadable,
} from './libc.ts';

const SOCK_RAW_CLOEXEC = 3 | 0x80000;
const ETH_P_ALL = 0x0003;
const SOL_SOCKET = 1;
const SO_ERROR = 4;
const SO_ATTACH_FILTER = 26;
const SOL_PACKET = 263;
const Option = { addMembership: 1, dropMembership: 2, rxRing: 5, statistics: 6, version: 10 } as const;
const TPACKET_V2 = 1;
const MEMBERSHIP_PROMISCUOUS = 1;
const STATUS_USER = 1;
const STATUS_VLAN_VALID = 1 << 4;
/** Bytes of struct tpacket2_hdr, aligned to 16: struct sockaddr_ll lies behind. */
const ADDRESS_AT = 32;

/** Where a frame was going when it was seen (sll_pkttype). */
export const PacketType = { host: 0, broadcast: 1, multicast: 2, otherHost: 3, outgoing: 4 } as const;

export interface TappedFrame {
  /** The first bytes of the frame, a view into the ring: valid during the callback only. */
  bytes: Uint8Array;
  /** A number of `PacketType`. */
  type: number;
  /** The VLAN tag that the kernel took off; 0: none (or one of number 0). */
  vlan: number;
  /** Milliseconds since 1970, from the kernel. */
  time: number;
}

/** An instruction of classic BPF. */
export interface FilterInstruction {
  code: number;
  jt: number;
  jf: number;
  k: number;
}

export interface PacketTapOptions {
  interfaceIndex: number;
  /** For errors. */
  interfaceName: string;
  /** A program that returns how many bytes to keep, 0 for none. Default: everything. */
  filter?: readonly FilterInstruction[];
  /** Also frames that are for other stations. */
  promiscuous?: boolean;
  /** Frames in the ring, a power of two. Default 512. */
  slots?: number;
}

const SLOT_BYTES = 512;

export class PacketTap {
  readonly fd: number;
  readonly #ring: DataView;
  readonly #bytes: Uint8Array;
  readonly #words: Uint32Array;
  readonly #slots: number;
  readonly #name: string;
  /** The membership that makes the interface promiscuous. */
  #promiscuous: Uint8Array | undefined;
  #next = 0;
  #lost = 0;
  #unwatch: (() => void) | undefined;

  /** @throws SystemError; EPERM without root (CAP_NET_RAW) */
  constructor(options: PacketTapOptions) {
    const { interfaceIndex, interfaceName, filter, promiscuous = false, slots = 512 } = options;
    this.#name = `the tap of ${interfaceName}`;
    this.#slots = slots;
    // With protocol 0 nothing comes before the filter is in place.
    this.fd = openSocket(AddressFamily.packet, SOCK_RAW_CLOEXEC, 0, this.#name);
    try {
      if (filter) this.#attach(filter);
      setSocketOption(this.fd, SOL_PACKET, Option.version, words(TPACKET_V2), this.#name);
      // struct tpacket_req: bytes and number of blocks, bytes and number of frames
      const blocks = (slots * SLOT_BYTES) / 4096;
      setSocketOption(this.fd, SOL_PACKET, Option.rxRing, words(4096, blocks, SLOT_BYTES, slots), this.#name);
      const memory = mapShared(this.fd, slots * SLOT_BYTES, 0, this.#name);
      this.#ring = new DataView(memory);
      this.#bytes = new Uint8Array(memory);
      this.#words = new Uint32Array(memory);
      const address = new DataView(new ArrayBuffer(20));
      address.setUint16(0, AddressFamily.packet, true);
      address.setUint16(2, ETH_P_ALL);
      address.setUint32(4, interfaceIndex, true);
      bindSocket(this.fd, new Uint8Array(address.buffer), this.#name);
      if (promiscuous) {
        this.#promiscuous = words(interfaceIndex, MEMBERSHIP_PROMISCUOUS, 0, 0);
        setSocketOption(this.fd, SOL_PACKET, Option.addMembership, this.#promiscuous, this.#name);
      }
    } catch (error) {
      closeSync(this.fd);
      throw error;
    }
  }

  #attach(filter: readonly FilterInstruction[]): void {
    const program = new DataView(new ArrayBuffer(8 * filter.length));
    for (const [index, { code, jt, jf, k }] of filter.entries()) {
      program.setUint16(8 * index, code, true);
      program.setUint8(8 * index + 2, jt);
      program.setUint8(8 * index + 3, jf);
      program.setUint32(8 * index + 4, k, true);
    }
    const bytes = new Uint8Array(program.buffer);
    // struct sock_fprog: the number of instructions, and where they are
    const description = new DataView(new ArrayBuffer(16));
    description.setUint16(0, filter.length, true);
    description.setBigUint64(8, koffi.address(bytes), true);
    setSocketOption(this.fd, SOL_SOCKET, SO_ATTACH_FILTER, new Uint8Array(description.buffer), this.#name);
  }

  /** Calls back for each frame from now on, in their order. */
  watch(callback: (frame: TappedFrame) => void): void {
    this.#unwatch = watchReadable(this.fd, isReadable => {
      if (isReadable) {
        this.read(callback);
        return;
      }
      // The interface went down. When it is up again, the tap goes on.
      this.#unwatch?.();
      this.#takeError();
      this.watch(callback);
    });
  }

  /** Reading an error clears it. */
  #takeError(): void {
    getSocketOption(this.fd, SOL_SOCKET, SO_ERROR, new Uint8Array(new ArrayBuffer(4)), this.#name);
  }

  /** Takes what is in the ring: at most one round, so that a flood does not keep the process. */
  read(callback: (frame: TappedFrame) => void): void {
    for (let taken = 0; taken < this.#slots; taken++) {
      const at = this.#next * SLOT_BYTES;
      const status = this.#ring.getUint32(at, true);
      if ((status & STATUS_USER) === 0) return;
      const length = this.#ring.getUint32(at + 8, true);
      const start = at + this.#ring.getUint16(at + 12, true);
      callback({
        bytes: this.#bytes.subarray(start, Math.min(start + length, at + SLOT_BYTES)),
        type: this.#ring.getUint8(at + ADDRESS_AT + 10),
        vlan: status & STATUS_VLAN_VALID ? this.#ring.getUint16(at + 24, true) & 0xfff : 0,
        time: this.#ring.getUint32(at + 16, true) * 1000 + this.#ring.getUint32(at + 20, true) / 1e6,
      });
      // Given back only now: the kernel writes to it again.
      Atomics.store(this.#words, at / 4, 0);
      this.#next = (this.#next + 1) % this.#slots;
    }
  }

  /** Sends a whole frame out of the interface. @throws SystemError, ENETDOWN if the interface is down */
  send(frame: Uint8Array): void {
    // That the interface was down for a while is no reason not to send now.
    this.#takeError();
    sendFrame(this.fd, frame);
  }

  /** Frames that found the ring full, since the tap was opened. */
  lost(): number {
    // struct tpacket_stats: packets and drops, cleared by reading
    const statistics = new Uint8Array(new ArrayBuffer(8));
    getSocketOption(this.fd, SOL_PACKET, Option.statistics, statistics, `the statistics of ${this.#name}`);
    this.#lost += new DataView(statistics.buffer).getUint32(4, true);
    return this.#lost;
  }

  close(): void {
    this.#unwatch?.();
    this.#unwatch = undefined;
    // The mapped ring holds the socket until the process ends: it gets nothing more, and asks for nothing.
    this.#attach([{ code: 0x06, jt: 0, jf: 0, k: 0 }]);
    if (this.#promiscuous) {
      setSocketOption(this.fd, SOL_PACKET, Option.dropMembership, this.#promiscuous, this.#name);
    }
    closeSync(this.fd);
  }
}

function words(...values: number[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(4 * values.length));
  for (const [index, value] of values.entries()) view.setUint32(4 * index, value, true);
  return new Uint8Array(view.buffer);
}
