/** Edits are whole, on disk, and can be gone back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { configure, edit, edits, GivenUp, perform } from './configuration.fixture.ts';
import { type AcknowledgedEdit, RevisionError, StateNotKept } from './configuration.ts';
import { temporaryFolder } from './daemon.fixture.ts';
import { captureState } from './desired-state.ts';
import { Log } from './log.ts';
import { StateFolder } from './state-folder.ts';

const text = (value: unknown): string => JSON.stringify(value);

test('every revision can be gone back to, exactly', async () => {
  await fc.assert(
    fc.asyncProperty(edits, fc.infiniteStream(fc.nat()), async (drawn, chance) => {
      const { director, configuration } = configure();
      const states = [text(captureState(director))];
      for (const lines of drawn) {
        const before = configuration.revision;
        await configuration.edit('lines', () => perform(director, lines));
        const now = text(captureState(director));
        assert.equal(text(configuration.state()), now, 'what is remembered is what is there');
        assert.equal(configuration.revision > before, now !== states.at(-1));
        if (configuration.revision > before) states.push(now);
      }
      if (states.length === 1) return;
      for (let round = 0; round < 3; round++) {
        const target = (chance.next().value as number) % states.length;
        await configuration.rollback(target);
        assert.equal(text(captureState(director)), states[target]);
        if (configuration.revision === states.length) states.push(states[target] as string);
      }
    }),
    { numRuns: 150 },
  );
});

test('apply makes exactly what was asked for, whatever was there', async () => {
  await fc.assert(
    fc.asyncProperty(edits, edits, async (one, other) => {
      const [from, to] = [configure(), configure()];
      for (const lines of one) await from.configuration.edit('', () => perform(from.director, lines));
      for (const lines of other) await to.configuration.edit('', () => perform(to.director, lines));
      const before = text(captureState(from.director));
      const target = captureState(to.director);
      const revision = from.configuration.revision;
      await from.configuration.apply('apply', target);
      assert.equal(text(captureState(from.director)), text(target));
      // Applying it again changes nothing.
      const after = from.configuration.revision;
      assert.equal(after - revision, before === text(target) ? 0 : 1);
      await from.configuration.apply('apply', target);
      assert.equal(from.configuration.revision, after);
      if (after === revision) return;
      assert.equal((await from.configuration.rollback()).to, revision);
      assert.equal(text(captureState(from.director)), before);
    }),
    { numRuns: 150 },
  );
});

test('an edit that gives up halfway changes nothing', async () => {
  await fc.assert(
    fc.asyncProperty(edits, edit, async (drawn, last) => {
      const { director, configuration } = configure();
      for (const lines of drawn) await configuration.edit('', () => perform(director, lines));
      const before = text(captureState(director));
      const halfway = configuration.edit('', () => {
        perform(director, last);
        throw new GivenUp();
      });
      await assert.rejects(halfway, GivenUp);
      assert.equal(text(captureState(director)), before);
      // And leaves nothing that the next one would bring to light.
      const { revision } = configuration;
      await configuration.edit('', () => {});
      assert.equal(configuration.revision, revision);
    }),
    { numRuns: 150 },
  );
});

test('edits happen one after the other, and each is told once it is acknowledged', async () => {
  const { director, configuration } = configure();
  const told: AcknowledgedEdit[] = [];
  const end = configuration.observe(each => told.push(each));
  const order: string[] = [];
  const slow = configuration.edit('slow', async () => {
    order.push('slow begins');
    perform(director, ['-A -t 10.0.0.3:80']);
    await new Promise(resolve => setTimeout(resolve, 20));
    perform(director, ['-a -t 10.0.0.3:80 -r 10.0.0.7 -g']);
    order.push('slow ends');
  });
  const quick = configuration.edit('quick', () => {
    order.push('quick');
    perform(director, ['-D -t 10.0.0.3:80']);
  });
  await Promise.all([slow, quick]);
  assert.deepEqual(order, ['slow begins', 'slow ends', 'quick']);
  assert.deepEqual(
    told.map(({ revision, changes }) => [revision.number, revision.cause, changes.map(({ kind }) => kind)]),
    [
      [1, 'slow', ['service-added', 'destination-added']],
      [2, 'quick', ['service-deleted']],
    ],
  );
  end();
  await configuration.rollback();
  assert.equal(told.length, 2);
});

test('a follower that fails is logged, and stops neither the edit nor the others', async () => {
  const lines: string[] = [];
  const log = new Log({ format: 'text', write: line => lines.push(line) });
  const { configuration, director } = configure({ log });
  const told: number[] = [];
  configuration.observe(() => {
    throw new Error('no');
  });
  configuration.observe(({ revision }) => told.push(revision.number));
  await configuration.edit('it', () => perform(director, ['-A -t 10.0.0.3:80']));
  assert.deepEqual(told, [1]);
  assert.match(lines.join(''), / error a follower of the configuration failed revision=1 problem=no /);
});

test('rollback says what it cannot do', async () => {
  const { director, configuration } = configure();
  await assert.rejects(configuration.rollback(), /there is nothing to go back to/);
  await configuration.edit('', () => perform(director, ['-A -t 10.0.0.3:80']));
  for (const number of [-1, 2, 1.5]) {
    await assert.rejects(
      configuration.rollback(number),
      (error: unknown) => error instanceof RevisionError && /there are 0 to 1/.test(error.message),
    );
  }
  assert.equal((await configuration.rollback()).to, 0);
  assert.equal(configuration.state().services.length, 0);
  assert.equal((await configuration.rollback()).to, 1, 'the one before the last is the one with the service');
  assert.equal(configuration.state().services.length, 1);
});

test('an edit that cannot be written is taken back and says so', async context => {
  const path = temporaryFolder(context);
  const folder = new StateFolder(path);
  const { director, configuration } = configure({ folder });
  await configuration.edit('', () =>
    perform(director, ['-A -t 10.0.0.3:80', '-a -t 10.0.0.3:80 -r 10.0.0.7 -g']),
  );
  const before = text(captureState(director));
  const append = folder.append;
  folder.append = async () => {
    throw new Error('ENOSPC: no space left on device, write');
  };
  const refused = configuration.edit('', () =>
    perform(director, ['-C', '--set 1 2 3', 'setting sloppy_tcp 1']),
  );
  await assert.rejects(
    refused,
    (error: unknown) =>
      error instanceof StateNotKept &&
      /nothing was changed, because the state cannot be written: ENOSPC/.test(error.message),
  );
  assert.equal(text(captureState(director)), before);
  folder.append = append;
  await configuration.edit('', () => perform(director, ['--set 1 2 3']));
  await configuration.close();
  const again = configure({ folder: new StateFolder(path) });
  assert.equal(text(captureState(again.director)), text(captureState(director)));
});

test('a restart brings back state, history and the next number', async context => {
  await fc.assert(
    fc.asyncProperty(edits, async drawn => {
      const path = temporaryFolder(context);
      const first = configure({ folder: new StateFolder(path) });
      for (const lines of drawn)
        await first.configuration.edit('lines', () => perform(first.director, lines));
      await first.configuration.close();
      const second = configure({ folder: new StateFolder(path) });
      assert.equal(text(captureState(second.director)), text(captureState(first.director)));
      assert.equal(second.configuration.revision, first.configuration.revision);
      assert.equal(text(second.configuration.revisions()), text(first.configuration.revisions()));
      await second.configuration.close();
    }),
    { numRuns: 25 },
  );
});
