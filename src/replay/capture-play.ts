/** Plays a capture: its frames go to a director at their times, and what the director sends is captured. */
import type { CapturedFrame } from '../capture/frame.ts';
import { DROP_NAMES } from '../ipvs/drops.ts';
import { formatMac, parseAddress } from '../wire/address.ts';
import { Arp } from '../wire/arp.ts';
import { Ethernet, EtherType } from '../wire/ethernet.ts';
import { Malformed } from '../wire/malformed.ts';
import { Packet } from '../wire/packet.ts';
import { CommandError, Console } from './console.ts';
import { type HostInterface, ReplayHost } from './host.ts';
import type { PlayOptions } from './packet-play.ts';
import { recordedHost } from './topology.ts';

/** What the set-up of a capture says that cannot be done; names the file and line. */
export class SetupError extends Error {
  override name = 'SetupError';
}

export interface CaptureOutcome {
  /** What the director's host sent. */
  sent: CapturedFrame[];
  /** Frames that went in. */
  received: number;
  /** Packets that the director dropped, by reason. */
  drops: Map<string, number>;
  /** What came in the way of frames, a sentence each. */
  notes: string[];
  /** `ipvsadm -Ln --stats` and `-Lnc` at the end. */
  listings: string;
}

const NO_MAC = new Uint8Array(6);
/** Largest MTU: a described host without one of its own does not fragment what came in whole. */
const MTU = 1500;

/**
 * Plays frames against a director that lines of `ipvsadm`, `sysctl`, `ip` and mark rules set up.
 *
 * Without an `ip addr` or `ip link` line the host is that of the recordings (eth0 10.0.0.1/24, default route, known
 * neighbours), else one with what the lines say. Service addresses need not be given to it. What the lines leave open
 * is taken from the capture: the MAC address of eth0, and those of neighbours.
 * @param file name of the set-up, for errors
 * @throws SetupError
 */
export function playCapture(
  setup: string,
  file: string,
  frames: readonly CapturedFrame[],
  options: PlayOptions = {},
): CaptureOutcome {
  const lines = setup
    .split('\n')
    .map((text, index) => ({ text: text.trim(), number: index + 1 }))
    .filter(({ text }) => text !== '' && !text.startsWith('#'));
  const isDescribed = lines.some(({ text }) =>
    /^(sh\s+)?ip\s+(-\S+\s+)*(a|l)\w*\s+(add|set|replace)\b/.test(text),
  );
  const hostOptions = options.random ? { random: options.random } : {};
  const host = isDescribed ? describedHost(lines, hostOptions) : recordedHost({ interfaces: 1 }, hostOptions);
  const console = new Console(host, options.names);
  for (const { text, number } of lines) {
    try {
      // The lines that ipvsadm -S writes begin with an option.
      console.setUp(text.startsWith('-') ? `ipvsadm ${text}` : text);
    } catch (error) {
      if (error instanceof CommandError) throw new SetupError(`${file} line ${number}: ${error.message}`);
      throw error;
    }
  }
  ownServices(host);
  learnFrom(host, frames);
  return play(host, console, frames);
}

/** An empty host with the interfaces that the lines name. */
function describedHost(lines: readonly { text: string }[], options: { random?: () => number }): ReplayHost {
  const host = new ReplayHost(options);
  for (const { text } of lines) {
    const name = /\bdev\s+(\S+)/.exec(text)?.[1] ?? /\bip\s+l\w*\s+set\s+(\S+)/.exec(text)?.[1];
    if (name && !host.interfaceNamed(name)) host.addInterface(name, NO_MAC, MTU);
  }
  return host;
}

/** Makes the addresses of services the host's own. */
function ownServices(host: ReplayHost): void {
  for (const { key } of host.director.administration.services()) {
    const address = 'mark' in key ? undefined : parseAddress(key.address);
    if (!address || host.isOwn(address, 0, address.length === 4 ? 4 : 6)) continue;
    host.addAddress(1, address, 8 * address.length);
  }
}

/** Takes from the frames what the set-up does not say: the host's MAC address and those of its neighbours. */
function learnFrom(host: ReplayHost, frames: readonly CapturedFrame[]): void {
  const packet = new Packet();
  for (const { bytes } of frames) {
    if (packet.load(bytes) !== Malformed.none) continue;
    const mac = bytes.slice(Ethernet.destination, Ethernet.destination + 6);
    const first = host.interfaces[1];
    if (!first) return;
    const isToHost = packet.family !== 0 && host.isLocal(packet.bytes, packet.destinationAt, packet.family);
    const isKnown = frames.some(frame => formatMac(frame.bytes) === formatMac(first.mac));
    if (isToHost && !isKnown && ((mac[0] as number) & 1) === 0) first.mac = mac;
    learnNeighbour(host, packet, bytes.slice(Ethernet.source, Ethernet.source + 6));
  }
  host.changed();
}

/** Where a frame came from is where its sender is, or the router that its sender is behind. */
function learnNeighbour(host: ReplayHost, packet: Packet, mac: Uint8Array): void {
  let sender: Uint8Array;
  if (packet.etherType === EtherType.arp) {
    sender = packet.bytes.slice(packet.network + Arp.senderAddress, packet.network + Arp.senderAddress + 4);
  } else if (packet.family !== 0) {
    sender = packet.bytes.slice(packet.sourceAt, packet.sourceAt + (packet.family === 4 ? 4 : 16));
  } else return;
  if (host.isOwn(sender, 0, sender.length === 4 ? 4 : 6)) return;
  const neighbour = host.neighbourToward(sender);
  if (!neighbour || host.hasNeighbour(neighbour.interfaceIndex, neighbour.address)) return;
  host.addNeighbour(neighbour.interfaceIndex, neighbour.address, mac);
}

function play(host: ReplayHost, console: Console, frames: readonly CapturedFrame[]): CaptureOutcome {
  const sent: CapturedFrame[] = [];
  const begin = frames[0]?.time ?? 0n;
  let received = 0;
  let cut = 0;
  let others = 0;
  for (const frame of frames) {
    const on = interfaceFor(host, frame);
    if (frame.bytes.length < frame.length) cut++;
    else if (!on) others++;
    else {
      host.advance(Number(frame.time - begin) / 1e6);
      host.receive(frame.bytes, on);
      received++;
    }
    for (const { dev, bytes } of host.takeSent()) {
      sent.push({ time: frame.time, bytes, length: bytes.length, interface: dev });
    }
  }
  const notes: string[] = [];
  if (cut > 0) notes.push(`${cut} frames were cut off by the capture and left out`);
  if (others > 0) {
    const macs = host.interfaces.slice(1).map(({ name, mac }) => `${name} ${formatMac(mac)}`);
    notes.push(`${others} frames were not addressed to the director (${macs.join(', ')}) and left out`);
  }
  for (const { address, dev } of host.missingNeighbours.values()) {
    notes.push(
      `frames to ${address} were lost: say "ip neigh add ${address} lladdr MAC dev ${dev}" in the set-up`,
    );
  }
  const { drops } = host.director;
  const listings = ['-Ln --stats --exact', '-Lnc'].map(words => console.ipvsadm(words.split(' ')).stdout);
  return {
    sent,
    received,
    drops: new Map(
      [...drops].flatMap((count, reason) => (count > 0 ? [[DROP_NAMES[reason] as string, count]] : [])),
    ),
    notes,
    listings: listings.join('\n'),
  };
}

/** The interface that a frame came in on: the one it names, or the one it is addressed to. Undefined: not ours. */
function interfaceFor(host: ReplayHost, frame: CapturedFrame): HostInterface | undefined {
  const mac = formatMac(frame.bytes);
  const addressed = host.interfaces.filter(each => each.index > 1 && formatMac(each.mac) === mac);
  return addressed.find(({ name }) => name === frame.interface) ?? addressed[0];
}
