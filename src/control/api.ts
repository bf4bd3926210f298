/**
 * What can be asked of the daemon, independent of how the question comes in: the routes of `routes/`, one file a subject.
 * `GET /openapi.json` describes them, docs/api.md shows them.
 */
import type { Datapath } from '../datapath/datapath.ts';
import type { Configuration } from './configuration.ts';
import { Events } from './events.ts';
import type { SystemNames } from './names.ts';
import { type ApiAnswer, type ApiRequest, Router } from './router.ts';
import { connectionRoutes } from './routes/connections.ts';
import { descriptionRoutes } from './routes/description.ts';
import { type DaemonEnd, endRoutes } from './routes/end.ts';
import { eventRoutes } from './routes/events.ts';
import { ipvsadmRoutes } from './routes/ipvsadm.ts';
import type { Route, RouteEnvironment } from './routes/route.ts';
import { serviceRoutes } from './routes/services.ts';
import { settingRoutes } from './routes/settings.ts';
import { stateRoutes } from './routes/state.ts';
import { statusRoutes } from './routes/status.ts';

export interface ApiOptions extends DaemonEnd {
  datapath: Datapath;
  names: SystemNames;
  version: string;
  configuration: Configuration;
  /** Default: of its own. */
  events?: Events;
}

export class Api {
  /** What happens, for those who follow it: `publish` to tell something. */
  readonly events: Events;
  readonly #router: Router;

  constructor(options: ApiOptions) {
    const { datapath, names, version, configuration, events } = options;
    this.events = events ?? new Events();
    const environment: RouteEnvironment = {
      datapath,
      configuration,
      names,
      version,
      events: this.events,
      startedAt: new Date().toISOString(),
    };
    const routes: Route[] = [
      ...statusRoutes(environment),
      ...serviceRoutes(environment),
      ...connectionRoutes(environment),
      ...settingRoutes(environment),
      ...stateRoutes(environment),
      ...ipvsadmRoutes(environment),
      ...eventRoutes(this.events),
      ...endRoutes(environment, options),
    ];
    this.#router = new Router(
      [...routes, ...descriptionRoutes(routes, version)],
      (error, { method, target }) => {
        const reason = error instanceof Error ? error.message : String(error);
        console.error(`dirigo: ${method} ${target} failed: ${reason}`);
      },
    );
    configuration.observe(({ revision: { number, cause }, changes }) =>
      this.events.publish('change', { revision: number, cause, changes }),
    );
  }

  /** Never rejects: what goes wrong is an answer with `{error}`. */
  answer(request: ApiRequest): Promise<ApiAnswer> {
    return this.#router.answer(request);
  }
}
