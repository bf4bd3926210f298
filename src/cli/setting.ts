/** `dirigo setting`: the switches that the kernel has under /proc/sys/net/ipv4/vs. */
import type { Command } from 'commander';
import { ask } from './ask.ts';
import { orFail } from './failure.ts';

export function addSetting(program: Command): void {
  program
    .command('setting')
    .summary('show or change a setting of the virtual server')
    .description(
      'Without arguments all settings, as sysctl prints them; with a name that one; with a value it is set, at once.\n' +
        'Names, values and defaults are those of /proc/sys/net/ipv4/vs (see docs/settings.md).',
    )
    .argument('[setting]', 'its name, such as expire_nodest_conn')
    .argument('[value]', 'what it is to be, an integer')
    .action((name?: string, value?: string) => orFail(() => setting(name, value)));
}

async function setting(name: string | undefined, value: string | undefined): Promise<void> {
  if (name !== undefined && value !== undefined) await ask('POST', '/settings', { name, value });
  const { settings } = (await ask('GET', '/settings')) as { settings: Record<string, number> };
  if (name !== undefined && !(name in settings)) {
    throw new Error(`there is no setting "${name}"; there are ${Object.keys(settings).sort().join(', ')}`);
  }
  const shown = name === undefined ? Object.keys(settings).sort() : [name];
  for (const each of shown) process.stdout.write(`${each} = ${settings[each]}\n`);
}
