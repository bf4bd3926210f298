/**
 * Every recording of a real ip_vs, played with the XDP program in front of the director on the same tables: each frame
 * runs through the program first, and what it leaves to the host never reaches the director.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { buildBpf } from '../../bpf/build.ts';
import { onTestBed } from '../../src/cli/replay.ts';
import type { XdpAccelerator } from '../../src/datapath/xdp/accelerator.ts';
import { NO_NAMES, namesFromFiles } from '../../src/ipvsadm/name-files.ts';
import { checkScenario } from '../../src/replay/check.ts';
import { type Difference, formatDifference } from '../../src/replay/comparison.ts';
import { parseScenarios, type Scenario } from '../../src/replay/scenario.ts';
import { goldenExists, goldenNames, goldenPath } from '../golden.ts';
import { missing } from '../requirements.ts';

/** What differs without XDP, too (test/replay/recorded.test.ts says why). */
const DIFFERENT_ANYWAY = new Set(['edit-forward', 'stats-big', 'sip', 'sip-ops']);

/**
 * What the program passes to the host though the director wants it, and why. One that no longer differs must leave the
 * list.
 */
const NOT_YET: readonly { why: string; names: string }[] = [
  {
    why: 'what servers answer (NAT, and the errors and fragments of theirs) is not looked at by the program',
    names:
      'nat-frag nat-frag6 nat-icmp-send nat-icmp-tcp nat-icmp-tcp-2arm nat-icmp-udp nat-icmp6-tcp nat-icmp6-udp nat-snat-connmark nat-tcp nat-tcp-2arm nat-tcp-sameport nat-tcp6 nat-tcp6-2arm nat-udp nat-udp-2arm nat-udp-zero-csum nat-udp6 sctp-m clear-enc0 clear-enc1 delete-service-udp-enc0 delete-service-udp-enc1 persist-nat persist-port0-nat rate reuse0-nat-tw reuse1-nat-tw reuse2-nat-tw set-nat stats-nat tcp-nat-both-close tcp-nat-client-close tcp-nat-finack-combined tcp-nat-halfopen tcp-nat-refused tcp-nat-retransmit tcp-nat-rst-client tcp-nat-rst-server tcp-nat-rst-synrecv tcp-nat-server-close udp-nat',
  },
  {
    why: 'services of firewall marks get no packets',
    names:
      'fwmark-dr fwmark-nat fwmark-plain persist-fwmark dh-equal dh-open dh-hot dh-zero dh-change dh-thresholds dh-mix1100 dh-mix1101 dh-mix1102 dh-mix1103 lblc-equal lblc-open lblc-hot lblc-zero lblc-change lblc-thresholds lblc-expire lblc-mix1201 lblc-mix1202 lblc-mix1203 lblcr-equal lblcr-open lblcr-hot lblcr-zero lblcr-change lblcr-thresholds lblcr-expire lblcr-mix1300 lblcr-mix1301 lblcr-mix1302',
  },
  {
    why: "errors of routers on a tunnel's way, to the director's own address, are not looked at",
    names: 'tun-err-gre tun-err-gue tun-err-ipip',
  },
];

const notYet = new Map(NOT_YET.flatMap(({ why, names }) => names.split(' ').map(name => [name, why])));

const skip =
  missing('root', 'clang', 'ip') || (!goldenExists('conns') && 'the recordings of a real ip_vs are not here');

const names = existsSync('/etc/services')
  ? namesFromFiles(readFileSync('/etc/services', 'utf8'), '')
  : NO_NAMES;

/** Pseudo-random and the same every time (xorshift32). */
function sequence(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

function scenariosIn(folder: string): Scenario[] {
  const ending = folder === 'sched' ? '.jsonl' : '.json';
  return goldenNames(folder).flatMap(name => {
    const file = `${folder}/${name}${ending}`;
    return parseScenarios(readFileSync(goldenPath(file), 'utf8'), file);
  });
}

interface Played {
  name: string;
  differences: Difference[];
}

for (const [folder, fewest] of [
  ['sched', 1000],
  ['rewrite', 20],
  ['conns', 100],
] as const) {
  test(`recorded ${folder}, by the XDP program`, { skip }, async context => {
    buildBpf();
    const played: Played[] = [];
    let sent = 0;
    await onTestBed(accelerate => {
      const made: XdpAccelerator[] = [];
      const options = {
        names,
        random: sequence(1),
        accelerate: () => {
          const accelerator = accelerate();
          made.push(accelerator);
          return accelerator;
        },
      };
      for (const scenario of scenariosIn(folder)) {
        const { name } = scenario.scenario;
        if (DIFFERENT_ANYWAY.has(name)) continue;
        // Trying the positions of the timer wheel does not help what is known to differ.
        const phase = notYet.has(name) ? { timerPhase: 0 } : {};
        played.push({ name, differences: checkScenario(scenario, folder, { ...options, ...phase }) });
      }
      for (const accelerator of made) sent += accelerator.sent;
    });
    for (const { name, differences } of played) {
      await context.test(name, { todo: notYet.get(name) ?? false }, () => {
        assert.equal(differences.length, 0, `\n${differences.map(formatDifference).join('')}`);
      });
    }
    const done = played.filter(({ name, differences }) => notYet.has(name) && differences.length === 0);
    assert.deepEqual(
      done.map(({ name }) => name),
      [],
      'these are as recorded now: take them off NOT_YET',
    );
    assert.ok(sent >= fewest, `the program itself sent only ${sent} frames`);
  });
}
