/** A host of the virtual LAN: interfaces, a small IP stack with Linux's habits, and what runs on it. */
import { sameAddress } from '../arp/local-addresses.ts';
import { isValid, type Neighbour } from '../arp/neighbours.ts';
import type { Network } from '../ipvs/network.ts';
import { formatAddress, parseAddress, parseMac } from '../wire/address.ts';
import { ETHERNET_HEADER, EtherType } from '../wire/ethernet.ts';
import { MALFORMED_NAMES, Malformed } from '../wire/malformed.ts';
import { Packet } from '../wire/packet.ts';
import { type FrameDirector, HostNetwork, PASS_WHOLE } from './director.ts';
import { type FetchOptions, fetchPage } from './http-client.ts';
import type { HttpResponse } from './http-message.ts';
import { IcmpLayer } from './icmp.ts';
import { Interface, isForStation, linkLocalAddress, scopeOf } from './interface.ts';
import { IpLayer } from './ip.ts';
import { Neighbourhood } from './neighbourhood.ts';
import { type PingOptions, type PingReport, ping } from './ping.ts';
import { NetworkError, networkOf, parsePrefix, RoutingTable } from './routes.ts';
import type { Segment } from './segment.ts';
import { type CommandHandler, type CommandResult, runCommandLine, STANDARD_COMMANDS } from './shell.ts';
import type { Simulation } from './simulation.ts';
import { Sysctls } from './sysctls.ts';
import { TcpLayer } from './tcp.ts';
import { UdpLayer } from './udp.ts';

export interface InterfaceOptions {
  /** As in `eth0`. */
  name: string;
  /** `00:0c:29:c7:5d:d3`. */
  mac: string;
  /** Left out: an interface without a cable. */
  segment?: Segment;
  /** Default 1500. */
  mtu?: number;
  /** `10.0.0.51/24` or `2001:db8::51/64`. */
  addresses?: readonly string[];
}

export class Host {
  readonly name: string;
  readonly simulation: Simulation;
  readonly interfaces: Interface[] = [];
  readonly routes = new RoutingTable();
  readonly sysctls = new Sysctls();
  readonly ip: IpLayer;
  readonly neighbourhood: Neighbourhood;
  readonly icmp: IcmpLayer;
  readonly udp: UdpLayer;
  readonly tcp: TcpLayer;
  /** Dropped packets by reason: names of `MALFORMED_NAMES` and of the stack's own (`martian-source`, `no-route`, …). */
  readonly dropped = new Map<string, number>();
  /** Packets forwarded. */
  forwarded = 0;
  /** Packets that the director took. */
  directed = 0;
  /** Names and their addresses, as in /etc/hosts. */
  readonly names = new Map<string, string>();
  /** What `cat` shows, by absolute path; /proc/sys is there besides. */
  readonly files = new Map<string, () => string>();
  /** Commands by name; add your own. */
  readonly commands = new Map<string, CommandHandler>(STANDARD_COMMANDS);
  #packet = new Packet();
  #sent: Packet | undefined;
  #network: HostNetwork;
  #director: FrameDirector | undefined;

  constructor(simulation: Simulation, name: string) {
    this.simulation = simulation;
    this.name = name;
    this.ip = new IpLayer(this);
    this.neighbourhood = new Neighbourhood(this);
    this.icmp = new IcmpLayer(this);
    this.udp = new UdpLayer(this);
    this.tcp = new TcpLayer(this);
    this.#network = new HostNetwork(this);
    this.#addLoopback();
  }

  /** Virtual time, ms. */
  get now(): number {
    return this.simulation.now;
  }

  get loopback(): Interface {
    return this.interfaces[0] as Interface;
  }

  /**
   * Adds an interface, up, with its IPv6 link-local address.
   * @throws NetworkError if the name is taken or an address is none
   */
  addInterface(options: InterfaceOptions): Interface {
    const mac = parseMac(options.mac);
    if (!mac) throw new NetworkError(`${options.mac} is not a MAC address`);
    const added = this.#add(options.name, mac, options.mtu ?? 1500);
    this.addAddress(added, linkLocalAddress(mac), 64);
    for (const text of options.addresses ?? []) {
      const [address, prefix] = parsePrefix(text);
      this.addAddress(added, address, prefix);
    }
    if (options.segment) added.plug(options.segment, this.name);
    return added;
  }

  interfaceNamed(name: string): Interface | undefined {
    return this.interfaces.find(each => each.name === name);
  }

  /** The interface with this index, 1 or more. */
  interfaceAt(index: number): Interface | undefined {
    return this.interfaces[index - 1];
  }

  /**
   * Adds an address with its connected route.
   * @param label default the interface's name
   * @throws NetworkError if the interface has it
   */
  addAddress(on: Interface, address: Uint8Array, prefix: number, label = on.name): void {
    if (!on.add(address, prefix, label, scopeOf(address)))
      throw new NetworkError(`ipv${address.length === 4 ? '4: A' : '6: a'}ddress already assigned.`);
    this.#addConnectedRoute(on, address, prefix);
    this.#network.routesChanged();
  }

  /**
   * Takes an address away, with its connected route.
   * @param prefix undefined takes it whatever its prefix length
   * @throws NetworkError if the interface has no such address
   */
  removeAddress(on: Interface, address: Uint8Array, prefix: number | undefined): void {
    const gone = on.remove(address, prefix);
    if (gone.length === 0)
      throw new NetworkError(`ipv${address.length === 4 ? '4: A' : '6: a'}ddress not found.`);
    for (const each of gone) {
      const stays = on.addresses.some(
        other =>
          other.prefix === each.prefix &&
          sameAddress(networkOf(other.address, other.prefix), networkOf(each.address, each.prefix)),
      );
      this.routes.remove(
        route =>
          route.interface === on &&
          route.origin === 'kernel' &&
          !stays &&
          route.prefix === each.prefix &&
          sameAddress(route.destination, networkOf(each.address, each.prefix)),
      );
    }
    // Without any address of a family the interface loses its routes of it (fib_disable_ip).
    const family = address.length === 4 ? 4 : 6;
    if (!on.addresses.some(each => each.family === family))
      this.routes.remove(route => route.interface === on && route.family === family);
    this.#network.routesChanged();
  }

  /**
   * Adds a route by hand.
   * @param destination `default`, `10.1.0.0/16` or `2001:db8::/32`
   * @throws NetworkError with the kernel's words
   */
  addRoute(destination: string, gateway: string | undefined, on?: Interface, metric?: number): void {
    const via = gateway === undefined ? undefined : parseAddress(gateway);
    if (gateway !== undefined && !via) throw new NetworkError(`${gateway} is not an IP address`);
    const family = via ? (via.length === 4 ? 4 : 6) : destination.includes(':') ? 6 : 4;
    const [address, prefix] =
      destination === 'default' ? [new Uint8Array(family === 4 ? 4 : 16), 0] : parsePrefix(destination);
    if (!sameAddress(networkOf(address, prefix), address))
      throw new NetworkError('Invalid prefix for given prefix length.');
    const way = via ? this.routes.find(via, on) : undefined;
    if (via && (!way || way.gateway)) throw new NetworkError('Nexthop has invalid gateway.');
    const out = on ?? way?.interface;
    if (!out) throw new NetworkError('No such device');
    if (!out.isUp) throw new NetworkError('Network is down');
    const added = this.routes.add({
      family,
      destination: address,
      prefix,
      gateway: via,
      interface: out,
      source: undefined,
      metric: metric ?? (family === 4 ? 0 : 1024),
      origin: 'static',
    });
    if (!added) throw new NetworkError('File exists');
    this.#network.routesChanged();
  }

  /**
   * Removes routes set by hand or connected ones.
   * @throws NetworkError if there is none
   */
  removeRoute(destination: string, gateway?: string): void {
    const via = gateway === undefined ? undefined : parseAddress(gateway);
    const isDefault = destination === 'default';
    const [address, prefix] = isDefault ? [undefined, 0] : parsePrefix(destination);
    const victim = [...this.routes.list(4), ...this.routes.list(6)].find(
      route =>
        route.prefix === prefix &&
        (!address || sameAddress(route.destination, address)) &&
        (!via || (route.gateway !== undefined && sameAddress(route.gateway, via))),
    );
    if (!victim) throw new NetworkError('No such process');
    this.routes.remove(route => route === victim);
    this.#network.routesChanged();
  }

  /** Takes an interface up or down; down it loses its routes and neighbours, as the kernel does. */
  setLink(on: Interface, up: boolean): void {
    if (on.isUp === up) return;
    on.setUp(up);
    if (up) {
      for (const each of on.addresses) this.#addConnectedRoute(on, each.address, each.prefix);
    } else {
      this.routes.remove(route => route.interface === on);
      for (const cache of [this.neighbourhood.arp, this.neighbourhood.discovery])
        for (const neighbour of [...cache.entries()])
          if (neighbour.interfaceIndex === on.index) cache.delete(neighbour);
    }
    this.#network.routesChanged();
  }

  /** Changes an interface's MTU; next hops follow. */
  setMtu(on: Interface, mtu: number): void {
    on.mtu = mtu;
    this.#network.routesChanged();
  }

  /**
   * True if packets to the address are for this host: an address of an interface that is up, all of 127.0.0.0/8, and on `lo`
   * the whole subnet of an address (so 10.0.0.3/24 on lo, where /32 was meant, makes all of 10.0.0.0/24 local).
   */
  isLocal(address: Uint8Array): boolean {
    for (const each of this.interfaces) {
      if (!each.isUp) continue;
      for (const local of each.addresses) {
        if (local.address.length !== address.length) continue;
        if (sameAddress(local.address, address)) return true;
        if (
          each.isLoopback &&
          address.length === 4 &&
          sameAddress(networkOf(address, local.prefix), networkOf(local.address, local.prefix))
        )
          return true;
      }
    }
    return false;
  }

  /** The address of a name or of an address itself, undefined if unknown. */
  resolve(name: string): string | undefined {
    const address = parseAddress(name);
    return address ? formatAddress(address) : this.names.get(name);
  }

  /**
   * Puts a director in front of the host's stack; the returned function takes it away.
   * @throws Error if there is one already
   */
  attachDirector(director: FrameDirector): () => void {
    if (this.#director) throw new Error(`${this.name} has a director already`);
    this.#director = director;
    const stop = this.simulation.every(1000, () => director.expire(this.now));
    return () => {
      stop();
      if (this.#director === director) this.#director = undefined;
    };
  }

  /** The host's routes and neighbours for a director. */
  network(): Network {
    return this.#network;
  }

  /** Fetches a page, as a browser or `curl` on this host would. See `fetchPage`. */
  fetch(url: string, options: FetchOptions = {}): Promise<HttpResponse> {
    return fetchPage(this, url, options);
  }

  /** Sends echo requests. See `ping`. */
  ping(address: string, options: PingOptions = {}): Promise<PingReport> {
    return ping(this, address, options);
  }

  /** Runs a command line as an operator would type it. See `shell.ts` for what is understood. */
  run(commandLine: string, stdin = ''): Promise<CommandResult> {
    return runCommandLine(this, commandLine, stdin);
  }

  /** Counts a dropped packet. */
  drop(reason: string): void {
    this.dropped.set(reason, (this.dropped.get(reason) ?? 0) + 1);
  }

  /** A transport saw that the way to an address works. */
  confirm(destination: Uint8Array): void {
    const route = this.routes.find(destination);
    if (route) this.neighbourhood.confirm(route.interface, route.gateway ?? destination);
  }

  /**
   * Shows a packet to the director, if there is one.
   * @returns the packet with which the host goes on, undefined if the director took it
   */
  direct(packet: Packet, on: Interface, routedOn: boolean): Packet | undefined {
    const director = this.#director;
    if (!director || on.isLoopback) return packet;
    const verdict = director.process(packet, on.index, this.now, routedOn);
    if (verdict === 0) return packet;
    if (verdict === PASS_WHOLE) return director.whole;
    this.directed++;
    return undefined;
  }

  /** Shows the director a frame of this host's own, whose packet it may translate in place. */
  directLocal(frame: Uint8Array): void {
    if (!this.#director?.processLocal) return;
    // Not the cursor of arrivals: this happens while that one is being looked at.
    this.#sent ??= new Packet();
    if (this.#sent.load(frame) !== Malformed.none) return;
    this.#director.processLocal(this.#sent, this.now);
    frame.set(this.#sent.bytes.subarray(this.#sent.start, this.#sent.start + frame.length));
  }

  /** A neighbour's entry changed: next hops follow. */
  neighbourChanged(neighbour: Neighbour): void {
    this.#network.neighbourChanged(neighbour);
  }

  /** The MAC this host has for an address on one of its links, undefined if it has none. */
  macOf(address: string): Uint8Array | undefined {
    const bytes = parseAddress(address);
    if (!bytes) return undefined;
    for (const each of this.interfaces) {
      const neighbour = this.neighbourhood.cacheOf(bytes).find(each.index, bytes);
      if (neighbour && isValid(neighbour)) return neighbour.mac;
    }
    return undefined;
  }

  #addLoopback(): void {
    const loopback = this.#add('lo', new Uint8Array(6), 65536);
    this.addAddress(loopback, Uint8Array.of(127, 0, 0, 1), 8);
    const one = new Uint8Array(16);
    one[15] = 1;
    this.addAddress(loopback, one, 128);
  }

  #add(name: string, mac: Uint8Array, mtu: number): Interface {
    if (this.interfaceNamed(name)) throw new NetworkError(`${this.name} has an interface ${name} already`);
    const index = this.interfaces.length + 1;
    const added: Interface = new Interface(this.simulation, index, name, mac, mtu, frame =>
      this.#receive(frame, added),
    );
    this.interfaces.push(added);
    this.sysctls.addInterface(name);
    return added;
  }

  #addConnectedRoute(on: Interface, address: Uint8Array, prefix: number): void {
    const isIpv4 = address.length === 4;
    if (on.isLoopback || (isIpv4 && prefix === 32) || (!isIpv4 && prefix === 128)) return;
    this.routes.add({
      family: isIpv4 ? 4 : 6,
      destination: networkOf(address, prefix),
      prefix,
      gateway: undefined,
      interface: on,
      source: isIpv4 ? address : undefined,
      metric: isIpv4 ? 0 : 256,
      origin: 'kernel',
    });
  }

  /** A frame has arrived on an interface. */
  #receive(frame: Uint8Array, on: Interface): void {
    if (frame.length < ETHERNET_HEADER) {
      this.drop(MALFORMED_NAMES[Malformed.frameTooShort] as string);
      return;
    }
    // What a switch floods for others is no fault and not counted.
    if (!isForStation(frame, on.mac)) return;
    const packet = this.#packet;
    const refused = packet.load(frame);
    if (refused !== Malformed.none) {
      this.drop(MALFORMED_NAMES[refused] as string);
      return;
    }
    if (packet.tags > 0) {
      this.drop('vlan');
      return;
    }
    if (packet.etherType === EtherType.arp) {
      if (!on.isLoopback) this.neighbourhood.receiveArp(packet, on);
      return;
    }
    if (packet.family === 0) {
      this.drop('ether-type');
      return;
    }
    this.ip.receive(packet, on);
  }
}
