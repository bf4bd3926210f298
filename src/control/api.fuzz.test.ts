/** Requests at random: every one is answered, none with an internal error, and the daemon lives on. */
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { test } from 'node:test';
import fc from 'fast-check';
import { startApi } from './api.fixture.ts';
import type { JsonSchema } from './schema.ts';

interface Operation {
  method: string;
  path: string;
  parameters: { name: string; in: string; schema: JsonSchema }[];
  body: JsonSchema | undefined;
}

const ODD_TEXTS = [
  ...[
    '',
    ' ',
    '%',
    '\u0000',
    '🙂',
    '-1',
    '1e999',
    'NaN',
    '__proto__',
    'constructor',
    '[object Object]',
    '../../etc/passwd',
  ],
  ...[
    '10.0.0.3',
    '10.0.0.3:80',
    '10.0.0.3:0',
    '[2001:db8::3]:53',
    '[::]:1',
    '0.0.0.0',
    '255.255.255.255',
    '::1',
    '127.0.0.1',
  ],
  ...[
    'tcp 10.0.0.3:80',
    'udp 10.0.0.3:53',
    'fwm 1',
    'fwm6 1',
    'rr',
    'wlc',
    'mh',
    'sh',
    'sip',
    'eth0',
    'lo',
    '10.0.0.1',
    '10.0.0.1%eth0',
  ],
  ...[
    '-A -t 10.0.0.3:80 -s rr',
    '-C',
    '{"version":1}',
    '{',
    'tcp to 10.0.0.0/8 mark 1',
    'x'.repeat(3000),
    '-L',
    '-Ln',
    '-R',
    '-S',
    '-Z',
  ],
];

const anyText = fc.oneof(fc.constantFrom(...ODD_TEXTS), fc.string({ maxLength: 20, unit: 'binary' }));
const anyJson = fc.oneof(
  fc.jsonValue({ maxDepth: 3 }),
  anyText,
  fc.constantFrom(0, -1, 2 ** 31, 2 ** 32, 2 ** 53, 1.5, 1e308, true, null),
);

/** Mostly what the schema asks for, so that requests get far, with something else here and there. */
function fitting(schema: JsonSchema, resolve: (schema: JsonSchema) => JsonSchema): fc.Arbitrary<unknown> {
  const known = resolve(schema);
  const { anyOf, enum: words, examples, minimum = 0, maximum = 100 } = known;
  const right = (): fc.Arbitrary<unknown> => {
    if (anyOf) return fc.oneof(...anyOf.map(each => fitting(each, resolve)));
    switch (known.type) {
      case 'string':
        return words
          ? fc.constantFrom(...words)
          : fc.oneof(
              { weight: 9, arbitrary: fc.constantFrom(...(examples ?? ['10.0.0.7'])) },
              { weight: 1, arbitrary: anyText },
            );
      case 'integer':
        return fc.oneof(
          fc.constantFrom(minimum, maximum, Math.min(maximum, minimum + 1), Math.min(maximum, 80)),
          fc.integer({ min: minimum, max: Math.min(maximum, 70_000) }),
        );
      case 'boolean':
        return fc.boolean();
      case 'array':
        return fc.array(fitting(known.items ?? {}, resolve), { maxLength: 3 });
      case 'object':
        return fc.record(
          Object.fromEntries(
            Object.entries(known.properties ?? {}).map(([name, each]) => [name, fitting(each, resolve)]),
          ),
          { requiredKeys: [...(known.required ?? [])] },
        );
      default:
        return anyJson;
    }
  };
  return fc.oneof({ weight: 30, arbitrary: right() }, { weight: 1, arbitrary: anyJson });
}

test('any request is answered, and never with an internal error', async context => {
  const api = await startApi(context);
  const { body: document } = await api.ask('GET', '/openapi.json');
  const resolve = (schema: JsonSchema): JsonSchema => {
    const reference = (schema as { $ref?: string }).$ref;
    return reference ? resolve(document.components.schemas[reference.split('/').at(-1) ?? '']) : schema;
  };
  const operations: Operation[] = [];
  const ends = new Set(['/shutdown', '/reload']);
  for (const [path, methods] of Object.entries(document.paths as Record<string, Record<string, never>>)) {
    if (ends.has(path)) continue;
    for (const [method, operation] of Object.entries(methods)) {
      const {
        parameters = [],
        requestBody,
        responses,
      } = operation as unknown as {
        responses: Record<string, { content: object }>;
        parameters?: Operation['parameters'];
        requestBody?: { content: { 'application/json': { schema: JsonSchema } } };
      };
      // What goes on until the client goes has tests of its own.
      const isStream = !(
        'application/json' in (Object.values(responses).find(each => each.content)?.content ?? {})
      );
      if (isStream && path !== '/metrics') continue;
      const body = requestBody?.content['application/json'].schema;
      operations.push({ method: method.toUpperCase(), path, parameters, body });
    }
  }
  const creating = operations.filter(({ method, path }) => method === 'POST' && path.startsWith('/services'));
  const often = fc.oneof(fc.constantFrom(...operations), fc.constantFrom(...creating));
  const requests = often.chain(({ method, path, parameters, body }) =>
    fc.record({
      method: fc.oneof(
        { weight: 20, arbitrary: fc.constant(method) },
        { weight: 1, arbitrary: fc.constantFrom('GET', 'PUT', 'DELETE', 'OPTIONS') },
      ),
      path: fc.constant(path),
      parameters: fc.record(
        Object.fromEntries(parameters.map(({ name, schema }) => [name, fitting(schema, resolve)])),
      ),
      inPath: fc.constant(parameters.filter(each => each.in === 'path').map(({ name }) => name)),
      used: fc.subarray(parameters.filter(each => each.in === 'query').map(({ name }) => name)),
      body: body ? fitting(body, resolve) : fc.option(anyJson, { nil: undefined, freq: 10 }),
    }),
  );
  const statuses = new Map<number, number>();
  await fc.assert(
    fc.asyncProperty(requests, async ({ method, path, parameters, inPath, used, body }) => {
      const filled = path.replace(/\{(\w+)\}/g, (_, name: string) =>
        encodeURIComponent(textOf(parameters[name])),
      );
      const query = used
        .filter(name => !inPath.includes(name))
        .map(name => `${name}=${encodeURIComponent(textOf(parameters[name]))}`)
        .join('&');
      const { status, body: told } = await api.ask(method, `${filled}${query && `?${query}`}`, body);
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
      assert.notEqual(status, 500, JSON.stringify(told));
      if (status >= 400) assert.ok(told.error.length > 0);
    }),
    { numRuns: Number(process.env.DIRIGO_FUZZ_REQUESTS ?? 3000) },
  );
  assert.equal((await api.ask('GET', '/status')).status, 200);
  assert.equal(api.log.filter(line => line.includes('request failed')).length, 0);
  // What never gets anywhere proves nothing.
  for (const [status, least] of [
    [200, 100],
    [201, 5],
    [400, 300],
    [404, 50],
    [409, 3],
  ] as const) {
    assert.ok((statuses.get(status) ?? 0) >= least, `${status}: ${JSON.stringify([...statuses])}`);
  }
});

/** As a client writes a value into an address; lone surrogates cannot be. */
function textOf(value: unknown): string {
  return (typeof value === 'string' ? value : (JSON.stringify(value) ?? '')).toWellFormed();
}

test('any bytes are answered or cut off', async context => {
  const api = await startApi(context);
  const piece = fc.oneof(
    fc.constantFrom(
      'GET ',
      'POST ',
      '/services',
      ' HTTP/1.1',
      '\r\n',
      '\r\n\r\n',
      'Host: x',
      'Content-Length: 5',
      '{}',
      '\u0000',
      ': ',
    ),
    fc.constantFrom(
      'Transfer-Encoding: chunked',
      'Expect: 100-continue',
      'Upgrade: websocket\r\nConnection: upgrade',
      'CONNECT x:1',
    ),
    fc.string({ maxLength: 10, unit: 'binary' }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(piece, { maxLength: 12 }), async pieces => {
      const socket = connect(api.socket);
      const closed = new Promise(resolve => socket.on('close', resolve));
      socket.on('error', () => {});
      socket.resume();
      socket.end(pieces.join(''));
      await closed;
    }),
    { numRuns: 500 },
  );
  assert.equal((await api.ask('GET', '/status')).status, 200);
});
