/**
 * BPF objects, programs, maps and links through libbpf.so.1 (version 1.0 or later).
 *
 * Option structs are written by hand: every one starts with its own size, and libbpf takes what lies behind as zero.
 */
import { closeSync } from 'node:fs';
import koffi from 'koffi';
import { lastErrno, mapShared, SystemError } from './libc.ts';

type Foreign = ReturnType<ReturnType<typeof koffi.load>['func']>;

interface Functions {
  openMemory: Foreign;
  load: Foreign;
  close: Foreign;
  findMap: Foreign;
  findProgram: Foreign;
  mapFd: Foreign;
  programFd: Foreign;
  setMaxEntries: Foreign;
  reuseFd: Foreign;
  createMap: Foreign;
  pin: Foreign;
  get: Foreign;
  info: Foreign;
  linkCreate: Foreign;
  linkUpdate: Foreign;
  linkDetach: Foreign;
  lookup: Foreign;
  lookupBatch: Foreign;
  update: Foreign;
  remove: Foreign;
  nextKey: Foreign;
  pop: Foreign;
  testRun: Foreign;
  possibleCpus: Foreign;
  initialValue: Foreign;
  setAutoload: Foreign;
  nextProgram: Foreign;
  programName: Foreign;
  query: Foreign;
}

let loaded: Functions | undefined;

/** The library, loaded at the first use; for other files of this folder. */
export function libbpf(): Functions {
  if (loaded) return loaded;
  let library: ReturnType<typeof koffi.load>;
  try {
    library = koffi.load('libbpf.so.1');
  } catch {
    throw new Error('libbpf.so.1 is missing: install it (Debian: apt-get install libbpf1)');
  }
  const func = (prototype: string): Foreign => library.func(prototype);
  // Its messages would go to stderr; the verifier's come back in a buffer, everything else as an errno.
  func('void *libbpf_set_print(void *print)')(null);
  loaded = {
    openMemory: func('void *bpf_object__open_mem(const void *bytes, size_t size, const void *options)'),
    load: func('int bpf_object__load(void *object)'),
    close: func('void bpf_object__close(void *object)'),
    findMap: func('void *bpf_object__find_map_by_name(void *object, str name)'),
    findProgram: func('void *bpf_object__find_program_by_name(void *object, str name)'),
    mapFd: func('int bpf_map__fd(void *map)'),
    programFd: func('int bpf_program__fd(void *program)'),
    setMaxEntries: func('int bpf_map__set_max_entries(void *map, uint32_t entries)'),
    reuseFd: func('int bpf_map__reuse_fd(void *map, int fd)'),
    createMap: func(
      'int bpf_map_create(int type, str name, uint32_t key, uint32_t value, uint32_t entries, const void *options)',
    ),
    pin: func('int bpf_obj_pin(int fd, str path)'),
    get: func('int bpf_obj_get(str path)'),
    info: func('int bpf_obj_get_info_by_fd(int fd, void *info, void *length)'),
    linkCreate: func('int bpf_link_create(int program, int target, int type, const void *options)'),
    linkUpdate: func('int bpf_link_update(int link, int program, const void *options)'),
    linkDetach: func('int bpf_link_detach(int link)'),
    lookup: func('int bpf_map_lookup_elem(int fd, const void *key, void *value)'),
    lookupBatch: func(
      'int bpf_map_lookup_batch(int fd, const void *from, void *to, void *keys, void *values, void *count, const void *options)',
    ),
    update: func('int bpf_map_update_elem(int fd, const void *key, const void *value, uint64_t flags)'),
    remove: func('int bpf_map_delete_elem(int fd, const void *key)'),
    nextKey: func('int bpf_map_get_next_key(int fd, const void *key, void *next)'),
    pop: func('int bpf_map_lookup_and_delete_elem(int fd, const void *key, void *value)'),
    testRun: func('int bpf_prog_test_run_opts(int fd, void *options)'),
    possibleCpus: func('int libbpf_num_possible_cpus()'),
    initialValue: func('void *bpf_map__initial_value(void *map, _Out_ size_t *size)'),
    nextProgram: func('void *bpf_object__next_program(void *object, void *program)'),
    programName: func('str bpf_program__name(void *program)'),
    setAutoload: func('int bpf_program__set_autoload(void *program, bool on)'),
    query: func(
      'int bpf_prog_query(int target, int type, uint32_t flags, void *attached, void *programs, void *count)',
    ),
  };
  return loaded;
}

/** Loads the library. @throws Error that says what to install if it is missing */
export function requireLibbpf(): void {
  libbpf();
}

/** libbpf returns negative error numbers; for other files of this folder. */
export function checked(result: number, operation: string, advice = ''): number {
  if (result < 0) throw new SystemError(operation, -result, advice);
  return result;
}

/** Zeroed memory that the collector does not move, with a view on it; for other files of this folder. */
export function zeroed(length: number): { bytes: Uint8Array; view: DataView; pointer: bigint } {
  const buffer = new ArrayBuffer(length);
  const bytes = new Uint8Array(buffer);
  return { bytes, view: new DataView(buffer), pointer: koffi.address(bytes) };
}

const ENOENT = 2;

/** CPUs that per-CPU maps have a value for. */
export function possibleCpus(): number {
  return checked(libbpf().possibleCpus(), 'counting the possible CPUs');
}

/** The number of an object in the kernel: its id is the second word of every info struct. */
function infoOf(fd: number, what: string): DataView {
  const info = zeroed(256);
  const length = zeroed(4);
  length.view.setUint32(0, 256, true);
  checked(libbpf().info(fd, info.bytes, length.bytes), `asking for ${what}`);
  return info.view;
}

/** A descriptor for what is pinned at `path`; undefined if nothing is. */
function openPinned(path: string, what: string): number | undefined {
  const fd = libbpf().get(path) as number;
  if (fd === -ENOENT) return undefined;
  return checked(fd, `opening the pinned ${what} ${path}`);
}

const BPF_F_MMAPABLE = 1 << 10;
/** In `struct bpf_map_create_opts`. */
const MAP_FLAGS_AT = 28;
/** Bytes of an array's value (kernel/bpf/arraymap.c). */
const LONGEST_VALUE = 0x7fffffff;
const MapType = { array: 2, perCpuArray: 6, queue: 22 } as const;

/** A map of the kernel. Keys and values are bytes of exactly the map's sizes. */
export class BpfMap {
  readonly name: string;
  readonly fd: number;
  readonly keySize: number;
  readonly valueSize: number;
  readonly maxEntries: number;
  readonly #type: number;
  readonly #flags: number;
  #memory: ArrayBuffer | undefined;

  constructor(name: string, fd: number) {
    const info = infoOf(fd, `map ${name}`);
    this.name = name;
    this.fd = fd;
    this.keySize = info.getUint32(8, true);
    this.valueSize = info.getUint32(12, true);
    this.maxEntries = info.getUint32(16, true);
    this.#type = info.getUint32(0, true);
    this.#flags = info.getUint32(20, true);
  }

  /** The map pinned at `path`, undefined if there is none. */
  static openPinned(name: string, path: string): BpfMap | undefined {
    const fd = openPinned(path, 'map');
    return fd === undefined ? undefined : new BpfMap(name, fd);
  }

  /**
   * Makes an array of one value that processes can map, all zero.
   * @param name at most 15 characters
   * @param bytes of the value
   * @throws Error also if it is longer than 2^31 - 1
   */
  static createData(name: string, bytes: number): BpfMap {
    if (bytes > LONGEST_VALUE)
      throw new Error(
        `making map ${name} of ${bytes} bytes: more than the kernel makes, set a smaller capacity`,
      );
    // struct bpf_map_create_opts
    const options = zeroed(48);
    options.view.setBigUint64(0, 48n, true);
    options.view.setUint32(MAP_FLAGS_AT, BPF_F_MMAPABLE, true);
    const result = libbpf().createMap(MapType.array, name, 4, bytes, 1, options.bytes) as number;
    return new BpfMap(name, checked(result, `making map ${name} of ${bytes} bytes`, memoryAdvice(-result)));
  }

  /** Copies the value of `key` into `value`; false if there is none. Per-CPU maps fill one value a possible CPU. */
  lookup(key: Uint8Array, value: Uint8Array): boolean {
    const result = libbpf().lookup(this.fd, key, value) as number;
    if (result === -ENOENT) return false;
    checked(result, `looking into map ${this.name}`);
    return true;
  }

  /**
   * Copies values of an array, as many as fit, into `values`: one call whatever their number. Per-CPU maps fill one value
   * a possible CPU.
   * @param first index of the first
   * @param keys room for their indexes
   */
  lookupFrom(first: number, keys: Uint32Array, values: Uint8Array): void {
    // The kernel goes on behind the key that it is given.
    const before = Uint32Array.of(first - 1);
    const count = Uint32Array.of(keys.length);
    const from = first === 0 ? null : new Uint8Array(before.buffer);
    const result = libbpf().lookupBatch(
      this.fd,
      from,
      new Uint8Array(new ArrayBuffer(4)),
      new Uint8Array(keys.buffer, keys.byteOffset, keys.byteLength),
      values,
      new Uint8Array(count.buffer),
      null,
    ) as number;
    // It says so when the array ended before the room.
    if (result !== -ENOENT) checked(result, `looking into map ${this.name}`);
  }

  update(key: Uint8Array, value: Uint8Array): void {
    checked(libbpf().update(this.fd, key, value, 0), `writing to map ${this.name}`);
  }

  /** False if there was no such key. */
  delete(key: Uint8Array): boolean {
    const result = libbpf().remove(this.fd, key) as number;
    if (result === -ENOENT) return false;
    checked(result, `deleting from map ${this.name}`);
    return true;
  }

  /** Takes the oldest value out of a queue; false if it is empty. */
  pop(value: Uint8Array): boolean {
    const result = libbpf().pop(this.fd, null, value) as number;
    if (result === -ENOENT) return false;
    checked(result, `taking from map ${this.name}`);
    return true;
  }

  /** All keys at about this moment. */
  keys(): Uint8Array[] {
    const keys: Uint8Array[] = [];
    let previous: Uint8Array | null = null;
    for (;;) {
      const next = new Uint8Array(new ArrayBuffer(this.keySize));
      const result = libbpf().nextKey(this.fd, previous, next) as number;
      if (result === -ENOENT) return keys;
      checked(result, `walking through map ${this.name}`);
      keys.push(next);
      previous = next;
    }
  }

  /**
   * The values of an array made with BPF_F_MMAPABLE, shared with the kernel: exactly as long as they are. Mapped once.
   */
  memory(): ArrayBuffer {
    const stride = (this.valueSize + 7) & ~7;
    this.#memory ??= mapShared(this.fd, stride * this.maxEntries, 0, `map ${this.name}`);
    return this.#memory;
  }

  /** Makes it as new: arrays all zero, others empty. `cpus`: those that per-CPU values are kept for. */
  clear(cpus: number): void {
    if (this.#flags & BPF_F_MMAPABLE) new Uint8Array(this.memory()).fill(0);
    else if (this.#type === MapType.array || this.#type === MapType.perCpuArray) {
      const value = new Uint8Array(new ArrayBuffer(((this.valueSize + 7) & ~7) * cpus));
      const key = new Uint32Array(new ArrayBuffer(4));
      for (key[0] = 0; (key[0] as number) < this.maxEntries; key[0] = (key[0] as number) + 1) {
        this.update(new Uint8Array(key.buffer), value);
      }
    } else if (this.#type === MapType.queue) {
      const value = new Uint8Array(new ArrayBuffer(this.valueSize));
      while (this.pop(value));
    } else for (const key of this.keys()) this.delete(key);
  }

  pin(path: string): void {
    checked(libbpf().pin(this.fd, path), `pinning map ${this.name} at ${path}`);
  }

  close(): void {
    closeSync(this.fd);
  }
}

export interface TestRun {
  /** The frame to run on, at least 14 bytes. */
  frame: Uint8Array;
  /** Runs in a row, each on what the one before left. Default 1. */
  repeat?: number;
  /** The interface and queue that the frame came in by. Default: none. */
  interfaceIndex?: number;
  queue?: number;
  /** Really do what the program says with the frame: pass it to the host, transmit it, redirect it. */
  live?: boolean;
}

export interface TestRunResult {
  /** What the program returned. */
  verdict: number;
  /** The frame as the program left it (empty for live runs). */
  frame: Uint8Array;
  /** Nanoseconds a run. */
  duration: number;
}

export const XdpVerdict = { aborted: 0, drop: 1, pass: 2, transmit: 3, redirect: 4 } as const;

const BPF_F_TEST_XDP_LIVE_FRAMES = 2;

/**
 * Runs of a program on one frame after the other, with buffers that are made once: a system call each and little more.
 * The frame goes into `input`, what the program left of it is in `output` afterwards.
 */
export class FrameRunner {
  readonly input: Uint8Array;
  readonly output: Uint8Array;
  /** Bytes in `output`. */
  length = 0;
  /** Nanoseconds a run. */
  duration = 0;
  readonly #program: BpfProgram;
  readonly #options: DataView;
  readonly #bytes: Uint8Array;
  readonly #context: DataView;

  /** @param longest bytes of the longest frame */
  constructor(program: BpfProgram, longest: number) {
    const room = longest + 256;
    const input = zeroed(longest);
    const output = zeroed(room);
    // struct xdp_md and struct bpf_test_run_opts, as in BpfProgram.run
    const context = zeroed(24);
    const options = zeroed(80);
    options.view.setBigUint64(0, 80n, true);
    options.view.setBigUint64(8, input.pointer, true);
    options.view.setBigUint64(16, output.pointer, true);
    options.view.setBigUint64(32, context.pointer, true);
    options.view.setUint32(48, 24, true);
    this.#program = program;
    this.input = input.bytes;
    this.output = output.bytes;
    this.#context = context.view;
    this.#options = options.view;
    this.#bytes = options.bytes;
  }

  /** Runs the program on the first `length` bytes of `input`, at least 14, and returns its verdict. */
  run(length: number, interfaceIndex: number, queue = 0, repeat = 1): number {
    const options = this.#options;
    this.#context.setUint32(4, length, true);
    this.#context.setUint32(12, interfaceIndex, true);
    this.#context.setUint32(16, queue, true);
    options.setUint32(24, length, true);
    options.setUint32(28, this.output.length, true);
    options.setInt32(60, repeat, true);
    const result = libbpf().testRun(this.#program.fd, this.#bytes) as number;
    if (result < 0) checked(result, `running program ${this.#program.name} on ${length} bytes`);
    this.length = options.getUint32(28, true);
    this.duration = options.getUint32(64, true);
    return options.getUint32(56, true);
  }
}

/** A loaded program. */
export class BpfProgram {
  readonly name: string;
  readonly fd: number;
  /** The kernel's number for it. */
  readonly id: number;

  constructor(name: string, fd: number) {
    this.name = name;
    this.fd = fd;
    this.id = infoOf(fd, `program ${name}`).getUint32(4, true);
  }

  static openPinned(name: string, path: string): BpfProgram | undefined {
    const fd = openPinned(path, 'program');
    return fd === undefined ? undefined : new BpfProgram(name, fd);
  }

  /** Runs the program by BPF_PROG_TEST_RUN. */
  run(options: TestRun): TestRunResult {
    const { frame, repeat = 1, interfaceIndex = 0, queue = 0, live = false } = options;
    const room = frame.length + 256;
    const input = zeroed(frame.length);
    input.bytes.set(frame);
    const output = zeroed(room);
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
    const context = zeroed(24);
    context.view.setUint32(4, frame.length, true);
    context.view.setUint32(12, interfaceIndex, true);
    context.view.setUint32(16, queue, true);
    // struct bpf_test_run_opts
    const run = zeroed(80);
    run.view.setBigUint64(0, 80n, true);
    run.view.setBigUint64(8, input.pointer, true);
    run.view.setUint32(24, frame.length, true);
    if (!live) {
      run.view.setBigUint64(16, output.pointer, true);
      run.view.setUint32(28, room, true);
    }
    run.view.setBigUint64(32, context.pointer, true);
    run.view.setUint32(48, 24, true);
    run.view.setInt32(60, repeat, true);
    run.view.setUint32(68, live ? BPF_F_TEST_XDP_LIVE_FRAMES : 0, true);
    checked(libbpf().testRun(this.fd, run.bytes), `running program ${this.name}`);
    return {
      verdict: run.view.getUint32(56, true),
      frame: live ? new Uint8Array(0) : output.bytes.slice(0, run.view.getUint32(28, true)),
      duration: run.view.getUint32(64, true),
    };
  }

  /** Runs a program that is attached to packets of the network stack (`tc`) once: its verdict, and what it left. */
  runOnPacket(frame: Uint8Array): Omit<TestRunResult, 'duration'> {
    const input = zeroed(frame.length);
    input.bytes.set(frame);
    const output = zeroed(frame.length + 256);
    // struct bpf_test_run_opts without a context
    const run = zeroed(80);
    run.view.setBigUint64(0, 80n, true);
    run.view.setBigUint64(8, input.pointer, true);
    run.view.setBigUint64(16, output.pointer, true);
    run.view.setUint32(24, frame.length, true);
    run.view.setUint32(28, output.bytes.length, true);
    run.view.setInt32(60, 1, true);
    checked(libbpf().testRun(this.fd, run.bytes), `running program ${this.name}`);
    const frameLength = run.view.getUint32(28, true);
    return { verdict: run.view.getUint32(56, true), frame: output.bytes.slice(0, frameLength) };
  }

  pin(path: string): void {
    checked(libbpf().pin(this.fd, path), `pinning program ${this.name} at ${path}`);
  }

  close(): void {
    closeSync(this.fd);
  }
}

/** How a program is attached: in the driver, or in the network stack in front of everything else. */
export type XdpMode = 'native' | 'generic';

const BPF_XDP = 37;
const BPF_TCX_INGRESS = 46;
const XDP_FLAGS: Record<XdpMode, number> = { native: 4, generic: 2 };

/** An attachment of an XDP program to an interface. It ends when its last descriptor and its pin are gone. */
export class BpfLink {
  readonly fd: number;
  readonly interfaceIndex: number;

  constructor(fd: number) {
    this.fd = fd;
    this.interfaceIndex = infoOf(fd, 'a link').getUint32(16, true);
  }

  /** @throws SystemError with code EBUSY if the interface has a program, EOPNOTSUPP if it cannot have one in this mode */
  static attachXdp(
    program: BpfProgram,
    interfaceIndex: number,
    interfaceName: string,
    mode: XdpMode,
  ): BpfLink {
    const options = zeroed(16);
    options.view.setBigUint64(0, 16n, true);
    options.view.setUint32(8, XDP_FLAGS[mode], true);
    const fd = checked(
      libbpf().linkCreate(program.fd, interfaceIndex, BPF_XDP, options.bytes),
      `attaching program ${program.name} to ${interfaceName} (${mode} XDP)`,
    );
    return new BpfLink(fd);
  }

  /**
   * Attaches a program of type `tc` in front of what an interface receives, behind its taps and XDP (Linux 6.6). Other
   * programs there stay; this one comes last.
   * @throws SystemError with code EINVAL on older kernels
   */
  static attachIngress(program: BpfProgram, interfaceIndex: number, interfaceName: string): BpfLink {
    const options = zeroed(16);
    options.view.setBigUint64(0, 16n, true);
    const fd = checked(
      libbpf().linkCreate(program.fd, interfaceIndex, BPF_TCX_INGRESS, options.bytes),
      `attaching program ${program.name} to the ingress of ${interfaceName}`,
    );
    return new BpfLink(fd);
  }

  /** The kernel's number of the program that is attached at present. */
  get programId(): number {
    return infoOf(this.fd, 'a link').getUint32(8, true);
  }

  static openPinned(path: string): BpfLink | undefined {
    const fd = openPinned(path, 'link');
    return fd === undefined ? undefined : new BpfLink(fd);
  }

  /** Replaces the program without a gap. */
  update(program: BpfProgram): void {
    checked(libbpf().linkUpdate(this.fd, program.fd, null), `replacing the program by ${program.name}`);
  }

  pin(path: string): void {
    checked(libbpf().pin(this.fd, path), `pinning a link at ${path}`);
  }

  /** Ends the attachment now, whoever else holds it. */
  detach(): void {
    checked(libbpf().linkDetach(this.fd), 'detaching a program');
  }

  close(): void {
    closeSync(this.fd);
  }
}

/** What to do when the kernel refuses to make maps or to load what uses them. */
function memoryAdvice(errno: number): string {
  const { EPERM, EACCES, ENOMEM, E2BIG } = koffi.os.errno;
  if (errno === EPERM || errno === EACCES) {
    return 'this needs root (CAP_BPF, CAP_NET_ADMIN), and before Linux 5.11 memory that it may hold: `ulimit -l unlimited` (systemd: LimitMEMLOCK=infinity)';
  }
  if (errno === ENOMEM || errno === E2BIG) {
    return 'the tables may be too large for this machine, or for the memory limit of this control group (memory.max): set a smaller --capacity';
  }
  return '';
}

const LOG_BYTES = 1 << 20;
/** Error numbers of the library's own, all about files it cannot read, begin here. */
const LIBBPF_ERRORS = 4000;

/** An object file on its way into the kernel: open, set sizes and maps to reuse, load, take what is needed, close. */
export class BpfObject {
  readonly #name: string;
  readonly #handle: bigint;
  /** Holds the verifier's words after a failed load; must live as long as the object. */
  readonly #log = zeroed(LOG_BYTES);
  readonly #bytes: Uint8Array;
  /** Sections that maps of another size took the place of, and their own sizes. */
  readonly #resized = new Map<bigint, number>();

  /**
   * @param bytes the ELF file
   * @param name what to call it in errors
   */
  constructor(bytes: Uint8Array, name: string) {
    this.#name = name;
    this.#bytes = new Uint8Array(new ArrayBuffer(bytes.length));
    this.#bytes.set(bytes);
    // struct bpf_object_open_opts: the kernel's log buffer, its size, level 0 (only after a failure)
    const options = zeroed(80);
    options.view.setBigUint64(0, 80n, true);
    options.view.setBigUint64(56, this.#log.pointer, true);
    options.view.setBigUint64(64, BigInt(LOG_BYTES), true);
    const handle = libbpf().openMemory(this.#bytes, this.#bytes.length, options.bytes) as bigint | null;
    if (!handle) {
      const errno = lastErrno();
      if (errno >= LIBBPF_ERRORS) {
        throw new Error(`the BPF object ${name} is damaged: remove it and run \`npm run build:bpf\``);
      }
      throw new SystemError(`opening the BPF object ${name}`, errno);
    }
    this.#handle = handle;
  }

  /** A map, or the data section `.data.NAME`, which is an array of one element. */
  #map(name: string): bigint {
    const { findMap } = libbpf();
    const map = (findMap(this.#handle, name) ?? findMap(this.#handle, `.data.${name}`)) as bigint | null;
    if (!map)
      throw new Error(`the BPF object ${this.#name} has no map ${name}; rebuild it: npm run build:bpf`);
    return map;
  }

  /** Sets the number of entries of a map that is yet to be made. */
  setMaxEntries(map: string, entries: number): void {
    checked(libbpf().setMaxEntries(this.#map(map), entries), `sizing map ${map}`);
  }

  /**
   * Makes the object use an existing map; load fails if type or sizes differ. In the place of a section of data it may
   * be larger, and is the caller's then: `map` does not know it once the object is loaded.
   */
  reuse(map: string, existing: BpfMap): void {
    const handle = this.#map(map);
    const size: [number] = [0];
    const isSection = libbpf().initialValue(handle, size) !== null;
    if (isSection && Number(size[0]) !== existing.valueSize) this.#resized.set(handle, Number(size[0]));
    checked(libbpf().reuseFd(handle, existing.fd), `reusing map ${map}`);
  }

  /**
   * When libbpf lets go of a section's initial values, it takes the map's size for theirs, and would unmap what lies
   * behind them. So each gets a map of its own size again.
   */
  #restoreSections(): void {
    for (const [handle, size] of this.#resized) {
      const placeholder = BpfMap.createData('placeholder', size);
      checked(libbpf().reuseFd(handle, placeholder.fd), 'putting a section back');
      placeholder.close();
    }
    this.#resized.clear();
  }

  /** The initial values of a section of data (`.rodata`) of an object that is not loaded yet: write them in place. */
  data(section: string): DataView {
    const size: [number] = [0];
    const pointer = libbpf().initialValue(this.#map(section), size) as bigint | null;
    if (!pointer) throw new Error(`the BPF object ${this.#name} has no data ${section}`);
    return new DataView(koffi.view(pointer, Number(size[0])));
  }

  /** Names of the programs that it has. */
  get programs(): string[] {
    const names: string[] = [];
    let program = libbpf().nextProgram(this.#handle, null) as bigint | null;
    while (program) {
      names.push(libbpf().programName(program) as string);
      program = libbpf().nextProgram(this.#handle, program) as bigint | null;
    }
    return names;
  }

  /** Leaves a program out of those that are loaded. */
  leaveOut(name: string): void {
    checked(libbpf().setAutoload(this.#program(name), false), `leaving out program ${name}`);
  }

  /** Creates the maps and loads the programs. */
  load(): void {
    const result = libbpf().load(this.#handle) as number;
    this.#restoreSections();
    if (result >= 0) return;
    const log = koffi.decode.string(this.#log.pointer).trimEnd();
    const lines = log
      .split('\n')
      .filter(line => !/^(processed \d+ insns|verification time|stack depth)/.test(line));
    const words = log ? `; the verifier says:\n${lines.slice(-12).join('\n')}` : '';
    const errno = -result;
    const advice = memoryAdvice(errno);
    throw new Error(new SystemError(`loading the BPF object ${this.#name}`, errno, advice).message + words);
  }

  /** A map of the loaded object; its descriptor lives as long as the object. */
  map(name: string): BpfMap {
    return new BpfMap(name, checked(libbpf().mapFd(this.#map(name)), `using map ${name}`));
  }

  #program(name: string): bigint {
    const program = libbpf().findProgram(this.#handle, name) as bigint | null;
    if (!program)
      throw new Error(`the BPF object ${this.#name} has no program ${name}; rebuild it: npm run build:bpf`);
    return program;
  }

  /** A program of the loaded object; its descriptor lives as long as the object. */
  program(name: string): BpfProgram {
    return new BpfProgram(name, checked(libbpf().programFd(this.#program(name)), `using program ${name}`));
  }

  /** Closes all descriptors of the object; what is pinned or attached by a link stays. */
  close(): void {
    this.#restoreSections();
    libbpf().close(this.#handle);
  }
}
