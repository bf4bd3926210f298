/**
 * The command lines as plain data: what man pages and completions are made of. Taken from the definitions themselves
 * (commander's program, ipvsadm's option table), so that they cannot say anything else.
 */
import type { Argument, Command, Option } from 'commander';

/** What a value can be completed with: fixed words, or something that is looked up when the key is pressed. */
export type Completion =
  | { kind: 'words'; words: readonly string[] }
  | { kind: 'file' | 'folder' | 'interface' | 'service' | 'server' | 'setting' | 'nothing' };

export interface OptionLine {
  /** With their dashes, short ones first. */
  names: readonly string[];
  argument: 'none' | 'required' | 'optional';
  /** The value's name in the manual, `<file>` or `[timeout]` without the brackets; empty without a value. */
  value: string;
  completion: Completion;
  description: string;
  /** More than one may be given. */
  isRepeatable: boolean;
}

export interface ArgumentLine {
  name: string;
  isRequired: boolean;
  isVariadic: boolean;
  description: string;
  completion: Completion;
}

export interface CommandLine {
  /** `dirigo`, `dirigo up`. */
  path: readonly string[];
  summary: string;
  description: string;
  /** What `--help` says after the options; lines that begin with two spaces are examples or tables. */
  notes: string;
  arguments: readonly ArgumentLine[];
  options: readonly OptionLine[];
  commands: readonly CommandLine[];
}

/** By the words of a placeholder: which values it stands for. The first that matches counts. */
const BY_PLACEHOLDER: readonly [RegExp, Completion['kind']][] = [
  [/\binterface\b/, 'interface'],
  [/\b(folder|directory)\b/, 'folder'],
  [/\b(file|capture|scenario|socket)\b/, 'file'],
  [/\bservice\b/, 'service'],
  [/\bserver\b/, 'server'],
  [/\bsetting\b/, 'setting'],
];

/** What a value can be completed with, by its choices or else its name. */
export function completionOf(name: string, choices?: readonly string[]): Completion {
  if (choices) return { kind: 'words', words: choices };
  const kind = BY_PLACEHOLDER.find(([pattern]) => pattern.test(name))?.[1] ?? 'nothing';
  return kind === 'words' ? { kind: 'nothing' } : { kind };
}

/** What commander knows about a command and those below it, hidden ones left out. */
export function describeCommand(command: Command, above: readonly string[] = []): CommandLine {
  const path = [...above, command.name()];
  const help = command.createHelp();
  // `help` exists where there are commands; it takes one of them.
  const commands = help
    .visibleCommands(command)
    .map(each =>
      each.name() === 'help' && !command.commands.includes(each)
        ? helpCommand(path, command)
        : describeCommand(each, path),
    );
  return {
    path,
    summary: command.summary() || firstSentence(command.description()),
    description: command.description(),
    notes: notesOf(command),
    arguments: command.registeredArguments.map(describeArgument),
    options: help.visibleOptions(command).map(each => describeOption(each, help.optionDescription(each))),
    commands,
  };
}

function helpCommand(above: readonly string[], command: Command): CommandLine {
  return {
    path: [...above, 'help'],
    summary: 'display help for a command',
    description: 'Display help for a command, as its option --help does.',
    notes: '',
    arguments: [
      {
        name: 'command',
        isRequired: false,
        isVariadic: false,
        description: '',
        completion: { kind: 'words', words: command.commands.map(each => each.name()) },
      },
    ],
    options: [],
    commands: [],
  };
}

function describeArgument(argument: Argument): ArgumentLine {
  return {
    name: argument.name(),
    isRequired: argument.required,
    isVariadic: argument.variadic,
    description: argument.description,
    completion: completionOf(argument.name(), argument.argChoices),
  };
}

function describeOption(option: Option, description: string): OptionLine {
  const value = /[<[]([^>\]]+)[>\]]/.exec(option.flags)?.[1] ?? '';
  // `--interface <name>` is named by its option, not by its value.
  const name = `${value} ${option.long ?? ''}`;
  return {
    names: [option.short, option.long].filter(name => name !== undefined),
    argument: option.required ? 'required' : option.optional ? 'optional' : 'none',
    value: value.replace(/\.{3}$/, ''),
    completion: value === '' ? { kind: 'nothing' } : completionOf(name, option.argChoices),
    description,
    isRepeatable: option.variadic || Array.isArray(option.defaultValue),
  };
}

/** The text that `--help` prints after what commander makes itself. */
function notesOf(command: Command): string {
  let printed = '';
  const { writeOut, writeErr } = command.configureOutput();
  command.configureOutput({ writeOut: text => (printed += text) });
  try {
    command.outputHelp();
  } finally {
    command.configureOutput({ ...(writeOut ? { writeOut } : {}), ...(writeErr ? { writeErr } : {}) });
  }
  return printed.slice(command.helpInformation().length).trim();
}

function firstSentence(text: string): string {
  return (text.split(/[.:](\s|$)/)[0] ?? '').trim();
}

/** All commands, each before those below it. */
export function allCommands(command: CommandLine): CommandLine[] {
  return [command, ...command.commands.flatMap(allCommands)];
}
