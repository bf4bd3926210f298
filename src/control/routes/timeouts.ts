/** Timeouts and synchronisation daemons: `ipvsadm --set`, `--start-daemon`, `--stop-daemon`. */
import { MAXIMUM_TIMEOUT } from '../../ipvs/service-checks.ts';
import { RequestRefused } from '../refused.ts';
import { list, object, optional, text, wholeNumber, word } from '../schema.ts';
import { type Route, type RouteEnvironment, route, serverOf } from './route.ts';

const SECONDS = wholeNumber(0, MAXIMUM_TIMEOUT);
const TIMEOUTS = object(
  {
    tcp: wholeNumber(0, MAXIMUM_TIMEOUT, { description: 'Of established TCP connections.' }),
    tcpFin: wholeNumber(0, MAXIMUM_TIMEOUT, { description: 'After a FIN.' }),
    udp: wholeNumber(0, MAXIMUM_TIMEOUT),
  },
  { title: 'Timeouts', description: 'Seconds.' },
);

const ROLE = word(['master', 'backup'], { description: 'Sends or receives connections.' });
const DAEMON = {
  interfaceName: text({ minLength: 1, maxLength: 15, description: 'Interface of the messages.' }),
  syncId: wholeNumber(0, 255),
  maximumLength: wholeNumber(0, 65_507, {
    description: 'Longest message in bytes; when starting, 0 takes what the interface allows.',
  }),
  group: text({ description: 'Multicast group.' }),
  port: wholeNumber(1, 65_535),
  ttl: wholeNumber(1, 255),
};
const RUNNING = object({ role: ROLE, ...DAEMON }, { title: 'SyncDaemon' });

export function timeoutRoutes(environment: RouteEnvironment): Route[] {
  const { configuration } = environment;
  return [
    route({
      method: 'GET',
      path: '/timeouts',
      summary: 'Show the timeouts',
      answer: TIMEOUTS,
      handle: () => serverOf(environment).timeouts(),
    }),
    route({
      method: 'PATCH',
      path: '/timeouts',
      summary: 'Change timeouts',
      description: 'What is missing, or 0, stays. Connections follow with their next packet.',
      body: object({ tcp: optional(SECONDS), tcpFin: optional(SECONDS), udp: optional(SECONDS) }),
      answer: TIMEOUTS,
      handle: async ({ body: { tcp = 0, tcpFin = 0, udp = 0 } }) => {
        await configuration.edit(`set ${tcp} ${tcpFin} ${udp}`, () =>
          serverOf(environment).setTimeouts({ tcp, tcpFin, udp }),
        );
        return serverOf(environment).timeouts();
      },
    }),
    route({
      method: 'GET',
      path: '/daemons',
      summary: 'List the synchronisation daemons that run',
      answer: object({ daemons: list(RUNNING) }),
      handle: () => ({ daemons: serverOf(environment).syncDaemons() }),
    }),
    route({
      method: 'POST',
      path: '/daemons',
      summary: 'Start a synchronisation daemon',
      body: object({
        role: ROLE,
        interfaceName: optional({ ...DAEMON.interfaceName, default: 'eth0' }),
        syncId: optional({ ...DAEMON.syncId, default: 0 }),
        maximumLength: optional({ ...DAEMON.maximumLength, default: 0 }),
        group: optional({ ...DAEMON.group, default: '224.0.0.81' }),
        port: optional({ ...DAEMON.port, default: 8848 }),
        ttl: optional({ ...DAEMON.ttl, default: 1 }),
      }),
      answer: RUNNING,
      status: 201,
      refusals: { 409: 'One of this role runs already.' },
      handle: async ({ body }) => {
        const { role, interfaceName = 'eth0', syncId = 0, maximumLength = 0 } = body;
        const { group = '224.0.0.81', port = 8848, ttl = 1 } = body;
        await configuration.edit(`start-daemon ${role}`, () =>
          serverOf(environment).startSyncDaemon({
            role,
            interfaceName,
            syncId,
            maximumLength,
            group,
            port,
            ttl,
          }),
        );
        return running(environment, role);
      },
    }),
    route({
      method: 'DELETE',
      path: '/daemons/{role}',
      summary: 'Stop a synchronisation daemon',
      parameters: { role: ROLE },
      answer: RUNNING,
      refusals: { 404: 'None of this role runs.' },
      handle: async ({ parameters: { role } }) => {
        const stopped = running(environment, role);
        await configuration.edit(`stop-daemon ${role}`, () => serverOf(environment).stopSyncDaemon(role));
        return stopped;
      },
    }),
  ];
}

function running(environment: RouteEnvironment, role: 'master' | 'backup') {
  const found = serverOf(environment)
    .syncDaemons()
    .find(daemon => daemon.role === role);
  if (!found) throw new RequestRefused(404, `no ${role} synchronisation daemon runs`, 'role');
  return found;
}
