/**
 * The control socket, and the rule that one daemon holds it. A lock that dies with its holder (a socket in the abstract
 * namespace) tells a live daemon from one that was killed and left its socket behind.
 */
import { chmodSync, chownSync, lstatSync, mkdirSync, rmdirSync, rmSync, statSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { dirname, resolve } from 'node:path';
import { requestOnce } from './request.ts';
import { DEFAULT_SOCKET } from './socket-path.ts';

/** Keeps other daemons from the socket of this path until closed. */
export interface SocketLock {
  release(): void;
}

/** The lock's name in the abstract namespace. */
function lockName(path: string): string {
  return `\0dirigo ${resolve(path)}`;
}

/**
 * Takes the path for this process and removes what a dead daemon left there.
 * @throws Error if a daemon runs there, or if the path is something else than a socket
 */
export async function lockSocket(path: string): Promise<SocketLock> {
  const absolute = resolve(path);
  const holder = createServer(connection => connection.destroy());
  try {
    await listening(holder, lockName(path));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error;
    throw await alreadyRunning(path);
  }
  holder.unref();
  let made = false;
  try {
    made = mkdirSync(dirname(absolute), { recursive: true, mode: 0o700 }) !== undefined;
    const found = lstatSync(absolute, { throwIfNoEntry: false });
    if (found && !found.isSocket())
      throw new Error(`${path} is not a socket: remove it or set DIRIGO_SOCKET`);
    // A daemon in another network namespace holds a lock that is not seen here.
    if (found && (await daemonPid(path)) !== undefined) throw await alreadyRunning(path);
    rmSync(absolute, { force: true });
  } catch (error) {
    holder.close();
    throw error;
  }
  return {
    release: () => {
      holder.close();
      if (made) removeIfEmpty(dirname(absolute));
    },
  };
}

/**
 * Takes the folder of a state for this process; whatever path leads to it.
 * @throws Error if it is another daemon's
 */
export async function lockStateFolder(folder: string): Promise<SocketLock> {
  const { dev, ino } = statSync(folder);
  const holder = createServer(connection => connection.destroy());
  try {
    await listening(holder, `\0dirigo state ${dev}:${ino}`);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error;
    throw new Error(
      `the state in ${folder} is another daemon's: give this one a folder of its own (--state)`,
    );
  }
  holder.unref();
  return { release: () => holder.close() };
}

function removeIfEmpty(folder: string): void {
  try {
    rmdirSync(folder);
  } catch {
    // Others have put something there, or it is gone: either is right.
  }
}

/**
 * Listens on the path, which only this user may then open.
 * @param gid members of this group may, too
 * @throws Error
 */
export async function listenPrivately(server: Server, path: string, gid?: number): Promise<void> {
  // The mode counts from the first moment on: the socket is made while listen() runs.
  const before = process.umask(0o177);
  try {
    await listening(server, path, () => process.umask(before));
  } finally {
    process.umask(before);
  }
  if (gid === undefined) return;
  const owner = process.geteuid?.() ?? 0;
  try {
    chownSync(path, owner, gid);
    chmodSync(path, 0o660);
    // The folder may be ours alone as well; others are their makers' business.
    if (path === DEFAULT_SOCKET && (statSync(dirname(path)).mode & 0o001) === 0) {
      chownSync(dirname(path), owner, gid);
      chmodSync(dirname(path), 0o710);
    }
  } catch (error) {
    server.close();
    throw new Error(`${path} cannot be given to group ${gid}: ${(error as Error).message}`);
  }
}

function listening(server: Server, path: string, started?: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, () => {
      server.off('error', reject);
      resolve();
    });
    started?.();
  });
}

async function alreadyRunning(path: string): Promise<Error> {
  const pid = await daemonPid(path);
  const who = pid === undefined ? 'a daemon is starting or stopping' : `already running (pid ${pid})`;
  return new Error(
    `${who} on ${path}: take its place with --replace, stop it with \`dirigo down\`, or set DIRIGO_SOCKET to run another`,
  );
}

/** Process id of the daemon that answers there, undefined if none does. */
async function daemonPid(path: string): Promise<number | undefined> {
  try {
    const { body } = await requestOnce(path, 'GET', '/status');
    const { pid } = body as { pid?: unknown };
    return typeof pid === 'number' ? pid : undefined;
  } catch {
    return undefined;
  }
}
