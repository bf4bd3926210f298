/** What is measured: the director's counters, tables and rates as metrics. Their names are documented in docs/api.md. */
import { connectionStateName } from '../ipvs/administration.ts';
import { ConnectionFlag } from '../ipvs/connections.ts';
import { DestinationFlag } from '../ipvs/destinations.ts';
import type { Director } from '../ipvs/director.ts';
import { DROP_NAMES, Drop } from '../ipvs/drops.ts';
import { FULLNAT_COUNT_NAMES } from '../ipvs/forwarding/fullnat.ts';
import { PROTOCOL_NUMBERS } from '../ipvs/service-index.ts';
import { type DestinationStatus, type Statistics, serviceKeyText } from '../ipvs/specification.ts';
import { SYN_PROXY_COUNT_NAMES } from '../ipvs/syn-proxy.ts';
import { guardMetrics } from './guard-metrics.ts';
import { labelText, type Metric, type MetricType, type Sample } from './open-metrics.ts';
import { directorOf, type RouteEnvironment, serverOf } from './routes/route.ts';

/** How much is shown: the whole director, each service, each real server of each service. */
export const METRIC_DETAILS = ['director', 'services', 'servers'] as const;
export type MetricDetail = (typeof METRIC_DETAILS)[number];

/** Records of connections, and services, that are looked at before packets have their turn. */
const SLOT_SLICE = 16_384;
const SERVICE_SLICE = 16;

/** Lets packets have their turn. */
export type Pause = () => Promise<void>;

interface Row<Status> {
  labels: string;
  status: Status;
}

interface ServerStatus extends DestinationStatus {
  /** `DestinationFlag` */
  flags: number;
}

/** What was read of the director in several turns. */
interface Reading {
  connections: Sample[];
  services: Row<Statistics>[];
  servers: Row<ServerStatus>[];
}

/** Reads everything, in slices, then gives the metrics. */
export async function readMetrics(
  environment: RouteEnvironment,
  detail: MetricDetail,
  pause: Pause,
): Promise<Iterable<Metric>> {
  const director = directorOf(environment);
  const reading: Reading = {
    connections: await countConnections(environment, pause),
    ...(detail === 'director'
      ? { services: [], servers: [] }
      : await readServices(environment, detail === 'servers', pause)),
  };
  return [
    ...processMetrics(environment),
    ...directorMetrics(environment, director, reading),
    ...datapathMetrics(environment),
    ...guardMetrics(environment.guardStatus?.()),
    ...(detail === 'director' ? [] : serviceMetrics(reading.services)),
    ...(detail === 'servers' ? serverMetrics(reading.servers) : []),
  ];
}

/** Connections by protocol and state. */
async function countConnections(environment: RouteEnvironment, pause: Pause): Promise<Sample[]> {
  const { connections } = directorOf(environment);
  /** By protocol, state and whether it is a template. */
  const counts = new Map<number, number>();
  for (let begin = 0; begin < connections.highWater; begin += SLOT_SLICE) {
    const tick = connections.tick(environment.datapath.now());
    const end = Math.min(begin + SLOT_SLICE, connections.highWater);
    for (let slot = begin; slot < end; slot++) {
      if (!connections.isUsed(slot) || connections.hasExpired(slot, tick)) continue;
      const template = connections.flags(slot) & ConnectionFlag.template ? 1 : 0;
      const kind = (connections.protocol(slot) << 9) | (connections.state(slot) << 1) | template;
      counts.set(kind, (counts.get(kind) ?? 0) + 1);
    }
    await pause();
  }
  const named = new Map<string, number>();
  for (const [kind, count] of counts) {
    const template = (kind & 1) !== 0;
    const protocol = kind >>> 9;
    const labels = labelText({
      protocol: PROTOCOL_NAMES.get(protocol) ?? String(protocol),
      state: template ? 'TEMPLATE' : connectionStateName(protocol, (kind >>> 1) & 0xff, false),
    });
    named.set(labels, (named.get(labels) ?? 0) + count);
  }
  return [...named].map(([labels, value]) => ({ labels, value }));
}

const PROTOCOL_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(PROTOCOL_NUMBERS).map(([name, number]) => [number, name]),
);

async function readServices(
  environment: RouteEnvironment,
  withServers: boolean,
  pause: Pause,
): Promise<Pick<Reading, 'services' | 'servers'>> {
  const { administration, destinations } = directorOf(environment);
  const services: Row<Statistics>[] = [];
  const servers: Row<ServerStatus>[] = [];
  const objects = [...administration.serviceObjects()];
  for (const [at, { key, name }] of objects.entries()) {
    if (at % SERVICE_SLICE === 0) await pause();
    const status = serverOf(environment).service(key);
    // Deleted meanwhile.
    if (!status) continue;
    services.push({ labels: labelText({ service: name }), status: status.statistics });
    if (!withServers) continue;
    for (const [index, server] of status.destinations.entries()) {
      const port = server.address.includes(':')
        ? `[${server.address}]:${server.port}`
        : `${server.address}:${server.port}`;
      const record = administration.serviceObject(key)?.destinations[index]?.index ?? -1;
      servers.push({
        labels: labelText({ service: serviceKeyText(key), server: port }),
        status: { ...server, flags: record < 0 ? 0 : destinations.flags(record) },
      });
    }
  }
  return { services, servers };
}

function processMetrics({ version, datapath, startedAt }: RouteEnvironment): Metric[] {
  const { user, system } = process.cpuUsage();
  return [
    {
      name: 'dirigo_build',
      type: 'info',
      help: 'Version of the daemon and kind of its data path.',
      samples: [{ labels: labelText({ version, datapath: datapath.kind }), value: 1 }],
    },
    single(
      'process_start_time_seconds',
      'gauge',
      'When the daemon started, seconds since 1970.',
      Date.parse(startedAt) / 1000,
      'seconds',
    ),
    single(
      'process_cpu_seconds',
      'counter',
      'CPU time of the daemon, user and system.',
      (user + system) / 1e6,
      'seconds',
    ),
    single(
      'process_resident_memory_bytes',
      'gauge',
      'Memory of the daemon, the mapped tables included.',
      process.memoryUsage.rss(),
      'bytes',
    ),
  ];
}

function directorMetrics(
  { configuration, events }: RouteEnvironment,
  director: Director,
  { connections }: Reading,
): Metric[] {
  const { administration } = director;
  let services = 0;
  let servers = 0;
  for (const service of administration.serviceObjects()) {
    services++;
    servers += service.destinations.length;
  }
  const totals = administration.totals();
  return [
    single('dirigo_services', 'gauge', 'Virtual services.', services),
    single('dirigo_servers', 'gauge', 'Real servers of all services.', servers),
    single(
      'dirigo_configuration_revision',
      'gauge',
      'Number of the last change of the configuration.',
      configuration.revision,
    ),
    single('dirigo_event_listeners', 'gauge', 'Clients that follow the events.', events.listeners),
    {
      name: 'dirigo_connections',
      type: 'gauge',
      help: 'Connections in the table by protocol and state; TEMPLATE: persistence templates.',
      samples: connections,
    },
    single(
      'dirigo_scheduled_connections',
      'counter',
      'Connections that were given a server.',
      totals.connections,
    ),
    ...trafficMetrics('dirigo', 'The whole director', [{ labels: '', status: totals }], status => status),
    {
      name: 'dirigo_drops',
      type: 'counter',
      help: 'Packets that the director dropped or refused, by reason.',
      samples: DROP_NAMES.flatMap((reason, drop) =>
        drop === Drop.none ? [] : [{ labels: labelText({ reason }), value: director.drops[drop] as number }],
      ),
    },
    {
      name: 'dirigo_fullnat_events',
      type: 'counter',
      help: 'What FULLNAT did beyond forwarding.',
      samples: FULLNAT_COUNT_NAMES.map((event, index) => ({
        labels: labelText({ event }),
        value: director.fullnat.counts[index] as number,
      })),
    },
    {
      name: 'dirigo_synproxy_events',
      type: 'counter',
      help: 'What the SYN proxy did.',
      samples: SYN_PROXY_COUNT_NAMES.map((event, index) => ({
        labels: labelText({ event }),
        value: director.synProxy.counts[index] as number,
      })),
    },
    single(
      'dirigo_synproxy_pending',
      'gauge',
      'Connections of the SYN proxy whose server has not answered yet.',
      director.synProxy.pending,
    ),
    single(
      'dirigo_defence_entries_dropped',
      'counter',
      'Half-open connections that drop_entry gave up.',
      director.defence.entriesDropped,
    ),
  ];
}

function datapathMetrics({ datapath }: RouteEnvironment): Metric[] {
  const { program, director, drops, tables } = datapath.counters();
  const by = (label: string, values: Readonly<Record<string, number>>): Sample[] =>
    Object.entries(values).map(([name, value]) => ({
      labels: labelText({ [label]: name.replaceAll(' ', '-') }),
      value,
    }));
  const table = (which: 'used' | 'capacity'): Sample[] =>
    Object.entries(tables).map(([name, { [which]: value }]) => ({
      labels: labelText({ table: name }),
      value,
    }));
  return [
    {
      name: 'dirigo_path_packets',
      type: 'counter',
      help: 'Packets of services by the path they took: fast, in the kernel; slow, through the director.',
      samples: by('path', { fast: program.forwarded ?? 0, slow: director.received }),
    },
    {
      name: 'dirigo_program_packets',
      type: 'counter',
      help: 'What the program in the kernel did with a packet: forwarded it, or why it left it to the director or the host.',
      samples: by('outcome', program),
    },
    single(
      'dirigo_director_transmitted_packets',
      'counter',
      'Packets that the director sent.',
      director.transmitted,
    ),
    {
      name: 'dirigo_datapath_drops',
      type: 'counter',
      help: 'Packets lost on the way to and from the director, by reason.',
      samples: by('reason', drops),
    },
    {
      name: 'dirigo_table_entries',
      type: 'gauge',
      help: 'Entries in use of a table.',
      samples: table('used'),
    },
    {
      name: 'dirigo_table_capacity_entries',
      type: 'gauge',
      help: 'Entries that a table has room for.',
      samples: table('capacity'),
    },
  ];
}

function serviceMetrics(rows: readonly Row<Statistics>[]): Metric[] {
  return [
    {
      name: 'dirigo_service_connections',
      type: 'counter',
      help: 'Connections scheduled.',
      samples: mapped(rows, ({ connections }) => connections),
    },
    {
      name: 'dirigo_service_connection_rate',
      type: 'gauge',
      help: 'Connections a second, as ipvsadm --rate shows them.',
      samples: mapped(rows, ({ connectionRate }) => connectionRate),
    },
    ...trafficMetrics('dirigo_service', 'A service', rows, status => status),
  ];
}

function serverMetrics(rows: readonly Row<ServerStatus>[]): Metric[] {
  const gauge = (name: string, help: string, value: (status: ServerStatus) => number): Metric => ({
    name: `dirigo_server_${name}`,
    type: 'gauge',
    help,
    samples: mapped(rows, value),
  });
  const flag = (bit: number) => (status: ServerStatus) => ((status.flags & bit) === 0 ? 0 : 1);
  return [
    gauge('weight', 'Weight; 0: quiesced.', ({ weight }) => weight),
    gauge('resolved', '1: its next hop is known and answers.', flag(DestinationFlag.resolved)),
    gauge('overloaded', '1: it has reached its upper threshold.', flag(DestinationFlag.overloaded)),
    gauge('active_connections', 'Active connections.', status => status.activeConnections),
    gauge('inactive_connections', 'Inactive connections.', status => status.inactiveConnections),
    gauge('persistent_connections', 'Persistence templates.', status => status.persistentConnections),
    {
      name: 'dirigo_server_connections',
      type: 'counter',
      help: 'Connections scheduled.',
      samples: mapped(rows, ({ statistics }) => statistics.connections),
    },
    ...trafficMetrics('dirigo_server', 'A real server', rows, ({ statistics }) => statistics),
  ];
}

/** Packets and bytes in either direction. */
function trafficMetrics<Status>(
  prefix: string,
  what: string,
  rows: readonly Row<Status>[],
  statisticsOf: (status: Status) => Statistics,
): Metric[] {
  const metric = (
    name: string,
    help: string,
    value: (status: Statistics) => number,
    unit?: string,
  ): Metric => ({
    name: `${prefix}_${name}`,
    type: 'counter',
    help: `${what}: ${help}`,
    ...(unit !== undefined && { unit }),
    samples: mapped(rows, status => value(statisticsOf(status))),
  });
  return [
    metric('in_packets', 'packets from clients.', ({ inPackets }) => inPackets),
    metric('out_packets', 'packets to clients.', ({ outPackets }) => outPackets),
    metric('in_bytes', 'bytes from clients.', ({ inBytes }) => inBytes, 'bytes'),
    metric('out_bytes', 'bytes to clients.', ({ outBytes }) => outBytes, 'bytes'),
  ];
}

function* mapped<Status>(rows: readonly Row<Status>[], value: (status: Status) => number): Generator<Sample> {
  for (const { labels, status } of rows) yield { labels, value: value(status) };
}

function single(name: string, type: MetricType, help: string, value: number, unit?: string): Metric {
  return { name, type, help, ...(unit !== undefined && { unit }), samples: [{ labels: '', value }] };
}
