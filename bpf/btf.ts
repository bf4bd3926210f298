/**
 * Struct layouts from the type information (BTF) of a compiled object: a reader for what the layout test asks, not
 * for all of BTF (Documentation/bpf/btf.rst in the kernel).
 */

export interface StructLayout {
  /** Bytes. */
  size: number;
  /** Byte offset of every member by name. */
  members: Map<string, number>;
}

const BTF_MAGIC = 0xeb9f;
const TYPE_HEADER = 12;
const Kind = {
  int: 1,
  array: 3,
  struct: 4,
  union: 5,
  enum: 6,
  functionPrototype: 13,
  variable: 14,
  dataSection: 15,
  declarationTag: 17,
  enum64: 19,
} as const;

/** Layouts of all named structs, and the names of the values of all enums, in an ELF object with BTF. */
export function readBtf(object: Uint8Array): {
  structs: Map<string, StructLayout>;
  enums: Map<string, string[]>;
} {
  const btf = section(object, '.BTF');
  const view = new DataView(btf.buffer, btf.byteOffset, btf.length);
  if (view.getUint16(0, true) !== BTF_MAGIC) throw new Error('.BTF does not start with its magic number');
  const header = view.getUint32(4, true);
  const strings = header + view.getUint32(16, true);
  const name = (offset: number): string => text(btf, strings + offset);
  const structs = new Map<string, StructLayout>();
  const enums = new Map<string, string[]>();
  const end = header + view.getUint32(8, true) + view.getUint32(12, true);
  for (let at = header + view.getUint32(8, true); at < end; ) {
    const info = view.getUint32(at + 4, true);
    const kind = (info >>> 24) & 31;
    const count = info & 0xffff;
    const bitfields = info >>> 31;
    const typeName = name(view.getUint32(at, true));
    const body = at + TYPE_HEADER;
    if (kind === Kind.struct) {
      const members = new Map<string, number>();
      for (let member = 0; member < count; member++) {
        const offset = view.getUint32(body + 12 * member + 8, true);
        members.set(
          name(view.getUint32(body + 12 * member, true)),
          (bitfields ? offset & 0xffffff : offset) / 8,
        );
      }
      structs.set(typeName, { size: view.getUint32(at + 8, true), members });
    } else if (kind === Kind.enum) {
      enums.set(
        typeName,
        Array.from({ length: count }, (_, value) => name(view.getUint32(body + 8 * value, true))),
      );
    }
    at = body + bodyLength(kind, count);
  }
  return { structs, enums };
}

/** Bytes that follow a type's header. */
function bodyLength(kind: number, count: number): number {
  switch (kind) {
    case Kind.int:
    case Kind.variable:
    case Kind.declarationTag:
      return 4;
    case Kind.array:
      return 12;
    case Kind.struct:
    case Kind.union:
    case Kind.dataSection:
    case Kind.enum64:
      return 12 * count;
    case Kind.enum:
    case Kind.functionPrototype:
      return 8 * count;
    default:
      return 0;
  }
}

/** The bytes of a section of a little-endian 64-bit ELF file. */
function section(object: Uint8Array, wanted: string): Uint8Array {
  const view = new DataView(object.buffer, object.byteOffset, object.length);
  const headers = Number(view.getBigUint64(40, true));
  const headerBytes = view.getUint16(58, true);
  const offsetOf = (index: number): number =>
    Number(view.getBigUint64(headers + index * headerBytes + 24, true));
  const names = offsetOf(view.getUint16(62, true));
  for (let index = 0; index < view.getUint16(60, true); index++) {
    const header = headers + index * headerBytes;
    if (text(object, names + view.getUint32(header, true)) !== wanted) continue;
    const offset = offsetOf(index);
    return object.subarray(offset, offset + Number(view.getBigUint64(header + 32, true)));
  }
  throw new Error(`the object has no section ${wanted}: compile it with -g`);
}

function text(bytes: Uint8Array, at: number): string {
  return new TextDecoder().decode(bytes.subarray(at, bytes.indexOf(0, at)));
}
