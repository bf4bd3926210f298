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
        played.push({ name, differences: checkScenario(scenario, folder, options) });
      }
      for (const accelerator of made) sent += accelerator.sent;
    });
    for (const { name, differences } of played) {
      await context.test(name, () => {
        assert.equal(differences.length, 0, `\n${differences.map(formatDifference).join('')}`);
      });
    }
    assert.ok(sent >= fewest, `the program itself sent only ${sent} frames`);
  });
}
