/** The API over HTTP/1.1 with JSON bodies, with limits on size, time and number. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Api } from './api.ts';
import type { Peer } from './peer.ts';
import type { ApiAnswer } from './router.ts';
import { Stream } from './routes/route.ts';
import { serveStream } from './stream-response.ts';

/** Bytes of a body: a restore of 100,000 lines fits several times. */
export const BODY_LIMIT = 32 * 1024 * 1024;
/** Milliseconds in which a whole request must have come. */
const REQUEST_TIMEOUT = 30_000;
const MOST_CONNECTIONS = 256;

export function createApiServer(api: Api): Server {
  const server = createServer(
    { requestTimeout: REQUEST_TIMEOUT, headersTimeout: 10_000 },
    (message, response) => {
      void serve(api, message, response);
    },
  );
  server.maxConnections = MOST_CONNECTIONS;
  server.on('clientError', refuseMalformed);
  return server;
}

async function serve(api: Api, message: IncomingMessage, response: ServerResponse): Promise<void> {
  try {
    const body = await readBody(message);
    const result =
      'error' in body
        ? { status: body.status, headers: {}, body: { error: body.error } }
        : await api.answer({
            method: message.method ?? '',
            target: message.url ?? '/',
            headers: message.headers,
            body: body.value,
            peer: OWNER,
          });
    send(response, result);
  } catch {
    // The client went away in the middle of its request: there is nobody to tell.
    response.destroy();
  }
}

/** The socket's mode lets nobody else in. */
const OWNER: Peer = { kind: 'local', uid: process.geteuid?.() ?? 0, pid: 0 };

function send(response: ServerResponse, { status, headers, body }: ApiAnswer): void {
  if (body instanceof Stream) {
    serveStream(response, body);
    return;
  }
  const text = `${JSON.stringify(body)}\n`;
  response.writeHead(status, {
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(text),
    ...headers,
    // What is left of a refused body would be taken for the next request.
    ...(status === 413 ? { Connection: 'close' } : {}),
  });
  response.end(text);
}

async function readBody(
  message: IncomingMessage,
): Promise<{ value: unknown } | { status: number; error: string }> {
  const tooLarge = { status: 413, error: `the body is larger than ${BODY_LIMIT} bytes` };
  if (Number(message.headers['content-length'] ?? 0) > BODY_LIMIT) return tooLarge;
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of message as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > BODY_LIMIT) return tooLarge;
    chunks.push(chunk);
  }
  if (size === 0) return { value: undefined };
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(chunks));
    return { value: JSON.parse(text) };
  } catch (error) {
    return { status: 400, error: `the body is not JSON in UTF-8: ${(error as Error).message}` };
  }
}

/** Answers what is no HTTP, as HTTP: the parser's reason, then the connection closes. */
function refuseMalformed(error: NodeJS.ErrnoException & { reason?: string }, socket: Duplex): void {
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  const [status, reason] =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? ['431 Request Header Fields Too Large', 'the headers are larger than 16384 bytes']
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? ['408 Request Timeout', `the request was not complete after ${REQUEST_TIMEOUT / 1000} s`]
        : ['400 Bad Request', `malformed HTTP: ${error.reason ?? error.message}`];
  const text = `${JSON.stringify({ error: reason })}\n`;
  socket.end(
    `HTTP/1.1 ${status}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(text)}\r\n` +
      `Connection: close\r\n\r\n${text}`,
  );
}
