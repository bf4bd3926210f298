/**
 * Compares what the director did with what a scenario says that a real `ip_vs` did, with the care the recordings need:
 * words that are random, the order of hash tables, timers that fire late.
 */
import { EtherType } from '../wire/ethernet.ts';
import { Ipv4, Protocol } from '../wire/ipv4.ts';
import { describeFrame, fromHex } from './frames.ts';
import type { PacketOutcome, StepOutcome } from './packet-play.ts';
import type { OutFrame, PacketScenario, PacketStep, SchedulingScenario, Step } from './scenario.ts';
import type { SchedulingOutcome } from './scheduling-play.ts';

export interface Difference {
  /** `step 3`, `end`. */
  where: string;
  /** What differs: `out`, `show -Lnc`, `stdout`, `chosen`, `counts` … */
  what: string;
  recorded: string;
  played: string;
}

/** Offsets in a frame of the words that are random in a packet of the director's own. */
const IDENTIFICATION_AND_CHECKSUM = [18, 24];
/** Where an IP header begins in a frame without VLAN tags. */
const NETWORK_AT = 14;
/** By how many seconds expiry columns may differ. */
const EXPIRY_TOLERANCE = 1;
/** Listed connections, with the time they have left. */
const CONNECTION_ROW = /^(\S+\s+)(\d{2,}):(\d\d)(\s+.*)$/;

/** What differs in a scenario of packets, up to the first step that is marked as an edge. */
export function comparePackets(scenario: PacketScenario, outcome: PacketOutcome): Difference[] {
  const differences: Difference[] = [];
  for (const [index, step] of scenario.steps.entries()) {
    // The recording of an edge, and all that follows, depends on when a timer of the kernel happened to fire.
    if (step.edge) return differences;
    compareStep(`step ${index}`, step, outcome.steps[index] ?? {}, differences);
  }
  compareListings('end', scenario.end, outcome.end, differences);
  return differences;
}

function compareStep(where: string, step: Step, played: StepOutcome, differences: Difference[]): void {
  if (step.op === 'packet' && Array.isArray(step.out)) {
    compareFrames(where, step, step.out as OutFrame[], played.out ?? [], differences);
  }
  if (step.op === 'ipvsadm') {
    const listsConnections = step.argv.some(word => /^-[lLn]*c|^--connection/.test(word));
    compareValue(where, 'status', step.status, played.status, differences);
    compareValue(where, 'stderr', step.stderr, played.stderr, differences);
    if (listsConnections && typeof step.stdout === 'string') {
      compareConnections(where, 'stdout', step.stdout, played.stdout ?? '', differences);
    } else compareValue(where, 'stdout', step.stdout, played.stdout, differences);
  }
  compareListings(where, step.show, played.show, differences);
}

function compareListings(
  where: string,
  recorded: unknown,
  played: Record<string, string> | undefined,
  differences: Difference[],
): void {
  if (typeof recorded !== 'object' || recorded === null) return;
  for (const [listing, text] of Object.entries(recorded)) {
    if (typeof text !== 'string' || text === '') continue;
    const got = played?.[listing] ?? '';
    if (/^-\w*c/.test(listing)) compareConnections(where, `show ${listing}`, text, got, differences);
    else compareValue(where, `show ${listing}`, text, got, differences);
  }
}

function compareValue(
  where: string,
  what: string,
  recorded: unknown,
  played: unknown,
  differences: Difference[],
): void {
  if (recorded === undefined || recorded === null || recorded === played) return;
  differences.push({ where, what, recorded: textOf(recorded), played: textOf(played) });
}

/** Frames in order, each interface by itself. */
function compareFrames(
  where: string,
  step: PacketStep,
  recorded: readonly OutFrame[],
  played: readonly OutFrame[],
  differences: Difference[],
): void {
  const input = fromHex(step.in);
  const devices = new Set([...recorded, ...played].map(({ dev }) => dev));
  for (const dev of devices) {
    const before = recorded.filter(frame => frame.dev === dev);
    const after = played.filter(frame => frame.dev === dev);
    for (let index = 0; index < Math.max(before.length, after.length); index++) {
      const [expected, got] = [before[index], after[index]];
      if (expected && got && isSameFrame(expected, got, input)) continue;
      differences.push({
        where,
        what: `out ${index} on ${dev}`,
        recorded: frameText(expected),
        played: frameText(got),
      });
    }
  }
}

function frameText(frame: OutFrame | undefined): string {
  if (!frame) return 'no frame';
  return `${describeFrame(fromHex(frame.hex))}\n${frame.hex}`;
}

function isSameFrame(recorded: OutFrame, played: OutFrame, input: Uint8Array): boolean {
  if (recorded.hex.length !== played.hex.length) return false;
  const [expected, got] = [fromHex(recorded.hex), fromHex(played.hex)];
  const varies = recorded.varies ?? randomWords(expected, input);
  for (const bytes of [expected, got]) blank(bytes, varies);
  return expected.every((byte, at) => byte === got[at]);
}

/**
 * The random words of a frame whose recording does not say which they are: the identification of an ICMP message and
 * the IPv6 flow label, if they did not come in with the step's frame but were made up by the director.
 */
function randomWords(frame: Uint8Array, input: Uint8Array): readonly number[] {
  if (frame.length < 34) return [];
  const view = new DataView(frame.buffer);
  const came = new DataView(input.length < 34 ? new ArrayBuffer(34) : input.buffer);
  const etherType = view.getUint16(12);
  if (etherType === EtherType.ipv6) {
    const label = view.getUint32(NETWORK_AT) & 0xfffff;
    return label === (came.getUint32(NETWORK_AT) & 0xfffff) ? [] : [NETWORK_AT, NETWORK_AT + 2];
  }
  if (etherType !== EtherType.ipv4 || frame[NETWORK_AT + Ipv4.protocol] !== Protocol.icmp) return [];
  const at = NETWORK_AT + Ipv4.identification;
  return view.getUint16(at) === came.getUint16(at) ? [] : IDENTIFICATION_AND_CHECKSUM;
}

/** Zeroes the words that differed between two recordings. */
function blank(bytes: Uint8Array, offsets: readonly number[]): void {
  for (const offset of offsets) bytes.fill(0, offset, offset + 2);
  const isIpv6 = ((bytes[12] as number) << 8) + (bytes[13] as number) === EtherType.ipv6;
  // The flow label is 20 bits over two words; where one varies it is a hash with a secret, and so is the other.
  if (isIpv6 && (offsets.includes(NETWORK_AT) || offsets.includes(NETWORK_AT + 2))) {
    bytes[NETWORK_AT] = 0x60;
    bytes[NETWORK_AT + 1] = (offsets.includes(NETWORK_AT) ? 0 : (bytes[NETWORK_AT + 1] as number)) & 0xf0;
    bytes.fill(0, NETWORK_AT + 2, NETWORK_AT + 4);
  }
}

/** Listings of connections: rows in any order, times within a second. */
function compareConnections(
  where: string,
  what: string,
  recorded: string,
  played: string,
  differences: Difference[],
): void {
  const left = played.split('\n');
  const missing = recorded.split('\n').filter(line => {
    const at = left.findIndex(other => isSameRow(line, other));
    if (at >= 0) left.splice(at, 1);
    return at < 0;
  });
  if (missing.length === 0 && left.length === 0) return;
  differences.push({ where, what, recorded: missing.join('\n'), played: left.join('\n') });
}

function isSameRow(recorded: string, played: string): boolean {
  if (recorded === played) return true;
  const [expected, got] = [CONNECTION_ROW.exec(recorded), CONNECTION_ROW.exec(played)];
  if (!expected || !got || expected[1] !== got[1] || expected[4] !== got[4]) return false;
  const seconds = (row: RegExpExecArray): number => 60 * Number(row[2]) + Number(row[3]);
  return Math.abs(seconds(expected) - seconds(got)) <= EXPIRY_TOLERANCE;
}

/** What differs in a scenario of scheduling. `twos` draws at random: only the shares are compared there. */
export function compareScheduling(scenario: SchedulingScenario, outcome: SchedulingOutcome): Difference[] {
  if (scenario.scheduler === 'twos') return compareShares(scenario, outcome);
  const differences: Difference[] = [];
  for (const [index, step] of scenario.steps.entries()) {
    const played = outcome.steps[index];
    const where = `step ${index}`;
    if (step.op === 'new') {
      if (step.chosen !== undefined && step.chosen !== played?.chosen) {
        differences.push({
          where,
          what: 'chosen',
          recorded: textOf(step.chosen),
          played: textOf(played?.chosen),
        });
      }
      compareJson(where, 'reply', step.reply, played?.reply, differences);
    }
    compareJson(where, 'counts', sorted(step.counts), sorted(played?.counts), differences);
  }
  compareJson('whole', 'chosen', scenario.chosen, outcome.chosen, differences);
  return differences;
}

function compareShares(scenario: SchedulingScenario, outcome: SchedulingOutcome): Difference[] {
  const recorded = Array.isArray(scenario.chosen) ? (scenario.chosen as unknown[]) : [];
  const differences: Difference[] = [];
  for (const name of new Set([...recorded, ...outcome.chosen])) {
    const before = recorded.filter(each => each === name).length;
    const after = outcome.chosen.filter(each => each === name).length;
    // Four standard deviations of the difference between two draws.
    const spread = 4 * Math.sqrt(Math.max(1, 2 * recorded.length * 0.25));
    if (recorded.length === 0 || Math.abs(before - after) <= spread) continue;
    differences.push({
      where: 'whole',
      what: `share of ${name}`,
      recorded: String(before),
      played: String(after),
    });
  }
  return differences;
}

function compareJson(
  where: string,
  what: string,
  recorded: unknown,
  played: unknown,
  differences: Difference[],
): void {
  if (recorded === undefined || recorded === null || recorded === '') return;
  const [expected, got] = [JSON.stringify(recorded), JSON.stringify(played)];
  if (expected !== got) differences.push({ where, what, recorded: expected, played: got ?? 'nothing' });
}

/** The fields of an object by name. */
function sorted(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function textOf(value: unknown): string {
  if (value === undefined) return 'nothing';
  return typeof value === 'string' ? value : JSON.stringify(value);
}

/** A difference as a person reads it. */
export function formatDifference({ where, what, recorded, played }: Difference): string {
  const block = (text: string): string => text.trimEnd().replace(/^/gm, '      ');
  return `  ${where}: ${what}\n    recorded\n${block(recorded)}\n    played\n${block(played)}\n`;
}
