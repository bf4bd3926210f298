/** `dirigo up`: the daemon, in the foreground. */
import { type Command, Option } from 'commander';
import type { DatapathKind } from '../datapath/datapath.ts';
import { type ApiOptions, accessOptions, addApiOptions } from './api-options.ts';
import { orFail } from './failure.ts';
import { addGuardOptions, type GuardUpOptions, guardSettings } from './guard-options.ts';
import { addXdpOptions, type XdpOptions, xdpRequest } from './xdp-options.ts';

interface UpOptions extends XdpOptions, ApiOptions, GuardUpOptions {
  datapath: DatapathKind;
  interface: string[];
  /** Undefined: the default of the data path; false: nowhere. */
  state?: string | false;
  replace?: true;
  check?: true;
}

/** Where the state of the daemon on the default socket is kept, if it forwards. */
const DEFAULT_STATE = '/var/lib/dirigo';

export function addUp(program: Command): void {
  const command = program
    .command('up')
    .summary('start the daemon')
    .description(
      'Start the daemon: a director on a data path, controlled over a unix socket by ipvsadm and the other commands.\n' +
        'It stays in the foreground until `dirigo down`, SIGINT or SIGTERM. SIGHUP makes it begin anew (see `dirigo reload`).\n\n' +
        'SIGINT and SIGTERM end the daemon, not the forwarding: programs and tables of an XDP data path stay in the kernel ' +
        'and carry on, and the next daemon takes them over. `dirigo down` removes them.',
    )
    .addOption(
      new Option(
        '--datapath <kind>',
        'virtual: a director without a wire, no privilege; xdp: in the kernel, needs root',
      )
        .choices(['virtual', 'xdp'])
        .default(process.getuid?.() === 0 ? 'xdp' : 'virtual', 'xdp as root, else virtual'),
    )
    .addOption(
      new Option(
        '--interface <name>',
        'xdp: attach to this interface; virtual: give the host this one, as eth0=10.0.0.1/24,2001:db8::1/64 (repeat for more)',
      )
        .argParser((value: string, before: string[]) => [...before, value])
        .default([], 'virtual: eth0=10.0.0.1/24,10.0.0.3/32,2001:db8::1/64'),
    );
  addXdpOptions(command);
  addGuardOptions(command);
  addApiOptions(command)
    .addOption(
      new Option(
        '--state <folder>',
        `keep the desired state here and restore it at start (default: ${DEFAULT_STATE} for xdp on the default socket, else nowhere)`,
      ).env('DIRIGO_STATE'),
    )
    .option('--no-state', 'keep no state')
    .option('--replace', 'take the place of the daemon that runs, in its data path and its connections')
    .option('--check', 'say whether a daemon with these options could start or take over, and end')
    .addHelpText(
      'after',
      '\nThe socket: DIRIGO_SOCKET, else /run/dirigo/dirigo.sock for root, else $XDG_RUNTIME_DIR/dirigo.sock.',
    )
    .action((options: UpOptions) => orFail(() => (options.check ? check(options) : up(options))));
}

async function check(options: UpOptions): Promise<void> {
  const { datapath: kind, interface: interfaces } = options;
  await guardSettings(options);
  xdpRequest(kind, options);
  const { checkDatapath } = await import('../datapath/open.ts');
  await import('../control/daemon.ts');
  await checkDatapath({ kind, interfaces });
  process.stdout.write(`dirigo: a daemon with the ${kind} data path can start\n`);
}

async function up(options: UpOptions): Promise<void> {
  const { Daemon } = await import('../control/daemon.ts');
  const { openDatapath, checkDatapath } = await import('../datapath/open.ts');
  const { DEFAULT_SOCKET, socketPath } = await import('../control/socket-path.ts');
  const { Supervisor } = await import('../control/supervisor.ts');
  const { successor } = await import('./successor.ts');
  const { Log } = await import('../control/log.ts');
  const { readAccess } = await import('../control/access.ts');
  const { logLevel: level, logFormat: format } = options;
  const log = new Log({ level, ...(format !== undefined && { format }) });
  // Who reads the log may go away before the daemon does.
  process.stderr.on('error', () => {});
  process.stdout.on('error', () => {});
  const access = readAccess(accessOptions(options));
  const request = {
    kind: options.datapath,
    interfaces: options.interface,
    xdp: xdpRequest(options.datapath, options),
  };
  const guard = await guardSettings(options);
  const socket = socketPath();
  const supervisor = await Supervisor.connect();
  if (options.replace) {
    const { takeOver } = await import('../control/handover.ts');
    // The one that runs is not given up for one that could not.
    await checkDatapath(request);
    const pid = await takeOver(socket);
    if (pid !== undefined) process.stdout.write(`dirigo: taking over from pid ${pid}\n`);
  }
  const stateFolder = stateFolderOf(options, socket === DEFAULT_SOCKET);
  const daemon = await Daemon.start({
    socket,
    openDatapath: () => openDatapath(request),
    successor,
    access,
    log,
    ...(guard ? { guard } : {}),
    ...(stateFolder === undefined ? {} : { stateFolder }),
  });
  const stop = (): void => {
    supervisor.stopping();
    void daemon.stop({ remove: false });
  };
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  process.on('SIGHUP', () => {
    // The terminal that it was started in has gone, and with it whoever would end it.
    if (process.stdin.isTTY) stop();
    else {
      daemon.reload().catch((error: Error) => log.error('not reloaded', { reason: error.message }));
    }
  });
  daemon.onReload = () => supervisor.reloading();
  const text = `${daemon.datapath.kind} data path up, control socket ${daemon.socket} (pid ${process.pid})`;
  process.stdout.write(`dirigo: ${text}\n`);
  supervisor.ready(text);
  await daemon.stopped;
  if (log.isHeldUp) {
    const { endNow } = await import('../datapath/ffi/libc.ts');
    endNow(0);
  }
}

function stateFolderOf({ datapath, state }: UpOptions, isDefaultSocket: boolean): string | undefined {
  if (state === false) return undefined;
  if (state !== undefined && state !== '') return state;
  // Daemons beside the default one are told where, or they would take each other's.
  return datapath === 'xdp' && isDefaultSocket ? DEFAULT_STATE : undefined;
}
