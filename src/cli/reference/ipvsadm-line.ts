/** `ipvsadm` as its manual page and completions know it, from its own option table. */
import { SCHEDULERS } from '../../ipvs/schedulers/registry.ts';
import {
  COMMAND_DESCRIPTIONS,
  OPTION_DESCRIPTIONS,
  type OptionDescription,
} from '../../ipvsadm/option-descriptions.ts';
import { DOCUMENTED_OPTIONS, type OptionTag } from '../../ipvsadm/options.ts';
import { type CommandLine, type Completion, completionOf, type OptionLine } from './command-line.ts';

const SCHEDULER_FLAGS = ['sh-fallback', 'sh-port', 'mh-fallback', 'mh-port'];

function completion(tag: OptionTag, value: string): Completion {
  if (tag === 'scheduler') return { kind: 'words', words: [...SCHEDULERS.keys()] };
  if (tag === 'pe') return { kind: 'words', words: ['sip'] };
  if (tag === 'sched-flags') return { kind: 'words', words: SCHEDULER_FLAGS };
  if (value.includes('|')) return { kind: 'words', words: value.split('|') };
  return completionOf(value);
}

/** The options that say what to do (`commands`), or those that go with them. */
export function ipvsadmOptions(which: 'commands' | 'options'): OptionLine[] {
  const isCommand = (tag: OptionTag): boolean => tag in COMMAND_DESCRIPTIONS;
  const lines = DOCUMENTED_OPTIONS.filter(({ tag }) => isCommand(tag) === (which === 'commands')).map(
    ({ tag, long, short, argument }): OptionLine => {
      const { text, value = '' }: OptionDescription = { ...COMMAND_DESCRIPTIONS, ...OPTION_DESCRIPTIONS }[
        tag as keyof typeof COMMAND_DESCRIPTIONS | keyof typeof OPTION_DESCRIPTIONS
      ];
      return {
        names: [...(short === '' ? [] : [`-${short}`]), ...(long === '' ? [] : [`--${long}`])],
        argument,
        value,
        completion: argument === 'none' ? { kind: 'nothing' } : completion(tag, value),
        description: text,
        isRepeatable: false,
      };
    },
  );
  // `-L` and `-l` are two entries of the table.
  const merged = new Map<string, OptionLine>();
  for (const line of lines) {
    const long = line.names.at(-1) as string;
    const names = [...(merged.get(long)?.names.slice(0, -1) ?? []), ...line.names];
    merged.set(long, { ...line, names });
  }
  return [...merged.values()];
}

/** The bins of the ipvsadm family, as completions and the list of manual pages need them. */
export function describeIpvsadm(): CommandLine[] {
  const line = (name: string, summary: string, options: OptionLine[]): CommandLine => ({
    path: [name],
    summary,
    description: '',
    notes: '',
    arguments: [],
    options,
    commands: [],
  });
  const numeric = ipvsadmOptions('options').filter(({ names }) => names.includes('-n'));
  return [
    line('ipvsadm', 'configure and list the virtual server', [
      ...ipvsadmOptions('commands'),
      ...ipvsadmOptions('options'),
    ]),
    line('ipvsadm-save', 'print the virtual server table as commands', numeric),
    line('ipvsadm-restore', 'replace the virtual server table by that on standard input', []),
  ];
}
