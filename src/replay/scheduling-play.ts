/** Plays scenarios of scheduling: clients come and go, and which server each got is written down. */
import { MarkRules, parseMarkRule } from '../ipvs/mark-rules.ts';
import { type Family, formatAddress, parseAddress } from '../wire/address.ts';
import { EtherType, writeEthernet } from '../wire/ethernet.ts';
import { IPV4_DONT_FRAGMENT, IPV4_HEADER, Protocol, writeIpv4 } from '../wire/ipv4.ts';
import { IPV6_HEADER, writeIpv6 } from '../wire/ipv6.ts';
import { Packet } from '../wire/packet.ts';
import { fillTcpChecksum, TCP_HEADER, TcpFlag, writeTcp } from '../wire/tcp.ts';
import { fillUdpChecksum, UDP_HEADER, writeUdp } from '../wire/udp.ts';
import { Console } from './console.ts';
import type { HostInterface, ReplayHost } from './host.ts';
import { hostOptions, naming, type PlayOptions } from './packet-play.ts';
import { ScenarioError, type SchedulingScenario, type SchedulingStep } from './scenario.ts';
import { recordedHost } from './topology.ts';

/** What came back to a client that was refused. */
export interface Reply {
  /** Four hexadecimal digits. */
  ethertype: string;
  proto: number;
  type: number;
  code: number;
}

/** ActiveConn and InActConn by server. */
export type Counts = Record<string, [active: number, inactive: number]>;

export interface SchedulingStepOutcome {
  chosen?: string | null;
  reply?: Reply[];
  counts: Counts;
}

export interface SchedulingOutcome {
  chosen: (string | null)[];
  steps: SchedulingStepOutcome[];
}

/** What the recordings mark: destinations that policy routing delivers to the director. */
const MARKED = { rule: 'tcp to 172.16.0.0/12 port 80 mark 1', address: '172.16.0.0', length: 12 };
const GATEWAY_MAC = Uint8Array.of(2, 0, 0, 0, 0, 0xfe);
const DEFAULT_VIP = '10.0.0.3';
const PORT = 80;
/** Milliseconds between two steps. */
const STEP = 10;

/**
 * Plays a scenario.
 * @throws ScenarioError at what cannot be done
 */
export function playScheduling(
  scenario: SchedulingScenario,
  file: string,
  options: PlayOptions = {},
): SchedulingOutcome {
  const where = `${file} (${scenario.name})`;
  const player = new Player(scenario, where, options);
  for (const [index, argv] of scenario.setup.entries()) player.command(argv, `setup line ${index}`);
  const steps = scenario.steps.map((step, index) => player.play(step, index));
  const chosen = steps.flatMap(step => (step.chosen === undefined ? [] : [step.chosen]));
  return { chosen, steps };
}

class Player {
  readonly #host: ReplayHost;
  readonly #console: Console;
  readonly #on: HostInterface;
  readonly #protocol: number;
  readonly #virtual: { address: string; port: number };
  readonly #where: string;
  readonly #packet = new Packet(4096);

  constructor(scenario: SchedulingScenario, where: string, options: PlayOptions) {
    this.#where = where;
    this.#host = recordedHost({ interfaces: 1 }, hostOptions(options));
    this.#console = new Console(this.#host, options.names);
    this.#on = this.#host.interfaces[1] as HostInterface;
    this.#protocol = scenario.proto === 'udp' ? Protocol.udp : Protocol.tcp;
    this.#virtual = virtualOf(scenario.service);
    const rule = parseMarkRule(MARKED.rule);
    this.#host.director.marks = new MarkRules([rule]);
    this.#host.deliver(parseAddress(MARKED.address) ?? new Uint8Array(4), MARKED.length);
    this.#host.advance(1);
  }

  command(argv: readonly string[], what: string): void {
    const [program, ...words] = argv;
    naming(`${this.#where} ${what}`, () => {
      if (program !== 'ipvsadm') {
        this.#console.setUp(argv.join(' '));
        return;
      }
      const { status, stderr } = this.#console.ipvsadm(words);
      if (status !== 0)
        throw new ScenarioError(`${this.#where} ${what}: ${argv.join(' ')}: ${stderr.trim()}`);
    });
    this.#knowServers();
  }

  /** Servers need not be among those of the recordings: everyone on the director's network has a MAC address. */
  #knowServers(): void {
    for (const { destinations } of this.#host.director.administration.services()) {
      for (const { address } of destinations) {
        const bytes = parseAddress(address);
        if (!bytes || this.#host.hasNeighbour(this.#on.index, bytes)) continue;
        if (this.#host.interfaceToward(bytes) !== this.#on.index) continue;
        this.#host.addNeighbour(this.#on.index, bytes, Uint8Array.of(2, 1, ...bytes.subarray(-4)));
      }
    }
  }

  play(step: SchedulingStep, index: number): SchedulingStepOutcome {
    const host = this.#host;
    const outcome: SchedulingStepOutcome = { counts: {} };
    host.advance(host.now + STEP);
    switch (step.op) {
      case 'new':
        this.#begin(step, index, outcome);
        break;
      case 'fin':
        this.#send(step, index, TcpFlag.fin | TcpFlag.ack);
        break;
      case 'rst':
        this.#send(step, index, TcpFlag.rst);
        break;
      case 'ipvsadm':
        this.command(step.argv ?? [], `step ${index}`);
        break;
      case 'sleep':
        host.advance(host.now + (step.seconds ?? 0) * 1000);
        break;
    }
    host.takeSent();
    outcome.counts = this.#counts();
    return outcome;
  }

  #begin(step: SchedulingStep, index: number, outcome: SchedulingStepOutcome): void {
    const host = this.#host;
    host.takeSent();
    this.#send(step, index, TcpFlag.syn);
    const sent = host.takeSent();
    const replies: Reply[] = [];
    let chosen: string | null = null;
    for (const { bytes } of sent) {
      const reply = this.#replyIn(bytes, step);
      if (reply) replies.push(reply);
      else chosen = this.#serverOf(bytes) ?? chosen;
    }
    outcome.chosen = chosen;
    if (chosen === null) outcome.reply = replies;
    else if (step.established) this.#send(step, index, TcpFlag.ack);
  }

  /** The ICMP error in a frame to the client, undefined if it is something else. */
  #replyIn(bytes: Uint8Array, step: SchedulingStep): Reply | undefined {
    const packet = this.#packet;
    if (packet.load(bytes) !== 0 || packet.family === 0) return undefined;
    if (packet.protocol !== Protocol.icmp && packet.protocol !== Protocol.icmpv6) return undefined;
    const client = parseAddress(step.client?.[0] ?? '');
    if (!client || formatAddress(client) !== packet.destination) return undefined;
    return {
      ethertype: packet.etherType.toString(16).padStart(4, '0'),
      proto: packet.protocol,
      type: packet.view.getUint8(packet.transport),
      code: packet.view.getUint8(packet.transport + 1),
    };
  }

  /** The address of the server a frame went to, by its MAC address. */
  #serverOf(bytes: Uint8Array): string | undefined {
    const packet = this.#packet;
    if (packet.load(bytes) !== 0 || packet.family === 0) return undefined;
    const family: Family = packet.family;
    for (const { destinations } of this.#host.director.administration.services()) {
      for (const { address } of destinations) {
        const server = parseAddress(address);
        if (!server || server.length !== (family === 4 ? 4 : 16)) continue;
        const hop = this.#host.nextHop(server, 0, family);
        if (hop?.resolved && hop.destinationMac.every((byte, at) => byte === bytes[at])) return address;
      }
    }
    return undefined;
  }

  #counts(): Counts {
    const counts: Counts = {};
    for (const { destinations } of this.#host.director.administration.services()) {
      for (const { address, activeConnections, inactiveConnections } of destinations) {
        counts[address] = [activeConnections, inactiveConnections];
      }
    }
    return counts;
  }

  #send(step: SchedulingStep, index: number, flags: number): void {
    const [address, port] = step.client ?? ['', 0];
    const source = parseAddress(address);
    const destination = parseAddress(step.dst ?? this.#virtual.address);
    if (!source || !destination || source.length !== destination.length) {
      throw new ScenarioError(
        `${this.#where} step ${index}: ${address} and ${step.dst ?? this.#virtual.address} are not two addresses of one family`,
      );
    }
    const frame =
      this.#protocol === Protocol.udp
        ? datagram(source, destination, port, this.#virtual.port, this.#on.mac)
        : segment(source, destination, port, this.#virtual.port, flags, this.#on.mac);
    this.#host.receive(frame, this.#on);
  }
}

/** Where clients go: `-t 10.0.0.3:80`, `-u [2001:db8::3]:53`; for a firewall mark port 80 of what the steps say. */
function virtualOf(service: string): { address: string; port: number } {
  const match = /^-[tu]\s+\[?([0-9a-fA-F.:]+?)\]?:([0-9]+)$/.exec(service.trim());
  const address = match?.[1] ?? DEFAULT_VIP;
  const port = Number(match?.[2] ?? PORT);
  return { address, port: port === 0 ? PORT : port };
}

function segment(
  source: Uint8Array,
  destination: Uint8Array,
  sourcePort: number,
  destinationPort: number,
  flags: number,
  mac: Uint8Array,
): Uint8Array {
  const { bytes, view, network, at } = begin(source, destination, Protocol.tcp, TCP_HEADER, mac);
  const sequence = flags & TcpFlag.syn ? 1000 : 1001;
  writeTcp(view, bytes, at, {
    sourcePort,
    destinationPort,
    sequence,
    acknowledgement: 0,
    flags,
    window: 8192,
  });
  fillTcpChecksum(view, source.length === 4 ? 4 : 6, network, at, TCP_HEADER);
  return bytes;
}

function datagram(
  source: Uint8Array,
  destination: Uint8Array,
  sourcePort: number,
  destinationPort: number,
  mac: Uint8Array,
): Uint8Array {
  const length = UDP_HEADER + 1;
  const { bytes, view, network, at } = begin(source, destination, Protocol.udp, length, mac);
  writeUdp(view, at, sourcePort, destinationPort, length);
  bytes[at + UDP_HEADER] = 0x78;
  fillUdpChecksum(view, source.length === 4 ? 4 : 6, network, at, length);
  return bytes;
}

function begin(
  source: Uint8Array,
  destination: Uint8Array,
  protocol: number,
  length: number,
  mac: Uint8Array,
) {
  const isIpv4 = source.length === 4;
  const header = isIpv4 ? IPV4_HEADER : IPV6_HEADER;
  const bytes = new Uint8Array(14 + header + length);
  const view = new DataView(bytes.buffer);
  const network = writeEthernet(bytes, 0, mac, GATEWAY_MAC, isIpv4 ? EtherType.ipv4 : EtherType.ipv6);
  const at = isIpv4
    ? writeIpv4(view, bytes, network, {
        source,
        destination,
        protocol,
        totalLength: header + length,
        ttl: 64,
        identification: 0x1234,
        fragment: IPV4_DONT_FRAGMENT,
      })
    : writeIpv6(view, bytes, network, {
        source,
        destination,
        nextHeader: protocol,
        payloadLength: length,
        hopLimit: 64,
      });
  return { bytes, view, network, at };
}

/** The scenario with what the director chose in the place of what it said. */
export function schedulingFilledIn(
  scenario: SchedulingScenario,
  outcome: SchedulingOutcome,
): SchedulingScenario {
  const steps = scenario.steps.map((step, index) => {
    const { chosen: _chosen, reply: _reply, counts: _counts, ...asked } = step;
    return { ...asked, ...outcome.steps[index] };
  });
  return { ...scenario, chosen: outcome.chosen, steps };
}
