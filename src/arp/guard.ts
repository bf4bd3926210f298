/**
 * The guard: follows what hosts say in ARP and neighbour discovery and raises an event where it contradicts what is
 * configured or what was seen before. A state machine: it has no clock, sends nothing, and its memory is bounded
 * whatever comes in.
 */
import { ClusterKnowledge } from './cluster-knowledge.ts';
import { EventGate } from './event-gate.ts';
import { GUARD_EVENT_KINDS, type GuardEvent, type GuardEventKind } from './guard-events.ts';
import type { Observation } from './observation.ts';
import { RateWatch } from './rate-watch.ts';
import { Recent } from './recent.ts';

/** Times in milliseconds. */
export interface GuardLimits {
  /** How long a question makes its answers expected ones. Linux asks three times, a second apart. */
  answerTime: number;
  /** An address that returns to its former MAC within this time goes back and forth. */
  flipTime: number;
  /** Addresses that one MAC may claim within `manyTime`. */
  addresses: number;
  manyTime: number;
  /** Messages a second of one MAC, and of a whole interface. */
  stationRate: number;
  interfaceRate: number;
  /** The same event again is held back for this time. */
  quietTime: number;
  /** Most events a second; those about configured addresses have as many for themselves, and so has mere information. */
  eventRate: number;
  /** Most bindings, questions and stations remembered. */
  capacity: number;
}

export const DEFAULT_GUARD_LIMITS: GuardLimits = {
  answerTime: 5_000,
  flipTime: 300_000,
  addresses: 16,
  manyTime: 60_000,
  stationRate: 100,
  interfaceRate: 1_000,
  quietTime: 30_000,
  eventRate: 20,
  capacity: 4_096,
};

/** Where a frame was seen. */
export interface Sighting {
  interface: string;
  /** It left by the interface. */
  isOutgoing: boolean;
  /** Its Ethernet destination is this host (also as member of a group); only then is it known what was asked. */
  isToThisHost: boolean;
  /** The filter dropped it. */
  dropped?: boolean;
}

export interface GuardOutput {
  event(event: GuardEvent): void;
  /**
   * A frame claimed an address that has a role in the cluster for a MAC that may not have it; called for each such
   * frame, also where the event is held back.
   */
  contradicted?(address: string, mac: string, sighting: Sighting): void;
}

interface KnownBinding {
  mac: string;
  /** The MAC before this one, and when it changed. */
  previous: string | undefined;
  changed: number;
  seen: number;
}

interface Question {
  /** When it was asked last. */
  time: number;
  /** It came from no address: a probe for duplicates, by this MAC. */
  prober: string | undefined;
  /** The first MAC that answered since then. */
  answeredBy: string | undefined;
}

interface StationClaims {
  /** When each address was claimed last; at most one more than the limit. */
  addresses: Recent<string, number>;
}

export class Guard {
  readonly limits: GuardLimits;
  /** Frames looked at. */
  observed = 0;
  #cluster: ClusterKnowledge;
  readonly #output: GuardOutput;
  readonly #gate: EventGate;
  readonly #bindings: Recent<string, KnownBinding>;
  readonly #questions: Recent<string, Question>;
  readonly #stations: Recent<string, StationClaims>;
  readonly #stationRates: RateWatch;
  readonly #interfaceRates: RateWatch;
  /** Addresses that somebody else claims, with the time of the last such claim. */
  readonly #contested = new Recent<string, number>(1024);
  #started: number | undefined;

  constructor(
    output: GuardOutput,
    cluster: ClusterKnowledge = new ClusterKnowledge(),
    limits: GuardLimits = DEFAULT_GUARD_LIMITS,
  ) {
    this.limits = limits;
    this.#output = output;
    this.#cluster = cluster;
    this.#gate = new EventGate(limits);
    this.#bindings = new Recent(limits.capacity);
    this.#questions = new Recent(limits.capacity);
    this.#stations = new Recent(limits.capacity);
    this.#stationRates = new RateWatch(limits.stationRate, limits.capacity);
    this.#interfaceRates = new RateWatch(limits.interfaceRate, 256);
  }

  get cluster(): ClusterKnowledge {
    return this.#cluster;
  }

  /** The cluster is another one from now on; what was seen stays known. */
  set cluster(cluster: ClusterKnowledge) {
    this.#cluster = cluster;
  }

  /** Events that were held back since the start, because they were repeats or too many. */
  get heldBack(): number {
    return this.#gate.heldBack;
  }

  /** Things remembered: never more than a small multiple of `limits.capacity`. */
  get remembered(): number {
    return (
      this.#bindings.size +
      this.#questions.size +
      this.#stations.size +
      this.#stationRates.size +
      this.#interfaceRates.size +
      this.#contested.size +
      this.#gate.size
    );
  }

  /** A binding that is known from elsewhere (the kernel's table), as if it had been seen. */
  learn(address: string, mac: string, now: number, vlan = 0): void {
    const key = `${vlan} ${address}`;
    if (this.#bindings.peek(key)) return;
    this.#bindings.set(key, { mac, previous: undefined, changed: Number.NEGATIVE_INFINITY, seen: now });
  }

  /** The MAC at which an address was seen last. */
  seenAt(address: string, vlan = 0): string | undefined {
    return this.#bindings.peek(`${vlan} ${address}`)?.mac;
  }

  /** Takes in one frame. */
  observe(observation: Observation, sighting: Sighting, now: number): void {
    this.observed++;
    this.#started ??= now;
    const isOurs = sighting.isOutgoing && this.#cluster.isOwn(observation.ethernetSource);
    if (!isOurs) this.#watchRates(observation, sighting, now);
    if (observation.fault !== undefined) {
      if (!isOurs) this.#malformed(observation, sighting, now);
      return;
    }
    const { claim, mac } = observation;
    if (!isOurs) this.#compareSender(observation, sighting, now);
    // Before the question itself is noted: it must not count as asked for by its own sender.
    if (observation.form === 'statement' && claim !== undefined) {
      this.#judgeAnswer(observation, claim, sighting, now, isOurs);
    }
    if (observation.asks !== undefined) this.#noteQuestion(observation, observation.asks, sighting, now);
    if (claim !== undefined && mac !== undefined)
      this.#judgeClaim(observation, claim, mac, sighting, now, isOurs);
  }

  #watchRates(observation: Observation, sighting: Sighting, now: number): void {
    // Directors announce all their addresses at once when they take over, several times.
    const isDirectors = this.#cluster.isDirector(observation.ethernetSource) && observation.isGratuitous;
    if (isDirectors || (sighting.isOutgoing && !sighting.dropped)) return;
    const { ethernetSource } = observation;
    if (this.#stationRates.count(`${sighting.interface} ${ethernetSource}`, now)) {
      const text = `${ethernetSource} sends more than ${this.limits.stationRate} ARP and neighbour discovery messages a second`;
      this.#raise('storm', observation, sighting, now, { mac: ethernetSource, text });
    }
    if (this.#interfaceRates.count(sighting.interface, now)) {
      const text = `more than ${this.limits.interfaceRate} ARP and neighbour discovery messages a second on ${sighting.interface}`;
      this.#raise('storm', observation, sighting, now, { text });
    }
  }

  #malformed(observation: Observation, sighting: Sighting, now: number): void {
    const { ethernetSource, claim, fault } = observation;
    const about = claim === undefined ? '' : ` about ${claim}`;
    const text = `${ethernetSource} sent a message${about} that breaks the protocol: ${fault}`;
    this.#raise('malformed', observation, sighting, now, { address: claim, mac: ethernetSource, text });
  }

  #compareSender(observation: Observation, sighting: Sighting, now: number): void {
    const { mac, ethernetSource, claim } = observation;
    if (mac === undefined || mac === ethernetSource) return;
    // A director's card and its virtual MAC are one station.
    if (this.#cluster.isDirector(mac) && this.#cluster.isDirector(ethernetSource)) return;
    const text = `a frame from ${ethernetSource} says that ${claim ?? 'its sender'} is at ${mac}`;
    this.#raise('sender-mismatch', observation, sighting, now, {
      address: claim,
      mac: ethernetSource,
      expected: [mac],
      text,
    });
  }

  #noteQuestion(observation: Observation, asks: string, sighting: Sighting, now: number): void {
    // A gratuitous request asks nothing, but Linux hosts that look for duplicates would answer it.
    if (observation.isGratuitous) return;
    const prober = observation.claim === undefined ? observation.ethernetSource : undefined;
    this.#questions.set(`${observation.vlan} ${asks}`, { time: now, prober, answeredBy: undefined });
    if (prober === undefined) return;
    const { address, mac, vlan } = { address: asks, mac: prober, vlan: observation.vlan };
    const role = this.#cluster.roleOf(address);
    if ((role !== 'vip' && role !== 'own' && role !== 'gateway') || this.#cluster.isDirector(mac)) return;
    if (this.#cluster.mayHold(address, mac) !== false) return;
    const text = `${mac} is about to take ${address}${inVlan(vlan)}, ${ROLE_WORDS[role]}, for itself (it looks for duplicates)`;
    const kind =
      role === 'vip' && this.#serverAt(mac) !== undefined ? 'server-answers-for-vip' : 'duplicate-address';
    this.#raise(kind, observation, sighting, now, {
      address,
      mac,
      expected: this.#cluster.expectedMacs(address),
      text,
    });
  }

  /** Whether a reply was asked for, and whether it is the only one. */
  #judgeAnswer(
    observation: Observation,
    claim: string,
    sighting: Sighting,
    now: number,
    isOurs: boolean,
  ): void {
    const { vlan, isGratuitous, ethernetSource } = observation;
    const mac = observation.mac ?? ethernetSource;
    const question = this.#questions.peek(`${vlan} ${claim}`);
    const wasAsked = question !== undefined && now - question.time <= this.limits.answerTime;
    if (!wasAsked) {
      const sinceStart = now - (this.#started ?? now);
      if (isGratuitous || isOurs || !sighting.isToThisHost || sinceStart <= this.limits.answerTime) return;
      const text = `${ethernetSource} says that ${claim}${inVlan(vlan)} is at ${mac}, and nobody had asked`;
      this.#raise('unrequested-reply', observation, sighting, now, { address: claim, mac, text });
      return;
    }
    if (question.prober !== undefined) {
      if (
        question.prober !== mac &&
        !(this.#cluster.isDirector(question.prober) && this.#cluster.isDirector(mac))
      ) {
        const text = `${question.prober} wants to take ${claim}${inVlan(vlan)}, which ${mac} has already`;
        this.#raise('duplicate-address', observation, sighting, now, {
          address: claim,
          mac,
          expected: [mac],
          text,
        });
      }
      return;
    }
    const first = question.answeredBy;
    question.answeredBy ??= mac;
    if (first === undefined || first === mac || isGratuitous) return;
    // Contradictions of what is configured have events of their own.
    if (this.#cluster.mayHold(claim, mac) === false || this.#cluster.mayHold(claim, first) === false) return;
    const text = `${first} and ${mac} both answer for ${claim}${inVlan(vlan)}${
      this.#cluster.roleOf(claim) === 'vip' ? ': two directors hold it at the same time (split brain)' : ''
    }`;
    this.#raise('duplicate-address', observation, sighting, now, {
      address: claim,
      mac,
      expected: [first],
      text,
    });
  }

  /** Whether the address may be at the MAC, by what is configured, else by what was seen before. */
  #judgeClaim(
    observation: Observation,
    claim: string,
    mac: string,
    sighting: Sighting,
    now: number,
    isOurs: boolean,
  ): void {
    const key = `${observation.vlan} ${claim}`;
    const role = this.#cluster.roleOf(claim);
    const allowed = this.#cluster.mayHold(claim, mac);
    if (!isOurs) this.#countAddresses(observation, claim, mac, sighting, now);
    if (allowed === false && role !== undefined) {
      if (isOurs) return;
      this.#contested.set(key, now);
      this.#output.contradicted?.(claim, mac, sighting);
      this.#raiseContradiction(observation, claim, mac, sighting, now);
      return;
    }
    const known = this.#bindings.get(key);
    if (known === undefined) {
      this.#bindings.set(key, { mac, previous: undefined, changed: Number.NEGATIVE_INFINITY, seen: now });
    } else if (known.mac === mac) known.seen = now;
    else if (allowed === true || (this.#cluster.isDirector(mac) && this.#cluster.isDirector(known.mac))) {
      this.#bindings.set(key, { mac, previous: known.mac, changed: now, seen: now });
      const text = `${claim}${inVlan(observation.vlan)} moved from ${known.mac} to ${mac}`;
      this.#raise('address-moved', observation, sighting, now, {
        address: claim,
        mac,
        expected: [known.mac],
        text,
      });
    } else if (!isOurs) this.#changed(observation, claim, mac, known, sighting, now);
    if (this.#contested.peek(key) !== undefined && allowed !== undefined) {
      this.#contested.delete(key);
      const text = `${mac} claims ${claim}${inVlan(observation.vlan)} again`;
      this.#raise('restored', observation, sighting, now, { address: claim, mac, text });
    }
  }

  #raiseContradiction(
    observation: Observation,
    claim: string,
    mac: string,
    sighting: Sighting,
    now: number,
  ): void {
    const role = this.#cluster.roleOf(claim);
    const server = this.#serverAt(mac);
    const expected = this.#cluster.expectedMacs(claim);
    const place = `${claim}${inVlan(observation.vlan)}`;
    const how = observation.isGratuitous
      ? 'announces'
      : observation.form === 'statement'
        ? 'answers for'
        : 'asks in the name of';
    const weak = observation.overrides
      ? ''
      : ' (without override: only hosts that do not know the address take it)';
    const belongs = expected.length > 0 ? `, which belongs to ${expected.join(' or ')}` : '';
    let kind: GuardEventKind = 'binding-contradicted';
    let text = `${mac} ${how} ${place}${belongs}${weak}`;
    if (role === 'vip' && server !== undefined) {
      kind = 'server-answers-for-vip';
      text = `the real server ${server} (${mac}) ${how} the VIP ${place}${weak}`;
    } else if (role === 'vip') {
      kind = 'vip-claimed';
      text = `${mac}, no director, ${how} the VIP ${place}${weak}`;
    } else if (role === 'gateway') {
      kind = 'gateway-claimed';
      text = `${mac} ${how} the gateway ${place}${belongs}${weak}`;
    } else if (role === 'own') {
      kind = 'duplicate-address';
      text = `${mac} ${how} ${place}, an address of this host${weak}`;
    }
    this.#raise(kind, observation, sighting, now, { address: claim, mac, expected, text });
  }

  /** An address that nobody configured is at another MAC than before. */
  #changed(
    observation: Observation,
    claim: string,
    mac: string,
    known: KnownBinding,
    sighting: Sighting,
    now: number,
  ): void {
    const place = `${claim}${inVlan(observation.vlan)}`;
    const details = { address: claim, mac, expected: [known.mac] };
    if (!observation.overrides) {
      const text = `${mac} answers for ${place}, which is at ${known.mac} (without override: an anycast address, or a duplicate)`;
      this.#raise('duplicate-address', observation, sighting, now, { ...details, text });
      return;
    }
    const returns = known.previous === mac && now - known.changed <= this.limits.flipTime;
    this.#bindings.set(`${observation.vlan} ${claim}`, { mac, previous: known.mac, changed: now, seen: now });
    if (this.#cluster.roleOf(claim) === 'gateway') {
      const text = `the gateway ${place} was at ${known.mac}, now ${mac} claims it`;
      this.#raise('gateway-claimed', observation, sighting, now, { ...details, text });
    } else if (returns) {
      const text = `${place} goes back and forth between ${known.mac} and ${mac}`;
      this.#raise('binding-flip-flop', observation, sighting, now, { ...details, text });
    } else {
      const text = `${place} was at ${known.mac}, now it is at ${mac}`;
      this.#raise('binding-changed', observation, sighting, now, { ...details, text });
    }
  }

  #countAddresses(
    observation: Observation,
    claim: string,
    mac: string,
    sighting: Sighting,
    now: number,
  ): void {
    // Directors have as many as there are services; a link-local address does not count.
    if (this.#cluster.isDirector(mac) || claim.startsWith('fe80:')) return;
    let station = this.#stations.get(mac);
    if (station === undefined) {
      station = { addresses: new Recent(this.limits.addresses + 1) };
      this.#stations.set(mac, station);
    }
    const { addresses } = station;
    addresses.set(`${observation.vlan} ${claim}`, now);
    if (addresses.size <= this.limits.addresses) return;
    for (const [, time] of addresses.entries()) {
      // The one that was claimed longest ago.
      if (now - time > this.limits.manyTime) return;
      break;
    }
    const text = `${mac} claims more than ${this.limits.addresses} addresses, ${claim} the latest`;
    this.#raise('many-addresses', observation, sighting, now, { mac, text });
  }

  /** The real server that is at a MAC by configuration, or was seen there. */
  #serverAt(mac: string): string | undefined {
    const configured = this.#cluster.serverAt(mac);
    if (configured !== undefined) return configured;
    return this.#cluster.description.servers.find(({ address }) => this.seenAt(address) === mac)?.address;
  }

  #raise(
    kind: GuardEventKind,
    observation: Observation,
    sighting: Sighting,
    now: number,
    details: { address?: string | undefined; mac?: string; expected?: readonly string[]; text: string },
  ): void {
    const { severity } = GUARD_EVENT_KINDS[kind];
    const { address, mac, expected, text } = details;
    const { vlan } = observation;
    const isPrivileged = address !== undefined && this.#cluster.roleOf(address) !== undefined;
    const identity = `${kind} ${sighting.interface} ${vlan} ${address ?? ''} ${mac ?? ''}`;
    const count = this.#gate.admit(identity, isPrivileged, severity === 'info', now);
    if (count === 0) return;
    this.#output.event({
      kind,
      severity,
      time: now,
      interface: sighting.interface,
      vlan,
      ...(address === undefined ? {} : { address }),
      ...(mac === undefined ? {} : { mac }),
      ...(expected === undefined || expected.length === 0 ? {} : { expected }),
      dropped: sighting.dropped === true,
      count,
      text: sighting.dropped ? `${text}; dropped` : text,
    });
  }
}

const ROLE_WORDS = { vip: 'a VIP', own: 'an address of this host', gateway: 'the gateway' } as const;

function inVlan(vlan: number): string {
  return vlan === 0 ? '' : ` in VLAN ${vlan}`;
}
