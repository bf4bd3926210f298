/** HTTP/1.1 messages (RFC 9112): a parser that is fed bytes as they come, and a writer. */

export interface HttpRequest {
  method: string;
  /** As in the request line. */
  target: string;
  version: string;
  /** Names in lower case. */
  headers: Map<string, string>;
  body: Uint8Array;
}

export interface HttpResponse {
  status: number;
  reason: string;
  version: string;
  /** Names in lower case. */
  headers: Map<string, string>;
  /** Status line and headers as they came, without the empty line behind them. */
  head: string;
  body: Uint8Array;
}

/** A message that breaks the protocol. */
export class HttpError extends Error {
  /** The status with which a server refuses it. */
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** Limits of nginx's defaults: large_client_header_buffers, client_max_body_size. */
const MAXIMUM_HEAD = 32 * 1024;
const MAXIMUM_BODY = 1024 * 1024;

const encoder = new TextEncoder();
const decoder = new TextDecoder('latin1');

/** Bytes that have come and were not yet understood. */
class Input {
  bytes = new Uint8Array(0);

  append(data: Uint8Array): void {
    const joined = new Uint8Array(this.bytes.length + data.length);
    joined.set(this.bytes);
    joined.set(data, this.bytes.length);
    this.bytes = joined;
  }

  take(count: number): Uint8Array {
    const taken = this.bytes.slice(0, count);
    this.bytes = this.bytes.slice(count);
    return taken;
  }

  /** The text up to the separator, which is skipped; undefined if it has not come. */
  takeUntil(separator: string): string | undefined {
    const text = decoder.decode(this.bytes.subarray(0, MAXIMUM_HEAD + separator.length));
    const at = text.indexOf(separator);
    if (at < 0) {
      if (text.length > MAXIMUM_HEAD) throw new HttpError(400, 'the header is too large');
      return undefined;
    }
    this.take(at + separator.length);
    return text.slice(0, at);
  }
}

interface Head {
  text: string;
  start: string;
  headers: Map<string, string>;
}

function parseHead(text: string): Head {
  const [start = '', ...lines] = text.split('\r\n');
  const headers = new Map<string, string>();
  for (const line of lines) {
    const match = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*$/.exec(line);
    if (!match) throw new HttpError(400, 'a header line is malformed');
    const name = (match[1] as string).toLowerCase();
    const value = match[2] as string;
    const before = headers.get(name);
    if (before !== undefined && (name === 'host' || (name === 'content-length' && before !== value)))
      throw new HttpError(400, `two ${name} headers`);
    headers.set(name, before === undefined || before === value ? value : `${before}, ${value}`);
  }
  return { text, start, headers };
}

function lengthOf(headers: Map<string, string>): number | undefined {
  const text = headers.get('content-length');
  if (text === undefined) return undefined;
  if (!/^\d{1,15}$/.test(text)) throw new HttpError(400, 'the content length is malformed');
  return Number(text);
}

/** Takes bytes and gives requests, one after another on the same connection. */
export class RequestReader {
  #input = new Input();
  #head: Head | undefined;

  /** @throws HttpError for what no server accepts; the connection is useless then */
  push(data: Uint8Array): HttpRequest[] {
    this.#input.append(data);
    const requests: HttpRequest[] = [];
    for (let request = this.#next(); request; request = this.#next()) requests.push(request);
    return requests;
  }

  #next(): HttpRequest | undefined {
    if (!this.#head) {
      const text = this.#input.takeUntil('\r\n\r\n');
      if (text === undefined) return undefined;
      // Empty lines before a request are skipped (RFC 9112 section 2.2).
      this.#head = parseHead(text.replace(/^(\r\n)+/, ''));
    }
    const { start, headers } = this.#head;
    const line = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+) (HTTP\/1\.[01])$/.exec(start);
    if (!line) throw new HttpError(400, 'the request line is malformed');
    if (headers.has('transfer-encoding')) throw new HttpError(501, 'request bodies need a content length');
    const length = lengthOf(headers) ?? 0;
    if (length > MAXIMUM_BODY) throw new HttpError(413, 'the body is too large');
    if (this.#input.bytes.length < length) return undefined;
    this.#head = undefined;
    const [, method = '', target = '', version = ''] = line;
    return { method, target, version, headers, body: this.#input.take(length) };
  }
}

/** Takes the bytes of one response. */
export class ResponseReader {
  #input = new Input();
  #head: Head | undefined;
  #chunks: Uint8Array[] = [];
  #withoutBody: boolean;
  #ended = false;

  /** @param method of the request: a HEAD is answered without a body */
  constructor(method: string) {
    this.#withoutBody = method === 'HEAD';
  }

  /** True once a byte has come. */
  get hasBegun(): boolean {
    return this.#head !== undefined || this.#input.bytes.length > 0;
  }

  /**
   * Takes bytes; gives the response when it is complete.
   * @throws HttpError if it is no HTTP response
   */
  push(data: Uint8Array): HttpResponse | undefined {
    this.#input.append(data);
    return this.#finish();
  }

  /** The server has closed its side: gives a response whose body has no stated length. */
  end(): HttpResponse | undefined {
    this.#ended = true;
    return this.#finish();
  }

  #finish(): HttpResponse | undefined {
    if (!this.#head) {
      const text = this.#input.takeUntil('\r\n\r\n');
      if (text === undefined) return undefined;
      this.#head = parseHead(text);
    }
    const { text: head, start, headers } = this.#head;
    const line = /^(HTTP\/1\.[01]) (\d{3}) ?(.*)$/.exec(start);
    if (!line) throw new HttpError(502, 'the status line is malformed');
    const status = Number(line[2]);
    if (status < 200) {
      this.#head = undefined;
      return this.#finish();
    }
    const body = this.#body(headers, this.#withoutBody || status === 204 || status === 304);
    if (!body) return undefined;
    return { version: line[1] as string, status, reason: line[3] as string, headers, head, body };
  }

  #body(headers: Map<string, string>, none: boolean): Uint8Array | undefined {
    if (none) return new Uint8Array(0);
    if (headers.get('transfer-encoding')?.toLowerCase() === 'chunked') return this.#chunkedBody();
    const length = lengthOf(headers);
    if (length === undefined) return this.#ended ? this.#input.take(this.#input.bytes.length) : undefined;
    return this.#input.bytes.length >= length ? this.#input.take(length) : undefined;
  }

  #chunkedBody(): Uint8Array | undefined {
    for (;;) {
      const mark = this.#input.bytes;
      const size = this.#input.takeUntil('\r\n');
      if (size === undefined) return undefined;
      if (!/^[0-9a-fA-F]{1,8}(;.*)?$/.test(size)) throw new HttpError(502, 'a chunk size is malformed');
      const length = Number.parseInt(size, 16);
      if (this.#input.bytes.length < length + 2) {
        this.#input.bytes = mark;
        return undefined;
      }
      const chunk = this.#input.take(length);
      this.#input.take(2);
      if (length === 0) return join(this.#chunks);
      this.#chunks.push(chunk);
    }
  }
}

function join(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** A message as bytes: start line, headers in the order given, body. */
export function writeMessage(
  start: string,
  headers: readonly (readonly [string, string])[],
  body: Uint8Array = new Uint8Array(0),
): Uint8Array {
  const head = `${start}\r\n${headers.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`;
  return join([encoder.encode(head), body]);
}

/** The body as text. */
export function bodyText(message: { body: Uint8Array }): string {
  return new TextDecoder().decode(message.body);
}
