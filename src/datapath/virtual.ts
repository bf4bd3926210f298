/** A data path without a wire: a director on a described host, for trying out configurations without any privilege. */
import { Director } from '../ipvs/director.ts';
import type { Datapath, DatapathCounters, DatapathStatus } from './datapath.ts';
import { StaticHost, type StaticInterface } from './static-host.ts';

/** The host if nothing else is said: that on which the real ipvsadm was recorded. */
export const DEFAULT_INTERFACES: readonly StaticInterface[] = [
  { name: 'eth0', addresses: ['10.0.0.1/24', '10.0.0.3/32', '2001:db8::1/64'], mtu: 1500 },
];

/** Milliseconds between two looks at what time demands. */
const EXPIRY_INTERVAL = 1000;

export interface VirtualDatapathOptions {
  /** Besides `lo`. Default: `DEFAULT_INTERFACES`. */
  interfaces?: readonly StaticInterface[];
}

export class VirtualDatapath implements Datapath {
  readonly kind = 'virtual';
  readonly director: Director;
  readonly #host: StaticHost;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: VirtualDatapathOptions = {}) {
    this.#host = new StaticHost(options.interfaces ?? DEFAULT_INTERFACES);
    this.director = new Director({
      network: this.#host,
      host: this.#host,
      random: () => crypto.getRandomValues(new Uint32Array(1))[0] ?? 0,
    });
  }

  now(): number {
    return performance.now();
  }

  async start(): Promise<void> {
    this.#timer = setInterval(() => this.director.expire(this.now()), EXPIRY_INTERVAL);
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
  }

  interfaceIndex(name: string): number | undefined {
    const at = this.#host.interfaces.findIndex(each => each.name === name);
    return at < 0 ? undefined : at + 1;
  }

  counters(): DatapathCounters {
    return {
      program: {},
      director: { received: 0, transmitted: 0 },
      drops: {},
      tables: { connections: usage(this.director.connections), servers: usage(this.director.destinations) },
    };
  }

  status(): DatapathStatus {
    return {
      interfaces: this.#host.interfaces.map(({ name, addresses }) => [name, ...addresses].join(' ')),
    };
  }
}

function usage({ size, capacity }: { size: number; capacity: number }): { used: number; capacity: number } {
  return { used: size, capacity };
}
