/** The connection table as data. */
import { anything, list, object } from '../schema.ts';
import { type Route, type RouteEnvironment, route, serverOf } from './route.ts';

export function connectionRoutes(environment: RouteEnvironment): Route[] {
  return [
    route({
      method: 'GET',
      path: '/connections',
      summary: 'List the connections',
      answer: object({ connections: list(anything()) }),
      handle: () => ({ connections: serverOf(environment).connections() }),
    }),
  ];
}
