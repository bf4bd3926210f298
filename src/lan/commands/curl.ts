/** `curl` for http URLs, with its globbing: `curl 10.0.0.[7-8]` fetches two pages. */
import type { Host } from '../host.ts';
import { FetchError, type FetchOptions, parseUrl } from '../http-client.ts';
import type { HttpResponse } from '../http-message.ts';
import type { CommandResult } from '../shell.ts';

interface Settings {
  fetch: FetchOptions & { headers: Record<string, string> };
  silent: boolean;
  showError: boolean;
  include: boolean;
  discard: boolean;
}

/** Options and whether they take an argument; short ones may be joined (`-sS`). */
const OPTIONS: Readonly<Record<string, { long: string; argument: boolean }>> = {
  s: { long: 'silent', argument: false },
  S: { long: 'show-error', argument: false },
  i: { long: 'include', argument: false },
  I: { long: 'head', argument: false },
  H: { long: 'header', argument: true },
  m: { long: 'max-time', argument: true },
  o: { long: 'output', argument: true },
};

/** `curl [-s] [-S] [-i] [-I] [-H HEADER] [-m SECONDS] [-o /dev/null] [--interface ADDRESS] URL…`. */
export async function runCurl(host: Host, argv: readonly string[]): Promise<CommandResult> {
  const settings: Settings = {
    fetch: { headers: {} },
    silent: false,
    showError: false,
    include: false,
    discard: false,
  };
  const urls: string[] = [];
  const wrong = parseArguments(argv, settings, urls);
  if (wrong !== undefined) return usage(wrong);
  if (urls.length === 0) return usage(undefined);
  const result: CommandResult = { status: 0, stdout: '', stderr: '' };
  for (const url of urls) {
    const expanded = expand(url);
    if (!Array.isArray(expanded)) return { ...result, status: 3, stderr: `${result.stderr}${expanded}` };
    for (const each of expanded) await fetchOne(host, each, settings, result);
  }
  return result;
}

async function fetchOne(host: Host, url: string, settings: Settings, result: CommandResult): Promise<void> {
  const started = host.now;
  try {
    const response = await host.fetch(url, settings.fetch);
    result.status = 0;
    if (!settings.discard) result.stdout += render(response, settings);
  } catch (error) {
    if (!(error instanceof FetchError)) throw error;
    const [status, text] = explain(error, url, Math.floor(host.now - started));
    result.status = status;
    if (!settings.silent || settings.showError) result.stderr += `curl: (${status}) ${text}\n`;
  }
}

function render(response: HttpResponse, settings: Settings): string {
  const body = new TextDecoder().decode(response.body);
  if (!settings.include && settings.fetch.method !== 'HEAD') return body;
  return `${response.head}\r\n\r\n${body}`;
}

/** Returns what is wrong, in curl's words. */
function parseArguments(argv: readonly string[], settings: Settings, urls: string[]): string | undefined {
  const rest = [...argv];
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    if (!word.startsWith('-') || word === '-') {
      urls.push(word);
      continue;
    }
    if (word.startsWith('--')) {
      const long = word.slice(2);
      const letter = Object.keys(OPTIONS).find(each => OPTIONS[each]?.long === long);
      const takesArgument =
        long === 'interface' || (letter !== undefined && OPTIONS[letter]?.argument === true);
      if (letter === undefined && long !== 'interface') return `option ${word}: is unknown`;
      const argument = takesArgument ? rest.shift() : '';
      if (argument === undefined) return `option ${word}: requires parameter`;
      const wrong = apply(letter ?? long, argument, settings);
      if (wrong !== undefined) return `option ${word}: ${wrong}`;
      continue;
    }
    for (let at = 1; at < word.length; at++) {
      const letter = word[at] as string;
      const option = OPTIONS[letter];
      if (!option) return `option ${word}: is unknown`;
      let argument: string | undefined = '';
      if (option.argument) {
        argument = at + 1 < word.length ? word.slice(at + 1) : rest.shift();
        if (argument === undefined) return `option ${word}: requires parameter`;
        at = word.length;
      }
      const wrong = apply(letter, argument, settings);
      if (wrong !== undefined) return `option ${word}: ${wrong}`;
    }
  }
  return undefined;
}

function apply(option: string, argument: string, settings: Settings): string | undefined {
  switch (option) {
    case 's':
      settings.silent = true;
      return undefined;
    case 'S':
      settings.showError = true;
      return undefined;
    case 'i':
      settings.include = true;
      return undefined;
    case 'I':
      settings.fetch.method = 'HEAD';
      return undefined;
    case 'H': {
      const match = /^([^:\s]+):\s*(.*)$/.exec(argument);
      if (!match) return 'expected a header of the form Name: value';
      settings.fetch.headers[match[1] as string] = match[2] as string;
      return undefined;
    }
    case 'm': {
      const seconds = Number(argument);
      if (!(seconds > 0)) return 'expected a proper numerical parameter';
      settings.fetch.timeout = seconds * 1000;
      return undefined;
    }
    case 'o':
      if (argument !== '/dev/null') return 'there are no files on the virtual LAN; only /dev/null';
      settings.discard = true;
      return undefined;
    default:
      settings.fetch.localAddress = argument;
      return undefined;
  }
}

/** All URLs a glob stands for; a string is curl's complaint. A bracketed IPv6 address is not a glob. */
export function expand(url: string): string[] | string {
  const glob = /\{([^{}]*)\}|\[(?![0-9a-fA-F:.]*:)([^\]]*)\]/.exec(url);
  if (!glob) return [url];
  const before = url.slice(0, glob.index);
  const behind = url.slice(glob.index + glob[0].length);
  if (glob[1] !== undefined) return expandEach(glob[1].split(','), before, behind);
  const range = glob[2] as string;
  const numbers = /^(\d{1,9})-(\d{1,9})$/.exec(range);
  const from = Number(numbers?.[1]);
  const to = Number(numbers?.[2]);
  if (!numbers || from > to || to - from >= 1000) {
    const position = glob.index + 1 + (/^\d+-/.exec(range)?.[0].length ?? 0) + 1;
    return `curl: (3) bad range in URL position ${position}:\n${url}\n${' '.repeat(position - 1)}^\n`;
  }
  const width = (numbers[1] as string).startsWith('0') ? (numbers[1] as string).length : 1;
  const values = Array.from({ length: to - from + 1 }, (_, index) =>
    String(from + index).padStart(width, '0'),
  );
  return expandEach(values, before, behind);
}

function expandEach(values: readonly string[], before: string, behind: string): string[] | string {
  const rest = expand(behind);
  if (!Array.isArray(rest)) return rest;
  return values.flatMap(value => rest.map(each => `${before}${value}${each}`));
}

/** Exit status and message of curl 7.88. */
function explain(error: FetchError, url: string, elapsed: number): [number, string] {
  const parts = parseUrl(url);
  const place = `${parts?.host} port ${parts?.port}`;
  switch (error.code) {
    case 'malformed':
      if (error.connected) return [1, 'Received HTTP/0.9 when not allowed'];
      return /^[a-z][a-z0-9+.-]*:\/\//i.test(url) && !/^http:/i.test(url)
        ? [1, `Protocol "${url.slice(0, url.indexOf(':'))}" not supported or disabled in libcurl`]
        : [3, 'URL using bad/illegal format or missing URL'];
    case 'resolve':
      return [6, error.message];
    case 'empty':
      return [52, 'Empty reply from server'];
    case 'partial':
      return [18, 'transfer closed with outstanding read data remaining'];
    case 'timeout':
      if (error.connected)
        return [28, `Operation timed out after ${elapsed} milliseconds with 0 bytes received`];
      return [28, `Failed to connect to ${place} after ${elapsed} ms: Couldn't connect to server`];
    default:
      if (error.connected) return [56, `Recv failure: ${error.message}`];
      return [7, `Failed to connect to ${place} after ${elapsed} ms: Couldn't connect to server`];
  }
}

function usage(wrong: string | undefined): CommandResult {
  const first = wrong === undefined ? '' : `curl: ${wrong}\n`;
  return {
    status: 2,
    stdout: '',
    stderr: `${first}curl: try 'curl --help' or 'curl --manual' for more information\n`,
  };
}
