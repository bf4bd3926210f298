/**
 * Scenarios as files hold them: a sequence of packets, commands and pauses that a director is put through. Two kinds:
 * of packets, one JSON value a file, and of scheduling, one a line. What such a file says about the outcome (`out`,
 * `chosen`, `counts`, `reply`, `show`, `status`, `stdout`, `stderr`, `end`) is kept for comparison and never looked
 * at otherwise; it may be blank or missing.
 */

/** Text by command, as `-Lnc`. */
export type Shown = Record<string, string>;

export interface OutFrame {
  dev: string;
  hex: string;
  desc?: string;
  /** Offsets of 16-bit words that are random. */
  varies?: number[];
}

interface Timed {
  /** Seconds since the start at which the step ended. */
  t?: number;
  show?: unknown;
  /** Two recordings disagreed here: this step and what follows is not compared. */
  edge?: boolean;
}

export interface PacketStep extends Timed {
  op: 'packet';
  dev: string;
  in: string;
  out?: unknown;
}

/** The same frame many times. */
export interface FloodStep extends Timed {
  op: 'flood';
  dev: string;
  in: string;
  times: number;
}

export interface SleepStep extends Timed {
  op: 'sleep';
  seconds: number;
}

export interface ShowStep extends Timed {
  op: 'show';
}

export interface IpvsadmStep extends Timed {
  op: 'ipvsadm';
  argv: string[];
  stdin?: string;
  status?: unknown;
  stdout?: unknown;
  stderr?: unknown;
}

/** Another command: `sysctl …`, `ip …`, `cat /proc/net/ip_vs_stats`. */
export interface ShellStep extends Timed {
  op: 'sh';
  cmd: string;
}

export type Step = PacketStep | FloodStep | SleepStep | ShowStep | IpvsadmStep | ShellStep;

export interface PacketScenario {
  name: string;
  interfaces: 1 | 2;
  net: { mtu1?: number; fwd?: number };
  setup: string[];
  steps: Step[];
  end?: unknown;
}

export interface SchedulingStep {
  op: 'new' | 'fin' | 'rst' | 'ipvsadm' | 'sleep';
  client?: [address: string, port: number];
  dst?: string;
  established?: boolean;
  argv?: string[];
  seconds?: number;
  chosen?: unknown;
  reply?: unknown;
  counts?: unknown;
}

export interface SchedulingScenario {
  name: string;
  scheduler: string;
  proto: 'tcp' | 'udp';
  service: string;
  setup: string[][];
  steps: SchedulingStep[];
  chosen?: unknown;
}

export type Scenario =
  | { kind: 'packets'; scenario: PacketScenario }
  | { kind: 'scheduling'; scenario: SchedulingScenario };

/** A file that is no scenario; the message says where and what. */
export class ScenarioError extends Error {
  override name = 'ScenarioError';
}

type Fields = Record<string, unknown>;

/**
 * Reads a file of scenarios.
 * @param file its name, for errors
 * @throws ScenarioError
 */
export function parseScenarios(text: string, file: string): Scenario[] {
  if (text.trim() === '') throw new ScenarioError(`${file}: empty`);
  const whole = tryJson(text);
  if (whole.value !== undefined) {
    return (Array.isArray(whole.value) ? whole.value : [whole.value]).map(value => readScenario(value, file));
  }
  const lines = text.split('\n').map((line, index) => ({ line, number: index + 1 }));
  const filled = lines.filter(({ line }) => line.trim() !== '');
  const first = tryJson(filled[0]?.line ?? '');
  if (first.value === undefined) throw new ScenarioError(`${file}: no JSON: ${whole.problem}`);
  return filled.map(({ line, number }) => {
    const { value, problem } = tryJson(line);
    if (value === undefined) throw new ScenarioError(`${file} line ${number}: no JSON: ${problem}`);
    return readScenario(value, filled.length > 1 ? `${file} line ${number}` : file);
  });
}

function tryJson(text: string): { value?: unknown; problem?: string } {
  try {
    return { value: JSON.parse(text) as unknown };
  } catch (error) {
    return { problem: error instanceof Error ? error.message : String(error) };
  }
}

function readScenario(value: unknown, where: string): Scenario {
  const fields = record(value, `${where}: a scenario`);
  const steps = array(fields.steps, `${where}: "steps"`).map((step, index) => ({
    fields: record(step, `${where} step ${index}`),
    at: `${where} step ${index}`,
  }));
  const isScheduling = fields.scheduler !== undefined || steps.some(({ fields: { op } }) => op === 'new');
  if (isScheduling) {
    checkSchedulingScenario(fields, where);
    for (const { fields: step, at } of steps) checkSchedulingStep(step, at);
    // Checked field by field just above.
    return {
      kind: 'scheduling',
      scenario: { ...fields, proto: fields.proto ?? 'tcp' } as unknown as SchedulingScenario,
    };
  }
  const scenario = checkPacketScenario(fields, where);
  for (const { fields: step, at } of steps) checkStep(step, at, scenario.interfaces);
  return { kind: 'packets', scenario: { ...fields, ...scenario } as unknown as PacketScenario };
}

function checkPacketScenario(
  fields: Fields,
  where: string,
): Pick<PacketScenario, 'name' | 'interfaces' | 'net' | 'setup'> {
  const interfaces = fields.interfaces ?? 1;
  if (interfaces !== 1 && interfaces !== 2) throw wrong(`${where}: "interfaces"`, '1 or 2', interfaces);
  const net = record(fields.net ?? {}, `${where}: "net"`);
  for (const key of Object.keys(net)) {
    if (key !== 'mtu1' && key !== 'fwd')
      throw new ScenarioError(`${where}: "net" knows mtu1 and fwd, not ${key}`);
    integer(net[key], `${where}: "net.${key}"`, key === 'fwd' ? 0 : 68, key === 'fwd' ? 1 : 65535);
  }
  const setup = array(fields.setup ?? [], `${where}: "setup"`).map((line, index) =>
    Array.isArray(line)
      ? words(line, `${where}: "setup" line ${index}`).join(' ')
      : string(line, `${where}: "setup" line ${index}`),
  );
  return {
    name: string(fields.name ?? '', `${where}: "name"`),
    interfaces,
    net: net as PacketScenario['net'],
    setup,
  };
}

function checkStep(step: Fields, at: string, interfaces: number): void {
  if (step.t !== undefined && !(typeof step.t === 'number' && step.t >= 0)) {
    throw wrong(`${at}: "t"`, 'seconds since the start', step.t);
  }
  switch (step.op) {
    case 'flood':
      integer(step.times, `${at}: "times"`, 0, 10_000_000);
      checkFrame(step, at, interfaces);
      break;
    case 'packet':
      checkFrame(step, at, interfaces);
      break;
    case 'sleep':
      seconds(step.seconds, at);
      break;
    case 'ipvsadm':
      words(step.argv, `${at}: "argv"`);
      if (step.stdin !== undefined) string(step.stdin, `${at}: "stdin"`);
      break;
    case 'sh':
      string(step.cmd, `${at}: "cmd"`);
      break;
    case 'show':
      break;
    default:
      throw wrong(`${at}: "op"`, 'one of packet, flood, sleep, ipvsadm, sh, show', step.op);
  }
}

function checkFrame(step: Fields, at: string, interfaces: number): void {
  step.dev ??= 'eth0';
  const devices = interfaces === 2 ? ['eth0', 'eth1'] : ['eth0'];
  if (!devices.includes(step.dev as string)) throw wrong(`${at}: "dev"`, devices.join(' or '), step.dev);
  const hex = string(step.in, `${at}: "in"`);
  if (hex.length % 2 !== 0 || !/^[0-9a-fA-F]+$/.test(hex))
    throw wrong(`${at}: "in"`, 'a frame in hexadecimal', hex);
  if (hex.length > 2 * 65535) throw new ScenarioError(`${at}: "in" is longer than any frame`);
}

function checkSchedulingScenario(fields: Fields, where: string): void {
  for (const [index, line] of array(fields.setup, `${where}: "setup"`).entries()) {
    words(line, `${where}: "setup" line ${index}`);
  }
  string(fields.service, `${where}: "service"`);
  if (fields.proto !== undefined && fields.proto !== 'tcp' && fields.proto !== 'udp') {
    throw wrong(`${where}: "proto"`, 'tcp or udp', fields.proto);
  }
}

function checkSchedulingStep(step: Fields, at: string): void {
  switch (step.op) {
    case 'new':
    case 'fin':
    case 'rst': {
      const [address, port, ...more] = array(step.client, `${at}: "client"`);
      string(address, `${at}: the client's address`);
      integer(port, `${at}: the client's port`, 0, 65535);
      if (more.length > 0) throw wrong(`${at}: "client"`, 'an address and a port', step.client);
      if (step.dst !== undefined) string(step.dst, `${at}: "dst"`);
      break;
    }
    case 'ipvsadm':
      words(step.argv, `${at}: "argv"`);
      break;
    case 'sleep':
      seconds(step.seconds, at);
      break;
    default:
      throw wrong(`${at}: "op"`, 'one of new, fin, rst, ipvsadm, sleep', step.op);
  }
}

function record(value: unknown, what: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw wrong(what, 'an object', value);
  return value as Fields;
}

function array(value: unknown, what: string): unknown[] {
  if (!Array.isArray(value)) throw wrong(what, 'a list', value);
  return value as unknown[];
}

function words(value: unknown, what: string): string[] {
  const list = array(value, what);
  if (list.length === 0) throw wrong(what, 'words, the first of them the program', value);
  return list.map(word => string(word, what));
}

function string(value: unknown, what: string): string {
  if (typeof value !== 'string') throw wrong(what, 'a text', value);
  return value;
}

function integer(value: unknown, what: string, least: number, most: number): void {
  if (!Number.isInteger(value) || (value as number) < least || (value as number) > most) {
    throw wrong(what, `a whole number ${least}..${most}`, value);
  }
}

function seconds(value: unknown, at: string): void {
  if (typeof value !== 'number' || !(value >= 0 && value <= 31 * 86_400)) {
    throw wrong(`${at}: "seconds"`, 'a number 0..2678400', value);
  }
}

function wrong(what: string, expected: string, found: unknown): ScenarioError {
  const text = found === undefined ? 'missing' : (JSON.stringify(found) ?? String(found));
  const shown = text.length > 60 ? `${text.slice(0, 57)}...` : text;
  return new ScenarioError(`${what} must be ${expected}, it is ${shown}`);
}
