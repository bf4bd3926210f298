/** Runs one `ipvsadm` command line on a virtual server. */
import {
  IpvsError,
  type ServiceKey,
  type ServiceSpecification,
  type ServiceStatus,
  serviceKeyText,
  type VirtualServer,
} from '../ipvs/specification.ts';
import { Exit, OptionError } from './exit.ts';
import { listConnections } from './listing/connections.ts';
import { listLocalAddresses } from './listing/local-addresses.ts';
import { listAllServices, listOneService, saveServices } from './listing/services.ts';
import { listDaemons, listTimeouts } from './listing/settings.ts';
import { errorMessage } from './messages.ts';
import type { NameService } from './names.ts';
import { type CommandName, LEGALITY, OPTIONS } from './options.ts';
import { type Command, PLAIN_FORMAT, parseCommand, tryHelp } from './parse.ts';
import { PoptReader } from './popt.ts';
import { splitRestoreInput } from './restore.ts';

export interface IpvsadmResult {
  /** 0; 1: listing a service that is not there; 2: usage; 255: refused by the virtual server or the options library. */
  status: number;
  stdout: string;
  stderr: string;
}

/**
 * Does what `ipvsadm ARGUMENTS` does. All arguments, those of every line of `-R` included, are parsed before the
 * first change is made, so a `NameService` may throw to have a name looked up first and run the command again.
 * @param words the arguments without the program's name
 * @param stdin what `-R` reads; ignored otherwise
 */
export function runIpvsadm(
  words: readonly string[],
  stdin: string,
  target: VirtualServer,
  names: NameService,
): IpvsadmResult {
  const run = new Run(target, names);
  if (words.length === 0) run.execute({ name: 'list', what: 'services', format: PLAIN_FORMAT });
  else run.runLine(parseLine(words, names), stdin);
  return { status: run.status, stdout: run.stdout, stderr: run.stderr };
}

/** True if the command line prints at most, and changes nothing whatever it is. */
export function isListing(words: readonly string[]): boolean {
  const result = new PoptReader(OPTIONS, words).next();
  return result.kind !== 'option' || !CHANGING.has(result.tag);
}

const CHANGING: ReadonlySet<string> = new Set(
  (Object.keys(LEGALITY) as CommandName[]).filter(name => !['list', 'save', 'get-laddr'].includes(name)),
);

function parseLine(words: readonly string[], names: NameService): Command | Exit | OptionError {
  try {
    return parseCommand(words, names);
  } catch (error) {
    if (error instanceof Exit || error instanceof OptionError) return error;
    throw error;
  }
}

class Run {
  status = 0;
  stdout = '';
  stderr = '';
  readonly #target: VirtualServer;
  readonly #names: NameService;

  constructor(target: VirtualServer, names: NameService) {
    this.#target = target;
    this.#names = names;
  }

  /**
   * @param stdin undefined inside of a restore
   * @returns false if the program ends here
   */
  runLine(line: Command | Exit | OptionError, stdin: string | undefined): boolean {
    if (line instanceof OptionError) {
      this.#refuse(255, line.message);
      return true;
    }
    if (!(line instanceof Exit)) {
      if (line.name !== 'restore') return this.execute(line);
      if (stdin !== undefined) return this.#restore(stdin);
    }
    const exit = line instanceof Exit ? line : tryHelp();
    this.status = exit.status;
    this.stdout += exit.stdout;
    this.stderr += exit.stderr;
    return false;
  }

  #restore(stdin: string): boolean {
    const lines: (Command | Exit | OptionError)[] = [];
    for (const words of splitRestoreInput(stdin)) {
      const line = parseLine(words, this.#names);
      lines.push(line);
      if (line instanceof Exit) break;
    }
    return lines.every(line => this.runLine(line, undefined));
  }

  /** @returns false if the program ends here */
  execute(command: Command): boolean {
    try {
      if (command.name === 'list' && command.what === 'service' && !this.#target.service(command.service)) {
        this.#refuse(1, errorMessage('list', 'ESRCH'));
        return false;
      }
      this.stdout += perform(command, this.#target, this.#names);
      this.status = 0;
    } catch (error) {
      if (!(error instanceof IpvsError)) throw error;
      this.#refuse(255, error.isOwn ? error.message : errorMessage(command.name, error.code));
    }
    return true;
  }

  #refuse(status: number, message: string): void {
    this.status = status;
    this.stderr += `${message}\n`;
  }
}

/** Does a command and returns what it prints. */
function perform(command: Command, target: VirtualServer, names: NameService): string {
  switch (command.name) {
    case 'add-service':
      target.addService(command.service);
      break;
    case 'edit-service':
      target.editService(withKept(command.service, target));
      break;
    case 'delete-service':
      target.deleteService(command.service);
      break;
    case 'add-server':
      target.addDestination(command.service, command.server);
      break;
    case 'edit-server':
      target.editDestination(command.service, command.server);
      break;
    case 'delete-server':
      target.deleteDestination(command.service, command.address, command.port);
      break;
    case 'flush':
      target.flush();
      break;
    case 'zero':
      target.zero(command.service);
      break;
    case 'add-laddr':
      target.addLocalAddress(command.service, command.address, command.interfaceName || undefined);
      break;
    case 'del-laddr':
      deleteLocalAddress(command, target);
      break;
    case 'get-laddr':
      return listLocalAddresses(localAddressServices(command.service, target), names);
    case 'set':
      target.setTimeouts(command.timeouts);
      break;
    case 'start-daemon':
      target.startSyncDaemon(command.daemon);
      break;
    case 'stop-daemon':
      target.stopSyncDaemon(command.role);
      break;
    case 'save':
      return saveServices(target.services(), { ...command.format, sorted: true }, names);
    case 'list':
      switch (command.what) {
        case 'connections':
          return listConnections(target.connections(), command.format, names);
        case 'timeouts':
          return listTimeouts(target.timeouts());
        case 'daemons':
          return listDaemons(target.syncDaemons());
        case 'services':
          return listAllServices(target.services(), target.tableSize, command.format, names);
        case 'service': {
          const service = target.service(command.service);
          return service ? listOneService(service, command.format, names) : '';
        }
      }
      break;
    case 'restore':
      throw new Error('a restore has its lines run one by one');
  }
  return '';
}

/** An edit replaces what upstream's ipvsadm knows, and keeps of the rest what it does not name. */
function withKept(service: ServiceSpecification, target: VirtualServer): ServiceSpecification {
  const { clientAddress, synProxy } = target.service(service.key) ?? {};
  return {
    ...(synProxy && { synProxy }),
    ...(clientAddress !== undefined && { clientAddress }),
    ...service,
  };
}

/** Deletes a local address; with an interface only if it is meant for that. */
function deleteLocalAddress(
  { service, address, interfaceName }: Extract<Command, { name: 'add-laddr' | 'del-laddr' }>,
  target: VirtualServer,
): void {
  const local = target.service(service)?.localAddressUse?.find(each => each.address === address);
  if (interfaceName !== '' && local && local.interfaceName !== interfaceName) {
    throw new IpvsError('ENOENT', `local address ${address} is not meant for ${interfaceName}`);
  }
  target.deleteLocalAddress(service, address);
}

function localAddressServices(key: ServiceKey | undefined, target: VirtualServer): ServiceStatus[] {
  if (key === undefined) return target.services();
  const service = target.service(key);
  if (!service) throw new IpvsError('ESRCH', `no service ${serviceKeyText(key)}`);
  return [service];
}
