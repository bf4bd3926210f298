/**
 * The real program without traffic: run on one frame after the other by BPF_PROG_TEST_RUN, in a network namespace of
 * its own, at a time that is given. For players of scenarios, tests and measurements.
 */
import { spawnSync } from 'node:child_process';
import { closeSync } from 'node:fs';
import { formatMac } from '../../wire/address.ts';
import { type FrameRunner, XdpVerdict } from '../ffi/libbpf.ts';
import { AddressFamily, inNewNetworkNamespace, openSocket } from '../ffi/libc.ts';
import { FastPath } from './fast-path.ts';

export interface TestBedInterface {
  name: string;
  /** 2 or more: 1 is `lo`. */
  index: number;
  /** 6 bytes. */
  mac: Uint8Array;
}

export interface TestBedOptions {
  interfaces: readonly TestBedInterface[];
  /** Most connections, destinations, and services with their VIPs. */
  capacity: number;
  destinationCapacity?: number;
  serviceCapacity?: number;
  /** Ticks a second of the time that is given. */
  hz: number;
  /** The compiled object. Default: the one that belongs to this installation. */
  object?: string;
}

/** What the program did with a frame. */
export const Handling = {
  /** Left it to the host's own stack. */
  pass: 0,
  /** Handed it to the director. */
  up: 1,
  /** Sent it: `output`. */
  sent: 2,
  dropped: 3,
} as const;

export type Handling = (typeof Handling)[keyof typeof Handling];

/** Bytes; beyond one page the program sees a frame in pieces. */
const LONGEST_FRAME = 65535;
const SHORTEST_FRAME = 14;
const SOCK_RAW_CLOEXEC = 3 | 0x80000;

let beds = 0;

/** A test bed that could not be made; the message is one line: what is missing. */
export class TestBedError extends Error {
  override name = 'TestBedError';
}

/**
 * Makes a test bed, hands it to `action`, and takes it away again. `action` must not be asynchronous: this thread is in
 * another network namespace meanwhile.
 * @throws TestBedError if root, libbpf, iproute2 or the program are missing
 */
export function withTestBed<Result>(options: TestBedOptions, action: (bed: TestBed) => Result): Result {
  if (process.geteuid?.() !== 0) {
    throw new TestBedError('running the XDP program needs root (CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN)');
  }
  return inNewNetworkNamespace(() => {
    const bed = makeBed(options);
    try {
      return action(bed);
    } finally {
      bed.close();
    }
  });
}

function makeBed(options: TestBedOptions): TestBed {
  try {
    addInterfaces(options.interfaces);
    return new TestBed(options);
  } catch (error) {
    throw new TestBedError((error as Error).message);
  }
}

function addInterfaces(interfaces: readonly TestBedInterface[]): void {
  const lines = interfaces.flatMap(({ name, index, mac }) => [
    `link add name ${name} index ${index} address ${formatMac(mac)} type veth peer name peer${index} index ${1000 + index}`,
    `link set ${name} up`,
  ]);
  const { error, status, stderr } = spawnSync('ip', ['-batch', '-'], {
    input: `${lines.join('\n')}\n`,
    encoding: 'utf8',
  });
  if (error) throw new Error('the command `ip` is missing: install it (Debian: apt-get install iproute2)');
  if (status !== 0) throw new Error(`making the interfaces of a test bed failed: ${stderr.trim()}`);
}

export class TestBed {
  readonly fastPath: FastPath;
  /** What the program made of the last frame: its first `length` bytes. */
  readonly output: Uint8Array;
  length = 0;
  /** The interface it left by, if it did. */
  sentBy = 0;
  readonly #interfaces: readonly TestBedInterface[];
  readonly #runner: FrameRunner;
  /** Never bound: that it is there makes the program hand over what is the director's. */
  readonly #socket: number;

  constructor({ interfaces, ...options }: TestBedOptions) {
    this.fastPath = new FastPath({
      ...options,
      directory: `/sys/fs/bpf/dirigo-bed-${process.pid}-${beds++}`,
    });
    this.#runner = this.fastPath.runner(LONGEST_FRAME);
    this.output = this.#runner.output;
    this.#socket = openSocket(AddressFamily.xdp, SOCK_RAW_CLOEXEC, 0, 'a socket for AF_XDP');
    this.fastPath.sockets.update(word(0), word(this.#socket));
    this.#interfaces = interfaces;
    for (const { index, mac } of interfaces) {
      this.fastPath.configureInterface(index, mac, 0, 1);
      this.fastPath.allowDevice(index);
    }
  }

  /** Runs the program on a frame, at tick `tick`. Frames too short to be any are the host's. */
  run(frame: Uint8Array, interfaceIndex: number, tick: number): Handling {
    if (frame.length < SHORTEST_FRAME) return Handling.pass;
    const runner = this.#runner;
    this.fastPath.control.stopClock(tick);
    runner.input.set(frame);
    const verdict = runner.run(frame.length, interfaceIndex);
    this.length = runner.length;
    if (verdict === XdpVerdict.pass) return Handling.pass;
    this.sentBy = interfaceIndex;
    if (verdict === XdpVerdict.transmit) return Handling.sent;
    if (verdict === XdpVerdict.drop) return Handling.dropped;
    if (verdict !== XdpVerdict.redirect) throw new Error(`the program ended with verdict ${verdict}`);
    if (this.#isUnchanged(frame)) return Handling.up;
    this.sentBy = this.#senderOf();
    return Handling.sent;
  }

  /** The kernel does not tell where a redirect would have gone; the source MAC address does. */
  #senderOf(): number {
    const found = this.#interfaces.find(({ mac }) => mac.every((byte, at) => byte === this.output[6 + at]));
    if (!found)
      throw new Error(`a redirected frame has the source ${formatMac(this.output, 6)}, no interface's`);
    return found.index;
  }

  /** What goes up is as it came; what is sent has at least other MAC addresses. */
  #isUnchanged(frame: Uint8Array): boolean {
    if (this.length !== frame.length) return false;
    for (let at = 0; at < frame.length; at++) if (frame[at] !== this.output[at]) return false;
    return true;
  }

  close(): void {
    this.fastPath.remove();
    closeSync(this.#socket);
  }
}

function word(value: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint32(0, value, true);
  return new Uint8Array(view.buffer);
}
