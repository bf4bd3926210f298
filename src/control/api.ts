/**
 * What can be asked of the daemon, independent of how the question comes in.
 *
 * | request | answer |
 * |---|---|
 * | `POST /ipvsadm` `{argv, stdin}` | `{status, stdout, stderr}` of that command |
 * | `GET /status` | process, data path, sizes |
 * | `GET /services`, `GET /connections` | what the listings show, as data |
 * | `POST /shutdown` `{remove}` | the daemon stops; with `remove`, the data path goes too |
 */
import type { Datapath, DatapathStatus, StopOptions } from '../datapath/datapath.ts';
import type { VirtualServer } from '../ipvs/specification.ts';
import { type IpvsadmResult, runIpvsadm } from '../ipvsadm/run.ts';
import { NameUnknown, type SystemNames } from './names.ts';
import { captureState, type StateFile } from './state.ts';

export interface ApiRequest {
  method: string;
  /** Path without the query. */
  path: string;
  /** The parsed JSON, undefined without a body. */
  body: unknown;
}

export interface ApiAnswer {
  /** HTTP status. */
  status: number;
  body: object;
}

export interface DaemonStatus {
  pid: number;
  version: string;
  /** ISO 8601. */
  startedAt: string;
  services: number;
  destinations: number;
  connections: number;
  /** Where the desired state is kept; null: nowhere. */
  state: string | null;
  datapath: { kind: string } & DatapathStatus;
}

export interface ApiOptions {
  datapath: Datapath;
  names: SystemNames;
  version: string;
  state: StateFile | undefined;
  /** Stops the daemon once the answer is out. */
  shutdown(options: StopOptions): void;
}

/** A request that cannot be done as it stands; `status` is HTTP's. */
class RequestRefused extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

type Handler = (body: unknown) => object | Promise<object>;

export class Api {
  readonly #options: ApiOptions;
  readonly #startedAt = new Date().toISOString();
  readonly #handlers: ReadonlyMap<string, ReadonlyMap<string, Handler>>;

  constructor(options: ApiOptions) {
    this.#options = options;
    this.#handlers = new Map<string, ReadonlyMap<string, Handler>>([
      ['/ipvsadm', new Map([['POST', body => this.#ipvsadm(body)]])],
      ['/status', new Map([['GET', () => this.status()]])],
      ['/services', new Map([['GET', () => ({ services: this.#server().services() })]])],
      ['/connections', new Map([['GET', () => ({ connections: this.#server().connections() })]])],
      ['/shutdown', new Map([['POST', body => this.#shutdown(body)]])],
    ]);
  }

  /** Never rejects: what goes wrong is an answer with `{error}`. */
  async answer(request: ApiRequest): Promise<ApiAnswer> {
    try {
      const methods = this.#handlers.get(request.path);
      if (!methods) {
        throw new RequestRefused(404, `no such path: ${request.path} (there are ${this.#paths()})`);
      }
      const handler = methods.get(request.method);
      if (!handler) {
        throw new RequestRefused(
          405,
          `${request.path} takes ${[...methods.keys()].join(', ')}, not ${request.method}`,
        );
      }
      return { status: 200, body: await handler(request.body) };
    } catch (error) {
      if (error instanceof RequestRefused) return { status: error.status, body: { error: error.message } };
      const reason = error instanceof Error ? error.message : String(error);
      console.error(`dirigo: ${request.method} ${request.path} failed: ${reason}`);
      return { status: 500, body: { error: `internal error: ${reason}` } };
    }
  }

  status(): DaemonStatus {
    const { datapath, state, version } = this.#options;
    const server = this.#server();
    const services = server.services();
    return {
      pid: process.pid,
      version,
      startedAt: this.#startedAt,
      services: services.length,
      destinations: services.reduce((sum, service) => sum + service.destinations.length, 0),
      connections: server.connections().length,
      state: state?.path ?? null,
      datapath: { ...datapath.status(), kind: datapath.kind },
    };
  }

  /** The virtual server, at the present time. */
  #server(): VirtualServer {
    const { datapath } = this.#options;
    datapath.director.administration.now = datapath.now();
    return datapath.director.administration;
  }

  #paths(): string {
    return [...this.#handlers.keys()].join(', ');
  }

  /** The desired state is on disk before the answer goes out. */
  async #ipvsadm(body: unknown): Promise<IpvsadmResult> {
    const { argv, stdin } = parseCommandBody(body);
    const { names, state } = this.#options;
    names.refresh();
    let result = await this.#withNames(() => runIpvsadm(argv, stdin, this.#server(), names));
    // Names of addresses cost time, so a listing is made with those at hand, and again if that left some open.
    // Within a restore the commands would be done twice: there, what is at hand must do.
    if (stdin === '' && (await names.lookUpWanted())) {
      result = runIpvsadm(argv, stdin, this.#server(), names);
    }
    state?.save(captureState(this.#server()));
    return result;
  }

  /** Runs a command, again for each name in it that had to be looked up: it changes nothing before it knows all. */
  async #withNames(run: () => IpvsadmResult): Promise<IpvsadmResult> {
    for (;;) {
      try {
        return run();
      } catch (error) {
        if (!(error instanceof NameUnknown)) throw error;
        await this.#options.names.lookUp(error.host);
      }
    }
  }

  #shutdown(body: unknown): object {
    const remove = (body as { remove?: unknown } | undefined)?.remove ?? false;
    if (typeof remove !== 'boolean') throw new RequestRefused(400, '"remove" is not true or false');
    this.#options.shutdown({ remove });
    return { pid: process.pid };
  }
}

function parseCommandBody(body: unknown): { argv: string[]; stdin: string } {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    throw new RequestRefused(400, 'the body is not a JSON object {"argv": […], "stdin": "…"}');
  }
  const { argv, stdin = '', ...others } = body as Record<string, unknown>;
  const unknown = Object.keys(others)[0];
  if (unknown !== undefined) throw new RequestRefused(400, `unknown field ${JSON.stringify(unknown)}`);
  if (!Array.isArray(argv) || !argv.every(word => typeof word === 'string')) {
    throw new RequestRefused(400, '"argv" is not an array of strings');
  }
  if (typeof stdin !== 'string') throw new RequestRefused(400, '"stdin" is not a string');
  return { argv, stdin };
}
