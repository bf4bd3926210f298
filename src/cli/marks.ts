/** `dirigo marks`: the rules that give packets the firewall marks which `ipvsadm -f` services catch. */

import type { Command } from 'commander';
import { readNamedText } from '../control/named-file.ts';
import { ask } from './ask.ts';
import { orFail } from './failure.ts';

export function addMarks(program: Command): void {
  program
    .command('marks')
    .summary('show or replace the rules of firewall marks')
    .description(
      'Show the rules, one a line, in the order in which they are tried: the first that matches gives the mark.\n' +
        'A rule: [tcp|udp|sctp[,…]] [from PREFIX] [to PREFIX] [sport PORTS] [port PORTS] [on INTERFACE] mark NUMBER',
    )
    .option(
      '--load <file>',
      'replace all rules by those of the file (- for standard input); # begins a comment',
    )
    .option('--clear', 'remove all rules')
    .action((options: { load?: string; clear?: true }) => orFail(() => marks(options)));
}

async function marks({ load, clear }: { load?: string; clear?: true }): Promise<void> {
  if (load !== undefined && clear) throw new Error('--load and --clear exclude each other');
  if (load !== undefined) {
    const lines = readNamedText(load).split('\n');
    const rules = lines.map(line => line.replace(/#.*/, '').trim()).filter(line => line !== '');
    await ask('POST', '/marks', { rules });
  }
  if (clear) await ask('POST', '/marks', { rules: [] });
  const { rules } = (await ask('GET', '/marks')) as { rules: string[] };
  for (const rule of rules) process.stdout.write(`${rule}\n`);
}
