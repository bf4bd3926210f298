/**
 * One request to the daemon: HTTP/1.1 by hand over the unix socket, because loading `node:http` alone would double the
 * time that an `ipvsadm` call takes.
 */
import { connect } from 'node:net';
import { isSuccessorDue } from './handover.ts';

/** The daemon cannot be reached or does not speak to us. */
export class RequestError extends Error {
  /** The system's error code (ENOENT, ECONNREFUSED, EACCES …), undefined if the answer made no sense. */
  readonly code: string | undefined;

  constructor(message: string, code?: string) {
    super(message);
    this.name = 'RequestError';
    this.code = code;
  }
}

export interface Answer {
  /** HTTP status. */
  status: number;
  body: unknown;
}

/** Milliseconds between two looks for a daemon that is to come. */
const INTERVAL = 20;
/** There is no daemon, or it ended before it had taken the request. */
const ABSENT = new Set(['ENOENT', 'ECONNREFUSED', 'ECONNRESET', 'EPIPE']);

/**
 * Asks once more as long as one daemon is taking the place of another.
 * @param body sent as JSON; undefined sends none
 * @throws RequestError
 */
export async function request(
  path: string,
  method: 'GET' | 'POST',
  target: string,
  body?: unknown,
): Promise<Answer> {
  for (;;) {
    try {
      return await requestOnce(path, method, target, body);
    } catch (error) {
      const isAbsent = error instanceof RequestError && ABSENT.has(error.code ?? '');
      if (!isAbsent || !isSuccessorDue(path)) throw error;
      await new Promise(resolve => setTimeout(resolve, INTERVAL));
    }
  }
}

/** The same without waiting for a daemon that is not there. */
export function requestOnce(
  path: string,
  method: 'GET' | 'POST',
  target: string,
  body?: unknown,
): Promise<Answer> {
  const content = body === undefined ? '' : JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    const socket = connect(path);
    socket.on('connect', () => {
      socket.write(
        `${method} ${target} HTTP/1.1\r\nHost: dirigo\r\nConnection: close\r\n` +
          `Content-Type: application/json\r\nContent-Length: ${Buffer.byteLength(content)}\r\n\r\n${content}`,
      );
    });
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    socket.on('error', (error: NodeJS.ErrnoException) => {
      // A daemon that refuses a request early closes its end while we still write: its answer counts.
      if (chunks.length === 0) reject(new RequestError(error.message, error.code));
    });
    socket.on('close', () => {
      try {
        if (chunks.length === 0) {
          reject(new RequestError('the daemon closed the connection without an answer', 'ECONNRESET'));
        } else resolve(parseAnswer(Buffer.concat(chunks)));
      } catch (error) {
        reject(error);
      }
    });
  });
}

function parseAnswer(bytes: Buffer): Answer {
  const end = bytes.indexOf('\r\n\r\n');
  const head = bytes.toString('latin1', 0, Math.max(end, 0));
  const status = /^HTTP\/1\.1 ([0-9]{3}) /.exec(head);
  const length = /\r\ncontent-length: *([0-9]+)/i.exec(head);
  if (!status || !length) throw new RequestError('the daemon closed the connection without an answer');
  const content = bytes.subarray(end + 4);
  if (content.length !== Number(length[1])) throw new RequestError('the daemon closed the connection early');
  return { status: Number(status[1]), body: JSON.parse(content.toString()) };
}
