/** Asking the whole segment for an address, and everybody who answers. */
import { type Family, formatAddress, formatMac, parseAddress } from '../wire/address.ts';
import { Icmpv6Type } from '../wire/icmp.ts';
import { groupMac, neighborFrame, solicitedNode } from '../wire/neighbor-discovery.ts';
import type { Observation } from './observation.ts';
import { requestFrame } from './resolver.ts';

/** A station that answered. */
export interface Answer {
  mac: string;
  /** Milliseconds from the question before it to its first answer. */
  time: number;
  /** How many answers came from it. */
  count: number;
  /** The Ethernet source, if it is another one than `mac`. */
  ethernetSource?: string;
}

/**
 * The question: an ARP request or a neighbour solicitation to all stations.
 * @param source the address that asks; all zero asks as somebody who looks for duplicates (RFC 5227, RFC 4862)
 */
export function questionFrame(mac: Uint8Array, source: Uint8Array, target: Uint8Array): Uint8Array {
  if (target.length === 4) return requestFrame(mac, source, target);
  const group = solicitedNode(target);
  const isProbe = source.every(byte => byte === 0);
  return neighborFrame(groupMac(group), mac, source, group, {
    type: Icmpv6Type.neighborSolicitation,
    flags: 0,
    target,
    // RFC 4861 section 4.3: none when the source is the unspecified address.
    mac: isProbe ? undefined : mac,
  });
}

/** Collects the answers to questions for one address. */
export class WhoHas {
  readonly target: string;
  readonly family: Family;
  readonly #own: string;
  readonly #answers = new Map<string, Answer>();
  #asked = 0;

  /**
   * @param target canonical text
   * @param ownMac this host's, whose own messages are no answers
   */
  constructor(target: string, ownMac: Uint8Array) {
    this.target = target;
    this.family = parseAddress(target)?.length === 16 ? 6 : 4;
    this.#own = formatMac(ownMac);
  }

  /** A question went out. */
  asked(now: number): void {
    this.#asked = now;
  }

  /** Takes in a frame; returns the answer that it is the first one of, if it is. */
  receive(observation: Observation, now: number): Answer | undefined {
    const { claim, form, ethernetSource, fault } = observation;
    if (fault !== undefined || claim !== this.target || form !== 'statement') return undefined;
    if (ethernetSource === this.#own) return undefined;
    const mac = observation.mac ?? ethernetSource;
    const known = this.#answers.get(mac);
    if (known) {
      known.count++;
      return undefined;
    }
    const answer: Answer = {
      mac,
      time: now - this.#asked,
      count: 1,
      ...(mac === ethernetSource ? {} : { ethernetSource }),
    };
    this.#answers.set(mac, answer);
    return answer;
  }

  /** In the order in which they came. */
  answers(): Answer[] {
    return [...this.#answers.values()];
  }
}

/** The unspecified address of a family. */
export function unspecified(family: Family): Uint8Array {
  return new Uint8Array(family === 4 ? 4 : 16);
}

/** True for an address that a station can have: neither unspecified, nor a group, nor broadcast or loopback. */
export function isStationAddress(address: Uint8Array): boolean {
  const [first = 0] = address;
  if (address.length === 4) return first !== 0 && first !== 127 && first < 224;
  return first !== 0xff && !['::', '::1'].includes(formatAddress(address));
}
