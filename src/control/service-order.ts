/** The order in which services are wanted by who shows only the first of them. */
import type { Administration } from '../ipvs/administration.ts';
import type { DestinationTable } from '../ipvs/destinations.ts';
import type { Service } from '../ipvs/service-table.ts';
import { Counter } from '../ipvs/statistics.ts';

export const SERVICE_ORDERS = ['name', 'connections', 'active', 'packets', 'bytes'] as const;
export type ServiceOrder = (typeof SERVICE_ORDERS)[number];

/**
 * The first `limit` services: by name, or the busiest. What is alike goes by name.
 * @param isReversed the last ones, the last first
 */
export function firstServices(
  administration: Administration,
  destinations: DestinationTable,
  { order, isReversed, limit }: { order: ServiceOrder; isReversed: boolean; limit: number },
): Service[] {
  const sign = isReversed ? -1 : 1;
  return Array.from(administration.serviceObjects(), service => ({
    service,
    rank: rankOf(administration, destinations, service, order),
  }))
    .sort((one, other) => sign * (other.rank - one.rank || compareNames(one.service, other.service)))
    .slice(0, limit)
    .map(({ service }) => service);
}

/** By protocol, address and port: as people sort names with numbers in them, at a fraction of the cost. */
function compareNames(
  { key: one, address: first }: Service,
  { key: other, address: second }: Service,
): number {
  if ('mark' in one || 'mark' in other) {
    if (!('mark' in one)) return 1;
    if (!('mark' in other)) return -1;
    return one.family - other.family || one.mark - other.mark;
  }
  if (one.protocol !== other.protocol) return one.protocol < other.protocol ? -1 : 1;
  return (first && second && Buffer.compare(first, second)) || one.port - other.port;
}

function rankOf(
  administration: Administration,
  destinations: DestinationTable,
  service: Service,
  order: ServiceOrder,
): number {
  const rate = (counter: number): number => administration.rateOf(service, counter);
  switch (order) {
    case 'name':
      return 0;
    case 'connections':
      return rate(Counter.connections);
    case 'packets':
      return rate(Counter.inPackets) + rate(Counter.outPackets);
    case 'bytes':
      return rate(Counter.inBytes) + rate(Counter.outBytes);
    case 'active':
      return service.destinations.reduce((sum, { index }) => sum + destinations.active(index), 0);
  }
}
