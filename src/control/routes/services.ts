/**
 * Services and their real servers: what `ipvsadm -L` shows and `-A -E -D -a -e -d -C -Z -P -Q` do. A service's place is
 * `/services/tcp/10.0.0.3:80`, `/services/udp/[2001:db8::3]:53`, `/services/fwm/1` or `/services/fwm6/1`.
 */
import {
  type DestinationSpecification,
  IpvsError,
  parseServiceKey,
  type ServiceKey,
  type ServiceSpecification,
  type ServiceStatus,
  serviceKeyText,
} from '../../ipvs/specification.ts';
import { formatAddress, parseAddress } from '../../wire/address.ts';
import { captureDestination, captureService } from '../desired-state.ts';
import { peerText } from '../peer.ts';
import { RequestRefused } from '../refused.ts';
import { boolean, list, object, optional, text, wholeNumber, word } from '../schema.ts';
import { firstServices, SERVICE_ORDERS } from '../service-order.ts';
import {
  DESTINATION_CHANGE,
  DESTINATION_STATUS,
  NEW_DESTINATION,
  NEW_SERVICE,
  SERVICE_CHANGE,
  SERVICE_STATUS,
  STATISTICS,
} from '../service-schema.ts';
import { parseDestination, parseService } from '../state-text.ts';
import { directorOf, type Route, type RouteEnvironment, route, serverOf } from './route.ts';

const SERVICE = {
  protocol: word(['tcp', 'udp', 'sctp', 'fwm', 'fwm6'], {
    description: '`fwm`: a firewall mark; `fwm6`: of IPv6.',
  }),
  endpoint: text({
    maxLength: 64,
    description: 'Address and port, or the mark.',
    examples: ['10.0.0.3:80', '[2001:db8::3]:53', '1'],
  }),
};
const SERVER = {
  ...SERVICE,
  server: text({
    maxLength: 64,
    description: 'Address and port of a real server; without a port, it is the service’s.',
    examples: ['10.0.0.7:80'],
  }),
};
const NO_SERVICE = { 404: 'There is no such service.' };
const NO_SERVER = { 404: 'There is no such service, or it has no such server.' };
const EXISTS = { 409: 'It exists already.', 507: 'There is no room for it, or the state cannot be written.' };
const DONE = object({ deleted: wholeNumber(0, 1_000_000) });

/** Services in an answer, unless another number is asked for. */
const PAGE = 1000;

interface Place {
  protocol: string;
  endpoint: string;
}

export function serviceRoutes(environment: RouteEnvironment): Route[] {
  return [
    ...listings(environment),
    ...serviceEdits(environment),
    ...destinationEdits(environment),
    ...counters(environment),
  ];
}

function listings(environment: RouteEnvironment): Route[] {
  const { administration } = directorOf(environment);
  return [
    route({
      method: 'GET',
      path: '/services',
      summary: 'List the services with their servers, counters and rates',
      parameters: {
        limit: optional(wholeNumber(1, 10_000, { default: PAGE, description: 'Services at most.' })),
        after: optional(
          text({ maxLength: 80, description: 'Only those behind this one: `next` of the answer before.' }),
        ),
        order: optional(
          word(SERVICE_ORDERS, {
            description: 'The first ones by name, or the busiest, instead of the newest; without `after`.',
          }),
        ),
        reverse: optional(boolean({ description: 'The last ones of that order, the last first.' })),
      },
      answer: object({
        services: list(SERVICE_STATUS, { description: 'Newest first.' }),
        next: optional(text({ description: 'There are more: ask again with `after`.' })),
      }),
      handle: ({ parameters: { limit = PAGE, after, order, reverse = false } }) => {
        if (order === undefined) return page(environment, limit, after);
        if (after !== undefined) throw new RequestRefused(400, 'after goes with no order', 'after');
        const { pool } = directorOf(environment);
        const first = firstServices(administration, pool.table, { order, isReversed: reverse, limit });
        return { services: first.map(({ key }) => statusOf(environment, key)) };
      },
    }),
    route({
      method: 'GET',
      path: '/services/{protocol}/{endpoint}',
      summary: 'Show a service',
      parameters: SERVICE,
      answer: SERVICE_STATUS,
      refusals: NO_SERVICE,
      handle: ({ parameters }) => statusOf(environment, keyOf(parameters)),
    }),
    route({
      method: 'GET',
      path: '/statistics',
      summary: 'Show the counters and rates of the whole director',
      answer: STATISTICS,
      handle: () => administration.totals(),
    }),
  ];
}

function serviceEdits(environment: RouteEnvironment): Route[] {
  const { configuration } = environment;
  const { administration } = directorOf(environment);
  const edit = async (
    key: ServiceKey,
    verb: string,
    service: () => ServiceSpecification,
  ): Promise<ServiceStatus> => {
    await configuration.edit(`${verb} ${serviceKeyText(key)}`, () =>
      serverOf(environment).editService(service()),
    );
    return statusOf(environment, key);
  };
  return [
    route({
      method: 'POST',
      path: '/services',
      summary: 'Add a service, with servers if there are any',
      description: 'All of it, or nothing. What is missing has the default that `ipvsadm` gives it.',
      body: NEW_SERVICE,
      answer: SERVICE_STATUS,
      status: 201,
      refusals: EXISTS,
      handle: async ({ body }) => {
        const { destinations, ...service } = parseService('', { destinations: [], ...body });
        await configuration.edit(`add ${serviceKeyText(service.key)}`, () => {
          const server = serverOf(environment);
          server.addService(service);
          for (const destination of destinations) server.addDestination(service.key, destination);
        });
        return statusOf(environment, service.key);
      },
    }),
    route({
      method: 'PUT',
      path: '/services/{protocol}/{endpoint}',
      summary: 'Give a service new properties',
      description:
        'As `ipvsadm -E`: what is missing becomes the default. Its servers and local addresses stay.',
      parameters: SERVICE,
      body: SERVICE_CHANGE,
      answer: SERVICE_STATUS,
      refusals: NO_SERVICE,
      handle: ({ parameters, body }) => {
        const key = keyOf(parameters);
        const { destinations: _, ...service } = parseService('', { ...body, key, destinations: [] });
        return edit(key, 'edit', () => service);
      },
    }),
    route({
      method: 'PATCH',
      path: '/services/{protocol}/{endpoint}',
      summary: 'Change some properties of a service',
      parameters: SERVICE,
      body: SERVICE_CHANGE,
      answer: SERVICE_STATUS,
      refusals: NO_SERVICE,
      handle: ({ parameters, body }) => {
        const key = keyOf(parameters);
        return edit(key, 'change', () => {
          const found = administration.serviceObject(key);
          if (!found) throw noService(key);
          const { destinations: _, ...service } = parseService('', {
            ...captureService(found),
            ...body,
            destinations: [],
          });
          return service;
        });
      },
    }),
    route({
      method: 'DELETE',
      path: '/services/{protocol}/{endpoint}',
      summary: 'Delete a service and its servers',
      parameters: SERVICE,
      answer: DONE,
      refusals: NO_SERVICE,
      handle: async ({ parameters }) => {
        const key = keyOf(parameters);
        await configuration.edit(`delete ${serviceKeyText(key)}`, () =>
          serverOf(environment).deleteService(key),
        );
        return { deleted: 1 };
      },
    }),
    route({
      method: 'DELETE',
      path: '/services',
      summary: 'Delete all services',
      answer: DONE,
      handle: () =>
        configuration.edit('delete all services', () => {
          const deleted = [...administration.serviceObjects()].length;
          serverOf(environment).flush();
          return { deleted };
        }),
    }),
  ];
}

function destinationEdits(environment: RouteEnvironment): Route[] {
  const { configuration } = environment;
  const path = '/services/{protocol}/{endpoint}/destinations';
  /** Edits a server whose properties `change` makes of those it has. */
  const edit = async (
    parameters: Place & { server: string },
    verb: string,
    change: (before: DestinationSpecification, key: ServiceKey) => DestinationSpecification,
  ) => {
    const key = keyOf(parameters);
    const { address, port } = serverAt(key, parameters.server);
    await configuration.edit(`${verb} ${serviceKeyText(key)} ${parameters.server}`, () => {
      const found = recordOf(environment, key, address, port);
      if (!found) throw noServer(environment, key, parameters.server);
      serverOf(environment).editDestination(key, change(captureDestination(found.specification), key));
    });
    return destinationOf(environment, key, address, port);
  };
  return [
    route({
      method: 'POST',
      path,
      summary: 'Add a real server to a service',
      parameters: SERVICE,
      body: NEW_DESTINATION,
      answer: DESTINATION_STATUS,
      status: 201,
      refusals: { ...NO_SERVICE, ...EXISTS },
      handle: async ({ parameters, body }) => {
        const key = keyOf(parameters);
        const destination = parseDestination('', body, key);
        await configuration.edit(
          `add ${serviceKeyText(key)} ${destination.address}:${destination.port}`,
          () => serverOf(environment).addDestination(key, destination),
        );
        return destinationOf(environment, key, canonical(destination.address), destination.port);
      },
    }),
    route({
      method: 'GET',
      path: `${path}/{server}`,
      summary: 'Show a real server',
      parameters: SERVER,
      answer: DESTINATION_STATUS,
      refusals: NO_SERVER,
      handle: ({ parameters }) => {
        const key = keyOf(parameters);
        const { address, port } = serverAt(key, parameters.server);
        return destinationOf(environment, key, address, port);
      },
    }),
    route({
      method: 'PUT',
      path: `${path}/{server}`,
      summary: 'Give a real server new properties',
      description: 'As `ipvsadm -e`: what is missing becomes the default.',
      parameters: SERVER,
      body: DESTINATION_CHANGE,
      answer: DESTINATION_STATUS,
      refusals: NO_SERVER,
      handle: ({ parameters, body }) =>
        edit(parameters, 'edit', ({ address, port }, key) =>
          parseDestination('', { ...body, address, port }, key),
        ),
    }),
    route({
      method: 'PATCH',
      path: `${path}/{server}`,
      summary: 'Change some properties of a real server: its weight, for example',
      parameters: SERVER,
      body: DESTINATION_CHANGE,
      answer: DESTINATION_STATUS,
      refusals: NO_SERVER,
      handle: ({ parameters, body }) =>
        edit(parameters, 'change', (before, key) => parseDestination('', { ...before, ...body }, key)),
    }),
    route({
      method: 'DELETE',
      path: `${path}/{server}`,
      summary: 'Delete a real server',
      parameters: SERVER,
      answer: DONE,
      refusals: NO_SERVER,
      handle: async ({ parameters }) => {
        const key = keyOf(parameters);
        const { address, port } = serverAt(key, parameters.server);
        await configuration.edit(`delete ${serviceKeyText(key)} ${parameters.server}`, () => {
          if (!recordOf(environment, key, address, port)) throw noServer(environment, key, parameters.server);
          serverOf(environment).deleteDestination(key, address, port);
        });
        return { deleted: 1 };
      },
    }),
  ];
}

function counters(environment: RouteEnvironment): Route[] {
  const { configuration, log } = environment;
  const zeroed = object({ zeroed: text() });
  return [
    route({
      method: 'POST',
      path: '/services/{protocol}/{endpoint}/zero',
      summary: 'Zero the counters of a service and its servers',
      parameters: SERVICE,
      answer: zeroed,
      refusals: NO_SERVICE,
      handle: ({ parameters, peer }) => {
        const key = keyOf(parameters);
        serverOf(environment).zero(key);
        log.info('zeroed', { by: peerText(peer), service: serviceKeyText(key) });
        return { zeroed: serviceKeyText(key) };
      },
    }),
    route({
      method: 'POST',
      path: '/statistics/zero',
      summary: 'Zero all counters',
      answer: zeroed,
      handle: ({ peer }) => {
        serverOf(environment).zero();
        log.info('zeroed', { by: peerText(peer), service: 'all' });
        return { zeroed: 'all' };
      },
    }),
    route({
      method: 'POST',
      path: '/services/{protocol}/{endpoint}/local-addresses',
      summary: 'Add a local address for FULLNAT',
      parameters: SERVICE,
      body: object({
        address: text({ maxLength: 64, examples: ['10.0.0.50'] }),
        interfaceName: optional(text({ maxLength: 15, description: 'That it is meant for.' })),
      }),
      answer: SERVICE_STATUS,
      status: 201,
      refusals: { ...NO_SERVICE, ...EXISTS },
      handle: async ({ parameters, body: { address, interfaceName } }) => {
        const key = keyOf(parameters);
        await configuration.edit(`add local address ${serviceKeyText(key)} ${address}`, () =>
          serverOf(environment).addLocalAddress(key, address, interfaceName),
        );
        return statusOf(environment, key);
      },
    }),
    route({
      method: 'DELETE',
      path: '/services/{protocol}/{endpoint}/local-addresses/{address}',
      summary: 'Delete a local address; connections that use it go on',
      parameters: { ...SERVICE, address: text({ maxLength: 64, examples: ['10.0.0.50'] }) },
      answer: SERVICE_STATUS,
      refusals: { 404: 'There is no such service, or it has no such address.' },
      handle: async ({ parameters }) => {
        const key = keyOf(parameters);
        await configuration.edit(`delete local address ${serviceKeyText(key)} ${parameters.address}`, () =>
          deleteLocalAddress(environment, key, parameters.address),
        );
        return statusOf(environment, key);
      },
    }),
  ];
}

function deleteLocalAddress(environment: RouteEnvironment, key: ServiceKey, address: string): void {
  try {
    serverOf(environment).deleteLocalAddress(key, address);
  } catch (error) {
    if (!(error instanceof IpvsError) || error.code !== 'ENOENT') throw error;
    throw new RequestRefused(
      404,
      `the service ${serviceKeyText(key)} has no local address ${address}`,
      'address',
    );
  }
}

/** A server of a service as the director has it. */
function recordOf(environment: RouteEnvironment, key: ServiceKey, address: string, port: number) {
  const service = directorOf(environment).administration.serviceObject(key);
  return service?.destinations.find(
    ({ specification: each }) => each.address === address && each.port === port,
  );
}

/** Some of the services, in the listing's order. */
function page(environment: RouteEnvironment, limit: number, after: string | undefined) {
  const server = serverOf(environment);
  const services: ServiceStatus[] = [];
  let isBehind = after === undefined;
  for (const { name, key } of directorOf(environment).administration.serviceObjects()) {
    if (!isBehind) isBehind = name === after;
    else if (services.length === limit) {
      return { services, next: serviceKeyText((services.at(-1) as ServiceStatus).key) };
    } else services.push(server.service(key) as ServiceStatus);
  }
  if (!isBehind) throw new RequestRefused(410, `there is no service ${after} any more: begin anew`, 'after');
  return { services };
}

function keyOf({ protocol, endpoint }: Place): ServiceKey {
  const key = parseServiceKey(`${protocol} ${endpoint}`);
  if (key) return key;
  const expected = protocol.startsWith('fwm')
    ? 'a mark from 1 to 4294967295'
    : 'an address and a port, as 10.0.0.3:80 or [2001:db8::3]:80';
  throw new RequestRefused(
    400,
    `endpoint is ${JSON.stringify(endpoint)}: it has to be ${expected}`,
    'endpoint',
  );
}

/** `10.0.0.7:80`, `[2001:db8::7]:80`, or without the port. */
function serverAt(key: ServiceKey, text: string): { address: string; port: number } {
  const [, six, four, digits] = /^(?:\[([^\]]+)\]|([^:[\]]+))(?::([0-9]{1,5}))?$/.exec(text) ?? [];
  const address = parseAddress(six ?? four ?? '');
  const port = digits === undefined ? ('mark' in key ? 0 : key.port) : Number(digits);
  if (!address || (address.length === 16) !== (six !== undefined) || port > 65_535) {
    throw new RequestRefused(
      400,
      `server is ${JSON.stringify(text)}: it has to be an address and a port, as 10.0.0.7:80 or [2001:db8::7]:80`,
      'server',
    );
  }
  return { address: formatAddress(address), port };
}

function canonical(address: string): string {
  return formatAddress(parseAddress(address) as Uint8Array);
}

function statusOf(environment: RouteEnvironment, key: ServiceKey): ServiceStatus {
  const status = serverOf(environment).service(key);
  if (!status) throw noService(key);
  return status;
}

function destinationOf(environment: RouteEnvironment, key: ServiceKey, address: string, port: number) {
  const found = statusOf(environment, key).destinations.find(
    each => each.address === address && each.port === port,
  );
  if (!found) throw noServer(environment, key, `${address}:${port}`);
  return found;
}

function noService(key: ServiceKey): RequestRefused {
  return new RequestRefused(404, `there is no service ${serviceKeyText(key)}`, 'endpoint');
}

function noServer(environment: RouteEnvironment, key: ServiceKey, server: string): RequestRefused {
  if (!directorOf(environment).administration.serviceObject(key)) return noService(key);
  return new RequestRefused(404, `the service ${serviceKeyText(key)} has no server ${server}`, 'server');
}
