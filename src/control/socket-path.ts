/** Where the daemon's control socket lies. Imported by the `ipvsadm` client: keep it free of imports. */

/** The socket of root's daemon. */
export const DEFAULT_SOCKET = '/run/dirigo/dirigo.sock';

/** Longest path of a unix socket in bytes (sun_path without its NUL). */
export const LONGEST_SOCKET_PATH = 107;

/**
 * `DIRIGO_SOCKET`, else /run/dirigo/dirigo.sock for root, else dirigo.sock in `XDG_RUNTIME_DIR`.
 * @throws Error if none of these says where
 */
export function socketPath(environment: NodeJS.ProcessEnv = process.env): string {
  const { DIRIGO_SOCKET: chosen, XDG_RUNTIME_DIR: runtime } = environment;
  let path: string;
  if (chosen) path = chosen;
  else if (process.getuid?.() === 0) path = DEFAULT_SOCKET;
  else if (runtime) path = `${runtime}/dirigo.sock`;
  else
    throw new Error(
      'neither DIRIGO_SOCKET nor XDG_RUNTIME_DIR is set: set DIRIGO_SOCKET to a path for the socket',
    );
  if (Buffer.byteLength(path) > LONGEST_SOCKET_PATH) {
    throw new Error(`the socket's path is longer than ${LONGEST_SOCKET_PATH} bytes: ${path}`);
  }
  return path;
}
