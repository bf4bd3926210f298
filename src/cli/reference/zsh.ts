/** Completions for zsh, by its `_arguments`. */
import { allCommands, type CommandLine, type Completion, type OptionLine } from './command-line.ts';
import { SYSTEM_WORDS } from './system-words.ts';

export function zshCompletion(program: CommandLine): string {
  const name = program.path[0] as string;
  const kinds = Object.entries(SYSTEM_WORDS).map(
    ([kind, command]) =>
      `_${name}_words_${kind}() {\n  local -a found\n  found=(\${(f)"$(${command})"})\n  compadd -a found\n}\n`,
  );
  return `#compdef ${name}
# zsh completion for ${name}, made from its command definitions

${kinds.join('\n')}
${allCommands(program).map(completionFunction).join('\n')}
if [[ $funcstack[1] == _${name} ]]; then
  _${name} "$@"
else
  compdef _${name} ${name}
fi
`;
}

function functionName(path: readonly string[]): string {
  return `_${path.join('_')}`;
}

function completionFunction(command: CommandLine): string {
  const { path, commands, options } = command;
  const program = path[0] as string;
  const specifications = options.flatMap(option => optionSpecifications(option, program));
  if (commands.length === 0) {
    specifications.push(...argumentSpecifications(command, program));
    return `${functionName(path)}() {\n  _arguments -s -S${lines(specifications)}\n}\n`;
  }
  specifications.push(quote('1:command:->command'), quote('*::argument:->arguments'));
  return `${functionName(path)}() {
  local curcontext=$curcontext state line
  local -a commands
  typeset -A opt_args
  _arguments -C -s -S${lines(specifications)}
  case $state in
    command)
      commands=(
${commands.map(each => `        ${quote(`${each.path.at(-1)}:${each.summary}`)}`).join('\n')}
      )
      _describe -t commands command commands
      ;;
    arguments)
      case $words[1] in
${commands.map(each => `        ${each.path.at(-1)}) ${functionName(each.path)} ;;`).join('\n')}
      esac
      ;;
  esac
}
`;
}

/** Each part on a line of its own, within one command. */
function lines(parts: readonly string[]): string {
  return parts.map(part => ` \\\n    ${part}`).join('');
}

function optionSpecifications(option: OptionLine, program: string): string[] {
  const { names, argument, value, completion, description, isRepeatable } = option;
  const others = isRepeatable ? '*' : names.length > 1 ? `(${names.join(' ')})` : '';
  const text = `[${description.replace(/[[\]\\:]/g, '\\$&')}]`;
  const colons = argument === 'optional' ? '::' : ':';
  const values =
    argument === 'none'
      ? ''
      : `${colons}${value.replaceAll(':', '') || 'value'}:${action(completion, program)}`;
  return names.map(name => {
    const attached = argument === 'none' ? '' : name.startsWith('--') ? '=' : '+';
    return quote(`${others}${name}${attached}${text}${values}`);
  });
}

function argumentSpecifications(command: CommandLine, program: string): string[] {
  return command.arguments.map(({ name, isRequired, isVariadic, completion }, index) => {
    const place = isVariadic ? '*:' : isRequired ? `${index + 1}:` : `${index + 1}::`;
    return quote(`${place}${name}:${action(completion, program)}`);
  });
}

function action(completion: Completion, program: string): string {
  switch (completion.kind) {
    case 'words':
      return `(${completion.words.join(' ')})`;
    case 'file':
      return '_files';
    case 'folder':
      return '_files -/';
    case 'nothing':
      return ' ';
    default:
      return `_${program}_words_${completion.kind}`;
  }
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
