/**
 * What a route of the API is: method, path, parameters, body and answer declared as data, and the function that answers.
 * Requests are checked against the declaration before it runs, and the OpenAPI description is made from it.
 */
import type { Datapath } from '../../datapath/datapath.ts';
import type { GuardStatus } from '../../guard/guard-service.ts';
import type { Director } from '../../ipvs/director.ts';
import type { VirtualServer } from '../../ipvs/specification.ts';
import type { Configuration } from '../configuration.ts';
import type { Events } from '../events.ts';
import type { Log } from '../log.ts';
import type { SystemNames } from '../names.ts';
import type { Peer } from '../peer.ts';
import type { JsonSchema, ObjectOf, Optional, Schema } from '../schema.ts';

export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

/** In the path if the path names it (`/daemons/{role}`), else in the query. Values are texts, numbers, true or false. */
export type Parameters = Readonly<Record<string, Schema<unknown> | Optional<unknown>>>;

/** What a route is asked. */
export interface Question<Given extends Parameters = Parameters, Body = unknown> {
  parameters: ObjectOf<Given>;
  body: Body;
  /** Header lines by their names in small letters. */
  headers: Readonly<Record<string, string | string[] | undefined>>;
  peer: Peer;
}

/** An answer that is no JSON. */
export interface MediaType {
  contentType: string;
  description: string;
}

/** An answer with another status than the declared one, or with headers. */
export class Reply<Body> {
  readonly status: number;
  readonly body: Body;
  readonly headers: Readonly<Record<string, string>>;

  constructor(status: number, body: Body, headers: Readonly<Record<string, string>> = {}) {
    this.status = status;
    this.body = body;
    this.headers = headers;
  }
}

/** The client of an answer that goes on for as long as it likes. */
export interface StreamClient {
  /** Sends something; false if more waits for the client than a moment ago could be sent: see `drained`. */
  write(chunk: string | Uint8Array): boolean;
  /** Bytes that wait for the client. */
  readonly waiting: number;
  /** Settles when nothing waits any more, or when the client has gone. */
  drained(): Promise<void>;
  /** Aborted when the client has gone or the daemon stops. */
  readonly gone: AbortSignal;
  /** The answer is complete. */
  end(): void;
  /** Cuts the connection: the client sees that the answer is not complete. */
  cut(): void;
}

/** An answer that is sent as it comes into being. */
export class Stream {
  readonly contentType: string;
  readonly begin: (client: StreamClient) => void;

  /** @param begin called once the head of the answer is out; it may go on after it returned, until `gone` */
  constructor(contentType: string, begin: (client: StreamClient) => void) {
    this.contentType = contentType;
    this.begin = begin;
  }
}

export interface RouteDefinition<Given extends Parameters, Body, Answer> {
  method: Method;
  /** `/services/{protocol}/{endpoint}`; a parameter is one whole segment. */
  path: string;
  /** One line, as an order: "List the services". */
  summary: string;
  /** More, in Markdown. */
  description?: string;
  parameters?: Given;
  /** Undefined: it takes none. */
  body?: Schema<Body>;
  /** True: the body may be missing, and is undefined then. */
  bodyMayBeMissing?: boolean;
  answer: Schema<Answer> | MediaType;
  /** Of the answer when all goes well. Default 200. */
  status?: number;
  /** Other statuses than 400 that it may refuse a request with, and when. */
  refusals?: Readonly<Record<number, string>>;
  /** What it throws: `RequestRefused` and what `refusalOf` (router.ts) knows; anything else is an internal error. */
  handle(
    question: Question<Given, Body>,
  ): Answer | Reply<Answer> | Stream | Promise<Answer | Reply<Answer> | Stream>;
}

/** A route as the router sees it. */
export interface Route {
  method: Method;
  path: string;
  summary: string;
  description?: string;
  parameters: Parameters;
  body?: JsonSchema;
  bodyMayBeMissing: boolean;
  answer: JsonSchema | MediaType;
  status: number;
  refusals: Readonly<Record<number, string>>;
  handle(question: Question): unknown;
}

/** Declares a route; the types of parameters, body and answer follow from the declaration. */
export function route<
  const Given extends Parameters = Record<never, never>,
  Body = undefined,
  Answer = unknown,
>(definition: RouteDefinition<Given, Body, Answer>): Route {
  const { method, path, summary, description, body, handle } = definition;
  return {
    method,
    path,
    summary,
    ...(description !== undefined && { description }),
    parameters: definition.parameters ?? {},
    ...(body && { body }),
    bodyMayBeMissing: definition.bodyMayBeMissing ?? false,
    answer: definition.answer,
    status: definition.status ?? 200,
    refusals: definition.refusals ?? {},
    handle: question => handle(question as unknown as Question<Given, Body>),
  };
}

/** What routes work on. */
export interface RouteEnvironment {
  datapath: Datapath;
  configuration: Configuration;
  names: SystemNames;
  /** Where changes are told. */
  events: Events;
  log: Log;
  version: string;
  /** ISO 8601. */
  startedAt: string;
  /** Where TCP is served; undefined: nowhere. */
  listen(): string | undefined;
  /** What the guard over ARP and neighbour discovery counted; undefined: there is none. */
  guardStatus?(): GuardStatus | undefined;
}

/** The virtual server, at the present time. */
export function serverOf({ datapath }: Pick<RouteEnvironment, 'datapath'>): VirtualServer {
  const { administration } = datapath.director;
  administration.now = datapath.now();
  return administration;
}

export function directorOf({ datapath }: Pick<RouteEnvironment, 'datapath'>): Director {
  return datapath.director;
}
