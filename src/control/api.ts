/**
 * What can be asked of the daemon, independent of how the question comes in.
 *
 * | request | answer |
 * |---|---|
 * | `POST /ipvsadm` `{argv, stdin}` | `{status, stdout, stderr}` of that command |
 * | `GET /status` | process, data path, sizes |
 * | `GET /services`, `GET /connections` | what the listings show, as data |
 * | `GET /settings`, `POST /settings` `{name, value}` | all settings; the one that was set |
 * | `GET /marks`, `POST /marks` `{rules}` | the rules of firewall marks; all of them replaced |
 * | `/state`, `/revisions`, `/plan`, `/apply`, `/rollback` | see `routes/state.ts` |
 * | `POST /shutdown` `{remove, successor}` | the daemon stops; with `remove`, the data path goes too; with `successor`, another one follows |
 * | `POST /reload` | the daemon begins anew, in the version that is installed |
 */
import type { Datapath, DatapathStatus, StopOptions } from '../datapath/datapath.ts';
import type { Director } from '../ipvs/director.ts';
import { formatMarkRule, MarkRuleError, MarkRules, parseMarkRule } from '../ipvs/mark-rules.ts';
import { SettingError, settingName } from '../ipvs/settings.ts';
import type { VirtualServer } from '../ipvs/specification.ts';
import { type IpvsadmResult, isListing, runIpvsadm } from '../ipvsadm/run.ts';
import { type Configuration, StateNotKept } from './configuration.ts';
import { type SystemNames, withNames } from './names.ts';
import { fieldsOf, RequestRefused } from './refused.ts';
import { stateRoutes } from './routes/state.ts';

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
  configuration: Configuration;
  /** Stops the daemon once the answer is out. */
  shutdown(options: ShutdownOptions): void;
  /**
   * Makes sure that the daemon can begin anew, and does it once the answer is out.
   * @throws Error that says why it cannot; it goes on as it is then
   */
  reload(): Promise<void>;
}

export interface ShutdownOptions extends StopOptions {
  /** Another daemon follows: who wants something meanwhile waits for it. */
  successor?: boolean;
}

export type Handler = (body: unknown) => object | Promise<object>;

/** Handlers by path and method. */
export type Routes = ReadonlyMap<string, ReadonlyMap<string, Handler>>;

export class Api {
  readonly #options: ApiOptions;
  readonly #startedAt = new Date().toISOString();
  readonly #handlers: Routes;

  constructor(options: ApiOptions) {
    this.#options = options;
    this.#handlers = new Map<string, ReadonlyMap<string, Handler>>([
      ['/ipvsadm', new Map([['POST', body => this.#ipvsadm(body)]])],
      ['/status', new Map([['GET', () => this.status()]])],
      ['/services', new Map([['GET', () => ({ services: this.#server().services() })]])],
      ['/connections', new Map([['GET', () => ({ connections: this.#server().connections() })]])],
      [
        '/settings',
        new Map<string, Handler>([
          ['GET', () => ({ settings: this.#director().settings })],
          ['POST', body => this.#setSetting(body)],
        ]),
      ],
      [
        '/marks',
        new Map<string, Handler>([
          ['GET', () => ({ rules: this.#director().marks.rules.map(formatMarkRule) })],
          ['POST', body => this.#setMarks(body)],
        ]),
      ],
      ['/shutdown', new Map([['POST', body => this.#shutdown(body)]])],
      ...stateRoutes(options),
      ['/reload', new Map([['POST', () => this.#reload()]])],
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
      // Out of room, by HTTP's words: the disk has to be looked after.
      if (error instanceof StateNotKept) return { status: 507, body: { error: error.message } };
      if (error instanceof RequestRefused) return { status: error.status, body: { error: error.message } };
      const reason = error instanceof Error ? error.message : String(error);
      console.error(`dirigo: ${request.method} ${request.path} failed: ${reason}`);
      return { status: 500, body: { error: `internal error: ${reason}` } };
    }
  }

  status(): DaemonStatus {
    const { configuration, datapath, version } = this.#options;
    const server = this.#server();
    const services = server.services();
    return {
      pid: process.pid,
      version,
      startedAt: this.#startedAt,
      services: services.length,
      destinations: services.reduce((sum, service) => sum + service.destinations.length, 0),
      connections: server.connections().length,
      state: configuration.path,
      datapath: { ...datapath.status(), kind: datapath.kind },
    };
  }

  #director(): Director {
    return this.#options.datapath.director;
  }

  /** The virtual server, at the present time. */
  #server(): VirtualServer {
    const { administration } = this.#director();
    administration.now = this.#options.datapath.now();
    return administration;
  }

  #paths(): string {
    return [...this.#handlers.keys()].join(', ');
  }

  /** What a command changed is on disk before the answer goes out. */
  async #ipvsadm(body: unknown): Promise<IpvsadmResult> {
    const { argv, stdin } = parseCommandBody(body);
    if (isListing(argv)) return this.#list(argv);
    const { configuration, names } = this.#options;
    const cause = ['ipvsadm', ...argv].join(' ');
    return configuration.edit(cause, () => {
      names.refresh();
      return withNames(names, () => runIpvsadm(argv, stdin, this.#server(), names));
    });
  }

  /** Names of addresses cost time, so a listing is made with those at hand, and again if that left some open. */
  async #list(argv: readonly string[]): Promise<IpvsadmResult> {
    const { names } = this.#options;
    names.refresh();
    const result = await withNames(names, () => runIpvsadm(argv, '', this.#server(), names));
    return (await names.lookUpWanted()) ? runIpvsadm(argv, '', this.#server(), names) : result;
  }

  async #setSetting(body: unknown): Promise<object> {
    const { name, value } = fieldsOf(body, ['name', 'value']);
    if (typeof name !== 'string') throw new RequestRefused(400, '"name" is not a string');
    if (typeof value !== 'string') throw new RequestRefused(400, '"value" is not a string');
    const director = this.#director();
    await this.#options.configuration.edit(`setting ${name} ${value}`, () =>
      refuseAs400(() => director.set(name, value)),
    );
    return { name, value: director.settings[settingName(name)] };
  }

  /** The new rules take the place of all old ones, or none of them does. */
  async #setMarks(body: unknown): Promise<object> {
    const { rules } = fieldsOf(body, ['rules']);
    if (!Array.isArray(rules) || !rules.every(rule => typeof rule === 'string')) {
      throw new RequestRefused(400, '"rules" is not an array of strings');
    }
    const { configuration, datapath } = this.#options;
    const director = this.#director();
    await configuration.edit('marks', () =>
      refuseAs400(() => {
        director.marks = new MarkRules(rules.map(parseMarkRule), name => datapath.interfaceIndex(name));
      }),
    );
    return { rules: director.marks.rules.map(formatMarkRule) };
  }

  #shutdown(body: unknown): object {
    const { remove = false, successor = false } = fieldsOf(body ?? {}, ['remove', 'successor']);
    if (typeof remove !== 'boolean') throw new RequestRefused(400, '"remove" is not true or false');
    if (typeof successor !== 'boolean') throw new RequestRefused(400, '"successor" is not true or false');
    if (remove && successor) {
      throw new RequestRefused(
        400,
        '"remove" and "successor" exclude each other: a successor takes over what is there',
      );
    }
    this.#options.shutdown({ remove, successor });
    return { pid: process.pid };
  }

  async #reload(): Promise<object> {
    try {
      await this.#options.reload();
    } catch (error) {
      throw new RequestRefused(409, `not reloaded, the daemon goes on as it is: ${(error as Error).message}`);
    }
    return { pid: process.pid, startedAt: this.#startedAt };
  }
}

/** Does what may be refused for a value that makes no sense; the reason is the answer then. */
function refuseAs400(work: () => void): void {
  try {
    work();
  } catch (error) {
    if (error instanceof SettingError || error instanceof MarkRuleError) {
      throw new RequestRefused(400, error.message);
    }
    throw error;
  }
}

function parseCommandBody(body: unknown): { argv: string[]; stdin: string } {
  const { argv, stdin = '' } = fieldsOf(body, ['argv', 'stdin']);
  if (!Array.isArray(argv) || !argv.every(word => typeof word === 'string')) {
    throw new RequestRefused(400, '"argv" is not an array of strings');
  }
  if (typeof stdin !== 'string') throw new RequestRefused(400, '"stdin" is not a string');
  return { argv, stdin };
}
