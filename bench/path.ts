import { setTimeout as sleep } from 'node:timers/promises';
import { buildBpf } from '../bpf/build.ts';
import { inNetworkNamespace, interfaceIndex } from '../src/datapath/ffi/libc.ts';
import { removePinned } from '../src/datapath/xdp/fast-path.ts';
import { parseAddress, parseMac } from '../src/wire/address.ts';
import { NamespaceLab } from '../test/namespaces.ts';
import { missing } from '../test/requirements.ts';
import { Dirigo, Nftables } from './balancers.ts';
import { FlowGenerator } from './flows.ts';
import { heading, reportRatio } from './measure.ts';
import { requests } from './requests.ts';

const VIP = '10.9.9.9';
const FLOWS = 256;
/** Packets sent at a time, and seconds of each measurement. */
const BURST = 200_000;
const SECONDS = 3;
const ROUNDS = 3;

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
      new Dirigo(
        lab,
        'director',
        ['front', 'back'],
        [`-A -u ${VIP}:53 -s rr`, `-a -u ${VIP}:53 -r 10.9.2.2:53 -g`],
      ),
      new Nftables(lab, 'director', `ip daddr ${VIP} udp dport 53 dnat to 10.9.2.2:53`),
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

export async function pathBenchmark(): Promise<void> {
  buildBpf();
  await datagrams();
  await requests();
}
