/**
 * The desired state as a whole.
 *
 * | request | answer |
 * |---|---|
 * | `GET /state` | the desired state, as `/plan` and `/apply` read it |
 * | `GET /revisions` | the revisions that can be gone back, newest first, without their contents |
 * | `POST /plan` `{text, clients?}` | what the state in `text` would change |
 * | `POST /apply` `{text, cause?, revision?}` | the plan that was carried out |
 * | `POST /rollback` `{to?, plan?, clients?}` | the same; with `plan` it is only made |
 *
 * `clients`: affected clients that are listed at most. `revision`: only if that is the last one still.
 */
import { IpvsError } from '../../ipvs/specification.ts';
import type { ApiOptions, Handler } from '../api.ts';
import { type Configuration, RevisionError } from '../configuration.ts';
import { readTarget, TargetError } from '../draft.ts';
import { withNames } from '../names.ts';
import type { Plan } from '../plan.ts';
import { fieldsOf, RequestRefused } from '../refused.ts';
import type { PartialState } from '../state-text.ts';

export interface RevisionSummary {
  number: number;
  at: string;
  cause: string;
  /** Services that it changed. */
  services: number;
}

export interface Applied {
  /** The revision that it became; the one there was if nothing changed. */
  revision: number;
  plan: Plan;
}

type Options = Pick<ApiOptions, 'configuration' | 'datapath' | 'names'>;

export function stateRoutes(options: Options): [string, ReadonlyMap<string, Handler>][] {
  const { configuration } = options;
  return [
    [
      '/state',
      new Map<string, Handler>([
        ['GET', () => ({ revision: configuration.revision, ...configuration.state() })],
      ]),
    ],
    ['/revisions', new Map<string, Handler>([['GET', () => revisions(configuration)]])],
    ['/plan', new Map<string, Handler>([['POST', body => plan(options, body)]])],
    ['/apply', new Map<string, Handler>([['POST', body => apply(options, body)]])],
    ['/rollback', new Map<string, Handler>([['POST', body => rollback(configuration, body)]])],
  ];
}

function revisions(configuration: Configuration): { revision: number; revisions: RevisionSummary[] } {
  return {
    revision: configuration.revision,
    revisions: configuration.revisions().map(({ number, at, cause, patch }) => ({
      number,
      at,
      cause,
      services: patch.services.length,
    })),
  };
}

async function plan(options: Options, body: unknown): Promise<Plan> {
  const { text, clients } = fieldsOf(body, ['text', 'clients']);
  const target = await targetOf(options, text);
  return options.configuration.plan(target, wholeNumber('clients', clients) ?? 0);
}

async function apply(options: Options, body: unknown): Promise<Applied> {
  const { text, cause = 'apply', revision } = fieldsOf(body, ['text', 'cause', 'revision']);
  if (typeof cause !== 'string') throw new RequestRefused(400, '"cause" is not a string');
  const expected = wholeNumber('revision', revision);
  const { configuration } = options;
  const target = await targetOf(options, text);
  const carriedOut = await refused(() => configuration.apply(cause, target, expected));
  return { revision: configuration.revision, plan: carriedOut };
}

async function rollback(configuration: Configuration, body: unknown): Promise<Applied & { to: number }> {
  const given = fieldsOf(body ?? {}, ['to', 'plan', 'clients']);
  const to = wholeNumber('to', given.to);
  const clients = wholeNumber('clients', given.clients) ?? 0;
  if (given.plan !== true) {
    const done = await refused(() => configuration.rollback(to));
    return { revision: configuration.revision, ...done };
  }
  const made = await refused(() => configuration.planRollback(to, clients));
  return { revision: configuration.revision, to: to ?? configuration.revision - 1, plan: made };
}

async function targetOf({ datapath, names }: Options, text: unknown): Promise<PartialState> {
  if (typeof text !== 'string') throw new RequestRefused(400, '"text" is not a string');
  names.refresh();
  const { director } = datapath;
  const interfaceIndex = (name: string): number | undefined => datapath.interfaceIndex(name);
  return refused(() => withNames(names, () => readTarget(text, { director, names, interfaceIndex })));
}

/** Does something; what is wrong with the request is answered as such. */
async function refused<Result>(work: () => Result | Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof TargetError) throw new RequestRefused(400, error.message);
    // Refused by the director for what else it holds, which the file could not know.
    if (error instanceof RevisionError || error instanceof IpvsError)
      throw new RequestRefused(409, error.message);
    throw error;
  }
}

function wholeNumber(name: string, value: unknown): number | undefined {
  if (value === undefined) return undefined;
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0) {
    throw new RequestRefused(400, `"${name}" is not a whole number`);
  }
  return value;
}
