/**
 * HTTP with a new connection for each request, by Dirigo (direct routing), nftables DNAT and HAProxy in TCP mode.
 *
 * Each has a director and a VIP of its own, and the same client and servers; all three are there all the time and are
 * measured in turns, a few seconds each, so that what else the machine does meets all of them. Hosts are connected by
 * cables (veth), without a switch: its work would be measured as well. Interfaces, offloads (GRO on, checksums complete
 * when they leave: `tx off`) and congestion control are the same for everybody. The servers answer a few bytes from memory
 * and write no log: what is to be seen is the balancer, and even so most of the two cores' time goes to client and servers.
 * So the same requests are made without a balancer, too, straight to the servers: no balancer can reach more.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { removePinned } from '../src/datapath/xdp/fast-path.ts';
import { NamespaceLab } from '../test/namespaces.ts';
import { missing } from '../test/requirements.ts';
import { type Balancer, Dirigo, Haproxy, Nftables } from './balancers.ts';
import { heading, reportRatio } from './measure.ts';

const VIPS = { dirigo: '10.9.9.1', nftables: '10.9.9.2', haproxy: '10.9.9.3' } as const;
const SERVERS = ['web0', 'web1'] as const;
const CLIENT = '10.9.0.1';
const ROUNDS = 7;
/** Seconds of one measurement; the client's threads, one for each of the two cores, so that all work counts. */
const SECONDS = 2;
const THREADS = 2;
/** Connections at a time. */
const CONNECTIONS = 64;

interface Candidate {
  balancer: Balancer;
  /** Addresses that are asked: a VIP, or the servers themselves, which share the load. */
  targets: readonly string[];
  rates: number[];
}

const NOBODY: Balancer = { name: 'no balancer', start: async () => {}, stop: async () => {} };

/** Requests a second, each with a connection of its own. */
export async function requests(): Promise<void> {
  const reason = missing(
    'root',
    'clang',
    'ip',
    'nsenter',
    'ethtool',
    'nft',
    'nginx',
    'haproxy',
    'wrk',
    'curl',
  );
  if (reason) {
    process.stdout.write(`path, HTTP: left out: ${reason}\n`);
    return;
  }
  heading('HTTP, a new connection for each request, between namespaces (wrk, two nginx)');
  const lab = new NamespaceLab();
  try {
    const cables = addHosts(lab);
    for (const web of SERVERS) await startServer(lab, cables, web);
    const candidates = candidatesOf(lab, cables);
    await measure(lab, candidates);
    const [ours, nftables, haproxy, bound] = ratesOf(candidates, rates => Math.max(...rates));
    const [ourMedian, nftMedian, haproxyMedian] = ratesOf(candidates, median);
    reportRatio('Dirigo over nftables', ours / nftables, 1.3);
    reportRatio('Dirigo over HAProxy', ours / haproxy, 2);
    process.stdout.write(
      `  (of the medians: ${ratio(ourMedian, nftMedian)} and ${ratio(ourMedian, haproxyMedian)};` +
        ` without a balancer: ${ratio(bound, nftables)} and ${ratio(bound, haproxy)})\n` +
        `  microseconds of both cores that the balancer adds to a request, by the best rounds: ` +
        `${[ours, nftables, haproxy].map(rate => microseconds(rate, bound)).join(', ')}\n`,
    );
  } finally {
    await lab.remove();
    removePinned(`/sys/fs/bpf/${lab.prefix}`);
  }
}

type Four = [number, number, number, number];

function ratesOf(candidates: readonly Candidate[], of: (rates: readonly number[]) => number): Four {
  return candidates.map(({ rates }) => of(rates)) as Four;
}

function ratio(one: number, other: number): string {
  return (one / other).toFixed(2);
}

/** How much longer a request takes than at the other rate. */
function microseconds(rate: number, other: number): string {
  return (1e6 / rate - 1e6 / other).toFixed(1);
}

/**
 * Cables between all hosts that speak with each other: an interface at each end, named after the other host, in a network
 * of their own.
 */
class Cables {
  readonly #lab: NamespaceLab;
  /** Addresses by `host other`: the one that `host` has on its cable to `other`. */
  readonly #addresses = new Map<string, string>();

  constructor(lab: NamespaceLab) {
    this.#lab = lab;
  }

  connect(one: string, other: string): void {
    const lab = this.#lab;
    const network = `10.8.${this.#addresses.size / 2}`;
    const peer = ['peer', 'name', one, 'netns', `${lab.prefix}${other}`];
    lab.run(one, 'ip', 'link', 'add', other, 'type', 'veth', ...peer);
    for (const [host, name, address] of [
      [one, other, `${network}.1`],
      [other, one, `${network}.2`],
    ] as const) {
      lab.run(host, 'ip', 'addr', 'add', `${address}/30`, 'dev', name);
      // Answers may come by another interface than requests left by.
      lab.run(host, 'sysctl', '-qw', `net.ipv4.conf.${name}.rp_filter=0`);
      lab.run(host, 'ip', 'link', 'set', name, 'up');
      // Frames that leave by XDP need a receiver with NAPI, and checksums that are complete. A veth takes note of that
      // only while it is up.
      lab.run(host, 'ethtool', '-K', name, 'gro', 'on', 'tx', 'off');
      this.#addresses.set(`${host} ${name}`, address);
    }
  }

  /** The address of `host` on its cable to `other`. */
  address(host: string, other: string): string {
    const address = this.#addresses.get(`${host} ${other}`);
    if (address === undefined) throw new Error(`there is no cable from ${host} to ${other}`);
    return address;
  }
}

function addHosts(lab: NamespaceLab): Cables {
  const directors = Object.entries(VIPS);
  lab.addHost('client', `${CLIENT}/32`);
  for (const web of SERVERS) lab.addHost(web);
  for (const [name, vip] of directors) {
    lab.addHost(name, `${vip}/32`);
    lab.run(name, 'sysctl', '-qw', 'net.ipv4.ip_forward=1');
  }
  for (const host of ['client', ...SERVERS, ...Object.keys(VIPS)]) {
    const settings = ['net.ipv4.conf.all.rp_filter=0', 'net.ipv4.tcp_congestion_control=reno'];
    // HAProxy's connections to the servers must not run out of local ports.
    settings.push('net.ipv4.ip_local_port_range=1024 65535', 'net.ipv4.tcp_tw_reuse=1');
    lab.run(host, 'sysctl', '-qw', ...settings);
  }
  const cables = new Cables(lab);
  for (const web of SERVERS) {
    cables.connect('client', web);
    lab.run(web, 'ip', 'route', 'add', CLIENT, 'via', cables.address('client', web));
  }
  for (const [name, vip] of directors) {
    cables.connect('client', name);
    lab.run('client', 'ip', 'route', 'add', vip, 'via', cables.address(name, 'client'), 'src', CLIENT);
    lab.run(name, 'ip', 'route', 'add', CLIENT, 'via', cables.address('client', name));
    for (const web of SERVERS) cables.connect(name, web);
  }
  return cables;
}

async function startServer(lab: NamespaceLab, cables: Cables, name: string): Promise<void> {
  // For direct routing; the two others send packets to the server's own address.
  lab.run(name, 'ip', 'addr', 'add', `${VIPS.dirigo}/32`, 'dev', 'lo');
  // What nftables translated on the way goes back by it.
  const back = ['via', cables.address('nftables', name), 'table', '100'];
  lab.run(name, 'ip', 'route', 'add', CLIENT, ...back);
  lab.run(name, 'ip', 'rule', 'add', 'from', cables.address(name, 'nftables'), 'lookup', '100');
  const folder = join(lab.folder, name);
  mkdirSync(folder);
  writeFileSync(
    join(folder, 'nginx.conf'),
    `daemon off; user root; worker_processes 1; pid ${folder}/pid; error_log ${folder}/error;
     events { worker_connections 4096; multi_accept on; }
     http { access_log off; server_tokens off; lingering_close off; keepalive_timeout 0;
            server { listen 80 backlog=4096; location / { return 200 "${name}"; } } }`,
  );
  lab.start(name, {}, 'nginx', '-c', join(folder, 'nginx.conf'));
  await sleep(300);
}

function candidatesOf(lab: NamespaceLab, cables: Cables): Candidate[] {
  const service = `${VIPS.dirigo}:80`;
  const add = SERVERS.map(web => `-a -t ${service} -r ${cables.address(web, 'dirigo')}:80 -g`);
  // The comparison that is usual for DNAT: taking turns.
  const turns = SERVERS.map((web, index) => `${index} : ${cables.address(web, 'nftables')}`).join(', ');
  const rule = `ip daddr ${VIPS.nftables} tcp dport 80 dnat to numgen inc mod ${SERVERS.length} map { ${turns} }`;
  const backends = SERVERS.map(web => `${cables.address(web, 'haproxy')}:80`);
  const balancers: [Balancer, string][] = [
    [new Dirigo(lab, 'dirigo', ['client'], [`-A -t ${service} -s rr`, ...add]), VIPS.dirigo],
    [new Nftables(lab, 'nftables', rule), VIPS.nftables],
    [new Haproxy(lab, 'haproxy', `${VIPS.haproxy}:80`, backends), VIPS.haproxy],
  ];
  const straight = SERVERS.map(web => cables.address(web, 'client'));
  return [
    ...balancers.map(([balancer, vip]) => ({ balancer, targets: [vip], rates: [] })),
    { balancer: NOBODY, targets: straight, rates: [] },
  ];
}

async function measure(lab: NamespaceLab, candidates: readonly Candidate[]): Promise<void> {
  const started: Balancer[] = [];
  try {
    for (const candidate of candidates) {
      const { balancer, targets } = candidate;
      await balancer.start();
      started.push(balancer);
      for (const target of targets) await answers(lab, balancer, target);
      requestRate(lab, candidate, 1);
    }
    for (let round = 0; round < ROUNDS; round++) {
      for (const candidate of candidates) candidate.rates.push(requestRate(lab, candidate, SECONDS));
    }
  } finally {
    for (const balancer of started) await balancer.stop();
  }
  for (const { balancer, rates } of candidates) {
    const best = Math.max(...rates)
      .toFixed(0)
      .padStart(7);
    process.stdout.write(
      `  ${balancer.name.padEnd(30)} ${best} requests a second, median ${median(rates).toFixed(0)}\n`,
    );
  }
}

/** Waits until requests are answered. @throws Error if none is within ten seconds */
async function answers(lab: NamespaceLab, balancer: Balancer, target: string): Promise<void> {
  for (let attempt = 0; attempt < 50; attempt++) {
    if (lab.try('client', 'curl', '-s', '--max-time', '1', `http://${target}/`).status === 0) return;
    await sleep(200);
  }
  throw new Error(`${balancer.name} does not answer`);
}

function requestRate(lab: NamespaceLab, { balancer, targets }: Candidate, seconds: number): number {
  const share = [`-t${THREADS / targets.length}`, `-c${CONNECTIONS / targets.length}`, `-d${seconds}`];
  const loads = targets.map(target => `wrk ${share.join(' ')} -H 'Connection: close' http://${target}/ &`);
  const output = lab.run('client', 'sh', '-c', `${loads.join(' ')} wait`);
  const failures = /Non-2xx.*|Socket errors.*/.exec(output)?.[0];
  if (failures) process.stdout.write(`  ${balancer.name}: ${failures}\n`);
  const rates = [...output.matchAll(/Requests\/sec:\s+([\d.]+)/g)].map(([, rate]) => Number(rate));
  return rates.reduce((sum, rate) => sum + rate, 0);
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((one, other) => one - other);
  return sorted[sorted.length >> 1] as number;
}
