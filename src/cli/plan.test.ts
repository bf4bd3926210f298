/** `dirigo state`, `plan`, `apply` and `rollback` as their users meet them. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { runBin, startDaemon, temporaryFolder } from '../control/daemon.fixture.ts';

const FIRST = '-A -t 10.0.0.3:80 -s wrr\n-a -t 10.0.0.3:80 -r 10.0.0.7:80 -g -w 1\n';
const SECOND = '-A -t 10.0.0.3:80 -s wlc\n-a -t 10.0.0.3:80 -r 10.0.0.8:8080 -m -w 2\n';

async function start(context: TestContext) {
  const folder = temporaryFolder(context);
  const environment = { DIRIGO_SOCKET: join(folder, 'd.sock') };
  await startDaemon(context, environment);
  const file = join(folder, 'new');
  return {
    file,
    dirigo: (...words: string[]) => runBin('dirigo', words, environment),
    ipvsadm: (words: string[], input = '') => runBin('ipvsadm', words, environment, { input }),
  };
}

test('plan tells what would change, apply does it, rollback takes it back', async context => {
  const { dirigo, ipvsadm, file } = await start(context);
  ipvsadm(['-R'], FIRST);
  writeFileSync(file, SECOND);
  const plan = dirigo('plan', file);
  assert.deepEqual(plan, {
    status: 2,
    stdout:
      '~ tcp 10.0.0.3:80  scheduler wrr → wlc\n    - 10.0.0.7:80\n    + 10.0.0.8:8080  masq weight 2\n' +
      'Services: 1 edited. No connection is affected.\n',
    stderr: '',
  });
  assert.equal(ipvsadm(['-S', '-n']).stdout, FIRST, 'a plan changes nothing');
  assert.deepEqual(dirigo('apply', '-n', file), plan);
  assert.equal(ipvsadm(['-S', '-n']).stdout, FIRST, 'nor does a dry run');
  const applied = dirigo('apply', file);
  assert.deepEqual([applied.status, applied.stdout], [0, `${plan.stdout}Done: revision 2.\n`]);
  assert.equal(ipvsadm(['-S', '-n']).stdout, SECOND);
  assert.deepEqual(dirigo('plan', file), { status: 0, stdout: 'Nothing changes.\n', stderr: '' });
  assert.equal(dirigo('rollback', '-n').status, 2);
  assert.match(dirigo('rollback').stdout, /Done: revision 3\.\nThe state is that of revision 1\.\n$/);
  assert.equal(ipvsadm(['-S', '-n']).stdout, FIRST);
  assert.match(
    dirigo('rollback', '--list').stdout,
    /^Revision {2}Time.*\n +3 .* rollback\n +2 .* apply new\n +1 .* ipvsadm -R\n$/,
  );
  assert.equal(dirigo('rollback', '--to', '0').status, 0);
  assert.equal(ipvsadm(['-S', '-n']).stdout, '');
});

test('what cannot be done is refused whole, with status 1', async context => {
  const { dirigo, ipvsadm, file } = await start(context);
  const refused = (words: string[], message: RegExp) => {
    const { status, stdout, stderr } = dirigo(...words);
    assert.deepEqual([status, stdout], [1, ''], words.join(' '));
    assert.match(stderr, message);
  };
  refused(['rollback'], /^dirigo: there is nothing to go back to: nothing has changed yet\n$/);
  ipvsadm(['-R'], FIRST);
  refused(['rollback', '--to', '7'], /^dirigo: revision 7 is not remembered: there are 0 to 1\n$/);
  refused(['rollback', '--to', 'x'], /It has to be a whole number/);
  refused(['plan', '/no/such'], /^dirigo: cannot read \/no\/such: /);
  writeFileSync(file, `${SECOND}-a -t 10.0.0.3:80 -r 224.0.0.1 -g\n`);
  for (const command of ['plan', 'apply']) refused([command, file], /new: line 3 \(.*\): Invalid operation/);
  writeFileSync(file, '{"version":1,');
  refused(['apply', file], /new: it is no JSON: /);
  writeFileSync(file, SECOND);
  refused(['apply', '--revision', '0', file], /the configuration is at revision 1, not at 0 any more/);
  assert.equal(ipvsadm(['-S', '-n']).stdout, FIRST);
  assert.equal(dirigo('apply', '--revision', '1', file).status, 0);
});

test('the state as JSON is what plan and apply read', async context => {
  const { dirigo, ipvsadm, file } = await start(context);
  ipvsadm(['-R'], `${FIRST}-A -f 7 -6 -s sh -b sh-port\n--set 30 5 60\n--start-daemon backup --syncid 7\n`);
  dirigo('setting', 'sloppy_tcp', '1');
  const { stdout } = dirigo('state');
  writeFileSync(file, stdout);
  assert.equal(dirigo('plan', file).status, 0);
  const state = JSON.parse(stdout);
  state.services[0].destinations.push({ address: '10.0.0.9' });
  state.settings = {};
  state.syncDaemons = [];
  writeFileSync(file, JSON.stringify(state));
  const plan = JSON.parse(dirigo('plan', '--json', file).stdout);
  assert.equal(plan.changes, true);
  assert.deepEqual(plan.services[0].destinations[0].address, '10.0.0.9');
  assert.deepEqual(Object.keys(plan.sections).sort(), ['settings', 'syncDaemons']);
  assert.equal(dirigo('apply', file).status, 0);
  assert.match(ipvsadm(['-Ln']).stdout, /10\.0\.0\.9:80 +Route/);
  assert.equal(ipvsadm(['-L', '--daemon']).stdout, '');
  assert.equal(dirigo('setting', 'sloppy_tcp').stdout, 'sloppy_tcp = 0\n');
  assert.equal(dirigo('rollback').status, 0);
  assert.deepEqual(
    { ...JSON.parse(dirigo('state').stdout), revision: 0 },
    { ...JSON.parse(stdout), revision: 0 },
  );
});
