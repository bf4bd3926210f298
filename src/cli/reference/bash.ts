/** Completions for bash: a function a program, without the bash-completion package. */
import { allCommands, type CommandLine, type Completion } from './command-line.ts';
import { SYSTEM_WORDS } from './system-words.ts';

export function bashCompletion(program: CommandLine): string {
  const name = program.path[0] as string;
  const commands = allCommands(program);
  const identifier = `_${name.replaceAll('-', '_')}`;
  return `# bash completion for ${name}, made from its command definitions

${identifier}() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD-1]} word command=${name}
  local -i at
  COMPREPLY=()
  # Bash takes --option=value and address:port apart: put together again what was typed.
  local line=\${COMP_LINE:0:COMP_POINT} typed
  typed=\${line##*[[:space:]]}
  local prefix=
  if [[ $typed == --*=* ]]; then
    previous=\${typed%%=*} current=\${typed#*=}
  elif [[ $typed == *:* ]]; then
    current=$typed
    for ((at = COMP_CWORD; at > 0; at--)); do
      [[ \${COMP_WORDS[at]} == : || \${COMP_WORDS[at-1]} == : ]] || break
    done
    previous=\${COMP_WORDS[at-1]}
  fi
  [[ $current == *:* ]] && prefix=\${current%"\${current##*:}"}
${commands.length > 1 ? subcommandSearch(commands) : ''}
  case $command:$previous in
${commands.flatMap(valueCases).join('\n')}
  esac
  if [[ $current == -* ]]; then
    case $command in
${commands.map(({ path, options }) => `      ${quote(path.join(' '))}) ${reply(words(options.flatMap(({ names }) => names)))} ;;`).join('\n')}
    esac
    return
  fi
  case $command in
${commands.flatMap(argumentCase).join('\n')}
  esac
  ${identifier}_trim
}

# What is left of a colon is there already.
${identifier}_trim() {
  [[ -n $prefix ]] || return 0
  local -i each
  for ((each = 0; each < \${#COMPREPLY[@]}; each++)); do COMPREPLY[each]=\${COMPREPLY[each]#"$prefix"}; done
}

complete -o bashdefault -F ${identifier} ${name}
`;

  function valueCases({ path, options }: CommandLine): string[] {
    return options
      .filter(({ argument }) => argument !== 'none')
      .map(option => {
        const patterns = option.names.map(each => quote(`${path.join(' ')}:${each}`));
        // An optional value may be missing: then what follows is no value of it.
        const action = reply(option.completion);
        if (option.argument === 'optional')
          return `    ${patterns.join(' | ')}) [[ $current == -* ]] || return ;;`;
        return `    ${patterns.join(' | ')}) ${action}; ${identifier}_trim; return ;;`;
      });
  }
}

/** Finds which command the words before the cursor name; values of options are no commands. */
function subcommandSearch(commands: readonly CommandLine[]): string {
  const withValue = commands.flatMap(({ path, options }) =>
    options
      .filter(({ argument }) => argument === 'required')
      .flatMap(option => option.names.map(each => quote(`${path.join(' ')}:${each}`))),
  );
  const deeper = commands
    .filter(({ path }) => path.length > 1)
    .map(({ path }) => quote(path.join(' ')))
    .join(' | ');
  return `  for ((at = 1; at < COMP_CWORD; at++)); do
    word=\${COMP_WORDS[at]}
    case $command:$word in
      ${withValue.join(' | ') || "''"}) ((at++)); continue ;;
    esac
    case "$command $word" in
      ${deeper}) command="$command $word" ;;
    esac
  done`;
}

function argumentCase({ path, commands, arguments: list }: CommandLine): string[] {
  const actions =
    commands.length > 0
      ? [reply(words(commands.map(each => each.path.at(-1) as string)))]
      : [...new Set(list.map(each => reply(each.completion)))].filter(action => action !== ':');
  return actions.length === 0 ? [] : [`    ${quote(path.join(' '))}) ${actions.join('; ')} ;;`];
}

function words(list: readonly string[]): Completion {
  return { kind: 'words', words: list };
}

/** Adds to COMPREPLY what the value can be. */
function reply(completion: Completion): string {
  const add = (generator: string): string => `COMPREPLY+=($(compgen ${generator} -- "$current"))`;
  switch (completion.kind) {
    case 'words':
      return add(`-W ${quote(completion.words.join(' '))}`);
    case 'file':
      return `compopt -o filenames 2>/dev/null; ${add('-f')}`;
    case 'folder':
      return `compopt -o filenames 2>/dev/null; ${add('-d')}`;
    case 'nothing':
      return ':';
    default:
      return add(`-W "$(${SYSTEM_WORDS[completion.kind]})"`);
  }
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
