/** `dirigo up`: the daemon, in the foreground. */
import { type Command, Option } from 'commander';
import type { DatapathKind } from '../datapath/datapath.ts';
import { orFail } from './failure.ts';

interface UpOptions {
  datapath: DatapathKind;
  interface: string[];
  state?: string;
}

export function addUp(program: Command): void {
  program
    .command('up')
    .summary('start the daemon')
    .description(
      'Start the daemon: a director on a data path, controlled over a unix socket by ipvsadm and the other commands.\n' +
        'It stays in the foreground until `dirigo down`, SIGINT, SIGTERM or SIGHUP.',
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
    )
    .addOption(
      new Option('--state <folder>', 'keep the desired state here and restore it at start').env(
        'DIRIGO_STATE',
      ),
    )
    .addHelpText(
      'after',
      '\nThe socket: DIRIGO_SOCKET, else /run/dirigo/dirigo.sock for root, else $XDG_RUNTIME_DIR/dirigo.sock.',
    )
    .action((options: UpOptions) => orFail(() => up(options)));
}

async function up(options: UpOptions): Promise<void> {
  const { Daemon } = await import('../control/daemon.ts');
  const { openDatapath } = await import('../datapath/open.ts');
  const { socketPath } = await import('../control/socket-path.ts');
  const daemon = await Daemon.start({
    socket: socketPath(),
    openDatapath: () => openDatapath({ kind: options.datapath, interfaces: options.interface }),
    ...(options.state === undefined ? {} : { stateFolder: options.state }),
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => void daemon.stop({ remove: false }));
  }
  process.stdout.write(
    `dirigo: ${daemon.datapath.kind} data path up, control socket ${daemon.socket} (pid ${process.pid})\n`,
  );
  await daemon.stopped;
}
