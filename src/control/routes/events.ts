/** The event stream: Server-Sent Events (WHATWG HTML, section 9.2). */
import type { DaemonEvent, Events } from '../events.ts';
import { RequestRefused } from '../refused.ts';
import { optional, text } from '../schema.ts';
import { type Route, route, Stream, type StreamClient } from './route.ts';

/** Bytes that may wait for a client before it is dropped. */
const MOST_WAITING = 1024 * 1024;
/** Milliseconds between two signs of life: what is between us and the client may end silent connections. */
const KEEP_ALIVE = 15_000;
/** Clients that listen at a time. */
const MOST_LISTENERS = 64;

export function eventRoutes(events: Events): Route[] {
  return [
    route({
      method: 'GET',
      path: '/events',
      summary: 'Follow what happens',
      description:
        'Server-Sent Events. `event` is `change` (an edit of the configuration), `health` (a real server), `drain`, ' +
        '`guard` or `daemon`; `data` is JSON. `Last-Event-ID` (or the parameter `after`) resumes behind that event; if ' +
        'events were lost meanwhile, the first one is `missed` and everything has to be read anew. A client that does ' +
        'not keep up is dropped.',
      parameters: {
        after: optional(text({ maxLength: 64, description: 'As the header `Last-Event-ID`.' })),
        types: optional(
          text({
            maxLength: 200,
            pattern: '^[a-z]+(,[a-z]+)*$',
            expected: 'kinds of events, separated by commas',
            description: 'Only these kinds of events.',
            examples: ['change,health'],
          }),
        ),
      },
      answer: { contentType: 'text/event-stream', description: 'Goes on until the client goes.' },
      refusals: { 503: 'Too many listen already.' },
      handle: ({ parameters, headers }) => {
        if (events.listeners >= MOST_LISTENERS) {
          throw new RequestRefused(503, `${MOST_LISTENERS} clients follow the events already`);
        }
        const header = headers['last-event-id'];
        const after = parameters.after ?? (typeof header === 'string' ? header : undefined);
        const types = parameters.types === undefined ? undefined : new Set(parameters.types.split(','));
        return new Stream('text/event-stream', client => follow(events, client, after, types));
      },
    }),
  ];
}

function follow(
  events: Events,
  client: StreamClient,
  after: string | undefined,
  types: ReadonlySet<string> | undefined,
): void {
  const send = (event: DaemonEvent): void => {
    if (types && !types.has(event.type)) return;
    client.write(`id: ${events.idOf(event)}\nevent: ${event.type}\ndata: ${event.text}\n\n`);
    if (client.waiting > MOST_WAITING) client.cut();
  };
  // A comment at once: the client sees that it is connected. `retry` is how long it waits before it comes back.
  client.write(': dirigo\nretry: 2000\n\n');
  if (after !== undefined) {
    const missed = events.after(after);
    if (missed) for (const event of missed) send(event);
    else {
      const data = JSON.stringify({
        after,
        reason: 'events after this one are not kept: read everything anew',
      });
      client.write(`id: ${events.run}-${events.last}\nevent: missed\ndata: ${data}\n\n`);
    }
  }
  const end = events.subscribe({ heard: send, ended: () => client.end() });
  const alive = setInterval(() => client.write(': alive\n\n'), KEEP_ALIVE);
  client.gone.addEventListener('abort', () => {
    clearInterval(alive);
    end();
  });
}
