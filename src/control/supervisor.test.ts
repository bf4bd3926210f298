/** What a service manager hears, at a real socket of the kind that systemd opens. */
import assert from 'node:assert/strict';
import { closeSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import koffi from 'koffi';
import { bindSocket, openSocket } from '../datapath/ffi/libc.ts';
import { startDaemon, temporaryFolder } from './daemon.fixture.ts';
import { Supervisor } from './supervisor.ts';

const AF_UNIX = 1;
const SOCK_DATAGRAM = 2;
const MSG_DONTWAIT = 0x40;
const recv = koffi.load('libc.so.6').func('long recv(int fd, _Out_ void *data, size_t length, int flags)');

/** A service manager: its environment for children, and what they said. */
function manager(context: TestContext, path: string): { said(): string[] } {
  const fd = openSocket(AF_UNIX, SOCK_DATAGRAM, 0, 'a unix socket');
  context.after(() => closeSync(fd));
  const name = new TextEncoder().encode(path);
  const address = new Uint8Array(new ArrayBuffer(2 + name.length + (path.startsWith('@') ? 0 : 1)));
  new DataView(address.buffer).setUint16(0, AF_UNIX, true);
  address.set(name, 2);
  if (path.startsWith('@')) address[2] = 0;
  bindSocket(fd, address, path);
  const texts: string[] = [];
  const buffer = new Uint8Array(new ArrayBuffer(4096));
  return {
    said() {
      for (;;) {
        const length = Number(recv(fd, buffer, buffer.length, MSG_DONTWAIT));
        if (length < 0) return texts;
        texts.push(new TextDecoder().decode(buffer.subarray(0, length)));
      }
    },
  };
}

async function until(holds: () => boolean): Promise<void> {
  for (const end = performance.now() + 10_000; !holds(); await sleep(20)) {
    assert.ok(performance.now() < end, 'within ten seconds');
  }
}

test('the daemon says when it is ready, begins anew and stops, and that it lives', async context => {
  const folder = temporaryFolder(context);
  const path = join(folder, 'notify');
  const { said } = manager(context, path);
  const environment = { DIRIGO_SOCKET: join(folder, 'd.sock'), NOTIFY_SOCKET: path, WATCHDOG_USEC: '200000' };
  const daemon = await startDaemon(context, environment);
  const ready = (): string[] => said().filter(text => text.startsWith('READY=1\n'));
  await until(() => ready().length === 1);
  assert.match(
    ready()[0] ?? '',
    new RegExp(`^READY=1\nMAINPID=${daemon.pid}\nSTATUS=virtual data path up, `),
  );
  await until(() => said().filter(text => text === 'WATCHDOG=1').length >= 3);
  // Heard while it happens: the kernel keeps ten datagrams for somebody who does not listen.
  daemon.kill('SIGHUP');
  await until(() => ready().length === 2);
  assert.match(
    said().find(text => text.startsWith('RELOADING=1')) ?? '',
    /^RELOADING=1\nMONOTONIC_USEC=\d+$/,
  );
  daemon.kill('SIGTERM');
  await until(() => said().includes('STOPPING=1'));
});

test('a socket in the abstract namespace', async context => {
  const path = `@dirigo-test-${process.pid}`;
  const { said } = manager(context, path);
  (await Supervisor.connect({ NOTIFY_SOCKET: path })).ready('well\nindeed');
  assert.deepEqual(said(), [`READY=1\nMAINPID=${process.pid}\nSTATUS=well indeed`]);
});

test('a watchdog meant for another process, or none, is left alone', async context => {
  const path = `@dirigo-test-other-${process.pid}`;
  const { said } = manager(context, path);
  await Supervisor.connect({ NOTIFY_SOCKET: path, WATCHDOG_USEC: '1000', WATCHDOG_PID: '1' });
  await sleep(50);
  assert.deepEqual(said(), []);
  (await Supervisor.connect({})).ready('nobody hears this');
});

test('a service manager that is gone is said once and is no reason to fail', async context => {
  const error = context.mock.method(console, 'error', () => {});
  (await Supervisor.connect({ NOTIFY_SOCKET: '/nonexistent/notify' })).stopping();
  assert.equal(error.mock.callCount(), 1);
  assert.match(String(error.mock.calls[0]?.arguments[0]), /sending to \/nonexistent\/notify: .*ENOENT/);
});
