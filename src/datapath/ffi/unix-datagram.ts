/** One datagram to a unix socket, which Node has no function for: how systemd is told things. */
import { closeSync } from 'node:fs';
import koffi from 'koffi';
import { openSocket, SystemError } from './libc.ts';

const AF_UNIX = 1;
const SOCK_DATAGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const SUN_PATH = 2;
const MSG_DONTWAIT = 0x40;

const sendto = koffi
  .load('libc.so.6')
  .func('long sendto(int fd, const void *data, size_t length, int flags, const void *address, uint size)');

/**
 * @param path of the socket; `@` at the beginning stands for the abstract namespace
 * @returns false if the receiver has not taken what it was sent before: nobody waits for it
 * @throws SystemError if nobody listens there
 */
export function sendUnixDatagram(path: string, text: string): boolean {
  const name = new TextEncoder().encode(path);
  const address = new Uint8Array(new ArrayBuffer(SUN_PATH + name.length + 1));
  new DataView(address.buffer).setUint16(0, AF_UNIX, true);
  address.set(name, SUN_PATH);
  const isAbstract = path.startsWith('@');
  if (isAbstract) address[SUN_PATH] = 0;
  // The length of an abstract name says where it ends; a path ends with a NUL.
  const length = SUN_PATH + name.length + (isAbstract ? 0 : 1);
  const data = new TextEncoder().encode(text);
  const fd = openSocket(AF_UNIX, SOCK_DATAGRAM | SOCK_CLOEXEC, 0, 'a unix socket');
  try {
    if (Number(sendto(fd, data, data.length, MSG_DONTWAIT, address, length)) >= 0) return true;
    if (koffi.errno() === koffi.os.errno.EAGAIN) return false;
    throw new SystemError(`sending to ${path}`, koffi.errno());
  } finally {
    closeSync(fd);
  }
}
