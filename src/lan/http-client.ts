/** Fetching a page over the virtual LAN, one connection a request, as `curl` does for a single URL. */
import type { Host } from './host.ts';
import { type HttpResponse, ResponseReader, writeMessage } from './http-message.ts';
import { TcpError } from './tcp-connection.ts';

export interface FetchOptions {
  /** Default GET. */
  method?: string;
  /** In place of or besides Host, User-Agent and Accept. */
  headers?: Readonly<Record<string, string>>;
  /** Connect from this address of the host. */
  localAddress?: string;
  /** For the whole fetch, ms; default none but TCP's own. */
  timeout?: number;
}

/** Why a fetch failed: `resolve`, `empty`, `partial`, `malformed`, `timeout`, or the TCP error's code. */
export class FetchError extends Error {
  readonly code: string;
  /** Whether there was a connection when it happened. */
  readonly connected: boolean;

  constructor(code: string, message: string, connected = false) {
    super(message);
    this.code = code;
    this.connected = connected;
  }
}

export interface HttpUrl {
  host: string;
  port: number;
  target: string;
}

/** Parts of an http URL or of what curl takes for one (`10.0.0.7/`, `[2001:db8::3]:8080`); undefined if it is none. */
export function parseUrl(url: string): HttpUrl | undefined {
  const match =
    /^(?:http:\/\/)?(\[[0-9a-fA-F:.]+\]|[^/:?#[\]@\s]+)(?::(\d{1,5}))?([/?][^#\s]*)?(?:#.*)?$/i.exec(url);
  if (!match) return undefined;
  const port = match[2] === undefined ? 80 : Number(match[2]);
  if (port < 1 || port > 65535) return undefined;
  const path = match[3] ?? '/';
  return {
    host: (match[1] as string).replace(/^\[|\]$/g, ''),
    port,
    target: path.startsWith('/') ? path : `/${path}`,
  };
}

/**
 * Fetches a page.
 * @param url `http://10.0.0.3/`, or without scheme
 * @throws FetchError (as a rejection) saying why there is no response
 */
export function fetchPage(host: Host, url: string, options: FetchOptions = {}): Promise<HttpResponse> {
  return new Promise((resolve, reject) => {
    const parts = parseUrl(url);
    if (!parts) return reject(new FetchError('malformed', `${url} is not an http URL`));
    const address = host.resolve(parts.host);
    if (!address) return reject(new FetchError('resolve', `Could not resolve host: ${parts.host}`));
    const method = options.method ?? 'GET';
    const reader = new ResponseReader(method);
    let connected = false;
    const { localAddress } = options;
    const connection = openOrFail(() =>
      host.tcp.open({ address, port: parts.port, ...(localAddress ? { localAddress } : {}) }),
    );
    if (connection instanceof FetchError) return reject(connection);
    const timer =
      options.timeout === undefined
        ? undefined
        : host.simulation.after(options.timeout, () =>
            fail(new FetchError('timeout', 'the time is up', connected)),
          );
    const fail = (error: FetchError): void => {
      timer?.cancel();
      reject(error);
      connection.abort();
    };
    const take = (read: () => HttpResponse | undefined): void => {
      try {
        const response = read();
        if (!response) return;
        timer?.cancel();
        resolve(response);
        connection.end();
      } catch (error) {
        fail(new FetchError('malformed', error instanceof Error ? error.message : String(error), true));
      }
    };
    connection.onOpen = () => {
      connected = true;
      connection.write(writeMessage(`${method} ${parts.target} HTTP/1.1`, headersOf(parts, options)));
    };
    connection.onData = data => take(() => reader.push(data));
    connection.onEnd = () => {
      take(() => reader.end());
      connection.end();
    };
    connection.onClose = error => {
      timer?.cancel();
      if (error) reject(new FetchError(error.code, error.message, connected));
      // After a response this changes nothing.
      else
        reject(
          new FetchError(reader.hasBegun ? 'partial' : 'empty', 'the server closed the connection', true),
        );
    };
  });
}

function openOrFail<T>(open: () => T): T | FetchError {
  try {
    return open();
  } catch (error) {
    if (error instanceof TcpError) return new FetchError(error.code, error.message);
    throw error;
  }
}

function headersOf(parts: HttpUrl, options: FetchOptions): [string, string][] {
  const name = parts.host.includes(':') ? `[${parts.host}]` : parts.host;
  const headers: [string, string][] = [
    ['Host', parts.port === 80 ? name : `${name}:${parts.port}`],
    ['User-Agent', 'curl/7.88.1'],
    ['Accept', '*/*'],
  ];
  for (const [given, value] of Object.entries(options.headers ?? {})) {
    const known = headers.find(([each]) => each.toLowerCase() === given.toLowerCase());
    if (known) known[1] = value;
    else headers.push([given, value]);
  }
  return headers;
}
