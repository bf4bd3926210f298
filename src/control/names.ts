/** Names of ports and hosts for `ipvsadm`: /etc/services, /etc/hosts, then DNS. */
import { Resolver } from 'node:dns/promises';
import { readFileSync, statSync } from 'node:fs';
import type { ProtocolName } from '../ipvs/specification.ts';
import { NO_NAMES, namesFromFiles } from '../ipvsadm/name-files.ts';
import type { NameService } from '../ipvsadm/names.ts';

/** Milliseconds that a question to DNS may take, and for which its answer is believed. */
const DNS_TIMEOUT = 1000;
const DNS_BELIEF = 60_000;

/** Thrown by `hostAddress` for a name that has to be looked up first: `lookUp`, then ask again. */
export class NameUnknown extends Error {
  readonly host: string;

  constructor(host: string) {
    super(`${host} has to be looked up`);
    this.host = host;
  }
}

interface Found {
  value: string | undefined;
  /** Milliseconds of `performance.now()` until which it holds. */
  until: number;
}

export interface SystemNamesOptions {
  /** False: only the files count. Default true. */
  dns?: boolean;
}

/** Answers at once from the files and from what was looked up before. */
export class SystemNames implements NameService {
  readonly #resolver: Resolver | undefined;
  readonly #found = new Map<string, Found>();
  #files: NameService = NO_NAMES;
  #version = '';
  /** Addresses whose names were asked for and are not known, until `lookUpWanted`. */
  readonly #wanted = new Set<string>();

  constructor(options: SystemNamesOptions = {}) {
    this.#resolver = options.dns === false ? undefined : new Resolver({ timeout: DNS_TIMEOUT, tries: 1 });
  }

  /** Reads the files anew if they have changed and forgets what is wanted; once a command. */
  refresh(): void {
    this.#wanted.clear();
    const paths = ['/etc/services', '/etc/hosts'] as const;
    const version = paths.map(path => statSync(path, { throwIfNoEntry: false })?.mtimeMs).join(' ');
    if (version === this.#version) return;
    const [services, hosts] = paths.map(readIfThere);
    this.#files = namesFromFiles(services ?? '', hosts ?? '');
    this.#version = version;
  }

  servicePort(name: string, protocol: ProtocolName): number | undefined {
    return this.#files.servicePort(name, protocol);
  }

  serviceName(port: number, protocol: ProtocolName): string | undefined {
    return this.#files.serviceName(port, protocol);
  }

  /** @throws NameUnknown */
  hostAddress(name: string): string | undefined {
    const address = this.#files.hostAddress(name);
    if (address !== undefined) return address;
    // No resolver would find these, and asking takes time.
    if (!/^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})$/.test(name) || /^[0-9.]+$/.test(name)) return undefined;
    const found = this.#recall(name);
    if (!found) throw new NameUnknown(name);
    return found.value;
  }

  hostName(address: string): string | undefined {
    const name = this.#files.hostName(address);
    if (name !== undefined) return name;
    const found = this.#recall(address);
    if (!found) this.#wanted.add(address);
    return found?.value;
  }

  /** Asks DNS for the IPv4 address of a host; an answer there or not, `hostAddress` knows afterwards. */
  async lookUp(host: string): Promise<void> {
    await this.#remember(host, async () => (await this.#resolver?.resolve4(host))?.[0]);
  }

  /** Asks DNS for the names that `hostName` did not know. False if there were none. */
  async lookUpWanted(): Promise<boolean> {
    const addresses = [...this.#wanted];
    this.#wanted.clear();
    await Promise.all(
      addresses.map(address =>
        this.#remember(address, async () => (await this.#resolver?.reverse(address))?.[0]),
      ),
    );
    return addresses.length > 0;
  }

  #recall(key: string): Found | undefined {
    const found = this.#found.get(key);
    return found && found.until > performance.now() ? found : undefined;
  }

  async #remember(key: string, question: () => Promise<string | undefined>): Promise<void> {
    const value = await question().catch(() => undefined);
    this.#found.set(key, { value, until: performance.now() + DNS_BELIEF });
  }
}

/** Does something that changes nothing before it knows all names, again for each that has to be looked up. */
export async function withNames<Result>(names: SystemNames, work: () => Result): Promise<Result> {
  for (;;) {
    try {
      return work();
    } catch (error) {
      if (!(error instanceof NameUnknown)) throw error;
      await names.lookUp(error.host);
    }
  }
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
