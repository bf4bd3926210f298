/** The connection table: `ipvsadm -L -c` and `--persistent-conn`, with filters and in pages. */
import type { Administration } from '../../ipvs/administration.ts';
import { ConnectionFlag, type ConnectionTable } from '../../ipvs/connections.ts';
import type { ConnectionStatus } from '../../ipvs/specification.ts';
import { formatAddress, parseAddress } from '../../wire/address.ts';
import { RequestRefused } from '../refused.ts';
import { boolean, list, object, optional, text, wholeNumber, word } from '../schema.ts';
import { CONNECTION } from '../service-schema.ts';
import { directorOf, type Route, type RouteEnvironment, route, serverOf } from './route.ts';

/** Connections in an answer, unless another number is asked for. */
const PAGE = 1000;
/** Records that are looked at before packets have their turn: less than a millisecond. */
const SLICE = 4096;

const PROTOCOLS = { tcp: 6, udp: 17, sctp: 132 } as const;
const ADDRESS = text({ maxLength: 64 });
const PORT = wholeNumber(0, 65_535);

interface Filter {
  protocol?: keyof typeof PROTOCOLS;
  state?: string;
  client?: string;
  clientPort?: number;
  virtual?: string;
  virtualPort?: number;
  destination?: string;
  destinationPort?: number;
  template?: boolean;
}

export function connectionRoutes(environment: RouteEnvironment): Route[] {
  return [
    route({
      method: 'GET',
      path: '/connections',
      summary: 'List connections and persistence templates',
      description:
        'Those that fit all filters, as they are found: the table goes on changing while it is read, each connection is ' +
        'there at most once. With `next` there may be more: ask again with `cursor`.',
      parameters: {
        protocol: optional(word(['tcp', 'udp', 'sctp'])),
        state: optional(
          text({ maxLength: 20, description: 'As `ipvsadm -Lnc` names it.', examples: ['ESTABLISHED'] }),
        ),
        client: optional(ADDRESS),
        clientPort: optional(PORT),
        virtual: optional({ ...ADDRESS, description: 'VIP.' }),
        virtualPort: optional(PORT),
        destination: optional({ ...ADDRESS, description: 'Real server.' }),
        destinationPort: optional(PORT),
        template: optional(boolean({ description: 'True: only persistence templates; false: none.' })),
        limit: optional(wholeNumber(1, 100_000, { default: PAGE })),
        cursor: optional(wholeNumber(0, 0xffffff, { description: '`next` of the answer before.' })),
      },
      answer: object({ connections: list(CONNECTION), next: optional(wholeNumber(0, 0xffffff)) }),
      handle: ({ parameters: { limit = PAGE, cursor = 0, ...filter } }) =>
        find(environment, withCanonicalAddresses(filter), limit, cursor),
    }),
  ];
}

async function find(environment: RouteEnvironment, filter: Filter, limit: number, cursor: number) {
  const { connections: table, administration } = directorOf(environment);
  const found: ConnectionStatus[] = [];
  let slot = cursor;
  for (;;) {
    serverOf(environment);
    const tick = table.tick(administration.now);
    for (const end = slot + SLICE; slot < end; slot++) {
      if (slot >= table.highWater) return { connections: found };
      const status = fitting(table, administration, slot, tick, filter);
      if (!status) continue;
      if (found.length === limit) return { connections: found, next: slot };
      found.push(status);
    }
    await new Promise(resolve => setImmediate(resolve));
  }
}

/** The connection in a slot, if there is one and it fits. What is cheap to tell is looked at first. */
function fitting(
  table: ConnectionTable,
  administration: Administration,
  slot: number,
  tick: number,
  { protocol, template, ...filter }: Filter,
): ConnectionStatus | undefined {
  if (!table.isUsed(slot) || table.hasExpired(slot, tick)) return undefined;
  if (protocol !== undefined && table.protocol(slot) !== PROTOCOLS[protocol]) return undefined;
  const isTemplate = (table.flags(slot) & ConnectionFlag.template) !== 0;
  if (template !== undefined && isTemplate !== template) return undefined;
  const status = administration.connectionStatus(slot, tick);
  for (const name of Object.keys(filter) as (keyof typeof filter)[]) {
    if (filter[name] !== undefined && filter[name] !== status[name]) return undefined;
  }
  return status;
}

function withCanonicalAddresses(filter: Filter): Filter {
  const canonical = { ...filter };
  for (const name of ['client', 'virtual', 'destination'] as const) {
    const given = filter[name];
    if (given === undefined) continue;
    const address = parseAddress(given);
    if (!address) {
      throw new RequestRefused(400, `${name} is ${JSON.stringify(given)}: it has to be an IP address`, name);
    }
    canonical[name] = formatAddress(address);
  }
  return canonical;
}
