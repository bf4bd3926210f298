/**
 * The director: what happens to a packet, from its arrival to its departure. Read `process` from top to bottom and you
 * have followed one. The order of the steps is that of ip_vs_in and ip_vs_out (net/netfilter/ipvs/ip_vs_core.c).
 */
import { IcmpType, Icmpv6Type, TimeExceededCode, Unreachable6Code, UnreachableCode } from '../wire/icmp.ts';
import { Protocol } from '../wire/ipv4.ts';
import type { Packet } from '../wire/packet.ts';
import { SCTP_HEADER, SctpChunk } from '../wire/sctp.ts';
import { TcpFlag } from '../wire/tcp.ts';
import { Administration } from './administration.ts';
import { ConnectionKey } from './connection-key.ts';
import { ConnectionFlag, ConnectionTable } from './connections.ts';
import { Defence } from './defence.ts';
import { DestinationFlag, DestinationTable, Forwarding } from './destinations.ts';
import { DROP_NAMES, Drop } from './drops.ts';
import { Explainer, type PacketExplanation } from './explain.ts';
import { forwardBypass } from './forwarding/bypass.ts';
import type { FragmentSizes } from './forwarding/fragmenter.ts';
import { Fullnat } from './forwarding/fullnat.ts';
import { forwardGate } from './forwarding/gate.ts';
import { forwardMasq, returnMasq, translateReply } from './forwarding/masq.ts';
import { isInHandshake } from './forwarding/proxied.ts';
import { forwardTunnel } from './forwarding/tunnel.ts';
import { DELIVER_LOCALLY, type Outcome, Way } from './forwarding/way.ts';
import { Fragments, Reassembly } from './fragments.ts';
import { Ftp } from './ftp.ts';
import { IcmpErrors } from './icmp-errors.ts';
import { Lifecycle } from './lifecycle.ts';
import { LocalAddresses } from './local-addresses.ts';
import { formatMarkRule, MarkRules } from './mark-rules.ts';
import type { Network } from './network.ts';
import { formatPin, type Pin } from './pins.ts';
import { Related } from './related.ts';
import { Refused, Scheduling, setKey, setReplyKey } from './scheduling.ts';
import { SctpState, sctpEvent } from './sctp-states.ts';
import { Selector } from './selection.ts';
import { ServerPool } from './server-pool.ts';
import { ServiceIndex } from './service-index.ts';
import type { HostAddresses, Service } from './service-table.ts';
import { DEFAULT_SETTINGS, parseSetting, type Settings, settingName } from './settings.ts';
import { SIP_ENGINE, SipTemplates } from './sip.ts';
import { COUNTER_STRIDE, Counter, ESTIMATION_PERIOD } from './statistics.ts';
import { SynProxy } from './syn-proxy.ts';
import { isAcknowledgement, isBehindProxy, isPlainSyn, isProxied } from './syn-segments.ts';
import { TcpDirection, TcpState } from './tcp-states.ts';
import { TimeoutTable } from './timeouts.ts';

/** What became of a packet. */
export const Verdict = {
  /** Not the virtual server's business: the host's own stack goes on with it. */
  pass: 0,
  /** Sent on, or answered. */
  taken: 1,
  /** Dropped; `Director.drops` says why. */
  dropped: 2,
  /** As `pass`, for the datagram that this last of its fragments completed: it is in `Director.whole`. */
  passWhole: 3,
} as const;

export type Verdict = (typeof Verdict)[keyof typeof Verdict];

export interface DirectorOptions {
  network: Network;
  /** What the checks of addresses and interfaces need to know of the host. */
  host: HostAddresses;
  /** Most connections at a time, when `connections` is not given. Default 65536. */
  capacity?: number;
  connections?: ConnectionTable;
  destinations?: DestinationTable;
  settings?: Partial<Settings>;
  /** Which packets get a firewall mark. Default: none. */
  marks?: MarkRules;
  /** Gives random numbers, 0..2^32-1; for `twos`, ports and secrets. */
  random?: () => number;
  /** Bytes that fragments may take until their datagrams are whole. Default 4 MiB. */
  fragmentMemory?: number;
  /** Bytes left behind a frame of a given length in its buffer, see `Fragments`. */
  fragmentRoom?: (frame: number) => number;
  /** Buckets that listings state (`size=`); the kernel's default is 4096. */
  tableSize?: number;
}

/** Buckets of the kernel's connection table (CONFIG_IP_VS_TAB_BITS 12). */
const DEFAULT_TABLE_SIZE = 4096;
/** Destinations at most, when no table is given. */
const DESTINATION_CAPACITY = 1 << 17;
/** Servers whose rates are sampled in one call of `expire`, and a little more: some milliseconds of work. */
const ESTIMATES_AT_ONCE = 1 << 14;

export class Director {
  /** Configuration, counters and listings. */
  readonly administration: Administration;
  readonly connections: ConnectionTable;
  readonly destinations: DestinationTable;
  readonly settings: Settings;
  readonly pool: ServerPool;
  /** Packets dropped, by `Drop`. */
  readonly drops = new Float64Array(DROP_NAMES.length);
  /** What FULLNAT did beyond forwarding: `fullnat.counts`. */
  readonly fullnat: Fullnat;
  /** What it does about floods: `defence.entriesDropped`. */
  readonly defence: Defence;
  /** What it did about SYNs: `synProxy.counts`. */
  readonly synProxy: SynProxy;
  /** FTP control connections: `ftp.expected`, `ftp.rewritten`. */
  readonly ftp: Ftp;
  #marks: MarkRules;
  #pins: readonly Pin[] = [];
  readonly #sip: SipTemplates;
  readonly #network: Network;
  readonly #errors: IcmpErrors;
  readonly #way: Way;
  readonly #locals: LocalAddresses;
  readonly #lifecycle: Lifecycle;
  readonly #selector: Selector;
  readonly #scheduling: Scheduling;
  readonly #related: Related;
  readonly #fragments: Fragments;
  readonly #index = new ServiceIndex();
  readonly #explainer: Explainer;
  readonly #key = new ConnectionKey();
  #nextEstimate = ESTIMATION_PERIOD * 1000;

  constructor(options: DirectorOptions) {
    this.#network = options.network;
    this.destinations = options.destinations ?? new DestinationTable(DESTINATION_CAPACITY);
    this.connections =
      options.connections ??
      new ConnectionTable({
        capacity: options.capacity ?? 65536,
        destinations: this.destinations,
        seed: options.random?.() ?? 0,
      });
    this.settings = { ...DEFAULT_SETTINGS, ...options.settings };
    this.#marks = options.marks ?? new MarkRules([]);
    this.pool = new ServerPool(this.destinations, this.#network);
    this.#lifecycle = new Lifecycle(this.connections, this.pool, new TimeoutTable(this.connections.hz));
    this.#selector = new Selector(this.destinations, {
      random: options.random ?? (() => 0),
      localityExpiration: this.settings.lblc_expiration * 1000,
      replicatedExpiration: this.settings.lblcr_expiration * 1000,
    });
    this.#errors = new IcmpErrors(this.#network);
    this.#way = new Way(this.#network, this.#errors, this.pool, options.random?.() ?? 0);
    const random = options.random ?? (() => 0);
    this.#locals = new LocalAddresses(
      this.connections,
      this.destinations,
      this.#lifecycle.timeouts,
      this.settings,
      random,
    );
    this.#locals.adopt();
    this.fullnat = new Fullnat({
      way: this.#way,
      connections: this.connections,
      locals: this.#locals,
      settings: this.settings,
      random,
    });
    this.ftp = new Ftp(this.#lifecycle);
    this.#sip = new SipTemplates(this.connections);
    this.defence = new Defence(this.#lifecycle, this.settings, random);
    this.#lifecycle.onRelease = (slot, tick) => {
      this.#locals.release(slot, tick);
      this.synProxy.release(slot);
      this.ftp.release(slot);
      this.#sip.release(slot);
    };
    this.#scheduling = new Scheduling(
      this.#lifecycle,
      this.#selector,
      this.settings,
      this.fullnat,
      this.ftp,
      this.#sip,
    );
    this.synProxy = new SynProxy({
      way: this.#way,
      connections: this.connections,
      lifecycle: this.#lifecycle,
      scheduling: this.#scheduling,
      fullnat: this.fullnat,
      settings: this.settings,
      random,
      send: (slot, packet) => this.#sendOwn(slot, packet),
      forward: (slot, packet, tick) => this.#forward(slot, packet, tick),
      countReply: (slot, bytes) => this.#countReply(slot, bytes),
    });
    this.#fragments = new Fragments(options.fragmentMemory, options.fragmentRoom);
    this.#related = new Related({
      connections: this.connections,
      way: this.#way,
      fullnat: this.fullnat,
      forward: (slot, packet, destination) => this.#transmit(slot, packet, destination),
      schedule: (request, now, tick) => this.#scheduleRelated(request, now, tick),
    });
    this.administration = new Administration(
      this.#lifecycle,
      this.#index,
      options.host,
      this.settings,
      options.tableSize ?? DEFAULT_TABLE_SIZE,
      this.#locals,
    );
    this.administration.engineDataOf = slot => this.#sip.callIdOf(slot);
    this.#explainer = new Explainer({
      network: this.#network,
      settings: this.settings,
      connections: this.connections,
      lifecycle: this.#lifecycle,
      administration: this.administration,
      index: this.#index,
      scheduling: this.#scheduling,
      ftp: this.ftp,
      defence: this.defence,
      synProxy: this.synProxy,
      marks: () => this.#marks,
      beginsAnew: (slot, packet) =>
        isFirst(packet) && this.#isReplaceable(slot, this.connections.destination(slot)),
      beginsProxiedAnew: (slot, packet, interfaceIndex, now) => {
        if (!this.#beginsProxiedAnew(slot, packet, now)) return 'no';
        return this.#isAnsweredAnyway(packet, interfaceIndex) ? 'answered' : 'yes';
      },
      standsBack: () => this.#standsBack(),
      isStrayReply: packet => this.#isStrayReply(packet),
      isBypassed: (service, packet) => this.#isBypassed(service, packet),
    });
  }

  /**
   * Gives a setting the value that `text` says; it is in force at once. (One written into `settings` is too, but for
   * those of the defence and of locality, which follow with the next `expire`.)
   * @throws SettingError
   */
  set(name: string, text: string): void {
    this.settings[settingName(name)] = parseSetting(name, text);
    if (name === 'drop_entry' || name === 'drop_packet' || name === 'secure_tcp') this.defence.update();
    this.#applySettings();
    this.administration.changed({ kind: 'setting', name, value: this.settings[settingName(name)] });
  }

  /** Static bindings of addresses to MACs; kept here as part of the configuration, brought about by the environment. */
  get pins(): readonly Pin[] {
    return this.#pins;
  }

  set pins(pins: readonly Pin[]) {
    this.#pins = pins;
    this.administration.changed({ kind: 'pins', pins: pins.map(formatPin) });
  }

  /** Firewall marks by rule; may be replaced at any time. */
  get marks(): MarkRules {
    return this.#marks;
  }

  set marks(marks: MarkRules) {
    this.#marks = marks;
    this.administration.changed({ kind: 'marks', rules: marks.rules.map(formatMarkRule) });
  }

  /** Hands on the settings that others keep a copy of. */
  #applySettings(): void {
    this.#selector.localityExpiration = this.settings.lblc_expiration * 1000;
    this.#selector.replicatedExpiration = this.settings.lblcr_expiration * 1000;
  }

  /**
   * Handles a frame that arrived for this host and that `packet` has parsed without complaint. May change it in place.
   * @param interfaceIndex where it arrived
   * @param now milliseconds of a clock that never goes back
   * @param routedOn true for a packet that the host would route on, being for none of its addresses: it may be a reply
   *   to translate, but never begins a connection
   */
  process(packet: Packet, interfaceIndex: number, now: number, routedOn = false): Verdict {
    this.administration.now = now;
    if (!this.#isOnDuty(packet)) return Verdict.pass;
    if (packet.isFragment || packet.fragmentHeader >= 0)
      return this.#reassemble(packet, interfaceIndex, now, routedOn);
    return this.#direct(packet, interfaceIndex, now, routedOn);
  }

  /**
   * Tells what `process` would do with a packet now, and why; changes nothing. `explanationText` makes it readable.
   * @param routedOn as for `process`
   */
  explain(packet: Packet, interfaceIndex: number, now: number, routedOn = false): PacketExplanation {
    return this.#explainer.explain(packet, interfaceIndex, now, routedOn);
  }

  /** The host it stands on. */
  get network(): Network {
    return this.#network;
  }

  /** True while the stricter TCP table applies (`secure_tcp`). */
  get isTcpSecure(): boolean {
    return this.#lifecycle.secureTcp;
  }

  /** The datagram that belongs to `Verdict.passWhole`. Valid until the next call of `process`. */
  get whole(): Packet {
    return this.#fragments.whole;
  }

  /** How it came. A host that routes it on sends it on so. */
  get wholeCame(): FragmentSizes {
    return this.#fragments.sizes;
  }

  /** Keeps a fragment until all of its datagram is there, which then goes its way and leaves in fragments again. */
  #reassemble(packet: Packet, interfaceIndex: number, now: number, routedOn: boolean): Verdict {
    // Fragments that are routed on are gathered in any case: a reply may be among them.
    if (!routedOn && !this.#mayConcern(packet)) return Verdict.pass;
    const fragments = this.#fragments;
    const reassembly = fragments.add(packet, now);
    this.drops[Drop.fragmentMemory] = fragments.evicted;
    if (reassembly === Reassembly.waiting) return Verdict.taken;
    if (reassembly === Reassembly.refused) return this.#drop(Drop.fragment);
    this.#way.came = fragments.sizes;
    const verdict = this.#direct(fragments.whole, interfaceIndex, now, routedOn);
    this.#way.came = undefined;
    return verdict === Verdict.pass ? Verdict.passWhole : verdict;
  }

  /** True if a fragment may be to a virtual service or from a real server behind NAT: others are the host's. */
  #mayConcern(packet: Packet): boolean {
    const family = packet.family === 6 ? 6 : 4;
    if (!this.#standsBack() && this.#index.mayServe(packet.bytes, packet.destinationAt, family)) return true;
    return this.pool.isTranslated(packet.bytes, packet.sourceAt, family);
  }

  #direct(packet: Packet, interfaceIndex: number, now: number, routedOn: boolean): Verdict {
    const tick = this.connections.tick(now);
    const { protocol } = packet;
    if (protocol !== Protocol.tcp && protocol !== Protocol.udp && protocol !== Protocol.sctp) {
      if (!isIcmp(packet)) return Verdict.pass;
      return this.#conclude(this.#related.handle(packet, now, tick, this.#standsBack()));
    }
    setKey(this.#key, packet);
    const isReplyOnly = routedOn || this.#standsBack();
    let slot = isReplyOnly ? -1 : this.connections.find(this.#key, tick);
    if (slot < 0 && this.ftp.waiting > 0 && !isReplyOnly) slot = this.ftp.claim(this.#key, tick);
    if (slot >= 0) {
      if (isProxied(this.connections.flags(slot))) {
        return this.#directProxied(slot, packet, interfaceIndex, now, tick);
      }
      slot = this.#admit(slot, packet, tick);
      if (slot === Gone.dropped) return Verdict.dropped;
      if (slot >= 0) return this.#forward(slot, packet, tick);
    } else if (this.administration.translated > 0) {
      setReplyKey(this.#key, packet);
      slot = this.connections.findReply(this.#key, tick);
      if (slot >= 0) return this.#return(slot, packet, tick);
      if (this.administration.engines > 0) {
        const begun = this.#scheduleFromServer(packet, tick);
        if (begun >= 0) return this.#return(begun, packet, tick);
      }
      if (this.settings.nat_icmp_send && this.#isStrayReply(packet))
        return this.#refuseReply(packet, routedOn);
    }
    return isReplyOnly ? Verdict.pass : this.#schedule(packet, interfaceIndex, now, tick);
  }

  /** True for a backup that leaves directing to its master (`backup_only`). */
  #standsBack(): boolean {
    return this.settings.backup_only !== 0 && this.administration.isBackup;
  }

  /** Without services of a family the virtual server stands aside; its connections wait for them to come back. */
  #isOnDuty(packet: Packet): boolean {
    return packet.family === 4 ? this.#index.size4 > 0 : packet.family === 6 && this.#index.size6 > 0;
  }

  /**
   * Sees a packet that the host's own stack sends, and translates it back in place if it answers a client of the
   * virtual server (a destination on this host); the host goes on to send it.
   */
  processLocal(packet: Packet, now: number): void {
    this.administration.now = now;
    const { protocol } = packet;
    if (!this.#isOnDuty(packet) || packet.isFragment) return;
    const tick = this.connections.tick(now);
    if (protocol !== Protocol.tcp && protocol !== Protocol.udp && protocol !== Protocol.sctp) {
      if (isIcmp(packet)) this.#related.handleLocal(packet, tick);
      return;
    }
    setReplyKey(this.#key, packet);
    let slot = this.connections.findReply(this.#key, tick);
    if (slot >= 0) translateReply(packet, this.connections, slot);
    else {
      // Where nothing is translated, the server answers from the address that the client asked.
      slot = this.connections.find(this.#key, tick);
      if (slot < 0 || isMasq(this.connections.flags(slot))) return;
    }
    this.#countReply(slot, packet.networkEnd - packet.network);
    this.#advance(slot, TcpDirection.out, packet, tick);
  }

  /** True for a server's packet without connection that its sender is to be told about (`nat_icmp_send`). */
  #isStrayReply(packet: Packet): boolean {
    if (packet.protocol === Protocol.tcp && packet.tcpFlags & TcpFlag.rst) return false;
    if (packet.protocol === Protocol.sctp && sctpChunk(packet) === SctpChunk.abort) return false;
    return this.administration.isTranslatedServer(packet);
  }

  #refuseReply(packet: Packet, routedOn: boolean): Verdict {
    if (routedOn && !this.#way.passTtl(packet)) return this.#drop(Drop.ttlExpired);
    this.#errors.send(
      packet,
      packet.family === 4 ? IcmpType.unreachable : Icmpv6Type.unreachable,
      packet.family === 4 ? UnreachableCode.port : Unreachable6Code.port,
    );
    return this.#drop(Drop.replyUnknown);
  }

  /** Decides whether an existing connection may carry this packet. Returns its slot or one of `Gone`. */
  #admit(slot: number, packet: Packet, tick: number): number {
    if (isFirst(packet) && this.#isReplaceable(slot, this.connections.destination(slot))) {
      this.#lifecycle.expire(slot, tick);
      return Gone.ended;
    }
    return this.#admitToServer(slot, tick);
  }

  /** The same as far as the connection's server decides it. */
  #admitToServer(slot: number, tick: number): number {
    const destination = this.connections.destination(slot);
    if (destination < 0 || this.destinations.flags(destination) & DestinationFlag.available) return slot;
    if (this.settings.expire_nodest_conn === 0) {
      this.#drop(Drop.serverGone);
      return Gone.dropped;
    }
    this.#lifecycle.expire(slot, tick);
    return Gone.ended;
  }

  /** True if a new connection takes the place of one to this server, as that is to get none any more. */
  #isQuiesced(destination: number): boolean {
    return (
      this.settings.expire_nodest_conn !== 0 &&
      destination >= 0 &&
      this.destinations.weight(destination) === 0
    );
  }

  /** True if a SYN or INIT on this connection begins a new one (is_new_conn_expected). */
  #isReplaceable(slot: number, destination: number): boolean {
    const { settings, connections } = this;
    if (this.#isQuiesced(destination)) return true;
    const mode = settings.conn_reuse_mode;
    if (mode === 0 || this.#lifecycle.controllerOf(slot) >= 0) return false;
    const state = connections.state(slot);
    if (connections.protocol(slot) === Protocol.sctp) return state === SctpState.closed;
    if (state === TcpState.timeWait || state === TcpState.close) return true;
    return (
      (mode & 2) !== 0 &&
      state === TcpState.finWait &&
      (connections.flags(slot) & ConnectionFlag.noOutput) !== 0
    );
  }

  /** A client's packet on a connection that the SYN proxy has made. */
  #directProxied(slot: number, packet: Packet, interfaceIndex: number, now: number, tick: number): Verdict {
    if (this.#beginsProxiedAnew(slot, packet, now)) {
      if (this.#isAnsweredAnyway(packet, interfaceIndex)) this.synProxy.noteSyn(packet, slot);
      else this.#lifecycle.expire(slot, tick);
      return this.#schedule(packet, interfaceIndex, now, tick);
    }
    const admitted = this.#admitToServer(slot, tick);
    if (admitted === Gone.dropped) return Verdict.dropped;
    if (admitted < 0) return this.#schedule(packet, interfaceIndex, now, tick);
    if (isInHandshake(this.connections, slot))
      return this.#conclude(this.synProxy.fromClient(packet, slot, tick));
    return this.#forward(slot, packet, tick);
  }

  /** Anybody can send a SYN: a connection stays until the cookie in the answer comes back. */
  #isAnsweredAnyway(packet: Packet, interfaceIndex: number): boolean {
    if (!isPlainSyn(packet)) return false;
    const service = this.#find(packet, this.#marks.markOf(packet, interfaceIndex));
    return service !== undefined && isBehindProxy(service, packet);
  }

  /** True for a SYN, or the cookie that answers one, on a connection that may give way to a new one. */
  #beginsProxiedAnew(slot: number, packet: Packet, now: number): boolean {
    if (isPlainSyn(packet))
      return this.synProxy.reuses(slot) || this.#isQuiesced(this.connections.destination(slot));
    return isAcknowledgement(packet) && this.synProxy.isBegunAnew(packet, slot, now);
  }

  /** Sends a segment of the director's own to a connection's server, in the client's name. */
  #sendOwn(slot: number, packet: Packet): Outcome {
    const destination = this.connections.destination(slot);
    this.#countRequest(destination, packet);
    const outcome = this.#transmit(slot, packet, destination);
    this.connections.countPacket(slot);
    return outcome === DELIVER_LOCALLY ? Drop.noRoute : outcome;
  }

  /** Counts a packet from client to server. */
  #countRequest(destination: number, packet: Packet): void {
    if (destination < 0) return;
    const { counters } = this.pool;
    const at = destination * COUNTER_STRIDE;
    counters[at + Counter.inPackets] = (counters[at + Counter.inPackets] as number) + 1;
    counters[at + Counter.inBytes] =
      (counters[at + Counter.inBytes] as number) + (packet.networkEnd - packet.network);
  }

  /** Client to server on an existing connection. */
  #forward(slot: number, packet: Packet, tick: number): Verdict {
    const { connections } = this;
    const destination = connections.destination(slot);
    this.#countRequest(destination, packet);
    this.#advance(slot, TcpDirection.in, packet, tick);
    if (connections.flags(slot) & ConnectionFlag.helper) this.ftp.fromClient(packet, slot, tick);
    const outcome = this.#transmit(slot, packet, destination);
    if (outcome > Drop.none) this.#countRefusal(slot, outcome);
    connections.countPacket(slot);
    if (connections.flags(slot) & ConnectionFlag.onePacket) this.#lifecycle.expire(slot, tick);
    return this.#conclude(outcome);
  }

  /** Server to client. What cannot be sent on is neither counted nor moves the connection, as if it never came by. */
  #return(slot: number, packet: Packet, tick: number): Verdict {
    const flags = this.connections.flags(slot);
    if (isProxied(flags) && (packet.tcpFlags & TcpFlag.syn || isInHandshake(this.connections, slot))) {
      return this.#conclude(this.synProxy.fromServer(packet, slot, tick));
    }
    let outcome: Outcome = Drop.none;
    if (flags & ConnectionFlag.helper) outcome = this.ftp.fromServer(packet, slot, tick);
    if (outcome === Drop.none) {
      outcome =
        (flags & ConnectionFlag.forwarding) === Forwarding.fullnat
          ? this.fullnat.reply(packet, slot)
          : returnMasq(this.#way, packet, this.connections, slot);
    }
    if (outcome === Drop.none || outcome === DELIVER_LOCALLY) {
      this.#countReply(slot, packet.networkEnd - packet.network);
      this.#advance(slot, TcpDirection.out, packet, tick);
    }
    if (flags & ConnectionFlag.onePacket) this.#lifecycle.expire(slot, tick);
    return this.#conclude(outcome);
  }

  /** Counts a packet from server to client, unless its server was deleted (ip_vs_out_stats). */
  #countReply(slot: number, bytes: number): void {
    const destination = this.connections.destination(slot);
    if (destination < 0 || (this.destinations.flags(destination) & DestinationFlag.available) === 0) return;
    const { counters } = this.pool;
    const at = destination * COUNTER_STRIDE;
    counters[at + Counter.outPackets] = (counters[at + Counter.outPackets] as number) + 1;
    counters[at + Counter.outBytes] = (counters[at + Counter.outBytes] as number) + bytes;
  }

  /**
   * The error that a client got instead leaves through the output hook, where the packet it quotes is recognised as
   * one of the connection, unless addresses are translated or the connection is for one packet: it counts as a reply.
   */
  #countRefusal(slot: number, reason: number): void {
    if (reason !== Drop.noRoute && reason !== Drop.ttlExpired && reason !== Drop.tooBig) return;
    const flags = this.connections.flags(slot);
    if (isMasq(flags) || flags & ConnectionFlag.onePacket || this.#errors.lastLength === 0) return;
    this.#countReply(slot, this.#errors.lastLength);
  }

  #advance(slot: number, direction: number, packet: Packet, tick: number): void {
    if (packet.protocol === Protocol.tcp) this.#lifecycle.tcp(slot, direction, packet.tcpFlags, tick);
    else if (packet.protocol === Protocol.udp) this.#lifecycle.udp(slot, direction, tick);
    else {
      const event = sctpEvent(packet.view, packet.transport, packet.networkEnd);
      this.#lifecycle.sctp(slot, direction, event, tick);
    }
  }

  #transmit(slot: number, packet: Packet, destination: number): Outcome {
    switch (this.connections.flags(slot) & ConnectionFlag.forwarding) {
      case Forwarding.gate:
        return forwardGate(this.#way, packet, destination);
      case Forwarding.masq:
        return forwardMasq(this.#way, packet, this.connections, slot, destination);
      case Forwarding.fullnat:
        return this.fullnat.forward(packet, slot, destination);
      case Forwarding.tunnel:
        return forwardTunnel(this.#way, packet, destination, this.settings.pmtu_disc !== 0);
      case Forwarding.bypass:
        return forwardBypass(this.#way, packet);
      default:
        return DELIVER_LOCALLY;
    }
  }

  /** A SIP server's datagram that belongs to no connection may begin one. */
  #scheduleFromServer(packet: Packet, tick: number): number {
    if (packet.protocol !== Protocol.udp) return Refused.ignored;
    const server = this.administration.translatedServer(packet, SIP_ENGINE);
    return server ? this.#scheduling.scheduleFromServer(server, packet, tick) : Refused.ignored;
  }

  /** A first packet whose connection could not be entered: the XDP program may have entered it at the same moment. */
  #forwardAfterOther(packet: Packet, tick: number): Verdict {
    setKey(this.#key, packet);
    const slot = this.connections.find(this.#key, tick);
    return slot < 0 ? this.#drop(Drop.tableFull) : this.#forward(slot, packet, tick);
  }

  /** A packet of no connection: the first of a new one, or none of ours. */
  #schedule(packet: Packet, interfaceIndex: number, now: number, tick: number): Verdict {
    const mayBegin = this.#mayBegin(packet);
    // A SYN proxy wants to see every segment.
    const mayBeProxied = packet.protocol === Protocol.tcp && this.administration.proxied > 0;
    if (!mayBegin && !mayBeProxied) return Verdict.pass;
    const mark = this.#marks.markOf(packet, interfaceIndex);
    const service = this.#find(packet, mark);
    if (!service) return Verdict.pass;
    if (mayBeProxied && isBehindProxy(service, packet)) {
      return this.#proxy(service, packet, mark, now, tick);
    }
    if (!mayBegin) return Verdict.pass;
    if (this.defence.dropsPacket()) return this.#drop(Drop.overload);
    const slot = this.#scheduling.schedule(service, packet, mark, now, tick);
    if (slot >= 0) return this.#forward(slot, packet, tick);
    if (slot === Refused.ignored) return Verdict.pass;
    if (slot === Refused.dropped) return this.#forwardAfterOther(packet, tick);
    if (slot === Refused.noLocalPort) return this.#drop(Drop.noLocalPort);
    if (slot === Refused.noLocalAddress) return this.#drop(Drop.noLocalAddress);
    if (slot === Refused.engine) return this.#drop(Drop.engine);
    if (this.#isBypassed(service, packet)) return this.#bypass(packet, tick);
    return this.#leave(service, packet);
  }

  /** True for a packet that can be the first of a connection. */
  #mayBegin(packet: Packet): boolean {
    if (packet.protocol === Protocol.tcp) {
      if (packet.tcpFlags & TcpFlag.rst) return false;
      return (packet.tcpFlags & TcpFlag.syn) !== 0 || this.settings.sloppy_tcp !== 0;
    }
    if (packet.protocol === Protocol.sctp) {
      const chunk = sctpChunk(packet);
      if (chunk === SctpChunk.abort) return false;
      return chunk === SctpChunk.init || this.settings.sloppy_sctp !== 0;
    }
    return true;
  }

  #find(packet: Packet, mark: number): Service | undefined {
    return this.#index.find(
      mark,
      packet.family === 6 ? 6 : 4,
      packet.protocol,
      packet.bytes,
      packet.view,
      packet.destinationAt,
      packet.destinationPort,
    );
  }

  /** A segment of no connection to a service with a SYN proxy. None of them is the host's, which knows nothing of cookies. */
  #proxy(service: Service, packet: Packet, mark: number, now: number, tick: number): Verdict {
    if (isPlainSyn(packet)) {
      if (service.destinations.length === 0) return this.#leave(service, packet);
      if (this.defence.dropsPacket()) return this.#drop(Drop.overload);
      return this.#conclude(this.synProxy.answer(service, packet, now));
    }
    if (!isAcknowledgement(packet)) return this.#drop(Drop.synProxyStray);
    return this.#conclude(this.synProxy.accept(service, packet, mark, now, tick));
  }

  /** True for a packet without server that goes on to where it was addressed (`cache_bypass`). */
  #isBypassed(service: Service, packet: Packet): boolean {
    if (this.settings.cache_bypass === 0 || !('mark' in service.key)) return false;
    const { bytes, destinationAt } = packet;
    const first = bytes[destinationAt] as number;
    const isMulticast = packet.family === 4 ? first >= 224 : first === 0xff;
    return !isMulticast && !this.#network.isLocal(bytes, destinationAt, packet.family === 6 ? 6 : 4);
  }

  #bypass(packet: Packet, tick: number): Verdict {
    setKey(this.#key, packet);
    const slot = this.#lifecycle.create(this.#key, Forwarding.bypass, -1, 0, tick);
    return slot < 0 ? this.#drop(Drop.tableFull) : this.#forward(slot, packet, tick);
  }

  /** A connection for an ICMP error about a reply that belongs to none: a slot, or one of `Refused`. */
  #scheduleRelated(request: Packet, now: number, tick: number): number {
    if (this.settings.schedule_icmp === 0) return Refused.ignored;
    const service = this.#find(request, 0);
    // What has brought no cookie back gets no connection.
    if (!service || isBehindProxy(service, request)) return Refused.ignored;
    if (this.defence.dropsPacket()) return Refused.dropped;
    return this.#scheduling.schedule(service, request, 0, now, tick);
  }

  /** No server for a packet of a service: the client is told, never by a RST (ip_vs_leave). */
  #leave(service: Service, packet: Packet): Verdict {
    if (!('mark' in service.key) && service.key.port === 21 && packet.destinationPort !== 21)
      return Verdict.pass;
    if (packet.family === 4) this.#errors.send(packet, IcmpType.unreachable, UnreachableCode.port);
    else this.#errors.send(packet, Icmpv6Type.unreachable, Unreachable6Code.port);
    return this.#drop(Drop.noServer);
  }

  #conclude(outcome: Outcome): Verdict {
    if (outcome === Drop.none) return Verdict.taken;
    if (outcome === DELIVER_LOCALLY) return Verdict.pass;
    return this.#drop(outcome);
  }

  #drop(reason: Drop): Verdict {
    this.drops[reason] = (this.drops[reason] as number) + 1;
    return Verdict.dropped;
  }

  /**
   * Does what time demands: ends connections that ran out, estimates rates, forgets deleted servers, and asks for the
   * ways to the servers again. To be called about every second.
   * @param limit most connection records to look at in this call
   */
  expire(now: number, limit?: number): void {
    this.administration.now = now;
    const tick = this.connections.tick(now);
    this.administration.expireConnections(tick);
    this.#lifecycle.sweep(tick, limit);
    this.#applySettings();
    this.defence.run(now);
    this.synProxy.expire(now, tick);
    this.#locals.sweep(tick);
    this.pool.sweep(now);
    this.#expireFragments(now);
    if (now < this.#nextEstimate) {
      this.administration.estimateOn(ESTIMATES_AT_ONCE);
      return;
    }
    if (this.settings.run_estimation) this.administration.estimate(ESTIMATES_AT_ONCE);
    // In step with the clock, unless that was left behind.
    const period = ESTIMATION_PERIOD * 1000;
    this.#nextEstimate += period * (1 + Math.floor((now - this.#nextEstimate) / period));
  }

  /** Who sent a datagram of which only a part came learns it, if the director is where it was to end (RFC 1122 3.3.2). */
  #expireFragments(now: number): void {
    const expired = this.#fragments.expire(now, first => {
      const family = first.family === 6 ? 6 : 4;
      if (!this.#network.isLocal(first.bytes, first.destinationAt, family)) return;
      const type = family === 4 ? IcmpType.timeExceeded : Icmpv6Type.timeExceeded;
      this.#errors.send(first, type, TimeExceededCode.reassembly);
    });
    this.drops[Drop.fragmentTimeout] = (this.drops[Drop.fragmentTimeout] as number) + expired;
  }

  /** Writes what the network knows of next hops into the destinations; to be called when routes or neighbours changed. */
  resolveNextHops(): void {
    this.pool.resolveAll();
  }
}

/** Answers of `#admit` that are no slot. */
const Gone = { ended: -1, dropped: -2 } as const;

function isIcmp(packet: Packet): boolean {
  return packet.protocol === (packet.family === 4 ? Protocol.icmp : Protocol.icmpv6);
}

/** The type of an SCTP packet's first chunk. */
function sctpChunk(packet: Packet): number {
  return packet.view.getUint8(packet.transport + SCTP_HEADER);
}

/** True for a packet that begins a connection: a SYN, or SCTP's INIT. */
function isFirst(packet: Packet): boolean {
  if (packet.protocol === Protocol.sctp) return sctpChunk(packet) === SctpChunk.init;
  return (packet.tcpFlags & TcpFlag.syn) !== 0;
}

/** True for connections whose packets get other addresses. */
function isMasq(flags: number): boolean {
  const method = flags & ConnectionFlag.forwarding;
  return method === Forwarding.masq || method === Forwarding.fullnat;
}
