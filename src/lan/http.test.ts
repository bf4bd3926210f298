import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Host } from './host.ts';
import { parseUrl } from './http-client.ts';
import { bodyText, HttpError, RequestReader, ResponseReader } from './http-message.ts';
import { HttpServer } from './http-server.ts';
import { Segment } from './segment.ts';
import { Simulation } from './simulation.ts';

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

function web() {
  const simulation = new Simulation();
  const segment = new Segment(simulation, 'lan');
  const [client, host] = [1, 7].map(octet => {
    const made = new Host(simulation, `host${octet}`);
    made.addInterface({
      name: 'eth0',
      mac: `02:00:00:00:00:0${octet}`,
      segment,
      addresses: [`10.0.0.${octet}/24`, `2001:db8::${octet}/64`],
    });
    return made;
  }) as [Host, Host];
  const server = new HttpServer(host, {
    virtualHosts: [
      {
        serverName: 'blog.example.com',
        pages: { '/': '<h1>blog</h1>', '/a.css': { body: 'a{}', type: 'text/css' } },
      },
      { serverName: 'www.example.com', pages: { '/': 'www', '/big': 'x'.repeat(300_000) } },
    ],
  });
  return { simulation, client, host, server };
}

test('virtual hosts by name, the first one for all others', async () => {
  const { simulation, client } = web();
  const page = async (url: string, headers: Record<string, string> = {}): Promise<string> =>
    bodyText(await simulation.settle(client.fetch(url, { headers })));
  assert.equal(await page('10.0.0.7'), '<h1>blog</h1>');
  assert.equal(await page('http://10.0.0.7/', { Host: 'www.example.com' }), 'www');
  assert.equal(await page('http://10.0.0.7/', { Host: 'WWW.example.com:80' }), 'www');
  assert.equal(await page('http://[2001:db8::7]/a.css?x#y'), 'a{}');
  const big = await page('http://10.0.0.7/big', { Host: 'www.example.com' });
  assert.equal(big.length, 300_000);
});

test('the access log is nginx combined, with the client address and the virtual time', async () => {
  const { simulation, client, server } = web();
  simulation.advance(20_000);
  await simulation.settle(client.fetch('10.0.0.7'));
  await simulation.settle(
    client.fetch('10.0.0.7/"x\\', { headers: { Referer: 'http://a/', 'User-Agent': 'a"b' } }),
  );
  await simulation.settle(client.fetch('10.0.0.7', { method: 'POST' }));
  assert.deepEqual(server.accessLog, [
    '10.0.0.1 - - [01/Jan/2026:00:00:20 +0000] "GET / HTTP/1.1" 200 13 "-" "curl/7.88.1"',
    '10.0.0.1 - - [01/Jan/2026:00:00:20 +0000] "GET /\\x22x\\x5C HTTP/1.1" 404 146 "http://a/" "a\\x22b"',
    '10.0.0.1 - - [01/Jan/2026:00:00:20 +0000] "POST / HTTP/1.1" 405 150 "-" "curl/7.88.1"',
  ]);
});

test('several requests on one connection, and an idle one is closed after 75 s', () => {
  const { simulation, client } = web();
  const connection = client.tcp.open({ address: '10.0.0.7', port: 80 });
  let text = '';
  let ended = -1;
  connection.onData = data => {
    text += new TextDecoder().decode(data);
  };
  connection.onEnd = () => {
    ended = simulation.now;
  };
  connection.write(bytes('GET / HTTP/1.1\r\nHost: x\r\n\r\nHEAD / HTTP/1.1\r\nHost: x\r\n\r\n'));
  simulation.advance(70_000);
  assert.equal(text.match(/200 OK/g)?.length, 2);
  assert.equal(text.match(/<h1>/g)?.length, 1, 'HEAD has no body');
  assert.equal(ended, -1);
  simulation.advance(10_000);
  assert.equal(Math.floor(ended / 1000), 75);
});

test('HTTP/1.0 and Connection: close end the connection; nonsense is refused', () => {
  const { simulation, client, server } = web();
  const ask = (request: string): string => {
    const connection = client.tcp.open({ address: '10.0.0.7', port: 80 });
    let text = '';
    let ended = false;
    connection.onData = data => {
      text += new TextDecoder().decode(data);
    };
    connection.onEnd = () => {
      ended = true;
      connection.end();
    };
    connection.write(bytes(request));
    simulation.advance(1000);
    assert.equal(ended, true, request);
    return text.slice(0, 12);
  };
  assert.equal(ask('GET / HTTP/1.0\r\n\r\n'), 'HTTP/1.1 200');
  assert.equal(ask('GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'), 'HTTP/1.1 200');
  assert.equal(ask('GET / HTTP/1.1\r\n\r\n'), 'HTTP/1.1 400');
  assert.equal(ask('BLAH\r\n\r\n'), 'HTTP/1.1 400');
  assert.equal(ask('GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n'), 'HTTP/1.1 400');
  assert.equal(ask('POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n'), 'HTTP/1.1 501');
  assert.equal(ask(`GET /${'x'.repeat(40_000)} HTTP/1.1\r\nHost: a\r\n\r\n`), 'HTTP/1.1 400');
  assert.match(server.accessLog.at(-1) ?? '', /"" 400/);
});

test('a fetch that fails says why', async () => {
  const { simulation, client, host } = web();
  const failure = async (url: string, timeout?: number): Promise<string> =>
    simulation.settle(client.fetch(url, timeout === undefined ? {} : { timeout })).then(
      () => 'none',
      error => error.code,
    );
  assert.equal(await failure('10.0.0.7:81'), 'refused');
  assert.equal(await failure('10.0.0.9'), 'host-unreachable');
  assert.equal(await failure('192.0.2.1'), 'net-unreachable');
  assert.equal(await failure('nobody.example'), 'resolve');
  assert.equal(await failure('ftp://10.0.0.7/'), 'malformed');
  const answers: [number, string | undefined][] = [
    [8081, undefined],
    [8082, 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc'],
    [8083, 'SSH-2.0-OpenSSH\r\n\r\n'],
  ];
  for (const [port, answer] of answers) {
    host.tcp.listen({ port }, connection => {
      if (answer !== undefined) connection.write(bytes(answer));
      connection.end();
    });
  }
  host.tcp.listen({ port: 8084 }, () => {});
  host.tcp.listen({ port: 8085 }, connection => {
    connection.onData = () => connection.abort();
  });
  assert.equal(await failure('10.0.0.7:8081'), 'empty');
  assert.equal(await failure('10.0.0.7:8082'), 'partial');
  assert.equal(await failure('10.0.0.7:8083'), 'malformed');
  assert.equal(await failure('10.0.0.7:8084', 3000), 'timeout');
  assert.equal(await failure('10.0.0.7:8085'), 'reset');
});

test('messages may come in any pieces', () => {
  const request = bytes(
    '\r\nGET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /y HTTP/1.1\r\nHost: a\r\n\r\n',
  );
  const response = bytes(
    'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5;x=y\r\ndefgh\r\n0\r\n\r\n',
  );
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 }), sizes => {
      const requests = new RequestReader();
      const responses = new ResponseReader('GET');
      const targets: string[] = [];
      for (const piece of pieces(request, sizes))
        targets.push(...requests.push(piece).map(each => each.target));
      assert.deepEqual(targets, ['/x', '/y']);
      const bodies = pieces(response, sizes).map(piece => responses.push(piece));
      assert.equal(bodyText(bodies.find(each => each !== undefined) ?? { body: bytes('none') }), 'abcdefgh');
    }),
  );
});

function pieces(data: Uint8Array, sizes: readonly number[]): Uint8Array[] {
  const cut: Uint8Array[] = [];
  for (let at = 0, index = 0; at < data.length; index++) {
    const size = sizes[index % sizes.length] as number;
    cut.push(data.slice(at, at + size));
    at += size;
  }
  return cut;
}

test('a reader refuses what is no HTTP by an HttpError and nothing else', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), noise => {
      for (const reader of [new RequestReader(), new ResponseReader('GET')]) {
        try {
          reader.push(noise);
          reader.push(bytes('\r\n\r\n'));
        } catch (error) {
          assert.ok(error instanceof HttpError);
        }
      }
    }),
  );
});

test('URLs as curl takes them', () => {
  assert.deepEqual(parseUrl('10.0.0.7'), { host: '10.0.0.7', port: 80, target: '/' });
  assert.deepEqual(parseUrl('http://a.example:8080/x?y#z'), {
    host: 'a.example',
    port: 8080,
    target: '/x?y',
  });
  assert.deepEqual(parseUrl('[2001:db8::3]:81'), { host: '2001:db8::3', port: 81, target: '/' });
  assert.deepEqual(parseUrl('http://a?q'), { host: 'a', port: 80, target: '/?q' });
  for (const bad of ['', 'https://a/', 'http://', 'a:0', 'a:65536', 'http://a b/', 'user@host/'])
    assert.equal(parseUrl(bad), undefined, bad);
});
