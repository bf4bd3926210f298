/** The whole data path between network namespaces: the daemon on native XDP, real nginx behind it, real curl in front. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, execFileSync, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { buildBpf } from '../../../bpf/build.ts';
import { NamespaceLab } from '../../../test/namespaces.ts';
import { missing } from '../../../test/requirements.ts';
import { parseAddress, parseMac } from '../../wire/address.ts';
import { EtherType, writeEthernet } from '../../wire/ethernet.ts';
import { Protocol, writeIpv4 } from '../../wire/ipv4.ts';
import { fillTcpChecksum, TcpFlag, writeTcp } from '../../wire/tcp.ts';
import {
  AddressFamily,
  bindSocket,
  inNetworkNamespace,
  interfaceIndex,
  openSocket,
  sendFrame,
} from '../ffi/libc.ts';
import { FastPath, removePinned } from './fast-path.ts';

const skip = missing('root', 'clang', 'ip', 'nsenter', 'ethtool', 'nginx', 'curl', 'arping');
const root = join(import.meta.dirname, '../../..');
const VIP = '10.0.0.3';
const VIP6 = '2001:db8::3';
/** Milliseconds that things which happen by themselves may take. */
const PATIENCE = 10_000;

describe('the XDP data path between namespaces', { skip }, () => {
  let lab: NamespaceLab;
  let daemon: ChildProcess;
  let environment: NodeJS.ProcessEnv;
  let pins: string;

  before(async () => {
    buildBpf();
    lab = new NamespaceLab();
    pins = `/sys/fs/bpf/${lab.prefix}`;
    environment = {
      DIRIGO_BPF: pins,
      DIRIGO_SOCKET: join(lab.folder, 'socket'),
      DIRIGO_STATE: join(lab.folder, 'state'),
    };
    lab.addHost('client', '10.0.0.1/24', '2001:db8::1/64');
    lab.addHost('lb01', '10.0.0.5/24', `${VIP}/24`, '2001:db8::5/64', `${VIP6}/64`);
    for (const [name, last] of [
      ['web01', '7'],
      ['web02', '8'],
    ] as const) {
      lab.addHost(name, `10.0.0.${last}/24`, `2001:db8::${last}/64`);
      lab.run(name, 'sysctl', '-qw', 'net.ipv4.conf.all.arp_ignore=1', 'net.ipv4.conf.all.arp_announce=2');
      lab.run(name, 'ip', 'addr', 'add', `${VIP}/32`, 'dev', 'lo');
      lab.run(name, 'ip', 'addr', 'add', `${VIP6}/128`, 'dev', 'lo', 'nodad');
      await startNginx(name);
    }
    daemon = await startDaemon();
    for (const [service, servers] of [
      [`${VIP}:80`, ['10.0.0.7:80', '10.0.0.8:80']],
      [`[${VIP6}]:80`, ['[2001:db8::7]:80', '[2001:db8::8]:80']],
    ] as const) {
      ipvsadm('-A', '-t', service, '-s', 'rr');
      for (const server of servers) ipvsadm('-a', '-t', service, '-r', server, '-g');
    }
  });

  after(async () => {
    await lab.remove();
    removePinned(pins);
  });

  async function startNginx(name: string): Promise<void> {
    const folder = join(lab.folder, name);
    mkdirSync(folder);
    writeFileSync(join(folder, 'index.html'), `<h1>Nginx server ${name}</h1>\n`);
    writeFileSync(join(folder, 'big'), new Uint8Array(8_000_000));
    writeFileSync(
      join(folder, 'nginx.conf'),
      `daemon off; user root; worker_processes 1; pid ${folder}/pid; error_log ${folder}/error;
       events {}
       http { access_log ${folder}/access; server { listen 80; listen [::]:80; root ${folder};
         location /big { limit_rate 4m; } } }`,
    );
    lab.start(name, {}, 'nginx', '-c', join(folder, 'nginx.conf'));
    await eventually(() => lab.try(name, 'curl', '-s', '127.0.0.1').status === 0, `nginx on ${name}`);
  }

  async function startDaemon(): Promise<ChildProcess> {
    const child = lab.start(
      'lb01',
      environment,
      join(root, 'bin/dirigo'),
      'up',
      '--datapath',
      'xdp',
      '--interface',
      'eth0',
    );
    let errors = '';
    child.stderr?.on('data', text => {
      errors += text;
    });
    const ended = once(child, 'exit').then(() => assert.fail(`the daemon ended: ${errors}`));
    ended.catch(() => {});
    await Promise.race([once(child.stdout as NodeJS.EventEmitter, 'data'), ended]);
    return child;
  }

  function tool(name: string, ...parameters: string[]): string {
    return execFileSync(join(root, 'bin', name), parameters, {
      env: { ...process.env, ...environment },
      encoding: 'utf8',
    });
  }

  const ipvsadm = (...parameters: string[]): string => tool('ipvsadm', ...parameters);
  const fetch = (url: string): string => lab.run('client', 'curl', '-sg', '--max-time', '5', url);

  /** The lines of `dirigo status` that say how the data path does. */
  function status(pattern: RegExp): string {
    return pattern.exec(tool('dirigo', 'status'))?.[1] ?? '';
  }

  const forwarded = (): number => Number(status(/forwarded (\d+)/));

  async function eventually(holds: () => boolean, what: string): Promise<void> {
    for (const end = performance.now() + PATIENCE; !holds(); await sleep(50)) {
      if (performance.now() > end) assert.fail(`${what}: not within ${PATIENCE / 1000} s`);
    }
  }

  test('attaches in the driver and forwards HTTP to both servers', () => {
    assert.equal(status(/mode +(\w+)/), 'native');
    const before = forwarded();
    const answers = [1, 2, 3, 4].map(() => fetch(`http://${VIP}/`));
    assert.deepEqual([...new Set(answers)].sort(), [
      '<h1>Nginx server web01</h1>\n',
      '<h1>Nginx server web02</h1>\n',
    ]);
    // Of each connection only the SYN goes through the director.
    assert.ok(forwarded() >= before + 4 * 3, 'packets forwarded in the kernel');
    assert.match(readFileSync(join(lab.folder, 'web01/access'), 'utf8'), /^10\.0\.0\.1 /m);
  });

  test('forwards IPv6', () => {
    const before = forwarded();
    const answers = [1, 2].map(() => fetch(`http://[${VIP6}]/`));
    assert.equal(new Set(answers).size, 2);
    assert.ok(forwarded() > before);
  });

  test('counts what the kernel forwarded', async () => {
    const packets = (): number =>
      Number(/:80 +\d+ +(\d+)/.exec(ipvsadm('-Ln', '--stats', '-t', `${VIP}:80`))?.[1]);
    fetch(`http://${VIP}/`);
    await eventually(() => packets() > 20, 'packets of the fast path in the statistics');
  });

  test('lets the host answer what is no service and what has no connection', async () => {
    assert.match(lab.run('client', 'ping', '-c', '1', '-W', '2', VIP), / 0% packet loss/);
    const port = lab.try('client', 'curl', '-s', '--max-time', '5', `http://${VIP}:81/`);
    assert.equal(port.status, 7, 'connection refused');
    const resets = (): number => {
      const [names, values] = lab
        .run('lb01', 'cat', '/proc/net/snmp')
        .split('\n')
        .filter(line => line.startsWith('Tcp:'));
      const at = names?.split(' ').indexOf('OutRsts') ?? -1;
      return Number(values?.split(' ')[at]);
    };
    const before = resets();
    sendStrayAck();
    await eventually(() => resets() === before + 1, 'a reset for a segment without connection');
  });

  /** A segment in the middle of a connection that nobody knows, from the client to the VIP. */
  function sendStrayAck(): void {
    const macOf = (host: string): Uint8Array =>
      parseMac(/link\/ether (\S+)/.exec(lab.run(host, 'ip', 'link', 'show', 'eth0'))?.[1] ?? '') ??
      new Uint8Array(6);
    const frame = new Uint8Array(new ArrayBuffer(54));
    const view = new DataView(frame.buffer);
    writeEthernet(frame, 0, macOf('lb01'), macOf('client'), EtherType.ipv4);
    writeIpv4(view, frame, 14, {
      source: parseAddress('10.0.0.1') as Uint8Array,
      destination: parseAddress(VIP) as Uint8Array,
      protocol: Protocol.tcp,
      totalLength: 40,
      ttl: 64,
    });
    writeTcp(view, frame, 34, {
      sourcePort: 999,
      destinationPort: 80,
      sequence: 1,
      acknowledgement: 1,
      window: 1,
      flags: TcpFlag.ack,
    });
    fillTcpChecksum(view, 4, 14, 34, 20);
    inNetworkNamespace(lab.namespace('client'), () => {
      const fd = openSocket(AddressFamily.packet, 3, 0, 'a packet socket');
      const address = new DataView(new ArrayBuffer(20));
      address.setUint16(0, AddressFamily.packet, true);
      address.setUint32(4, interfaceIndex('eth0'), true);
      bindSocket(fd, new Uint8Array(address.buffer), 'a packet socket');
      sendFrame(fd, frame);
      closeSync(fd);
    });
  }

  test('follows a server that changes its MAC address', async () => {
    lab.run('web01', 'ip', 'link', 'set', 'eth0', 'address', '02:00:00:00:77:07');
    lab.run('web01', 'arping', '-q', '-U', '-c', '1', '-I', 'eth0', '10.0.0.7');
    const answers = new Set<string>();
    await eventually(() => {
      const { stdout } = lab.try('client', 'curl', '-s', '--max-time', '1', `http://${VIP}/`);
      answers.add(stdout);
      return answers.has('<h1>Nginx server web01</h1>\n');
    }, 'web01 is reached again');
  });

  test('refuses a second daemon on the same tables, which then still work', () => {
    const second = spawnSync(
      'nsenter',
      [
        `--net=${lab.namespace('lb01')}`,
        join(root, 'bin/dirigo'),
        'up',
        '--datapath',
        'xdp',
        '--interface',
        'eth0',
      ],
      {
        env: {
          ...process.env,
          ...environment,
          DIRIGO_SOCKET: join(lab.folder, 'other'),
          DIRIGO_STATE: join(lab.folder, 'other-state'),
        },
        encoding: 'utf8',
        timeout: 20_000,
      },
    );
    assert.notEqual(second.status, 0);
    assert.match(second.stderr, /^dirigo: another daemon is using .*\n$/);
    assert.match(fetch(`http://${VIP}/`), /Nginx/);
  });

  test('goes on without its daemon, and the next one takes over', async () => {
    const transfer = promisify(execFile)('nsenter', [
      `--net=${lab.namespace('client')}`,
      ...['curl', '-s', '-o', '/dev/null', '-w', '%{http_code} %{size_download}', `http://${VIP}/big`],
    ]);
    await eventually(() => / ESTABLISHED .*10\.0\.0\.1:/.test(ipvsadm('-Lnc')), 'the transfer begins');
    daemon.kill('SIGKILL');
    await once(daemon, 'exit');
    assert.ok(
      readdirSync(pins).some(name => name.startsWith('link_')),
      'the program stays attached',
    );
    const { status: code } = lab.try('client', 'curl', '-s', '--max-time', '5', `http://${VIP}/`);
    assert.equal(code, 0, 'new connections are made without a director');

    daemon = await startDaemon();
    assert.match(status(/adopted +(\w+)/), /true|yes/);
    const listed = ipvsadm('-Lnc');
    assert.match(listed, /TCP .* 10\.0\.0\.1:\d+ +10\.0\.0\.3:80 +10\.0\.0\.[78]:80/);
    assert.match(fetch(`http://${VIP}/`), /Nginx/);
    assert.equal((await transfer).stdout, '200 8000000');
    await eventually(() => !/ ESTABLISHED /.test(ipvsadm('-Lnc')), 'the transfer ended in the table, too');
    const [active] = [...ipvsadm('-Ln').matchAll(/Route +\d+ +(\d+)/g)].map(match => Number(match[1]));
    assert.equal(active, 0);
  });

  test('says what to do where it may not hold enough memory, and leaves nothing behind', () => {
    const pins = `/sys/fs/bpf/${lab.prefix}-memory`;
    // Who may lock memory is not counted.
    const command = `ulimit -l 64; exec setpriv --bounding-set=-ipc_lock ${join(root, 'bin/dirigo')} up --datapath xdp --interface eth0`;
    const failed = spawnSync('nsenter', [`--net=${lab.namespace('client')}`, 'sh', '-c', command], {
      env: {
        ...process.env,
        DIRIGO_BPF: pins,
        DIRIGO_SOCKET: join(lab.folder, 'fourth'),
        DIRIGO_STATE: join(lab.folder, 'fourth-state'),
      },
      encoding: 'utf8',
      timeout: 60_000,
    });
    assert.match(failed.stderr, /^dirigo: .*memory for frames.*ENOBUFS.*ulimit -l unlimited.*\n$/);
    assert.equal(failed.status, 1);
    assert.equal(existsSync(pins), false);
  });

  test('names an interface that is missing, and leaves nothing behind', () => {
    const pins = `/sys/fs/bpf/${lab.prefix}-missing`;
    const failed = spawnSync(
      join(root, 'bin/dirigo'),
      ['up', '--datapath', 'xdp', '--interface', 'nosuch0'],
      {
        env: {
          ...process.env,
          ...environment,
          DIRIGO_BPF: pins,
          DIRIGO_SOCKET: join(lab.folder, 'third'),
          DIRIGO_STATE: join(lab.folder, 'third-state'),
        },
        encoding: 'utf8',
        timeout: 20_000,
      },
    );
    assert.notEqual(failed.status, 0);
    assert.match(failed.stderr, /^dirigo: there is no interface nosuch0.*\n$/);
    assert.equal(existsSync(pins), false);
  });

  test('falls back to generic mode where the driver cannot', () => {
    const directory = `/sys/fs/bpf/${lab.prefix}-generic`;
    const fastPath = new FastPath({ directory, capacity: 64, destinationCapacity: 64 });
    try {
      const attached = inNetworkNamespace(lab.namespace('client'), () => fastPath.attach('lo'));
      assert.equal(attached.mode, 'generic');
      assert.match(lab.run('client', 'ip', 'link', 'show', 'lo'), /xdpgeneric/);
    } finally {
      fastPath.remove();
    }
    assert.doesNotMatch(lab.run('client', 'ip', 'link', 'show', 'lo'), /xdp/);
  });

  test('removes every trace', async () => {
    tool('dirigo', 'down');
    if (daemon.exitCode === null) await once(daemon, 'exit');
    assert.equal(existsSync(pins), false);
    assert.doesNotMatch(lab.run('lb01', 'ip', 'link', 'show', 'eth0'), /xdp/);
    assert.doesNotMatch(lab.run('lb01', 'ip', 'neigh'), /managed/);
    const { status } = lab.try('client', 'curl', '-s', '--max-time', '5', `http://${VIP}/`);
    assert.equal(status, 7, 'the host itself answers for the VIP again, with a reset');
  });
});
