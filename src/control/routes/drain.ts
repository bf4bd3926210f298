/** Draining of servers, step by step: `dirigo drain` goes through them. */
import { parseServiceKey } from '../../ipvs/specification.ts';
import { formatAddress, parseAddress } from '../../wire/address.ts';
import {
  bringBack,
  type DrainedServer,
  type DrainSelection,
  quiesce,
  removeDrained,
  whatIsLeft,
} from '../drain.ts';
import { RequestRefused } from '../refused.ts';
import { count, list, object, optional, text, wholeNumber } from '../schema.ts';
import { directorOf, type Route, type RouteEnvironment, route } from './route.ts';

export interface Drained {
  servers: DrainedServer[];
}

const SELECTION = object(
  {
    service: optional(
      text({ description: 'Default: all services.', examples: ['tcp 10.0.0.3:80', 'fwm 1'] }),
    ),
    address: text({ description: "The servers' address.", examples: ['10.0.0.7'] }),
    port: optional(wholeNumber(0, 65535, { description: 'Default: any.' })),
  },
  { title: 'DrainSelection' },
);

const SERVERS = object(
  {
    servers: list(
      object(
        {
          service: text(),
          address: text(),
          port: wholeNumber(0, 65535),
          weight: count({ description: '0: quiesced.' }),
          connections: count({ description: 'That it has.' }),
          persistentClients: count({
            description: 'Who come back to it for as long as they are remembered.',
          }),
          endsIn: count({ description: 'Seconds until the last of them ends if nothing comes any more.' }),
        },
        { title: 'DrainedServer' },
      ),
    ),
  },
  { title: 'Drained' },
);

const REFUSALS = { 404: 'There is no such service or server.' };

export function drainRoutes(environment: RouteEnvironment): Route[] {
  const { configuration, datapath } = environment;
  const director = directorOf(environment);
  const left = (selection: DrainSelection): Drained => ({
    servers: whatIsLeft(director, selection, datapath.now()),
  });
  /** What a step is about; it answers with the servers as they are, or as they were. */
  const step = (
    path: string,
    summary: string,
    handle: (selection: DrainSelection) => Drained | Promise<Drained>,
    refusals: Record<number, string> = REFUSALS,
  ): Route =>
    route({
      method: 'POST',
      path,
      summary,
      body: SELECTION,
      answer: SERVERS,
      refusals,
      handle: ({ body }) => handle(selectionOf(body)),
    });
  return [
    step('/drain', 'Quiesce servers: no new connections from now on', async selection => {
      const before = left(selection);
      await quiesce(configuration, director, selection);
      return before;
    }),
    step('/drain/left', 'Say what is left of servers', left),
    step(
      '/drain/remove',
      'Remove quiesced servers',
      async selection => {
        const before = left(selection);
        await removeDrained(configuration, director, selection);
        return before;
      },
      { ...REFUSALS, 409: 'One of them has weight again; nothing is removed.' },
    ),
    step('/drain/cancel', 'Give quiesced servers the weight back that they had', async selection => {
      await bringBack(configuration, director, selection);
      return left(selection);
    }),
  ];
}

function selectionOf({
  service,
  address,
  port,
}: {
  service?: string;
  address: string;
  port?: number;
}): DrainSelection {
  const key = service === undefined ? undefined : parseServiceKey(service);
  if (service !== undefined && !key) {
    throw new RequestRefused(
      400,
      `service is ${JSON.stringify(service)}: it has to be one such as "tcp 10.0.0.3:80" or "fwm 1"`,
    );
  }
  const bytes = parseAddress(address);
  if (!bytes)
    throw new RequestRefused(400, `address is ${JSON.stringify(address)}: it has to be an IP address`);
  return {
    address: formatAddress(bytes),
    ...(key && { service: key }),
    ...(port !== undefined && { port }),
  };
}
