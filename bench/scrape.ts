/**
 * A scrape of many services: how long it takes, and for how much CPU time at once it keeps the daemon's loop, by which
 * packets of the slow path go, from them. `node --expose-gc bench/scrape.ts [SERVICES [SERVERS [DETAIL]]]`
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { Daemon } from '../src/control/daemon.ts';
import { VirtualDatapath } from '../src/datapath/virtual.ts';

const [services = '10000', servers = '10', detail = 'servers'] = process.argv.slice(2);
const SCRAPES = 5;

const folder = mkdtempSync(join(tmpdir(), 'dirigo-bench-'));
const socket = join(folder, 'd.sock');
const datapath = new VirtualDatapath();
const daemon = await Daemon.start({ socket, openDatapath: async () => datapath });
configure(Number(services), Number(servers));

/** Reads from a thread of its own, as a scraper in another process would. */
const scraper = new Worker(
  `const { request } = require('node:http');
  const { parentPort, workerData } = require('node:worker_threads');
  parentPort.on('message', () => {
    let bytes = 0;
    request({ ...workerData, headers: { accept: 'application/openmetrics-text' } }, answer => {
      answer.on('data', chunk => { bytes += chunk.length; });
      answer.on('end', () => parentPort.postMessage(bytes));
    }).end();
  });`,
  { eval: true, workerData: { socketPath: socket, path: `/metrics?detail=${detail}` } },
);

for (let scrape = 0; scrape < SCRAPES; scrape++) {
  globalThis.gc?.();
  const began = performance.now();
  const watch = watchLoop();
  const bytes = await new Promise<number>(resolve => {
    scraper.once('message', resolve);
    scraper.postMessage('scrape');
  });
  const longest = watch();
  process.stdout.write(
    `${services} services × ${servers} servers, detail ${detail}: ${(bytes / 1e6).toFixed(1)} MB in ` +
      `${(performance.now() - began).toFixed(0)} ms; at most ${longest.toFixed(1)} ms of CPU at once\n`,
  );
}
await scraper.terminate();
await daemon.stop({ remove: true });
rmSync(folder, { recursive: true });

function configure(services: number, servers: number): void {
  const { administration } = datapath.director;
  for (let service = 0; service < services; service++) {
    const key = { protocol: 'tcp', address: `10.1.${service >> 8}.${service & 255}`, port: 80 } as const;
    administration.addService({
      key,
      scheduler: 'rr',
      schedulerFlags: 0,
      persistenceTimeout: 0,
      persistenceNetmask: '255.255.255.255',
      persistenceEngine: '',
      onePacket: false,
    });
    for (let server = 1; server <= servers; server++) {
      administration.addDestination(key, {
        address: `10.2.0.${server}`,
        port: 80,
        method: 'gate',
        weight: 1,
        upperThreshold: 0,
        lowerThreshold: 0,
        tunnelType: 'ipip',
        tunnelPort: 0,
        tunnelChecksum: 'nocsum',
      });
    }
  }
}

/** Milliseconds of this thread's CPU time; how busy the machine is besides does not matter. */
function cpuTime(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}

/** Returns what ends it and gives the most CPU time between two turns of the loop. */
function watchLoop(): () => number {
  let isOn = true;
  let longest = 0;
  let last = cpuTime();
  const look = (): void => {
    const now = cpuTime();
    longest = Math.max(longest, now - last);
    last = now;
    if (isOn) setImmediate(look);
  };
  setImmediate(look);
  return () => {
    isOn = false;
    return longest;
  };
}
