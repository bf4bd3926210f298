/** A small web server with nginx's manners: virtual hosts, static pages, keep-alive, the access log. */
import type { Host } from './host.ts';
import { HttpError, type HttpRequest, RequestReader, writeMessage } from './http-message.ts';
import type { TcpListener } from './tcp.ts';
import type { TcpConnection } from './tcp-connection.ts';

/** A page: bytes or text, `text/html` unless it says otherwise. */
export type Page = string | { body: string | Uint8Array; type: string };

export interface VirtualHost {
  /** Names it answers to. */
  serverName: string;
  /** Pages by path, `/` included. */
  pages: Readonly<Record<string, Page>>;
}

export interface HttpServerOptions {
  /** Default 80. */
  port?: number;
  /** Only connections to this address. */
  address?: string;
  /** The first one answers for names that none has. At least one. */
  virtualHosts: readonly VirtualHost[];
  /** How long an idle connection is kept, ms; default 75 s as nginx's keepalive_timeout. */
  keepAlive?: number;
}

const REASONS: Readonly<Record<number, string>> = {
  200: 'OK',
  400: 'Bad Request',
  404: 'Not Found',
  405: 'Not Allowed',
  413: 'Request Entity Too Large',
  501: 'Not Implemented',
};

const encoder = new TextEncoder();

export class HttpServer {
  /** Lines of the access log in nginx's `combined` format, oldest first. */
  readonly accessLog: string[] = [];
  readonly virtualHosts: VirtualHost[];
  #host: Host;
  #listener: TcpListener;
  #keepAlive: number;

  /**
   * Starts to listen.
   * @throws Error if the port is taken
   */
  constructor(host: Host, options: HttpServerOptions) {
    this.#host = host;
    this.virtualHosts = [...options.virtualHosts];
    this.#keepAlive = options.keepAlive ?? 75_000;
    const { port = 80, address } = options;
    this.#listener = host.tcp.listen(address ? { port, address } : { port }, connection =>
      this.#serve(connection),
    );
  }

  /** Stops listening; open connections are served to their end. */
  close(): void {
    this.#listener.close();
  }

  #serve(connection: TcpConnection): void {
    const reader = new RequestReader();
    const { simulation } = this.#host;
    const idle = () => simulation.after(this.#keepAlive, () => finish(connection), { background: true });
    let timer = idle();
    connection.onData = data => {
      timer.cancel();
      timer = idle();
      try {
        for (const request of reader.push(data)) if (!this.#answer(connection, request)) return;
      } catch (error) {
        if (!(error instanceof HttpError)) throw error;
        this.#refuse(connection, error.status);
      }
    };
    connection.onEnd = () => connection.end();
    connection.onClose = () => timer.cancel();
  }

  /** Returns whether the connection goes on. */
  #answer(connection: TcpConnection, request: HttpRequest): boolean {
    const name = request.headers.get('host');
    if (name === undefined && request.version === 'HTTP/1.1') return this.#refuse(connection, 400, request);
    const wishes = request.headers.get('connection')?.toLowerCase();
    const keep = request.version === 'HTTP/1.1' ? wishes !== 'close' : wishes === 'keep-alive';
    if (request.method !== 'GET' && request.method !== 'HEAD')
      return this.#send(connection, request, 405, errorPage(405), 'text/html', keep);
    const page = this.#find(name, request.target);
    if (page === undefined) return this.#send(connection, request, 404, errorPage(404), 'text/html', keep);
    const content = typeof page === 'string' ? page : page.body;
    const body = typeof content === 'string' ? encoder.encode(content) : content;
    return this.#send(
      connection,
      request,
      200,
      body,
      typeof page === 'string' ? 'text/html' : page.type,
      keep,
    );
  }

  #find(host: string | undefined, target: string): Page | undefined {
    const name = host?.replace(/:\d+$/, '').toLowerCase();
    const virtualHost = this.virtualHosts.find(each => each.serverName === name) ?? this.virtualHosts[0];
    const path = target.replace(/^http:\/\/[^/]*/, '').replace(/[?#].*$/, '') || '/';
    return virtualHost && Object.hasOwn(virtualHost.pages, path) ? virtualHost.pages[path] : undefined;
  }

  #refuse(connection: TcpConnection, status: number, request?: HttpRequest): boolean {
    return this.#send(connection, request, status, errorPage(status), 'text/html', false);
  }

  #send(
    connection: TcpConnection,
    request: HttpRequest | undefined,
    status: number,
    body: Uint8Array,
    type: string,
    keep: boolean,
  ): boolean {
    const sent = request?.method === 'HEAD' ? new Uint8Array(0) : body;
    connection.write(
      writeMessage(
        `HTTP/1.1 ${status} ${REASONS[status] ?? ''}`,
        [
          ['Server', 'nginx'],
          ['Date', this.#host.simulation.date.toUTCString()],
          ['Content-Type', type],
          ['Content-Length', String(body.length)],
          ['Connection', keep ? 'keep-alive' : 'close'],
        ],
        sent,
      ),
    );
    this.accessLog.push(this.#logLine(connection.remoteAddress, request, status, sent.length));
    if (!keep) finish(connection);
    return keep;
  }

  /** `$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"` */
  #logLine(client: string, request: HttpRequest | undefined, status: number, bytes: number): string {
    const line = request ? `${request.method} ${request.target} ${request.version}` : '';
    const quoted = (name: string): string => escapeLog(request?.headers.get(name) ?? '-');
    const time = logTime(this.#host.simulation.date);
    return `${client} - - [${time}] "${escapeLog(line)}" ${status} ${bytes} "${quoted('referer')}" "${quoted('user-agent')}"`;
  }
}

/** Closes this side; what the client still sends is not read any more. */
function finish(connection: TcpConnection): void {
  connection.onData = () => {};
  connection.end();
}

function errorPage(status: number): Uint8Array {
  const title = `${status} ${REASONS[status] ?? ''}`;
  return encoder.encode(
    `<html>\r\n<head><title>${title}</title></head>\r\n<body>\r\n<center><h1>${title}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n`,
  );
}

/** nginx writes quotes, backslashes and control bytes as \xHH. */
function escapeLog(text: string): string {
  return [...text]
    .map(each => {
      const code = each.charCodeAt(0);
      const plain = code >= 32 && code < 127 && each !== '"' && each !== '\\';
      return plain ? each : `\\x${code.toString(16).toUpperCase().padStart(2, '0')}`;
    })
    .join('');
}

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

/** `01/Jan/2026:00:00:20 +0000` */
function logTime(date: Date): string {
  const two = (value: number): string => String(value).padStart(2, '0');
  const day = `${two(date.getUTCDate())}/${MONTHS[date.getUTCMonth()]}/${date.getUTCFullYear()}`;
  return `${day}:${two(date.getUTCHours())}:${two(date.getUTCMinutes())}:${two(date.getUTCSeconds())} +0000`;
}
