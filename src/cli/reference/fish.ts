/** Completions for fish. */
import { allCommands, type CommandLine, type Completion, type OptionLine } from './command-line.ts';
import { SYSTEM_WORDS } from './system-words.ts';

export function fishCompletion(program: CommandLine): string {
  const name = program.path[0] as string;
  const all = allCommands(program);
  return `# fish completion for ${name}, made from its command definitions

function __${name.replaceAll('-', '_')}_command
    set -l command ${name}
    for word in (commandline -opc)[2..-1]
        switch "$command $word"
            case ${all.map(({ path }) => quote(path.join(' '))).join(' ')}
                set command "$command $word"
        end
    end
    echo $command
end

complete -c ${name} -f
${all.flatMap(command => completions(command, all.length > 1)).join('\n')}
`;
}

function completions(command: CommandLine, hasCommands: boolean): string[] {
  const { path, commands, options } = command;
  const name = path[0] as string;
  const condition = hasCommands
    ? ` -n ${quote(`test (__${name.replaceAll('-', '_')}_command) = '${path.join(' ')}'`)}`
    : '';
  const begin = `complete -c ${name}${condition}`;
  return [
    ...commands.map(each => `${begin} -a ${quote(each.path.at(-1) as string)} -d ${quote(each.summary)}`),
    ...options.map(option => `${begin}${optionText(option)}`),
    ...command.arguments.flatMap(({ completion }) => {
      const text = valueText(completion);
      return text === '' ? [] : [`${begin}${text}`];
    }),
  ];
}

function optionText({ names: all, argument, completion, description }: OptionLine): string {
  const names = all
    .map(name => (name.startsWith('--') ? ` -l ${name.slice(2)}` : ` -s ${name.slice(1)}`))
    .join('');
  const value =
    argument === 'required' ? ` ${completion.kind === 'file' ? '-r' : '-x'}${valueText(completion)}` : '';
  return `${names}${value} -d ${quote(description)}`;
}

function valueText(completion: Completion): string {
  switch (completion.kind) {
    case 'words':
      return ` -a ${quote(completion.words.join(' '))}`;
    case 'file':
      return ' -F';
    case 'folder':
      return ` -a ${quote('(__fish_complete_directories)')}`;
    case 'nothing':
      return '';
    default:
      return ` -a ${quote(`(${SYSTEM_WORDS[completion.kind]})`)}`;
  }
}

function quote(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
}
