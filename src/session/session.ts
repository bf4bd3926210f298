/**
 * The first session: an LVS-DR cluster from an ARP resolution to a page for every client, with the commands of an
 * operator, and the checks that show that it is direct routing and not something that merely answers.
 */
import type { CapturedFrame } from '../capture/frame.ts';
import { Summarizer } from '../capture/summary.ts';
import { macName } from '../capture/vendors.ts';
import { parseMac } from '../wire/address.ts';
import { askersAs, claimants, examineDirector, readServiceFrames, type ServiceFrame } from './evidence.ts';
import type { CommandOutput, Laboratory } from './laboratory.ts';
import { Transcript } from './transcript.ts';

const VIP = '10.0.0.3';
const SERVICE = { vip: VIP, port: 80 };
const WEB = [
  { name: 'web01', address: '10.0.0.7' },
  { name: 'web02', address: '10.0.0.8' },
] as const;

/** Seconds a client stays with its server (`-p 20`), and a little more than that. */
const PERSISTENCE = 20;
const BEYOND_PERSISTENCE = PERSISTENCE + 2;

/** What one client got: who asked, and which server answered. */
interface Visit {
  client: string;
  server: string;
}

/**
 * Runs the session and prints it.
 * @returns the checks that did not hold; empty if all did
 * @throws Error if a command that must work does not
 */
export async function runSession(laboratory: Laboratory, print: (text: string) => void): Promise<string[]> {
  return new Session(laboratory, print).run();
}

class Session {
  readonly #laboratory: Laboratory;
  readonly #transcript: Transcript;
  readonly #failed: string[] = [];

  constructor(laboratory: Laboratory, print: (text: string) => void) {
    this.#laboratory = laboratory;
    this.#transcript = new Transcript(print);
  }

  async run(): Promise<string[]> {
    this.#transcript.title(
      `Dirigo: a load-balanced web site by direct routing, ${this.#laboratory.description}`,
    );
    await this.#resolveAddress();
    await this.#visitServersDirectly();
    await this.#configureDirector();
    await this.#prepareServers();
    const cables = await this.#recordCables();
    const visits = await this.#visitService();
    await this.#examine(cables, visits);
    return this.#failed;
  }

  /** Runs a command that must work, and shows it. */
  async #do(host: string, line: string): Promise<CommandOutput> {
    const output = await this.#laboratory.run(host, line);
    this.#transcript.command(host, line, output);
    if (output.status !== 0) throw new Error(`${host}: "${line}" ended with status ${output.status}`);
    return output;
  }

  #check(holds: boolean, text: string): void {
    this.#transcript.verdict(holds, text);
    if (!holds) this.#failed.push(text);
  }

  async #resolveAddress(): Promise<void> {
    this.#transcript.step('An address is resolved: ARP, seen on m01');
    const capture = await this.#laboratory.capture('m01', 'eth1', 'arp', 2);
    await this.#laboratory.run('m01', 'ping -c 1 172.16.1.51');
    const output = await capture.output;
    this.#transcript.command('m01', capture.command, { status: 0, stdout: output, stderr: '' });
    const lines = output.trimEnd().split('\n');
    this.#check(
      /ARP 42 Who has 172\.16\.1\.51\? Tell 172\.16\.1\.61/.test(lines[0] ?? '') &&
        /ARP (42|60) 172\.16\.1\.51 is at 00:0c:29:c7:5d:dd/.test(lines[1] ?? ''),
      'm01 asks who has 172.16.1.51, and db01 answers with its MAC address',
    );
    for (const address of ['10.0.0.1', '10.0.0.51', '10.0.0.254']) {
      await this.#laboratory.run('m01', `ping -c 1 ${address}`);
    }
    const { stdout } = await this.#do('m01', 'arp -n');
    const has = (address: string, device: string): boolean =>
      stdout.split('\n').some(line => line.startsWith(`${address} `) && line.trimEnd().endsWith(device));
    this.#check(
      has('172.16.1.51', 'eth1') && ['10.0.0.1', '10.0.0.51', '10.0.0.254'].every(each => has(each, 'eth0')),
      'the table on m01 holds 172.16.1.51 on eth1 and 10.0.0.1, 10.0.0.51, 10.0.0.254 on eth0',
    );
  }

  async #visitServersDirectly(): Promise<void> {
    this.#transcript.step('Two web servers, each by its own address');
    const { stdout } = await this.#do('client', 'curl 10.0.0.[7-8]');
    this.#check(
      WEB.every(({ name, address }) => stdout.includes(`<h1>Nginx server ${address} ${name}</h1>`)),
      'both servers answer directly',
    );
  }

  async #configureDirector(): Promise<void> {
    this.#transcript.step(`The director: the VIP and the service on lb01 (${this.#laboratory.datapath})`);
    await this.#do('lb01', `ip addr add ${VIP}/24 dev eth0 label eth0:0`);
    await this.#do('lb01', 'ipvsadm -C');
    await this.#do('lb01', 'ipvsadm --set 30 5 60');
    await this.#do('lb01', `ipvsadm -A -t ${VIP}:80 -s wrr -p ${PERSISTENCE}`);
    for (const { address } of WEB) await this.#do('lb01', `ipvsadm -a -t ${VIP}:80 -r ${address}:80 -g -w 1`);
    await this.#do('lb01', 'ipvsadm -ln');
  }

  async #prepareServers(): Promise<void> {
    this.#transcript.step('The real servers hold the VIP on lo and keep silent about it');
    for (const { name } of WEB) {
      await this.#do(name, `ip addr add ${VIP}/32 dev lo`);
      for (const scope of ['all', 'eth0']) {
        await this.#do(name, `sysctl -w net.ipv4.conf.${scope}.arp_ignore=1`);
        await this.#do(name, `sysctl -w net.ipv4.conf.${scope}.arp_announce=2`);
      }
    }
  }

  async #recordCables(): Promise<{ director: Stop; clients: Stop; servers: Stop[] }> {
    const start = async (host: string): Promise<Stop> => {
      const recording = await this.#laboratory.record(host, 'eth0');
      return () => recording.stop();
    };
    return {
      director: await start('lb01'),
      clients: await start('client'),
      servers: [await start('web01'), await start('web02')],
    };
  }

  /** Every client's first visit, then one that comes back before and after its persistence ends. */
  async #visitService(): Promise<Visit[]> {
    const { clients } = this.#laboratory;
    this.#transcript.step('Clients visit the VIP');
    const visits: Visit[] = [];
    for (const client of clients) visits.push(await this.#visit(client));
    const shares = WEB.map(({ name }) => visits.filter(visit => visit.server === name).length);
    this.#check(
      shares.every(share => share > 0) && Math.abs((shares[0] ?? 0) - (shares[1] ?? 0)) <= 1,
      `weights 1 and 1: of ${visits.length} clients, ${shares[0]} went to web01 and ${shares[1]} to web02`,
    );
    const [first] = visits as [Visit];
    const returns = [await this.#visit(first.client), await this.#visit(first.client)];
    this.#check(
      returns.every(({ server }) => server === first.server),
      `${first.client} comes back within ${PERSISTENCE} s and stays with ${first.server}`,
    );
    await this.#do('lb01', 'ipvsadm -lnc');
    await this.#laboratory.sleep(BEYOND_PERSISTENCE);
    this.#transcript.note(`… ${BEYOND_PERSISTENCE} s later:`);
    const { stdout } = await this.#do('lb01', 'ipvsadm -lnc');
    this.#check(
      !stdout.includes(`${this.#address(first.client)}:0 `),
      `nothing is remembered of ${first.client} any more: it is scheduled like a new client`,
    );
    return [...visits, ...returns, await this.#visit(first.client)];
  }

  #address(client: string): string {
    return `10.0.0.${client.replace('client', '') || '1'}`;
  }

  async #visit(client: string): Promise<Visit> {
    const { stdout } = await this.#do(client, `curl http://${VIP}/`);
    const server = /<h1>Nginx server \S+ (web\d+)<\/h1>/.exec(stdout)?.[1];
    if (!server) throw new Error(`${client} got no page of a web server`);
    return { client, server };
  }

  async #examine(
    cables: { director: Stop; clients: Stop; servers: Stop[] },
    visits: readonly Visit[],
  ): Promise<void> {
    const laboratory = this.#laboratory;
    const director = await cables.director();
    const client = await cables.clients();
    const servers = await Promise.all(cables.servers.map(stop => stop()));
    const lb01 = laboratory.mac('lb01', 'eth0');
    const serverMacs = WEB.map(({ name }) => laboratory.mac(name, 'eth0'));
    const atDirector = readServiceFrames(director, SERVICE);
    const atServers = servers.flatMap(frames => readServiceFrames(frames, SERVICE));
    const atClient = readServiceFrames(client, SERVICE);

    this.#transcript.step('What passed the cables');
    this.#showConversation(atDirector, atServers, atClient);

    const { forwarded, lost, replies } = examineDirector(atDirector, SERVICE, lb01, serverMacs);
    this.#transcript.note('');
    this.#check(
      forwarded.length >= visits.length && lost.length === 0,
      `between client, director and server only the destination MAC (with the source MAC) and the TTL differ: ${forwarded.length} frames${lost.length > 0 ? `, but ${lost.length} did not come out` : ''}`,
    );
    const returned = atServers.filter(frame => frame.source === VIP);
    this.#check(
      returned.length > 0 &&
        returned.every(frame => frame.destinationMac !== lb01 && serverMacs.includes(frame.sourceMac)),
      `replies go straight from the server to the client: ${returned.length} frames`,
    );
    this.#check(replies.length === 0, `the director never sees a reply: ${replies.length} frames`);
    await this.#examineLogs(visits);
    const everything = [...director, ...client, ...servers.flat()];
    const owners = new Set([...claimants(everything, VIP), ...askersAs(everything, VIP)]);
    this.#check(
      owners.size === 1 && owners.has(lb01),
      `only lb01 (${lb01}) answers ARP for the VIP${owners.has(lb01) && owners.size === 1 ? '' : `: heard from ${[...owners].join(', ') || 'nobody'}`}`,
    );
  }

  async #examineLogs(visits: readonly Visit[]): Promise<void> {
    for (const { name } of WEB) {
      const log = await this.#laboratory.accessLog(name);
      this.#transcript.note(`${name}# tail -n 3 ${this.#laboratory.accessLogPath(name)}`);
      this.#transcript.lines(log.slice(-3));
      const expected = visits
        .filter(visit => visit.server === name)
        .map(visit => this.#address(visit.client));
      // The first line of each log is the visit by the server's own address.
      const logged = log.slice(-expected.length).map(line => line.split(' ')[0]);
      this.#check(
        expected.length > 0 && expected.join() === logged.join(),
        `the log of ${name} shows the clients' own addresses`,
      );
    }
  }

  /** The first connection of the session, frame by frame, where each was seen. */
  #showConversation(
    director: readonly ServiceFrame[],
    servers: readonly ServiceFrame[],
    client: readonly ServiceFrame[],
  ): void {
    const first = client.find(frame => frame.destination === VIP);
    if (!first) return;
    const belongs = (frame: ServiceFrame): boolean =>
      [frame.sourcePort, frame.destinationPort].includes(first.sourcePort) &&
      [frame.source, frame.destination].includes(first.source);
    const lb01 = this.#laboratory.mac('lb01', 'eth0');
    // A frame seen on both cables of its way is shown once.
    const shown = [
      ...director
        .filter(belongs)
        .map(frame => ({ frame, where: frame.sourceMac === lb01 ? 'lb01 →' : '→ lb01' })),
      ...servers
        .filter(frame => belongs(frame) && frame.source === VIP)
        .map(frame => ({ frame, where: 'server →' })),
    ].sort((a, b) => Number(a.frame.time - b.frame.time));
    const start = shown[0]?.frame.time ?? 0n;
    const summarizer = new Summarizer();
    this.#transcript.lines(
      shown.slice(0, 16).map(({ frame, where }) => {
        const { info, protocol } = summarizer.summarize(frame.frame);
        const seconds = (Number(frame.time - start) / 1e9).toFixed(6);
        const macs = `${name(frame.sourceMac)} -> ${name(frame.destinationMac)}`;
        return `${seconds}  ${where.padEnd(8)}  ${macs.padEnd(40)}  ${frame.source} -> ${frame.destination}  ttl ${frame.ttl}  ${protocol} ${info}`;
      }),
    );
  }
}

type Stop = () => Promise<CapturedFrame[]>;

function name(mac: string): string {
  const bytes = parseMac(mac);
  return bytes ? macName(bytes) : mac;
}
