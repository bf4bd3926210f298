/** The description of the API: valid OpenAPI, and true. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Validator } from '@seriousme/openapi-schema-validator';
import { VirtualDatapath } from '../datapath/virtual.ts';
import { temporaryFolder } from './daemon.fixture.ts';
import { Daemon } from './daemon.ts';
import { SystemNames } from './names.ts';
import type { OpenApi } from './openapi.ts';
import { request } from './request.ts';

async function description(context: TestContext): Promise<OpenApi> {
  const socket = join(temporaryFolder(context), 'd.sock');
  const daemon = await Daemon.start({
    socket,
    openDatapath: async () => new VirtualDatapath(),
    names: new SystemNames({ dns: false }),
  });
  context.after(() => daemon.stop({ remove: true }));
  return (await request(socket, 'GET', '/openapi.json')).body as OpenApi;
}

test('the description is valid OpenAPI 3.1', async context => {
  const document = await description(context);
  const result = await new Validator().validate({ ...structuredClone(document) });
  assert.deepEqual(result.errors ?? [], []);
  assert.equal(result.valid, true);
  const broken = structuredClone(document) as unknown as {
    paths: { '/status': { get: { responses?: object } } };
  };
  broken.paths['/status'].get.responses = 1 as never;
  assert.equal((await new Validator().validate(broken)).valid, false);
});

test('every reference leads somewhere, and every operation has a name of its own', async context => {
  const document = await description(context);
  const references = JSON.stringify(document).matchAll(/"\$ref":"#\/components\/schemas\/([^"]+)"/g);
  for (const [, name] of references) assert.ok(name && name in document.components.schemas, name);
  const names = Object.values(document.paths).flatMap(methods =>
    Object.values(methods).map(operation => (operation as { operationId: string }).operationId),
  );
  assert.ok(names.length > 8);
  assert.equal(new Set(names).size, names.length);
});
