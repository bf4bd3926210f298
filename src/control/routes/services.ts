/** Services and their servers as data. */
import { anything, list, object } from '../schema.ts';
import { type Route, type RouteEnvironment, route, serverOf } from './route.ts';

export function serviceRoutes(environment: RouteEnvironment): Route[] {
  return [
    route({
      method: 'GET',
      path: '/services',
      summary: 'List the services',
      answer: object({ services: list(anything()) }),
      handle: () => ({ services: serverOf(environment).services() }),
    }),
  ];
}
