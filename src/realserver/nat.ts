/** NAT: replies leave by the director, which turns the server's address into the VIP again. */
import { type Family, familyOf, formatAddress, parseAddress } from '../wire/address.ts';
import { examineVips } from './fullnat.ts';
import { anyClient, interfaces, policyRules, routeLines, type Way, wayTo } from './host.ts';
import { RouteStep, SettingStep } from './network-steps.ts';
import type { Request } from './request.ts';
import type { Finding, Plan, Step } from './step.ts';

/** Metric of IPv6 default routes made here: before those that routers announce (1024). */
const METRIC6 = 1;

/** One family's way through the director. */
interface Passage {
  family: Family;
  director: string;
  device: string;
  /** This host's addresses on the director's network. */
  own: { address: string; prefixLength: number }[];
}

/** @throws Error if a director is not on a network of this host */
export function planNat(request: Request): Plan {
  const passages = request.directors.map(({ address }) => passageTo(address, request.interfaces));
  return {
    steps: passages.flatMap(passage => [
      ...redirectSettings(passage),
      defaultRoute(passage),
      ...(request.clientsOnLan ? lanRoutes(passage) : []),
    ]),
    examine: () => [
      ...examineVips(request.vips),
      ...passages.flatMap(passage => [
        ...examineReplies(passage, request.clients),
        ...examineNetworks(passage, request.clientsOnLan),
        ...examineRoutes(passage),
      ]),
    ],
    advice: () =>
      request.clientsOnLan
        ? [
            "all traffic to this host's own network passes the director, which has to forward it (net.ipv4.ip_forward=1)",
          ]
        : [],
  };
}

function passageTo(director: string, named: readonly string[]): Passage {
  const family = familyOf(director);
  const way = wayTo(director);
  if (!way || way.isLocal || (way.gateway !== undefined && way.gateway !== director)) {
    const how = way?.isLocal
      ? "is this host's own address"
      : way
        ? `is behind ${way.gateway}`
        : 'cannot be reached';
    throw new Error(
      `the director ${director} ${how}: NAT needs it on a network of this server, as the next hop of all replies`,
    );
  }
  if (named.length > 0 && !named.includes(way.device)) {
    throw new Error(`the director ${director} is on ${way.device}, not on ${named.join(', ')} (--interface)`);
  }
  const own = interfaces()
    .find(({ name }) => name === way.device)
    ?.addresses.filter(each => each.family === family && each.scope === 'global');
  return { family, director, device: way.device, own: own ?? [] };
}

/**
 * A director that sends packets on to the network they came from tells hosts the shorter way, and replies leave it. A
 * host that does not forward listens if either of the two settings says so (IN_DEV_RX_REDIRECTS in linux/inetdevice.h).
 */
function redirectSettings({ family, device }: Passage): Step[] {
  const effect = 'an ICMP redirect may lead replies around the director';
  return (family === 4 ? ['all', device] : [device]).map(
    each =>
      new SettingStep({
        name: { family, device: each, key: 'accept_redirects' },
        value: 0,
        combined: 'own',
        effect,
      }),
  );
}

function passes(way: Way | undefined, { director, device }: Passage): boolean {
  return way?.gateway === director && way.device === device;
}

function defaultRoute(passage: Passage): Step {
  const { family, director, device } = passage;
  const lines = routeLines(family, 'default');
  const route =
    family === 4
      ? `default via ${director} dev ${device}`
      : `default via ${director} dev ${device} metric ${METRIC6} pref medium`;
  // Only a route of the same metric is in the way.
  const before = lines.find(line =>
    family === 4 ? !/ metric \d/.test(line) : / metric 1 /.test(`${line} `),
  );
  const isMade = (): boolean => passes(wayTo(anyClient(family)), passage);
  return new RouteStep(
    family,
    route,
    before,
    'replies do not pass the director and clients do not know them',
    isMade,
  );
}

/** The network in two halves, each more specific than the network's own route, which stays. */
function lanRoutes({ family, director, device, own }: Passage): Step[] {
  const effect = 'replies to clients on this network do not pass the director';
  const tail = family === 4 ? '' : ` metric ${METRIC6} pref medium`;
  const link = family === 4 ? `${director} dev ${device} scope link` : `${director} dev ${device}${tail}`;
  const halves = new Set(own.flatMap(({ address, prefixLength }) => halvesOf(address, prefixLength)));
  return [
    new RouteStep(family, link, undefined, effect),
    ...[...halves].map(
      half => new RouteStep(family, `${half} via ${director} dev ${device}${tail}`, undefined, effect),
    ),
  ];
}

function halvesOf(address: string, prefixLength: number): string[] {
  const bytes = parseAddress(address) ?? new Uint8Array(4);
  // Of two addresses one half would be the host's own.
  if (prefixLength > bytes.length * 8 - 2) return [];
  const network = bytes.map((byte, at) => byte & ~(0xff >> Math.min(Math.max(prefixLength - 8 * at, 0), 8)));
  const upper = network.slice();
  upper[prefixLength >>> 3] = (upper[prefixLength >>> 3] as number) | (0x80 >>> (prefixLength & 7));
  return [network, upper].map(half => `${formatAddress(half)}/${prefixLength + 1}`);
}

/** What the kernel would do with replies, from each address of this host on the director's network. */
function examineReplies(passage: Passage, clients: readonly string[]): Finding[] {
  const { family, director, device, own } = passage;
  // Without the route in place every reply goes wrong; the step says so.
  if (!passes(wayTo(anyClient(family)), passage)) return [];
  const asked = clients.filter(client => familyOf(client) === family);
  const findings: Finding[] = [];
  for (const { address } of own) {
    for (const client of [anyClient(family), ...asked]) {
      const way = wayTo(client, address);
      if (passes(way, passage)) continue;
      const taken = !way
        ? 'nowhere'
        : way.gateway
          ? `by ${way.gateway} on ${way.device}`
          : `straight by ${way.device}`;
      findings.push({
        level: 'wrong',
        text: `replies from ${address} to ${client} go ${taken}, not by the director ${director}`,
        remedy: `ip -${family} route get ${client} from ${address} shows the way; lead it by ${director} dev ${device}`,
        isOutcome: true,
      });
    }
  }
  return findings;
}

/** Clients on the server's own network would get replies straight from the server, from an address they did not ask. */
function examineNetworks(passage: Passage, clientsOnLan: boolean): Finding[] {
  const { family, director, own } = passage;
  if (clientsOnLan) return [];
  const local = new Set(interfaces().flatMap(({ addresses }) => addresses.map(({ address }) => address)));
  return own.flatMap(({ address, prefixLength }) => {
    const neighbour = neighboursOf(address, prefixLength).find(each => !local.has(each) && each !== director);
    if (!neighbour || passes(wayTo(neighbour, address), passage)) return [];
    return [
      {
        level: 'warning',
        text: `clients on this host's own network (as ${neighbour}) get replies around the director, and drop them`,
        remedy: `if there are such clients: --clients-on-lan (IPv${family})`,
      },
    ];
  });
}

/** Some addresses of the same network. */
function neighboursOf(address: string, prefixLength: number): string[] {
  const bytes = parseAddress(address) ?? new Uint8Array(4);
  if (prefixLength > bytes.length * 8 - 2) return [];
  const last = bytes.length - 1;
  return [1, 2, 3].map(flip => {
    const other = bytes.slice();
    other[last] = (other[last] as number) ^ flip;
    return formatAddress(other);
  });
}

/** Other ways that replies may take, some day or some of them. */
function examineRoutes(passage: Passage): Finding[] {
  const { family, director } = passage;
  const findings: Finding[] = [];
  const others = (line: string): boolean =>
    !line.includes(` via ${director} `) && !line.endsWith(` via ${director}`);
  const defaults = routeLines(family, 'default');
  if (defaults.some(line => line.startsWith('nexthop'))) {
    findings.push({
      level: 'wrong',
      text: 'the default route has several next hops: only some replies pass the director',
      remedy: `ip -${family} route replace default via ${director}`,
    });
  } else if (passes(wayTo(anyClient(family)), passage)) {
    for (const line of defaults.filter(others)) {
      findings.push({
        level: 'warning',
        text: `there is another default route, "${line}": it takes over where the director's is lost`,
        remedy: `ip -${family} route delete ${line}`,
      });
    }
  }
  for (const line of routeLines(family)
    .filter(each => / via /.test(each) && !each.startsWith('default'))
    .filter(others)) {
    findings.push({
      level: 'warning',
      text: `clients behind the route "${line}" get replies around the director`,
      remedy: `if there are such clients: ip -${family} route replace ${line.split(' ')[0]} via ${director}`,
    });
  }
  for (const rule of policyRules(family)) {
    findings.push({
      level: 'warning',
      text: `the rule "${rule}" may lead replies elsewhere; addresses were tried, marks and ports were not`,
      remedy: `ip -${family} rule show; --client <address> looks up more clients`,
    });
  }
  return findings;
}
