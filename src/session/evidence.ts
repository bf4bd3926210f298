/**
 * What recorded frames prove about direct routing: the director changes MAC addresses and TTL only, replies go around
 * it, and nobody but the director answers ARP for the VIP.
 */
import type { CapturedFrame } from '../capture/frame.ts';
import { formatMac } from '../wire/address.ts';
import { ArpOperation, readArp } from '../wire/arp.ts';
import { Ethernet, EtherType } from '../wire/ethernet.ts';
import { Ipv4, Protocol } from '../wire/ipv4.ts';
import { Malformed } from '../wire/malformed.ts';
import { Packet } from '../wire/packet.ts';

/** A frame of the service, read. */
export interface ServiceFrame {
  time: bigint;
  sourceMac: string;
  destinationMac: string;
  source: string;
  sourcePort: number;
  destination: string;
  destinationPort: number;
  ttl: number;
  tcpFlags: number;
  /** The IP packet without TTL and header checksum, in hex: equal for two frames that differ in nothing else. */
  identity: string;
  frame: CapturedFrame;
}

export interface ServiceAddress {
  vip: string;
  port: number;
}

/** The TCP frames from or to the service, in the order they were recorded. */
export function readServiceFrames(frames: readonly CapturedFrame[], service: ServiceAddress): ServiceFrame[] {
  const packet = new Packet();
  const found: ServiceFrame[] = [];
  for (const frame of frames) {
    if (packet.load(frame.bytes) !== Malformed.none) continue;
    if (packet.family !== 4 || packet.protocol !== Protocol.tcp) continue;
    const toService = packet.destination === service.vip && packet.destinationPort === service.port;
    const fromService = packet.source === service.vip && packet.sourcePort === service.port;
    if (!toService && !fromService) continue;
    const ip = packet.bytes.slice(packet.network, packet.networkEnd);
    const ttl = ip[Ipv4.ttl] as number;
    ip.fill(0, Ipv4.ttl, Ipv4.ttl + 1);
    ip.fill(0, Ipv4.checksum, Ipv4.checksum + 2);
    found.push({
      time: frame.time,
      sourceMac: formatMac(packet.bytes, packet.start + Ethernet.source),
      destinationMac: formatMac(packet.bytes, packet.start + Ethernet.destination),
      source: packet.source,
      sourcePort: packet.sourcePort,
      destination: packet.destination,
      destinationPort: packet.destinationPort,
      ttl,
      tcpFlags: packet.tcpFlags,
      identity: ip.toHex(),
      frame,
    });
  }
  return found;
}

export interface Forwarded {
  before: ServiceFrame;
  after: ServiceFrame;
}

export interface DirectorEvidence {
  /** A client's frame into the director and the same out of it. */
  forwarded: Forwarded[];
  /** Frames into the director that did not come out, differing in destination MAC and TTL only. */
  lost: ServiceFrame[];
  /** Replies of the servers that the director saw. */
  replies: ServiceFrame[];
}

/**
 * Pairs what went into a director with what came out.
 * @param frames of the service, recorded on the director's cable
 * @param servers MAC addresses of the real servers
 */
export function examineDirector(
  frames: readonly ServiceFrame[],
  service: ServiceAddress,
  directorMac: string,
  servers: readonly string[],
): DirectorEvidence {
  const evidence: DirectorEvidence = { forwarded: [], lost: [], replies: [] };
  const sent = frames.filter(
    frame => frame.sourceMac === directorMac && servers.includes(frame.destinationMac),
  );
  for (const frame of frames) {
    if (frame.source === service.vip && frame.sourcePort === service.port) evidence.replies.push(frame);
    if (frame.destinationMac !== directorMac || frame.destination !== service.vip) continue;
    const at = sent.findIndex(other => other.identity === frame.identity && other.ttl === frame.ttl - 1);
    const after = sent[at];
    if (!after) evidence.lost.push(frame);
    else {
      sent.splice(at, 1);
      evidence.forwarded.push({ before: frame, after });
    }
  }
  return evidence;
}

/** The MAC addresses that claimed an IPv4 address in ARP replies or announcements, each once. */
export function claimants(frames: readonly CapturedFrame[], address: string): string[] {
  const packet = new Packet();
  const macs = new Set<string>();
  for (const frame of frames) {
    if (packet.load(frame.bytes) !== Malformed.none || packet.etherType !== EtherType.arp) continue;
    const arp = readArp(packet.bytes, packet.network);
    const announces = arp.operation === ArpOperation.reply || arp.targetAddress === arp.senderAddress;
    if (arp.senderAddress === address && announces) macs.add(arp.senderMac);
  }
  return [...macs];
}

/** The host that sends a request for `address` with that address as its sender: how a server on lo gives itself away. */
export function askersAs(frames: readonly CapturedFrame[], address: string): string[] {
  const packet = new Packet();
  const macs = new Set<string>();
  for (const frame of frames) {
    if (packet.load(frame.bytes) !== Malformed.none || packet.etherType !== EtherType.arp) continue;
    const arp = readArp(packet.bytes, packet.network);
    if (arp.operation === ArpOperation.request && arp.senderAddress === address) macs.add(arp.senderMac);
  }
  return [...macs];
}
