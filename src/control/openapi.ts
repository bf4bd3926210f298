/** The OpenAPI 3.1 description of the API, made from its routes. */
import type { MediaType, Route } from './routes/route.ts';
import { type JsonSchema, object, optional, text } from './schema.ts';

/** What every refusal is answered with. */
const ERROR: JsonSchema = object(
  {
    error: text({ description: 'One sentence: what was wrong, and what is expected.' }),
    field: optional(text({ description: 'The field or parameter that is wrong: `destinations[0].weight`.' })),
    code: optional(text({ description: 'What the kernel would have answered: `EEXIST`.' })),
  },
  { title: 'Error' },
);

const ALWAYS: Readonly<Record<number, string>> = {
  400: 'The request makes no sense as it stands.',
  429: 'Too many requests; `Retry-After` says when to ask again.',
};

export interface OpenApi {
  openapi: '3.1.0';
  info: object;
  servers: readonly object[];
  security: readonly object[];
  paths: Record<string, Record<string, object>>;
  components: { schemas: Record<string, JsonSchema>; securitySchemes: object };
}

export function describe(routes: readonly Route[], version: string): OpenApi {
  const schemas: Record<string, JsonSchema> = {};
  const paths: Record<string, Record<string, object>> = {};
  for (const route of routes) {
    paths[route.path] ??= {};
    (paths[route.path] as Record<string, object>)[route.method.toLowerCase()] = operation(route, schemas);
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Dirigo',
      summary: 'The virtual server: services, real servers, connections, and what happens to them.',
      version,
      license: { name: 'MIT', identifier: 'MIT' },
    },
    servers: [{ url: '/', description: 'The control socket, or the address of `dirigo up --listen`' }],
    security: [{}, { token: [] }],
    paths,
    components: {
      schemas: { ...schemas, Error: hoisted(ERROR, {}, true) },
      securitySchemes: {
        token: {
          type: 'http',
          scheme: 'bearer',
          description: 'Over TCP; the control socket knows who asks.',
        },
      },
    },
  };
}

function operation(route: Route, schemas: Record<string, JsonSchema>): object {
  const parameters = Object.entries(route.parameters).map(([name, parameter]) => {
    const isInPath = route.path.includes(`{${name}}`);
    const { description, ...schema } = 'optional' in parameter ? parameter.optional : parameter;
    return {
      name,
      in: isInPath ? 'path' : 'query',
      required: !('optional' in parameter),
      ...(description !== undefined && { description }),
      schema: hoisted(schema, schemas),
    };
  });
  const refusals = Object.entries({ ...ALWAYS, ...route.refusals }).map(([status, description]) => [
    status,
    { description, content: { 'application/json': { schema: { $ref: '#/components/schemas/Error' } } } },
  ]);
  return {
    operationId: operationId(route),
    tags: [route.path.split('/')[1]],
    summary: route.summary,
    ...(route.description !== undefined && { description: route.description }),
    ...(parameters.length > 0 && { parameters }),
    ...(route.body && {
      requestBody: {
        required: !route.bodyMayBeMissing,
        content: { 'application/json': { schema: hoisted(route.body, schemas) } },
      },
    }),
    responses: { [route.status]: answer(route.answer, schemas), ...Object.fromEntries(refusals) },
  };
}

function answer(declared: JsonSchema | MediaType, schemas: Record<string, JsonSchema>): object {
  if ('contentType' in declared) {
    return {
      description: declared.description,
      content: { [declared.contentType]: { schema: { type: 'string' } } },
    };
  }
  return {
    description: declared.description ?? 'Done.',
    content: { 'application/json': { schema: hoisted(declared, schemas) } },
  };
}

/** `GET /services/{protocol}/{endpoint}` is `getServicesProtocolEndpoint`. */
function operationId({ method, path }: Route): string {
  const words = path.split(/[^A-Za-z0-9]+/).filter(each => each !== '');
  return method.toLowerCase() + words.map(each => each[0]?.toUpperCase() + each.slice(1)).join('');
}

/** The schema with those that have a title moved to `schemas` and referred to. */
function hoisted(schema: JsonSchema, schemas: Record<string, JsonSchema>, isTop = false): JsonSchema {
  const { title } = schema;
  if (title !== undefined && !isTop) {
    schemas[title] ??= hoisted(schema, schemas, true);
    return { $ref: `#/components/schemas/${title}` } as JsonSchema;
  }
  const { items, properties, additionalProperties, anyOf } = schema;
  return {
    ...schema,
    ...(items && { items: hoisted(items, schemas) }),
    ...(properties && {
      properties: Object.fromEntries(
        Object.entries(properties).map(([name, property]) => [name, hoisted(property, schemas)]),
      ),
    }),
    ...(typeof additionalProperties === 'object' && {
      additionalProperties: hoisted(additionalProperties, schemas),
    }),
    ...(anyOf && { anyOf: anyOf.map(each => hoisted(each, schemas)) }),
  };
}
