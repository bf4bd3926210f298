/** Frames of a small cluster, and a guard that hears them. */
import { parseAddress, parseMac } from '../wire/address.ts';
import { ArpOperation } from '../wire/arp.ts';
import { Icmpv6Type } from '../wire/icmp.ts';
import { AdvertisementFlag, ALL_NODES, groupMac, neighborFrame } from '../wire/neighbor-discovery.ts';
import { Packet } from '../wire/packet.ts';
import { announcementFrame } from './announcement.ts';
import { type ClusterDescription, ClusterKnowledge, virtualRouterMacs } from './cluster-knowledge.ts';
import { DEFAULT_GUARD_LIMITS, Guard, type GuardLimits, type Sighting } from './guard.ts';
import type { GuardEvent } from './guard-events.ts';
import { observe } from './observation.ts';
import { arpFrame } from './responder.ts';
import { questionFrame } from './who-has.ts';

export function ip(text: string): Uint8Array {
  const bytes = parseAddress(text);
  if (!bytes) throw new RangeError(text);
  return bytes;
}

export function mac(text: string): Uint8Array {
  const bytes = parseMac(text);
  if (!bytes) throw new RangeError(text);
  return bytes;
}

export const VIP = '10.0.0.3';
export const VIP6 = '2001:db8::3';
export const GATEWAY = '10.0.0.254';
export const DIRECTOR = '00:0c:29:1a:05:51';
export const BACKUP = '00:0c:29:1a:06:62';
export const SERVER = '00:0c:29:3b:07:73';
export const CLIENT = '00:50:56:c0:00:08';
export const ATTACKER = '02:00:00:00:66:66';
export const ROUTER = '00:50:56:e1:eb:34';
export const VRID = 51;
export const [VIRTUAL_MAC, VIRTUAL_MAC6] = virtualRouterMacs(VRID);

/** As the active director lb01 knows it. */
export const CLUSTER: ClusterDescription = {
  vips: [VIP, VIP6],
  directors: [BACKUP],
  virtualRouters: [VRID],
  gateways: [{ address: GATEWAY, macs: [] }],
  servers: [{ address: '10.0.0.7', macs: [SERVER] }],
  pins: [{ address: '10.0.0.61', macs: ['00:0c:29:2e:aa:3e'] }],
  own: { addresses: ['10.0.0.5'], macs: [DIRECTOR] },
};

/** A reply or advertisement. */
export function answer(
  claim: string,
  at: string,
  {
    to = DIRECTOR,
    target = '10.0.0.5',
    from = at,
    flags = AdvertisementFlag.solicited | AdvertisementFlag.override,
  } = {},
): Uint8Array {
  const address = ip(claim);
  if (address.length === 4) {
    const frame = arpFrame(ArpOperation.reply, mac(to), mac(at), address, mac(to), ip(target));
    frame.set(mac(from), 6);
    return frame;
  }
  return neighborFrame(mac(to), mac(from), address, ip('2001:db8::5'), {
    type: Icmpv6Type.neighborAdvertisement,
    flags: flags >>> 0,
    target: address,
    mac: mac(at),
  });
}

export function question(asks: string, source: string, at: string): Uint8Array {
  return questionFrame(mac(at), ip(source), ip(asks));
}

export function announcement(address: string, at: string, reply = false): Uint8Array {
  return announcementFrame(mac(at), ip(address), { reply });
}

/** An advertisement to all nodes with these flags. */
export function advertisement(address: string, at: string, flags: number): Uint8Array {
  return neighborFrame(groupMac(ALL_NODES), mac(at), ip(address), ALL_NODES, {
    type: Icmpv6Type.neighborAdvertisement,
    flags: flags >>> 0,
    target: ip(address),
    mac: mac(at),
  });
}

/** The same frame with an 802.1Q tag of this number. */
export function tagged(frame: Uint8Array, vlan: number): Uint8Array {
  const longer = new Uint8Array(frame.length + 4);
  longer.set(frame.subarray(0, 12));
  longer.set([0x81, 0, vlan >>> 8, vlan & 0xff], 12);
  longer.set(frame.subarray(12), 16);
  return longer;
}

export class Watchman {
  readonly events: GuardEvent[] = [];
  readonly contradictions: string[] = [];
  readonly guard: Guard;
  now = 1_000_000;
  readonly #packet = new Packet();

  constructor(cluster: ClusterDescription = CLUSTER, limits: Partial<GuardLimits> = {}) {
    this.guard = new Guard(
      {
        event: event => this.events.push(event),
        contradicted: (address, mac) => this.contradictions.push(`${address} ${mac}`),
      },
      new ClusterKnowledge(cluster),
      { ...DEFAULT_GUARD_LIMITS, ...limits },
    );
  }

  /** Hears a frame, after `pause` milliseconds. */
  hear(frame: Uint8Array, sighting: Partial<Sighting> = {}, pause = 10): this {
    this.now += pause;
    const malformed = this.#packet.load(frame);
    const observation = observe(this.#packet, malformed);
    if (!observation) throw new Error('the frame is neither ARP nor neighbour discovery');
    this.guard.observe(
      observation,
      { interface: 'eth0', isOutgoing: false, isToThisHost: true, ...sighting },
      this.now,
    );
    return this;
  }

  /** The director itself sends. */
  send(frame: Uint8Array, pause = 10): this {
    return this.hear(frame, { isOutgoing: true, isToThisHost: false }, pause);
  }

  /** Enough time for the guard to know what has been asked. */
  wait(milliseconds = 10_000): this {
    this.now += milliseconds;
    return this;
  }

  /** The kinds of the events since the last call. */
  kinds(): string[] {
    return this.events.splice(0).map(({ kind }) => kind);
  }
}
