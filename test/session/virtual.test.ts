import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { CommandOutput } from '../../src/session/laboratory.ts';
import { runSession } from '../../src/session/session.ts';
import { VirtualLaboratory } from '../../src/session/virtual-laboratory.ts';
import { goldenLines } from '../golden.ts';

const BIN = fileURLToPath(new URL('../../bin/dirigo', import.meta.url));

async function walk(laboratory: VirtualLaboratory): Promise<{ text: string; failed: string[] }> {
  let text = '';
  const failed = await runSession(laboratory, part => {
    text += part;
  });
  return { text, failed };
}

test('the session runs on the virtual LAN and every check holds', async () => {
  const { text, failed } = await walk(new VirtualLaboratory());
  assert.deepEqual(failed, []);
  assert.match(
    text,
    /^1 0\.000000000 Vmware_2e:aa:48 -> Broadcast {4}ARP 42 Who has 172\.16\.1\.51\? Tell 172\.16\.1\.61$/m,
  );
  assert.match(
    text,
    /^2 0\.000\d{6} Vmware_c7:5d:dd -> Vmware_2e:aa:48 ARP 60 172\.16\.1\.51 is at 00:0c:29:c7:5d:dd$/m,
  );
});

test('ipvsadm -ln on lb01 prints exactly what the real one printed', async () => {
  const { text } = await walk(new VirtualLaboratory());
  const recorded = goldenLines<{ argv: string[]; stdout: string }>('cli/seed-session.jsonl').find(
    ({ argv, stdout }) => argv.join(' ') === 'ipvsadm -ln' && stdout.includes('10.0.0.8:80'),
  );
  assert.ok(recorded);
  assert.ok(text.includes(`lb01# ipvsadm -ln\n${recorded.stdout}`), text);
});

test('the same seed gives the same walk-through, another seed another one', async () => {
  const first = await walk(new VirtualLaboratory(7));
  const second = await walk(new VirtualLaboratory(7));
  const other = await walk(new VirtualLaboratory(8));
  assert.equal(first.text, second.text);
  assert.notEqual(first.text, other.text);
  assert.deepEqual(other.failed, []);
});

/** A laboratory whose operator forgets a command. */
class Forgetful extends VirtualLaboratory {
  readonly #forgotten: RegExp;

  constructor(forgotten: RegExp) {
    super();
    this.#forgotten = forgotten;
  }

  override async run(host: string, line: string): Promise<CommandOutput> {
    if (this.#forgotten.test(`${host}# ${line}`)) return { status: 0, stdout: '', stderr: '' };
    return super.run(host, line);
  }
}

test('servers that answer ARP for the VIP are found out', async () => {
  const { failed } = await walk(new Forgetful(/arp_(ignore|announce)/));
  assert.ok(
    failed.some(text => text.startsWith('only lb01') && text.includes('heard from')),
    failed.join('\n'),
  );
});

test('a director without persistence is found out', async () => {
  class Impersistent extends VirtualLaboratory {
    override run(host: string, line: string): Promise<CommandOutput> {
      return super.run(host, line.replace(' -p 20', ''));
    }
  }
  const { failed } = await walk(new Impersistent());
  assert.ok(
    failed.some(text => text.includes('comes back within 20 s')),
    failed.join('\n'),
  );
});

test('NAT instead of direct routing is found out', async () => {
  class Translating extends VirtualLaboratory {
    override run(host: string, line: string): Promise<CommandOutput> {
      return super.run(host, line.replace(' -g ', ' -m '));
    }
  }
  await assert.rejects(walk(new Translating()), /client: "curl .*" ended with status 28/);
});

test('a VIP that nobody holds ends the session with a reason', async () => {
  await assert.rejects(walk(new Forgetful(/lb01# ip addr add/)), /client: "curl .*" ended with status 7/);
});

test('dirigo session prints the walk-through and ends with status 0', () => {
  const { status, stdout, stderr } = spawnSync(BIN, ['session', '--exit'], { encoding: 'utf8' });
  assert.equal(stderr, '');
  assert.equal(status, 0);
  assert.match(stdout, /\nAll checks hold\.\n$/);
});
