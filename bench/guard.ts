/**
 * The guard over ARP and neighbour discovery against attackers between namespaces: how long until it tells, until those
 * who believed the attacker know better, how many packets went to the attacker meanwhile, and how many false alarms 100
 * failovers and restarts raise.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { advertisement, announcement, answer, question } from '../src/arp/guard.fixture.ts';
import { inNetworkNamespace } from '../src/datapath/ffi/libc.ts';
import { PacketTap, PacketType } from '../src/datapath/ffi/packet-tap.ts';
import { AdvertisementFlag } from '../src/wire/neighbor-discovery.ts';
import { addressOf, GuardedCluster, type RunningGuard, VIP, VIP6 } from '../test/arp/cluster.ts';
import { failOver } from '../test/arp/failover.ts';
import { missing } from '../test/requirements.ts';
import { heading } from './measure.ts';

/** Attacks of each form. */
const ATTACKS = 50;
/** Milliseconds between two, longer than a correction's repetition. */
const PAUSE = 150;
/** Seconds that a client talks to the VIP while arpspoof attacks, and packets a second. */
const SECONDS = 10;
const RATE = 200;
const FAILOVERS = 100;

export async function guardBenchmark(): Promise<void> {
  heading('Guard: against attackers between namespaces (1 director, 1 client, 1 attacker on a bridge)');
  const reason = missing('root', 'ip', 'ethtool', 'arpspoof', 'ping', 'clang');
  if (reason) {
    process.stdout.write(`  left out: ${reason}\n`);
    return;
  }
  await measureDetection();
  for (const mode of ['none', 'protect', 'enforce'] as const) await measureArpspoof(mode);
  await measureFalseAlarms();
}

/** Times from the attacker's frame, as the kernel saw it arrive, to the event in this process, and to the correction. */
async function measureDetection(): Promise<void> {
  const cluster = new GuardedCluster();
  try {
    const { attacker, director } = cluster.macs;
    const guard = await cluster.guard('director', 'protect', '--quiet', '0');
    const forms: [string, string, Uint8Array][] = [
      ['gratuitous request', VIP, announcement(VIP, attacker)],
      ['gratuitous reply', VIP, announcement(VIP, attacker, true)],
      ['request in its name', VIP, question(addressOf('director'), VIP, attacker)],
      ['reply to the director', VIP, answer(VIP, attacker, { to: director, target: addressOf('director') })],
      ['IPv6 NA with override', VIP6, advertisement(VIP6, attacker, AdvertisementFlag.override)],
      ['IPv6 NA without override', VIP6, advertisement(VIP6, attacker, 0)],
    ];
    // What the client sees: the attack, then the director's word.
    const seen: { mac: string; time: number }[] = [];
    cluster.segment('client').watch(({ observation: { claim, mac }, isOutgoing, time }) => {
      if (!isOutgoing && (claim === VIP || claim === VIP6)) seen.push({ mac: mac ?? '', time });
    });
    row('attack', 'told after, ms (median / worst)', 'corrected at the client after, ms');
    for (const [name, address, frame] of forms) {
      const told: number[] = [];
      const restored: number[] = [];
      for (let count = 0; count < ATTACKS; count++) {
        guard.events.length = 0;
        guard.heard.length = 0;
        seen.length = 0;
        cluster.segment('attacker').send(frame);
        await sleep(PAUSE);
        const event = guard.events.findIndex(each => each.kind === 'vip-claimed' && each.address === address);
        if (event >= 0) {
          told.push(
            (guard.heard[event] as number) - Date.parse((guard.events[event] as { time: string }).time),
          );
        }
        const attack = seen.find(({ mac }) => mac === attacker);
        const correction = seen.find(({ mac, time }) => mac === director && attack && time >= attack.time);
        if (attack && correction) restored.push(correction.time - attack.time);
      }
      row(name, spread(told), restored.length > 0 ? spread(restored) : 'the client did not see it');
      if (told.length < ATTACKS)
        process.stdout.write(`    MISSED: ${ATTACKS - told.length} of ${ATTACKS} were not told\n`);
    }
  } finally {
    await cluster.remove();
  }
}

/** A client talks to the VIP while arpspoof says that it is at the attacker's. */
async function measureArpspoof(mode: 'none' | 'protect' | 'enforce'): Promise<void> {
  const cluster = new GuardedCluster();
  let tap: PacketTap | undefined;
  try {
    const { lab } = cluster;
    let guard: RunningGuard | undefined;
    if (mode === 'protect') guard = await cluster.guard('director', 'protect');
    if (mode === 'enforce') guard = await cluster.guard('lan', 'enforce');
    cluster.visit('client', VIP);
    const own = cluster.segment('attacker').interface;
    tap = inNetworkNamespace(
      lab.namespace('attacker'),
      () => new PacketTap({ interfaceIndex: own.index, interfaceName: own.name }),
    );
    let stolen = 0;
    tap.watch(({ bytes, type }) => {
      const isIcmp = bytes[12] === 8 && bytes[13] === 0 && bytes[23] === 1;
      if (type === PacketType.host && isIcmp && bytes.subarray(30, 34).join('.') === VIP) stolen++;
    });
    const spoof = lab.start('attacker', {}, 'arpspoof', '-i', 'eth0', VIP);
    const count = SECONDS * RATE;
    const ping = lab.start(
      'client',
      {},
      'ping',
      '-q',
      '-i',
      String(1 / RATE),
      '-c',
      String(count),
      '-W',
      '1',
      VIP,
    );
    await new Promise(resolve => ping.once('exit', resolve));
    spoof.kill('SIGKILL');
    const corrections = guard ? await stopped(guard) : '';
    const name = {
      none: 'nobody guards',
      protect: 'protect on the director',
      enforce: 'enforce on the bridge',
    }[mode];
    row(`arpspoof, ${SECONDS} s, ${count} packets: ${name}`, `${stolen} to the attacker`, corrections);
  } finally {
    tap?.close();
    await cluster.remove();
  }
}

async function stopped(guard: RunningGuard): Promise<string> {
  await guard.stop();
  return /[0-9]+ messages dropped; [0-9]+ corrections/.exec(guard.stderr)?.[0] ?? '';
}

async function measureFalseAlarms(): Promise<void> {
  const cluster = new GuardedCluster();
  try {
    const { alarms, moves, missed } = await failOver(cluster, FAILOVERS);
    const caught = missed.length === 0 ? 'an attack after them was told' : `MISSED by ${missed.join(', ')}`;
    row(
      `${FAILOVERS} failovers and restarts, three guards`,
      `${alarms.length} false alarms`,
      `${moves} moves seen; ${caught}`,
    );
    for (const { kind, text } of alarms) process.stdout.write(`    FALSE: ${kind}: ${text}\n`);
  } finally {
    await cluster.remove();
  }
}

function spread(values: number[]): string {
  const sorted = values.toSorted((one, other) => one - other);
  const median = sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
  return `${median.toFixed(1)} / ${(sorted.at(-1) ?? Number.NaN).toFixed(1)}`;
}

function row(what: string, first: string, second: string): void {
  process.stdout.write(`  ${what.padEnd(66)} ${first.padEnd(34)} ${second}\n`);
}
