/**
 * A host understands what an operator types: words, quotes, `>`; `ip`, `sysctl`, `arp`, `ping`, `curl`, `echo`, `cat`
 * with the options the sessions need, and what was registered in `host.commands`. Everything else is refused in the
 * words of the tool.
 */
import { runArp } from './commands/arp.ts';
import { runCurl } from './commands/curl.ts';
import { runIp } from './commands/ip.ts';
import { runPing } from './commands/ping.ts';
import { readFile, runSysctl, writeFile } from './commands/sysctl.ts';
import type { Host } from './host.ts';

export interface CommandResult {
  status: number;
  stdout: string;
  stderr: string;
}

/**
 * A command.
 * @param argv the words behind its name
 * @param stdin what is piped into it
 */
export type CommandHandler = (
  host: Host,
  argv: readonly string[],
  stdin: string,
) => CommandResult | Promise<CommandResult>;

/** The commands that every host has. */
export const STANDARD_COMMANDS: readonly (readonly [string, CommandHandler])[] = [
  ['arp', runArp],
  ['cat', runCat],
  ['curl', runCurl],
  ['echo', runEcho],
  ['ip', runIp],
  ['ping', runPing],
  ['sysctl', runSysctl],
];

/** Runs one command line; never rejects for what the operator got wrong. */
export async function runCommandLine(host: Host, line: string, stdin: string): Promise<CommandResult> {
  const parsed = parseLine(line);
  if (typeof parsed === 'string') return { status: 2, stdout: '', stderr: `bash: ${parsed}\n` };
  const [name, ...argv] = parsed.words;
  if (name === undefined) return { status: 0, stdout: '', stderr: '' };
  const handler = host.commands.get(name);
  if (!handler) return { status: 127, stdout: '', stderr: `bash: ${name}: command not found\n` };
  const result = await handler(host, argv, stdin);
  if (parsed.target === undefined) return result;
  const refused = writeFile(host, parsed.target, result.stdout);
  const stderr = refused === undefined ? '' : `bash: ${refused}\n`;
  return { status: refused === undefined ? result.status : 1, stdout: '', stderr: result.stderr + stderr };
}

/** Words and the target of `>`; a string says what is wrong with the line. */
function parseLine(line: string): { words: string[]; target: string | undefined } | string {
  const tokens: { text: string; operator: boolean }[] = [];
  let rest = line.trim();
  while (rest !== '' && !rest.startsWith('#')) {
    const operator = /^(>>|[>|&;<()`$])/.exec(rest);
    if (operator) {
      tokens.push({ text: operator[0], operator: true });
      rest = rest.slice(operator[0].length).trimStart();
      continue;
    }
    let word = '';
    for (;;) {
      const part = /^(?:'([^']*)'|"((?:[^"\\$`]|\\.)*)"|\\(.)|([^\s'"\\<>|&;()`$]+))/.exec(rest);
      if (!part) break;
      word += part[1] ?? part[2]?.replace(/\\(.)/g, '$1') ?? part[3] ?? part[4] ?? '';
      rest = rest.slice(part[0].length);
    }
    if (/^['"\\]/.test(rest)) return `unexpected EOF while looking for matching \`${rest[0]}'`;
    tokens.push({ text: word, operator: false });
    rest = rest.trimStart();
  }
  const at = tokens.findIndex(token => token.operator);
  if (at < 0) return { words: tokens.map(token => token.text), target: undefined };
  const [operator, target, surplus] = tokens.slice(at);
  if (operator?.text !== '>') return `syntax error near unexpected token \`${operator?.text}'`;
  if (!target || target.operator || surplus) {
    const wrong = target && !target.operator ? surplus : target;
    return `syntax error near unexpected token \`${wrong?.text ?? 'newline'}'`;
  }
  return { words: tokens.slice(0, at).map(token => token.text), target: target.text };
}

function runEcho(_host: Host, argv: readonly string[]): CommandResult {
  return { status: 0, stdout: `${argv.join(' ')}\n`, stderr: '' };
}

function runCat(host: Host, argv: readonly string[], stdin: string): CommandResult {
  const result = { status: 0, stdout: argv.length === 0 ? stdin : '', stderr: '' };
  for (const path of argv) {
    const text = readFile(host, path);
    if (text === undefined) {
      result.status = 1;
      result.stderr += `cat: ${path}: No such file or directory\n`;
    } else {
      result.stdout += text;
    }
  }
  return result;
}
