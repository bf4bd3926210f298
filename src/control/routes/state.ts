/** The desired state as a whole: `dirigo state`, `plan`, `apply` and `rollback`. */
import { IpvsError } from '../../ipvs/specification.ts';
import { RevisionError } from '../configuration.ts';
import { readTarget, TargetError } from '../draft.ts';
import { withNames } from '../names.ts';
import type { Plan } from '../plan.ts';
import { RequestRefused } from '../refused.ts';
import { anything, boolean, count, list, object, optional, text, wholeNumber } from '../schema.ts';
import type { PartialState } from '../state-text.ts';
import { type Route, type RouteEnvironment, route } from './route.ts';

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

const REVISION = wholeNumber(0, Number.MAX_SAFE_INTEGER, { description: 'Number of a revision.' });
const CLIENTS = wholeNumber(0, 1_000_000, { default: 0, description: 'Affected clients listed at most.' });
const STATE_TEXT = text({
  maxLength: 32 * 1024 * 1024,
  description: 'A state as JSON, or what `ipvsadm -S` prints. What it does not speak of stays.',
  examples: ['-A -t 10.0.0.3:80 -s wrr\n-a -t 10.0.0.3:80 -r 10.0.0.7 -g -w 1\n'],
});
const PLAN = anything({
  title: 'Plan',
  description: 'What changes, and what becomes of connections and persistent clients: stay, move, drop.',
});
const APPLIED = { revision: REVISION, plan: PLAN };
const CONFLICT = { 409: 'The director refuses it for what else it holds; nothing has changed.' };

export function stateRoutes(environment: RouteEnvironment): Route[] {
  const { configuration } = environment;
  return [
    route({
      method: 'GET',
      path: '/state',
      summary: 'Show the desired state, as /plan and /apply read it',
      answer: anything(),
      handle: () => ({ revision: configuration.revision, ...configuration.state() }),
    }),
    route({
      method: 'GET',
      path: '/revisions',
      summary: 'List the revisions that can be gone back, newest first',
      answer: object({
        revision: REVISION,
        revisions: list(
          object(
            {
              number: REVISION,
              at: text({ description: 'ISO 8601.' }),
              cause: text({ description: 'What was done.' }),
              services: count({ description: 'Services that it changed.' }),
            },
            { title: 'Revision' },
          ),
        ),
      }),
      handle: () => ({
        revision: configuration.revision,
        revisions: configuration.revisions().map(({ number, at, cause, patch }) => ({
          number,
          at,
          cause,
          services: patch.services.length,
        })),
      }),
    }),
    route({
      method: 'POST',
      path: '/plan',
      summary: 'Say what another state would change',
      body: object({ text: STATE_TEXT, clients: optional(CLIENTS) }),
      answer: PLAN,
      handle: async ({ body: { text: given, clients = 0 } }) =>
        configuration.plan(await targetOf(environment, given), clients),
    }),
    route({
      method: 'POST',
      path: '/apply',
      summary: 'Bring another state about, in one step or not at all',
      body: object({
        text: STATE_TEXT,
        cause: optional(
          text({ maxLength: 1000, default: 'apply', description: 'For the list of revisions.' }),
        ),
        revision: optional({ ...REVISION, description: 'Only if this is the last revision still.' }),
      }),
      answer: object(APPLIED),
      refusals: CONFLICT,
      handle: async ({ body: { text: given, cause = 'apply', revision } }) => {
        const target = await targetOf(environment, given);
        const plan = await refused(() => configuration.apply(cause, target, revision));
        return { revision: configuration.revision, plan };
      },
    }),
    route({
      method: 'POST',
      path: '/rollback',
      summary: 'Go back to an earlier revision',
      body: object({
        to: optional({ ...REVISION, description: 'Default: the one before the last.' }),
        plan: optional(boolean({ default: false, description: 'Only say what it would change.' })),
        clients: optional(CLIENTS),
      }),
      bodyMayBeMissing: true,
      answer: object({ ...APPLIED, to: REVISION }),
      refusals: CONFLICT,
      handle: async ({ body }) => {
        const { to, plan: isPlan = false, clients = 0 } = body ?? {};
        if (!isPlan) {
          const done = await refused(() => configuration.rollback(to));
          return { revision: configuration.revision, ...done };
        }
        const plan = await refused(() => configuration.planRollback(to, clients));
        return { revision: configuration.revision, to: to ?? configuration.revision - 1, plan };
      },
    }),
  ];
}

async function targetOf({ datapath, names }: RouteEnvironment, text: string): Promise<PartialState> {
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
