/** `dirigo state`: the desired state as JSON. */
import type { Command } from 'commander';
import { ask } from './ask.ts';
import { orFail } from './failure.ts';

export function addState(program: Command): void {
  program
    .command('state')
    .summary('print the desired state as JSON')
    .description(
      'Print the desired state as the JSON that `dirigo plan` and `dirigo apply` read: services with their servers (oldest ' +
        'first), timeouts, synchronisation daemons, settings that are not at their default, rules of firewall marks.',
    )
    .action(() =>
      orFail(async () => {
        process.stdout.write(`${JSON.stringify(await ask('GET', '/state'), null, 2)}\n`);
      }),
    );
}
