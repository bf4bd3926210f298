/** Manual pages and completions of everything that is installed, by the names of their files. */
import type { Command } from 'commander';
import { bashCompletion } from './bash.ts';
import { type CommandLine, describeCommand } from './command-line.ts';
import { fishCompletion } from './fish.ts';
import { describeIpvsadm } from './ipvsadm-line.ts';
import { type ManualOptions, manualPages } from './manual.ts';
import { zshCompletion } from './zsh.ts';

const COMPLETIONS: Readonly<
  Record<'bash' | 'zsh' | 'fish', { make: (program: CommandLine) => string; file: (name: string) => string }>
> = {
  bash: { make: bashCompletion, file: name => name },
  zsh: { make: zshCompletion, file: name => `_${name}` },
  fish: { make: fishCompletion, file: name => `${name}.fish` },
};

export function completionFiles(program: Command, shell: keyof typeof COMPLETIONS): Map<string, string> {
  const { make, file } = COMPLETIONS[shell];
  const programs = describePrograms(program);
  return new Map(programs.map(each => [file(each.path[0] as string), make(each)]));
}

export function manualFiles(program: Command, options: ManualOptions): Map<string, string> {
  const [dirigo, ...family] = describePrograms(program);
  return manualPages(dirigo, family, options);
}

/** `dirigo`, then the bins of the ipvsadm family. */
function describePrograms(program: Command): [CommandLine, ...CommandLine[]] {
  const family = describeIpvsadm();
  const dirigo = describeCommand(program);
  // `dirigo ipvsadm` takes what ipvsadm takes; commander does not know.
  const commands = dirigo.commands.map(each =>
    each.path.at(-1) === 'ipvsadm' ? { ...each, arguments: [], options: family[0]?.options ?? [] } : each,
  );
  return [{ ...dirigo, commands }, ...family];
}
