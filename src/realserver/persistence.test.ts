/** What lasts over a reboot: the files, by request. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { addPersistence } from './persistence.ts';
import { parseRequest, type RequestWords } from './request.ts';
import type { Plan } from './step.ts';

const nothing: RequestWords = {
  mode: 'fullnat',
  vip: [],
  interface: [],
  director: [],
  client: [],
  tunnel: [],
  guePort: '6080',
  decapsulation: 'auto',
  lip: [],
  cgroup: [],
  unit: [],
};

function written(words: Partial<RequestWords>, look: (etc: string) => void): Plan {
  const etc = mkdtempSync(join(tmpdir(), 'dirigo-etc-'));
  try {
    mkdirSync(join(etc, 'systemd/system'), { recursive: true });
    const plan: Plan = { steps: [], examine: () => [], advice: () => [] };
    addPersistence(plan, parseRequest({ ...nothing, ...words }), etc);
    for (const step of plan.steps) {
      assert.ok(!step.isMade());
      step.make();
      assert.ok(step.isMade());
    }
    look(etc);
    return plan;
  } finally {
    rmSync(etc, { recursive: true });
  }
}

test('a unit attaches the programs each time it starts, because its cgroup is a new one', () => {
  const plan = written({ lip: ['10.0.0.32/28'], unit: ['nginx.service', 'php@7.service'] }, etc => {
    const text = readFileSync(join(etc, 'systemd/system/nginx.service.d/dirigo-realserver.conf'), 'utf8');
    assert.match(
      text,
      /^ExecStartPre=\+\S+\/bin\/dirigo realserver --mode fullnat --lip 10\.0\.0\.32\/28 --unit nginx\.service$/m,
    );
    readFileSync(join(etc, 'systemd/system/php@7.service.d/dirigo-realserver.conf'));
  });
  assert.equal(plan.steps.length, 2, 'and no unit of its own');
});

test('a cgroup by its path needs a unit of its own, enabled', () => {
  const plan = written({ lip: ['2001:db8::50'], cgroup: ['web'] }, () => {});
  const [unit, enabled] = plan.steps.map(({ label }) => label);
  assert.match(unit as string, /dirigo-realserver-fullnat-\w{8}\.service$/);
  assert.match(enabled as string, /dirigo-realserver-fullnat-\w{8}\.service enabled/);
});

test('without systemd it says what to do', () => {
  const plan: Plan = { steps: [], examine: () => [], advice: () => [] };
  const request = parseRequest({ ...nothing, lip: ['10.0.0.1'], cgroup: ['web'] });
  assert.throws(() => addPersistence(plan, request, '/nowhere'), /--persist needs systemd: .*--print/);
});
