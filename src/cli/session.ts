/** `dirigo session`: the first session, on the virtual LAN or between network namespaces. */
import type { Command } from 'commander';
import type { Laboratory } from '../session/laboratory.ts';
import { orFail } from './failure.ts';

interface SessionOptions {
  namespaces?: true;
  exit?: true;
}

export function addSession(program: Command): void {
  program
    .command('session')
    .summary('walk through a load-balanced web site, packet by packet')
    .description(
      'Builds an LVS-DR cluster (director, two web servers, clients), configures it with the commands of an operator,\n' +
        'visits it, and shows and checks what passed the cables. Ends with status 1 if a check does not hold.',
    )
    .option('--namespaces', 'between network namespaces with nginx, curl, tshark and XDP (needs root)')
    .option('--exit', 'leave after printing')
    .action((options: SessionOptions) => orFail(() => session(options)));
}

async function session(options: SessionOptions): Promise<void> {
  const { runSession } = await import('../session/session.ts');
  const laboratory = await openLaboratory(options);
  let interrupted = false;
  const interrupt = (): void => {
    // A terminal or a supervisor may send several signals; the clean-up must not be cut short by the second.
    if (interrupted) return;
    interrupted = true;
    process.stderr.write('dirigo: interrupted, cleaning up\n');
    void laboratory.close().then(() => process.exit(130));
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, interrupt);
  try {
    const failed = await runSession(laboratory, text => process.stdout.write(text));
    if (failed.length === 0) {
      process.stdout.write('\nAll checks hold.\n');
      return;
    }
    process.exitCode = 1;
    process.stderr.write(`\ndirigo: ${failed.length} of the checks do not hold:\n`);
    for (const text of failed) process.stderr.write(`  ${text}\n`);
  } finally {
    await laboratory.close();
  }
}

async function openLaboratory(options: SessionOptions): Promise<Laboratory> {
  if (options.namespaces) {
    const { NamespaceLaboratory } = await import('../session/namespace-laboratory.ts');
    return NamespaceLaboratory.open();
  }
  const { VirtualLaboratory } = await import('../session/virtual-laboratory.ts');
  return new VirtualLaboratory();
}
