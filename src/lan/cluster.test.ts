import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatMac } from '../wire/address.ts';
import { buildCluster, type Cluster } from './cluster.ts';
import { bodyText } from './http-message.ts';

/** Everything that crosses both segments, one line a frame. */
function capture(cluster: Cluster): string[] {
  const lines: string[] = [];
  for (const segment of [cluster.lan, cluster.inner])
    segment.tap((time, frame) =>
      lines.push(`${segment.name} ${time.toFixed(6)} ${Buffer.from(frame).toString('hex')}`),
    );
  return lines;
}

async function script(cluster: Cluster): Promise<string> {
  const { client, m01, web01 } = cluster.hosts;
  let text = '';
  for (const [host, line] of [
    [m01, 'ping -c 1 172.16.1.51'],
    [m01, 'ping -c 1 10.0.0.1'],
    [m01, 'ping -c 1 10.0.0.51'],
    [m01, 'ping -c 1 10.0.0.254'],
    [m01, 'arp -n'],
    [client, 'curl 10.0.0.[7-8]'],
    [web01, 'cat /var/log/nginx/access.log'],
  ] as const)
    text += (await host.run(line)).stdout;
  return text;
}

test('step 1: the request leaves m01 with 42 bytes, the reply arrives with 60, and the table shows all four', async () => {
  const cluster = buildCluster();
  const { m01 } = cluster.hosts;
  const seen: string[] = [];
  m01.interfaceNamed('eth1')?.tap((_time, direction, frame) => {
    if (frame[12] === 8 && frame[13] === 6)
      seen.push(`${direction} ${formatMac(frame, 6)} ${formatMac(frame)} ${frame.length}`);
  });
  const text = await cluster.simulation.settle(script(cluster));
  assert.deepEqual(seen.slice(0, 2), [
    'out 00:0c:29:2e:aa:48 ff:ff:ff:ff:ff:ff 42',
    'in 00:0c:29:c7:5d:dd 00:0c:29:2e:aa:48 60',
  ]);
  assert.match(
    text,
    /^172\.16\.1\.51 +ether +00:0c:29:c7:5d:dd +C +eth1\n10\.0\.0\.1 +ether +00:50:56:c0:00:08 +C +eth0\n10\.0\.0\.51 +ether +00:0c:29:c7:5d:d3 +C +eth0\n10\.0\.0\.254 +ether +00:50:56:e1:eb:34 +C +eth0\n/m,
  );
});

test('step 2: both web servers answer directly and log the client', async () => {
  const cluster = buildCluster();
  const text = await cluster.simulation.settle(script(cluster));
  assert.match(text, /<h1>Nginx server 10\.0\.0\.7 web01<\/h1>\n<h1>Nginx server 10\.0\.0\.8 web02<\/h1>\n/);
  assert.match(text, /^10\.0\.0\.1 - - \[.*\] "GET \/ HTTP\/1\.1" 200 37 "-" "curl\/7\.88\.1"\n$/m);
});

test('the same seed gives the same capture byte for byte, another seed another', async () => {
  const captures: string[][] = [];
  for (const seed of [5, 5, 6]) {
    const cluster = buildCluster({ seed });
    const lines = capture(cluster);
    await cluster.simulation.settle(script(cluster));
    cluster.simulation.advance(60_000);
    captures.push(lines);
  }
  assert.ok((captures[0]?.length ?? 0) > 40);
  assert.deepEqual(captures[0], captures[1]);
  assert.notDeepEqual(captures[0], captures[2]);
});

test('sixty fetches by all clients, and nothing is dropped anywhere', async () => {
  const cluster = buildCluster();
  const bodies = await cluster.simulation.settle(
    (async () => {
      const texts: string[] = [];
      for (let round = 0; round < 60; round++) {
        const client = cluster.clients[round % cluster.clients.length];
        if (client) texts.push(bodyText(await client.fetch(`http://web0${1 + (round % 2)}/`)));
      }
      return texts;
    })(),
  );
  assert.equal(bodies.filter(body => body.includes('10.0.0.7 web01')).length, 30);
  assert.equal(cluster.servers.web02.accessLog.length, 30);
  for (const client of cluster.clients) assert.deepEqual(client.dropped, new Map());
  assert.deepEqual(cluster.lan.dropped, new Map());
});

test('MAC addresses are those of the session, and unique', () => {
  const cluster = buildCluster();
  const macs = new Set<string>();
  let count = 0;
  for (const host of [...Object.values(cluster.hosts), ...cluster.clients.slice(1)]) {
    for (const each of host.interfaces.slice(1)) {
      macs.add(formatMac(each.mac));
      count++;
    }
  }
  assert.equal(macs.size, count);
  assert.equal(cluster.clients.length, 11);
  assert.equal(cluster.host('client105')?.resolve('client105'), '10.0.0.105');
  assert.equal(formatMac(cluster.hosts.gateway.interfaces[1]?.mac as Uint8Array), '00:50:56:e1:eb:34');
});
