/** The neighbours of the director's host: the table, pinned MACs, the guard. */
import { distinctPins, formatPin, makePin, type Pin } from '../../ipvs/pins.ts';
import { formatAddress, parseAddress } from '../../wire/address.ts';
import type { NeighbourKeeper } from '../neighbour-keeper.ts';
import { RequestRefused } from '../refused.ts';
import { anything, list, nullable, object, optional, text, word } from '../schema.ts';
import { directorOf, type Route, type RouteEnvironment, route } from './route.ts';

const PIN = object({
  address: text({ examples: ['10.0.0.7'] }),
  mac: text({ examples: ['00:0c:29:3b:07:73'] }),
});
const PINS = object({ pins: list(PIN) }, { title: 'Pins' });
const OUTCOME = object({
  pins: list(PIN),
  notes: list(text(), { description: 'What is not in force yet, and why.' }),
});

export function arpRoutes(environment: RouteEnvironment, neighbours: NeighbourKeeper): Route[] {
  const { configuration } = environment;
  const director = directorOf(environment);
  const pins = (): Pin[] => director.pins.map(pin => ({ ...pin }));
  const change = async (cause: string, wanted: Pin[], fresh: Pin[]) => {
    const { refusals } = await neighbours.foresee(fresh);
    if (refusals.length > 0) throw new RequestRefused(409, refusals.join('; '));
    await configuration.edit(cause, () => {
      director.pins = wanted;
    });
    return { pins: pins(), notes: await neighbours.settle() };
  };
  return [
    route({
      method: 'GET',
      path: '/arp',
      summary: 'List the neighbours',
      description: "The table of the director's host: the kernel's, or the pins of a virtual data path.",
      parameters: { family: optional(word(['4', '6'])) },
      answer: object({
        entries: list(
          object({
            address: text(),
            mac: nullable(text()),
            state: text({ examples: ['REACHABLE', 'PERMANENT'] }),
            interface: text(),
          }),
        ),
      }),
      handle: ({ parameters: { family } }) => ({
        entries: neighbours
          .table(family === '6' ? 6 : 4)
          .map(({ address, mac, state, interface: device }) => ({ address, mac, state, interface: device })),
      }),
    }),
    route({
      method: 'GET',
      path: '/arp/pins',
      summary: 'List the pinned MACs',
      answer: PINS,
      handle: () => ({ pins: pins() }),
    }),
    route({
      method: 'POST',
      path: '/arp/pins',
      summary: 'Pin addresses to MACs',
      description: 'All of them or none; a pin of the same address gives way.',
      body: PINS,
      answer: OUTCOME,
      refusals: { 409: 'The kernel has a static entry for the address that somebody else made.' },
      handle: ({ body }) => {
        const fresh = body.pins.map(({ address, mac }) => makePin(address, mac));
        const cause = `arp pin ${fresh.map(formatPin).join(', ').slice(0, 200)}`;
        return change(cause, distinctPins([...director.pins, ...fresh]), fresh);
      },
    }),
    route({
      method: 'POST',
      path: '/arp/unpin',
      summary: 'Take pins off addresses',
      body: object({ addresses: list(text()) }),
      answer: OUTCOME,
      refusals: { 404: 'One of the addresses is not pinned: nothing is changed.' },
      handle: ({ body: { addresses } }) => {
        const gone = new Set(addresses.map(canonical));
        const missing = [...gone].filter(address => !director.pins.some(pin => pin.address === address));
        if (missing.length > 0) throw new RequestRefused(404, `${missing.join(', ')}: not pinned`);
        const rest = director.pins.filter(({ address }) => !gone.has(address));
        return change(`arp unpin ${[...gone].join(' ').slice(0, 200)}`, rest, []);
      },
    }),
    route({
      method: 'GET',
      path: '/arp/cluster',
      summary: 'Say what the guard is told of the cluster',
      answer: object({ vips: list(text()), servers: list(text()), pins: list(PIN) }),
      handle: () => {
        const { vips, servers } = neighbours.cluster();
        return { vips: [...vips], servers: servers.map(({ address }) => address), pins: pins() };
      },
    }),
    route({
      method: 'GET',
      path: '/arp/guard',
      summary: 'Show the guard over ARP and neighbour discovery',
      answer: object({
        guard: nullable(
          anything({
            description: 'Interfaces with their modes, messages seen, events by kind, what was dropped.',
          }),
        ),
      }),
      handle: () => ({ guard: neighbours.guardStatus() ?? null }),
    }),
  ];
}

function canonical(address: string): string {
  const bytes = parseAddress(address);
  if (!bytes) throw new RequestRefused(400, `"${address}" is no IP address`);
  return formatAddress(bytes);
}
