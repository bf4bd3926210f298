/** System calls that Node has no function for. */
import { closeSync, openSync } from 'node:fs';
import koffi from 'koffi';

const libc = koffi.load('libc.so.6');
const socket = libc.func('int socket(int domain, int type, int protocol)');
const bind = libc.func('int bind(int fd, const void *address, uint length)');
const setsockopt = libc.func('int setsockopt(int fd, int level, int option, const void *value, uint length)');
const getsockopt = libc.func(
  'int getsockopt(int fd, int level, int option, _Out_ void *value, _Inout_ uint *length)',
);
const sendto = libc.func(
  'long sendto(int fd, void *data, size_t length, int flags, void *address, uint size)',
);
const mmap = libc.func(
  'void *mmap(void *address, size_t length, int protection, int flags, int fd, int64_t offset)',
);
const madvise = libc.func('int madvise(void *address, size_t length, int advice)');
const mount = libc.func('int mount(str source, str target, str type, ulong flags, str data)');
const umount2 = libc.func('int umount2(str target, int flags)');
const setns = libc.func('int setns(int fd, int type)');
const schedSetaffinity = libc.func('int sched_setaffinity(int pid, size_t length, const void *mask)');
const unshare = libc.func('int unshare(int flags)');
const ifNameToIndex = libc.func('uint if_nametoindex(str name)');
const ifIndexToName = libc.func('str if_indextoname(uint index, _Out_ void *name)');
const flock = libc.func('int flock(int fd, int operation)');
const ioctl = libc.func('int ioctl(int fd, ulong request, void *argument)');
const clockGetres = libc.func('int clock_getres(int clock, void *resolution)');
const exitNow = libc.func('void _exit(int status)');
const strerror = libc.func('str strerror(int number)');

const PROT_READ = 1;
const PROT_READ_WRITE = 3;
const MAP_SHARED = 0x01;
const MAP_PRIVATE = 0x02;
const MAP_ANONYMOUS = 0x20;
const MAP_POPULATE = 0x8000;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;
const MADV_DONTFORK = 10;
const MSG_DONTWAIT = 0x40;
const LOCK_EXCLUSIVE_NONBLOCKING = 6;
const SOCK_DATAGRAM = 2;
const CLOCK_MONOTONIC_COARSE = 6;
const CLONE_NEWNET = 0x40000000;

export const AddressFamily = { internet: 2, packet: 17, xdp: 44 } as const;

const errorNames = new Map(Object.entries(koffi.os.errno).map(([name, number]) => [number, name]));

function errorName(errno: number): string {
  return errorNames.get(errno) ?? `E${errno}`;
}

/** A refusal of the operating system. */
export class SystemError extends Error {
  /** The errno's name, EPERM for example. */
  readonly code: string;

  /**
   * @param operation what was tried and on what, as the start of a sentence
   * @param errno the system's number for what went wrong
   * @param advice what to do about it, if that is known
   */
  constructor(operation: string, errno: number, advice = '') {
    const code = errorName(errno);
    super(`${operation}: ${strerror(errno)} (${code})${advice && `; ${advice}`}`);
    this.name = 'SystemError';
    this.code = code;
  }
}

/** What to do when the kernel counts more memory against a process than it may hold on to (RLIMIT_MEMLOCK). */
export const LOCKED_MEMORY_ADVICE =
  'this process may not hold so much memory: set `ulimit -l unlimited` (systemd: LimitMEMLOCK=infinity), or give it CAP_IPC_LOCK';

/** The number the last failed call left behind. */
export function lastErrno(): number {
  return koffi.errno();
}

/** Throws if a call returned a negative number; gives back what it returned. */
function checked(result: number, operation: string, advice = ''): number {
  if (result < 0) throw new SystemError(operation, koffi.errno(), advice);
  return result;
}

/** Opens a raw socket; the caller closes the descriptor. */
export function openSocket(domain: number, type: number, protocol: number, what: string): number {
  return checked(socket(domain, type, protocol), `opening ${what}`);
}

export function bindSocket(fd: number, address: Uint8Array, what: string): void {
  checked(bind(fd, address, address.length), `binding ${what}`);
}

/** @param advice what to do about a refusal with this error (ENOBUFS, for example) */
export function setSocketOption(
  fd: number,
  level: number,
  option: number,
  value: Uint8Array,
  what: string,
  advice: (code: string) => string = () => '',
): void {
  if (setsockopt(fd, level, option, value, value.length) >= 0) return;
  const errno = koffi.errno();
  throw new SystemError(`setting ${what}`, errno, advice(errorName(errno)));
}

/** Fills `value` with the option's bytes and returns how many there are. */
export function getSocketOption(
  fd: number,
  level: number,
  option: number,
  value: Uint8Array,
  what: string,
): number {
  const length = [value.length];
  checked(getsockopt(fd, level, option, value, length), `reading ${what}`);
  return length[0] as number;
}

/** An empty send: tells the kernel to look at the socket's transmit ring. False when it was busy: try again. */
export function kick(fd: number): boolean {
  return sendto(fd, null, 0, MSG_DONTWAIT, null, 0) >= 0;
}

/** Sends a whole frame through a bound AF_PACKET socket. */
export function sendFrame(fd: number, frame: Uint8Array): void {
  checked(Number(sendto(fd, frame, frame.length, 0, null, 0)), 'sending a frame');
}

/** Memory shared with the kernel behind a descriptor (a ring, a BPF array). It stays mapped until the process ends. */
export function mapShared(fd: number, length: number, offset: number, what: string): ArrayBuffer {
  const pointer = mmap(null, length, PROT_READ_WRITE, MAP_SHARED | MAP_POPULATE, fd, offset);
  if (pointer === MAP_FAILED) throw new SystemError(`mapping ${what}`, koffi.errno());
  leaveOutOfChildren(pointer, length);
  return koffi.view(pointer, length);
}

/**
 * Programs that this process starts are begun as copies of it: copying the page tables of hundreds of megabytes takes
 * tens of milliseconds, in which nothing else is done. They need none of it.
 */
function leaveOutOfChildren(pointer: bigint, length: number): void {
  madvise(pointer, length, MADV_DONTFORK);
}

/** The same for memory that the kernel lets be read only; writing to it ends the process. */
export function mapReadOnly(fd: number, length: number, offset: number, what: string): ArrayBuffer {
  const pointer = mmap(null, length, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, offset);
  if (pointer === MAP_FAILED) throw new SystemError(`mapping ${what}`, koffi.errno());
  leaveOutOfChildren(pointer, length);
  return koffi.view(pointer, length);
}

/** Page-aligned memory of this process, and where it is (only for other files of this folder). */
export function mapAnonymous(length: number): { memory: ArrayBuffer; pointer: bigint } {
  const pointer = mmap(
    null,
    length,
    PROT_READ_WRITE,
    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
    -1,
    0,
  ) as bigint;
  if (pointer === MAP_FAILED) throw new SystemError(`mapping ${length} bytes of memory`, koffi.errno());
  leaveOutOfChildren(pointer, length);
  return { memory: koffi.view(pointer, length), pointer };
}

/** The kernel's ticks a second (CONFIG_HZ): a tick is what the coarse clocks advance by (clock_getres(2)). */
export function tickFrequency(): number {
  const resolution = new DataView(new ArrayBuffer(16));
  checked(clockGetres(CLOCK_MONOTONIC_COARSE, resolution.buffer), 'reading the length of a tick');
  const nanoseconds = Number(resolution.getBigInt64(0, true)) * 1e9 + Number(resolution.getBigInt64(8, true));
  return Math.round(1e9 / nanoseconds);
}

/** Mounts a file system of `type` at an existing directory. */
export function mountFileSystem(type: string, target: string): void {
  checked(mount(type, target, type, 0, null), `mounting ${type} at ${target}`);
}

export function unmountFileSystem(target: string): void {
  checked(umount2(target, 0), `unmounting ${target}`);
}

/**
 * Takes the lock of a file or directory for as long as this process lives; false if another process has it.
 * The lock ends with the process, however it ends, or with `closeSync` of the descriptor given to `taken`.
 */
export function lockFile(path: string, taken: (fd: number) => void): boolean {
  const fd = openSync(path, 'r');
  if (flock(fd, LOCK_EXCLUSIVE_NONBLOCKING) < 0) {
    const errno = koffi.errno();
    closeSync(fd);
    if (errno === koffi.os.errno.EWOULDBLOCK) return false;
    throw new SystemError(`locking ${path}`, errno);
  }
  taken(fd);
  return true;
}

/**
 * Runs `action` with this thread inside the network namespace at `path` (as `/run/netns/NAME`) and returns to the
 * namespace it was in. `action` must not be asynchronous: sockets and child processes it makes stay in the namespace.
 */
export function inNetworkNamespace<Result>(path: string, action: () => Result): Result {
  const before = openSync('/proc/thread-self/ns/net', 'r');
  try {
    const inside = openSync(path, 'r');
    try {
      checked(setns(inside, CLONE_NEWNET), `entering the network namespace ${path}`);
    } finally {
      closeSync(inside);
    }
    try {
      return action();
    } finally {
      checked(setns(before, CLONE_NEWNET), 'returning to the previous network namespace');
    }
  } finally {
    closeSync(before);
  }
}

/**
 * Runs `action` with this thread in a new, empty network namespace and returns to the one it was in. What `action` leaves
 * there ends with the last descriptor or child process that refers to it. `action` must not be asynchronous.
 */
export function inNewNetworkNamespace<Result>(action: () => Result): Result {
  const before = openSync('/proc/thread-self/ns/net', 'r');
  try {
    checked(unshare(CLONE_NEWNET), 'making a network namespace', 'this needs root (CAP_SYS_ADMIN)');
    try {
      return action();
    } finally {
      checked(setns(before, CLONE_NEWNET), 'returning to the previous network namespace');
    }
  } finally {
    closeSync(before);
  }
}

const SOL_SOCKET = 1;
const SO_NETNS_COOKIE = 71;

/** A number for the network namespace this thread is in that no other has had since the machine was started (Linux 5.14). */
export function networkNamespaceCookie(): bigint {
  const fd = openSocket(AddressFamily.internet, SOCK_DATAGRAM, 0, 'a socket');
  try {
    const value = new Uint8Array(new ArrayBuffer(8));
    getSocketOption(fd, SOL_SOCKET, SO_NETNS_COOKIE, value, "the network namespace's number");
    return new DataView(value.buffer).getBigUint64(0, true);
  } finally {
    closeSync(fd);
  }
}

/** Keeps this thread on one CPU, 0..63: for measurements. */
export function pinThread(cpu: number): void {
  const mask = new BigUint64Array(new ArrayBuffer(8)).fill(1n << BigInt(cpu));
  checked(schedSetaffinity(0, 8, new Uint8Array(mask.buffer)), `keeping this thread on CPU ${cpu}`);
}

/** Index of an interface in the current network namespace, 0 if there is none of that name. */
export function interfaceIndex(name: string): number {
  return ifNameToIndex(name);
}

/** Name of an interface, undefined if there is none with that index. */
export function interfaceName(index: number): string | undefined {
  return ifIndexToName(index, new Uint8Array(new ArrayBuffer(16))) ?? undefined;
}

/** Asks the driver of an interface (SIOCETHTOOL); `answer` begins with the command and is filled in. False if it does not know. */
function askDriver(name: string, answer: Uint32Array): boolean {
  const SIOCETHTOOL = 0x8946;
  // struct ifreq: the name in 16 bytes, then a pointer
  const request = new DataView(new ArrayBuffer(40));
  new Uint8Array(request.buffer).set(new TextEncoder().encode(name).subarray(0, 15));
  request.setBigUint64(16, koffi.address(answer), true);
  const fd = openSocket(AddressFamily.internet, SOCK_DATAGRAM, 0, 'a socket to ask interfaces with');
  try {
    return ioctl(fd, SIOCETHTOOL, new Uint8Array(request.buffer)) >= 0;
  } finally {
    closeSync(fd);
  }
}

/** How many receive queues of an interface are in use (ethtool -l); 1 where the driver does not say. */
export function receiveQueues(name: string): number {
  // struct ethtool_channels: command, four maxima, then the receive, transmit, other and combined queues there are
  const channels = new Uint32Array(new ArrayBuffer(36));
  channels[0] = 0x3c;
  return askDriver(name, channels) ? Math.max(1, (channels[5] as number) + (channels[8] as number)) : 1;
}

/** Ends the process without waiting for threads: one may be held up by a descriptor that nobody reads. */
export function endNow(status: number): never {
  exitNow(status);
  throw new Error('the process goes on');
}

/** Name of an interface's driver (ethtool -i), as `veth`; empty if there is none. */
export function driverName(name: string): string {
  // struct ethtool_drvinfo: command, then the name in 32 bytes
  const information = new Uint32Array(new ArrayBuffer(196));
  information[0] = 3;
  if (!askDriver(name, information)) return '';
  const text = new Uint8Array(information.buffer, 4, 32);
  return new TextDecoder().decode(text.subarray(0, text.indexOf(0)));
}

/**
 * Calls back when a descriptor has something to read, until the returned function is called. With `false` it has an
 * error instead, and nothing more is watched: the caller takes the error and watches anew.
 */
export function watchReadable(fd: number, callback: (isReadable: boolean) => void): () => void {
  // libuv's status comes first, whatever koffi's types say (koffi 3.3, uv.cc PollHandle::OnPoll).
  const handle = koffi.node.poll(fd, { readable: true }, (status: unknown) => callback(status === 0));
  return () => handle.close();
}
