/**
 * Notices when a real server's next hop becomes known or is lost, and when a server is overloaded or no longer: the data
 * paths keep these as flags in its record, here they become events.
 */
import { DestinationFlag } from '../ipvs/destinations.ts';
import type { Director } from '../ipvs/director.ts';
import type { Destination } from '../ipvs/service-table.ts';
import { serviceKeyText } from '../ipvs/specification.ts';
import type { Events } from './events.ts';
import type { Log } from './log.ts';

/** Milliseconds between two looks. */
export const HEALTH_INTERVAL = 1000;
/** Changes of one look that are told one by one; of more, only how many. */
const MOST_TOLD = 100;

const WATCHED = DestinationFlag.resolved | DestinationFlag.overloaded;

export class HealthWatch {
  readonly #director: Director;
  readonly #events: Events;
  readonly #log: Log;
  /** Flags of each record at the last look; `used` is set if it was a server's. */
  readonly #seen: Uint8Array;

  constructor(director: Director, events: Events, log: Log) {
    this.#director = director;
    this.#events = events;
    this.#log = log;
    this.#seen = new Uint8Array(director.destinations.capacity);
    this.look();
  }

  /** Looks at all records: a few nanoseconds each. */
  look(): void {
    const { destinations, pool } = this.#director;
    const seen = this.#seen;
    let told = 0;
    for (let index = 0; index < seen.length; index++) {
      const flags = destinations.flags(index) & (WATCHED | DestinationFlag.used);
      const before = seen[index] as number;
      if (flags === before) continue;
      seen[index] = flags;
      const owner = pool.owners[index];
      // A server that came or went is a change of the configuration, and told as such.
      if (!owner || (flags & before & DestinationFlag.used) === 0) continue;
      if (++told <= MOST_TOLD) this.#tell(owner, flags, before ^ flags);
    }
    if (told > MOST_TOLD) {
      this.#log.warning('health of many servers changed', { servers: told, told: MOST_TOLD });
      this.#events.publish('health', { servers: told, told: MOST_TOLD });
    }
  }

  #tell({ service, specification: { address, port } }: Destination, flags: number, changed: number): void {
    const resolved = (flags & DestinationFlag.resolved) !== 0;
    const overloaded = (flags & DestinationFlag.overloaded) !== 0;
    const name = serviceKeyText(service.key);
    this.#events.publish('health', { service: name, address, port, resolved, overloaded });
    const fields = { service: name, server: address, port };
    if (changed & DestinationFlag.resolved) {
      if (resolved) this.#log.info('next hop known', fields);
      else this.#log.warning('next hop lost', fields);
    }
    if (changed & DestinationFlag.overloaded) {
      this.#log.info(overloaded ? 'server overloaded' : 'server no longer overloaded', fields);
    }
  }
}
