/** Messages to a real web server, also to one that fails, refuses, or is not there. */
import assert from 'node:assert/strict';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { Webhook } from './webhook.ts';

/** A server that answers with these statuses in turn, then with 200, and keeps what it was sent. */
async function startServer(context: TestContext, statuses: number[] = []) {
  const received: { n: number }[] = [];
  const server: Server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const status = statuses.shift() ?? 200;
    if (status === 200) received.push(JSON.parse(Buffer.concat(chunks).toString()));
    response.writeHead(status).end();
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  context.after(() => server.close());
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/arp`, received };
}

test('in their order, again after a failure, not again after a refusal', async context => {
  const { url, received } = await startServer(context, [200, 500, 429, 200, 404]);
  const webhook = new Webhook({ url, pause: 5 });
  for (const n of [1, 2, 3, 4]) webhook.post({ n });
  await webhook.close();
  assert.deepEqual(received, [{ n: 1 }, { n: 2 }, { n: 4 }]);
  assert.equal(webhook.delivered, 3);
  assert.equal(webhook.lost, 1);
});

test('a server that is not there costs neither memory nor the end', async () => {
  const webhook = new Webhook({ url: 'http://127.0.0.1:9/', pause: 50, capacity: 10 });
  for (let n = 0; n < 1000; n++) webhook.post({ n });
  assert.equal(webhook.lost, 990);
  const start = performance.now();
  await webhook.close(100);
  assert.ok(performance.now() - start < 5_000);
  assert.equal(webhook.delivered, 0);
  assert.equal(webhook.lost, 1000);
});

test('addresses that are none', () => {
  for (const url of ['', 'ftp://127.0.0.1/', '127.0.0.1:80']) {
    assert.throws(() => new Webhook({ url }), { message: /is no address of a web server/ });
  }
});
