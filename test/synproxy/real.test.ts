/**
 * The SYN proxy on XDP between namespaces: real clients and servers, FULLNAT's addresses, a wire that loses, a daemon that
 * is reloaded, and a flood of SYNs from forged addresses while a client goes on to fetch pages.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { inNetworkNamespace, interfaceIndex } from '../../src/datapath/ffi/libc.ts';
import { PacketTap } from '../../src/datapath/ffi/packet-tap.ts';
import { parseAddress, parseMac } from '../../src/wire/address.ts';
import { EtherType, writeEthernet } from '../../src/wire/ethernet.ts';
import { IPV4_HEADER, Protocol, writeIpv4 } from '../../src/wire/ipv4.ts';
import { fillTcpChecksum, TCP_HEADER, TcpFlag, writeTcp } from '../../src/wire/tcp.ts';
import {
  CLIENT,
  CLIENT6,
  eventually,
  LIP,
  LIP6,
  RealserverLaboratory,
  skip,
  VIP,
  VIP6,
} from '../realserver/laboratory.ts';
import { missing } from '../requirements.ts';

const root = join(import.meta.dirname, '../..');
/** The forger's own address, the router to all that it forges. */
const FORGER = '10.0.0.99';
const FLOOD = 20_000;
const BATCH = 100;

describe('the SYN proxy on XDP', { skip: skip || missing('nft') }, () => {
  let lab: RealserverLaboratory;

  before(async () => {
    lab = await RealserverLaboratory.open();
    lab.addHost('forger', `${FORGER}/24`);
    lab.run('lb01', 'ip', 'route', 'add', '198.18.0.0/15', 'via', FORGER);
    // Answers to the client pass the director, and nobody says that there is a shorter way.
    lab.run('web01', 'ip', 'route', 'add', `${CLIENT}/32`, 'via', '10.0.0.5');
    lab.run('web01', 'ip', 'route', 'add', `${CLIENT6}/128`, 'via', '2001:db8::5');
    await lab.startNginx('web01');
    const at = (address: string, port: number, method: string, more: object = {}): object => ({
      key: { protocol: 'tcp', address, port },
      scheduler: 'rr',
      synProxy: true,
      ...more,
      destinations: [{ address: address === VIP ? '10.0.0.7' : '2001:db8::7', port: 80, method, weight: 1 }],
    });
    await lab.startDirector([
      at(VIP, 80, 'masq'),
      at(VIP6, 80, 'masq'),
      at(VIP, 81, 'fullnat', { localAddresses: [LIP] }),
      at(VIP6, 81, 'fullnat', { localAddresses: [LIP6] }),
      at(VIP, 82, 'masq', { synProxy: false }),
    ]);
    await eventually(() => lab.fetch('client', '-m', '2', `http://${VIP}/`).includes('web01'), 'a page');
  });

  after(() => lab.remove());

  function tool(name: 'dirigo' | 'ipvsadm', ...words: string[]): string {
    return execFileSync(join(root, 'bin', name), words, {
      env: { ...process.env, ...lab.environment },
      encoding: 'utf8',
      maxBuffer: 1 << 26,
    });
  }

  /** Connections as `-Lnc` lists them, without the heading. */
  function connections(): string[] {
    return tool('ipvsadm', '-Lnc').trimEnd().split('\n').slice(2);
  }

  test('pages, large ones in both directions, and addresses that servers see', () => {
    assert.match(tool('ipvsadm', '-Ln'), /^TCP {2}10\.0\.0\.3:80 rr synproxy$/m);
    for (const host of [VIP, `[${VIP6}]`]) {
      const client = host === VIP ? CLIENT : CLIENT6;
      assert.match(lab.fetch('client', `http://${host}/who`), new RegExp(`^${client} \\d+$`));
      const size = ['-o', '/dev/null', '-w', '%{size_download} %{size_upload}'];
      assert.equal(lab.fetch('client', ...size, `http://${host}/big`), '3000000 0');
      const upload = ['-X', 'POST', '--data-binary', `@${lab.folder}/web01/big`, '-H', 'Expect:'];
      assert.match(lab.fetch('client', ...size, ...upload, `http://${host}/who`), / 3000000$/);
    }
  });

  test('with scaling, timestamps and SACK, over a wire that loses', () => {
    tool('dirigo', 'setting', 'synproxy_wscale', '7');
    tool('dirigo', 'setting', 'synproxy_timestamp', '1');
    for (const host of ['client', 'web01']) {
      lab.run(host, 'nft', 'add table inet lossy');
      lab.run(host, 'nft', 'add chain inet lossy in { type filter hook input priority 0; }');
      lab.run(host, 'nft', 'add rule inet lossy in meta l4proto tcp numgen random mod 50 == 0 drop');
    }
    try {
      const size = ['-m', '30', '-o', '/dev/null', '-w', '%{size_download}'];
      assert.equal(lab.fetch('client', ...size, `http://${VIP}/big`), '3000000');
      const upload = ['-X', 'POST', '--data-binary', `@${lab.folder}/web01/big`, '-H', 'Expect:'];
      const sent = lab.fetch(
        'client',
        '-m',
        '30',
        '-o',
        '/dev/null',
        '-w',
        '%{size_upload}',
        ...upload,
        `http://${VIP}/who`,
      );
      assert.equal(sent, '3000000');
    } finally {
      for (const host of ['client', 'web01']) lab.run(host, 'nft', 'delete table inet lossy');
      tool('dirigo', 'setting', 'synproxy_wscale', '0');
      tool('dirigo', 'setting', 'synproxy_timestamp', '0');
    }
  });

  test('FULLNAT: the server learns the client by TOA', () => {
    lab.mustRealserver('web01', '--mode', 'fullnat', '--lip', LIP, '--lip', LIP6, '--cgroup', lab.cgroup);
    try {
      for (const [host, client] of [
        [VIP, CLIENT],
        [`[${VIP6}]`, CLIENT6],
      ] as const) {
        assert.match(lab.fetch('client', `http://${host}:81/who`), new RegExp(`^${client} \\d+$`));
      }
    } finally {
      lab.realserver('web01', '--undo');
    }
  });

  test('a reloaded daemon goes on with connections, as it was told what to add to their numbers', async () => {
    const output = `${lab.folder}/slow`;
    const words = ['-sS', '--limit-rate', '800k', '-m', '30', '-o', output, `http://${VIP}/big`];
    const slow = lab.start('client', {}, 'curl', ...words);
    const ended = once(slow, 'exit');
    await eventually(() => connections().some(line => line.includes('ESTABLISHED')), 'a connection');
    tool('dirigo', 'reload');
    await ended;
    assert.equal(statSync(output).size, 3_000_000);
  });

  test('a server that refuses: the client is refused', () => {
    lab.run('web01', 'nft', 'add table inet refuse');
    lab.run('web01', 'nft', 'add chain inet refuse in { type filter hook input priority 0; }');
    lab.run('web01', 'nft', 'add rule inet refuse in tcp dport 80 reject with tcp reset');
    try {
      const start = Date.now();
      assert.match(lab.fetch('client', `http://${VIP}/`), /^curl: .*(reset|refused|Failed to connect)/i);
      assert.ok(Date.now() - start < 3000);
    } finally {
      lab.run('web01', 'nft', 'delete table inet refuse');
    }
  });

  /** Sends SYNs from as many forged addresses to a port of the VIP, in about two seconds. */
  async function flood(port: number): Promise<void> {
    const mac = (host: string): Uint8Array => {
      const [link] = JSON.parse(lab.run(host, 'ip', '-j', 'link', 'show', 'eth0')) as { address: string }[];
      return parseMac(link?.address ?? '') ?? new Uint8Array(6);
    };
    const [source, target] = [mac('forger'), mac('lb01')];
    const tap = inNetworkNamespace(
      lab.namespace('forger'),
      () => new PacketTap({ interfaceIndex: interfaceIndex('eth0'), interfaceName: 'eth0' }),
    );
    const frame = new Uint8Array(14 + IPV4_HEADER + TCP_HEADER);
    const view = new DataView(frame.buffer);
    writeEthernet(frame, 0, target, source, EtherType.ipv4);
    for (let sent = 0; sent < FLOOD; sent++) {
      const from = 198 * 2 ** 24 + 18 * 2 ** 16 + sent;
      writeIpv4(view, frame, 14, {
        source: Uint8Array.of(from >>> 24, (from >>> 16) & 0xff, (from >>> 8) & 0xff, from & 0xff),
        destination: parseAddress(VIP) ?? assert.fail(),
        totalLength: IPV4_HEADER + TCP_HEADER,
        ttl: 60,
        protocol: Protocol.tcp,
      });
      writeTcp(view, frame, 14 + IPV4_HEADER, {
        sourcePort: 1024 + (sent % 60_000),
        destinationPort: port,
        sequence: sent * 7,
        acknowledgement: 0,
        flags: TcpFlag.syn,
        window: 65535,
      });
      fillTcpChecksum(view, 4, 14, 14 + IPV4_HEADER, TCP_HEADER);
      tap.send(frame);
      if (sent % BATCH === BATCH - 1) await sleep(10);
    }
    tap.close();
  }

  test(`${FLOOD} SYNs from forged addresses: not one connection of them, and a client gets its pages meanwhile`, async () => {
    const forged = (): number => connections().filter(line => line.includes(' 198.1')).length;
    const before = answeredSyns();
    let most = 0;
    let over = false;
    const flooding = flood(80).then(() => {
      over = true;
    });
    const page = lab.start(
      'client',
      {},
      'sh',
      '-c',
      `while curl -sS -m 5 http://${VIP}/ >> ${lab.folder}/pages; do :; done`,
    );
    while (!over) {
      await sleep(200);
      most = Math.max(most, forged());
    }
    await flooding;
    page.kill('SIGTERM');
    const fetched = Number(lab.run('client', 'sh', '-c', `grep -c 'Nginx server web01' ${lab.folder}/pages`));
    assert.equal(most, 0);
    assert.equal(forged(), 0);
    assert.ok(fetched >= 20, `${fetched} pages`);
    const answered = answeredSyns() - before;
    assert.ok(answered > FLOOD * 0.9, `${answered} SYNs answered`);
    // Without it each has a record: this is what the proxy is for.
    await flood(82);
    assert.ok(forged() > FLOOD * 0.9, `${forged()} connections without the SYN proxy`);
  });

  function answeredSyns(): number {
    const socket = lab.environment.DIRIGO_SOCKET as string;
    const text = execFileSync('curl', ['-sS', '--unix-socket', socket, 'http://lb/metrics'], {
      encoding: 'utf8',
    });
    return Number(/^dirigo_synproxy_events_total\{event="answered"\} (\d+)$/m.exec(text)?.[1]);
  }
});
