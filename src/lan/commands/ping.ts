/** `ping` of iputils. */
import { parseAddress } from '../../wire/address.ts';
import type { Host } from '../host.ts';
import type { PingAnswer, PingOptions, PingReport } from '../ping.ts';
import type { CommandResult } from '../shell.ts';

interface Arguments {
  options: PingOptions & { count: number };
  quiet: boolean;
  name: string;
}

/** `ping -c COUNT [-i SECONDS] [-W SECONDS] [-s SIZE] [-t TTL] [-n] [-q] ADDRESS`. */
export async function runPing(host: Host, argv: readonly string[]): Promise<CommandResult> {
  const parsed = parseArguments(argv);
  if ('status' in parsed) return parsed;
  const { name, options, quiet } = parsed;
  const address = host.resolve(name);
  if (!address) return failure(`ping: ${name}: Temporary failure in name resolution`, 2);
  let report: PingReport;
  try {
    report = await host.ping(address, options);
  } catch (error) {
    return failure(`ping: connect: ${error instanceof Error ? error.message : String(error)}`, 2);
  }
  const isIpv4 = parseAddress(address)?.length === 4;
  const size = options.size ?? 56;
  const title = isIpv4
    ? `PING ${name} (${address}) ${size}(${size + 28}) bytes of data.`
    : `PING ${name}(${address}) ${size} data bytes`;
  const lines = quiet ? [] : report.answers.map(answer => describe(answer, isIpv4));
  const received = report.answers.filter(answer => answer.time !== undefined).length;
  const stdout = `${[title, ...lines, '', ...statistics(name, report)].join('\n')}\n`;
  return { status: received > 0 ? 0 : 1, stdout, stderr: '' };
}

function parseArguments(argv: readonly string[]): Arguments | CommandResult {
  const options: PingOptions = {};
  let quiet = false;
  const names: string[] = [];
  const rest = [...argv];
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    const match = /^-([a-zA-Z0-9])(.*)$/.exec(word);
    if (!match) {
      names.push(word);
      continue;
    }
    const letter = match[1] as string;
    if ('nq46'.includes(letter) && match[2] === '') {
      quiet ||= letter === 'q';
      continue;
    }
    if (!'ciWst'.includes(letter)) return failure(`ping: invalid option -- '${letter}'`, 2);
    const text = match[2] === '' ? rest.shift() : match[2];
    if (text === undefined) return failure(`ping: option requires an argument -- '${letter}'`, 2);
    const value = Number(text);
    const isWhole = letter === 'c' || letter === 's' || letter === 't';
    if (text.trim() === '' || !(isWhole ? Number.isInteger(value) : Number.isFinite(value)))
      return failure(`ping: invalid argument: '${text}'`, 1);
    const [least, most] = RANGES[letter] as [number, number];
    if (value < least || value > most)
      return failure(`ping: invalid argument: '${text}': out of range: ${least} <= value <= ${most}`, 1);
    if (letter === 'c') options.count = value;
    else if (letter === 'i') options.interval = value * 1000;
    else if (letter === 'W') options.timeout = value * 1000;
    else if (letter === 's') options.size = value;
    else options.ttl = value;
  }
  const [name, surplus] = names;
  if (name === undefined) return failure('ping: usage error: Destination address required', 1);
  if (surplus !== undefined) return failure(`ping: unexpected argument: ${surplus}`, 2);
  const { count } = options;
  // Nobody can press Ctrl-C in virtual time.
  if (count === undefined) return failure('ping: say how often on the virtual LAN: -c COUNT', 1);
  return { options: { ...options, count }, quiet, name };
}

const RANGES: Readonly<Record<string, [number, number]>> = {
  c: [1, 65535],
  i: [0, 86400],
  W: [0, 86400],
  s: [0, 65399],
  t: [1, 255],
};

function describe(answer: PingAnswer, isIpv4: boolean): string {
  if (answer.time !== undefined)
    return `${answer.length} bytes from ${answer.from}: icmp_seq=${answer.sequence} ttl=${answer.ttl} time=${roundTrip(answer.time)} ms`;
  const reason = (isIpv4 ? REASONS : REASONS6)[answer.error ?? 'other'];
  return `From ${answer.from} icmp_seq=${answer.sequence} ${reason}`;
}

const REASONS = {
  'net-unreachable': 'Destination Net Unreachable',
  'host-unreachable': 'Destination Host Unreachable',
  'port-unreachable': 'Destination Port Unreachable',
  'too-big': 'Frag needed and DF set',
  'time-exceeded': 'Time to live exceeded',
  other: 'Destination Unreachable',
} as const;

const REASONS6 = {
  'net-unreachable': 'Destination unreachable: No route',
  'host-unreachable': 'Destination unreachable: Address unreachable',
  'port-unreachable': 'Destination unreachable: Port unreachable',
  'too-big': 'Packet too big',
  'time-exceeded': 'Time exceeded: Hop limit',
  other: 'Destination unreachable',
} as const;

/** Four significant digits at most, as iputils prints them. */
function roundTrip(time: number): string {
  if (time >= 100) return time.toFixed(0);
  if (time >= 10) return time.toFixed(1);
  return time.toFixed(time >= 1 ? 2 : 3);
}

function statistics(name: string, report: PingReport): string[] {
  const times = report.answers.flatMap(answer => (answer.time === undefined ? [] : [answer.time]));
  const errors = report.answers.length - times.length;
  const loss = Math.floor((100 * (report.sent - times.length)) / report.sent);
  const lines = [
    `--- ${name} ping statistics ---`,
    `${report.sent} packets transmitted, ${times.length} received, ${errors > 0 ? `+${errors} errors, ` : ''}${loss}% packet loss, time ${Math.floor(report.elapsed)}ms`,
  ];
  if (times.length > 0) {
    const mean = times.reduce((sum, time) => sum + time, 0) / times.length;
    const square = times.reduce((sum, time) => sum + time * time, 0) / times.length;
    const deviation = Math.sqrt(Math.max(0, square - mean * mean));
    const values = [Math.min(...times), mean, Math.max(...times), deviation];
    lines.push(`rtt min/avg/max/mdev = ${values.map(value => value.toFixed(3)).join('/')} ms`);
  } else {
    lines.push(errors > 0 && report.pipe > 1 ? `pipe ${report.pipe}` : '');
  }
  return lines;
}

function failure(text: string, status: number): CommandResult {
  return { status, stdout: '', stderr: `${text}\n` };
}
