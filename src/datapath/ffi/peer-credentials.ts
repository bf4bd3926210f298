/** Who is at the other end of a unix socket (unix(7), SO_PEERCRED and SO_PEERGROUPS). */
import { getSocketOption, SystemError } from './libc.ts';

/** As the process was when it connected. */
export interface PeerCredentials {
  pid: number;
  uid: number;
  /** Its group and its supplementary groups. */
  gids: readonly number[];
}

const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const SO_PEERGROUPS = 59;
/** Groups a process may have (NGROUPS_MAX). */
const MOST_GROUPS = 65_536;

/**
 * @param fd a connected unix socket
 * @throws SystemError
 */
export function peerCredentials(fd: number): PeerCredentials {
  // struct ucred: pid, uid, gid.
  const credentials = new DataView(new ArrayBuffer(12));
  getSocketOption(fd, SOL_SOCKET, SO_PEERCRED, bytesOf(credentials), 'who is at the other end of a socket');
  return {
    pid: credentials.getInt32(0, true),
    uid: credentials.getUint32(4, true),
    gids: [credentials.getUint32(8, true), ...supplementaryGroups(fd)],
  };
}

function supplementaryGroups(fd: number): number[] {
  for (let room = 64; room <= MOST_GROUPS; room *= 32) {
    const groups = new DataView(new ArrayBuffer(room * 4));
    try {
      const length = getSocketOption(
        fd,
        SOL_SOCKET,
        SO_PEERGROUPS,
        bytesOf(groups),
        'the groups of a process',
      );
      return Array.from({ length: length / 4 }, (_, index) => groups.getUint32(index * 4, true));
    } catch (error) {
      // ERANGE: there are more. Linux before 4.13 does not tell: the process's own group has to do then.
      if (!(error instanceof SystemError) || error.code !== 'ERANGE') return [];
    }
  }
  return [];
}

function bytesOf(view: DataView): Uint8Array {
  return new Uint8Array(view.buffer);
}
