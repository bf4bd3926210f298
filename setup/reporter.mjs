// Prints failures in full, a line a test file while it runs, and at the end the totals and every skipped test with its
// reason: without root or a system tool it must be plain which tests did not run.
import { relative } from 'node:path';

/** An error with what caused it: the runner wraps a test's error, and a property wraps that of its counterexample. */
function describe(error) {
  const texts = [];
  for (let each = error?.code === 'ERR_TEST_FAILURE' ? error.cause : error; each; each = each.cause) {
    texts.push(each.stack ?? each.message ?? String(each));
  }
  return texts.join('\ncaused by ');
}

export default async function* reporter(events) {
  const skipped = [];
  const failed = [];
  const files = new Map();
  const totals = { passed: 0, failed: 0, skipped: 0 };
  for await (const { type, data } of events) {
    if (type === 'test:stderr' || type === 'test:stdout') {
      if (type === 'test:stderr') yield data.message;
      continue;
    }
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    // A suite counts by its tests, unless all of it was left out.
    if (data.details?.type === 'suite' && data.skip === undefined) continue;
    const file = data.file ? relative(process.cwd(), data.file) : '';
    if (data.nesting === 0 && file !== '' && data.name === data.file) continue;
    const reason = data.skip ?? data.todo;
    if (reason !== undefined) {
      totals.skipped++;
      skipped.push({
        file,
        name: data.name,
        reason: reason === true || reason === '' ? 'no reason given' : reason,
      });
    } else if (type === 'test:pass') totals.passed++;
    else {
      totals.failed++;
      failed.push(`${file}: ${data.name}`);
      yield `\nFAILED ${file}: ${data.name}\n${describe(data.details?.error)}\n`;
    }
    files.set(file, (files.get(file) ?? 0) + 1);
  }
  yield `\n${files.size} files\n`;
  if (failed.length > 0) yield `\nFailed:\n${failed.map(line => `  ${line}\n`).join('')}`;
  if (skipped.length > 0) {
    const byReason = new Map();
    for (const { file, name, reason } of skipped) {
      byReason.set(reason, [...(byReason.get(reason) ?? []), `${file}: ${name}`]);
    }
    yield '\nLeft out:\n';
    for (const [reason, names] of byReason)
      yield `  ${reason}\n${names.map(name => `    ${name}\n`).join('')}`;
  }
  yield `\n${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped\n`;
}
