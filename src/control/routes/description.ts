/** The API's description of itself. */
import { describe } from '../openapi.ts';
import { anything } from '../schema.ts';
import { type Route, route } from './route.ts';

/** @param others the routes that are described beside this one */
export function descriptionRoutes(others: readonly Route[], version: string): Route[] {
  const routes: Route[] = [
    route({
      method: 'GET',
      path: '/openapi.json',
      summary: 'Describe this API (OpenAPI 3.1)',
      answer: anything({ description: 'An OpenAPI document.' }),
      handle: () => describe([...others, ...routes], version),
    }),
  ];
  return routes;
}
