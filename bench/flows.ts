/**
 * Many flows through an XDP program, and how long a packet takes it: `flows.bpf.c` in front of it makes each packet one
 * of the next flow. What that costs is measured with an empty program just before, and subtracted.
 */
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compileBpf } from '../bpf/build.ts';
import { BpfLink, type BpfMap, BpfObject, type BpfProgram, FrameRunner } from '../src/datapath/ffi/libbpf.ts';
import { SystemError } from '../src/datapath/ffi/libc.ts';
import { writeEthernet } from '../src/wire/ethernet.ts';
import { Protocol, writeIpv4 } from '../src/wire/ipv4.ts';
import { writeTcp } from '../src/wire/tcp.ts';
import { writeUdp } from '../src/wire/udp.ts';

/** Byte offsets in `struct generator`. */
const GeneratorField = {
  sent: 0,
  first: 4,
  last: 8,
  flows: 12,
  position: 16,
  length: 20,
  addressAt: 24,
  sum: 28,
  began: 32,
  ended: 40,
  headers: 48,
} as const;

/** A frame of 60 bytes: Ethernet, IPv4, and TCP or UDP. */
export const FRAME = 60;
const ADDRESS_AT = { source: 26, destination: 30 } as const;
const CHECKSUM_AT = 24;
const NO_ADDRESS = new Uint8Array(4);

export interface FrameShape {
  sourceMac: Uint8Array;
  destinationMac: Uint8Array;
  protocol: 'tcp' | 'udp';
  tcpFlags: number;
  /** The address that is the same in every flow, and which of the two varies. */
  address: Uint8Array;
  varies: 'source' | 'destination';
}

/** Addresses and both ports of a flow, raw as they stand in the packet. */
export interface FlowList {
  addresses: Uint32Array;
  ports: Uint32Array;
}

export class FlowGenerator {
  readonly capacity: number;
  readonly #object: BpfObject;
  readonly #state: DataView;
  readonly #flows: Uint32Array;
  readonly #target: BpfMap;
  readonly #nothing: BpfProgram;
  readonly #grow: BpfProgram;
  readonly #generate: BpfProgram;
  readonly #received: BigUint64Array;
  readonly #runner: FrameRunner;
  readonly #frame = new Uint8Array(FRAME);

  /** @param capacity most flows */
  constructor(capacity: number) {
    this.capacity = capacity;
    const source = join(import.meta.dirname, 'flows.bpf.c');
    const path = compileBpf(source, [source], join(tmpdir(), `dirigo-flows-${process.getuid?.()}.bpf.o`));
    this.#object = new BpfObject(readFileSync(path), 'flows.bpf.o');
    this.#object.setMaxEntries('flows', capacity);
    this.#object.load();
    this.#state = new DataView(this.#object.map('generator').memory());
    this.#flows = new Uint32Array(this.#object.map('flows').memory());
    this.#target = this.#object.map('target');
    this.#nothing = this.#object.program('nothing');
    this.#grow = this.#object.program('grow');
    this.#generate = this.#object.program('generate');
    this.#received = new BigUint64Array(this.#object.map('received').memory());
    this.#runner = new FrameRunner(this.#generate, FRAME);
  }

  /**
   * Sets what the packets look like.
   * @returns a packet as it will be sent, to try
   */
  shape(shape: FrameShape): Uint8Array {
    const bytes = this.#frame.fill(0);
    const view = new DataView(bytes.buffer);
    writeEthernet(bytes, 0, shape.destinationMac, shape.sourceMac, 0x0800);
    writeIpv4(view, bytes, 14, {
      source: shape.varies === 'source' ? NO_ADDRESS : shape.address,
      destination: shape.varies === 'source' ? shape.address : NO_ADDRESS,
      protocol: Protocol[shape.protocol],
      totalLength: FRAME - 14,
      ttl: 64,
    });
    if (shape.protocol === 'udp') writeUdp(view, 34, 0, 0, FRAME - 34);
    else {
      const fields = { sourcePort: 0, destinationPort: 0, sequence: 1, acknowledgement: 1, window: 512 };
      writeTcp(view, bytes, 34, { ...fields, flags: shape.tcpFlags });
    }
    // The checksum without the address that varies, as the sum that the program adds to.
    const checksum = view.getUint16(CHECKSUM_AT, true);
    this.#set('sum', ~checksum & 0xffff);
    this.#set('length', FRAME);
    this.#set('addressAt', ADDRESS_AT[shape.varies]);
    new Uint8Array(this.#state.buffer, GeneratorField.headers, FRAME).set(bytes);
    return bytes;
  }

  #set(field: keyof typeof GeneratorField, value: number): void {
    this.#state.setUint32(GeneratorField[field], value, true);
  }

  /** Sets the flows, in the order in which they are visited. */
  setFlows({ addresses, ports }: FlowList): void {
    for (let at = 0; at < addresses.length; at++) {
      this.#flows[2 * at] = addresses[at] as number;
      this.#flows[2 * at + 1] = ports[at] as number;
    }
    this.#set('flows', addresses.length);
    this.#set('position', 0);
  }

  /**
   * Nanoseconds a packet through a program, the generator included. The flows begin where the last call stopped.
   * @throws SystemError EINTR if a signal cut the run short
   */
  once(program: BpfProgram, packets: number, interfaceIndex: number): number {
    this.#target.update(word(0), word(program.fd));
    // The first packets bring code and data into the caches.
    const warmUp = Math.min(100, packets >>> 2);
    this.#set('sent', 0);
    this.#set('first', warmUp);
    this.#set('last', packets - 1);
    this.#runner.input.set(this.#frame);
    const verdict = this.#runner.run(FRAME, interfaceIndex, 0, packets);
    if (verdict === 0) throw new Error('a packet was aborted');
    const began = this.#state.getBigUint64(GeneratorField.began, true);
    const ended = this.#state.getBigUint64(GeneratorField.ended, true);
    return Number(ended - began) / (packets - 1 - warmUp);
  }

  /** The same, again until no signal comes in between. */
  gross(program: BpfProgram, packets: number, interfaceIndex: number): number {
    for (let attempt = 0; ; attempt++) {
      try {
        return this.once(program, packets, interfaceIndex);
      } catch (error) {
        if (!isInterruption(error) || attempt > 20) throw error;
      }
    }
  }

  /**
   * Nanoseconds of the generator alone.
   * @param restores it takes off again what the program puts in front of the packet: one of the two moves of the head in
   *   a program that does nothing else belongs to the generator
   */
  floor(packets: number, interfaceIndex: number, restores = false): number {
    const empty = this.gross(this.#nothing, packets, interfaceIndex);
    return restores ? (empty + this.gross(this.#grow, packets, interfaceIndex)) / 2 : empty;
  }

  /** Really sends packets of the flows out of an interface; false if a signal cut it short. */
  send(packets: number, interfaceIndex: number): boolean {
    this.#target.update(word(0), word(this.#nothing.fd));
    try {
      this.#generate.run({ frame: this.#frame, interfaceIndex, repeat: packets, live: true });
      return true;
    } catch (error) {
      if (isInterruption(error)) return false;
      throw error;
    }
  }

  /** Counts and drops the datagrams that come in by an interface, until the link is closed. */
  countDatagrams(interfaceIndex: number, interfaceName: string): BpfLink {
    const program = this.#object.program('count_datagrams');
    return BpfLink.attachXdp(program, interfaceIndex, interfaceName, 'native');
  }

  /** Datagrams counted since the last call. */
  takeReceived(): number {
    const count = Number(this.#received[0]);
    this.#received[0] = 0n;
    return count;
  }

  /** Begins with the first flow again. */
  rewind(): void {
    this.#set('position', 0);
  }

  close(): void {
    this.#object.close();
  }
}

export function isInterruption(error: unknown): boolean {
  return error instanceof SystemError && error.code === 'EINTR';
}

function word(value: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint32(0, value, true);
  return new Uint8Array(view.buffer);
}
