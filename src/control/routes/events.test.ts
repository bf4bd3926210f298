/** The event stream: what it tells, how one goes on where one was, and whom it drops. */
import assert from 'node:assert/strict';
import { connect, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { startApi, type TestApi } from '../api.fixture.ts';
import { Events } from '../events.ts';

interface Heard {
  id: string;
  event: string;
  // biome-ignore lint/suspicious/noExplicitAny: data of any event.
  data: any;
}

/** A client that reads the stream as it comes. */
class Follower {
  readonly socket: Socket;
  #text = '';

  constructor(context: TestContext, { socket }: TestApi, target: string, headers = '') {
    this.socket = connect(socket);
    this.socket.write(`GET ${target} HTTP/1.1\r\nHost: x\r\n${headers}\r\n`);
    this.socket.on('error', () => {});
    this.socket.on('data', chunk => {
      this.#text += chunk;
    });
    context.after(() => this.socket.destroy());
  }

  get heard(): Heard[] {
    return [...this.#text.matchAll(/id: (.+)\nevent: (.+)\ndata: (.+)\n\n/g)].map(
      ([, id = '', event = '', data = '']) => ({
        id,
        event,
        data: JSON.parse(data),
      }),
    );
  }

  async until(holds: (heard: Heard[], text: string) => boolean): Promise<Heard[]> {
    for (const end = performance.now() + 5000; !holds(this.heard, this.#text); ) {
      assert.ok(performance.now() < end, this.#text.slice(-500));
      await new Promise(resolve => setTimeout(resolve, 5));
    }
    return this.heard;
  }
}

const connected = (_: Heard[], text: string): boolean => text.includes(': dirigo');

test('each edit is one event with its changes, who made it and why', async context => {
  const api = await startApi(context);
  const follower = new Follower(context, api, '/events');
  await follower.until(connected);
  await api.ask('POST', '/services', { key: 'tcp 10.0.0.3:80', destinations: [{ address: '10.0.0.7' }] });
  await api.ask('POST', '/ipvsadm', { argv: ['-e', '-t', '10.0.0.3:80', '-r', '10.0.0.7', '-w', '5'] });
  await api.ask('POST', '/settings', { name: 'sloppy_tcp', value: '1' });
  await api.ask('POST', '/services', { key: 'tcp 10.0.0.3:80' });
  await api.ask('DELETE', '/services');
  const heard = await follower.until(each => each.length === 4);
  assert.deepEqual(
    heard.map(({ event, data }) => [
      event,
      data.revision,
      data.changes.map((change: { kind: string }) => change.kind),
    ]),
    [
      ['change', 1, ['service-added', 'destination-added']],
      ['change', 2, ['destination-edited']],
      ['change', 3, ['setting']],
      ['change', 4, ['service-deleted']],
    ],
  );
  assert.equal(heard[1]?.data.changes[0].destination.weight, 5);
  assert.match(heard[1]?.data.by, /^uid [0-9]+ \(pid [0-9]+\)$/);
});

test('a client goes on behind the last event that it has seen, and is told if some are lost', async context => {
  const api = await startApi(context);
  for (let port = 1; port <= 5; port++) await api.ask('POST', '/services', { key: `tcp 10.0.0.3:${port}` });
  const { run } = new Events({ run: 'x' });
  assert.equal(run, 'x');
  const all = new Follower(context, api, '/events?after=nonsense');
  const [missed] = await all.until(heard => heard.length > 0);
  assert.equal(missed?.event, 'missed');
  const [name = '', last = ''] = missed?.id.split('-') ?? [];
  assert.equal(last, '5');
  const resumed = new Follower(context, api, '/events', `Last-Event-ID: ${name}-3\r\n`);
  const heard = await resumed.until(each => each.length === 2);
  assert.deepEqual(
    heard.map(({ data }) => data.revision),
    [4, 5],
  );
});

test('only the kinds that were asked for', async context => {
  const api = await startApi(context);
  const follower = new Follower(context, api, '/events?types=daemon');
  await follower.until(connected);
  await api.ask('POST', '/services', { key: 'tcp 10.0.0.3:80' });
  await api.daemon.stop({ remove: true });
  const heard = await follower.until(each => each.length > 0);
  assert.deepEqual(
    heard.map(({ event, data }) => [event, data.state]),
    [['daemon', 'stopping']],
  );
});

test('a client that does not read is dropped; the daemon goes on', async context => {
  const api = await startApi(context);
  const follower = new Follower(context, api, '/events');
  await follower.until(connected);
  const gone = new Promise(resolve => follower.socket.once('close', resolve));
  follower.socket.pause();
  const argv = ['-R'];
  const stdin = Array.from({ length: 2000 }, (_, at) => `-A -t 10.1.${at >> 8}.${at & 255}:80 -s rr`).join(
    '\n',
  );
  for (let time = 0; time < 12; time++) {
    await api.ask('POST', '/ipvsadm', { argv, stdin });
    await api.ask('DELETE', '/services');
  }
  follower.socket.resume();
  await gone;
  assert.equal((await api.ask('GET', '/metrics')).body.includes('dirigo_event_listeners 0'), true);
});

test('what is kept is bounded in number and in size', () => {
  const events = new Events({ capacity: 10, letters: 1000, run: 'r' });
  for (let number = 1; number <= 100; number++) events.publish('guard', { number });
  assert.equal(events.after('r-89'), undefined);
  assert.deepEqual(
    events.after('r-90')?.map(({ number }) => number),
    [91, 92, 93, 94, 95, 96, 97, 98, 99, 100],
  );
  assert.deepEqual(events.after('r-100'), []);
  assert.equal(events.after('r-101'), undefined);
  assert.equal(events.after('other-95'), undefined);
  events.publish('guard', { text: 'x'.repeat(990) });
  assert.deepEqual(events.after('r-100')?.length, 1);
  assert.equal(events.after('r-99'), undefined);
});
