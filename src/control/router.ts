/** Finds the route of a request, checks the request against its declaration, and makes what goes wrong an answer. */

import { MarkRuleError } from '../ipvs/mark-rules.ts';
import { PinError } from '../ipvs/pins.ts';
import { SettingError } from '../ipvs/settings.ts';
import { IpvsError, type IpvsErrorCode } from '../ipvs/specification.ts';
import { RevisionError, StateNotKept } from './configuration.ts';
import type { Peer } from './peer.ts';
import { RequestRefused } from './refused.ts';
import { Reply, type Route, type Stream } from './routes/route.ts';
import { check, type JsonSchema } from './schema.ts';
import { StateTextError } from './state-text.ts';

export interface ApiRequest {
  method: string;
  /** Path and query as they came. */
  target: string;
  headers: Readonly<Record<string, string | string[] | undefined>>;
  /** The parsed JSON, undefined without a body. */
  body: unknown;
  peer: Peer;
}

export interface ApiAnswer {
  /** HTTP status. */
  status: number;
  headers: Readonly<Record<string, string>>;
  /** JSON, or something that is sent as it comes. */
  body: object | Stream;
}

/** A path of the table, cut at its slashes; parameters without their braces. */
interface Template {
  path: string;
  segments: readonly { text: string; isParameter: boolean }[];
  /** By method. */
  routes: Map<string, Route>;
}

export class Router {
  readonly #templates: Template[] = [];
  readonly #onInternalError: (error: unknown, request: ApiRequest) => void;

  constructor(routes: readonly Route[], onInternalError: (error: unknown, request: ApiRequest) => void) {
    this.#onInternalError = onInternalError;
    for (const route of routes) this.#add(route);
  }

  #add(route: Route): void {
    let template = this.#templates.find(({ path }) => path === route.path);
    if (!template) {
      const segments = route.path.split('/').map(segment => {
        const isParameter = segment.startsWith('{');
        return { text: isParameter ? segment.slice(1, -1) : segment, isParameter };
      });
      template = { path: route.path, segments, routes: new Map() };
      this.#templates.push(template);
    }
    if (template.routes.has(route.method)) throw new Error(`two routes ${route.method} ${route.path}`);
    template.routes.set(route.method, route);
  }

  /** Never rejects: what goes wrong is an answer with `{error}`. */
  async answer(request: ApiRequest): Promise<ApiAnswer> {
    try {
      const queryAt = request.target.indexOf('?');
      const path = queryAt < 0 ? request.target : request.target.slice(0, queryAt);
      const { route, given } = this.#find(request.method, path);
      addQuery(route, queryAt < 0 ? '' : request.target.slice(queryAt + 1), given);
      const parameters = readParameters(route, given);
      const body = readBody(route, request.body);
      const result = await route.handle({ parameters, body, headers: request.headers, peer: request.peer });
      if (result instanceof Reply)
        return { status: result.status, headers: result.headers, body: result.body };
      return { status: route.status, headers: {}, body: result as object };
    } catch (error) {
      const refusal = refusalOf(error);
      if (refusal) return refusalAnswer(refusal, error instanceof IpvsError ? error.code : undefined);
      this.#onInternalError(error, request);
      const reason = error instanceof Error ? error.message : String(error);
      return { status: 500, headers: {}, body: { error: `internal error: ${reason}` } };
    }
  }

  #find(method: string, path: string): { route: Route; given: Map<string, string> } {
    const segments = path.split('/');
    for (const template of this.#templates) {
      const given = match(template, segments);
      if (!given) continue;
      const route = template.routes.get(method);
      if (route) return { route, given };
      const methods = [...template.routes.keys()].join(', ');
      throw new RequestRefused(405, `${path} takes ${methods}, not ${method}`, undefined, { Allow: methods });
    }
    throw new RequestRefused(404, `no such path: ${path} (GET /openapi.json describes those there are)`);
  }
}

/** The parameters in the path, undefined if it is another path. */
function match({ segments }: Template, given: readonly string[]): Map<string, string> | undefined {
  if (segments.length !== given.length) return undefined;
  const found = new Map<string, string>();
  for (const [index, { text, isParameter }] of segments.entries()) {
    const segment = given[index] as string;
    if (!isParameter && segment !== text) return undefined;
    if (isParameter) found.set(text, decoded(text, segment));
  }
  return found;
}

function decoded(name: string, text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new RequestRefused(400, `${name} is ${text}: % has to be followed by two hexadecimal digits`, name);
  }
}

function addQuery(route: Route, query: string, given: Map<string, string>): void {
  const inPath = new Set(given.keys());
  for (const part of query.split('&')) {
    if (part === '') continue;
    const [rawName = '', ...rest] = part.replaceAll('+', ' ').split('=');
    const name = decoded('the query', rawName);
    const known = Object.keys(route.parameters).filter(each => !inPath.has(each));
    if (!known.includes(name)) {
      const which = known.length === 0 ? 'there are none here' : `there are ${known.join(', ')}`;
      throw new RequestRefused(400, `the parameter ${name} is not known: ${which}`, name);
    }
    if (given.has(name)) throw new RequestRefused(400, `the parameter ${name} is there twice`, name);
    given.set(name, decoded(name, rest.join('=')));
  }
}

function readParameters(route: Route, given: ReadonlyMap<string, string>): Record<string, never> {
  const values: Record<string, unknown> = {};
  for (const [name, parameter] of Object.entries(route.parameters)) {
    const isOptional = 'optional' in parameter;
    const schema: JsonSchema = isOptional ? parameter.optional : parameter;
    const text = given.get(name);
    if (text === undefined && isOptional) continue;
    const value = text === undefined ? undefined : parameterValue(schema, text);
    const problem = check(schema, value, name);
    if (problem) throw new RequestRefused(400, problem.message, name);
    values[name] = value;
  }
  return values as Record<string, never>;
}

/** A parameter is text; what is no number or no truth stays text, which its schema then refuses. */
function parameterValue({ type }: JsonSchema, text: string): unknown {
  if ((type === 'integer' || type === 'number') && /^-?[0-9]{1,16}$/.test(text)) return Number(text);
  if (type === 'boolean' && (text === 'true' || text === 'false')) return text === 'true';
  return text;
}

function readBody(route: Route, body: unknown): unknown {
  if (!route.body) {
    const isEmpty =
      body === undefined || (typeof body === 'object' && body !== null && Object.keys(body).length === 0);
    if (!isEmpty) throw new RequestRefused(400, `${route.method} ${route.path} takes no body`);
    return undefined;
  }
  if (body === undefined && route.bodyMayBeMissing) return undefined;
  const problem = check(route.body, body);
  if (problem)
    throw new RequestRefused(400, problem.message, problem.field === '' ? undefined : problem.field);
  return body;
}

const STATUS_OF: Readonly<Record<IpvsErrorCode, number>> = {
  EEXIST: 409,
  ESRCH: 404,
  // Of a scheduler or an engine; routes say by themselves that a server is not there.
  ENOENT: 400,
  EINVAL: 400,
  ERANGE: 400,
  ENODEV: 400,
  ENETUNREACH: 400,
  ENOMEM: 507,
};

/** What a client is told of an error that is its own or the surroundings'; undefined: it is the daemon's. */
function refusalOf(error: unknown): RequestRefused | undefined {
  if (error instanceof RequestRefused) return error;
  // Out of room, by HTTP's words: the disk has to be looked after.
  if (error instanceof StateNotKept) return new RequestRefused(507, error.message);
  if (error instanceof IpvsError) return new RequestRefused(STATUS_OF[error.code], error.message);
  if (
    error instanceof SettingError ||
    error instanceof MarkRuleError ||
    error instanceof PinError ||
    error instanceof StateTextError ||
    error instanceof RevisionError
  ) {
    return new RequestRefused(400, error.message);
  }
  return undefined;
}

function refusalAnswer(refusal: RequestRefused, code: IpvsErrorCode | undefined): ApiAnswer {
  const { status, message, field, headers } = refusal;
  return {
    status,
    headers,
    body: {
      error: message,
      ...(field !== undefined && { field }),
      ...(code !== undefined && { code }),
    },
  };
}
