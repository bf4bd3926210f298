/** `dirigo completion`: completions for a shell, made from the commands' definitions. */
import { Argument, type Command } from 'commander';
import { orFail } from './failure.ts';

export const SHELLS = ['bash', 'zsh', 'fish'] as const;
type Shell = (typeof SHELLS)[number];

export function addCompletion(program: Command): void {
  program
    .command('completion')
    .summary('print completions for a shell')
    .description('Print completions of `dirigo` and `ipvsadm` for a shell. The Debian package installs them.')
    .addArgument(new Argument('<shell>', 'bash, zsh or fish').choices(SHELLS))
    .addHelpText(
      'after',
      '\nWithout the package:\n' +
        '  bash   source <(dirigo completion bash)     in ~/.bashrc\n' +
        '  zsh    source <(dirigo completion zsh)      in ~/.zshrc, after compinit\n' +
        '  fish   dirigo completion fish | source      in ~/.config/fish/config.fish',
    )
    .action((shell: Shell) =>
      orFail(async () => {
        const { completionFiles } = await import('./reference/reference.ts');
        for (const text of completionFiles(program, shell).values()) process.stdout.write(text);
      }),
    );
}
