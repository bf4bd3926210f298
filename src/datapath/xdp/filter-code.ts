/**
 * Capture filters for the XDP program's tap: classic BPF as libpcap compiles it (bpf(4); net/core/filter.c for the
 * kernel's reading of it), translated to eBPF that runs on a frame in a map.
 *
 * Registers, as `matches()` in bpf/tap.bpf.c hands them over: r0 is the accumulator and the answer, r1 the frame, r2 how
 * many bytes of it are there, r3 its length, r4 the index register, r5 free. The program's memory words have a fixed
 * distance from the frame.
 */

import type { FilterInstruction } from '../ffi/libpcap.ts';

/** A filter that cannot be translated; the message says why. */
export class FilterCodeError extends Error {
  override name = 'FilterCodeError';
}

export interface FrameMemoryLayout {
  /** Bytes of the memory that the frame lies in. */
  room: number;
  /** Distance of the sixteen memory words from the frame, -32768..32703. */
  words: number;
}

/** Bytes of an eBPF instruction. */
const INSTRUCTION = 8;
const [ACCUMULATOR, FRAME, KEPT, LENGTH, INDEX, FREE] = [0, 1, 2, 3, 4, 5] as const;

/** Instruction classes and parts, classic and extended alike (linux/bpf_common.h, linux/bpf.h). */
const Class = {
  load: 0,
  loadIndex: 1,
  store: 2,
  storeIndex: 3,
  alu: 4,
  jump: 5,
  answer: 6,
  misc: 7,
  jump32: 6,
};
const Mode = { immediate: 0x00, absolute: 0x20, indirect: 0x40, memory: 0x60, length: 0x80, header: 0xa0 };
const MEMORY_LOAD = 0x61;
const MEMORY_STORE = 0x63;
const REGISTER = 0x08;
const Alu = {
  add: 0x00,
  and: 0x50,
  left: 0x60,
  negate: 0x80,
  move: 0xb0,
  toBigEndian: 0xdc,
  divide: 0x30,
  modulo: 0x90,
};
const Jump = { always: 0x00, equal: 0x10, greater: 0x20, atLeast: 0x30, less: 0xa0 };
/** Sizes of loads by the code's bits 3 and 4: word, half, byte. */
const SIZES = [4, 2, 1] as const;

/** A place that a jump goes to, known once everything is written. */
type Label = number | 'refuse' | 'end';

class CodeWriter {
  readonly #code: { bytes: Uint8Array; target?: Label }[] = [];
  /** Where each classic instruction begins. */
  readonly starts: number[] = [];

  emit(operation: number, to: number, from: number, offset = 0, immediate = 0, target?: Label): void {
    const bytes = new Uint8Array(INSTRUCTION);
    const view = new DataView(bytes.buffer);
    bytes[0] = operation;
    bytes[1] = to | (from << 4);
    view.setInt16(2, offset, true);
    view.setUint32(4, immediate >>> 0, true);
    this.#code.push(target === undefined ? { bytes } : { bytes, target });
  }

  jump(target: Label): void {
    this.emit(Class.jump | Jump.always, 0, 0, 0, 0, target);
  }

  /** Compares 32 bits. */
  jumpIf(condition: number, register: number, constant: number, target: Label): void {
    this.emit(Class.jump32 | condition, register, 0, 0, constant, target);
  }

  begin(): void {
    this.starts.push(this.#code.length);
  }

  /** The code, at most `room` instructions of it. */
  finish(room: number): Uint8Array {
    // Only if somebody goes there: the kernel refuses code that nothing leads to.
    const refuse = this.#code.length;
    if (this.#code.some(({ target }) => target === 'refuse')) this.emit(Class.alu | Alu.move, ACCUMULATOR, 0);
    const end = this.#code.length;
    if (end > room) throw new FilterCodeError(`the filter is too long: ${end} instructions, ${room} fit`);
    const whole = new Uint8Array(end * INSTRUCTION);
    for (const [at, { bytes, target }] of this.#code.entries()) {
      if (target !== undefined) {
        const to = target === 'refuse' ? refuse : target === 'end' ? end : this.starts[target];
        if (to === undefined) throw new FilterCodeError('the filter jumps out of itself');
        new DataView(bytes.buffer).setInt16(2, to - at - 1, true);
      }
      whole.set(bytes, at * INSTRUCTION);
    }
    return whole;
  }
}

/**
 * Translates a filter. The result leaves something other than 0 in r0 if the frame is let through, and goes on behind
 * itself.
 * @param room instructions that there is room for, at most 32000
 * @throws FilterCodeError
 */
export function translateFilter(
  filter: readonly FilterInstruction[],
  layout: FrameMemoryLayout,
  room: number,
): Uint8Array {
  const writer = new CodeWriter();
  // The verifier wants every register written before it is read; classic BPF begins with zeros.
  writer.emit(Class.alu | Alu.move, ACCUMULATOR, 0);
  writer.emit(Class.alu | Alu.move, INDEX, 0);
  for (let word = 0; word < 16; word++) {
    if (usesWord(filter, word)) writer.emit(MEMORY_STORE, FRAME, ACCUMULATOR, layout.words + 4 * word);
  }
  for (const [position, instruction] of filter.entries()) {
    writer.begin();
    translate(writer, instruction, position, layout);
  }
  return writer.finish(room);
}

function usesWord(filter: readonly FilterInstruction[], word: number): boolean {
  return filter.some(({ code, constant }) => {
    const kind = code & 7;
    const isAccess =
      kind === Class.store || kind === Class.storeIndex || (kind < 2 && (code & 0xe0) === Mode.memory);
    return isAccess && constant === word;
  });
}

function translate(
  writer: CodeWriter,
  instruction: FilterInstruction,
  position: number,
  layout: FrameMemoryLayout,
): void {
  const { code, constant } = instruction;
  switch (code & 7) {
    case Class.load:
      translateLoad(writer, instruction, layout);
      break;
    case Class.loadIndex:
      translateIndexLoad(writer, instruction, layout);
      break;
    case Class.store:
      writer.emit(MEMORY_STORE, FRAME, ACCUMULATOR, wordAt(constant, layout));
      break;
    case Class.storeIndex:
      writer.emit(MEMORY_STORE, FRAME, INDEX, wordAt(constant, layout));
      break;
    case Class.alu:
      translateAlu(writer, instruction);
      break;
    case Class.jump:
      translateJump(writer, instruction, position);
      break;
    case Class.answer:
      if ((code & 0x18) === 0) writer.emit(Class.alu | Alu.move, ACCUMULATOR, 0, 0, constant);
      writer.jump('end');
      break;
    default:
      // Between accumulator and index register.
      if (code & 0x80) writer.emit(Class.alu | Alu.move | REGISTER, ACCUMULATOR, INDEX);
      else writer.emit(Class.alu | Alu.move | REGISTER, INDEX, ACCUMULATOR);
  }
}

function wordAt(word: number, { words }: FrameMemoryLayout): number {
  if (word > 15) throw new FilterCodeError(`the filter uses memory word ${word}, there are 16`);
  return words + 4 * word;
}

function translateLoad(
  writer: CodeWriter,
  { code, constant }: FilterInstruction,
  layout: FrameMemoryLayout,
): void {
  const size = SIZES[(code >> 3) & 3] ?? 4;
  switch (code & 0xe0) {
    case Mode.immediate:
      writer.emit(Class.alu | Alu.move, ACCUMULATOR, 0, 0, constant);
      break;
    case Mode.memory:
      writer.emit(MEMORY_LOAD, ACCUMULATOR, FRAME, wordAt(constant, layout));
      break;
    case Mode.length:
      writer.emit(Class.alu | Alu.move | REGISTER, ACCUMULATOR, LENGTH);
      break;
    case Mode.absolute:
      loadFixed(writer, constant, size, layout, ACCUMULATOR);
      break;
    case Mode.indirect:
      loadIndirect(writer, constant, size, layout);
      break;
    default:
      throw new FilterCodeError(`the filter has the unknown load ${code}`);
  }
}

function translateIndexLoad(
  writer: CodeWriter,
  { code, constant }: FilterInstruction,
  layout: FrameMemoryLayout,
): void {
  switch (code & 0xe0) {
    case Mode.immediate:
      writer.emit(Class.alu | Alu.move, INDEX, 0, 0, constant);
      break;
    case Mode.memory:
      writer.emit(MEMORY_LOAD, INDEX, FRAME, wordAt(constant, layout));
      break;
    case Mode.length:
      writer.emit(Class.alu | Alu.move | REGISTER, INDEX, LENGTH);
      break;
    case Mode.header:
      // Four times the low half of a byte: the length of an IPv4 header.
      loadFixed(writer, constant, 1, layout, INDEX);
      writer.emit(Class.alu | Alu.and, INDEX, 0, 0, 0x0f);
      writer.emit(Class.alu | Alu.left, INDEX, 0, 0, 2);
      break;
    default:
      throw new FilterCodeError(`the filter has the unknown load ${code}`);
  }
}

/** Offsets that do not exist in Ethernet frames (negative ones mean something else to the kernel) refuse the frame. */
function loadFixed(
  writer: CodeWriter,
  offset: number,
  size: number,
  layout: FrameMemoryLayout,
  into: number,
): void {
  if (offset + size > layout.room) {
    // As a condition that always holds, because what follows must not look unreachable.
    writer.jumpIf(Jump.atLeast, KEPT, 0, 'refuse');
    return;
  }
  writer.jumpIf(Jump.less, KEPT, offset + size, 'refuse');
  writer.emit(loadCode(size), into, FRAME, offset);
  turn(writer, size, into);
}

function loadIndirect(writer: CodeWriter, offset: number, size: number, layout: FrameMemoryLayout): void {
  writer.emit(Class.alu | Alu.move | REGISTER, FREE, INDEX);
  writer.emit(Class.alu | Alu.add, FREE, 0, 0, offset);
  // In this order: a sum that is too large must not run over with the size.
  writer.jumpIf(Jump.greater, FREE, layout.room - size, 'refuse');
  writer.emit(Class.alu | Alu.add, FREE, 0, 0, size);
  writer.emit(Class.jump32 | Jump.greater | REGISTER, FREE, KEPT, 0, 0, 'refuse');
  writer.emit(Class.alu | Alu.add, FREE, 0, 0, -size);
  // Known again to the verifier, which forgets bounds over subtractions of 32 bits.
  writer.jumpIf(Jump.greater, FREE, layout.room - size, 'refuse');
  writer.emit(0x0f, FREE, FRAME);
  writer.emit(loadCode(size), ACCUMULATOR, FREE, 0);
  turn(writer, size, ACCUMULATOR);
}

function loadCode(size: number): number {
  return size === 4 ? 0x61 : size === 2 ? 0x69 : 0x71;
}

/** Frames are big-endian. */
function turn(writer: CodeWriter, size: number, register: number): void {
  if (size > 1) writer.emit(Alu.toBigEndian, register, 0, 0, size * 8);
}

function translateAlu(writer: CodeWriter, { code, constant }: FilterInstruction): void {
  const operation = code & 0xf0;
  const byIndex = (code & REGISTER) !== 0;
  if (operation === Alu.negate) {
    writer.emit(Class.alu | Alu.negate, ACCUMULATOR, 0);
    return;
  }
  if (operation === Alu.divide || operation === Alu.modulo) {
    // Division by zero ends a classic program, and the frame is refused.
    if (byIndex) writer.jumpIf(Jump.equal, INDEX, 0, 'refuse');
    else if (constant === 0) writer.jumpIf(Jump.atLeast, KEPT, 0, 'refuse');
  }
  if (byIndex) writer.emit(Class.alu | operation | REGISTER, ACCUMULATOR, INDEX);
  else writer.emit(Class.alu | operation, ACCUMULATOR, 0, 0, constant);
}

function translateJump(writer: CodeWriter, instruction: FilterInstruction, position: number): void {
  const { code, constant, jumpTrue, jumpFalse } = instruction;
  const next = position + 1;
  const operation = code & 0xf0;
  if (operation === Jump.always) {
    writer.jump(next + constant);
    return;
  }
  if (code & REGISTER)
    writer.emit(Class.jump32 | operation | REGISTER, ACCUMULATOR, INDEX, 0, 0, next + jumpTrue);
  else writer.jumpIf(operation, ACCUMULATOR, constant, next + jumpTrue);
  if (jumpFalse > 0) writer.jump(next + jumpFalse);
}

/**
 * Puts code in the place of every run of `room` empty instructions (`goto +0`) in an object file.
 * @returns how many there were
 */
export function fillRoom(object: Uint8Array, code: Uint8Array, room: number): number {
  let found = 0;
  let run = 0;
  for (let at = 0; at + INSTRUCTION <= object.length; at += INSTRUCTION) {
    run = isEmpty(object, at) ? run + 1 : 0;
    if (run < room) continue;
    object.set(code, at + INSTRUCTION - room * INSTRUCTION);
    found++;
    run = 0;
  }
  return found;
}

function isEmpty(object: Uint8Array, at: number): boolean {
  if (object[at] !== 0x05) return false;
  for (let byte = 1; byte < INSTRUCTION; byte++) if (object[at + byte] !== 0) return false;
  return true;
}
