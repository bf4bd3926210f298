/**
 * The whole path between network namespaces, Dirigo beside what Linux has: 60-byte UDP datagrams through direct routing
 * against DNAT by nftables, and HTTP with a new connection for each request against nftables and HAProxy in TCP mode.
 * What counts is the ratio: everybody shares the cores with clients and servers.
 */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { buildBpf } from '../bpf/build.ts';
import { inNetworkNamespace, interfaceIndex } from '../src/datapath/ffi/libc.ts';
import { removePinned } from '../src/datapath/xdp/fast-path.ts';
import { parseAddress, parseMac } from '../src/wire/address.ts';
import { NamespaceLab } from '../test/namespaces.ts';
import { missing } from '../test/requirements.ts';
import { FlowGenerator } from './flows.ts';
import { heading } from './measure.ts';

const ROOT = join(import.meta.dirname, '..');
const VIP = '10.9.9.9';
const FLOWS = 256;
/** Packets sent at a time, and seconds of each measurement. */
const BURST = 200_000;
const SECONDS = 3;
const ROUNDS = 3;

/** Who stands between clients and servers. */
interface Balancer {
  name: string;
  start(): Promise<void>;
  stop(): Promise<void>;
}

/** The daemon on XDP in a host of the lab, with services added by `ipvsadm`. */
class Dirigo implements Balancer {
  readonly name = 'Dirigo, direct routing';
  readonly #lab: NamespaceLab;
  readonly #interfaces: readonly string[];
  readonly #commands: readonly string[];
  readonly #environment: NodeJS.ProcessEnv;

  constructor(lab: NamespaceLab, interfaces: readonly string[], commands: readonly string[]) {
    this.#lab = lab;
    this.#interfaces = interfaces;
    this.#commands = commands;
    this.#environment = {
      DIRIGO_BPF: `/sys/fs/bpf/${lab.prefix}`,
      DIRIGO_SOCKET: join(lab.folder, 'socket'),
      DIRIGO_STATE: join(lab.folder, 'state'),
    };
  }

  async start(): Promise<void> {
    const options = this.#interfaces.flatMap(name => ['--interface', name]);
    const parameters = ['up', '--datapath', 'xdp', ...options];
    const daemon = this.#lab.start('director', this.#environment, join(ROOT, 'bin/dirigo'), ...parameters);
    let errors = '';
    daemon.stderr?.on('data', text => {
      errors += text;
    });
    const ended = once(daemon, 'exit').then(() => {
      throw new Error(`the daemon ended: ${errors}`);
    });
    ended.catch(() => {});
    await Promise.race([once(daemon.stdout as NodeJS.EventEmitter, 'data'), ended]);
    for (const command of this.#commands) this.#run('ipvsadm', ...command.split(' '));
    // The ways to the servers have to be found.
    await sleep(500);
  }

  #run(tool: string, ...parameters: string[]): string {
    return execFileSync(join(ROOT, 'bin', tool), parameters, {
      env: { ...process.env, ...this.#environment },
      encoding: 'utf8',
    });
  }

  async stop(): Promise<void> {
    this.#run('dirigo', 'down');
    removePinned(this.#environment.DIRIGO_BPF as string);
  }
}

class Nftables implements Balancer {
  readonly name = 'nftables DNAT';
  readonly #lab: NamespaceLab;
  readonly #rule: string;

  /** @param rule what is done with packets to the VIP */
  constructor(lab: NamespaceLab, rule: string) {
    this.#lab = lab;
    this.#rule = rule;
  }

  async start(): Promise<void> {
    const file = join(this.#lab.folder, 'rules.nft');
    writeFileSync(
      file,
      `table ip bench {
  chain pre {
    type nat hook prerouting priority -100
    ip daddr ${VIP} ${this.#rule}
  }
}
`,
    );
    this.#lab.run('director', 'nft', '-f', file);
  }

  async stop(): Promise<void> {
    this.#lab.run('director', 'nft', 'delete', 'table', 'ip', 'bench');
    // What it tracked must not meet the next one.
    this.#lab.try('director', 'conntrack', '-F');
  }
}

class Haproxy implements Balancer {
  readonly name = 'HAProxy, TCP mode';
  readonly #lab: NamespaceLab;
  readonly #servers: readonly string[];
  #stop: (() => Promise<void>) | undefined;

  constructor(lab: NamespaceLab, servers: readonly string[]) {
    this.#lab = lab;
    this.#servers = servers;
  }

  async start(): Promise<void> {
    const file = join(this.#lab.folder, 'haproxy.cfg');
    const servers = this.#servers.map((server, index) => `  server web${index} ${server}`).join('\n');
    writeFileSync(
      file,
      `global
  maxconn 8000
defaults
  mode tcp
  timeout connect 5s
  timeout client 10s
  timeout server 10s
listen web
  bind ${VIP}:80
  balance roundrobin
${servers}
`,
    );
    const child = this.#lab.start('director', {}, 'haproxy', '-db', '-f', file);
    let errors = '';
    child.stderr?.on('data', text => {
      errors += text;
    });
    const ended = once(child, 'exit');
    this.#stop = async () => {
      child.kill('SIGTERM');
      await ended;
    };
    await sleep(500);
    if (child.exitCode !== null) throw new Error(`haproxy ended: ${errors}`);
  }

  async stop(): Promise<void> {
    await this.#stop?.();
  }
}

function linkDirectly(lab: NamespaceLab, one: string, first: string, other: string, second: string): void {
  const peer = ['peer', 'name', second, 'netns', `${lab.prefix}${other}`];
  lab.run(one, 'ip', 'link', 'add', first, 'type', 'veth', ...peer);
  for (const [host, name] of [
    [one, first],
    [other, second],
  ] as const) {
    lab.run(host, 'ip', 'link', 'set', name, 'up');
    lab.run(host, 'ethtool', '-K', name, 'gro', 'on', 'tx', 'off');
  }
}

function macOf(lab: NamespaceLab, host: string, name: string): Uint8Array {
  const [link] = JSON.parse(lab.run(host, 'ip', '-json', 'link', 'show', name)) as { address: string }[];
  return parseMac(link?.address ?? '') ?? new Uint8Array(6);
}

/** Datagrams a second through each balancer: a generator in front, a counter behind, both in XDP. */
async function datagrams(): Promise<void> {
  const reason = missing('root', 'clang', 'ip', 'nsenter', 'ethtool', 'nft');
  if (reason) {
    process.stdout.write(`path, UDP: left out: ${reason}\n`);
    return;
  }
  heading(
    '60-byte UDP datagrams through the director, between namespaces, on one core with generator and counter',
  );
  const lab = new NamespaceLab();
  try {
    lab.addHost('client');
    lab.addHost('director');
    lab.addHost('server');
    linkDirectly(lab, 'client', 'fast0', 'director', 'front');
    linkDirectly(lab, 'director', 'back', 'server', 'fast0');
    for (const [host, name, address] of [
      ['client', 'fast0', '10.9.1.2/24'],
      ['director', 'front', '10.9.1.1/24'],
      ['director', 'back', '10.9.2.1/24'],
      ['server', 'fast0', '10.9.2.2/24'],
    ] as const) {
      lab.run(host, 'ip', 'addr', 'add', address, 'dev', name);
    }
    lab.run('director', 'sysctl', '-qw', 'net.ipv4.ip_forward=1');
    lab.run('director', 'ip', 'addr', 'add', `${VIP}/32`, 'dev', 'lo');
    lab.run('director', 'ip', 'route', 'add', '10.66.0.0/16', 'via', '10.9.1.2');
    const rates = await compareRates(lab);
    const [ours, theirs] = rates;
    if (ours === undefined || theirs === undefined) return;
    reportRatio('Dirigo over nftables', ours / theirs, 2.5);
  } finally {
    await lab.remove();
    removePinned(`/sys/fs/bpf/${lab.prefix}`);
  }
}

async function compareRates(lab: NamespaceLab): Promise<number[]> {
  const generator = new FlowGenerator(FLOWS);
  generator.shape({
    sourceMac: macOf(lab, 'client', 'fast0'),
    destinationMac: macOf(lab, 'director', 'front'),
    protocol: 'udp',
    tcpFlags: 0,
    address: parseAddress(VIP) ?? new Uint8Array(4),
    varies: 'source',
  });
  const flows = { addresses: new Uint32Array(FLOWS), ports: new Uint32Array(FLOWS) };
  for (let flow = 0; flow < FLOWS; flow++) {
    // 10.66.0.x, ports 2000 to 53, raw.
    flows.addresses[flow] = 0x0000_420a + ((flow << 24) >>> 0);
    flows.ports[flow] = 0xd007 | (0x3500 << 16);
  }
  generator.setFlows(flows);
  const sinkLink = inNetworkNamespace(lab.namespace('server'), () =>
    generator.countDatagrams(interfaceIndex('fast0'), 'fast0'),
  );
  const rates: number[] = [];
  try {
    for (const balancer of [
      new Dirigo(lab, ['front', 'back'], [`-A -u ${VIP}:53 -s rr`, `-a -u ${VIP}:53 -r 10.9.2.2:53 -g`]),
      new Nftables(lab, 'udp dport 53 dnat to 10.9.2.2:53'),
    ]) {
      await balancer.start();
      // Every flow gets its connection first.
      for (let warmUp = 0; warmUp < 5; warmUp++) {
        sendBurst(lab, generator, 4 * FLOWS);
        await sleep(100);
      }
      generator.takeReceived();
      const rate = rateOf(lab, generator);
      await balancer.stop();
      rates.push(rate);
      process.stdout.write(
        `  ${balancer.name.padEnd(30)} ${(rate / 1e6).toFixed(2).padStart(7)} million a second\n`,
      );
    }
  } finally {
    sinkLink.detach();
    sinkLink.close();
    generator.close();
  }
  return rates;
}

function sendBurst(lab: NamespaceLab, generator: FlowGenerator, packets: number): void {
  inNetworkNamespace(lab.namespace('client'), () => generator.send(packets, interfaceIndex('fast0')));
}

/** Datagrams a second at the server, the best of a few rounds. */
function rateOf(lab: NamespaceLab, generator: FlowGenerator): number {
  let best = 0;
  for (let round = 0; round < ROUNDS; round++) {
    generator.takeReceived();
    const begin = performance.now();
    do sendBurst(lab, generator, BURST);
    while (performance.now() - begin < (SECONDS * 1000) / ROUNDS);
    best = Math.max(best, generator.takeReceived() / ((performance.now() - begin) / 1000));
  }
  return best;
}

function reportRatio(what: string, ratio: number, target: number): void {
  const verdict = ratio >= target ? 'met' : 'MISSED';
  process.stdout.write(
    `  ${what.padEnd(30)} ${ratio.toFixed(2).padStart(7)} times  (target ${target}: ${verdict})\n`,
  );
}

/** Requests a second, each with a connection of its own. */
async function requests(): Promise<void> {
  const reason = missing('root', 'clang', 'ip', 'nsenter', 'ethtool', 'nft', 'nginx', 'haproxy', 'wrk');
  if (reason) {
    process.stdout.write(`path, HTTP: left out: ${reason}\n`);
    return;
  }
  heading('HTTP, a new connection for each request, between namespaces (wrk, two nginx)');
  const lab = new NamespaceLab();
  try {
    lab.addHost('client', '10.8.0.2/24');
    lab.addHost('director', '10.8.0.1/24', '10.9.2.1/24', `${VIP}/32`);
    lab.run('client', 'ip', 'route', 'add', 'default', 'via', '10.8.0.1');
    lab.run('director', 'sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv4.conf.all.send_redirects=0');
    lab.run('director', 'sysctl', '-qw', 'net.ipv4.conf.eth0.send_redirects=0');
    const servers = ['10.9.2.7', '10.9.2.8'];
    for (const [index, address] of servers.entries()) await startServer(lab, `web${index}`, address);
    const [ours, nftables, haproxy] = await compareRequests(lab, servers);
    if (ours === undefined || nftables === undefined || haproxy === undefined) return;
    reportRatio('Dirigo over nftables', ours / nftables, 1.3);
    reportRatio('Dirigo over HAProxy', ours / haproxy, 2);
  } finally {
    await lab.remove();
    removePinned(`/sys/fs/bpf/${lab.prefix}`);
  }
}

async function startServer(lab: NamespaceLab, name: string, address: string): Promise<void> {
  lab.addHost(name, `${address}/24`);
  lab.run(name, 'sysctl', '-qw', 'net.ipv4.conf.all.arp_ignore=1', 'net.ipv4.conf.all.arp_announce=2');
  lab.run(name, 'ip', 'addr', 'add', `${VIP}/32`, 'dev', 'lo');
  lab.run(name, 'ip', 'route', 'add', 'default', 'via', '10.9.2.1');
  const folder = join(lab.folder, name);
  mkdirSync(folder);
  writeFileSync(
    join(folder, 'nginx.conf'),
    `daemon off; user root; worker_processes 1; pid ${folder}/pid; error_log ${folder}/error;
     events { worker_connections 4096; }
     http { access_log off; server { listen 80 backlog=4096; location / { return 200 "${name}"; } } }`,
  );
  lab.start(name, {}, 'nginx', '-c', join(folder, 'nginx.conf'));
  await sleep(300);
}

async function compareRequests(lab: NamespaceLab, servers: readonly string[]): Promise<number[]> {
  const service = `${VIP}:80`;
  const add = servers.map(server => `-a -t ${service} -r ${server}:80 -g`);
  // The comparison that is usual for DNAT: taking turns.
  const turns = servers.map((server, index) => `${index} : ${server}`).join(', ');
  const balancers = [
    new Dirigo(lab, ['eth0'], [`-A -t ${service} -s rr`, ...add]),
    new Nftables(lab, `tcp dport 80 dnat to numgen inc mod ${servers.length} map { ${turns} }`),
    new Haproxy(
      lab,
      servers.map(server => `${server}:80`),
    ),
  ];
  const rates: number[] = [];
  for (const balancer of balancers) {
    await balancer.start();
    // In direct routing servers answer past the director, else by it.
    const way = balancer instanceof Dirigo ? 'past the director' : 'by the director';
    for (const index of servers.keys()) setReturn(lab, `web${index}`, way);
    try {
      lab.run('client', 'wrk', '-t1', '-c32', '-d1', '-H', 'Connection: close', `http://${VIP}/`);
      let best = 0;
      for (let round = 0; round < ROUNDS; round++) {
        const output = lab.run(
          'client',
          'wrk',
          '-t1',
          '-c32',
          '-d2',
          '-H',
          'Connection: close',
          `http://${VIP}/`,
        );
        best = Math.max(best, Number(/Requests\/sec:\s+([\d.]+)/.exec(output)?.[1] ?? 0));
        const failures = /Non-2xx.*|Socket errors.*/.exec(output)?.[0];
        if (failures) process.stdout.write(`  ${balancer.name}: ${failures}\n`);
      }
      rates.push(best);
      process.stdout.write(
        `  ${balancer.name.padEnd(30)} ${best.toFixed(0).padStart(7)} requests a second\n`,
      );
    } finally {
      await balancer.stop();
    }
  }
  return rates;
}

/** Which way a server's answers take. */
function setReturn(lab: NamespaceLab, host: string, way: 'past the director' | 'by the director'): void {
  const target = way === 'past the director' ? ['dev', 'eth0'] : ['via', '10.9.2.1'];
  lab.run(host, 'ip', 'route', 'replace', '10.8.0.0/24', ...target);
}

export async function pathBenchmark(): Promise<void> {
  buildBpf();
  await datagrams();
  await requests();
}
