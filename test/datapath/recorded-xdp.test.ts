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
const DIFFERENT_ANYWAY = new Set(['edit-forward', 'stats-big']);

/**
 * Scenarios of which the program sends nothing, by folder (docs/fast-path.md says why): all others it must have a part in.
 * One of which it begins to send something must leave the list.
 */
const DIRECTORS: Readonly<Record<string, RegExp>> = {
  // No server, plans that need TypeScript's state, sequences that are too long.
  sched:
    /^(\w+-all-?zero(-fallback)?|(fo|ovf)-zero|(dh|lblc|lblcr)-equal|lblcr-mix1300|rr-none|wrr-(00|big|huge))$/,
  // GRE, tunnels with checksums, fragments, SCTP, marks, servers on the host itself, errors to clients.
  rewrite:
    /gre|csum-(tcp|udp|\din)|remcsum|-frag6?$|^sctp-|^fwmark-|^local-|^no-(route|server|service)|^nat-icmp-send$|^schedule-icmp$/,
  // Templates that are made with the first packet, marks, SIP, no server.
  conns: /^(fwmark-over-vip|ops-persist|persist-(fwmark|port0|port0-nat)|sip|sip-ops|stats-nodest)$/,
};
/** Frames that the program must send at least, where it is to have a part in what is rare. */
const FEWEST: readonly (readonly [RegExp, number])[] = [
  [/^(dr|tun)-icmp6?$/, 4],
  [/^nat-icmp6?-(tcp|udp)/, 5],
];

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
  /** Frames that the program sent. */
  sent: number;
}

for (const [folder, fewest] of [
  ['sched', 199],
  ['rewrite', 96],
  ['conns', 84],
] as const) {
  test(`recorded ${folder}, by the XDP program`, { skip }, async context => {
    buildBpf();
    const played: Played[] = [];
    await onTestBed(accelerate => {
      for (const scenario of scenariosIn(folder)) {
        const { name } = scenario.scenario;
        if (DIFFERENT_ANYWAY.has(name)) continue;
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
        const differences = checkScenario(scenario, folder, options);
        played.push({ name, differences, sent: made.reduce((sum, each) => sum + each.sent, 0) });
      }
    });
    for (const { name, differences, sent } of played) {
      await context.test(name, () => {
        assert.equal(differences.length, 0, `\n${differences.map(formatDifference).join('')}`);
        if (DIRECTORS[folder]?.test(name)) assert.equal(sent, 0, 'the program has a part in it now');
        else assert.ok(sent > 0, 'the program sent nothing of it');
        for (const [pattern, fewest] of FEWEST) {
          if (pattern.test(name)) assert.ok(sent >= fewest, `the program sent only ${sent} frames`);
        }
      });
    }
    assert.ok(played.length >= fewest, `only ${played.length} scenarios`);
  });
}
