/** The Debian package on this machine as an overlay: built, installed, started as its unit says, removed without a trace. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { buildDeb } from '../packaging/build-deb.ts';
import { missing } from './requirements.ts';
import { Sandbox } from './sandbox.ts';

const skip = missing('root', 'dpkg', 'dpkg-deb', 'clang', 'ip', 'unshare', 'nsenter', 'setpriv');

/** What dpkg itself and its triggers write. */
const DPKG = /^\/var\/(lib\/dpkg|log|cache\/man)\/|^\/run\/systemd\/systemd-units-load$/;

let folder: string;
let deb: string;

before(() => {
  if (skip) return;
  folder = mkdtempSync(join(tmpdir(), 'dirigo-package-test-'));
  deb = buildDeb(folder);
});

after(() => {
  if (folder) rmSync(folder, { recursive: true, force: true });
});

describe('the Debian package', { skip }, () => {
  let sandbox: Sandbox;

  before(async () => {
    sandbox = await Sandbox.open();
    sandbox.copyIn(deb, '/tmp/dirigo.deb');
  });

  after(async () => {
    await sandbox?.close();
  });

  const unitText = (): string => sandbox.run('cat', '/lib/systemd/system/dirigo.service');
  const setting = (name: string): string => new RegExp(`^${name}=(.*)$`, 'm').exec(unitText())?.[1] ?? '';

  /** Starts what the unit starts, with its capabilities and its environment. */
  async function startService(): Promise<ChildProcess> {
    // LimitMEMLOCK=infinity would need a right that the test may not have; CAP_IPC_LOCK stands for it.
    const bounding = `${setting('CapabilityBoundingSet')} CAP_IPC_LOCK`
      .split(' ')
      .map(name => `+${name.replace('CAP_', '').toLowerCase()}`);
    sandbox.run('mkdir', '-p', '/run/dirigo');
    sandbox.run('install', '-d', '-m', setting('StateDirectoryMode'), '/var/lib/dirigo');
    const daemon = sandbox.start(
      'setpriv',
      `--bounding-set=-all,${bounding.join(',')}`,
      '--inh-caps=-all',
      '--no-new-privs',
      'sh',
      '-c',
      `. /etc/default/dirigo; export ${setting('Environment')}; exec ${setting('ExecStart')}`,
    );
    let errors = '';
    daemon.stderr?.on('data', text => (errors += text));
    const ended = once(daemon, 'exit').then(() => assert.fail(`the daemon ended: ${errors}`));
    ended.catch(() => {});
    await Promise.race([once(daemon.stdout as NodeJS.EventEmitter, 'data'), ended]);
    return daemon;
  }

  test('is what dpkg takes for a package, with everything in it', () => {
    const field = (name: string): string =>
      execFileSync('dpkg-deb', ['--field', deb, name], { encoding: 'utf8' }).trim();
    assert.equal(field('Package'), 'dirigo');
    // The real one's files are not taken over: whoever has it is asked.
    assert.equal(field('Conflicts'), 'ipvsadm');
    assert.equal(field('Provides'), 'ipvsadm');
    const names = execFileSync('dpkg-deb', ['--contents', deb], { encoding: 'utf8' });
    for (const path of [
      './usr/bin/dirigo',
      './usr/sbin/ipvsadm',
      './usr/sbin/ipvsadm-save',
      './usr/sbin/ipvsadm-restore',
      './usr/lib/dirigo/dist/bpf/dirigo.bpf.o',
      './usr/lib/dirigo/node/bin/node',
      './usr/share/man/man8/dirigo-up.8.gz',
      './usr/share/bash-completion/completions/dirigo',
      './usr/share/zsh/vendor-completions/_dirigo',
      './usr/share/fish/vendor_completions.d/dirigo.fish',
      './lib/systemd/system/dirigo.service',
      './usr/share/doc/dirigo/architecture.md',
      './usr/share/doc/dirigo/grafana-dashboard.json',
    ]) {
      assert.match(names, new RegExp(` ${path.replaceAll('.', '\\.')}( |$)`, 'm'), path);
    }
    assert.doesNotMatch(names, /typescript|biome|fast-check|\.test\.|\.fixture\./);
  });

  test('installs; nothing starts by itself, and nothing of others changes', () => {
    sandbox.run('dpkg', '--install', '/tmp/dirigo.deb');
    const owned = new Set(sandbox.run('dpkg', '--listfiles', 'dirigo').trim().split('\n'));
    // Where /lib is /usr/lib, dpkg lists what the package calls it.
    const foreign = sandbox
      .changes()
      .filter(
        path => !DPKG.test(path) && !owned.has(path) && !owned.has(path.replace(/^\/usr\/lib/, '/lib')),
      );
    assert.deepEqual(foreign, []);
    assert.equal(sandbox.run('dpkg', '--verify', 'dirigo'), '');
    const absent = sandbox.try('ipvsadm', '-Ln');
    assert.equal(absent.status, 2);
    assert.match(absent.stderr, /No daemon listens on \/run\/dirigo\/dirigo\.sock/);
  });

  test('runs with its own Node, whatever else is in the PATH', () => {
    const version = sandbox.run('env', 'PATH=/usr/bin:/usr/sbin', 'dirigo', '--version');
    assert.match(version, /^\d+\.\d+\.\d+\n$/);
    const pinned = JSON.parse(readFileSync('node_modules/node/package.json', 'utf8')) as { version: string };
    assert.equal(sandbox.run('/usr/lib/dirigo/node/bin/node', '--version'), `v${pinned.version}\n`);
  });

  test('systemd finds nothing wrong with the unit and little exposed', {
    skip: missing('systemd-analyze'),
  }, () => {
    const verified = sandbox.try('systemd-analyze', 'verify', '/lib/systemd/system/dirigo.service');
    assert.equal(verified.stdout + verified.stderr, '');
    assert.equal(verified.status, 0);
    // Tenths of its scale to 10: above 5 it says "MEDIUM", above 7 "EXPOSED".
    const security = ['security', '--offline=yes', '--threshold=35', '/lib/systemd/system/dirigo.service'];
    assert.equal(sandbox.try('systemd-analyze', ...security).status, 0);
  });

  test('man finds its pages', { skip: missing('man') }, () => {
    for (const name of ['dirigo', 'dirigo-up', 'ipvsadm', 'ipvsadm-save']) {
      assert.match(sandbox.run('man', name), /^NAME$/m);
    }
  });

  test('starts as the unit says, is configured, reloads, keeps its state, and stops', async () => {
    sandbox.run('ip', 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'peer0');
    sandbox.run('ip', 'address', 'add', '192.0.2.1/24', 'dev', 'eth0');
    sandbox.run('ip', 'link', 'set', 'eth0', 'up');
    sandbox.run('ip', 'link', 'set', 'peer0', 'up');
    sandbox.run('sh', '-c', `echo 'DIRIGO_OPTIONS="--interface eth0 --group adm"' >> /etc/default/dirigo`);
    const first = await startService();
    sandbox.run('ipvsadm', '-A', '-t', '192.0.2.3:80', '-s', 'wlc');
    sandbox.run('ipvsadm', '-a', '-t', '192.0.2.3:80', '-r', '192.0.2.7');
    const table = '-A -t 192.0.2.3:80 -s wlc\n-a -t 192.0.2.3:80 -r 192.0.2.7:80 -g -w 1\n';
    assert.equal(sandbox.run('ipvsadm-save', '-n'), table);
    assert.match(sandbox.run('ip', 'link', 'show', 'eth0'), / xdp /);
    assert.equal(sandbox.run('stat', '-c', '%A %U %G', '/run/dirigo/dirigo.sock'), 'srw-rw---- root adm\n');
    const [reload = '', ...words] = setting('ExecReload').split(' ');
    sandbox.run(reload, ...words);
    assert.equal(sandbox.run('ipvsadm-save', '-n'), table);
    first.kill('SIGKILL');
    await once(first, 'exit');
    assert.match(sandbox.run('ip', 'link', 'show', 'eth0'), / xdp /, 'the data path outlives its daemon');
    await startService();
    assert.equal(sandbox.run('ipvsadm-save', '-n'), table);
    assert.match(sandbox.run('dirigo', 'status'), /adopted +(true|yes)|taken over/);
  });

  test('goes, with the daemon and its data path, when it is removed; the state stays', () => {
    sandbox.run('dpkg', '--remove', 'dirigo');
    assert.doesNotMatch(sandbox.run('ip', 'link', 'show', 'eth0'), /xdp/);
    assert.equal(
      sandbox.run('ls', '/sys/fs/bpf'),
      sandbox.run('sh', '-c', 'cd /sys/fs/bpf && ls -d *.debug'),
    );
    const left = sandbox.changes().filter(path => !DPKG.test(path));
    assert.ok(left.includes('/etc/default/dirigo'));
    assert.deepEqual(
      left.filter(path => path !== '/etc/default/dirigo' && !path.startsWith('/var/lib/dirigo/')),
      [],
    );
    assert.ok(left.length > 1, 'the state is there');
  });

  test('leaves nothing when it is purged', () => {
    sandbox.run('dpkg', '--purge', 'dirigo');
    assert.deepEqual(
      sandbox.changes().filter(path => !DPKG.test(path)),
      [],
    );
    for (const path of ['/usr/lib/dirigo', '/var/lib/dirigo', '/var/cache/dirigo', '/run/dirigo']) {
      assert.equal(sandbox.try('test', '-e', path).status, 1, path);
    }
  });

  test('lintian has nothing against it', { skip: missing('lintian') }, () => {
    const { stdout, stderr } = spawnSync('lintian', ['--fail-on', 'none', deb], { encoding: 'utf8' });
    assert.equal(stdout + stderr, '');
  });
});

describe('the unit under a systemd', { skip: skip || missing('systemctl', 'journalctl') }, () => {
  let sandbox: Sandbox;

  before(async () => {
    sandbox = await Sandbox.open({ systemd: true });
    sandbox.copyIn(deb, '/tmp/dirigo.deb');
    sandbox.run('dpkg', '--install', '/tmp/dirigo.deb');
    sandbox.run('ip', 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'peer0');
    sandbox.run('ip', 'address', 'add', '192.0.2.1/24', 'dev', 'eth0');
    sandbox.run('ip', 'link', 'set', 'eth0', 'up');
    sandbox.run('ip', 'link', 'set', 'peer0', 'up');
    sandbox.run('sh', '-c', `echo 'DIRIGO_OPTIONS="--interface eth0"' >> /etc/default/dirigo`);
    // A machine whose root may not raise limits (LimitMEMLOCK=infinity) needs CAP_IPC_LOCK instead.
    const dropIn = '[Service]\nCapabilityBoundingSet=CAP_IPC_LOCK\nWatchdogSec=20\n';
    sandbox.run('mkdir', '/etc/systemd/system/dirigo.service.d');
    sandbox.run('sh', '-c', `printf '${dropIn}' > /etc/systemd/system/dirigo.service.d/test.conf`);
    sandbox.run('systemctl', 'daemon-reload');
  });

  after(async () => {
    await sandbox?.close();
  });

  const property = (name: string): string =>
    sandbox.run('systemctl', 'show', `--property=${name}`, '--value', 'dirigo').trim();

  /** Waits for systemd to have started the daemon again so many times. */
  async function restarted(times: string): Promise<void> {
    const deadline = Date.now() + 60_000;
    while (property('NRestarts') !== times || property('ActiveState') !== 'active') {
      if (Date.now() > deadline) {
        assert.fail(sandbox.try('systemctl', 'status', '--no-pager', 'dirigo').stdout);
      }
      await setTimeout(200);
    }
  }

  const table = '-A -t 192.0.2.3:80 -s wlc\n-a -t 192.0.2.3:80 -r 192.0.2.7:80 -g -w 1\n';

  test('starts with all its restrictions, says when it is ready, and takes commands', () => {
    sandbox.run('systemctl', 'enable', '--now', 'dirigo');
    assert.match(property('StatusText'), /^xdp data path up/);
    sandbox.run('ipvsadm', '-A', '-t', '192.0.2.3:80', '-s', 'wlc');
    sandbox.run('ipvsadm', '-a', '-t', '192.0.2.3:80', '-r', '192.0.2.7');
    assert.equal(sandbox.run('ipvsadm-save', '-n'), table);
    assert.match(sandbox.run('dirigo', 'status'), /eth0 native/);
  });

  test('the journal has its events, a line and a priority each', () => {
    const lines = sandbox
      .run('journalctl', '--unit=dirigo', '--output=json', '--no-pager')
      .trim()
      .split('\n')
      .map(line => JSON.parse(line) as Record<string, string>);
    const changed = lines.findLast(line => line.MESSAGE?.startsWith('changed '));
    assert.equal(changed?.PRIORITY, '6');
    assert.match(changed?.MESSAGE ?? '', / revision=2 cause="ipvsadm -a -t 192\.0\.2\.3:80 -r 192\.0\.2\.7"/);
  });

  test('reloads into another process', async () => {
    sandbox.run('systemctl', 'reload', 'dirigo');
    assert.equal(property('ActiveState'), 'active');
    assert.equal(property('NRestarts'), '0');
    assert.equal(sandbox.run('ipvsadm-save', '-n'), table);
    assert.match(sandbox.run('dirigo', 'status'), /adopted +true/);
  });

  test('is started again when it is killed, and when it hangs; the data path stays meanwhile', async () => {
    for (const [signal, restarts] of [
      ['KILL', '1'],
      ['STOP', '2'],
    ] as const) {
      sandbox.run('systemctl', 'kill', `--signal=${signal}`, '--kill-whom=main', 'dirigo');
      assert.match(sandbox.run('ip', 'link', 'show', 'eth0'), / xdp /);
      await restarted(restarts);
      assert.equal(sandbox.run('ipvsadm-save', '-n'), table);
    }
  });

  test('a real server that lasts: the unit makes it one again', () => {
    sandbox.run(
      'dirigo',
      'realserver',
      '--mode',
      'dr',
      '--vip',
      '192.0.2.33',
      '--interface',
      'eth0',
      '--persist',
    );
    const unit = sandbox
      .run('sh', '-c', 'cd /etc/systemd/system && ls dirigo-realserver-dr-*.service')
      .trim();
    assert.match(sandbox.run('ip', 'address', 'show', 'lo'), /192\.0\.2\.33/);
    sandbox.run('ip', 'address', 'delete', '192.0.2.33/32', 'dev', 'lo');
    sandbox.run('systemctl', 'daemon-reload');
    assert.equal(sandbox.run('systemctl', 'is-enabled', unit), 'enabled\n');
    sandbox.run('systemctl', 'start', unit);
    assert.match(sandbox.run('ip', 'address', 'show', 'lo'), /192\.0\.2\.33/);
    sandbox.run('dirigo', 'realserver', '--undo');
    assert.doesNotMatch(sandbox.run('ip', 'address', 'show', 'lo'), /192\.0\.2\.33/);
    sandbox.run('systemctl', 'daemon-reload');
    assert.notEqual(sandbox.try('systemctl', 'is-enabled', unit).status, 0);
  });

  test('stops with what forwards left in the kernel; removed, it is stopped and nothing is left', () => {
    sandbox.run('systemctl', 'stop', 'dirigo');
    assert.match(sandbox.run('ip', 'link', 'show', 'eth0'), / xdp /);
    sandbox.run('systemctl', 'start', 'dirigo');
    // A machine's policy may keep packages from starting and stopping services; here that is wanted.
    sandbox.run('rm', '-f', '/usr/sbin/policy-rc.d');
    sandbox.run('dpkg', '--remove', 'dirigo');
    assert.doesNotMatch(sandbox.run('ip', 'link', 'show', 'eth0'), /xdp/);
    assert.equal(sandbox.try('systemctl', 'is-active', 'dirigo').stdout, 'inactive\n');
    assert.match(sandbox.run('systemctl', '--failed', '--no-pager'), /^0 loaded units/m);
  });
});
