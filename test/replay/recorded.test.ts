/** Every recording of a real ip_vs, played: the director does the same, frame by frame and listing by listing. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { NO_NAMES, namesFromFiles } from '../../src/ipvsadm/name-files.ts';
import { checkScenario } from '../../src/replay/check.ts';
import { formatDifference } from '../../src/replay/comparison.ts';
import { filledIn, type PlayOptions, playPackets } from '../../src/replay/packet-play.ts';
import { parseScenarios, type Scenario } from '../../src/replay/scenario.ts';
import { playScheduling, schedulingFilledIn } from '../../src/replay/scheduling-play.ts';
import { goldenExists, goldenNames, goldenPath } from '../golden.ts';

/** The only recordings that may differ, and why. One that no longer differs must leave the list. */
const EXCEPTIONS: Readonly<Record<string, string>> = {
  'edit-forward':
    "the recordings' README: after -e from Masq to Route the kernel keeps the old route and loses new connections; not worth copying",
  'stats-big':
    'the rate after a flood of 75000 frames depends on how fast the recorder could send them, which is not recorded',
};

const skip = goldenExists('conns') ? false : 'the recordings of a real ip_vs are not here';
const options: PlayOptions = {
  names: existsSync('/etc/services') ? namesFromFiles(readFileSync('/etc/services', 'utf8'), '') : NO_NAMES,
  random: sequence(1),
};

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

for (const folder of ['sched', 'rewrite', 'conns']) {
  test(`recorded ${folder}`, { skip }, async context => {
    const scenarios = scenariosIn(folder);
    assert.ok(scenarios.length >= 80);
    for (const scenario of scenarios) {
      const { name } = scenario.scenario;
      await context.test(name, () => {
        const differences = checkScenario(scenario, folder, options);
        const text = `\n${differences.map(formatDifference).join('')}`;
        if (EXCEPTIONS[name] === undefined) assert.equal(differences.length, 0, text);
        else assert.notEqual(differences.length, 0, `${name} is as recorded now: take it off the list`);
      });
    }
  });
}

test('every exception is a recording', { skip }, () => {
  const names = new Set(['sched', 'rewrite', 'conns'].flatMap(scenariosIn).map(each => each.scenario.name));
  for (const name of Object.keys(EXCEPTIONS)) assert.ok(names.has(name), name);
});

test('what a file says of the outcome does not matter', { skip }, () => {
  for (const folder of ['rewrite', 'conns', 'sched']) {
    for (const scenario of scenariosIn(folder)) {
      const { name } = scenario.scenario;
      assert.deepEqual(play(blanked(scenario)), play(scenario), `${folder}/${name}`);
    }
  }
});

function play(each: Scenario): unknown {
  const seeded = { ...options, random: sequence(7) };
  if (each.kind === 'scheduling') {
    return schedulingFilledIn(each.scenario, playScheduling(each.scenario, 'test', seeded));
  }
  return filledIn(each.scenario, playPackets(each.scenario, 'test', { ...seeded, listings: 'asked' }));
}

/** The scenario without its outcome; of listings only the names are left. */
function blanked(each: Scenario): Scenario {
  const names = (shown: unknown): unknown =>
    typeof shown === 'object' && shown !== null
      ? Object.fromEntries(Object.keys(shown).map(key => [key, '']))
      : shown;
  if (each.kind === 'scheduling') {
    const steps = each.scenario.steps.map(({ chosen: _a, reply: _b, counts: _c, ...step }) => step);
    return { kind: 'scheduling', scenario: { ...each.scenario, steps, chosen: [] } };
  }
  const steps = each.scenario.steps.map(step => {
    const asked = { ...step };
    if ('out' in asked) asked.out = [];
    if ('show' in asked) asked.show = names(asked.show);
    for (const field of ['status', 'stdout', 'stderr'] as const) {
      if (field in asked) Object.assign(asked, { [field]: null });
    }
    return asked;
  });
  return { kind: 'packets', scenario: { ...each.scenario, steps, end: names(each.scenario.end) } };
}

test('a check finds what was changed', { skip }, () => {
  const [scenario] = parseScenarios(
    readFileSync(goldenPath('conns/tcp-nat-client-close.json'), 'utf8'),
    'test',
  );
  assert.ok(scenario?.kind === 'packets');
  const changed = structuredClone(scenario.scenario);
  const step = changed.steps[1];
  assert.ok(step?.op === 'packet');
  const [frame] = step.out as { hex: string }[];
  assert.ok(frame);
  frame.hex = `${frame.hex.slice(0, -1)}${frame.hex.endsWith('0') ? '1' : '0'}`;
  const differences = checkScenario({ kind: 'packets', scenario: changed }, 'test', options);
  assert.deepEqual(
    differences.map(({ where, what }) => `${where}: ${what}`),
    ['step 1: out 0 on eth0'],
  );
  assert.match(
    formatDifference(differences[0] ?? assert.fail()),
    /10\.0\.0\.3 -> 192\.168\.77\.5 TCP 80 > 40000/,
  );
});
