/** The API over HTTP/1.1 with JSON bodies, with limits on size, time and number. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { Duplex } from 'node:stream';
import type { Admission } from './admission.ts';
import type { Api } from './api.ts';
import type { Log } from './log.ts';
import { type Peer, peerKey, peerText } from './peer.ts';
import { type Rate, RateLimit } from './rate-limit.ts';
import { RequestRefused } from './refused.ts';
import { onBehalfOf } from './requester.ts';
import type { ApiAnswer } from './router.ts';
import { Stream } from './routes/route.ts';
import { serveStream } from './stream-response.ts';

export interface HttpLimits {
  /** Bytes of a body. */
  body: number;
  /** Bytes of all bodies that are being received. */
  bodies: number;
  /** Bytes of the request line and the headers. */
  header: number;
  /** Connections at a time. */
  connections: number;
  /** Requests of one user or address. */
  requests: Rate;
  /** Milliseconds in which the headers, and the whole request, must have come. */
  headerTime: number;
  requestTime: number;
  /** Milliseconds in which nothing passed on a connection, after which it is closed. */
  idleTime: number;
}

export const HTTP_LIMITS: Readonly<HttpLimits> = {
  // A restore of 100,000 lines fits several times.
  body: 32 * 1024 * 1024,
  bodies: 128 * 1024 * 1024,
  header: 16 * 1024,
  connections: 256,
  requests: { rate: 2000, burst: 4000 },
  headerTime: 10_000,
  requestTime: 30_000,
  idleTime: 60_000,
};

export interface ApiServerOptions {
  api: Api;
  log: Log;
  admission: Admission;
  limits?: Partial<HttpLimits>;
  /** PEM; undefined: without encryption. */
  tls?: { certificate: string; key: string };
}

export function createApiServer(options: ApiServerOptions): Server {
  const { tls, log } = options;
  const limits = { ...HTTP_LIMITS, ...options.limits };
  const settings = {
    requestTimeout: limits.requestTime,
    headersTimeout: Math.min(limits.headerTime, limits.requestTime),
    maxHeaderSize: limits.header,
    connectionsCheckingInterval: Math.min(1000, limits.headerTime),
  };
  const service = new Service(options, limits);
  const listener = (message: IncomingMessage, response: ServerResponse): void => {
    void service.serve(message, response);
  };
  const server = tls
    ? createTlsServer({ ...settings, cert: tls.certificate, key: tls.key, minVersion: 'TLSv1.2' }, listener)
    : createServer(settings, listener);
  server.maxConnections = limits.connections;
  server.setTimeout(limits.idleTime);
  server.on('drop', () => log.warning('connection refused, too many are open', { most: limits.connections }));
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => refuseMalformed(error, socket, limits));
  // A client that does not speak TLS, or gives up in the middle of its greeting.
  server.on('tlsClientError', (error: Error) => log.debug('no TLS', { reason: error.message }));
  return server;
}

class Service {
  readonly #api: Api;
  readonly #log: Log;
  readonly #admission: Admission;
  readonly #limits: HttpLimits;
  readonly #requests: RateLimit;
  /** Bytes of bodies that are being received. */
  #received = 0;

  constructor({ api, log, admission }: ApiServerOptions, limits: HttpLimits) {
    this.#api = api;
    this.#log = log;
    this.#admission = admission;
    this.#limits = limits;
    this.#requests = new RateLimit(limits.requests);
  }

  async serve(message: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = '', url: target = '/' } = message;
    const begin = performance.now();
    let by = message.socket.remoteAddress ?? 'the control socket';
    try {
      const peer = this.#admission(message);
      by = peerText(peer);
      const answer = await this.#answer(peer, message);
      this.#log.debug('request', {
        by,
        method,
        target,
        status: answer.status,
        ms: Math.round(performance.now() - begin),
      });
      send(response, answer);
    } catch (error) {
      if (!(error instanceof RequestRefused)) {
        // The client went away in the middle of its request: there is nobody to tell.
        response.destroy();
        return;
      }
      const { status, message: reason, headers } = error;
      if (status === 401 || status === 403 || status === 429) this.#log.warning('refused', { by, reason });
      send(response, { status, headers, body: { error: reason } });
    }
  }

  async #answer(peer: Peer, message: IncomingMessage): Promise<ApiAnswer> {
    const { method = '', url: target = '/', headers } = message;
    const wait = this.#requests.take(peerKey(peer), performance.now());
    if (wait > 0) {
      throw new RequestRefused(
        429,
        `more than ${this.#limits.requests.rate} requests a second: wait ${wait} s`,
        undefined,
        { 'Retry-After': String(wait) },
      );
    }
    const body = await this.#readBody(message);
    return onBehalfOf(peer, () => this.#api.answer({ method, target, headers, body, peer }));
  }

  async #readBody(message: IncomingMessage): Promise<unknown> {
    const { body: most, bodies } = this.#limits;
    const tooLarge = (): RequestRefused => new RequestRefused(413, `the body is larger than ${most} bytes`);
    if (Number(message.headers['content-length'] ?? 0) > most) throw tooLarge();
    const chunks: Buffer[] = [];
    let size = 0;
    try {
      for await (const chunk of message as AsyncIterable<Buffer>) {
        size += chunk.length;
        this.#received += chunk.length;
        if (size > most) throw tooLarge();
        if (this.#received > bodies)
          throw new RequestRefused(503, 'too many large requests at once: try again');
        chunks.push(chunk);
      }
    } finally {
      this.#received -= size;
    }
    return size === 0 ? undefined : parseBody(message, Buffer.concat(chunks));
  }
}

function parseBody(message: IncomingMessage, bytes: Buffer): unknown {
  const { 'content-type': type = 'application/json', 'content-encoding': encoding = 'identity' } =
    message.headers;
  // curl sends this kind with -d unless told otherwise.
  if (!/^application\/(json|x-www-form-urlencoded)\s*(;|$)/i.test(type) || encoding !== 'identity') {
    throw new RequestRefused(
      415,
      `the body is ${type}${encoding === 'identity' ? '' : `, ${encoding}`}: it has to be application/json`,
    );
  }
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    throw new RequestRefused(400, `the body is not JSON in UTF-8: ${(error as Error).message}`);
  }
}

function send(response: ServerResponse, { status, headers, body }: ApiAnswer): void {
  if (body instanceof Stream) {
    serveStream(response, body);
    return;
  }
  const text = `${JSON.stringify(body)}\n`;
  response.writeHead(status, {
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(text),
    'Cache-Control': 'no-store',
    ...headers,
    // What is left of a refused body would be taken for the next request.
    ...(response.req.complete ? {} : { Connection: 'close' }),
  });
  response.end(text);
}

/** Answers what is no HTTP, as HTTP: the parser's reason, then the connection closes. */
function refuseMalformed(
  error: NodeJS.ErrnoException & { reason?: string },
  socket: Duplex,
  limits: HttpLimits,
): void {
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  const [status, reason] =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? ['431 Request Header Fields Too Large', `the headers are larger than ${limits.header} bytes`]
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? ['408 Request Timeout', 'the request did not come in time']
        : ['400 Bad Request', `malformed HTTP: ${error.reason ?? error.message}`];
  const text = `${JSON.stringify({ error: reason })}\n`;
  socket.end(
    `HTTP/1.1 ${status}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(text)}\r\n` +
      `Connection: close\r\n\r\n${text}`,
  );
}
