/** Edits as REST: the same in force, the same refused as by `ipvsadm`. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startApi } from '../api.fixture.ts';

const SERVICE = { key: { protocol: 'tcp', address: '10.0.0.3', port: 80 }, scheduler: 'wrr' };

test('a service and its servers, from the first to the last', async context => {
  const { ask } = await startApi(context);
  const listing = async (...words: string[]): Promise<string> =>
    (await ask('POST', '/ipvsadm', { argv: words })).body.stdout;
  const added = await ask('POST', '/services', {
    ...SERVICE,
    persistenceTimeout: 20,
    destinations: [{ address: '10.0.0.7' }, { address: '10.0.0.8', weight: 3, method: 'masq', port: 8080 }],
  });
  assert.equal(added.status, 201, JSON.stringify(added.body));
  assert.equal(added.body.destinations.length, 2);
  assert.equal(
    await listing('-Sn'),
    '-A -t 10.0.0.3:80 -s wrr -p 20\n-a -t 10.0.0.3:80 -r 10.0.0.7:80 -g -w 1\n-a -t 10.0.0.3:80 -r 10.0.0.8:8080 -m -w 3\n',
  );
  const place = '/services/tcp/10.0.0.3:80';
  const server = await ask('POST', `${place}/destinations`, { address: '10.0.0.9', weight: 0 });
  assert.deepEqual([server.status, server.body.address, server.body.port], [201, '10.0.0.9', 80]);
  // PATCH keeps what it does not name, PUT does not.
  assert.equal(
    (await ask('PATCH', `${place}/destinations/10.0.0.8:8080`, { weight: 5 })).body.method,
    'masq',
  );
  assert.equal(
    (await ask('PATCH', place, { scheduler: 'sh', schedulerFlags: 'sh-port' })).body.persistenceTimeout,
    20,
  );
  assert.equal((await ask('PUT', place, { scheduler: 'rr' })).body.persistenceTimeout, 0);
  const put = await ask('PUT', `${place}/destinations/10.0.0.8:8080`, { method: 'masq', upperThreshold: 9 });
  assert.deepEqual([put.body.weight, put.body.upperThreshold], [1, 9]);
  assert.equal((await ask('GET', `${place}/destinations/10.0.0.9`)).body.weight, 0);
  assert.equal((await ask('DELETE', `${place}/destinations/10.0.0.9`)).status, 200);
  assert.equal((await ask('GET', place)).body.destinations.length, 2);
  assert.equal((await ask('GET', '/services')).body.services.length, 1);
  assert.equal((await ask('DELETE', place)).status, 200);
  assert.equal((await ask('GET', place)).status, 404);
});

test('IPv6, firewall marks and local addresses have their places', async context => {
  const { ask } = await startApi(context);
  assert.equal((await ask('POST', '/services', { key: 'udp [2001:db8::3]:53' })).status, 201);
  assert.equal((await ask('POST', '/services', { key: { mark: 7 } })).status, 201);
  assert.equal((await ask('POST', '/services', { key: 'fwm6 7' })).status, 201);
  const six = await ask('POST', '/services/udp/%5B2001:db8::3%5D:53/destinations', {
    address: '2001:DB8:0::7',
  });
  assert.deepEqual([six.status, six.body.address, six.body.port], [201, '2001:db8::7', 53]);
  assert.equal((await ask('GET', '/services/udp/[2001:db8::3]:53/destinations/[2001:db8::7]')).status, 200);
  assert.equal(
    (await ask('POST', '/services/fwm/7/destinations', { address: '10.0.0.7', port: 0 })).status,
    201,
  );
  assert.equal((await ask('DELETE', '/services/fwm6/7')).status, 200);
  await ask('POST', '/services', SERVICE);
  const local = await ask('POST', '/services/tcp/10.0.0.3:80/local-addresses', { address: '10.0.0.1' });
  assert.equal(local.status, 201, JSON.stringify(local.body));
  assert.deepEqual(local.body.localAddressUse, [
    { address: '10.0.0.1', interfaceName: '', connections: 0, refused: 0 },
  ]);
  assert.equal((await ask('DELETE', '/services/tcp/10.0.0.3:80/local-addresses/10.0.0.1')).status, 200);
  assert.equal((await ask('DELETE', '/services')).body.deleted, 3);
});

test('what is refused says which field, what it is and what it has to be; nothing has changed', async context => {
  const { ask } = await startApi(context);
  await ask('POST', '/services', { ...SERVICE, destinations: [{ address: '10.0.0.7' }] });
  const before = (await ask('GET', '/state')).body;
  const place = '/services/tcp/10.0.0.3:80';
  const cases: [string, string, unknown, number, string, string | undefined][] = [
    [
      'POST',
      '/services',
      undefined,
      400,
      'the body is missing: it has to be an object with key, scheduler',
      undefined,
    ],
    ['POST', '/services', SERVICE, 409, 'exists', undefined],
    [
      'POST',
      '/services',
      { key: 'tcp 10.0.0.4' },
      400,
      'key is "tcp 10.0.0.4": it has to be a service such as',
      undefined,
    ],
    [
      'POST',
      '/services',
      { ...SERVICE, weight: 1 },
      400,
      'weight is not known: there are key, scheduler',
      'weight',
    ],
    [
      'POST',
      '/services',
      { ...SERVICE, persistenceTimeout: 'x' },
      400,
      'persistenceTimeout is "x": it has to be a whole number from 0 to 2678400',
      'persistenceTimeout',
    ],
    ['POST', '/services', { key: 'tcp 10.0.0.4:80', scheduler: 'best' }, 400, 'no scheduler best', undefined],
    [
      'POST',
      '/services',
      {
        key: 'tcp 10.0.0.4:80',
        destinations: [{ address: '10.0.0.7' }, { address: '10.0.0.8', weight: -1 }],
      },
      400,
      'destinations[1].weight is -1: it has to be a whole number from 0 to 2147483647',
      'destinations[1].weight',
    ],
    // The second server is refused by the director: the service and the first one go, too.
    [
      'POST',
      '/services',
      { key: 'tcp 10.0.0.4:80', destinations: [{ address: '10.0.0.7' }, { address: '224.0.0.1' }] },
      400,
      '224.0.0.1',
      undefined,
    ],
    [
      'POST',
      `${place}/destinations`,
      { address: 'web01' },
      400,
      'address is "web01": it has to be an IP address',
      undefined,
    ],
    [
      'POST',
      `${place}/destinations`,
      { address: '10.0.0.9', port: 8080 },
      400,
      'port is 8080: it has to be 80, the service',
      undefined,
    ],
    ['POST', `${place}/destinations`, { address: '10.0.0.7' }, 409, 'exists', undefined],
    [
      'POST',
      `${place}/destinations`,
      { address: '10.0.0.9', method: 'tunnel', tunnelType: 'gue' },
      400,
      'a GUE tunnel needs a port',
      undefined,
    ],
    [
      'PATCH',
      `${place}/destinations/10.0.0.9`,
      { weight: 1 },
      404,
      'the service tcp 10.0.0.3:80 has no server 10.0.0.9',
      'server',
    ],
    [
      'PATCH',
      '/services/tcp/10.0.0.9:80/destinations/10.0.0.9',
      { weight: 1 },
      404,
      'there is no service tcp 10.0.0.9:80',
      'endpoint',
    ],
    ['DELETE', `${place}/destinations/10.0.0.9`, undefined, 404, '', 'server'],
    ['PUT', '/services/tcp/10.0.0.9:80', {}, 404, '', undefined],
    [
      'GET',
      '/services/tcp/10.0.0.3',
      undefined,
      400,
      'endpoint is "10.0.0.3": it has to be an address and a port',
      'endpoint',
    ],
    [
      'GET',
      '/services/icmp/10.0.0.3:80',
      undefined,
      400,
      'protocol is "icmp": it has to be tcp, udp, sctp, fwm or fwm6',
      'protocol',
    ],
    ['GET', '/services/fwm/0', undefined, 400, 'it has to be a mark from 1 to 4294967295', 'endpoint'],
    [
      'GET',
      '/services/tcp/%zz',
      undefined,
      400,
      '% has to be followed by two hexadecimal digits',
      'endpoint',
    ],
    [
      'GET',
      '/services?limit=none',
      undefined,
      400,
      'limit is "none": it has to be a whole number from 1 to 10000',
      'limit',
    ],
    [
      'GET',
      '/services?page=1',
      undefined,
      400,
      'the parameter page is not known: there are limit, after',
      'page',
    ],
    ['DELETE', place, { force: true }, 400, 'takes no body', undefined],
    [
      'PATCH',
      '/timeouts',
      { tcp: 3_000_000 },
      400,
      'tcp is 3000000: it has to be a whole number from 0 to 2678400',
      'tcp',
    ],
    ['DELETE', '/daemons/master', undefined, 404, 'no master synchronisation daemon runs', 'role'],
  ];
  for (const [method, target, body, status, message, field] of cases) {
    const answer = await ask(method, target, body);
    const what = `${method} ${target} ${JSON.stringify(body)}: ${JSON.stringify(answer.body)}`;
    assert.equal(answer.status, status, what);
    assert.ok(answer.body.error.includes(message), what);
    assert.equal(answer.body.field, field, what);
  }
  assert.deepEqual((await ask('GET', '/state')).body, before);
});

test('services in pages', async context => {
  const { ask } = await startApi(context);
  for (let port = 1; port <= 25; port++) await ask('POST', '/services', { key: `tcp 10.0.0.3:${port}` });
  const seen: number[] = [];
  let after = '';
  for (;;) {
    const { body } = await ask('GET', `/services?limit=10${after && `&after=${encodeURIComponent(after)}`}`);
    seen.push(...body.services.map((each: { key: { port: number } }) => each.key.port));
    if (body.next === undefined) break;
    after = body.next;
  }
  assert.deepEqual(
    seen,
    Array.from({ length: 25 }, (_, index) => 25 - index),
  );
  assert.equal((await ask('GET', '/services?after=tcp%2010.0.0.3:99')).status, 410);
});

test('timeouts and synchronisation daemons', async context => {
  const { ask } = await startApi(context);
  assert.deepEqual((await ask('PATCH', '/timeouts', { udp: 60 })).body, { tcp: 900, tcpFin: 120, udp: 60 });
  assert.equal((await ask('POST', '/daemons', { role: 'master', syncId: 7 })).status, 201);
  assert.equal((await ask('POST', '/daemons', { role: 'master' })).status, 409);
  assert.equal((await ask('POST', '/daemons', { role: 'backup', interfaceName: 'nope' })).status, 400);
  assert.equal((await ask('GET', '/daemons')).body.daemons[0].syncId, 7);
  assert.equal((await ask('DELETE', '/daemons/master')).status, 200);
  assert.deepEqual((await ask('GET', '/daemons')).body, { daemons: [] });
});
