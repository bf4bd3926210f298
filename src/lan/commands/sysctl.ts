/** `sysctl` (procps) and the files below /proc/sys, with the paths that `Sysctls` knows. */
import type { Host } from '../host.ts';
import type { CommandResult } from '../shell.ts';

const ROOT = '/proc/sys/';

/** The text of a file, undefined if there is none. */
export function readFile(host: Host, path: string): string | undefined {
  const file = host.files.get(path);
  if (file) return file();
  const value = path.startsWith(ROOT) ? host.sysctls.read(path.slice(ROOT.length)) : undefined;
  return value === undefined ? undefined : `${value}\n`;
}

/** Writes to a parameter or to /dev/null; says what is wrong, as the shell would, or nothing. */
export function writeFile(host: Host, path: string, text: string): string | undefined {
  if (path === '/dev/null') return undefined;
  if (!path.startsWith(ROOT)) return `${path}: Permission denied`;
  switch (host.sysctls.write(path.slice(ROOT.length), text)) {
    case 'missing':
      return `${path}: No such file or directory`;
    case 'invalid':
      return 'echo: write error: Invalid argument';
    default:
      return undefined;
  }
}

/** `sysctl [-n] [-q] [-w] name[=value]…` and `sysctl -a`. */
export function runSysctl(host: Host, argv: readonly string[]): CommandResult {
  const result: CommandResult = { status: 0, stdout: '', stderr: '' };
  const fail = (text: string): void => {
    result.status = 1;
    result.stderr += `sysctl: ${text}\n`;
  };
  const options = new Set<string>();
  const names: string[] = [];
  for (const word of argv) {
    if (!word.startsWith('-')) names.push(word);
    else if (/^-[anqw]+$/.test(word)) for (const letter of word.slice(1)) options.add(letter);
    else {
      const unknown = [...word.slice(1)].find(letter => !'anqw'.includes(letter)) ?? '-';
      fail(word.startsWith('--') ? `unrecognized option '${word}'` : `invalid option -- '${unknown}'`);
      return result;
    }
  }
  const show = (path: string): void => {
    const value = host.sysctls.read(path);
    result.stdout += options.has('n') ? `${value}\n` : `${path.replaceAll('/', '.')} = ${value}\n`;
  };
  if (options.has('a')) {
    for (const path of host.sysctls.paths()) show(path);
    return result;
  }
  if (names.length === 0) fail("no variables specified\nTry `sysctl --help' for more information.");
  for (const name of names) {
    const [variable = '', value] = split(name);
    const path = variable.includes('/') ? variable : variable.replaceAll('.', '/');
    if (variable === '' || (options.has('w') && value === undefined)) {
      fail('command line(0): invalid syntax, continuing...');
      continue;
    }
    const outcome = value === undefined ? 'done' : host.sysctls.write(path, value);
    if (outcome === 'missing' || host.sysctls.read(path) === undefined)
      fail(`cannot stat ${ROOT}${path}: No such file or directory`);
    else if (outcome === 'invalid') fail(`setting key "${path.replaceAll('/', '.')}": Invalid argument`);
    else if (value === undefined || !options.has('q')) show(path);
  }
  return result;
}

function split(text: string): [string, string | undefined] {
  const at = text.indexOf('=');
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)];
}
