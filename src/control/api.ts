/**
 * What can be asked of the daemon, independent of how the question comes in: the routes of `routes/`, one file a subject.
 * `GET /openapi.json` describes them, docs/api.md shows them.
 */
import type { Datapath } from '../datapath/datapath.ts';
import type { Configuration } from './configuration.ts';
import { Events } from './events.ts';
import type { Log } from './log.ts';
import type { SystemNames } from './names.ts';
import type { NeighbourKeeper } from './neighbour-keeper.ts';
import { peerText } from './peer.ts';
import { requester } from './requester.ts';
import { type ApiAnswer, type ApiRequest, Router } from './router.ts';
import { arpRoutes } from './routes/arp.ts';
import { captureRoutes } from './routes/capture.ts';
import { connectionRoutes } from './routes/connections.ts';
import { descriptionRoutes } from './routes/description.ts';
import { drainRoutes } from './routes/drain.ts';
import { type DaemonEnd, endRoutes } from './routes/end.ts';
import { eventRoutes } from './routes/events.ts';
import { ipvsadmRoutes } from './routes/ipvsadm.ts';
import { metricRoutes } from './routes/metrics.ts';
import type { Route, RouteEnvironment } from './routes/route.ts';
import { serviceRoutes } from './routes/services.ts';
import { settingRoutes } from './routes/settings.ts';
import { stateRoutes } from './routes/state.ts';
import { statusRoutes } from './routes/status.ts';
import { timeoutRoutes } from './routes/timeouts.ts';

export interface ApiOptions extends DaemonEnd {
  datapath: Datapath;
  names: SystemNames;
  version: string;
  configuration: Configuration;
  log: Log;
  /** Where TCP is served; undefined: nowhere. */
  listen(): string | undefined;
  neighbours: NeighbourKeeper;
  /** Default: of its own. */
  events?: Events;
}

export class Api {
  /** What happens, for those who follow it: `publish` to tell something. */
  readonly events: Events;
  readonly #router: Router;

  constructor(options: ApiOptions) {
    const { datapath, names, version, configuration, log, events } = options;
    this.events = events ?? new Events();
    const environment: RouteEnvironment = {
      datapath,
      guardStatus: () => options.neighbours.guardStatus(),
      configuration,
      names,
      version,
      log,
      listen: options.listen,
      events: this.events,
      startedAt: new Date().toISOString(),
    };
    const routes: Route[] = [
      ...statusRoutes(environment),
      ...serviceRoutes(environment),
      ...connectionRoutes(environment),
      ...settingRoutes(environment),
      ...stateRoutes(environment),
      ...timeoutRoutes(environment),
      ...metricRoutes(environment),
      ...drainRoutes(environment),
      ...arpRoutes(environment, options.neighbours),
      ...ipvsadmRoutes(environment),
      ...eventRoutes(this.events),
      ...captureRoutes(datapath),
      ...endRoutes(environment, options),
    ];
    this.#router = new Router(
      [...routes, ...descriptionRoutes(routes, version)],
      (error, { method, target }) => {
        const reason = error instanceof Error ? (error.stack ?? error.message) : String(error);
        log.error('request failed', { method, target, reason });
      },
    );
    configuration.observe(({ revision: { number, cause }, changes }) => {
      const peer = requester();
      const by = peer ? peerText(peer) : 'the daemon';
      log.info('changed', { by, revision: number, cause, changes: changes.length });
      this.events.publish('change', { revision: number, cause, by, changes });
    });
  }

  /** Never rejects: what goes wrong is an answer with `{error}`. */
  answer(request: ApiRequest): Promise<ApiAnswer> {
    return this.#router.answer(request);
  }
}
