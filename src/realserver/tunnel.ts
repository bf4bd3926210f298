/** Tunnels: as direct routing, and what comes is taken out of its outer packet, by a program or the kernel's devices. */
import { join } from 'node:path';
import type { Family } from '../wire/address.ts';
import { interfaces, routeLines } from './host.ts';
import { RouteStep } from './network-steps.ts';
import {
  EntryStep,
  FilterStep,
  mapAddress,
  mapPrefix,
  PinnedObjectStep,
  pinDirectory,
  readCounts,
} from './program-steps.ts';
import { familiesOf, type Request, type Tunnel } from './request.ts';
import { planSilentVip } from './silent-vip.ts';
import type { Finding, Plan, Step } from './step.ts';
import { hasTunnelDevices, tunnelDeviceSteps } from './tunnel-devices.ts';
import { tunnelMss, tunnelOverhead } from './tunnel-overhead.ts';

/** TUNNEL_... in bpf/realserver/decapsulate.bpf.c */
export const TunnelBit: Readonly<Record<Tunnel, number>> = { ipip: 1, gue: 2, gre: 4 };
const ONLY_DIRECTORS = 0x100;

/** enum count in bpf/realserver/decapsulate.bpf.c */
export const DECAPSULATION_COUNTS = [
  'decapsulated',
  'notADirector',
  'fragment',
  'damaged',
  'congestion',
] as const;

const MAPS = ['settings', 'tunnel_ends', 'virtual_addresses', 'directors', 'counts'];
/** Order among filters of an interface: early, with room in front. */
const PREFERENCE = 100;

/** @throws Error if the interface is not known, or no address is there where tunnels could end */
export function planTunnel(request: Request): Plan {
  const base = planSilentVip(request);
  const ends = tunnelEnds(request, base.receiving);
  const outers = outerFamilies(request, ends);
  const byDevice = usesDevices(request, outers);
  const directory = pinDirectory('decapsulate');
  const steps = byDevice
    ? tunnelDeviceSteps(request.tunnels, ends, request.guePort)
    : programSteps(request, directory, ends, base.receiving);
  const mtu = Math.min(
    ...interfaces().flatMap(each => (base.receiving.includes(each.name) ? [each.mtu] : [])),
  );
  return {
    // The VIP comes last: nothing arrives for it before it can be taken out.
    steps: [...steps, ...base.steps, ...segmentSteps(request, outers, mtu)],
    examine: () => [
      ...base.examine(),
      ...(byDevice ? [] : examineCounts(join(directory, 'counts'))),
      ...examineSegments(request),
    ],
    advice: () => [
      ...sizeAdvice(request, outers, mtu),
      ...(request.directors.length === 0
        ? [
            "whoever can send to this server can put packets of any source into a tunnel to the VIP: name the directors with --director, or keep others' tunnels out",
          ]
        : []),
    ],
  };
}

function usesDevices({ decapsulation, directors, tunnels }: Request, outers: readonly Family[]): boolean {
  if (decapsulation === 'bpf') return false;
  if (decapsulation === 'device') {
    if (directors.length > 0) {
      throw new Error(
        '--director with --decapsulation device: the devices take tunnels from anybody; use bpf',
      );
    }
    if (!hasTunnelDevices(tunnels, outers)) {
      throw new Error(`this kernel has no devices for ${tunnels.join(', ')}: use --decapsulation bpf`);
    }
    return true;
  }
  return directors.length === 0 && hasTunnelDevices(tunnels, outers);
}

/** Addresses of this host that a director can have as a real server's. */
function tunnelEnds({ vips }: Request, receiving: readonly string[]): string[] {
  const ends = interfaces()
    .filter(({ name }) => receiving.includes(name))
    .flatMap(({ addresses }) => addresses)
    .filter(({ address, scope }) => scope === 'global' && !vips.includes(address))
    .map(({ address }) => address);
  if (ends.length > 0) return ends;
  throw new Error(`${receiving.join(', ')} has no address that a director could send tunnels to`);
}

function outerFamilies({ directors }: Request, ends: readonly string[]): Family[] {
  const named = familiesOf(directors.map(({ address }) => address));
  return named.length > 0 ? named : familiesOf(ends);
}

function programSteps(
  request: Request,
  directory: string,
  ends: readonly string[],
  receiving: readonly string[],
): Step[] {
  const { vips, tunnels, directors, guePort } = request;
  const map = (name: string): string => join(directory, name);
  const one = Uint8Array.of(1);
  return [
    new PinnedObjectStep('decapsulate.bpf.o', directory, ['decapsulate'], MAPS),
    new EntryStep({
      map: map('settings'),
      key: new Uint8Array(4),
      value: settingsBytes(tunnels, directors.length > 0, guePort),
      label: `tunnels: ${describe(tunnels, guePort)}${directors.length > 0 ? ', of the named directors only' : ''}`,
      text: `${describe(tunnels, guePort)} are not taken out of tunnels as asked for`,
    }),
    ...directors.map(prefix => {
      const text = `${prefix.address}/${prefix.length}`;
      return new EntryStep({
        map: map('directors'),
        key: mapPrefix(prefix),
        value: one,
        label: `tunnels from ${text} are taken`,
        text: `tunnels from ${text} are refused`,
      });
    }),
    ...ends.map(
      end =>
        new EntryStep({
          map: map('tunnel_ends'),
          key: mapAddress(end),
          value: one,
          label: `tunnels end at ${end}`,
          text: `tunnels to ${end} are not this program's`,
        }),
    ),
    ...vips.map(
      vip =>
        new EntryStep({
          map: map('virtual_addresses'),
          key: mapAddress(vip),
          value: one,
          label: `packets to ${vip} are taken out of tunnels`,
          text: `packets to ${vip} stay in their tunnels`,
          vips: [vip],
        }),
    ),
    ...receiving.map(device => new FilterStep(device, map('decapsulate'), PREFERENCE)),
  ];
}

/** struct settings in bpf/realserver/decapsulate.bpf.c */
function settingsBytes(tunnels: readonly Tunnel[], onlyDirectors: boolean, guePort: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(8));
  const bits = tunnels.reduce((sum, tunnel) => sum | TunnelBit[tunnel], onlyDirectors ? ONLY_DIRECTORS : 0);
  view.setUint32(0, bits, true);
  view.setUint16(4, guePort);
  return new Uint8Array(view.buffer);
}

function describe(tunnels: readonly Tunnel[], guePort: number): string {
  return tunnels.map(tunnel => (tunnel === 'gue' ? `gue (port ${guePort})` : tunnel)).join(', ');
}

/** `advmss` on the default routes, which the server's SYN/ACK to a client takes its segment size from. */
function segmentSteps(request: Request, outers: readonly Family[], mtu: number): Step[] {
  if (request.advertisedMss === undefined) return [];
  return familiesOf(request.vips).flatMap(family => {
    const mss =
      request.advertisedMss === 'fit' ? smallestMss(request, outers, mtu, family) : request.advertisedMss;
    return routeLines(family, 'default')
      .filter(line => line.startsWith('default'))
      .map(line => {
        const [head = line, tail] = line.replace(/ advmss \d+/, '').split(/ (?=pref )/);
        const route = `${head} advmss ${mss}${tail ? ` ${tail}` : ''}`;
        return new RouteStep(
          family,
          route,
          line,
          "clients' segments are larger than what fits into the tunnel",
        );
      });
  });
}

function smallestMss({ tunnels }: Request, outers: readonly Family[], mtu: number, inner: Family): number {
  return Math.min(...outers.map(outer => tunnelMss(mtu, tunnels, outer, inner)));
}

function sizeAdvice(request: Request, outers: readonly Family[], mtu: number): string[] {
  const { tunnels, vips, advertisedMss } = request;
  const sizes = outers.map(outer => {
    const overhead = Math.max(...tunnels.map(tunnel => tunnelOverhead(tunnel, outer)));
    const segments = familiesOf(vips).map(
      inner => `${tunnelMss(mtu, tunnels, outer, inner)} over IPv${inner}`,
    );
    return `through IPv${outer} (${overhead} bytes more) fit packets of ${mtu - overhead} bytes, TCP segments of ${segments.join(', ')}`;
  });
  const remedy =
    advertisedMss === undefined
      ? '; --advmss announces that to clients, otherwise the director answers what is too big, and clients learn it one by one'
      : '';
  return sizes.map(size => `with an MTU of ${mtu} between director and server, ${size}${remedy}`);
}

function examineSegments({ advertisedMss, vips }: Request): Finding[] {
  if (advertisedMss === undefined) return [];
  return familiesOf(vips)
    .filter(family => routeLines(family, 'default').length === 0)
    .map(family => ({
      level: 'warning',
      text: `there is no default route for IPv${family} that could announce a segment size`,
      remedy: `ip -${family} route add default via <gateway> advmss <bytes>`,
    }));
}

function examineCounts(map: string): Finding[] {
  const {
    notADirector = 0,
    fragment = 0,
    damaged = 0,
    congestion = 0,
  } = readCounts(map, DECAPSULATION_COUNTS);
  const warn = (count: number, text: string, remedy: string): Finding[] =>
    count === 0 ? [] : [{ level: 'warning', text: `${count} ${text}`, remedy }];
  return [
    ...warn(
      notADirector,
      'packets came in tunnels of somebody who is no director: dropped',
      'if it was a director, name it with --director; if not, somebody tries to forge packets',
    ),
    ...warn(
      fragment,
      'packets came in fragments of the tunnel, which the program cannot put together',
      'let packets fit: --advmss, or a larger MTU between director and server',
    ),
    ...warn(damaged, 'packets in tunnels were damaged', 'look at the network between director and server'),
    ...warn(
      congestion,
      'packets were dropped to report congestion on the way (ECN)',
      'none: this is how TCP hears of it',
    ),
  ];
}
