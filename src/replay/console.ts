/**
 * What an administrator types at a host: `ipvsadm`, `sysctl`, `ip`, mark rules and `nft` tables that set marks, and
 * the files under /proc that tell about the virtual server. Everything that cannot be done is refused by name.
 */
import { type MarkRule, MarkRuleError, MarkRules, parseMarkRule } from '../ipvs/mark-rules.ts';
import { DEFAULT_SETTINGS, type Settings } from '../ipvs/settings.ts';
import { NO_NAMES } from '../ipvsadm/name-files.ts';
import type { NameService } from '../ipvsadm/names.ts';
import { type IpvsadmResult, runIpvsadm } from '../ipvsadm/run.ts';
import type { ReplayHost } from './host.ts';
import { runIp } from './ip-command.ts';
import { formatStatistics } from './ip-vs-stats.ts';
import { parseNftMarks } from './nft-marks.ts';

/** A command that this console does not know, or that could not be done. */
export class CommandError extends Error {
  override name = 'CommandError';
}

/**
 * Settings of the kernel that concern netfilter's connection tracking, which a director of its own has not: 0 and 1 are
 * taken, and change nothing that leaves it.
 */
const CONNTRACK_SETTINGS = new Set(['conntrack', 'snat_reroute']);

export class Console {
  readonly #host: ReplayHost;
  readonly #names: NameService;

  constructor(host: ReplayHost, names: NameService = NO_NAMES) {
    this.#host = host;
    this.#names = names;
  }

  /**
   * Runs a line of a set-up; it must succeed.
   * @throws CommandError
   */
  setUp(line: string): void {
    const text = line.trim();
    const [first = ''] = text.split(/\s+/, 1);
    const rest = text.slice(first.length).trim();
    if (first === 'ipvsadm') {
      const { status, stderr } = this.ipvsadm(splitWords(rest));
      if (status !== 0) throw new CommandError(`${text}: ${stderr.trim() || `status ${status}`}`);
    } else if (first === 'nft') this.#addMarks(() => parseNftMarks(rest));
    else if (isMarkRule(text)) this.#addMarks(() => [parseMarkRule(text)]);
    else this.shell(first === 'sh' ? rest : text);
  }

  /** @param words without the program's name */
  ipvsadm(words: readonly string[], stdin = ''): IpvsadmResult {
    this.#host.director.administration.now = this.#host.now;
    return runIpvsadm(words, stdin, this.#host.director.administration, this.#names);
  }

  /**
   * Runs `ip …`, `sysctl …` or `cat /proc/net/ip_vs_stats` and returns what it prints.
   * @throws CommandError
   */
  shell(line: string): string {
    const [program = '', ...words] = splitWords(line);
    try {
      if (program === 'ip') return runIp(this.#host, words);
      if (program === 'sysctl') return this.#sysctl(words);
      // What the kernel has in modules is always there.
      if (program === 'modprobe' && words.every(word => /^ip_vs(_\w+)?$/.test(word))) return '';
    } catch (error) {
      throw new CommandError(`${line}: ${error instanceof Error ? error.message : String(error)}`);
    }
    if (program === 'cat' && words.join(' ') === '/proc/net/ip_vs_stats') {
      return formatStatistics(this.#host.director.administration.totals());
    }
    throw new CommandError(
      `${line}: not known here; ipvsadm, sysctl, ip, nft and mark lines and "cat /proc/net/ip_vs_stats" are`,
    );
  }

  #addMarks(parse: () => readonly MarkRule[]): void {
    const { director } = this.#host;
    try {
      const rules = [...director.marks.rules, ...parse()];
      director.marks = new MarkRules(rules, name => this.#host.interfaceNamed(name)?.index);
    } catch (error) {
      if (!(error instanceof MarkRuleError)) throw error;
      throw new CommandError(error.message);
    }
  }

  /** `sysctl net.ipv4.vs.NAME=VALUE`, with or without `-w` and `net.`, dots or slashes, `=` or a blank. */
  #sysctl(words: readonly string[]): string {
    const [key = '', value = '', ...more] = words
      .filter(word => word !== '-w')
      .join('=')
      .split('=')
      .filter(word => word !== '');
    if (value === '' || more.length > 0) throw new CommandError('write sysctl KEY VALUE');
    const path = key.replace(/\//g, '.').replace(/^net\./, '');
    const number = /^[0-9]{1,9}$/.test(value) ? Number(value) : Number.NaN;
    if (Number.isNaN(number)) throw new CommandError(`"${value}" is no value: 0 or more is`);
    const setting = /^ipv4\.vs\.(\w+)$/.exec(path)?.[1];
    if (path === 'ipv4.ip_forward') this.#host.forwarding[4] = number !== 0;
    else if (path === 'ipv6.conf.all.forwarding') this.#host.forwarding[6] = number !== 0;
    else if (setting !== undefined && isSetting(setting)) this.#host.director.set(setting, value);
    else if (setting === undefined || !CONNTRACK_SETTINGS.has(setting) || number > 1) {
      throw new CommandError(`there is no setting ${key} to make ${value}`);
    }
    return `${key} = ${value}\n`;
  }
}

function isSetting(name: string): name is keyof Settings {
  return Object.hasOwn(DEFAULT_SETTINGS, name);
}

/** True for lines such as `tcp to 10.0.0.3 port 80-443 mark 1`. */
function isMarkRule(line: string): boolean {
  return /^((tcp|udp|sctp)[\s,]|from\s|to\s|s?port\s|on\s|mark\s)/.test(line) && /\bmark\b/.test(line);
}

/** Words with quotes around blanks taken off. */
export function splitWords(line: string): string[] {
  return [...line.matchAll(/"([^"]*)"|'([^']*)'|(\S+)/g)].map(
    ([, double, single, plain]) => double ?? single ?? plain ?? '',
  );
}
